//! The task of one sink: reads the log by its cursor, sends, and moves the cursor once that was acknowledged.
//!
//! Owns the order and the retries. Must never touch the path on which records are committed, hold more than one batch,
//! or move a cursor past what was not acknowledged.

use std::sync::Arc;
use std::time::Duration;

use cofferdam_audit::{Follower, Log, Note};
use cofferdam_model::{Clock, Random};

use super::Carrier;
use super::batch::{Batch, Taking};
use super::config::SinkConfig;
use super::cursor::{Cursor, Fit};
use super::error::SinkError;
use super::state::{Reset, State};

/// Time after the first failure; it doubles with each.
const FIRST_WAIT: Duration = Duration::from_millis(200);
/// The longest that gets.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// Records that are not for this sink after which the cursor is written all the same.
const SKIPPED: u64 = 4096;

/// The task.
pub(super) struct Worker {
    pub(super) state: Arc<State>,
    pub(super) carrier: Carrier,
    pub(super) log: Log,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) random: Arc<dyn Random>,
    /// What its file says.
    pub(super) cursor: Cursor,
    taking: Taking,
    /// Records at once for now.
    most: usize,
    every: Duration,
    deadline: Duration,
    /// None where it has to begin at the cursor.
    follower: Option<Follower>,
    /// One that has not arrived yet.
    unsent: Option<Batch>,
    /// Whether the cursor was found to be about this log.
    fits: bool,
}

/// What to do next.
enum Next {
    More,
    Wait(Duration),
    Over,
}

impl Worker {
    pub(super) fn new(
        config: &SinkConfig,
        (state, carrier, cursor): (Arc<State>, Carrier, Cursor),
        log: Log,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
    ) -> Self {
        Self {
            state,
            carrier,
            log,
            clock,
            random,
            cursor,
            taking: Taking::of(config),
            most: config.records(),
            every: config.every(),
            deadline: Duration::from_millis(config.deadline_ms),
            follower: None,
            unsent: None,
            fits: false,
        }
    }

    /// Streams until it is told to end, and then what is there by then if it can be.
    pub(super) async fn run(mut self) {
        loop {
            if let Some(reset) = self.state.take_reset() {
                self.reset(reset).await;
                continue;
            }
            let next = match self.step().await {
                Ok(next) => next,
                Err(error) => self.failed(&error),
            };
            match next {
                Next::More => {}
                Next::Wait(time) => self.state.pause(time).await,
                Next::Over => return,
            }
        }
    }

    async fn step(&mut self) -> Result<Next, SinkError> {
        if !self.fits {
            self.check().await?;
        }
        let batch = match self.unsent.take() {
            Some(batch) => batch,
            None => self.read().await?,
        };
        let Some(oldest) = batch.items.first().map(|item| item.at) else { return self.skip(&batch).await };
        self.state.sending(oldest);
        let sent = tokio::select! {
            biased;
            () = self.state.reset_asked() => return Ok(Next::More),
            sent = tokio::time::timeout(self.deadline, self.carrier.deliver(&batch)) => sent,
        };
        let sent = sent.unwrap_or(Err(SinkError::Timeout { after: self.deadline }));
        if let Err(error) = sent {
            self.carrier.forget();
            if error.is_too_large() && batch.items.len() > 1 {
                self.most = batch.items.len() / 2;
                self.follower = None;
            } else {
                self.unsent = Some(batch);
            }
            return Err(error);
        }
        self.store(batch.until, batch.leaf).await?;
        self.state.arrived(u64::try_from(batch.items.len()).unwrap_or(u64::MAX));
        self.most = self.taking.records;
        let more = batch.full || self.state.is_closing();
        Ok(if more { Next::More } else { Next::Wait(self.every) })
    }

    /// Goes past records that are not for this sink.
    async fn skip(&mut self, batch: &Batch) -> Result<Next, SinkError> {
        let over = self.state.is_closing() && !batch.full;
        let skipped = batch.until.saturating_sub(self.cursor.next);
        if skipped >= SKIPPED || (over && skipped > 0) {
            self.store(batch.until, batch.leaf).await?;
        } else {
            self.state.passed(batch.until);
        }
        // Nothing is left that could fail to arrive.
        self.state.arrived(0);
        Ok(match (over, batch.full) {
            (true, _) => Next::Over,
            (false, true) => Next::More,
            (false, false) => Next::Wait(self.every),
        })
    }

    fn failed(&mut self, error: &SinkError) -> Next {
        let text = error.chain();
        let attempts = self.state.failed(text.clone(), self.clock.now());
        tracing::warn!(sink = self.state.name, attempts, error = text, "records did not arrive; it is tried again");
        if self.state.is_closing() {
            return Next::Over;
        }
        Next::Wait(backoff(attempts, &*self.random).max(error.retry_after().unwrap_or_default()))
    }

    async fn read(&mut self) -> Result<Batch, SinkError> {
        let mut follower = self.follower.take().unwrap_or_else(|| Follower::new(&self.log, self.cursor.next));
        let taking = self.taking.at_most(self.most);
        let read = tokio::task::spawn_blocking(move || (Batch::read(&mut follower, &taking), follower)).await;
        let (batch, follower) = read.map_err(|_| SinkError::Stopping)?;
        let batch = batch?;
        self.follower = Some(follower);
        Ok(batch)
    }

    async fn store(&mut self, next: u64, leaf: Option<[u8; 32]>) -> Result<(), SinkError> {
        let (cursor, log) = (Cursor::at(self.log.origin(), next, leaf), self.log.clone());
        let (name, written) = (self.state.name.clone(), cursor.clone());
        let stored = tokio::task::spawn_blocking(move || written.store(log.dir(), &name)).await;
        let stored = stored.map_err(|_| SinkError::Stopping)?;
        if stored.is_err() {
            // What was acknowledged is sent again rather than forgotten.
            self.follower = None;
        }
        stored?;
        self.state.stored(next, cursor.needs());
        self.cursor = cursor;
        Ok(())
    }

    /// Begins anew where the cursor is about another log: what this one holds has not been sent.
    async fn check(&mut self) -> Result<(), SinkError> {
        let (cursor, log) = (self.cursor.clone(), self.log.clone());
        let fit = tokio::task::spawn_blocking(move || cursor.fits(&log)).await.map_err(|_| SinkError::Stopping)??;
        if let Fit::Strange(reason) = fit {
            let from = self.cursor.next;
            self.store(0, None).await?;
            self.tell(format!("sink={} from={from} to=0 reason={reason}", self.state.name)).await;
        }
        self.fits = true;
        Ok(())
    }

    /// Goes on from somewhere else, as it was asked.
    async fn reset(&mut self, Reset { to, done }: Reset) {
        let from = self.cursor.next;
        (self.follower, self.unsent) = (None, None);
        let log = self.log.clone();
        let read = tokio::task::spawn_blocking(move || match to.checked_sub(1) {
            None => Ok(None),
            Some(before) => {
                let mut follower = Follower::new(&log, before);
                follower.read(1, |_| {}).map(|_| follower.leaf())
            }
        });
        let put = match read.await {
            Ok(Ok(leaf)) => self.store(to, leaf).await,
            Ok(Err(error)) => Err(error.into()),
            Err(_) => Err(SinkError::Stopping),
        };
        if put.is_ok() {
            self.fits = true;
            self.tell(format!("sink={} from={from} to={to} reason=asked", self.state.name)).await;
        }
        // Whoever asked may have left; it is done all the same.
        let _ = done.send(put);
    }

    async fn tell(&self, detail: String) {
        tracing::warn!(detail, "the cursor of a sink was reset");
        let note = Note::Event { kind: "sink_cursor_reset".to_owned(), detail };
        if let Err(error) = self.log.note(note).await {
            tracing::error!(%error, "what became of a sink could not be recorded");
        }
    }
}

/// Longer with each failure, and never the same for two nodes.
fn backoff(attempts: u32, random: &dyn Random) -> Duration {
    let doubled = FIRST_WAIT.saturating_mul(1 << attempts.saturating_sub(1).min(16)).min(LONGEST_WAIT);
    let mut bytes = [0; 4];
    random.fill(&mut bytes);
    let half = doubled / 2;
    half + half.mul_f64(f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use cofferdam_model::random::SeededRandom;

    #[test]
    fn waits_get_longer_up_to_a_minute_and_differ() {
        let (one, other) = (SeededRandom::new(1), SeededRandom::new(2));
        for attempts in 1..100 {
            let whole = FIRST_WAIT.saturating_mul(1 << (attempts - 1).min(9)).min(LONGEST_WAIT);
            let waits = [backoff(attempts, &one), backoff(attempts, &other)];
            assert!(waits.iter().all(|wait| (whole / 2..=whole).contains(wait)), "{attempts}: {waits:?}");
            assert_ne!(waits[0], waits[1]);
        }
    }
}
