//! The cryptography of every layer: one message under one key, used once.
//!
//! Owns derivation (key, nonce and commitment of a message), sealing and opening. Must never use a derived key twice:
//! 256 random bits of salt, or of the key itself, stand behind each.

use aes_gcm::aead::{AeadInOut, KeyInit};
use aes_gcm::{Aes256Gcm, Nonce};
use aws_lc_rs::{constant_time, hkdf};
use cofferdam_model::Random;
use zeroize::Zeroizing;

use crate::error::VaultError;
use crate::keyfile::{KEY_BYTES, KeyBytes};

/// Length of the GCM tag.
pub(crate) const TAG_BYTES: usize = 16;
/// Length of a key that is sealed.
pub(crate) const WRAPPED_BYTES: usize = KEY_BYTES + TAG_BYTES;
const NONCE_BYTES: usize = 12;

/// Under which labels a format derives.
pub(super) struct Labels {
    key: &'static [u8],
    commit: &'static [u8],
    /// Format 1 has a nonce of zeros, which is sound because its key is not used again.
    nonce: Option<&'static [u8]>,
}

/// Of format 1.
pub(super) const V1: Labels =
    Labels { key: b"cofferdam/sealed-value/v1/key", commit: b"cofferdam/sealed-value/v1/commit", nonce: None };
/// Of format 2.
pub(super) const V2: Labels = Labels {
    key: b"cofferdam/sealed-value/v2/key",
    commit: b"cofferdam/sealed-value/v2/commit",
    nonce: Some(b"cofferdam/sealed-value/v2/nonce"),
};
/// Label under which a key's public id is derived.
const ID_LABEL: &[u8] = b"cofferdam/key-id/v2";

/// One message, sealed.
pub(super) struct Message {
    pub(super) salt: [u8; 32],
    pub(super) commitment: [u8; 32],
    pub(super) ciphertext: Vec<u8>,
}

/// What one message is sealed with.
pub(super) struct Derived {
    pub(super) key: KeyBytes,
    pub(super) nonce: [u8; NONCE_BYTES],
    pub(super) commitment: [u8; 32],
}

struct Length(usize);

impl hkdf::KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

fn fill(prk: &hkdf::Prk, label: &[u8], out: &mut [u8]) -> Result<(), VaultError> {
    let labels = [label];
    prk.expand(&labels, Length(out.len())).and_then(|okm| okm.fill(out)).map_err(|_| VaultError::Crypto)
}

/// Key, nonce and commitment of one message.
pub(super) fn derive(labels: &Labels, key: &[u8; KEY_BYTES], salt: &[u8; 32]) -> Result<Derived, VaultError> {
    let prk = hkdf::Salt::new(hkdf::HKDF_SHA256, salt).extract(key.as_slice());
    let mut derived = Derived { key: Zeroizing::new([0; KEY_BYTES]), nonce: [0; NONCE_BYTES], commitment: [0; 32] };
    fill(&prk, labels.key, derived.key.as_mut_slice())?;
    fill(&prk, labels.commit, &mut derived.commitment)?;
    if let Some(label) = labels.nonce {
        fill(&prk, label, &mut derived.nonce)?;
    }
    Ok(derived)
}

/// What a key is known by. Says nothing of the key, and commits to it.
pub(crate) fn key_id(key: &[u8; KEY_BYTES]) -> Result<[u8; 32], VaultError> {
    let prk = hkdf::Salt::new(hkdf::HKDF_SHA256, &[]).extract(key.as_slice());
    let mut id = [0; 32];
    fill(&prk, ID_LABEL, &mut id)?;
    Ok(id)
}

/// Whether two public values are one, told in the same time wherever they differ.
pub(super) fn same(one: &[u8], other: &[u8]) -> bool {
    constant_time::verify_slices_are_equal(one, other).is_ok()
}

fn cipher(key: &KeyBytes) -> Result<Aes256Gcm, VaultError> {
    Aes256Gcm::new_from_slice(key.as_slice()).map_err(|_| VaultError::Crypto)
}

/// Fresh salt.
pub(super) fn salt(random: &dyn Random) -> [u8; 32] {
    let mut salt = [0; 32];
    random.fill(&mut salt);
    salt
}

/// Seals a message.
pub(super) fn seal(
    labels: &Labels,
    key: &[u8; KEY_BYTES],
    salt: [u8; 32],
    context: &[u8],
    plaintext: &[u8],
) -> Result<Message, VaultError> {
    let Derived { key, nonce, commitment } = derive(labels, key, &salt)?;
    // Room for the tag from the start: growing would leave a copy of the plaintext in freed memory.
    let mut buffer = Zeroizing::new(Vec::with_capacity(plaintext.len() + TAG_BYTES));
    buffer.extend_from_slice(plaintext);
    cipher(&key)?.encrypt_in_place(&Nonce::from(nonce), context, &mut *buffer).map_err(|_| VaultError::Crypto)?;
    Ok(Message { salt, commitment, ciphertext: std::mem::take(&mut *buffer) })
}

/// Opens a message: the commitment is compared before anything is decrypted.
pub(super) fn open(
    labels: &Labels,
    key: &[u8; KEY_BYTES],
    context: &[u8],
    (salt, commitment, ciphertext): (&[u8; 32], &[u8; 32], &[u8]),
) -> Result<Zeroizing<Vec<u8>>, VaultError> {
    let derived = derive(labels, key, salt)?;
    if !same(&derived.commitment, commitment) {
        return Err(VaultError::WrongKey);
    }
    let mut buffer = Zeroizing::new(ciphertext.to_vec());
    cipher(&derived.key)?
        .decrypt_in_place(&Nonce::from(derived.nonce), context, &mut *buffer)
        .map_err(|_| VaultError::Altered)?;
    Ok(buffer)
}

/// What was opened, as a key.
pub(super) fn as_key(opened: &[u8]) -> Result<KeyBytes, VaultError> {
    let mut key = Zeroizing::new([0u8; KEY_BYTES]);
    if opened.len() != KEY_BYTES {
        return Err(VaultError::Malformed);
    }
    key.copy_from_slice(opened);
    Ok(key)
}

/// Fields joined so that no two lists give the same bytes: each behind its length as four bytes, big-endian.
pub(super) fn context(fields: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::with_capacity(320);
    for field in fields {
        // Every field is an id, a name or a number, all far below 4 GiB.
        out.extend_from_slice(&u32::try_from(field.len()).unwrap_or(u32::MAX).to_be_bytes());
        out.extend_from_slice(field);
    }
    out
}
