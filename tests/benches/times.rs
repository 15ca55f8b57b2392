//! Times of calls, and the percentiles of many.
//!
//! Owns what is the same for every part of the bench. Must never average: a mean hides what a caller waits for.

use std::time::{Duration, Instant};

use cofferdam_tests::{Broken, Client};

/// Times of many calls.
#[derive(Default)]
pub(crate) struct Times(Vec<Duration>);

impl Times {
    pub(crate) fn push(&mut self, time: Duration) {
        self.0.push(time);
    }

    pub(crate) fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The time that this many of a hundred calls do not exceed.
    pub(crate) fn percentile(&mut self, part: usize) -> Duration {
        self.0.sort_unstable();
        self.0.get((self.0.len() * part / 100).min(self.0.len().saturating_sub(1))).copied().unwrap_or_default()
    }
}

/// A duration as milliseconds.
pub(crate) fn ms(time: Duration) -> String {
    format!("{:.2}", time.as_secs_f64() * 1000.0)
}

/// Now.
#[expect(clippy::disallowed_methods, reason = "a bench measures real time")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// One call that must be answered, and how long that took.
pub(crate) async fn timed(client: &mut Client, path: &str) -> Result<Duration, Broken> {
    let at = now();
    let answer = client.get(path).await?;
    if !answer.status.is_success() {
        return Err(format!("{path}: {} {}", answer.status, answer.text()).into());
    }
    Ok(at.elapsed())
}

/// Callers stand for other machines: where the kernel lets them, they do not wait for a processor behind the very
/// functions they call. Elsewhere their own delays are in the figures.
pub(crate) fn stand_aside() {
    let given = std::fs::write("/proc/self/autogroup", "-20");
    println!("callers have {} over the node\n", if given.is_ok() { "precedence" } else { "no precedence" });
}
