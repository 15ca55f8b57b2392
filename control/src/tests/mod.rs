//! What changing things promises, tried with real permits in a real log.
//!
//! Owns the world the tests share. Every change goes the whole way: key, identity, decision, intent on disk, apply.

mod access;
mod functions;
mod govern;
mod identity;
mod installation;
mod machines;
mod rotation;
mod routes;
mod secrets;
mod storage;
mod usage;

use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use cofferdam_audit::{Log, LogConfig, Signer};
use cofferdam_authz::passphrase::Cost;
use cofferdam_authz::{Authorizer, Credential, FetchError, Identities, IdentityError, JwksSource, Principal};
use cofferdam_model::clock::ManualClock;
use cofferdam_model::id::platform_tenant;
use cofferdam_model::operation::FunctionRef;
use cofferdam_model::random::SeededRandom;
use cofferdam_model::{
    Circumstances, Clock, Digest, Ending, FunctionId, FunctionSettings, Manage, Origin, OutcomeFacts, Random, Reply,
    RequestId, RouteSpec, SecretValue, TenantId, TlsVersion, UnixNanos, Usage,
};
use serde_json::Value;

use crate::{Control, ControlConfig, ControlError, OwnIssuerConfig};

pub(super) const NOW: UnixNanos = UnixNanos(1_795_171_080_000_000_000);

struct NoNetwork;

impl JwksSource for NoNetwork {
    fn fetch<'a>(&'a self, url: &'a str) -> Pin<Box<dyn Future<Output = Result<Vec<u8>, FetchError>> + Send + 'a>> {
        Box::pin(async move { Err(FetchError::new(url, "no network in tests")) })
    }
}

struct Done;

impl Reply for Done {
    fn outcome(&self) -> OutcomeFacts {
        OutcomeFacts {
            status: 200,
            origin: Origin::Platform,
            ending: Ending::Answered,
            code: None,
            usage: Usage::default(),
            body: None,
            streamed: false,
            cell: None,
            isolation: None,
        }
    }
}

/// An installation in a directory of its own.
pub(super) struct World {
    pub(super) control: Control,
    pub(super) authorizer: Arc<Authorizer>,
    pub(super) clock: Arc<ManualClock>,
    pub(super) random: Arc<SeededRandom>,
    pub(super) operator: String,
    identities: Identities,
    pub(super) log: Log,
    pub(super) runtime: tokio::runtime::Runtime,
    dir: tempfile::TempDir,
}

impl World {
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::at(NOW));
        let random = Arc::new(SeededRandom::new(11));
        let config = config(&dir.path().join("data"));
        let key = Control::init(&config, &*clock, &*random).unwrap();
        let authorizer = Arc::new(Authorizer::new().unwrap());
        let control = Control::open(config, authorizer.clone(), clock.clone(), random.clone()).unwrap();
        let own = own_issuer();
        let pepper = control.pepper().unwrap();
        let identities = Identities::new(vec![own.declaration()], pepper, Arc::new(NoNetwork), clock.clone()).unwrap();
        identities.hold_keys(&own.issuer(), control.issuer_keys().unwrap().as_bytes()).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let log = {
            let _context = runtime.enter();
            open_log(dir.path(), "cofferdam.test/control", &clock, &random)
        };
        let operator = key.text.expose().to_owned();
        Self { control, authorizer, clock, random, operator, identities, log, runtime, dir }
    }

    pub(super) fn data(&self) -> std::path::PathBuf {
        self.dir.path().join("data")
    }

    /// Opens the same installation once more, as after a restart.
    pub(super) fn reopen(&self) -> Control {
        let config = config(&self.data());
        Control::open(config, self.authorizer.clone(), self.clock.clone(), self.random.clone()).unwrap()
    }

    /// Asks for `operation` with an API key, the whole way.
    pub(super) fn ask(&self, key: &str, operation: Manage) -> Result<Value, ControlError> {
        self.ask_by(Credential::ApiKey(key), |_| Ok(operation))
    }

    /// Asks with any credential for what it comes to.
    pub(super) fn ask_by(
        &self,
        credential: Credential<'_>,
        operation: impl FnOnce(&Principal) -> Result<Manage, ControlError>,
    ) -> Result<Value, ControlError> {
        use cofferdam_model::Operation;
        self.runtime.block_on(async {
            let snapshot = self.control.snapshot();
            let who = self.identities.identify(credential, &*snapshot).await.expect("a good credential");
            let operation = operation(&who)?;
            let policies = snapshot.policies(&operation.tenant()).expect("a tenant that is there");
            let at = circumstances(&*self.clock, &*self.random);
            let permit = self.authorizer.decide(&policies, who, operation, at).expect("allowed");
            let mut entry = self.log.enter(permit).unwrap();
            let answer = self.control.apply(entry.intent().await.unwrap());
            let _ = entry.close(Done).await.unwrap();
            answer
        })
    }

    /// Whether this key is anybody's.
    pub(super) fn knows(&self, key: &str) -> bool {
        let snapshot = self.control.snapshot();
        self.runtime.block_on(self.identities.identify(Credential::ApiKey(key), &*snapshot)).is_ok()
    }

    /// Who this credential is.
    pub(super) fn who(&self, credential: Credential<'_>) -> Result<Principal, IdentityError> {
        let snapshot = self.control.snapshot();
        self.runtime.block_on(self.identities.identify(credential, &*snapshot))
    }

    /// Asks as the platform's operator.
    pub(super) fn operate(&self, operation: Manage) -> Result<Value, ControlError> {
        self.ask(&self.operator, operation)
    }

    /// A new tenant, and the key of an admin of it.
    pub(super) fn tenant(&self, name: &str) -> (TenantId, String) {
        let made = self.operate(Manage::CreateTenant { name: name.into() }).unwrap();
        let tenant = TenantId::parse(made["id"].as_str().unwrap()).unwrap();
        let key = self.operate(create_key(&tenant, "boss", &["admin"])).unwrap();
        (tenant, key["key"].as_str().unwrap().to_owned())
    }

    /// A new function with these settings.
    pub(super) fn function(&self, tenant: &TenantId, key: &str, name: &str, settings: FunctionSettings) -> FunctionRef {
        let function = self.reference(tenant, name);
        self.ask(key, Manage::PutFunction { function: function.clone(), settings }).unwrap();
        function
    }

    pub(super) fn reference(&self, tenant: &TenantId, name: &str) -> FunctionRef {
        FunctionRef { id: FunctionId::mint(tenant, &*self.random), name: name.into() }
    }
}

fn own_issuer() -> OwnIssuerConfig {
    OwnIssuerConfig {
        url: "https://node.test".into(),
        audiences: vec!["cofferdam".into(), "billing.test".into()],
        token_seconds: 900,
        cost: Cost { memory_kib: 64, passes: 1 },
    }
}

fn config(dir: &Path) -> ControlConfig {
    ControlConfig { issuer: Some(own_issuer()), ..ControlConfig::in_dir(dir) }
}

fn open_log(dir: &Path, origin: &str, clock: &Arc<ManualClock>, random: &Arc<SeededRandom>) -> Log {
    let signer = Signer::create(&dir.join("audit.key"), origin, &**random).unwrap();
    let config = LogConfig {
        dir: dir.join("audit"),
        origin: origin.into(),
        segment_bytes: 1 << 20,
        checkpoint_every: Duration::from_secs(60),
        rollup_window: Duration::from_secs(60),
        queue_records: 64,
        derive: None,
    };
    Log::open(config, signer, clock.clone(), random.clone()).unwrap().0
}

fn circumstances(clock: &dyn Clock, random: &dyn Random) -> Circumstances {
    Circumstances {
        request: RequestId::mint(random),
        at: clock.now(),
        source: [127, 0, 0, 1].into(),
        tls: TlsVersion::Tls13,
        method: "POST".into(),
        host: "localhost".into(),
        path: "/-/v1/tenants".into(),
    }
}

pub(super) fn create_key(tenant: &TenantId, account: &str, roles: &[&str]) -> Manage {
    Manage::CreateKey {
        tenant: tenant.clone(),
        account: account.into(),
        roles: roles.iter().map(|role| (*role).to_owned()).collect(),
        scopes: vec![],
        ttl_seconds: 3600,
        settings: Default::default(),
    }
}

pub(super) fn put_secret(function: &FunctionRef, name: &str, value: &str) -> Manage {
    Manage::PutSecret { function: function.clone(), name: name.into(), value: SecretValue::new(value.into()) }
}

pub(super) fn publish(function: &FunctionRef, component: u8) -> Manage {
    Manage::PublishVersion { function: function.clone(), component: Digest([component; 32]), component_bytes: 100 }
}

pub(super) fn settings(value: Value) -> FunctionSettings {
    serde_json::from_value(value).unwrap()
}

pub(super) fn route(value: Value) -> RouteSpec {
    serde_json::from_value(value).unwrap()
}

/// The error and everything behind it, as one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        text = format!("{text}: {error}");
        next = error.source();
    }
    text
}
