//! A serving node: what the pipeline works with, put together by the composition root.
//!
//! Owns the parts and nothing else. Must never hold state of a call.

use std::sync::Arc;

use cofferdam_audit::Log;
use cofferdam_authz::{Authorizer, Identities};
use cofferdam_control::{ControlError, Meter};
use cofferdam_model::{Clock, Limits, Random};
use cofferdam_sandbox::Sandbox;
use tokio::sync::Semaphore;

use crate::audit::Tallies;
use crate::drain::Drain;
use crate::limits::Limiter;
use crate::live::Live;
use crate::metrics::Metrics;
use crate::receipts::Receipts;
use crate::sinks::Sinks;

/// Components that may be uploaded and held in memory at once.
const UPLOADS: usize = 2;
/// Bodies that may be held at once for their digest, each of up to 1 MiB.
const SIGNED: usize = 64;

/// What a node is made of.
pub struct Node {
    /// The node's limits.
    pub limits: Limits,
    /// Fields of requests that are recorded, in the order of their names.
    pub recorded: Vec<http::HeaderName>,
    /// The log.
    pub log: Log,
    /// Who is believed.
    pub identities: Identities,
    /// Who may.
    pub authorizer: Arc<Authorizer>,
    /// What exists.
    pub live: Live,
    /// Where the log is streamed to.
    pub sinks: Sinks,
    /// What was used.
    pub meter: Arc<Meter>,
    /// Where functions run.
    pub sandbox: Sandbox,
    /// How much anyone may ask.
    pub limiter: Limiter,
    /// Whether the node serves or stops.
    pub drain: Drain,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub random: Arc<dyn Random>,
    /// Uploads under way.
    pub uploads: Uploads,
    /// Whether the log's checkpoint and hash tiles are for whoever asks.
    pub public_tiles: bool,
    /// When answers carry receipts.
    pub receipts: Receipts,
    /// What has happened so far, in numbers.
    pub metrics: Arc<Metrics>,
    /// What the log is held against.
    pub tallies: Tallies,
}

impl Node {
    /// Has the keys of the node's own issuer believed, as they are by now. Blocks on the disk.
    pub fn hold_issuer_keys(&self) -> Result<(), ControlError> {
        let control = self.live.control();
        let Some(name) = control.own_issuer() else { return Ok(()) };
        let keys = control.issuer_keys()?;
        if let Err(error) = self.identities.hold_keys(name, keys.as_bytes()) {
            tracing::error!(%error, "keys of the node's own issuer are not believed");
        }
        Ok(())
    }
}

/// The bound on bodies held in memory: on components, and on those that have to be read before anyone is known.
pub struct Uploads(pub(crate) Semaphore, pub(crate) Semaphore);

impl Default for Uploads {
    fn default() -> Self {
        Self(Semaphore::new(UPLOADS), Semaphore::new(SIGNED))
    }
}
