//! How many cells may be alive at once.
//!
//! Owns the count. A place is held by a process until it is reaped, so that the bound is one on processes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;
use tokio::sync::futures::Notified;

/// All places of a node.
pub(crate) struct Places {
    taken: AtomicUsize,
    most: usize,
    freed: Notify,
}

impl Places {
    pub(crate) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { taken: AtomicUsize::new(0), most, freed: Notify::new() })
    }

    /// Takes a place, if there is one.
    pub(crate) fn take(self: &Arc<Self>) -> Option<Place> {
        let more = |taken: usize| taken.checked_add(1).filter(|taken| *taken <= self.most);
        self.taken.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).ok()?;
        Some(Place(self.clone()))
    }

    /// Resolves once a place was freed, or something else changed, after this call.
    pub(crate) fn changed(&self) -> Notified<'_> {
        self.freed.notified()
    }

    /// Has those who wait look again.
    pub(crate) fn nudge(&self) {
        self.freed.notify_waiters();
    }

    /// Waits until nobody holds one.
    pub(crate) async fn empty(&self) {
        loop {
            let freed = self.freed.notified();
            if self.taken.load(Ordering::Acquire) == 0 {
                return;
            }
            freed.await;
        }
    }
}

/// One of them, until dropped.
pub(crate) struct Place(Arc<Places>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::AcqRel);
        self.0.freed.notify_waiters();
    }
}
