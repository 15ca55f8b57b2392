//! Where keys are while they are in use, and for how long.
//!
//! Owns the unwrapped tenant keys: few, for a short time, in memory the composition root vouches for. Must never write
//! one anywhere.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cofferdam_model::{Clock, TenantId};

use super::envelope::WrappedKey;
use crate::keyfile::{KEY_BYTES, KeyBytes};

/// Tenant keys that are held unwrapped at once.
const MOST: usize = 1024;

/// Memory for keys: locked and kept out of dumps where the host allows it.
pub trait KeyMemory: Send + Sync {
    /// Takes a copy of a key, which is wiped when it is let go of.
    fn keep(&self, key: &KeyBytes) -> Box<dyn Kept>;
}

/// A key that is kept.
pub trait Kept: Send + Sync {
    /// The key.
    fn expose(&self) -> &[u8; KEY_BYTES];
}

/// Ordinary memory, wiped after use.
pub struct OrdinaryMemory;

impl KeyMemory for OrdinaryMemory {
    fn keep(&self, key: &KeyBytes) -> Box<dyn Kept> {
        Box::new(Ordinary(key.clone()))
    }
}

struct Ordinary(KeyBytes);

impl Kept for Ordinary {
    fn expose(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }
}

/// A tenant's key, unwrapped.
pub(super) struct Unwrapped {
    pub(super) id: [u8; 32],
    kept: Box<dyn Kept>,
}

impl Unwrapped {
    pub(super) fn new(memory: &dyn KeyMemory, id: [u8; 32], key: &KeyBytes) -> Self {
        Self { id, kept: memory.keep(key) }
    }

    pub(super) fn expose(&self) -> &[u8; KEY_BYTES] {
        self.kept.expose()
    }
}

struct Entry {
    key: Arc<Unwrapped>,
    of: WrappedKey,
    until: Duration,
}

/// The keys that are unwrapped.
pub(super) struct Keys {
    clock: Arc<dyn Clock>,
    keep: Duration,
    entries: Mutex<HashMap<(TenantId, u32), Entry>>,
}

impl Keys {
    pub(super) fn new(clock: Arc<dyn Clock>, keep: Duration) -> Self {
        Self { clock, keep, entries: Mutex::default() }
    }

    /// How long a key is held.
    pub(super) fn keep(&self) -> Duration {
        self.keep
    }

    fn with<T>(&self, work: impl FnOnce(&mut HashMap<(TenantId, u32), Entry>, Duration) -> T) -> T {
        let now = self.clock.monotonic();
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        work(&mut entries, now)
    }

    /// A key that was unwrapped from these very bytes, and not too long ago.
    pub(super) fn get(&self, tenant: &TenantId, of: &WrappedKey) -> Option<Arc<Unwrapped>> {
        self.with(|entries, now| {
            let entry = entries.get(&(tenant.clone(), of.version))?;
            (entry.of == *of && now < entry.until).then(|| entry.key.clone())
        })
    }

    pub(super) fn put(&self, tenant: &TenantId, of: &WrappedKey, key: Arc<Unwrapped>) {
        self.with(|entries, now| {
            entries.retain(|_, entry| now < entry.until);
            if entries.len() >= MOST
                && let Some(oldest) = entries.iter().min_by_key(|(_, entry)| entry.until).map(|(at, _)| at.clone())
            {
                entries.remove(&oldest);
            }
            let until = now.saturating_add(self.keep);
            entries.insert((tenant.clone(), of.version), Entry { key, of: of.clone(), until });
        });
    }

    /// Lets go of what was held long enough; of everything of a tenant where one is named.
    pub(super) fn forget(&self, tenant: Option<&TenantId>) {
        self.with(|entries, now| {
            entries.retain(|(of, _), entry| match tenant {
                Some(tenant) => of != tenant,
                None => now < entry.until,
            });
        });
    }

    /// How many are held.
    pub(super) fn len(&self) -> usize {
        self.with(|entries, _| entries.len())
    }
}
