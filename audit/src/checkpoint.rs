//! Signed statements of how many records there are and what their root is (C2SP `tlog-checkpoint`).
//!
//! Owns the newest one in `checkpoint`, those kept for good in `checkpoints`, and reading both back. Must never be
//! asked to sign for records that are not durable yet.

use std::fs;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::derive::{Feed, Published};
use crate::error::VerifyError;
use crate::signer::{SIGNATURE_MARK, Signer, Verifier};
use crate::storage::{Storage, StoredFile};
use crate::tree::Hash;

/// File of the newest checkpoint, replaced as a whole.
pub(crate) const NEWEST: &str = "checkpoint";
/// File of those kept for good, each followed by a blank line.
pub(crate) const HISTORY: &str = "checkpoints";
const TEMPORARY: &str = "checkpoint.tmp";
/// Base64 of key id and signature.
const SIGNATURE_BYTES: usize = 92;

/// What a checkpoint signs for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Checkpoint {
    pub(crate) size: u64,
    pub(crate) root: Hash,
    /// File and offset it was read from.
    file: &'static str,
    offset: u64,
}

/// All checkpoints of a log.
#[derive(Debug, Default)]
pub(crate) struct Checkpoints {
    /// By size, ascending.
    pub(crate) all: Vec<Checkpoint>,
    /// Size of the newest; none when the log's first opening did not get that far.
    pub(crate) newest: Option<u64>,
    /// Number of bytes of the history that are whole notes.
    pub(crate) history_bytes: u64,
    /// Bytes after those: a note whose writing was cut short.
    pub(crate) torn_bytes: u64,
}

impl Checkpoints {
    /// Size of the newest checkpoint; none when there is none.
    pub(crate) fn newest(dir: &Path, verifier: &Verifier) -> Result<Option<u64>, VerifyError> {
        let newest = read_file(&dir.join(NEWEST))?;
        Ok(newest.map(|note| parse(&note, verifier, NEWEST, 0)).transpose()?.map(|checkpoint| checkpoint.size))
    }

    /// Reads every checkpoint.
    pub(crate) fn read(dir: &Path, verifier: &Verifier) -> Result<Self, VerifyError> {
        Self::read_since(dir, verifier, 0)
    }

    /// The same without the first `skipped` bytes of those kept for good, which are whole notes.
    pub(crate) fn read_since(dir: &Path, verifier: &Verifier, skipped: u64) -> Result<Self, VerifyError> {
        // The newest is read first: one kept in the meantime is then one more, not one missing.
        let newest = read_file(&dir.join(NEWEST))?;
        let history = read_file_from(&dir.join(HISTORY), skipped)?;
        let mut all = Vec::new();
        let whole = read_history(&history, verifier, &mut all, skipped)?;
        let newest = newest.map(|note| parse(&note, verifier, NEWEST, 0)).transpose()?;
        let size = newest.as_ref().map(|checkpoint| checkpoint.size);
        // The very first one is kept before it becomes the newest.
        if size.is_none() && all.iter().any(|checkpoint| checkpoint.size > 0) {
            return Err(bad(NEWEST, 0, "it is missing"));
        }
        all.extend(newest);
        all.sort_by_key(|checkpoint| checkpoint.size);
        for (one, other) in all.iter().zip(all.iter().skip(1)) {
            if one.size == other.size && one.root != other.root {
                return Err(bad(other.file, other.offset, "another checkpoint of its size has another root"));
            }
        }
        let torn_bytes = history.len() as u64 - whole;
        Ok(Self { all, newest: size, history_bytes: skipped + whole, torn_bytes })
    }

    /// Has the tree compared with what it was elsewhere, too: at a size, by the file of that name.
    pub(crate) fn expect(&mut self, size: u64, root: Hash, file: &'static str) {
        let at = self.all.partition_point(|checkpoint| checkpoint.size <= size);
        self.all.insert(at, Checkpoint { size, root, file, offset: 0 });
    }
}

/// Records the newest checkpoint covers, as it says of itself: for the process that signed it.
pub(crate) fn newest_size(dir: &Path) -> Result<u64, VerifyError> {
    let note = read_file(&dir.join(NEWEST))?.unwrap_or_default();
    let size = note.split(|byte| *byte == b'\n').nth(1).and_then(|line| std::str::from_utf8(line).ok()?.parse().ok());
    size.ok_or_else(|| bad(NEWEST, 0, "its size is malformed"))
}

/// Signs and writes checkpoints.
pub(crate) struct Notary {
    storage: Arc<dyn Storage>,
    dir: PathBuf,
    signer: Arc<Signer>,
    history: Box<dyn StoredFile>,
    history_bytes: u64,
    /// The same, for whoever wants to know how much of it there is.
    kept: Arc<AtomicU64>,
    /// Where each checkpoint is handed on to, for what is derived from the log.
    feed: Option<Feed>,
}

impl Notary {
    /// Goes on after the history's last whole note; what follows is cut off.
    pub(crate) fn open(
        storage: Arc<dyn Storage>,
        dir: &Path,
        signer: Arc<Signer>,
        found: &Checkpoints,
    ) -> io::Result<Self> {
        let path = dir.join(HISTORY);
        let exists = path.try_exists()?;
        let mut history = if exists { storage.open(&path)? } else { storage.create(&path)? };
        if !exists {
            storage.sync_dir(dir)?;
        }
        if found.torn_bytes > 0 {
            history.set_len(found.history_bytes)?;
            history.sync()?;
        }
        let kept = Arc::new(AtomicU64::new(found.history_bytes));
        let history_bytes = found.history_bytes;
        Ok(Self { storage, dir: dir.to_owned(), signer, history, history_bytes, kept, feed: None })
    }

    /// How many bytes are kept for good, now and as they grow.
    pub(crate) fn kept(&self) -> Arc<AtomicU64> {
        self.kept.clone()
    }

    /// Hands each checkpoint on from now on, the newest there is first.
    pub(crate) fn feed(&mut self, feed: Feed, size: u64, root: Hash) -> io::Result<()> {
        feed.tell(Published { size, root, note: fs::read_to_string(self.dir.join(NEWEST))? });
        self.feed = Some(feed);
        Ok(())
    }

    /// Hands nothing on any more, and waits until what is derived has followed: whoever opens the log next must find
    /// nobody else writing there.
    pub(crate) fn end_feed(&mut self) {
        self.feed = None;
    }

    /// Makes the newest checkpoint; `keep` puts it into the history first.
    pub(crate) fn publish(&mut self, size: u64, root: &Hash, keep: bool) -> io::Result<()> {
        let note = self.signer.checkpoint(size, root);
        if keep {
            let kept = format!("{note}\n");
            self.history.write_at(self.history_bytes, kept.as_bytes())?;
            self.history.sync()?;
            self.history_bytes += kept.len() as u64;
            self.kept.store(self.history_bytes, Ordering::Release);
        }
        let temporary = self.dir.join(TEMPORARY);
        let mut file = self.storage.create(&temporary)?;
        file.write_at(0, note.as_bytes())?;
        file.sync()?;
        self.storage.rename(&temporary, &self.dir.join(NEWEST))?;
        self.storage.sync_dir(&self.dir)?;
        self.feed.iter().for_each(|feed| feed.tell(Published { size, root: *root, note: note.clone() }));
        Ok(())
    }
}

/// Reads whole notes into `into` and returns how many bytes they take.
fn read_history(
    bytes: &[u8],
    verifier: &Verifier,
    into: &mut Vec<Checkpoint>,
    skipped: u64,
) -> Result<u64, VerifyError> {
    let mut at = 0;
    while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
        let note = first_note(rest);
        let offset = skipped + at as u64;
        match note.map(|note| parse(note, verifier, HISTORY, offset)) {
            Some(Ok(checkpoint)) => {
                into.push(checkpoint);
                at += note.map_or(0, <[u8]>::len) + 1;
            }
            // A write cut short leaves a beginning, or zeros; anything whole must be good.
            Some(Err(error)) if !has_hole(rest) => return Err(error),
            None if is_whole(rest, verifier) => return Err(bad(HISTORY, offset, "its lines are malformed")),
            _ if holds_note(rest, verifier) => {
                return Err(bad(HISTORY, offset, "it is damaged, later ones are not"));
            }
            _ => break,
        }
    }
    Ok(at as u64)
}

/// The first note of a history: up to the blank line after its signatures, which is not part of it.
fn first_note(bytes: &[u8]) -> Option<&[u8]> {
    let blank = |from: usize| bytes.get(from..)?.windows(2).position(|pair| pair == b"\n\n").map(|at| from + at);
    let signatures = blank(0)? + 2;
    bytes.get(..=blank(signatures)?)
}

/// Whether part of a write never reached the disk. A single zero may be a changed byte; a note has none.
fn has_hole(bytes: &[u8]) -> bool {
    bytes.windows(8).any(|window| window == [0; 8])
}

/// Whether a note that cannot be parsed has all its bytes, and so was not cut short.
fn is_whole(bytes: &[u8], verifier: &Verifier) -> bool {
    let mark = SIGNATURE_MARK.as_bytes();
    let signature = bytes.windows(mark.len()).position(|window| window == mark);
    let least = mark.len() + verifier.name().len() + 1 + SIGNATURE_BYTES + 2;
    !has_hole(bytes) && signature.is_some_and(|at| bytes.len() - at >= least)
}

/// Whether a good note begins anywhere after a line's end.
fn holds_note(bytes: &[u8], verifier: &Verifier) -> bool {
    let starts = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1);
    starts.filter_map(|at| bytes.get(at..)).any(|rest| {
        rest.starts_with(verifier.name().as_bytes())
            && first_note(rest).is_some_and(|note| parse(note, verifier, HISTORY, 0).is_ok())
    })
}

fn parse(note: &[u8], verifier: &Verifier, file: &'static str, offset: u64) -> Result<Checkpoint, VerifyError> {
    let refuse = |reason| bad(file, offset, reason);
    let note = std::str::from_utf8(note).map_err(|_| refuse("it is not UTF-8"))?;
    let (size, root) = signed(note, verifier).map_err(refuse)?;
    Ok(Checkpoint { size, root, file, offset })
}

/// Size and root that a note says, if the key signed it.
pub(crate) fn signed(note: &str, verifier: &Verifier) -> Result<(u64, Hash), &'static str> {
    let text = verifier.open(note)?;
    let mut lines = text.split('\n');
    let (Some(origin), Some(size), Some(root), Some(""), None) =
        (lines.next(), lines.next(), lines.next(), lines.next(), lines.next())
    else {
        return Err("it does not have three lines");
    };
    if origin != verifier.name() {
        return Err("it is of another log");
    }
    let number = size.parse::<u64>().ok().filter(|number| number.to_string() == size);
    let root = STANDARD.decode(root).ok().and_then(|root| Hash::try_from(root).ok());
    match (number, root) {
        (Some(size), Some(root)) => Ok((size, root)),
        _ => Err("its size or root is malformed"),
    }
}

fn read_file(path: &Path) -> Result<Option<Vec<u8>>, VerifyError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(VerifyError::file(path)(error)),
    }
}

/// What follows the first `skipped` bytes of a file, which were there once.
fn read_file_from(path: &Path, skipped: u64) -> Result<Vec<u8>, VerifyError> {
    let mut bytes = Vec::new();
    let there = match fs::File::open(path) {
        Ok(mut file) => {
            let length = file.metadata().map_err(VerifyError::file(path))?.len();
            let read = file.seek(SeekFrom::Start(skipped)).and_then(|_| file.read_to_end(&mut bytes));
            read.map_err(VerifyError::file(path))?;
            length
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
        Err(error) => return Err(VerifyError::file(path)(error)),
    };
    if there < skipped { Err(bad(HISTORY, there, "it is shorter than it once was")) } else { Ok(bytes) }
}

fn bad(file: &'static str, offset: u64, reason: &'static str) -> VerifyError {
    VerifyError::Checkpoint { file: file.to_owned(), offset, reason }
}
