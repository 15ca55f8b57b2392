//! What is derived from the log beside its commit path: the tiles of its tree, and the trees of tenants.
//!
//! Owns the thread that follows the log from checkpoint to checkpoint, and which checkpoint is published: one whose
//! tiles are there. Must never hold up a record, and never fail the log: whatever is lost here is made anew.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError, RwLock};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::error::AuditError;
use crate::log::Shared;
use crate::record;
use crate::retain;
use crate::signer::Signer;
use crate::tenants::Tenants;
use crate::tile::{Edge, TileDir, read_bounded, write_whole};
use crate::tree::{Hash, leaf_hash_of_prefixed};
use crate::walk::Walker;

/// Directory of the tiles of the log's own tree.
pub(crate) const TILES: &str = "tile";
/// File in it that says of how many records there are tiles.
const STATE: &str = "state";
const STATE_BYTES: u64 = 64;
/// Records taken in one go, between two looks at whether the log closes.
const STEP: u64 = 4_096;
/// Records that are still followed when the log closes. What is left is followed at the next start.
const LAST_STEPS: u64 = 65_536;
/// Leaves whose tiles are checked at a start: those that a crash could have taken.
const CHECKED: u64 = 1 << 20;
/// How long the thread sleeps at most.
const LONGEST_SLEEP: Duration = Duration::from_millis(250);

/// Settings of what is derived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeriveConfig {
    /// Time between two records of the roots of tenants' trees, while those grow.
    pub tenant_roots_every: Duration,
}

impl Default for DeriveConfig {
    fn default() -> Self {
        Self { tenant_roots_every: Duration::from_secs(10) }
    }
}

/// A checkpoint whose tiles are there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// Records it is for.
    pub size: u64,
    /// Root of the tree over them.
    pub root: Hash,
    /// The signed note.
    pub note: String,
}

/// What readers share with the thread.
#[derive(Default)]
pub(crate) struct Derived {
    published: RwLock<Option<Arc<Published>>>,
    /// Where the entries read last ended, so that the next ones need not be looked for.
    pub(crate) walker: Mutex<Option<Walker>>,
}

impl Derived {
    pub(crate) fn published(&self) -> Option<Arc<Published>> {
        self.published.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn publish(&self, checkpoint: Published) {
        *self.published.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(checkpoint));
    }
}

/// The newest checkpoint, if the thread has not taken it yet.
#[derive(Default)]
struct Inbox {
    inner: Mutex<Waiting>,
    wake: Condvar,
}

#[derive(Default)]
struct Waiting {
    newest: Option<Published>,
    closing: bool,
}

impl Inbox {
    /// The newest checkpoint since this was last asked, and whether it is the last.
    fn take(&self) -> (Option<Published>, bool) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if inner.newest.is_none() && !inner.closing {
            inner = self.wake.wait_timeout(inner, LONGEST_SLEEP).unwrap_or_else(PoisonError::into_inner).0;
        }
        (inner.newest.take(), inner.closing)
    }

    fn is_closing(&self) -> bool {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).closing
    }
}

/// Where checkpoints are handed in. Dropped, it waits until the thread has followed the log to its end, nearly.
pub(crate) struct Feed {
    inbox: Arc<Inbox>,
    thread: Option<JoinHandle<()>>,
}

impl Feed {
    /// Starts the thread.
    pub(crate) fn start(shared: Arc<Shared>, signer: Signer, config: DeriveConfig) -> std::io::Result<Self> {
        let inbox = Arc::new(Inbox::default());
        let own = inbox.clone();
        let work =
            move || Deriver { shared, signer, config, inbox: own, at: None, unsound: false, due: Duration::ZERO }.run();
        let thread = thread::Builder::new().name("audit-derive".into()).spawn(work)?;
        Ok(Self { inbox, thread: Some(thread) })
    }

    /// Hands in a checkpoint. Never waits: of several only the newest counts.
    pub(crate) fn tell(&self, checkpoint: Published) {
        self.inbox.inner.lock().unwrap_or_else(PoisonError::into_inner).newest = Some(checkpoint);
        self.inbox.wake.notify_one();
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.inbox.inner.lock().unwrap_or_else(PoisonError::into_inner).closing = true;
        self.inbox.wake.notify_one();
        if let Some(thread) = self.thread.take() {
            // A panic there has been reported by itself; what it left behind is made anew.
            let _ = thread.join();
        }
    }
}

struct Deriver {
    shared: Arc<Shared>,
    signer: Signer,
    config: DeriveConfig,
    inbox: Arc<Inbox>,
    at: Option<Following>,
    /// Whether what there is was found to be unsound, and is made anew.
    unsound: bool,
    /// When the roots of tenants are recorded next.
    due: Duration,
}

impl Deriver {
    fn run(mut self) {
        self.due = self.shared.clock.monotonic() + self.config.tenant_roots_every;
        loop {
            let (newest, closing) = self.inbox.take();
            if let Some(checkpoint) = newest
                && let Err(error) = self.follow(checkpoint)
            {
                tracing::warn!(%error, "what is derived from the audit log could not be written; it is tried again");
                self.at = None;
                self.unsound = matches!(error, AuditError::Derived { .. });
            }
            if closing {
                return self.close();
            }
            if self.shared.clock.monotonic() >= self.due {
                self.due = self.shared.clock.monotonic() + self.config.tenant_roots_every;
                self.record_roots();
            }
        }
    }

    /// Follows the log up to a checkpoint, and publishes it.
    fn follow(&mut self, checkpoint: Published) -> Result<(), AuditError> {
        let dir = &self.shared.config.dir;
        let mut at = match self.at.take() {
            Some(at) => at,
            None if std::mem::take(&mut self.unsound) => Following::anew(dir, Some(self.signer.clone()))?,
            None => Following::resume(dir, Some(self.signer.clone()))?,
        };
        // Once more from the beginning, if what there was does not fit.
        for again in [true, false] {
            while at.next() < checkpoint.size {
                let behind = checkpoint.size - at.next();
                if behind > LAST_STEPS && self.inbox.is_closing() {
                    return Ok(());
                }
                at.step(checkpoint.size)?;
            }
            if at.edge.size() == checkpoint.size && at.edge.root() == checkpoint.root {
                at.write()?;
                self.shared.derived.publish(checkpoint);
                self.at = Some(at);
                return Ok(());
            }
            if again {
                tracing::warn!("tiles of the audit log do not fit its checkpoint and are made anew");
                at = Following::anew(dir, Some(self.signer.clone()))?;
            }
        }
        Err(AuditError::Derived { path: dir.join(TILES) })
    }

    /// Queues a record of the roots of tenants' trees that have grown.
    fn record_roots(&mut self) {
        let Some(at) = &mut self.at else { return };
        let shared = &self.shared;
        let recorded = at.tenants.commit(|batch| {
            // A log that closes takes no more; the next start goes on from here.
            shared.queue_unawaited(|stamp| record::tenant_roots(stamp, batch), None)
        });
        if let Err(error) = recorded {
            tracing::warn!(%error, "roots of tenants' records could not be recorded; it will be tried again");
            self.at = None;
        }
    }

    fn close(self) {
        if let Some(Err(error)) = self.at.map(|mut at| at.tenants.flush()) {
            tracing::warn!(%error, "records of tenants could not be added to their trees; the next start will");
        }
    }
}

/// A place in the log up to which everything is derived.
pub(crate) struct Following {
    walker: Walker,
    pub(crate) edge: Edge,
    /// Size at which the last tiles were written.
    written: u64,
    tiles: TileDir,
    pub(crate) tenants: Tenants,
}

impl Following {
    /// Goes on from what the directory holds, as far as that is sound.
    pub(crate) fn resume(dir: &Path, signer: Option<Signer>) -> Result<Self, AuditError> {
        let tiles = TileDir::at(dir.join(TILES));
        let size = stated(&tiles)?.unwrap_or(0);
        let edge = if tiles.is_sound(size, CHECKED)? { Edge::read(size, &tiles)? } else { None };
        let edge = edge.unwrap_or_default();
        let tenants = Tenants::resume(dir, signer)?;
        let from = edge.size().min(tenants.from());
        Ok(Self { walker: Walker::new(dir, from), written: edge.size(), edge, tiles, tenants })
    }

    /// Forgets what there is, and begins with the first record.
    pub(crate) fn anew(dir: &Path, signer: Option<Signer>) -> Result<Self, AuditError> {
        whole(dir)?;
        let tiles = TileDir::at(dir.join(TILES));
        remove(tiles.path())?;
        let tenants = Tenants::anew(dir, signer)?;
        Ok(Self { walker: Walker::new(dir, 0), edge: Edge::default(), written: 0, tiles, tenants })
    }

    /// Index of the record that comes next.
    pub(crate) fn next(&self) -> u64 {
        self.walker.next()
    }

    /// Takes some more records, up to `until`.
    pub(crate) fn step(&mut self, until: u64) -> Result<(), AuditError> {
        let Self { walker, edge, tiles, tenants, .. } = self;
        walker.read(until, STEP, |record| {
            let leaf = leaf_hash_of_prefixed(record.prefixed);
            if record.index == edge.size() {
                edge.append(leaf, tiles)?;
            }
            tenants.see(record.index, leaf, record.entry())
        })
    }

    /// Writes the last tiles, so that those of the whole tree are there.
    pub(crate) fn write(&mut self) -> Result<(), AuditError> {
        if self.edge.size() > self.written || self.written == 0 {
            self.edge.write(self.written, &self.tiles)?;
            self.written = self.edge.size();
            write_whole(&self.tiles.path().join(STATE), format!("{}\n", self.written).as_bytes())?;
        }
        Ok(())
    }
}

/// Of how many records there are tiles, as far as is said.
pub(crate) fn stated(tiles: &TileDir) -> Result<Option<u64>, AuditError> {
    let bytes = read_bounded(&tiles.path().join(STATE), STATE_BYTES)?;
    Ok(bytes.and_then(|bytes| std::str::from_utf8(&bytes).ok()?.strip_suffix('\n')?.parse().ok()))
}

/// Refuses where the beginning of the log is not there any more.
pub(crate) fn whole(dir: &Path) -> Result<(), AuditError> {
    let damaged = |source| AuditError::Damaged { dir: dir.to_owned(), source: Box::new(source) };
    match retain::minimum(dir).map_err(damaged)? {
        0 => Ok(()),
        first => Err(AuditError::Gone { dir: dir.to_owned(), first }),
    }
}

/// Removes a directory with all that is in it.
pub(crate) fn remove(dir: &Path) -> Result<(), AuditError> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(AuditError::file("remove", dir)(error)),
        _ => Ok(()),
    }
}

/// Where a log's own tiles are.
pub(crate) fn tiles_of(dir: &Path) -> TileDir {
    TileDir::at(PathBuf::from(dir).join(TILES))
}
