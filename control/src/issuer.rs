//! The development issuer: tokens for people who have no identity provider yet.
//!
//! Owns an Ed25519 key file, the key set beside it, and the tokens made with it. It is an issuer like any other to
//! `authz`, which reads its key set and knows nothing else of it. Must never be declared on an installation that has
//! a real one: whoever reads the key file can be anybody.

use std::path::{Path, PathBuf};
use std::time::Duration;

use aws_lc_rs::digest;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cofferdam_authz::{IssuerConfig, identity};
use cofferdam_model::{Clock, Random};
use serde_json::json;

use crate::error::ControlError;
use crate::keyfile;

/// `iss` of its tokens.
pub const ISSUER: &str = "https://development.cofferdam.invalid";
/// `aud` of its tokens.
pub const AUDIENCE: &str = "cofferdam";
/// Longest life of a token.
pub const MAX_TTL: Duration = Duration::from_secs(24 * 60 * 60);

const KEY_FILE: &str = "development-issuer.key";
const JWKS_FILE: &str = "development-issuer.jwks.json";

/// The development issuer of one data directory.
pub struct DevelopmentIssuer {
    pair: Ed25519KeyPair,
    key_id: String,
}

/// What a token shall say.
#[derive(Debug, Clone, Copy)]
pub struct Claims<'a> {
    /// Name of the tenant.
    pub tenant: &'a str,
    /// Who.
    pub subject: &'a str,
    /// Roles.
    pub roles: &'a [String],
    /// Groups.
    pub groups: &'a [String],
    /// How long it is good for.
    pub ttl: Duration,
}

impl DevelopmentIssuer {
    /// Makes a key and writes it, and the key set by which its tokens are checked, into a directory.
    pub fn create(dir: &Path, random: &dyn Random) -> Result<Self, ControlError> {
        let path = dir.join(KEY_FILE);
        let seed = keyfile::fresh(random);
        let issuer = Self::from_seed(&path, &seed)?;
        keyfile::create(&path, seed.as_slice())?;
        keyfile::create(&jwks_path(dir), issuer.jwks().as_bytes())?;
        Ok(issuer)
    }

    /// Reads the key from its directory.
    pub fn load(dir: &Path) -> Result<Self, ControlError> {
        let path = dir.join(KEY_FILE);
        Self::from_seed(&path, &keyfile::load(&path)?)
    }

    fn from_seed(path: &Path, seed: &keyfile::KeyBytes) -> Result<Self, ControlError> {
        let refused = |_| ControlError::KeyFile { path: path.into(), reason: "not an Ed25519 seed" };
        let pair = Ed25519KeyPair::from_seed_unchecked(seed.as_slice()).map_err(refused)?;
        let key_id = thumbprint(&encode(pair.public_key().as_ref()));
        Ok(Self { pair, key_id })
    }

    /// Its key set, as JSON.
    pub fn jwks(&self) -> String {
        let x = encode(self.pair.public_key().as_ref());
        let key = json!({ "kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": "EdDSA", "kid": self.key_id, "x": x });
        json!({ "keys": [key] }).to_string()
    }

    /// Makes a token.
    pub fn token(&self, claims: Claims<'_>, clock: &dyn Clock, random: &dyn Random) -> Result<String, ControlError> {
        if claims.ttl < Duration::from_secs(1) || claims.ttl > MAX_TTL {
            let given = format!("{} s", claims.ttl.as_secs());
            return Err(ControlError::invalid("ttl", &given, "1 second to 24 hours is expected"));
        }
        let mut id = [0u8; 16];
        random.fill(&mut id);
        let now = clock.now().seconds();
        let header = json!({ "alg": "EdDSA", "typ": "JWT", "kid": self.key_id });
        let payload = json!({
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": claims.subject,
            "tenant": claims.tenant,
            "roles": claims.roles,
            "groups": claims.groups,
            "iat": now,
            "exp": now.saturating_add(claims.ttl.as_secs()),
            "jti": encode(&id),
        });
        let signed = format!("{}.{}", encode(header.to_string().as_bytes()), encode(payload.to_string().as_bytes()));
        let signature = encode(self.pair.sign(signed.as_bytes()).as_ref());
        Ok(format!("{signed}.{signature}"))
    }
}

/// Where the key set of a directory's issuer is.
pub fn jwks_path(dir: &Path) -> PathBuf {
    dir.join(JWKS_FILE)
}

/// How `authz` is told to believe it: subjects and roles of whichever tenant the token names.
pub fn config(dir: &Path) -> IssuerConfig {
    IssuerConfig {
        issuer: ISSUER.into(),
        audience: AUDIENCE.into(),
        algorithms: vec![identity::Algorithm::EdDSA],
        typ: Some("JWT".into()),
        jwks_file: Some(jwks_path(dir)),
        jwks_url: None,
        hs256_secret_file: None,
        tenant: None,
        tenant_claim: Some("tenant".into()),
        roles_claim: Some("roles".into()),
        groups_claim: Some("groups".into()),
        mfa_acr: Vec::new(),
        held: false,
        leeway_seconds: 10,
        lifetime_seconds: MAX_TTL.as_secs(),
        max_age_seconds: 300,
        max_stale_seconds: MAX_TTL.as_secs(),
    }
}

/// RFC 7638: digest of the members a key is made of, in order of name.
pub(crate) fn thumbprint(x: &str) -> String {
    let members = format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#);
    encode(digest::digest(&digest::SHA256, members.as_bytes()).as_ref())
}

pub(crate) fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}
