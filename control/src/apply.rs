//! Changing what exists: one permit, one transaction, one new snapshot.
//!
//! Owns the only way in. The operation is read out of a recorded permit, so nothing changes that was not allowed and
//! is not in the log. Must never take an operation from anywhere else.

use std::sync::PoisonError;

use cofferdam_audit::Recorded;
use cofferdam_authz::Permit;
use cofferdam_model::id::platform_tenant;
use cofferdam_model::operation::FunctionRef;
use cofferdam_model::{FunctionLimits, Manage, Operation, Random, TenantId, TenantLimits, UnixNanos};
use serde_json::{Value, json};

use crate::Control;
use crate::deployment::list_secrets;
use crate::error::ControlError;
use crate::snapshot::{FunctionEntry, Snapshot, TenantEntry, compile};
use crate::store::{self, TenantRow, TenantState, Transaction};
use crate::tenant::{Done, describe_key};
use crate::usage;
use crate::vault::Vault;

/// What a change needs besides the store.
pub(crate) struct Means<'a> {
    pub(crate) vault: &'a Vault,
    pub(crate) pepper: &'a cofferdam_authz::Pepper,
    pub(crate) random: &'a dyn Random,
    pub(crate) now: UnixNanos,
    pub(crate) ceiling: &'a FunctionLimits,
    pub(crate) limits: &'a TenantLimits,
}

/// A change under way.
pub(crate) struct Change<'a> {
    pub(crate) tx: &'a mut dyn Transaction,
    pub(crate) means: Means<'a>,
    /// Whether an operator of the platform asked.
    pub(crate) by_operator: bool,
}

impl Control {
    /// Does what the permit allows, and answers with what came of it. Blocks on the disk.
    pub fn apply(&self, permit: Recorded<&Permit<Manage>>) -> Result<Value, ControlError> {
        let permit = permit.value();
        let by_operator = permit.principal().tenant() == Some(&platform_tenant());
        let operation = permit.operation();
        match operation {
            Manage::ListTenants
            | Manage::ReadTenant { .. }
            | Manage::ListSecrets { .. }
            | Manage::ListKeys { .. }
            | Manage::ReadLogs { .. } => read(&self.snapshot(), operation),
            Manage::ReadUsage { tenant, range } => usage::read(self, tenant, range),
            _ => self.change(operation, by_operator),
        }
    }

    fn change(&self, operation: &Manage, by_operator: bool) -> Result<Value, ControlError> {
        // Held until the new snapshot is in place: snapshots follow each other in the order of commits.
        let mut store = self.store.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.snapshot();
        let (answer, entry, generation) = store::run(&mut **store, |tx| {
            let mut change = Change { tx, means: self.means(), by_operator };
            let (tenant, answer) = change.perform(operation)?;
            let generation = tx.next_generation()?;
            let state = tx.tenant(&tenant)?.ok_or_else(|| ControlError::not_found("tenant", tenant.as_str()))?;
            let policies = match before.tenant(&tenant).and_then(|old| old.policies_of(&state.policies)) {
                Some(unchanged) => unchanged,
                None => compile(&self.authorizer, &state)?,
            };
            Ok((answer, TenantEntry::build(state, policies, &self.ceiling, self.tenant_limits.clone()), generation))
        })?;
        self.snapshot.store(before.with(entry, generation).into());
        Ok(answer)
    }

    pub(crate) fn means(&self) -> Means<'_> {
        Means {
            vault: &self.vault,
            pepper: &self.pepper,
            random: &*self.random,
            now: self.clock.now(),
            ceiling: &self.ceiling,
            limits: &self.tenant_limits,
        }
    }
}

impl Change<'_> {
    /// Does it, and says which tenant is another one now.
    fn perform(&mut self, operation: &Manage) -> Result<(TenantId, Value), ControlError> {
        let answer = match operation {
            Manage::CreateTenant { name } => return self.create_tenant(name),
            Manage::PutTenantSettings { tenant, settings } => return self.put_tenant_settings(tenant, settings),
            Manage::PutMember { tenant, subject, roles } => self.put_member(tenant, subject, roles),
            Manage::RemoveMember { tenant, subject } => self.remove_member(tenant, subject),
            Manage::PutFunction { function, settings } => self.put_function(function, settings),
            Manage::PublishVersion { function, component, component_bytes } => {
                self.publish(function, *component, *component_bytes)
            }
            Manage::PruneVersions { function, keep } => self.prune(function, *keep),
            Manage::RemoveFunction { function } => self.remove_function(function),
            Manage::PutRoutes { tenant, app, routes } => self.put_routes(tenant, app, routes),
            Manage::PutPolicy { tenant, name, text } => self.put_policy(tenant, name, text),
            Manage::RemovePolicy { tenant, name } => self.remove_policy(tenant, name),
            Manage::PutSecret { function, name, value } => self.put_secret(function, name, value),
            Manage::RemoveSecret { function, name } => self.remove_secret(function, name),
            Manage::CreateKey { tenant, account, roles, ttl_seconds } => {
                self.create_key(tenant, account, roles, *ttl_seconds)
            }
            Manage::RevokeKey { key } => self.revoke_key(key),
            Manage::ListTenants
            | Manage::ReadTenant { .. }
            | Manage::ReadUsage { .. }
            | Manage::ListSecrets { .. }
            | Manage::ListKeys { .. }
            | Manage::ReadLogs { .. }
            | Manage::SimulatePolicy { .. }
            | Manage::QueryAudit { .. }
            | Manage::ListCells { .. }
            | Manage::RecycleCells { .. }
            | Manage::ReadMetrics => Err(ControlError::NotAChange { action: operation.action().as_str() }),
        }?;
        Ok((operation.tenant(), answer))
    }

    /// What the functions of a tenant may use together.
    pub(crate) fn limits_of(&self, tenant: &TenantRow) -> TenantLimits {
        tenant.settings.limits.as_ref().unwrap_or(self.means.limits).clone()
    }

    /// Everything stored of a tenant, as this transaction sees it.
    pub(crate) fn state(&mut self, tenant: &TenantId) -> Result<TenantState, ControlError> {
        self.tx.tenant(tenant)?.ok_or_else(|| ControlError::not_found("tenant", tenant.as_str()))
    }
}

// === reading ===

fn read(snapshot: &Snapshot, operation: &Manage) -> Done {
    let tenant = |id: &TenantId| snapshot.tenant(id).ok_or_else(|| ControlError::not_found("tenant", id.as_str()));
    match operation {
        Manage::ListTenants => {
            let mut tenants: Vec<_> = snapshot.tenants().collect();
            tenants.sort_by(|a, b| a.name.cmp(&b.name));
            Ok(json!({ "tenants": tenants.into_iter().map(|tenant| summary(tenant)).collect::<Vec<_>>() }))
        }
        Manage::ReadTenant { tenant: id } => Ok(describe(tenant(id)?)),
        Manage::ListSecrets { function } => {
            let FunctionRef { id, name } = function;
            let entry = snapshot.function_by_id(id).ok_or_else(|| ControlError::not_found("function", &**name))?;
            Ok(list_secrets(entry))
        }
        Manage::ListKeys { tenant: id } => {
            let keys: Vec<_> = tenant(id)?.api_keys().map(describe_key).collect();
            Ok(json!({ "tenant": id, "keys": keys }))
        }
        _ => Err(ControlError::NotAChange { action: operation.action().as_str() }),
    }
}

fn summary(tenant: &TenantEntry) -> Value {
    json!({
        "id": tenant.id,
        "name": &*tenant.name,
        "active": tenant.active,
        "created": tenant.created.to_string(),
        "limits": *tenant.limits,
        "egress": tenant.egress.as_deref(),
        "functions": tenant.functions().count(),
    })
}

fn describe(tenant: &TenantEntry) -> Value {
    let routes = tenant.routes().map(|route| json!({ "id": route.id, "app": &*route.app, "spec": route.spec }));
    let members = tenant.members().map(|(subject, roles)| json!({ "subject": subject, "roles": roles }));
    let policies = tenant.policy_sources().map(|(name, text)| json!({ "name": name, "text": text }));
    json!({
        "id": tenant.id,
        "name": &*tenant.name,
        "active": tenant.active,
        "created": tenant.created.to_string(),
        "functions": tenant.functions().map(|function| describe_function(function)).collect::<Vec<_>>(),
        "routes": routes.collect::<Vec<_>>(),
        "members": members.collect::<Vec<_>>(),
        "policies": policies.collect::<Vec<_>>(),
    })
}

fn describe_function(function: &FunctionEntry) -> Value {
    let current = function.current.as_ref().map(|version| {
        json!({
            "id": version.id,
            "component": version.component,
            "component_bytes": version.component_bytes,
            "published": version.published.to_string(),
        })
    });
    json!({
        "id": function.id,
        "name": &*function.name,
        "generation": function.generation,
        "settings": *function.settings,
        "current": current,
    })
}
