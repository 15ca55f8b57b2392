//! Evidence for the log as a whole, and what its tests share: facts, a reply, a directory, a disk that fails.
//!
//! Must never sleep to let something happen, and never ask the system for time or randomness.

mod concurrency;
mod crash;
mod disk;
mod enumerated;
mod epochs;
mod faults;
mod follow;
mod golden;
mod kills;
mod ladder;
mod lifecycle;
mod opening;
mod overlap;
mod retain;
mod select;
mod shred;
mod system;
mod tamper;
mod tenants;
mod tiles;
mod withhold;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use cofferdam_model::clock::ManualClock;
use cofferdam_model::random::SeededRandom;
use cofferdam_model::{
    CallFacts, CellId, ConnectionFacts, CredentialKind, DecisionFacts, Digest, Ending, GivenFacts, Isolation, Level,
    Origin, OutcomeFacts, PolicyTier, PrincipalFacts, PrincipalKind, Reply, RequestId, SetFacts, Subject, TlsVersion,
    UnixNanos, Usage, UseFacts, Way,
};

use crate::record::Stamp;
use crate::storage::{Disk, Storage};
use crate::{AuditError, Log, LogConfig, Opened, Signer, query, verify};

const ORIGIN: &str = "cofferdam.test/node";
const START: UnixNanos = UnixNanos(1_795_171_080_000_000_000);

pub(crate) fn stamp() -> Stamp {
    Stamp { at: START, salt: [7; 16], secret: [9; 32], privacy: Default::default(), seal: Default::default() }
}

pub(crate) fn facts() -> CallFacts {
    facts_of(1)
}

pub(crate) fn outcome_facts() -> OutcomeFacts {
    OutcomeFacts {
        status: 200,
        origin: Origin::Function,
        ending: Ending::Answered,
        code: None,
        usage: Usage { cpu_us: 11, ..Usage::default() },
        body: Some(Digest([3; 32])),
        streamed: false,
        cell: Some((CellId::mint(&SeededRandom::new(5)), 3)),
        isolation: Some(Isolation::Full),
        way: Way::default(),
    }
}

fn facts_of(call: u64) -> CallFacts {
    CallFacts {
        request: RequestId::mint(&SeededRandom::new(call)),
        at: START,
        source: "192.0.2.7".parse().unwrap(),
        tls: TlsVersion::Tls13,
        method: "GET".into(),
        host: "api.example".into(),
        path: "/orders".into(),
        tenant: Some("t_0000000000000001".into()),
        action: Some("Invoke".into()),
        resource: None,
        route: None,
        version: None,
        component: Some(Digest([4; 32])),
        detail: None,
        principal: Some(PrincipalFacts {
            kind: PrincipalKind::User,
            id: "alice".into(),
            issuer: Some("https://issuer.example".into()),
            tenant: None,
            credential: CredentialKind::Jwt,
            credential_id: None,
            bound: Default::default(),
            session: None,
        }),
        decision: Some(DecisionFacts {
            outcome: "allow".into(),
            tier: "tenant".into(),
            policies: vec!["p1".into()],
            policy_set: Digest([5; 32]),
            sets: vec![SetFacts {
                tier: PolicyTier::Tenant,
                owner: "t_0000000000000001".into(),
                version: 3,
                digest: Digest([5; 32]),
            }],
            given: Some(Box::new(GivenFacts {
                name: Some("orders".into()),
                item: Some("KEY".into()),
                item_roles: vec!["clerk".into()],
                public: true,
                roles: vec!["ops".into()],
                groups: vec!["oncall".into()],
                scopes: Some(vec!["Data".into()]),
                suspended: false,
            })),
        }),
        connection: Some(Arc::new(ConnectionFacts {
            number: 12,
            port: 50_123,
            protocol: "h2".into(),
            cipher: "TLS13_AES_256_GCM_SHA384".into(),
            group: Some("X25519MLKEM768".into()),
            resumed: true,
            certificate: Some(Digest([6; 32])),
        })),
        headers: Some([("user-agent".into(), "curl/8".to_owned())].into()),
        limits: Some(Arc::default()),
        uses: vec![UseFacts {
            secret: "KEY".into(),
            outcome: "allow".into(),
            tier: "tenant".into(),
            policies: vec!["10-defaults/workload".into()],
        }],
    }
}

/// Something to open an entry for.
#[derive(Debug)]
struct Call {
    facts: CallFacts,
    level: Level,
}

impl Call {
    fn new(call: u64, level: Level) -> Self {
        Self { facts: facts_of(call), level }
    }
}

impl Subject for Call {
    fn facts(&self) -> CallFacts {
        self.facts.clone()
    }

    fn level(&self) -> Level {
        self.level
    }
}

/// Something to close it with.
#[derive(Debug)]
struct Answer;

impl Reply for Answer {
    fn outcome(&self) -> OutcomeFacts {
        outcome_facts()
    }
}

/// A directory for a log, and the key to it.
struct Place {
    home: tempfile::TempDir,
    clock: Arc<ManualClock>,
}

impl Place {
    fn new() -> Self {
        static KEY: OnceLock<String> = OnceLock::new();
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("key");
        let key = KEY.get_or_init(|| {
            Signer::create(&path, ORIGIN, &SeededRandom::new(42)).unwrap();
            fs::read_to_string(&path).unwrap()
        });
        fs::write(&path, key).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        Self { home, clock: Arc::new(ManualClock::at(START)) }
    }

    fn dir(&self) -> PathBuf {
        self.home.path().join("log")
    }

    fn signer(&self) -> Signer {
        Signer::load(&self.home.path().join("key")).unwrap()
    }

    fn vkey(&self) -> String {
        self.signer().verifier_key()
    }

    /// The key of some other log of the same name.
    fn other_key() -> String {
        let home = tempfile::tempdir().unwrap();
        Signer::create(&home.path().join("key"), ORIGIN, &SeededRandom::new(43)).unwrap().verifier_key()
    }

    fn config(&self) -> LogConfig {
        LogConfig { segment_bytes: 8_192, queue_records: 64, ..LogConfig::new(self.dir(), ORIGIN) }
    }

    fn open(&self) -> Result<(Log, Opened), AuditError> {
        self.open_with(self.config(), Arc::new(disk::QuickDisk))
    }

    fn open_with(&self, config: LogConfig, storage: Arc<dyn Storage>) -> Result<(Log, Opened), AuditError> {
        Log::open_on(storage, config, self.signer(), self.clock.clone(), Arc::new(SeededRandom::new(9)))
    }

    fn verify(&self) -> Result<verify::Verified, crate::VerifyError> {
        verify::verify(&self.dir(), &self.vkey())
    }

    /// A place of its own with a copy of this one's log as it lies on disk right now, as after a SIGKILL.
    fn copy(&self) -> Self {
        let copy = Self::new();
        copy_dir(&self.dir(), &copy.dir());
        copy
    }
}

fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (from, to) = (entry.as_ref().unwrap().path(), to.join(entry.unwrap().file_name()));
        if from.is_dir() {
            copy_dir(&from, &to);
        } else {
            match fs::read(&from) {
                Ok(bytes) => fs::write(to, bytes).unwrap(),
                // What is unfinished means nothing, and of a log that is written has another name a moment later.
                Err(error) => assert!(from.extension().is_some_and(|end| end == "tmp"), "{}: {error}", from.display()),
            }
        }
    }
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

/// Everything in the log, as a reader gets it.
fn exported(dir: &Path) -> Vec<serde_json::Value> {
    let mut out = Vec::new();
    query::export(dir, &query::Filter::default(), &mut out).unwrap();
    out.split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect()
}

fn kinds(dir: &Path) -> Vec<String> {
    exported(dir).iter().map(|record| record["kind"].as_str().unwrap().to_owned()).collect()
}

fn call(log: &Log, number: u64) -> Result<Option<u64>, AuditError> {
    let entry = log.enter(Call::new(number, Level::Standard))?;
    run(entry.close(Answer)).map(|recorded| recorded.index())
}

fn calls(log: &Log, count: u64) {
    for number in 0..count {
        assert!(call(log, number).is_ok());
    }
}

const SECOND: Duration = Duration::from_secs(1);
