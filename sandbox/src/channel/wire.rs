//! Turns bytes from a cell into frames a call can take, refusing whatever a cell may not send.
//!
//! Owns the parsing, outside of every lock. Must never keep a slice of a large buffer alive for a small piece, and
//! must never judge whether a frame comes at the right time: that is the call's own business.

use bytes::{Buf, Bytes, BytesMut};
use cofferdam_model::frame::{self, FetchHead, FrameError, HEADER_BYTES, Header, Kind};
use cofferdam_model::{Ending, Usage};
use http::{HeaderMap, StatusCode};

use crate::logs::Stream;

/// Pieces up to this size are copied out, so that they do not hold on to the buffer they came in.
const COPY_UP_TO: usize = 4096;

/// Bytes read at once, unless a longer frame is under way.
pub(crate) const READ_BYTES: usize = 16 * 1024;

/// Why a cell is not to be talked to any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Violation {
    /// Bytes that are no frame.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// A kind that only the gateway sends, or that does not belong in this state.
    #[error("a frame of kind `{0:?}` where it does not belong")]
    Kind(Kind),
    /// A call that does not exist, or is over.
    #[error("a frame for a call that is not under way")]
    UnknownCall,
    /// The right kind at the wrong time.
    #[error("a frame out of order: {0}")]
    OutOfOrder(&'static str),
    /// More body than it was given credit for.
    #[error("more body than credit")]
    OverCredit,
    /// More than the function's limits allow.
    #[error("more {0} than the function's limits allow")]
    OverLimit(&'static str),
}

/// What a cell may say about a call.
#[derive(Debug)]
pub(crate) enum Said {
    /// It took this many bytes of the request body.
    Credit(u32),
    /// Head of the answer.
    Response(StatusCode, HeaderMap),
    /// Body of the answer.
    Data(Bytes),
    /// Something the guest wrote.
    Log(Stream, Bytes),
    /// The call is over.
    Done(Ending, Usage),
    /// It asks for something of the outside. Of this and those below, the number is the fetch's.
    Fetch(Box<FetchHead>),
    /// Body of what it asks.
    FetchData(Bytes),
    /// It took this many bytes of the answer's body.
    FetchCredit(u32),
    /// It does not wait for the answer any more.
    FetchCancel,
}

impl Said {
    /// Whether it is about a fetch.
    pub(crate) fn is_of_fetch(&self) -> bool {
        matches!(self, Self::Fetch(_) | Self::FetchData(_) | Self::FetchCredit(_) | Self::FetchCancel)
    }
}

/// A frame of a cell, decoded.
#[derive(Debug)]
pub(crate) struct Incoming {
    /// Which call.
    pub(crate) call: u32,
    /// Whether it is the last of its direction.
    pub(crate) end: bool,
    /// What it says.
    pub(crate) said: Said,
}

/// Takes every whole frame off the front of `buffer` and makes room for what is missing of the next.
pub(crate) fn parse(buffer: &mut BytesMut, out: &mut Vec<Incoming>) -> Result<(), Violation> {
    let mut needed = READ_BYTES;
    while let Some(bytes) = buffer.first_chunk::<HEADER_BYTES>() {
        let header = Header::decode(bytes)?;
        if !is_sayable(header.kind) {
            return Err(Violation::Kind(header.kind));
        }
        let whole = HEADER_BYTES.saturating_add(header.length);
        if buffer.len() < whole {
            needed = needed.max(whole.saturating_sub(buffer.len()));
            break;
        }
        buffer.advance(HEADER_BYTES);
        let payload = take(buffer, header.length);
        out.push(Incoming { call: header.call, end: header.end, said: decode(header.kind, payload)? });
    }
    if buffer.capacity().saturating_sub(buffer.len()) < needed {
        buffer.reserve(needed);
    }
    Ok(())
}

/// Kinds a serving cell may send.
fn is_sayable(kind: Kind) -> bool {
    use Kind::{Credit, Data, Done, Fetch, FetchCancel, FetchCredit, FetchData, Log, Response};
    matches!(kind, Credit | Response | Data | Log | Done | Fetch | FetchData | FetchCredit | FetchCancel)
}

fn take(buffer: &mut BytesMut, length: usize) -> Bytes {
    if length > COPY_UP_TO {
        return buffer.split_to(length).freeze();
    }
    let copy = buffer.get(..length).map(Bytes::copy_from_slice).unwrap_or_default();
    buffer.advance(length);
    copy
}

fn decode(kind: Kind, mut payload: Bytes) -> Result<Said, Violation> {
    Ok(match kind {
        Kind::Credit => Said::Credit(frame::decode_credit(&payload)?),
        Kind::Response => {
            let (status, headers) = frame::decode_response(payload)?;
            Said::Response(status, headers)
        }
        Kind::Data => Said::Data(payload),
        Kind::Log => {
            if !payload.has_remaining() {
                return Err(FrameError::Malformed.into());
            }
            let stream = Stream::from_tag(payload.get_u8()).ok_or(FrameError::Malformed)?;
            Said::Log(stream, payload)
        }
        Kind::Done => {
            let (ending, usage) = frame::decode_done(&payload)?;
            Said::Done(ending, usage)
        }
        Kind::Fetch => Said::Fetch(Box::new(frame::decode_fetch(payload)?)),
        Kind::FetchData => Said::FetchData(payload),
        Kind::FetchCredit => Said::FetchCredit(frame::decode_credit(&payload)?),
        Kind::FetchCancel if payload.is_empty() => Said::FetchCancel,
        Kind::FetchCancel => return Err(FrameError::Malformed.into()),
        other => return Err(Violation::Kind(other)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(bytes: &[u8]) -> Result<Vec<Incoming>, Violation> {
        let mut out = Vec::new();
        parse(&mut BytesMut::from(bytes), &mut out).map(|()| out)
    }

    #[test]
    fn frames_are_the_same_however_the_bytes_are_cut() {
        let mut bytes = Vec::new();
        frame::put_response(&mut bytes, false, 1, StatusCode::OK, &HeaderMap::new()).unwrap();
        frame::put(&mut bytes, Kind::Data, true, 1, &[7; 9000]).unwrap();
        frame::put_done(&mut bytes, 1, Ending::Answered, &Usage::default()).unwrap();
        for step in [1, 7, 13, 4096, bytes.len()] {
            let (mut buffer, mut out) = (BytesMut::new(), Vec::new());
            for chunk in bytes.chunks(step) {
                buffer.extend_from_slice(chunk);
                parse(&mut buffer, &mut out).unwrap();
            }
            assert!(buffer.is_empty());
            assert!(matches!(&out[0].said, Said::Response(StatusCode::OK, _)), "step {step}");
            assert!(matches!(&out[1].said, Said::Data(data) if data[..] == [7; 9000]), "step {step}");
            assert!(matches!(&out[2].said, Said::Done(Ending::Answered, _)), "step {step}");
        }
    }

    #[test]
    fn kinds_a_serving_cell_may_not_send_are_refused() {
        for kind in [
            Kind::Handover,
            Kind::Request,
            Kind::Cancel,
            Kind::Ready,
            Kind::Loaded,
            Kind::Failed,
            Kind::FetchHead,
            Kind::FetchFailed,
        ] {
            let mut bytes = Vec::new();
            frame::put(&mut bytes, kind, false, 1, &[]).unwrap();
            assert_eq!(frames(&bytes).unwrap_err(), Violation::Kind(kind));
        }
    }

    #[test]
    fn a_length_over_the_cap_is_refused_from_its_header_alone() {
        let mut bytes = vec![0, 255, 255, 255, Kind::Data as u8, 0, 0, 0, 0, 0, 0, 1];
        assert_eq!(frames(&bytes).unwrap_err(), Violation::Frame(FrameError::Oversized));
        bytes[4] = 250;
        assert!(frames(&bytes).is_err());
    }

    #[test]
    fn a_log_without_a_known_stream_is_refused() {
        for payload in [&[][..], &[0], &[3, b'x']] {
            let mut bytes = Vec::new();
            frame::put(&mut bytes, Kind::Log, false, 1, payload).unwrap();
            assert_eq!(frames(&bytes).unwrap_err(), Violation::Frame(FrameError::Malformed));
        }
    }
}
