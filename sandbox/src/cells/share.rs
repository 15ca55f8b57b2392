//! How many of the node's cells each tenant has, and whose turn it is when one more can be had.
//!
//! Owns the count per tenant and the queue. A share is held from before a cell starts until its process is reaped, so
//! that a tenant's bound is one on processes. Must never let one tenant have all cells, nor let those who came first
//! with many cells keep those waiting who have none.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cofferdam_model::TenantId;
use tokio::sync::oneshot;

/// The part of all cells that no single tenant can take: one in this many, and at least one.
const RESERVED: usize = 8;

/// Who has how many.
pub(crate) struct Shares {
    most: usize,
    state: Mutex<State>,
    pressed: AtomicBool,
}

#[derive(Default)]
struct State {
    held: HashMap<TenantId, usize>,
    taken: usize,
    queue: Vec<Waiting>,
    arrived: u64,
    evicting: usize,
}

struct Waiting {
    tenant: TenantId,
    most: usize,
    arrived: u64,
    granted: oneshot::Sender<Share>,
}

/// What asking for a share gives.
pub(super) enum Claim {
    /// It is there.
    Now(Share),
    /// It comes when it is the tenant's turn.
    Wait(oneshot::Receiver<Share>),
}

/// What is missing: for the choice of the cells that have to go.
pub(super) struct Needs {
    /// Those who wait, in the order they are served in.
    pub(super) wants: Vec<Want>,
    /// How many cells each tenant has.
    pub(super) held: HashMap<TenantId, usize>,
    /// How many each would have if all had the same.
    pub(super) fair: usize,
    /// Cells already on their way out for somebody.
    pub(super) evicting: usize,
}

/// One who waits.
pub(super) struct Want {
    pub(super) tenant: TenantId,
    /// Whether it is the tenant's own bound that is reached, so that only a cell of its own helps.
    pub(super) own: bool,
}

impl Shares {
    pub(crate) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, state: Mutex::default(), pressed: AtomicBool::new(false) })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a tenant may have, given its own limit: never all there is, unless there is only one.
    fn bound(&self, most: u32) -> usize {
        let reserved = if self.most > 1 { (self.most / RESERVED).max(1) } else { 0 };
        usize::try_from(most.max(1)).unwrap_or(usize::MAX).min(self.most.saturating_sub(reserved))
    }

    /// Takes a share if there is one at once, without standing in line.
    pub(super) fn take(self: &Arc<Self>, tenant: &TenantId, most: u32) -> Option<Share> {
        let most = self.bound(most);
        let mut state = self.lock();
        state.fits(tenant, most, self.most).then(|| state.give(self, tenant.clone()))
    }

    /// Takes a share, or stands in line for one.
    pub(super) fn claim(self: &Arc<Self>, tenant: &TenantId, most: u32) -> Claim {
        let most = self.bound(most);
        let mut state = self.lock();
        if state.fits(tenant, most, self.most) {
            return Claim::Now(state.give(self, tenant.clone()));
        }
        let (granted, wait) = oneshot::channel();
        state.arrived = state.arrived.wrapping_add(1);
        let arrived = state.arrived;
        state.queue.push(Waiting { tenant: tenant.clone(), most, arrived, granted });
        self.pressed.store(true, Ordering::Release);
        Claim::Wait(wait)
    }

    /// Whether anybody stands in line. Cheap enough to be asked after every call.
    pub(super) fn is_pressed(&self) -> bool {
        self.pressed.load(Ordering::Acquire)
    }

    /// What is missing right now.
    pub(super) fn needs(&self) -> Needs {
        let mut state = self.lock();
        state.forget_leavers();
        self.pressed.store(!state.queue.is_empty(), Ordering::Release);
        let mut order: Vec<&Waiting> = state.queue.iter().collect();
        order.sort_by_key(|waiting| (state.held_by(&waiting.tenant), waiting.arrived));
        let own = |waiting: &Waiting| state.held_by(&waiting.tenant) >= waiting.most;
        let wants: Vec<Want> =
            order.into_iter().map(|each| Want { tenant: each.tenant.clone(), own: own(each) }).collect();
        let fresh: std::collections::HashSet<&TenantId> =
            wants.iter().map(|want| &want.tenant).filter(|tenant| !state.held.contains_key(*tenant)).collect();
        let tenants = state.held.len().saturating_add(fresh.len()).max(1);
        let fair = (self.most / tenants).max(1);
        Needs { held: state.held.clone(), fair, evicting: state.evicting, wants }
    }

    /// A cell is on its way out for somebody who waits.
    pub(super) fn evicting(&self) {
        let mut state = self.lock();
        state.evicting = state.evicting.saturating_add(1);
    }

    /// It is gone.
    pub(super) fn evicted(&self) {
        let mut state = self.lock();
        state.evicting = state.evicting.saturating_sub(1);
    }

    fn give_back(self: &Arc<Self>, tenant: &TenantId) {
        let mut state = self.lock();
        state.take_back(tenant);
        state.forget_leavers();
        state.serve(self);
        self.pressed.store(!state.queue.is_empty(), Ordering::Release);
    }
}

impl State {
    fn held_by(&self, tenant: &TenantId) -> usize {
        self.held.get(tenant).copied().unwrap_or(0)
    }

    /// Whoever could be served is served at once, so where there is room nobody who fits is in line.
    fn fits(&self, tenant: &TenantId, most: usize, all: usize) -> bool {
        self.taken < all && self.held_by(tenant) < most
    }

    fn give(&mut self, shares: &Arc<Shares>, tenant: TenantId) -> Share {
        self.taken = self.taken.saturating_add(1);
        let held = self.held.entry(tenant.clone()).or_insert(0);
        *held = held.saturating_add(1);
        Share { shares: shares.clone(), tenant, held: true }
    }

    fn take_back(&mut self, tenant: &TenantId) {
        self.taken = self.taken.saturating_sub(1);
        if let Some(held) = self.held.get_mut(tenant) {
            *held = held.saturating_sub(1);
            if *held == 0 {
                self.held.remove(tenant);
            }
        }
    }

    fn forget_leavers(&mut self) {
        self.queue.retain(|waiting| !waiting.granted.is_closed());
    }

    /// Gives what there is to those in line: who has the fewest cells first, then who came first.
    fn serve(&mut self, shares: &Arc<Shares>) {
        while self.taken < shares.most {
            let turns = self.queue.iter().enumerate();
            let fitting = turns.filter(|(_, waiting)| self.held_by(&waiting.tenant) < waiting.most);
            let next = fitting.min_by_key(|(_, waiting)| (self.held_by(&waiting.tenant), waiting.arrived));
            let Some((at, _)) = next else { return };
            let waiting = self.queue.swap_remove(at);
            let share = self.give(shares, waiting.tenant);
            if let Err(mut unwanted) = waiting.granted.send(share) {
                // Given back here, under the lock that its drop would ask for.
                unwanted.held = false;
                self.take_back(&unwanted.tenant);
            }
        }
    }
}

/// One of the cells a tenant may have, until dropped.
pub(crate) struct Share {
    shares: Arc<Shares>,
    tenant: TenantId,
    held: bool,
}

impl Drop for Share {
    fn drop(&mut self) {
        if self.held {
            self.shares.give_back(&self.tenant);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cofferdam_model::random::SeededRandom;

    fn tenant(seed: u64) -> TenantId {
        TenantId::mint(&SeededRandom::new(seed))
    }

    fn wait(shares: &Arc<Shares>, tenant: &TenantId) -> oneshot::Receiver<Share> {
        match shares.claim(tenant, 100) {
            Claim::Wait(wait) => wait,
            Claim::Now(_) => panic!("there was room"),
        }
    }

    #[test]
    fn one_tenant_never_has_all_cells() {
        for (all, most) in [(1, 1), (2, 1), (3, 2), (8, 7), (16, 14), (256, 224)] {
            let shares = Shares::new(all);
            let held: Vec<Share> = std::iter::from_fn(|| shares.take(&tenant(1), u32::MAX)).collect();
            assert_eq!(held.len(), most, "of {all}");
            assert_eq!(shares.take(&tenant(2), u32::MAX).is_some(), all > 1);
        }
    }

    #[test]
    fn a_tenant_has_no_more_than_its_limit() {
        let shares = Shares::new(16);
        let held: Vec<Share> = std::iter::from_fn(|| shares.take(&tenant(1), 3)).collect();
        assert_eq!(held.len(), 3);
        assert!(matches!(shares.claim(&tenant(1), 3), Claim::Wait(_)));
        assert!(shares.needs().wants.is_empty(), "who gave up waiting is not served");
    }

    #[test]
    fn a_freed_place_goes_to_who_has_fewest_then_to_who_came_first() {
        let shares = Shares::new(4);
        let (big, small, none) = (tenant(1), tenant(2), tenant(3));
        let mut held: Vec<Share> = (0..3).filter_map(|_| shares.take(&big, 100)).collect();
        let last = shares.take(&small, 100);
        let mut first_of_small = wait(&shares, &small);
        let mut second_of_small = wait(&shares, &small);
        let mut of_none = wait(&shares, &none);
        held.pop();
        let got = of_none.try_recv();
        assert!(got.is_ok(), "nobody has fewer");
        held.pop();
        let (first, second) = (first_of_small.try_recv(), second_of_small.try_recv());
        assert!(first.is_ok() && second.is_err());
        drop((held, last));
    }

    #[test]
    fn who_is_at_its_limit_does_not_hold_up_those_behind() {
        let shares = Shares::new(2);
        let (one, two) = (tenant(1), tenant(2));
        let _of_one = shares.take(&one, 1);
        let of_two = shares.take(&two, 1);
        let mut more_of_one = wait(&shares, &one);
        assert!(shares.needs().wants.first().is_some_and(|want| want.own));
        drop(of_two);
        assert!(more_of_one.try_recv().is_err(), "it has what it may have");
        assert!(shares.take(&two, 1).is_some());
    }

    #[test]
    fn a_share_granted_to_nobody_is_not_lost() {
        let shares = Shares::new(2);
        let held = shares.take(&tenant(1), 9);
        let other = shares.take(&tenant(2), 9);
        drop(wait(&shares, &tenant(3)));
        drop((held, other));
        assert!(shares.take(&tenant(1), 9).is_some() && !shares.is_pressed());
    }
}
