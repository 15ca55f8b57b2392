//! AWS Signature Version 4: machines that sign each request with an access key.
//!
//! Owns what a signature must be over and how long it is good: the whole request, named key, day, region and service,
//! a quarter of an hour to either side, once where the method changes something. Must never take a part of a request
//! for signed that is not, and never keep a key's secret beyond the check.

mod canonical;
mod seen;

use std::error::Error;
use std::pin::Pin;
use std::sync::Arc;

use aws_lc_rs::{digest, hmac};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cofferdam_model::{Bound, CredentialKind, KeyId, KeyKind, Random, TenantId, UnixNanos};
use serde::Deserialize;
use zeroize::Zeroizing;

pub use self::canonical::SignedRequest;

use self::canonical::{Parameter, SIGNED_FIELDS};
use self::seen::{Seen, Shown};
use super::api_key::ApiKeyRecord;
use super::{Directory, Principal, SecretText};
use crate::error::{IdentityError, Refusal};

const ALGORITHM: &str = "AWS4-HMAC-SHA256";
const TERMINATOR: &str = "aws4_request";
/// Clocks may differ by this much, and a signature in a header is good for as long.
const WINDOW_SECONDS: u64 = 15 * 60;
/// A week, as with AWS.
const PRESIGNED_MOST: u64 = 7 * 24 * 60 * 60;
const KEY_PREFIX: &str = "COFK";
const KEY_BODY: usize = 16;
const UNSIGNED: &[u8] = b"UNSIGNED-PAYLOAD";

/// Parameters by which a query is a credential, whatever else it has.
const MARKS: [&str; 3] = ["x-amz-signature", "x-amz-algorithm", "x-amz-credential"];
/// All parameters of a signature in a query, as they must be spelled.
const PARAMETERS: [&str; 6] =
    ["X-Amz-Algorithm", "X-Amz-Credential", "X-Amz-Date", "X-Amz-Expires", "X-Amz-SignedHeaders", "X-Amz-Signature"];
const CONTENT: &str = "X-Amz-Content-Sha256";
const SESSION: &str = "X-Amz-Security-Token";

/// Which signatures are taken.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Sigv4Config {
    /// Names of the service that requests may be signed for.
    pub services: Vec<String>,
    /// Names of the regions.
    pub regions: Vec<String>,
    /// The longest a presigned URL may be good for.
    pub presigned_seconds: u64,
}

impl Default for Sigv4Config {
    fn default() -> Self {
        Self {
            services: ["execute-api", "lambda"].map(str::to_owned).to_vec(),
            regions: vec!["us-east-1".to_owned()],
            presigned_seconds: 3600,
        }
    }
}

impl Sigv4Config {
    /// What is wrong with it, if anything is: the setting, and what to write.
    pub fn problem(&self) -> Option<(&'static str, &'static str)> {
        let name = |text: &String| {
            (1..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        };
        let good = |names: &[String]| (1..=32).contains(&names.len()) && names.iter().all(name);
        if !good(&self.services) {
            return Some(("services", "name 1 to 32, each of letters, digits and `-`, as in `execute-api`"));
        }
        if !good(&self.regions) {
            return Some(("regions", "name 1 to 32, each of letters, digits and `-`, as in `us-east-1`"));
        }
        let presigned = (1..=PRESIGNED_MOST).contains(&self.presigned_seconds);
        (!presigned).then_some(("presigned_seconds", "write 1 to 604800, which is a week"))
    }
}

/// A secret on its way: none where there is no such key or what is stored of it cannot be opened; an error where that
/// cannot be told now.
pub type Secret<'a> =
    Pin<Box<dyn Future<Output = Result<Option<Zeroizing<Vec<u8>>>, Box<dyn Error + Send + Sync>>> + Send + 'a>>;

/// What gives the secret of an access key, for the moment of a check.
pub trait AccessSecrets: Send + Sync {
    /// The secret, opened now. Must not hold a thread while a key for that is asked for elsewhere.
    fn access_secret<'a>(&'a self, key: &'a KeyId) -> Secret<'a>;
}

/// The body that a signature is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Payload {
    /// One of this digest, which the request names: it can be checked while the body comes.
    Digest([u8; 32]),
    /// Any: the request says it is not signed, and the key may do that.
    Unsigned,
    /// The one that comes: its digest must be known before the signature can be checked.
    Unknown,
}

/// A signed request as far as it can be checked without its body. No principal yet.
#[derive(Debug)]
pub struct Claim {
    key: KeyId,
    /// Of the signature: when, for what, and which.
    date: u64,
    until: u64,
    stamp: String,
    scope: Scope,
    signature: [u8; 32],
    canonical: Vec<u8>,
    payload: Payload,
    repeatable: bool,
}

#[derive(Debug)]
struct Scope {
    day: String,
    region: String,
    service: String,
}

impl Claim {
    /// What body the signature is over.
    pub fn payload(&self) -> Payload {
        self.payload
    }
}

/// The parts of a signature, wherever they stood.
struct Parts<'a> {
    credential: &'a str,
    signed: &'a str,
    signature: &'a str,
    stamp: &'a str,
    expires: Option<&'a str>,
    content: Option<&'a [u8]>,
}

/// What checks signatures.
pub(super) struct Sigv4 {
    config: Sigv4Config,
    secrets: Arc<dyn AccessSecrets>,
    seen: Seen,
    /// What was shown before that, nobody here remembers.
    started: u64,
}

/// Makes an access key: its id, the id as clients write it, and the secret to seal and to show once.
pub fn create(tenant: &TenantId, random: &dyn Random) -> (KeyId, String, SecretText) {
    let id = KeyId::mint(tenant, random);
    let mut secret = Zeroizing::new([0u8; 32]);
    random.fill(&mut *secret);
    let text = access_key_id(&id);
    (id, text, SecretText::new(URL_SAFE_NO_PAD.encode(secret.as_slice())))
}

/// The id of an access key as clients write it: `COFK` and 32 capitals and digits.
pub fn access_key_id(key: &KeyId) -> String {
    let bodies = key.as_str().split('.').map(|segment| segment.rsplit('_').next().unwrap_or_default());
    std::iter::once(KEY_PREFIX.to_owned()).chain(bodies.map(str::to_ascii_uppercase)).collect()
}

fn key_id(text: &str) -> Option<KeyId> {
    let body = text.strip_prefix(KEY_PREFIX).filter(|body| body.len() == 2 * KEY_BODY && body.is_ascii())?;
    if body.bytes().any(|byte| byte.is_ascii_lowercase()) {
        return None;
    }
    let (tenant, key) = body.split_at_checked(KEY_BODY)?;
    KeyId::parse(&format!("t_{}.k_{}", tenant.to_ascii_lowercase(), key.to_ascii_lowercase())).ok()
}

/// Whether an `authorization` field is a signature of this kind.
pub fn in_field(value: &[u8]) -> bool {
    value.get(..ALGORITHM.len()).is_some_and(|scheme| scheme.eq_ignore_ascii_case(ALGORITHM.as_bytes()))
}

/// Whether a query is a credential of this kind, or looks like one.
pub fn in_query(query: Option<&str>) -> bool {
    query.is_some_and(|query| canonical::names_parameter(query, &MARKS))
}

/// A query without what of it is a credential, so that nobody behind the check can show it again.
pub fn without_credential(query: &str) -> Option<String> {
    let mut names: Vec<&str> = PARAMETERS.to_vec();
    names.extend([CONTENT, SESSION]);
    let kept: Vec<_> = query.split('&').filter(|pair| !canonical::names_parameter(pair, &names)).collect();
    (!kept.is_empty()).then(|| kept.join("&"))
}

impl Sigv4 {
    pub(super) fn new(config: Sigv4Config, secrets: Arc<dyn AccessSecrets>, now: UnixNanos) -> Self {
        Self { config, secrets, seen: Seen::default(), started: now.seconds() }
    }

    /// Reads a signature and all it must be over.
    pub(super) fn read(&self, request: &SignedRequest<'_>, now: UnixNanos) -> Result<Claim, Refusal> {
        let parameters = canonical::parameters(request.query)?;
        let field = request.only("authorization")?;
        let parts = match (field, in_query(request.query)) {
            (Some(_), true) => return Err(Refusal::TwoCredentials),
            (Some(field), false) => from_field(request, &parameters, field)?,
            (None, _) => from_query(request, &parameters)?,
        };
        let (key, scope) = self.credential(parts.credential)?;
        let (date, until) = self.times(&parts, &scope, now.seconds())?;
        let signed = signed_fields(request, parts.signed)?;
        let kept: Vec<_> = parameters.iter().filter(|one| one.name != b"X-Amz-Signature").cloned().collect();
        let canonical = canonical::head(request, &kept, &signed, scope.service != "s3")?;
        Ok(Claim {
            key,
            date,
            until,
            stamp: parts.stamp.to_owned(),
            signature: hex(parts.signature.as_bytes()).ok_or(Refusal::Malformed)?,
            canonical,
            payload: payload(parts.content)?,
            repeatable: matches!(request.method, "GET" | "HEAD" | "OPTIONS"),
            scope,
        })
    }

    /// `key/day/region/service/aws4_request`, for a region and a service of ours.
    fn credential(&self, text: &str) -> Result<(KeyId, Scope), Refusal> {
        let parts: Vec<_> = text.split('/').collect();
        let [key, day, region, service, TERMINATOR] = parts[..] else { return Err(Refusal::Malformed) };
        let listed = |names: &[String], name: &str| names.iter().any(|known| known == name);
        if !listed(&self.config.regions, region) || !listed(&self.config.services, service) {
            return Err(Refusal::Scope);
        }
        let key = key_id(key).ok_or(Refusal::ApiKey)?;
        Ok((key, Scope { day: day.to_owned(), region: region.to_owned(), service: service.to_owned() }))
    }

    /// From when on a signature counts, and the first second in which it does no more.
    fn times(&self, parts: &Parts<'_>, scope: &Scope, now: u64) -> Result<(u64, u64), Refusal> {
        let date = instant(parts.stamp).ok_or(Refusal::Malformed)?;
        if parts.stamp.get(..8) != Some(&scope.day) {
            return Err(Refusal::Scope);
        }
        let until = match parts.expires {
            None => date.saturating_add(WINDOW_SECONDS),
            Some(text) => {
                let plain = (1..=6).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
                let seconds = text.parse::<u64>().ok().filter(|seconds| plain && *seconds > 0);
                let seconds = seconds.ok_or(Refusal::Malformed)?;
                if seconds > self.config.presigned_seconds {
                    return Err(Refusal::Lifetime);
                }
                date.saturating_add(seconds)
            }
        };
        if now >= until {
            return Err(Refusal::Expired);
        }
        if date > now.saturating_add(WINDOW_SECONDS) {
            return Err(Refusal::NotYetValid);
        }
        Ok((date, until))
    }

    /// The secret that a signature has to be made with.
    pub(super) async fn secret(&self, record: &ApiKeyRecord) -> Result<Zeroizing<Vec<u8>>, IdentityError> {
        match self.secrets.access_secret(&record.id).await {
            Ok(secret) => Ok(secret.ok_or(Refusal::ApiKey)?),
            Err(cause) => Err(IdentityError::Sealed { key: record.id.clone(), cause }),
        }
    }

    /// Checks the signature, and makes sure that what changes something is done once.
    pub(super) fn prove(
        &self,
        claim: &Claim,
        body: Option<[u8; 32]>,
        (record, secret): (&ApiKeyRecord, &[u8]),
        now: UnixNanos,
    ) -> Result<(), IdentityError> {
        let digest = match (claim.payload, body) {
            (Payload::Digest(named), _) => lower_hex(&named),
            (Payload::Unsigned, _) => String::from_utf8_lossy(UNSIGNED).into_owned(),
            (Payload::Unknown, Some(of_body)) => lower_hex(&of_body),
            (Payload::Unknown, None) => return Err(Refusal::Claims.into()),
        };
        let canonical = sha256(&[&claim.canonical, digest.as_bytes()]);
        let Scope { day, region, service } = &claim.scope;
        let text =
            format!("{ALGORITHM}\n{}\n{day}/{region}/{service}/{TERMINATOR}\n{}", claim.stamp, lower_hex(&canonical));
        let key = signing_key(secret, &claim.scope);
        hmac::verify(&key, text.as_bytes(), &claim.signature).map_err(|_| Refusal::Signature)?;
        if claim.payload == Payload::Unsigned && !record.settings.unsigned_payload {
            return Err(Refusal::Claims.into());
        }
        if claim.repeatable {
            return Ok(());
        }
        if claim.date < self.started {
            return Err(Refusal::Replay.into());
        }
        match self.seen.show(&record.id.tenant(), &claim.signature, claim.until, now.seconds()) {
            Shown::First => Ok(()),
            Shown::Again => Err(Refusal::Replay.into()),
            Shown::NoRoom => Err(IdentityError::Overloaded),
        }
    }
}

/// Who the key of a claim is, if it still is anybody.
pub(super) fn account(claim: &Claim, directory: &dyn Directory) -> Result<Arc<ApiKeyRecord>, Refusal> {
    let record = directory.api_key(&claim.key).filter(|record| record.id == claim.key);
    record.filter(|record| record.settings.kind == KeyKind::Sigv4).ok_or(Refusal::ApiKey)
}

pub(super) fn principal(record: &ApiKeyRecord) -> Principal {
    let (account, key) = (record.account.as_str().into(), record.id.as_str().into());
    let shown = (CredentialKind::Sigv4, Bound::Sigv4);
    Principal::machine(account, record.id.tenant(), record.roles.clone(), key, shown).narrowed(record.scopes.clone())
}

/// A signature from `authorization`.
fn from_field<'a>(
    request: &'a SignedRequest<'_>,
    parameters: &'a [Parameter],
    field: &'a [u8],
) -> Result<Parts<'a>, Refusal> {
    let of_query = |one: &Parameter| PARAMETERS.iter().chain([&SESSION]).any(|name| is_named(one, name));
    if parameters.iter().any(of_query) {
        return Err(Refusal::TwoCredentials);
    }
    let text = std::str::from_utf8(field).map_err(|_| Refusal::Malformed)?;
    let listed = text.strip_prefix(ALGORITHM).and_then(|rest| rest.strip_prefix(' ')).ok_or(Refusal::Malformed)?;
    let mut found = [None; 3];
    for part in listed.split(',') {
        let (name, value) = part.trim_matches(' ').split_once('=').ok_or(Refusal::Malformed)?;
        let names = ["Credential", "SignedHeaders", "Signature"];
        let place = names.iter().position(|known| *known == name).and_then(|at| found.get_mut(at));
        if place.ok_or(Refusal::Malformed)?.replace(value).is_some() {
            return Err(Refusal::Malformed);
        }
    }
    let [Some(credential), Some(signed), Some(signature)] = found else { return Err(Refusal::Malformed) };
    let stamp =
        request.only("x-amz-date")?.and_then(|date| std::str::from_utf8(date).ok()).ok_or(Refusal::Malformed)?;
    let content = request.only("x-amz-content-sha256")?;
    Ok(Parts { credential, signed, signature, stamp, expires: None, content })
}

/// A signature from the query of a presigned URL.
fn from_query<'a>(request: &'a SignedRequest<'_>, parameters: &'a [Parameter]) -> Result<Parts<'a>, Refusal> {
    let one = |wanted: &str| -> Result<Option<&'a [u8]>, Refusal> {
        let mut found = parameters.iter().filter(|one| is_named(one, wanted));
        match (found.next(), found.next()) {
            (None, _) => Ok(None),
            // Another spelling is another parameter to some, and the same to others.
            (Some(first), None) if first.name == wanted.as_bytes() => Ok(Some(&first.value)),
            _ => Err(Refusal::Malformed),
        }
    };
    let text = |wanted: &str| -> Result<&'a str, Refusal> {
        one(wanted)?.and_then(|value| std::str::from_utf8(value).ok()).ok_or(Refusal::Malformed)
    };
    let mut texts = [""; 6];
    for (place, name) in texts.iter_mut().zip(PARAMETERS) {
        *place = text(name)?;
    }
    let [ALGORITHM, credential, stamp, expires, signed, signature] = texts else { return Err(Refusal::Malformed) };
    if one(SESSION)?.is_some() || request.only("x-amz-date")?.is_some() {
        return Err(Refusal::TwoCredentials);
    }
    let content = match (one(CONTENT)?, request.only("x-amz-content-sha256")?) {
        (Some(_), Some(_)) => return Err(Refusal::Malformed),
        (query, field) => query.or(field),
    };
    Ok(Parts { credential, signed, signature, stamp, expires: Some(expires), content })
}

fn is_named(one: &Parameter, name: &str) -> bool {
    one.name.eq_ignore_ascii_case(name.as_bytes())
}

/// The names of the fields signed, if they are all that have to be.
fn signed_fields<'a>(request: &SignedRequest<'_>, text: &'a str) -> Result<Vec<&'a str>, Refusal> {
    let names: Vec<_> = text.split(';').collect();
    let good = |name: &&str| !name.is_empty() && !name.bytes().any(|byte| byte.is_ascii_uppercase() || byte <= b' ');
    let rising = names.windows(2).all(|pair| matches!(pair, [first, second] if first < second));
    if names.len() > SIGNED_FIELDS || !names.iter().all(good) || !rising {
        return Err(Refusal::Malformed);
    }
    let must = |name: &str| name == "host" || name == "content-type" || name.starts_with("x-amz-");
    let left_out = |name: &str| must(name) && !names.contains(&name);
    if !names.contains(&"host") || request.fields.iter().any(|(name, _)| left_out(name)) {
        return Err(Refusal::Unsigned);
    }
    // Temporary credentials are of sessions, which there are none of here.
    if names.contains(&"x-amz-security-token") {
        return Err(Refusal::TwoCredentials);
    }
    Ok(names)
}

fn payload(content: Option<&[u8]>) -> Result<Payload, Refusal> {
    match content {
        None => Ok(Payload::Unknown),
        Some(UNSIGNED) => Ok(Payload::Unsigned),
        Some(text) => hex(text).map(Payload::Digest).ok_or(Refusal::Malformed),
    }
}

/// `20261120T103800Z` in seconds since 1970.
fn instant(stamp: &str) -> Option<u64> {
    let digits = |from: usize, to: usize| stamp.get(from..to).filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
    let (year, month, day) = (digits(0, 4)?, digits(4, 6)?, digits(6, 8)?);
    let (hour, minute, second) = (digits(9, 11)?, digits(11, 13)?, digits(13, 15)?);
    if stamp.len() != 16 || stamp.get(8..9) != Some("T") || stamp.get(15..) != Some("Z") || second == "60" {
        return None;
    }
    UnixNanos::parse(&format!("{year}-{month}-{day}T{hour}:{minute}:{second}Z")).map(UnixNanos::seconds)
}

fn signing_key(secret: &[u8], scope: &Scope) -> hmac::Key {
    let prefixed = Zeroizing::new([b"AWS4".as_slice(), secret].concat());
    let mut key = hmac::Key::new(hmac::HMAC_SHA256, &prefixed);
    for part in [scope.day.as_str(), &scope.region, &scope.service, TERMINATOR] {
        let tag = hmac::sign(&key, part.as_bytes());
        key = hmac::Key::new(hmac::HMAC_SHA256, tag.as_ref());
    }
    key
}

fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    parts.iter().for_each(|part| context.update(part));
    let mut out = [0u8; 32];
    out.iter_mut().zip(context.finish().as_ref()).for_each(|(to, from)| *to = *from);
    out
}

fn lower_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Exactly 64 digits, none of them a capital: another spelling is another text.
fn hex(text: &[u8]) -> Option<[u8; 32]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    if text.len() != 64 {
        return None;
    }
    let mut out = [0u8; 32];
    for (to, pair) in out.iter_mut().zip(text.chunks_exact(2)) {
        let [high, low] = pair else { return None };
        *to = digit(*high)? << 4 | digit(*low)?;
    }
    Some(out)
}

#[cfg(test)]
mod tests;
