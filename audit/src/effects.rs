//! What a call does to the outside while it runs, each thing in a record of its own.
//!
//! Owns `Effects`, the proof that a call's intent is in the log as durably as its level asks, without which there is
//! no effect. Must never exist before the intent does.

use std::fmt;

use cofferdam_model::{EgressFacts, Level, RequestId};

use crate::error::AuditError;
use crate::log::Log;
use crate::record;

/// Leave to have effects: the intent of the call is recorded, and what it does is recorded through this.
#[derive(Clone)]
pub struct Effects {
    log: Log,
    request: RequestId,
    tenant: Option<String>,
    level: Level,
}

impl Effects {
    pub(crate) fn new(log: Log, request: RequestId, tenant: Option<String>, level: Level) -> Self {
        Self { log, request, tenant, level }
    }

    /// Records a request to the outside that is over. The record is queued; as the log keeps its order, whoever waits
    /// for the call's outcome waits for this too.
    pub fn egress(&self, facts: &EgressFacts) -> Result<(), AuditError> {
        let shared = self.log.shared();
        let encode =
            |stamp: &record::Stamp| record::egress(stamp, self.request.as_str(), self.tenant.as_deref(), facts);
        match self.level {
            Level::Relaxed => shared.queue_relaxed(encode),
            Level::Strict | Level::Standard => shared.queue_unawaited(encode),
        }
    }
}

impl fmt::Debug for Effects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Effects").field("request", &self.request).finish_non_exhaustive()
    }
}
