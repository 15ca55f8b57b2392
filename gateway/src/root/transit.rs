//! The root key in a transit engine: HashiCorp Vault's, or another server's that speaks its interface.
//!
//! Owns its requests and what its statuses mean. What a key belongs to is wrapped beside it, because the engine's own
//! `rewrap` takes no associated data. Must never ask for the key itself, nor follow where it is sent on to.

use std::sync::atomic::{AtomicU64, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use cofferdam_control::vault::{RootError, RootKey, WrapContext, Wrapped};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use serde_json::{Value, json};
use zeroize::{Zeroize, Zeroizing};

use super::config::Transit;
use super::courier::Courier;
use super::credential;
use crate::client::Answer;
use crate::error::GatewayError;

type KeyBytes = Zeroizing<[u8; 32]>;

/// A key of a transit engine.
pub(super) struct TransitRoot {
    config: Transit,
    courier: Courier,
    /// The newest version of the key that was seen.
    newest: AtomicU64,
}

impl TransitRoot {
    pub(super) fn new(config: Transit) -> Result<Self, GatewayError> {
        let courier = Courier::new(config.ca.as_deref(), config.deadline_ms)?;
        Ok(Self { config, courier, newest: AtomicU64::new(0) })
    }

    /// What its key is called, without a version.
    fn name(&self) -> String {
        format!("vault:{}/{}:v", self.config.mount, self.config.key)
    }

    fn ask(&self, what: &str, body: &Value) -> Result<Value, RootError> {
        let Transit { address, mount, key, namespace, token_file, .. } = &self.config;
        let url = match what {
            "rotate" => format!("{}/v1/{mount}/keys/{key}/rotate", address.trim_end_matches('/')),
            what => format!("{}/v1/{mount}/{what}/{key}", address.trim_end_matches('/')),
        };
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert("x-vault-request", HeaderValue::from_static("true"));
        let token = credential(token_file)?;
        let bad = |_| RootError::Refused("the token's file does not hold one line with a token".into());
        let mut token = HeaderValue::from_str(token.trim()).map_err(bad)?;
        token.set_sensitive(true);
        headers.insert("x-vault-token", token);
        if let Some(namespace) = namespace {
            let bad = |_| RootError::Refused("the namespace is no header".into());
            headers.insert("x-vault-namespace", HeaderValue::from_str(namespace).map_err(bad)?);
        }
        let body = serde_json::to_vec(body).map_err(|error| RootError::Nonsense(error.to_string()))?;
        let answer = self.courier.ask(Method::POST, url, headers, Bytes::from(body))?;
        understood(&answer, what)
    }

    /// A ciphertext of the engine, which says by which version of the key it is.
    fn wrapped(&self, answer: &Value) -> Result<Wrapped, RootError> {
        let text = member(answer, "ciphertext")?;
        let version = version(text.as_bytes()).ok_or_else(|| nonsense("a ciphertext without a version"))?;
        self.newest.fetch_max(version, Ordering::Relaxed);
        Ok(Wrapped { root: format!("{}{version}", self.name()), bytes: text.as_bytes().to_vec() })
    }
}

fn version(ciphertext: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(ciphertext).ok()?;
    text.strip_prefix("vault:v")?.split_once(':')?.0.parse().ok()
}

fn nonsense(what: &str) -> RootError {
    RootError::Nonsense(what.to_owned())
}

fn member<'a>(answer: &'a Value, name: &str) -> Result<&'a str, RootError> {
    let found = answer.get("data").and_then(|data| data.get(name)).and_then(Value::as_str);
    found.ok_or_else(|| nonsense(&format!("an answer without `{name}`")))
}

/// What the server meant. Its words are for operators: they never hold what was sent.
fn understood(answer: &Answer, what: &str) -> Result<Value, RootError> {
    let parsed: Value = match serde_json::from_slice(&answer.body) {
        Ok(parsed) => parsed,
        Err(_) if answer.body.is_empty() => Value::Null,
        Err(_) if answer.status.is_success() => return Err(nonsense("an answer that is no JSON")),
        Err(_) => Value::Null,
    };
    if answer.status.is_success() {
        return Ok(parsed);
    }
    let words: Vec<&str> =
        parsed.get("errors").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
    let words: String = words.join("; ").chars().filter(|c| !c.is_control()).take(300).collect();
    let said = format!("{what}: status {}: {words}", answer.status.as_u16());
    Err(match answer.status {
        StatusCode::BAD_REQUEST if what == "encrypt" => RootError::Refused(said),
        StatusCode::BAD_REQUEST => RootError::WrongKey(said),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND => RootError::Refused(said),
        // Sealed, standing by, or too busy.
        status if status.is_server_error() || status.is_redirection() => RootError::Unavailable(said),
        StatusCode::TOO_MANY_REQUESTS | StatusCode::PRECONDITION_FAILED => RootError::Unavailable(said),
        status if status.as_u16() == 472 || status.as_u16() == 473 => RootError::Unavailable(said),
        _ => RootError::Nonsense(said),
    })
}

impl RootKey for TransitRoot {
    fn describe(&self) -> String {
        format!("vault {} {}/{}", self.config.address, self.config.mount, self.config.key)
    }

    fn knows(&self, root: &str) -> bool {
        root.strip_prefix(&self.name()).is_some_and(|version| version.parse::<u64>().is_ok())
    }

    fn check(&self) -> Result<(), RootError> {
        // A server may be there, and unsealed, and still not let us: both ways are tried, with nothing worth wrapping.
        let probe = STANDARD.encode([0; 32]);
        let wrapped = self.wrapped(&self.ask("encrypt", &json!({ "plaintext": probe }))?)?;
        let ciphertext = String::from_utf8_lossy(&wrapped.bytes).into_owned();
        let opened = self.ask("decrypt", &json!({ "ciphertext": ciphertext }))?;
        if member(&opened, "plaintext")? == probe { Ok(()) } else { Err(nonsense("another plaintext than was sent")) }
    }

    fn wrap(&self, context: &WrapContext<'_>, key: &KeyBytes) -> Result<Wrapped, RootError> {
        let plaintext = Zeroizing::new([context.digest().as_slice(), key.as_slice()].concat());
        let mut body = json!({ "plaintext": STANDARD.encode(plaintext.as_slice()) });
        let answer = self.ask("encrypt", &body);
        wipe(&mut body);
        self.wrapped(&answer?)
    }

    fn unwrap(&self, context: &WrapContext<'_>, wrapped: &Wrapped) -> Result<KeyBytes, RootError> {
        let ciphertext = std::str::from_utf8(&wrapped.bytes).map_err(|_| nonsense("a ciphertext that is no text"))?;
        let mut answer = self.ask("decrypt", &json!({ "ciphertext": ciphertext }))?;
        let opened = STANDARD.decode(member(&answer, "plaintext")?).map(Zeroizing::new);
        wipe(&mut answer);
        let opened = opened.map_err(|_| nonsense("a plaintext that is no base64"))?;
        let (digest, rest) =
            opened.split_first_chunk::<32>().ok_or_else(|| nonsense("a plaintext that is too short"))?;
        let mut key = Zeroizing::new([0; 32]);
        if rest.len() != key.len() {
            return Err(nonsense("a plaintext of another length"));
        }
        if *digest != context.digest() {
            return Err(RootError::WrongKey("it belongs to another tenant, or to another of its keys".into()));
        }
        key.copy_from_slice(rest);
        Ok(key)
    }

    fn rewrap(&self, _: &WrapContext<'_>, wrapped: &Wrapped) -> Result<Option<Wrapped>, RootError> {
        let ciphertext = std::str::from_utf8(&wrapped.bytes).map_err(|_| nonsense("a ciphertext that is no text"))?;
        let again = self.wrapped(&self.ask("rewrap", &json!({ "ciphertext": ciphertext }))?)?;
        Ok((again.root != wrapped.root).then_some(again))
    }

    fn begin_rotation(&self) -> Result<(), RootError> {
        self.ask("rotate", &json!({})).map(drop)
    }

    fn is_current(&self, root: &str) -> bool {
        let version = root.strip_prefix(&self.name()).and_then(|version| version.parse::<u64>().ok());
        version.is_some_and(|version| version >= self.newest.load(Ordering::Relaxed))
    }

    fn rotating(&self) -> bool {
        false
    }

    fn end_rotation(&self, destroy: bool) -> Result<(), RootError> {
        // Which versions may still be opened with is the engine's `min_decryption_version`, set by who keeps it.
        let what = "everything is under the new version; old ones are destroyed in the vault itself: raise the key's \
                    `min_decryption_version` and trim it";
        if destroy { Err(RootError::Unsupported(what.into())) } else { Ok(()) }
    }
}

/// Wipes the text of a request or an answer that held a key.
fn wipe(value: &mut Value) {
    match value {
        Value::String(text) => text.zeroize(),
        Value::Object(members) => members.values_mut().for_each(wipe),
        Value::Array(items) => items.iter_mut().for_each(wipe),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}
