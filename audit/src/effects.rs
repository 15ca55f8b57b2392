//! What a call does to the outside while it runs, each thing in a record of its own.
//!
//! Owns `Effects`, the proof that a call's intent is in the log as durably as its level asks, without which there is
//! no effect, and `Effect`, the place in the log's queue for the record of one. Must never exist before the intent
//! does.

use std::fmt;

use cofferdam_model::{CallFacts, EgressFacts, Level, RequestId};

use crate::error::AuditError;
use crate::log::{Log, subject_of};
use crate::record;
use crate::shares::Reserved;

/// Leave to have effects: the intent of the call is recorded, and each thing it does begins with this.
#[derive(Clone)]
pub struct Effects {
    log: Log,
    request: RequestId,
    tenant: Option<String>,
    /// Whose key its records are sealed under.
    subject: Option<(String, String)>,
    level: Level,
}

impl Effects {
    pub(crate) fn new(log: Log, facts: CallFacts, level: Level) -> Self {
        let subject = subject_of(&facts).map(|(tenant, subject)| (tenant.to_owned(), subject.to_owned()));
        Self { log, request: facts.request, tenant: facts.tenant, subject, level }
    }

    /// Waits for a place for the record of one effect, without which it does not begin. Where a tenant's calls do more
    /// than the log can take, it is they who wait.
    pub async fn place(self) -> Result<Effect, AuditError> {
        let queue = &self.log.shared().queue;
        let reserved = queue.shares.reserve(self.tenant.as_deref().unwrap_or_default()).await;
        match reserved {
            Some(reserved) => Ok(Effect { effects: self, reserved }),
            None => Err(queue.why_closed()),
        }
    }
}

/// Leave for one effect, and the place for its record.
#[derive(Debug)]
pub struct Effect {
    effects: Effects,
    reserved: Reserved,
}

impl Effect {
    /// Records a request to the outside that is over. The record is queued; as the log keeps its order, whoever waits
    /// for the call's outcome waits for this too.
    pub fn egress(self, facts: &EgressFacts) -> Result<(), AuditError> {
        let Self { effects: Effects { log, request, tenant, subject, level }, reserved } = self;
        let encode = |stamp: &record::Stamp| {
            let subject = subject.as_ref().map(|(tenant, subject)| (tenant.as_str(), subject.as_str()));
            let stamp = log.shared().sealing_for(stamp, subject);
            record::egress(&stamp, request.as_str(), tenant.as_deref(), facts)
        };
        match level {
            Level::Relaxed => log.shared().queue_relaxed(encode, None),
            Level::Strict | Level::Standard => log.shared().queue_reserved(reserved, encode),
        }
    }
}

impl fmt::Debug for Effects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Effects").field("request", &self.request).finish_non_exhaustive()
    }
}
