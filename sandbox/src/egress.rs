//! A function's way out: what it asks of the outside, and what does it in its stead.
//!
//! Owns the shapes of such a request, and the `Attempt`, which is its record in the making. Must never open a socket
//! or resolve a name: that is the outlet's work, and an outlet can do none of it without an attempt.

use std::fmt;
use std::future::Future;
use std::net::IpAddr;
use std::ops::Range;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use cofferdam_audit::Effect;
use cofferdam_authz::Errand;
use cofferdam_model::{Clock, DecisionFacts, EgressEnd, EgressFacts, TlsVersion};
use http::{HeaderMap, Method, Response};

/// Why a request to the outside came to nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct EgressError {
    /// What the record and the function are told.
    pub ending: EgressEnd,
    /// What an operator is told besides. Never a secret.
    pub reason: String,
}

impl EgressError {
    /// An error.
    pub fn new(ending: EgressEnd, reason: impl Into<String>) -> Self {
        Self { ending, reason: reason.into() }
    }
}

/// Body of a request, as the function writes it. It breaks off where the function does.
pub type OutgoingBody = Pin<Box<dyn http_body::Body<Data = Bytes, Error = EgressError> + Send>>;
/// Body of an answer, as the outside gives it.
pub type IncomingBody = Pin<Box<dyn http_body::Body<Data = Bytes, Error = EgressError> + Send>>;

/// How long a function wants to wait. An outlet waits no longer, and by its own limits perhaps less.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Patience {
    /// For a connection.
    pub connect: Option<Duration>,
    /// For the head of the answer.
    pub first_byte: Option<Duration>,
    /// For each next piece of its body.
    pub between_bytes: Option<Duration>,
}

/// A request to the outside, every part of it a stranger's.
pub struct Outgoing {
    /// Method.
    pub method: Method,
    /// Whether over TLS.
    pub tls: bool,
    /// Host and perhaps port, as the function wrote it.
    pub authority: String,
    /// Path and query.
    pub target: String,
    /// Header fields.
    pub headers: HeaderMap,
    /// How long to wait.
    pub patience: Patience,
    /// The function at work, on whose behalf it is.
    pub errand: Option<Arc<Errand>>,
    /// The body.
    pub body: OutgoingBody,
}

/// What an outlet's work gives in the end.
pub type Sent<'a> = Pin<Box<dyn Future<Output = Result<Response<IncomingBody>, EgressError>> + Send + 'a>>;

/// The way out of one cell. Connections it keeps are that cell's alone and end with it.
pub trait Outlet: Send + Sync {
    /// Makes a request, if it may be made, and tells the attempt what it finds out. Dropping the future, or the
    /// answer's body, ends the request.
    fn send<'a>(&'a self, outgoing: Outgoing, attempt: &'a Attempt) -> Sent<'a>;

    /// What stands at `own` in a text of the function's log, with the values blotted out that the function was never to
    /// hold. They are looked for in the whole text, of which the rest may be in other lines.
    fn redact(&self, text: &[u8], own: Range<usize>) -> Vec<u8>;

    /// Bytes of the longest of those values, in the longest form that is looked for.
    fn longest_redacted(&self) -> usize;
}

/// The way out of a function that has none.
pub(crate) struct NoOutlet;

impl Outlet for NoOutlet {
    fn send<'a>(&'a self, _: Outgoing, _: &'a Attempt) -> Sent<'a> {
        let denied = EgressError::new(EgressEnd::DeniedByRule, "the function has no egress rules");
        Box::pin(std::future::ready(Err(denied)))
    }

    fn redact(&self, text: &[u8], own: Range<usize>) -> Vec<u8> {
        text.get(own).unwrap_or_default().to_vec()
    }

    fn longest_redacted(&self) -> usize {
        0
    }
}

/// Opens the way out for a new cell. Called off the hot path; may block, as it may unseal what is to be injected.
pub type OpenOutlet = Arc<dyn Fn() -> Result<Arc<dyn Outlet>, crate::error::BoxError> + Send + Sync>;

/// One request to the outside: its record in the making. Recorded once, at the latest when it is dropped.
pub struct Attempt {
    clock: Arc<dyn Clock>,
    begun: Duration,
    open: Mutex<Option<(Effect, EgressFacts)>>,
}

impl Attempt {
    /// Begins one. Having the effect proves that the call's intent is recorded, and that there is a place for the
    /// record of this.
    pub fn begin(effect: Effect, clock: Arc<dyn Clock>, number: u32, method: &Method, authority: &str) -> Self {
        let facts = EgressFacts {
            number,
            method: method.as_str().to_owned(),
            host: authority.to_owned(),
            port: 0,
            rule: None,
            decision: None,
            address: None,
            tls: None,
            credential: None,
            status: None,
            ending: EgressEnd::Cut,
            bytes_out: 0,
            bytes_in: 0,
            wall_us: 0,
        };
        let begun = clock.monotonic();
        Self { clock, begun, open: Mutex::new(Some((effect, facts))) }
    }

    /// To whom, once that is understood.
    pub fn target(&self, host: &str, port: u16) {
        self.with(|facts| (facts.host, facts.port) = (host.to_owned(), port));
    }

    /// The rule that allows it.
    pub fn rule(&self, rule: &str) {
        self.with(|facts| facts.rule = Some(rule.to_owned()));
    }

    /// Whether the function's workload may make it, and why.
    pub fn decided(&self, decision: DecisionFacts) {
        self.with(|facts| facts.decision = Some(Box::new(decision)));
    }

    /// The address it goes to.
    pub fn address(&self, address: IpAddr) {
        self.with(|facts| facts.address = Some(address));
    }

    /// The version of TLS it goes by.
    pub fn tls(&self, version: TlsVersion) {
        self.with(|facts| facts.tls = Some(version));
    }

    /// Name of the secret whose value is added to it.
    pub fn credential(&self, secret: &str) {
        self.with(|facts| facts.credential = Some(secret.to_owned()));
    }

    /// Status answered.
    pub(crate) fn status(&self, status: u16) {
        self.with(|facts| facts.status = Some(status));
    }

    /// Body sent, in all.
    pub(crate) fn sent(&self, bytes: u64) {
        self.with(|facts| facts.bytes_out = bytes);
    }

    /// Body received, in all.
    pub(crate) fn received(&self, bytes: u64) {
        self.with(|facts| facts.bytes_in = bytes);
    }

    /// Records how it ended. What comes after the first time is not heard.
    pub fn finish(&self, ending: EgressEnd) {
        let Some((effect, mut facts)) = self.lock().take() else { return };
        facts.ending = ending;
        facts.wall_us =
            u64::try_from(self.clock.monotonic().saturating_sub(self.begun).as_micros()).unwrap_or(u64::MAX);
        if let Err(error) = effect.egress(&facts) {
            tracing::error!(%error, ?facts, "a request to the outside could not be recorded");
        }
    }

    fn with(&self, change: impl FnOnce(&mut EgressFacts)) {
        if let Some((_, facts)) = self.lock().as_mut() {
            change(facts);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<(Effect, EgressFacts)>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        self.finish(EgressEnd::Cut);
    }
}

impl fmt::Debug for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attempt").field("begun", &self.begun).finish_non_exhaustive()
    }
}
