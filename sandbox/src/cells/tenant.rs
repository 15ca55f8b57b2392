//! What all functions of one tenant have under way together.
//!
//! Owns the tenant's count of calls and of those among them that wait. Counts only: no lock is taken on a call's way.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use cofferdam_model::TenantId;

/// One tenant's calls.
pub(super) struct Tenant {
    pub(super) id: TenantId,
    calls: AtomicU32,
    waiting: AtomicU32,
}

impl Tenant {
    pub(super) fn new(id: TenantId) -> Arc<Self> {
        Arc::new(Self { id, calls: AtomicU32::new(0), waiting: AtomicU32::new(0) })
    }

    /// Counts a call, if it is not one too many.
    pub(super) fn enter(self: &Arc<Self>, most: u32) -> Option<Pass> {
        raise(&self.calls, most.max(1)).then(|| Pass(self.clone()))
    }

    /// Counts a call that has to wait, if it is not one too many.
    pub(super) fn queue(self: &Arc<Self>, most: u32) -> Option<Queued> {
        raise(&self.waiting, most).then(|| Queued(self.clone()))
    }
}

fn raise(count: &AtomicU32, most: u32) -> bool {
    let more = |now: u32| now.checked_add(1).filter(|now| *now <= most);
    count.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).is_ok()
}

/// A call among those its tenant may have under way, until dropped.
pub(super) struct Pass(Arc<Tenant>);

impl Drop for Pass {
    fn drop(&mut self) {
        self.0.calls.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A call among those of its tenant that may wait, until dropped.
pub(super) struct Queued(Arc<Tenant>);

impl Drop for Queued {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}
