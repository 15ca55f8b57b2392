//! What is read from a token once its signature is known to be good.
//!
//! Owns the claims: which must be there, of which type, within which bounds, and what they mean as typed values. Must
//! never guess at a claim of another type, and never look at one before the signature was verified.

use std::sync::Arc;

use cofferdam_model::Session;
use serde_json::{Map, Value};

use super::config::IssuerConfig;
use super::json;
use crate::error::Refusal;

/// Bytes of a text in a header or claim.
pub(super) const TEXT_BYTES: usize = 255;
const AUDIENCES: usize = 32;
const ROLES: usize = 64;
const ROLE_BYTES: usize = 128;
const GROUPS: usize = 128;
const SCOPES: usize = 64;
const SCOPE_BYTES: usize = 128;
const METHODS: usize = 16;
/// Actors within actors (RFC 8693, 4.1).
const ACTORS: usize = 8;
/// Claims that bind a token to a key: without proof of that key's possession the token is stolen goods.
const CONFIRMATION: &str = "cnf";

type Claims = Map<String, Value>;

/// What a verified token says. Nothing in it is true for longer than the token is valid and its key is listed.
pub(super) struct Verified {
    pub(super) issuer: Arc<str>,
    pub(super) kid: Option<String>,
    pub(super) key: [u8; 32],
    pub(super) subject: Arc<str>,
    pub(super) token_id: Option<Arc<str>>,
    pub(super) issued: u64,
    pub(super) tenant: Option<String>,
    pub(super) roles: Vec<String>,
    pub(super) groups: Vec<String>,
    pub(super) session: Arc<Session>,
    not_before: u64,
    expires: u64,
}

impl Verified {
    /// Reads the claims of a token; `access` says that it calls itself an access token of RFC 9068.
    pub(super) fn read(claims: &Claims, config: &IssuerConfig, access: bool) -> Result<Self, Refusal> {
        let audiences = audiences(claims, &config.audience)?;
        let subject = text(claims, "sub")?.ok_or(Refusal::Claims)?;
        let token_id = text(claims, "jti")?;
        let client = text(claims, "client_id")?;
        // RFC 9068, 2.2: on top of what is asked of every token.
        if access && (token_id.is_none() || client.is_none()) {
            return Err(Refusal::Claims);
        }
        if claims.contains_key(CONFIRMATION) {
            return Err(Refusal::ProofMissing);
        }
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
        let session = Session {
            scopes: scopes(claims)?,
            mfa: mfa(claims, &config.mfa_acr)?,
            authenticated: seconds(claims, "auth_time")?,
            actor: actor(claims)?,
            client: client.map(str::to_owned),
            audiences,
            expires: Some(expires),
        };
        Ok(Self {
            issuer: "".into(),
            kid: None,
            key: [0; 32],
            subject: subject.into(),
            token_id: token_id.map(Into::into),
            not_before,
            issued,
            expires,
            tenant,
            roles: listed(claims, config.roles_claim.as_deref(), ROLES)?,
            groups: listed(claims, config.groups_claim.as_deref(), GROUPS)?,
            session: Arc::new(session),
        })
    }

    /// The same, verified by this key of this issuer.
    pub(super) fn by(self, issuer: Arc<str>, kid: Option<String>, key: [u8; 32]) -> Self {
        Self { issuer, kid, key, ..self }
    }

    pub(super) fn expires_seconds(&self) -> u64 {
        self.expires
    }

    pub(super) fn check_time(&self, config: &IssuerConfig, now: u64) -> Result<(), Refusal> {
        if now >= self.expires.saturating_add(config.leeway_seconds) {
            return Err(Refusal::Expired);
        }
        // Nobody can have proved who they are after the token that says so was issued, nor in the future.
        let earliest = self.issued.max(self.not_before).max(self.session.authenticated.unwrap_or(0));
        if now.saturating_add(config.leeway_seconds) < earliest {
            return Err(Refusal::NotYetValid);
        }
        Ok(())
    }
}

/// For whom it is meant, if that is us too.
fn audiences(claims: &Claims, wanted: &str) -> Result<Vec<String>, Refusal> {
    let named = match claims.get("aud") {
        Some(Value::String(one)) => vec![one.clone()],
        Some(Value::Array(several)) if several.len() <= AUDIENCES => {
            let named = several.iter().map(|one| one.as_str().map(str::to_owned));
            named.collect::<Option<Vec<_>>>().ok_or(Refusal::Claims)?
        }
        _ => return Err(Refusal::Claims),
    };
    if named.iter().any(|one| one == wanted) { Ok(named) } else { Err(Refusal::Audience) }
}

/// Roles or groups, where the declaration says which claim lists them.
fn listed(claims: &Claims, path: Option<&str>, most: usize) -> Result<Vec<String>, Refusal> {
    let Some(listed) = path.and_then(|path| json::claim(claims, path)) else { return Ok(Vec::new()) };
    list(listed, most, ROLE_BYTES)
}

/// What the token is good for: `scope` (RFC 8693, RFC 9068: words in one text) or `scp` (a text or a list), which must
/// not contradict each other.
fn scopes(claims: &Claims) -> Result<Option<Vec<String>>, Refusal> {
    let words = |text: &str| -> Result<Vec<String>, Refusal> {
        let words = text.split(' ').filter(|word| !word.is_empty()).map(|word| Value::String(word.to_owned()));
        list(&Value::Array(words.collect()), SCOPES, SCOPE_BYTES)
    };
    let scope = match claims.get("scope") {
        None => None,
        Some(Value::String(text)) => Some(words(text)?),
        Some(_) => return Err(Refusal::Claims),
    };
    let scp = match claims.get("scp") {
        None => None,
        Some(Value::String(text)) => Some(words(text)?),
        Some(listed) => Some(list(listed, SCOPES, SCOPE_BYTES)?),
    };
    match (scope, scp) {
        (Some(one), Some(other)) if one != other => Err(Refusal::Claims),
        (one, other) => Ok(one.or(other)),
    }
}

/// Whether more than one factor was shown: `mfa` among `amr` (RFC 8176), or an `acr` the issuer's declaration lists.
fn mfa(claims: &Claims, strong: &[String]) -> Result<bool, Refusal> {
    let by_method = match claims.get("amr") {
        None => false,
        Some(methods) => list(methods, METHODS, ROLE_BYTES)?.iter().any(|method| method == "mfa"),
    };
    let class = text(claims, "acr")?;
    Ok(by_method || class.is_some_and(|class| strong.iter().any(|listed| listed == class)))
}

/// Who acts in the subject's stead: the outermost `act`, which must be well formed down to the innermost.
fn actor(claims: &Claims) -> Result<Option<String>, Refusal> {
    let Some(mut act) = claims.get("act") else { return Ok(None) };
    let mut outermost = None;
    for _ in 0..ACTORS {
        let named = act.as_object().ok_or(Refusal::Claims)?;
        let subject = text(named, "sub")?.ok_or(Refusal::Claims)?;
        outermost.get_or_insert_with(|| subject.to_owned());
        match named.get("act") {
            Some(inner) => act = inner,
            None => return Ok(outermost),
        }
    }
    Err(Refusal::Claims)
}

/// A list of texts, in order and each once.
fn list(value: &Value, most: usize, bytes: usize) -> Result<Vec<String>, Refusal> {
    let listed = value.as_array().filter(|listed| listed.len() <= most).ok_or(Refusal::Claims)?;
    let item = |value: &Value| value.as_str().filter(|text| is_text(text) && text.len() <= bytes).map(str::to_owned);
    let mut items: Vec<String> = listed.iter().map(item).collect::<Option<_>>().ok_or(Refusal::Claims)?;
    items.sort_unstable();
    items.dedup();
    Ok(items)
}

/// A claim that must be text where it is given at all.
pub(super) fn text<'a>(claims: &'a Claims, name: &str) -> Result<Option<&'a str>, Refusal> {
    match claims.get(name) {
        None => Ok(None),
        Some(Value::String(text)) if name == "iss" || is_text(text) => Ok(Some(text)),
        Some(_) => Err(Refusal::Claims),
    }
}

/// A claim that must be whole seconds where it is given at all.
fn seconds(claims: &Claims, name: &str) -> Result<Option<u64>, Refusal> {
    match claims.get(name) {
        None => Ok(None),
        Some(value) => value.as_u64().map(Some).ok_or(Refusal::Claims),
    }
}

fn is_text(text: &str) -> bool {
    (1..=TEXT_BYTES).contains(&text.len()) && !text.chars().any(char::is_control)
}
