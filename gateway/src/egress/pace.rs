//! How often the functions of one tenant may ask the outside.
//!
//! Owns the moment each request's turn comes: those beyond the rate are put off, in the order they came, so that what
//! one tenant asks cannot take the node's time from all. A generic cell rate algorithm (ITU-T I.371) that reserves,
//! which `governor` cannot: it would have everybody who waits try anew. Must never hold who is told to wait.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use cofferdam_model::Rate;

/// Turns of one tenant, counted on the monotonic clock.
#[derive(Default)]
pub(super) struct Pace {
    /// When the next turn would be due if none had ever been saved up.
    due: Mutex<Duration>,
}

impl Pace {
    /// How long a request that came `now` has to wait for its turn, or that it would be longer than it has patience
    /// for. A turn is taken, also if whoever waits for it gives up.
    pub(super) fn turn(&self, rate: Rate, now: Duration, patience: Duration) -> Option<Duration> {
        let each = Duration::from_secs(1) / rate.per_second.max(1);
        let saved = each * rate.burst.max(1).saturating_sub(1);
        let mut due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
        let wait = due.saturating_sub(saved).saturating_sub(now);
        if wait > patience {
            return None;
        }
        *due = (*due).max(now).saturating_add(each);
        Some(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate { per_second: 10, burst: 3 };

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_burst_goes_at_once_and_the_rest_at_the_rate_in_the_order_it_came() {
        let (pace, now) = (Pace::default(), ms(5_000));
        let waits: Vec<_> = (0..6).map(|_| pace.turn(RATE, now, ms(1_000)).unwrap()).collect();
        assert_eq!(waits, [ms(0), ms(0), ms(0), ms(100), ms(200), ms(300)]);
        // Who comes later waits behind those, and not for what they waited already.
        assert_eq!(pace.turn(RATE, ms(5_250), ms(1_000)), Some(ms(150)));
        // What was not used is saved up to the burst and no further.
        let later = ms(60_000);
        let waits: Vec<_> = (0..4).map(|_| pace.turn(RATE, later, ms(1_000)).unwrap()).collect();
        assert_eq!(waits, [ms(0), ms(0), ms(0), ms(100)]);
    }

    #[test]
    fn who_would_wait_too_long_is_told_at_once_and_takes_no_turn() {
        let pace = Pace::default();
        for _ in 0..5 {
            pace.turn(RATE, ms(0), ms(1_000)).unwrap();
        }
        for _ in 0..100 {
            assert_eq!(pace.turn(RATE, ms(0), ms(200)), None);
        }
        assert_eq!(pace.turn(RATE, ms(0), ms(300)), Some(ms(300)));
    }

    #[test]
    fn a_rate_of_nothing_is_one_a_second() {
        let pace = Pace::default();
        let none = Rate { per_second: 0, burst: 0 };
        assert_eq!(pace.turn(none, ms(0), ms(5_000)), Some(ms(0)));
        assert_eq!(pace.turn(none, ms(0), ms(5_000)), Some(ms(1_000)));
    }
}
