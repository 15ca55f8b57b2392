//! Reading records in order, from one index to another, for what is derived from them.
//!
//! Owns finding the segment an index is in. Must never read beyond what it is
//! told is durable, and never pass over a record that is damaged.

use std::io;
use std::path::{Path, PathBuf};

use crate::error::{AuditError, VerifyError};
use crate::query::segments;
use crate::segment::{self, SegmentReader, Step};

/// A record on the way.
pub(crate) struct Walked<'a> {
    pub(crate) index: u64,
    /// A zero byte, then what is hashed: the bytes the leaf's hash is over.
    pub(crate) prefixed: &'a [u8],
}

impl Walked<'_> {
    /// What is hashed of it.
    pub(crate) fn entry(&self) -> &[u8] {
        self.prefixed.get(1..).unwrap_or_default()
    }
}

/// A place in a log that is read.
pub(crate) struct Walker {
    dir: PathBuf,
    next: u64,
    segment: Option<(u64, SegmentReader)>,
}

impl Walker {
    /// Will begin with the record of index `from`. Reads nothing yet.
    pub(crate) fn new(dir: &Path, from: u64) -> Self {
        Self { dir: dir.to_owned(), next: from, segment: None }
    }

    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// Shows the records below `until`, which are durable, `most` of them at most.
    pub(crate) fn read(
        &mut self,
        until: u64,
        most: u64,
        mut show: impl FnMut(&Walked<'_>) -> Result<(), AuditError>,
    ) -> Result<(), AuditError> {
        let until = until.min(self.next.saturating_add(most));
        if let Some((number, reader)) = self.segment.as_mut().filter(|_| self.next < until) {
            reader.look_again().map_err(AuditError::file("read", segment::path(&self.dir, *number)))?;
        }
        while self.next < until {
            self.step(&mut show)?;
        }
        Ok(())
    }

    fn step(&mut self, show: &mut impl FnMut(&Walked<'_>) -> Result<(), AuditError>) -> Result<(), AuditError> {
        let Some((number, reader)) = &mut self.segment else {
            let number = self.segment_of(self.next)?;
            self.segment = Some(self.open(number)?);
            return Ok(());
        };
        let (number, offset) = (*number, reader.offset());
        match reader.step().map_err(AuditError::file("read", segment::path(&self.dir, number)))? {
            Step::Frame(frame) if frame.index < self.next => Ok(()),
            Step::Frame(frame) => {
                show(&Walked { index: frame.index, prefixed: frame.prefixed })?;
                self.next = frame.index.saturating_add(1);
                Ok(())
            }
            Step::End | Step::Zeros => {
                self.segment = Some(self.open(number.saturating_add(1))?);
                Ok(())
            }
            Step::Bad(reason) => Err(self.damaged(number, offset, reason)),
        }
    }

    /// Number of the last segment that does not begin after `index`.
    fn segment_of(&self, index: u64) -> Result<u64, AuditError> {
        let numbers = segments(&self.dir)?;
        let mut failed = None;
        let begins_by = |number: &u64| match SegmentReader::claimed(&self.dir, *number) {
            Ok(header) => header.is_some_and(|header| header.first <= index),
            Err(error) => {
                failed = Some((*number, error));
                false
            }
        };
        let found = numbers.partition_point(begins_by).checked_sub(1).and_then(|at| numbers.get(at));
        match (failed, found) {
            (Some((number, error)), _) => Err(AuditError::file("read", segment::path(&self.dir, number))(error)),
            (None, Some(number)) => Ok(*number),
            (None, None) => Err(self.damaged(0, 0, "the segment's header is not the one expected")),
        }
    }

    fn open(&self, number: u64) -> Result<(u64, SegmentReader), AuditError> {
        let failed = |error: io::Error| AuditError::file("read", segment::path(&self.dir, number))(error);
        let header = SegmentReader::claimed(&self.dir, number).map_err(failed)?;
        let header = header.filter(|header| header.first <= self.next);
        let unexpected = || self.damaged(number, 0, "the segment's header is not the one expected");
        let opened = SegmentReader::open(&self.dir, number, header.ok_or_else(unexpected)?).map_err(failed)?;
        opened.map(|reader| (number, reader)).map_err(|reason| self.damaged(number, 0, reason))
    }

    fn damaged(&self, number: u64, offset: u64, reason: &'static str) -> AuditError {
        let file = segment::shown_name(number);
        let source = Box::new(VerifyError::Segment { record: self.next, file, offset, reason });
        AuditError::Damaged { dir: self.dir.clone(), source }
    }
}
