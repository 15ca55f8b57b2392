//! A fixed amount of memory for any number of rate-limited keys.
//!
//! Owns the table behind governor's arithmetic: sets of eight slots, each slot one key and the moment its bucket is
//! full again. Must never grow, and must never make anyone better off by being forgotten.
//!
//! **The bound.** A key that finds its set full takes the place of the slot nearest to full, and inherits that
//! slot's state instead of starting fresh; while even that slot has nothing left, the newcomer is denied and nothing
//! is replaced. So a slot's state never goes back, and all keys that ever share a set get together at most
//! `8 * (burst + per_second * t)` requests in any time `t`, however many there are and however they alternate. A
//! slot that is full again is worth a fresh one: giving it away loses nothing.

use std::sync::{Mutex, PoisonError};

use governor::nanos::Nanos;
use governor::state::StateStore;

const WAYS: usize = 8;

#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    /// 0 for a slot never used.
    key: u64,
    /// When the bucket is full again (GCRA's theoretical arrival time), nanoseconds.
    full_at: u64,
}

/// The table. One short lock per set.
#[derive(Debug)]
pub(super) struct Table {
    sets: Box<[Mutex<[Slot; WAYS]>]>,
}

impl Table {
    /// Room for at least `keys` keys.
    pub(super) fn with_room_for(keys: usize) -> Self {
        let sets = keys.div_ceil(WAYS).max(1);
        Self { sets: (0..sets).map(|_| Mutex::default()).collect() }
    }

    fn set(&self, key: u64) -> Option<&Mutex<[Slot; WAYS]>> {
        let sets = u64::try_from(self.sets.len()).unwrap_or(1).max(1);
        // The high half picks the set, so that the key's low bits stay independent of its neighbours.
        usize::try_from((key >> 32) % sets).ok().and_then(|at| self.sets.get(at))
    }
}

/// The table as seen by one quota: `period` per request, `tolerance` for the burst beyond the first.
#[derive(Debug)]
pub(super) struct Quotaed<'a> {
    pub(super) table: &'a Table,
    pub(super) period: u64,
    pub(super) tolerance: u64,
}

impl StateStore for Quotaed<'_> {
    type Key = u64;

    fn measure_and_replace<T, F, E>(&self, key: &u64, decide: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let key = (*key).max(1);
        // A fresh bucket is always let through, and tells what time it is: its next state is now plus one period.
        let (fresh, next) = decide(None)?;
        let now = next.as_u64().saturating_sub(self.period);
        let Some(set) = self.table.set(key) else { return Ok(fresh) };
        let mut slots = set.lock().unwrap_or_else(PoisonError::into_inner);
        let own = slots.iter().position(|slot| slot.key == key);
        let place = own.or_else(|| (0..WAYS).min_by_key(|at| slots.get(*at).map_or(u64::MAX, |slot| slot.full_at)));
        let Some(slot) = place.and_then(|at| slots.get_mut(at)) else { return Ok(fresh) };
        if slot.full_at <= now {
            *slot = Slot { key, full_at: next.as_u64() };
            return Ok(fresh);
        }
        // A state left by a stricter quota of before must not shut the key out for longer than this one would.
        let empty = now.saturating_add(self.tolerance).saturating_add(self.period);
        let (passed, next) = decide(Some(Nanos::new(slot.full_at.min(empty))))?;
        *slot = Slot { key, full_at: next.as_u64() };
        Ok(passed)
    }
}
