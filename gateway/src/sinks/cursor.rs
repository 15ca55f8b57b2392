//! How far a sink is: a small file of its own in the log's directory.
//!
//! Owns its form and its replacement as a whole. Must never say more than was acknowledged, and never be half written.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use cofferdam_audit::{Follower, Log};
use serde::{Deserialize, Serialize};

use super::error::SinkError;

/// Directory of cursors in that of the log.
const DIRECTORY: &str = "sinks";
/// Bytes of a cursor.
const MOST: u64 = 4096;
const VERSION: u32 = 1;

/// A place in a log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cursor {
    /// Leaf hash of the record before `next`, in hex: what tells this log from another of the same name. Absent where
    /// there is none, or it was not read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leaf: Option<String>,
    /// Index of the first record that is not acknowledged.
    pub next: u64,
    /// Name of the log.
    pub origin: String,
    /// Version of the form.
    v: u32,
}

/// What a cursor is worth for a log.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fit {
    /// It is about this log.
    Good,
    /// It is about another, or about a part that this copy of it has lost.
    Strange(&'static str),
}

/// Where the cursor of a sink is.
pub(super) fn path(log: &Path, name: &str) -> PathBuf {
    log.join(DIRECTORY).join(format!("{name}.cursor"))
}

impl Cursor {
    pub(super) fn at(origin: &str, next: u64, leaf: Option<[u8; 32]>) -> Self {
        let leaf = leaf.map(|leaf| hex(&leaf));
        Self { leaf, next, origin: origin.to_owned(), v: VERSION }
    }

    /// Reads one; none where there is no file.
    pub fn load(log: &Path, name: &str) -> Result<Option<Self>, SinkError> {
        let path = path(log, name);
        let file = match File::open(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(SinkError::file("read", &path))?,
        };
        let mut text = String::new();
        file.take(MOST).read_to_string(&mut text).map_err(SinkError::file("read", &path))?;
        let cursor: Option<Self> = serde_json::from_str(&text).ok();
        cursor.filter(|cursor| cursor.v == VERSION).map(Some).ok_or(SinkError::Cursor { path })
    }

    /// Writes it over what was there, durably.
    pub(super) fn store(&self, log: &Path, name: &str) -> Result<(), SinkError> {
        let (path, dir) = (path(log, name), log.join(DIRECTORY));
        let failed = || SinkError::file("write", &path);
        DirBuilder::new().recursive(true).mode(0o700).create(&dir).map_err(failed())?;
        let temporary = path.with_extension("tmp");
        let text = serde_json::to_string(self).map_err(|error| failed()(error.into()))?;
        let options = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).clone();
        let mut file = options.open(&temporary).map_err(failed())?;
        file.write_all(text.as_bytes()).and_then(|()| file.write_all(b"\n")).map_err(failed())?;
        file.sync_all().map_err(failed())?;
        fs::rename(&temporary, &path).map_err(failed())?;
        File::open(&dir).and_then(|dir| dir.sync_all()).map_err(failed())
    }

    /// Whether it is about this log, as it is now. Blocks on files.
    pub(super) fn fits(&self, log: &Log) -> Result<Fit, SinkError> {
        if self.origin != log.origin() {
            return Ok(Fit::Strange("it is of a log of another name"));
        }
        if self.next > log.records() {
            return Ok(Fit::Strange("the log ends before it"));
        }
        let (Some(leaf), Some(before)) = (&self.leaf, self.next.checked_sub(1)) else { return Ok(Fit::Good) };
        let mut follower = Follower::new(log, before);
        follower.read(1, |_| {})?;
        let same = follower.leaf().is_some_and(|found| hex(&found) == *leaf);
        Ok(if same { Fit::Good } else { Fit::Strange("the log has another record in its place") })
    }

    /// Index of the first record that must not be pruned yet. The one before `next` is what the cursor is known by.
    pub fn needs(&self) -> u64 {
        self.next.saturating_sub(1)
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_reads_back_and_a_damaged_one_is_said_to_be_so() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Cursor::load(dir.path(), "a").unwrap(), None);
        let cursor = Cursor::at("a/b", 7, Some([0xab; 32]));
        cursor.store(dir.path(), "a").unwrap();
        assert_eq!(Cursor::load(dir.path(), "a").unwrap(), Some(cursor.clone()));
        let next = Cursor { next: 8, ..cursor };
        next.store(dir.path(), "a").unwrap();
        assert_eq!(Cursor::load(dir.path(), "a").unwrap(), Some(next));
        let whole = fs::read(path(dir.path(), "a")).unwrap();
        for cut in 0..whole.len() - 2 {
            fs::write(path(dir.path(), "a"), &whole[..cut]).unwrap();
            assert!(matches!(Cursor::load(dir.path(), "a"), Err(SinkError::Cursor { .. })), "{cut}");
        }
        fs::write(path(dir.path(), "a"), "{\"next\":1,\"origin\":\"a/b\",\"v\":2}").unwrap();
        assert!(Cursor::load(dir.path(), "a").is_err(), "of another version");
    }
}
