//! What many tenants cost a node: until it can serve, and until a change of one of them holds.
//!
//! Owns the node's state, written past the log for speed. The changes that are measured go the whole way: decision,
//! intent on disk, store, snapshot, and the picture that calls are routed by.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cofferdam_audit::{Log, LogConfig, Signer};
use cofferdam_authz::{Authorizer, Credential, Identities};
use cofferdam_control::store::{PolicyRow, SqliteStore, Store, TenantRow, Transaction};
use cofferdam_control::{Control, ControlConfig};
use cofferdam_gateway::Live;
use cofferdam_gateway::egress::{Egress, EgressConfig};
use cofferdam_model::{
    Circumstances, Ending, Manage, Operation as _, Origin, OsRandom, OutcomeFacts, PolicyTier, Reply, RequestId,
    SystemClock, TenantId, TenantSettings, TlsVersion, UnixNanos, Usage,
};

use crate::decide::{NoNetwork, texts};
use crate::times::{Times, now};

const TENANTS: usize = 10_000;
/// Changes measured.
const CHANGES: usize = 50;

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

pub(crate) async fn run() {
    let dir = tempfile::tempdir().expect("a directory");
    let config = ControlConfig::in_dir(&dir.path().join("data"));
    let (clock, random) = (Arc::new(SystemClock::default()), Arc::new(OsRandom));
    let operator = Control::init(&config, &*clock, &*random).expect("a new installation");
    let authorizer = Arc::new(Authorizer::new().expect("the built-in policies"));
    fill(&config, &authorizer);
    let at = now();
    let control =
        Control::open(config, authorizer.clone(), clock.clone(), random.clone()).expect("what was made opens");
    let (control, opened) = (Arc::new(control), at.elapsed());
    let egress = Egress::new(EgressConfig::default(), clock.clone()).expect("a way out");
    let live = Live::new(control.clone(), egress);
    let start = at.elapsed();
    let log = log(dir.path(), &clock, &random);
    let pepper = control.pepper().expect("the pepper");
    let identities = Identities::new(vec![], pepper, Arc::new(NoNetwork), clock.clone()).expect("no issuers");
    let mut swaps = Times::default();
    for place in 0..CHANGES {
        let snapshot = control.snapshot();
        let tenant = snapshot.tenants().nth(1 + place * TENANTS / CHANGES).expect("a tenant").id.clone();
        let text = "permit (principal in Role::\"new\", action, resource);".to_owned();
        let operation = Manage::PutPolicy { tenant, name: "new".into(), text };
        let who =
            identities.identify(Credential::ApiKey(operator.text.expose()), &*snapshot).await.expect("a good key");
        let policies = snapshot.policies(&operation.tenant()).expect("its policies");
        let permit = authorizer.decide(&policies, who, operation, around()).expect("an operator may");
        let mut entry = log.enter(permit).expect("a log that takes entries");
        let intent = entry.intent().await.expect("a durable intent");
        let at = now();
        control.apply(intent).expect("a good change");
        live.refresh();
        swaps.push(at.elapsed());
        let _ = entry.close(Done).await.expect("a durable outcome");
    }
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    println!("== a node of {TENANTS} tenants with 10 policies each\n");
    println!("state read        {:>8.0} ms", ms(opened));
    println!("ready to route    {:>8.0} ms", ms(start));
    println!("change, p50       {:>8.2} ms", ms(swaps.percentile(50)));
    println!("change, worst     {:>8.2} ms\n", ms(swaps.percentile(100)));
}

fn around() -> Circumstances {
    Circumstances {
        request: RequestId::mint(&OsRandom),
        at: UnixNanos::from_seconds(1_795_171_080),
        source: [127, 0, 0, 1].into(),
        tls: TlsVersion::Tls13,
        method: "PUT".into(),
        host: "localhost".into(),
        path: "/-/v1/tenants".into(),
    }
}

fn log(dir: &Path, clock: &Arc<SystemClock>, random: &Arc<OsRandom>) -> Log {
    let origin = "cofferdam.test/bench";
    let signer = Signer::create(&dir.join("audit.key"), origin, &**random).expect("a signer");
    let config = LogConfig {
        dir: dir.join("audit"),
        origin: origin.into(),
        segment_bytes: 1 << 24,
        checkpoint_every: Duration::from_secs(60),
        rollup_window: Duration::from_secs(60),
        queue_records: 64,
        derive: None,
    };
    Log::open(config, signer, clock.clone(), random.clone()).expect("a new log").0
}

/// Tenants as earlier changes of this release would have left them.
fn fill(config: &ControlConfig, authorizer: &Authorizer) {
    let mut store = SqliteStore::open(&config.dir.join("state.sqlite")).expect("the store opens");
    let vault = config.local_vault(Arc::new(SystemClock::default()), Arc::new(OsRandom)).expect("the root key");
    let rules = authorizer.rules();
    let mut work = |tx: &mut dyn Transaction| {
        for n in 0..TENANTS {
            let id = TenantId::mint(&OsRandom);
            let key = vault.tenant_key(&id, 1, &OsRandom)?;
            let row = TenantRow {
                id: id.clone(),
                name: format!("tenant-{n}"),
                active: true,
                settings: TenantSettings::default(),
                created: UnixNanos(1),
                organisation: None,
            };
            tx.insert_tenant(&row, &key)?;
            for (name, text) in texts(&id, 10).sources {
                tx.put_policy(&id, &PolicyRow { name, text })?;
            }
            tx.found_good(PolicyTier::Tenant, id.as_str(), &rules)?;
        }
        Ok(())
    };
    store.transact(&mut work).expect("the tenants are stored");
}
