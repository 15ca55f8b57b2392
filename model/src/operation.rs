//! The closed list of what anyone can ask of Cofferdam.
//!
//! An operation names its action, its tenant and the one resource it touches; `authz` decides on exactly that and
//! wraps the very value in a permit, so what was allowed is what is done. Must never gain a catch-all variant.

use crate::digest::Digest;
use crate::egress::EgressCeiling;
use crate::facts::Level;
use crate::function::FunctionSettings;
use crate::id::{FunctionId, KeyId, RouteId, TenantId, VersionId, platform_tenant};
use crate::reading::{AuditRange, LogRange, UsageRange};
use crate::route::RouteSpec;
use crate::secret::SecretValue;
use crate::supposition::Simulation;
use crate::tenant::TenantSettings;
use std::sync::Arc;

pub use crate::invoke::Invoke;

macro_rules! actions {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Every action there is, as policies and the log name it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
        pub enum Action { $($(#[$doc])* $name,)* }

        impl Action {
            /// The whole catalogue.
            pub const ALL: &'static [Action] = &[$(Action::$name,)*];

            /// The name in policies and records.
            pub fn as_str(self) -> &'static str {
                match self { $(Action::$name => stringify!($name),)* }
            }
        }
    };
}

actions! {
    /// Call a function.
    Invoke,
    /// Make a tenant. On the platform.
    CreateTenant,
    /// Set what a tenant may use, and what its functions may ask of the outside. On the platform.
    PutTenantSettings,
    /// See which tenants there are. On the platform.
    ListTenants,
    /// See a tenant's functions, routes, members and policies.
    ReadTenant,
    /// See what a tenant's functions used.
    ReadUsage,
    /// Give a subject roles in a tenant.
    PutMember,
    /// Take a subject's roles away.
    RemoveMember,
    /// Create a function or change its settings.
    PutFunction,
    /// Upload a component and make it the function's current version.
    PublishVersion,
    /// Forget old versions of a function.
    PruneVersions,
    /// Remove a function with its versions, secrets and routes.
    RemoveFunction,
    /// Replace the routes of one app.
    PutRoutes,
    /// Write a policy.
    PutPolicy,
    /// Remove a policy.
    RemovePolicy,
    /// Ask what the policies would say of somebody supposed.
    SimulatePolicy,
    /// Set a secret. No action ever returns one.
    PutSecret,
    /// See names and ages of secrets.
    ListSecrets,
    /// Remove a secret.
    RemoveSecret,
    /// Create an API key.
    CreateKey,
    /// See ids and ages of API keys.
    ListKeys,
    /// Revoke an API key.
    RevokeKey,
    /// Read a function's logs.
    ReadLogs,
    /// Read the log's records of what happened in a tenant.
    QueryAudit,
    /// See a tenant's cells.
    ListCells,
    /// Have a tenant's cells replaced.
    RecycleCells,
    /// Read the node's counters. On the platform.
    ReadMetrics,
}

/// What an operation touches. Becomes the resource of the policy decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resource {
    /// The installation itself.
    Platform,
    /// A tenant as a whole.
    Tenant(TenantId),
    /// A function of a tenant, with the name policies know it by.
    Function {
        /// Which.
        id: FunctionId,
        /// Its name.
        name: Arc<str>,
    },
}

impl Resource {
    /// The id as text; `platform` for the platform.
    pub fn id(&self) -> &str {
        match self {
            Self::Platform => "platform",
            Self::Tenant(id) => id.as_str(),
            Self::Function { id, .. } => id.as_str(),
        }
    }
}

/// Something that can be asked for, decided on and recorded.
pub trait Operation {
    /// The action.
    fn action(&self) -> Action;
    /// The tenant it happens in; the platform's own for what belongs to none.
    fn tenant(&self) -> TenantId;
    /// What it touches.
    fn resource(&self) -> Resource;
    /// How durably it must be recorded before it takes effect.
    fn level(&self) -> Level {
        Level::Strict
    }
    /// The route that led to it, where one did.
    fn route(&self) -> Option<&RouteId> {
        None
    }
    /// Whether callers without a credential may be considered at all.
    fn public(&self) -> bool {
        false
    }
    /// The version and component digest it would run.
    fn version(&self) -> Option<(&VersionId, Digest)> {
        None
    }
    /// What a reader of the log should know of a change beyond action and resource. Never a secret.
    fn detail(&self) -> Option<String> {
        None
    }
}

/// A function as a management operation names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FunctionRef {
    /// Which.
    pub id: FunctionId,
    /// Its name.
    pub name: Arc<str>,
}

/// Change or read what exists. Carries everything the change needs, so that the permit does too.
pub enum Manage {
    /// Make a tenant.
    CreateTenant {
        /// Its name.
        name: String,
    },
    /// Set what a tenant may use and reach. An operation on the installation: no policy of the tenant can allow it.
    PutTenantSettings {
        /// Whose.
        tenant: TenantId,
        /// All that shall be set.
        settings: TenantSettings,
    },
    /// List tenants.
    ListTenants,
    /// Describe a tenant.
    ReadTenant {
        /// Which.
        tenant: TenantId,
    },
    /// Sum up what a tenant's functions used, hour by hour.
    ReadUsage {
        /// Whose.
        tenant: TenantId,
        /// Of which function, and when.
        range: UsageRange,
    },
    /// Give a subject exactly these roles.
    PutMember {
        /// Where.
        tenant: TenantId,
        /// Subject as its issuer names it.
        subject: String,
        /// All the roles it shall have.
        roles: Vec<String>,
    },
    /// Take all roles of a subject.
    RemoveMember {
        /// Where.
        tenant: TenantId,
        /// Subject as its issuer names it.
        subject: String,
    },
    /// Create a function (id minted by the router) or change its settings.
    PutFunction {
        /// Which, new or existing.
        function: FunctionRef,
        /// The settings it shall have.
        settings: FunctionSettings,
    },
    /// Make an uploaded component the current version.
    PublishVersion {
        /// Of which function.
        function: FunctionRef,
        /// Digest of the component's bytes.
        component: Digest,
        /// Their number.
        component_bytes: u64,
    },
    /// Forget all versions of a function but the newest and the current one.
    PruneVersions {
        /// Of which function.
        function: FunctionRef,
        /// How many of the newest stay.
        keep: u32,
    },
    /// Remove a function.
    RemoveFunction {
        /// Which.
        function: FunctionRef,
    },
    /// Replace the routes of one app.
    PutRoutes {
        /// Where.
        tenant: TenantId,
        /// Name of the app that owns them.
        app: String,
        /// All its routes.
        routes: Vec<RouteSpec>,
    },
    /// Write a policy.
    PutPolicy {
        /// Where.
        tenant: TenantId,
        /// Its name.
        name: String,
        /// Cedar text.
        text: String,
    },
    /// Remove a policy.
    RemovePolicy {
        /// Where.
        tenant: TenantId,
        /// Its name.
        name: String,
    },
    /// Say what policies would decide.
    SimulatePolicy {
        /// Whose policies.
        tenant: TenantId,
        /// Of whom, doing what.
        simulation: Simulation,
    },
    /// Set a secret of a function.
    PutSecret {
        /// Of which function.
        function: FunctionRef,
        /// Its name, which is the environment entry's.
        name: String,
        /// The value.
        value: SecretValue,
    },
    /// List the secrets of a function.
    ListSecrets {
        /// Of which function.
        function: FunctionRef,
    },
    /// Remove a secret.
    RemoveSecret {
        /// Of which function.
        function: FunctionRef,
        /// Which.
        name: String,
    },
    /// Create an API key that acts as a service account.
    CreateKey {
        /// Where.
        tenant: TenantId,
        /// Name of the service account it stands for.
        account: String,
        /// Roles of that account.
        roles: Vec<String>,
        /// Seconds it is good for.
        ttl_seconds: u64,
    },
    /// List API keys.
    ListKeys {
        /// Where.
        tenant: TenantId,
    },
    /// Revoke an API key.
    RevokeKey {
        /// Which; names its tenant.
        key: KeyId,
    },
    /// Read log lines of a function.
    ReadLogs {
        /// Of which function.
        function: FunctionRef,
        /// Which of them.
        range: LogRange,
    },
    /// Read records of the log.
    QueryAudit {
        /// Whose.
        tenant: TenantId,
        /// Which of them.
        range: AuditRange,
    },
    /// List cells.
    ListCells {
        /// Of which tenant.
        tenant: TenantId,
        /// Of this function alone.
        function: Option<FunctionRef>,
    },
    /// Have cells finish what they have and be replaced.
    RecycleCells {
        /// Of which tenant.
        tenant: TenantId,
        /// Of this function alone.
        function: Option<FunctionRef>,
    },
    /// Read the node's counters.
    ReadMetrics,
}

impl Operation for Manage {
    fn action(&self) -> Action {
        match self {
            Self::CreateTenant { .. } => Action::CreateTenant,
            Self::PutTenantSettings { .. } => Action::PutTenantSettings,
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
            Self::CreateKey { .. } => Action::CreateKey,
            Self::ListKeys { .. } => Action::ListKeys,
            Self::RevokeKey { .. } => Action::RevokeKey,
            Self::ReadLogs { .. } => Action::ReadLogs,
            Self::QueryAudit { .. } => Action::QueryAudit,
            Self::ListCells { .. } => Action::ListCells,
            Self::RecycleCells { .. } => Action::RecycleCells,
            Self::ReadMetrics => Action::ReadMetrics,
        }
    }

    fn tenant(&self) -> TenantId {
        match self {
            Self::CreateTenant { .. } | Self::PutTenantSettings { .. } | Self::ListTenants | Self::ReadMetrics => {
                platform_tenant()
            }
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
            | Self::ListCells { tenant, .. }
            | Self::RecycleCells { tenant, .. } => tenant.clone(),
            Self::RevokeKey { key } => key.tenant(),
            Self::PutFunction { function, .. }
            | Self::PublishVersion { function, .. }
            | Self::PruneVersions { function, .. }
            | Self::RemoveFunction { function }
            | Self::PutSecret { function, .. }
            | Self::ListSecrets { function }
            | Self::RemoveSecret { function, .. }
            | Self::ReadLogs { function, .. } => function.id.tenant(),
        }
    }

    fn resource(&self) -> Resource {
        match self {
            Self::CreateTenant { .. } | Self::PutTenantSettings { .. } | Self::ListTenants | Self::ReadMetrics => {
                Resource::Platform
            }
            Self::PutFunction { function, .. }
            | Self::PublishVersion { function, .. }
            | Self::PruneVersions { function, .. }
            | Self::RemoveFunction { function }
            | Self::PutSecret { function, .. }
            | Self::ListSecrets { function }
            | Self::RemoveSecret { function, .. }
            | Self::ReadLogs { function, .. } => {
                Resource::Function { id: function.id.clone(), name: function.name.clone() }
            }
            _ => Resource::Tenant(self.tenant()),
        }
    }

    fn detail(&self) -> Option<String> {
        match self {
            Self::CreateTenant { name } => Some(format!("name={name}")),
            Self::PutTenantSettings { tenant, settings } => {
                // What an operator opened is told in full; only the record itself cuts what is too long for it.
                let egress =
                    settings.egress.as_ref().map_or_else(|| "egress=default".to_owned(), EgressCeiling::detail);
                let limits =
                    settings.limits.as_ref().map_or_else(|| "default".to_owned(), |limits| format!("{limits:?}"));
                Some(format!("tenant={tenant} limits={limits} {egress}"))
            }
            Self::PutMember { subject, roles, .. } => Some(format!("subject={subject} roles={}", roles.join(","))),
            Self::RemoveMember { subject, .. } => Some(format!("subject={subject}")),
            Self::PublishVersion { component, component_bytes, .. } => {
                Some(format!("component={component} bytes={component_bytes}"))
            }
            Self::PruneVersions { keep, .. } => Some(format!("keep={keep}")),
            Self::PutRoutes { app, routes, .. } => Some(format!("app={app} routes={}", routes.len())),
            Self::PutPolicy { name, .. }
            | Self::RemovePolicy { name, .. }
            | Self::PutSecret { name, .. }
            | Self::RemoveSecret { name, .. } => Some(format!("name={name}")),
            Self::CreateKey { account, roles, ttl_seconds, .. } => {
                Some(format!("account={account} roles={} ttl_seconds={ttl_seconds}", roles.join(",")))
            }
            Self::RevokeKey { key } => Some(format!("key={key}")),
            Self::SimulatePolicy { simulation, .. } => Some(simulation.detail()),
            Self::QueryAudit { range, .. } => Some(range.detail()),
            Self::ListCells { function, .. } | Self::RecycleCells { function, .. } => {
                function.as_ref().map(|function| format!("function={}", function.name))
            }
            Self::ListTenants
            | Self::ReadMetrics
            | Self::ReadTenant { .. }
            | Self::ReadUsage { .. }
            | Self::PutFunction { .. }
            | Self::RemoveFunction { .. }
            | Self::ListSecrets { .. }
            | Self::ListKeys { .. }
            | Self::ReadLogs { .. } => None,
        }
    }
}
