//! Reading records in order, from one index to another, for what is derived from them.
//!
//! Owns finding the segment an index is in, and the place reached. Must never read beyond what it is told is durable,
//! and never pass over a record that is damaged.

use std::io;
use std::path::{Path, PathBuf};

use crate::error::{AuditError, VerifyError};
use crate::payload::Payload;
use crate::query::segments;
use crate::segment::{self, SegmentReader, Step};

/// A record on the way.
pub(crate) struct Walked<'a> {
    pub(crate) index: u64,
    /// A zero byte, then what is hashed: the bytes the leaf's hash is over.
    pub(crate) prefixed: &'a [u8],
    /// All there is of it.
    pub(crate) payload: Payload<'a>,
    dir: &'a Path,
    segment: u64,
    offset: u64,
}

impl Walked<'_> {
    /// What is hashed of it.
    pub(crate) fn entry(&self) -> &[u8] {
        self.prefixed.get(1..).unwrap_or_default()
    }

    /// It is not what it should be.
    pub(crate) fn damaged(&self, reason: &'static str) -> AuditError {
        damaged(self.dir, self.index, (self.segment, self.offset), reason)
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
        self.read_while(until, |record| show(record).map(|()| true))
    }

    /// Shows the records below `until`, which are durable, until `show` wants no more.
    pub(crate) fn read_while(
        &mut self,
        until: u64,
        mut show: impl FnMut(&Walked<'_>) -> Result<bool, AuditError>,
    ) -> Result<(), AuditError> {
        if let Some((number, reader)) = self.segment.as_mut().filter(|_| self.next < until) {
            reader.look_again().map_err(AuditError::file("read", segment::path(&self.dir, *number)))?;
        }
        let mut more = true;
        while more && self.next < until {
            more = self.step(&mut show)?;
        }
        Ok(())
    }

    fn step(&mut self, show: &mut impl FnMut(&Walked<'_>) -> Result<bool, AuditError>) -> Result<bool, AuditError> {
        let Some((number, reader)) = &mut self.segment else {
            let number = self.segment_of(self.next)?;
            self.segment = Some(self.open(number)?);
            return Ok(true);
        };
        let (number, offset) = (*number, reader.offset());
        match reader.step().map_err(AuditError::file("read", segment::path(&self.dir, number)))? {
            Step::Frame(frame) if frame.index < self.next => Ok(true),
            Step::Frame(frame) => {
                let (index, prefixed, payload) = (frame.index, frame.prefixed, frame.payload);
                let more = show(&Walked { index, prefixed, payload, dir: &self.dir, segment: number, offset })?;
                self.next = index.saturating_add(1);
                Ok(more)
            }
            Step::End | Step::Zeros => {
                self.segment = Some(self.open(number.saturating_add(1))?);
                Ok(true)
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
        damaged(&self.dir, self.next, (number, offset), reason)
    }
}

fn damaged(dir: &Path, record: u64, (number, offset): (u64, u64), reason: &'static str) -> AuditError {
    let source = Box::new(VerifyError::Segment { record, file: segment::shown_name(number), offset, reason });
    AuditError::Damaged { dir: dir.to_owned(), source }
}
