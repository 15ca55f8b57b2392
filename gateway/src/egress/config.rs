//! What an operator sets about requests to the outside.
//!
//! Owns the settings, their defaults and what they may be. Must never hold a secret.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use cofferdam_model::EgressCeiling;
use cofferdam_model::egress::HostPattern;
use serde::Deserialize;

use super::address::Network;
use super::error::EgressSetupError;

/// The longest any of the times may be set to.
const MOST_MS: u64 = 3_600_000;
/// Name servers that may be named.
const MOST_RESOLVERS: usize = 8;
/// Addresses that a name is looked at with. A name with more is not reached.
pub(super) const MOST_ADDRESSES: usize = 32;

/// What an operator sets about requests to the outside.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EgressConfig {
    /// Name servers to ask; those of `/etc/resolv.conf` when empty.
    pub resolvers: Vec<SocketAddr>,
    /// Names that are answered from here, as a hosts file does. The addresses are checked like any others.
    pub hosts: BTreeMap<String, Vec<IpAddr>>,
    /// Addresses of this node that functions must not reach from inside. Those it listens on are always among them;
    /// one without a host (`0.0.0.0:443`) means every address of this machine with that port.
    pub own: Vec<SocketAddr>,
    /// Time for a connection: the name, the place among the tenant's connections, TCP and TLS.
    pub connect_ms: u64,
    /// Time for the head of the answer, from when the last byte of the request moved.
    pub first_byte_ms: u64,
    /// Time for each next piece of its body.
    pub between_bytes_ms: u64,
    /// Time from the asking to the last byte.
    pub total_ms: u64,
    /// Bytes of the head of a request, and of an answer.
    pub head_bytes: usize,
    /// Fields in the head of a request, and of an answer.
    pub head_count: usize,
    /// Bytes of a request's body.
    pub request_bytes: u64,
    /// Bytes of an answer's body.
    pub response_bytes: u64,
    /// Connections of all tenants at once.
    pub connections: usize,
    /// How long a connection is kept for the next request of the same cell.
    pub idle_ms: u64,
    /// How many a cell keeps.
    pub idle_per_cell: usize,
    /// What the functions of a tenant may ask for at most, where nothing else is set for the tenant.
    pub default_ceiling: EgressCeiling,
}

impl Default for EgressConfig {
    fn default() -> Self {
        Self {
            resolvers: Vec::new(),
            hosts: BTreeMap::new(),
            own: Vec::new(),
            connect_ms: 5_000,
            first_byte_ms: 30_000,
            between_bytes_ms: 30_000,
            total_ms: 120_000,
            head_bytes: 32 * 1024,
            head_count: 100,
            request_bytes: 64 * 1024 * 1024,
            response_bytes: 64 * 1024 * 1024,
            connections: 1024,
            idle_ms: 30_000,
            idle_per_cell: 8,
            default_ceiling: EgressCeiling::default(),
        }
    }
}

/// Refuses a ceiling with a network that is none.
pub fn check_ceiling(ceiling: &EgressCeiling) -> Result<(), EgressSetupError> {
    ceiling.networks.iter().try_for_each(|network| network.parse::<Network>().map(drop))
}

impl EgressConfig {
    /// What serde cannot say: settings that would stop requests from working, or from meaning what they say.
    pub fn check(&self) -> Result<(), EgressSetupError> {
        let wide = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        let bounds = [
            ("connect_ms", self.connect_ms, 10, MOST_MS),
            ("first_byte_ms", self.first_byte_ms, 10, MOST_MS),
            ("between_bytes_ms", self.between_bytes_ms, 10, MOST_MS),
            ("total_ms", self.total_ms, 10, MOST_MS),
            ("head_bytes", wide(self.head_bytes), 1024, 256 * 1024),
            ("head_count", wide(self.head_count), 8, 1024),
            ("connections", wide(self.connections), 1, 65_536),
            ("idle_ms", self.idle_ms, 1, MOST_MS),
            ("idle_per_cell", wide(self.idle_per_cell), 0, 1024),
        ];
        for (key, value, least, most) in bounds {
            if !(least..=most).contains(&value) {
                let message = format!("is {value}, which is not from {least} to {most}");
                return Err(EgressSetupError::setting(key, message, "correct it, or leave it out for the default"));
            }
        }
        if self.resolvers.len() > MOST_RESOLVERS {
            let message = format!("names {} servers, at most {MOST_RESOLVERS} can be", self.resolvers.len());
            return Err(EgressSetupError::setting("resolvers", message, "name the nearest"));
        }
        if let Some(server) = self.resolvers.iter().find(|server| server.port() == 0 || server.ip().is_unspecified()) {
            let message = format!("names `{server}`, which nobody can be asked at");
            return Err(EgressSetupError::setting(
                "resolvers",
                message,
                "write an address and a port, as in `9.9.9.9:53`",
            ));
        }
        for (name, addresses) in &self.hosts {
            let named = !name.contains('*') && HostPattern::try_from(name.clone()).is_ok();
            if !named || name.parse::<IpAddr>().is_ok() {
                let message = format!("names `{name}`, which is no host name");
                return Err(EgressSetupError::setting(
                    "hosts",
                    message,
                    "write it in lower case without a dot at its end",
                ));
            }
            if !(1..=MOST_ADDRESSES).contains(&addresses.len()) {
                let message = format!("gives `{name}` {} addresses", addresses.len());
                return Err(EgressSetupError::setting("hosts", message, "give from 1 to 32"));
            }
        }
        check_ceiling(&self.default_ceiling)
    }

    pub(super) fn connect(&self) -> Duration {
        Duration::from_millis(self.connect_ms)
    }

    pub(super) fn first_byte(&self) -> Duration {
        Duration::from_millis(self.first_byte_ms)
    }

    pub(super) fn between_bytes(&self) -> Duration {
        Duration::from_millis(self.between_bytes_ms)
    }

    pub(super) fn total(&self) -> Duration {
        Duration::from_millis(self.total_ms)
    }

    pub(super) fn idle(&self) -> Duration {
        Duration::from_millis(self.idle_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_make_no_sense_are_refused_by_name() {
        assert_eq!(EgressConfig::default().check(), Ok(()));
        let wrong = |change: fn(&mut EgressConfig)| {
            let mut config = EgressConfig::default();
            change(&mut config);
            config.check().unwrap_err().to_string()
        };
        assert!(wrong(|c| c.connect_ms = 0).starts_with("`egress.connect_ms` is 0, which is not from 10 to 3600000"));
        assert!(wrong(|c| c.head_bytes = 1 << 30).contains("`egress.head_bytes`"));
        assert!(wrong(|c| c.resolvers = vec!["0.0.0.0:53".parse().unwrap()]).contains("`0.0.0.0:53`"));
        assert!(wrong(|c| c.resolvers = vec!["9.9.9.9:53".parse().unwrap(); 9]).contains("9 servers"));
        for name in ["*.example.com", "EXAMPLE.com", "example.com.", "127.1", "10.0.0.1", ""] {
            let mut config = EgressConfig::default();
            config.hosts.insert(name.into(), vec!["203.0.113.7".parse().unwrap()]);
            assert!(config.check().unwrap_err().to_string().contains("no host name"), "{name}");
        }
        assert!(wrong(|c| _ = c.hosts.insert("a.example".into(), Vec::new())).contains("0 addresses"));
        assert!(wrong(|c| c.default_ceiling.networks = vec!["10.0.0.1/8".into()]).contains("`10.0.0.1/8`"));
    }
}
