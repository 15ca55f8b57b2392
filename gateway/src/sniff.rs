//! The framing of HTTP/1.1 below hyper: where each head and body ends, and a refusal of whatever has two readings.
//!
//! Owns a small, strict reader that sees every decrypted byte before hyper does. A head is passed on only when it is
//! complete and has exactly one reading; a body only as far as it is framed. Must never pass on a byte it does not
//! understand: what is merely odd (bare LF, folded fields, chunk extensions, trailers, HTTP/1.0) is refused, too.

use http::Uri;

use crate::refusal::{Fault, Refusal};

/// Method, spaces, version and line end around a target.
const REQUEST_LINE_EXTRA: usize = 48;
/// Digits of a chunk's size: up to 4 GiB, leading zeros included.
const CHUNK_DIGITS: u8 = 8;

/// How much of a head is read before it is refused.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HeadCaps {
    /// Bytes of the target.
    pub(crate) target_bytes: usize,
    /// Bytes of all fields, line ends included.
    pub(crate) header_bytes: usize,
    /// Number of fields.
    pub(crate) header_count: usize,
}

/// What to do with bytes not passed on yet.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing can be said before more bytes come.
    More,
    /// So many bytes are a complete, good head. Pass them on.
    Head(usize),
    /// So many bytes belong to the body under way. Pass them on.
    Body(usize),
    /// The head is refused. The connection carries nothing more.
    Refuse(Refusal),
    /// The body is not framed as announced. The connection carries nothing more.
    Broken,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Head(Progress),
    Length(u64),
    Chunked(Chunk),
}

/// How far a head has been looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Progress {
    /// Bytes searched for line ends.
    scanned: usize,
    /// Where the line under way starts.
    line: usize,
    /// Whole lines so far.
    lines: usize,
    /// Bytes of the request line, once it is whole.
    first: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Chunk {
    Size { digits: u8, value: u64 },
    SizeEnd(u64),
    Data(u64),
    DataCr,
    DataLf,
    LastCr,
    LastLf,
}

const START: State = State::Head(Progress { scanned: 0, line: 0, lines: 0, first: 0 });

/// The reader. One per connection.
#[derive(Debug)]
pub(crate) struct Framing {
    caps: HeadCaps,
    state: State,
}

impl Framing {
    /// At the start of a connection.
    pub(crate) fn new(caps: HeadCaps) -> Self {
        Self { caps, state: START }
    }

    /// Whether the next byte belongs to a head.
    pub(crate) fn in_head(&self) -> bool {
        matches!(self.state, State::Head(_))
    }

    /// How many bytes of a body of known length may be read past this reader.
    pub(crate) fn plain_left(&self) -> Option<u64> {
        match self.state {
            State::Length(left) => Some(left),
            State::Head(_) | State::Chunked(_) => None,
        }
    }

    /// So many bytes were read past it.
    pub(crate) fn passed_plain(&mut self, count: usize) {
        if let State::Length(left) = self.state {
            let left = left.saturating_sub(u64::try_from(count).unwrap_or(u64::MAX));
            self.state = if left == 0 { START } else { State::Length(left) };
        }
    }

    /// Looks at the bytes not passed on yet. To be asked again with what remains after passing on, or with more.
    pub(crate) fn look(&mut self, bytes: &[u8]) -> Step {
        match self.state {
            State::Head(progress) => self.look_at_head(bytes, progress),
            _ if bytes.is_empty() => Step::More,
            State::Length(left) => {
                let count = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
                self.passed_plain(count);
                Step::Body(count)
            }
            State::Chunked(chunk) => self.look_at_chunks(bytes, chunk),
        }
    }

    fn look_at_head(&mut self, bytes: &[u8], mut so_far: Progress) -> Step {
        while let Some(at) = bytes.get(so_far.scanned..).and_then(|rest| rest.iter().position(|b| *b == b'\n')) {
            let end = so_far.scanned + at;
            let Some(content) = bytes.get(so_far.line..end).and_then(|text| text.strip_suffix(b"\r")) else {
                return Step::Refuse(Refusal::BadRequest(Fault::LineEnding));
            };
            if content.is_empty() {
                return self.finish_head(bytes, so_far.line, end + 1);
            }
            let first = if so_far.lines == 0 { end + 1 } else { so_far.first };
            so_far = Progress { scanned: end + 1, line: end + 1, lines: so_far.lines + 1, first };
            if let Some(refusal) = self.too_large(end + 1, so_far) {
                return Step::Refuse(refusal);
            }
        }
        // Two bytes less, for they may turn out to be the line end, which a whole line of this size would have, too.
        if let Some(refusal) = self.too_large(bytes.len().saturating_sub(2), so_far) {
            return Step::Refuse(refusal);
        }
        self.state = State::Head(Progress { scanned: bytes.len(), ..so_far });
        Step::More
    }

    /// Whether a head of which `seen` bytes are there is already beyond the caps.
    fn too_large(&self, seen: usize, so_far: Progress) -> Option<Refusal> {
        let request_line = if so_far.lines == 0 { seen } else { so_far.first };
        if request_line > self.caps.target_bytes.saturating_add(REQUEST_LINE_EXTRA) {
            return Some(Refusal::UriTooLong);
        }
        let over = seen.saturating_sub(request_line) > self.caps.header_bytes
            || so_far.lines.saturating_sub(1) > self.caps.header_count;
        over.then_some(Refusal::HeaderTooLarge)
    }

    fn finish_head(&mut self, bytes: &[u8], fields_end: usize, head_end: usize) -> Step {
        let head = bytes.get(..fields_end).unwrap_or_default();
        match read_head(head, self.caps.target_bytes) {
            Err(refusal) => Step::Refuse(refusal),
            Ok(Body::None) => {
                self.state = START;
                Step::Head(head_end)
            }
            Ok(Body::Length(length)) => {
                self.state = State::Length(length);
                Step::Head(head_end)
            }
            Ok(Body::Chunked) => {
                self.state = State::Chunked(Chunk::Size { digits: 0, value: 0 });
                Step::Head(head_end)
            }
        }
    }

    fn look_at_chunks(&mut self, bytes: &[u8], mut chunk: Chunk) -> Step {
        let mut at = 0;
        while let Some(byte) = bytes.get(at).copied() {
            if let Chunk::Data(left) = chunk {
                let here = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len() - at);
                at += here;
                let left = left - u64::try_from(here).unwrap_or(left);
                chunk = if left == 0 { Chunk::DataCr } else { Chunk::Data(left) };
                continue;
            }
            at += 1;
            chunk = match next_chunk(chunk, byte) {
                Some(Some(next)) => next,
                Some(None) => {
                    self.state = START;
                    return Step::Body(at);
                }
                None => return Step::Broken,
            };
        }
        self.state = State::Chunked(chunk);
        Step::Body(at)
    }
}

/// One byte of chunked framing: the next state, the end of the body (`Some(None)`), or no framing at all.
fn next_chunk(chunk: Chunk, byte: u8) -> Option<Option<Chunk>> {
    let next = match (chunk, byte) {
        (Chunk::Size { digits, value }, _) if byte.is_ascii_hexdigit() && digits < CHUNK_DIGITS => {
            let digit = char::from(byte).to_digit(16)?;
            Chunk::Size { digits: digits + 1, value: value * 16 + u64::from(digit) }
        }
        (Chunk::Size { digits: 1.., value }, b'\r') => Chunk::SizeEnd(value),
        (Chunk::SizeEnd(0), b'\n') => Chunk::LastCr,
        (Chunk::SizeEnd(size), b'\n') => Chunk::Data(size),
        (Chunk::DataCr, b'\r') => Chunk::DataLf,
        (Chunk::DataLf, b'\n') => Chunk::Size { digits: 0, value: 0 },
        // Anything but the empty line here would be a trailer.
        (Chunk::LastCr, b'\r') => Chunk::LastLf,
        (Chunk::LastLf, b'\n') => return Some(None),
        _ => return None,
    };
    Some(Some(next))
}

/// How the body after a head is framed.
#[derive(Debug, PartialEq, Eq)]
enum Body {
    None,
    Length(u64),
    Chunked,
}

/// Reads a head whose every line is known to end in CR LF; the empty line is not part of it.
fn read_head(head: &[u8], target_bytes: usize) -> Result<Body, Refusal> {
    let mut lines = head.split(|b| *b == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    read_request_line(lines.next().unwrap_or_default(), target_bytes)?;
    let (mut length, mut chunked) = (None, false);
    for line in lines.filter(|line| !line.is_empty()) {
        let (name, value) = read_field(line)?;
        if name.eq_ignore_ascii_case(b"content-length") {
            if chunked {
                return Err(Refusal::BadRequest(Fault::LengthAndEncoding));
            }
            let number = read_length(value).filter(|_| length.is_none());
            length = Some(number.ok_or(Refusal::BadRequest(Fault::ContentLength))?);
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            if length.is_some() {
                return Err(Refusal::BadRequest(Fault::LengthAndEncoding));
            }
            if chunked || value != b"chunked" {
                return Err(Refusal::BadRequest(Fault::TransferEncoding));
            }
            chunked = true;
        }
    }
    Ok(match (chunked, length) {
        (true, _) => Body::Chunked,
        (false, None | Some(0)) => Body::None,
        (false, Some(length)) => Body::Length(length),
    })
}

fn read_request_line(line: &[u8], target_bytes: usize) -> Result<(), Refusal> {
    let bad = Refusal::BadRequest(Fault::RequestLine);
    let mut parts = line.split(|b| *b == b' ');
    let (Some(method), Some(target), Some(version), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(bad);
    };
    if method.is_empty() || !method.iter().copied().all(is_token) {
        return Err(bad);
    }
    match version {
        b"HTTP/1.1" => {}
        _ if version.starts_with(b"HTTP/") => return Err(Refusal::VersionUnsupported),
        _ => return Err(bad),
    }
    if !is_method(method) {
        return Err(Refusal::MethodUnknown);
    }
    if target.len() > target_bytes {
        return Err(Refusal::UriTooLong);
    }
    let readable = target.iter().all(u8::is_ascii_graphic) && Uri::try_from(target).is_ok();
    if readable { Ok(()) } else { Err(Refusal::BadRequest(Fault::Target)) }
}

fn read_field(line: &[u8]) -> Result<(&[u8], &[u8]), Refusal> {
    if line.first().is_some_and(|b| matches!(b, b' ' | b'\t')) {
        return Err(Refusal::BadRequest(Fault::FoldedField));
    }
    let colon = line.iter().position(|b| *b == b':');
    let parts = colon.and_then(|at| Some((line.get(..at)?, line.get(at + 1..)?)));
    match parts {
        Some((name, value)) if !name.is_empty() && name.iter().copied().all(is_token) => {
            let clean = value.iter().all(|b| *b == b'\t' || (*b >= b' ' && *b != 0x7f));
            let value = value.trim_ascii();
            if clean { Ok((name, value)) } else { Err(Refusal::BadRequest(Fault::FieldValue)) }
        }
        _ => Err(Refusal::BadRequest(Fault::FieldName)),
    }
}

/// A plain number of at most 18 digits, which always fits.
fn read_length(value: &[u8]) -> Option<u64> {
    let plain = (1..=18).contains(&value.len()) && value.iter().all(u8::is_ascii_digit);
    plain.then(|| value.iter().fold(0u64, |sum, digit| sum * 10 + u64::from(digit - b'0')))
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Whether anyone here may take the method: capitals and `-` only, so that policies cannot be dodged by its case,
/// and neither of the two that speak to proxies.
pub(crate) fn is_method(method: &[u8]) -> bool {
    (1..=32).contains(&method.len())
        && method.iter().all(|b| b.is_ascii_uppercase() || *b == b'-')
        && method != b"CONNECT"
        && method != b"TRACE"
}

#[cfg(test)]
mod tests;
