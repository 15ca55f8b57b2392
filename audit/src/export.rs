//! Writing records out as JSON lines.
//!
//! Owns the filter and the stream. Must never hold more than one record in memory, and never pass over a damaged one
//! in silence.

use std::io::Write;
use std::path::Path;

use cofferdam_model::UnixNanos;

use crate::error::{AuditError, VerifyError};
use crate::payload::Payload;
use crate::query::{line, read, segments};
use crate::record::Peek;
use crate::segment::{self, Header};

/// Which records to export. Empty takes all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Only records of this tenant, by its id.
    pub tenant: Option<String>,
    /// Only records made at this moment or later.
    pub from: Option<UnixNanos>,
    /// Only records made before this moment.
    pub until: Option<UnixNanos>,
}

impl Filter {
    fn takes(&self, record: &Peek<'_>) -> bool {
        self.tenant.as_deref().is_none_or(|tenant| record.tenant.as_deref() == Some(tenant))
            && self.from.is_none_or(|from| record.at >= from.0)
            && self.until.is_none_or(|until| record.at < until.0)
    }
}

/// Writes every record the filter takes as one line of JSON, oldest first, and gives their number. Safe while the
/// node runs: it ends where the log ended when it got there.
pub fn export(dir: &Path, filter: &Filter, out: impl Write) -> Result<u64, AuditError> {
    export_as(dir, filter, out, |buffer, index, at, record| line(buffer, index, at, &record.merged()))
}

/// The same, with each record written as `write` has it.
pub(crate) fn export_as(
    dir: &Path,
    filter: &Filter,
    mut out: impl Write,
    write: impl Fn(&mut Vec<u8>, u64, UnixNanos, Payload<'_>),
) -> Result<u64, AuditError> {
    let (mut written, mut buffer) = (0, Vec::new());
    let mut expected: Option<Header> = None;
    let mut unread = segments(dir)?.into_iter().peekable();
    while let Some(number) = unread.next() {
        let damaged = |record, offset, reason| AuditError::Damaged {
            dir: dir.to_owned(),
            source: Box::new(VerifyError::Segment { record, file: segment::shown_name(number), offset, reason }),
        };
        let end = read(dir, number, expected, |index, record| {
            let peek: Peek<'_> =
                serde_json::from_slice(record.entry()).map_err(|_| damaged(index, 0, "it is not a record"))?;
            if filter.takes(&peek) {
                buffer.clear();
                write(&mut buffer, index, UnixNanos(peek.at), record);
                out.write_all(&buffer).map_err(AuditError::file("write", "the export"))?;
                written += 1;
            }
            Ok(())
        })?;
        let last = unread.peek().is_none();
        if let Some(reason) = end.bad.filter(|_| !last || end.header.is_none()) {
            return Err(damaged(end.next, end.offset, reason));
        }
        expected = end.header.map(|header| Header { first: end.next, ..header });
    }
    out.flush().map_err(AuditError::file("write", "the export"))?;
    Ok(written)
}
