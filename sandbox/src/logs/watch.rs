//! Those who wait for a function to write something.
//!
//! Owns their number and their waking. Must never hold up the thread that writes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cofferdam_model::FunctionId;
use tokio::sync::Notify;

/// Readers that may wait for one function, for all of a tenant, and in all. Further ones are answered at once.
const OF_ONE: usize = 16;
const OF_TENANT: usize = 64;
const IN_ALL: usize = 256;

/// How many wait for each function, and what wakes them.
type Watched = HashMap<FunctionId, (usize, Arc<Notify>)>;

/// Who waits for what.
#[derive(Clone, Default)]
pub(super) struct Watchers(Arc<Mutex<Watched>>);

impl Watchers {
    fn lock(&self) -> MutexGuard<'_, Watched> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place among those who wait; none where there are too many.
    pub(super) fn watch(&self, function: &FunctionId) -> Option<Watch> {
        let mut watched = self.lock();
        let tenant = function.tenant();
        let (mut total, mut own) = (0usize, 0usize);
        for (other, (count, _)) in watched.iter() {
            total = total.saturating_add(*count);
            own = own.saturating_add(if other.tenant() == tenant { *count } else { 0 });
        }
        if total >= IN_ALL || own >= OF_TENANT {
            return None;
        }
        let (count, notify) = watched.entry(function.clone()).or_default();
        if *count >= OF_ONE {
            return None;
        }
        *count = count.saturating_add(1);
        Some(Watch { watchers: self.clone(), function: function.clone(), written: notify.clone() })
    }

    /// Wakes those who wait for a function.
    pub(super) fn wake(&self, function: &FunctionId) {
        if let Some((_, notify)) = self.lock().get(function) {
            notify.notify_waiters();
        }
    }
}

/// A place among those who wait, given back when dropped.
pub(super) struct Watch {
    watchers: Watchers,
    function: FunctionId,
    /// Told when something was written.
    pub(super) written: Arc<Notify>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut watched = self.watchers.lock();
        if let Some((count, _)) = watched.get_mut(&self.function) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                watched.remove(&self.function);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cofferdam_model::TenantId;
    use cofferdam_model::random::SeededRandom;

    #[test]
    fn places_to_wait_are_bounded_and_given_back() {
        let (random, watchers) = (SeededRandom::new(1), Watchers::default());
        let mut held = Vec::new();
        for _ in 0..IN_ALL / OF_TENANT {
            let tenant = TenantId::mint(&random);
            for _ in 0..OF_TENANT / OF_ONE {
                let function = FunctionId::mint(&tenant, &random);
                held.extend((0..OF_ONE).map(|_| watchers.watch(&function).unwrap()));
                assert!(watchers.watch(&function).is_none());
            }
            assert!(watchers.watch(&FunctionId::mint(&tenant, &random)).is_none(), "the tenant has no more");
        }
        let another = FunctionId::mint(&TenantId::mint(&random), &random);
        assert!(watchers.watch(&another).is_none(), "nobody has");
        held.pop();
        assert!(watchers.watch(&another).is_some());
        drop(held);
        assert!(watchers.lock().is_empty());
    }
}
