//! Reads a function's log: its end, or what follows a place.
//!
//! Owns how a place is told from every other: a file is known by its first line, which names a moment and a request,
//! so that rotation is noticed without a word in the files themselves. Must never read more than a bounded piece of a
//! file, however many lines are asked for, and never give half a line.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use cofferdam_model::{FunctionId, LogCursor};

use super::{older, path};
use crate::error::SandboxError;
use crate::library::sha256;

/// Most lines given at once.
const LINES: usize = 10_000;
/// Most bytes read of one file.
const BYTES: u64 = 1024 * 1024;
/// Bytes in which a file's first line has to end. Lines are far shorter, escaped ones included.
const FIRST_LINE_BYTES: u64 = 128 * 1024;

/// Lines of a log, oldest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogPage {
    /// The lines.
    pub lines: Vec<String>,
    /// The place after the last of them.
    pub cursor: LogCursor,
    /// Whether lines between the place asked for and the first line were overwritten by newer ones.
    pub missed: bool,
}

/// A file with at least one line.
struct Opened {
    path: PathBuf,
    file: File,
    mark: u64,
    length: u64,
}

impl Opened {
    fn at(path: PathBuf) -> Result<Option<Self>, SandboxError> {
        let opened = (|| -> io::Result<Option<(File, u64, u64)>> {
            let mut file = File::open(&path)?;
            let mut first = Vec::new();
            file.by_ref().take(FIRST_LINE_BYTES).read_to_end(&mut first)?;
            let line = first.split_inclusive(|byte| *byte == b'\n').next().filter(|line| line.ends_with(b"\n"));
            let Some(line) = line else { return Ok(None) };
            let mark = sha256(line).0.first_chunk().map_or(1, |bytes| u64::from_be_bytes(*bytes)).max(1);
            let length = file.metadata()?.len();
            Ok(Some((file, mark, length)))
        })();
        match opened {
            Ok(Some((file, mark, length))) => Ok(Some(Self { path, file, mark, length })),
            Ok(None) => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(SandboxError::file("read", path)(error)),
        }
    }

    /// Whole lines from `offset` on, at most [`BYTES`] of them, as they are in the file.
    fn from(&mut self, offset: u64) -> Result<Vec<u8>, SandboxError> {
        let mut bytes = Vec::new();
        let room = self.length.saturating_sub(offset).min(BYTES);
        let read = self.file.seek(SeekFrom::Start(offset));
        read.and_then(|_| self.file.by_ref().take(room).read_to_end(&mut bytes))
            .map_err(SandboxError::file("read", &self.path))?;
        bytes.truncate(bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at.saturating_add(1)));
        Ok(bytes)
    }

    /// The last `wanted` lines, and where they end.
    fn newest(&mut self, wanted: usize) -> Result<(Vec<String>, u64), SandboxError> {
        let skipped = self.length.saturating_sub(BYTES);
        let mut bytes = self.from(skipped)?;
        let end = skipped.saturating_add(wide(bytes.len()));
        if skipped > 0 {
            // The first line of a piece from the middle is not whole.
            let first = bytes.iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |at| at.saturating_add(1));
            bytes.drain(..first);
        }
        let text = String::from_utf8_lossy(&bytes);
        let mut lines: Vec<String> = text.lines().rev().take(wanted).map(str::to_owned).collect();
        lines.reverse();
        Ok((lines, end))
    }
}

/// The newer file first: one that is moved between the two looks is then seen twice, not missed.
fn files(dir: &Path, function: &FunctionId) -> Result<(Option<Opened>, Option<Opened>), SandboxError> {
    let current = Opened::at(path(dir, function))?;
    let older = Opened::at(older(dir, function))?;
    let same = current.as_ref().zip(older.as_ref()).is_some_and(|(current, older)| current.mark == older.mark);
    Ok((current, older.filter(|_| !same)))
}

/// The newest lines; none where nothing was ever written.
pub(super) fn newest(dir: &Path, function: &FunctionId, lines: usize) -> Result<LogPage, SandboxError> {
    let wanted = lines.min(LINES);
    let (current, older) = files(dir, function)?;
    let mut page = LogPage { lines: Vec::new(), cursor: LogCursor::default(), missed: false };
    for file in [current, older].iter_mut().flatten() {
        let (mut these, end) = file.newest(wanted.saturating_sub(page.lines.len()))?;
        if page.cursor.file == 0 {
            page.cursor = LogCursor { file: file.mark, offset: end };
        }
        these.append(&mut page.lines);
        page.lines = these;
    }
    Ok(page)
}

/// The lines after a place.
pub(super) fn after(
    dir: &Path,
    function: &FunctionId,
    place: LogCursor,
    lines: usize,
) -> Result<LogPage, SandboxError> {
    let wanted = lines.min(LINES);
    let (current, older) = files(dir, function)?;
    let mut page = LogPage { lines: Vec::new(), cursor: place, missed: false };
    let was_in = |file: &Option<Opened>| file.as_ref().is_some_and(|file| file.mark == place.file);
    let parts = if was_in(&current) {
        [None, current.map(|file| (file, place.offset))]
    } else if was_in(&older) {
        [older.map(|file| (file, place.offset)), current.map(|file| (file, 0))]
    } else {
        page.missed = place.file != 0;
        [older.map(|file| (file, 0)), current.map(|file| (file, 0))]
    };
    for (mut file, mut offset) in parts.into_iter().flatten() {
        // Nobody was ever beyond the end.
        if offset > file.length {
            (page.missed, offset) = (true, 0);
        }
        let bytes = file.from(offset)?;
        for line in bytes.split_inclusive(|byte| *byte == b'\n').take(wanted.saturating_sub(page.lines.len())) {
            page.lines.push(String::from_utf8_lossy(line.strip_suffix(b"\n").unwrap_or(line)).into_owned());
            offset = offset.saturating_add(wide(line.len()));
        }
        page.cursor = LogCursor { file: file.mark, offset };
        if offset < file.length {
            break;
        }
    }
    Ok(page)
}

fn wide(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}
