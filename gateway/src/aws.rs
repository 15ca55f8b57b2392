//! AWS Signature Version 4, as far as requests of our own need it: to KMS, and to S3.
//!
//! Owns the canonical request, the signature over it, and the form of credentials' files. Must never sign what it was
//! not given in full: there is no unsigned payload here.

use std::collections::HashMap;

use aws_lc_rs::{digest, hmac};
use cofferdam_model::UnixNanos;
use zeroize::Zeroizing;

/// Credentials of an AWS principal.
#[derive(Clone)]
pub(crate) struct Keys {
    pub(crate) access: String,
    pub(crate) secret: Zeroizing<String>,
    pub(crate) session: Option<Zeroizing<String>>,
}

/// Where and when a signature is good.
pub(crate) struct Scope<'a> {
    /// `20261120T103800Z`.
    pub(crate) at: &'a str,
    pub(crate) region: &'a str,
    pub(crate) service: &'a str,
}

impl Keys {
    /// Reads a file in the form of AWS's own (`aws_access_key_id`, `aws_secret_access_key`, `aws_session_token`); the
    /// error says what is missing.
    pub(crate) fn read(text: &str, profile: &str) -> Result<Self, String> {
        let (mut section, mut found) = ("default", HashMap::new());
        for line in text.lines().map(str::trim) {
            if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                section = name.trim();
            } else if let (true, Some((name, value))) = (section == profile, line.split_once('=')) {
                found.insert(name.trim(), value.trim());
            }
        }
        let take = |name: &str| found.get(name).filter(|value| !value.is_empty()).map(|value| (*value).to_owned());
        let missing = |name: &str| format!("profile `{profile}` of the credentials has no `{name}`");
        Ok(Self {
            access: take("aws_access_key_id").ok_or_else(|| missing("aws_access_key_id"))?,
            secret: take("aws_secret_access_key")
                .map(Zeroizing::new)
                .ok_or_else(|| missing("aws_secret_access_key"))?,
            session: take("aws_session_token").map(Zeroizing::new),
        })
    }
}

/// `20261120T103800Z`.
pub(crate) fn stamp(now: UnixNanos) -> String {
    let text = UnixNanos::from_seconds(now.seconds()).to_string();
    let whole = text.split('.').next().unwrap_or_default();
    let plain: String = whole.chars().filter(|c| !"-:Z".contains(*c)).collect();
    format!("{plain}Z")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// SHA-256, in hex.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex(digest::digest(&digest::SHA256, bytes).as_ref())
}

fn mac(key: &[u8], text: &str) -> hmac::Tag {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes())
}

/// The value of `authorization` for a request without a query. Header names are lower case and in order.
pub(crate) fn authorization(
    keys: &Keys,
    scope: &Scope<'_>,
    (method, path): (&str, &str),
    headers: &[(&str, &str)],
    body: &[u8],
) -> String {
    let Scope { at, region, service } = scope;
    let day = at.get(..8).unwrap_or_default();
    let signed: Vec<&str> = headers.iter().map(|(name, _)| *name).collect();
    let signed = signed.join(";");
    let lines: String = headers.iter().map(|(name, value)| format!("{name}:{}\n", value.trim())).collect();
    let canonical = format!("{method}\n{path}\n\n{lines}\n{signed}\n{}", sha256(body));
    let credential = format!("{day}/{region}/{service}/aws4_request");
    let to_sign = format!("AWS4-HMAC-SHA256\n{at}\n{credential}\n{}", sha256(canonical.as_bytes()));
    let first = Zeroizing::new(format!("AWS4{}", keys.secret.as_str()));
    let key = mac(first.as_bytes(), day);
    let key = mac(key.as_ref(), region);
    let key = mac(key.as_ref(), service);
    let key = mac(key.as_ref(), "aws4_request");
    let signature = hex(mac(key.as_ref(), &to_sign).as_ref());
    format!("AWS4-HMAC-SHA256 Credential={}/{credential}, SignedHeaders={signed}, Signature={signature}", keys.access)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `get-vanilla` and `post-vanilla` of AWS's own test suite.
    #[test]
    fn signatures_are_those_of_the_published_suite() {
        let keys = Keys {
            access: "AKIDEXAMPLE".into(),
            secret: Zeroizing::new("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".into()),
            session: None,
        };
        let scope = Scope { at: "20150830T123600Z", region: "us-east-1", service: "service" };
        let headers = [("host", "example.amazonaws.com"), ("x-amz-date", "20150830T123600Z")];
        for (method, signature) in [
            ("GET", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"),
            ("POST", "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"),
        ] {
            let expected = format!(
                "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, \
                 SignedHeaders=host;x-amz-date, Signature={signature}"
            );
            assert_eq!(authorization(&keys, &scope, (method, "/"), &headers, b""), expected);
        }
    }
}
