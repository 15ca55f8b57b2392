//! What each change and look is: its action, its tenant, what it touches, and what the log says of it.
//!
//! Owns these tables. Must never put a secret into words.

use super::{Action, Grants, Manage, Operation, Resource};
use crate::egress::EgressCeiling;
use crate::id::{TenantId, platform_tenant};
use crate::tenant::TenantSettings;

/// What a token of the node's own issuer is to say. Whoever it is for, is whoever it is asked by.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Grant {
    /// For whom it is meant.
    pub audiences: Vec<String>,
    /// Roles it is good for.
    pub roles: Vec<String>,
    /// Scopes it is limited to, if it is.
    pub scopes: Option<Vec<String>>,
    /// When the passphrase was shown, seconds since 1970.
    pub authenticated: u64,
    /// When it ends, seconds since 1970.
    pub expires: u64,
}

/// From where on the log is to be streamed to a sink.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SinkReset {
    /// Name of the sink.
    pub sink: String,
    /// Index of the record to go on from.
    pub to: u64,
}

impl Operation for Manage {
    fn action(&self) -> Action {
        match self {
            Self::Govern(govern) => govern.action(),
            Self::Keep(keep) => keep.action(),
            Self::Prove(prove) => prove.action(),
            Self::CreateTenant { .. } => Action::CreateTenant,
            Self::PutTenantSettings { .. } => Action::PutTenantSettings,
            Self::SuspendTenant { .. } => Action::SuspendTenant,
            Self::ResumeTenant { .. } => Action::ResumeTenant,
            Self::ListTenants => Action::ListTenants,
            Self::ReadTenant { .. } => Action::ReadTenant,
            Self::ReadUsage { .. } => Action::ReadUsage,
            Self::PutMember { .. } => Action::PutMember,
            Self::RemoveMember { .. } => Action::RemoveMember,
            Self::PutFunction { .. } => Action::PutFunction,
            Self::PublishVersion { .. } => Action::PublishVersion,
            Self::PruneVersions { .. } => Action::PruneVersions,
            Self::RemoveFunction { .. } => Action::RemoveFunction,
            Self::PutRoutes { .. } => Action::PutRoutes,
            Self::PutPolicy { .. } => Action::PutPolicy,
            Self::RemovePolicy { .. } => Action::RemovePolicy,
            Self::SimulatePolicy { .. } => Action::SimulatePolicy,
            Self::PutSecret { .. } => Action::PutSecret,
            Self::ListSecrets { .. } => Action::ListSecrets,
            Self::RemoveSecret { .. } => Action::RemoveSecret,
            Self::RotateSecret { .. } => Action::RotateSecret,
            Self::RollbackSecret { .. } => Action::RollbackSecret,
            Self::ListSecretVersions { .. } => Action::ListSecretVersions,
            Self::RotateTenantKey { .. } => Action::RotateTenantKey,
            Self::ShredTenant { .. } => Action::ShredTenant,
            Self::RotateRootKey { .. } => Action::RotateRootKey,
            Self::ReadRootKey => Action::ReadRootKey,
            Self::CreateKey { .. } => Action::CreateKey,
            Self::ListKeys { .. } => Action::ListKeys,
            Self::RevokeKey { .. } => Action::RevokeKey,
            Self::PutClientCa { .. } => Action::PutClientCa,
            Self::ListClientCas { .. } => Action::ListClientCas,
            Self::RemoveClientCa { .. } => Action::RemoveClientCa,
            Self::Revoke { .. } => Action::Revoke,
            Self::ListRevocations { .. } => Action::ListRevocations,
            Self::Reinstate { .. } => Action::Reinstate,
            Self::PutUser { .. } => Action::PutUser,
            Self::RemoveUser { .. } => Action::RemoveUser,
            Self::ListUsers { .. } => Action::ListUsers,
            Self::IssueToken { .. } => Action::IssueToken,
            Self::RotateIssuerKey { .. } => Action::RotateIssuerKey,
            Self::ReadLogs { .. } => Action::ReadLogs,
            Self::QueryAudit { .. } => Action::QueryAudit,
            Self::ListCells { .. } => Action::ListCells,
            Self::RecycleCells { .. } => Action::RecycleCells,
            Self::ReadMetrics => Action::ReadMetrics,
            Self::ListSinks => Action::ListSinks,
            Self::ResetSink(_) => Action::ResetSink,
        }
    }

    fn tenant(&self) -> TenantId {
        match self {
            Self::Govern(_)
            | Self::Keep(_)
            | Self::CreateTenant { .. }
            | Self::PutTenantSettings { .. }
            | Self::SuspendTenant { .. }
            | Self::ResumeTenant { .. }
            | Self::ListTenants
            | Self::RotateIssuerKey { .. }
            | Self::ShredTenant { .. }
            | Self::RotateRootKey { .. }
            | Self::ReadRootKey
            | Self::ReadMetrics
            | Self::ListSinks
            | Self::ResetSink(_) => platform_tenant(),
            Self::Prove(prove) => prove.tenant(),
            Self::ReadTenant { tenant }
            | Self::ReadUsage { tenant, .. }
            | Self::PutMember { tenant, .. }
            | Self::RemoveMember { tenant, .. }
            | Self::PutRoutes { tenant, .. }
            | Self::PutPolicy { tenant, .. }
            | Self::RemovePolicy { tenant, .. }
            | Self::SimulatePolicy { tenant, .. }
            | Self::QueryAudit { tenant, .. }
            | Self::CreateKey { tenant, .. }
            | Self::ListKeys { tenant }
            | Self::RotateTenantKey { tenant }
            | Self::PutClientCa { tenant, .. }
            | Self::ListClientCas { tenant }
            | Self::RemoveClientCa { tenant, .. }
            | Self::Revoke { tenant, .. }
            | Self::ListRevocations { tenant }
            | Self::PutUser { tenant, .. }
            | Self::RemoveUser { tenant, .. }
            | Self::ListUsers { tenant }
            | Self::IssueToken { tenant, .. }
            | Self::ListCells { tenant, .. }
            | Self::RecycleCells { tenant, .. } => tenant.clone(),
            Self::RevokeKey { key } => key.tenant(),
            Self::Reinstate { revocation, .. } => revocation.tenant(),
            Self::PutFunction { function, .. }
            | Self::PublishVersion { function, .. }
            | Self::PruneVersions { function, .. }
            | Self::RemoveFunction { function }
            | Self::PutSecret { function, .. }
            | Self::ListSecrets { function }
            | Self::RemoveSecret { function, .. }
            | Self::RotateSecret { function, .. }
            | Self::RollbackSecret { function, .. }
            | Self::ListSecretVersions { function, .. }
            | Self::ReadLogs { function, .. } => function.id.tenant(),
        }
    }

    fn resource(&self) -> Resource {
        match self {
            Self::Govern(_)
            | Self::Keep(_)
            | Self::CreateTenant { .. }
            | Self::PutTenantSettings { .. }
            | Self::SuspendTenant { .. }
            | Self::ResumeTenant { .. }
            | Self::ListTenants
            | Self::RotateIssuerKey { .. }
            | Self::ShredTenant { .. }
            | Self::RotateRootKey { .. }
            | Self::ReadRootKey
            | Self::ReadMetrics
            | Self::ListSinks
            | Self::ResetSink(_) => Resource::Platform,
            Self::Prove(prove) => prove.resource(),
            Self::PutFunction { function, .. }
            | Self::PublishVersion { function, .. }
            | Self::PruneVersions { function, .. }
            | Self::RemoveFunction { function }
            | Self::ListSecrets { function }
            | Self::ReadLogs { function, .. } => {
                Resource::Function { id: function.id.clone(), name: function.name.clone() }
            }
            Self::PutSecret { function, name, .. }
            | Self::RemoveSecret { function, name }
            | Self::RotateSecret { function, name, .. }
            | Self::RollbackSecret { function, name, .. }
            | Self::ListSecretVersions { function, name } => Resource::Secret {
                function: function.id.clone(),
                function_name: function.name.clone(),
                name: name.as_str().into(),
            },
            Self::PutRoutes { tenant, app, .. } => Resource::Api { tenant: tenant.clone(), name: app.clone() },
            Self::PutPolicy { tenant, name, .. } | Self::RemovePolicy { tenant, name } => {
                Resource::PolicySet { tenant: tenant.clone(), policy: name.clone() }
            }
            Self::CreateKey { tenant, account, roles, .. } => {
                Resource::Account { tenant: tenant.clone(), name: account.clone(), roles: roles.clone() }
            }
            Self::RevokeKey { key } => Resource::ApiKey(key.clone()),
            Self::QueryAudit { tenant, .. } => Resource::AuditLog(tenant.clone()),
            _ => Resource::Tenant(self.tenant()),
        }
    }

    fn detail(&self) -> Option<String> {
        match self {
            Self::Govern(govern) => govern.detail(),
            Self::Keep(keep) => keep.detail(),
            Self::Prove(prove) => prove.detail(),
            Self::CreateTenant { name } => Some(format!("name={name}")),
            Self::PutTenantSettings { tenant, settings } => Some(settings_detail(tenant, settings)),
            Self::SuspendTenant { tenant, reason } => Some(format!("tenant={tenant} reason={reason}")),
            Self::ResumeTenant { tenant } => Some(format!("tenant={tenant}")),
            Self::PutMember { issuer, subject, roles, .. } => {
                Some(format!("{} roles={}", member(issuer.as_deref(), subject), roles.join(",")))
            }
            Self::RemoveMember { issuer, subject, .. } => Some(member(issuer.as_deref(), subject)),
            Self::PublishVersion { component, component_bytes, .. } => {
                Some(format!("component={component} bytes={component_bytes}"))
            }
            Self::PruneVersions { keep, .. } => Some(format!("keep={keep}")),
            Self::PutRoutes { app, routes, .. } => Some(format!("app={app} routes={}", routes.len())),
            Self::PutPolicy { name, .. }
            | Self::RemovePolicy { name, .. }
            | Self::PutSecret { name, .. }
            | Self::RemoveSecret { name, .. }
            | Self::ListSecretVersions { name, .. }
            | Self::RemoveClientCa { name, .. } => Some(format!("name={name}")),
            Self::RotateSecret { name, revoke_older, .. } => Some(format!("name={name} revoke_older={revoke_older}")),
            Self::RollbackSecret { name, version, .. } => Some(format!("name={name} version={version}")),
            Self::ShredTenant { tenant, keys } => Some(format!("tenant={tenant} destroys={}", keys.join(","))),
            Self::RotateRootKey { destroy_old } => Some(format!("destroy_old={destroy_old}")),
            Self::CreateKey { account, roles, ttl_seconds, scopes, settings, .. } => {
                let (roles, scopes) = (roles.join(","), scopes.join(","));
                Some(format!(
                    "account={account} roles={roles} scopes={scopes} ttl_seconds={ttl_seconds}{}",
                    settings.detail()
                ))
            }
            Self::PutClientCa { name, ca, .. } => Some(format!("name={name} {}", ca.detail())),
            Self::RevokeKey { key } => Some(format!("key={key}")),
            Self::Revoke { target, reason, .. } => Some(format!("{} reason={reason}", target.detail())),
            Self::Reinstate { revocation, .. } => Some(format!("revocation={revocation}")),
            Self::PutUser { name, roles, passphrase, .. } => {
                let set = if passphrase.is_some() { " passphrase set" } else { "" };
                Some(format!("user={name} roles={}{set}", roles.join(",")))
            }
            Self::RemoveUser { name, .. } => Some(format!("user={name}")),
            Self::IssueToken { grant, .. } => Some(grant.detail()),
            Self::RotateIssuerKey { forget } => Some(format!("forget={forget}")),
            Self::SimulatePolicy { simulation, .. } => Some(simulation.detail()),
            Self::QueryAudit { range, .. } => Some(range.detail()),
            Self::ListCells { function, .. } | Self::RecycleCells { function, .. } => {
                function.as_ref().map(|function| format!("function={}", function.name))
            }
            Self::ResetSink(SinkReset { sink, to }) => Some(format!("sink={sink} to={to}")),
            Self::ListTenants
            | Self::ReadMetrics
            | Self::ListSinks
            | Self::ReadRootKey
            | Self::RotateTenantKey { .. }
            | Self::ReadTenant { .. }
            | Self::ReadUsage { .. }
            | Self::PutFunction { .. }
            | Self::RemoveFunction { .. }
            | Self::ListSecrets { .. }
            | Self::ListKeys { .. }
            | Self::ListClientCas { .. }
            | Self::ListRevocations { .. }
            | Self::ListUsers { .. }
            | Self::ReadLogs { .. } => None,
        }
    }

    fn grants(&self) -> Option<Grants<'_>> {
        match self {
            Self::PutMember { roles, .. } => Some(Grants::Roles(roles, &[])),
            Self::CreateKey { roles, scopes, .. } => Some(Grants::Roles(roles, scopes)),
            Self::PutUser { name, roles, .. } => Some(Grants::User(name, roles)),
            Self::PutClientCa { ca, .. } => Some(Grants::Accounts(&ca.accounts)),
            Self::PutPolicy { name, text, .. } => Some(Grants::Policy(name, text)),
            Self::RemovePolicy { name, .. } => Some(Grants::Policy(name, "")),
            Self::Reinstate { gives, .. } => Some(Grants::Revived(gives)),
            _ => None,
        }
    }
}

impl Grant {
    fn detail(&self) -> String {
        let scopes = self.scopes.as_ref().map(|scopes| format!(" scopes={}", scopes.join(","))).unwrap_or_default();
        let (roles, audiences) = (self.roles.join(","), self.audiences.join(","));
        format!("roles={roles} audiences={audiences} expires={}{scopes}", self.expires)
    }
}

/// What an operator opened is told in full; only the record itself cuts what is too long for it.
fn settings_detail(tenant: &TenantId, settings: &TenantSettings) -> String {
    let egress = settings.egress.as_ref().map_or_else(|| "egress=default".to_owned(), EgressCeiling::detail);
    let limits = settings.limits.as_ref().map_or_else(|| "default".to_owned(), |limits| format!("{limits:?}"));
    format!("tenant={tenant} limits={limits} {egress}")
}

fn member(issuer: Option<&str>, subject: &str) -> String {
    match issuer {
        Some(issuer) => format!("subject={subject} issuer={issuer}"),
        None => format!("subject={subject}"),
    }
}
