//! Functions and their versions.
//!
//! Owns what may be called a function and which of its versions is the current one. A version never changes once
//! published. Must never see a component's bytes: it knows their digest.

use cofferdam_model::id::platform_tenant;
use cofferdam_model::operation::FunctionRef;
use cofferdam_model::{Digest, FunctionSettings, TenantId, TenantLimits, VersionId};
use serde_json::json;

use crate::apply::Change;
use crate::deployment::check_settings;
use crate::error::ControlError;
use crate::store::{FunctionRow, TenantState, Transaction, VersionRow};
use crate::tenant::{Done, check_name};

/// Versions kept of one function; publishing one more forgets the oldest that is not current.
const VERSIONS: usize = 100;

/// Whether the tenant may store one more component. Those of several versions are stored once.
pub(crate) fn make_room(
    tx: &mut dyn Transaction,
    limits: &TenantLimits,
    tenant: &TenantId,
    component: Digest,
    bytes: u64,
) -> Result<(), ControlError> {
    let (components, limit) = (tx.components(Some(tenant))?, limits.stored_bytes);
    let stored = components.iter().fold(0u64, |sum, (_, bytes)| sum.saturating_add(*bytes));
    let known = components.iter().any(|(known, _)| *known == component);
    if known || stored.saturating_add(bytes) <= limit {
        return Ok(());
    }
    Err(ControlError::StorageFull { bytes, stored, limit })
}

impl Change<'_> {
    pub(crate) fn put_function(&mut self, function: &FunctionRef, settings: &FunctionSettings) -> Done {
        check_name("function name", &function.name)?;
        let tenant = function.id.tenant();
        if tenant == platform_tenant() {
            let reason = "no function lives in the platform's own tenant; create a tenant for it";
            return Err(ControlError::invalid("function", &function.name, reason));
        }
        let state = self.state(&tenant)?;
        let secrets: Vec<_> = state.secrets.iter().filter(|secret| secret.function == function.id).collect();
        check_settings(&function.name, settings, self.means.ceiling, &secrets)?;
        let known = state.functions.iter().map(|(row, _)| row).find(|row| row.id == function.id);
        let most = usize::try_from(self.limits_of(&state.tenant).functions).unwrap_or(usize::MAX);
        if known.is_none() && state.functions.len() >= most {
            return Err(ControlError::TooMany { what: "functions", limit: most });
        }
        let clash = |row: &FunctionRow| row.name == *function.name && row.id != function.id;
        if state.functions.iter().any(|(row, _)| clash(row)) {
            return Err(ControlError::Exists { what: "function", name: function.name.to_string() });
        }
        let mut row = match known {
            Some(row) if row.name == *function.name => row.clone(),
            Some(row) => {
                let reason = format!("the function is called `{}` and cannot be renamed", row.name);
                return Err(ControlError::invalid("function name", &function.name, reason));
            }
            None => FunctionRow {
                id: function.id.clone(),
                name: function.name.to_string(),
                settings: settings.clone(),
                generation: 0,
                current: None,
            },
        };
        let changed = known.is_none() || row.settings != *settings;
        if changed {
            row.settings = settings.clone();
            row.generation += 1;
            self.tx.put_function(&row)?;
        }
        Ok(json!({
            "id": row.id,
            "name": row.name,
            "generation": row.generation,
            "created": known.is_none(),
            "changed": changed,
        }))
    }

    pub(crate) fn publish(&mut self, function: &FunctionRef, component: Digest, component_bytes: u64) -> Done {
        if component_bytes == 0 {
            return Err(ControlError::invalid("component", "", "it has no bytes"));
        }
        let tenant = function.id.tenant();
        let state = self.state(&tenant)?;
        let mut row = self.function(&state, function)?.0;
        let versions = self.tx.versions(&row.id)?;
        let same = |version: &&VersionRow| version.component == component && version.settings == row.settings;
        let known = versions.iter().find(same).map(|version| version.id.clone());
        let created = known.is_none();
        let id = match known {
            Some(id) => id,
            None => {
                let limits = self.limits_of(&state.tenant);
                make_room(self.tx, &limits, &tenant, component, component_bytes)?;
                let id = VersionId::mint(&row.id, self.means.random);
                self.tx.insert_version(&VersionRow {
                    id: id.clone(),
                    function: row.id.clone(),
                    component,
                    component_bytes,
                    settings: row.settings.clone(),
                    published: self.means.now,
                })?;
                id
            }
        };
        let changed = row.current.as_ref() != Some(&id);
        if changed {
            row.current = Some(id.clone());
            row.generation += 1;
            self.tx.put_function(&row)?;
        }
        for old in versions.iter().filter(|version| version.id != id).skip(VERSIONS - 1) {
            self.tx.remove_version(&old.id)?;
        }
        Ok(json!({
            "id": id,
            "function": row.name,
            "component": component,
            "generation": row.generation,
            "created": created,
            "changed": changed,
        }))
    }

    /// Forgets all versions but the `keep` newest and the current one.
    pub(crate) fn prune(&mut self, function: &FunctionRef, keep: u32) -> Done {
        let keep = usize::try_from(keep).unwrap_or(usize::MAX);
        if !(1..=VERSIONS).contains(&keep) {
            let reason = format!("from 1 to {VERSIONS} versions can be kept");
            return Err(ControlError::invalid("keep", &keep.to_string(), reason));
        }
        let tenant = function.id.tenant();
        let state = self.state(&tenant)?;
        let row = self.function(&state, function)?.0;
        let stored = |components: Vec<(Digest, u64)>| components.iter().map(|(_, bytes)| bytes).sum::<u64>();
        let before = stored(self.tx.components(Some(&tenant))?);
        let versions = self.tx.versions(&row.id)?;
        let mut removed = Vec::new();
        for old in versions.iter().skip(keep).filter(|version| row.current.as_ref() != Some(&version.id)) {
            self.tx.remove_version(&old.id)?;
            removed.push(&old.id);
        }
        let after = stored(self.tx.components(Some(&tenant))?);
        Ok(json!({
            "id": row.id,
            "name": row.name,
            "removed": removed,
            "kept": versions.len() - removed.len(),
            "freed_bytes": before.saturating_sub(after),
            "stored_bytes": after,
        }))
    }

    pub(crate) fn remove_function(&mut self, function: &FunctionRef) -> Done {
        let state = self.state(&function.id.tenant())?;
        let row = self.function(&state, function)?.0;
        let routes = state.routes.iter().filter(|route| route.function == row.id).count();
        self.tx.remove_function(&row.id)?;
        Ok(json!({ "id": row.id, "name": row.name, "removed": true, "routes_removed": routes }))
    }

    /// The function a reference names, by its id: the name in it is for people.
    pub(crate) fn function(
        &self,
        state: &TenantState,
        function: &FunctionRef,
    ) -> Result<(FunctionRow, Option<VersionRow>), ControlError> {
        let found = state.functions.iter().find(|(row, _)| row.id == function.id);
        found.cloned().ok_or_else(|| ControlError::not_found("function", &*function.name))
    }
}
