//! Whose turn it is: guests that compute take turns of a tick each, but one whose wall time is up is ended first.
//!
//! Owns the order of deadlines. Without it, a call that is over its time would wait until every other guest of the cell
//! had its turn: later by a tick for each of them. Must never let a guest run on after its own deadline.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What a call's guest may do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Run.
    Now,
    /// Let one that is past its deadline be ended, and ask again.
    Later,
    /// Nothing any more.
    Over,
}

#[derive(Default)]
struct Order {
    by_time: BTreeSet<(Duration, u32)>,
    of_call: HashMap<u32, Duration>,
}

/// The deadlines of the calls under way.
#[derive(Default)]
pub(crate) struct Turns(Mutex<Order>);

impl Turns {
    /// A call that must be over by then.
    pub(crate) fn add(&self, call: u32, deadline: Duration) {
        let mut order = self.lock();
        order.by_time.insert((deadline, call));
        order.of_call.insert(call, deadline);
    }

    /// A call that is over.
    pub(crate) fn remove(&self, call: u32) {
        let mut order = self.lock();
        if let Some(deadline) = order.of_call.remove(&call) {
            order.by_time.remove(&(deadline, call));
        }
    }

    /// What the guest of this call may do.
    pub(crate) fn of(&self, call: u32, now: Duration) -> Turn {
        let order = self.lock();
        let late = order.by_time.first().is_some_and(|(deadline, _)| *deadline <= now);
        match order.of_call.get(&call) {
            _ if !late => Turn::Now,
            Some(deadline) if *deadline <= now => Turn::Over,
            _ => Turn::Later,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Order> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(number: u64) -> Duration {
        Duration::from_millis(number)
    }

    #[test]
    fn a_call_past_its_deadline_goes_before_guests_that_would_compute() {
        let turns = Turns::default();
        (1..=32).for_each(|call| turns.add(call, ms(100 + u64::from(call))));
        assert!((1..=32).all(|call| turns.of(call, ms(100)) == Turn::Now));
        assert_eq!(turns.of(1, ms(101)), Turn::Over);
        assert!((2..=32).all(|call| turns.of(call, ms(101)) == Turn::Later));
        turns.remove(1);
        assert!((2..=32).all(|call| turns.of(call, ms(101)) == Turn::Now), "nobody waits for what is gone");
    }

    #[test]
    fn calls_of_one_deadline_are_all_over_at_once() {
        let turns = Turns::default();
        [1, 2, 3].into_iter().for_each(|call| turns.add(call, ms(5)));
        turns.add(4, ms(6));
        assert!((1..=3).all(|call| turns.of(call, ms(5)) == Turn::Over));
        turns.remove(2);
        assert_eq!([1, 3, 4].map(|call| turns.of(call, ms(5))), [Turn::Over, Turn::Over, Turn::Later]);
    }
}
