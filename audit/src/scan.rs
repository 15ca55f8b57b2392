//! Reading a whole log and judging what is found: good, cut short, or tampered with.
//!
//! Owns that judgement, for opening and for verifying alike. Must never change a file, and never call torn what
//! could have been acknowledged: below a checkpoint, or below what a later frame says was durable, nothing is.

use std::io;
use std::path::Path;

use crate::checkpoint::{Checkpoint, Checkpoints};
use crate::error::VerifyError;
use crate::retain::{Base, unusable};
use crate::segment::{self, FRAME_HEADER_BYTES, Frame, FrameHeader, Header, SegmentReader, Step};
use crate::tree::{Tree, leaf_hash_of_prefixed};

/// The least a disk writes whole. A write cut short shows as zeros at the end of a frame's part of at least one.
const SECTOR_BYTES: u64 = 512;
/// So many zeros are in no record, nor in what is before one.
const HOLE_BYTES: usize = 16;

/// What a log was found to be.
#[derive(Debug)]
pub(crate) struct Scan {
    pub(crate) tree: Tree,
    pub(crate) segments: u64,
    /// Number of the last segment, and where its records end. None when there is no segment.
    pub(crate) last: Option<(u64, u64)>,
    /// Whether the last segment may be written on.
    pub(crate) current: bool,
    /// Bytes after that which are neither records nor zeros, counted to the last that is not zero.
    pub(crate) torn_bytes: u64,
    /// Where it begins, if its oldest records were pruned.
    pub(crate) base: Option<Base>,
}

/// Where to begin: a segment, and the tree over all that is before it.
#[derive(Debug, Default)]
pub(crate) struct Start {
    pub(crate) segment: u64,
    pub(crate) tree: Tree,
}

/// Reads every record, in order, against the checkpoints; `visit` sees each that is good.
pub(crate) fn scan(
    dir: &Path,
    origin: &str,
    checkpoints: &Checkpoints,
    visit: impl FnMut(&Frame<'_>) -> Result<(), &'static str>,
) -> Result<Scan, VerifyError> {
    let base = Base::read(dir)?;
    let start = base.map_or_else(Start::default, |(base, tree)| Start { segment: base.segment, tree });
    scan_from(dir, origin, checkpoints, start, visit)
}

/// The same from a segment on. Checkpoints of what is before it are passed over.
pub(crate) fn scan_from(
    dir: &Path,
    origin: &str,
    checkpoints: &Checkpoints,
    start: Start,
    mut visit: impl FnMut(&Frame<'_>) -> Result<(), &'static str>,
) -> Result<Scan, VerifyError> {
    let numbers = listed(dir)?;
    let base = Base::read(dir)?;
    let (begin, beginning) = base.as_ref().map(|(base, tree)| (base.segment, tree.clone())).unwrap_or_default();
    // Nothing is left to compute older ones from; that they were signed is all that can be said of them.
    let first = start.tree.size();
    let mut due = checkpoints.all.iter().filter(|checkpoint| checkpoint.size >= first).peekable();
    let base = base.map(|(base, _)| base);
    let mut found = Scan { tree: start.tree, segments: 0, last: None, current: false, torn_bytes: 0, base };
    check_root(&mut due, &found.tree, start.segment, 0)?;
    // Files of what was pruned may be left where the node died while it removed them.
    let numbers: Vec<u64> = numbers.into_iter().filter(|number| *number >= begin).collect();
    let count = begin + numbers.len() as u64;
    for (expected, number) in (begin..).zip(numbers) {
        if number != expected {
            return Err(VerifyError::Missing { record: found.tree.size(), file: segment::shown_name(expected) });
        }
        if number < start.segment {
            continue;
        }
        let mut reader = open(dir, number, origin, found.tree.size())?;
        let unreadable = || VerifyError::file(segment::path(dir, number));
        let mut believed_bad = None;
        loop {
            let reason = match reader.step().map_err(unreadable())? {
                Step::Frame(frame) => {
                    found.tree.append(leaf_hash_of_prefixed(frame.prefixed));
                    let (index, end) = (frame.index, frame.end);
                    let told = check_base(found.base.as_ref(), &frame, &beginning);
                    told.map_err(|reason| fault(number, index, end, reason))?;
                    visit(&frame).map_err(|reason| fault(number, index, end, reason))?;
                    check_root(&mut due, &found.tree, number, end)?;
                    continue;
                }
                Step::End => break,
                Step::Zeros => "zeros follow, but so does something else",
                Step::Bad(reason) => reason,
            };
            let (record, offset) = (reader.next_index(), reader.offset());
            if number + 1 < count {
                return Err(fault(number, record, offset, reason));
            }
            let rest = reader.rest().map_err(unreadable())?;
            match judge(&rest, record, offset) {
                Ok(torn) => {
                    found.torn_bytes = torn;
                    break;
                }
                // A node that is running may have written it while it was read. Then it is good at second sight.
                Err(_) if believed_bad != Some(offset) => believed_bad = Some(offset),
                Err(why) => return Err(fault(number, record, offset, why.unwrap_or(reason))),
            }
        }
        found.segments += 1;
        found.last = Some((number, reader.offset()));
        found.current = reader.is_current();
    }
    signed_for(found.base.as_ref(), checkpoints)?;
    let Some(checkpoint) = due.next().map(|checkpoint| checkpoint.size) else { return Ok(found) };
    let (number, offset) = found.last.unwrap_or_default();
    Err(VerifyError::Short { size: found.tree.size(), checkpoint, file: segment::shown_name(number), offset })
}

/// Numbers of the segments there are; none before the log's first record.
fn listed(dir: &Path) -> Result<Vec<u64>, VerifyError> {
    match segment::numbers(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        listed => listed.map_err(VerifyError::file(dir.join(segment::DIRECTORY))),
    }
}

/// Whether a record that should tell of the pruning does.
fn check_base(base: Option<&Base>, frame: &Frame<'_>, beginning: &Tree) -> Result<(), &'static str> {
    base.filter(|base| base.record == frame.index).map_or(Ok(()), |base| base.check(frame.payload.entry(), beginning))
}

/// The record that tells of the pruning is signed for before anything goes, and so are the roots it began with.
fn signed_for(base: Option<&Base>, checkpoints: &Checkpoints) -> Result<(), VerifyError> {
    match base {
        Some(base) if checkpoints.newest.is_none_or(|signed| signed <= base.record) => {
            Err(unusable("no signed record tells of it"))
        }
        _ => Ok(()),
    }
}

fn open(dir: &Path, number: u64, origin: &str, first: u64) -> Result<SegmentReader, VerifyError> {
    SegmentReader::open(dir, number, Header::of(origin, first))
        .map_err(VerifyError::file(segment::path(dir, number)))?
        .map_err(|reason| fault(number, first, 0, reason))
}

/// Compares the tree with every checkpoint of its size.
fn check_root<'a>(
    due: &mut std::iter::Peekable<impl Iterator<Item = &'a Checkpoint>>,
    tree: &Tree,
    number: u64,
    end: u64,
) -> Result<(), VerifyError> {
    while let Some(checkpoint) = due.next_if(|checkpoint| checkpoint.size == tree.size()) {
        if checkpoint.root != tree.root() {
            let file = segment::shown_name(number);
            return Err(VerifyError::Root { checkpoint: checkpoint.size, file, offset: end });
        }
    }
    Ok(())
}

/// Whether what follows the last good frame is a write cut short. Gives its length (0 for nothing but zeros) or, as
/// an error, why it cannot be: none when the reason for the first frame being bad is reason enough.
fn judge(rest: &[u8], due: u64, offset: u64) -> Result<u64, Option<&'static str>> {
    let Some(last) = rest.iter().rposition(|byte| *byte != 0) else { return Ok(0) };
    if let Some((at, header)) = first_frame(rest, due) {
        if at == 0 || header.index < due {
            return Err(None);
        }
        let mut latest = header;
        let mut from = at + FRAME_HEADER_BYTES + header.length as usize;
        while let Some((at, header)) = rest.get(from..).and_then(|rest| first_frame(rest, due)) {
            latest = header;
            from += at + FRAME_HEADER_BYTES + header.length as usize;
        }
        // What is not synced reaches the disk in any order. A frame may therefore follow a missing one, of the same
        // write or of the one before it, which is acknowledged no sooner. But each says what was durable when it was
        // written, and that cannot be missing.
        let together = latest.durable().is_some_and(|durable| durable <= due);
        if !together {
            return Err(Some("the record is damaged, and later ones are not"));
        }
        if !lacks_sector(rest.get(..at).unwrap_or_default(), offset) {
            return Err(None);
        }
    }
    Ok(last as u64 + 1)
}

/// The first good frame in `rest`, whatever its offset, that is not further from `due` than there is room.
fn first_frame(rest: &[u8], due: u64) -> Option<(usize, FrameHeader)> {
    let room = (rest.len() / FRAME_HEADER_BYTES) as u64 + 1;
    let starts = rest.iter().enumerate().filter(|(_, byte)| **byte != 0).map(|(at, _)| at);
    // A length's low byte may be zero itself, so the byte before one that is not is a start as well.
    starts.flat_map(|at| [at.saturating_sub(1), at]).find_map(|at| {
        let bytes = rest.get(at..)?;
        let header = FrameHeader::parse(bytes)?;
        let near = header.index <= due.saturating_add(room);
        let record = bytes.get(FRAME_HEADER_BYTES..FRAME_HEADER_BYTES + header.length as usize)?;
        (near && header.matches(record)).then_some((at, header))
    })
}

/// Whether some sector's part of `bytes`, which begin at `offset`, is zeros, or ends with more of them than a record
/// can: what a sector has at any moment is some writes whole, and perhaps the beginning of one more.
fn lacks_sector(bytes: &[u8], offset: u64) -> bool {
    let before = usize::try_from(SECTOR_BYTES - offset % SECTOR_BYTES).unwrap_or(0).min(bytes.len());
    let (first, others) = bytes.split_at_checked(before).unwrap_or((bytes, &[]));
    let zero = |part: &[u8]| {
        let end = part.len().checked_sub(HOLE_BYTES).and_then(|from| part.get(from..)).unwrap_or(part);
        !end.is_empty() && end.iter().all(|byte| *byte == 0)
    };
    zero(first) || others.chunks(SECTOR_BYTES as usize).any(zero)
}

fn fault(number: u64, record: u64, offset: u64, reason: &'static str) -> VerifyError {
    VerifyError::Segment { record, file: segment::shown_name(number), offset, reason }
}
