//! The frames that cross the one socket between gateway and cell. Pure bytes in, values out.
//!
//! Owns the format and its bounds; both ends use it, and neither trusts the other further than it says. Must never
//! read or write a socket, and must never accept a length before comparing it with its cap.
//!
//! A frame is a 12-byte header and a payload of at most 64 KiB. Header, big-endian: u32 payload length, u8 kind,
//! u8 flags (bit 0: last of its direction for this call), u16 zero, u32 call number (0: about the cell itself).
//!
//! Life of a call: gateway sends `Request`, then `Data` up to the credit it was given; the cell answers `Response`,
//! `Data` likewise, any number of `Log`, and exactly one `Done`, after which the number is not used again for
//! anything but late frames of the gateway, which the cell ignores. `Cancel` asks the cell to stop; it still says
//! `Done`. Each direction of a call starts with [`INITIAL_CREDIT`] bytes of credit; `Credit` grants more.

mod egress;

use bytes::{Buf, Bytes};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

pub use self::egress::{
    FETCH_CREDIT, FetchHead, decode_fetch, decode_fetch_failed, put_fetch, put_fetch_credit, put_fetch_failed,
    put_fetch_head,
};
use crate::facts::{Ending, Isolation, Usage};

/// Bytes of a frame header.
pub const HEADER_BYTES: usize = 12;
/// Most bytes of a payload.
pub const MAX_PAYLOAD: usize = 64 * 1024;
/// Bytes of body each direction of a call may send before it is granted more.
pub const INITIAL_CREDIT: u32 = 256 * 1024;
/// Most header fields in a head.
pub const MAX_HEADERS: usize = 128;
/// Flag: the last frame of its direction for this call.
pub const END: u8 = 1;

/// Why bytes are not an acceptable frame. From a cell, any of these is a reason to kill it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Longer than allowed.
    #[error("frame longer than its cap")]
    Oversized,
    /// Kind, flags or reserved bits that do not exist.
    #[error("unknown kind or flags in a frame header")]
    Unknown,
    /// Payload that is not what its kind says.
    #[error("malformed frame payload")]
    Malformed,
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $code:literal,)*) => {
        /// What a frame is.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Kind { $($(#[$doc])* $name = $code,)* }

        impl Kind {
            fn from_code(code: u8) -> Option<Self> {
                match code { $($code => Some(Self::$name),)* _ => None }
            }
        }
    };
}

kinds! {
    /// To a blank cell: become this function version. The artifact's descriptor travels beside it.
    Handover = 1,
    /// To a cell: head of a call.
    Request = 2,
    /// Both ways: a piece of body.
    Data = 3,
    /// Both ways: more credit (payload: u32 bytes).
    Credit = 4,
    /// To a cell: stop this call.
    Cancel = 5,
    /// From a cell: jailed and blank (payload: one byte, the isolation reached).
    Ready = 16,
    /// From a cell: the handed-over version is loaded.
    Loaded = 17,
    /// From a cell: head of an answer.
    Response = 18,
    /// From a cell: a piece of log (payload: u8 stream, 1 stdout, 2 stderr; then bytes).
    Log = 19,
    /// From a cell: the call is over (payload: ending and usage).
    Done = 20,
    /// From a cell: the handed-over version cannot be loaded (payload: UTF-8 reason). The cell exits.
    Failed = 21,
    /// From a cell: head of a request to the outside. Of this and those below, the number is the fetch's.
    Fetch = 32,
    /// Both ways: a piece of its body, or of its answer's.
    FetchData = 33,
    /// Both ways: more credit for that (payload: u32 bytes).
    FetchCredit = 34,
    /// From a cell: nobody waits for the answer any more.
    FetchCancel = 35,
    /// To a cell: head of the answer.
    FetchHead = 36,
    /// To a cell: there is no answer, or no more of it (payload: one byte, the reason).
    FetchFailed = 37,
}

/// A decoded frame header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Bytes of payload that follow.
    pub length: usize,
    /// What it is.
    pub kind: Kind,
    /// Whether it is the last of its direction for this call.
    pub end: bool,
    /// Which call; 0 for the cell itself.
    pub call: u32,
}

impl Header {
    /// Reads a header, refusing lengths over the cap and anything unknown.
    pub fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Self, FrameError> {
        let mut rest = bytes.as_slice();
        let (length, code, flags, zero, call) =
            (rest.get_u32(), rest.get_u8(), rest.get_u8(), rest.get_u16(), rest.get_u32());
        let length = usize::try_from(length).map_err(|_| FrameError::Oversized)?;
        if length > MAX_PAYLOAD {
            return Err(FrameError::Oversized);
        }
        let kind = Kind::from_code(code).ok_or(FrameError::Unknown)?;
        if zero != 0 || flags & !END != 0 {
            return Err(FrameError::Unknown);
        }
        Ok(Self { length, kind, end: flags & END != 0, call })
    }
}

/// Appends a whole frame. Fails, leaving `out` as it was, where the payload is over the cap.
pub fn put(out: &mut Vec<u8>, kind: Kind, end: bool, call: u32, payload: &[u8]) -> Result<(), FrameError> {
    put_with(out, kind, end, call, |out| {
        out.extend_from_slice(payload);
        Ok(())
    })
}

/// Appends a frame whose payload is written in place by `fill`.
fn put_with(
    out: &mut Vec<u8>,
    kind: Kind,
    end: bool,
    call: u32,
    fill: impl FnOnce(&mut Vec<u8>) -> Result<(), FrameError>,
) -> Result<(), FrameError> {
    let start = out.len();
    out.extend_from_slice(&[0, 0, 0, 0, kind as u8, u8::from(end) * END, 0, 0]);
    out.extend_from_slice(&call.to_be_bytes());
    let filled = fill(out);
    let length = out.len().saturating_sub(start + HEADER_BYTES);
    match (filled, u32::try_from(length)) {
        (Ok(()), Ok(number)) if length <= MAX_PAYLOAD => {
            if let Some(place) = out.get_mut(start..start + 4) {
                place.copy_from_slice(&number.to_be_bytes());
            }
            Ok(())
        }
        (filled, _) => {
            out.truncate(start);
            Err(filled.err().unwrap_or(FrameError::Oversized))
        }
    }
}

/// Head of a call, as the guest will see it. The scheme is always https.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestHead {
    /// Method.
    pub method: Method,
    /// Host and port.
    pub authority: String,
    /// Path and query.
    pub target: String,
    /// Header fields, hop-by-hop ones already gone.
    pub headers: HeaderMap,
}

/// Appends a `Request` frame.
pub fn put_request(out: &mut Vec<u8>, end: bool, call: u32, head: &RequestHead) -> Result<(), FrameError> {
    put_with(out, Kind::Request, end, call, |out| {
        put_short(out, head.method.as_str().as_bytes())?;
        put_short(out, head.authority.as_bytes())?;
        put_short(out, head.target.as_bytes())?;
        put_headers(out, &head.headers)
    })
}

/// Reads the payload of a `Request` frame.
pub fn decode_request(mut payload: Bytes) -> Result<RequestHead, FrameError> {
    let method = Method::from_bytes(&take_short(&mut payload)?).map_err(|_| FrameError::Malformed)?;
    let authority = utf8(&take_short(&mut payload)?)?;
    let target = utf8(&take_short(&mut payload)?)?;
    let headers = take_headers(payload)?;
    Ok(RequestHead { method, authority, target, headers })
}

/// Appends a `Response` frame.
pub fn put_response(
    out: &mut Vec<u8>,
    end: bool,
    call: u32,
    status: StatusCode,
    headers: &HeaderMap,
) -> Result<(), FrameError> {
    put_with(out, Kind::Response, end, call, |out| {
        out.extend_from_slice(&status.as_u16().to_be_bytes());
        put_headers(out, headers)
    })
}

/// Reads the payload of a `Response` frame.
pub fn decode_response(mut payload: Bytes) -> Result<(StatusCode, HeaderMap), FrameError> {
    if payload.remaining() < 2 {
        return Err(FrameError::Malformed);
    }
    let status = StatusCode::from_u16(payload.get_u16()).map_err(|_| FrameError::Malformed)?;
    Ok((status, take_headers(payload)?))
}

/// Appends a `Credit` frame.
pub fn put_credit(out: &mut Vec<u8>, call: u32, bytes: u32) -> Result<(), FrameError> {
    put(out, Kind::Credit, false, call, &bytes.to_be_bytes())
}

/// Reads the payload of a `Credit` frame.
pub fn decode_credit(payload: &[u8]) -> Result<u32, FrameError> {
    payload.try_into().map(u32::from_be_bytes).map_err(|_| FrameError::Malformed)
}

/// Endings a cell may report; the rest are for the gateway to conclude.
const REPORTABLE: &[Ending] = &[
    Ending::Answered,
    Ending::Trapped,
    Ending::NoAnswer,
    Ending::CpuExhausted,
    Ending::WallExceeded,
    Ending::MemoryExhausted,
    Ending::StackExhausted,
    Ending::HandlesExhausted,
    Ending::HostcallExhausted,
    Ending::ResponseTooLarge,
    Ending::ClientGone,
];

/// The figures a cell reports, in their order on the wire. What is not among them only the gateway can know.
fn reported(usage: &Usage) -> [u64; 7] {
    [
        usage.cpu_us,
        usage.wall_us,
        usage.memory_bytes,
        usage.memory_kib_ms,
        usage.bytes_in,
        usage.bytes_out,
        usage.log_bytes,
    ]
}

/// Appends a `Done` frame.
pub fn put_done(out: &mut Vec<u8>, call: u32, ending: Ending, usage: &Usage) -> Result<(), FrameError> {
    put_with(out, Kind::Done, true, call, |out| {
        let code = REPORTABLE.iter().position(|e| *e == ending).ok_or(FrameError::Malformed)?;
        out.push(u8::try_from(code).map_err(|_| FrameError::Malformed)?);
        for number in reported(usage) {
            out.extend_from_slice(&number.to_be_bytes());
        }
        Ok(())
    })
}

/// Reads the payload of a `Done` frame.
pub fn decode_done(mut payload: &[u8]) -> Result<(Ending, Usage), FrameError> {
    if payload.len() != 1 + 7 * 8 {
        return Err(FrameError::Malformed);
    }
    let ending = REPORTABLE.get(usize::from(payload.get_u8())).ok_or(FrameError::Malformed)?;
    let usage = Usage {
        cpu_us: payload.get_u64(),
        wall_us: payload.get_u64(),
        memory_bytes: payload.get_u64(),
        memory_kib_ms: payload.get_u64(),
        bytes_in: payload.get_u64(),
        bytes_out: payload.get_u64(),
        log_bytes: payload.get_u64(),
        ..Usage::default()
    };
    Ok((*ending, usage))
}

/// Appends a `Ready` frame.
pub fn put_ready(out: &mut Vec<u8>, isolation: Isolation) -> Result<(), FrameError> {
    let code = Isolation::ALL.iter().position(|i| *i == isolation).and_then(|i| u8::try_from(i).ok());
    put(out, Kind::Ready, false, 0, &[code.ok_or(FrameError::Malformed)?])
}

/// Reads the payload of a `Ready` frame.
pub fn decode_ready(payload: &[u8]) -> Result<Isolation, FrameError> {
    match payload {
        [code] => Isolation::ALL.get(usize::from(*code)).copied().ok_or(FrameError::Malformed),
        _ => Err(FrameError::Malformed),
    }
}

fn put_short(out: &mut Vec<u8>, bytes: &[u8]) -> Result<(), FrameError> {
    let length = u16::try_from(bytes.len()).map_err(|_| FrameError::Oversized)?;
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(bytes);
    Ok(())
}

fn take_short(payload: &mut Bytes) -> Result<Bytes, FrameError> {
    if payload.remaining() < 2 {
        return Err(FrameError::Malformed);
    }
    let length = usize::from(payload.get_u16());
    if payload.remaining() < length {
        return Err(FrameError::Malformed);
    }
    Ok(payload.split_to(length))
}

fn put_headers(out: &mut Vec<u8>, headers: &HeaderMap) -> Result<(), FrameError> {
    if headers.len() > MAX_HEADERS {
        return Err(FrameError::Oversized);
    }
    out.extend_from_slice(&u16::try_from(headers.len()).map_err(|_| FrameError::Oversized)?.to_be_bytes());
    for (name, value) in headers {
        put_short(out, name.as_str().as_bytes())?;
        put_short(out, value.as_bytes())?;
    }
    Ok(())
}

/// Names and values go through the `http` crate's constructors, so no control byte gets past either end.
fn take_headers(mut payload: Bytes) -> Result<HeaderMap, FrameError> {
    if payload.remaining() < 2 {
        return Err(FrameError::Malformed);
    }
    let count = usize::from(payload.get_u16());
    if count > MAX_HEADERS {
        return Err(FrameError::Oversized);
    }
    let mut headers = HeaderMap::with_capacity(count);
    for _ in 0..count {
        let name = HeaderName::from_bytes(&take_short(&mut payload)?).map_err(|_| FrameError::Malformed)?;
        let value = HeaderValue::from_maybe_shared(take_short(&mut payload)?).map_err(|_| FrameError::Malformed)?;
        headers.append(name, value);
    }
    if payload.has_remaining() { Err(FrameError::Malformed) } else { Ok(headers) }
}

fn utf8(bytes: &[u8]) -> Result<String, FrameError> {
    std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| FrameError::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header_of(bytes: &[u8]) -> Result<Header, FrameError> {
        Header::decode(bytes[..HEADER_BYTES].try_into().unwrap())
    }

    fn head() -> RequestHead {
        let mut headers = HeaderMap::new();
        headers.append("accept", HeaderValue::from_static("*/*"));
        headers.append("accept", HeaderValue::from_static("text/html"));
        RequestHead { method: Method::POST, authority: "a.example:8443".into(), target: "/x?y=1".into(), headers }
    }

    #[test]
    fn request_round_trips_and_refuses_every_truncation() {
        let mut out = Vec::new();
        put_request(&mut out, true, 7, &head()).unwrap();
        let header = header_of(&out).unwrap();
        assert_eq!((header.kind, header.end, header.call), (Kind::Request, true, 7));
        let payload = Bytes::copy_from_slice(&out[HEADER_BYTES..]);
        assert_eq!(decode_request(payload.clone()).unwrap(), head());
        for cut in 0..payload.len() {
            assert!(decode_request(payload.slice(..cut)).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn done_round_trips() {
        let usage = Usage {
            cpu_us: 1,
            wall_us: 2,
            memory_bytes: 3,
            memory_kib_ms: 7,
            bytes_in: 4,
            bytes_out: 5,
            log_bytes: 6,
            ..Usage::default()
        };
        let mut out = Vec::new();
        put_done(&mut out, 1, Ending::Trapped, &usage).unwrap();
        assert_eq!(decode_done(&out[HEADER_BYTES..]).unwrap(), (Ending::Trapped, usage));
        assert!(put_done(&mut Vec::new(), 1, Ending::CellLost, &usage).is_err());
    }

    #[test]
    fn lengths_over_the_cap_are_refused_before_a_byte_is_read() {
        let mut bytes = [0u8; HEADER_BYTES];
        bytes[..4].copy_from_slice(&u32::try_from(MAX_PAYLOAD + 1).unwrap().to_be_bytes());
        bytes[4] = Kind::Data as u8;
        assert_eq!(Header::decode(&bytes), Err(FrameError::Oversized));
        let mut out = vec![9];
        assert_eq!(put(&mut out, Kind::Data, false, 1, &vec![0; MAX_PAYLOAD + 1]), Err(FrameError::Oversized));
        assert_eq!(out, [9]);
    }

    #[test]
    fn control_bytes_never_become_headers() {
        let mut payload = vec![0, 200, 0, 1];
        put_short(&mut payload, b"x-evil").unwrap();
        put_short(&mut payload, b"a\r\nset-cookie: b").unwrap();
        assert_eq!(decode_response(payload.into()), Err(FrameError::Malformed));
    }

    #[test]
    fn unknown_kinds_flags_and_reserved_bits_are_refused() {
        for bytes in [
            [0, 0, 0, 0, 99, 0, 0, 0, 0, 0, 0, 0],
            [0, 0, 0, 0, 3, 2, 0, 0, 0, 0, 0, 0],
            [0, 0, 0, 0, 3, 0, 1, 0, 0, 0, 0, 0],
        ] {
            assert_eq!(Header::decode(&bytes), Err(FrameError::Unknown));
        }
    }
}
