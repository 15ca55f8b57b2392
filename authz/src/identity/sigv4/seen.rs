//! Signatures that were good once and must not be good again.
//!
//! Owns a bounded memory of them, each kept until it would be too old to be taken anyway. Must never forget one before
//! that to make room: where there is none, nothing more is taken, and one tenant cannot use up the room of all.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Mutex, PoisonError};

use cofferdam_model::TenantId;

/// Signatures remembered in all: about 40 MB at the most.
const IN_ALL: usize = 1 << 20;
/// Of one tenant. Taken a quarter of an hour at a time, 145 a second.
const OF_ONE_TENANT: usize = 1 << 17;
/// Seconds whose signatures are forgotten together.
const TOGETHER: u64 = 60;

/// Half of a signature: enough that no two are the same by chance, and nobody can make two that are.
type Mark = [u8; 16];

/// What came of showing a signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shown {
    /// It was not shown before.
    First,
    /// It was.
    Again,
    /// There is no room to remember it.
    NoRoom,
}

/// The signatures seen.
#[derive(Default)]
pub(super) struct Seen(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    /// By the minute in which the last of them is too old.
    until: BTreeMap<u64, HashMap<TenantId, HashSet<Mark>>>,
    of_tenant: HashMap<TenantId, usize>,
    in_all: usize,
}

impl Seen {
    /// Remembers a signature that is good until `until_seconds`.
    pub(super) fn show(&self, tenant: &TenantId, signature: &[u8; 32], until_seconds: u64, now_seconds: u64) -> Shown {
        self.show_within((OF_ONE_TENANT, IN_ALL), tenant, signature, (until_seconds, now_seconds))
    }

    fn show_within(
        &self,
        (of_one, in_all): (usize, usize),
        tenant: &TenantId,
        signature: &[u8; 32],
        (until, now): (u64, u64),
    ) -> Shown {
        let mut mark = Mark::default();
        mark.iter_mut().zip(signature).for_each(|(to, from)| *to = *from);
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inner.forget(now);
        // The date is part of what is signed, so the same signature comes to the same minute.
        let minute = until / TOGETHER;
        if inner.until.get(&minute).and_then(|seen| seen.get(tenant)).is_some_and(|seen| seen.contains(&mark)) {
            return Shown::Again;
        }
        let own = inner.of_tenant.get(tenant).copied().unwrap_or(0);
        if own >= of_one || inner.in_all >= in_all {
            return Shown::NoRoom;
        }
        inner.until.entry(minute).or_default().entry(tenant.clone()).or_default().insert(mark);
        inner.of_tenant.insert(tenant.clone(), own + 1);
        inner.in_all += 1;
        Shown::First
    }
}

impl Inner {
    fn forget(&mut self, now: u64) {
        while let Some(first) = self.until.first_entry().filter(|first| *first.key() < now / TOGETHER) {
            for (tenant, marks) in first.remove() {
                self.in_all = self.in_all.saturating_sub(marks.len());
                let left = self.of_tenant.get(&tenant).map_or(0, |own| own.saturating_sub(marks.len()));
                if left == 0 {
                    self.of_tenant.remove(&tenant);
                } else {
                    self.of_tenant.insert(tenant, left);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cofferdam_model::random::SeededRandom;

    fn signature(number: u64) -> [u8; 32] {
        let mut out = [0; 32];
        out[..8].copy_from_slice(&number.to_be_bytes());
        out
    }

    #[test]
    fn a_signature_is_remembered_until_it_is_too_old_and_then_forgotten() {
        let (seen, tenant) = (Seen::default(), TenantId::mint(&SeededRandom::new(1)));
        assert_eq!(seen.show(&tenant, &signature(1), 1000, 100), Shown::First);
        assert_eq!(seen.show(&tenant, &signature(1), 1000, 999), Shown::Again);
        assert_eq!(seen.show(&tenant, &signature(2), 1000, 999), Shown::First);
        assert_eq!(seen.show(&tenant, &signature(3), 5000, 1100), Shown::First);
        let inner = seen.0.lock().unwrap();
        assert_eq!((inner.in_all, inner.until.len(), inner.of_tenant[&tenant]), (1, 1, 1));
    }

    #[test]
    fn a_full_memory_takes_nothing_more_and_no_tenant_fills_it_for_others() {
        let random = SeededRandom::new(1);
        let (seen, loud, quiet) = (Seen::default(), TenantId::mint(&random), TenantId::mint(&random));
        let show = |tenant: &TenantId, number| seen.show_within((4, 6), tenant, &signature(number), (1000, 0));
        for number in 0..4 {
            assert_eq!(show(&loud, number), Shown::First);
        }
        assert_eq!(show(&loud, 9), Shown::NoRoom);
        assert_eq!(show(&loud, 1), Shown::Again);
        assert_eq!(show(&quiet, 9), Shown::First);
        assert_eq!(show(&quiet, 10), Shown::First);
        assert_eq!(show(&quiet, 11), Shown::NoRoom);
        assert_eq!(seen.show_within((4, 6), &loud, &signature(9), (9000, 1100)), Shown::First);
    }
}
