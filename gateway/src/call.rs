//! Reading a head strictly, once, into the only form everyone after works with.
//!
//! Owns the rules for host, target and fields, the same for both versions of HTTP, and the request's id and
//! circumstances. Must never repair a request: what has two readings is refused, so that routing, policy, log and
//! guest all see the same one.

mod host;
mod path;

use std::sync::Arc;

use cofferdam_model::{Circumstances, Clock, Fields, Limits, Random, RequestId};
use http::{HeaderMap, HeaderName, Method, Uri, Version, header, request};

use crate::doors::CameBy;
use crate::listen::{Arrived, Connection};
use crate::refusal::{Fault, Refusal};
use crate::signed::{AsSent, Payload};
use crate::sniff::is_method;

pub use path::segments;

/// A request whose head has exactly one reading.
#[derive(Debug)]
pub struct Received {
    /// What the log and the policies are told of it.
    pub circumstances: Circumstances,
    /// The method; also in the circumstances, as text.
    pub method: Method,
    /// The query without its `?`, as it came. Never part of a decision.
    pub query: Option<String>,
    /// The fields, without those between two hops and those only we may set.
    pub headers: HeaderMap,
    /// The body, not read yet.
    pub body: Payload,
    /// The head as it was sent, where it shows a signature.
    pub(crate) sent: Option<AsSent>,
    /// What the connection came by.
    pub(crate) came: Option<CameBy>,
}

/// A request that is refused for its head, with what is known of it for the log.
#[derive(Debug)]
pub struct Rejected {
    /// What could be told of it safely; `-` for what could not.
    pub circumstances: Circumstances,
    /// Why.
    pub refusal: Refusal,
}

/// Reads a head.
pub fn receive(
    arrived: Arrived,
    (limits, recorded): (&Limits, &[HeaderName]),
    clock: &dyn Clock,
    random: &dyn Random,
) -> Result<Received, Box<Rejected>> {
    let Arrived { request, connection, refused } = arrived;
    let mut circumstances = blank(&connection, clock, random);
    if let Some(refusal) = refused {
        return Err(Box::new(Rejected { circumstances, refusal }));
    }
    let (parts, body) = request.into_parts();
    let (sent, came) = (AsSent::of(&parts), connection.came.clone());
    match read(parts, limits, &mut circumstances) {
        Ok((method, query, headers)) => {
            circumstances.headers = told(&headers, recorded);
            Ok(Received { circumstances, method, query, headers, body: Payload::new(body), sent, came })
        }
        Err(refusal) => Err(Box::new(Rejected { circumstances, refusal })),
    }
}

fn blank(connection: &Connection, clock: &dyn Clock, random: &dyn Random) -> Circumstances {
    let unknown: Arc<str> = "-".into();
    Circumstances {
        request: RequestId::mint(random),
        at: clock.now(),
        source: connection.peer.ip().to_canonical(),
        tls: connection.tls,
        method: unknown.clone(),
        host: unknown.clone(),
        path: unknown,
        connection: Some(connection.facts.clone()),
        headers: None,
    }
}

/// Fills the circumstances as far as it gets, so that a refusal is recorded with what was known by then.
fn read(
    parts: request::Parts,
    limits: &Limits,
    circumstances: &mut Circumstances,
) -> Result<(Method, Option<String>, HeaderMap), Refusal> {
    let request::Parts { method, uri, version, mut headers, .. } = parts;
    if !is_method(method.as_str().as_bytes()) {
        return Err(Refusal::MethodUnknown);
    }
    circumstances.method = method.as_str().into();
    check_sizes(&uri, &headers, limits)?;
    circumstances.host = host::of(&uri, &headers, version)?.into();
    circumstances.path = path::canonical(uri.path(), &method).map_err(Refusal::BadRequest)?.into();
    let query = uri.query().map(str::to_owned);
    if query.as_ref().is_some_and(|query| !query.bytes().all(|b| b.is_ascii_graphic())) {
        return Err(Refusal::BadRequest(Fault::Target));
    }
    if headers.keys().any(|name| overrules(name.as_str())) {
        return Err(Refusal::BadRequest(Fault::Overruled));
    }
    if version == Version::HTTP_2 {
        check_h2(&headers)?;
    }
    check_expectation(&headers)?;
    strip_hop_by_hop(&mut headers);
    strip_reserved(&mut headers);
    headers.remove(header::HOST);
    Ok((method, query, headers))
}

/// Those of the fields that the node is set to record, in the order of their names.
fn told(headers: &HeaderMap, recorded: &[HeaderName]) -> Option<Fields> {
    let values = |name: &HeaderName| {
        let values = headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()));
        values.collect::<Vec<_>>().join(", ")
    };
    let present = recorded.iter().filter(|name| headers.contains_key(*name));
    let told: Vec<_> = present.map(|name| (Arc::from(name.as_str()), values(name))).collect();
    (!told.is_empty()).then(|| told.into())
}

fn check_sizes(uri: &Uri, headers: &HeaderMap, limits: &Limits) -> Result<(), Refusal> {
    let target = uri.path_and_query().map_or(0, |target| target.as_str().len());
    if target > limits.uri_bytes {
        return Err(Refusal::UriTooLong);
    }
    // Name, value, and the four bytes a line of HTTP/1 would add.
    let bytes = headers.iter().fold(0usize, |sum, (name, value)| sum + name.as_str().len() + value.len() + 4);
    if bytes > limits.header_bytes || headers.len() > limits.header_count {
        return Err(Refusal::HeaderTooLarge);
    }
    Ok(())
}

/// HTTP/2 frames bodies itself; fields that would frame them for a next hop are malformed there (RFC 9113, 8.2.2).
fn check_h2(headers: &HeaderMap) -> Result<(), Refusal> {
    if headers.contains_key(header::TRANSFER_ENCODING) {
        return Err(Refusal::BadRequest(Fault::TransferEncoding));
    }
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    let plain = lengths.next().is_none_or(|value| !value.is_empty() && value.as_bytes().iter().all(u8::is_ascii_digit));
    if !plain || lengths.next().is_some() {
        return Err(Refusal::BadRequest(Fault::ContentLength));
    }
    Ok(())
}

fn check_expectation(headers: &HeaderMap) -> Result<(), Refusal> {
    let good =
        headers.get_all(header::EXPECT).iter().all(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"));
    if good { Ok(()) } else { Err(Refusal::ExpectationFailed) }
}

/// Fields that mean something between two hops only. Used in both directions.
const HOP_BY_HOP: [HeaderName; 9] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Removes fields between two hops, and those `Connection` names as such.
pub(crate) fn strip_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(header::CONNECTION) {
        let named: Vec<HeaderName> = headers
            .get_all(header::CONNECTION)
            .iter()
            .flat_map(|value| value.as_bytes().split(|b| *b == b','))
            .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
            // Naming these would let a client strip what others rely on.
            .filter(|name| *name != header::AUTHORIZATION && *name != header::CONTENT_LENGTH && *name != header::HOST)
            .collect();
        for name in named {
            headers.remove(name);
        }
    }
    for name in &HOP_BY_HOP {
        headers.remove(name);
    }
    headers.remove(header::EXPECT);
}

/// Whether some framework behind us would take another method or target from such a field than the one that is routed
/// and decided on. No client of an API needs one, so its request is refused rather than changed.
fn overrules(name: &str) -> bool {
    matches!(
        name,
        "x-http-method"
            | "x-http-method-override"
            | "x-method-override"
            | "x-original-method"
            | "x-original-url"
            | "x-original-uri"
            | "x-original-host"
            | "x-rewrite-url"
            | "x-forwarded-uri"
            | "x-forwarded-path"
            | "x-forwarded-method"
    )
}

/// Removes fields that only we may set.
fn strip_reserved(headers: &mut HeaderMap) {
    let reserved: Vec<HeaderName> = headers.keys().filter(|name| is_reserved(name.as_str())).cloned().collect();
    for name in reserved {
        headers.remove(name);
    }
}

fn is_reserved(name: &str) -> bool {
    name.starts_with("x-cofferdam-") || name.starts_with("cofferdam-") || name == "x-request-id"
}

#[cfg(test)]
mod tests;
