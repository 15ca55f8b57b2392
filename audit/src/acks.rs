//! The order in which writes are acknowledged, whatever the order in which their syncs end.
//!
//! Owns the turns. Must never let a write be acknowledged before the one in front of it, nor after one that failed.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Turns of the writes that are under way.
#[derive(Default)]
pub(crate) struct Acks {
    inner: Mutex<Inner>,
    changed: Condvar,
}

#[derive(Default)]
struct Inner {
    /// The turn the next write gets.
    next: u64,
    /// The turn of the write that may be acknowledged.
    front: u64,
    failed: bool,
}

impl Acks {
    /// Takes a turn: writes do that in the order of their records.
    pub(crate) fn take(&self) -> u64 {
        let mut inner = self.lock();
        let turn = inner.next;
        inner.next += 1;
        turn
    }

    /// Waits until everything in front has been acknowledged. False where something in front failed.
    pub(crate) fn reached(&self, turn: u64) -> bool {
        let waiting = |inner: &mut Inner| inner.front < turn && !inner.failed;
        !self.changed.wait_while(self.lock(), waiting).unwrap_or_else(PoisonError::into_inner).failed
    }

    /// Gives the turn on.
    pub(crate) fn done(&self) {
        self.lock().front += 1;
        self.changed.notify_all();
    }

    /// Nothing is acknowledged any more.
    pub(crate) fn fail(&self) {
        self.lock().failed = true;
        self.changed.notify_all();
    }

    /// Waits until nothing is under way. False where something failed.
    pub(crate) fn settle(&self) -> bool {
        let turn = self.lock().next;
        self.reached(turn)
    }

    /// Whether nothing is under way.
    pub(crate) fn is_settled(&self) -> bool {
        let inner = self.lock();
        inner.front == inner.next
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_are_reached_in_order_and_none_after_a_failure() {
        let acks = Acks::default();
        let (first, second, third) = (acks.take(), acks.take(), acks.take());
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| acks.reached(second));
            assert!(acks.reached(first) && !acks.is_settled());
            acks.done();
            assert!(waiting.join().unwrap());
            let last = scope.spawn(|| acks.reached(third));
            acks.fail();
            assert!(!last.join().unwrap());
        });
        assert!(!acks.reached(second), "even one whose turn it was");
        assert!(!acks.settle());
    }
}
