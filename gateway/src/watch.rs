//! How long each step of a call takes.
//!
//! Owns one call's stopwatch: at any moment it is in one step, and the next begins where that ends. Must never
//! allocate, and never ask another clock than the node's.

use std::sync::Arc;
use std::time::Duration;

use cofferdam_model::{Clock, Step, Steps};
use cofferdam_sandbox::Waited;

/// One call's stopwatch.
#[derive(Clone)]
pub(crate) struct Watch {
    clock: Arc<dyn Clock>,
    since: Duration,
    step: Step,
    steps: Steps,
}

impl Watch {
    /// Starts with a call's first step.
    pub(crate) fn start(clock: Arc<dyn Clock>) -> Self {
        let since = clock.monotonic();
        Self { clock, since, step: Step::Limits, steps: Steps::default() }
    }

    /// Ends the step there is, and begins another one.
    pub(crate) fn enter(&mut self, step: Step) {
        let now = self.clock.monotonic();
        self.steps.add(self.step, now.saturating_sub(self.since));
        (self.since, self.step) = (now, step);
    }

    /// Of the time in this step, what the sandbox says was waited for something else.
    pub(crate) fn waited(&mut self, waited: &Waited) {
        for (step, took) in [(Step::Record, waited.intent), (Step::Cell, waited.cell)] {
            if let Some(took) = took {
                self.steps.add(step, took);
                self.since = self.since.saturating_add(took);
            }
        }
    }

    /// Each step so far, the one there is up to now.
    pub(crate) fn steps(&self) -> Steps {
        let mut steps = self.steps;
        steps.add(self.step, self.clock.monotonic().saturating_sub(self.since));
        steps
    }
}

#[cfg(test)]
mod tests {
    use cofferdam_model::UnixNanos;
    use cofferdam_model::clock::ManualClock;

    use super::*;

    #[test]
    fn every_microsecond_is_in_one_step_and_the_last_step_is_where_a_call_is() {
        let clock = Arc::new(ManualClock::at(UnixNanos(7)));
        let mut watch = Watch::start(clock.clone());
        let mut after = |micros, step| {
            clock.advance(Duration::from_micros(micros));
            watch.enter(step);
        };
        after(3, Step::Route);
        after(5, Step::Limits);
        after(2, Step::Authenticate);
        after(40, Step::Guest);
        clock.advance(Duration::from_micros(1000));
        watch.waited(&Waited { intent: None, cell: Some(Duration::from_micros(700)) });
        clock.advance(Duration::from_micros(11));
        let told: Vec<_> = watch.steps().iter().collect();
        let expected =
            [(Step::Limits, 5), (Step::Route, 5), (Step::Authenticate, 40), (Step::Cell, 700), (Step::Guest, 311)];
        assert_eq!(told, expected);
        assert_eq!(told.iter().map(|(_, micros)| micros).sum::<u64>(), 3 + 5 + 2 + 40 + 1000 + 11);
    }
}
