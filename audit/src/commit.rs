//! The one thread that gives records their index and makes them durable.
//!
//! Owns the order of records, the tree's growth, and the flush that acknowledges. Must never acknowledge before the
//! disk has, and never try again after it has not: a kernel may call pages clean that it failed to write.

use std::fs::File;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, SyncSender, TrySendError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::checkpoint::Notary;
use crate::log::Shared;
use crate::queue::{Failure, Pending, State};
use crate::record::{self, Encoded};
use crate::segment::{Header, SegmentWriter, complete_frame};
use crate::storage::Storage;
use crate::tree::{Hash, Tree};

/// Bytes of one write, beyond which a batch is split.
const WRITE_BYTES: usize = 4 * 1024 * 1024;
/// Time between two checkpoints that are kept for good.
const KEEP_EVERY: Duration = Duration::from_secs(60);
/// How long the thread sleeps at most before it looks at the clock again.
const LONGEST_SLEEP: Duration = Duration::from_secs(1);
const SHORTEST_SLEEP: Duration = Duration::from_millis(5);

/// What appends to the segments and the tree. Whoever has it is the only writer.
pub(crate) struct Appender {
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) dir: PathBuf,
    pub(crate) origin: String,
    pub(crate) segment_bytes: u64,
    pub(crate) tree: Tree,
    /// The segment being written; none before the first record.
    pub(crate) segment: Option<SegmentWriter>,
    /// One write's frames; kept for its capacity.
    pub(crate) buffer: Vec<u8>,
    /// Keeps every other process out for as long as this one may write.
    pub(crate) _lock: File,
}

impl Appender {
    /// Writes as many of `frames` as go into one write and gives their number once they are durable.
    pub(crate) fn append<'a>(&mut self, frames: impl Iterator<Item = &'a mut Encoded>) -> Result<usize, Failure> {
        self.buffer.clear();
        let mut leaves: Vec<Hash> = Vec::with_capacity(frames.size_hint().0);
        let mut room = self.segment.as_ref().map_or(0, |segment| self.segment_bytes.saturating_sub(segment.used()));
        for (place, encoded) in (0u32..).zip(frames) {
            let bytes = encoded.frame.len() as u64;
            if place == 0 && bytes > room {
                self.next_segment()?;
                // A record too large for a whole segment still gets one.
                room = self.segment_bytes.max(bytes);
            }
            if bytes > room || self.buffer.len() + encoded.frame.len() > WRITE_BYTES {
                break;
            }
            room -= bytes;
            complete_frame(&mut encoded.frame, self.tree.size() + u64::from(place), place);
            self.buffer.extend_from_slice(&encoded.frame);
            leaves.push(encoded.leaf);
        }
        if let Some(segment) = &mut self.segment {
            segment.append(&self.buffer).map_err(Failure::of("write records"))?;
        }
        leaves.iter().for_each(|leaf| self.tree.append(*leaf));
        Ok(leaves.len())
    }

    /// Writes all of `records`.
    pub(crate) fn append_all(&mut self, records: &mut [Encoded]) -> Result<(), Failure> {
        let mut done = 0;
        while done < records.len() {
            done += self.append(records.iter_mut().skip(done))?;
        }
        Ok(())
    }

    fn next_segment(&mut self) -> Result<(), Failure> {
        let number = match self.segment.take() {
            Some(full) => {
                let number = full.number;
                full.seal(&self.storage).map_err(Failure::of("seal a segment"))?;
                number + 1
            }
            None => 0,
        };
        let header = Header::of(&self.origin, self.tree.size());
        let made = SegmentWriter::create(&self.storage, &self.dir, number, header, self.segment_bytes);
        self.segment = Some(made.map_err(Failure::of("begin a segment"))?);
        Ok(())
    }
}

/// Starts the thread.
pub(crate) fn start(shared: Arc<Shared>, appender: Appender, notary: Notary) -> std::io::Result<JoinHandle<()>> {
    let checkpointed = appender.tree.size();
    let notary = NotaryThread::start(shared.clone(), notary)?;
    thread::Builder::new().name("audit-commit".into()).spawn(move || {
        let guard = EndOfThread(&shared);
        let failure = Committer { shared: &shared, appender, notary, checkpointed }.run().err();
        shared.queue.finish(failure);
        drop(guard);
    })
}

/// However the thread ends, nobody is left waiting.
struct EndOfThread<'a>(&'a Shared);

impl Drop for EndOfThread<'_> {
    fn drop(&mut self) {
        let failure = thread::panicking().then(|| Failure::of("commit")(std::io::Error::other("the thread panicked")));
        self.0.queue.finish(failure);
    }
}

struct Committer<'a> {
    shared: &'a Shared,
    appender: Appender,
    notary: NotaryThread,
    /// Size last given to the notary.
    checkpointed: u64,
}

impl Committer<'_> {
    fn run(mut self) -> Result<(), Failure> {
        let Shared { clock, queue, config, .. } = self.shared;
        let (window, every) = (config.rollup_window, config.checkpoint_every);
        let (mut flush_at, mut sign_at) = (clock.monotonic() + window, clock.monotonic() + every);
        let mut batch = Vec::new();
        loop {
            let sleep = flush_at.min(sign_at).saturating_sub(clock.monotonic());
            let state = queue.take(&mut batch, sleep.clamp(SHORTEST_SLEEP, LONGEST_SLEEP));
            if state == State::Closed {
                queue.refuse(batch);
                return Ok(());
            }
            let now = clock.monotonic();
            let flush = now >= flush_at || state == State::Closing;
            if flush {
                flush_at = now + window;
            }
            self.housekeep(flush, &mut batch);
            if !batch.is_empty() {
                self.commit(&mut batch)?;
            } else if state == State::Closing {
                return self.close();
            }
            if clock.monotonic() >= sign_at && self.sign()? {
                sign_at = clock.monotonic() + every;
            }
        }
    }

    /// Puts what nobody in particular records before the batch.
    fn housekeep(&self, flush: bool, batch: &mut Vec<Pending>) {
        let mut own = Vec::new();
        let dropped = self.shared.queue.take_dropped();
        if dropped > 0 {
            own.push(record::gap(&self.shared.stamp(), dropped));
        }
        if flush {
            let mut rollup = self.shared.rollup.lock().unwrap_or_else(PoisonError::into_inner);
            let tallies = rollup.take(self.shared.clock.now());
            drop(rollup);
            own.extend(tallies.iter().map(|tally| record::refusals(&self.shared.stamp(), &tally.as_tally())));
        }
        if !own.is_empty() {
            self.shared.queue.expect(own.len());
            let pending = |record| Pending { record, waiter: None, counted: false, reserved: None };
            batch.splice(0..0, own.into_iter().map(pending));
        }
    }

    /// Makes all of `batch` durable, write by write, and tells each write's waiters at once.
    fn commit(&mut self, batch: &mut Vec<Pending>) -> Result<(), Failure> {
        let mut rest = std::mem::take(batch).into_iter();
        while !rest.as_slice().is_empty() {
            let first = self.appender.tree.size();
            let written = self.appender.append(rest.as_mut_slice().iter_mut().map(|pending| &mut pending.record));
            let written = match written {
                Ok(written) => written,
                Err(failure) => {
                    self.shared.queue.finish(Some(failure.clone()));
                    self.shared.queue.refuse(rest);
                    return Err(failure);
                }
            };
            // Before anyone is told: whoever was answered finds his record when he follows the log.
            self.shared.durable.store(self.appender.tree.size(), Ordering::Release);
            let mut counted = 0;
            for (index, pending) in (first..).zip(rest.by_ref().take(written)) {
                counted += usize::from(pending.counted);
                if let Some(waiter) = pending.waiter {
                    // Nobody waiting any more is no news.
                    let _ = waiter.send(Ok(index));
                }
            }
            self.shared.queue.release(written, counted);
        }
        Ok(())
    }

    /// Hands the notary the tree if it has grown. False when the notary is still busy.
    fn sign(&mut self) -> Result<bool, Failure> {
        if let Some(segment) = &self.appender.segment {
            segment.is_there().map_err(Failure::of("find the segment being written"))?;
        }
        let (size, root) = (self.appender.tree.size(), self.appender.tree.root());
        let done = size == self.checkpointed || self.notary.offer(size, root);
        if done {
            self.checkpointed = size;
        }
        Ok(done)
    }

    fn close(mut self) -> Result<(), Failure> {
        if let Some(segment) = &mut self.appender.segment {
            segment.is_there().map_err(Failure::of("find the segment being written"))?;
            segment.trim().map_err(Failure::of("close the last segment"))?;
        }
        self.notary.finish(self.appender.tree.size(), self.appender.tree.root())
    }
}

/// Signs and writes checkpoints beside the commit thread, whose flushes must not wait for that.
struct NotaryThread {
    offers: Option<SyncSender<(u64, Hash)>>,
    notary: Arc<Mutex<Notary>>,
    thread: Option<JoinHandle<()>>,
}

impl NotaryThread {
    fn start(shared: Arc<Shared>, notary: Notary) -> std::io::Result<Self> {
        let (offers, taken) = mpsc::sync_channel::<(u64, Hash)>(1);
        let notary = Arc::new(Mutex::new(notary));
        let own = notary.clone();
        let thread = thread::Builder::new().name("audit-notary".into()).spawn(move || {
            let mut kept_at = shared.clock.monotonic();
            for (size, root) in taken {
                let now = shared.clock.monotonic();
                let keep = now.saturating_sub(kept_at) >= KEEP_EVERY;
                if keep {
                    kept_at = now;
                }
                let published = own.lock().unwrap_or_else(PoisonError::into_inner).publish(size, &root, keep);
                if let Err(error) = published {
                    return shared.queue.finish(Some(Failure::of("write a checkpoint")(error)));
                }
            }
        })?;
        Ok(Self { offers: Some(offers), notary, thread: Some(thread) })
    }

    fn offer(&self, size: u64, root: Hash) -> bool {
        !matches!(self.offers.as_ref().map(|to| to.try_send((size, root))), Some(Err(TrySendError::Full(_))))
    }

    /// Lets the thread end, then writes the last checkpoint, which is kept.
    fn finish(mut self, size: u64, root: Hash) -> Result<(), Failure> {
        self.stop();
        let mut notary = self.notary.lock().unwrap_or_else(PoisonError::into_inner);
        notary.publish(size, &root, true).map_err(Failure::of("write the last checkpoint"))
    }

    fn stop(&mut self) {
        self.offers = None;
        if let Some(thread) = self.thread.take() {
            // A panic there has been reported by itself; there is nothing left to do with it.
            let _ = thread.join();
        }
    }
}

impl Drop for NotaryThread {
    fn drop(&mut self) {
        self.stop();
    }
}
