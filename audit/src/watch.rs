//! Looking after the log: room on its disk, the time syncs take, the clock, and the segments nobody reads any more.
//!
//! Owns the thread that looks once a second, the step of the ladder the node is on, the reserve that is given up so
//! that a full disk can still be recorded, and the scrub of sealed segments. Must never hold up who records.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use cofferdam_model::Clock;

use crate::ladder::{Ladder, Step};
use crate::log::{Note, Shared};
use crate::record;
use crate::scrub::Scrub;
use crate::storage::Storage;

/// File that is given up when the disk is full.
pub(crate) const RESERVE: &str = "reserve";
/// Time between two looks.
const EVERY: Duration = Duration::from_secs(1);
/// A wall clock that moves this much more or less than time goes by was set.
const CLOCK_STEP_NANOS: u64 = 1_000_000_000;
/// Bytes written at a time.
const CHUNK_BYTES: usize = 1024 * 1024;

/// What is seen, for whoever shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Standing {
    /// Step of the ladder.
    pub step: Step,
    /// Free bytes of the log's file system, at the last look.
    pub free_bytes: u64,
    /// Time of the slowest sync before the last look.
    pub sync: Duration,
    /// Whether the reserve is there.
    pub reserve: bool,
    /// Records that are durable.
    pub records: u64,
    /// Segments that the scrub found damaged since the start.
    pub damaged: u64,
}

/// What the commit threads, the watching thread and everybody who asks share.
pub(crate) struct Watch {
    step: AtomicU8,
    free_bytes: AtomicU64,
    sync_micros: AtomicU64,
    reserve: AtomicBool,
    damaged: AtomicU64,
    /// A write found the disk full: the next look takes it so, whatever has been freed since.
    full: AtomicBool,
    syncs: Mutex<Syncs>,
    inner: Mutex<Inner>,
    stop: Mutex<bool>,
    stopped: Condvar,
}

#[derive(Default)]
struct Syncs {
    /// When those under way began.
    begun: Vec<(u64, Duration)>,
    next: u64,
    /// The slowest that ended since the last look.
    slowest: Duration,
}

struct Inner {
    storage: Arc<dyn Storage>,
    ladder: Ladder,
    /// Wall time less monotonic time, at the last look.
    offset: Option<i128>,
    scrub: Scrub,
}

impl Watch {
    pub(crate) fn new(storage: Arc<dyn Storage>, scrub: Scrub) -> Self {
        Self {
            step: AtomicU8::new(0),
            free_bytes: AtomicU64::new(0),
            sync_micros: AtomicU64::new(0),
            reserve: AtomicBool::new(false),
            damaged: AtomicU64::new(0),
            full: AtomicBool::new(false),
            syncs: Mutex::default(),
            inner: Mutex::new(Inner { storage, ladder: Ladder::default(), offset: None, scrub }),
            stop: Mutex::new(false),
            stopped: Condvar::new(),
        }
    }

    pub(crate) fn step(&self) -> Step {
        Step::ALL.get(usize::from(self.step.load(Ordering::Acquire))).copied().unwrap_or(Step::Deny)
    }

    pub(crate) fn standing(&self, records: u64) -> Standing {
        Standing {
            step: self.step(),
            free_bytes: self.free_bytes.load(Ordering::Relaxed),
            sync: Duration::from_micros(self.sync_micros.load(Ordering::Relaxed)),
            reserve: self.reserve.load(Ordering::Relaxed),
            records,
            damaged: self.damaged.load(Ordering::Relaxed),
        }
    }

    /// Notes that a sync begins, and gives what to tell of its end with.
    pub(crate) fn sync_begins(&self, now: Duration) -> u64 {
        let mut syncs = self.syncs.lock().unwrap_or_else(PoisonError::into_inner);
        let number = syncs.next;
        syncs.next += 1;
        syncs.begun.push((number, now));
        number
    }

    pub(crate) fn sync_ended(&self, number: u64, now: Duration) {
        let mut syncs = self.syncs.lock().unwrap_or_else(PoisonError::into_inner);
        let begun = syncs.begun.iter().position(|(begun, _)| *begun == number);
        if let Some((_, at)) = begun.map(|at| syncs.begun.swap_remove(at)) {
            syncs.slowest = syncs.slowest.max(now.saturating_sub(at));
        }
    }

    /// Notes that a write found the disk full.
    pub(crate) fn disk_is_full(&self) {
        self.full.store(true, Ordering::Release);
        self.set(Step::Deny);
        self.reserve.store(false, Ordering::Relaxed);
    }

    fn set(&self, step: Step) {
        let at = Step::ALL.iter().position(|each| *each == step).and_then(|at| u8::try_from(at).ok());
        self.step.store(at.unwrap_or(u8::MAX), Ordering::Release);
    }

    /// The slowest sync since this was last asked, or one under way for longer.
    fn slowest(&self, now: Duration) -> Duration {
        let mut syncs = self.syncs.lock().unwrap_or_else(PoisonError::into_inner);
        let open = syncs.begun.iter().map(|(_, begun)| now.saturating_sub(*begun)).max().unwrap_or_default();
        std::mem::take(&mut syncs.slowest).max(open)
    }

    /// Ends the thread.
    pub(crate) fn end(&self) {
        *self.stop.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.stopped.notify_all();
    }

    /// Sleeps until the next look; false where there is none.
    fn sleep(&self) -> bool {
        let stop = self.stop.lock().unwrap_or_else(PoisonError::into_inner);
        let slept = self.stopped.wait_timeout_while(stop, EVERY, |stop| !*stop);
        !*slept.unwrap_or_else(PoisonError::into_inner).0
    }
}

/// Starts the thread.
pub(crate) fn start(shared: Arc<Shared>) -> std::io::Result<JoinHandle<()>> {
    thread::Builder::new().name("audit-watch".into()).spawn(move || {
        while shared.watch.sleep() {
            look(&shared);
        }
    })
}

/// One look.
pub(crate) fn look(shared: &Shared) {
    let Shared { watch, config, clock, .. } = shared;
    let mut inner = watch.inner.lock().unwrap_or_else(PoisonError::into_inner);
    let full = watch.full.swap(false, Ordering::AcqRel);
    // What cannot be asked is taken for the worst where it matters: a disk that does not answer is not one to write to.
    let free = if full { 0 } else { inner.storage.free_bytes(&config.dir).unwrap_or(0) };
    let slowest = watch.slowest(clock.monotonic());
    watch.free_bytes.store(free, Ordering::Relaxed);
    watch.sync_micros.store(u64::try_from(slowest.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    let change = if full { inner.ladder.fill() } else { inner.ladder.observe(&config.thresholds, free, slowest) };
    if let Some(change) = change {
        stepped(shared, &inner, change, free, slowest);
    }
    if watch.step() != Step::Deny && !watch.reserve.load(Ordering::Relaxed) {
        keep_reserve(shared, &*inner.storage, free);
    }
    if let Some(by) = clock_step(&mut inner, &**clock) {
        tell(shared, "clock_step", format!("by_ms={by}"));
    }
    let found = inner.scrub.step(EVERY);
    drop(inner);
    for damage in found {
        watch.damaged.fetch_add(1, Ordering::Relaxed);
        tracing::error!(damage, "a sealed segment of the audit log is damaged");
        tell(shared, "log_damaged", damage);
    }
}

/// Makes a step known, in the log as well: where there is no more room, in what was reserved for that.
fn stepped(shared: &Shared, inner: &Inner, (from, to): (Step, Step), free: u64, slowest: Duration) {
    shared.watch.set(to);
    if to == Step::Deny && shared.watch.reserve.swap(false, Ordering::Relaxed) {
        // Not being able to is no reason not to try the record.
        let _ = inner.storage.remove(&shared.config.dir.join(RESERVE));
    }
    let (from, to) = (from.as_str(), to.as_str());
    let detail = format!("from={from} to={to} free_bytes={free} sync_ms={}", slowest.as_millis());
    tracing::warn!(from, to, free, sync_ms = slowest.as_millis(), "the audit log changes what the node still does");
    tell(shared, "log_step", detail);
}

/// Keeps some room, so that it can be recorded that there is none.
fn keep_reserve(shared: &Shared, storage: &dyn Storage, free: u64) {
    let bytes = shared.config.reserve_bytes;
    let [.., deny] = shared.config.thresholds.free_bytes;
    if bytes == 0 || free < bytes.saturating_mul(2).saturating_add(deny) {
        return;
    }
    match make_reserve(shared, storage, bytes) {
        Ok(()) => shared.watch.reserve.store(true, Ordering::Relaxed),
        Err(error) => tracing::warn!(%error, "no room could be reserved for the audit log"),
    }
}

fn make_reserve(shared: &Shared, storage: &dyn Storage, bytes: u64) -> std::io::Result<()> {
    let path = shared.config.dir.join(RESERVE);
    if std::fs::metadata(&path).is_ok_and(|about| about.len() == bytes) {
        return Ok(());
    }
    let mut file = storage.create(&path)?;
    // Written, and with something: a hole, or what a file system packs, would reserve nothing.
    let mut chunk = vec![0u8; CHUNK_BYTES];
    let mut at = 0;
    while at < bytes {
        shared.random.fill(&mut chunk);
        let length = usize::try_from(bytes - at).unwrap_or(CHUNK_BYTES).min(CHUNK_BYTES);
        file.write_at(at, chunk.get(..length).unwrap_or_default())?;
        at += length as u64;
    }
    file.sync()
}

/// By how many milliseconds the wall clock was set since the last look, where it was.
fn clock_step(inner: &mut Inner, clock: &dyn Clock) -> Option<i128> {
    let monotonic = i128::try_from(clock.monotonic().as_nanos()).unwrap_or(i128::MAX);
    let offset = i128::from(clock.now().0).saturating_sub(monotonic);
    let by = offset.saturating_sub(inner.offset.replace(offset)?);
    (by.unsigned_abs() >= u128::from(CLOCK_STEP_NANOS)).then_some(by / 1_000_000)
}

/// Records something that was seen. A log that has failed has said so already.
fn tell(shared: &Shared, kind: &str, detail: String) {
    let note = Note::Event { kind: kind.into(), detail };
    let _ = shared.queue_unawaited(|stamp| record::note(stamp, &note), None);
}
