//! A sink that is a bucket of S3, or of another store with its interface.
//!
//! Owns the names of objects and the requests, signed. Objects are only ever made: one that is there already is
//! compared, by its digest. Must never replace one with other content, and never sign a body it does not name.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use cofferdam_model::Clock;
use http::{HeaderMap, Method, StatusCode, Uri};

use super::batch::Batch;
use super::config::S3Config;
use super::error::SinkError;
use super::http::{Answer, Line, field, secret_field};
use crate::aws::{self, Keys, Scope};
use crate::credentials;
use crate::error::GatewayError;

/// Where an object's digest is, beside its content.
const DIGEST: &str = "x-amz-meta-sha256";
/// Characters of an error's name.
const CODE: usize = 60;

/// The bucket.
pub(super) struct S3 {
    config: S3Config,
    line: Line,
    clock: Arc<dyn Clock>,
    /// What paths begin with.
    base: String,
}

impl S3 {
    pub(super) fn new(config: S3Config, clock: Arc<dyn Clock>) -> Result<Self, SinkError> {
        let (url, base) = match &config.endpoint {
            Some(endpoint) => (endpoint.clone(), format!("/{}/", config.bucket)),
            // A name with dots is in no certificate of theirs.
            None if config.bucket.contains('.') => {
                (format!("https://s3.{}.amazonaws.com", config.region), format!("/{}/", config.bucket))
            }
            None => (format!("https://{}.s3.{}.amazonaws.com", config.bucket, config.region), "/".to_owned()),
        };
        let sink = Self { line: Line::new(&url, &config.tls)?, config, clock, base };
        sink.keys()?;
        Ok(sink)
    }

    fn keys(&self) -> Result<Keys, SinkError> {
        let text = credentials::read(&self.config.credentials_file).map_err(SinkError::Credential)?;
        Keys::read(&text, &self.config.profile).map_err(SinkError::Credential)
    }

    pub(super) async fn deliver(&mut self, batch: &Batch) -> Result<(), SinkError> {
        let body = Bytes::from(batch.lines());
        let (first, last) = batch.ends();
        let key = format!("{}{first:020}-{last:020}.jsonl", self.config.prefix);
        let digest = aws::sha256(&body);
        let raw = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &body);
        let checksum = STANDARD.encode(raw.as_ref());
        let mut fields = vec![
            ("content-type", "application/x-ndjson".to_owned()),
            ("x-amz-checksum-sha256", checksum),
            (DIGEST, digest.clone()),
        ];
        if self.config.conditional {
            fields.push(("if-none-match", "*".to_owned()));
        }
        let answer = self.ask((Method::PUT, &key), fields, body).await?;
        if self.config.conditional && answer.status == StatusCode::PRECONDITION_FAILED {
            return self.compare(&key, &digest).await;
        }
        self.line.acknowledged(&answer, code)
    }

    /// An object of the name is there: ours, of a time when its acknowledgement got lost, or somebody else's.
    async fn compare(&mut self, key: &str, digest: &str) -> Result<(), SinkError> {
        let answer = self.ask((Method::HEAD, key), Vec::new(), Bytes::new()).await?;
        self.line.acknowledged(&answer, code)?;
        let found = answer.headers.get(DIGEST).and_then(|value| value.to_str().ok());
        if found == Some(digest) { Ok(()) } else { Err(SinkError::Occupied { key: key.to_owned() }) }
    }

    async fn ask(
        &mut self,
        (method, key): (Method, &str),
        mut fields: Vec<(&'static str, String)>,
        body: Bytes,
    ) -> Result<Answer, SinkError> {
        let (keys, at) = (self.keys()?, aws::stamp(self.clock.now()));
        let host = self.line.target.authority.clone();
        fields.push(("x-amz-date", at.clone()));
        fields.push(("x-amz-content-sha256", aws::sha256(&body)));
        let path = format!("{}{key}", self.base);
        let mut signed: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
        signed.push(("host", &host));
        if let Some(session) = &keys.session {
            signed.push(("x-amz-security-token", session));
        }
        signed.sort_unstable();
        let scope = Scope { at: &at, region: &self.config.region, service: "s3" };
        let authorization = aws::authorization(&keys, &scope, (method.as_str(), &path), &signed, &body);
        let mut headers = HeaderMap::new();
        fields.iter().for_each(|(name, value)| field(&mut headers, name, value));
        headers.insert(http::header::AUTHORIZATION, secret_field(&authorization, "a signature")?);
        if let Some(session) = &keys.session {
            headers.insert("x-amz-security-token", secret_field(session, "`aws_session_token`")?);
        }
        let bad = |_| GatewayError::Url { url: path.clone(), reason: "it is malformed" };
        let uri: Uri = path.parse().map_err(bad)?;
        self.line.ask(method, uri, headers, body).await
    }

    pub(super) fn forget(&mut self) {
        self.line.forget();
    }
}

/// The name of an error, out of its XML: letters alone, so that nothing else gets from there to the log.
fn code(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let found = text.split_once("<Code>").and_then(|(_, rest)| rest.split_once("</Code>"));
    found.map_or("", |(code, _)| code).chars().filter(char::is_ascii_alphanumeric).take(CODE).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_errors_name_is_letters_alone() {
        assert_eq!(code(b"<?xml?><Error><Code>NoSuchBucket</Code><Message>x</Message></Error>"), "NoSuchBucket");
        assert_eq!(code(b"<Code>a b\n\x1b[31m</Code>"), "ab31m");
        assert_eq!(code(b"<Code>never ended"), "");
        assert_eq!(code(b"\xff\xfe"), "");
    }
}
