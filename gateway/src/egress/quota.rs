//! How many connections the functions of one tenant have at once on this node.
//!
//! Owns the count, and whose idle connection makes room for a new one. Must never let a tenant wait for another.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use cofferdam_model::TenantId;
use tokio::sync::Notify;

use super::pool::Pool;

/// The tenants that have a way out open.
#[derive(Default)]
pub(super) struct Tenants(Mutex<HashMap<TenantId, Weak<Tenant>>>);

impl Tenants {
    /// A tenant, and how many connections it may have from now on.
    pub(super) fn enter(&self, id: &TenantId, connections: u32) -> Arc<Tenant> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, tenant| tenant.strong_count() > 0);
        let known = all.get(id).and_then(Weak::upgrade);
        let tenant = known.unwrap_or_else(|| {
            let tenant = Arc::new(Tenant::default());
            all.insert(id.clone(), Arc::downgrade(&tenant));
            tenant
        });
        tenant.lock().limit = connections;
        // A larger number may be what those who wait are waiting for.
        tenant.freed.notify_waiters();
        tenant
    }
}

/// The connections of one tenant.
#[derive(Default)]
pub(super) struct Tenant {
    state: Mutex<State>,
    freed: Notify,
    waiting: AtomicUsize,
}

#[derive(Default)]
struct State {
    used: u32,
    limit: u32,
    pools: Vec<Weak<Pool>>,
}

/// A place among them, for as long as it lives.
pub(super) struct Place(Arc<Tenant>);

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.used = state.used.saturating_sub(1);
        drop(state);
        self.0.freed.notify_one();
    }
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

    /// Waits for a place, closing an idle connection of the tenant where that gives one.
    pub(super) async fn place(self: &Arc<Self>) -> Place {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let _waiting = Waiting(self);
        loop {
            let freed = self.freed.notified();
            tokio::pin!(freed);
            // From here on nothing that is freed goes unheard.
            freed.as_mut().enable();
            if let Some(place) = self.try_place() {
                return place;
            }
            if !self.make_room() {
                freed.await;
            }
        }
    }

    /// Whether somebody waits, so that a connection had better be closed than kept.
    pub(super) fn is_wanted(&self) -> bool {
        self.waiting.load(Ordering::SeqCst) > 0
    }

    fn try_place(self: &Arc<Self>) -> Option<Place> {
        let mut state = self.lock();
        if state.used >= state.limit {
            return None;
        }
        state.used += 1;
        Some(Place(self.clone()))
    }

    /// Closes the connection that has been idle for longest; tells whether there was one.
    fn make_room(&self) -> bool {
        let pools: Vec<Arc<Pool>> = self.lock().pools.iter().filter_map(Weak::upgrade).collect();
        let oldest = pools.iter().filter_map(|pool| Some((pool.idle_since()?, pool))).min_by_key(|(since, _)| *since);
        oldest.is_some_and(|(_, pool)| pool.close_oldest())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
