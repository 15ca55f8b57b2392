//! Machines of a tenant: keys that sign, and authorities that name machines by certificates.
//!
//! Owns the rules these must keep, and where the secret of an access key is sealed to. Must never hand such a secret
//! out but for the moment of a check, nor trust an authority that could not be read.

use std::sync::Arc;

use cofferdam_authz::mtls::AUTHORITIES;
use cofferdam_authz::{AccessSecrets, ClientAuthorities, Secret, SecretText, sigv4};
use cofferdam_model::machine::NETWORKS;
use cofferdam_model::{ClientCa, KeyId, KeyKind, KeySettings, SealedValue, SecretValue, TenantId};
use serde_json::{Value, json};

use crate::Control;
use crate::apply::Change;
use crate::error::ControlError;
use crate::snapshot::TenantEntry;
use crate::store::{ClientCaRow, TenantState};
use crate::tenant::{Done, check_name, check_roles};
use crate::vault::{Place, WrappedKey};

/// The secret of an access key, opened where it was sealed to.
impl AccessSecrets for Control {
    fn access_secret<'a>(&'a self, key: &'a KeyId) -> Secret<'a> {
        Box::pin(async move {
            let snapshot = self.snapshot();
            let Some(tenant) = snapshot.tenant(&key.tenant()) else { return Ok(None) };
            let row = tenant.api_keys().find(|row| row.id == *key);
            let Some(sealed) = row.and_then(|row| row.sealed.as_ref()) else { return Ok(None) };
            let opened = self.vault.open_when_had(&tenant.keys, Place::access_key(&tenant.id, key), sealed).await;
            match opened {
                Ok(secret) => Ok(Some(secret)),
                Err(error) if error.is_root_unavailable() => Err(error.into()),
                Err(error) => {
                    tracing::error!(%key, %error, "the secret of an access key cannot be opened");
                    Ok(None)
                }
            }
        })
    }
}

impl Change<'_> {
    /// Makes an access key: its id, its secret sealed, and what is shown once.
    pub(crate) fn access_key(
        &self,
        tenant: &TenantId,
        keys: &[WrappedKey],
    ) -> Result<(KeyId, SealedValue, SecretText), ControlError> {
        let (id, _, secret) = sigv4::create(tenant, self.means.random);
        let value = SecretValue::new(secret.expose().as_bytes().to_vec());
        let sealed = self.means.vault.seal(keys, Place::access_key(tenant, &id), &value, self.means.random)?;
        Ok((id, sealed, secret))
    }

    pub(crate) fn put_client_ca(&mut self, tenant: &TenantId, name: &str, ca: &ClientCa) -> Done {
        check_name("authority", name)?;
        for one in &ca.accounts {
            check_name("account", &one.account)?;
            check_roles(tenant, &one.roles)?;
        }
        let state = self.state(tenant)?;
        let others: Vec<_> = state.client_cas.iter().filter(|row| row.name != name).collect();
        if others.len() >= AUTHORITIES {
            return Err(ControlError::TooMany { what: "authorities", limit: AUTHORITIES });
        }
        // Whether it fits beside the others shows here, before anything is stored.
        let mut all: Vec<_> = others.iter().map(|row| (row.name.as_str(), &row.ca)).collect();
        all.push((name, ca));
        ClientAuthorities::read(&all).map_err(ControlError::Authority)?;
        let row = ClientCaRow { name: name.to_owned(), ca: ca.clone(), updated: self.means.now };
        self.tx.put_client_ca(tenant, &row)?;
        Ok(describe_ca(&row))
    }

    pub(crate) fn remove_client_ca(&mut self, tenant: &TenantId, name: &str) -> Done {
        if !self.tx.remove_client_ca(tenant, name)? {
            return Err(ControlError::not_found("authority", name));
        }
        Ok(json!({ "tenant": tenant, "name": name, "removed": true }))
    }
}

/// Refuses terms of a key that mean nothing.
pub(crate) fn check_settings(settings: &KeySettings) -> Result<(), ControlError> {
    if settings.networks.len() > NETWORKS {
        return Err(ControlError::TooMany { what: "networks of a key", limit: NETWORKS });
    }
    if settings.unsigned_payload && settings.kind != KeyKind::Sigv4 {
        let reason = "only a key that signs can leave a body unsigned: make it one of kind `sigv4`";
        return Err(ControlError::invalid("unsigned_payload", "true", reason));
    }
    Ok(())
}

/// An authority as callers see it.
pub(crate) fn describe_ca(row: &ClientCaRow) -> Value {
    json!({
        "name": row.name,
        "required": row.ca.required,
        "accounts": row.ca.accounts,
        "certificates": row.ca.certificates,
        "crl_bytes": row.ca.crls.len(),
        "updated": row.updated.to_string(),
    })
}

/// The authorities of a tenant, ready to judge; the very same where they did not change, so that what was judged by
/// them still counts. Where they can no longer be read, nobody is let in by one of them, and the rest goes on.
pub(crate) fn authorities(state: &TenantState, before: Option<&TenantEntry>) -> Option<Arc<ClientAuthorities>> {
    if state.client_cas.is_empty() {
        return None;
    }
    let unchanged = before.filter(|before| before.client_cas() == state.client_cas.as_slice());
    if let Some(same) = unchanged.and_then(TenantEntry::authorities) {
        return Some(same.clone());
    }
    let declared: Vec<_> = state.client_cas.iter().map(|row| (row.name.as_str(), &row.ca)).collect();
    match ClientAuthorities::read(&declared) {
        Ok(read) => Some(Arc::new(read)),
        Err(error) => {
            tracing::error!(tenant = %state.tenant.id, %error, "the tenant's authorities cannot be used");
            Some(Arc::new(ClientAuthorities::none()))
        }
    }
}
