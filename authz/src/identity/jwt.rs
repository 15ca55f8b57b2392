//! Tokens: which ones are believed, and what is read from them.
//!
//! Owns the strict profile of RFC 7519 (RFC 8725, RFC 9068). The token is read here, once, by a reader that admits one
//! meaning; `jsonwebtoken` is asked only whether a key's signature is over it. The `iss` claim is used unverified to
//! look up a declaration and for nothing else. Must never take an algorithm, a key or a type on the token's word.

use std::collections::HashMap;
use std::sync::Arc;

use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cofferdam_model::Clock;
use cofferdam_model::id::platform_tenant;
use serde_json::{Map, Value};

use super::cache::{Cache, TokenDigest};
use super::config::{Algorithm, IssuerConfig};
use super::jwk::Key;
use super::jwks::Keys;
use super::{Directory, JwksSource, Principal, json};
use crate::error::{IdentityError, IssuerError, Refusal};

/// Header members that bring a key, or change what the rest means.
const FORBIDDEN: [&str; 8] = ["crit", "jku", "jwk", "x5u", "x5c", "b64", "zip", "enc"];
const TEXT_BYTES: usize = 255;
const AUDIENCES: usize = 32;
const ROLES: usize = 64;
const ROLE_BYTES: usize = 128;

pub(super) struct Issuer {
    name: Arc<str>,
    config: IssuerConfig,
    keys: Keys,
}

/// What a verified token says. Nothing in it is true for longer than the token is valid and its key is listed.
pub(super) struct Verified {
    issuer: Arc<str>,
    kid: Option<String>,
    key: [u8; 32],
    subject: Arc<str>,
    token_id: Option<Arc<str>>,
    not_before: u64,
    issued: u64,
    expires: u64,
    tenant: Option<String>,
    roles: Vec<String>,
}

impl Issuer {
    pub(super) fn declare(
        config: IssuerConfig,
        source: &Arc<dyn JwksSource>,
        clock: &Arc<dyn Clock>,
    ) -> Result<Self, IssuerError> {
        config.check()?;
        // Names the one crypto library. Only the first call in a process counts; all calls name the same.
        let _ = jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER.install_default();
        let keys = Keys::of(&config, source, clock)?;
        Ok(Self { name: config.issuer.as_str().into(), config, keys })
    }

    pub(super) fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The principal a verified token stands for right now.
    fn principal(&self, token: &Verified, directory: &dyn Directory, now: u64) -> Result<Principal, Refusal> {
        token.check_time(&self.config, now)?;
        let name = self.config.tenant.as_ref().or(token.tenant.as_ref()).ok_or(Refusal::Claims)?;
        let tenant = directory.tenant_named(name).ok_or(Refusal::Tenant)?;
        // Nobody becomes one of the platform's own by what a token claims, only by what the operator declared.
        let claimed = self.config.tenant.is_none();
        if (claimed && tenant == platform_tenant()) || !directory.tenant_active(&tenant) {
            return Err(Refusal::Tenant);
        }
        let mut roles = token.roles.clone();
        for role in directory.member_roles(&tenant, &self.name, &token.subject) {
            if !roles.contains(&role) {
                roles.push(role);
            }
        }
        Ok(Principal::user(self.name.clone(), token.subject.clone(), tenant, roles, token.token_id.clone()))
    }
}

/// Who a token speaks for.
pub(super) async fn identify(
    token: &str,
    issuers: &HashMap<Arc<str>, Issuer>,
    cache: &Cache,
    directory: &dyn Directory,
    clock: &dyn Clock,
) -> Result<Principal, IdentityError> {
    let digest = digest_of(token);
    if let Some(known) = cache.get(&digest)
        && let Some(issuer) = issuers.get(&known.issuer)
    {
        let key = issuer.keys.find(known.kid.as_deref()).await?;
        if key.is(&known.key) {
            let outcome = issuer.principal(&known, directory, clock.now().seconds());
            if let Err(Refusal::Expired) = outcome {
                cache.remove(&digest);
            }
            return Ok(outcome?);
        }
        cache.remove(&digest);
    }
    let parts = Parts::of(token)?;
    let claims = json::object(&decode(parts.payload)?)?;
    let iss = text(&claims, "iss")?.ok_or(Refusal::Claims)?;
    let issuer = issuers.get(iss).ok_or(Refusal::UnknownIssuer)?;
    let header = Header::read(parts.header, &issuer.config)?;
    let key = issuer.keys.find(header.kid.as_deref()).await?;
    if !key.may(header.algorithm) {
        return Err(Refusal::Algorithm.into());
    }
    if !key.verifies(parts.signed, parts.signature, header.algorithm) {
        return Err(Refusal::Signature.into());
    }
    let verified = Arc::new(Verified::read(&claims, issuer, header.kid, &key)?);
    let now = clock.now().seconds();
    let principal = issuer.principal(&verified, directory, now)?;
    cache.insert(digest, verified, now);
    Ok(principal)
}

/// A token's three segments, and the text its signature is over.
struct Parts<'a> {
    header: &'a str,
    payload: &'a str,
    signature: &'a str,
    signed: &'a str,
}

impl<'a> Parts<'a> {
    fn of(token: &'a str) -> Result<Self, Refusal> {
        let (signed, signature) = token.rsplit_once('.').ok_or(Refusal::Malformed)?;
        let (header, payload) = signed.split_once('.').ok_or(Refusal::Malformed)?;
        if payload.contains('.') || signature.is_empty() {
            return Err(Refusal::Malformed);
        }
        Ok(Self { header, payload, signature, signed })
    }
}

struct Header {
    algorithm: Algorithm,
    kid: Option<String>,
}

impl Header {
    fn read(encoded: &str, config: &IssuerConfig) -> Result<Self, Refusal> {
        let header = json::object(&decode(encoded)?)?;
        if FORBIDDEN.iter().any(|name| header.contains_key(*name)) {
            return Err(Refusal::Header);
        }
        let algorithm = header.get("alg").and_then(Value::as_str).and_then(Algorithm::named);
        let algorithm = algorithm.filter(|algorithm| config.algorithms.contains(algorithm));
        let algorithm = algorithm.ok_or(Refusal::Algorithm)?;
        let typ = header.get("typ").and_then(Value::as_str).ok_or(Refusal::Type)?;
        // Media types: case does not matter, and `application/` may be left out (RFC 7515, 4.1.9).
        let typ = typ.to_ascii_lowercase();
        let typ = typ.strip_prefix("application/").unwrap_or(&typ);
        let wanted = |name: &str| typ == name && config.typ.as_ref().is_none_or(|typ| typ.eq_ignore_ascii_case(name));
        if !wanted("jwt") && !wanted("at+jwt") {
            return Err(Refusal::Type);
        }
        let kid = match header.get("kid") {
            None => None,
            Some(Value::String(kid)) if (1..=TEXT_BYTES).contains(&kid.len()) => Some(kid.clone()),
            Some(_) => return Err(Refusal::Malformed),
        };
        Ok(Self { algorithm, kid })
    }
}

impl Verified {
    fn read(claims: &Map<String, Value>, issuer: &Issuer, kid: Option<String>, key: &Key) -> Result<Self, Refusal> {
        let config = &issuer.config;
        check_audience(claims, &config.audience)?;
        let subject = text(claims, "sub")?.ok_or(Refusal::Claims)?;
        let token_id = text(claims, "jti")?;
        let expires = seconds(claims, "exp")?.ok_or(Refusal::Claims)?;
        let issued = seconds(claims, "iat")?.ok_or(Refusal::Claims)?;
        let not_before = seconds(claims, "nbf")?.unwrap_or(0);
        let valid = expires.checked_sub(issued).filter(|valid| *valid > 0).ok_or(Refusal::Claims)?;
        if valid > config.lifetime_seconds {
            return Err(Refusal::Lifetime);
        }
        let tenant = match &config.tenant_claim {
            None => None,
            Some(path) => {
                let name = json::claim(claims, path).and_then(Value::as_str);
                Some(name.filter(|name| is_text(name)).ok_or(Refusal::Claims)?.to_owned())
            }
        };
        Ok(Self {
            issuer: issuer.name.clone(),
            kid,
            key: key.fingerprint(),
            subject: subject.into(),
            token_id: token_id.map(Into::into),
            not_before,
            issued,
            expires,
            tenant,
            roles: roles(claims, config.roles_claim.as_deref())?,
        })
    }

    pub(super) fn expires_seconds(&self) -> u64 {
        self.expires
    }

    fn check_time(&self, config: &IssuerConfig, now: u64) -> Result<(), Refusal> {
        if now >= self.expires.saturating_add(config.leeway_seconds) {
            return Err(Refusal::Expired);
        }
        if now.saturating_add(config.leeway_seconds) < self.issued.max(self.not_before) {
            return Err(Refusal::NotYetValid);
        }
        Ok(())
    }
}

fn check_audience(claims: &Map<String, Value>, wanted: &str) -> Result<(), Refusal> {
    let named = match claims.get("aud") {
        Some(Value::String(one)) => one == wanted,
        Some(Value::Array(several)) if several.len() <= AUDIENCES => {
            if !several.iter().all(Value::is_string) {
                return Err(Refusal::Claims);
            }
            several.iter().any(|one| one.as_str() == Some(wanted))
        }
        _ => return Err(Refusal::Claims),
    };
    if named { Ok(()) } else { Err(Refusal::Audience) }
}

fn roles(claims: &Map<String, Value>, path: Option<&str>) -> Result<Vec<String>, Refusal> {
    let Some(listed) = path.and_then(|path| json::claim(claims, path)) else { return Ok(Vec::new()) };
    let listed = listed.as_array().filter(|listed| listed.len() <= ROLES).ok_or(Refusal::Claims)?;
    let role =
        |value: &Value| value.as_str().filter(|role| is_text(role) && role.len() <= ROLE_BYTES).map(str::to_owned);
    let mut roles: Vec<String> = listed.iter().map(role).collect::<Option<_>>().ok_or(Refusal::Claims)?;
    roles.sort_unstable();
    roles.dedup();
    Ok(roles)
}

/// A claim that must be text where it is given at all.
fn text<'a>(claims: &'a Map<String, Value>, name: &str) -> Result<Option<&'a str>, Refusal> {
    match claims.get(name) {
        None => Ok(None),
        Some(Value::String(text)) if name == "iss" || is_text(text) => Ok(Some(text)),
        Some(_) => Err(Refusal::Claims),
    }
}

/// A claim that must be whole seconds where it is given at all.
fn seconds(claims: &Map<String, Value>, name: &str) -> Result<Option<u64>, Refusal> {
    match claims.get(name) {
        None => Ok(None),
        Some(value) => value.as_u64().map(Some).ok_or(Refusal::Claims),
    }
}

fn is_text(text: &str) -> bool {
    (1..=TEXT_BYTES).contains(&text.len()) && !text.chars().any(char::is_control)
}

fn decode(segment: &str) -> Result<Vec<u8>, Refusal> {
    URL_SAFE_NO_PAD.decode(segment).map_err(|_| Refusal::Malformed)
}

fn digest_of(token: &str) -> TokenDigest {
    let mut out = TokenDigest::default();
    let sum = digest::digest(&digest::SHA256, token.as_bytes());
    out.iter_mut().zip(sum.as_ref()).for_each(|(to, from)| *to = *from);
    out
}
