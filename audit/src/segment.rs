//! The form of segment files: a header, then one frame for each record, then zeros or the end.
//!
//! Owns that form, writing it and reading one segment. Must never decide what a bad frame means (`scan` does) and
//! never read a length it has not bounded.

use std::fs::{self, File};
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::payload::{MAX_PAYLOAD_BYTES, Payload};
use crate::storage::{Storage, StoredFile};
use crate::tree::{Hash, sha256};

/// Directory of the segments.
pub(crate) const DIRECTORY: &str = "segments";
/// Bytes before the first frame.
pub(crate) const HEADER_BYTES: usize = 64;
/// Bytes before a frame's record: length, checksum, index, records before it that were not durable yet.
pub(crate) const FRAME_HEADER_BYTES: usize = 20;

const MAGIC: &[u8; 8] = b"COFFLOG\n";
/// The form of segments that are begun now.
const FORMAT: u32 = 2;
/// The form of releases with one sync at a time: all that a frame says not to be durable yet is of its own write.
const FORMAT_1: u32 = 1;
const READ_BYTES: usize = 256 * 1024;

/// What a segment must begin with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    /// SHA-256 of the log's origin.
    pub(crate) origin: Hash,
    /// Index of the segment's first record.
    pub(crate) first: u64,
}

impl Header {
    pub(crate) fn of(origin: &str, first: u64) -> Self {
        Self { origin: sha256(origin.as_bytes()), first }
    }

    pub(crate) fn to_bytes(self, format: u32) -> [u8; HEADER_BYTES] {
        let before = [MAGIC.as_slice(), &format.to_le_bytes()].concat();
        let after = [self.origin.as_slice(), &self.first.to_le_bytes(), &[0; 8]].concat();
        let sum = masked(crc32c::crc32c_append(crc32c::crc32c(&before), &after));
        let bytes = before.into_iter().chain(sum.to_le_bytes()).chain(after);
        let mut out = [0u8; HEADER_BYTES];
        out.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
        out
    }

    /// The format of a segment that begins with `bytes`; none where this is not its header.
    fn format_of(self, bytes: &[u8]) -> Option<u32> {
        [FORMAT, FORMAT_1].into_iter().find(|format| self.to_bytes(*format).as_slice() == bytes)
    }
}

/// The fixed part of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    pub(crate) length: u32,
    sum: u32,
    pub(crate) index: u64,
    /// How many records right before this one were not durable when it was written.
    pub(crate) behind: u32,
}

impl FrameHeader {
    /// Reads the first bytes of `bytes`; `None` where there are too few, or they can be no frame's.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let (length, rest) = bytes.split_first_chunk()?;
        let (sum, rest) = rest.split_first_chunk()?;
        let (index, rest) = rest.split_first_chunk()?;
        let (behind, _) = rest.split_first_chunk()?;
        let header = Self {
            length: u32::from_le_bytes(*length),
            sum: u32::from_le_bytes(*sum),
            index: u64::from_le_bytes(*index),
            behind: u32::from_le_bytes(*behind),
        };
        (1..=MAX_PAYLOAD_BYTES).contains(&(header.length as usize)).then_some(header)
    }

    pub(crate) fn matches(&self, record: &[u8]) -> bool {
        self.sum == checksum(self.length, self.index, self.behind, record)
    }

    /// How many records were durable when this one was written; none where it says something impossible.
    pub(crate) fn durable(&self) -> Option<u64> {
        self.index.checked_sub(self.behind.into())
    }
}

/// Completes a frame whose record is in place: length, checksum, index and how far the disk is behind go into the room
/// before it.
pub(crate) fn complete_frame(frame: &mut [u8], index: u64, behind: u32) {
    let Some((header, record)) = frame.split_first_chunk_mut::<FRAME_HEADER_BYTES>() else { return };
    let length = u32::try_from(record.len()).unwrap_or(u32::MAX);
    let sum = checksum(length, index, behind, record);
    let bytes = length.to_le_bytes().into_iter().chain(sum.to_le_bytes());
    let bytes = bytes.chain(index.to_le_bytes()).chain(behind.to_le_bytes());
    header.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
}

/// CRC-32C over everything but itself, masked: what it protects may hold such sums of its own.
fn checksum(length: u32, index: u64, behind: u32, record: &[u8]) -> u32 {
    let sum = crc32c::crc32c(&length.to_le_bytes());
    let sum = crc32c::crc32c_append(sum, &index.to_le_bytes());
    let sum = crc32c::crc32c_append(sum, &behind.to_le_bytes());
    masked(crc32c::crc32c_append(sum, record))
}

fn masked(sum: u32) -> u32 {
    sum.rotate_right(15).wrapping_add(0xa282_ead8)
}

/// Name of a segment file in its directory.
pub(crate) fn file_name(number: u64) -> String {
    format!("{number:010}.log")
}

/// Name of a segment file in the log's directory, as errors give it.
pub(crate) fn shown_name(number: u64) -> String {
    format!("{DIRECTORY}/{}", file_name(number))
}

/// Path of a segment file.
pub(crate) fn path(dir: &Path, number: u64) -> PathBuf {
    dir.join(DIRECTORY).join(file_name(number))
}

/// Numbers of the segments there are, ascending. Files of other names are none of the log's.
pub(crate) fn numbers(dir: &Path) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(dir.join(DIRECTORY))? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(".log")?.parse::<u64>().ok());
        numbers.extend(number.filter(|number| name.to_str() == Some(&file_name(*number))));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// A handle of its own to a file, for one sync at a time. The kernel tells every handle once of a write that failed, so
/// two syncs that share one would share the news as well.
pub(crate) type Lane = Arc<Mutex<Box<dyn StoredFile>>>;

/// One segment being written. Only ever the last.
pub(crate) struct SegmentWriter {
    path: PathBuf,
    lanes: Vec<Lane>,
    used: u64,
}

impl SegmentWriter {
    /// Makes segment `number` of `bytes` zeros after its header, under its name only once that is durable.
    pub(crate) fn create(
        storage: &Arc<dyn Storage>,
        dir: &Path,
        number: u64,
        header: Header,
        bytes: u64,
        lanes: usize,
    ) -> io::Result<Self> {
        let path = path(dir, number);
        let temporary = path.with_extension("tmp");
        let mut file = storage.create(&temporary)?;
        file.set_len(bytes.max(HEADER_BYTES as u64))?;
        file.write_at(0, &header.to_bytes(FORMAT))?;
        file.sync()?;
        storage.rename(&temporary, &path)?;
        storage.sync_dir(&dir.join(DIRECTORY))?;
        let lanes = open_lanes(storage, &path, file, lanes)?;
        Ok(Self { path, lanes, used: HEADER_BYTES as u64 })
    }

    /// Goes on in an existing segment after `used` bytes; what follows becomes `bytes` minus `used` zeros.
    pub(crate) fn resume(
        storage: &Arc<dyn Storage>,
        dir: &Path,
        number: u64,
        used: u64,
        bytes: u64,
        lanes: usize,
    ) -> io::Result<Self> {
        let path = path(dir, number);
        let mut file = storage.open(&path)?;
        file.set_len(used)?;
        file.set_len(bytes.max(used))?;
        file.sync()?;
        let lanes = open_lanes(storage, &path, file, lanes)?;
        Ok(Self { path, lanes, used })
    }

    pub(crate) fn used(&self) -> u64 {
        self.used
    }

    /// Writes whole frames at the end, and gives what has to be synced for them to be durable.
    pub(crate) fn write(&mut self, lane: usize, frames: &[u8]) -> io::Result<Lane> {
        let file = self.lanes.get(lane).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?.clone();
        file.lock().unwrap_or_else(PoisonError::into_inner).write_at(self.used, frames)?;
        self.used += frames.len() as u64;
        Ok(file)
    }

    /// Whether the file still has its name. Writing to one that was deleted would succeed, and record nothing.
    pub(crate) fn is_there(&self) -> io::Result<()> {
        if self.path.try_exists()? { Ok(()) } else { Err(io::Error::from(io::ErrorKind::NotFound)) }
    }

    /// Cuts off the zeros, so that every byte of the file means something. No sync may be under way.
    pub(crate) fn trim(&mut self) -> io::Result<()> {
        let Some(lane) = self.lanes.first() else { return Ok(()) };
        let mut file = lane.lock().unwrap_or_else(PoisonError::into_inner);
        file.set_len(self.used)?;
        file.sync()
    }

    /// Ends the segment for good.
    pub(crate) fn seal(mut self, storage: &Arc<dyn Storage>) -> io::Result<()> {
        self.trim()?;
        storage.seal(&self.path)
    }
}

/// The file itself for the first lane, and a handle of its own for each other.
fn open_lanes(
    storage: &Arc<dyn Storage>,
    path: &Path,
    file: Box<dyn StoredFile>,
    lanes: usize,
) -> io::Result<Vec<Lane>> {
    let mut all = vec![Arc::new(Mutex::new(file))];
    for _ in 1..lanes {
        all.push(Arc::new(Mutex::new(storage.open(path)?)));
    }
    Ok(all)
}

/// Waits until what was written is durable.
pub(crate) fn sync(lane: &Lane) -> io::Result<()> {
    lane.lock().unwrap_or_else(PoisonError::into_inner).sync()
}

/// A good frame.
#[derive(Debug)]
pub(crate) struct Frame<'a> {
    pub(crate) index: u64,
    pub(crate) payload: Payload<'a>,
    /// A zero byte, then the record's entry: what a leaf's hash is over.
    pub(crate) prefixed: &'a [u8],
    /// Where the frame ends.
    pub(crate) end: u64,
}

/// What follows in a segment.
pub(crate) enum Step<'a> {
    Frame(Frame<'a>),
    /// The file ends here.
    End,
    /// Only zeros follow, as far as was looked: the header of a frame.
    Zeros,
    /// What follows is no frame, or not the one due.
    Bad(&'static str),
}

/// Reads one segment from its beginning.
pub(crate) struct SegmentReader {
    input: BufReader<File>,
    /// Where the next frame begins.
    offset: u64,
    next: u64,
    format: u32,
    /// How many records were durable when the frame before was written. A segment is begun when all are.
    durable: u64,
    buffer: Vec<u8>,
}

impl SegmentReader {
    /// Opens segment `number`, whose first record must be `expected.first`. The inner error says what is wrong with
    /// the header.
    pub(crate) fn open(dir: &Path, number: u64, expected: Header) -> io::Result<Result<Self, &'static str>> {
        let mut input = BufReader::with_capacity(READ_BYTES, File::open(path(dir, number))?);
        let mut found = Vec::with_capacity(HEADER_BYTES);
        input.by_ref().take(HEADER_BYTES as u64).read_to_end(&mut found)?;
        let Some(format) = expected.format_of(&found) else {
            return Ok(Err("the segment's header is not the one expected"));
        };
        let (offset, first) = (HEADER_BYTES as u64, expected.first);
        Ok(Ok(Self { input, offset, next: first, format, durable: first, buffer: Vec::new() }))
    }

    /// Reads the header of a segment as it claims to be, for readers that start in the middle of a log.
    pub(crate) fn claimed(dir: &Path, number: u64) -> io::Result<Option<Header>> {
        let mut bytes = Vec::with_capacity(HEADER_BYTES);
        File::open(path(dir, number))?.take(HEADER_BYTES as u64).read_to_end(&mut bytes)?;
        let parsed = bytes.get(16..48).zip(bytes.get(48..56)).and_then(|(origin, first)| {
            Some(Header { origin: origin.try_into().ok()?, first: u64::from_le_bytes(first.try_into().ok()?) })
        });
        Ok(parsed.filter(|header: &Header| header.format_of(&bytes).is_some()))
    }

    /// Whether the segment may be written on; those of an older form are only read.
    pub(crate) fn is_current(&self) -> bool {
        self.format == FORMAT
    }

    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    pub(crate) fn next_index(&self) -> u64 {
        self.next
    }

    pub(crate) fn step(&mut self) -> io::Result<Step<'_>> {
        self.buffer.clear();
        self.fill(FRAME_HEADER_BYTES)?;
        if self.buffer.is_empty() {
            return Ok(Step::End);
        }
        if self.buffer.iter().all(|byte| *byte == 0) {
            return Ok(Step::Zeros);
        }
        let Some(header) = FrameHeader::parse(&self.buffer) else {
            return Ok(Step::Bad("no record begins here"));
        };
        // The last byte of the header is done with, and the zero a leaf's hash wants before the record.
        self.buffer.clear();
        self.buffer.push(0);
        self.fill(header.length as usize)?;
        let Some(record) = self.buffer.get(1..).filter(|record| record.len() == header.length as usize) else {
            return Ok(Step::Bad("the record is cut short"));
        };
        if !header.matches(record) {
            return Ok(Step::Bad("the record's checksum is wrong"));
        }
        if header.index != self.next {
            return Ok(Step::Bad("another record is in its place"));
        }
        // What is durable stays so; and with one sync at a time, all that is not is of the same write.
        let durable = header.durable().filter(|durable| {
            let grown = *durable >= self.durable;
            grown && (self.format != FORMAT_1 || *durable == self.durable || header.behind == 0)
        });
        let Some(durable) = durable else {
            return Ok(Step::Bad("the record is out of place in its batch"));
        };
        let Some(payload) = Payload::split(record) else {
            return Ok(Step::Bad("the record has no entry of a possible length"));
        };
        self.durable = durable;
        self.next += 1;
        self.offset += (FRAME_HEADER_BYTES + record.len()) as u64;
        let prefixed = self.buffer.get(..=payload.entry().len()).unwrap_or_default();
        Ok(Step::Frame(Frame { index: header.index, payload, prefixed, end: self.offset }))
    }

    /// Everything from where the last good frame ends. The next step looks there again.
    pub(crate) fn rest(&mut self) -> io::Result<Vec<u8>> {
        let mut rest = Vec::new();
        self.input.seek(SeekFrom::Start(self.offset))?;
        self.input.read_to_end(&mut rest)?;
        self.input.seek(SeekFrom::Start(self.offset))?;
        Ok(rest)
    }

    /// Has the next step look at the file itself again, which may have grown since.
    pub(crate) fn look_again(&mut self) -> io::Result<()> {
        self.input.seek(SeekFrom::Start(self.offset)).map(|_| ())
    }

    /// Appends up to `bytes` bytes to the buffer.
    fn fill(&mut self, bytes: usize) -> io::Result<()> {
        self.input.by_ref().take(bytes as u64).read_to_end(&mut self.buffer).map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_masked_crc32c() {
        // The vector of RFC 3720 (32 zero bytes: 0x8a9136aa), masked as LevelDB does.
        assert_eq!(masked(crc32c::crc32c(&[0; 32])), 0x8a91_36aa_u32.rotate_right(15).wrapping_add(0xa282_ead8));
        assert_eq!(crc32c::crc32c(&[0; 32]), 0x8a91_36aa);
    }

    #[test]
    fn a_frame_header_reads_back_and_protects_itself_and_the_record() {
        let mut frame = vec![0; FRAME_HEADER_BYTES];
        frame.extend_from_slice(b"{\"v\":1}");
        complete_frame(&mut frame, 77, 3);
        let header = FrameHeader::parse(&frame).unwrap();
        assert_eq!((header.length, header.index, header.behind, header.durable()), (7, 77, 3, Some(74)));
        assert!(header.matches(&frame[FRAME_HEADER_BYTES..]));
        for at in 0..frame.len() {
            let mut changed = frame.clone();
            changed[at] ^= 0x10;
            let good = FrameHeader::parse(&changed).is_some_and(|h| h.matches(&changed[FRAME_HEADER_BYTES..]));
            assert!(!good, "byte {at}");
        }
    }

    #[test]
    fn a_segment_header_has_its_fixed_size_and_place_for_everything() {
        let bytes = Header { origin: [9; 32], first: 0x0102 }.to_bytes(FORMAT);
        assert_eq!(&bytes[..8], MAGIC);
        assert_eq!(bytes[16..48], [9; 32]);
        assert_eq!(bytes[48..50], [2, 1]);
        assert_eq!(bytes[50..], [0; 14]);
    }
}
