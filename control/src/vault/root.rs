//! The root key, wherever it is: what a provider of it has to do.
//!
//! Owns the trait and the context keys are bound to. Must never speak to a network: a provider that does is given by
//! the composition root.

use aws_lc_rs::digest;
use cofferdam_model::TenantId;

use super::crypto;
use crate::keyfile::KeyBytes;

/// What the root key of format 1 is known by, which did not say.
pub(crate) const FIRST_ROOT: &str = "local:v1";
/// First field of every tenant key's context.
const LABEL: &str = "cofferdam/tenant-key";

/// A key as a root key sealed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrapped {
    /// Name of that root key, with its provider and version: `local:…`, `vault:…`, `aws-kms:…`.
    pub root: String,
    /// The provider's ciphertext.
    pub bytes: Vec<u8>,
}

/// Which key is wrapped: authenticated with it, so that no tenant's key opens as another's.
#[derive(Debug, Clone, Copy)]
pub struct WrapContext<'a> {
    /// Whose key.
    pub tenant: &'a TenantId,
    /// Its number.
    pub version: u32,
    /// What it is known by.
    pub id: &'a [u8; 32],
}

impl WrapContext<'_> {
    /// As names and values, for providers that bind such.
    pub fn pairs(&self) -> [(&'static str, String); 4] {
        let id: String = self.id.iter().map(|byte| format!("{byte:02x}")).collect();
        [
            ("cofferdam", "tenant-key/2".to_owned()),
            ("key", id),
            ("tenant", self.tenant.as_str().to_owned()),
            ("version", self.version.to_string()),
        ]
    }

    /// As bytes, bound to a root key by name.
    pub fn bytes(&self, root: &str) -> Vec<u8> {
        crypto::context(&[
            LABEL.as_bytes(),
            &[2],
            self.tenant.as_str().as_bytes(),
            &self.version.to_be_bytes(),
            self.id,
            root.as_bytes(),
        ])
    }

    /// Digest of it without a root key's name, for providers that can bind nothing: it is wrapped beside the key.
    pub fn digest(&self) -> [u8; 32] {
        let mut out = [0; 32];
        out.copy_from_slice(digest::digest(&digest::SHA256, &self.bytes("")).as_ref());
        out
    }

    /// As format 1 had it.
    pub(super) fn first(&self) -> Vec<u8> {
        crypto::context(&[
            LABEL.as_bytes(),
            &[1],
            self.tenant.as_str().as_bytes(),
            &self.version.to_be_bytes(),
            &1u32.to_be_bytes(),
        ])
    }
}

/// Why a root key did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RootError {
    /// It cannot be reached, is sealed or has no time. It may come back.
    #[error("the root key cannot be reached: {0}")]
    Unavailable(String),
    /// It does not let us.
    #[error("the root key's provider refused: {0}")]
    Refused(String),
    /// What was wrapped is not of this key, or was altered, or is another tenant's.
    #[error("the root key does not open it: {0}")]
    WrongKey(String),
    /// What it answered makes no sense.
    #[error("the root key's provider answered nonsense: {0}")]
    Nonsense(String),
    /// It cannot do this by itself.
    #[error("{0}")]
    Unsupported(String),
}

/// A root key. Calls may block on a network, for a bounded time.
pub trait RootKey: Send + Sync {
    /// The provider and key in words, without a credential.
    fn describe(&self) -> String;
    /// Whether a root key of this name is one of its own.
    fn knows(&self, root: &str) -> bool;
    /// Whether a network is between, which takes its time; what is on this host answers at once.
    fn is_elsewhere(&self) -> bool {
        true
    }
    /// Whether it can be reached and used now.
    fn check(&self) -> Result<(), RootError>;
    /// Wraps a key with the root key of this moment.
    fn wrap(&self, context: &WrapContext<'_>, key: &KeyBytes) -> Result<Wrapped, RootError>;
    /// Opens a wrapped key.
    fn unwrap(&self, context: &WrapContext<'_>, wrapped: &Wrapped) -> Result<KeyBytes, RootError>;
    /// Wraps anew with the root key of this moment, without showing the key to this process where the provider can do
    /// that. None where it is wrapped so already.
    fn rewrap(&self, context: &WrapContext<'_>, wrapped: &Wrapped) -> Result<Option<Wrapped>, RootError>;
    /// Makes a new root key, with which is wrapped from now on; where a rotation is under way already, goes on with
    /// that. Does nothing where the provider has another way to a new one.
    fn begin_rotation(&self) -> Result<(), RootError>;
    /// Whether what this root key wrapped is under the root key of this moment.
    fn is_current(&self, root: &str) -> bool;
    /// Whether a rotation was begun and not ended.
    fn rotating(&self) -> bool;
    /// Lets go of the root keys before the newest, for which nothing has use any more.
    fn end_rotation(&self, destroy: bool) -> Result<(), RootError>;
}
