//! Secrets as types that cannot be printed, copied or serialized by accident, and are wiped when dropped.
//!
//! `SealedValue` is ciphertext and may be stored; `SecretValue` and `Env` are plaintext and may only be moved. The
//! plaintext types must never gain `Debug`, `Display`, `Clone`, `Serialize` or a `PartialEq` that is not constant time.

use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop};

/// One secret in plaintext. Wiped on drop.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct SecretValue(Vec<u8>);

impl SecretValue {
    /// Takes ownership of plaintext.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// The plaintext. Whoever calls this is responsible for where it goes.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

/// The key of one sealed value, sealed itself with a tenant's key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WrappedDataKey {
    /// Random per wrapping.
    pub salt: [u8; 32],
    /// Commits to the key it is sealed with.
    pub commitment: [u8; 32],
    /// Ciphertext and tag.
    pub ciphertext: Vec<u8>,
}

/// One secret as it is stored: AES-256-GCM ciphertext with tag, bound to its owner by authenticated data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedValue {
    /// Format of the envelope: 1, or 2 with a data key of its own.
    pub format: u8,
    /// Number of the tenant key that sealed it: the value in format 1, its data key in format 2.
    pub key_version: u32,
    /// The key the value is sealed with; none in format 1, which has none of its own.
    pub data_key: Option<WrappedDataKey>,
    /// Random per message; the value's key is derived from it, so nonces cannot repeat under one key.
    pub salt: [u8; 32],
    /// Commits to the key: AES-GCM alone is not key-committing.
    pub commitment: [u8; 32],
    /// Ciphertext and tag.
    pub ciphertext: Vec<u8>,
}

/// The environment of one function version as stored: plain entries, and secrets still sealed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedEnv {
    /// Entries that are no secret.
    pub plain: Vec<(String, String)>,
    /// Secrets by name.
    pub sealed: Vec<(String, SealedValue)>,
}

/// An environment in plaintext, on its way into the one cell that may read it. Wiped on drop.
#[derive(Default, Zeroize, ZeroizeOnDrop)]
pub struct Env(Vec<(String, String)>);

impl Env {
    /// An environment without entries.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one entry.
    pub fn push(&mut self, name: String, value: String) {
        self.0.push((name, value));
    }

    /// Names and values. Whoever calls this is responsible for where they go.
    pub fn expose(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no entries.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Whether a text may name an environment entry: 1 to 64 of `A-Z a-z 0-9 _`, not starting with a digit.
pub fn is_env_name(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && !text.starts_with(|c: char| c.is_ascii_digit())
}
