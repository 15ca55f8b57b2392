//! What goes in and what comes out, as bytes.
//!
//! Owns the framing. In: u64 big-endian length, then the component, then nothing. Out: one byte (0 compiled, 1
//! refused, 2 the compiler itself failed), u32 big-endian length of a JSON header, the header, and after a 0 the
//! machine code until the end. Must never take memory for a length before comparing it with its cap.

use std::io::Read;

use cofferdam_model::{Isolation, Limits};
use serde::Serialize;

use crate::compile::{Compiled, Facts};
use crate::refusal::Refusal;

/// The header beside machine code.
#[derive(Serialize)]
struct Accepted<'a> {
    isolation: Isolation,
    artifact_bytes: usize,
    #[serde(flatten)]
    facts: &'a Facts,
}

/// The header of everything else.
#[derive(Serialize)]
struct Refused<'a> {
    code: &'a str,
    message: &'a str,
}

/// Reads the one component.
pub(crate) fn component(input: &mut impl Read) -> Result<Vec<u8>, Refusal> {
    let cap = Limits::default().component_bytes;
    let mut length = [0; 8];
    input.read_exact(&mut length).map_err(|_| Refusal::Length)?;
    let length = u64::from_be_bytes(length);
    if length > cap {
        return Err(Refusal::TooLarge(length, cap));
    }
    let mut component = Vec::with_capacity(usize::try_from(length).map_err(|_| Refusal::TooLarge(length, cap))?);
    // One byte more than announced, so that what follows is seen rather than left.
    let got = input.take(length + 1).read_to_end(&mut component).map_err(|_| Refusal::Length)?;
    if u64::try_from(got) == Ok(length) { Ok(component) } else { Err(Refusal::Length) }
}

/// The reply to a component.
pub(crate) fn reply(result: Result<Compiled, Refusal>, isolation: Isolation) -> Vec<u8> {
    match result {
        Ok(compiled) => {
            let header = Accepted { isolation, artifact_bytes: compiled.artifact.len(), facts: &compiled.facts };
            frame(0, serde_json::to_vec(&header), &compiled.artifact)
        }
        Err(refusal) => refused(1, refusal.code(), &refusal.message()),
    }
}

/// The reply of a compiler that could not even begin.
pub(crate) fn broken(message: &str) -> Vec<u8> {
    refused(2, "compiler_failed", message)
}

fn refused(status: u8, code: &str, message: &str) -> Vec<u8> {
    frame(status, serde_json::to_vec(&Refused { code, message }), &[])
}

fn frame(status: u8, header: serde_json::Result<Vec<u8>>, artifact: &[u8]) -> Vec<u8> {
    let (status, header, artifact) = match header {
        Ok(header) => (status, header, artifact),
        Err(_) => (2, br#"{"code":"compiler_failed","message":"cannot write the header"}"#.to_vec(), [].as_slice()),
    };
    let mut out = Vec::with_capacity(5 + header.len() + artifact.len());
    out.push(status);
    // Names are bounded by the component's own size, which fits by far.
    out.extend_from_slice(&u32::try_from(header.len()).unwrap_or(u32::MAX).to_be_bytes());
    out.extend_from_slice(&header);
    out.extend_from_slice(artifact);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framed(length: u64, bytes: &[u8]) -> Vec<u8> {
        [length.to_be_bytes().as_slice(), bytes].concat()
    }

    #[test]
    fn an_announced_length_over_the_cap_is_refused_unread() {
        let cap = Limits::default().component_bytes;
        assert_eq!(component(&mut framed(cap + 1, b"").as_slice()), Err(Refusal::TooLarge(cap + 1, cap)));
        assert_eq!(component(&mut framed(u64::MAX, b"").as_slice()), Err(Refusal::TooLarge(u64::MAX, cap)));
    }

    #[test]
    fn a_component_shorter_or_longer_than_announced_is_refused() {
        assert_eq!(component(&mut framed(3, b"abc").as_slice()), Ok(b"abc".to_vec()));
        assert_eq!(component(&mut framed(4, b"abc").as_slice()), Err(Refusal::Length));
        assert_eq!(component(&mut framed(2, b"abc").as_slice()), Err(Refusal::Length));
        assert_eq!(component(&mut b"abc".as_slice()), Err(Refusal::Length));
    }

    #[test]
    fn a_refusal_is_a_status_and_json() {
        let reply = reply(Err(Refusal::NotWasm), Isolation::Full);
        assert_eq!(reply.first(), Some(&1));
        let header: serde_json::Value = serde_json::from_slice(&reply[5..]).unwrap();
        assert_eq!(header["code"], "component_not_wasm");
    }
}
