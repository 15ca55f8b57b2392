//! The trees of tenants: each over the records of one tenant alone, in the order of the log.
//!
//! Owns which records are whose, their trees on disk, and the roots of those that have grown, which the log itself
//! records. Must never put into a tree what is another tenant's, and never hold more than a bounded number of trees.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cofferdam_model::TenantId;
use serde::Deserialize;

use crate::derive::remove;
use crate::error::AuditError;
use crate::nodes::{self, Held, TileNodes};
use crate::roots::{Batch, Committed, Root};
use crate::signer::Signer;
use crate::tile::{Edge, TileDir, read_bounded, write_whole};
use crate::tree::Hash;

/// Directory of the trees of tenants.
pub(crate) const DIRECTORY: &str = "tenant";
/// File of a tree's size, place and root; beside the trees, of how far they go.
const STATE: &str = "state";
const STATE_BYTES: u64 = 256;
/// File of the indexes that a tenant's records have in the log, eight bytes each.
const PLACES: &str = "places";
const PLACE_BYTES: u64 = 8;
/// Directory of a tree's tiles.
const TILES: &str = "tile";
/// File of a tree's signed checkpoint.
pub(crate) const CHECKPOINT: &str = "checkpoint";
/// Leaves that wait to be added to their trees, all together.
const MOST_PENDING: usize = 65_536;
/// Trees held in memory. A tree has at most 64 KiB there.
const MOST_OPEN: usize = 256;
/// Records of wrong roots that are remembered.
const MOST_WRONG: usize = 1_000;

/// Trees that grow.
pub(crate) struct Tenants {
    dir: PathBuf,
    signer: Option<Signer>,
    /// All records below this have been seen.
    seen: u64,
    /// All records below this are in what the last record of roots covers.
    covered: u64,
    /// Leaves that are not in their trees yet, with their index.
    pending: BTreeMap<String, Vec<(u64, Hash)>>,
    waiting: usize,
    /// Tenants with records that no record of roots covers: the index of the first such, and of the last.
    changed: BTreeMap<String, (u64, u64)>,
    /// Roots that were given to the log and have not come by yet.
    given: Option<(Batch, Vec<Root>)>,
    open: HashMap<String, Grown>,
    tick: u64,
    right: u64,
    wrong: Vec<u64>,
}

/// A tree on disk, as far as the next leaves need it.
struct Grown {
    dir: PathBuf,
    tiles: TileDir,
    edge: Edge,
    /// Every record of the tenant's below this is in it.
    until: u64,
    used: u64,
}

/// What is looked at of a record. Whose it is follows the rule that queries follow, too.
#[derive(Deserialize)]
struct Seen<'a> {
    #[serde(borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    tenant: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    principal: Option<Home<'a>>,
    #[serde(default)]
    until: u64,
    #[serde(default)]
    count: u64,
    #[serde(borrow, default)]
    root: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct Home<'a> {
    #[serde(borrow, default)]
    tenant: Option<Cow<'a, str>>,
}

/// Whose the record is, by the bytes of it that are hashed.
pub(crate) fn whose(entry: &[u8]) -> Option<String> {
    let seen: Seen<'_> = serde_json::from_slice(entry).ok()?;
    seen.whose()
}

impl Seen<'_> {
    fn whose(&self) -> Option<String> {
        let tenant = self.tenant.as_ref().or_else(|| self.principal.as_ref()?.tenant.as_ref())?;
        TenantId::parse(tenant).is_ok().then(|| tenant.to_string())
    }
}

impl Tenants {
    /// Goes on from what the directory holds.
    pub(crate) fn resume(log: &Path, signer: Option<Signer>) -> Result<Self, AuditError> {
        let dir = log.join(DIRECTORY);
        let state = read_bounded(&dir.join(STATE), STATE_BYTES)?;
        let covered = state.and_then(|bytes| std::str::from_utf8(&bytes).ok()?.trim_end().parse().ok()).unwrap_or(0);
        Ok(Self::at(dir, signer, covered))
    }

    /// Forgets what there is.
    pub(crate) fn anew(log: &Path, signer: Option<Signer>) -> Result<Self, AuditError> {
        let dir = log.join(DIRECTORY);
        remove(&dir)?;
        Ok(Self::at(dir, signer, 0))
    }

    fn at(dir: PathBuf, signer: Option<Signer>, covered: u64) -> Self {
        Self {
            dir,
            signer,
            seen: covered,
            covered,
            pending: BTreeMap::new(),
            waiting: 0,
            changed: BTreeMap::new(),
            given: None,
            open: HashMap::new(),
            tick: 0,
            right: 0,
            wrong: Vec::new(),
        }
    }

    /// Index of the record to begin with. Those that are in their trees already are passed over.
    pub(crate) fn from(&self) -> u64 {
        self.covered
    }

    /// Records of roots that came by and were right.
    pub(crate) fn right(&self) -> u64 {
        self.right
    }

    /// Indexes of those that were not.
    pub(crate) fn wrong(&self) -> &[u64] {
        &self.wrong
    }

    /// Tenants that have a tree.
    pub(crate) fn count(&self) -> Result<u64, AuditError> {
        match fs::read_dir(&self.dir) {
            Ok(entries) => Ok(entries.flatten().filter(|entry| entry.path().is_dir()).count() as u64),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
            Err(error) => Err(AuditError::file("list", &self.dir)(error)),
        }
    }

    /// Takes the next record.
    pub(crate) fn see(&mut self, index: u64, leaf: Hash, entry: &[u8]) -> Result<(), AuditError> {
        if index < self.seen {
            return Ok(());
        }
        self.seen = index + 1;
        let Ok(seen) = serde_json::from_slice::<Seen<'_>>(entry) else { return Ok(()) };
        if seen.kind == Batch::KIND {
            return self.came_by(index, &seen);
        }
        let Some(tenant) = seen.whose() else { return Ok(()) };
        self.changed.entry(tenant.clone()).or_insert((index, index)).1 = index;
        self.pending.entry(tenant).or_default().push((index, leaf));
        self.waiting += 1;
        if self.waiting >= MOST_PENDING { self.flush() } else { Ok(()) }
    }

    /// Adds what waits to its trees.
    pub(crate) fn flush(&mut self) -> Result<(), AuditError> {
        self.waiting = 0;
        for (tenant, leaves) in std::mem::take(&mut self.pending) {
            let signer = self.signer.as_ref().map(|signer| signer.of_tenant(&tenant));
            self.grown(&tenant)?.add(&leaves, signer.as_ref())?;
        }
        Ok(())
    }

    /// Gives the roots of the trees that have grown to be recorded, unless some are on their way.
    pub(crate) fn commit(&mut self, record: impl FnOnce(&Batch) -> Result<(), AuditError>) -> Result<(), AuditError> {
        if self.changed.is_empty() || self.given.is_some() {
            return Ok(());
        }
        self.flush()?;
        let mut roots = Vec::with_capacity(self.changed.len());
        for tenant in self.changed.keys().cloned().collect::<Vec<_>>() {
            let tree = self.grown(&tenant)?;
            roots.push(Root { size: tree.edge.size(), root: tree.edge.root(), tenant });
        }
        let batch = Batch::of(self.seen, &roots)?;
        if record(&batch).is_ok() {
            self.given = Some((batch, roots));
        }
        Ok(())
    }

    /// A record of roots: keeps for each tenant in it what shows that its own is.
    fn came_by(&mut self, index: u64, seen: &Seen<'_>) -> Result<(), AuditError> {
        let until = seen.until;
        if until == self.covered {
            return Ok(());
        }
        let roots = match self.given.take() {
            Some((batch, roots)) if batch.until == until => roots,
            _ => self.roots_at(until)?,
        };
        let found = Batch::of(until, &roots)?;
        let said = (seen.root.as_deref(), seen.count, until > self.covered && until <= index);
        if said == (Some(&STANDARD.encode(found.root)), found.count, true) {
            self.right += 1;
            self.keep(index, &roots)?;
        } else {
            tracing::error!(record = index, "recorded roots are not those of the tenants' records");
            if self.wrong.len() < MOST_WRONG {
                self.wrong.push(index);
            }
        }
        self.changed.retain(|_, (first, last)| {
            *first = until.max(*first);
            *last >= until
        });
        self.covered = self.covered.max(until);
        write_whole(&self.dir.join(STATE), format!("{}\n", self.covered).as_bytes())
    }

    /// Roots of the trees that have grown, as they were when all records below `until` were in them.
    fn roots_at(&mut self, until: u64) -> Result<Vec<Root>, AuditError> {
        self.flush()?;
        let tenants: Vec<String> =
            self.changed.iter().filter(|(_, (first, _))| *first < until).map(|(tenant, _)| tenant.clone()).collect();
        let mut roots = Vec::with_capacity(tenants.len());
        for tenant in tenants {
            let (size, root) = self.grown(&tenant)?.at(until)?;
            roots.push(Root { tenant, size, root });
        }
        Ok(roots)
    }

    fn keep(&self, record: u64, roots: &[Root]) -> Result<(), AuditError> {
        let (mut held, count) = (Held::of(roots.iter().map(Root::leaf).collect()), roots.len() as u64);
        for (place, root) in (0..).zip(roots) {
            let path = nodes::inclusion(&mut held, place, count)?;
            let kept = Committed { record, size: root.size, root: root.root, place, count, path };
            kept.write(&self.dir.join(&root.tenant))?;
        }
        Ok(())
    }

    /// A tenant's tree, held for a while.
    fn grown(&mut self, tenant: &str) -> Result<&mut Grown, AuditError> {
        self.tick += 1;
        if !self.open.contains_key(tenant) {
            if self.open.len() >= MOST_OPEN
                && let Some(oldest) = self.open.iter().min_by_key(|(_, tree)| tree.used).map(|(name, _)| name.clone())
            {
                self.open.remove(&oldest);
            }
            self.open.insert(tenant.to_owned(), Grown::read(self.dir.join(tenant))?);
        }
        let lost = || AuditError::Derived { path: self.dir.clone() };
        let tree = self.open.get_mut(tenant).ok_or_else(lost)?;
        tree.used = self.tick;
        Ok(tree)
    }
}

impl Grown {
    fn read(dir: PathBuf) -> Result<Self, AuditError> {
        let tiles = TileDir::at(dir.join(TILES));
        let Some(state) = TreeState::read(&dir)? else {
            return Ok(Self { dir, tiles, edge: Edge::default(), until: 0, used: 0 });
        };
        // What was cut short is not gone on from.
        let edge = Edge::read(state.size, &tiles)?.filter(|edge| edge.root() == state.root);
        let edge = edge.ok_or_else(|| AuditError::Derived { path: dir.clone() })?;
        Ok(Self { dir, tiles, edge, until: state.until, used: 0 })
    }

    /// Appends leaves, those that are in it already excepted, and writes all that follows from them.
    fn add(&mut self, leaves: &[(u64, Hash)], signer: Option<&Signer>) -> Result<(), AuditError> {
        let (before, mut places) = (self.edge.size(), Vec::new());
        for (index, leaf) in leaves.iter().filter(|(index, _)| *index >= self.until) {
            self.edge.append(*leaf, &self.tiles)?;
            places.extend_from_slice(&index.to_le_bytes());
        }
        let Some((last, _)) = leaves.last().filter(|_| !places.is_empty()) else { return Ok(()) };
        self.until = last + 1;
        self.edge.write(before, &self.tiles)?;
        let path = self.dir.join(PLACES);
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
        let written = file.and_then(|file| file.write_all_at(&places, before * PLACE_BYTES));
        written.map_err(AuditError::file("write", &path))?;
        let (size, root) = (self.edge.size(), self.edge.root());
        if let Some(signer) = signer {
            write_whole(&self.dir.join(CHECKPOINT), signer.checkpoint(size, &root).as_bytes())?;
        }
        TreeState { size, until: self.until, root }.write(&self.dir)
    }

    /// Size and root when all records below `until` were in it, and no others.
    fn at(&self, until: u64) -> Result<(u64, Hash), AuditError> {
        let places = Places::open(&self.dir, self.edge.size())?;
        let size = places.below(until)?;
        if size == self.edge.size() {
            return Ok((size, self.edge.root()));
        }
        Ok((size, nodes::root(&mut TileNodes::new(&self.tiles, size), size)?))
    }
}

/// What a tree on disk is.
pub(crate) struct TreeState {
    pub(crate) size: u64,
    until: u64,
    pub(crate) root: Hash,
}

impl TreeState {
    pub(crate) fn read(dir: &Path) -> Result<Option<Self>, AuditError> {
        let Some(bytes) = read_bounded(&dir.join(STATE), STATE_BYTES)? else { return Ok(None) };
        let read = || {
            let mut words = std::str::from_utf8(&bytes).ok()?.strip_suffix('\n')?.split(' ');
            let (size, until) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
            let root = STANDARD.decode(words.next()?).ok()?.try_into().ok()?;
            Some(Self { size, until, root })
        };
        read().map(Some).ok_or_else(|| AuditError::Derived { path: dir.to_owned() })
    }

    fn write(&self, dir: &Path) -> Result<(), AuditError> {
        let text = format!("{} {} {}\n", self.size, self.until, STANDARD.encode(self.root));
        write_whole(&dir.join(STATE), text.as_bytes())
    }
}

/// The indexes that a tenant's records have in the log.
pub(crate) struct Places {
    file: fs::File,
    path: PathBuf,
    size: u64,
}

impl Places {
    /// Those of the first `size`.
    pub(crate) fn open(dir: &Path, size: u64) -> Result<Self, AuditError> {
        let path = dir.join(PLACES);
        let file = fs::File::open(&path).map_err(AuditError::file("read", &path))?;
        Ok(Self { file, path, size })
    }

    /// The index that record `n` of the tenant has in the log.
    pub(crate) fn of(&self, n: u64) -> Result<u64, AuditError> {
        let mut bytes = [0; PLACE_BYTES as usize];
        let read = self.file.read_exact_at(&mut bytes, n * PLACE_BYTES);
        read.map_err(AuditError::file("read", &self.path))?;
        Ok(u64::from_le_bytes(bytes))
    }

    /// How many are below an index.
    fn below(&self, index: u64) -> Result<u64, AuditError> {
        let (mut least, mut most) = (0, self.size);
        while least < most {
            let middle = least + (most - least) / 2;
            if self.of(middle)? < index {
                least = middle + 1;
            } else {
                most = middle;
            }
        }
        Ok(least)
    }
}

/// Where a tenant's tree is.
pub(crate) fn dir_of(log: &Path, tenant: &TenantId) -> PathBuf {
    log.join(DIRECTORY).join(tenant.as_str())
}

/// Where its tiles are.
pub(crate) fn tiles_of(log: &Path, tenant: &TenantId) -> TileDir {
    TileDir::at(dir_of(log, tenant).join(TILES))
}
