//! Keys and signatures of C2SP signed notes (Ed25519).
//!
//! Owns the signing key in its file, the verifier key as text, and signing and checking a note. Must never show the
//! secret half, and never accept a note that its key did not sign.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cofferdam_model::Random;
use zeroize::Zeroizing;

use crate::error::{AuditError, VerifyError};
use crate::tree::{Hash, sha256};

/// The type byte of plain Ed25519 keys.
const ED25519_TYPE: u8 = 1;
const SECRET_PREFIX: &str = "PRIVATE+KEY+";
const KEY_FILE_BYTES: u64 = 1_024;
const NAME_BYTES: usize = 200;
/// What a signature line begins with: an em dash and a space.
pub(crate) const SIGNATURE_MARK: &str = "\u{2014} ";
/// Signature lines looked at in one note.
const SIGNATURES: usize = 16;

/// Signs checkpoints. Its name is the log's origin.
#[derive(Clone)]
pub struct Signer {
    name: String,
    key: Arc<Ed25519KeyPair>,
}

impl Signer {
    /// Makes a key for the log named `origin` and keeps it in a new file that only its owner can read.
    pub fn create(path: &Path, origin: &str, random: &dyn Random) -> Result<Self, AuditError> {
        if !is_key_name(origin) {
            return Err(AuditError::Config { what: "origin", value: origin.to_owned() });
        }
        let mut seed = Zeroizing::new([0u8; 32]);
        random.fill(seed.as_mut());
        let signer = Self::from_seed(origin, seed.as_ref()).ok_or_else(|| bad_key(path, "the seed is refused"))?;

        let tagged = Zeroizing::new([&[ED25519_TYPE], seed.as_slice()].concat());
        let secret = Zeroizing::new(STANDARD.encode(tagged.as_slice()));
        let id = u32::from_be_bytes(signer.id());
        let text = Zeroizing::new(format!("{SECRET_PREFIX}{origin}+{id:08x}+{}\n", secret.as_str()));
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .map_err(AuditError::file("create", path))?;
        file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(AuditError::file("write", path))?;
        if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
            File::open(dir).and_then(|dir| dir.sync_all()).map_err(AuditError::file("sync", dir))?;
        }
        Ok(signer)
    }

    /// Reads a key from the file `create` made. Refuses a file that others can read.
    pub fn load(path: &Path) -> Result<Self, AuditError> {
        let mode = fs::metadata(path).map_err(AuditError::file("read", path))?.permissions().mode();
        if mode & 0o077 != 0 {
            return Err(bad_key(path, "others than its owner can read it (chmod 600)"));
        }
        let mut text = Zeroizing::new(String::with_capacity(KEY_FILE_BYTES as usize));
        let file = File::open(path).map_err(AuditError::file("read", path))?;
        file.take(KEY_FILE_BYTES).read_to_string(&mut text).map_err(AuditError::file("read", path))?;
        Self::parse(text.trim_end()).ok_or_else(|| bad_key(path, "it is not `PRIVATE+KEY+<origin>+<id>+<base64>`"))
    }

    /// The log's name, which the key carries.
    pub fn origin(&self) -> &str {
        &self.name
    }

    /// The public half as C2SP verifier key: `<origin>+<id>+<base64>`. Give it to whoever shall check the log.
    pub fn verifier_key(&self) -> String {
        self.verifier().to_text()
    }

    pub(crate) fn verifier(&self) -> Verifier {
        Verifier { name: self.name.clone(), key: self.public() }
    }

    /// The signer of a tenant's tree: the same key under the name of that tree.
    pub(crate) fn of_tenant(&self, tenant: &str) -> Self {
        Self { name: tenant_origin(&self.name, tenant), key: self.key.clone() }
    }

    /// The signed statement that so many records have this root.
    pub(crate) fn checkpoint(&self, size: u64, root: &Hash) -> String {
        self.sign(&format!("{}\n{size}\n{}\n", self.name, STANDARD.encode(root)))
    }

    /// The note over `text`, which ends with a newline.
    pub(crate) fn sign(&self, text: &str) -> String {
        let signature = self.key.sign(text.as_bytes());
        let blob = STANDARD.encode([&self.id(), signature.as_ref()].concat());
        format!("{text}\n{SIGNATURE_MARK}{} {blob}\n", self.name)
    }

    fn parse(text: &str) -> Option<Self> {
        let (name, id, tagged) = key_parts(text.strip_prefix(SECRET_PREFIX)?)?;
        let tagged = Zeroizing::new(tagged);
        let (ED25519_TYPE, seed) = tagged.split_first().map(|(kind, seed)| (*kind, seed))? else { return None };
        Self::from_seed(name, seed).filter(|signer| signer.id() == id)
    }

    fn from_seed(name: &str, seed: &[u8]) -> Option<Self> {
        let key = Ed25519KeyPair::from_seed_unchecked(seed).ok()?;
        Some(Self { name: name.to_owned(), key: Arc::new(key) })
    }

    fn public(&self) -> [u8; 32] {
        let mut public = [0u8; 32];
        public.iter_mut().zip(self.key.public_key().as_ref()).for_each(|(to, from)| *to = *from);
        public
    }

    fn id(&self) -> [u8; 4] {
        key_id(&self.name, &self.public())
    }
}

/// Checks notes by the public half of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Verifier {
    name: String,
    key: [u8; 32],
}

impl Verifier {
    pub(crate) fn parse(text: &str) -> Result<Self, VerifyError> {
        let refuse = |reason| VerifyError::Key { key: text.chars().take(300).collect(), reason };
        let (name, id, tagged) = key_parts(text).ok_or_else(|| refuse("expected `<origin>+<id>+<base64>`"))?;
        let key = match tagged.split_first() {
            Some((&ED25519_TYPE, key)) => {
                <[u8; 32]>::try_from(key).map_err(|_| refuse("an Ed25519 key has 32 bytes"))?
            }
            _ => return Err(refuse("only Ed25519 keys (type 1) are known")),
        };
        if key_id(name, &key) != id {
            return Err(refuse("its id does not belong to its name and key"));
        }
        Ok(Self { name: name.to_owned(), key })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// That of a tenant's tree.
    pub(crate) fn of_tenant(&self, tenant: &str) -> Self {
        Self { name: tenant_origin(&self.name, tenant), key: self.key }
    }

    pub(crate) fn to_text(&self) -> String {
        let id = u32::from_be_bytes(key_id(&self.name, &self.key));
        format!("{}+{id:08x}+{}", self.name, STANDARD.encode([&[ED25519_TYPE], self.key.as_slice()].concat()))
    }

    /// The text of a note, if this key signed it. Signatures of others are passed over.
    pub(crate) fn open<'a>(&self, note: &'a str) -> Result<&'a str, &'static str> {
        let (text, signatures) = note.rsplit_once("\n\n").ok_or("it has no blank line before its signatures")?;
        let text = note.get(..text.len() + 1).ok_or("it is cut short")?;
        let lines = signatures.strip_suffix('\n').ok_or("its last line has no end")?;
        let id = key_id(&self.name, &self.key);
        let mut signed = false;
        for (number, line) in lines.split('\n').enumerate() {
            let (name, blob) = line
                .strip_prefix(SIGNATURE_MARK)
                .and_then(|line| line.split_once(' '))
                .filter(|_| number < SIGNATURES)
                .ok_or("a signature line is malformed")?;
            let blob = STANDARD.decode(blob).map_err(|_| "a signature is not base64")?;
            let (key, signature) = blob.split_at_checked(4).ok_or("a signature is too short")?;
            if name == self.name && key == id {
                UnparsedPublicKey::new(&ED25519, &self.key)
                    .verify(text.as_bytes(), signature)
                    .map_err(|_| "its signature is not of this key and text")?;
                signed = true;
            }
        }
        if signed { Ok(text) } else { Err("it is not signed by this key") }
    }
}

/// The verifier key of a tenant's tree, by that of its log.
pub fn tenant_key(vkey: &str, tenant: &str) -> Result<String, VerifyError> {
    Ok(Verifier::parse(vkey)?.of_tenant(tenant).to_text())
}

/// The name of a tenant's tree.
fn tenant_origin(log: &str, tenant: &str) -> String {
    format!("{log}/tenant/{tenant}")
}

/// Whether a text can name a key: printable ASCII without space and `+`.
pub(crate) fn is_key_name(name: &str) -> bool {
    (1..=NAME_BYTES).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_graphic() && b != b'+')
}

/// Name, id and the tagged bytes of a key, of either half.
fn key_parts(text: &str) -> Option<(&str, [u8; 4], Vec<u8>)> {
    let (name, rest) = text.split_once('+')?;
    let (id, tagged) = rest.split_once('+')?;
    if !is_key_name(name) || id.len() != 8 || !id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
        return None;
    }
    let id = u32::from_str_radix(id, 16).ok()?;
    Some((name, id.to_be_bytes(), STANDARD.decode(tagged).ok()?))
}

/// First four bytes of SHA-256 over name, newline, type and key.
fn key_id(name: &str, key: &[u8; 32]) -> [u8; 4] {
    let [a, b, c, d, ..] = sha256(&[name.as_bytes(), &[b'\n', ED25519_TYPE], key].concat());
    [a, b, c, d]
}

fn bad_key(path: &Path, reason: &'static str) -> AuditError {
    AuditError::Key { path: path.to_owned(), reason }
}

#[cfg(test)]
mod tests {
    use cofferdam_model::random::SeededRandom;

    use super::*;

    /// The vector of the C2SP signed-note specification.
    const VECTOR: &str = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k";

    #[test]
    fn verifier_keys_are_those_of_c2sp() {
        assert_eq!(Verifier::parse(VECTOR).unwrap().to_text(), VECTOR);
        for at in 0..VECTOR.len() {
            let mut bytes = VECTOR.as_bytes().to_vec();
            bytes[at] ^= 1;
            let changed = String::from_utf8(bytes).unwrap();
            assert!(Verifier::parse(&changed).is_err(), "{changed}");
        }
    }

    #[test]
    fn a_key_survives_its_file_and_nobody_else_may_read_that() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let made = Signer::create(&path, "log.example/a", &SeededRandom::new(1)).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let read = Signer::load(&path).unwrap();
        assert_eq!(read.verifier_key(), made.verifier_key());
        assert_eq!(read.origin(), "log.example/a");
        assert!(Signer::create(&path, "log.example/a", &SeededRandom::new(2)).is_err(), "never overwritten");

        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(Signer::load(&path), Err(AuditError::Key { .. })));
    }

    #[test]
    fn names_that_would_break_a_note_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["", "a b", "a+b", "a\nb", "é"] {
            assert!(Signer::create(&dir.path().join("key"), name, &SeededRandom::new(1)).is_err(), "{name:?}");
        }
    }

    #[test]
    fn a_note_opens_only_as_it_was_signed() {
        let signer = Signer::from_seed("log.example/a", &[7; 32]).unwrap();
        let note = signer.sign("log.example/a\n1\nroot\n");
        let verifier = signer.verifier();
        assert_eq!(verifier.open(&note), Ok("log.example/a\n1\nroot\n"));

        let other = Signer::from_seed("log.example/a", &[8; 32]).unwrap();
        assert!(other.verifier().open(&note).is_err());
        let cosigned = format!("{note}{}", other.sign("x\n").split_once("\n\n").unwrap().1);
        assert!(verifier.open(&cosigned).is_ok(), "a signature of somebody else does no harm");

        for at in 0..note.len() {
            for bit in 0..8 {
                let mut bytes = note.clone().into_bytes();
                bytes[at] ^= 1 << bit;
                let Ok(changed) = String::from_utf8(bytes) else { continue };
                assert!(verifier.open(&changed).is_err(), "{changed:?}");
            }
        }
    }
}
