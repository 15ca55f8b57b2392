//! Where records wait for the commit thread.
//!
//! Owns the queue, its bound, and the log's state: open, closing, closed, failed. Must never hold its lock while
//! anything is encoded, hashed or written, and never let a waiter go unanswered.

use std::io;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore, oneshot};

use crate::calls::Mark;
use crate::error::AuditError;
use crate::record::Encoded;
use crate::shares::{Reserved, Shares};

/// A sync is worth beginning beside another for this part of the other's records.
const WORTH_A_SYNC: usize = 2;

/// Told the record's index once it is durable.
pub(crate) type Waiter = oneshot::Sender<Result<u64, AuditError>>;
/// Gives the record's index once it is durable.
pub(crate) type Durable = oneshot::Receiver<Result<u64, AuditError>>;

/// A record on its way.
pub(crate) struct Pending {
    pub(crate) record: Encoded,
    pub(crate) waiter: Option<Waiter>,
    /// Whether it took one of the queue's places, to be given back.
    pub(crate) counted: bool,
    /// The place for effects it took, given back with it.
    #[expect(dead_code, reason = "held for its drop")]
    pub(crate) reserved: Option<Reserved>,
    /// What it does to its call.
    pub(crate) mark: Option<Mark>,
}

impl Pending {
    /// A record that nobody waits for.
    pub(crate) fn own(record: Encoded) -> Self {
        Self { record, waiter: None, counted: false, reserved: None, mark: None }
    }
}

/// Why the log failed, to be told to everybody.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    pub(crate) action: &'static str,
    pub(crate) source: Arc<io::Error>,
}

impl Failure {
    pub(crate) fn of(action: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self { action, source: Arc::new(source) }
    }
}

impl From<Failure> for AuditError {
    fn from(failure: Failure) -> Self {
        Self::Failed { action: failure.action, source: failure.source }
    }
}

/// What the commit thread finds when it looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Open,
    /// No more records are taken; those that wait are still committed.
    Closing,
    Closed,
}

/// The queue.
pub(crate) struct Queue {
    inner: Mutex<Inner>,
    wake: Condvar,
    space: Semaphore,
    /// Places for what calls do to the outside.
    pub(crate) shares: Shares,
    waiting: AtomicUsize,
    most: usize,
    dropped: AtomicU64,
    ended: Notify,
    failure: OnceLock<Failure>,
}

struct Inner {
    items: Vec<Pending>,
    state: State,
    /// How many records the commit thread that waits wants there to be before it is woken; none waits at the most.
    wanted: usize,
    /// Records that are being synced.
    syncing: usize,
    /// What became of calls without a record of it: relaxed ones for which there was no room.
    unrecorded: Vec<Mark>,
    finished: Vec<oneshot::Sender<()>>,
}

impl Inner {
    /// How many records are worth a sync of their own now.
    fn enough(&self) -> usize {
        (self.syncing / WORTH_A_SYNC).max(1)
    }
}

impl Queue {
    /// A queue with `places` for records that can wait for one, and as many again for those that cannot.
    pub(crate) fn new(places: usize) -> Self {
        Self {
            inner: Mutex::new(Inner {
                items: Vec::new(),
                state: State::Open,
                wanted: usize::MAX,
                syncing: 0,
                unrecorded: Vec::new(),
                finished: Vec::new(),
            }),
            wake: Condvar::new(),
            space: Semaphore::new(places),
            shares: Shares::new(places / 2),
            waiting: AtomicUsize::new(0),
            most: places.saturating_mul(2),
            dropped: AtomicU64::new(0),
            ended: Notify::new(),
            failure: OnceLock::new(),
        }
    }

    /// Whether records are taken at all.
    pub(crate) fn health(&self) -> Result<(), AuditError> {
        match self.failure.get() {
            Some(failure) => Err(failure.clone().into()),
            None if self.space.is_closed() => Err(AuditError::Closed),
            None => Ok(()),
        }
    }

    /// Whether there is room for one more call. Records of open calls may still come when there is not.
    pub(crate) fn admits(&self) -> Result<(), AuditError> {
        self.health()?;
        if self.waiting.load(Ordering::Relaxed) < self.most { Ok(()) } else { Err(AuditError::Full) }
    }

    /// Waits for a place, which the next `push` must use.
    pub(crate) async fn place(&self) -> Result<(), AuditError> {
        match self.space.acquire().await {
            Ok(place) => {
                place.forget();
                Ok(())
            }
            Err(_) => Err(self.why_closed()),
        }
    }

    /// Takes a place if there is one right now; otherwise counts a dropped record.
    pub(crate) fn place_or_drop(&self) -> bool {
        match self.space.try_acquire() {
            Ok(place) => {
                place.forget();
                true
            }
            Err(_) => {
                self.dropped.fetch_add(1, Ordering::Relaxed);
                false
            }
        }
    }

    pub(crate) fn push(&self, pending: Pending) -> Result<(), AuditError> {
        let mut inner = self.lock();
        if inner.state != State::Open {
            drop(inner);
            return Err(self.why_closed());
        }
        inner.items.push(pending);
        self.waiting.fetch_add(1, Ordering::Relaxed);
        if inner.items.len() >= inner.wanted {
            inner.wanted = usize::MAX;
            drop(inner);
            self.wake.notify_one();
        }
        Ok(())
    }

    /// Moves everything that waits into `into`, sleeping at most `timeout` while nothing does. While another sync is
    /// under way, few records wait for more or for its end: each sync costs the same, however much it is for.
    pub(crate) fn take(&self, into: &mut Vec<Pending>, timeout: Duration) -> State {
        let mut inner = self.lock();
        if inner.items.len() < inner.enough() && inner.state == State::Open {
            inner.wanted = inner.enough();
            inner = self.wake.wait_timeout(inner, timeout).unwrap_or_else(PoisonError::into_inner).0;
            inner.wanted = usize::MAX;
        }
        std::mem::swap(&mut inner.items, into);
        inner.syncing += into.len();
        inner.state
    }

    /// So many records that were taken are synced, or never will be.
    pub(crate) fn landed(&self, records: usize) {
        let mut inner = self.lock();
        inner.syncing = inner.syncing.saturating_sub(records);
        if inner.wanted < usize::MAX {
            inner.wanted = inner.enough();
            if inner.items.len() >= inner.wanted {
                inner.wanted = usize::MAX;
                drop(inner);
                self.wake.notify_one();
            }
        }
    }

    /// Notes what became of a call without a record of it.
    pub(crate) fn forget(&self, mark: Mark) {
        self.lock().unrecorded.push(mark);
    }

    /// What became of calls without a record of it since this was last asked.
    pub(crate) fn take_unrecorded(&self) -> Vec<Mark> {
        std::mem::take(&mut self.lock().unrecorded)
    }

    /// Makes room for records that did not come through `push`.
    pub(crate) fn expect(&self, records: usize) {
        self.lock().syncing += records;
        self.waiting.fetch_add(records, Ordering::Relaxed);
    }

    /// Gives back places and room.
    pub(crate) fn release(&self, records: usize, counted: usize) {
        self.waiting.fetch_sub(records, Ordering::Relaxed);
        self.space.add_permits(counted);
    }

    /// Number of relaxed records dropped since the last time this was asked.
    pub(crate) fn take_dropped(&self) -> u64 {
        self.dropped.swap(0, Ordering::Relaxed)
    }

    /// Takes no more records. The receiver hears when those that wait are durable.
    pub(crate) fn close(&self) -> oneshot::Receiver<()> {
        let (finished, heard) = oneshot::channel();
        let mut inner = self.lock();
        if inner.state == State::Closed {
            return heard;
        }
        inner.state = State::Closing;
        inner.finished.push(finished);
        self.space.close();
        self.shares.close();
        drop(inner);
        self.wake.notify_all();
        heard
    }

    /// Ends it all: no state but this one follows. Whoever still waits is told why.
    pub(crate) fn finish(&self, failure: Option<Failure>) {
        if let Some(failure) = failure
            && self.failure.set(failure.clone()).is_ok()
        {
            tracing::error!(action = failure.action, error = %failure.source, "the audit log has failed");
        }
        let mut inner = self.lock();
        inner.state = State::Closed;
        self.space.close();
        self.shares.close();
        let (items, finished) = (std::mem::take(&mut inner.items), std::mem::take(&mut inner.finished));
        drop(inner);
        self.wake.notify_all();
        self.refuse(items);
        self.ended.notify_waiters();
        drop(finished);
    }

    /// Tells the waiters of records that will not be committed.
    pub(crate) fn refuse(&self, items: impl IntoIterator<Item = Pending>) {
        for waiter in items.into_iter().filter_map(|item| item.waiter) {
            // Nobody waiting any more is no news.
            let _ = waiter.send(Err(self.why_closed()));
        }
    }

    /// Waits until no more records are committed.
    pub(crate) async fn ended(&self) {
        let mut ended = std::pin::pin!(self.ended.notified());
        // Before looking, so that an end in between is heard.
        ended.as_mut().enable();
        if self.lock().state != State::Closed {
            ended.await;
        }
    }

    pub(crate) fn why_closed(&self) -> AuditError {
        self.failure.get().map_or(AuditError::Closed, |failure| failure.clone().into())
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
