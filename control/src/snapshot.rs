//! What exists, as one immutable value that the data plane reads without a lock.
//!
//! Owns the in-memory shape and its lookups. A snapshot is built from what was just stored and never changed after.
//! Must never touch the store, and must never hold a plaintext secret.

mod policies;
#[cfg(test)]
mod portrait;
mod revived;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use cofferdam_authz::{
    ApiKeyRecord, ClientAuthorities, Directory, RevokedBy, Shown, TenantPolicies, TierPolicies, UserRecord,
};
use cofferdam_model::{
    Digest, EgressCeiling, FunctionId, FunctionLimits, FunctionSettings, KeyId, OrganisationId, RouteId, RouteSpec,
    TenantId, TenantLimits, UnixNanos, VersionId,
};

use crate::revocation::Revocations;
use crate::store::{
    ApiKeyRow, ClientCaRow, FunctionRow, MemberRow, PolicyRow, RevocationRow, SecretRow, TenantState, UserRow,
    VersionRow,
};
use crate::vault::WrappedKey;

pub(crate) use policies::{compile, unread};

/// Everything that exists, at one moment.
#[derive(Default)]
pub struct Snapshot {
    generation: u64,
    tenants: BTreeMap<TenantId, Arc<TenantEntry>>,
    names: HashMap<Arc<str>, TenantId>,
    organisations: BTreeMap<OrganisationId, Arc<OrganisationEntry>>,
    /// What the node's own issuer is called, if it has one.
    own_issuer: Option<Arc<str>>,
}

/// An organisation, with the ceiling over its tenants.
pub struct OrganisationEntry {
    /// Its id.
    pub id: OrganisationId,
    /// Its name.
    pub name: Arc<str>,
    /// Since when it exists.
    pub created: UnixNanos,
    pub(crate) ceiling: Option<TierPolicies>,
    pub(crate) sources: Vec<PolicyRow>,
}

/// Something that takes the place of what a snapshot had.
pub(crate) enum Entry {
    Tenant(Box<TenantEntry>),
    Organisation(OrganisationEntry),
}

/// A tenant with all it has.
pub struct TenantEntry {
    /// Its id.
    pub id: TenantId,
    /// Its name.
    pub name: Arc<str>,
    /// Whether anyone of it is let in. False too where its policies no longer compile.
    pub active: bool,
    /// Since when it exists.
    pub created: UnixNanos,
    /// What its functions may use together.
    pub limits: Arc<TenantLimits>,
    /// The organisation it belongs to.
    pub organisation: Option<OrganisationId>,
    /// What its functions may ask of the outside at most, where an operator has set that.
    pub egress: Option<Arc<EgressCeiling>>,
    /// By subject, then by issuer; those of whoever vouches for it under none.
    members: BTreeMap<String, BTreeMap<Option<String>, Vec<String>>>,
    functions: BTreeMap<Arc<str>, Arc<FunctionEntry>>,
    by_id: HashMap<FunctionId, Arc<FunctionEntry>>,
    routes: Vec<Arc<RouteEntry>>,
    policies: Arc<TenantPolicies>,
    sources: Vec<PolicyRow>,
    boundary: Vec<PolicyRow>,
    api_keys: BTreeMap<KeyId, ApiKeyEntry>,
    client_cas: Vec<ClientCaRow>,
    authorities: Option<Arc<ClientAuthorities>>,
    revocations: Revocations,
    users: BTreeMap<String, UserEntry>,
    pub(crate) keys: Vec<WrappedKey>,
}

struct UserEntry {
    row: UserRow,
    /// What `authz` asks for, made once so that a login does not copy it.
    record: Arc<UserRecord>,
}

struct ApiKeyEntry {
    row: ApiKeyRow,
    /// What `authz` asks for, made once so that a call does not copy it.
    record: Arc<ApiKeyRecord>,
}

/// A function.
pub struct FunctionEntry {
    /// Its id.
    pub id: FunctionId,
    /// Its name.
    pub name: Arc<str>,
    /// Whose.
    pub tenant: TenantId,
    /// Its settings as declared.
    pub settings: Arc<FunctionSettings>,
    /// Its limits, each under the installation's ceiling.
    pub limits: Arc<FunctionLimits>,
    /// Counts changes of settings, the tenant's too, secrets and version: cells of an earlier one are recycled.
    pub generation: u64,
    /// The version calls are given to; none until one is published.
    pub current: Option<VersionEntry>,
    /// Names of the secrets its cells are given: those it declares and somebody has set.
    pub given: Arc<[Arc<str>]>,
    pub(crate) secrets: Vec<SecretRow>,
}

/// The version of a function that calls are given to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionEntry {
    /// Its id.
    pub id: VersionId,
    /// Digest of its component.
    pub component: Digest,
    /// Length of its component.
    pub component_bytes: u64,
    /// When it was published.
    pub published: UnixNanos,
}

/// A route, resolved to its function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteEntry {
    /// Its id.
    pub id: RouteId,
    /// Whose.
    pub tenant: TenantId,
    /// The app that owns it.
    pub app: Arc<str>,
    /// What was declared.
    pub spec: RouteSpec,
    /// The function it leads to.
    pub function_id: FunctionId,
}

impl Snapshot {
    /// Counts changes of anything; a later snapshot has a higher one.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// A tenant by id.
    pub fn tenant(&self, id: &TenantId) -> Option<&Arc<TenantEntry>> {
        self.tenants.get(id)
    }

    /// A tenant by name.
    pub fn tenant_by_name(&self, name: &str) -> Option<&Arc<TenantEntry>> {
        self.tenants.get(self.names.get(name)?)
    }

    /// Every tenant, in order of id.
    pub fn tenants(&self) -> impl Iterator<Item = &Arc<TenantEntry>> {
        self.tenants.values()
    }

    /// A tenant's function by name.
    pub fn function(&self, tenant: &TenantId, name: &str) -> Option<&Arc<FunctionEntry>> {
        self.tenants.get(tenant)?.functions.get(name)
    }

    /// A function by id.
    pub fn function_by_id(&self, id: &FunctionId) -> Option<&Arc<FunctionEntry>> {
        self.tenants.get(&id.tenant())?.by_id.get(id)
    }

    /// Every route of every tenant that is active.
    pub fn routes(&self) -> impl Iterator<Item = &Arc<RouteEntry>> {
        self.tenants.values().filter(|tenant| tenant.active).flat_map(|tenant| tenant.routes.iter())
    }

    /// The policies that hold in a tenant, with what binds it from above.
    pub fn policies(&self, tenant: &TenantId) -> Option<Arc<TenantPolicies>> {
        let tenant = self.tenants.get(tenant)?;
        let Some(organisation) = &tenant.organisation else { return Some(tenant.policies.clone()) };
        let ceiling = self.organisations.get(organisation)?.ceiling.clone();
        Some(Arc::new((*tenant.policies).clone().under(organisation.clone(), ceiling)))
    }

    /// An organisation by id.
    pub fn organisation(&self, id: &OrganisationId) -> Option<&Arc<OrganisationEntry>> {
        self.organisations.get(id)
    }

    /// Every organisation, in order of id.
    pub fn organisations(&self) -> impl Iterator<Item = &Arc<OrganisationEntry>> {
        self.organisations.values()
    }

    /// This snapshot under another generation.
    pub(crate) fn at(self, generation: u64) -> Self {
        Self { generation, ..self }
    }

    /// Whether all that says who somebody of a tenant is, and what he may, is as it was in an earlier snapshot.
    pub fn knows_alike(&self, before: &Self, tenant: &TenantId) -> bool {
        match (self.tenants.get(tenant), before.tenants.get(tenant)) {
            (Some(now), Some(then)) => Arc::ptr_eq(now, then) || now.knows_alike(then),
            (None, None) => true,
            _ => false,
        }
    }

    /// This snapshot of a node whose own issuer is called so.
    pub(crate) fn of_issuer(self, own_issuer: Option<Arc<str>>) -> Self {
        Self { own_issuer, ..self }
    }

    /// This snapshot with one thing put in place of what was there.
    pub(crate) fn with(&self, entry: Entry, generation: u64) -> Self {
        let mut next = Self {
            generation,
            tenants: self.tenants.clone(),
            names: self.names.clone(),
            organisations: self.organisations.clone(),
            own_issuer: self.own_issuer.clone(),
        };
        next.put(entry);
        next
    }

    pub(crate) fn put(&mut self, entry: Entry) {
        match entry {
            Entry::Tenant(tenant) => {
                self.names.insert(tenant.name.clone(), tenant.id.clone());
                self.tenants.insert(tenant.id.clone(), Arc::from(tenant));
            }
            Entry::Organisation(organisation) => {
                self.organisations.insert(organisation.id.clone(), Arc::new(organisation));
            }
        }
    }
}

/// What `authz` asks to turn a credential into a principal. Nobody of an inactive tenant is known.
impl Directory for Snapshot {
    fn tenant_named(&self, name: &str) -> Option<TenantId> {
        self.names.get(name).cloned()
    }

    fn tenant_active(&self, id: &TenantId) -> bool {
        self.tenants.get(id).is_some_and(|tenant| tenant.active)
    }

    // A member without an issuer has its roles whoever vouches for it: an operator who trusts two issuers for one
    // tenant vouches for both. One with an issuer has them of that issuer alone.
    fn member_roles(&self, tenant: &TenantId, issuer: &str, subject: &str) -> Vec<String> {
        let Some(tenant) = self.tenants.get(tenant) else { return Vec::new() };
        // A user of the node's own issuer has the roles it was given as such, and no others.
        if self.own_issuer.as_deref() == Some(issuer) {
            return tenant.users.get(subject).map(|user| user.row.roles.clone()).unwrap_or_default();
        }
        let Some(given) = tenant.members.get(subject) else { return Vec::new() };
        let counts = |by: &Option<String>| by.as_deref().is_none_or(|by| by == issuer);
        let mut roles: Vec<String> =
            given.iter().filter(|(by, _)| counts(by)).flat_map(|(_, roles)| roles.iter().cloned()).collect();
        roles.sort_unstable();
        roles.dedup();
        roles
    }

    fn revoked(&self, shown: &Shown<'_>) -> Option<RevokedBy> {
        self.tenants.get(shown.tenant)?.revocations.revoked(shown)
    }

    fn user(&self, tenant: &TenantId, name: &str) -> Option<Arc<UserRecord>> {
        Some(self.tenants.get(tenant)?.users.get(name)?.record.clone())
    }

    fn api_key(&self, id: &KeyId) -> Option<Arc<ApiKeyRecord>> {
        Some(self.tenants.get(&id.tenant())?.api_keys.get(id)?.record.clone())
    }

    fn client_authorities(&self, tenant: &TenantId) -> Option<Arc<ClientAuthorities>> {
        self.tenants.get(tenant)?.authorities.clone()
    }
}

impl TenantEntry {
    /// Builds a tenant from what is stored and the policies compiled from it.
    pub(crate) fn build(
        state: TenantState,
        policies: Arc<TenantPolicies>,
        authorities: Option<Arc<ClientAuthorities>>,
        (ceiling, limits): (&FunctionLimits, Arc<TenantLimits>),
    ) -> Self {
        let id = state.tenant.id.clone();
        let mut secrets: HashMap<FunctionId, Vec<SecretRow>> = HashMap::new();
        for secret in state.secrets {
            secrets.entry(secret.function.clone()).or_default().push(secret);
        }
        let functions: Vec<_> = state
            .functions
            .into_iter()
            .map(|(function, version)| {
                let secrets = secrets.remove(&function.id).unwrap_or_default();
                Arc::new(FunctionEntry::new(function, version, secrets, ceiling))
            })
            .collect();
        let routes = state.routes.into_iter().map(|route| {
            let (app, function_id) = (route.app.into(), route.function);
            Arc::new(RouteEntry { id: route.id, tenant: id.clone(), app, spec: route.spec, function_id })
        });
        Self {
            name: state.tenant.name.into(),
            active: state.tenant.active,
            created: state.tenant.created,
            limits: state.tenant.settings.limits.map_or(limits, Arc::new),
            organisation: state.tenant.organisation,
            egress: state.tenant.settings.egress.map(Arc::new),
            members: members(state.members),
            revocations: Revocations::of(state.revocations),
            users: state.users.into_iter().map(|row| (row.name.clone(), UserEntry::new(row))).collect(),
            routes: routes.collect(),
            by_id: functions.iter().map(|function| (function.id.clone(), function.clone())).collect(),
            functions: functions.into_iter().map(|function| (function.name.clone(), function)).collect(),
            policies,
            sources: state.policies,
            boundary: state.boundary,
            api_keys: state.api_keys.into_iter().map(|row| (row.id.clone(), ApiKeyEntry::new(row))).collect(),
            client_cas: state.client_cas,
            authorities,
            keys: state.keys,
            id,
        }
    }

    fn knows_alike(&self, other: &Self) -> bool {
        let users = |entry: &Self| entry.users.values().map(|user| user.row.clone()).collect::<Vec<_>>();
        let keys = |entry: &Self| entry.api_keys.values().map(|key| key.row.clone()).collect::<Vec<_>>();
        self.active == other.active
            && self.organisation == other.organisation
            && Arc::ptr_eq(&self.policies, &other.policies)
            && self.members == other.members
            && self.client_cas == other.client_cas
            && self.revocations.rows().eq(other.revocations.rows())
            && users(self) == users(other)
            && keys(self) == keys(other)
    }

    /// Its compiled policies, if they were compiled from these texts in this very state: one that was replaced by the
    /// same text counts as a change, and records name that state.
    pub(crate) fn policies_of(&self, state: &TenantState) -> Option<Arc<TenantPolicies>> {
        let version = |tier: &TierPolicies| tier.facts().version;
        let same = version(self.policies.grants()) == state.policies_set.version
            && self.policies.boundary().is_none_or(|boundary| version(boundary) == state.boundary_set.version);
        (same && self.active && state.tenant.active && self.has_texts_of(state)).then(|| self.policies.clone())
    }

    /// Whether its policies and those that bind it are these.
    pub(crate) fn has_texts_of(&self, state: &TenantState) -> bool {
        self.sources == state.policies && self.boundary == state.boundary
    }

    /// What the tenant grants, compiled or to be.
    pub fn compiled(&self) -> &TenantPolicies {
        &self.policies
    }

    /// Names of its keys, in order of number.
    pub fn key_names(&self) -> Vec<String> {
        self.keys.iter().map(WrappedKey::name).collect()
    }

    /// Its functions, in order of name.
    pub fn functions(&self) -> impl Iterator<Item = &Arc<FunctionEntry>> {
        self.functions.values()
    }

    /// Its routes, in order of app.
    pub fn routes(&self) -> impl Iterator<Item = &Arc<RouteEntry>> {
        self.routes.iter()
    }

    /// Issuers (none for any), subjects and their roles, in order of subject.
    pub fn members(&self) -> impl Iterator<Item = (Option<&str>, &str, &[String])> {
        self.members.iter().flat_map(|(subject, by)| {
            by.iter().map(move |(issuer, roles)| (issuer.as_deref(), subject.as_str(), roles.as_slice()))
        })
    }

    /// Whether the node's own issuer knows somebody of that name here.
    pub fn has_user(&self, name: &str) -> bool {
        self.users.contains_key(name)
    }

    pub(crate) fn users(&self) -> impl Iterator<Item = &UserRow> {
        self.users.values().map(|user| &user.row)
    }

    pub(crate) fn revocations(&self) -> impl Iterator<Item = &RevocationRow> {
        self.revocations.rows()
    }

    /// Names and texts of its policies, in order of name.
    pub fn policy_sources(&self) -> impl Iterator<Item = (&str, &str)> {
        self.sources.iter().map(|policy| (policy.name.as_str(), policy.text.as_str()))
    }

    /// The authorities that name its machines; none where it has none.
    pub fn authorities(&self) -> Option<&Arc<ClientAuthorities>> {
        self.authorities.as_ref()
    }

    pub(crate) fn client_cas(&self) -> &[ClientCaRow] {
        &self.client_cas
    }

    /// The policies operators bound it by, in order of name.
    pub(crate) fn boundary(&self) -> &[PolicyRow] {
        &self.boundary
    }

    pub(crate) fn policies(&self) -> &TenantPolicies {
        &self.policies
    }

    pub(crate) fn api_keys(&self) -> impl Iterator<Item = &ApiKeyRow> {
        self.api_keys.values().map(|key| &key.row)
    }
}

impl UserEntry {
    fn new(row: UserRow) -> Self {
        let record = Arc::new(UserRecord { passphrase: row.passphrase.clone(), roles: row.roles.clone() });
        Self { row, record }
    }
}

impl ApiKeyEntry {
    fn new(row: ApiKeyRow) -> Self {
        let record = ApiKeyRecord {
            id: row.id.clone(),
            account: row.account.clone(),
            roles: row.roles.clone(),
            scopes: (!row.scopes.is_empty()).then(|| row.scopes.clone().into()),
            mac: row.mac,
            expires: row.expires,
            revoked: row.revoked.is_some(),
            settings: row.settings.clone(),
        };
        Self { row, record: Arc::new(record) }
    }
}

impl FunctionEntry {
    fn new(
        function: FunctionRow,
        version: Option<VersionRow>,
        secrets: Vec<SecretRow>,
        ceiling: &FunctionLimits,
    ) -> Self {
        let set = |name: &&String| secrets.iter().any(|secret| secret.name == **name);
        let given = function.settings.secrets.iter().filter(set).map(|name| Arc::from(name.as_str())).collect();
        Self {
            tenant: function.id.tenant(),
            given,
            id: function.id,
            name: function.name.into(),
            limits: Arc::new(function.settings.limits.under(ceiling)),
            settings: Arc::new(function.settings),
            generation: function.generation,
            current: version.map(|version| VersionEntry {
                id: version.id,
                component: version.component,
                component_bytes: version.component_bytes,
                published: version.published,
            }),
            secrets,
        }
    }
}

fn members(rows: Vec<MemberRow>) -> BTreeMap<String, BTreeMap<Option<String>, Vec<String>>> {
    let mut members = BTreeMap::<_, BTreeMap<_, _>>::new();
    for MemberRow { issuer, subject, roles } in rows {
        members.entry(subject).or_default().insert(issuer, roles);
    }
    members
}
