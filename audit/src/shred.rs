//! Sealing what a record discloses under a key of its subject, so that destroying the key erases it everywhere at once.
//!
//! Owns how it is sealed, and what the log asks of whoever keeps the keys. Must never hold up a record: where no key is
//! at hand, what would have been sealed is not kept at all, and that is counted.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hmac;
use zeroize::Zeroizing;

use crate::disclose::SALT_BYTES;

/// Bytes of a subject's key.
pub const KEY_BYTES: usize = 32;
/// Bytes the name of a key has at most.
pub const ID_BYTES: usize = 64;
/// What the key of one record is derived with, beside that record's salt.
const LABEL: &[u8] = b"cofferdam/audit-disclosures/1";

/// The key that what is disclosed of one subject in one tenant is sealed under.
pub struct SubjectKey {
    id: String,
    key: Zeroizing<[u8; KEY_BYTES]>,
}

impl SubjectKey {
    /// A key and what it is called in records, which must tell nothing of its subject.
    pub fn new(id: String, key: Zeroizing<[u8; KEY_BYTES]>) -> Self {
        Self { id, key }
    }

    /// What it is called in records.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// A key for one record. It seals once, so that its nonce can be fixed.
    fn of_record(&self, salt: &[u8; SALT_BYTES]) -> Option<LessSafeKey> {
        let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, self.key.as_ref()));
        context.update(LABEL);
        context.update(salt);
        UnboundKey::new(&AES_256_GCM, context.sign().as_ref()).ok().map(LessSafeKey::new)
    }

    /// Seals in place.
    pub(crate) fn seal(&self, salt: &[u8; SALT_BYTES], bytes: &mut Vec<u8>) -> Option<()> {
        let nonce = Nonce::assume_unique_for_key([0; NONCE_LEN]);
        self.of_record(salt)?.seal_in_place_append_tag(nonce, Aad::from(salt), bytes).ok()
    }

    /// Opens what [`Self::seal`] made of it, for the record of the same salt.
    pub(crate) fn open(&self, salt: &[u8; SALT_BYTES], sealed: &mut Vec<u8>) -> Option<()> {
        let nonce = Nonce::assume_unique_for_key([0; NONCE_LEN]);
        let opened = self.of_record(salt)?.open_in_place(nonce, Aad::from(salt), sealed).ok()?.len();
        sealed.truncate(opened);
        Some(())
    }
}

impl fmt::Debug for SubjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SubjectKey").field("id", &self.id).finish_non_exhaustive()
    }
}

/// What became of a key.
#[derive(Debug, Clone)]
pub enum Opener {
    /// It is there.
    Key(Arc<SubjectKey>),
    /// It was destroyed, and with it all that was sealed under it.
    Destroyed,
    /// It is not known, or cannot be had now.
    Unknown,
}

/// A key that is on its way.
pub type Fetching<'a> = Pin<Box<dyn Future<Output = Option<Arc<SubjectKey>>> + Send + 'a>>;

/// Whoever keeps the keys of subjects: of a principal's records in one tenant.
pub trait SubjectKeys: Send + Sync {
    /// The key to seal with, if it is at hand. Asked for every record: must not touch a disk, and never wait.
    fn ready(&self, tenant: &str, subject: &str) -> Option<Arc<SubjectKey>>;
    /// Has the key at hand, and makes it if there is none. From this machine alone: where that would take asking
    /// somebody over a network, gives none and has it at hand later.
    fn fetch<'a>(&'a self, tenant: &'a str, subject: &'a str) -> Fetching<'a>;
    /// The key of this name, to open with. May read a disk.
    fn named(&self, id: &str) -> Opener;
}

/// What a record's disclosures are put under.
#[derive(Debug, Clone, Default)]
pub(crate) enum Seal {
    /// Nothing.
    #[default]
    Clear,
    /// This key.
    Under(Arc<SubjectKey>),
    /// There was none at hand, so that they are not kept.
    Lost,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_opens_for_its_own_record_and_key_alone() {
        let key = |byte: u8| SubjectKey::new("k".into(), Zeroizing::new([byte; KEY_BYTES]));
        let mut sealed = b"alice".to_vec();
        key(1).seal(&[7; SALT_BYTES], &mut sealed).unwrap();
        assert_eq!(sealed.len(), 5 + 16);
        let opened = |key: &SubjectKey, salt: u8, sealed: &[u8]| {
            let mut bytes = sealed.to_vec();
            key.open(&[salt; SALT_BYTES], &mut bytes).map(|()| bytes)
        };
        assert_eq!(opened(&key(1), 7, &sealed), Some(b"alice".to_vec()));
        assert_eq!(opened(&key(2), 7, &sealed), None);
        assert_eq!(opened(&key(1), 8, &sealed), None);
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert_eq!(opened(&key(1), 7, &changed), None, "byte {at}");
        }
        assert_eq!(format!("{:?}", key(1)), "SubjectKey { id: \"k\", .. }");
    }
}
