//! The node's own issuer, for people without an identity provider.
//!
//! Owns its signing keys and their succession, the two documents others verify its tokens by, and the one rule of every
//! token it gives: it says no more than whoever asks for it has. Must never sign for anybody but the principal of a
//! recorded permit, and never keep a private key that nothing is signed with any more.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use cofferdam_authz::passphrase::{COST, Cost};
use cofferdam_authz::{IssuerConfig, Principal, identity, scopes_narrow};
use cofferdam_model::operation::Grant;
use cofferdam_model::{CredentialKind, Random, TenantId, UnixNanos};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::Control;
use crate::error::ControlError;
use crate::issuer::{encode, thumbprint};
use crate::keyfile;
use crate::store::{IssuerKeyRow, Transaction};

/// Where the issuer is, below the node's address.
pub const PATH: &str = "/-/issuer";
/// Longest life of a token.
const MAX_TOKEN_SECONDS: u64 = 3600;
const LEEWAY_SECONDS: u64 = 10;
/// The program tokens are given to.
const CLIENT: &str = "cofferdam";
const KEYS: &str = "issuer";
const SCOPES: usize = 64;
const SCOPE_BYTES: usize = 128;

/// What an operator says of the node's own issuer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OwnIssuerConfig {
    /// The node's address as others reach it, `https://` and a host: the issuer is `/-/issuer` below it.
    pub url: String,
    /// For whom tokens may be: this node's `cofferdam`, and services that verify them on their own.
    #[serde(default = "audiences")]
    pub audiences: Vec<String>,
    /// How long a token is good for; an hour at most.
    #[serde(default = "token_seconds")]
    pub token_seconds: u64,
    /// What hashing a passphrase costs. Not for configuration files.
    #[serde(skip, default = "cost")]
    pub cost: Cost,
}

fn cost() -> Cost {
    COST
}

fn audiences() -> Vec<String> {
    vec![crate::issuer::AUDIENCE.to_owned()]
}

fn token_seconds() -> u64 {
    900
}

impl OwnIssuerConfig {
    /// What is wrong with it, and what to write instead.
    pub fn check(&self) -> Result<(), (&'static str, &'static str)> {
        let host = self.url.strip_prefix("https://").unwrap_or_default();
        let good = !host.is_empty() && host.bytes().all(|b| b.is_ascii_graphic() && !b"/?#@|\"\\".contains(&b));
        if !good {
            return Err(("url", "must be `https://` and a host, with a port where it is not 443"));
        }
        let plain = |text: &String| (1..=255).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
        let ours = self.audiences.iter().any(|audience| audience == crate::issuer::AUDIENCE);
        if !ours || self.audiences.len() > 16 || !self.audiences.iter().all(plain) {
            return Err(("audiences", "must list `cofferdam`, and up to 15 others"));
        }
        if !(60..=MAX_TOKEN_SECONDS).contains(&self.token_seconds) {
            return Err(("token_seconds", "must be from 60 to 3600"));
        }
        Ok(())
    }

    /// `iss` of its tokens.
    pub fn issuer(&self) -> String {
        format!("{}{PATH}", self.url)
    }

    /// How `authz` is told to believe it.
    pub fn declaration(&self) -> IssuerConfig {
        IssuerConfig {
            issuer: self.issuer(),
            audience: crate::issuer::AUDIENCE.into(),
            algorithms: vec![identity::Algorithm::EdDSA],
            typ: Some("at+jwt".into()),
            jwks_file: None,
            jwks_url: None,
            hs256_secret_file: None,
            tenant: None,
            tenant_claim: Some("tenant".into()),
            roles_claim: Some("roles".into()),
            groups_claim: None,
            mfa_acr: Vec::new(),
            held: true,
            leeway_seconds: LEEWAY_SECONDS,
            lifetime_seconds: MAX_TOKEN_SECONDS,
            max_age_seconds: 300,
            max_stale_seconds: 300,
        }
    }
}

/// What of a token is asked to be less than it could be. Whatever is absent is as much as whoever asks has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Narrowing {
    /// For whom it is to be.
    pub audiences: Option<Vec<String>>,
    /// Roles it is to be good for.
    pub roles: Option<Vec<String>>,
    /// Scopes it is to be limited to.
    pub scopes: Option<Vec<String>>,
    /// Seconds it is to be good for.
    pub seconds: Option<u64>,
}

/// The issuer at work.
pub(crate) struct OwnIssuer {
    config: OwnIssuerConfig,
    name: Arc<str>,
    dir: PathBuf,
    signing: ArcSwapOption<Signing>,
    /// Held by whoever changes keys: the file and the row belong together.
    changing: Mutex<()>,
}

struct Signing {
    pair: Ed25519KeyPair,
    kid: String,
}

impl OwnIssuer {
    /// Reads its keys; makes the first.
    pub(crate) fn open(
        config: &OwnIssuerConfig,
        dir: &Path,
        tx: &mut dyn Transaction,
        (random, now): (&dyn Random, UnixNanos),
    ) -> Result<Self, ControlError> {
        let dir = dir.join(KEYS);
        keyfile::private_dir(&dir)?;
        let issuer = Self {
            name: config.issuer().into(),
            config: config.clone(),
            dir,
            signing: ArcSwapOption::empty(),
            changing: Mutex::new(()),
        };
        match tx.issuer_keys()?.into_iter().find(|key| key.retired.is_none()) {
            Some(key) => issuer.sign_with(issuer.read(&key.kid)?),
            None => issuer.sign_with(issuer.make(tx, random, now)?),
        }
        Ok(issuer)
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn cost(&self) -> Cost {
        self.config.cost
    }

    fn sign_with(&self, signing: Signing) {
        self.signing.store(Some(Arc::new(signing)));
    }

    fn file(&self, kid: &str) -> PathBuf {
        self.dir.join(format!("{kid}.key"))
    }

    fn read(&self, kid: &str) -> Result<Signing, ControlError> {
        let path = self.file(kid);
        let found = signing(&path, &keyfile::load(&path)?)?;
        if found.kid == kid {
            Ok(found)
        } else {
            Err(ControlError::KeyFile { path, reason: "not the key it is named for" })
        }
    }

    fn make(&self, tx: &mut dyn Transaction, random: &dyn Random, now: UnixNanos) -> Result<Signing, ControlError> {
        let seed = keyfile::fresh(random);
        let made = signing(&self.dir, &seed)?;
        keyfile::create(&self.file(&made.kid), seed.as_slice())?;
        let mut public = [0u8; 32];
        public.iter_mut().zip(made.pair.public_key().as_ref()).for_each(|(to, from)| *to = *from);
        tx.insert_issuer_key(&IssuerKeyRow { kid: made.kid.clone(), public, created: now, retired: None })?;
        Ok(made)
    }
}

fn signing(path: &Path, seed: &keyfile::KeyBytes) -> Result<Signing, ControlError> {
    let refused = |_| ControlError::KeyFile { path: path.into(), reason: "not an Ed25519 seed" };
    let pair = Ed25519KeyPair::from_seed_unchecked(seed.as_slice()).map_err(refused)?;
    let kid = thumbprint(&encode(pair.public_key().as_ref()));
    Ok(Signing { pair, kid })
}

/// How long a key that is signed with no more is still published: as long as a token of it can live.
fn published_until(retired: UnixNanos) -> UnixNanos {
    retired.plus(Duration::from_secs(MAX_TOKEN_SECONDS + 2 * LEEWAY_SECONDS))
}

impl Control {
    /// What the node's own issuer is called, if it has one.
    pub fn own_issuer(&self) -> Option<&str> {
        self.issuer.as_ref().map(OwnIssuer::name)
    }

    /// The key set of the node's own issuer, as JSON. Blocks on the disk.
    pub fn issuer_keys(&self) -> Result<String, ControlError> {
        let now = self.clock.now();
        let rows = self.transact(|tx| tx.issuer_keys())?;
        let shown = rows.iter().filter(|row| row.retired.is_none_or(|at| now < published_until(at)));
        let keys: Vec<_> = shown
            .map(|row| {
                let x = encode(&row.public);
                json!({ "kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": "EdDSA", "kid": row.kid, "x": x })
            })
            .collect();
        Ok(json!({ "keys": keys }).to_string())
    }

    /// The discovery document of the node's own issuer.
    pub fn issuer_document(&self) -> Option<Value> {
        let issuer = &self.issuer.as_ref()?.name;
        Some(json!({
            "issuer": **issuer,
            "jwks_uri": format!("{issuer}/jwks"),
            "token_endpoint": format!("{issuer}/token"),
            "grant_types_supported": ["password", "urn:ietf:params:oauth:grant-type:token-exchange"],
            "token_endpoint_auth_methods_supported": ["none"],
            "response_types_supported": [],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["EdDSA"],
        }))
    }

    /// What a token for this principal would say, narrowed as asked; refused where more is asked than it has.
    pub fn grant(&self, who: &Principal, asked: &Narrowing) -> Result<(TenantId, Grant), ControlError> {
        let issuer = self.issuer.as_ref().ok_or_else(|| ControlError::not_found("issuer", "of this node"))?;
        if let Err(scope) = self.authorizer.check_scopes(asked.scopes.as_deref().unwrap_or_default()) {
            let reason = "a scope is the name of an action or of a group of them, or `fn:` and the name of a function";
            return Err(ControlError::invalid("scope", scope, reason));
        }
        let tenant = who.tenant().cloned().filter(|_| who.issuer() == Some(issuer.name()));
        let tenant = tenant.ok_or_else(|| {
            ControlError::invalid("subject_token", "", "only tokens of this node's own issuer are exchanged here")
        })?;
        Ok((tenant, issuer.narrowed(who, asked, self.clock.now().seconds())?))
    }

    /// Makes the token a permit allows. What it would say is compared once more with what its principal has.
    pub(crate) fn issue(&self, who: &Principal, grant: &Grant) -> Result<Value, ControlError> {
        let (tenant, most) = self.grant(who, &Narrowing::default())?;
        let within = |some: &[String], all: &[String]| some.iter().all(|one| all.contains(one));
        let scopes = match (&most.scopes, &grant.scopes) {
            (None, _) => true,
            (Some(all), Some(some)) => scopes_narrow(some, all),
            (Some(_), None) => false,
        };
        let narrower = scopes
            && within(&grant.audiences, &most.audiences)
            && within(&grant.roles, &most.roles)
            && grant.expires <= most.expires
            && grant.authenticated <= most.authenticated;
        let issuer = self.issuer.as_ref().filter(|_| narrower);
        let issuer =
            issuer.ok_or_else(|| ControlError::invalid("token", "", "it would be good for more than asked"))?;
        let snapshot = self.snapshot();
        let tenant = snapshot.tenant(&tenant).ok_or_else(|| ControlError::not_found("tenant", tenant.as_str()))?;
        issuer.token(who.id(), &tenant.name, grant, (self.clock.now().seconds(), &*self.random))
    }

    /// Signs with a new key from now on. The old ones stay published until what they signed has ended, or not at all.
    pub(crate) fn rotate_issuer_key(&self, forget: bool) -> Result<Value, ControlError> {
        let issuer = self.issuer.as_ref().ok_or_else(|| ControlError::not_found("issuer", "of this node"))?;
        let _one = issuer.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.clock.now();
        let (made, before) = self.transact(|tx| {
            let before = tx.issuer_keys()?;
            tx.retire_issuer_keys(now)?;
            let oldest = if forget { now } else { UnixNanos(now.0.saturating_sub(published_until(UnixNanos(0)).0)) };
            tx.forget_issuer_keys(oldest)?;
            Ok((issuer.make(tx, &*self.random, now)?, before))
        })?;
        let kid = made.kid.clone();
        issuer.sign_with(made);
        // The private halves of the others can only do harm from here on.
        for old in before {
            if let Err(error) = std::fs::remove_file(issuer.file(&old.kid))
                && error.kind() != std::io::ErrorKind::NotFound
            {
                tracing::warn!(kid = old.kid, %error, "a retired key of the issuer could not be deleted");
            }
        }
        Ok(json!({ "kid": kid, "forgot": forget }))
    }
}

impl OwnIssuer {
    fn narrowed(&self, who: &Principal, asked: &Narrowing, now: u64) -> Result<Grant, ControlError> {
        let session = who.session().filter(|_| who.credential() == CredentialKind::Jwt);
        let login = who.credential() == CredentialKind::Passphrase;
        if session.is_none() && !login {
            return Err(ControlError::invalid("subject_token", "", "a passphrase or a token is needed"));
        }
        let audiences = session.map_or(&self.config.audiences, |session| &session.audiences);
        let had = session.and_then(|session| session.scopes.as_ref());
        let scopes = match (had, &asked.scopes) {
            (None, None) => None,
            (None, Some(some)) => Some(checked_scopes(some)?),
            (Some(all), None) => Some(all.clone()),
            (Some(all), Some(some)) if scopes_narrow(some, all) => Some(some.clone()),
            (Some(_), Some(some)) => {
                let reason = "a token is exchanged for one that is good for no more; see `fn:` in the docs of scopes";
                return Err(ControlError::invalid("scope", &some.join(" "), reason));
            }
        };
        let most = self.config.token_seconds.min(asked.seconds.unwrap_or(u64::MAX));
        let ends = session.and_then(|session| session.expires).unwrap_or(u64::MAX);
        let expires = now.saturating_add(most).min(ends);
        if expires <= now {
            return Err(ControlError::invalid("expires_in", &most.to_string(), "at least a second is expected"));
        }
        let authenticated = if login { now } else { session.and_then(|session| session.authenticated).unwrap_or(0) };
        Ok(Grant {
            audiences: part("audience", asked.audiences.as_ref(), audiences)?,
            roles: part("roles", asked.roles.as_ref(), who.roles())?,
            scopes,
            authenticated,
            expires,
        })
    }

    fn token(
        &self,
        subject: &str,
        tenant: &str,
        grant: &Grant,
        (now, random): (u64, &dyn Random),
    ) -> Result<Value, ControlError> {
        let signing = self.signing.load_full().ok_or_else(|| ControlError::not_found("key", "of the issuer"))?;
        let mut id = [0u8; 16];
        random.fill(&mut id);
        let header = json!({ "alg": "EdDSA", "typ": "at+jwt", "kid": signing.kid });
        let mut claims = json!({
            "iss": *self.name,
            "aud": grant.audiences,
            "sub": subject,
            "client_id": CLIENT,
            "tenant": tenant,
            "roles": grant.roles,
            "amr": ["pwd"],
            "auth_time": grant.authenticated,
            "iat": now,
            "exp": grant.expires,
            "jti": encode(&id),
        });
        let scope = grant.scopes.as_ref().map(|scopes| scopes.join(" "));
        if let (Some(scope), Value::Object(claims)) = (&scope, &mut claims) {
            claims.insert("scope".into(), scope.as_str().into());
        }
        let signed = format!("{}.{}", encode(header.to_string().as_bytes()), encode(claims.to_string().as_bytes()));
        let signature = encode(signing.pair.sign(signed.as_bytes()).as_ref());
        Ok(json!({
            "access_token": format!("{signed}.{signature}"),
            "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
            "token_type": "Bearer",
            "expires_in": grant.expires.saturating_sub(now),
            "scope": scope,
            "roles": grant.roles,
        }))
    }
}

/// The part asked for of what there is; all of it where nothing is said, never more.
fn part(what: &'static str, asked: Option<&Vec<String>>, all: &[String]) -> Result<Vec<String>, ControlError> {
    let Some(asked) = asked else { return Ok(all.to_vec()) };
    match asked.iter().find(|one| !all.contains(one)) {
        Some(more) => Err(ControlError::invalid(what, more, "whoever asks does not have it: a token can only be less")),
        None => Ok(asked.clone()),
    }
}

fn checked_scopes(scopes: &[String]) -> Result<Vec<String>, ControlError> {
    let plain =
        |scope: &String| (1..=SCOPE_BYTES).contains(&scope.len()) && scope.bytes().all(|b| b.is_ascii_graphic());
    if scopes.len() > SCOPES || !scopes.iter().all(plain) {
        let reason = "up to 64 words of up to 128 printable bytes are expected";
        return Err(ControlError::invalid("scope", &scopes.join(" "), reason));
    }
    Ok(scopes.to_vec())
}
