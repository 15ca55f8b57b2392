//! A request in the one form its signature is over.
//!
//! Owns AWS's rules of canonical requests: which bytes of target and fields count, in which order and spelling. Must
//! never repair what it reads, for the signer read it too: what has two readings is refused.

use crate::error::Refusal;

/// Parameters of a query, and fields of a head, that are looked at.
const PARAMETERS: usize = 256;
pub(super) const SIGNED_FIELDS: usize = 64;

/// A request as it came off the wire, in the words of a signature.
#[derive(Debug, Clone, Copy)]
pub struct SignedRequest<'a> {
    /// Method, upper case.
    pub method: &'a str,
    /// Path as it was sent, not decoded.
    pub path: &'a str,
    /// Query as it was sent, without its `?`.
    pub query: Option<&'a str>,
    /// All fields as they were sent, names in lower case; `host` among them, also where HTTP/2 calls it otherwise.
    pub fields: &'a [(&'a str, &'a [u8])],
}

impl SignedRequest<'_> {
    /// The one field of that name, if there is one; more than one are refused.
    pub(super) fn only(&self, name: &str) -> Result<Option<&[u8]>, Refusal> {
        let mut found = self.fields.iter().filter(|(known, _)| *known == name).map(|(_, value)| *value);
        let first = found.next();
        if found.next().is_some() { Err(Refusal::Malformed) } else { Ok(first) }
    }
}

/// A parameter of a query: name and value, decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Parameter {
    pub(super) name: Vec<u8>,
    pub(super) value: Vec<u8>,
}

/// The parameters of a query in the order they came. `+` is a plus: a space is `%20`.
pub(super) fn parameters(query: Option<&str>) -> Result<Vec<Parameter>, Refusal> {
    let Some(query) = query.filter(|query| !query.is_empty()) else { return Ok(Vec::new()) };
    let mut parameters = Vec::new();
    for pair in query.split('&') {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        if pair.is_empty() || parameters.len() == PARAMETERS {
            return Err(Refusal::Malformed);
        }
        parameters.push(Parameter { name: decoded(name)?, value: decoded(value)? });
    }
    Ok(parameters)
}

/// Whether a query's parameter has this name, however it is spelled. For finding what must not be there.
pub(super) fn names_parameter(query: &str, wanted: &[&str]) -> bool {
    query.split('&').any(|pair| {
        let name = pair.split_once('=').map_or(pair, |(name, _)| name);
        let name = decoded(name).unwrap_or_else(|_| name.as_bytes().to_vec());
        wanted.iter().any(|wanted| name.eq_ignore_ascii_case(wanted.as_bytes()))
    })
}

/// Everything of the canonical request but its last line, which is the digest of the body.
pub(super) fn head(
    request: &SignedRequest<'_>,
    parameters: &[Parameter],
    signed: &[&str],
    twice_encoded: bool,
) -> Result<Vec<u8>, Refusal> {
    let mut out = Vec::with_capacity(1024);
    out.extend_from_slice(request.method.as_bytes());
    out.push(b'\n');
    // Every service but S3 has the path encoded as it was sent, which is once already.
    let path = if twice_encoded { request.path.as_bytes().to_vec() } else { decoded(request.path)? };
    encode(&mut out, &path, true);
    out.push(b'\n');
    query(&mut out, parameters);
    out.push(b'\n');
    for name in signed {
        out.extend_from_slice(name.as_bytes());
        out.push(b':');
        let mut values = request.fields.iter().filter(|(known, _)| known == name).map(|(_, value)| *value).peekable();
        if values.peek().is_none() {
            // What was signed and is not there was taken out on the way.
            return Err(Refusal::Signature);
        }
        while let Some(value) = values.next() {
            squeeze(&mut out, value);
            if values.peek().is_some() {
                out.push(b',');
            }
        }
        out.push(b'\n');
    }
    out.push(b'\n');
    out.extend_from_slice(signed.join(";").as_bytes());
    out.push(b'\n');
    Ok(out)
}

fn query(out: &mut Vec<u8>, parameters: &[Parameter]) {
    let encoded = |bytes: &[u8]| {
        let mut text = Vec::with_capacity(bytes.len());
        encode(&mut text, bytes, false);
        text
    };
    let mut pairs: Vec<_> = parameters.iter().map(|one| (encoded(&one.name), encoded(&one.value))).collect();
    pairs.sort_unstable();
    for (at, (name, value)) in pairs.iter().enumerate() {
        if at > 0 {
            out.push(b'&');
        }
        out.extend_from_slice(name);
        out.push(b'=');
        out.extend_from_slice(value);
    }
}

/// RFC 3986, unreserved characters as they are and all others as `%XX`; a path keeps its slashes.
fn encode(out: &mut Vec<u8>, bytes: &[u8], slashes: bool) {
    const DIGITS: [u8; 16] = *b"0123456789ABCDEF";
    for byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(byte) || (slashes && *byte == b'/') {
            out.push(*byte);
        } else {
            out.push(b'%');
            out.extend([byte >> 4, byte & 15].iter().filter_map(|digit| DIGITS.get(usize::from(*digit))));
        }
    }
}

fn decoded(text: &str) -> Result<Vec<u8>, Refusal> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let digit =
                |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16)).ok_or(Refusal::Malformed);
            let (high, low) = (digit(bytes.next())?, digit(bytes.next())?);
            out.push(u8::try_from(high << 4 | low).map_err(|_| Refusal::Malformed)?);
        } else {
            out.push(byte);
        }
    }
    Ok(out)
}

/// A field's value without spaces around it, and one where several stand in a row.
fn squeeze(out: &mut Vec<u8>, value: &[u8]) {
    let mut space = false;
    for byte in value.trim_ascii() {
        let is_space = matches!(byte, b' ' | b'\t');
        match (is_space, space) {
            (true, true) => {}
            (true, false) => out.push(b' '),
            (false, _) => out.push(*byte),
        }
        space = is_space;
    }
}
