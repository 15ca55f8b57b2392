//! The declaration of an issuer, and what must be true of it.
//!
//! Owns its fields and their checks. Must never have a default that widens what is accepted.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::error::IssuerError;

/// Signature algorithms there are. `none` is not one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Algorithm {
    /// RSA, PKCS#1 v1.5, SHA-256.
    RS256,
    /// RSA, PKCS#1 v1.5, SHA-384.
    RS384,
    /// RSA, PKCS#1 v1.5, SHA-512.
    RS512,
    /// RSA, PSS, SHA-256.
    PS256,
    /// RSA, PSS, SHA-384.
    PS384,
    /// RSA, PSS, SHA-512.
    PS512,
    /// ECDSA on P-256, SHA-256.
    ES256,
    /// ECDSA on P-384, SHA-384.
    ES384,
    /// Ed25519.
    EdDSA,
    /// HMAC-SHA-256: issuer and platform share a secret. Only with `hs256_secret_file`.
    HS256,
}

impl Algorithm {
    /// The algorithm a token's header names, if there is such a one.
    pub(super) fn named(text: &str) -> Option<Self> {
        match text {
            "RS256" => Some(Self::RS256),
            "RS384" => Some(Self::RS384),
            "RS512" => Some(Self::RS512),
            "PS256" => Some(Self::PS256),
            "PS384" => Some(Self::PS384),
            "PS512" => Some(Self::PS512),
            "ES256" => Some(Self::ES256),
            "ES384" => Some(Self::ES384),
            "EdDSA" => Some(Self::EdDSA),
            "HS256" => Some(Self::HS256),
            _ => None,
        }
    }

    /// As the crate that does the arithmetic names it.
    pub(super) fn primitive(self) -> jsonwebtoken::Algorithm {
        match self {
            Self::RS256 => jsonwebtoken::Algorithm::RS256,
            Self::RS384 => jsonwebtoken::Algorithm::RS384,
            Self::RS512 => jsonwebtoken::Algorithm::RS512,
            Self::PS256 => jsonwebtoken::Algorithm::PS256,
            Self::PS384 => jsonwebtoken::Algorithm::PS384,
            Self::PS512 => jsonwebtoken::Algorithm::PS512,
            Self::ES256 => jsonwebtoken::Algorithm::ES256,
            Self::ES384 => jsonwebtoken::Algorithm::ES384,
            Self::EdDSA => jsonwebtoken::Algorithm::EdDSA,
            Self::HS256 => jsonwebtoken::Algorithm::HS256,
        }
    }
}

/// Where a discovery document is, below the issuer (OpenID Connect Discovery 1.0, 4).
const DISCOVERY: &str = "/.well-known/openid-configuration";

/// An issuer whose tokens are believed, and how far. Where none of `jwks_file`, `jwks_url` and `hs256_secret_file` is
/// given, its keys are found by discovery: `issuer` is an `https` URL then.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IssuerConfig {
    /// `iss` of its tokens, to the letter.
    pub issuer: String,
    /// `aud` its tokens must have, or have among others.
    pub audience: String,
    /// Algorithms its tokens may be signed with.
    pub algorithms: Vec<Algorithm>,
    /// `typ` its tokens must have: `JWT` or `at+jwt`. Absent: either.
    #[serde(default)]
    pub typ: Option<String>,
    /// Its keys as a JWK set in a file.
    #[serde(default)]
    pub jwks_file: Option<PathBuf>,
    /// Its keys as a JWK set behind an `https` URL.
    #[serde(default)]
    pub jwks_url: Option<String>,
    /// A secret shared with it, 32 bytes at least, as the file has it (a newline at the end is not part of it).
    #[serde(default)]
    pub hs256_secret_file: Option<PathBuf>,
    /// Name of the tenant all its subjects belong to.
    #[serde(default)]
    pub tenant: Option<String>,
    /// Claim that names the subject's tenant: a name, or a JSON pointer starting with `/`. Never the platform's.
    #[serde(default)]
    pub tenant_claim: Option<String>,
    /// Claim that lists roles, in addition to those given here: a name, or a JSON pointer starting with `/`.
    #[serde(default)]
    pub roles_claim: Option<String>,
    /// Claim that lists the groups its subjects are in: a name, or a JSON pointer starting with `/`.
    #[serde(default)]
    pub groups_claim: Option<String>,
    /// Values of `acr` that stand for more than one factor; `mfa` in `amr` always does.
    #[serde(default)]
    pub mfa_acr: Vec<String>,
    /// Whether its keys are the node's own: given to `Identities::hold_keys`, never fetched. Its tokens name any
    /// tenant, also the platform, and say the most a subject may do, not what it may. Not for configuration files.
    #[serde(skip)]
    pub held: bool,
    /// Seconds its clock may differ from ours; 30 at most.
    #[serde(default = "leeway_seconds")]
    pub leeway_seconds: u64,
    /// Seconds from `iat` to `exp`, at most.
    #[serde(default = "lifetime_seconds")]
    pub lifetime_seconds: u64,
    /// Seconds after which its keys are asked for anew; in the background a little earlier.
    #[serde(default = "max_age_seconds")]
    pub max_age_seconds: u64,
    /// Seconds its keys go on being used while they cannot be had anew.
    #[serde(default = "max_stale_seconds")]
    pub max_stale_seconds: u64,
}

fn leeway_seconds() -> u64 {
    10
}

fn lifetime_seconds() -> u64 {
    24 * 3600
}

fn max_age_seconds() -> u64 {
    300
}

fn max_stale_seconds() -> u64 {
    24 * 3600
}

impl IssuerConfig {
    /// Where its discovery document is, where that is how its keys are found.
    pub(super) fn discovery(&self) -> Option<String> {
        let found = self.jwks_file.is_none() && self.jwks_url.is_none() && self.hs256_secret_file.is_none();
        (found && !self.held).then(|| format!("{}{DISCOVERY}", self.issuer.trim_end_matches('/')))
    }

    /// Whether the declaration makes sense, apart from its files.
    pub(super) fn check(&self) -> Result<(), IssuerError> {
        let plain = |text: &str| (1..=512).contains(&text.len()) && !text.chars().any(|c| c.is_control() || c == '|');
        let sources = [self.jwks_file.is_some(), self.jwks_url.is_some(), self.hs256_secret_file.is_some()];
        let shared = self.algorithms.contains(&Algorithm::HS256);
        let rules = [
            (plain(&self.issuer), "`issuer` must be 1 to 512 printable characters without `|`"),
            (plain(&self.audience), "`audience` must be 1 to 512 printable characters"),
            (!self.algorithms.is_empty(), "`algorithms` must name at least one"),
            (
                sources.iter().filter(|given| **given).count() <= usize::from(!self.held),
                "give one of `jwks_file`, `jwks_url`, `hs256_secret_file` at most; none of them means discovery",
            ),
            (
                self.discovery().is_none() || is_issuer_url(&self.issuer),
                "without a key source the keys are found by discovery: `issuer` must be an `https` URL without query \
                 and fragment then",
            ),
            (
                shared == self.hs256_secret_file.is_some() && (!shared || self.algorithms.len() == 1),
                "`HS256` and `hs256_secret_file` go together, and with no other algorithm",
            ),
            (
                self.jwks_url.as_ref().is_none_or(|url| url.starts_with("https://")),
                "`jwks_url` must start with `https://`: keys fetched in the clear prove nothing",
            ),
            (self.tenant.is_some() != self.tenant_claim.is_some(), "give exactly one of `tenant` and `tenant_claim`"),
            (
                self.mfa_acr.len() <= 16 && self.mfa_acr.iter().all(|acr| plain(acr)),
                "`mfa_acr` lists up to 16 values of `acr`",
            ),
            (
                self.typ.as_ref().is_none_or(|typ| typ == "JWT" || typ == "at+jwt"),
                "`typ` must be `JWT` or `at+jwt`; leave it out to take either",
            ),
            (self.leeway_seconds <= 30, "`leeway_seconds` may be 30 at most"),
            (
                (1..=366 * 24 * 3600).contains(&self.lifetime_seconds),
                "`lifetime_seconds` must be between 1 and a year's",
            ),
            (
                (10..=24 * 3600).contains(&self.max_age_seconds) && self.max_stale_seconds >= self.max_age_seconds,
                "`max_age_seconds` must be between 10 and 86400, and `max_stale_seconds` not below it",
            ),
        ];
        match rules.iter().find(|(holds, _)| !holds) {
            Some((_, problem)) => Err(IssuerError::Invalid { issuer: self.issuer.clone(), problem }),
            None => Ok(()),
        }
    }
}

/// Whether a discovery document can be below it: `https`, a host, and nothing behind the path.
fn is_issuer_url(issuer: &str) -> bool {
    let rest = issuer.strip_prefix("https://").unwrap_or_default();
    !rest.is_empty() && !rest.starts_with('/') && !rest.contains(['?', '#', '@', ' '])
}
