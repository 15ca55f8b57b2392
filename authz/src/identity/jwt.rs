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
use cofferdam_model::id::platform_tenant;
use cofferdam_model::{Clock, PrincipalKind};
use serde_json::Value;

use super::cache::{Cache, TokenDigest};
use super::claims::{self, TEXT_BYTES, Verified};
use super::config::{Algorithm, IssuerConfig};
use super::jwks::{Keys, Means};
use super::revoked::Shown;
use super::{Directory, Principal, json};
use crate::error::{IdentityError, IssuerError, Refusal};

/// Header members that bring or point to a key, or change what the rest means.
const FORBIDDEN: [&str; 12] =
    ["crit", "jku", "jwk", "x5u", "x5c", "x5t", "x5t#S256", "b64", "zip", "enc", "epk", "cty"];

pub(super) struct Issuer {
    name: Arc<str>,
    config: IssuerConfig,
    keys: Keys,
}

impl Issuer {
    pub(super) fn declare(config: IssuerConfig, means: &Means<'_>) -> Result<Self, IssuerError> {
        config.check()?;
        // Names the one crypto library. Only the first call in a process counts; all calls name the same.
        let _ = jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER.install_default();
        let keys = Keys::of(&config, means)?;
        Ok(Self { name: config.issuer.as_str().into(), config, keys })
    }

    pub(super) fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Whether it is the node's own.
    pub(super) fn is_own(&self) -> bool {
        self.config.held
    }

    pub(super) fn keys(&self) -> &Keys {
        &self.keys
    }

    /// The principal a verified token stands for right now.
    fn principal(
        &self,
        token: &Verified,
        digest: &TokenDigest,
        directory: &dyn Directory,
        now: u64,
    ) -> Result<Principal, IdentityError> {
        token.check_time(&self.config, now)?;
        let name = self.config.tenant.as_ref().or(token.tenant.as_ref()).ok_or(Refusal::Claims)?;
        let tenant = directory.tenant_named(name).ok_or(Refusal::Tenant)?;
        // Nobody becomes one of the platform's own by what a token claims, only by what the operator declared.
        let claimed = self.config.tenant.is_none() && !self.config.held;
        if claimed && tenant == platform_tenant() {
            return Err(Refusal::Tenant.into());
        }
        let given = directory.member_roles(&tenant, &self.name, &token.subject);
        let mut roles = token.roles.clone();
        if self.config.held {
            // Such a token says how much of what its subject has it is good for. What was taken away is gone at once.
            roles.retain(|role| given.contains(role));
        } else {
            let more: Vec<_> = given.into_iter().filter(|role| !roles.contains(role)).collect();
            roles.extend(more);
        }
        let shown = Shown {
            tenant: &tenant,
            kind: PrincipalKind::User,
            issuer: Some(&self.name),
            subject: &token.subject,
            token: token.token_id.as_deref(),
            digest: Some(digest),
            signing_key: token.kid.as_deref(),
            issued: Some(token.issued),
        };
        let by = shown.by(directory);
        let who = Principal::user(self.name.clone(), token.subject.clone(), tenant, roles, token.token_id.clone())
            .in_groups(token.groups.clone())
            .with_session(token.session.clone())
            // What another issuer calls a scope is for policies to understand; the node's own speaks of actions.
            .narrowed(token.session.scopes.clone().filter(|_| self.is_own()).map(Into::into));
        match by {
            Some(by) => Err(IdentityError::revoked(&who, by)),
            None => Ok(who),
        }
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
            cache.count(true);
            let outcome = issuer.principal(&known, &digest, directory, clock.now().seconds());
            if let Err(IdentityError::Refused(Refusal::Expired)) = outcome {
                cache.remove(&digest);
            }
            return outcome;
        }
        cache.remove(&digest);
    }
    let parts = Parts::of(token)?;
    let claims = json::object(&decode(parts.payload)?)?;
    let iss = claims::text(&claims, "iss")?.ok_or(Refusal::Claims)?;
    let issuer = issuers.get(iss).ok_or(Refusal::UnknownIssuer)?;
    let header = Header::read(parts.header, &issuer.config)?;
    let key = issuer.keys.find(header.kid.as_deref()).await?;
    if !key.may(header.algorithm) {
        return Err(Refusal::Algorithm.into());
    }
    if !key.verifies(parts.signed.as_bytes(), parts.signature, header.algorithm) {
        return Err(Refusal::Signature.into());
    }
    let verified = Verified::read(&claims, &issuer.config, header.access)?;
    let verified = Arc::new(verified.by(issuer.name.clone(), header.kid, key.fingerprint()));
    cache.count(false);
    let now = clock.now().seconds();
    let outcome = issuer.principal(&verified, &digest, directory, now);
    // A revoked token is remembered as well: refusing it a second time must not cost more than the first.
    if matches!(outcome, Ok(_) | Err(IdentityError::Revoked { .. })) {
        cache.insert(digest, verified, now);
    }
    outcome
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
    /// Whether it calls itself an access token of RFC 9068, which must say more than others.
    access: bool,
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
        Ok(Self { algorithm, kid, access: typ == "at+jwt" })
    }
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
