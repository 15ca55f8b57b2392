//! Replacing keys while everything goes on, and destroying them.
//!
//! Owns the steps, each a transaction after which everything opens: what is cut off between two of them is gone on
//! with. Values are not opened for it, only the keys they are sealed with. Must never let go of a key that something is
//! still sealed with, and never make a tenant a key again whose keys were destroyed.

use std::sync::PoisonError;

use cofferdam_model::TenantId;
use cofferdam_model::id::platform_tenant;
use serde_json::{Value, json};

use crate::Control;
use crate::apply::Change;
use crate::error::ControlError;
use crate::keep::refuse_held;
use crate::store::SealedRow;
use crate::tenant::Done;
use crate::vault::{Place, WrappedKey};

/// Sealed values of one transaction.
const AT_ONCE: usize = 64;
/// How often the tenants' keys are gone through again, because some were made in between.
const PASSES: usize = 4;

impl Control {
    /// Gives a tenant a new key, and brings everything under it. One that was cut off is brought to its end instead.
    pub(crate) fn rotate_tenant_key(&self, tenant: &TenantId) -> Done {
        let _one = self.rotating.lock().unwrap_or_else(PoisonError::into_inner);
        let keys = self.transact(|tx| tx.tenant_keys(tenant))?;
        let newest = keys.iter().map(|key| key.version).max().ok_or_else(|| shredded(tenant))?;
        let resumed = keys.len() > 1;
        if !resumed {
            let made = self.vault.tenant_key(tenant, newest.saturating_add(1), &*self.random)?;
            self.in_tenant(tenant, |tx| tx.put_tenant_key(tenant, &made))?;
        }
        let (rewrapped, destroyed) = self.finish_tenant_key(tenant)?;
        let keys = self.transact(|tx| tx.tenant_keys(tenant))?;
        let names = |keys: &[WrappedKey]| keys.iter().map(WrappedKey::name).collect::<Vec<_>>();
        Ok(json!({
            "tenant": tenant,
            "keys": names(&keys),
            "destroyed": names(&destroyed),
            "rewrapped": rewrapped,
            "resumed": resumed,
        }))
    }

    /// Brings everything of a tenant under its newest key, then lets go of the others. Gives how many values that were,
    /// and the keys.
    fn finish_tenant_key(&self, tenant: &TenantId) -> Result<(usize, Vec<WrappedKey>), ControlError> {
        let mut rewrapped = 0;
        loop {
            let keys = self.transact(|tx| tx.tenant_keys(tenant))?;
            self.vault.prepare_all(tenant, &keys)?;
            let moved = self.in_tenant(tenant, |tx| {
                let keys = tx.tenant_keys(tenant)?;
                let newest = keys.iter().map(|key| key.version).max().ok_or_else(|| shredded(tenant))?;
                let rows = tx.sealed_otherwise(tenant, newest, AT_ONCE)?;
                for row in &rows {
                    let SealedRow { kind, owner, name, version, sealed } = row;
                    let place = Place { kind, tenant, owner, name, version: *version };
                    if let Some(sealed) = self.vault.rewrap(&keys, place, sealed, &*self.random)? {
                        tx.put_sealed(&SealedRow { sealed, ..row.clone() })?;
                    }
                }
                Ok(rows.len())
            })?;
            rewrapped += moved;
            if moved < AT_ONCE {
                break;
            }
        }
        let destroyed = self.in_tenant(tenant, |tx| {
            let mut keys = tx.tenant_keys(tenant)?;
            let Some(newest) = keys.pop() else { return Ok(keys) };
            if !tx.sealed_otherwise(tenant, newest.version, 1)?.is_empty() {
                return Err(ControlError::Unfinished { what: "values are still sealed with the old key".into() });
            }
            for old in &keys {
                tx.remove_tenant_key(tenant, old.version)?;
            }
            Ok(keys)
        })?;
        self.vault.forget(Some(tenant));
        self.scrub()?;
        Ok((rewrapped, destroyed))
    }

    /// Has every tenant's key wrapped by a new root key, and lets go of the old one.
    pub(crate) fn rotate_root_key(&self, destroy_old: bool) -> Done {
        let _one = self.rotating.lock().unwrap_or_else(PoisonError::into_inner);
        let resumed = self.vault.root().rotating();
        self.vault.root().begin_rotation().map_err(crate::VaultError::from)?;
        let rewrapped = self.finish_root_key(destroy_old)?;
        Ok(json!({
            "root_key": self.vault.root().describe(),
            "rewrapped": rewrapped,
            "resumed": resumed,
            "destroyed_old": destroy_old,
        }))
    }

    fn finish_root_key(&self, destroy_old: bool) -> Result<usize, ControlError> {
        let mut rewrapped = 0;
        for pass in 0..PASSES {
            let mut left = false;
            for tenant in self.transact(|tx| tx.tenants())?.into_iter().map(|row| row.id) {
                for key in self.transact(|tx| tx.tenant_keys(&tenant))? {
                    // Some providers do not say which of their keys it was, and wrap anew whenever they are asked.
                    if pass > 0 && self.vault.root().is_current(&key.wrapped.root) {
                        continue;
                    }
                    let Some(again) = self.vault.rewrap_key(&tenant, &key)? else { continue };
                    // Gone in between, or another by now: then it is for the next pass to look at.
                    let done = self.in_tenant(&tenant, |tx| {
                        let same = tx.tenant_keys(&tenant)?.contains(&key);
                        if same {
                            tx.put_tenant_key(&tenant, &again)?;
                        }
                        Ok(same)
                    })?;
                    rewrapped += usize::from(done);
                    left |= !done;
                }
            }
            if !left && pass > 0 {
                self.vault.root().end_rotation(destroy_old).map_err(crate::VaultError::from)?;
                self.scrub()?;
                return Ok(rewrapped);
            }
        }
        Err(ControlError::Unfinished { what: "keys of tenants kept changing".into() })
    }

    /// Goes on with what was cut off when the node ended. Gives how many rotations that were.
    pub fn resume_rotations(&self) -> Result<usize, ControlError> {
        let _one = self.rotating.lock().unwrap_or_else(PoisonError::into_inner);
        let mut resumed = 0;
        for tenant in self.unfinished_tenants()? {
            self.finish_tenant_key(&tenant)?;
            resumed += 1;
        }
        if self.vault.root().rotating() {
            self.finish_root_key(false)?;
            resumed += 1;
        }
        Ok(resumed)
    }

    /// Whether a rotation was cut off.
    pub fn has_unfinished_rotation(&self) -> Result<bool, ControlError> {
        Ok(self.vault.root().rotating() || !self.unfinished_tenants()?.is_empty())
    }

    fn unfinished_tenants(&self) -> Result<Vec<TenantId>, ControlError> {
        let tenants =
            self.snapshot().tenants().map(|tenant| (tenant.id.clone(), tenant.keys.len())).collect::<Vec<_>>();
        Ok(tenants.into_iter().filter(|(_, keys)| *keys > 1).map(|(id, _)| id).collect())
    }

    /// Where the root key is, what it wraps, and whether it can be reached.
    pub(crate) fn read_root_key(&self) -> Done {
        let snapshot = self.snapshot();
        let mut roots = std::collections::BTreeMap::<String, usize>::new();
        for key in snapshot.tenants().flat_map(|tenant| &tenant.keys) {
            *roots.entry(key.wrapped.root.clone()).or_default() += 1;
        }
        let roots = roots.into_iter().map(|(root, keys)| json!({ "root_key": root, "tenant_keys": keys }));
        let trouble = self.vault.check().err().map(|error| error.to_string());
        Ok(json!({
            "root_key": self.vault.root().describe(),
            "available": trouble.is_none(),
            "trouble": trouble,
            "rotating": self.has_unfinished_rotation()?,
            "unwrapped_keys_held": self.vault.forget(None),
            "wraps": roots.collect::<Vec<Value>>(),
        }))
    }

    /// Destroys a tenant's keys and all that is sealed with them, and shuts it.
    pub(crate) fn shred_tenant(&self, tenant: &TenantId, keys: &[String]) -> Done {
        let _one = self.rotating.lock().unwrap_or_else(PoisonError::into_inner);
        let name = self.in_tenant(tenant, |tx| {
            let state = tx.tenant(tenant)?.ok_or_else(|| ControlError::not_found("tenant", tenant.as_str()))?;
            if *tenant == platform_tenant() {
                return Err(ControlError::invalid("tenant", &state.tenant.name, "the platform's own keys stay"));
            }
            if state.keys.is_empty() {
                return Err(shredded(tenant));
            }
            if !state.keys.iter().map(WrappedKey::name).eq(keys.iter().cloned()) {
                return Err(ControlError::KeysChanged { tenant: state.tenant.name });
            }
            refuse_held(tx, tenant)?;
            for key in &state.keys {
                tx.remove_tenant_key(tenant, key.version)?;
            }
            tx.destroy_subject_keys(tenant, None, self.clock.now())?;
            for secret in &state.secrets {
                tx.remove_secret(&secret.function, &secret.name)?;
            }
            // A cell being started right now, for a call with an older picture, must not serve whoever comes after.
            for (mut function, _) in state.functions {
                function.generation += 1;
                tx.put_function(&function)?;
            }
            tx.set_tenant_active(tenant, false)?;
            Ok(state.tenant.name)
        })?;
        self.vault.forget(Some(tenant));
        self.subjects.forget();
        self.scrub()?;
        Ok(json!({ "tenant": tenant, "name": name, "destroyed": keys, "active": false }))
    }

    pub(crate) fn scrub(&self) -> Result<(), ControlError> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner).scrub()
    }
}

impl Change<'_> {
    /// Refuses what needs a key where there is none any more.
    pub(crate) fn check_keys(&self, tenant: &TenantId, keys: &[WrappedKey]) -> Result<(), ControlError> {
        if keys.is_empty() { Err(shredded(tenant)) } else { Ok(()) }
    }
}

fn shredded(tenant: &TenantId) -> ControlError {
    ControlError::Shredded { tenant: tenant.to_string() }
}
