//! The one host a request is for.
//!
//! Owns what a host may look like, and that everything which names it in a request agrees. Must never guess: no host,
//! two hosts or an odd one is refused, because tenants are told apart by it.

use std::net::{Ipv4Addr, Ipv6Addr};

use http::{HeaderMap, Uri, Version, header};

use crate::refusal::{Fault, Refusal};

/// Host of the request: lower case, without port.
pub(super) fn of(uri: &Uri, headers: &HeaderMap, version: Version) -> Result<String, Refusal> {
    read(uri, headers, version).map_err(Refusal::BadRequest)
}

fn read(uri: &Uri, headers: &HeaderMap, version: Version) -> Result<String, Fault> {
    let mut fields = headers.get_all(header::HOST).iter();
    let field = fields.next().map(|value| value.to_str().map_err(|_| Fault::HostInvalid)).transpose()?;
    if fields.next().is_some() {
        return Err(Fault::HostRepeated);
    }
    // Absolute form in HTTP/1.1, `:authority` in HTTP/2.
    if uri.scheme_str().is_some_and(|scheme| scheme != "https" && (scheme != "http" || version != Version::HTTP_11)) {
        return Err(Fault::Target);
    }
    if uri.scheme().is_none() && uri.authority().is_some() {
        return Err(Fault::Target);
    }
    let target = uri.authority().map(|authority| parse(authority.as_str())).transpose()?;
    let field = field.map(parse).transpose()?;
    match (target, field) {
        (Some(target), Some(field)) if target == field => Ok(target.0),
        (Some(_), Some(_)) => Err(Fault::HostMismatch),
        // In HTTP/1.1 the field is needed even beside an absolute target (RFC 9112, 3.2).
        (Some(target), None) if version == Version::HTTP_2 => Ok(target.0),
        (Some(_) | None, None) => Err(Fault::HostMissing),
        (None, Some(field)) => Ok(field.0),
    }
}

/// Reads `host` or `host:port` into lower case and number.
fn parse(text: &str) -> Result<(String, Option<u16>), Fault> {
    let split = match text.strip_prefix('[') {
        Some(_) => text.split_once(']').map(|(host, rest)| (host, rest.strip_prefix(':'), rest.is_empty())),
        None => Some(match text.split_once(':') {
            Some((host, port)) => (host, Some(port), false),
            None => (text, None, true),
        }),
    };
    let (host, port) = match split {
        Some((host, Some(port), _)) => (host, Some(parse_port(port).ok_or(Fault::HostInvalid)?)),
        Some((host, None, true)) => (host, None),
        Some((_, None, false)) | None => return Err(Fault::HostInvalid),
    };
    let good = match host.strip_prefix('[') {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => is_host_name(host),
    };
    let host = host.strip_prefix('[').map_or_else(|| host.to_owned(), |address| format!("[{address}]"));
    if good { Ok((host.to_ascii_lowercase(), port)) } else { Err(Fault::HostInvalid) }
}

fn parse_port(text: &str) -> Option<u16> {
    let plain = (1..=5).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit()) && !text.starts_with('0');
    if plain { text.parse().ok() } else { None }
}

/// A DNS name of letters, digits, hyphens and (inside) underscores, or a plain IPv4 address. No trailing dot, and
/// none of the other spellings of an address.
fn is_host_name(text: &str) -> bool {
    let labels = || text.split('.');
    let label_good = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if text.len() > 253 || !labels().all(label_good) {
        return false;
    }
    let last = labels().next_back().unwrap_or_default();
    let like_a_number = last.bytes().all(|b| b.is_ascii_digit()) || last.starts_with("0x") || last.starts_with("0X");
    !like_a_number || text.parse::<Ipv4Addr>().is_ok()
}
