//! One cell of a function, and when it has to go.
//!
//! Owns what is known of a cell and the verdict on it. Must never act on a verdict for more than this one cell: what
//! takes its place is the group's business.

use std::sync::Arc;
use std::time::Duration;

use cofferdam_model::{Digest, FunctionLimits, Recycle, VersionId};

use super::{Cause, Cell};
use crate::config::Deployment;

/// What a cell must be for a call: version, generation and era.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) version: VersionId,
    pub(super) generation: u64,
    /// How often the function's cells had been told to go when the call came. What was asked for before that serves
    /// those who waited for it, and nobody who came after.
    pub(super) era: u64,
}

impl Key {
    /// Whether what kept one cell from starting keeps the other from it too.
    pub(super) fn is_alike(&self, other: &Self) -> bool {
        self.version == other.version && self.generation == other.generation
    }
}

/// Everything needed to make such a cell.
pub(super) struct Spec {
    pub(super) key: Key,
    pub(super) component: Digest,
    pub(super) limits: Arc<FunctionLimits>,
    pub(super) deployment: Deployment,
}

impl Spec {
    /// Calls one cell takes at once.
    pub(super) fn share(&self) -> u32 {
        self.limits.concurrency.div_ceil(self.limits.cells.max(1)).max(1)
    }
}

/// A cell of the function.
pub(super) struct Member {
    pub(super) cell: Arc<Cell>,
    pub(super) spec: Arc<Spec>,
    pub(super) load: u32,
    pub(super) served: u64,
    pub(super) born: Duration,
    pub(super) lifetime: Duration,
    pub(super) quiet_since: Duration,
    pub(super) soiled: bool,
    /// Memory it held when last looked at, in bytes.
    pub(super) resident: u64,
    /// Calls it had taken by then.
    pub(super) weighed: u64,
    /// Goes as soon as another one is there in its place.
    pub(super) leaving: bool,
    /// Takes no more calls, and goes with the last it has.
    pub(super) draining: bool,
}

/// What age and use ask of a cell.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Stay,
    Replace(Cause),
    Drain(Cause),
}

impl Verdict {
    /// Whether it comes of use alone, which a tenant can have as much of as it likes.
    pub(super) fn is_of_use(&self) -> bool {
        matches!(self, Self::Replace(Cause::Count | Cause::Memory) | Self::Drain(Cause::Count | Cause::Memory))
    }
}

/// Memory of a cell beside what its guests may hold: its own code, stacks and buffers.
const OVERHEAD: u64 = 64 * 1024 * 1024;

impl Member {
    pub(super) fn verdict(&self, now: Duration, newest: u64) -> Verdict {
        let recycle: &Recycle = &self.spec.deployment.recycle;
        let quiet = now.saturating_sub(self.quiet_since);
        if self.spec.key.generation < newest {
            return Verdict::Drain(Cause::Changed);
        }
        if self.soiled {
            return Verdict::Drain(Cause::Trap);
        }
        if self.load == 0 && quiet >= Duration::from_secs(recycle.idle_seconds) {
            return Verdict::Drain(Cause::Idle);
        }
        let cause = if self.served >= recycle.after_calls.max(1) {
            Cause::Count
        } else if now.saturating_sub(self.born) >= self.lifetime {
            Cause::Age
        } else if self.resident > self.heaviest() {
            Cause::Memory
        } else {
            return Verdict::Stay;
        };
        // A busy function should not have to wait for its next cell; a quiet one does not need it.
        if self.load == 0 && quiet >= Duration::from_secs(1) { Verdict::Drain(cause) } else { Verdict::Replace(cause) }
    }

    /// Bytes a cell may hold between calls. Where nobody said: twice what a call may use, and what it is made of.
    fn heaviest(&self) -> u64 {
        match self.spec.deployment.recycle.memory_bytes {
            0 => self.spec.limits.memory_bytes.saturating_mul(2).saturating_add(OVERHEAD),
            bytes => bytes,
        }
    }

    /// Takes no more calls.
    pub(super) fn drain(&mut self, cause: Cause) {
        self.cell.mark(cause);
        self.draining = true;
    }

    /// Whether another cell is to be ordered in its place.
    pub(super) fn carry_out(&mut self, verdict: &Verdict) -> bool {
        match verdict {
            Verdict::Stay => false,
            Verdict::Drain(cause) => {
                self.drain(*cause);
                false
            }
            Verdict::Replace(cause) => {
                self.cell.mark(*cause);
                !self.draining && !std::mem::replace(&mut self.leaving, true)
            }
        }
    }
}
