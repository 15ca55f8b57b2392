//! Changing what exists: one permit, one transaction, one new snapshot.
//!
//! Owns the only way in. The operation is read out of a recorded permit, so nothing changes that was not allowed and
//! is not in the log. Must never take an operation from anywhere else.

use std::sync::PoisonError;

use cofferdam_audit::Recorded;
use cofferdam_authz::passphrase::{COST, Cost};
use cofferdam_authz::{Authorizer, Permit};
use cofferdam_model::id::platform_tenant;
use cofferdam_model::operation::FunctionRef;
use cofferdam_model::{
    FunctionLimits, Govern, Manage, Operation, OrganisationId, PolicyTier, Random, TenantId, TenantLimits, UnixNanos,
};
use serde_json::{Value, json};

use crate::Control;
use crate::deployment::list_secrets;
use crate::error::ControlError;
use crate::govern;
use crate::load::shut;
use crate::machine::{self, describe_ca};
use crate::own_issuer::OwnIssuer;
use crate::revocation::describe as describe_revocation;
use crate::snapshot::{Entry, FunctionEntry, OrganisationEntry, Snapshot, TenantEntry, compile};
use crate::store::{self, TenantRow, TenantState, Transaction};
use crate::tenant::{Done, list_keys};
use crate::user::describe as describe_user;
use crate::vault::{Vault, WrappedKey};
use crate::{secret, usage};

/// What a change needs besides the store.
pub(crate) struct Means<'a> {
    pub(crate) vault: &'a Vault,
    pub(crate) pepper: &'a cofferdam_authz::Pepper,
    pub(crate) random: &'a dyn Random,
    pub(crate) now: UnixNanos,
    pub(crate) ceiling: &'a FunctionLimits,
    pub(crate) limits: &'a TenantLimits,
    pub(crate) authorizer: &'a Authorizer,
    /// What the node's own issuer is called, if it has one.
    pub(crate) issuer: Option<&'a str>,
    /// What hashing a passphrase costs.
    pub(crate) passphrases: Cost,
}

/// What a change made another one of.
pub(crate) enum Touched {
    Tenant(TenantId),
    Organisation(OrganisationId),
}

/// A change under way.
pub(crate) struct Change<'a> {
    pub(crate) tx: &'a mut dyn Transaction,
    pub(crate) means: Means<'a>,
    /// Whether an operator of the platform asked.
    pub(crate) by_operator: bool,
    /// What a new tenant will be, where one is made.
    pub(crate) prepared: Option<NewTenant>,
}

/// Id and first key of a tenant that is about to be made.
pub(crate) struct NewTenant {
    pub(crate) id: TenantId,
    pub(crate) key: WrappedKey,
}

impl Control {
    /// Does what the permit allows, and answers with what came of it. Blocks on the disk.
    pub fn apply(&self, permit: Recorded<&Permit<Manage>>) -> Result<Value, ControlError> {
        let permit = permit.value();
        let by_operator = permit.principal().tenant() == Some(&platform_tenant());
        let operation = permit.operation();
        match operation {
            Manage::ListTenants
            | Manage::Govern(Govern::ListOrganisations)
            | Manage::ReadTenant { .. }
            | Manage::ListSecrets { .. }
            | Manage::ListClientCas { .. }
            | Manage::ListRevocations { .. }
            | Manage::ListUsers { .. }
            | Manage::ReadLogs { .. } => read(&self.snapshot(), operation, by_operator),
            Manage::ListKeys { tenant } => list_keys(self, tenant),
            Manage::ReadUsage { tenant, range } => usage::read(self, tenant, range),
            Manage::ListSecretVersions { function, name } => secret::versions(self, &self.snapshot(), function, name),
            Manage::RotateTenantKey { tenant } => self.rotate_tenant_key(tenant),
            Manage::ShredTenant { tenant, keys } => self.shred_tenant(tenant, keys),
            Manage::RotateRootKey { destroy_old } => self.rotate_root_key(*destroy_old),
            Manage::ReadRootKey => self.read_root_key(),
            Manage::Keep(keep) => self.keep(keep),
            Manage::IssueToken { grant, .. } => self.issue(permit.principal(), grant),
            Manage::RotateIssuerKey { forget } => self.rotate_issuer_key(*forget),
            _ => self.change(operation, by_operator),
        }
    }

    fn change(&self, operation: &Manage, by_operator: bool) -> Result<Value, ControlError> {
        // A key that is wrapped while the root key is being replaced must not be missed by that.
        let makes_key = matches!(operation, Manage::CreateTenant { .. });
        let _one = makes_key.then(|| self.rotating.lock().unwrap_or_else(PoisonError::into_inner));
        let prepared = self.prepare(operation)?;
        self.swap(|tx| {
            let mut change = Change { tx, means: self.means(), by_operator, prepared };
            change.perform(operation)
        })
    }

    /// Does something to one tenant that is another one then.
    pub(crate) fn in_tenant<T>(
        &self,
        tenant: &TenantId,
        work: impl FnOnce(&mut dyn Transaction) -> Result<T, ControlError>,
    ) -> Result<T, ControlError> {
        self.swap(|tx| Ok((Touched::Tenant(tenant.clone()), work(tx)?)))
    }

    /// One transaction, and the snapshot after it.
    fn swap<T>(
        &self,
        work: impl FnOnce(&mut dyn Transaction) -> Result<(Touched, T), ControlError>,
    ) -> Result<T, ControlError> {
        // Held until the new snapshot is in place: snapshots follow each other in the order of commits.
        let mut store = self.store.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.snapshot();
        let (answer, entry, generation) = store::run(&mut **store, |tx| {
            let (touched, answer) = work(tx)?;
            let generation = tx.next_generation()?;
            Ok((answer, self.entry(tx, &before, touched)?, generation))
        })?;
        self.snapshot.store(before.with(entry, generation).into());
        Ok(answer)
    }

    /// Has the keys at hand that a change will need: asking for them may take a network's time, in which nobody else
    /// should have to wait for the store.
    fn prepare(&self, operation: &Manage) -> Result<Option<NewTenant>, ControlError> {
        match operation {
            Manage::CreateTenant { .. } => {
                let id = TenantId::mint(&*self.random);
                let key = self.vault.tenant_key(&id, 1, &*self.random)?;
                Ok(Some(NewTenant { id, key }))
            }
            Manage::PutSecret { function, .. } | Manage::RotateSecret { function, .. } => {
                let snapshot = self.snapshot();
                match snapshot.tenant(&function.id.tenant()) {
                    Some(tenant) if !tenant.keys.is_empty() => self.vault.prepare(&tenant.id, &tenant.keys)?,
                    _ => {}
                }
                Ok(None)
            }
            _ => Ok(None),
        }
    }

    /// What was touched, as the snapshot has it.
    fn entry(&self, tx: &mut dyn Transaction, before: &Snapshot, touched: Touched) -> Result<Entry, ControlError> {
        match touched {
            Touched::Tenant(tenant) => {
                let mut state =
                    tx.tenant(&tenant)?.ok_or_else(|| ControlError::not_found("tenant", tenant.as_str()))?;
                let old = before.tenant(&tenant);
                let policies = match old.and_then(|old| old.policies_of(&state)) {
                    Some(unchanged) => unchanged,
                    None => match compile(&self.authorizer, &state, old) {
                        Ok(compiled) => {
                            let rules = self.authorizer.rules();
                            tx.found_good(PolicyTier::Tenant, tenant.as_str(), &rules)?;
                            tx.found_good(PolicyTier::Boundary, tenant.as_str(), &rules)?;
                            compiled
                        }
                        // They were so before. A tenant that is shut for them can still be managed, its keys replaced
                        // and destroyed.
                        Err(error) if old.is_some_and(|old| old.has_texts_of(&state)) => {
                            shut(&self.authorizer, &mut state, &error)?
                        }
                        Err(error) => return Err(error),
                    },
                };
                let authorities = machine::authorities(&state, old.map(|old| &**old));
                let limits = (&self.ceiling, self.tenant_limits.clone());
                let entry = TenantEntry::build(state, policies, authorities, limits);
                Ok(Entry::Tenant(Box::new(entry)))
            }
            Touched::Organisation(id) => {
                let states = tx.organisations()?;
                let state = states.into_iter().find(|state| state.organisation.id == id);
                let state = state.ok_or_else(|| ControlError::not_found("organisation", id.as_str()))?;
                let old = before.organisation(&id).and_then(|old| old.ceiling.as_ref());
                let entry = OrganisationEntry::compiled(&self.authorizer, state, old)?;
                tx.found_good(PolicyTier::Organisation, id.as_str(), &self.authorizer.rules())?;
                Ok(Entry::Organisation(entry))
            }
        }
    }

    pub(crate) fn means(&self) -> Means<'_> {
        Means {
            vault: &self.vault,
            pepper: &self.pepper,
            random: &*self.random,
            now: self.clock.now(),
            ceiling: &self.ceiling,
            limits: &self.tenant_limits,
            authorizer: &self.authorizer,
            issuer: self.issuer.as_ref().map(OwnIssuer::name),
            passphrases: self.issuer.as_ref().map_or(COST, OwnIssuer::cost),
        }
    }
}

impl Change<'_> {
    /// Does it, and says what is another one now.
    fn perform(&mut self, operation: &Manage) -> Result<(Touched, Value), ControlError> {
        let of_tenant = |(tenant, answer)| (Touched::Tenant(tenant), answer);
        let answer = match operation {
            Manage::Govern(govern) => return self.govern(govern),
            Manage::CreateTenant { name } => return self.create_tenant(name).map(of_tenant),
            Manage::PutTenantSettings { tenant, settings } => {
                return self.put_tenant_settings(tenant, settings).map(of_tenant);
            }
            Manage::SuspendTenant { tenant, .. } => return self.set_active(tenant, false).map(of_tenant),
            Manage::ResumeTenant { tenant } => return self.set_active(tenant, true).map(of_tenant),
            Manage::PutMember { tenant, issuer, subject, roles } => {
                self.put_member(tenant, issuer.as_deref(), subject, roles)
            }
            Manage::RemoveMember { tenant, issuer, subject } => self.remove_member(tenant, issuer.as_deref(), subject),
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
            Manage::RotateSecret { function, name, value, revoke_older } => {
                self.rotate_secret(function, name, value, *revoke_older)
            }
            Manage::RollbackSecret { function, name, version } => self.rollback_secret(function, name, *version),
            Manage::CreateKey { tenant, account, roles, scopes, ttl_seconds, settings } => {
                self.create_key(tenant, account, (roles, scopes), *ttl_seconds, settings)
            }
            Manage::RevokeKey { key } => self.revoke_key(key),
            Manage::PutClientCa { tenant, name, ca } => self.put_client_ca(tenant, name, ca),
            Manage::RemoveClientCa { tenant, name } => self.remove_client_ca(tenant, name),
            Manage::Revoke { tenant, target, reason, expires } => self.revoke(tenant, target, reason, *expires),
            Manage::Reinstate { revocation, .. } => self.reinstate(revocation),
            Manage::PutUser { tenant, name, roles, passphrase } => {
                self.put_user(tenant, name, roles, passphrase.as_ref())
            }
            Manage::RemoveUser { tenant, name } => self.remove_user(tenant, name),
            Manage::ListTenants
            | Manage::ReadTenant { .. }
            | Manage::ReadUsage { .. }
            | Manage::ListSecrets { .. }
            | Manage::ListSecretVersions { .. }
            | Manage::RotateTenantKey { .. }
            | Manage::ShredTenant { .. }
            | Manage::RotateRootKey { .. }
            | Manage::ReadRootKey
            | Manage::ListKeys { .. }
            | Manage::ListClientCas { .. }
            | Manage::ListRevocations { .. }
            | Manage::ListUsers { .. }
            | Manage::IssueToken { .. }
            | Manage::RotateIssuerKey { .. }
            | Manage::ReadLogs { .. }
            | Manage::SimulatePolicy { .. }
            | Manage::QueryAudit { .. }
            | Manage::Prove(_)
            | Manage::ListCells { .. }
            | Manage::RecycleCells { .. }
            | Manage::Keep(_)
            | Manage::ReadMetrics
            | Manage::ListSinks
            | Manage::ResetSink(_) => Err(ControlError::NotAChange { action: operation.action().as_str() }),
        }?;
        Ok((Touched::Tenant(operation.tenant()), answer))
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

fn read(snapshot: &Snapshot, operation: &Manage, by_operator: bool) -> Done {
    let tenant = |id: &TenantId| snapshot.tenant(id).ok_or_else(|| ControlError::not_found("tenant", id.as_str()));
    match operation {
        Manage::ListTenants => {
            let mut tenants: Vec<_> = snapshot.tenants().collect();
            tenants.sort_by(|a, b| a.name.cmp(&b.name));
            Ok(json!({ "tenants": tenants.into_iter().map(|tenant| summary(tenant)).collect::<Vec<_>>() }))
        }
        Manage::Govern(Govern::ListOrganisations) => Ok(govern::list(snapshot)),
        Manage::ReadTenant { tenant: id } => Ok(describe(snapshot, tenant(id)?, by_operator)),
        Manage::ListSecrets { function } => {
            let FunctionRef { id, name } = function;
            let entry = snapshot.function_by_id(id).ok_or_else(|| ControlError::not_found("function", &**name))?;
            Ok(list_secrets(entry))
        }
        Manage::ListClientCas { tenant: id } => {
            let cas: Vec<_> = tenant(id)?.client_cas().iter().map(describe_ca).collect();
            Ok(json!({ "tenant": id, "authorities": cas }))
        }
        Manage::ListUsers { tenant: id } => {
            let users: Vec<_> = tenant(id)?.users().map(describe_user).collect();
            Ok(json!({ "tenant": id, "users": users }))
        }
        Manage::ListRevocations { tenant: id } => {
            let entry = tenant(id)?;
            let revoked: Vec<_> = entry.revocations().map(describe_revocation).collect();
            Ok(json!({ "tenant": id, "active": entry.active, "revocations": revoked }))
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

fn describe(snapshot: &Snapshot, tenant: &TenantEntry, by_operator: bool) -> Value {
    let routes = tenant.routes().map(|route| json!({ "id": route.id, "app": &*route.app, "spec": route.spec }));
    let members = tenant
        .members()
        .map(|(issuer, subject, roles)| json!({ "issuer": issuer, "subject": subject, "roles": roles }));
    let policies = tenant.policy_sources().map(|(name, text)| json!({ "name": name, "text": text }));
    let organisation = tenant.organisation.as_ref().and_then(|id| snapshot.organisation(id));
    let (boundary, boundary_set) = govern::bound_by(tenant.boundary(), tenant.policies().boundary(), by_operator);
    let over = organisation.map(|organisation| (organisation.sources.as_slice(), organisation.ceiling.as_ref()));
    let (texts, set) = over.unwrap_or_default();
    let (ceiling, ceiling_set) = govern::bound_by(texts, set, by_operator);
    json!({
        "id": tenant.id,
        "name": &*tenant.name,
        "active": tenant.active,
        "created": tenant.created.to_string(),
        "functions": tenant.functions().map(|function| describe_function(function)).collect::<Vec<_>>(),
        "routes": routes.collect::<Vec<_>>(),
        "members": members.collect::<Vec<_>>(),
        "policies": policies.collect::<Vec<_>>(),
        "boundary": boundary,
        "boundary_set": boundary_set,
        "organisation": organisation.map(|organisation| &*organisation.name),
        "organisation_id": organisation.map(|organisation| &organisation.id),
        "ceiling": ceiling,
        "ceiling_set": ceiling_set,
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
