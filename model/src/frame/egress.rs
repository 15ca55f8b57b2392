//! Frames of a request that a guest makes to the outside, by way of the gateway.
//!
//! A cell opens one with `Fetch`, under a number of its own choosing that only ever rises, and names the call it makes
//! it for; `FetchData` up to the credit follows. The gateway answers `FetchHead` and `FetchData`, or `FetchFailed` at
//! any moment. `FetchCancel` tells the gateway that nobody waits any more. A fetch is over with the last `FetchData` of
//! the gateway, with either failure, and with the call it was made for; frames of it that are then still under way are
//! ignored. Each direction starts with [`FETCH_CREDIT`] bytes of credit; `FetchCredit` grants more.

use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};
use http::{HeaderMap, Method, StatusCode};

use super::{FrameError, Kind, put, put_headers, put_short, put_with, take_headers, take_short, utf8};
use crate::egress::EgressEnd;

/// Bytes of body each direction of a fetch may send before it is granted more.
pub const FETCH_CREDIT: u32 = 64 * 1024;

/// Head of a request to the outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchHead {
    /// The call it is made for.
    pub call: u32,
    /// Method.
    pub method: Method,
    /// Whether over TLS.
    pub tls: bool,
    /// Host and perhaps port.
    pub authority: String,
    /// Path and query.
    pub target: String,
    /// How long to wait for a connection, the head of the answer, and each next piece of its body.
    pub patience: [Option<Duration>; 3],
    /// Header fields.
    pub headers: HeaderMap,
}

/// Appends a `Fetch` frame.
pub fn put_fetch(out: &mut Vec<u8>, end: bool, fetch: u32, head: &FetchHead) -> Result<(), FrameError> {
    put_with(out, Kind::Fetch, end, fetch, |out| {
        out.put_u32(head.call);
        out.put_u8(head.tls.into());
        for wait in head.patience {
            // None is 0, and what is shorter than a millisecond is one.
            out.put_u32(wait.map_or(0, |wait| u32::try_from(wait.as_millis()).unwrap_or(u32::MAX).max(1)));
        }
        put_short(out, head.method.as_str().as_bytes())?;
        put_short(out, head.authority.as_bytes())?;
        put_short(out, head.target.as_bytes())?;
        put_headers(out, &head.headers)
    })
}

/// Reads the payload of a `Fetch` frame.
pub fn decode_fetch(mut payload: Bytes) -> Result<FetchHead, FrameError> {
    if payload.remaining() < 4 + 1 + 3 * 4 {
        return Err(FrameError::Malformed);
    }
    let call = payload.get_u32();
    let tls = match payload.get_u8() {
        0 => false,
        1 => true,
        _ => return Err(FrameError::Malformed),
    };
    let mut wait = || Some(payload.get_u32()).filter(|ms| *ms > 0).map(|ms| Duration::from_millis(ms.into()));
    let patience = [wait(), wait(), wait()];
    let method = Method::from_bytes(&take_short(&mut payload)?).map_err(|_| FrameError::Malformed)?;
    let authority = utf8(&take_short(&mut payload)?)?;
    let target = utf8(&take_short(&mut payload)?)?;
    let headers = take_headers(payload)?;
    Ok(FetchHead { call, method, tls, authority, target, patience, headers })
}

/// Appends a `FetchHead` frame.
pub fn put_fetch_head(
    out: &mut Vec<u8>,
    end: bool,
    fetch: u32,
    status: StatusCode,
    headers: &HeaderMap,
) -> Result<(), FrameError> {
    put_with(out, Kind::FetchHead, end, fetch, |out| {
        out.put_u16(status.as_u16());
        put_headers(out, headers)
    })
}

/// Appends a `FetchCredit` frame.
pub fn put_fetch_credit(out: &mut Vec<u8>, fetch: u32, bytes: u32) -> Result<(), FrameError> {
    put(out, Kind::FetchCredit, false, fetch, &bytes.to_be_bytes())
}

/// Appends a `FetchFailed` frame.
pub fn put_fetch_failed(out: &mut Vec<u8>, fetch: u32, ending: EgressEnd) -> Result<(), FrameError> {
    let code = EgressEnd::ALL.iter().position(|each| *each == ending).and_then(|code| u8::try_from(code).ok());
    put(out, Kind::FetchFailed, true, fetch, &[code.ok_or(FrameError::Malformed)?])
}

/// Reads the payload of a `FetchFailed` frame.
pub fn decode_fetch_failed(payload: &[u8]) -> Result<EgressEnd, FrameError> {
    match payload {
        [code] => EgressEnd::ALL.get(usize::from(*code)).copied().ok_or(FrameError::Malformed),
        _ => Err(FrameError::Malformed),
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::super::{HEADER_BYTES, Header, decode_response};
    use super::*;

    #[test]
    fn a_fetch_round_trips_and_refuses_every_truncation() {
        let mut headers = HeaderMap::new();
        headers.append("accept", HeaderValue::from_static("*/*"));
        let patience = [Some(Duration::from_millis(5)), None, Some(Duration::from_secs(9))];
        let (authority, target) = ("api.example.com:8443".to_owned(), "/x?y=1".to_owned());
        let head = FetchHead { call: 7, method: Method::PUT, tls: true, authority, target, patience, headers };
        let mut out = Vec::new();
        put_fetch(&mut out, true, 3, &head).unwrap();
        let header = Header::decode(out[..HEADER_BYTES].try_into().unwrap()).unwrap();
        assert_eq!((header.kind, header.end, header.call), (Kind::Fetch, true, 3));
        let payload = Bytes::copy_from_slice(&out[HEADER_BYTES..]);
        assert_eq!(decode_fetch(payload.clone()).unwrap(), head);
        for cut in 0..payload.len() {
            assert!(decode_fetch(payload.slice(..cut)).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn heads_and_failures_of_a_fetch_round_trip() {
        let mut out = Vec::new();
        put_fetch_head(&mut out, false, 3, StatusCode::FOUND, &HeaderMap::new()).unwrap();
        let head = decode_response(Bytes::copy_from_slice(&out[HEADER_BYTES..])).unwrap();
        assert_eq!(head, (StatusCode::FOUND, HeaderMap::new()));
        for ending in EgressEnd::ALL {
            let mut out = Vec::new();
            put_fetch_failed(&mut out, 3, *ending).unwrap();
            assert_eq!(decode_fetch_failed(&out[HEADER_BYTES..]), Ok(*ending));
        }
        assert_eq!(decode_fetch_failed(&[200]), Err(FrameError::Malformed));
    }
}
