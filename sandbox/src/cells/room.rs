//! Which idle cells go when others need their places.
//!
//! Owns the choice. Must never end a cell that has a call, nor take an idle cell from a tenant that has less than its
//! fair share while another has more than that.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use cofferdam_model::TenantId;

use super::group::Group;
use super::share::{Needs, Want};
use super::{Cause, Cell, Pool};

/// A cell without a call.
struct Idle {
    tenant: TenantId,
    since: Duration,
    group: Arc<Group>,
    cell: Arc<Cell>,
}

impl Pool {
    /// Ends as many idle cells as are waited for and may be ended.
    pub(super) fn make_room(&self) {
        if !self.shares.is_pressed() {
            return;
        }
        let Needs { wants, mut held, fair, evicting } = self.shares.needs();
        if wants.len() <= evicting {
            return;
        }
        let mut idle = self.idle();
        for want in wants.iter().skip(evicting) {
            let seen: Vec<(&TenantId, Duration)> = idle.iter().map(|idle| (&idle.tenant, idle.since)).collect();
            let Some(at) = choose(&seen, want, &held, fair) else { continue };
            let Idle { tenant, group, cell, .. } = idle.swap_remove(at);
            if let Some(held) = held.get_mut(&tenant) {
                *held = held.saturating_sub(1);
            }
            // Counted before it can be gone.
            self.shares.evicting();
            let mut went = false;
            group.change(|state, todo| {
                went = state.dismiss(&cell, Cause::Evicted);
                state.collect(todo);
            });
            if !went {
                self.shares.evicted();
            }
        }
    }

    fn idle(&self) -> Vec<Idle> {
        let groups: Vec<Arc<Group>> = self.groups().values().cloned().collect();
        let mut idle = Vec::new();
        for group in groups {
            let state = group.lock();
            let quiet = state.members.iter().filter(|member| member.load == 0 && !member.draining);
            idle.extend(quiet.map(|member| Idle {
                tenant: group.tenant.id.clone(),
                since: member.quiet_since,
                group: group.clone(),
                cell: member.cell.clone(),
            }));
        }
        idle
    }
}

/// The idle cell that goes for one who waits: of the tenant that has most, the one idle for longest.
fn choose(idle: &[(&TenantId, Duration)], want: &Want, held: &HashMap<TenantId, usize>, fair: usize) -> Option<usize> {
    let has = |tenant: &TenantId| held.get(tenant).copied().unwrap_or(0);
    let somebody_above = held.values().any(|cells| *cells > fair);
    let may_go = |tenant: &TenantId| match want.own {
        true => *tenant == want.tenant,
        false => !somebody_above || has(tenant) >= fair,
    };
    let candidates = idle.iter().enumerate().filter(|(_, (tenant, _))| may_go(tenant));
    candidates.min_by_key(|(_, (tenant, since))| (std::cmp::Reverse(has(tenant)), *since)).map(|(at, _)| at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use cofferdam_model::random::SeededRandom;

    #[test]
    fn who_has_most_gives_way_and_who_has_less_than_its_share_does_not() {
        let [big, small, newcomer] = [1, 2, 3].map(|seed| TenantId::mint(&SeededRandom::new(seed)));
        let want = |own, tenant: &TenantId| Want { tenant: tenant.clone(), own };
        let at = Duration::from_secs;
        let held: HashMap<TenantId, usize> = [(big.clone(), 5), (small.clone(), 1)].into();
        let both = [(&small, at(1)), (&big, at(9)), (&big, at(5))];
        assert_eq!(choose(&both, &want(false, &newcomer), &held, 2), Some(2), "of the one with most, the oldest");
        let only_small = [(&small, at(1))];
        assert_eq!(choose(&only_small, &want(false, &newcomer), &held, 2), None, "the other one is above its share");
        assert_eq!(choose(&only_small, &want(false, &big), &held, 2), None);
        let even: HashMap<TenantId, usize> = [(big.clone(), 2), (small.clone(), 1)].into();
        assert_eq!(choose(&only_small, &want(false, &newcomer), &even, 2), Some(0), "nobody is above its share");
        assert_eq!(choose(&both, &want(true, &small), &held, 2), Some(0), "at its own limit only its own helps");
        assert_eq!(choose(&[(&big, at(1))], &want(true, &small), &held, 2), None);
    }
}
