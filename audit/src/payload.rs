//! What a frame of the log holds: the entry, over which the tree is, and beside it what the entry only commits to.
//!
//! Owns telling the two apart, checking one against the other, and putting them together again for whoever reads.
//! Must never believe a disclosed field that its entry does not commit to, and never fail on what it cannot read.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::disclose::{Field, Salts, commitment};
use crate::shred::{Opener, SubjectKeys};
use crate::tree::{Hash, leaf_hash, sha256};

/// Bytes an entry can have at most; entry bundles of C2SP tiles hold no longer ones.
pub(crate) const MAX_ENTRY_BYTES: usize = 65_535;
/// Bytes a frame can hold at most: an entry, a newline, and as much again.
pub(crate) const MAX_PAYLOAD_BYTES: usize = 2 * MAX_ENTRY_BYTES + 1;

/// One record as it lies in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Payload<'a> {
    entry: &'a [u8],
    disclosures: Option<&'a [u8]>,
}

impl<'a> Payload<'a> {
    /// Tells entry and disclosures apart. `None` where there is no entry, or either is longer than it can be.
    pub fn split(bytes: &'a [u8]) -> Option<Self> {
        let end = bytes.iter().position(|byte| *byte == b'\n');
        let (entry, disclosures) = match end {
            Some(end) => (bytes.get(..end)?, Some(bytes.get(end + 1..)?)),
            None => (bytes, None),
        };
        let possible = (1..=MAX_ENTRY_BYTES).contains(&entry.len())
            && disclosures.is_none_or(|more| (1..=MAX_ENTRY_BYTES).contains(&more.len()));
        possible.then_some(Self { entry, disclosures })
    }

    /// What the tree is over: canonical JSON.
    pub fn entry(&self) -> &'a [u8] {
        self.entry
    }

    /// What stands beside it, as it lies in the log.
    pub fn disclosures(&self) -> Option<&'a [u8]> {
        self.disclosures
    }

    /// Its leaf in the tree.
    pub fn leaf(&self) -> Hash {
        leaf_hash(self.entry)
    }

    /// The record with its disclosed fields back in their places, in canonical order. A field that is committed to and
    /// not disclosed is named in `withheld`, with the reason. What cannot be read is given as it is.
    pub fn merged(&self) -> Cow<'a, [u8]> {
        self.merged_with(None)
    }

    /// The same, with what is sealed opened where these keys can.
    pub fn merged_with(&self, keys: Option<&dyn SubjectKeys>) -> Cow<'a, [u8]> {
        let Some(entry) = members(self.entry) else { return Cow::Borrowed(self.entry) };
        let Some(commits) = member(&entry, "commits") else { return Cow::Borrowed(self.entry) };
        let opened = self.opened(&entry, keys);
        let (beside, why) = match &opened {
            Some(Ok(opened)) => (Some(opened.as_slice()), "\"withheld\""),
            Some(Err(why)) => (None, *why),
            None => (self.disclosures, "\"withheld\""),
        };
        let disclosed = Disclosed::read(beside);
        let mut out = Vec::with_capacity(self.entry.len() + self.disclosures.map_or(0, <[u8]>::len));
        let withheld = withheld(&entry, commits, &disclosed, why);
        let mut fields = disclosed.fields;
        if let Some(withheld) = &withheld {
            fields.push(("withheld", withheld));
        }
        let kept: Vec<_> =
            entry.into_iter().filter(|(key, _)| !matches!(*key, "commits" | "sealed" | "withheld")).collect();
        merge(&mut out, &kept, &fields, true);
        Cow::Owned(out)
    }

    /// What is sealed, opened; why it cannot be, as JSON; none where nothing is.
    fn opened(&self, entry: &[(&str, &[u8])], keys: Option<&dyn SubjectKeys>) -> Option<Result<Vec<u8>, &'static str>> {
        let seal = member(entry, "sealed").and_then(members)?;
        let id = member(&seal, "key").and_then(unquoted).and_then(|id| std::str::from_utf8(id).ok())?;
        let key = match keys.map_or(Opener::Unknown, |keys| keys.named(id)) {
            Opener::Key(key) => key,
            Opener::Destroyed => return Some(Err("\"shredded\"")),
            Opener::Unknown => return Some(Err("\"sealed\"")),
        };
        let open = || {
            let mut sealed = self.sealed_bytes()?;
            key.open(&hex_salt(member(entry, "salt")?)?, &mut sealed)?;
            Some(sealed)
        };
        Some(open().ok_or("\"sealed\""))
    }

    fn sealed_bytes(&self) -> Option<Vec<u8>> {
        let all = members(self.disclosures?)?;
        STANDARD.decode(unquoted(member(&all, "sealed")?)?).ok()
    }

    /// Whether it is a record, all that is disclosed is what the entry commits to, and nothing is missing but what the
    /// entry says is.
    pub fn check(&self) -> Result<(), &'static str> {
        let json = |bytes| serde_json::from_slice::<serde::de::IgnoredAny>(bytes).is_ok();
        if !json(self.entry) {
            return Err("it is not a record");
        }
        if !self.disclosures.is_none_or(json) {
            return Err("what stands beside the record cannot be read");
        }
        let entry = members(self.entry).ok_or("it is not a record")?;
        let commits = member(&entry, "commits").map_or(Some(Vec::new()), members).ok_or("it is not a record")?;
        let disclosed = Disclosed::read(self.disclosures);
        if let Some(seal) = member(&entry, "sealed").and_then(members) {
            let sealed = self.sealed_bytes().ok_or("what it sealed is missing")?;
            let same = member(&seal, "sha256").and_then(decoded) == Some(sha256(&sealed));
            return if same { Ok(()) } else { Err("what it sealed is not what stands beside it") };
        }
        self.check_commits(&entry, &commits, &disclosed)?;
        let unknown = |(key, _): &(&str, &[u8])| !commits.iter().any(|(committed, _)| committed == key);
        if disclosed.fields.iter().any(unknown) {
            return Err("it discloses a field that it does not commit to");
        }
        Ok(())
    }

    fn check_commits(
        &self,
        entry: &[(&str, &[u8])],
        commits: &[(&str, &[u8])],
        disclosed: &Disclosed<'_>,
    ) -> Result<(), &'static str> {
        let gone = member(entry, "withheld").and_then(members).unwrap_or_default();
        for (name, committed) in commits {
            if member(&gone, name).is_some() {
                continue;
            }
            let value = member(&disclosed.fields, name).ok_or("a field that it commits to is missing")?;
            let salt = disclosed.salts.of(name).ok_or("a field that it commits to has no salt")?;
            if decoded(committed) != Some(commitment(&salt, value)) {
                return Err("a field is not the one that it commits to");
            }
        }
        Ok(())
    }
}

/// What is disclosed beside an entry.
pub(crate) struct Disclosed<'a> {
    pub(crate) fields: Vec<(&'a str, &'a [u8])>,
    pub(crate) salts: Salts,
}

impl<'a> Disclosed<'a> {
    pub(crate) fn read(disclosures: Option<&'a [u8]>) -> Self {
        let all = disclosures.and_then(members).unwrap_or_default();
        let fields = member(&all, "fields").and_then(members).unwrap_or_default();
        let secret = member(&all, "secret").and_then(decoded);
        let salts = match (secret, member(&all, "salts").and_then(members)) {
            (Some(secret), _) => Salts::All(secret),
            (None, Some(each)) => Salts::Each(each.iter().filter_map(|(name, salt)| salt_of(name, salt)).collect()),
            (None, None) => Salts::Each(Vec::new()),
        };
        Self { fields, salts }
    }
}

fn salt_of(name: &str, salt: &[u8]) -> Option<(Field, [u8; 16])> {
    Some((Field::parse(name)?, STANDARD.decode(unquoted(salt)?).ok()?.try_into().ok()?))
}

fn hex_salt(quoted: &[u8]) -> Option<[u8; 16]> {
    let digits = std::str::from_utf8(unquoted(quoted)?).ok().filter(|digits| digits.len() == 32)?;
    u128::from_str_radix(digits, 16).ok().map(u128::to_be_bytes)
}

fn decoded(quoted: &[u8]) -> Option<Hash> {
    STANDARD.decode(unquoted(quoted)?).ok()?.try_into().ok()
}

fn unquoted(text: &[u8]) -> Option<&[u8]> {
    text.strip_prefix(b"\"")?.strip_suffix(b"\"")
}

/// The object telling which fields are not there, and why; none where all are.
fn withheld(entry: &[(&str, &[u8])], commits: &[u8], disclosed: &Disclosed<'_>, else_why: &str) -> Option<Vec<u8>> {
    let told = member(entry, "withheld").and_then(members).unwrap_or_default();
    let mut out = vec![b'{'];
    for (name, _) in members(commits)? {
        if member(&disclosed.fields, name).is_none() {
            let why = member(&told, name).unwrap_or(else_why.as_bytes());
            push_member(&mut out, name, why);
        }
    }
    out.push(b'}');
    (out.len() > 2).then_some(out)
}

/// Writes two objects as one. Where both have a field, it is one object in two parts, or the first's.
fn merge(out: &mut Vec<u8>, one: &[(&str, &[u8])], other: &[(&str, &[u8])], deep: bool) {
    let (mut one, mut other) = (one.iter().peekable(), other.iter().peekable());
    out.push(b'{');
    loop {
        let order = match (one.peek(), other.peek()) {
            (Some((left, _)), Some((right, _))) => left.cmp(right),
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (None, None) => break,
        };
        let (left, right) = (one.next_if(|_| order.is_le()), other.next_if(|_| order.is_ge()));
        match (left, right) {
            (Some((key, left)), Some((_, right))) => match (members(left), members(right)) {
                (Some(left), Some(right)) if deep => {
                    push_key(out, key);
                    merge(out, &left, &right, false);
                }
                _ => push_member(out, key, left),
            },
            (Some((key, value)), None) | (None, Some((key, value))) => push_member(out, key, value),
            (None, None) => {}
        }
    }
    out.push(b'}');
}

fn push_member(out: &mut Vec<u8>, key: &str, value: &[u8]) {
    push_key(out, key);
    out.extend_from_slice(value);
}

fn push_key(out: &mut Vec<u8>, key: &str) {
    if out.last() != Some(&b'{') {
        out.push(b',');
    }
    out.push(b'"');
    out.extend_from_slice(key.as_bytes());
    out.extend_from_slice(b"\":");
}

/// The value of a field.
pub(crate) fn member<'a>(of: &[(&str, &'a [u8])], key: &str) -> Option<&'a [u8]> {
    of.iter().find(|(name, _)| *name == key).map(|(_, value)| *value)
}

/// The fields of a canonical object with the bytes of their values; `None` for what is no object. Keys stay as they
/// are written: ours need no escape.
pub(crate) fn members(object: &[u8]) -> Option<Vec<(&str, &[u8])>> {
    let mut rest = object.strip_prefix(b"{")?.strip_suffix(b"}")?;
    let mut found = Vec::new();
    while !rest.is_empty() {
        let key_bytes = text_bytes(rest)?;
        let key = std::str::from_utf8(rest.get(1..key_bytes - 1)?).ok()?;
        let after = rest.get(key_bytes..)?.strip_prefix(b":")?;
        let value_bytes = value_bytes(after)?;
        found.push((key, after.get(..value_bytes)?));
        rest = after.get(value_bytes..)?;
        if !rest.is_empty() {
            rest = rest.strip_prefix(b",").filter(|rest| !rest.is_empty())?;
        }
    }
    Some(found)
}

/// Bytes of the text at the beginning, quotes included.
fn text_bytes(bytes: &[u8]) -> Option<usize> {
    let inner = bytes.strip_prefix(b"\"")?;
    let mut escaped = false;
    for (at, byte) in inner.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return Some(at + 2),
            _ => {}
        }
    }
    None
}

/// Bytes of the value at the beginning: up to a comma that is in no text and no brackets, or to the end.
fn value_bytes(bytes: &[u8]) -> Option<usize> {
    let (mut at, mut depth) = (0usize, 0usize);
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => {
                at += text_bytes(bytes.get(at..)?)?;
                continue;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.checked_sub(1)?,
            b',' if depth == 0 => break,
            _ => {}
        }
        at += 1;
    }
    (at > 0 && depth == 0).then_some(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entry_ends_before_the_first_newline_and_both_parts_are_bounded() {
        let payload = Payload::split(b"{\"v\":1}").unwrap();
        assert_eq!((payload.entry(), payload.disclosures()), (b"{\"v\":1}".as_slice(), None));
        let payload = Payload::split(b"{}\n{\"a\":1}").unwrap();
        assert_eq!((payload.entry(), payload.disclosures()), (b"{}".as_slice(), Some(b"{\"a\":1}".as_slice())));
        for bad in [b"".as_slice(), b"\n{}", b"{}\n"] {
            assert_eq!(Payload::split(bad), None);
        }
        let long = vec![b'x'; MAX_ENTRY_BYTES + 1];
        assert_eq!(Payload::split(&long), None);
        assert_eq!(Payload::split(&[b"{}\n".as_slice(), &long].concat()), None);
        assert!(Payload::split(&long[1..]).is_some());
    }

    #[test]
    fn fields_of_an_object_are_found_whatever_their_values_hold() {
        let text = br#"{"a":"x,\"}{","b":{"c":[1,{"d":"]"}],"e":"}"},"f":12,"g":true}"#;
        let found = members(text).unwrap();
        let expected: [(&str, &[u8]); 4] =
            [("a", br#""x,\"}{""#), ("b", br#"{"c":[1,{"d":"]"}],"e":"}"}"#), ("f", b"12"), ("g", b"true")];
        assert_eq!(found, expected);
        assert_eq!(members(b"{}"), Some(Vec::new()));
        for bad in
            ["", "{", "}", "[]", "{\"a\"}", "{\"a\":}", "{\"a\":1,}", "{a:1}", "{\"a\":{}", "{\"a\":]}", "{\"a:1}"]
        {
            assert_eq!(members(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn merged_record_has_each_field_in_its_place_and_says_what_is_not_there() {
        let entry = r#"{"at":1,"commits":{"path":"x","principal":"y","source":"z"},"principal":{"kind":"user"},"v":2}"#;
        let beside = r#"{"fields":{"path":"/a,\"b","principal":{"id":"alice","zone":1}},"secret":"s"}"#;
        let both = format!("{entry}\n{beside}");
        let merged = Payload::split(both.as_bytes()).unwrap().merged().into_owned();
        let expected = concat!(
            r#"{"at":1,"path":"/a,\"b","principal":{"id":"alice","kind":"user","zone":1},"v":2,"#,
            r#""withheld":{"source":"withheld"}}"#
        );
        assert_eq!(String::from_utf8(merged).unwrap(), expected);
        let old = br#"{"at":1,"path":"/a","v":1}"#;
        assert_eq!(&*Payload::split(old).unwrap().merged(), old);
    }
}
