//! The file of compiled code: its format, the MAC that binds it to what it was made of, and the sealed copy cells map.
//!
//! Owns both directions. Whatever a cell is given was verified here first and cannot change afterwards, not even by
//! the service itself. Must never hand out a byte of a file whose MAC does not fit.
//!
//! Layout: magic, HMAC-SHA-256 over everything after it, u32 length and JSON of the header, zeroes up to a multiple
//! of 4096, machine code.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac;
use cofferdam_model::Digest;
use rustix::fs::{MemfdFlags, Mode, OFlags, SealFlags};
use serde::{Deserialize, Serialize};

use crate::error::SandboxError;

const MAGIC: &[u8; 8] = b"COFART1\0";
const MAC_BYTES: usize = 32;
const FIXED_BYTES: usize = 8 + MAC_BYTES + 4;
const PAGE_BYTES: usize = 4096;
/// Most bytes of the header's JSON.
const HEADER_BYTES: usize = 64 * 1024;
const CHUNK_BYTES: usize = 1024 * 1024;

/// What an artifact was made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Header {
    /// SHA-256 of the component.
    pub(crate) component: Digest,
    /// What decided the machine code: see `library::build`.
    pub(crate) build: Digest,
    /// Which engines may load it.
    pub(crate) engine: Digest,
    /// Version of the compiler.
    pub(crate) compiler: String,
    /// Interfaces the component imports.
    pub(crate) imports: Vec<String>,
}

/// The pieces of an artifact file, to be written one after the other.
pub(crate) struct Framed {
    front: Vec<u8>,
    header: Vec<u8>,
}

impl Framed {
    /// Frames code.
    pub(crate) fn new(key: &hmac::Key, header: &Header, code: &[u8]) -> Result<Self, SandboxError> {
        let json = serde_json::to_vec(header).unwrap_or_default();
        let length = u32::try_from(json.len()).ok().filter(|_| !json.is_empty() && json.len() <= HEADER_BYTES);
        let Some(length) = length else {
            return Err(SandboxError::Refused {
                code: "component_too_complex".into(),
                reason: "it imports too many interfaces".into(),
            });
        };
        let mut rest = length.to_be_bytes().to_vec();
        rest.extend_from_slice(&json);
        rest.resize(code_offset(json.len()).saturating_sub(MAGIC.len() + MAC_BYTES), 0);
        let mut mac = hmac::Context::with_key(key);
        mac.update(&rest);
        mac.update(code);
        let mut front = MAGIC.to_vec();
        front.extend_from_slice(mac.sign().as_ref());
        Ok(Self { front, header: rest })
    }

    /// The whole file.
    pub(crate) fn parts<'a>(&'a self, code: &'a [u8]) -> [&'a [u8]; 3] {
        [&self.front, &self.header, code]
    }
}

fn code_offset(json_bytes: usize) -> usize {
    FIXED_BYTES.saturating_add(json_bytes).next_multiple_of(PAGE_BYTES)
}

/// A verified artifact in memory that nobody can change any more.
#[derive(Debug)]
pub(crate) struct Sealed {
    memory: OwnedFd,
    /// Its length.
    pub(crate) bytes: u64,
    /// What it was made of.
    pub(crate) header: Header,
}

impl Sealed {
    /// Copies a file into sealed memory and verifies the copy. `most` bounds its size.
    pub(crate) fn load(path: &Path, key: &hmac::Key, most: u64) -> Result<Self, SandboxError> {
        let read = SandboxError::file("read", path);
        let file = File::open(path).map_err(SandboxError::file("read", path))?;
        let bytes = file.metadata().map_err(SandboxError::file("read", path))?.len();
        let tampered = |what| SandboxError::Tampered { path: path.to_owned(), what };
        let limit = most.saturating_add(u64::try_from(code_offset(HEADER_BYTES)).unwrap_or(u64::MAX));
        if bytes > limit {
            return Err(tampered("longer than any artifact"));
        }
        let mut memory = File::from(anonymous().map_err(SandboxError::file("make memory for", path))?);
        let copied = copy(file, &mut memory, key, bytes).map_err(read)?;
        let header = verify(&copied, bytes).map_err(tampered)?;
        let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
        rustix::fs::fcntl_add_seals(&memory, seals)
            .map_err(|error| SandboxError::file("seal the memory of", path)(error.into()))?;
        Ok(Self { memory: memory.into(), bytes, header })
    }

    /// A read-only descriptor of its own: cells share neither an offset nor any other state of it.
    pub(crate) fn reader(&self) -> Result<OwnedFd, SandboxError> {
        let path = format!("/proc/self/fd/{}", self.memory.as_fd().as_raw_fd());
        rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|error| SandboxError::file("open", path)(error.into()))
    }
}

struct Copied {
    mac: hmac::Tag,
    front: Vec<u8>,
    copied: u64,
}

/// Copies at most `bytes` bytes, taking the MAC of those after the place for it, and keeps the front to be looked at.
fn copy(mut from: impl Read, to: &mut impl Write, key: &hmac::Key, bytes: u64) -> io::Result<Copied> {
    let mut context = hmac::Context::with_key(key);
    let mut front = Vec::new();
    let most_front = u64::try_from(FIXED_BYTES.saturating_add(HEADER_BYTES)).unwrap_or(u64::MAX).min(bytes);
    from.by_ref().take(most_front).read_to_end(&mut front)?;
    to.write_all(&front)?;
    context.update(front.get(8 + MAC_BYTES..).unwrap_or_default());
    let mut copied = u64::try_from(front.len()).unwrap_or(u64::MAX);
    let mut rest = from.take(bytes.saturating_sub(copied));
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let read = rest.read(&mut chunk)?;
        let piece = chunk.get(..read).unwrap_or_default();
        if piece.is_empty() {
            return Ok(Copied { mac: context.sign(), front, copied });
        }
        context.update(piece);
        to.write_all(piece)?;
        copied = copied.saturating_add(u64::try_from(read).unwrap_or(u64::MAX));
    }
}

/// The header of an artifact of this length, or what is wrong with it.
fn verify(copied: &Copied, bytes: u64) -> Result<Header, &'static str> {
    if copied.copied != bytes {
        return Err("it changed while it was read");
    }
    let front = &copied.front;
    let (Some(magic), Some(claimed)) = (front.get(..8), front.get(8..8 + MAC_BYTES)) else {
        return Err("shorter than any artifact");
    };
    if magic != MAGIC || verify_slices_are_equal(claimed, copied.mac.as_ref()).is_err() {
        return Err("its MAC does not fit");
    }
    header(front, bytes).ok_or("its header is malformed")
}

/// What is wrong with bytes as an artifact bound by this key, if anything: what a node asks before a cell gets it.
pub fn artifact_flaw(artifact: &[u8], key: &[u8; 32]) -> Option<&'static str> {
    let bytes = u64::try_from(artifact.len()).unwrap_or(u64::MAX);
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    match copy(artifact, &mut io::sink(), &key, bytes) {
        Ok(copied) => verify(&copied, bytes).err(),
        Err(_) => Some("it cannot be read"),
    }
}

/// The header of an artifact whose MAC fits.
fn header(front: &[u8], bytes: u64) -> Option<Header> {
    let length = front.get(8 + MAC_BYTES..)?.first_chunk::<4>()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok().filter(|length| *length <= HEADER_BYTES)?;
    let json = front.get(FIXED_BYTES..FIXED_BYTES.checked_add(length)?)?;
    let has_code = u64::try_from(code_offset(length)).is_ok_and(|offset| offset < bytes);
    serde_json::from_slice(json).ok().filter(|_| has_code)
}

/// Memory with a descriptor, never executable as a program. Kernels before 6.3 do not know that last wish.
fn anonymous() -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    match rustix::fs::memfd_create("artifact", flags | MemfdFlags::NOEXEC_SEAL) {
        Err(rustix::io::Errno::INVAL) => Ok(rustix::fs::memfd_create("artifact", flags)?),
        made => Ok(made?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, &[7; 32])
    }

    fn header_of(component: u8) -> Header {
        Header {
            component: Digest([component; 32]),
            build: Digest([2; 32]),
            engine: Digest([3; 32]),
            compiler: "0.1.0".into(),
            imports: vec!["wasi:clocks/wall-clock@0.2.0".into()],
        }
    }

    fn file(code: &[u8]) -> Vec<u8> {
        Framed::new(&key(), &header_of(1), code).unwrap().parts(code).concat()
    }

    fn load(bytes: &[u8], key: &hmac::Key) -> Result<Sealed, SandboxError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        Sealed::load(file.path(), key, 1 << 20)
    }

    #[test]
    fn artifact_round_trips_with_its_code_at_a_page() {
        let bytes = file(b"code");
        let sealed = load(&bytes, &key()).unwrap();
        assert_eq!(sealed.header, header_of(1));
        assert_eq!(sealed.bytes, 4096 + 4);
        let mut read = Vec::new();
        File::from(sealed.reader().unwrap()).read_to_end(&mut read).unwrap();
        assert_eq!(read, bytes);
        assert_eq!(&read[4096..], b"code");
    }

    #[test]
    fn an_artifact_with_any_byte_flipped_is_refused() {
        let bytes = file(&[9; 5000]);
        let spots = (0..400).chain((400..bytes.len()).step_by(97)).chain([bytes.len() - 1]);
        for spot in spots {
            let mut bent = bytes.clone();
            bent[spot] ^= 1;
            assert!(matches!(load(&bent, &key()), Err(SandboxError::Tampered { .. })), "byte {spot}");
        }
        for cut in [0, 7, 8, 39, 40, 44, 100, 4096, 4097, bytes.len() - 1] {
            assert!(load(&bytes[..cut], &key()).is_err(), "cut at {cut}");
        }
        assert!(load(&[bytes.as_slice(), b"x"].concat(), &key()).is_err(), "a byte more");
    }

    #[test]
    fn an_artifact_bound_with_another_key_is_refused() {
        let other = hmac::Key::new(hmac::HMAC_SHA256, &[8; 32]);
        assert!(matches!(load(&file(b"code"), &other), Err(SandboxError::Tampered { .. })));
    }

    #[test]
    fn an_artifact_whose_header_says_something_else_is_refused() {
        let honest = file(b"code");
        let text = |header: &Header| serde_json::to_string(header).unwrap();
        let was = text(&header_of(1));
        for (what, other) in [
            ("component", Header { component: Digest([9; 32]), ..header_of(1) }),
            ("compiler and processor", Header { build: Digest([9; 32]), ..header_of(1) }),
            ("engine", Header { engine: Digest([9; 32]), ..header_of(1) }),
            ("version", Header { compiler: "0.1.1".into(), ..header_of(1) }),
            ("imports", Header { imports: vec!["wasi:clocks/wall-clock@0.2.1".into()], ..header_of(1) }),
        ] {
            let told = text(&other);
            assert!(told.len() == was.len() && told != was, "{what}");
            let mut forged = honest.clone();
            forged[FIXED_BYTES..FIXED_BYTES + told.len()].copy_from_slice(told.as_bytes());
            assert!(matches!(load(&forged, &key()), Err(SandboxError::Tampered { .. })), "{what}");
        }
    }

    #[test]
    fn bytes_bent_at_random_and_bound_again_are_taken_or_refused() {
        let honest = file(&[7; 300]);
        let mut state = 2026_u64;
        for round in 0..400 {
            let mut bent = honest[8 + MAC_BYTES..].to_vec();
            for _ in 0..=round % 4 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let spot = usize::try_from(state >> 33).unwrap() % bent.len().min(400);
                bent[spot] = state.to_le_bytes()[3];
            }
            let cut = if round % 5 == 0 { usize::try_from(state >> 40).unwrap() % bent.len() } else { bent.len() };
            bent.truncate(cut);
            let tag = hmac::sign(&key(), &bent);
            let whole = [MAGIC.as_slice(), tag.as_ref(), &bent].concat();
            match load(&whole, &key()) {
                Ok(sealed) => assert!(sealed.bytes == u64::try_from(whole.len()).unwrap(), "round {round}"),
                Err(SandboxError::Tampered { .. }) => {}
                Err(other) => panic!("round {round}: {other}"),
            }
        }
    }

    #[test]
    fn an_artifact_with_a_good_mac_but_a_bad_header_is_refused() {
        let mut rest = vec![0, 0, 0, 2, b'{', b'}'];
        rest.resize(4096 - 40 + 1, 0);
        let tag = hmac::sign(&key(), &rest);
        let bytes = [MAGIC.as_slice(), tag.as_ref(), &rest].concat();
        assert!(matches!(load(&bytes, &key()), Err(SandboxError::Tampered { what: "its header is malformed", .. })));
    }

    #[test]
    fn what_a_cell_maps_cannot_be_changed_any_more() {
        let sealed = load(&file(b"code"), &key()).unwrap();
        let mut ours = File::from(sealed.memory.try_clone().unwrap());
        assert!(ours.write_all(b"x").is_err());
        assert!(ours.set_len(1).is_err());
        assert!(File::from(sealed.reader().unwrap()).write_all(b"x").is_err());
    }

    #[test]
    fn a_file_over_the_bound_is_not_read() {
        assert!(load(&file(&vec![0; 2 << 20]), &key()).is_err());
    }
}
