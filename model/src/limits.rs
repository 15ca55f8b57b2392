//! Every limit in one place, unit in its name, with what happens at it.
//!
//! `Limits` is the node's; `FunctionLimits` a function's own, under the node's ceiling. Must never be scattered: a
//! number that bounds untrusted input belongs here.

use serde::{Deserialize, Serialize};

/// A token bucket: `per_second` on average, `burst` at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// Sustained requests per second, at least 1.
    pub per_second: u32,
    /// Requests that may come at once, at least 1.
    pub burst: u32,
}

macro_rules! limits {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty = $default:expr,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct $name {
            $($(#[$field_doc])* pub $field: $type,)*
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $($field: $default,)* }
            }
        }
    };
}

limits! {
    /// What one node accepts before it says no. Defaults suit a machine of two cores and a few GiB.
    Limits {
        /// Open connections in all; further ones are closed at accept.
        connections: usize = 4096,
        /// Open connections of one address (/32) or network (/64); further ones are closed at accept.
        connections_per_source: usize = 512,
        /// TLS handshakes under way at once; further ones wait in the accept queue.
        handshakes: usize = 64,
        /// A handshake longer than this is cut.
        handshake_ms: u64 = 10_000,
        /// A head that takes longer than this is cut.
        head_ms: u64 = 10_000,
        /// A request body that brings no byte for this long is cut with 408.
        body_idle_ms: u64 = 10_000,
        /// A client that takes no byte of its answer for this long is cut.
        write_idle_ms: u64 = 15_000,
        /// A connection without a request under way for this long is closed.
        idle_ms: u64 = 75_000,
        /// Bytes of all header fields of a request; above: 431.
        header_bytes: usize = 32 * 1024,
        /// Number of header fields of a request; above: 431.
        header_count: usize = 100,
        /// Bytes of the request target; above: 414.
        uri_bytes: usize = 8 * 1024,
        /// Bytes of a request body unless the route says less; above: 413.
        body_bytes: u64 = 8 * 1024 * 1024,
        /// Bytes of an uploaded component; above: 413.
        component_bytes: u64 = 64 * 1024 * 1024,
        /// Streams of one HTTP/2 connection at once.
        h2_streams: u32 = 100,
        /// Requests one connection may carry before it is closed.
        requests_per_connection: u64 = 100_000,
        /// Calls under way at once on the node; above: 503 with `Retry-After`.
        calls: usize = 4096,
        /// Time a drain waits for calls under way before it cuts them.
        drain_ms: u64 = 20_000,
        /// Keys the rate limiter remembers; past it the oldest state is replaced by a conservative one.
        limiter_keys: usize = 65_536,
        /// Requests of one source address (/32, /64).
        per_source: Rate = Rate { per_second: 500, burst: 1000 },
        /// Requests of one authenticated principal.
        per_principal: Rate = Rate { per_second: 500, burst: 1000 },
        /// Requests of one tenant, all principals together.
        per_tenant: Rate = Rate { per_second: 2000, burst: 4000 },
        /// Bytes of a bearer token or API key; above: 401.
        credential_bytes: usize = 8 * 1024,
        /// Answers up to this size are held until their one record is durable; larger ones stream.
        buffered_answer_bytes: usize = 64 * 1024,
        /// Cells alive at once.
        cells: usize = 256,
        /// Blank, jailed cells kept waiting.
        blank_cells: usize = 2,
        /// Compiles under way at once.
        compiles: usize = 1,
        /// Compiles that may wait for their turn; further uploads are refused with 503.
        queued_compiles: usize = 8,
        /// A compile longer than this is killed.
        compile_ms: u64 = 60_000,
        /// Bytes of all components and artifacts stored; a further component is refused, so that uploads cannot take
        /// the room the log needs.
        artifact_store_bytes: u64 = 8 * 1024 * 1024 * 1024,
        /// Bytes of machine code one compile may give.
        artifact_bytes: u64 = 512 * 1024 * 1024,
        /// A cell that is not jailed, or has not loaded its version, after this long is killed.
        cell_start_ms: u64 = 10_000,
        /// Calls of one function that may wait for a cell; further ones get 429.
        queued_calls: usize = 256,
        /// A call that waited this long for a cell gets 429.
        queue_ms: u64 = 5_000,
        /// Bytes of a function's log file; one older file of the same size is kept.
        log_file_bytes: u64 = 8 * 1024 * 1024,
        /// What one tenant may use, unless an operator has set something else for it.
        tenant: TenantLimits = TenantLimits::default(),
        /// Bytes of log one function may write per second, over some seconds; the rest is counted and dropped.
        log_bytes_per_second: u64 = 256 * 1024,
    }
}

limits! {
    /// What one call of a function may use. Each is enforced in the cell, and again outside it.
    FunctionLimits {
        /// Linear memories and tables of one instance, in bytes, summed. Beyond: the growth fails or the call ends
        /// with `memory_exhausted`.
        memory_bytes: u64 = 64 * 1024 * 1024,
        /// CPU time of one call. Beyond: `cpu_exhausted`.
        cpu_ms: u64 = 1_000,
        /// Wall time of one call until its last byte. Beyond: `wall_exceeded`.
        wall_ms: u64 = 10_000,
        /// Calls under way at once in all cells of the function. Beyond: 429.
        concurrency: u32 = 64,
        /// Bytes of a request body.
        request_bytes: u64 = 8 * 1024 * 1024,
        /// Bytes of an answer's body. Beyond: the answer is cut and recorded so.
        response_bytes: u64 = 32 * 1024 * 1024,
        /// Bytes of an answer's header fields, summed.
        response_header_bytes: u32 = 32 * 1024,
        /// Bytes of log one call may write; the rest is counted and dropped.
        log_bytes: u64 = 64 * 1024,
        /// Cells this function may have at once.
        cells: u32 = 2,
        /// Requests one call may make to the outside. Beyond: the request is refused, the call goes on.
        egress_calls: u32 = 16,
        /// Bytes of all bodies one call sends to and receives from the outside. Beyond: the request is cut.
        egress_bytes: u64 = 8 * 1024 * 1024,
    }
}

limits! {
    /// What all functions of one tenant may use together. An operator sets it for a tenant; unset, the node's default
    /// holds.
    TenantLimits {
        /// Cells alive at once. Beyond: calls wait for one of the tenant's own to be free, or get 429.
        cells: u32 = 32,
        /// Calls under way at once, waiting ones included. Beyond: 429.
        concurrency: u32 = 512,
        /// Calls that may wait for a cell. Beyond: 429.
        queued_calls: u32 = 256,
        /// Functions. Beyond: the change is refused.
        functions: u32 = 200,
        /// Bytes of components and artifacts stored. Beyond: the upload is refused.
        stored_bytes: u64 = 1024 * 1024 * 1024,
        /// Connections to the outside at once. Beyond: the request waits for one within its deadline.
        egress_connections: u32 = 64,
        /// Requests to the outside. Beyond: the request waits for its turn within its deadline.
        egress_requests: Rate = Rate { per_second: 1000, burst: 1000 },
    }
}

impl FunctionLimits {
    /// The lower of each limit of `self` and `ceiling`.
    pub fn under(&self, ceiling: &Self) -> Self {
        Self {
            memory_bytes: self.memory_bytes.min(ceiling.memory_bytes),
            cpu_ms: self.cpu_ms.min(ceiling.cpu_ms),
            wall_ms: self.wall_ms.min(ceiling.wall_ms),
            concurrency: self.concurrency.min(ceiling.concurrency),
            request_bytes: self.request_bytes.min(ceiling.request_bytes),
            response_bytes: self.response_bytes.min(ceiling.response_bytes),
            response_header_bytes: self.response_header_bytes.min(ceiling.response_header_bytes),
            log_bytes: self.log_bytes.min(ceiling.log_bytes),
            cells: self.cells.min(ceiling.cells),
            egress_calls: self.egress_calls.min(ceiling.egress_calls),
            egress_bytes: self.egress_bytes.min(ceiling.egress_bytes),
        }
    }

    /// The most a tenant may ask for, unless the operator's configuration says otherwise.
    pub fn ceiling() -> Self {
        Self {
            memory_bytes: 512 * 1024 * 1024,
            cpu_ms: 30_000,
            wall_ms: 60_000,
            concurrency: 512,
            request_bytes: 64 * 1024 * 1024,
            response_bytes: 256 * 1024 * 1024,
            response_header_bytes: 64 * 1024,
            log_bytes: 1024 * 1024,
            cells: 8,
            egress_calls: 256,
            egress_bytes: 256 * 1024 * 1024,
        }
    }
}

/// What one component may be made of. The compiler refuses more, and a cell's pool is sized by it.
pub mod component {
    /// Core instances.
    pub const CORE_INSTANCES: u32 = 64;
    /// Linear memories.
    pub const MEMORIES: u32 = 4;
    /// Tables.
    pub const TABLES: u32 = 32;
    /// Tables of one module.
    pub const TABLES_PER_MODULE: u32 = 4;
    /// Elements a table may start with or grow to.
    pub const TABLE_ELEMENTS: u64 = 100_000;
    /// Imports.
    pub const IMPORTS: u64 = 256;
    /// Modules and components, nested ones included.
    pub const DEFINITIONS: u64 = 256;
    /// Modules and components within each other.
    pub const DEPTH: u64 = 16;
    /// Instances of modules and components, where each instantiation of a component counts what is in it.
    pub const INSTANCES: u64 = 1000;
    /// Functions of all modules.
    pub const FUNCTIONS: u64 = 100_000;
    /// Bytes of one function: what a compiler needs for one can grow with the square of it.
    pub const FUNCTION_BYTES: u64 = 1024 * 1024;
    /// Locals of one function.
    pub const LOCALS: u64 = 10_000;
    /// Types of one module.
    pub const TYPES: u64 = 20_000;
}
