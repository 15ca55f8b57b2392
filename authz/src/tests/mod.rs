//! Evidence for this crate.
//!
//! Owns what its tests share: a small world of tenants and members, callers of every kind made by the real doors, and
//! operations of every kind. Must never mint a principal past `identity`.

mod api_keys;
mod attacks;
mod cases;
mod explain;
mod iam;
mod index;
mod jwks;
mod jwt;
mod mtls;
mod passphrases;
mod policies;
mod sessions;
mod signer;
mod sigv4;
mod sigv4_aws;
mod tokens;

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cofferdam_model::clock::ManualClock;
use cofferdam_model::id::platform_tenant;
use cofferdam_model::operation::{FunctionRef, Grant, OrganisationRef, SinkReset};
use cofferdam_model::random::SeededRandom;
use cofferdam_model::{
    AuditRange, Circumstances, Digest, FunctionId, FunctionLimits, FunctionSettings, Govern, Invoke, Keep, KeyId,
    KeySettings, Level, LogRange, Manage, OrganisationId, Prove, RequestId, Revived, RevocationId, RevocationTarget,
    SecretValue, Simulation, TenantId, TlsVersion, UnixNanos, UsageRange, VersionId,
};

use crate::identity::{Identities, JwksSource};
use crate::{
    ApiKeyRecord, ClientAuthorities, Credential, Directory, FetchError, IssuerConfig, Pepper, Principal, RevokedBy,
    Shown, UserRecord, api_key,
};

/// A Friday morning.
pub(crate) const NOW: u64 = 1_795_171_080;

pub(crate) fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::at(UnixNanos::from_seconds(NOW)))
}

pub(crate) fn pepper() -> Pepper {
    Pepper::new([7; 32])
}

/// Two tenants, `acme` and `other`, a suspended one, and the platform's own.
pub(crate) struct World {
    pub(crate) acme: TenantId,
    pub(crate) other: TenantId,
    pub(crate) suspended: TenantId,
    pub(crate) members: HashMap<(TenantId, String), Vec<String>>,
    pub(crate) keys: Mutex<HashMap<KeyId, Arc<ApiKeyRecord>>>,
    pub(crate) secrets: Arc<signer::Secrets>,
    pub(crate) authorities: Mutex<HashMap<TenantId, Arc<ClientAuthorities>>>,
    /// Tokens by `jti` or digest in hex, signing keys by name, and subjects.
    pub(crate) revoked: Mutex<HashMap<String, RevokedBy>>,
    pub(crate) users: HashMap<(TenantId, String), Arc<UserRecord>>,
    pub(crate) random: SeededRandom,
}

impl World {
    pub(crate) fn new() -> Self {
        let random = SeededRandom::new(1);
        Self {
            acme: TenantId::mint(&random),
            other: TenantId::mint(&random),
            suspended: TenantId::mint(&random),
            members: HashMap::new(),
            keys: Mutex::default(),
            secrets: Arc::default(),
            authorities: Mutex::default(),
            revoked: Mutex::default(),
            users: HashMap::new(),
            random,
        }
    }

    /// Makes a key and stores its record, changed as the test wants it.
    pub(crate) fn key(&self, tenant: &TenantId, roles: &[&str], change: impl FnOnce(&mut ApiKeyRecord)) -> String {
        let (id, text, mac) = api_key::create(tenant, &pepper(), &self.random);
        let mut record = ApiKeyRecord {
            id: id.clone(),
            account: "robot".into(),
            roles: roles.iter().map(ToString::to_string).collect(),
            scopes: None,
            mac,
            expires: UnixNanos::from_seconds(NOW + 3600),
            revoked: false,
            settings: KeySettings::default(),
        };
        change(&mut record);
        self.keys.lock().unwrap().insert(id, Arc::new(record));
        text.expose().to_owned()
    }

    /// A service account of a tenant, by way of a key.
    pub(crate) async fn account(&self, tenant: &TenantId, roles: &[&str]) -> Principal {
        let text = self.key(tenant, roles, |_| {});
        let identities = Identities::new(vec![], pepper(), Scripted::down(), clock()).unwrap();
        identities.identify(Credential::ApiKey(&text), self).await.unwrap()
    }

    /// The same, with a key that is good for these scopes alone, if there are any.
    pub(crate) async fn narrowed(&self, tenant: &TenantId, roles: &[&str], scopes: &[String]) -> Principal {
        let text = self.key(tenant, roles, |record| {
            record.scopes = (!scopes.is_empty()).then(|| scopes.to_vec().into());
        });
        let identities = Identities::new(vec![], pepper(), Scripted::down(), clock()).unwrap();
        identities.identify(Credential::ApiKey(&text), self).await.unwrap()
    }

    pub(crate) async fn nobody(&self) -> Principal {
        let identities = Identities::new(vec![], pepper(), Scripted::down(), clock()).unwrap();
        identities.identify(Credential::None, self).await.unwrap()
    }

    pub(crate) fn function(&self, tenant: &TenantId) -> FunctionId {
        FunctionId::mint(tenant, &SeededRandom::new(9))
    }

    pub(crate) fn invoke(&self, tenant: &TenantId, public: bool) -> Invoke {
        let function = self.function(tenant);
        Invoke {
            tenant: tenant.clone(),
            version: VersionId::mint(&function, &self.random),
            function,
            function_name: "orders".into(),
            component: Digest([3; 32]),
            route: None,
            public,
            audit: Level::Standard,
            limits: Arc::new(FunctionLimits::default()),
            secrets: Arc::default(),
            egress: false,
        }
    }

    /// A management operation by the name of its action.
    pub(crate) fn manage(&self, action: &str, tenant: &TenantId) -> Manage {
        let function = FunctionRef { id: self.function(tenant), name: "orders".into() };
        let tenant = tenant.clone();
        let text = || "x".to_owned();
        match action {
            "PutTenantSettings" => Manage::PutTenantSettings { tenant, settings: Default::default() },
            "CreateTenant" => Manage::CreateTenant { name: text() },
            "ListTenants" => Manage::ListTenants,
            "PutHold" => {
                let (name, reason) = (text(), text());
                Manage::Keep(Keep::PutHold { name, tenant: None, from: None, until: None, reason })
            }
            "RemoveHold" => Manage::Keep(Keep::RemoveHold { name: text() }),
            "ListHolds" => Manage::Keep(Keep::ListHolds),
            "ShredSubject" => Manage::Keep(Keep::ShredSubject { tenant, subject: None, reason: text() }),
            "CreateOrganisation" => Manage::Govern(Govern::CreateOrganisation { name: text() }),
            "ListOrganisations" => Manage::Govern(Govern::ListOrganisations),
            "AssignTenant" => Manage::Govern(Govern::AssignTenant { tenant, organisation: None }),
            "PutCeiling" => {
                let organisation = OrganisationRef { id: OrganisationId::mint(&self.random), name: text() };
                Manage::Govern(Govern::PutCeiling { organisation, name: text(), text: text() })
            }
            "RemoveCeiling" => {
                let organisation = OrganisationRef { id: OrganisationId::mint(&self.random), name: text() };
                Manage::Govern(Govern::RemoveCeiling { organisation, name: text() })
            }
            "PutBoundary" => Manage::Govern(Govern::PutBoundary { tenant, name: text(), text: text() }),
            "RemoveBoundary" => Manage::Govern(Govern::RemoveBoundary { tenant, name: text() }),
            "ReadTenant" => Manage::ReadTenant { tenant },
            "PutMember" => Manage::PutMember { tenant, issuer: None, subject: text(), roles: vec![] },
            "RemoveMember" => Manage::RemoveMember { tenant, issuer: None, subject: text() },
            "PutFunction" => Manage::PutFunction { function, settings: FunctionSettings::default() },
            "PublishVersion" => Manage::PublishVersion { function, component: Digest([3; 32]), component_bytes: 1 },
            "RemoveFunction" => Manage::RemoveFunction { function },
            "PutRoutes" => Manage::PutRoutes { tenant, app: text(), routes: vec![] },
            "PutPolicy" => Manage::PutPolicy { tenant, name: text(), text: text() },
            "RemovePolicy" => Manage::RemovePolicy { tenant, name: text() },
            "SimulatePolicy" => {
                let simulation = Simulation { requests: vec![], policies: None, explain: false };
                Manage::SimulatePolicy { tenant, simulation }
            }
            "QueryAudit" => {
                let (since, until) = (UnixNanos(0), UnixNanos(1));
                Manage::QueryAudit { tenant, range: AuditRange { request: None, since, until, from: None, records: 1 } }
            }
            "ProveAudit" => Manage::Prove(Prove::TenantCheckpoint { tenant }),
            "ReadTiles" => Manage::Prove(Prove::Checkpoint),
            "ReadEntries" => Manage::Prove(Prove::Entries { path: text() }),
            _ => self.manage_sealed(action, function, tenant),
        }
    }

    /// Secrets, keys, machines and people.
    fn manage_sealed(&self, action: &str, function: FunctionRef, tenant: TenantId) -> Manage {
        let text = || "x".to_owned();
        match action {
            "PutSecret" => Manage::PutSecret { function, name: text(), value: SecretValue::new(vec![1]) },
            "ListSecrets" => Manage::ListSecrets { function },
            "RemoveSecret" => Manage::RemoveSecret { function, name: text() },
            "RotateSecret" => {
                let value = SecretValue::new(vec![1]);
                Manage::RotateSecret { function, name: text(), value, revoke_older: false }
            }
            "RollbackSecret" => Manage::RollbackSecret { function, name: text(), version: 1 },
            "ListSecretVersions" => Manage::ListSecretVersions { function, name: text() },
            "RotateTenantKey" => Manage::RotateTenantKey { tenant },
            "ShredTenant" => Manage::ShredTenant { tenant, keys: vec![] },
            "RotateRootKey" => Manage::RotateRootKey { destroy_old: false },
            "ReadRootKey" => Manage::ReadRootKey,
            "ReadLogs" => {
                let range = LogRange { lines: 1, after: None, wait: Duration::ZERO };
                Manage::ReadLogs { function, range }
            }
            "ReadUsage" => {
                let range = UsageRange { function: None, hours: 0..1, after: None };
                Manage::ReadUsage { tenant, range }
            }
            "PruneVersions" => Manage::PruneVersions { function, keep: 1 },
            "ListCells" => Manage::ListCells { tenant, function: None },
            "RecycleCells" => Manage::RecycleCells { tenant, function: Some(function) },
            "ReadMetrics" => Manage::ReadMetrics,
            "ListSinks" => Manage::ListSinks,
            "ResetSink" => Manage::ResetSink(SinkReset { sink: text(), to: 0 }),
            other => self.manage_identity(other, tenant),
        }
    }

    /// Those about who is known, and by what.
    fn manage_identity(&self, action: &str, tenant: TenantId) -> Manage {
        let text = || "x".to_owned();
        match action {
            "CreateKey" => {
                let settings = KeySettings::default();
                Manage::CreateKey { tenant, account: text(), roles: vec![], scopes: vec![], ttl_seconds: 1, settings }
            }
            "PutClientCa" => Manage::PutClientCa { tenant, name: text(), ca: Default::default() },
            "ListClientCas" => Manage::ListClientCas { tenant },
            "RemoveClientCa" => Manage::RemoveClientCa { tenant, name: text() },
            "ListKeys" => Manage::ListKeys { tenant },
            "SuspendTenant" => Manage::SuspendTenant { tenant, reason: text() },
            "ResumeTenant" => Manage::ResumeTenant { tenant },
            "Revoke" => {
                let target = RevocationTarget::Account { account: text() };
                Manage::Revoke { tenant, target, reason: text(), expires: None }
            }
            "ListRevocations" => Manage::ListRevocations { tenant },
            "Reinstate" => {
                let gives = Revived::User { name: text(), roles: vec![] };
                Manage::Reinstate { revocation: RevocationId::mint(&tenant, &self.random), gives }
            }
            "PutUser" => {
                let (roles, passphrase) = (vec![], SecretValue::new(vec![1]));
                Manage::PutUser { tenant, name: text(), roles, passphrase: Some(passphrase) }
            }
            "RemoveUser" => Manage::RemoveUser { tenant, name: text() },
            "ListUsers" => Manage::ListUsers { tenant },
            "RotateIssuerKey" => Manage::RotateIssuerKey { forget: false },
            "IssueToken" => Manage::IssueToken { tenant, grant: Grant::default() },
            "RevokeKey" => Manage::RevokeKey { key: KeyId::mint(&tenant, &self.random) },
            other => panic!("no operation for `{other}`"),
        }
    }
}

impl Directory for World {
    fn tenant_named(&self, name: &str) -> Option<TenantId> {
        match name {
            "acme" => Some(self.acme.clone()),
            "other" => Some(self.other.clone()),
            "suspended" => Some(self.suspended.clone()),
            "platform" => Some(platform_tenant()),
            _ => None,
        }
    }

    fn tenant_active(&self, tenant: &TenantId) -> bool {
        *tenant != self.suspended
    }

    fn member_roles(&self, tenant: &TenantId, _issuer: &str, subject: &str) -> Vec<String> {
        self.members.get(&(tenant.clone(), subject.to_owned())).cloned().unwrap_or_default()
    }

    fn revoked(&self, shown: &Shown<'_>) -> Option<RevokedBy> {
        let digest = shown.digest.map(|digest| digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
        let named = [shown.token, shown.signing_key, Some(shown.subject), digest.as_deref()];
        let revoked = self.revoked.lock().unwrap();
        named.into_iter().flatten().find_map(|name| revoked.get(name).copied())
    }

    fn user(&self, tenant: &TenantId, name: &str) -> Option<Arc<UserRecord>> {
        self.users.get(&(tenant.clone(), name.to_owned())).cloned()
    }

    fn api_key(&self, key: &KeyId) -> Option<Arc<ApiKeyRecord>> {
        self.keys.lock().unwrap().get(key).cloned()
    }

    fn client_authorities(&self, tenant: &TenantId) -> Option<Arc<ClientAuthorities>> {
        self.authorities.lock().unwrap().get(tenant).cloned()
    }
}

pub(crate) fn circumstances() -> Circumstances {
    Circumstances {
        request: RequestId::mint(&SeededRandom::new(5)),
        at: UnixNanos::from_seconds(NOW),
        source: [192, 0, 2, 7].into(),
        tls: TlsVersion::Tls13,
        method: "GET".into(),
        host: "api.example".into(),
        path: "/orders/1".into(),
        connection: None,
        headers: None,
    }
}

/// A source of key sets that answers what it is told, counts, and waits for a permit where it has a gate.
pub(crate) struct Scripted {
    pub(crate) answer: Mutex<Option<Vec<u8>>>,
    pub(crate) fetches: AtomicUsize,
    pub(crate) gate: Option<tokio::sync::Semaphore>,
}

impl Scripted {
    pub(crate) fn down() -> Arc<Self> {
        Arc::new(Self { answer: Mutex::default(), fetches: AtomicUsize::new(0), gate: None })
    }

    pub(crate) fn with(set: String) -> Arc<Self> {
        let source = Self::down();
        source.now(Some(set));
        source
    }

    pub(crate) fn now(&self, set: Option<String>) {
        *self.answer.lock().unwrap() = set.map(String::into_bytes);
    }

    pub(crate) fn count(&self) -> usize {
        self.fetches.load(Ordering::SeqCst)
    }
}

impl JwksSource for Scripted {
    fn fetch<'a>(
        &'a self,
        url: &'a str,
    ) -> std::pin::Pin<Box<dyn Future<Output = Result<Vec<u8>, FetchError>> + Send + 'a>> {
        Box::pin(async move {
            self.fetches.fetch_add(1, Ordering::SeqCst);
            if let Some(gate) = &self.gate {
                gate.acquire().await.unwrap().forget();
            }
            self.answer.lock().unwrap().clone().ok_or_else(|| FetchError::new(url, "down"))
        })
    }
}

/// An issuer behind a URL, for subjects of `acme`.
pub(crate) fn issuer(name: &str, algorithms: &str) -> IssuerConfig {
    serde_json::from_value(serde_json::json!({
        "issuer": name,
        "audience": "cofferdam",
        "algorithms": algorithms.split(' ').collect::<Vec<_>>(),
        "jwks_url": format!("{name}/jwks"),
        "tenant": "acme",
    }))
    .unwrap()
}
