//! To whom a request goes, as text.
//!
//! Owns the one spelling of a host that rules, names, certificates and the `Host` field are all compared with. Must
//! never accept what anything else could read as another host: no user, no encoding, no second form of an address.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use cofferdam_model::EgressEnd;
use cofferdam_model::egress::HostPattern;
use cofferdam_sandbox::EgressError;
use http::HeaderValue;
use rustls_pki_types::ServerName;

/// Bytes of an authority: the longest name, a dot and a port.
const MOST_BYTES: usize = 253 + 1 + 6;

/// To whom a request goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    /// Lower case, without port, brackets or a dot at its end.
    pub(super) host: String,
    pub(super) port: u16,
    /// The host where it is an address.
    pub(super) literal: Option<IpAddr>,
    /// Whether the port is that of the scheme.
    usual: bool,
}

impl Target {
    /// Reads `host`, `host:port`, `[address]` or `[address]:port`.
    pub(super) fn parse(authority: &str, tls: bool) -> Result<Self, EgressError> {
        let bad = |what: &str| EgressError::new(EgressEnd::Malformed, format!("the authority {what}"));
        if authority.is_empty() || authority.len() > MOST_BYTES {
            return Err(bad("is empty or too long"));
        }
        if !authority.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte)) {
            return Err(bad("holds a character that no host and port have"));
        }
        let (host, port) = split(authority).ok_or_else(|| bad("is neither a host nor a host and a port"))?;
        let usual = if tls { 443 } else { 80 };
        let port = match port {
            Some(text) => read_port(text).ok_or_else(|| bad("has no proper port"))?,
            None => usual,
        };
        let (host, literal) = match host {
            Host::Bracketed(text) => {
                let address: Ipv6Addr = text.parse().map_err(|_| bad("has no IPv6 address in its brackets"))?;
                (address.to_string(), Some(IpAddr::V6(address)))
            }
            Host::Plain(text) => match text.parse::<Ipv4Addr>() {
                Ok(address) => (address.to_string(), Some(IpAddr::V4(address))),
                Err(_) => {
                    let lower = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
                    // What a pattern may name, a request may; `*` cannot be here any more. Other forms of an address
                    // (octal, hexadecimal, short) end in a label that begins with a digit, which no name may.
                    let name = HostPattern::try_from(lower)
                        .map_err(|_| bad("holds no host name, nor an address in its usual form"))?;
                    if name.as_str().parse::<IpAddr>().is_ok() {
                        return Err(bad("is an address with a dot at its end"));
                    }
                    (name.into(), None)
                }
            },
        };
        Ok(Self { host, port, literal, usual: port == usual })
    }

    /// The `Host` field.
    pub(super) fn field(&self) -> Result<HeaderValue, EgressError> {
        let host = match self.literal {
            Some(IpAddr::V6(address)) => format!("[{address}]"),
            _ => self.host.clone(),
        };
        let text = if self.usual { host } else { format!("{host}:{}", self.port) };
        HeaderValue::try_from(text).map_err(|_| EgressError::new(EgressEnd::Malformed, "the host is no field value"))
    }

    /// The name a certificate has to be for.
    pub(super) fn server_name(&self) -> Result<ServerName<'static>, EgressError> {
        match self.literal {
            Some(address) => Ok(ServerName::IpAddress(address.into())),
            None => ServerName::try_from(self.host.clone())
                .map_err(|_| EgressError::new(EgressEnd::Malformed, "no certificate can be for the host")),
        }
    }
}

enum Host<'a> {
    Bracketed(&'a str),
    Plain(&'a str),
}

fn split(authority: &str) -> Option<(Host<'_>, Option<&str>)> {
    let Some(inside) = authority.strip_prefix('[') else {
        let (host, port) = match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        };
        return Some((Host::Plain(host), port));
    };
    let (address, rest) = inside.split_once(']')?;
    match rest.strip_prefix(':') {
        Some(port) => Some((Host::Bracketed(address), Some(port))),
        None if rest.is_empty() => Some((Host::Bracketed(address), None)),
        None => None,
    }
}

fn read_port(text: &str) -> Option<u16> {
    let plain = (1..=5).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    if plain && !text.starts_with('0') { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Whether any reader in use takes a host for an IPv4 address: its last label is a number, in whatever base.
    fn ends_in_a_number(host: &str) -> bool {
        let last = host.trim_end_matches('.').rsplit('.').next().unwrap();
        let hex = last.strip_prefix("0x").or_else(|| last.strip_prefix("0X"));
        last.bytes().all(|byte| byte.is_ascii_digit())
            || hex.is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
    }

    proptest! {
        #[test]
        fn what_is_accepted_has_one_reading(text in "[0-9a-fxA-FX.:\\[\\]%@/ -]{0,24}", tls: bool) {
            let Ok(target) = Target::parse(&text, tls) else { return Ok(()) };
            let again = Target::parse(target.field().unwrap().to_str().unwrap(), tls).unwrap();
            prop_assert_eq!(&again, &target);
            prop_assert!(target.port > 0 && target.host == target.host.to_ascii_lowercase());
            match target.literal {
                Some(address) => prop_assert_eq!(address.to_string(), target.host),
                None => prop_assert!(!ends_in_a_number(&target.host) && !target.host.contains(':')),
            }
        }
    }

    #[test]
    fn a_host_has_one_spelling() {
        let cases = [
            ("example.com", "example.com", 443, "example.com"),
            ("EXAMPLE.com.", "example.com", 443, "example.com"),
            ("example.com:443", "example.com", 443, "example.com"),
            ("example.com:8443", "example.com", 8443, "example.com:8443"),
            ("1.2.3.4:80", "1.2.3.4", 80, "1.2.3.4:80"),
            ("[2001:DB8:0::1]", "2001:db8::1", 443, "[2001:db8::1]"),
            ("[::1]:8443", "::1", 8443, "[::1]:8443"),
            ("xn--exmple-cua.com", "xn--exmple-cua.com", 443, "xn--exmple-cua.com"),
        ];
        for (text, host, port, field) in cases {
            let target = Target::parse(text, true).unwrap();
            assert_eq!((target.host.as_str(), target.port), (host, port), "{text}");
            assert_eq!(target.field().unwrap(), field, "{text}");
            assert!(target.server_name().is_ok(), "{text}");
        }
        assert_eq!(Target::parse("a.example", false).unwrap().port, 80);
    }

    #[test]
    fn ports_are_numbers_from_1_to_65535() {
        for text in [
            "a.b:",
            "a.b:0",
            "a.b:00080",
            "a.b:080",
            "a.b:65536",
            "a.b:+80",
            "a.b:-1",
            "a.b:0x50",
            "a.b:80:80",
            "a.b: 80",
            "[::1]80",
            "[::1]:",
            "::1",
        ] {
            assert_eq!(Target::parse(text, true).unwrap_err().ending, EgressEnd::Malformed, "{text}");
        }
        assert_eq!(Target::parse("a.b:65535", true).unwrap().port, 65535);
    }
}
