//! Keys, and which published ones are taken.
//!
//! Owns the import of a JWK set. A key we could not use for signatures we accept (an encryption key, an unknown type,
//! a secret one, a weak one) is passed over: real sets hold such keys. A set that leaves doubt which key a name
//! means is refused whole. Must never take a key for more than its own words allow.

use std::collections::HashMap;
use std::sync::Arc;

use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::DecodingKey;
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use super::config::Algorithm;
use super::json;

/// Bytes of a key set that are looked at.
pub const JWKS_BYTES: usize = 256 * 1024;
/// Keys in a set, used or not.
const KEYS: usize = 128;
const KID_BYTES: usize = 255;
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;
/// What a key of RSA may sign with, as far as its own words and the declaration allow.
const RSA: &[Algorithm] =
    &[Algorithm::RS256, Algorithm::RS384, Algorithm::RS512, Algorithm::PS256, Algorithm::PS384, Algorithm::PS512];

/// A key that may verify signatures of certain algorithms.
pub(super) struct Key {
    algorithms: Vec<Algorithm>,
    decoding: DecodingKey,
    /// Of the key itself: a key replaced under the same name differs.
    fingerprint: [u8; 32],
}

impl Key {
    /// A secret shared with the issuer.
    pub(super) fn shared(secret: &Zeroizing<Vec<u8>>) -> Self {
        Self {
            algorithms: vec![Algorithm::HS256],
            decoding: DecodingKey::from_secret(secret),
            fingerprint: sha256(&[secret]),
        }
    }

    pub(super) fn may(&self, algorithm: Algorithm) -> bool {
        self.algorithms.contains(&algorithm)
    }

    pub(super) fn is(&self, fingerprint: &[u8; 32]) -> bool {
        self.fingerprint == *fingerprint
    }

    pub(super) fn fingerprint(&self) -> [u8; 32] {
        self.fingerprint
    }

    /// Whether `signature` (base64url) is this key's over `message`.
    pub(super) fn verifies(&self, message: &[u8], signature: &str, algorithm: Algorithm) -> bool {
        self.may(algorithm)
            && jsonwebtoken::crypto::verify(signature, message, &self.decoding, algorithm.primitive()).unwrap_or(false)
    }
}

/// The usable keys of a JWK set, by `kid`.
pub(super) fn import(bytes: &[u8], wanted: &[Algorithm]) -> Result<HashMap<String, Arc<Key>>, &'static str> {
    if bytes.len() > JWKS_BYTES {
        return Err("longer than a key set may be");
    }
    let set = json::object(bytes).map_err(|_| "not a JSON object with each member once")?;
    let listed = set.get("keys").and_then(Value::as_array).ok_or("no array `keys`")?;
    if listed.len() > KEYS {
        return Err("more keys than a set may have");
    }
    let mut keys = HashMap::new();
    for jwk in listed.iter().filter_map(Value::as_object) {
        let Some(kid) = text(jwk, "kid").filter(|kid| (1..=KID_BYTES).contains(&kid.len())) else { continue };
        let Some(key) = usable(jwk, wanted) else {
            tracing::debug!(kid, "published key passed over: not one for signatures accepted here");
            continue;
        };
        if keys.insert(kid.to_owned(), Arc::new(key)).is_some() {
            return Err("two keys with one `kid`");
        }
    }
    if keys.is_empty() { Err("no key in it can verify what this issuer may sign") } else { Ok(keys) }
}

fn usable(jwk: &Map<String, Value>, wanted: &[Algorithm]) -> Option<Key> {
    // A private key that is published proves nothing any more.
    if ["d", "p", "q", "dp", "dq", "qi", "oth", "k"].iter().any(|name| jwk.contains_key(*name)) {
        return None;
    }
    if jwk.get("use").is_some_and(|used| used.as_str() != Some("sig")) {
        return None;
    }
    let verifies = |ops: &Value| ops.as_array().is_some_and(|ops| ops.iter().any(|op| op.as_str() == Some("verify")));
    if jwk.get("key_ops").is_some_and(|ops| !verifies(ops)) {
        return None;
    }
    let (fitting, decoding, fingerprint): (&[Algorithm], _, _) = match (text(jwk, "kty")?, text(jwk, "crv")) {
        ("RSA", None) => {
            let (n, e) = rsa(jwk)?;
            let print = sha256(&[b"rsa", &n, b"/", &e]);
            (RSA, DecodingKey::from_rsa_raw_components(&n, &e), print)
        }
        ("EC", Some("P-256")) => {
            let point = [&[4u8], &*coordinate(jwk, "x", 32)?, &*coordinate(jwk, "y", 32)?].concat();
            (&[Algorithm::ES256], DecodingKey::from_ec_der(&point), sha256(&[b"p256", &point]))
        }
        ("EC", Some("P-384")) => {
            let point = [&[4u8], &*coordinate(jwk, "x", 48)?, &*coordinate(jwk, "y", 48)?].concat();
            (&[Algorithm::ES384], DecodingKey::from_ec_der(&point), sha256(&[b"p384", &point]))
        }
        ("OKP", Some("Ed25519")) => {
            let point = coordinate(jwk, "x", 32)?;
            (&[Algorithm::EdDSA], DecodingKey::from_ed_der(&point), sha256(&[b"ed25519", &point]))
        }
        _ => return None,
    };
    let own = match jwk.get("alg") {
        None => None,
        Some(alg) => Some(alg.as_str().and_then(Algorithm::named)?),
    };
    let algorithms: Vec<_> = fitting
        .iter()
        .filter(|algorithm| wanted.contains(algorithm) && own.is_none_or(|own| own == **algorithm))
        .copied()
        .collect();
    if algorithms.is_empty() { None } else { Some(Key { algorithms, decoding, fingerprint }) }
}

/// Modulus and exponent, if strong enough and of a sane form.
fn rsa(jwk: &Map<String, Value>) -> Option<(Vec<u8>, Vec<u8>)> {
    let n = number(jwk, "n")?;
    let e = number(jwk, "e")?;
    let leading = n.first()?.leading_zeros();
    let bits = (n.len() * 8).checked_sub(usize::try_from(leading).ok()?)?;
    let odd = |number: &[u8]| number.last().is_some_and(|byte| byte & 1 == 1);
    let exponent = e.len() <= 4 && odd(&e) && e != [1];
    (RSA_BITS.contains(&bits) && odd(&n) && exponent).then_some((n, e))
}

/// A big-endian number without leading zeros.
fn number(jwk: &Map<String, Value>, name: &str) -> Option<Vec<u8>> {
    let bytes = URL_SAFE_NO_PAD.decode(text(jwk, name)?).ok()?;
    let start = bytes.iter().position(|byte| *byte != 0)?;
    Some(bytes.get(start..)?.to_vec())
}

/// A coordinate of exactly so many bytes.
fn coordinate(jwk: &Map<String, Value>, name: &str, bytes: usize) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text(jwk, name)?).ok().filter(|found| found.len() == bytes)
}

fn text<'a>(jwk: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    jwk.get(name).and_then(Value::as_str)
}

fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    parts.iter().for_each(|part| context.update(part));
    let mut out = [0u8; 32];
    out.iter_mut().zip(context.finish().as_ref()).for_each(|(to, from)| *to = *from);
    out
}

#[cfg(test)]
mod tests;
