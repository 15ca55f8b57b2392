//! How many cells may be alive at once.
//!
//! Owns the count. A place is held by a process until it is reaped, so that the bound is one on processes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

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

    /// Waits for a place.
    pub(crate) async fn wait(self: &Arc<Self>) -> Place {
        loop {
            let freed = self.freed.notified();
            if let Some(place) = self.take() {
                return place;
            }
            freed.await;
        }
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
