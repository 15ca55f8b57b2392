//! Where what exists is kept: rows, and the trait a database is hidden behind.
//!
//! Owns the shape of what is stored and the rule that every change happens in one transaction. Must never decide
//! whether a change is allowed or sensible, and must never see a plaintext secret.

pub mod keep;
mod migrations;
mod sqlite;
pub mod tiers;

use cofferdam_model::{
    Digest, FunctionId, FunctionSettings, KeyId, OrganisationId, RevocationId, RevocationTarget, RouteId, RouteSpec,
    TenantId, UnixNanos, Usage, UsageRange, VersionId,
};

use crate::error::ControlError;
use crate::vault::WrappedKey;
use cofferdam_model::{ClientCa, KeySettings, SealedValue, TenantSettings};

pub use keep::{HoldRow, Keeps, SubjectKeyRow};
pub use sqlite::SqliteStore;
pub use tiers::{OrganisationRow, OrganisationState, SetRow, Tiers};

/// A tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantRow {
    /// Its id.
    pub id: TenantId,
    /// Its name, unique.
    pub name: String,
    /// Whether anyone of it is let in at all.
    pub active: bool,
    /// What an operator has set about it.
    pub settings: TenantSettings,
    /// Since when it exists.
    pub created: UnixNanos,
    /// The organisation it belongs to.
    pub organisation: Option<OrganisationId>,
}

/// A subject's roles in a tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberRow {
    /// Who vouches for it; whoever does when absent.
    pub issuer: Option<String>,
    /// Subject as its issuer names it.
    pub subject: String,
    /// Its roles.
    pub roles: Vec<String>,
}

/// A function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FunctionRow {
    /// Its id.
    pub id: FunctionId,
    /// Its name, unique in its tenant.
    pub name: String,
    /// Its settings.
    pub settings: FunctionSettings,
    /// Counts changes of settings, secrets and version.
    pub generation: u64,
    /// The version calls are given to.
    pub current: Option<VersionId>,
}

/// An immutable version of a function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionRow {
    /// Its id.
    pub id: VersionId,
    /// Of which function.
    pub function: FunctionId,
    /// Digest of its component.
    pub component: Digest,
    /// Length of its component.
    pub component_bytes: u64,
    /// The function's settings when it was published.
    pub settings: FunctionSettings,
    /// When it was published.
    pub published: UnixNanos,
}

/// A route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteRow {
    /// Its id.
    pub id: RouteId,
    /// The app that owns it.
    pub app: String,
    /// What was declared.
    pub spec: RouteSpec,
    /// The function it leads to.
    pub function: FunctionId,
}

/// A policy's text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyRow {
    /// Its name, unique in its tenant.
    pub name: String,
    /// Cedar text.
    pub text: String,
}

/// A secret, sealed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretRow {
    /// Of which function.
    pub function: FunctionId,
    /// Its name.
    pub name: String,
    /// How-manieth value of that name.
    pub version: u64,
    /// The value.
    pub sealed: SealedValue,
    /// When it was set.
    pub updated: UnixNanos,
    /// The first version that may still be gone back to.
    pub epoch: u64,
}

/// A sealed value of whatever kind, with what makes up its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedRow {
    /// What kind of value.
    pub kind: &'static str,
    /// Id of what has it.
    pub owner: String,
    /// Under which name.
    pub name: String,
    /// How-manieth value of that name.
    pub version: u64,
    /// The value.
    pub sealed: SealedValue,
}

/// An API key. Its text is not here: only a MAC by which it is recognised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKeyRow {
    /// Its id.
    pub id: KeyId,
    /// Service account it stands for.
    pub account: String,
    /// Roles of that account.
    pub roles: Vec<String>,
    /// What it is good for at most; none for all of it.
    pub scopes: Vec<String>,
    /// MAC of its text.
    pub mac: [u8; 32],
    /// When it was made.
    pub created: UnixNanos,
    /// Until when it is good.
    pub expires: UnixNanos,
    /// Since when it is not good any more, if it was revoked.
    pub revoked: Option<UnixNanos>,
    /// What it is, and where and how it may be used.
    pub settings: KeySettings,
    /// Its secret, where it signs: that cannot be checked by a MAC of it.
    pub sealed: Option<SealedValue>,
}

/// An authority that names machines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCaRow {
    /// Its name, unique in its tenant.
    pub name: String,
    /// What was declared of it.
    pub ca: ClientCa,
    /// When that was.
    pub updated: UnixNanos,
}

/// Something that was revoked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevocationRow {
    /// Its id.
    pub id: RevocationId,
    /// What.
    pub target: RevocationTarget,
    /// Why.
    pub reason: String,
    /// Since when.
    pub created: UnixNanos,
    /// From when on it may be forgotten; never where it stands until it is undone.
    pub expires: Option<UnixNanos>,
}

/// Somebody the node's own issuer knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserRow {
    /// Its name, unique in its tenant.
    pub name: String,
    /// Its roles.
    pub roles: Vec<String>,
    /// What its passphrase is recognised by: Argon2id, as a PHC string.
    pub passphrase: String,
    /// Since when it exists.
    pub created: UnixNanos,
    /// When its passphrase was set.
    pub changed: UnixNanos,
}

/// The public half of a key of the node's own issuer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuerKeyRow {
    /// Its name in the key set.
    pub kid: String,
    /// The Ed25519 point.
    pub public: [u8; 32],
    /// When it was made.
    pub created: UnixNanos,
    /// Since when nothing is signed with it any more.
    pub retired: Option<UnixNanos>,
}

/// Everything of one tenant that a snapshot is made of. Each list is in order of name or id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantState {
    /// The tenant.
    pub tenant: TenantRow,
    /// Its keys, wrapped.
    pub keys: Vec<WrappedKey>,
    /// Its members.
    pub members: Vec<MemberRow>,
    /// Its functions, each with its current version.
    pub functions: Vec<(FunctionRow, Option<VersionRow>)>,
    /// Its routes.
    pub routes: Vec<RouteRow>,
    /// Its policies.
    pub policies: Vec<PolicyRow>,
    /// Their state.
    pub policies_set: SetRow,
    /// The policies operators bound it by.
    pub boundary: Vec<PolicyRow>,
    /// Their state.
    pub boundary_set: SetRow,
    /// Secrets of its functions.
    pub secrets: Vec<SecretRow>,
    /// Its API keys.
    pub api_keys: Vec<ApiKeyRow>,
    /// The authorities that name its machines.
    pub client_cas: Vec<ClientCaRow>,
    /// What is revoked in it.
    pub revocations: Vec<RevocationRow>,
    /// Its users.
    pub users: Vec<UserRow>,
}

/// Calls of a function in one hour, and all they used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Calls that ended, however they did.
    pub calls: u64,
    /// Those that were answered in full.
    pub answered: u64,
    /// Those that ran and were not.
    pub failed: u64,
    /// Those that were permitted and did not run: over a limit, or no cell could be had.
    pub refused: u64,
    /// What they used, each field summed.
    pub usage: Usage,
}

/// What a function used in one hour.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageRow {
    /// Hours since 1970.
    pub hour: u64,
    /// Which function. Its tenant's id is part of its own.
    pub function: FunctionId,
    /// How much.
    pub tally: Tally,
}

/// A call whose intent was counted on and whose end is still to come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenCall {
    /// Its request.
    pub request: String,
    /// Index of the record that began it.
    pub index: u64,
    /// Which function it is of.
    pub function: FunctionId,
}

/// How far the log is counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageMark {
    /// Name of the log.
    pub origin: String,
    /// Index of the first record not counted.
    pub next: u64,
    /// Leaf hash of the record before it.
    pub leaf: [u8; 32],
}

/// One step of counting. All of it is stored, or nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageStep {
    /// What comes on top.
    pub rows: Vec<UsageRow>,
    /// Calls that ended, by request.
    pub closed: Vec<String>,
    /// Calls that began and have not ended.
    pub opened: Vec<OpenCall>,
    /// Keys that were used, with the time in seconds.
    pub used: Vec<(KeyId, u64)>,
    /// Where it leads to.
    pub mark: UsageMark,
}

/// One open transaction. Nothing is seen by others until the work that was given it ends well.
pub trait Transaction: Tiers + Keeps {
    /// Counts one more change and gives the new count.
    fn next_generation(&mut self) -> Result<u64, ControlError>;
    /// Every tenant, in order of name.
    fn tenants(&mut self) -> Result<Vec<TenantRow>, ControlError>;
    /// Everything of one tenant.
    fn tenant(&mut self, id: &TenantId) -> Result<Option<TenantState>, ControlError>;
    /// Adds a tenant with its first key. Its id and name must be new.
    fn insert_tenant(&mut self, tenant: &TenantRow, key: &WrappedKey) -> Result<(), ControlError>;
    /// Replaces what an operator has set about a tenant, which exists.
    fn put_tenant_settings(&mut self, tenant: &TenantId, settings: &TenantSettings) -> Result<(), ControlError>;
    /// Lets a tenant's own in, or nobody of it.
    fn set_tenant_active(&mut self, tenant: &TenantId, active: bool) -> Result<(), ControlError>;
    /// Adds a key of a tenant, or puts it in the place of the one with its number.
    fn put_tenant_key(&mut self, tenant: &TenantId, key: &WrappedKey) -> Result<(), ControlError>;
    /// A tenant's keys, in order of number.
    fn tenant_keys(&mut self, tenant: &TenantId) -> Result<Vec<WrappedKey>, ControlError>;
    /// Forgets a key of a tenant for good; says whether it was there.
    fn remove_tenant_key(&mut self, tenant: &TenantId, version: u32) -> Result<bool, ControlError>;
    /// Values of a tenant that are sealed with another of its keys than this one, at most `most`. All kinds of them:
    /// what is not told here is lost when that other key goes.
    fn sealed_otherwise(&mut self, tenant: &TenantId, key: u32, most: usize) -> Result<Vec<SealedRow>, ControlError>;
    /// Puts a sealed value in the place of the one that is there.
    fn put_sealed(&mut self, row: &SealedRow) -> Result<(), ControlError>;
    /// Gives a subject exactly these roles.
    fn put_member(&mut self, tenant: &TenantId, member: &MemberRow) -> Result<(), ControlError>;
    /// Takes a subject out; says whether it was in.
    fn remove_member(&mut self, tenant: &TenantId, issuer: Option<&str>, subject: &str) -> Result<bool, ControlError>;
    /// Adds a function or replaces what is known of it.
    fn put_function(&mut self, function: &FunctionRow) -> Result<(), ControlError>;
    /// Removes a function with its versions, secrets and routes; says whether it was there.
    fn remove_function(&mut self, id: &FunctionId) -> Result<bool, ControlError>;
    /// A function's versions, newest first.
    fn versions(&mut self, function: &FunctionId) -> Result<Vec<VersionRow>, ControlError>;
    /// Adds a version. Its function must exist.
    fn insert_version(&mut self, version: &VersionRow) -> Result<(), ControlError>;
    /// Removes a version that is not the current one.
    fn remove_version(&mut self, id: &VersionId) -> Result<bool, ControlError>;
    /// Every route on a host, of whichever tenant.
    fn routes_on(&mut self, host: &str) -> Result<Vec<RouteRow>, ControlError>;
    /// Replaces the routes of one app.
    fn replace_routes(&mut self, tenant: &TenantId, app: &str, routes: &[RouteRow]) -> Result<(), ControlError>;
    /// Adds a policy or replaces its text.
    fn put_policy(&mut self, tenant: &TenantId, policy: &PolicyRow) -> Result<(), ControlError>;
    /// Removes a policy; says whether it was there.
    fn remove_policy(&mut self, tenant: &TenantId, name: &str) -> Result<bool, ControlError>;
    /// Adds a secret or replaces its value. Its function must exist.
    fn put_secret(&mut self, secret: &SecretRow) -> Result<(), ControlError>;
    /// Earlier values of a secret, newest first.
    fn secret_history(&mut self, function: &FunctionId, name: &str) -> Result<Vec<SecretRow>, ControlError>;
    /// Keeps a value that was the current one.
    fn keep_secret(&mut self, secret: &SecretRow) -> Result<(), ControlError>;
    /// Forgets earlier values of a secret before a version; says how many.
    fn forget_secrets(&mut self, function: &FunctionId, name: &str, before: u64) -> Result<usize, ControlError>;
    /// Forgets one earlier value of a secret; says whether it was there.
    fn forget_secret(&mut self, function: &FunctionId, name: &str, version: u64) -> Result<bool, ControlError>;
    /// Removes a secret with its earlier values; says whether it was there.
    fn remove_secret(&mut self, function: &FunctionId, name: &str) -> Result<bool, ControlError>;
    /// Adds an API key.
    fn insert_api_key(&mut self, key: &ApiKeyRow) -> Result<(), ControlError>;
    /// Marks an API key revoked; says whether there is one that was not.
    fn revoke_api_key(&mut self, id: &KeyId, at: UnixNanos) -> Result<bool, ControlError>;
    /// Forgets an API key; says whether it was there.
    fn remove_api_key(&mut self, id: &KeyId) -> Result<bool, ControlError>;
    /// Adds an authority of machines or replaces what is known of it.
    fn put_client_ca(&mut self, tenant: &TenantId, ca: &ClientCaRow) -> Result<(), ControlError>;
    /// Removes an authority of machines; says whether it was there.
    fn remove_client_ca(&mut self, tenant: &TenantId, name: &str) -> Result<bool, ControlError>;
    /// Adds a revocation.
    fn insert_revocation(&mut self, revocation: &RevocationRow) -> Result<(), ControlError>;
    /// Takes a revocation back; says whether it was there.
    fn remove_revocation(&mut self, id: &RevocationId) -> Result<bool, ControlError>;
    /// Forgets revocations whose time has come.
    fn forget_revocations(&mut self, now: UnixNanos) -> Result<(), ControlError>;
    /// Adds a user or replaces what is known of it.
    fn put_user(&mut self, tenant: &TenantId, user: &UserRow) -> Result<(), ControlError>;
    /// Removes a user; says whether it was there.
    fn remove_user(&mut self, tenant: &TenantId, name: &str) -> Result<bool, ControlError>;
    /// Every key of the node's own issuer, newest first.
    fn issuer_keys(&mut self) -> Result<Vec<IssuerKeyRow>, ControlError>;
    /// Adds a key of the node's own issuer.
    fn insert_issuer_key(&mut self, key: &IssuerKeyRow) -> Result<(), ControlError>;
    /// Marks every key that is not yet as one nothing is signed with any more.
    fn retire_issuer_keys(&mut self, at: UnixNanos) -> Result<(), ControlError>;
    /// Forgets keys that were retired by then.
    fn forget_issuer_keys(&mut self, retired: UnixNanos) -> Result<(), ControlError>;
    /// Every component that some version is made of, once each, with its length: of one tenant, or of all.
    fn components(&mut self, tenant: Option<&TenantId>) -> Result<Vec<(Digest, u64)>, ControlError>;
    /// How far the log is counted, and the calls that are open there; none where nothing was counted yet.
    fn usage_mark(&mut self) -> Result<Option<(UsageMark, Vec<OpenCall>)>, ControlError>;
    /// Adds what was counted. Sums that do not fit stay at the most there is.
    fn add_usage(&mut self, step: &UsageStep) -> Result<(), ControlError>;
    /// When keys of a tenant were last used, in seconds; of those that never were, nothing.
    fn key_uses(&mut self, tenant: &TenantId) -> Result<Vec<(KeyId, u64)>, ControlError>;
    /// Forgets every open call, for they are in a log that is not there any more; and all sums, if they are of it too.
    fn count_anew(&mut self, sums: bool) -> Result<(), ControlError>;
    /// Forgets what was used before an hour, and the names of functions that are in nothing any more.
    fn forget_usage(&mut self, before: u64) -> Result<(), ControlError>;
    /// Rows of a tenant in order of hour and function, at most `most`, each with the function's name.
    fn usage(
        &mut self,
        tenant: &TenantId,
        range: &UsageRange,
        most: usize,
    ) -> Result<Vec<(UsageRow, String)>, ControlError>;
}

/// Work done inside a transaction.
pub type Work<'a> = dyn FnMut(&mut dyn Transaction) -> Result<(), ControlError> + 'a;

/// A database.
pub trait Store: Send {
    /// Does `work` in one transaction: all of it is durable when this returns well, none of it otherwise.
    fn transact(&mut self, work: &mut Work<'_>) -> Result<(), ControlError>;
    /// Takes what was deleted out of everything the database keeps on the side.
    fn scrub(&mut self) -> Result<(), ControlError>;
}

/// Does `work` in one transaction and hands its result on.
pub(crate) fn run<T>(
    store: &mut dyn Store,
    work: impl FnOnce(&mut dyn Transaction) -> Result<T, ControlError>,
) -> Result<T, ControlError> {
    let mut work = Some(work);
    let mut result = None;
    store.transact(&mut |tx| {
        // A store calls this once; one that calls it again gets nothing done the second time.
        if let Some(work) = work.take() {
            result = Some(work(tx)?);
        }
        Ok(())
    })?;
    result.ok_or_else(|| ControlError::Damaged { what: "the store did not run the transaction".into() })
}

#[cfg(test)]
mod contract;
