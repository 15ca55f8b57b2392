//! Signing and writing checkpoints beside the commit threads, whose flushes must not wait for that.
//!
//! Owns that thread. Must never be given a tree of which a record is not durable.

use std::sync::mpsc::{self, SyncSender, TrySendError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::checkpoint::Notary;
use crate::log::Shared;
use crate::queue::Failure;
use crate::tree::Hash;

/// Time between two checkpoints that are kept for good.
const KEEP_EVERY: Duration = Duration::from_secs(60);

/// The thread.
pub(crate) struct NotaryThread {
    offers: Option<SyncSender<(u64, Hash)>>,
    notary: Arc<Mutex<Notary>>,
    thread: Option<JoinHandle<()>>,
}

impl NotaryThread {
    pub(crate) fn start(shared: Arc<Shared>, notary: Notary) -> std::io::Result<Self> {
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

    /// False when it is still busy.
    pub(crate) fn offer(&self, size: u64, root: Hash) -> bool {
        !matches!(self.offers.as_ref().map(|to| to.try_send((size, root))), Some(Err(TrySendError::Full(_))))
    }

    /// Lets the thread end, then writes the last checkpoint, which is kept, and waits for what is derived up to it.
    pub(crate) fn finish(&mut self, size: u64, root: Hash) -> Result<(), Failure> {
        self.stop();
        let mut notary = self.notary.lock().unwrap_or_else(PoisonError::into_inner);
        let published = notary.publish(size, &root, true).map_err(Failure::of("write the last checkpoint"));
        notary.end_feed();
        published
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
