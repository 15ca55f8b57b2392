//! The log as the rest of the node sees it.
//!
//! Owns its settings, opening and shutting down, and everything recorded outside an entry. Must never give out a
//! `Recorded` before the disk has confirmed what it stands for.

use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use cofferdam_model::{CallFacts, Clock, Level, OutcomeFacts, Random, Reply, Subject};

use crate::boot::{Boot, Counts};
use crate::calls::Mark;
use crate::commit;
use crate::derive::{DeriveConfig, Derived, Feed};
use crate::entry::{Entry, Place, Recorded};
use crate::error::AuditError;
use crate::ladder::{Step, Thresholds};
use crate::privacy::Privacy;
use crate::queue::{Durable, Pending, Queue};
use crate::record::{self, Encoded, Stamp};
use crate::recover::recover;
use crate::rollup::Rollup;
use crate::scrub::Scrub;
use crate::shares::Reserved;
use crate::shred::{Seal, SubjectKeys};
use crate::signer::Signer;
use crate::storage::{Disk, Storage};
use crate::tree::Hash;
use crate::watch::{self, Standing, Watch};

/// The longest a call waits for the key of its subject.
const KEY_WAIT: Duration = Duration::from_millis(250);

/// Whose key the records of a call are sealed under: the principal's in the tenant it happened in, or that of nobody
/// there. What happened in no tenant has none.
pub(crate) fn subject_of(facts: &CallFacts) -> Option<(&str, &str)> {
    let principal = facts.principal.as_ref();
    let tenant = facts.tenant.as_deref().or_else(|| principal?.tenant.as_deref())?;
    Some((tenant, principal.map_or("", |principal| &principal.id)))
}

/// Settings of a log.
#[derive(Debug, Clone)]
pub struct LogConfig {
    /// Directory of the log, of which nothing else may be in.
    pub dir: PathBuf,
    /// Its name in checkpoints, such as `cofferdam.local/node-1`; the signing key's name.
    pub origin: String,
    /// Bytes after which a new segment file is begun.
    pub segment_bytes: u64,
    /// Time between signed checkpoints while the log grows.
    pub checkpoint_every: Duration,
    /// Time over which refusals of strangers are counted before they are written.
    pub rollup_window: Duration,
    /// Records that may wait for the disk; whoever has one more waits for a place.
    pub queue_records: usize,
    /// What of a record is kept at all.
    pub privacy: Privacy,
    /// Syncs that may be under way at a time: one or two.
    pub syncs: usize,
    /// When the node does less, as the log's disk has too little room or takes too long.
    pub thresholds: Thresholds,
    /// Bytes that are kept free by a file, which is given up so that a full disk can be recorded; none where zero.
    pub reserve_bytes: u64,
    /// Bytes of sealed segments that are read again each second, to find a disk that forgets; none where zero.
    pub scrub_bytes_per_second: u64,
    /// What is derived from the log while it grows; nothing where absent.
    pub derive: Option<DeriveConfig>,
}

impl LogConfig {
    /// The usual settings: 64 MiB segments, a checkpoint every second, counts every ten, 8,192 records waiting, two
    /// syncs at a time. No ladder, no reserve and no scrub, and nothing derived.
    pub fn new(dir: impl Into<PathBuf>, origin: impl Into<String>) -> Self {
        Self {
            dir: dir.into(),
            origin: origin.into(),
            segment_bytes: 64 * 1024 * 1024,
            checkpoint_every: Duration::from_secs(1),
            rollup_window: Duration::from_secs(10),
            queue_records: 8_192,
            privacy: Privacy::default(),
            syncs: 2,
            thresholds: Thresholds::NEVER,
            reserve_bytes: 0,
            scrub_bytes_per_second: 0,
            derive: None,
        }
    }
}

/// What opening found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    /// Records in the log, those written by opening it included.
    pub records: u64,
    /// Root of the tree over them, base64.
    pub root: String,
    /// Bytes of a write cut short that were cut off.
    pub torn_bytes: u64,
    /// Calls found without an end, closed as `unknown`.
    pub unknown_outcomes: u64,
}

/// Something to record that is no call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    /// The node started.
    Start {
        /// Version of the program.
        version: String,
        /// What a reader should know: digest of the configuration, isolation report.
        detail: String,
    },
    /// The node stops.
    Stop {
        /// Why.
        reason: String,
    },
    /// Something happened.
    Event {
        /// What kind of thing, such as `certificate_reloaded`.
        kind: String,
        /// What a reader should know.
        detail: String,
    },
}

/// The log. Cloning is cheap; the last clone dropped shuts it down and waits for that.
#[derive(Clone)]
pub struct Log {
    handle: Arc<Handle>,
}

/// What tasks and the commit thread share.
pub(crate) struct Shared {
    pub(crate) config: LogConfig,
    pub(crate) queue: Queue,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) random: Arc<dyn Random>,
    pub(crate) rollup: Mutex<Rollup>,
    /// Records that are durable.
    pub(crate) durable: AtomicU64,
    /// Who keeps the keys that what records disclose is sealed under; unset where nothing is.
    pub(crate) keys: OnceLock<Arc<dyn SubjectKeys>>,
    /// Records whose fields were not kept because no key was at hand.
    pub(crate) unkept: AtomicU64,
    pub(crate) watch: Watch,
    pub(crate) boot: Boot,
    /// Counts of refusals are to be written before the records that wait.
    pub(crate) flush: AtomicBool,
    /// What readers of tiles and proofs are given.
    pub(crate) derived: Derived,
}

/// A record that somebody waits for.
pub(crate) struct Awaited {
    durable: Durable,
    /// Hash of its leaf.
    leaf: Hash,
}

struct Handle {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Log {
    /// Opens the log, or makes it. Reads what follows the newest signed checkpoint first, and the segment before that:
    /// a log that is damaged there is not opened. `verify` reads all of it.
    pub fn open(
        config: LogConfig,
        signer: Signer,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
    ) -> Result<(Self, Opened), AuditError> {
        Self::open_on(Arc::new(Disk), config, signer, clock, random)
    }

    pub(crate) fn open_on(
        storage: Arc<dyn Storage>,
        config: LogConfig,
        signer: Signer,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
    ) -> Result<(Self, Opened), AuditError> {
        let own = signer.clone();
        let scrub =
            Scrub::new(config.dir.clone(), config.origin.clone(), signer.verifier(), config.scrub_bytes_per_second);
        let (appender, mut notary, opened) = recover(storage.clone(), &config, signer, &*clock, &*random)?;
        let shared = Arc::new(Shared {
            queue: Queue::new(config.queue_records),
            rollup: Mutex::new(Rollup::new(clock.now())),
            boot: Boot::new(appender.epoch.clone(), &*random),
            config,
            clock,
            random,
            durable: AtomicU64::new(opened.records),
            watch: Watch::new(storage, scrub),
            flush: AtomicBool::new(false),
            keys: OnceLock::new(),
            unkept: AtomicU64::new(0),
            derived: Derived::default(),
        });
        if let Some(settings) = shared.config.derive.clone() {
            let failed = || AuditError::file("start to derive from", &shared.config.dir);
            let feed = Feed::start(shared.clone(), own, settings).map_err(failed())?;
            notary.feed(feed, appender.tree.size(), appender.tree.root()).map_err(failed())?;
        }
        let failed = || AuditError::file("start a thread for", &shared.config.dir);
        let mut threads = commit::start(&shared, appender, notary).map_err(failed())?;
        if shared.config.is_watched() {
            watch::look(&shared);
            threads.push(watch::start(shared.clone()).map_err(failed())?);
        }
        Ok((Self { handle: Arc::new(Handle { shared, threads: Mutex::new(threads) }) }, opened))
    }

    /// Opens an entry for a call. Costs nothing yet; refuses when the log has failed or is hopelessly behind.
    pub fn enter<S: Subject>(&self, subject: S) -> Result<Entry<S>, AuditError> {
        self.shared().queue.admits()?;
        let step = self.shared().watch.step();
        let withheld = match step {
            Step::Normal | Step::Warn => false,
            Step::Shed => subject.level() == Level::Relaxed,
            Step::ReadOnly => subject.level() == Level::Relaxed || !is_safe(&subject.facts().method),
            Step::Deny => true,
        };
        if withheld {
            return Err(AuditError::Withheld { step: step.as_str() });
        }
        Ok(Entry::new(self.clone(), subject))
    }

    /// Records the refusal of somebody known, or of somebody's call that got as far as being understood.
    /// Where the log has next to no room left, it is counted as those of strangers are.
    pub async fn refuse<R: Reply>(&self, facts: CallFacts, reply: R) -> Result<Recorded<R>, AuditError> {
        if self.shared().watch.step() == Step::Deny {
            return self.tally(&facts, reply);
        }
        // From here on it is recorded even if nobody waits for that any more.
        let mut owed = Owed { log: self, facts: Some((facts, reply.outcome())) };
        if let Some((facts, _)) = &owed.facts {
            self.have_key(facts).await;
        }
        let shared = self.shared();
        shared.queue.place().await?;
        let (facts, outcome) = owed.facts.take().ok_or(AuditError::Closed)?;
        let record = record::refusal(&shared.sealing(&shared.stamp(), &facts), &facts, &outcome);
        let place = shared.wait(shared.queue_awaited(record, true, None)?).await?;
        Ok(Recorded::new(reply, Some(place)))
    }

    /// Counts something of a stranger's that never became a call, as a refusal with no status.
    pub fn count(&self, code: &str, source: std::net::IpAddr) {
        let mut rollup = self.shared().rollup.lock().unwrap_or_else(PoisonError::into_inner);
        rollup.add((code, None), 0, source);
    }

    /// Counts the refusal of a stranger: one record each window for all of the same code, failed check, status and
    /// source network.
    pub fn tally<R: Reply>(&self, facts: &CallFacts, reply: R) -> Result<Recorded<R>, AuditError> {
        self.health()?;
        let outcome = reply.outcome();
        let code = outcome.code.as_deref().unwrap_or_else(|| outcome.ending.as_str());
        let mut rollup = self.shared().rollup.lock().unwrap_or_else(PoisonError::into_inner);
        rollup.add((code, outcome.way.check.as_deref()), outcome.status, facts.source);
        drop(rollup);
        Ok(Recorded::new(reply, None))
    }

    /// Records something that is no call, and gives its index once it is durable.
    pub async fn note(&self, note: Note) -> Result<u64, AuditError> {
        let boot = &self.shared().boot;
        let encode = |stamp: &Stamp| boot.note(stamp, &note).unwrap_or_else(|| record::note(stamp, &note));
        self.shared().durable(encode).await.map(|place| place.index)
    }

    /// Records what has been counted since the start, after all that was counted before this was asked.
    pub async fn beat(&self, counts: &Counts) -> Result<u64, AuditError> {
        let shared = self.shared();
        shared.queue.place().await?;
        shared.flush.store(true, Ordering::Release);
        let record = shared.boot.beat(&shared.stamp(), counts);
        shared.wait(shared.queue_awaited(record, true, None)?).await.map(|place| place.index)
    }

    /// How it stands with the log and its disk.
    pub fn standing(&self) -> Standing {
        self.shared().watch.standing(self.records())
    }

    /// Waits until the log takes no more records: it was shut down, or has failed, which `health` tells.
    pub async fn ended(&self) {
        self.shared().queue.ended().await;
    }

    /// From now on seals what records disclose of somebody in a tenant under that subject's key. To be called once.
    pub fn seal_under(&self, keys: Arc<dyn SubjectKeys>) {
        // A second keeper would leave records that the first cannot open; the first stays.
        let _ = self.shared().keys.set(keys);
    }

    /// Whether what records disclose is sealed.
    pub(crate) fn seals(&self) -> bool {
        self.shared().keys.get().is_some()
    }

    /// Has the key at hand that the records of this call will be sealed under, if they are. Waits a moment at most;
    /// without a key a record has no more than the commitments.
    pub async fn have_key(&self, facts: &CallFacts) {
        let Some((keys, (tenant, subject))) = self.shared().keys.get().zip(subject_of(facts)) else { return };
        if keys.ready(tenant, subject).is_none() {
            let _ = tokio::time::timeout(KEY_WAIT, keys.fetch(tenant, subject)).await;
        }
    }

    /// Records since the start that kept only commitments, because no key was at hand to seal the fields under.
    pub fn unkept(&self) -> u64 {
        self.shared().unkept.load(Ordering::Relaxed)
    }

    /// Its name, as its checkpoints give it.
    pub fn origin(&self) -> &str {
        &self.shared().config.origin
    }

    /// Where it is.
    pub fn dir(&self) -> &std::path::Path {
        &self.shared().config.dir
    }

    /// Number of records that are durable: those of a lower index will be there whatever happens.
    pub fn records(&self) -> u64 {
        self.shared().durable.load(Ordering::Acquire)
    }

    /// Whether the log takes records.
    pub fn health(&self) -> Result<(), AuditError> {
        self.shared().queue.health()
    }

    /// Takes no more records, makes those that wait durable, and signs for them. An error means that some are lost.
    pub async fn shutdown(&self) -> Result<(), AuditError> {
        // The sender is only ever dropped: that it is gone is the news.
        let _ = self.shared().queue.close().await;
        match self.health() {
            Err(AuditError::Closed) | Ok(()) => Ok(()),
            failed => failed,
        }
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.handle.shared
    }
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log").field("config", &self.shared().config).finish_non_exhaustive()
    }
}

impl Shared {
    pub(crate) fn stamp(&self) -> Stamp {
        Stamp { privacy: self.config.privacy, ..Stamp::new(self.clock.now(), &*self.random) }
    }

    /// Queues a record as soon as there is a place and waits until it is durable.
    pub(crate) async fn durable(&self, encode: impl FnOnce(&Stamp) -> Encoded) -> Result<Place, AuditError> {
        self.queue.place().await?;
        let durable = self.queue_awaited(encode(&self.stamp()), true, None)?;
        self.wait(durable).await
    }

    /// The stamp of a record of this call, with the key of its subject.
    pub(crate) fn sealing(&self, stamp: &Stamp, facts: &CallFacts) -> Stamp {
        self.sealing_for(stamp, subject_of(facts))
    }

    pub(crate) fn sealing_for(&self, stamp: &Stamp, subject: Option<(&str, &str)>) -> Stamp {
        let Some((keys, (tenant, subject))) = self.keys.get().zip(subject) else { return stamp.clone() };
        let seal = keys.ready(tenant, subject).map_or_else(
            || {
                self.unkept.fetch_add(1, Ordering::Relaxed);
                Seal::Lost
            },
            Seal::Under,
        );
        Stamp { seal, ..stamp.clone() }
    }

    /// Queues a record somebody will wait for.
    pub(crate) fn queue_awaited(
        &self,
        record: Encoded,
        counted: bool,
        mark: Option<Mark>,
    ) -> Result<Awaited, AuditError> {
        let leaf = record.leaf;
        let (waiter, durable) = tokio::sync::oneshot::channel();
        self.queue.push(Pending { waiter: Some(waiter), counted, mark, ..Pending::own(record) })?;
        Ok(Awaited { durable, leaf })
    }

    /// Queues a record nobody waits for and that must not be lost.
    pub(crate) fn queue_unawaited(
        &self,
        encode: impl FnOnce(&Stamp) -> Encoded,
        mark: Option<Mark>,
    ) -> Result<(), AuditError> {
        self.queue.push(Pending { mark, ..Pending::own(encode(&self.stamp())) })
    }

    /// Queues a record for which a place was reserved, and that must not be lost.
    pub(crate) fn queue_reserved(
        &self,
        reserved: Reserved,
        encode: impl FnOnce(&Stamp) -> Encoded,
    ) -> Result<(), AuditError> {
        self.queue.push(Pending { reserved: Some(reserved), ..Pending::own(encode(&self.stamp())) })
    }

    /// Queues a record if there is a place for it; otherwise it becomes part of a gap.
    pub(crate) fn queue_relaxed(
        &self,
        encode: impl FnOnce(&Stamp) -> Encoded,
        mark: Option<Mark>,
    ) -> Result<(), AuditError> {
        self.queue.health()?;
        if !self.queue.place_or_drop() {
            mark.into_iter()
                .filter(|mark| matches!(mark, Mark::Closes { .. }))
                .for_each(|mark| self.queue.forget(mark));
            return Ok(());
        }
        self.queue.push(Pending { counted: true, mark, ..Pending::own(encode(&self.stamp())) })
    }

    pub(crate) async fn wait(&self, mut awaited: Awaited) -> Result<Place, AuditError> {
        self.wait_on(&mut awaited).await
    }

    /// The same for one that is waited for again where this is dropped.
    pub(crate) async fn wait_on(&self, awaited: &mut Awaited) -> Result<Place, AuditError> {
        let index = (&mut awaited.durable).await.unwrap_or_else(|_| Err(self.queue.why_closed()))?;
        Ok(Place { index, leaf: awaited.leaf })
    }
}

/// The record of a refusal whose caller may leave before there is a place for it.
struct Owed<'a> {
    log: &'a Log,
    facts: Option<(CallFacts, OutcomeFacts)>,
}

impl Drop for Owed<'_> {
    fn drop(&mut self) {
        let Some((facts, outcome)) = self.facts.take() else { return };
        let shared = self.log.shared();
        let encode = |stamp: &Stamp| record::refusal(&shared.sealing(stamp, &facts), &facts, &outcome);
        if let Err(error) = shared.queue_unawaited(encode, None) {
            tracing::error!(request = %facts.request, %error, "a refusal could not be recorded");
        }
    }
}

/// Whether a call with this method changes nothing.
fn is_safe(method: &str) -> bool {
    ["GET", "HEAD", "OPTIONS"].contains(&method)
}

impl LogConfig {
    /// Whether there is anything to look after.
    fn is_watched(&self) -> bool {
        self.thresholds != Thresholds::NEVER || self.reserve_bytes > 0 || self.scrub_bytes_per_second > 0
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.watch.end();
        drop(self.shared.queue.close());
        let threads = std::mem::take(self.threads.get_mut().unwrap_or_else(PoisonError::into_inner));
        // A task that a commit thread wakes may hold the last clone, and a thread cannot wait for itself.
        for thread in threads.into_iter().filter(|thread| thread.thread().id() != thread::current().id()) {
            // A panic there has failed the log already; there is nothing left to tell.
            let _ = thread.join();
        }
    }
}
