//! The root key in AWS KMS.
//!
//! Owns its requests, signed, with what a key belongs to as encryption context; and what its refusals mean. Must never
//! send a key without its context, nor open one under another key than the one that wrapped it.

use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use cofferdam_control::vault::{RootError, RootKey, WrapContext, Wrapped};
use cofferdam_model::Clock;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::config::AwsKms;
use super::courier::Courier;
use super::credential;
use super::metadata::Metadata;
use crate::aws::{self, Keys, Scope, stamp};
use crate::client::Answer;
use crate::error::GatewayError;

type KeyBytes = Zeroizing<[u8; 32]>;

const KIND: &str = "application/x-amz-json-1.1";
const PREFIX: &str = "aws-kms:";

/// A key of AWS KMS.
pub(super) struct KmsRoot {
    config: AwsKms,
    courier: Courier,
    /// Where credentials are asked for, unless they are in a file.
    metadata: Option<Metadata>,
    clock: Arc<dyn Clock>,
    host: String,
    /// ARN of the key in use, once KMS said it.
    arn: Mutex<Option<String>>,
}

impl KmsRoot {
    pub(super) fn new(config: AwsKms, clock: Arc<dyn Clock>) -> Result<Self, GatewayError> {
        let courier = Courier::new(config.ca.as_deref(), config.deadline_ms)?;
        let own = format!("https://kms.{}.amazonaws.com", config.region);
        let endpoint = config.endpoint.clone().unwrap_or(own);
        let host = endpoint.trim_start_matches("https://").trim_end_matches('/').to_owned();
        let metadata = match config.credentials_from {
            Some(from) => Some(Metadata::new(from, &config, clock.clone())?),
            None => None,
        };
        Ok(Self { config, courier, metadata, clock, host, arn: Mutex::default() })
    }

    fn ask(&self, what: &str, body: &Value) -> Result<Value, RootError> {
        let keys = self.keys()?;
        let body = Bytes::from(serde_json::to_vec(body).map_err(|error| RootError::Nonsense(error.to_string()))?);
        let (at, target) = (stamp(self.clock.now()), format!("TrentService.{what}"));
        let mut fields = vec![("content-type", KIND), ("host", self.host.as_str()), ("x-amz-date", at.as_str())];
        if let Some(session) = &keys.session {
            fields.push(("x-amz-security-token", session.as_str()));
        }
        fields.push(("x-amz-target", target.as_str()));
        let scope = Scope { at: &at, region: &self.config.region, service: "kms" };
        let authorization = aws::authorization(&keys, &scope, ("POST", "/"), &fields, &body);
        let mut headers = HeaderMap::new();
        let own = fields.iter().filter(|(name, _)| *name != "host");
        for (name, value) in own.copied().chain([("authorization", authorization.as_str())]) {
            let bad = |_| RootError::Refused(format!("`{name}` is no header: look at the credentials"));
            let mut value = HeaderValue::from_str(value).map_err(bad)?;
            value.set_sensitive(["authorization", "x-amz-security-token"].contains(&name));
            headers.insert(HeaderName::from_static(known(name)), value);
        }
        let url = format!("https://{}/", self.host);
        let answer = understood(&self.courier.ask(Method::POST, url, headers, body)?, what);
        if let (Err(RootError::Refused(_)), Some(metadata)) = (&answer, &self.metadata) {
            // They may have been taken back before their time: the next request has them asked for anew.
            metadata.doubt();
        }
        answer
    }

    fn keys(&self) -> Result<Keys, RootError> {
        match (&self.metadata, &self.config.credentials_file) {
            (Some(metadata), _) => metadata.keys(),
            (None, Some(file)) => Keys::read(&credential(file)?, &self.config.profile).map_err(RootError::Refused),
            (None, None) => Err(RootError::Refused("nothing says where the credentials are".into())),
        }
    }

    /// A ciphertext, with the ARN of the key it is by.
    fn wrapped(&self, answer: &Value) -> Result<Wrapped, RootError> {
        let (blob, arn) = (member(answer, "CiphertextBlob")?, member(answer, "KeyId")?);
        let bytes = STANDARD.decode(blob).map_err(|_| nonsense("a ciphertext that is no base64"))?;
        *self.arn.lock().unwrap_or_else(PoisonError::into_inner) = Some(arn.to_owned());
        Ok(Wrapped { root: format!("{PREFIX}{arn}"), bytes })
    }
}

/// Names of the fields that are sent.
fn known(name: &str) -> &'static str {
    match name {
        "content-type" => "content-type",
        "x-amz-date" => "x-amz-date",
        "x-amz-security-token" => "x-amz-security-token",
        "x-amz-target" => "x-amz-target",
        _ => "authorization",
    }
}

fn nonsense(what: &str) -> RootError {
    RootError::Nonsense(what.to_owned())
}

fn member<'a>(answer: &'a Value, name: &str) -> Result<&'a str, RootError> {
    answer.get(name).and_then(Value::as_str).ok_or_else(|| nonsense(&format!("an answer without `{name}`")))
}

fn context(context: &WrapContext<'_>) -> Value {
    Value::Object(context.pairs().into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect())
}

/// What KMS meant. Errors come as 400 with their name in `__type`, which may have a namespace before it.
fn understood(answer: &Answer, what: &str) -> Result<Value, RootError> {
    let parsed: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    if answer.status.is_success() {
        return if parsed.is_object() { Ok(parsed) } else { Err(nonsense("an answer that is no JSON object")) };
    }
    let text = |name: &str| parsed.get(name).and_then(Value::as_str).unwrap_or_default();
    let kind = text("__type").rsplit('#').next().unwrap_or_default();
    let words = [text("message"), text("Message")].concat();
    let words: String = words.chars().filter(|c| !c.is_control()).take(300).collect();
    let said = format!("{what}: status {}: {kind}: {words}", answer.status.as_u16());
    Err(match kind {
        "InvalidCiphertextException" | "IncorrectKeyException" => RootError::WrongKey(said),
        "ThrottlingException"
        | "LimitExceededException"
        | "KMSInternalException"
        | "DependencyTimeoutException"
        | "KeyUnavailableException"
        | "ServiceUnavailable" => RootError::Unavailable(said),
        "AccessDeniedException"
        | "DisabledException"
        | "KMSInvalidStateException"
        | "NotFoundException"
        | "InvalidKeyUsageException"
        | "InvalidGrantTokenException"
        | "UnrecognizedClientException"
        | "InvalidSignatureException"
        | "IncompleteSignatureException"
        | "MissingAuthenticationTokenException"
        | "ExpiredTokenException" => RootError::Refused(said),
        _ if answer.status.is_server_error() => RootError::Unavailable(said),
        _ => RootError::Nonsense(said),
    })
}

impl RootKey for KmsRoot {
    fn describe(&self) -> String {
        format!("aws-kms {} {}", self.host, self.config.key_id)
    }

    fn knows(&self, root: &str) -> bool {
        root.starts_with(PREFIX)
    }

    fn check(&self) -> Result<(), RootError> {
        let answer = self.ask("DescribeKey", &json!({ "KeyId": self.config.key_id }))?;
        let about = answer.get("KeyMetadata").ok_or_else(|| nonsense("an answer without `KeyMetadata`"))?;
        match about.get("KeyState").and_then(Value::as_str) {
            Some("Enabled") => Ok(()),
            Some(state) => Err(RootError::Refused(format!("the key is `{state}`"))),
            None => Err(nonsense("a key without `KeyState`")),
        }
    }

    fn wrap(&self, of: &WrapContext<'_>, key: &KeyBytes) -> Result<Wrapped, RootError> {
        let plaintext = STANDARD.encode(key.as_slice());
        let body = json!({
            "KeyId": self.config.key_id, "Plaintext": plaintext, "EncryptionContext": context(of),
        });
        self.wrapped(&self.ask("Encrypt", &body)?)
    }

    fn unwrap(&self, of: &WrapContext<'_>, wrapped: &Wrapped) -> Result<KeyBytes, RootError> {
        let arn = wrapped.root.trim_start_matches(PREFIX);
        let body = json!({
            "KeyId": arn, "CiphertextBlob": STANDARD.encode(&wrapped.bytes), "EncryptionContext": context(of),
        });
        let answer = self.ask("Decrypt", &body)?;
        let opened = STANDARD.decode(member(&answer, "Plaintext")?).map(Zeroizing::new);
        let opened = opened.map_err(|_| nonsense("a plaintext that is no base64"))?;
        let mut key = Zeroizing::new([0; 32]);
        if opened.len() != key.len() {
            return Err(nonsense("a plaintext of another length"));
        }
        key.copy_from_slice(&opened);
        Ok(key)
    }

    fn rewrap(&self, of: &WrapContext<'_>, wrapped: &Wrapped) -> Result<Option<Wrapped>, RootError> {
        let body = json!({
            "CiphertextBlob": STANDARD.encode(&wrapped.bytes),
            "SourceKeyId": wrapped.root.trim_start_matches(PREFIX),
            "SourceEncryptionContext": context(of),
            "DestinationKeyId": self.config.key_id,
            "DestinationEncryptionContext": context(of),
        });
        // Which generation of its key KMS wrapped with is not to be seen: wrapped anew it is by the one of now.
        self.wrapped(&self.ask("ReEncrypt", &body)?).map(Some)
    }

    fn begin_rotation(&self) -> Result<(), RootError> {
        // Keys are made, and rotated, where they are kept: this only has everything wrapped by the one of now.
        Ok(())
    }

    fn is_current(&self, root: &str) -> bool {
        let arn = self.arn.lock().unwrap_or_else(PoisonError::into_inner);
        arn.as_ref().is_none_or(|arn| root.strip_prefix(PREFIX) == Some(arn))
    }

    fn rotating(&self) -> bool {
        false
    }

    fn end_rotation(&self, destroy: bool) -> Result<(), RootError> {
        let what = "everything is under the key of the configuration; an old one is destroyed in KMS itself \
                    (`ScheduleKeyDeletion`)";
        if destroy { Err(RootError::Unsupported(what.into())) } else { Ok(()) }
    }
}
