//! What is declared of machines: keys with their bounds, and authorities that name machines by certificates.
//!
//! Owns the vocabulary and its checks. Must never hold a secret: what is here is written to the log and shown.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::facts::names;

/// Networks a key may be bound to.
pub const NETWORKS: usize = 16;
/// Accounts one authority may name.
pub const ACCOUNTS: usize = 256;
/// Bytes of an authority's certificates, PEM.
pub const CERTIFICATES_BYTES: usize = 64 * 1024;
/// Bytes of an authority's lists of revoked certificates, PEM.
pub const CRLS_BYTES: usize = 512 * 1024;
/// Bytes of the name of a machine in its certificate.
pub const MACHINE_BYTES: usize = 1024;

names! {
    /// What a machine does with a key.
    KeyKind {
        /// Shows it.
        ApiKey = "api_key",
        /// Signs each request with it (AWS Signature Version 4).
        Sigv4 = "sigv4",
    }
}

#[expect(
    clippy::derivable_impls,
    reason = "the list macro makes the enum, so the default cannot be an attribute on it"
)]
impl Default for KeyKind {
    fn default() -> Self {
        Self::ApiKey
    }
}

/// A network by its prefix: `198.51.100.0/24`, `2001:db8::/32`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Network {
    base: IpAddr,
    prefix: u8,
}

/// Why a text is no network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no network: an address and the length of its prefix, as in `198.51.100.0/24`, with no bit set behind"
)]
pub struct BadNetwork(String);

impl Network {
    /// Whether an address is in it. An IPv4 address in IPv6's clothes is one of IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        masked(address.to_canonical(), self.prefix) == Some(self.base)
    }
}

/// The address with all bits behind the prefix cleared; none where the prefix is longer than the address.
fn masked(address: IpAddr, prefix: u8) -> Option<IpAddr> {
    let prefix = u32::from(prefix);
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32_u32.checked_sub(prefix)?).unwrap_or(0);
            Some(IpAddr::V4((v4.to_bits() & mask).into()))
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128_u32.checked_sub(prefix)?).unwrap_or(0);
            Some(IpAddr::V6((v6.to_bits() & mask).into()))
        }
    }
}

impl TryFrom<String> for Network {
    type Error = BadNetwork;

    fn try_from(text: String) -> Result<Self, BadNetwork> {
        let read = || {
            let (base, prefix) = text.split_once('/')?;
            let digits = prefix.bytes().all(|byte| byte.is_ascii_digit());
            let plain = (1..=3).contains(&prefix.len()) && digits && (prefix == "0" || !prefix.starts_with('0'));
            let (base, prefix): (IpAddr, u8) = (base.parse().ok()?, prefix.parse().ok().filter(|_| plain)?);
            (base.to_canonical() == base && masked(base, prefix) == Some(base)).then_some(Self { base, prefix })
        };
        read().ok_or_else(|| BadNetwork(text.chars().take(64).collect()))
    }
}

impl From<Network> for String {
    fn from(network: Network) -> Self {
        network.to_string()
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.prefix)
    }
}

/// What a key is, and where and how it may be used.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeySettings {
    /// What is done with it.
    #[serde(default)]
    pub kind: KeyKind,
    /// Networks it may be used from; from anywhere if none is named.
    #[serde(default)]
    pub networks: Vec<Network>,
    /// Whether requests signed with it may leave their body out of what is signed.
    #[serde(default)]
    pub unsigned_payload: bool,
}

impl KeySettings {
    /// Whether it may be used from there.
    pub fn allows(&self, source: IpAddr) -> bool {
        self.networks.is_empty() || self.networks.iter().any(|network| network.contains(source))
    }

    /// What of it differs from a plain API key, as the log tells it, each behind a space.
    pub(crate) fn detail(&self) -> String {
        let mut told = String::new();
        if self.kind != KeyKind::default() {
            told.push_str(&format!(" kind={}", self.kind.as_str()));
        }
        if !self.networks.is_empty() {
            let networks: Vec<_> = self.networks.iter().map(Network::to_string).collect();
            told.push_str(&format!(" networks={}", networks.join(",")));
        }
        if self.unsigned_payload {
            told.push_str(" unsigned_payload");
        }
        told
    }
}

/// A machine that an authority names, and what it is here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClientAccount {
    /// Its name in certificates: a SPIFFE ID (`spiffe://acme.example/pay`), or the subject of a certificate that has
    /// none, as RFC 4514 writes it (`CN=pay,O=Acme`).
    pub machine: String,
    /// The service account it is.
    pub account: String,
    /// Roles of that account.
    pub roles: Vec<String>,
}

/// An authority that names machines of a tenant.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClientCa {
    /// Its certificates, PEM. Each of them is trusted by itself.
    pub certificates: String,
    /// Lists of the certificates it revoked, PEM; none if it publishes none.
    #[serde(default)]
    pub crls: String,
    /// Whether the tenant's hosts take no call without a certificate. One authority that says so is enough.
    #[serde(default)]
    pub required: bool,
    /// The machines that are somebody here. Certificates of all others are refused.
    #[serde(default)]
    pub accounts: Vec<ClientAccount>,
}

impl ClientCa {
    /// What a reader of the log should know.
    pub(crate) fn detail(&self) -> String {
        let accounts =
            self.accounts.iter().map(|one| format!("{}={}:{}", one.machine, one.account, one.roles.join(",")));
        let accounts: Vec<_> = accounts.collect();
        let (required, crls) = (self.required, self.crls.len());
        format!("required={required} crl_bytes={crls} accounts={} [{}]", accounts.len(), accounts.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> Result<Network, BadNetwork> {
        Network::try_from(text.to_owned())
    }

    #[test]
    fn networks_are_read_strictly_and_hold_what_they_name() {
        for text in ["", "10.0.0.0", "10.0.0.1/8", "10.0.0.0/33", "::/129", "10.0.0.0/+8", "10.0.0.0/008", "x/8"] {
            assert!(network(text).is_err(), "{text}");
        }
        let ten = network("10.0.0.0/8").unwrap();
        assert!(ten.contains("10.9.9.9".parse().unwrap()) && ten.contains("::ffff:10.1.1.1".parse().unwrap()));
        assert!(!ten.contains("11.0.0.1".parse().unwrap()) && !ten.contains("::a00:1".parse().unwrap()));
        let all = network("0.0.0.0/0").unwrap();
        assert!(all.contains("1.2.3.4".parse().unwrap()) && !all.contains("::1".parse().unwrap()));
        assert!(network("2001:db8::1/128").unwrap().contains("2001:db8::1".parse().unwrap()));
        assert_eq!(String::from(network("2001:db8::/32").unwrap()), "2001:db8::/32");
    }

    #[test]
    fn a_key_bound_to_networks_is_good_nowhere_else() {
        let anywhere = KeySettings::default();
        assert!(anywhere.allows("192.0.2.1".parse().unwrap()) && anywhere.detail().is_empty());
        let bound = KeySettings { networks: vec![network("192.0.2.0/24").unwrap()], ..anywhere };
        assert!(bound.allows("192.0.2.1".parse().unwrap()) && !bound.allows("198.51.100.1".parse().unwrap()));
        assert_eq!(bound.detail(), " networks=192.0.2.0/24");
    }
}
