//! What a blank cell is told when it becomes the cell of one function version.
//!
//! Sent once, as the payload of a `Handover` frame, with the artifact's descriptor beside it (SCM_RIGHTS). Holds
//! plaintext environment, so the bytes are wiped on both sides. Must never be logged.
//!
//! Layout, all integers big-endian: u64 memory_bytes, u64 cpu_ms, u64 wall_ms, u32 concurrency, u64 request_bytes,
//! u64 response_bytes, u32 response_header_bytes, u64 log_bytes, u32 egress_calls, u64 artifact_bytes, u16 number of
//! environment entries, then per entry u16 length + name, u16 length + value.

use zeroize::{Zeroize, Zeroizing};

use crate::frame::FrameError;
use crate::limits::FunctionLimits;
use crate::secret::Env;

/// A cell's assignment.
pub struct Handover {
    /// What each call may use.
    pub limits: FunctionLimits,
    /// Length of the artifact behind the descriptor.
    pub artifact_bytes: u64,
    /// The environment the guest sees.
    pub env: Env,
}

impl Handover {
    /// Encodes; fails where an entry is longer than 65,535 bytes.
    pub fn encode(&self) -> Result<Zeroizing<Vec<u8>>, FrameError> {
        let mut out = Zeroizing::new(Vec::with_capacity(1024));
        let limits = &self.limits;
        for number in [limits.memory_bytes, limits.cpu_ms, limits.wall_ms] {
            out.extend_from_slice(&number.to_be_bytes());
        }
        out.extend_from_slice(&limits.concurrency.to_be_bytes());
        out.extend_from_slice(&limits.request_bytes.to_be_bytes());
        out.extend_from_slice(&limits.response_bytes.to_be_bytes());
        out.extend_from_slice(&limits.response_header_bytes.to_be_bytes());
        out.extend_from_slice(&limits.log_bytes.to_be_bytes());
        out.extend_from_slice(&limits.egress_calls.to_be_bytes());
        out.extend_from_slice(&self.artifact_bytes.to_be_bytes());
        let count = u16::try_from(self.env.len()).map_err(|_| FrameError::Oversized)?;
        out.extend_from_slice(&count.to_be_bytes());
        for text in self.env.expose().flat_map(|(name, value)| [name, value]) {
            let length = u16::try_from(text.len()).map_err(|_| FrameError::Oversized)?;
            out.extend_from_slice(&length.to_be_bytes());
            out.extend_from_slice(text.as_bytes());
        }
        Ok(out)
    }

    /// Decodes, refusing anything short, long or not UTF-8.
    pub fn decode(payload: &[u8]) -> Result<Self, FrameError> {
        let mut rest = payload;
        let limits = FunctionLimits {
            memory_bytes: u64::from_be_bytes(take(&mut rest)?),
            cpu_ms: u64::from_be_bytes(take(&mut rest)?),
            wall_ms: u64::from_be_bytes(take(&mut rest)?),
            concurrency: u32::from_be_bytes(take(&mut rest)?),
            request_bytes: u64::from_be_bytes(take(&mut rest)?),
            response_bytes: u64::from_be_bytes(take(&mut rest)?),
            response_header_bytes: u32::from_be_bytes(take(&mut rest)?),
            log_bytes: u64::from_be_bytes(take(&mut rest)?),
            egress_calls: u32::from_be_bytes(take(&mut rest)?),
            cells: 1,
            ..FunctionLimits::default()
        };
        let artifact_bytes = u64::from_be_bytes(take(&mut rest)?);
        let count = u16::from_be_bytes(take(&mut rest)?);
        let mut env = Env::new();
        for _ in 0..count {
            let mut name = text(&mut rest)?;
            match text(&mut rest) {
                Ok(value) => env.push(name, value),
                Err(error) => {
                    name.zeroize();
                    return Err(error);
                }
            }
        }
        if rest.is_empty() { Ok(Self { limits, artifact_bytes, env }) } else { Err(FrameError::Malformed) }
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], FrameError> {
    let (head, tail) = rest.split_first_chunk::<N>().ok_or(FrameError::Malformed)?;
    *rest = tail;
    Ok(*head)
}

fn text(rest: &mut &[u8]) -> Result<String, FrameError> {
    let length = usize::from(u16::from_be_bytes(take(rest)?));
    let (head, tail) = rest.split_at_checked(length).ok_or(FrameError::Malformed)?;
    *rest = tail;
    std::str::from_utf8(head).map(str::to_owned).map_err(|_| FrameError::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handover_round_trips_and_refuses_every_truncation() {
        let mut env = Env::new();
        env.push("TOKEN".into(), "s3cret".into());
        let sent = Handover { limits: FunctionLimits { cells: 1, ..Default::default() }, artifact_bytes: 9, env };
        let bytes = sent.encode().unwrap_or_default();
        let Ok(got) = Handover::decode(&bytes) else { unreachable!("own encoding") };
        assert_eq!(got.limits, sent.limits);
        assert_eq!(got.env.expose().collect::<Vec<_>>(), [("TOKEN", "s3cret")]);
        for cut in 0..bytes.len() {
            assert!(Handover::decode(bytes.get(..cut).unwrap_or_default()).is_err(), "cut at {cut}");
        }
    }
}
