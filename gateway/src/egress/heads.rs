//! The heads of requests and answers: which fields pass.
//!
//! Owns what is taken out of a guest's head before it leaves, and of a server's before the guest gets it. Must never
//! let a guest frame its own message, name another host, or speak in the platform's name.

use cofferdam_model::EgressEnd;
use cofferdam_sandbox::EgressError;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::uri::PathAndQuery;

/// Bytes of a path and query.
const TARGET_BYTES: usize = 16 * 1024;

/// Whether a field is about one connection (RFC 9110, 7.6.1), or ours to set.
pub(super) fn is_reserved(name: &HeaderName) -> bool {
    let own = [
        header::CONNECTION,
        header::CONTENT_LENGTH,
        header::EXPECT,
        header::HOST,
        header::TE,
        header::TRAILER,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
    ];
    let text = name.as_str();
    own.contains(name)
        || ["keep-alive", "http2-settings"].contains(&text)
        || text.starts_with("proxy-")
        || text.starts_with("x-cofferdam-")
}

fn malformed(reason: impl Into<String>) -> EgressError {
    EgressError::new(EgressEnd::Malformed, reason)
}

/// Caps of a head.
#[derive(Debug, Clone, Copy)]
pub(super) struct HeadCaps {
    pub(super) bytes: usize,
    pub(super) count: usize,
}

/// The path and query, which has to be one as it stands.
pub(super) fn target(text: &str) -> Result<PathAndQuery, EgressError> {
    let good = text.starts_with('/')
        && text.len() <= TARGET_BYTES
        && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
    if !good {
        return Err(malformed("the path is none, is too long, or holds what has to be percent-encoded"));
    }
    text.parse().map_err(|_| malformed("the path holds what has to be percent-encoded"))
}

/// What a request may bring along, and the length it announces.
pub(super) fn request(headers: &HeaderMap, caps: HeadCaps) -> Result<(HeaderMap, Option<u64>), EgressError> {
    let bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    if bytes > caps.bytes || headers.len() > caps.count {
        let (most, count) = (caps.bytes, caps.count);
        return Err(malformed(format!("the head is larger than {most} bytes or {count} fields")));
    }
    let length = length(headers)?;
    let named = nominated(headers);
    let mut kept = HeaderMap::with_capacity(headers.len() + 3);
    for (name, value) in headers {
        if !is_reserved(name) && !named.contains(name) {
            kept.append(name.clone(), value.clone());
        }
    }
    Ok((kept, length))
}

/// Takes out of an answer's head what is about its connection, and a length that does not hold.
pub(super) fn response(headers: &mut HeaderMap) {
    let mut gone = nominated(headers);
    if headers.contains_key(header::TRANSFER_ENCODING) {
        gone.push(header::CONTENT_LENGTH);
    }
    gone.extend(headers.keys().filter(|name| is_reserved(name) && **name != header::CONTENT_LENGTH).cloned());
    for name in gone {
        headers.remove(name);
    }
}

/// Fields that `Connection` says are its own.
fn nominated(headers: &HeaderMap) -> Vec<HeaderName> {
    let lists = headers.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let names = lists.flat_map(|list| list.split(',')).filter_map(|name| HeaderName::try_from(name.trim()).ok());
    // `Connection: content-length` would make a body of one without.
    names.filter(|name| *name != header::CONTENT_LENGTH).collect()
}

fn length(headers: &HeaderMap) -> Result<Option<u64>, EgressError> {
    let mut found = None;
    for value in headers.get_all(header::CONTENT_LENGTH) {
        let text = value.to_str().ok().filter(|text| (1..=19).contains(&text.len()));
        let text = text.filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
        let number: u64 =
            text.and_then(|text| text.parse().ok()).ok_or_else(|| malformed("`content-length` is no length"))?;
        if found.is_some_and(|known| known != number) {
            return Err(malformed("`content-length` says two things"));
        }
        found = Some(number);
    }
    Ok(found)
}

/// A length as a field.
pub(super) fn length_field(length: u64) -> HeaderValue {
    HeaderValue::from(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAPS: HeadCaps = HeadCaps { bytes: 1024, count: 16 };

    fn map(fields: &[(&str, &str)]) -> HeaderMap {
        let field = |(name, value): &(&str, &str)| {
            (HeaderName::try_from(*name).unwrap(), HeaderValue::try_from(*value).unwrap())
        };
        let mut map = HeaderMap::new();
        for (name, value) in fields.iter().map(field) {
            map.append(name, value);
        }
        map
    }

    #[test]
    fn a_guest_neither_frames_its_request_nor_speaks_for_the_platform() {
        let sent = map(&[
            ("accept", "*/*"),
            ("Connection", "keep-alive, x-private"),
            ("x-private", "1"),
            ("keep-alive", "timeout=9"),
            ("transfer-encoding", "chunked"),
            ("te", "trailers"),
            ("trailer", "x"),
            ("upgrade", "websocket"),
            ("expect", "100-continue"),
            ("host", "other.example"),
            ("proxy-authorization", "Basic x"),
            ("proxy-anything", "x"),
            ("x-cofferdam-principal", "operator"),
            ("http2-settings", "x"),
            ("authorization", "Bearer its-own"),
            ("content-length", "3"),
        ]);
        let (kept, length) = request(&sent, CAPS).unwrap();
        assert_eq!(kept, map(&[("accept", "*/*"), ("authorization", "Bearer its-own")]));
        assert_eq!(length, Some(3));
    }

    #[test]
    fn lengths_are_numbers_and_agree() {
        for bad in ["", "+3", "-1", "0x3", "3,3", "3 ", "99999999999999999999"] {
            assert!(request(&map(&[("content-length", bad)]), CAPS).is_err(), "{bad}");
        }
        assert!(request(&map(&[("content-length", "3"), ("content-length", "4")]), CAPS).is_err());
        assert_eq!(request(&map(&[("content-length", "3"), ("content-length", "3")]), CAPS).unwrap().1, Some(3));
        let hidden = map(&[("connection", "content-length"), ("content-length", "3")]);
        assert_eq!(request(&hidden, CAPS).unwrap().1, Some(3));
    }

    #[test]
    fn heads_and_paths_are_bounded() {
        assert!(request(&map(&[("a", "b"); 17]), CAPS).is_err());
        assert!(request(&map(&[("a", &"b".repeat(1024))]), CAPS).is_err());
        for bad in ["", "*", "a", "/a b", "/a#b", "/\u{e4}", "/a\r\nb", "http://other.example/"] {
            assert_eq!(target(bad).unwrap_err().ending, EgressEnd::Malformed, "{bad}");
        }
        assert!(target(&format!("/{}", "a".repeat(TARGET_BYTES))).is_err());
        assert_eq!(target("/a?b=%20").unwrap(), "/a?b=%20");
    }

    #[test]
    fn an_answer_comes_without_what_was_about_its_connection() {
        let mut headers = map(&[
            ("content-length", "3"),
            ("connection", "close, x-hop"),
            ("x-hop", "1"),
            ("keep-alive", "timeout=9"),
            ("proxy-authenticate", "Basic"),
            ("x-cofferdam-request", "forged"),
            ("set-cookie", "a=b"),
        ]);
        response(&mut headers);
        assert_eq!(headers, map(&[("content-length", "3"), ("set-cookie", "a=b")]));
        let mut chunked = map(&[("content-length", "3"), ("transfer-encoding", "chunked")]);
        response(&mut chunked);
        assert!(chunked.is_empty());
    }
}
