//! What an operator sets about the log: what of a call is recorded, and how long records are kept.
//!
//! Owns `[audit]` and what is wrong with it. Must never let a field of a request be recorded that carries a credential.

use std::time::Duration;

use cofferdam_audit::disclose::Field;
use cofferdam_audit::privacy::{Claim, Privacy};
use cofferdam_audit::retain::Retention;
use http::{HeaderName, header};
use serde::Deserialize;

use crate::audit::Rung;
use crate::receipts::Receipts;
use crate::sinks::SinkConfig;

/// Fields of a request that can be recorded at most.
const HEADERS: usize = 16;
const DAY: Duration = Duration::from_secs(86_400);
/// The least that may be kept by size: two segments.
const LEAST_BYTES: u64 = 128 * 1024 * 1024;

/// What an operator sets about the log.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AuditConfig {
    /// Fields of records that are never stored: their commitments stay, their values are lost to everybody.
    pub redact: Vec<Field>,
    /// Fields of requests that are recorded; none when absent.
    pub headers: Vec<String>,
    /// Claims of callers' tokens that are recorded; all that records know when absent.
    pub claims: Option<Vec<Claim>>,
    /// Whether what records disclose is sealed under a key of its subject, which can be destroyed.
    pub shred: bool,
    /// Days after which records are pruned; kept for ever when absent.
    pub retention_days: Option<u32>,
    /// Bytes above which the oldest records are pruned; kept for ever when absent.
    pub retention_bytes: Option<u64>,
    /// What the node does less of as its log's disk runs out of room or takes too long, and when.
    pub warn: Rung,
    /// Calls of `relaxed` routes are refused.
    pub shed: Rung,
    /// Only calls with safe methods are taken.
    pub read_only: Rung,
    /// Nothing is taken.
    pub deny: Rung,
    /// Room kept by a file, which is given up so that a full disk can be recorded. None when 0.
    pub reserve_mib: u64,
    /// Time between two heartbeats in the log.
    pub heartbeat_ms: u64,
    /// Old records that are read again each second, to find a disk that forgets. None when 0.
    pub scrub_mib_per_second: u64,
    /// Whether the checkpoint and the hash tiles are for whoever asks. Records never are.
    pub public_tiles: bool,
    /// When answers carry receipts.
    pub receipts: Receipts,
    /// Time between two records of the roots of tenants' trees.
    pub tenant_roots_ms: u64,
    /// Where the log is streamed to.
    pub sinks: Vec<SinkConfig>,
}

impl Default for AuditConfig {
    fn default() -> Self {
        Self {
            redact: Vec::new(),
            headers: Vec::new(),
            claims: None,
            shred: false,
            retention_days: None,
            retention_bytes: None,
            warn: Rung { free_mib: 1_024, sync_ms: 2_000 },
            shed: Rung { free_mib: 512, sync_ms: 10_000 },
            read_only: Rung { free_mib: 256, sync_ms: 20_000 },
            deny: Rung { free_mib: 64, sync_ms: 30_000 },
            reserve_mib: 16,
            heartbeat_ms: 60_000,
            scrub_mib_per_second: 0,
            public_tiles: false,
            receipts: Receipts::Asked,
            tenant_roots_ms: 10_000,
            sinks: Vec::new(),
        }
    }
}

impl AuditConfig {
    /// What of a record is kept.
    pub fn privacy(&self) -> Privacy {
        Privacy {
            redact: self.redact.iter().copied().collect(),
            claims: self.claims.as_ref().map(|claims| claims.iter().copied().collect()).unwrap_or_default(),
        }
    }

    /// Fields of requests that are recorded, in the order of their names.
    pub fn recorded(&self) -> Vec<HeaderName> {
        let mut names: Vec<HeaderName> = self.headers.iter().filter_map(|name| name.parse().ok()).collect();
        names.sort_unstable_by(|one, other| one.as_str().cmp(other.as_str()));
        names.dedup();
        names
    }

    /// How long records are kept.
    pub fn retention(&self) -> Retention {
        Retention { age: self.retention_days.map(|days| DAY * days), bytes: self.retention_bytes }
    }

    /// What the log tells of this at every start.
    pub fn told(&self) -> String {
        let names = |names: Vec<&str>| if names.is_empty() { "-".to_owned() } else { names.join(",") };
        let claims = self.claims.as_deref().unwrap_or(Claim::ALL);
        let kept = |most: Option<u64>| most.map_or_else(|| "-".to_owned(), |most| most.to_string());
        format!(
            "redact={} headers={} claims={} shred={} retention_days={} retention_bytes={}",
            names(self.redact.iter().map(|field| field.as_str()).collect()),
            names(self.recorded().iter().map(HeaderName::as_str).collect()),
            names(claims.iter().map(|claim| claim.as_str()).collect()),
            self.shred,
            kept(self.retention_days.map(u64::from)),
            kept(self.retention_bytes),
        )
    }

    /// What serde cannot say: key, message, remedy.
    pub(super) fn flaw(&self) -> Option<(&'static str, String, &'static str)> {
        if self.headers.len() > HEADERS {
            return Some(("headers", format!("`audit.headers` names more than {HEADERS} fields"), "name fewer"));
        }
        for name in &self.headers {
            let remedy = "name fields of requests in lower case, as in `user-agent`";
            match name.parse::<HeaderName>() {
                Ok(field) if field.as_str() != name => {
                    return Some(("headers", format!("`{name}` is not in lower case"), remedy));
                }
                Ok(field) if is_secret(&field) => {
                    return Some(("headers", format!("`{name}` carries credentials"), "leave it out"));
                }
                Ok(_) => {}
                Err(_) => return Some(("headers", format!("`{name}` is no name of a field"), remedy)),
            }
        }
        if self.retention_days == Some(0) {
            return Some((
                "retention_days",
                "`audit.retention_days` must be at least 1".into(),
                "leave it out to keep records for ever",
            ));
        }
        if self.retention_bytes.is_some_and(|bytes| bytes < LEAST_BYTES) {
            let message = format!("`audit.retention_bytes` must be at least {LEAST_BYTES}");
            return Some(("retention_bytes", message, "leave it out to keep records for ever"));
        }
        self.rung_out_of_order().map(|(key, message, remedy)| (key, message.to_owned(), remedy))
    }
}

/// Whether a field carries what a log must not: credentials, or what stands for them.
fn is_secret(name: &HeaderName) -> bool {
    let known = [header::AUTHORIZATION, header::PROXY_AUTHORIZATION, header::COOKIE, header::SET_COOKIE];
    let telling = ["token", "secret", "password", "api-key", "apikey", "signature", "session", "credential"];
    known.contains(name) || telling.iter().any(|part| name.as_str().contains(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> AuditConfig {
        toml_edit::de::from_str(text).unwrap()
    }

    #[test]
    fn nothing_that_carries_a_credential_can_be_recorded() {
        for name in ["authorization", "cookie", "x-api-key", "x-amz-security-token", "x-auth-token", "x-session-id"] {
            let (key, message, _) = of(&format!("headers = [\"{name}\"]")).flaw().unwrap();
            assert_eq!((key, message), ("headers", format!("`{name}` carries credentials")));
        }
        for name in ["User-Agent", "a b", ""] {
            assert!(of(&format!("headers = [\"{name}\"]")).flaw().is_some(), "{name}");
        }
        assert_eq!(of("headers = [\"user-agent\", \"traceparent\"]").flaw(), None);
    }

    #[test]
    fn what_is_set_is_told_and_what_is_unknown_is_refused() {
        let set = of(concat!(
            "redact = [\"source\"]\nheaders = [\"user-agent\"]\nclaims = [\"mfa\"]\n",
            "retention_days = 365\n"
        ));
        assert_eq!(set.flaw(), None);
        let told = "redact=source headers=user-agent claims=mfa shred=false retention_days=365 retention_bytes=-";
        assert_eq!(set.told(), told);
        assert!(set.privacy().redact.has(Field::Source) && !set.privacy().redact.has(Field::Path));
        assert!(set.privacy().claims.has(Claim::Mfa) && !set.privacy().claims.has(Claim::Scopes));
        assert_eq!(set.retention().age, Some(DAY * 365));
        for text in ["redact = [\"salt\"]", "claims = [\"email\"]", "days = 1"] {
            assert!(toml_edit::de::from_str::<AuditConfig>(text).is_err(), "{text}");
        }
        for text in ["retention_days = 0", "retention_bytes = 1"] {
            assert!(of(text).flaw().is_some(), "{text}");
        }
    }
}
