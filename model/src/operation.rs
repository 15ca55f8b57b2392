//! The closed list of what anyone can ask of Cofferdam.
//!
//! An operation names its action, its tenant and the one resource it touches; `authz` decides on exactly that and
//! wraps the very value in a permit, so what was allowed is what is done. Must never gain a catch-all variant.

use crate::digest::Digest;
use crate::facts::Level;
use crate::function::FunctionSettings;
use crate::id::{FunctionId, KeyId, RevocationId, RouteId, TenantId, VersionId};
use crate::limits::FunctionLimits;
use crate::reading::{LogRange, UsageRange};
use crate::revocation::RevocationTarget;
use crate::route::RouteSpec;
use crate::secret::SecretValue;
use crate::tenant::TenantSettings;
use std::sync::Arc;

mod manage;

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
    /// Shut a tenant: nobody of it is let in. On the platform.
    SuspendTenant,
    /// Open a tenant that was shut. On the platform.
    ResumeTenant,
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
    /// Revoke a token, a signing key, a subject, or all tokens issued before a moment.
    Revoke,
    /// See what is revoked.
    ListRevocations,
    /// Undo a revocation.
    Reinstate,
    /// Add a user of the node's own issuer, or change its roles or passphrase.
    PutUser,
    /// Remove a user.
    RemoveUser,
    /// See users, never their passphrases.
    ListUsers,
    /// Give oneself a token for a short time.
    IssueToken,
    /// Sign with a new key from now on. On the platform.
    RotateIssuerKey,
    /// Read a function's logs.
    ReadLogs,
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

/// Call a function: resolved by the router to exactly one version. Cheap to clone the ids of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invoke {
    /// Whose.
    pub tenant: TenantId,
    /// Which function.
    pub function: FunctionId,
    /// Its name, which policies may speak of.
    pub function_name: Arc<str>,
    /// Which version of it.
    pub version: VersionId,
    /// Digest of the component.
    pub component: Digest,
    /// The route that matched; none for a direct invocation by name.
    pub route: Option<RouteId>,
    /// Whether the route was declared public.
    pub public: bool,
    /// How durably the call is recorded before it takes effect.
    pub audit: Level,
    /// What the call may use, already under every ceiling.
    pub limits: Arc<FunctionLimits>,
}

impl Operation for Invoke {
    fn action(&self) -> Action {
        Action::Invoke
    }

    fn tenant(&self) -> TenantId {
        self.tenant.clone()
    }

    fn resource(&self) -> Resource {
        Resource::Function { id: self.function.clone(), name: self.function_name.clone() }
    }

    fn level(&self) -> Level {
        self.audit
    }

    fn route(&self) -> Option<&RouteId> {
        self.route.as_ref()
    }

    fn public(&self) -> bool {
        self.public
    }

    fn version(&self) -> Option<(&VersionId, Digest)> {
        Some((&self.version, self.component))
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
    /// Shut a tenant.
    SuspendTenant {
        /// Which.
        tenant: TenantId,
        /// Why, for whoever reads the log.
        reason: String,
    },
    /// Open a tenant that was shut.
    ResumeTenant {
        /// Which.
        tenant: TenantId,
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
        /// Who vouches for it; whoever does when absent.
        issuer: Option<String>,
        /// Subject as its issuer names it.
        subject: String,
        /// All the roles it shall have.
        roles: Vec<String>,
    },
    /// Take all roles of a subject.
    RemoveMember {
        /// Where.
        tenant: TenantId,
        /// Who vouches for it; whoever does when absent.
        issuer: Option<String>,
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
    /// Revoke something, from the next call on.
    Revoke {
        /// Where.
        tenant: TenantId,
        /// What.
        target: RevocationTarget,
        /// Why, for whoever reads the list.
        reason: String,
        /// When the token revoked ends by itself, seconds since 1970, where that is known.
        expires: Option<u64>,
    },
    /// List revocations.
    ListRevocations {
        /// Where.
        tenant: TenantId,
    },
    /// Undo a revocation.
    Reinstate {
        /// Which; names its tenant.
        revocation: RevocationId,
    },
    /// Add a user of the node's own issuer, or change its roles or passphrase.
    PutUser {
        /// Where.
        tenant: TenantId,
        /// Its name.
        name: String,
        /// All the roles it shall have.
        roles: Vec<String>,
        /// Its passphrase; the one it has where absent.
        passphrase: Option<SecretValue>,
    },
    /// Remove a user.
    RemoveUser {
        /// Where.
        tenant: TenantId,
        /// Its name.
        name: String,
    },
    /// List users.
    ListUsers {
        /// Where.
        tenant: TenantId,
    },
    /// Give whoever asks a token of the node's own issuer.
    IssueToken {
        /// Where.
        tenant: TenantId,
        /// What it says.
        grant: Grant,
    },
    /// Have the node's own issuer sign with a new key.
    RotateIssuerKey {
        /// Whether tokens signed until now are worth nothing at once.
        forget: bool,
    },
    /// Read log lines of a function.
    ReadLogs {
        /// Of which function.
        function: FunctionRef,
        /// Which of them.
        range: LogRange,
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
