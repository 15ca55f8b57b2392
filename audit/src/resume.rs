//! Where opening begins to read: at the start of a segment, with all that has to be known of what is before it.
//!
//! Owns the files below `resume/`, one for each segment but the first, each signed by the log's key: the compact range
//! of the tree, the calls that were open, and where the checkpoints of then end. All of it follows from the segments
//! before, and is only there so that these need not be read. Must never be believed unsigned, nor against a checkpoint.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::calls::{OpenCall, OpenCalls};
use crate::signer::{Signer, Verifier};
use crate::storage::Storage;
use crate::tree::{Hash, Tree};

/// Directory of the files.
pub(crate) const DIRECTORY: &str = "resume";
/// The first line, which no checkpoint has.
const MAGIC: &str = "cofferdam-resume/v1";
/// Bytes of a file that are looked at.
const MOST_BYTES: u64 = 256 * 1024 * 1024;

/// What is known at the start of a segment.
#[derive(Debug, Default)]
pub(crate) struct Resume {
    pub(crate) segment: u64,
    pub(crate) tree: Tree,
    /// Bytes of the checkpoints kept for good that are of no interest here, as they are about what is before.
    pub(crate) history_bytes: u64,
    pub(crate) open: OpenCalls,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    origin: String,
    segment: u64,
    first: u64,
    history_bytes: u64,
    epoch: u64,
    peaks: Vec<String>,
    open: Vec<OpenCall>,
}

impl Resume {
    /// Writes the file of a segment that is about to be begun.
    pub(crate) fn write(
        storage: &Arc<dyn Storage>,
        dir: &Path,
        signer: &Signer,
        (segment, tree): (u64, &Tree),
        (history_bytes, epoch): (u64, u64),
        open: &OpenCalls,
    ) -> io::Result<()> {
        let text = Text {
            origin: signer.origin().to_owned(),
            segment,
            first: tree.size(),
            history_bytes,
            epoch,
            peaks: tree.peaks().iter().map(|peak| STANDARD.encode(peak)).collect(),
            open: open.sorted(),
        };
        let json = serde_json::to_string(&text)?;
        let path = path(dir, segment);
        let temporary = path.with_extension("tmp");
        let mut file = storage.create(&temporary)?;
        file.write_at(0, signer.sign(&format!("{MAGIC}\n{json}\n")).as_bytes())?;
        file.sync()?;
        storage.rename(&temporary, &path)?;
        storage.sync_dir(&dir.join(DIRECTORY))
    }

    /// The file of a segment; none where there is none, or nothing in it that the key signed.
    pub(crate) fn read(dir: &Path, segment: u64, verifier: &Verifier) -> io::Result<Option<Self>> {
        let file = match File::open(path(dir, segment)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        let mut bytes = Vec::new();
        file.take(MOST_BYTES).read_to_end(&mut bytes)?;
        Ok(std::str::from_utf8(&bytes).ok().and_then(|note| Self::parse(note, segment, verifier)))
    }

    fn parse(note: &str, segment: u64, verifier: &Verifier) -> Option<Self> {
        let text = verifier.open(note).ok()?.strip_prefix(MAGIC)?.strip_prefix('\n')?;
        let text: Text = serde_json::from_str(text).ok()?;
        if text.origin != verifier.name() || text.segment != segment {
            return None;
        }
        let peak = |peak: &String| STANDARD.decode(peak).ok().and_then(|peak| Hash::try_from(peak).ok());
        let peaks = text.peaks.iter().map(peak).collect::<Option<Vec<_>>>()?;
        let tree = Tree::of(text.first, peaks)?;
        Some(Self { segment, tree, history_bytes: text.history_bytes, open: OpenCalls::of(text.open, text.epoch) })
    }

    /// The start of a log whose oldest segments are gone.
    pub(crate) fn at(segment: u64, tree: Tree) -> Self {
        Self { segment, tree, ..Self::default() }
    }

    /// The last place of which a checkpoint of `signed` records tells everything that is before it; none where that is
    /// the start of the log.
    pub(crate) fn latest(dir: &Path, numbers: &[u64], signed: u64, verifier: &Verifier) -> io::Result<Option<Self>> {
        for number in numbers.iter().rev().copied().filter(|number| *number > 0) {
            match Self::read(dir, number, verifier)? {
                Some(resume) if resume.tree.size() <= signed => return Ok(Some(resume)),
                Some(_) => {}
                None => {
                    tracing::warn!(segment = number, "a segment has no good resume file; more of the log is read");
                }
            }
        }
        Ok(None)
    }
}

/// Path of the file of a segment.
pub(crate) fn path(dir: &Path, segment: u64) -> PathBuf {
    dir.join(DIRECTORY).join(format!("{segment:010}"))
}

/// Numbers of the segments that have one, ascending.
pub(crate) fn numbers(dir: &Path) -> io::Result<Vec<u64>> {
    let listed = match fs::read_dir(dir.join(DIRECTORY)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        listed => listed?,
    };
    let mut numbers = Vec::new();
    for entry in listed {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.parse::<u64>().ok());
        numbers.extend(number.filter(|number| name.to_str() == Some(&format!("{number:010}"))));
    }
    numbers.sort_unstable();
    Ok(numbers)
}
