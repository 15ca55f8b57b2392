//! Fields that can be withheld: the entry commits to each by a salted hash, the value stands beside it.
//!
//! Owns which fields those are, their salts and commitments, and writing both while a record is encoded. Must never let
//! a value into the entry, and never give away the salt of a value that is not disclosed.

use std::cell::Cell;
use std::net::IpAddr;
use std::sync::Arc;

use aws_lc_rs::digest;

use crate::json::{self, Object};
use crate::record::Stamp;
use crate::shred::{ID_BYTES, Seal, SubjectKey};
use crate::tree::{Hash, sha256};

/// Bytes of the secret that a record's salts come from.
pub(crate) const SECRET_BYTES: usize = 32;
/// Bytes of one salt.
pub(crate) const SALT_BYTES: usize = 16;
/// Fields of a request that are recorded at most, and bytes of each.
const HEADERS: usize = 16;
const HEADER_BYTES: usize = 512;
/// Bytes the longest name of a field has.
const NAME_BYTES: usize = 9;

/// A field of a record that is personal or sensitive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Field {
    /// Address that an egress was connected to.
    Address,
    /// Of a decision what it was made on: roles, scopes and names.
    Decision,
    /// What a change changes.
    Detail,
    /// Fields of the request that the node is set to record.
    Headers,
    /// Host asked for, or sent to.
    Host,
    /// Path asked for.
    Path,
    /// Of the principal who it is: id, issuer, credential, session.
    Principal,
    /// Address of the peer.
    Source,
}

impl Field {
    /// The whole list, in the order of names.
    pub const ALL: &'static [Self] = &[
        Self::Address,
        Self::Decision,
        Self::Detail,
        Self::Headers,
        Self::Host,
        Self::Path,
        Self::Principal,
        Self::Source,
    ];

    /// Its name in records, configuration and commands.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Address => "address",
            Self::Decision => "decision",
            Self::Detail => "detail",
            Self::Headers => "headers",
            Self::Host => "host",
            Self::Path => "path",
            Self::Principal => "principal",
            Self::Source => "source",
        }
    }

    /// The field of this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|field| field.as_str() == name)
    }
}

/// Some of the fields.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Fields(u8);

impl Fields {
    /// None of them.
    pub const NONE: Self = Self(0);

    /// These and one more.
    #[must_use]
    pub fn with(self, field: Field) -> Self {
        Self(self.0 | 1 << field as u8)
    }

    /// Whether it is one of them.
    pub fn has(self, field: Field) -> bool {
        self.0 & (1 << field as u8) != 0
    }

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl FromIterator<Field> for Fields {
    fn from_iter<I: IntoIterator<Item = Field>>(fields: I) -> Self {
        fields.into_iter().fold(Self::NONE, Self::with)
    }
}

/// What salts are known from.
pub(crate) enum Salts {
    /// The record's secret, which every salt comes from.
    All([u8; SECRET_BYTES]),
    /// Those of some fields.
    Each(Vec<(Field, [u8; SALT_BYTES])>),
}

impl Salts {
    pub(crate) fn of(&self, name: &str) -> Option<[u8; SALT_BYTES]> {
        let field = Field::parse(name)?;
        match self {
            Self::All(secret) => Some(salt(secret, field)),
            Self::Each(each) => each.iter().find(|(of, _)| *of == field).map(|(_, salt)| *salt),
        }
    }
}

/// A field's salt: the first bytes of SHA-256 over the secret and its name.
pub(crate) fn salt(secret: &[u8; SECRET_BYTES], field: Field) -> [u8; SALT_BYTES] {
    let name = field.as_str().as_bytes();
    let mut bytes = [0u8; SECRET_BYTES + NAME_BYTES];
    bytes.iter_mut().zip(secret.iter().chain(name)).for_each(|(to, from)| *to = *from);
    let hash = sha256(bytes.get(..SECRET_BYTES + name.len()).unwrap_or_default());
    let mut salt = [0u8; SALT_BYTES];
    salt.iter_mut().zip(hash).for_each(|(to, from)| *to = from);
    salt
}

/// What an entry has in place of a value: SHA-256 over its salt and its canonical JSON.
pub(crate) fn commitment(salt: &[u8; SALT_BYTES], value: &[u8]) -> Hash {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(salt);
    context.update(value);
    let mut out = [0u8; 32];
    out.iter_mut().zip(context.finish().as_ref()).for_each(|(to, from)| *to = *from);
    out
}

/// A field that was written, and what of it is needed later.
struct Veiled {
    field: Field,
    /// Where its value is in the buffer.
    from: usize,
    to: usize,
    salt: [u8; SALT_BYTES],
    commitment: Hash,
    /// Why the value is not kept, if it is not.
    gone: Option<&'static str>,
}

/// The fields of one record that its entry only commits to, while it is encoded.
#[derive(Default)]
pub(crate) struct Veil {
    values: Vec<u8>,
    fields: Vec<Veiled>,
    /// What will stand beside the entry.
    beside: Vec<u8>,
    /// The key that is sealed under, and its hash then.
    sealed: Option<(Arc<SubjectKey>, Hash)>,
}

thread_local! {
    /// Kept for its capacity.
    static SPARE: Cell<Veil> = const { Cell::new(Veil::EMPTY) };
}

impl Veil {
    const EMPTY: Self = Self { values: Vec::new(), fields: Vec::new(), beside: Vec::new(), sealed: None };

    /// An empty one, with the room that the last one on this thread took.
    pub(crate) fn take() -> Self {
        SPARE.take()
    }

    /// Leaves its room to the next one on this thread.
    pub(crate) fn give_back(mut self) {
        self.values.clear();
        self.fields.clear();
        self.beside.clear();
        self.sealed = None;
        SPARE.set(self);
    }

    pub(crate) fn text(&mut self, field: Field, value: &str, max: usize) {
        self.put(field, |out| json::text(out, value, max));
    }

    pub(crate) fn address(&mut self, field: Field, value: IpAddr) {
        self.put(field, |out| json::text(out, &value.to_string(), 64));
    }

    /// Fields of a request, in the order of their names.
    pub(crate) fn headers(&mut self, fields: &[(Arc<str>, String)]) {
        let fields = fields.iter().take(HEADERS).map(|(name, value)| (&**name, value.as_str()));
        self.put(Field::Headers, |out| json::pairs(out, fields, HEADER_BYTES));
    }

    pub(crate) fn object(&mut self, field: Field, fill: impl FnOnce(&mut Object<'_>)) {
        self.put(field, |out| json::object(out, fill));
    }

    fn put(&mut self, field: Field, write: impl FnOnce(&mut Vec<u8>)) {
        debug_assert!(self.fields.last().is_none_or(|last| last.field < field), "{field:?} is out of order");
        let from = self.values.len();
        write(&mut self.values);
        let to = self.values.len();
        self.fields.push(Veiled { field, from, to, salt: [0; SALT_BYTES], commitment: [0; 32], gone: None });
    }

    /// Makes salts, commitments, and all that will stand beside the entry.
    pub(crate) fn close(&mut self, stamp: &Stamp) {
        for veiled in &mut self.fields {
            let value = self.values.get(veiled.from..veiled.to).unwrap_or_default();
            veiled.salt = salt(&stamp.secret, veiled.field);
            veiled.commitment = commitment(&veiled.salt, value);
            veiled.gone = match stamp.seal {
                _ if stamp.privacy.redact.has(veiled.field) => Some("redacted"),
                Seal::Lost => Some("no_key"),
                Seal::Clear | Seal::Under(_) => None,
            };
        }
        let mut beside = std::mem::take(&mut self.beside);
        self.disclosures(&mut beside, &stamp.secret);
        if let (Seal::Under(key), false) = (&stamp.seal, beside.is_empty()) {
            match key.seal(&stamp.salt, &mut beside) {
                Some(()) => self.sealed = Some((key.clone(), sha256(&beside))),
                // Rather nothing than what should have been sealed.
                None => beside.clear(),
            }
        }
        self.beside = beside;
    }

    /// Writes the commitments into the entry, if there are any.
    pub(crate) fn commits(&self, o: &mut Object<'_>) {
        if !self.fields.is_empty() {
            o.object("commits", |o| {
                self.fields.iter().for_each(|veiled| o.base64(veiled.field.as_str(), &veiled.commitment));
            });
        }
    }

    /// Writes under which key what stands beside the entry is sealed, if it is, and the hash of that.
    pub(crate) fn sealed(&self, o: &mut Object<'_>) {
        if let Some((key, hash)) = &self.sealed {
            o.object("sealed", |o| {
                o.text("key", key.id(), ID_BYTES);
                o.base64("sha256", hash);
            });
        }
    }

    /// Writes which fields are lost, and why.
    pub(crate) fn withheld(&self, o: &mut Object<'_>) {
        if self.fields.iter().any(|veiled| veiled.gone.is_some()) {
            o.object("withheld", |o| {
                for veiled in &self.fields {
                    o.maybe_text(veiled.field.as_str(), veiled.gone, NAME_BYTES);
                }
            });
        }
    }

    /// Writes what stands beside the entry, if anything does.
    pub(crate) fn disclose(&self, out: &mut Vec<u8>) {
        if self.beside.is_empty() {
            return;
        }
        out.push(b'\n');
        match self.sealed {
            Some(_) => {
                out.extend_from_slice(b"{\"sealed\":\"");
                json::base64(out, &self.beside);
                out.extend_from_slice(b"\"}");
            }
            None => out.extend_from_slice(&self.beside),
        }
    }

    /// The values: with the secret where all are there, and else with the salts of those that are.
    fn disclosures(&self, out: &mut Vec<u8>, secret: &[u8; SECRET_BYTES]) {
        let kept = || self.fields.iter().filter(|veiled| veiled.gone.is_none());
        if kept().next().is_none() {
            return;
        }
        json::object(out, |o| {
            o.object("fields", |o| {
                for veiled in kept() {
                    let value = self.values.get(veiled.from..veiled.to).unwrap_or_default();
                    o.raw(veiled.field.as_str(), value);
                }
            });
            if kept().count() == self.fields.len() {
                o.base64("secret", secret);
            } else {
                o.object("salts", |o| kept().for_each(|veiled| o.base64(veiled.field.as_str(), &veiled.salt)));
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    #[test]
    fn fields_have_names_in_order_that_read_back() {
        let names: Vec<_> = Field::ALL.iter().map(|field| field.as_str()).collect();
        assert!(names.is_sorted());
        assert_eq!(Field::ALL.len(), names.iter().filter(|name| Field::parse(name).is_some()).count());
        assert!(names.iter().all(|name| name.len() <= NAME_BYTES));
        assert_eq!(Field::parse("v"), None);
    }

    #[test]
    fn commitment_is_what_the_format_says() {
        // Computed with Python's hashlib over the same bytes.
        let salt = salt(&[7; 32], Field::Path);
        assert_eq!(STANDARD.encode(salt), "WMsMQr91BJE7N0Sc9SrZvQ==");
        assert_eq!(STANDARD.encode(commitment(&salt, b"\"/orders\"")), "WnUIJojtAHj+9PYgynkNSzEuHu39hsGB8ty/hUzjQ4o=");
    }
}
