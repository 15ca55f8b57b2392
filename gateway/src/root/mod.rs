//! Root keys that are kept elsewhere: HashiCorp Vault's transit engine and AWS KMS.
//!
//! Owns how they are asked over HTTPS, and what their refusals mean. Must never send a value, only tenant keys to be
//! wrapped, and never keep what came back.

#[cfg(feature = "aws-kms")]
mod aws;
mod config;
mod courier;
#[cfg(feature = "aws-kms")]
mod metadata;
#[cfg(feature = "vault-transit")]
mod transit;

#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;

use cofferdam_control::vault::{KeyMemory, LocalRoot, RootError, RootKey};
use cofferdam_model::{Clock, Random};

use crate::error::GatewayError;

pub use config::{AwsKms, CredentialsFrom, FileRoot, Provider, RootKeyConfig, SystemdRoot, Transit};

/// What root keys are made with.
#[derive(Clone)]
pub struct Parts {
    /// Memory for keys of this host.
    pub memory: Arc<dyn KeyMemory>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub random: Arc<dyn Random>,
}

/// Opens one root key. Where it is elsewhere, it is not asked for anything yet.
pub fn open(provider: &Provider, data: &Path, parts: &Parts) -> Result<Arc<dyn RootKey>, GatewayError> {
    let local = |source| GatewayError::RootKey { source: Box::new(source) };
    let (memory, random) = (parts.memory.clone(), parts.random.clone());
    Ok(match provider {
        Provider::File(file) => {
            let path = file.path.clone().unwrap_or_else(|| data.join("root.key"));
            Arc::new(LocalRoot::file(&path, memory, random).map_err(local)?)
        }
        Provider::Systemd(given) => {
            let dir = given.directory.clone().or_else(|| std::env::var_os("CREDENTIALS_DIRECTORY").map(Into::into));
            let dir = dir.ok_or(GatewayError::NoCredentials)?;
            let names: Vec<String> = std::iter::once(&given.credential).chain(&given.before).cloned().collect();
            Arc::new(LocalRoot::credential(&dir, &names, memory, random).map_err(local)?)
        }
        #[cfg(feature = "vault-transit")]
        Provider::Vault(transit) => Arc::new(transit::TransitRoot::new(transit.clone())?),
        #[cfg(feature = "aws-kms")]
        Provider::AwsKms(aws) => Arc::new(aws::KmsRoot::new(aws.clone(), parts.clock.clone())?),
        #[cfg(not(feature = "vault-transit"))]
        Provider::Vault(_) => return Err(GatewayError::NotBuilt { what: "vault-transit" }),
        #[cfg(not(feature = "aws-kms"))]
        Provider::AwsKms(_) => return Err(GatewayError::NotBuilt { what: "aws-kms" }),
    })
}

/// A credential's file, read anew each time: whoever keeps it up to date replaces it.
#[cfg(any(feature = "aws-kms", feature = "vault-transit"))]
fn credential(path: &Path) -> Result<zeroize::Zeroizing<String>, RootError> {
    crate::credentials::read(path).map_err(RootError::Refused)
}
