//! The one plain form of a path.
//!
//! Owns what a path may look like. A path in its plain form is passed as it is; percent-encoding that is needless is
//! decoded; whatever could be read in two ways is refused. Must never shorten, join or otherwise repair a path.

use http::Method;

use crate::refusal::Fault;

/// The canonical form of a request's path, or the reason it has none.
pub(super) fn canonical(path: &str, method: &Method) -> Result<String, Fault> {
    if path == "*" {
        return if method == Method::OPTIONS { Ok(path.to_owned()) } else { Err(Fault::Target) };
    }
    if !path.starts_with('/') {
        return Err(Fault::Target);
    }
    let mut out = String::with_capacity(path.len());
    let mut bytes = path.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => {
                let pair = bytes.next().zip(bytes.next()).ok_or(Fault::Path)?;
                push_decoded(&mut out, pair)?;
            }
            _ if is_plain(byte) || byte == b'/' => out.push(char::from(byte)),
            _ => return Err(Fault::Path),
        }
    }
    // Decoding comes first: `%2e%2e` has become `..` by now.
    if out.contains("//") || out.split('/').any(|part| part == "." || part == "..") {
        return Err(Fault::Path);
    }
    Ok(out)
}

/// A byte that came as `%XX`: plain ones are decoded, the rest stays encoded, with capital digits.
fn push_decoded(out: &mut String, (high, low): (u8, u8)) -> Result<(), Fault> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let (high, low) = digit(high).zip(digit(low)).ok_or(Fault::Path)?;
    let byte = high * 16 + low;
    match byte {
        // An encoded separator, percent sign or parameter mark means one thing to whoever decodes and another to
        // whoever does not; control bytes mean nothing good to anyone.
        b'/' | b'\\' | b'%' | b';' | 0..=0x1f | 0x7f => Err(Fault::Path),
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
            out.push(char::from(byte));
            Ok(())
        }
        _ => {
            out.push('%');
            for digit in [high, low] {
                out.push(char::from_digit(u32::from(digit), 16).ok_or(Fault::Path)?.to_ascii_uppercase());
            }
            Ok(())
        }
    }
}

/// What stands for itself in a path (RFC 3986, `pchar`), but for `;`, which servers disagree on.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,=:@".contains(&byte)
}

/// The segments of a canonical path.
pub fn segments(path: &str) -> impl Iterator<Item = &str> {
    path.strip_prefix('/').unwrap_or(path).split('/')
}
