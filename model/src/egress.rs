//! Where functions may send requests to, and what is recorded of each one they send.
//!
//! Owns the rules' vocabulary: a function's own list, and the tenant's ceiling over it. Both must allow a request, and
//! with neither there is none. Must never resolve a name: which addresses are fit is the gateway's business.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::facts::{DecisionFacts, TlsVersion, names};

/// Rules one function may have.
pub const RULES: usize = 64;
/// Bytes of certificate authorities in one rule, PEM.
pub const CA_BYTES: usize = 32 * 1024;
/// Methods a rule may name.
pub const METHODS: &[&str] = &["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
/// Bytes of a host name (RFC 1035, 2.3.4).
const HOST_BYTES: usize = 253;
const LABEL_BYTES: usize = 63;

/// Which hosts a rule speaks of: a name or address as it stands, `*.example.com` for every name below one, or `*`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HostPattern(String);

/// Why a host pattern is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no host pattern: a lower case name or address such as `api.example.com`, or `*.example.com`")]
pub struct BadHost(String);

impl HostPattern {
    /// Every host.
    pub fn any() -> Self {
        Self("*".into())
    }

    /// The pattern's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it speaks of every host.
    pub fn is_any(&self) -> bool {
        self.0 == "*"
    }

    /// Whether it speaks of this host: lower case, without port, brackets or a dot at its end.
    pub fn matches(&self, host: &str) -> bool {
        match self.0.strip_prefix('*') {
            Some("") => true,
            // An address has no names below it.
            Some(below) => host.len() > below.len() && host.ends_with(below) && host.parse::<IpAddr>().is_err(),
            None => self.0 == host,
        }
    }
}

impl TryFrom<String> for HostPattern {
    type Error = BadHost;

    fn try_from(text: String) -> Result<Self, BadHost> {
        let name = text.strip_prefix("*.").unwrap_or(&text);
        let wild = name.len() != text.len();
        let address = name.parse::<IpAddr>();
        let good = match &address {
            _ if text == "*" => true,
            // One spelling for each address, so that rules and requests can be compared as text.
            Ok(address) => !wild && address.to_string() == name,
            Err(_) => is_name(name),
        };
        if good { Ok(Self(text)) } else { Err(BadHost(text)) }
    }
}

impl From<HostPattern> for String {
    fn from(pattern: HostPattern) -> Self {
        pattern.0
    }
}

/// A host name in lower case whose last label is not a number, so that nothing else reads it as an address.
fn is_name(name: &str) -> bool {
    let label = |label: &str| {
        let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'_';
        !label.is_empty() && label.len() <= LABEL_BYTES && label.bytes().all(inner) && !label.starts_with('-')
    };
    let last = name.rsplit('.').next().unwrap_or_default();
    name.len() <= HOST_BYTES && name.split('.').all(label) && !last.starts_with(|c: char| c.is_ascii_digit())
}

/// A secret the gateway puts into a header of requests a rule allows. The function never holds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Credential {
    /// Header field, lower case.
    pub header: String,
    /// Name of the function's secret that holds the value.
    pub secret: String,
    /// What stands before the value, such as `Bearer `.
    #[serde(default)]
    pub prefix: String,
}

/// One thing a function may ask of the outside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EgressRule {
    /// To whom.
    pub host: HostPattern,
    /// Port; 443 unless it says otherwise.
    #[serde(default = "https")]
    pub port: u16,
    /// Methods, upper case; empty for all of [`METHODS`].
    #[serde(default)]
    pub methods: Vec<String>,
    /// Whether over TLS, which it is unless it says otherwise.
    #[serde(default = "yes")]
    pub tls: bool,
    /// Certificate authorities (PEM) that stand in for the public ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
    /// What the gateway adds to prove who asks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<Credential>,
}

fn https() -> u16 {
    443
}

fn yes() -> bool {
    true
}

impl EgressRule {
    /// Whether it allows a request.
    pub fn allows(&self, host: &str, port: u16, method: &str, tls: bool) -> bool {
        self.host.matches(host) && self.port == port && self.tls == tls && has(&self.methods, method)
    }
}

impl fmt::Display for EgressRule {
    /// The rule as records name it: `https://*.example.com:443`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        write!(f, "{scheme}://{}:{}", self.host.as_str(), self.port)
    }
}

fn has(methods: &[String], method: &str) -> bool {
    if methods.is_empty() { METHODS.contains(&method) } else { methods.iter().any(|each| each == method) }
}

/// What an operator lets the functions of a tenant ask for at most.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EgressCeiling {
    /// What may be asked at all. Empty: nothing.
    pub rules: Vec<CeilingRule>,
    /// Networks (CIDR) that are reached although they are not public. Addresses of metadata services never are.
    pub networks: Vec<String>,
}

/// One thing the functions of a tenant may ask for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CeilingRule {
    /// To whom.
    pub host: HostPattern,
    /// Ports; empty for 443 alone.
    #[serde(default)]
    pub ports: Vec<u16>,
    /// Methods, upper case; empty for all of [`METHODS`].
    #[serde(default)]
    pub methods: Vec<String>,
    /// Whether requests without TLS are let through too.
    #[serde(default)]
    pub plain: bool,
}

impl EgressCeiling {
    /// Whether it allows a request.
    pub fn allows(&self, host: &str, port: u16, method: &str, tls: bool) -> bool {
        self.rules.iter().any(|rule| {
            let port = if rule.ports.is_empty() { port == https() } else { rule.ports.contains(&port) };
            port && rule.host.matches(host) && (tls || rule.plain) && has(&rule.methods, method)
        })
    }

    /// All of it on one line, for the log: the networks first, as they open most, then how many rules there are, so
    /// that a line which had to be cut shows that it was.
    pub(crate) fn detail(&self) -> String {
        let rule = |rule: &CeilingRule| {
            let ports: Vec<String> = rule.ports.iter().map(u16::to_string).collect();
            let ports = if ports.is_empty() { https().to_string() } else { ports.join("+") };
            let methods = if rule.methods.is_empty() { "all".to_owned() } else { rule.methods.join("+") };
            let plain = if rule.plain { "/plain" } else { "" };
            format!("{}:{ports}/{methods}{plain}", rule.host.as_str())
        };
        let rules: Vec<String> = self.rules.iter().map(rule).collect();
        format!("networks=[{}] rules={} [{}]", self.networks.join(" "), rules.len(), rules.join(" "))
    }
}

names! {
    /// How a request to the outside ended.
    EgressEnd {
        /// Answered in full.
        Answered = "answered",
        /// No rule allows it, or the ceiling does not.
        DeniedByRule = "denied_by_rule",
        /// A policy forbids it, or none permits it.
        DeniedByPolicy = "denied_by_policy",
        /// The name leads to an address that must not be reached.
        DeniedAddress = "denied_address",
        /// More requests, bytes or connections than allowed.
        OverQuota = "over_quota",
        /// The request itself is not acceptable.
        Malformed = "malformed",
        /// The name could not be resolved.
        NameFailed = "name_failed",
        /// No connection came about.
        ConnectFailed = "connect_failed",
        /// TLS failed: the other side could not prove who it is.
        TlsFailed = "tls_failed",
        /// The other side broke the protocol, or off.
        PeerFailed = "peer_failed",
        /// Took too long.
        TimedOut = "timed_out",
        /// The function did not wait for the end.
        Cut = "cut",
    }
}

/// What is recorded of one request to the outside. Paths and headers are the tenant's own and not among it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EgressFacts {
    /// Which of the call's requests: 1 for the first.
    pub number: u32,
    /// Method.
    pub method: String,
    /// Host as asked for.
    pub host: String,
    /// Port as asked for.
    pub port: u16,
    /// Rule that allowed it; none where none did.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub rule: Option<String>,
    /// Whether the function's workload might make it; none where no rule allowed it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub decision: Option<Box<DecisionFacts>>,
    /// Address it was made to, which is the one that was checked.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub address: Option<IpAddr>,
    /// Version of TLS; none for plain HTTP, and where it never got that far.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub tls: Option<TlsVersion>,
    /// Name of the secret whose value was added.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub credential: Option<String>,
    /// Status answered.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub status: Option<u16>,
    /// How it ended.
    pub ending: EgressEnd,
    /// Body sent, bytes.
    pub bytes_out: u64,
    /// Body received, bytes.
    pub bytes_in: u64,
    /// From the asking to the end, microseconds.
    pub wall_us: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> HostPattern {
        HostPattern::try_from(text.to_owned()).unwrap()
    }

    #[test]
    fn a_pattern_speaks_of_what_it_says_and_no_more() {
        assert!(pattern("api.example.com").matches("api.example.com"));
        assert!(!pattern("api.example.com").matches("xapi.example.com"));
        assert!(!pattern("api.example.com").matches("api.example.com.evil.test"));
        assert!(pattern("*.example.com").matches("a.b.example.com"));
        assert!(!pattern("*.example.com").matches("example.com"));
        assert!(!pattern("*.example.com").matches(".example.com"));
        assert!(!pattern("*.example.com").matches("badexample.com"));
        assert!(pattern("*").matches("203.0.113.7"));
    }

    #[test]
    fn what_could_be_read_as_something_else_is_no_pattern() {
        let bad = [
            "",
            "*.",
            "**",
            "a.*.b",
            "*example.com",
            "EXAMPLE.com",
            "example.com.",
            "a..b",
            "-a.b",
            "a b",
            "a/b",
            "a:80",
            "[::1]",
            "127.1",
            "0x7f.0.0.1",
            "1.2.3",
            "017700000001",
            "2130706433",
            "*.1.2.3.4",
            "::FFFF:1.2.3.4",
            "a%b",
            "user@host",
            "exämple.com",
        ];
        for text in bad {
            assert!(HostPattern::try_from(text.to_owned()).is_err(), "{text}");
        }
        for text in ["203.0.113.7", "2001:db8::1", "localhost", "xn--exmple-cua.com", "_srv.example.com"] {
            assert_eq!(pattern(text).as_str(), text);
        }
    }

    #[test]
    fn a_request_needs_every_part_of_a_rule() {
        let rule: EgressRule = serde_json::from_str(r#"{"host": "api.example.com", "methods": ["GET"]}"#).unwrap();
        assert!(rule.allows("api.example.com", 443, "GET", true));
        assert!(!rule.allows("api.example.com", 8443, "GET", true));
        assert!(!rule.allows("api.example.com", 443, "POST", true));
        assert!(!rule.allows("api.example.com", 443, "GET", false));
        assert_eq!(rule.to_string(), "https://api.example.com:443");
    }

    #[test]
    fn what_an_operator_opens_for_a_tenant_is_told_in_full() {
        use crate::{Manage, Operation, TenantSettings};
        let told = |egress| {
            let tenant = crate::id::platform_tenant();
            let settings = TenantSettings { limits: None, egress };
            Manage::PutTenantSettings { tenant, settings }.detail().unwrap()
        };
        let ceiling = r#"{"networks": ["10.0.0.0/8", "fd00::/8"], "rules": [
            {"host": "*.example.com"},
            {"host": "db.test", "ports": [80, 8080], "methods": ["GET", "PUT"], "plain": true}
        ]}"#;
        let opened = told(Some(serde_json::from_str(ceiling).unwrap()));
        let all = "limits=default networks=[10.0.0.0/8 fd00::/8] rules=2 \
                   [*.example.com:443/all db.test:80+8080/GET+PUT/plain]";
        assert!(opened.ends_with(all), "{opened}");
        assert!(told(None).ends_with(" egress=default"));
        assert!(told(Some(EgressCeiling::default())).ends_with(" networks=[] rules=0 []"));
    }

    #[test]
    fn a_ceiling_that_says_nothing_allows_nothing() {
        assert!(!EgressCeiling::default().allows("api.example.com", 443, "GET", true));
        let wide: EgressCeiling = serde_json::from_str(r#"{"rules": [{"host": "*"}]}"#).unwrap();
        assert!(wide.allows("api.example.com", 443, "DELETE", true));
        assert!(!wide.allows("api.example.com", 80, "GET", true));
        assert!(!wide.allows("api.example.com", 443, "GET", false));
        assert!(!wide.allows("api.example.com", 443, "CONNECT", true));
    }
}
