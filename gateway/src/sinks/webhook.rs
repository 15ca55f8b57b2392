//! A sink behind an HTTPS endpoint.
//!
//! Owns the body and its signature, in the form of Standard Webhooks. Must never take anything but 2xx for an
//! acknowledgement.

use std::sync::Arc;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use cofferdam_model::Clock;
use http::{HeaderMap, Method};
use zeroize::Zeroizing;

use super::About;
use super::batch::{Batch, Item};
use super::config::{Envelope, WebhookConfig};
use super::error::SinkError;
use super::http::{Line, authorize, field};
use crate::credentials;

/// What secrets of Standard Webhooks begin with; base64 follows.
const PREFIX: &str = "whsec_";
/// Bytes of a secret, at least.
const LEAST: usize = 16;

/// The endpoint.
pub(super) struct Webhook {
    config: WebhookConfig,
    line: Line,
    about: About,
    clock: Arc<dyn Clock>,
}

impl Webhook {
    pub(super) fn new(config: WebhookConfig, about: About, clock: Arc<dyn Clock>) -> Result<Self, SinkError> {
        if let Some(file) = &config.secret_file {
            secrets(&credentials::read(file).map_err(SinkError::Credential)?)?;
        }
        authorize(&mut HeaderMap::new(), config.authorization_file.as_deref())?;
        let line = Line::new(&config.url, &config.tls)?;
        Ok(Self { config, line, about, clock })
    }

    pub(super) async fn deliver(&mut self, batch: &Batch) -> Result<(), SinkError> {
        let (kind, body) = match self.config.envelope {
            Envelope::None => ("application/x-ndjson", batch.lines()),
            Envelope::Cloudevents => ("application/cloudevents-batch+json", events(batch, &self.about.origin)),
        };
        let mut headers = HeaderMap::new();
        let (first, last) = batch.ends();
        let id = format!("{}-{first}-{last}", self.about.name);
        let at = self.clock.now().seconds().to_string();
        field(&mut headers, "content-type", kind);
        field(&mut headers, "user-agent", &self.about.agent());
        field(&mut headers, "webhook-id", &id);
        field(&mut headers, "webhook-timestamp", &at);
        if let Some(file) = &self.config.secret_file {
            let keys = secrets(&credentials::read(file).map_err(SinkError::Credential)?)?;
            let signed: Vec<String> = keys.iter().map(|key| signature(key, (&id, &at), &body)).collect();
            field(&mut headers, "webhook-signature", &signed.join(" "));
        }
        authorize(&mut headers, self.config.authorization_file.as_deref())?;
        let path = self.line.target.path.clone();
        let answer = self.line.ask(Method::POST, path, headers, Bytes::from(body)).await?;
        self.line.acknowledged(&answer, |_| String::new())
    }

    pub(super) fn forget(&mut self) {
        self.line.forget();
    }
}

/// The secrets of a file, one a line: two, while one takes the place of the other.
fn secrets(text: &str) -> Result<Vec<Zeroizing<Vec<u8>>>, SinkError> {
    let bad = |why: &str| SinkError::Credential(format!("a secret in `secret_file` {why}"));
    let mut keys = Vec::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let key = match line.strip_prefix(PREFIX) {
            Some(encoded) => STANDARD.decode(encoded).map_err(|_| bad("is no base64 after `whsec_`"))?,
            None => line.as_bytes().to_vec(),
        };
        if key.len() < LEAST {
            return Err(bad("has less than 16 bytes"));
        }
        keys.push(Zeroizing::new(key));
    }
    if keys.is_empty() { Err(bad("is missing: it has no line")) } else { Ok(keys) }
}

/// `v1,` and the HMAC-SHA256 over id, time and body.
fn signature(key: &[u8], (id, at): (&str, &str), body: &[u8]) -> String {
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, key));
    context.update(format!("{id}.{at}.").as_bytes());
    context.update(body);
    format!("v1,{}", STANDARD.encode(context.sign().as_ref()))
}

/// A batch of CloudEvents 1.0, in JSON.
fn events(batch: &Batch, origin: &str) -> Vec<u8> {
    let mut out = vec![b'['];
    for item in &batch.items {
        if out.len() > 1 {
            out.push(b',');
        }
        event(&mut out, item, origin);
    }
    out.push(b']');
    out
}

fn event(out: &mut Vec<u8>, item: &Item, origin: &str) {
    let mut head = serde_json::json!({
        "specversion": "1.0",
        "id": item.index.to_string(),
        "source": format!("//{origin}"),
        "type": format!("dev.cofferdam.audit.{}", item.kind),
        "time": item.at.to_string(),
        "datacontenttype": "application/json",
        "sequence": format!("{:020}", item.index),
    });
    if let (Some(head), Some(request)) = (head.as_object_mut(), &item.request) {
        head.insert("subject".to_owned(), request.as_str().into());
    }
    let head = head.to_string();
    out.extend_from_slice(head.strip_suffix('}').unwrap_or(&head).as_bytes());
    // The record's own bytes, as they are.
    out.extend_from_slice(b",\"data\":");
    out.extend_from_slice(&item.text);
    out.push(b'}');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_are_those_of_standard_webhooks() {
        // The example of the specification's own libraries.
        let keys = secrets("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n").unwrap();
        let body = br#"{"test": 2432232314}"#;
        let made = signature(&keys[0], ("msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330"), body);
        assert_eq!(made, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn secrets_are_read_one_a_line_and_weak_ones_are_refused() {
        assert_eq!(secrets("0123456789abcdef\n\nfedcba9876543210\n").unwrap().len(), 2);
        for bad in ["", "\n", "short", "whsec_AAAA", "whsec_not base64!"] {
            assert!(matches!(secrets(bad), Err(SinkError::Credential(_))), "{bad}");
        }
    }
}
