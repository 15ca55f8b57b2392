//! The bytes sealed values and wrapped keys are stored as.
//!
//! Owns both formats of both. Must never guess: what is short, long or of another format is refused.

use cofferdam_model::{SealedValue, WrappedDataKey};

use super::crypto::{TAG_BYTES, WRAPPED_BYTES};
use super::root::{FIRST_ROOT, Wrapped};
use crate::error::VaultError;

/// The first format: values sealed with the tenant's key itself.
pub(super) const V1: u8 = 1;
/// The format everything is sealed in: a data key for each value.
pub(super) const V2: u8 = 2;
/// Bytes of a root key's name.
const ROOT_NAME_BYTES: usize = 512;

/// A tenant's key, sealed with the root key. Safe to store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrappedKey {
    /// Number of this key among the tenant's, from 1.
    pub version: u32,
    /// What the key is known by; none in format 1, which does not say.
    pub id: Option<[u8; 32]>,
    /// The key as the root key sealed it.
    pub wrapped: Wrapped,
}

impl WrappedKey {
    /// The key's name in answers and records.
    pub fn name(&self) -> String {
        let known = self.id.as_ref().map(|id| id.as_slice()).or_else(|| self.wrapped.bytes.get(5..13));
        let hex: String = known.unwrap_or_default().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        format!("{}-{hex}", self.version)
    }
}

/// A sealed value as bytes.
pub fn encode(sealed: &SealedValue) -> Vec<u8> {
    let mut out = Vec::with_capacity(256 + sealed.ciphertext.len());
    out.push(sealed.format);
    out.extend_from_slice(&sealed.key_version.to_be_bytes());
    if let Some(key) = &sealed.data_key {
        out.extend_from_slice(&key.salt);
        out.extend_from_slice(&key.commitment);
        out.extend_from_slice(&key.ciphertext);
    }
    out.extend_from_slice(&sealed.salt);
    out.extend_from_slice(&sealed.commitment);
    out.extend_from_slice(&sealed.ciphertext);
    out
}

/// Reads a sealed value from bytes.
pub fn decode(bytes: &[u8]) -> Result<SealedValue, VaultError> {
    let (format, rest) = bytes.split_first().ok_or(VaultError::Malformed)?;
    if ![V1, V2].contains(format) {
        return Err(VaultError::UnknownFormat(*format));
    }
    let (key_version, rest) = rest.split_first_chunk::<4>().ok_or(VaultError::Malformed)?;
    let (data_key, rest) = match *format {
        V1 => (None, rest),
        _ => {
            let (salt, rest) = rest.split_first_chunk::<32>().ok_or(VaultError::Malformed)?;
            let (commitment, rest) = rest.split_first_chunk::<32>().ok_or(VaultError::Malformed)?;
            let (key, rest) = rest.split_at_checked(WRAPPED_BYTES).ok_or(VaultError::Malformed)?;
            (Some(WrappedDataKey { salt: *salt, commitment: *commitment, ciphertext: key.to_vec() }), rest)
        }
    };
    let (salt, rest) = rest.split_first_chunk::<32>().ok_or(VaultError::Malformed)?;
    let (commitment, ciphertext) = rest.split_first_chunk::<32>().ok_or(VaultError::Malformed)?;
    if ciphertext.len() < TAG_BYTES {
        return Err(VaultError::Malformed);
    }
    Ok(SealedValue {
        format: *format,
        key_version: u32::from_be_bytes(*key_version),
        data_key,
        salt: *salt,
        commitment: *commitment,
        ciphertext: ciphertext.to_vec(),
    })
}

/// A tenant's key as bytes.
pub fn encode_key(key: &WrappedKey) -> Vec<u8> {
    let Some(id) = &key.id else { return key.wrapped.bytes.clone() };
    let root = key.wrapped.root.as_bytes();
    let mut out = Vec::with_capacity(64 + root.len() + key.wrapped.bytes.len());
    out.push(V2);
    // A root key's name is bounded where it is made and where it is read.
    out.extend_from_slice(&u16::try_from(root.len()).unwrap_or(u16::MAX).to_be_bytes());
    out.extend_from_slice(root);
    out.extend_from_slice(id);
    out.extend_from_slice(&key.wrapped.bytes);
    out
}

/// Reads a tenant's key from bytes.
pub fn decode_key(version: u32, bytes: &[u8]) -> Result<WrappedKey, VaultError> {
    let (format, rest) = bytes.split_first().ok_or(VaultError::Malformed)?;
    match *format {
        V1 => {
            let sealed = decode(bytes)?;
            if sealed.ciphertext.len() != WRAPPED_BYTES {
                return Err(VaultError::Malformed);
            }
            let wrapped = Wrapped { root: FIRST_ROOT.to_owned(), bytes: bytes.to_vec() };
            Ok(WrappedKey { version, id: None, wrapped })
        }
        V2 => {
            let (length, rest) = rest.split_first_chunk::<2>().ok_or(VaultError::Malformed)?;
            let length = usize::from(u16::from_be_bytes(*length));
            let (root, rest) = rest.split_at_checked(length).ok_or(VaultError::Malformed)?;
            let root = std::str::from_utf8(root).map_err(|_| VaultError::Malformed)?;
            let (id, bytes) = rest.split_first_chunk::<32>().ok_or(VaultError::Malformed)?;
            if root.is_empty() || root.len() > ROOT_NAME_BYTES || bytes.is_empty() {
                return Err(VaultError::Malformed);
            }
            let wrapped = Wrapped { root: root.to_owned(), bytes: bytes.to_vec() };
            Ok(WrappedKey { version, id: Some(*id), wrapped })
        }
        other => Err(VaultError::UnknownFormat(other)),
    }
}
