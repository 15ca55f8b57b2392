//! The threads that give records their index and make them durable.
//!
//! Owns the order of records, the tree's growth, and the flushes that acknowledge: one thread writes and syncs while
//! another may still sync what is before, and what is acknowledged is always everything up to some record. Must never
//! acknowledge before the disk has, and never try again after it has not: a kernel may call pages clean that it failed
//! to write.

use std::fs::File;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::acks::Acks;
use crate::calls::OpenCalls;
use crate::checkpoint::Notary;
use crate::log::Shared;
use crate::notary::NotaryThread;
use crate::queue::{Failure, Pending, State};
use crate::record;
use crate::resume::Resume;
use crate::segment::{self, Header, Lane, SegmentWriter, complete_frame};
use crate::signer::Signer;
use crate::storage::Storage;
use crate::tree::{Hash, Tree};
use crate::watch::RESERVE;

/// Bytes of one write, beyond which a batch is split.
const WRITE_BYTES: usize = 4 * 1024 * 1024;
/// How long a thread sleeps at most before it looks at the clock again.
const LONGEST_SLEEP: Duration = Duration::from_secs(1);
const SHORTEST_SLEEP: Duration = Duration::from_millis(5);

/// What appends to the segments and the tree. Whoever has it is the only writer.
pub(crate) struct Appender {
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) dir: PathBuf,
    pub(crate) signer: Arc<Signer>,
    pub(crate) segment_bytes: u64,
    /// Syncs that may be under way at a time.
    pub(crate) lanes: usize,
    /// Over everything that was written, durable or not.
    pub(crate) tree: Tree,
    /// Calls that are open after all that was written.
    pub(crate) open: OpenCalls,
    /// Bytes of the checkpoints kept for good.
    pub(crate) history_bytes: Arc<AtomicU64>,
    /// The segment being written; none where the next record begins one.
    pub(crate) segment: Option<SegmentWriter>,
    /// The last epoch that began.
    pub(crate) epoch: Arc<AtomicU64>,
    /// Number of the next segment.
    pub(crate) next_segment: u64,
    /// One write's frames; kept for its capacity.
    pub(crate) buffer: Vec<u8>,
    /// The disk was full, so what was reserved for that was given up.
    pub(crate) gave_up_reserve: bool,
    /// Keeps every other process out for as long as this one may write.
    pub(crate) lock: Option<File>,
}

impl Appender {
    /// Whether the first of `records` begins a segment, for which all that was written must be durable.
    pub(crate) fn is_full(&self, records: &[Pending]) -> bool {
        let bytes = records.first().map_or(0, |first| first.record.frame.len() as u64);
        self.segment.as_ref().is_none_or(|segment| {
            segment.used() > segment::HEADER_BYTES as u64 && bytes > self.segment_bytes.saturating_sub(segment.used())
        })
    }

    /// Ends the segment being written, if there is one, and begins the next.
    pub(crate) fn begin_segment(&mut self) -> Result<(), Failure> {
        if let Some(full) = self.segment.take() {
            full.seal(&self.storage).map_err(Failure::of("seal a segment"))?;
        }
        let begun = self.begin_next();
        let begun = if is_full(&begun) && self.storage.remove(&self.dir.join(RESERVE)).is_ok() {
            self.gave_up_reserve = true;
            self.begin_next()
        } else {
            begun
        };
        self.segment = Some(begun.map_err(Failure::of("begin a segment"))?);
        self.next_segment += 1;
        Ok(())
    }

    /// Makes the files of the next segment; those of an earlier try are made anew.
    fn begin_next(&self) -> std::io::Result<SegmentWriter> {
        let number = self.next_segment;
        if number > 0 {
            let kept = (self.history_bytes.load(Ordering::Acquire), self.epoch.load(Ordering::Acquire));
            Resume::write(&self.storage, &self.dir, &self.signer, (number, &self.tree), kept, &self.open)?;
        }
        let header = Header::of(self.signer.origin(), self.tree.size());
        let bytes = self.segment_bytes;
        SegmentWriter::create(&self.storage, &self.dir, number, header, bytes, self.lanes)
    }

    /// Writes as many of `records` as go into one write, and gives their number and what is to be synced for them to
    /// be durable. `durable` says how many records are by now.
    pub(crate) fn write(
        &mut self,
        records: &mut [Pending],
        lane: usize,
        durable: u64,
    ) -> Result<(usize, Lane), Failure> {
        let none = || Failure::of("write records")(std::io::Error::other("there is no segment"));
        let segment = self.segment.as_mut().ok_or_else(none)?;
        self.buffer.clear();
        let mut leaves: Vec<Hash> = Vec::with_capacity(records.len());
        let mut room = self.segment_bytes.saturating_sub(segment.used());
        for (index, Pending { record, .. }) in (self.tree.size()..).zip(records.iter_mut()) {
            let bytes = record.frame.len() as u64;
            // A record too large for a whole segment still gets one.
            let fits = bytes <= room || (leaves.is_empty() && segment.used() == segment::HEADER_BYTES as u64);
            let full = self.buffer.len() + record.frame.len() > WRITE_BYTES && !leaves.is_empty();
            let behind = u32::try_from(index.saturating_sub(durable));
            let (true, false, Ok(behind)) = (fits, full, behind) else { break };
            room = room.saturating_sub(bytes);
            complete_frame(&mut record.frame, index, behind);
            self.buffer.extend_from_slice(&record.frame);
            leaves.push(record.leaf);
        }
        let mut written = segment.write(lane, &self.buffer);
        if is_full(&written) && self.storage.remove(&self.dir.join(RESERVE)).is_ok() {
            self.gave_up_reserve = true;
            // Nothing was synced yet, so trying again in the room just freed hides nothing.
            written = segment.write(lane, &self.buffer);
        }
        let lane = written.map_err(Failure::of("write records"))?;
        for (leaf, pending) in leaves.iter().zip(records.iter_mut()) {
            let (index, mark) = (self.tree.size(), pending.mark.take());
            mark.into_iter().for_each(|mark| self.open.apply(index, mark));
            self.tree.append(*leaf);
        }
        Ok((leaves.len(), lane))
    }

    /// Writes all of `records` and waits until they are durable.
    pub(crate) fn append_all(&mut self, records: &mut [Pending]) -> Result<(), Failure> {
        let mut done = 0;
        while let Some(rest) = records.get_mut(done..).filter(|rest| !rest.is_empty()) {
            if self.is_full(rest) {
                self.begin_segment()?;
            }
            let durable = self.tree.size();
            let (written, lane) = self.write(rest, 0, durable)?;
            segment::sync(&lane).map_err(Failure::of("write records"))?;
            done += written;
        }
        Ok(())
    }
}

fn is_full<T>(done: &std::io::Result<T>) -> bool {
    done.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::StorageFull)
}

/// Starts the threads.
pub(crate) fn start(shared: &Arc<Shared>, appender: Appender, notary: Notary) -> std::io::Result<Vec<JoinHandle<()>>> {
    let (checkpointed, lanes) = (appender.tree.size(), appender.lanes);
    let notary = NotaryThread::start(shared.clone(), notary)?;
    let now = shared.clock.monotonic();
    let (flush_at, sign_at) = (now + shared.config.rollup_window, now + shared.config.checkpoint_every);
    let desk = Desk { notary, appender, checkpointed, flush_at, sign_at };
    let office = Arc::new(Office { shared: shared.clone(), desk: Mutex::new(desk), acks: Acks::default() });
    let each = |lane| {
        let office = office.clone();
        thread::Builder::new().name(format!("audit-commit-{lane}")).spawn(move || {
            let guard = EndOfThread(&office);
            if let Some(failure) = office.work(lane).err() {
                office.fail(failure);
            }
            drop(guard);
        })
    };
    let started: std::io::Result<Vec<_>> = (0..lanes).map(each).collect();
    if started.is_err() {
        shared.queue.finish(None);
    }
    started
}

/// However a thread ends, nobody is left waiting.
struct EndOfThread<'a>(&'a Office);

impl Drop for EndOfThread<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.fail(Failure::of("commit")(std::io::Error::other("the thread panicked")));
        }
    }
}

/// What the threads share.
struct Office {
    shared: Arc<Shared>,
    /// Where one of them at a time takes records and writes them.
    desk: Mutex<Desk>,
    acks: Acks,
}

struct Desk {
    /// Before the appender, with whose lock goes the right to write: what is derived is written for the notary.
    notary: NotaryThread,
    appender: Appender,
    /// Size last given to the notary.
    checkpointed: u64,
    /// When counts of refusals are due, and when a checkpoint is.
    flush_at: Duration,
    sign_at: Duration,
}

/// A write whose sync is due.
struct Written {
    records: Vec<Pending>,
    lane: Lane,
    turn: u64,
    first: u64,
    /// By which it is known how long it takes.
    sync: u64,
}

impl Office {
    fn fail(&self, failure: Failure) {
        // In this order, so that whoever hears of it hears why.
        self.shared.queue.finish(Some(failure));
        self.acks.fail();
    }

    /// Takes records, writes them and waits for the disk, again and again, until there is nothing more to come.
    fn work(&self, lane: usize) -> Result<(), Failure> {
        let mut batch = Vec::new();
        loop {
            let mut desk = self.desk();
            let state = self.take(&mut desk, &mut batch);
            if state == State::Closed {
                self.shared.queue.refuse(batch);
                return Ok(());
            }
            if !batch.is_empty() {
                self.commit(desk, lane, &mut batch)?;
                continue;
            }
            let done = if state == State::Open { self.sign(&mut desk) } else { self.close(&mut desk) };
            if let Err(failure) = done {
                // While the desk is still taken: nobody else may try again what failed here.
                self.fail(failure.clone());
                return Err(failure);
            }
        }
    }

    /// Waits for records, and puts what nobody in particular records before them.
    fn take(&self, desk: &mut Desk, batch: &mut Vec<Pending>) -> State {
        let Shared { clock, queue, config, .. } = &*self.shared;
        let sleep = desk.flush_at.min(desk.sign_at).saturating_sub(clock.monotonic());
        let state = queue.take(batch, sleep.clamp(SHORTEST_SLEEP, LONGEST_SLEEP));
        let now = clock.monotonic();
        let asked = self.shared.flush.swap(false, Ordering::AcqRel);
        let flush = asked || now >= desk.flush_at || state == State::Closing;
        if flush {
            desk.flush_at = now + config.rollup_window;
        }
        queue.take_unrecorded().into_iter().for_each(|mark| desk.appender.open.apply(0, mark));
        let mut own = Vec::new();
        let dropped = queue.take_dropped();
        if dropped > 0 {
            own.push(record::gap(&self.shared.stamp(), dropped));
        }
        if flush {
            let mut rollup = self.shared.rollup.lock().unwrap_or_else(PoisonError::into_inner);
            let tallies = rollup.take(clock.now());
            drop(rollup);
            own.extend(tallies.iter().map(|tally| record::refusals(&self.shared.stamp(), &tally.as_tally())));
        }
        if !own.is_empty() {
            queue.expect(own.len());
            batch.splice(0..0, own.into_iter().map(Pending::own));
        }
        state
    }

    /// Makes all of `batch` durable, write by write, and tells each write's waiters at once. The desk is free while the
    /// disk works on the last of them.
    fn commit(&self, mut desk: MutexGuard<'_, Desk>, lane: usize, batch: &mut Vec<Pending>) -> Result<(), Failure> {
        loop {
            let written = match self.write(&mut desk, lane, batch) {
                Ok(written) => written,
                Err(failure) => {
                    self.fail(failure.clone());
                    self.shared.queue.refuse(batch.drain(..));
                    return Err(failure);
                }
            };
            if batch.is_empty() {
                let due = match self.due(&mut desk) {
                    Ok(due) => due,
                    Err(failure) => {
                        self.fail(failure.clone());
                        self.shared.queue.refuse(written.records);
                        return Err(failure);
                    }
                };
                drop(desk);
                self.land(written)?;
                if let Some((size, root)) = due {
                    self.offer(size, root);
                }
                return Ok(());
            }
            if let Err(failure) = self.land(written) {
                self.shared.queue.refuse(batch.drain(..));
                return Err(failure);
            }
        }
    }

    /// Writes as much of `batch` as goes into one write.
    fn write(&self, desk: &mut Desk, lane: usize, batch: &mut Vec<Pending>) -> Result<Written, Failure> {
        let Shared { watch, clock, .. } = &*self.shared;
        let sync = watch.sync_begins(clock.monotonic());
        if desk.appender.is_full(batch) {
            self.settle()?;
            desk.appender.begin_segment()?;
        }
        let first = desk.appender.tree.size();
        let durable = self.shared.durable.load(Ordering::Acquire);
        let (written, lane) = desk.appender.write(batch, lane, durable)?;
        if std::mem::take(&mut desk.appender.gave_up_reserve) {
            self.shared.watch.disk_is_full();
        }
        let rest = batch.split_off(written.min(batch.len()));
        Ok(Written { records: std::mem::replace(batch, rest), lane, turn: self.acks.take(), first, sync })
    }

    /// Waits until a write is durable, and everything before it; then tells who waits for that.
    fn land(&self, written: Written) -> Result<(), Failure> {
        let Written { records, lane, turn, first, sync } = written;
        let queue = &self.shared.queue;
        let Shared { watch, clock, .. } = &*self.shared;
        let synced = segment::sync(&lane).map_err(Failure::of("write records"));
        watch.sync_ended(sync, clock.monotonic());
        queue.landed(records.len());
        if let Err(failure) = &synced {
            self.fail(failure.clone());
        }
        if !self.acks.reached(turn) {
            queue.refuse(records);
            return synced.and_then(|()| self.settle());
        }
        // Before anyone is told: whoever was answered finds his record when he follows the log.
        let count = records.len();
        self.shared.durable.store(first + count as u64, Ordering::Release);
        self.acks.done();
        let mut counted = 0;
        for (index, pending) in (first..).zip(records) {
            counted += usize::from(pending.counted);
            if let Some(waiter) = pending.waiter {
                // Nobody waiting any more is no news.
                let _ = waiter.send(Ok(index));
            }
        }
        queue.release(count, counted);
        Ok(())
    }

    /// The tree, where a checkpoint is due: to be signed once all of it is durable.
    fn due(&self, desk: &mut Desk) -> Result<Option<(u64, Hash)>, Failure> {
        let now = self.shared.clock.monotonic();
        let size = desk.appender.tree.size();
        if now < desk.sign_at {
            return Ok(None);
        }
        if let Some(segment) = &desk.appender.segment {
            segment.is_there().map_err(Failure::of("find the segment being written"))?;
        }
        desk.sign_at = now + self.shared.config.checkpoint_every;
        Ok((size != desk.checkpointed).then(|| (size, desk.appender.tree.root())))
    }

    /// Hands the notary the tree if it has grown and is durable, while nobody has anything to record.
    fn sign(&self, desk: &mut Desk) -> Result<(), Failure> {
        if !self.acks.is_settled() {
            return Ok(());
        }
        if let Some((size, root)) = self.due(desk)?
            && desk.notary.offer(size, root)
        {
            desk.checkpointed = size;
        }
        Ok(())
    }

    /// Hands the notary a tree that is durable by now. One that is busy gets the next.
    fn offer(&self, size: u64, root: Hash) {
        let mut desk = self.desk();
        if size > desk.checkpointed && desk.notary.offer(size, root) {
            desk.checkpointed = size;
        }
    }

    /// Waits until nothing is under way.
    fn settle(&self) -> Result<(), Failure> {
        let failed = || Failure::of("write records")(std::io::Error::other("the write before it failed"));
        if self.acks.settle() { Ok(()) } else { Err(failed()) }
    }

    fn close(&self, desk: &mut Desk) -> Result<(), Failure> {
        self.settle()?;
        if let Some(segment) = &mut desk.appender.segment {
            segment.is_there().map_err(Failure::of("find the segment being written"))?;
            segment.trim().map_err(Failure::of("close the last segment"))?;
        }
        desk.notary.finish(desk.appender.tree.size(), desk.appender.tree.root())?;
        // Whoever hears that it is closed may open it.
        desk.appender.lock = None;
        self.shared.queue.finish(None);
        Ok(())
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
