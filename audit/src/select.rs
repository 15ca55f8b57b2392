//! Reading some records of one tenant, a page at a time.
//!
//! Owns which records a tenant may see: those of what happened in it, and of what its own people were refused before it
//! was known where. Must never show a record of another tenant, one that is not durable, or look at more than a page's
//! worth of log at once.

use std::borrow::Cow;
use std::path::Path;

use cofferdam_model::UnixNanos;
use serde::Deserialize;

use crate::error::{AuditError, VerifyError};
use crate::log::Log;
use crate::query::{line, segments};
use crate::segment::{self, SegmentReader, Step};
use crate::shred::SubjectKeys;

/// Records looked at for one page.
const LOOKED_AT: u64 = 50_000;
/// Bytes of records in one page.
const PAGE_BYTES: usize = 1024 * 1024;

/// Which records.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// Whose, by id; everybody's where there is none, which is for those who hold the log's files.
    pub tenant: Option<&'a str>,
    /// Only those of this request.
    pub request: Option<&'a str>,
    /// Only those made at this moment or later.
    pub since: UnixNanos,
    /// Only those made before this moment.
    pub until: UnixNanos,
    /// Only those of this index or a higher one.
    pub from: Option<u64>,
    /// At most this many.
    pub records: usize,
}

/// Some of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// Lines like those of `export`, oldest first.
    pub lines: Vec<String>,
    /// Index to go on from; none where the log's end was reached.
    pub next: Option<u64>,
}

#[derive(Deserialize)]
struct Fields<'a> {
    at: u64,
    #[serde(borrow, default)]
    request: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    tenant: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    principal: Option<Principal<'a>>,
}

#[derive(Deserialize)]
struct Principal<'a> {
    #[serde(borrow, default)]
    tenant: Option<Cow<'a, str>>,
}

impl Wanted<'_> {
    fn takes(&self, record: &Fields<'_>) -> bool {
        let tenant = record.tenant.as_deref();
        // An attempt on another tenant is that tenant's to know of, not the home's of who made it.
        let whose = tenant.or_else(|| record.principal.as_ref()?.tenant.as_deref());
        self.tenant.is_none_or(|tenant| whose == Some(tenant))
            && (self.since.0..self.until.0).contains(&record.at)
            && self.request.is_none_or(|request| record.request.as_deref() == Some(request))
    }
}

impl Log {
    /// A page of a tenant's records that are durable. Blocks on files.
    pub fn select(&self, wanted: &Wanted<'_>) -> Result<Page, AuditError> {
        select(self.dir(), self.records(), wanted, self.shared().keys.get().map(|keys| &**keys))
    }
}

/// A page of a tenant's records, from a log's files alone.
pub fn select_in(dir: &Path, wanted: &Wanted<'_>) -> Result<Page, AuditError> {
    select(dir, u64::MAX, wanted, None)
}

fn select(dir: &Path, until: u64, wanted: &Wanted<'_>, keys: Option<&dyn SubjectKeys>) -> Result<Page, AuditError> {
    let numbers = segments(dir)?;
    let begin = match wanted.from {
        Some(from) => before(dir, &numbers, |first| first.index <= from)?,
        None => before(dir, &numbers, |first| first.at < wanted.since)?,
    };
    let (mut page, mut bytes, mut looked_at) = (Page::default(), 0, 0);
    for number in numbers.iter().skip(begin) {
        let mut reader = match opened(dir, *number)? {
            Some(reader) => reader,
            None => return Ok(page),
        };
        loop {
            let offset = reader.offset();
            let frame = match reader.step().map_err(AuditError::file("read", segment::path(dir, *number)))? {
                Step::Frame(frame) if frame.index < until => frame,
                Step::Frame(_) => return Ok(page),
                Step::End | Step::Zeros => break,
                // In the last segment that is a write going on; before it, the next segment does not fit.
                Step::Bad(_) if Some(number) == numbers.last() => break,
                Step::Bad(reason) => return Err(damaged(dir, *number, (reader.next_index(), offset), reason)),
            };
            if wanted.from.is_some_and(|from| frame.index < from) {
                continue;
            }
            if looked_at == LOOKED_AT || page.lines.len() >= wanted.records || bytes >= PAGE_BYTES {
                page.next = Some(frame.index);
                return Ok(page);
            }
            looked_at += 1;
            let fields: Fields<'_> = serde_json::from_slice(frame.payload.entry())
                .map_err(|_| damaged(dir, *number, (frame.index, offset), "it is not a record"))?;
            if wanted.takes(&fields) {
                let merged = frame.payload.merged_with(keys);
                let mut out = Vec::with_capacity(merged.len() + 64);
                line(&mut out, frame.index, UnixNanos(fields.at), &merged);
                bytes += out.len();
                page.lines.push(String::from_utf8_lossy(out.trim_ascii_end()).into_owned());
            }
        }
    }
    Ok(page)
}

/// What a segment begins with.
pub(crate) struct First {
    pub(crate) index: u64,
    pub(crate) at: UnixNanos,
}

/// Place of the last segment whose first record is as asked; the first where none is.
fn before(dir: &Path, numbers: &[u64], asked: impl Fn(&First) -> bool) -> Result<usize, AuditError> {
    let mut failed = None;
    let found = numbers.partition_point(|number| match first(dir, *number) {
        Ok(first) => first.is_some_and(|first| asked(&first)),
        Err(error) => {
            failed = Some(error);
            false
        }
    });
    failed.map_or_else(|| Ok(found.saturating_sub(1)), Err)
}

/// The first record of a segment; none where there is not even one.
pub(crate) fn first(dir: &Path, number: u64) -> Result<Option<First>, AuditError> {
    let Some(mut reader) = opened(dir, number)? else { return Ok(None) };
    let step = reader.step().map_err(AuditError::file("read", segment::path(dir, number)))?;
    let Step::Frame(frame) = step else { return Ok(None) };
    let fields: Option<Fields<'_>> = serde_json::from_slice(frame.payload.entry()).ok();
    Ok(fields.map(|fields| First { index: frame.index, at: UnixNanos(fields.at) }))
}

/// A segment from its beginning; none where its header is not whole.
fn opened(dir: &Path, number: u64) -> Result<Option<SegmentReader>, AuditError> {
    let failed = || AuditError::file("read", segment::path(dir, number));
    let Some(header) = SegmentReader::claimed(dir, number).map_err(failed())? else { return Ok(None) };
    Ok(SegmentReader::open(dir, number, header).map_err(failed())?.ok())
}

fn damaged(dir: &Path, number: u64, (record, offset): (u64, u64), reason: &'static str) -> AuditError {
    let source = Box::new(VerifyError::Segment { record, file: segment::shown_name(number), offset, reason });
    AuditError::Damaged { dir: dir.to_owned(), source }
}
