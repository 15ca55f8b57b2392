//! Looking at the newest records.
//!
//! Owns `tail`, and how a record looks as a line. Must never write, and never trust a record it shows further than
//! its checksum: whoever needs proof verifies.

use std::collections::VecDeque;
use std::io;
use std::path::Path;

use cofferdam_model::UnixNanos;

use crate::error::AuditError;
use crate::payload::Payload;
use crate::record::Peek;
use crate::segment::{self, Header, SegmentReader, Step};

pub use crate::export::{Filter, export};

/// Records `tail` gives at most.
const MOST: usize = 10_000;

/// The newest `n` records (10,000 at most) as JSON lines like those of `export`, oldest first. Safe while the node
/// runs.
pub fn tail(dir: &Path, n: usize) -> Result<Vec<String>, AuditError> {
    let n = n.min(MOST);
    let mut lines: VecDeque<String> = VecDeque::new();
    for number in segments(dir)?.into_iter().rev() {
        let mut newest = VecDeque::new();
        let wanted = n - lines.len();
        if wanted == 0 {
            break;
        }
        read(dir, number, None, |index, record| {
            if newest.len() == wanted {
                newest.pop_front();
            }
            newest.push_back((index, record.merged().into_owned()));
            Ok(())
        })?;
        for (index, record) in newest.into_iter().rev() {
            let Ok(peek) = serde_json::from_slice::<Peek<'_>>(&record) else { continue };
            let mut out = Vec::with_capacity(record.len() + 64);
            line(&mut out, index, UnixNanos(peek.at), &record);
            lines.push_front(String::from_utf8_lossy(out.trim_ascii_end()).into_owned());
        }
    }
    Ok(lines.into())
}

/// Numbers of the segments, ascending; a log that was never opened has none.
pub(crate) fn segments(dir: &Path) -> Result<Vec<u64>, AuditError> {
    match segment::numbers(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && dir.is_dir() => Ok(Vec::new()),
        listed => listed.map_err(AuditError::file("list the segments of", dir)),
    }
}

/// Shows every record of a segment and gives the index after the last. Ends quietly at zeros, at the file's end, and
/// at what is no good frame: in the last segment that is a write going on. `expected` is what its first index must be.
pub(crate) fn read(
    dir: &Path,
    number: u64,
    expected: Option<Header>,
    mut show: impl FnMut(u64, Payload<'_>) -> Result<(), AuditError>,
) -> Result<End, AuditError> {
    let path = segment::path(dir, number);
    let found = SegmentReader::claimed(dir, number).map_err(AuditError::file("read", &path))?;
    let header = found.filter(|found| expected.is_none_or(|expected| expected == *found));
    let Some(header) = header else {
        return Ok(End { header: None, next: 0, offset: 0, bad: Some("the segment's header is not the one expected") });
    };
    let opened = SegmentReader::open(dir, number, header).map_err(AuditError::file("read", &path))?;
    let mut reader = match opened {
        Ok(reader) => reader,
        Err(reason) => return Ok(End { header: None, next: header.first, offset: 0, bad: Some(reason) }),
    };
    let bad = loop {
        match reader.step().map_err(AuditError::file("read", &path))? {
            Step::Frame(frame) => show(frame.index, frame.payload)?,
            Step::End | Step::Zeros => break None,
            Step::Bad(reason) => break Some(reason),
        }
    };
    Ok(End { header: Some(header), next: reader.next_index(), offset: reader.offset(), bad })
}

/// Where reading a segment ended.
pub(crate) struct End {
    pub(crate) header: Option<Header>,
    pub(crate) next: u64,
    pub(crate) offset: u64,
    pub(crate) bad: Option<&'static str>,
}

/// Writes a merged record as a line: its index and time in front of its own fields.
pub(crate) fn line(out: &mut Vec<u8>, index: u64, at: UnixNanos, record: &[u8]) {
    out.extend_from_slice(format!("{{\"index\":{index},\"time\":\"{at}\",").as_bytes());
    out.extend_from_slice(record.strip_prefix(b"{").unwrap_or(record));
    out.push(b'\n');
}
