//! Stopping without losing anyone: the signal that a node drains, and the count of what is still under way.
//!
//! Owns the three phases of a node's life (serving, draining, cut) and the guards that hold the last phase back.
//! Must never know what a connection or a call does.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

/// Where a node is in its life. Only ever moves forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Takes connections and calls.
    Serving,
    /// Takes no new connections; finishes the calls under way.
    Draining,
    /// Drops what is left.
    Cut,
}

/// The signal and the count. Clones share both.
#[derive(Debug, Clone)]
pub struct Drain {
    phase: Arc<watch::Sender<Phase>>,
    holds: Arc<watch::Sender<usize>>,
}

impl Default for Drain {
    fn default() -> Self {
        Self::new()
    }
}

impl Drain {
    /// A node that serves.
    pub fn new() -> Self {
        Self { phase: Arc::new(watch::Sender::new(Phase::Serving)), holds: Arc::new(watch::Sender::new(0)) }
    }

    /// The phase now.
    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Moves forward to `phase`; never back.
    pub fn advance(&self, phase: Phase) {
        self.phase.send_if_modified(|now| {
            let forward = phase > *now;
            if forward {
                *now = phase;
            }
            forward
        });
    }

    /// Waits until the node has come at least as far as `phase`.
    pub async fn reached(&self, phase: Phase) {
        let mut changes = self.phase.subscribe();
        // The sender lives as long as `self`, so this can only end by the phase being reached.
        let _ = changes.wait_for(|now| *now >= phase).await;
    }

    /// Something under way that a drain waits for until the guard is dropped.
    pub fn hold(&self) -> Hold {
        self.holds.send_modify(|count| *count = count.saturating_add(1));
        Hold { holds: self.holds.clone() }
    }

    /// How much is under way.
    pub fn held(&self) -> usize {
        *self.holds.borrow()
    }

    /// Waits until nothing is under way any more, at most `patience`. Gives how much still is.
    pub async fn settled(&self, patience: Duration) -> usize {
        let mut holds = self.holds.subscribe();
        let ended = tokio::time::timeout(patience, holds.wait_for(|count| *count == 0)).await.is_ok();
        if ended { 0 } else { self.held() }
    }

    /// Drains: announces it, waits for what is under way at most `patience`, then cuts. Gives how much was cut.
    pub async fn drain(&self, patience: Duration) -> usize {
        self.advance(Phase::Draining);
        let left = self.settled(patience).await;
        self.advance(Phase::Cut);
        left
    }
}

/// Something under way. Dropping it is how a drain learns of its end.
#[derive(Debug)]
#[must_use]
pub struct Hold {
    holds: Arc<watch::Sender<usize>>,
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.holds.send_modify(|count| *count = count.saturating_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_drain_ends_with_the_last_hold() {
        let drain = Drain::new();
        let hold = drain.hold();
        let draining = tokio::spawn({
            let drain = drain.clone();
            async move { drain.drain(Duration::from_secs(20)).await }
        });
        drain.reached(Phase::Draining).await;
        assert_eq!(drain.phase(), Phase::Draining);
        drop(hold);
        assert_eq!(draining.await.unwrap(), 0);
        assert_eq!(drain.phase(), Phase::Cut);
    }

    #[tokio::test(start_paused = true)]
    async fn a_drain_cuts_what_outlives_its_patience() {
        let drain = Drain::new();
        let _hold = drain.hold();
        assert_eq!(drain.drain(Duration::from_secs(20)).await, 1);
        assert_eq!(drain.phase(), Phase::Cut);
    }

    #[test]
    fn phases_never_go_back() {
        let drain = Drain::new();
        drain.advance(Phase::Cut);
        drain.advance(Phase::Draining);
        assert_eq!(drain.phase(), Phase::Cut);
    }
}
