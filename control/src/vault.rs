//! Sealing: how a secret is turned into ciphertext that opens in one place only.
//!
//! Owns the envelope described in `docs/formats/sealed-value.md`: root key -> tenant key -> one key per message,
//! AES-256-GCM, context as authenticated data, and a commitment to the key. Must never keep plaintext longer than
//! a call, and never write any of it anywhere.

use std::path::Path;

use aes_gcm::aead::{AeadInOut, KeyInit};
use aes_gcm::{Aes256Gcm, Nonce};
use aws_lc_rs::{constant_time, hkdf};
use cofferdam_model::{FunctionId, Random, SealedValue, SecretValue, TenantId};
use zeroize::Zeroizing;

use crate::error::{ControlError, VaultError};
use crate::keyfile::{self, KEY_BYTES, KeyBytes};

/// The one envelope format so far.
const FORMAT: u8 = 1;
/// The root key's number, until there is a way to replace it.
const ROOT_VERSION: u32 = 1;
/// Length of the GCM tag.
pub(crate) const TAG_BYTES: usize = 16;
/// Bytes of an encoded envelope before the ciphertext.
const HEAD_BYTES: usize = 1 + 4 + 32 + 32;
/// Label under which a message's encryption key is derived.
const KEY_LABEL: &[u8] = b"cofferdam/sealed-value/v1/key";
/// Label under which the commitment is derived.
const COMMIT_LABEL: &[u8] = b"cofferdam/sealed-value/v1/commit";

/// A tenant's key, sealed with the root key. Safe to store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrappedKey {
    /// Number of this key among the tenant's, from 1.
    pub version: u32,
    /// The key, sealed.
    pub sealed: SealedValue,
}

/// The one place a sealed value may be opened for.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// What kind of value: a label of its own for each, such as [`Place::SECRET`].
    pub kind: &'static str,
    /// Whose.
    pub tenant: &'a TenantId,
    /// Id of what has it: a secret's function.
    pub owner: &'a str,
    /// Under which name.
    pub name: &'a str,
    /// How-manieth value of that name.
    pub version: u64,
}

impl<'a> Place<'a> {
    /// Label of secrets of functions.
    pub const SECRET: &'static str = "cofferdam/secret";

    /// The place of a function's secret.
    pub fn secret(tenant: &'a TenantId, function: &'a FunctionId, name: &'a str, version: u64) -> Self {
        Self { kind: Self::SECRET, tenant, owner: function.as_str(), name, version }
    }

    fn context(&self, key_version: u32) -> Vec<u8> {
        context(&[
            self.kind.as_bytes(),
            &[FORMAT],
            self.tenant.as_str().as_bytes(),
            self.owner.as_bytes(),
            self.name.as_bytes(),
            &self.version.to_be_bytes(),
            &key_version.to_be_bytes(),
        ])
    }
}

/// What seals and opens. Holds the root key.
pub struct Vault {
    root: KeyBytes,
}

impl Vault {
    /// Reads the root key from its file.
    pub fn load(path: &Path) -> Result<Self, ControlError> {
        Ok(Self { root: keyfile::load(path)? })
    }

    /// A vault on a root key had from elsewhere.
    pub fn new(root: Zeroizing<[u8; KEY_BYTES]>) -> Self {
        Self { root }
    }

    /// Makes a key for a tenant and wraps it.
    pub fn tenant_key(&self, tenant: &TenantId, version: u32, random: &dyn Random) -> Result<WrappedKey, VaultError> {
        let key = keyfile::fresh(random);
        let sealed = seal(&self.root, ROOT_VERSION, &wrap_context(tenant, version), key.as_slice(), random)?;
        Ok(WrappedKey { version, sealed })
    }

    /// Seals a secret for one place, with the newest of the tenant's keys.
    pub fn seal(
        &self,
        keys: &[WrappedKey],
        place: Place<'_>,
        value: &SecretValue,
        random: &dyn Random,
    ) -> Result<SealedValue, VaultError> {
        let newest = keys.iter().max_by_key(|key| key.version).ok_or(VaultError::UnknownKey(0))?;
        let key = self.unwrap(place.tenant, newest)?;
        seal(&key, newest.version, &place.context(newest.version), value.expose(), random)
    }

    /// Opens a secret, if it was sealed for this very place.
    pub fn open(
        &self,
        keys: &[WrappedKey],
        place: Place<'_>,
        sealed: &SealedValue,
    ) -> Result<Zeroizing<Vec<u8>>, VaultError> {
        let version = sealed.key_version;
        let wrapped = keys.iter().find(|key| key.version == version).ok_or(VaultError::UnknownKey(version))?;
        open(&self.unwrap(place.tenant, wrapped)?, &place.context(version), sealed)
    }

    fn unwrap(&self, tenant: &TenantId, wrapped: &WrappedKey) -> Result<KeyBytes, VaultError> {
        let opened = open(&self.root, &wrap_context(tenant, wrapped.version), &wrapped.sealed)?;
        let mut key = Zeroizing::new([0u8; KEY_BYTES]);
        if opened.len() != KEY_BYTES {
            return Err(VaultError::Malformed);
        }
        key.copy_from_slice(&opened);
        Ok(key)
    }
}

/// The envelope as bytes: format, key version (big-endian), salt, commitment, ciphertext with tag.
pub fn encode(sealed: &SealedValue) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEAD_BYTES + sealed.ciphertext.len());
    out.push(sealed.format);
    out.extend_from_slice(&sealed.key_version.to_be_bytes());
    out.extend_from_slice(&sealed.salt);
    out.extend_from_slice(&sealed.commitment);
    out.extend_from_slice(&sealed.ciphertext);
    out
}

/// Reads an envelope from bytes.
pub fn decode(bytes: &[u8]) -> Result<SealedValue, VaultError> {
    let (format, rest) = bytes.split_first().ok_or(VaultError::Malformed)?;
    if *format != FORMAT {
        return Err(VaultError::UnknownFormat(*format));
    }
    let (key_version, rest) = rest.split_first_chunk::<4>().ok_or(VaultError::Malformed)?;
    let (salt, rest) = rest.split_first_chunk::<32>().ok_or(VaultError::Malformed)?;
    let (commitment, ciphertext) = rest.split_first_chunk::<32>().ok_or(VaultError::Malformed)?;
    if ciphertext.len() < TAG_BYTES {
        return Err(VaultError::Malformed);
    }
    Ok(SealedValue {
        format: *format,
        key_version: u32::from_be_bytes(*key_version),
        salt: *salt,
        commitment: *commitment,
        ciphertext: ciphertext.to_vec(),
    })
}

fn wrap_context(tenant: &TenantId, version: u32) -> Vec<u8> {
    context(&[
        b"cofferdam/tenant-key",
        &[FORMAT],
        tenant.as_str().as_bytes(),
        &version.to_be_bytes(),
        &ROOT_VERSION.to_be_bytes(),
    ])
}

/// Fields joined so that no two lists give the same bytes: each behind its length as four bytes, big-endian.
fn context(fields: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    for field in fields {
        // Every field is an id, a name or a number, all far below 4 GiB.
        out.extend_from_slice(&u32::try_from(field.len()).unwrap_or(u32::MAX).to_be_bytes());
        out.extend_from_slice(field);
    }
    out
}

struct Length(usize);

impl hkdf::KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

/// The key of one message and the commitment to the key it was derived from.
fn derive(key: &KeyBytes, salt: &[u8; 32]) -> Result<(KeyBytes, [u8; 32]), VaultError> {
    let prk = hkdf::Salt::new(hkdf::HKDF_SHA256, salt).extract(key.as_slice());
    let fill = |label: &[u8], out: &mut [u8]| {
        let labels = [label];
        prk.expand(&labels, Length(KEY_BYTES)).and_then(|okm| okm.fill(out)).map_err(|_| VaultError::Crypto)
    };
    let mut message_key = Zeroizing::new([0u8; KEY_BYTES]);
    let mut commitment = [0u8; 32];
    fill(KEY_LABEL, message_key.as_mut_slice())?;
    fill(COMMIT_LABEL, &mut commitment)?;
    Ok((message_key, commitment))
}

fn cipher(key: &KeyBytes) -> Result<Aes256Gcm, VaultError> {
    Aes256Gcm::new_from_slice(key.as_slice()).map_err(|_| VaultError::Crypto)
}

fn seal(
    key: &KeyBytes,
    key_version: u32,
    context: &[u8],
    plaintext: &[u8],
    random: &dyn Random,
) -> Result<SealedValue, VaultError> {
    let mut salt = [0u8; 32];
    random.fill(&mut salt);
    let (message_key, commitment) = derive(key, &salt)?;
    // Room for the tag from the start: growing would leave a copy of the plaintext in freed memory.
    let mut buffer = Zeroizing::new(Vec::with_capacity(plaintext.len() + TAG_BYTES));
    buffer.extend_from_slice(plaintext);
    // The nonce is fixed because the key is not: 256 random bits of salt give every message a key of its own.
    cipher(&message_key)?.encrypt_in_place(&Nonce::default(), context, &mut *buffer).map_err(|_| VaultError::Crypto)?;
    Ok(SealedValue { format: FORMAT, key_version, salt, commitment, ciphertext: std::mem::take(&mut *buffer) })
}

fn open(key: &KeyBytes, context: &[u8], sealed: &SealedValue) -> Result<Zeroizing<Vec<u8>>, VaultError> {
    if sealed.format != FORMAT {
        return Err(VaultError::UnknownFormat(sealed.format));
    }
    let (message_key, commitment) = derive(key, &sealed.salt)?;
    constant_time::verify_slices_are_equal(&commitment, &sealed.commitment).map_err(|_| VaultError::WrongKey)?;
    let mut buffer = Zeroizing::new(sealed.ciphertext.clone());
    cipher(&message_key)?
        .decrypt_in_place(&Nonce::default(), context, &mut *buffer)
        .map_err(|_| VaultError::Altered)?;
    Ok(buffer)
}

#[cfg(test)]
mod tests;
