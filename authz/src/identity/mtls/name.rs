//! What a certificate says of itself: the name of its machine, and whether it is an authority's.
//!
//! Owns the few pieces of DER that are looked into. Must never be asked about a certificate before its chain was
//! verified, but to refuse it, and never give one certificate two names.

use webpki::EndEntityCert;

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OID: u8 = 0x06;
const BOOLEAN: u8 = 0x01;
const OCTETS: u8 = 0x04;
const EXTENSIONS: u8 = 0xa3;
const BASIC_CONSTRAINTS: [u8; 3] = [0x55, 0x1d, 0x13];
const SPIFFE: &str = "spiffe://";
/// Parts of a subject, and bytes of one.
const PARTS: usize = 32;

/// Types of a subject's parts by their OID, as RFC 4514 writes them.
const TYPES: [(&[u8], &str); 9] = [
    (&[0x55, 4, 3], "CN"),
    (&[0x55, 4, 7], "L"),
    (&[0x55, 4, 8], "ST"),
    (&[0x55, 4, 10], "O"),
    (&[0x55, 4, 11], "OU"),
    (&[0x55, 4, 6], "C"),
    (&[0x55, 4, 9], "STREET"),
    (&[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 25], "DC"),
    (&[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 1], "UID"),
];

/// The name of the machine: its SPIFFE ID, or else its subject. None where it has no name, or more than one.
pub(super) fn machine(certificate: &EndEntityCert<'_>) -> Option<String> {
    let mut names = certificate.valid_uri_names();
    let spiffe = |uri: &str| uri.get(..SPIFFE.len()).is_some_and(|scheme| scheme.eq_ignore_ascii_case(SPIFFE));
    match (names.next(), names.next()) {
        (Some(uri), None) if spiffe(uri) => Some(uri.to_owned()),
        // An SVID has exactly one URI: with two, it is anybody's guess which of them is meant.
        (first, second) if first.into_iter().chain(second).chain(names).any(spiffe) => None,
        _ => subject(certificate.subject()),
    }
}

/// Whether a certificate is one by which others may be signed.
pub(super) fn is_authority(der: &[u8]) -> bool {
    let read = || {
        let (SEQUENCE, certificate, []) = element(der)? else { return None };
        let (SEQUENCE, mut rest, _) = element(certificate)? else { return None };
        while let Some((tag, content, after)) = element(rest) {
            rest = after;
            if tag == EXTENSIONS {
                return Some(basic_constraints(content)?.starts_with(&[BOOLEAN, 1, 0xff]));
            }
        }
        None
    };
    read().unwrap_or(false)
}

/// The content of the extension that tells an authority from others.
fn basic_constraints(extensions: &[u8]) -> Option<&[u8]> {
    let (SEQUENCE, mut rest, []) = element(extensions)? else { return None };
    while let Some((SEQUENCE, extension, after)) = element(rest) {
        rest = after;
        let (OID, oid, value) = element(extension)? else { return None };
        if oid == BASIC_CONSTRAINTS {
            let (tag, content, value) = element(value)?;
            let content = if tag == BOOLEAN {
                element(value)?.1
            } else if tag == OCTETS {
                content
            } else {
                return None;
            };
            let (SEQUENCE, content, []) = element(content)? else { return None };
            return Some(content);
        }
    }
    None
}

/// A subject as RFC 4514 writes it: the last part first, one spelling for each.
fn subject(mut der: &[u8]) -> Option<String> {
    let mut parts = Vec::new();
    while !der.is_empty() {
        let (SET, part, after) = element(der)? else { return None };
        if parts.len() == PARTS {
            return None;
        }
        parts.push(relative(part)?);
        der = after;
    }
    parts.reverse();
    (!parts.is_empty()).then(|| parts.join(","))
}

fn relative(mut der: &[u8]) -> Option<String> {
    let mut values = Vec::new();
    while !der.is_empty() {
        let (SEQUENCE, pair, after) = element(der)? else { return None };
        let (OID, oid, value) = element(pair)? else { return None };
        let (tag, value, []) = element(value)? else { return None };
        let name = TYPES.iter().find(|(known, _)| *known == oid).map(|(_, name)| *name)?;
        // UTF8String, PrintableString and IA5String, all of which are UTF-8; no other can be told apart safely.
        let text = if matches!(tag, 0x0c | 0x13 | 0x16) { std::str::from_utf8(value).ok()? } else { return None };
        values.push(format!("{name}={}", escaped(text)));
        der = after;
    }
    (!values.is_empty()).then(|| values.join("+"))
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let last = text.chars().count().saturating_sub(1);
    for (at, c) in text.chars().enumerate() {
        let edge = (c == ' ' && (at == 0 || at == last)) || (c == '#' && at == 0);
        if c.is_control() {
            let mut bytes = [0u8; 4];
            c.encode_utf8(&mut bytes).bytes().for_each(|byte| out.push_str(&format!("\\{byte:02X}")));
            continue;
        }
        if edge || matches!(c, '"' | '+' | ',' | ';' | '<' | '>' | '\\' | '=') {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

/// The first element of some DER: its tag, its content, and what follows.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, rest) = der.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (length, rest) = match *first {
        short @ 0..=0x7f => (usize::from(short), rest),
        long @ 0x81..=0x83 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(long & 0x7f))?;
            (bytes.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    let (content, after) = rest.split_at_checked(length)?;
    Some((*tag, content, after))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
        [&[tag, u8::try_from(content.len()).unwrap()], content].concat()
    }

    fn part(oid: &[u8], tag: u8, text: &[u8]) -> Vec<u8> {
        tlv(SET, &tlv(SEQUENCE, &[tlv(OID, oid), tlv(tag, text)].concat()))
    }

    #[test]
    fn a_subject_has_one_spelling_and_its_last_part_comes_first() {
        let der = [part(&[0x55, 4, 10], 0x13, b"Acme"), part(&[0x55, 4, 3], 0x0c, "pä".as_bytes())].concat();
        assert_eq!(subject(&der).unwrap(), "CN=pä,O=Acme");
        let tricky = part(&[0x55, 4, 3], 0x0c, b" #pay,O=Other\0");
        assert_eq!(subject(&tricky).unwrap(), "CN=\\ #pay\\,O\\=Other\\00");
    }

    #[test]
    fn a_subject_of_other_types_or_with_bytes_left_over_is_none() {
        for der in [
            vec![],
            part(&[0x55, 4, 3], 0x1e, b"\0p"),
            part(&[0x55, 4, 99], 0x0c, b"p"),
            part(&[0x55, 4, 3], 0x0c, b"\xff"),
            [part(&[0x55, 4, 3], 0x0c, b"p"), vec![0x31]].concat(),
            tlv(SET, &[]),
            vec![0x31, 0x84, 0, 0, 0, 0],
        ] {
            assert_eq!(subject(&der), None, "{der:?}");
        }
    }
}
