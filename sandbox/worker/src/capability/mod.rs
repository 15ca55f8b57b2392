//! Everything a guest can reach, in one list. What is not in it cannot be imported: the component does not load.
//!
//! A capability has one lifecycle: it is linked once, when the cell is loaded, and prepared anew for each call. Must
//! never hand a guest anything that outlives its call or is shared with another one.

mod clock;
mod denied;
mod env;
mod http_in;
mod http_out;
mod log;
mod random;

use std::sync::Arc;

use cofferdam_model::clock::Clock;
use cofferdam_model::random::Random;
use cofferdam_model::secret::Env;
use wasmtime::component::{HasData, Linker, ResourceTable};
use wasmtime_wasi_http::WasiHttpCtx;

pub(crate) use self::env::Exited;
pub(crate) use self::http_in::is_hop_by_hop;
pub(crate) use self::log::{STDERR, write_piece};
pub(crate) use self::random::TooMuch;
use crate::channel::Outbox;
use crate::fetch::Fetches;
use crate::limiter::Limiter;
use crate::state::CallState;

type Link = fn(&mut Linker<Host>) -> wasmtime::Result<()>;

/// The whole list: what it is, what a guest gets, and who gives it.
const REACHABLE: &[(&str, &str, Link)] = &[
    ("wasi:io/{error,poll,streams}", "streams and waiting, over what the entries below hand out", io),
    ("wasi:http/types", "the one request of this call and its answer", http_in::link),
    ("wasi:http/outgoing-handler", "requests the gateway makes in its stead, where rules allow them", http_out::link),
    ("wasi:cli/{environment,exit}", "the function's own environment; the end of the call", env::link),
    ("wasi:clocks/{wall-clock,monotonic-clock}", "time in steps of 1 ms, and waiting", clock::link),
    ("wasi:random/{random,insecure,insecure-seed}", "random bytes, at most 1 MiB at a time", random::link),
    ("wasi:cli/{stdin,stdout,stderr}", "the function's log, bounded; an empty input", log::link),
    ("wasi:cli/terminal-*", "nothing: there is no terminal", denied::link_terminal),
    ("wasi:filesystem/{preopens,types}", "nothing: there is no directory to start from", denied::link_filesystem),
    ("wasi:sockets/*", "nothing: sockets and names are denied", denied::link_sockets),
];

/// Links the whole list, once per cell.
pub(crate) fn link(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    REACHABLE.iter().try_for_each(|(name, _, link)| link(linker).map_err(|error| error.context(*name)))
}

/// What all calls of a cell take their capabilities from.
pub(crate) struct Source {
    /// The function's environment.
    pub(crate) env: Arc<Env>,
    /// What tells the time.
    pub(crate) clock: Arc<dyn Clock>,
    /// Where random bytes come from.
    pub(crate) random: Arc<dyn Random>,
    /// Where log frames go.
    pub(crate) outbox: Arc<Outbox>,
    /// Requests to the outside that are under way.
    pub(crate) fetches: Arc<Fetches>,
    sockets: denied::NoSockets,
}

impl Source {
    /// Gathers it.
    pub(crate) fn new(env: Env, clock: Arc<dyn Clock>, random: Arc<dyn Random>, outbox: Arc<Outbox>) -> Self {
        let (fetches, sockets) = Default::default();
        Self { env: Arc::new(env), clock, random, outbox, fetches, sockets }
    }
}

/// What one call's guest reaches through its store.
pub(crate) struct Host {
    /// The call's own bookkeeping.
    pub(crate) state: Arc<CallState>,
    /// Says yes or no to growth.
    pub(crate) limiter: Limiter,
    table: ResourceTable,
    http: WasiHttpCtx,
    egress: http_out::Egress,
    env: env::Environment,
    clock: clock::Coarse,
    random: random::Bounded,
    log: log::Log,
    files: denied::NoFiles,
    sockets: denied::NoSockets,
}

/// Resources one instance may have open at once, on either side of the boundary.
pub(crate) const HANDLES: usize = 4096;

impl Host {
    /// Prepares every capability for one call.
    pub(crate) fn prepare(source: &Source, state: Arc<CallState>) -> Self {
        let mut table = ResourceTable::new();
        table.set_max_capacity(HANDLES);
        Self {
            table,
            limiter: Limiter::new(state.limits.memory_bytes, source.clock.clone(), state.memory.clone()),
            http: http_in::context(),
            egress: http_out::Egress {
                asked: 0,
                most: state.limits.egress_calls,
                call: state.number,
                fetches: source.fetches.clone(),
                outbox: source.outbox.clone(),
            },
            env: env::Environment(source.env.clone()),
            clock: clock::Coarse(source.clock.clone()),
            random: random::Bounded(source.random.clone()),
            log: log::Log { state: state.clone(), outbox: source.outbox.clone() },
            files: denied::NoFiles::default(),
            sockets: source.sockets.clone(),
            state,
        }
    }

    /// Breaks off what the guest, which is over, has begun and not finished.
    pub(crate) fn cut_unfinished(&mut self) {
        http_in::cut_unfinished(&mut self.table);
    }
}

/// The resource table alone, which is all that `wasi:io` works on.
struct Table;

impl HasData for Table {
    type Data<'a> = &'a mut ResourceTable;
}

fn io(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    use wasmtime_wasi::p2::bindings::io::{error, poll, streams};
    error::add_to_linker::<Host, Table>(linker, |host| &mut host.table)?;
    poll::add_to_linker::<Host, Table>(linker, |host| &mut host.table)?;
    streams::add_to_linker::<Host, Table>(linker, |host| &mut host.table)
}

/// A capability and the table its resources live in.
struct With<'a, C> {
    capability: &'a mut C,
    table: &'a mut ResourceTable,
}

#[cfg(test)]
#[path = "../../../interfaces.rs"]
mod interfaces;

#[cfg(test)]
mod tests {
    use wasmtime::Engine;

    use super::*;
    use crate::profile;

    /// Something each interface has, in the order of the list.
    const MEMBERS: &[&str] = &[
        "get-environment",
        "exit",
        "get-stderr",
        "get-stdin",
        "get-stdout",
        "terminal-input",
        "terminal-output",
        "get-terminal-stderr",
        "get-terminal-stdin",
        "get-terminal-stdout",
        "now",
        "now",
        "get-directories",
        "filesystem-error-code",
        "handle",
        "http-error-code",
        "error",
        "poll",
        "input-stream",
        "get-insecure-random-u64",
        "insecure-seed",
        "get-random-u64",
        "instance-network",
        "resolve-addresses",
        "network",
        "tcp-socket",
        "create-tcp-socket",
        "udp-socket",
        "create-udp-socket",
    ];

    #[test]
    fn every_interface_that_is_given_is_linked_and_no_other() {
        let engine = Engine::new(&profile::config()).unwrap();
        // What is defined cannot be defined again, and the engine links each interface by one version of its own.
        let has = |interface: &str, member: &str| {
            let mut linker = Linker::new(&engine);
            link(&mut linker).unwrap();
            (0..=20).any(|patch| {
                let mut instance = linker.instance(&format!("{interface}@0.2.{patch}")).unwrap();
                instance.func_wrap(member, |_, (): ()| Ok(())).is_err()
            })
        };
        assert_eq!(interfaces::GIVEN.len(), MEMBERS.len());
        for (interface, member) in interfaces::GIVEN.iter().zip(MEMBERS) {
            assert!(has(interface, member), "{interface} is promised and has no {member}");
            assert!(!has(interface, "strange"), "{interface}");
        }
        for (other, member) in [("wasi:clocks/timezone", "display"), ("wasi:keyvalue/store", "open")] {
            assert!(!has(other, member) && !interfaces::GIVEN.contains(&other), "{other}");
        }
    }
}
