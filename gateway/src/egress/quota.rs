//! How much there is at once: connections of one tenant's functions on this node, those of all, and turns to ask.
//!
//! Owns the counts, and whose idle connection makes room for a new one. Must never let a tenant wait for another.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use cofferdam_model::{Rate, TenantId};
use tokio::sync::Notify;

use super::pace::Pace;
use super::pool::Pool;

/// The tenants that have a way out open.
pub(super) struct Tenants {
    most: usize,
    used: AtomicUsize,
    known: Mutex<HashMap<TenantId, Weak<Tenant>>>,
}

impl Tenants {
    /// So many connections in all.
    pub(super) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, used: AtomicUsize::new(0), known: Mutex::default() })
    }

    /// A tenant, and how many connections and how frequent requests it may have from now on.
    pub(super) fn enter(self: &Arc<Self>, id: &TenantId, connections: u32, requests: Rate) -> Arc<Tenant> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, tenant| tenant.strong_count() > 0);
        let tenant = known.get(id).and_then(Weak::upgrade).unwrap_or_else(|| {
            let tenant = Arc::new(Tenant {
                all: self.clone(),
                state: Mutex::new(State { used: 0, limit: connections, rate: requests, pools: Vec::new() }),
                freed: Notify::new(),
                waiting: AtomicUsize::new(0),
                pace: Pace::default(),
            });
            known.insert(id.clone(), Arc::downgrade(&tenant));
            tenant
        });
        drop(known);
        {
            let mut state = tenant.lock();
            (state.limit, state.rate) = (connections, requests);
        }
        // A larger number may be what those who wait are waiting for.
        tenant.freed.notify_waiters();
        tenant
    }

    fn take(&self) -> bool {
        let one_more = |used| (used < self.most).then_some(used + 1);
        self.used.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_more).is_ok()
    }

    /// Closes the connection that has been idle for longest, whoever's it is.
    fn make_room(&self) -> bool {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let tenants: Vec<Arc<Tenant>> = known.values().filter_map(Weak::upgrade).collect();
        drop(known);
        close_oldest(tenants.iter().flat_map(|tenant| tenant.pools()))
    }
}

/// The connections of one tenant.
pub(super) struct Tenant {
    all: Arc<Tenants>,
    state: Mutex<State>,
    freed: Notify,
    waiting: AtomicUsize,
    pace: Pace,
}

struct State {
    used: u32,
    limit: u32,
    rate: Rate,
    pools: Vec<Weak<Pool>>,
}

/// A place among them, for as long as it lives.
pub(super) struct Place(Arc<Tenant>);

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.used = state.used.saturating_sub(1);
        drop(state);
        self.0.all.used.fetch_sub(1, Ordering::SeqCst);
        self.0.freed.notify_one();
    }
}

/// Whose places are all taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Full {
    /// The tenant's.
    Tenant,
    /// Those of the node as a whole.
    Node,
}

/// Somebody waits for a place.
struct Waiting<'a>(&'a Tenant);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Tenant {
    /// Counts the idle connections of a pool among the tenant's.
    pub(super) fn adopt(&self, pool: &Arc<Pool>) {
        let mut state = self.lock();
        state.pools.retain(|pool| pool.strong_count() > 0);
        state.pools.push(Arc::downgrade(pool));
    }

    /// How long a request has to wait for its turn, or none if that is longer than it may.
    pub(super) fn turn(&self, now: Duration, patience: Duration) -> Option<Duration> {
        let rate = self.lock().rate;
        self.pace.turn(rate, now, patience)
    }

    /// Waits for a place among the tenant's, closing an idle connection of it where that gives one. None when the node
    /// as a whole has none to give, for which nobody waits.
    pub(super) async fn place(self: &Arc<Self>) -> Option<Place> {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let _waiting = Waiting(self);
        loop {
            let freed = self.freed.notified();
            tokio::pin!(freed);
            // From here on nothing that is freed goes unheard.
            freed.as_mut().enable();
            let full = match self.try_place() {
                Ok(place) => return Some(place),
                Err(full) => full,
            };
            if close_oldest(self.pools().into_iter()) {
                continue;
            }
            match full {
                Full::Tenant => freed.await,
                Full::Node if self.all.make_room() => {}
                Full::Node => return None,
            }
        }
    }

    /// Whether somebody waits, so that a connection had better be closed than kept.
    pub(super) fn is_wanted(&self) -> bool {
        self.waiting.load(Ordering::SeqCst) > 0
    }

    /// A place, or whose places are all taken: which of the two it was cannot be asked afterwards.
    fn try_place(self: &Arc<Self>) -> Result<Place, Full> {
        let mut state = self.lock();
        if state.used >= state.limit {
            return Err(Full::Tenant);
        }
        if !self.all.take() {
            return Err(Full::Node);
        }
        state.used += 1;
        Ok(Place(self.clone()))
    }

    fn pools(&self) -> Vec<Arc<Pool>> {
        self.lock().pools.iter().filter_map(Weak::upgrade).collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Closes the connection that has been idle for longest in any of these pools; tells whether there was one.
fn close_oldest(pools: impl Iterator<Item = Arc<Pool>>) -> bool {
    let since = |pool: Arc<Pool>| Some((pool.idle_since()?, pool));
    let oldest = pools.filter_map(since).min_by_key(|(since, _)| *since);
    oldest.is_some_and(|(_, pool)| pool.close_oldest())
}

#[cfg(test)]
mod tests {
    use super::*;
    use cofferdam_model::random::SeededRandom;

    fn enter(tenants: &Arc<Tenants>, seed: u64, connections: u32) -> Arc<Tenant> {
        tenants.enter(&TenantId::mint(&SeededRandom::new(seed)), connections, Rate { per_second: 1, burst: 1 })
    }

    #[tokio::test]
    async fn who_has_no_place_is_told_of_the_bound_that_was_reached() {
        let tenants = Tenants::new(2);
        let (one, other) = (enter(&tenants, 1, 1), enter(&tenants, 2, 2));
        let first = one.try_place().unwrap();
        assert_eq!(one.try_place().err(), Some(Full::Tenant));
        let second = other.try_place().unwrap();
        assert_eq!(other.try_place().err(), Some(Full::Node));
        // Both are reached: the tenant waits for its own, and is not turned away for the node's sake.
        assert_eq!(one.try_place().err(), Some(Full::Tenant));
        assert!(other.place().await.is_none(), "nobody waits for the node");
        // What is freed in between goes to who asks next, whatever was found before.
        drop(first);
        let third = other.place().await.unwrap();
        drop((second, third));
        assert!(one.try_place().is_ok());
    }
}
