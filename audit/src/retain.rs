//! How long records are kept: by age and by size, unless somebody holds them.
//!
//! Owns which sealed segments go, the record that says so before they do, and what has to stay so that the rest can be
//! proved: the compact range where the log now begins. Must never remove what is held, still needed by somebody, or not
//! signed for.

use std::fs;
use std::io::{self, Read};
use std::path::Path;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cofferdam_model::UnixNanos;
use serde::{Deserialize, Serialize};

use crate::checkpoint::newest_size;
use crate::error::{AuditError, VerifyError};
use crate::log::Log;
use crate::query::segments;
use crate::record;
use crate::resume;
use crate::segment::{self, SegmentReader, Step};
use crate::select::first;
use crate::storage::{Disk, Storage};
use crate::tree::{Hash, Tree};

/// What has to stay of what is gone.
const PRUNED: &str = "pruned";
/// The same of what is about to go.
const PLANNED: &str = "pruned.next";
/// Bytes of either.
const MOST_BYTES: u64 = 16 * 1024;

/// How long records are kept; for ever where nothing is said.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Retention {
    /// Whole segments older than this go.
    pub age: Option<Duration>,
    /// The oldest go while all segments together have more bytes than this.
    pub bytes: Option<u64>,
}

/// A legal hold: what must stay, whatever the retention is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hold {
    /// Of this tenant, by its id; of all where there is none.
    pub tenant: Option<String>,
    /// Made at this moment or later.
    pub from: Option<UnixNanos>,
    /// Made before this moment.
    pub until: Option<UnixNanos>,
}

impl Hold {
    /// Whether anything made in this time may be held. Whose it is does not matter: a segment has everybody's.
    fn touches(&self, from: UnixNanos, until: UnixNanos) -> bool {
        self.from.is_none_or(|begin| until >= begin) && self.until.is_none_or(|end| from < end)
    }

    /// Whether the keys of a tenant's records must stay.
    pub fn keeps_keys_of(&self, tenant: &str) -> bool {
        self.tenant.as_deref().is_none_or(|held| held == tenant)
    }
}

/// Somebody who reads the log and is not through with it: a sink with a cursor, a counter of usage.
pub trait Needed {
    /// Index of the first record still needed; none where all may go.
    fn lowest(&self) -> Option<u64>;
}

impl Needed for Option<u64> {
    fn lowest(&self) -> Option<u64> {
        *self
    }
}

/// What became of pruning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pruning {
    /// There is nothing to do.
    Nothing,
    /// It is in the log what will go; it goes once that is signed for.
    Recorded {
        /// Index of the record.
        record: u64,
    },
    /// What the record says is gone.
    Done {
        /// Index of the first record that is left.
        first: u64,
        /// Index of the record that says so.
        record: u64,
    },
}

/// Where a log begins whose oldest records are gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Base {
    /// Index of the first record.
    pub(crate) size: u64,
    /// Roots of the perfect subtrees over the records before it, largest first, base64.
    peaks: Vec<String>,
    /// Index of the record that tells of it.
    pub(crate) record: u64,
    /// Number of the first segment.
    pub(crate) segment: u64,
}

#[derive(Deserialize)]
struct Told<'a> {
    #[serde(borrow)]
    kind: std::borrow::Cow<'a, str>,
    #[serde(default)]
    first: u64,
    #[serde(borrow, default)]
    root: std::borrow::Cow<'a, str>,
}

impl Base {
    /// Where a log begins; at its beginning where nothing is gone.
    pub(crate) fn read(dir: &Path) -> Result<Option<(Self, Tree)>, VerifyError> {
        let Some(base) = load(&dir.join(PRUNED)).map_err(VerifyError::file(dir.join(PRUNED)))? else {
            return Ok(None);
        };
        let tree = base.as_ref().ok().and_then(|base| Some((base.clone(), base.tree()?)));
        tree.map(Some).ok_or_else(|| unusable("it is malformed"))
    }

    fn tree(&self) -> Option<Tree> {
        let peaks: Option<Vec<Hash>> =
            self.peaks.iter().map(|peak| STANDARD.decode(peak).ok()?.try_into().ok()).collect();
        Tree::of(self.size, peaks?)
    }

    /// Whether a record is the one that tells of this. The tree is that of its root, so its peaks are the right ones.
    pub(crate) fn check(&self, entry: &[u8], tree: &Tree) -> Result<(), &'static str> {
        let told: Told<'_> = serde_json::from_slice(entry).map_err(|_| "it is not a record")?;
        let root = STANDARD.encode(tree.root());
        if told.kind == "pruned" && told.first == self.size && told.root == root {
            Ok(())
        } else {
            Err("it is not the record that tells of the pruning")
        }
    }
}

/// What is wrong with what stayed of the pruned part.
pub(crate) fn unusable(reason: &'static str) -> VerifyError {
    VerifyError::Pruned { file: PRUNED.to_owned(), reason }
}

/// `Ok(Ok(..))` what a file holds, `Ok(Err(..))` if that cannot be, none where there is no file.
fn load(path: &Path) -> io::Result<Option<Result<Base, serde_json::Error>>> {
    let mut bytes = Vec::new();
    match fs::File::open(path) {
        Ok(file) => file.take(MOST_BYTES).read_to_end(&mut bytes)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    Ok(Some(serde_json::from_slice(&bytes)))
}

/// Replaces a file as a whole.
fn store(dir: &Path, name: &str, base: &Base) -> io::Result<()> {
    let temporary = dir.join(name).with_extension("tmp");
    let bytes = serde_json::to_vec(base)?;
    let mut file = Disk.create(&temporary)?;
    file.write_at(0, &bytes)?;
    file.sync()?;
    Disk.rename(&temporary, &dir.join(name))?;
    Disk.sync_dir(dir)
}

/// A sealed segment that may go.
struct Old {
    number: u64,
    bytes: u64,
}

/// Index of the first record a log still has.
pub fn minimum(dir: &Path) -> Result<u64, VerifyError> {
    Ok(Base::read(dir)?.map_or(0, |(base, _)| base.size))
}

impl Log {
    /// Takes one step of pruning, and blocks on files: ends what was begun, or finds out what may go and records that.
    /// To be called now and then, by one caller at a time.
    pub async fn prune(
        &self,
        retention: &Retention,
        holds: &[Hold],
        needed: &(dyn Needed + Sync),
    ) -> Result<Pruning, AuditError> {
        let dir = self.dir();
        if let Some(planned) = self.planned()? {
            return self.finish_pruning(&planned, holds);
        }
        let now = self.shared().clock.now();
        let (old, segment) = self.choose(retention, holds, needed, now)?;
        if old.is_empty() {
            return Ok(Pruning::Nothing);
        }
        let tree = self.tree_before(segment)?;
        let pruned = record::Pruned {
            first: tree.size(),
            from: minimum(dir).map_err(|source| self.damaged(source))?,
            segments: old.len() as u64,
            bytes: old.iter().map(|old| old.bytes).sum(),
            root: tree.root(),
        };
        let record = self.shared().durable(|stamp| record::pruned(stamp, &pruned)).await?.index;
        let peaks = tree.peaks().iter().map(|peak| STANDARD.encode(peak)).collect();
        let planned = Base { size: tree.size(), peaks, record, segment };
        store(dir, PLANNED, &planned).map_err(AuditError::file("write", dir.join(PLANNED)))?;
        Ok(Pruning::Recorded { record })
    }

    fn damaged(&self, source: VerifyError) -> AuditError {
        AuditError::Damaged { dir: self.dir().to_owned(), source: Box::new(source) }
    }

    /// What was recorded to go and has not gone yet.
    fn planned(&self) -> Result<Option<Base>, AuditError> {
        let path = self.dir().join(PLANNED);
        match load(&path).map_err(AuditError::file("read", &path))? {
            Some(Ok(base)) => Ok(Some(base)),
            // Never renamed into place half written; whatever it is, the log is whole without it.
            Some(Err(_)) => fs::remove_file(&path).map(|()| None).map_err(AuditError::file("remove", &path)),
            None => Ok(None),
        }
    }

    /// Removes what the record says, once a checkpoint covers that record: nobody can take it back then.
    fn finish_pruning(&self, planned: &Base, holds: &[Hold]) -> Result<Pruning, AuditError> {
        let dir = self.dir();
        let waiting = Pruning::Recorded { record: planned.record };
        let signed = newest_size(dir).map_err(|source| self.damaged(source))?;
        if signed <= planned.record {
            return Ok(waiting);
        }
        let gone: Vec<u64> = segments(dir)?.into_iter().filter(|number| *number < planned.segment).collect();
        let begun = Base::read(dir).map_err(|source| self.damaged(source))?.is_some_and(|(base, _)| base == *planned);
        // A hold that came in between stops what has not begun.
        if !begun && gone.iter().any(|number| self.is_held(*number, holds).unwrap_or(true)) {
            fs::remove_file(dir.join(PLANNED)).map_err(AuditError::file("remove", dir.join(PLANNED)))?;
            return Ok(Pruning::Nothing);
        }
        store(dir, PRUNED, planned).map_err(AuditError::file("write", dir.join(PRUNED)))?;
        for number in gone {
            let path = segment::path(dir, number);
            fs::remove_file(&path).map_err(AuditError::file("remove", &path))?;
        }
        let files = dir.join(segment::DIRECTORY);
        Disk.sync_dir(&files).map_err(AuditError::file("sync", &files))?;
        // Nobody begins to read there any more.
        let listed = resume::numbers(dir).map_err(AuditError::file("list", dir.join(resume::DIRECTORY)))?;
        for number in listed.into_iter().filter(|number| *number < planned.segment) {
            let path = resume::path(dir, number);
            fs::remove_file(&path).map_err(AuditError::file("remove", &path))?;
        }
        fs::remove_file(dir.join(PLANNED)).map_err(AuditError::file("remove", dir.join(PLANNED)))?;
        Ok(Pruning::Done { first: planned.size, record: planned.record })
    }

    /// The oldest segments that may go, and the number of the first that stays.
    fn choose(
        &self,
        retention: &Retention,
        holds: &[Hold],
        needed: &(dyn Needed + Sync),
        now: UnixNanos,
    ) -> Result<(Vec<Old>, u64), AuditError> {
        let dir = self.dir();
        let numbers = segments(dir)?;
        let length = |number: u64| -> Result<u64, AuditError> {
            let path = segment::path(dir, number);
            Ok(fs::metadata(&path).map_err(AuditError::file("read", &path))?.len())
        };
        let mut total = 0u64;
        for number in &numbers {
            total = total.saturating_add(length(*number)?);
        }
        let needed = needed.lowest().unwrap_or(u64::MAX);
        let age = retention.age.map(|age| u64::try_from(age.as_nanos()).unwrap_or(u64::MAX));
        let oldest = age.map(|age| now.0.saturating_sub(age));
        let mut old = Vec::new();
        // The last one is being written; what comes before another is sealed.
        for (number, next) in numbers.iter().zip(numbers.iter().skip(1)) {
            let (Some(begins), Some(ends)) = (first(dir, *number)?, first(dir, *next)?) else { break };
            let bytes = length(*number)?;
            let aged = oldest.is_some_and(|oldest| ends.at.0 < oldest);
            let large = retention.bytes.is_some_and(|most| total > most);
            let held = holds.iter().any(|hold| hold.touches(begins.at, ends.at));
            if !(aged || large) || held || ends.index > needed {
                return Ok((old, *number));
            }
            total = total.saturating_sub(bytes);
            old.push(Old { number: *number, bytes });
        }
        let stays = old.last().map_or(0, |old: &Old| old.number.saturating_add(1));
        Ok((old, stays))
    }

    fn is_held(&self, number: u64, holds: &[Hold]) -> Result<bool, AuditError> {
        let (begins, ends) = (first(self.dir(), number)?, first(self.dir(), number.saturating_add(1))?);
        let (Some(begins), Some(ends)) = (begins, ends) else { return Ok(true) };
        Ok(holds.iter().any(|hold| hold.touches(begins.at, ends.at)))
    }

    /// The tree over all records before a segment, from the records themselves.
    fn tree_before(&self, segment: u64) -> Result<Tree, AuditError> {
        let dir = self.dir();
        let base = Base::read(dir).map_err(|source| self.damaged(source))?;
        let mut tree = base.map(|(_, tree)| tree).unwrap_or_default();
        for number in segments(dir)?.into_iter().filter(|number| *number < segment) {
            let path = segment::path(dir, number);
            let fault = |record, offset, reason| {
                let file = segment::shown_name(number);
                self.damaged(VerifyError::Segment { record, file, offset, reason })
            };
            let header = segment::Header::of(self.origin(), tree.size());
            let opened = SegmentReader::open(dir, number, header).map_err(AuditError::file("read", &path))?;
            let mut reader = opened.map_err(|reason| fault(tree.size(), 0, reason))?;
            loop {
                match reader.step().map_err(AuditError::file("read", &path))? {
                    Step::Frame(frame) => tree.append(frame.payload.leaf()),
                    Step::End => break,
                    Step::Zeros => return Err(fault(tree.size(), 0, "a sealed segment ends with zeros")),
                    Step::Bad(reason) => return Err(fault(tree.size(), 0, reason)),
                }
            }
        }
        Ok(tree)
    }
}
