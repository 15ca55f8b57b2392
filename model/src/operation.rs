//! The closed list of what anyone can ask of Cofferdam.
//!
//! An operation names its action, its tenant and the one resource it touches; `authz` decides on exactly that and
//! wraps the very value in a permit, so what was allowed is what is done. Must never gain a catch-all variant.

use crate::digest::Digest;
use crate::function::FunctionSettings;
use crate::id::{KeyId, RevocationId, TenantId};
use crate::machine::{ClientCa, KeySettings};
use crate::reading::{AuditRange, LogRange, UsageRange};
use crate::revocation::{Revived, RevocationTarget};
use crate::route::RouteSpec;
use crate::secret::SecretValue;
use crate::supposition::Simulation;
use crate::tenant::TenantSettings;

mod catalogue;
mod manage;
mod touched;

use self::catalogue::actions;

pub use crate::govern::{Govern, OrganisationRef};
pub use crate::resource::Resource;
pub use crate::{function::FunctionRef, invoke::Invoke, keep::Keep, prove::Prove};
pub use manage::{Grant, SinkReset};
pub use touched::{Grants, Operation};

actions! {
    /// Call a function.
    Invoke,
    /// Be given a secret. Asked of a function's own workload, for each secret of a call.
    UseSecret,
    /// Send a request to the outside. Asked of a function's own workload, for each request.
    Connect,
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
    /// Make an organisation. On the platform.
    CreateOrganisation,
    /// See which organisations there are, with their ceilings. On the platform.
    ListOrganisations,
    /// Put a tenant into an organisation, or out of one. On the platform.
    AssignTenant,
    /// Write a policy of an organisation's ceiling. On the platform.
    PutCeiling,
    /// Remove a policy of an organisation's ceiling. On the platform.
    RemoveCeiling,
    /// Write a policy of a tenant's boundary. On the platform.
    PutBoundary,
    /// Remove a policy of a tenant's boundary. On the platform.
    RemoveBoundary,
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
    /// Replace a secret's value, keeping the earlier ones or taking them out of use.
    RotateSecret,
    /// Go back to an earlier value of a secret.
    RollbackSecret,
    /// See which values a secret has had, and when; never what they are.
    ListSecretVersions,
    /// Replace the key a tenant's secrets are sealed with.
    RotateTenantKey,
    /// Destroy all keys of a tenant, and with them everything sealed. On the platform.
    ShredTenant,
    /// Replace the root key. On the platform.
    RotateRootKey,
    /// See where the root key is and what it wraps. On the platform.
    ReadRootKey,
    /// Create an API key.
    CreateKey,
    /// See ids and ages of API keys.
    ListKeys,
    /// Revoke an API key.
    RevokeKey,
    /// Trust an authority to name machines by certificates.
    PutClientCa,
    /// See the authorities trusted for certificates of machines.
    ListClientCas,
    /// Trust an authority no more.
    RemoveClientCa,
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
    /// Read the log's records of what happened in a tenant.
    QueryAudit,
    /// Read a tenant's records with what proves that they are all.
    ProveAudit,
    /// Read the log's checkpoint and hash tiles. On the platform.
    ReadTiles,
    /// Read the log's records of everybody. On the platform.
    ReadEntries,
    /// See a tenant's cells.
    ListCells,
    /// Have a tenant's cells replaced.
    RecycleCells,
    /// Read the node's counters. On the platform.
    ReadMetrics,
    /// Hold records of the log, whatever the retention is. On the platform.
    PutHold,
    /// Hold records no more. On the platform.
    RemoveHold,
    /// See what is held. On the platform.
    ListHolds,
    /// Destroy the keys of what records disclose of a subject. On the platform.
    ShredSubject,
    /// See where the log is streamed to, and how far that is behind. On the platform.
    ListSinks,
    /// Stream the log to a sink from another record on. On the platform.
    ResetSink,
}

/// Change or read what exists. Carries everything the change needs, so that the permit does too.
pub enum Manage {
    /// Set what binds tenants from above. All of it is an operation on the installation.
    Govern(Govern),
    /// Set what is kept of the log. On the installation.
    Keep(Keep),
    /// Read evidence of the log.
    Prove(Prove),
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
    /// Replace the value of a secret that is there.
    RotateSecret {
        /// Of which function.
        function: FunctionRef,
        /// Which.
        name: String,
        /// The new value.
        value: SecretValue,
        /// Whether earlier values are destroyed, and never gone back to.
        revoke_older: bool,
    },
    /// Make an earlier value of a secret the current one.
    RollbackSecret {
        /// Of which function.
        function: FunctionRef,
        /// Which.
        name: String,
        /// Which value of it.
        version: u64,
    },
    /// List the values a secret has had.
    ListSecretVersions {
        /// Of which function.
        function: FunctionRef,
        /// Which.
        name: String,
    },
    /// Replace a tenant's key, and have everything sealed with the old one under the new one.
    RotateTenantKey {
        /// Whose.
        tenant: TenantId,
    },
    /// Destroy the keys of a tenant. An operation on the installation.
    ShredTenant {
        /// Whose.
        tenant: TenantId,
        /// Names of exactly the keys it has, so that the record says what was destroyed.
        keys: Vec<String>,
    },
    /// Have every tenant's key wrapped by a new root key.
    RotateRootKey {
        /// Whether the old one is destroyed, where it is a file of this host's.
        destroy_old: bool,
    },
    /// Tell where the root key is.
    ReadRootKey,
    /// Create an API key that acts as a service account.
    CreateKey {
        /// Where.
        tenant: TenantId,
        /// Name of the service account it stands for.
        account: String,
        /// Roles of that account.
        roles: Vec<String>,
        /// What the key is good for of what these roles may; all of it where there are none.
        scopes: Vec<String>,
        /// Seconds it is good for.
        ttl_seconds: u64,
        /// What it is, and where and how it may be used.
        settings: KeySettings,
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
    /// Trust an authority to name machines by certificates, or replace what is known of it.
    PutClientCa {
        /// Where.
        tenant: TenantId,
        /// Its name there.
        name: String,
        /// All that is to be known of it.
        ca: ClientCa,
    },
    /// List the authorities trusted for certificates of machines.
    ListClientCas {
        /// Where.
        tenant: TenantId,
    },
    /// Trust an authority no more.
    RemoveClientCa {
        /// Where.
        tenant: TenantId,
        /// Its name there.
        name: String,
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
        /// What comes back with it.
        gives: Revived,
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
    /// See how it stands with sinks.
    ListSinks,
    /// Put a sink's cursor somewhere else.
    ResetSink(SinkReset),
}
