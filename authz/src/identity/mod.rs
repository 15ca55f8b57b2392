//! From a credential to a principal.
//!
//! Owns the only ways to become a `Principal`: a token of a declared issuer, a key that is shown or that signs the
//! request, a client certificate, or explicitly nothing. Must
//! never believe a claim before the signature over it, and never fall back from one kind of credential to another.

pub mod api_key;
mod cache;
mod checks;
mod claims;
mod config;
mod counts;
mod discovery;
pub(crate) mod json;
mod jwk;
mod jwks;
mod jwt;
mod kept;
pub mod mtls;
pub mod passphrase;
mod principal;
mod revoked;
pub mod sigv4;

use std::collections::HashMap;
use std::future::Future;
use std::net::IpAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use cofferdam_model::{Clock, KeyId, TenantId};

pub use self::api_key::{ApiKeyRecord, Pepper, SecretText};
pub use self::checks::checks;
pub use self::config::{Algorithm, IssuerConfig};
pub use self::counts::Gauges;
pub use self::jwk::JWKS_BYTES;
pub use self::mtls::{ClientAuthorities, PeerCertificate};
pub use self::passphrase::{Login, UserRecord};
pub use self::principal::{Principal, Supposed};
pub use self::revoked::{RevokedBy, Shown};
pub use self::sigv4::{AccessSecrets, Claim, Payload, Secret, SignedRequest, Sigv4Config};

use self::cache::Cache;
use self::counts::Counts;
use self::jwks::{Keys, Means, Standing};
use self::jwt::Issuer;
use self::passphrase::Door;
use self::sigv4::Sigv4;
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
    /// A passphrase, for the node's own issuer. Only where one logs in.
    Passphrase(Login<'a>),
}

/// What exists, as far as identities need to know. Asked anew for every call, so a change counts at once.
pub trait Directory: Send + Sync {
    /// The tenant of that name.
    fn tenant_named(&self, name: &str) -> Option<TenantId>;
    /// Whether it exists and is not suspended.
    fn tenant_active(&self, tenant: &TenantId) -> bool;
    /// Roles given to a subject in a tenant.
    fn member_roles(&self, tenant: &TenantId, issuer: &str, subject: &str) -> Vec<String>;
    /// What of a genuine credential was revoked, if anything was.
    fn revoked(&self, shown: &Shown<'_>) -> Option<RevokedBy>;
    /// What is stored of a user of the node's own issuer.
    fn user(&self, tenant: &TenantId, name: &str) -> Option<Arc<UserRecord>>;
    /// What is stored of an API key.
    fn api_key(&self, key: &KeyId) -> Option<Arc<ApiKeyRecord>>;
    /// The authorities that name machines of a tenant; none where it has none.
    fn client_authorities(&self, _tenant: &TenantId) -> Option<Arc<ClientAuthorities>> {
        None
    }
}

/// Where key sets come from over the network. Must bound the time it takes and read at most `JWKS_BYTES`.
pub trait JwksSource: Send + Sync {
    /// The bytes at `url`.
    fn fetch<'a>(&'a self, url: &'a str) -> Pin<Box<dyn Future<Output = Result<Vec<u8>, FetchError>> + Send + 'a>>;
}

/// How often it is looked whether keys should be asked for anew.
const RENEWAL: Duration = Duration::from_secs(5);

/// Everybody who can be known here.
pub struct Identities {
    issuers: HashMap<Arc<str>, Issuer>,
    verified: Cache,
    pepper: Pepper,
    sigv4: Option<Sigv4>,
    clock: Arc<dyn Clock>,
    counts: Arc<Counts>,
    door: Door,
}

/// Keeps the keys of issuers fresh, apart from any call.
pub struct Renewal(Vec<Keys>);

impl Renewal {
    /// Does so until it is dropped.
    pub async fn run(self) {
        loop {
            self.0.iter().for_each(Keys::renew);
            tokio::time::sleep(RENEWAL).await;
        }
    }
}

impl Identities {
    /// Checks the declarations and reads key files. Key sets behind URLs are fetched when first needed.
    pub fn new(
        declared: Vec<IssuerConfig>,
        pepper: Pepper,
        source: Arc<dyn JwksSource>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, IssuerError> {
        Self::keeping(declared, pepper, source, clock, None)
    }

    /// The same; the last good key sets are kept in a directory, for a node that starts while an issuer is away.
    pub fn keeping(
        declared: Vec<IssuerConfig>,
        pepper: Pepper,
        source: Arc<dyn JwksSource>,
        clock: Arc<dyn Clock>,
        kept: Option<&Path>,
    ) -> Result<Self, IssuerError> {
        let counts = Arc::<Counts>::default();
        let means = Means { source: &source, clock: &clock, kept, counts: &counts };
        let mut issuers = HashMap::new();
        for config in declared {
            let issuer = Issuer::declare(config, &means)?;
            let name = issuer.name().clone();
            if issuers.insert(name.clone(), issuer).is_some() {
                return Err(IssuerError::Duplicate(name.to_string()));
            }
        }
        let door = Door::new(clock.clone());
        Ok(Self { issuers, verified: Cache::default(), pepper, sigv4: None, clock, counts, door })
    }

    /// What keeps the keys of all issuers fresh in the background.
    pub fn renewal(&self) -> Renewal {
        Renewal(self.issuers.values().map(|issuer| issuer.keys().clone()).collect())
    }

    /// Asks now for every key set that is about to be older than it should be. Nobody waits for it.
    pub fn renew_keys(&self) {
        self.issuers.values().for_each(|issuer| issuer.keys().renew());
    }

    /// Takes the keys of an issuer that was declared as the node's own, as a JWK set.
    pub fn hold_keys(&self, issuer: &str, set: &[u8]) -> Result<(), IssuerError> {
        let refused = |problem| IssuerError::Invalid { issuer: issuer.to_owned(), problem };
        let declared = self.issuers.get(issuer).ok_or_else(|| refused("it is not declared"))?;
        declared.keys().hold(set).map_err(refused)
    }

    /// What has happened so far, in numbers.
    pub fn gauges(&self) -> Gauges {
        let standings: Vec<_> = self.issuers.values().filter_map(|issuer| issuer.keys().standing()).collect();
        let count = |of: Standing| standings.iter().filter(|standing| **standing == of).count() as u64;
        let (cached, verified) = self.verified.counts();
        Gauges {
            key_sets: [
                ("fresh", count(Standing::Fresh)),
                ("stale", count(Standing::Stale)),
                ("absent", count(Standing::Absent)),
            ],
            tokens: [("cached", cached), ("verified", verified)],
            ..self.counts.read()
        }
    }

    /// Takes requests that are signed with access keys, too.
    #[must_use]
    pub fn signed_by(mut self, config: Sigv4Config, secrets: Arc<dyn AccessSecrets>) -> Self {
        self.sigv4 = Some(Sigv4::new(config, secrets, self.clock.now()));
        self
    }

    /// Who shows this credential, from wherever. Nothing shown is the anonymous principal; something bad is never that.
    pub async fn identify(
        &self,
        credential: Credential<'_>,
        directory: &dyn Directory,
    ) -> Result<Principal, IdentityError> {
        self.identify_from(None, credential, directory).await
    }

    /// Who shows this credential from this address.
    pub async fn identify_from(
        &self,
        source: Option<IpAddr>,
        credential: Credential<'_>,
        directory: &dyn Directory,
    ) -> Result<Principal, IdentityError> {
        let found = self.find_out(source, credential, directory).await;
        found.inspect_err(|error| self.counts.refused(error))
    }

    async fn find_out(
        &self,
        source: Option<IpAddr>,
        credential: Credential<'_>,
        directory: &dyn Directory,
    ) -> Result<Principal, IdentityError> {
        match credential {
            Credential::None => Ok(Principal::anonymous()),
            Credential::Bearer(token) | Credential::ApiKey(token) if token.len() > CREDENTIAL_BYTES => {
                Err(Refusal::TooLong.into())
            }
            Credential::Passphrase(login) => {
                let own = self.issuers.values().find(|issuer| issuer.is_own()).ok_or(Refusal::Passphrase)?;
                self.door.identify(login, own.name(), directory).await
            }
            Credential::ApiKey(text) => api_key::identify(text, &self.pepper, source, directory, self.clock.now()),
            Credential::Bearer(token) => {
                jwt::identify(token, &self.issuers, &self.verified, directory, self.clock.as_ref()).await
            }
        }
    }

    /// Who the machine is that showed a certificate on its connection.
    pub fn identify_machine(
        &self,
        shown: &PeerCertificate,
        directory: &dyn Directory,
    ) -> Result<Principal, IdentityError> {
        let found = mtls::identify(shown, directory, self.clock.now());
        found.inspect_err(|error| self.counts.refused(error))
    }

    /// Checks a signed request as far as that goes without its body: all but the signature itself.
    pub fn examine(
        &self,
        request: &SignedRequest<'_>,
        source: IpAddr,
        directory: &dyn Directory,
    ) -> Result<Claim, IdentityError> {
        let now = self.clock.now();
        let claim = self.sigv4.as_ref().ok_or(Refusal::Malformed)?.read(request, now)?;
        sigv4::account(&claim, directory)?.check(Some(source), now)?;
        Ok(claim)
    }

    /// Who signed a request. `body` is the digest of its body, where the claim asks for it.
    pub async fn prove(
        &self,
        claim: Claim,
        body: Option<[u8; 32]>,
        directory: &dyn Directory,
    ) -> Result<Principal, IdentityError> {
        let record = sigv4::account(&claim, directory)?;
        let sigv4 = self.sigv4.as_ref().ok_or(Refusal::Malformed)?;
        let secret = sigv4.secret(&record).await.inspect_err(|error| self.counts.refused(error))?;
        sigv4.prove(&claim, body, (&record, &secret), self.clock.now())?;
        record.admit(sigv4::principal(&record), directory)
    }
}
