//! Sealing: how a secret is turned into ciphertext that opens in one place only.
//!
//! Owns the envelope described in `docs/formats/sealed-value.md`: root key -> tenant key -> data key of one value,
//! AES-256-GCM, context as authenticated data, and a commitment to every key. Must never keep plaintext longer than
//! a call, and never write any of it anywhere.

mod crypto;
mod envelope;
mod hold;
mod local;
mod memory;
mod root;

use std::sync::Arc;
use std::time::Duration;

use cofferdam_model::{Clock, FunctionId, KeyId, Random, SealedValue, SecretValue, TenantId, WrappedDataKey};
use zeroize::Zeroizing;

use self::crypto::Message;
use self::hold::Hold;
use self::memory::Unwrapped;
use crate::error::VaultError;
use crate::keyfile::{self, KeyBytes};

pub(crate) use crypto::TAG_BYTES;
pub use envelope::{WrappedKey, decode, decode_key, encode, encode_key};
pub use hold::KeyGauges;
pub use local::LocalRoot;
pub use memory::{Kept, KeyMemory, OrdinaryMemory};
pub use root::{RootError, RootKey, WrapContext, Wrapped};

/// How long a tenant's key is kept unwrapped where the configuration does not say.
pub const KEEP: Duration = Duration::from_secs(300);
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
    hold: Arc<Hold>,
}

impl Vault {
    /// A vault on a root key. Tenant keys stay unwrapped for `keep`.
    pub fn new(root: Arc<dyn RootKey>, memory: Arc<dyn KeyMemory>, clock: Arc<dyn Clock>, keep: Duration) -> Self {
        Self { hold: Arc::new(Hold::new(root, Vec::new(), memory, clock, keep)) }
    }

    /// The same, which also opens what these wrapped.
    pub fn with_before(self, before: Vec<Arc<dyn RootKey>>) -> Self {
        Self { hold: Arc::new(self.hold.with_before(before)) }
    }

    /// The root key it wraps with.
    pub fn root(&self) -> &dyn RootKey {
        &*self.hold.root
    }

    /// Makes a key for a tenant and wraps it.
    pub fn tenant_key(&self, tenant: &TenantId, version: u32, random: &dyn Random) -> Result<WrappedKey, VaultError> {
        let key = keyfile::fresh(random);
        let id = crypto::key_id(&key)?;
        let wrapped = self.hold.note(self.hold.root.wrap(&WrapContext { tenant, version, id: &id }, &key))?;
        let made = WrappedKey { version, id: Some(id), wrapped };
        self.hold.keys.put(tenant, &made, Arc::new(Unwrapped::new(&*self.hold.memory, id, &key)));
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
        let key = self.hold.wait(place.tenant, newest)?;
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
        open_with(&*self.hold.wait(place.tenant, numbered(keys, sealed.key_version)?)?, place, sealed)
    }

    /// The same for a call under way: where its tenant's key has to be asked for, no thread waits for that.
    pub async fn open_when_had(
        &self,
        keys: &[WrappedKey],
        place: Place<'_>,
        sealed: &SealedValue,
    ) -> Result<Zeroizing<Vec<u8>>, VaultError> {
        let key = self.hold.had(place.tenant, numbered(keys, sealed.key_version)?).await?;
        open_with(&key, place, sealed)
    }

    /// Has a tenant's keys of these versions at hand, without a thread while they are asked for.
    pub async fn at_hand(&self, tenant: &TenantId, keys: &[WrappedKey], versions: &[u32]) -> Result<(), VaultError> {
        for version in versions {
            self.hold.had(tenant, numbered(keys, *version)?).await?;
        }
        Ok(())
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
        let old = self.hold.wait(place.tenant, numbered(keys, sealed.key_version)?)?;
        let data_key = open_data_key(&old, sealed.key_version, place, wrapped)?;
        let new = self.hold.wait(place.tenant, newest)?;
        let wrapped = wrap_data_key(&new, newest.version, place, &data_key, random)?;
        Ok(Some(SealedValue { key_version: newest.version, data_key: Some(wrapped), ..sealed.clone() }))
    }

    /// A tenant's key under the root key of this moment; none where it is so already.
    pub fn rewrap_key(&self, tenant: &TenantId, key: &WrappedKey) -> Result<Option<WrappedKey>, VaultError> {
        let version = key.version;
        if let Some(id) = &key.id
            && self.hold.root.knows(&key.wrapped.root)
        {
            let again = self.hold.note(self.hold.root.rewrap(&WrapContext { tenant, version, id }, &key.wrapped))?;
            return Ok(again.map(|wrapped| WrappedKey { wrapped, ..key.clone() }));
        }
        // Another provider's, or of the first format: it cannot but be opened.
        let open = self.hold.unwrap_key(tenant, key)?;
        let id = crypto::key_id(&open)?;
        let wrapped = self.hold.note(self.hold.root.wrap(&WrapContext { tenant, version, id: &id }, &open))?;
        Ok(Some(WrappedKey { version, id: Some(id), wrapped }))
    }

    /// Has a tenant's newest key at hand, so that sealing for it waits for nobody.
    pub fn prepare(&self, tenant: &TenantId, keys: &[WrappedKey]) -> Result<(), VaultError> {
        self.hold.wait(tenant, newest(keys)?).map(drop)
    }

    /// The same for all of its keys.
    pub fn prepare_all(&self, tenant: &TenantId, keys: &[WrappedKey]) -> Result<(), VaultError> {
        keys.iter().try_for_each(|key| self.hold.wait(tenant, key).map(drop))
    }

    /// Whether a tenant's key is at hand, so that nobody need be asked for it.
    pub fn holds(&self, tenant: &TenantId, key: &WrappedKey) -> bool {
        self.hold.keys.get(tenant, key).is_some()
    }

    /// Lets go of keys held long enough; of all of a tenant where one is named. Gives how many are held.
    pub fn forget(&self, tenant: Option<&TenantId>) -> usize {
        self.hold.keys.forget(tenant);
        self.hold.keys.len()
    }

    /// Why secrets cannot be opened at the moment, where that is known to be so.
    pub fn trouble(&self) -> Option<RootError> {
        self.hold.trouble()
    }

    /// How it stands with the keys, in numbers.
    pub fn gauges(&self) -> KeyGauges {
        self.hold.gauges()
    }

    /// Asks the root key whether it is there.
    pub fn check(&self) -> Result<(), RootError> {
        self.hold.note(self.hold.root.check())
    }
}

/// Opens a value with its tenant's key.
fn open_with(key: &Unwrapped, place: Place<'_>, sealed: &SealedValue) -> Result<Zeroizing<Vec<u8>>, VaultError> {
    let version = sealed.key_version;
    let parts = (&sealed.salt, &sealed.commitment, sealed.ciphertext.as_slice());
    match (&sealed.data_key, sealed.format) {
        (None, envelope::V1) => crypto::open(&crypto::V1, key.expose(), &place.first(version), parts),
        (Some(wrapped), envelope::V2) => {
            let data_key = open_data_key(key, version, place, wrapped)?;
            let bound = place.value(&crypto::key_id(&data_key)?);
            crypto::open(&crypto::V2, &data_key, &bound, parts)
        }
        _ => Err(VaultError::UnknownFormat(sealed.format)),
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
