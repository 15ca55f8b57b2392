//! From a credential to a principal.
//!
//! Owns the only ways to become a `Principal`: a token of a declared issuer, an API key, or explicitly nothing. Must
//! never believe a claim before the signature over it, and never fall back from one kind of credential to another.

pub mod api_key;
mod cache;
mod config;
pub(crate) mod json;
mod jwk;
mod jwks;
mod jwt;
mod principal;

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use cofferdam_model::{Clock, KeyId, TenantId};

pub use self::api_key::{ApiKeyRecord, Pepper, SecretText};
pub use self::config::{Algorithm, IssuerConfig};
pub use self::jwk::JWKS_BYTES;
pub use self::principal::Principal;

use self::cache::Cache;
use self::jwt::Issuer;
use crate::error::{FetchError, IdentityError, IssuerError, Refusal};

/// Bytes of a credential that are looked at; the node's `Limits::credential_bytes` may be lower.
const CREDENTIAL_BYTES: usize = 8 * 1024;

/// What a caller showed.
#[derive(Clone, Copy)]
pub enum Credential<'a> {
    /// Nothing.
    None,
    /// A bearer token.
    Bearer(&'a str),
    /// An API key.
    ApiKey(&'a str),
}

/// What exists, as far as identities need to know. Asked anew for every call, so a change counts at once.
pub trait Directory: Send + Sync {
    /// The tenant of that name.
    fn tenant_named(&self, name: &str) -> Option<TenantId>;
    /// Whether it exists and is not suspended.
    fn tenant_active(&self, tenant: &TenantId) -> bool;
    /// Roles given to a subject in a tenant.
    fn member_roles(&self, tenant: &TenantId, issuer: &str, subject: &str) -> Vec<String>;
    /// What is stored of an API key.
    fn api_key(&self, key: &KeyId) -> Option<Arc<ApiKeyRecord>>;
}

/// Where key sets come from over the network. Must bound the time it takes and read at most `JWKS_BYTES`.
pub trait JwksSource: Send + Sync {
    /// The bytes at `url`.
    fn fetch<'a>(&'a self, url: &'a str) -> Pin<Box<dyn Future<Output = Result<Vec<u8>, FetchError>> + Send + 'a>>;
}

/// Everybody who can be known here.
pub struct Identities {
    issuers: HashMap<Arc<str>, Issuer>,
    verified: Cache,
    pepper: Pepper,
    clock: Arc<dyn Clock>,
}

impl Identities {
    /// Checks the declarations and reads key files. Key sets behind URLs are fetched when first needed.
    pub fn new(
        declared: Vec<IssuerConfig>,
        pepper: Pepper,
        source: Arc<dyn JwksSource>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, IssuerError> {
        let mut issuers = HashMap::new();
        for config in declared {
            let issuer = Issuer::declare(config, &source, &clock)?;
            let name = issuer.name().clone();
            if issuers.insert(name.clone(), issuer).is_some() {
                return Err(IssuerError::Duplicate(name.to_string()));
            }
        }
        Ok(Self { issuers, verified: Cache::default(), pepper, clock })
    }

    /// Who shows this credential. Nothing shown is the anonymous principal; something bad is never that.
    pub async fn identify(
        &self,
        credential: Credential<'_>,
        directory: &dyn Directory,
    ) -> Result<Principal, IdentityError> {
        match credential {
            Credential::None => Ok(Principal::anonymous()),
            Credential::Bearer(token) | Credential::ApiKey(token) if token.len() > CREDENTIAL_BYTES => {
                Err(Refusal::TooLong.into())
            }
            Credential::ApiKey(text) => Ok(api_key::identify(text, &self.pepper, directory, self.clock.now())?),
            Credential::Bearer(token) => {
                jwt::identify(token, &self.issuers, &self.verified, directory, self.clock.as_ref()).await
            }
        }
    }
}
