//! Places in the queue for what calls do to the outside.
//!
//! Owns their number, and each tenant's share of it. A call may do much within one moment and end at once, so an effect
//! begins only with a place for its record: a burst waits here instead of filling the queue for everybody. Must never
//! let one tenant hold what all have.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// One tenant may hold this part of all places.
const PART: usize = 8;

/// A place, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Reserved {
    #[expect(dead_code, reason = "held for its drop")]
    own: OwnedSemaphorePermit,
    #[expect(dead_code, reason = "held for its drop")]
    all: OwnedSemaphorePermit,
}

/// The places.
pub(crate) struct Shares {
    all: Arc<Semaphore>,
    each: usize,
    /// Of the tenants that hold a place or wait for one.
    tenants: Mutex<HashMap<String, Weak<Semaphore>>>,
}

impl Shares {
    /// So many of them.
    pub(crate) fn new(places: usize) -> Self {
        let places = places.max(1);
        Self { all: Arc::new(Semaphore::new(places)), each: (places / PART).max(1), tenants: Mutex::default() }
    }

    /// Waits for a place of a tenant's; none once there are no more. Where the tenant has too many, only it waits.
    pub(crate) async fn reserve(&self, tenant: &str) -> Option<Reserved> {
        let own = self.share(tenant).acquire_owned().await.ok()?;
        let all = self.all.clone().acquire_owned().await.ok()?;
        Some(Reserved { own, all })
    }

    /// Gives no more of them.
    pub(crate) fn close(&self) {
        self.all.close();
    }

    fn share(&self, tenant: &str) -> Arc<Semaphore> {
        let mut tenants = self.tenants.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(share) = tenants.get(tenant).and_then(Weak::upgrade) {
            return share;
        }
        tenants.retain(|_, share| share.strong_count() > 0);
        let share = Arc::new(Semaphore::new(self.each));
        tenants.insert(tenant.to_owned(), Arc::downgrade(&share));
        share
    }
}
