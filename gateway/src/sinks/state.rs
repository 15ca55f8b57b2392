//! How it stands with a sink, for whoever asks.
//!
//! Owns the numbers, what is over the limit, and what of it the log was told: each kind of bad news once a minute at
//! most, for the log is what sinks are fed with. Must never wait for a sink.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cofferdam_audit::Note;
use cofferdam_model::{Clock, UnixNanos};
use tokio::sync::{Notify, oneshot};

use super::config::{OnLag, SinkConfig};
use super::error::SinkError;

/// Time between two times that the log is told the same bad news.
const TELL_EVERY: Duration = Duration::from_secs(60);
/// Failures in a row after which a sink counts as down.
const DOWN_ATTEMPTS: u32 = 3;
/// Seconds of failing after which it does as well.
const DOWN_SECONDS: u64 = 10;

/// How it stands with a sink.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Its name.
    pub name: String,
    /// What kind of place it is.
    pub kind: &'static str,
    /// `ok`, `retrying` or `down`.
    pub state: &'static str,
    /// Index of the first record that is not acknowledged.
    pub next: u64,
    /// Records of the log that it is behind, those its filter leaves out included.
    pub lag_records: u64,
    /// Age in seconds of the oldest record that is being sent.
    pub lag_seconds: u64,
    /// Whether that is more than it may be.
    pub behind: bool,
    /// What happens because of it.
    pub on_lag: OnLag,
    /// Since when nothing arrives.
    pub since: Option<UnixNanos>,
    /// Why.
    pub error: Option<String>,
    /// Records acknowledged since the node's start.
    pub delivered: u64,
    /// Sendings that failed since then.
    pub failures: u64,
}

/// A cursor is to be put somewhere else.
pub(super) struct Reset {
    pub(super) to: u64,
    pub(super) done: oneshot::Sender<Result<(), SinkError>>,
}

/// What a worker and everybody else share.
pub(super) struct State {
    pub(super) name: String,
    kind: &'static str,
    on_lag: OnLag,
    max_records: u64,
    max_seconds: u64,
    wake: Notify,
    closing: AtomicBool,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    next: u64,
    /// First record that the cursor's file still needs.
    needs: u64,
    oldest: Option<UnixNanos>,
    failing: Option<UnixNanos>,
    attempts: u32,
    error: Option<String>,
    delivered: u64,
    failures: u64,
    behind: bool,
    reset: Option<Reset>,
    told_down: Told,
    told_behind: Told,
}

/// What the log knows.
#[derive(Default)]
struct Told {
    is: bool,
    at: Option<Duration>,
}

impl Told {
    /// Whether the log is to be told that it is so, or is so no more.
    fn turn(&mut self, is: bool, now: Duration) -> bool {
        let lately = self.at.is_some_and(|at| now.saturating_sub(at) < TELL_EVERY);
        if is == self.is || (is && lately) {
            return false;
        }
        self.is = is;
        if is {
            self.at = Some(now);
        }
        true
    }
}

impl State {
    pub(super) fn new(config: &SinkConfig, next: u64, needs: u64) -> Self {
        Self {
            name: config.name.clone(),
            kind: config.to.kind(),
            on_lag: config.on_lag,
            max_records: config.max_lag_records,
            max_seconds: config.max_lag_seconds,
            wake: Notify::new(),
            closing: AtomicBool::new(false),
            inner: Mutex::new(Inner { next, needs, ..Inner::default() }),
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything up to `next` was acknowledged, or is not for this sink.
    pub(super) fn passed(&self, next: u64) {
        let mut inner = self.inner();
        (inner.next, inner.oldest) = (next, None);
    }

    /// The same, and the cursor's file says so.
    pub(super) fn stored(&self, next: u64, needs: u64) {
        let mut inner = self.inner();
        (inner.next, inner.needs, inner.oldest) = (next, needs, None);
    }

    /// Records from this age on are being sent.
    pub(super) fn sending(&self, oldest: UnixNanos) {
        self.inner().oldest = Some(oldest);
    }

    /// So many records were acknowledged.
    pub(super) fn arrived(&self, records: u64) {
        let mut inner = self.inner();
        inner.delivered = inner.delivered.saturating_add(records);
        (inner.failing, inner.attempts, inner.error) = (None, 0, None);
    }

    /// Gives how many times in a row it has failed.
    pub(super) fn failed(&self, error: String, now: UnixNanos) -> u32 {
        let mut inner = self.inner();
        inner.failures = inner.failures.saturating_add(1);
        inner.attempts = inner.attempts.saturating_add(1);
        inner.failing.get_or_insert(now);
        inner.error = Some(error);
        inner.attempts
    }

    /// First record that must not be pruned yet.
    pub(super) fn needs(&self) -> u64 {
        self.inner().needs
    }

    pub(super) fn ask_reset(&self, reset: Reset) {
        self.inner().reset = Some(reset);
        self.wake.notify_one();
    }

    pub(super) fn take_reset(&self) -> Option<Reset> {
        self.inner().reset.take()
    }

    /// Waits until the cursor is to be put somewhere else.
    pub(super) async fn reset_asked(&self) {
        while self.inner().reset.is_none() {
            self.wake.notified().await;
        }
    }

    pub(super) fn close(&self) {
        self.closing.store(true, Ordering::Release);
        self.wake.notify_one();
    }

    pub(super) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    /// Waits so long, or until there is something else to do.
    pub(super) async fn pause(&self, time: Duration) {
        if !self.is_closing() {
            // Which of the two it was, whoever waited finds out by looking.
            let _ = tokio::time::timeout(time, self.wake.notified()).await;
        }
    }

    pub(super) fn standing(&self, records: u64, now: UnixNanos) -> Standing {
        self.judge(&mut self.inner(), records, now)
    }

    fn judge(&self, inner: &mut Inner, records: u64, now: UnixNanos) -> Standing {
        let lag_records = records.saturating_sub(inner.next);
        let lag_seconds = inner.oldest.map_or(0, |at| now.seconds().saturating_sub(at.seconds()));
        // Once behind, it has to get well below: what is done about it must not flicker.
        let part = if inner.behind { 2 } else { 1 };
        inner.behind = lag_records > self.max_records / part || lag_seconds > self.max_seconds / part;
        let failing = inner.failing.map(|since| now.seconds().saturating_sub(since.seconds()));
        let state = match failing {
            None => "ok",
            Some(seconds) if inner.attempts >= DOWN_ATTEMPTS || seconds >= DOWN_SECONDS => "down",
            Some(_) => "retrying",
        };
        Standing {
            name: self.name.clone(),
            kind: self.kind,
            state,
            next: inner.next,
            lag_records,
            lag_seconds,
            behind: inner.behind,
            on_lag: self.on_lag,
            since: inner.failing,
            error: inner.error.clone(),
            delivered: inner.delivered,
            failures: inner.failures,
        }
    }

    /// What has changed and the log was not told yet; and what to do about how far it is behind.
    pub(super) fn news(&self, records: u64, clock: &dyn Clock) -> (Vec<Note>, Option<OnLag>) {
        let (now, monotonic) = (clock.now(), clock.monotonic());
        let mut inner = self.inner();
        let standing = self.judge(&mut inner, records, now);
        let mut notes = Vec::new();
        let down = standing.state == "down";
        // Between failing and being down nothing is known: what was told holds on.
        if standing.state != "retrying" && inner.told_down.turn(down, monotonic) {
            notes.push(told(if down { "sink_down" } else { "sink_up" }, &standing));
        }
        if inner.told_behind.turn(standing.behind, monotonic) {
            notes.push(told(if standing.behind { "sink_behind" } else { "sink_caught_up" }, &standing));
        }
        (notes, standing.behind.then_some(self.on_lag))
    }
}

fn told(kind: &str, standing: &Standing) -> Note {
    let Standing { name, next, lag_records, lag_seconds, .. } = standing;
    let mut detail = format!("sink={name} next={next} lag_records={lag_records} lag_seconds={lag_seconds}");
    if kind == "sink_behind" {
        detail.push_str(match standing.on_lag {
            OnLag::Warn => " on_lag=warn",
            OnLag::Shed => " on_lag=shed",
            OnLag::Stop => " on_lag=stop",
        });
    }
    if let (Some(since), Some(error)) = (standing.since, &standing.error) {
        detail.push_str(&format!(" since={since} error={error}"));
    }
    Note::Event { kind: kind.to_owned(), detail }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cofferdam_model::clock::ManualClock;

    fn state(settings: &str) -> State {
        let text = format!("name = \"s\"\nto = {{ file = {{ path = \"x\" }} }}\n{settings}");
        State::new(&toml_edit::de::from_str(&text).unwrap(), 10, 9)
    }

    fn kinds(notes: &[Note]) -> Vec<&'static str> {
        let known = ["sink_down", "sink_up", "sink_behind", "sink_caught_up"];
        let is = |note: &Note, known: &str| matches!(note, Note::Event { kind, .. } if kind == known);
        notes.iter().map(|note| *known.iter().find(|known| is(note, known)).unwrap()).collect()
    }

    #[test]
    fn a_sink_that_flaps_is_told_of_once_a_minute() {
        let (state, clock) = (state(""), ManualClock::at(UnixNanos::from_seconds(1_000)));
        let mut told = Vec::new();
        for _ in 0..300 {
            for _ in 0..DOWN_ATTEMPTS {
                state.failed("gone".into(), clock.now());
            }
            told.extend(kinds(&state.news(10, &clock).0));
            state.arrived(1);
            told.extend(kinds(&state.news(10, &clock).0));
            clock.advance(Duration::from_secs(1));
        }
        assert_eq!(told, ["sink_down", "sink_up"].repeat(5));
    }

    #[test]
    fn a_sink_is_down_after_a_few_failures_or_a_while_and_up_once_something_arrives() {
        let (state, clock) = (state(""), ManualClock::at(UnixNanos::from_seconds(1_000)));
        let stands = |state: &State, clock: &ManualClock| state.standing(10, clock.now()).state;
        assert_eq!(stands(&state, &clock), "ok");
        assert_eq!(state.failed("gone".into(), clock.now()), 1);
        assert_eq!(stands(&state, &clock), "retrying");
        assert_eq!(state.news(10, &clock).0, []);
        clock.advance(Duration::from_secs(DOWN_SECONDS));
        assert_eq!(stands(&state, &clock), "down");
        let notes = state.news(10, &clock).0;
        assert_eq!(kinds(&notes), ["sink_down"]);
        assert!(format!("{notes:?}").contains("since=1970-01-01T00:16:40.000000Z error=gone"), "{notes:?}");
        state.arrived(3);
        assert_eq!(state.standing(10, clock.now()).delivered, 3);
        assert_eq!(kinds(&state.news(10, &clock).0), ["sink_up"]);
    }

    #[test]
    fn a_sink_that_is_too_far_behind_asks_for_its_step_until_it_is_well_below() {
        let state = state("max_lag_records = 100\nmax_lag_seconds = 60\non_lag = \"shed\"");
        let clock = ManualClock::at(UnixNanos::from_seconds(1_000));
        assert_eq!(state.news(110, &clock), (vec![], None));
        let (notes, step) = state.news(111, &clock);
        assert_eq!((kinds(&notes), step), (vec!["sink_behind"], Some(OnLag::Shed)));
        state.passed(60);
        assert_eq!(state.news(111, &clock), (vec![], Some(OnLag::Shed)), "51 is more than half");
        state.passed(61);
        let (notes, step) = state.news(111, &clock);
        assert_eq!((kinds(&notes), step), (vec!["sink_caught_up"], None));
        // Told again only after a minute, but acted on at once.
        state.sending(clock.now());
        clock.advance(Duration::from_secs(59));
        assert_eq!(state.news(111, &clock).1, None);
        clock.advance(Duration::from_secs(2));
        let (notes, step) = state.news(111, &clock);
        assert_eq!((kinds(&notes), step), (vec!["sink_behind"], Some(OnLag::Shed)));
    }
}
