//! Sealing: how a secret is turned into ciphertext that opens in one place only.
//!
//! Owns the envelope described in `docs/formats/sealed-value.md`: root key -> tenant key -> data key of one value,
//! AES-256-GCM, context as authenticated data, and a commitment to every key. Must never keep plaintext longer than
//! a call, and never write any of it anywhere.

mod crypto;
mod envelope;
mod local;
mod memory;
mod root;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cofferdam_model::{Clock, FunctionId, KeyId, Random, SealedValue, SecretValue, TenantId, WrappedDataKey};
use zeroize::Zeroizing;

use self::crypto::Message;
use self::memory::{Keys, Unwrapped};
use crate::error::VaultError;
use crate::keyfile::{self, KeyBytes};

pub(crate) use crypto::TAG_BYTES;
pub use envelope::{WrappedKey, decode, decode_key, encode, encode_key};
pub use local::LocalRoot;
pub use memory::{Kept, KeyMemory, OrdinaryMemory};
pub use root::{RootError, RootKey, WrapContext, Wrapped};

/// How long a tenant's key is kept unwrapped where the configuration does not say.
pub const KEEP: Duration = Duration::from_secs(300);
/// How long a root key that could not be reached is not asked again by calls.
const PAUSE: Duration = Duration::from_secs(2);
/// First field of the context of every data key.
const DATA_KEY: &[u8] = b"cofferdam/data-key";

/// The one place a sealed value may be opened for.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// What kind of value: a label of its own for each, such as [`Place::SECRET`].
    pub kind: &'static str,
    /// Whose.
    pub tenant: &'a TenantId,
    /// Id of what has it: a secret's function.
    pub owner: &'a str,
    /// Under which name.
    pub name: &'a str,
    /// How-manieth value of that name.
    pub version: u64,
}

impl<'a> Place<'a> {
    /// Label of secrets of functions.
    pub const SECRET: &'static str = "cofferdam/secret";
    /// Label of secrets of access keys.
    pub const ACCESS_KEY: &'static str = "cofferdam/access-key";

    /// Label of keys of subjects.
    pub const SUBJECT_KEY: &'static str = "cofferdam/audit-subject";

    /// The place of a subject's key. Names of keys are never used twice, so there is one value in each.
    pub fn subject_key(tenant: &'a TenantId, id: &'a str) -> Self {
        Self { kind: Self::SUBJECT_KEY, tenant, owner: id, name: "key", version: 1 }
    }

    /// The place of a function's secret.
    pub fn secret(tenant: &'a TenantId, function: &'a FunctionId, name: &'a str, version: u64) -> Self {
        Self { kind: Self::SECRET, tenant, owner: function.as_str(), name, version }
    }

    /// The place of an access key's secret. Ids of keys are never used twice, so there is one value in each.
    pub fn access_key(tenant: &'a TenantId, key: &'a KeyId) -> Self {
        Self { kind: Self::ACCESS_KEY, tenant, owner: key.as_str(), name: "secret", version: 1 }
    }

    /// What a value of format 1 is bound to.
    fn first(&self, key_version: u32) -> Vec<u8> {
        crypto::context(&[
            self.kind.as_bytes(),
            &[envelope::V1],
            self.tenant.as_str().as_bytes(),
            self.owner.as_bytes(),
            self.name.as_bytes(),
            &self.version.to_be_bytes(),
            &key_version.to_be_bytes(),
        ])
    }

    /// What a value is bound to: its place, and its data key by what that is known by.
    fn value(&self, data_key: &[u8; 32]) -> Vec<u8> {
        crypto::context(&[
            self.kind.as_bytes(),
            &[envelope::V2],
            self.tenant.as_str().as_bytes(),
            self.owner.as_bytes(),
            self.name.as_bytes(),
            &self.version.to_be_bytes(),
            data_key,
        ])
    }

    /// What a data key is bound to: the place of its value, and the tenant's key by number and id.
    fn data_key(&self, key_version: u32, key_id: &[u8; 32]) -> Vec<u8> {
        crypto::context(&[
            DATA_KEY,
            &[envelope::V2],
            self.kind.as_bytes(),
            self.tenant.as_str().as_bytes(),
            self.owner.as_bytes(),
            self.name.as_bytes(),
            &self.version.to_be_bytes(),
            &key_version.to_be_bytes(),
            key_id,
        ])
    }
}

/// What seals and opens.
pub struct Vault {
    root: Arc<dyn RootKey>,
    /// Root keys of other providers that were in use before.
    before: Vec<Arc<dyn RootKey>>,
    memory: Arc<dyn KeyMemory>,
    keys: Keys,
    clock: Arc<dyn Clock>,
    /// Why the root key could not be reached when it was last asked, and when that was.
    trouble: Mutex<Option<(RootError, Duration)>>,
}

impl Vault {
    /// A vault on a root key. Tenant keys stay unwrapped for `keep`.
    pub fn new(root: Arc<dyn RootKey>, memory: Arc<dyn KeyMemory>, clock: Arc<dyn Clock>, keep: Duration) -> Self {
        let keys = Keys::new(clock.clone(), keep);
        Self { root, before: Vec::new(), memory, keys, clock, trouble: Mutex::default() }
    }

    /// The same, which also opens what these wrapped.
    pub fn with_before(mut self, before: Vec<Arc<dyn RootKey>>) -> Self {
        self.before = before;
        self
    }

    /// The root key it wraps with.
    pub fn root(&self) -> &dyn RootKey {
        &*self.root
    }

    /// Makes a key for a tenant and wraps it.
    pub fn tenant_key(&self, tenant: &TenantId, version: u32, random: &dyn Random) -> Result<WrappedKey, VaultError> {
        let key = keyfile::fresh(random);
        let id = crypto::key_id(&key)?;
        let wrapped = self.asked(self.root.wrap(&WrapContext { tenant, version, id: &id }, &key))?;
        let made = WrappedKey { version, id: Some(id), wrapped };
        self.keys.put(tenant, &made, Arc::new(Unwrapped::new(&*self.memory, id, &key)));
        Ok(made)
    }

    /// Seals a value for one place, with a data key of its own under the newest of the tenant's keys.
    pub fn seal(
        &self,
        keys: &[WrappedKey],
        place: Place<'_>,
        value: &SecretValue,
        random: &dyn Random,
    ) -> Result<SealedValue, VaultError> {
        let newest = newest(keys)?;
        let key = self.unwrapped(place.tenant, newest)?;
        let data_key = keyfile::fresh(random);
        let wrapped = wrap_data_key(&key, newest.version, place, &data_key, random)?;
        let bound = place.value(&crypto::key_id(&data_key)?);
        let sealed = crypto::seal(&crypto::V2, &data_key, crypto::salt(random), &bound, value.expose())?;
        let Message { salt, commitment, ciphertext } = sealed;
        let (format, key_version) = (envelope::V2, newest.version);
        Ok(SealedValue { format, key_version, data_key: Some(wrapped), salt, commitment, ciphertext })
    }

    /// Opens a value, if it was sealed for this very place.
    pub fn open(
        &self,
        keys: &[WrappedKey],
        place: Place<'_>,
        sealed: &SealedValue,
    ) -> Result<Zeroizing<Vec<u8>>, VaultError> {
        let version = sealed.key_version;
        let key = self.unwrapped(place.tenant, numbered(keys, version)?)?;
        let parts = (&sealed.salt, &sealed.commitment, sealed.ciphertext.as_slice());
        match (&sealed.data_key, sealed.format) {
            (None, envelope::V1) => crypto::open(&crypto::V1, key.expose(), &place.first(version), parts),
            (Some(wrapped), envelope::V2) => {
                let data_key = open_data_key(&key, version, place, wrapped)?;
                let bound = place.value(&crypto::key_id(&data_key)?);
                crypto::open(&crypto::V2, &data_key, &bound, parts)
            }
            _ => Err(VaultError::UnknownFormat(sealed.format)),
        }
    }

    /// A value under the newest of the tenant's keys: its data key is wrapped anew and the value is not opened. None
    /// where it is so already. One of format 1 has no data key, and is given one: opened and sealed, this once.
    pub fn rewrap(
        &self,
        keys: &[WrappedKey],
        place: Place<'_>,
        sealed: &SealedValue,
        random: &dyn Random,
    ) -> Result<Option<SealedValue>, VaultError> {
        let newest = newest(keys)?;
        let Some(wrapped) = &sealed.data_key else {
            let opened = SecretValue::new(std::mem::take(&mut *self.open(keys, place, sealed)?));
            return self.seal(keys, place, &opened, random).map(Some);
        };
        if sealed.key_version == newest.version {
            return Ok(None);
        }
        let old = self.unwrapped(place.tenant, numbered(keys, sealed.key_version)?)?;
        let data_key = open_data_key(&old, sealed.key_version, place, wrapped)?;
        let new = self.unwrapped(place.tenant, newest)?;
        let wrapped = wrap_data_key(&new, newest.version, place, &data_key, random)?;
        Ok(Some(SealedValue { key_version: newest.version, data_key: Some(wrapped), ..sealed.clone() }))
    }

    /// A tenant's key under the root key of this moment; none where it is so already.
    pub fn rewrap_key(&self, tenant: &TenantId, key: &WrappedKey) -> Result<Option<WrappedKey>, VaultError> {
        let version = key.version;
        if let Some(id) = &key.id
            && self.root.knows(&key.wrapped.root)
        {
            let again = self.asked(self.root.rewrap(&WrapContext { tenant, version, id }, &key.wrapped))?;
            return Ok(again.map(|wrapped| WrappedKey { wrapped, ..key.clone() }));
        }
        // Another provider's, or of the first format: it cannot but be opened.
        let open = self.unwrap_key(tenant, key)?;
        let id = crypto::key_id(&open)?;
        let wrapped = self.asked(self.root.wrap(&WrapContext { tenant, version, id: &id }, &open))?;
        Ok(Some(WrappedKey { version, id: Some(id), wrapped }))
    }

    /// Has a tenant's newest key at hand, so that sealing for it waits for nobody.
    pub fn prepare(&self, tenant: &TenantId, keys: &[WrappedKey]) -> Result<(), VaultError> {
        self.unwrapped(tenant, newest(keys)?).map(drop)
    }

    /// The same for all of its keys.
    pub fn prepare_all(&self, tenant: &TenantId, keys: &[WrappedKey]) -> Result<(), VaultError> {
        keys.iter().try_for_each(|key| self.unwrapped(tenant, key).map(drop))
    }

    /// Whether a tenant's key is at hand, so that nobody need be asked for it.
    pub fn holds(&self, tenant: &TenantId, key: &WrappedKey) -> bool {
        self.keys.get(tenant, key).is_some()
    }

    /// Lets go of keys held long enough; of all of a tenant where one is named. Gives how many are held.
    pub fn forget(&self, tenant: Option<&TenantId>) -> usize {
        self.keys.forget(tenant);
        self.keys.len()
    }

    /// Why secrets cannot be opened at the moment, where that is known to be so.
    pub fn trouble(&self) -> Option<RootError> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(|(error, _)| error.clone())
    }

    /// Asks the root key whether it is there.
    pub fn check(&self) -> Result<(), RootError> {
        self.note(self.root.check())
    }

    fn unwrapped(&self, tenant: &TenantId, key: &WrappedKey) -> Result<Arc<Unwrapped>, VaultError> {
        if let Some(held) = self.keys.get(tenant, key) {
            return Ok(held);
        }
        let open = self.unwrap_key(tenant, key)?;
        let id = crypto::key_id(&open)?;
        let held = Arc::new(Unwrapped::new(&*self.memory, id, &open));
        self.keys.put(tenant, key, held.clone());
        Ok(held)
    }

    fn unwrap_key(&self, tenant: &TenantId, key: &WrappedKey) -> Result<KeyBytes, VaultError> {
        let context = WrapContext { tenant, version: key.version, id: key.id.as_ref().unwrap_or(&[0; 32]) };
        let known = |root: &&Arc<dyn RootKey>| root.knows(&key.wrapped.root);
        let (is_current, root) = match Some(&self.root).filter(known) {
            Some(root) => (true, root),
            None => {
                let unknown = || VaultError::UnknownRoot(key.wrapped.root.clone());
                (false, self.before.iter().find(known).ok_or_else(unknown)?)
            }
        };
        let open = match is_current {
            true => self.asked_gently(|| root.unwrap(&context, &key.wrapped))?,
            false => root.unwrap(&context, &key.wrapped)?,
        };
        // A provider that gives another key, or one that was put in the place of this, is found out here.
        if key.id.is_some_and(|id| !crypto::key_id(&open).is_ok_and(|found| crypto::same(&id, &found))) {
            return Err(VaultError::WrongKey);
        }
        Ok(open)
    }

    /// Asks the root key, but not right after it could not be reached: who needs it then is told at once.
    fn asked_gently<T>(&self, ask: impl FnOnce() -> Result<T, RootError>) -> Result<T, VaultError> {
        let now = self.clock.monotonic();
        let recent = |(_, at): &&(RootError, Duration)| now.saturating_sub(*at) < PAUSE;
        let trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((error, _)) = trouble.as_ref().filter(recent) {
            return Err(error.clone().into());
        }
        drop(trouble);
        self.asked(ask())
    }

    fn asked<T>(&self, answer: Result<T, RootError>) -> Result<T, VaultError> {
        self.note(answer).map_err(VaultError::from)
    }

    /// Remembers whether the root key could be reached.
    fn note<T>(&self, answer: Result<T, RootError>) -> Result<T, RootError> {
        let trouble = match &answer {
            Err(error @ (RootError::Unavailable(_) | RootError::Refused(_))) => {
                Some((error.clone(), self.clock.monotonic()))
            }
            _ => None,
        };
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
        answer
    }
}

fn newest(keys: &[WrappedKey]) -> Result<&WrappedKey, VaultError> {
    keys.iter().max_by_key(|key| key.version).ok_or(VaultError::UnknownKey(0))
}

fn numbered(keys: &[WrappedKey], version: u32) -> Result<&WrappedKey, VaultError> {
    keys.iter().find(|key| key.version == version).ok_or(VaultError::UnknownKey(version))
}

fn wrap_data_key(
    key: &Unwrapped,
    version: u32,
    place: Place<'_>,
    data_key: &KeyBytes,
    random: &dyn Random,
) -> Result<WrappedDataKey, VaultError> {
    let bound = place.data_key(version, &key.id);
    let sealed = crypto::seal(&crypto::V2, key.expose(), crypto::salt(random), &bound, data_key.as_slice())?;
    let Message { salt, commitment, ciphertext } = sealed;
    Ok(WrappedDataKey { salt, commitment, ciphertext })
}

fn open_data_key(
    key: &Unwrapped,
    version: u32,
    place: Place<'_>,
    wrapped: &WrappedDataKey,
) -> Result<KeyBytes, VaultError> {
    let parts = (&wrapped.salt, &wrapped.commitment, wrapped.ciphertext.as_slice());
    crypto::as_key(&crypto::open(&crypto::V2, key.expose(), &place.data_key(version, &key.id), parts)?)
}

#[cfg(test)]
mod tests;
