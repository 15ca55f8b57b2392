//! API keys: how they are made, read and checked.
//!
//! Owns the text form `cof_<32: tenant and key id>_<43: 256 random bits>_<6: checksum>` and the MAC that is stored in
//! its place. Must never store, print or compare the secret itself, nor in a time that depends on it.

use std::net::IpAddr;
use std::sync::Arc;

use aws_lc_rs::{digest, hmac};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cofferdam_model::{KeyId, KeyKind, KeySettings, Random, TenantId, UnixNanos};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::revoked::{RevokedBy, Shown};
use super::{Directory, Principal};
use crate::error::{IdentityError, Refusal};

const PREFIX: &str = "cof_";
const BODY: usize = 16;
const SECRET_BYTES: usize = 32;
const SECRET_CHARS: usize = 43;
const CHECKSUM_CHARS: usize = 6;
const TEXT_CHARS: usize = PREFIX.len() + 2 * BODY + 1 + SECRET_CHARS + 1 + CHECKSUM_CHARS;
/// Separates these MACs from everything else the pepper might ever be used for.
const DOMAIN: &[u8] = b"cofferdam api key 1\0";

/// The node's key for MACs of API keys: without it a stolen database neither yields nor admits a key.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct Pepper([u8; 32]);

impl Pepper {
    /// Takes 32 secret random bytes.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    fn key(&self) -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, &self.0)
    }
}

/// The text of a new key, shown once to who asked for it. Wiped on drop; never printed by accident.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct SecretText(String);

impl SecretText {
    pub(super) fn new(text: String) -> Self {
        Self(text)
    }

    /// The text. Whoever calls this is responsible for where it goes.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

/// What is stored of a key.
#[derive(Clone)]
pub struct ApiKeyRecord {
    /// Its id, which names its tenant.
    pub id: KeyId,
    /// The service account it stands for.
    pub account: String,
    /// Roles of that account.
    pub roles: Vec<String>,
    /// What it is good for at most of what these may; all of it where that is not said.
    pub scopes: Option<Arc<[String]>>,
    /// HMAC-SHA-256 under the pepper, as `create` gave it.
    pub mac: [u8; 32],
    /// From this moment on it is refused.
    pub expires: UnixNanos,
    /// Whether it was revoked.
    pub revoked: bool,
    /// What it is, and where and how it may be used.
    pub settings: KeySettings,
}

impl ApiKeyRecord {
    /// Its account, once the key was shown to be genuine, unless something of it was revoked.
    pub(super) fn admit(&self, who: Principal, directory: &dyn Directory) -> Result<Principal, IdentityError> {
        let tenant = self.id.tenant();
        let by =
            if self.revoked { Some(RevokedBy::ApiKey) } else { Shown::account(&tenant, &self.account).by(directory) };
        match by {
            Some(by) => Err(IdentityError::revoked(&who, by)),
            None => Ok(who),
        }
    }

    /// Whether it is good now and from there. A key that is bound to networks is good from nowhere where it cannot be
    /// told.
    pub(super) fn check(&self, source: Option<IpAddr>, now: UnixNanos) -> Result<(), Refusal> {
        if now >= self.expires {
            return Err(Refusal::Expired);
        }
        let there = source.map_or(self.settings.networks.is_empty(), |source| self.settings.allows(source));
        if there { Ok(()) } else { Err(Refusal::Network) }
    }
}

/// Makes a key: its id, the text to show once, and the MAC to store.
pub fn create(tenant: &TenantId, pepper: &Pepper, random: &dyn Random) -> (KeyId, SecretText, [u8; 32]) {
    let id = KeyId::mint(tenant, random);
    let mut secret = Zeroizing::new([0u8; SECRET_BYTES]);
    random.fill(&mut *secret);
    let encoded = Zeroizing::new(URL_SAFE_NO_PAD.encode(secret.as_slice()));
    // The whole size at once, so that no half-written copy is left behind by growing.
    let mut text = String::with_capacity(TEXT_CHARS);
    text.push_str(PREFIX);
    for segment in id.as_str().split('.') {
        text.push_str(segment.rsplit('_').next().unwrap_or_default());
    }
    text.push('_');
    text.push_str(&encoded);
    let sum = checksum(&text);
    text.push('_');
    text.push_str(&sum);
    let tag = hmac::sign(&pepper.key(), &message(&id, &secret));
    let mut mac = [0u8; 32];
    mac.iter_mut().zip(tag.as_ref()).for_each(|(to, from)| *to = *from);
    (id, SecretText(text), mac)
}

/// Checks a key's text against what is stored of it.
pub(super) fn identify(
    text: &str,
    pepper: &Pepper,
    source: Option<IpAddr>,
    directory: &dyn Directory,
    now: UnixNanos,
) -> Result<Principal, IdentityError> {
    let (id, secret) = read(text)?;
    let record = directory.api_key(&id).filter(|record| record.id == id && record.settings.kind == KeyKind::ApiKey);
    // An unknown key costs what a wrong secret costs.
    let expected = record.as_ref().map_or([0u8; 32], |record| record.mac);
    let genuine = hmac::verify(&pepper.key(), &message(&id, &secret), &expected).is_ok();
    let record = record.filter(|_| genuine).ok_or(Refusal::ApiKey)?;
    let (account, key) = (record.account.as_str().into(), id.as_str().into());
    let who = Principal::service_account(account, id.tenant(), record.roles.clone(), key);
    let who = record.admit(who.narrowed(record.scopes.clone()), directory)?;
    record.check(source, now)?;
    Ok(who)
}

/// Takes a text apart by position: base64url may contain `_`, so splitting would not do.
fn read(text: &str) -> Result<(KeyId, Zeroizing<[u8; SECRET_BYTES]>), Refusal> {
    let parts = || -> Option<(&str, &str, &str, &str, &str)> {
        let (rest, sum) = text.strip_prefix(PREFIX)?.rsplit_once('_')?;
        let tenant = rest.get(..BODY)?;
        let key = rest.get(BODY..2 * BODY)?;
        let secret = rest.get(2 * BODY..)?.strip_prefix('_')?;
        let summed = text.get(..text.len() - sum.len() - 1)?;
        Some((tenant, key, secret, sum, summed))
    };
    if text.len() != TEXT_CHARS {
        return Err(Refusal::Malformed);
    }
    let (tenant, key, secret, sum, summed) = parts().ok_or(Refusal::Malformed)?;
    if sum != *checksum(summed) {
        return Err(Refusal::Malformed);
    }
    let id = KeyId::parse(&format!("t_{tenant}.k_{key}")).map_err(|_| Refusal::Malformed)?;
    let decoded = Zeroizing::new(URL_SAFE_NO_PAD.decode(secret).map_err(|_| Refusal::Malformed)?);
    let mut bytes = Zeroizing::new([0u8; SECRET_BYTES]);
    if decoded.len() != SECRET_BYTES {
        return Err(Refusal::Malformed);
    }
    bytes.copy_from_slice(&decoded);
    Ok((id, bytes))
}

/// 24 bits that tell a typing error, or a found text that is no key, from a wrong key. No security rests on it.
fn checksum(text: &str) -> Zeroizing<String> {
    let sum = digest::digest(&digest::SHA256, text.as_bytes());
    Zeroizing::new(sum.as_ref().iter().take(CHECKSUM_CHARS / 2).map(|byte| format!("{byte:02x}")).collect())
}

/// What the MAC is over. The id is part of it, so a MAC cannot be moved to another key's record.
fn message(id: &KeyId, secret: &[u8; SECRET_BYTES]) -> Zeroizing<Vec<u8>> {
    Zeroizing::new([DOMAIN, id.as_str().as_bytes(), b"\0", secret.as_slice()].concat())
}
