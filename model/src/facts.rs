//! What is known about a call, as values that can be decided on and recorded.
//!
//! Owns the facts of a call before it runs (`CallFacts`), of how it ended (`OutcomeFacts`), and the two traits by
//! which `audit` reads them from things it does not know: a `Subject` opens an entry, a `Reply` closes it. Must
//! never hold a body, a credential or a secret.

use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::clock::UnixNanos;
use crate::digest::Digest;
use crate::id::{CellId, RequestId};
use crate::limits::FunctionLimits;

mod connection;
mod decision;
mod way;

pub use self::connection::{Circumstances, ConnectionFacts, Fields};
pub use self::decision::{DecisionFacts, GivenFacts, SetFacts, UseFacts};
pub use self::way::{LimitFacts, LimitScope, Step, Steps, Way};

macro_rules! names {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum $name { $($(#[$variant_doc])* #[serde(rename = $text)] $variant,)* }

        impl $name {
            /// The whole list.
            pub const ALL: &'static [$name] = &[$($name::$variant,)*];

            /// The name in records, problems and policies.
            pub fn as_str(self) -> &'static str {
                match self { $($name::$variant => $text,)* }
            }
        }
    };
}

pub(crate) use names;

names! {
    /// How durably a call is recorded before it takes effect.
    Level {
        /// Intent durable before the guest's first instruction, outcome before the answer.
        Strict = "strict",
        /// Intent durable before the first effect, outcome before the answer.
        Standard = "standard",
        /// Queued only, bounded; what is lost leaves a gap record.
        Relaxed = "relaxed",
    }
}

#[expect(
    clippy::derivable_impls,
    reason = "the list macro makes the enum, so the default cannot be an attribute on it"
)]
impl Default for Level {
    fn default() -> Self {
        Self::Standard
    }
}

names! {
    /// Version of TLS the call came in by.
    TlsVersion {
        /// TLS 1.2.
        Tls12 = "1.2",
        /// TLS 1.3.
        Tls13 = "1.3",
    }
}

names! {
    /// What kind of being a principal is.
    PrincipalKind {
        /// A person, known by an issuer's token.
        User = "user",
        /// A machine, known by a key or a certificate.
        ServiceAccount = "service_account",
        /// Nobody in particular, on a public route.
        Anonymous = "anonymous",
    }
}

names! {
    /// What a principal showed to be believed.
    CredentialKind {
        /// A signed token.
        Jwt = "jwt",
        /// An API key.
        ApiKey = "api_key",
        /// A signature of this very request, by an access key (AWS Signature Version 4).
        Sigv4 = "sigv4",
        /// A client certificate.
        Certificate = "certificate",
        /// A passphrase, shown to the node's own issuer.
        Passphrase = "passphrase",
        /// Nothing.
        None = "none",
    }
}

names! {
    /// How a caller proved, in this very call, to hold a key: what was merely shown can have been stolen on its way.
    Bound {
        /// Not at all: whoever has the credential can show it.
        None = "none",
        /// By its client certificate, whose key the handshake was signed with.
        Mtls = "mtls",
        /// By a signature over the request.
        Sigv4 = "sigv4",
    }
}

impl Bound {
    /// Whether nothing was proved.
    pub fn is_none(&self) -> bool {
        *self == Self::None
    }
}

#[expect(
    clippy::derivable_impls,
    reason = "the list macro makes the enum, so the default cannot be an attribute on it"
)]
impl Default for Bound {
    fn default() -> Self {
        Self::None
    }
}

names! {
    /// Whose policies settled a decision, from the widest to the narrowest.
    PolicyTier {
        /// The guard-rails, which hold for everybody.
        Platform = "platform",
        /// The ceiling of the organisation a tenant belongs to.
        Organisation = "organisation",
        /// The boundary operators set for one tenant.
        Boundary = "boundary",
        /// What the tenant grants, on top of the defaults; or what operators may.
        Tenant = "tenant",
        /// What the credential is good for at most.
        Session = "session",
    }
}

names! {
    /// Who is answerable for a status.
    Origin {
        /// Cofferdam itself.
        Platform = "platform",
        /// The tenant's function.
        Function = "function",
    }
}

names! {
    /// How a call ended.
    Ending {
        /// An answer was given in full.
        Answered = "answered",
        /// Refused before anything ran.
        Refused = "refused",
        /// The guest trapped.
        Trapped = "trapped",
        /// The guest returned without an answer, or with an unusable one.
        NoAnswer = "no_answer",
        /// CPU time used up.
        CpuExhausted = "cpu_exhausted",
        /// Wall time used up.
        WallExceeded = "wall_exceeded",
        /// Memory used up.
        MemoryExhausted = "memory_exhausted",
        /// Stack used up.
        StackExhausted = "stack_exhausted",
        /// More handles held than an instance may, its own or the host's for it.
        HandlesExhausted = "handles_exhausted",
        /// More passed to the host, or asked of it, than one call of it takes; or more fields than it holds.
        HostcallExhausted = "hostcall_exhausted",
        /// Answer larger than allowed.
        ResponseTooLarge = "response_too_large",
        /// The cell died.
        CellLost = "cell_lost",
        /// No cell could be had.
        Unavailable = "unavailable",
        /// The function's secrets could not be opened, so no cell could be filled.
        SecretsUnavailable = "secrets_unavailable",
        /// Too many calls at once.
        Overloaded = "overloaded",
        /// The client went away.
        ClientGone = "client_gone",
        /// The entry was dropped without a close: a defect of ours, made visible.
        Abandoned = "abandoned",
        /// The platform failed.
        PlatformFailed = "platform_failed",
        /// Not known: the node died in between. Written by recovery only.
        Unknown = "unknown",
    }
}

names! {
    /// How well a cell is jailed on this host.
    Isolation {
        /// Every layer the design asks for, and a control group of its own.
        Full = "full",
        /// Namespaces, no_new_privs and seccomp; something else is missing.
        Reduced = "reduced",
        /// Less than that.
        Minimal = "minimal",
    }
}

impl Isolation {
    /// This level, or the other one where that is less.
    #[must_use]
    pub fn at_most(self, other: Self) -> Self {
        let rank = |level| Self::ALL.iter().position(|each| *each == level);
        if rank(self) >= rank(other) { self } else { other }
    }

    /// Whether this is as much as is asked for.
    pub fn reaches(self, required: Self) -> bool {
        self.at_most(required) == required
    }
}

/// What a token says of the session it belongs to, beyond who and for how long. Empty where nothing is known: for
/// keys, and for nobody.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Session {
    /// What it is good for, in its issuer's words; absent where it is not limited so, which is not the same as none.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub scopes: Option<Vec<String>>,
    /// Whether more than one factor was shown to its issuer.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub mfa: bool,
    /// When its subject last proved who it is, seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub authenticated: Option<u64>,
    /// Who acts in the subject's stead (RFC 8693, `act`), as its issuer names it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub actor: Option<String>,
    /// The program it was issued to.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub client: Option<String>,
    /// For whom it is meant.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub audiences: Vec<String>,
    /// When it ends, seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub expires: Option<u64>,
}

impl Session {
    /// Whether it says anything a reader of the log would want to know of.
    pub fn tells(&self) -> bool {
        self.scopes.is_some()
            || self.mfa
            || self.authenticated.is_some()
            || self.actor.is_some()
            || self.client.is_some()
    }
}

/// A principal as the log names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrincipalFacts {
    /// Kind of being.
    pub kind: PrincipalKind,
    /// Subject within its issuer, or id of its key's account. `anonymous` for nobody.
    pub id: String,
    /// Issuer that vouches for it; absent for keys and for nobody.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub issuer: Option<String>,
    /// Tenant it belongs to; absent for nobody.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub tenant: Option<String>,
    /// What it showed.
    pub credential: CredentialKind,
    /// Which credential: `jti`, key id, or the name in a certificate, where there is one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub credential_id: Option<String>,
    /// How it proved to hold a key.
    #[serde(skip_serializing_if = "Bound::is_none", default)]
    pub bound: Bound,
    /// What its token says of the session.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub session: Option<Session>,
}

/// Everything known of a call before it runs. One flat piece so that a record can be read by eye.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallFacts {
    /// The call's id.
    pub request: RequestId,
    /// When its head was complete.
    pub at: UnixNanos,
    /// Address of the peer.
    pub source: IpAddr,
    /// TLS version.
    pub tls: TlsVersion,
    /// Method.
    pub method: Arc<str>,
    /// Host.
    pub host: Arc<str>,
    /// Canonical path, without query.
    pub path: Arc<str>,
    /// Tenant it happens in; absent where routing never got that far.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub tenant: Option<String>,
    /// Action; absent where routing never got that far.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub action: Option<String>,
    /// Resource id.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub resource: Option<String>,
    /// Route id.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub route: Option<String>,
    /// Function version.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub version: Option<String>,
    /// Digest of the component.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub component: Option<Digest>,
    /// What a change changes, beyond action and resource.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub detail: Option<String>,
    /// Who asked; absent where nobody was identified yet.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub principal: Option<PrincipalFacts>,
    /// What was decided; absent where nothing was yet.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub decision: Option<DecisionFacts>,
    /// What else is known of the connection it came by.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub connection: Option<Arc<ConnectionFacts>>,
    /// Those of its fields that the node is set to record.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub headers: Option<Fields>,
    /// What it may use, under every ceiling.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub limits: Option<Arc<FunctionLimits>>,
    /// What was decided of each secret the call's function is given; ends with the first that it is not.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub uses: Vec<UseFacts>,
}

impl CallFacts {
    /// The facts of a call of which only the circumstances are known.
    pub fn of(circumstances: &Circumstances) -> Self {
        Self {
            request: circumstances.request.clone(),
            at: circumstances.at,
            source: circumstances.source,
            tls: circumstances.tls,
            method: circumstances.method.clone(),
            host: circumstances.host.clone(),
            path: circumstances.path.clone(),
            tenant: None,
            action: None,
            resource: None,
            route: None,
            version: None,
            component: None,
            detail: None,
            principal: None,
            decision: None,
            connection: circumstances.connection.clone(),
            headers: circumstances.headers.clone(),
            limits: None,
            uses: Vec::new(),
        }
    }
}

/// What a call used. Filled from what the cell reports and what the gateway saw itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// CPU time of the guest and the host calls it made, microseconds.
    pub cpu_us: u64,
    /// Wall time from hand-over to the end, microseconds.
    pub wall_us: u64,
    /// Largest sum of the instance's memories and tables, bytes.
    pub memory_bytes: u64,
    /// Request body, bytes.
    pub bytes_in: u64,
    /// Answer body, bytes.
    pub bytes_out: u64,
    /// Log lines written, bytes.
    pub log_bytes: u64,
    /// Memory held over time, KiB x milliseconds: what each byte of the instance's memories and tables was held for.
    #[serde(default)]
    pub memory_kib_ms: u64,
    /// Requests made to the outside, refused ones included.
    #[serde(default)]
    pub egress_calls: u64,
    /// Bodies sent to the outside, bytes.
    #[serde(default)]
    pub egress_bytes_out: u64,
    /// Bodies received from the outside, bytes.
    #[serde(default)]
    pub egress_bytes_in: u64,
}

impl Usage {
    /// Nothing, also where the default cannot be asked for.
    pub const NONE: Self = Self {
        cpu_us: 0,
        wall_us: 0,
        memory_bytes: 0,
        bytes_in: 0,
        bytes_out: 0,
        log_bytes: 0,
        memory_kib_ms: 0,
        egress_calls: 0,
        egress_bytes_out: 0,
        egress_bytes_in: 0,
    };

    /// The sum, field by field. What does not fit stays at the most there is.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            cpu_us: self.cpu_us.saturating_add(other.cpu_us),
            wall_us: self.wall_us.saturating_add(other.wall_us),
            memory_bytes: self.memory_bytes.saturating_add(other.memory_bytes),
            bytes_in: self.bytes_in.saturating_add(other.bytes_in),
            bytes_out: self.bytes_out.saturating_add(other.bytes_out),
            log_bytes: self.log_bytes.saturating_add(other.log_bytes),
            memory_kib_ms: self.memory_kib_ms.saturating_add(other.memory_kib_ms),
            egress_calls: self.egress_calls.saturating_add(other.egress_calls),
            egress_bytes_out: self.egress_bytes_out.saturating_add(other.egress_bytes_out),
            egress_bytes_in: self.egress_bytes_in.saturating_add(other.egress_bytes_in),
        }
    }
}

/// How a call ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutcomeFacts {
    /// HTTP status answered.
    pub status: u16,
    /// Who is answerable for it.
    pub origin: Origin,
    /// How it ended.
    pub ending: Ending,
    /// Stable code of the refusal or failure, as the problem document gives it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub code: Option<String>,
    /// What it used.
    pub usage: Usage,
    /// SHA-256 of the answer's body, where it was held whole.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub body: Option<Digest>,
    /// Whether the body follows in a stream, with a closing record at its end.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub streamed: bool,
    /// Cell that ran it, and the how-manieth call it was there.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cell: Option<(CellId, u64)>,
    /// How well that cell was jailed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub isolation: Option<Isolation>,
    /// What is known of its way. Empty in records of earlier releases.
    #[serde(default)]
    pub way: Way,
}

/// Something an audit entry can be opened for: a permit, or a denial.
pub trait Subject {
    /// Everything known so far.
    fn facts(&self) -> CallFacts;
    /// How durably it must be recorded before it takes effect.
    fn level(&self) -> Level;
}

/// Something an audit entry can be closed with: an answer about to be given.
pub trait Reply {
    /// How the call ended.
    fn outcome(&self) -> OutcomeFacts;
}
