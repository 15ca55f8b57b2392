//! What tests put in the place of the rest of the node: scripted cells, a real permit in a real entry.
//!
//! Must never be part of a build that is not a test.

use std::collections::VecDeque;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cofferdam_audit::{Entry, Log, LogConfig, Signer};
use cofferdam_authz::{Authorizer, Credential, Directory, Identities, JwksSource, Pepper, Permit};
use cofferdam_model::clock::ManualClock;
use cofferdam_model::frame::{self, HEADER_BYTES, Header, Kind, RequestHead};
use cofferdam_model::handover::Handover;
use cofferdam_model::random::SeededRandom;
use cofferdam_model::{
    Circumstances, Digest, Ending, Env, FunctionId, FunctionLimits, Invoke, Isolation, Level, Limits, Recycle,
    RequestId, SystemClock, TenantId, TlsVersion, UnixNanos, Usage, VersionId,
};
use http::{HeaderMap, Method, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::Notify;
use zeroize::Zeroizing;

use crate::cell::{Process, Spawn};
use crate::cells::{Parts, Pool};
use crate::cgroup::Cgroups;
use crate::config::{Deployment, InboundBody, SandboxConfig};
use crate::error::SandboxError;
use crate::library::Library;
use crate::logs::Logs;

/// The component whose artifact every test pool has.
pub(crate) const COMPONENT: Digest = Digest([1; 32]);

/// What a scripted cell does with what it is handed.
#[derive(Clone, Copy)]
pub(crate) enum Load {
    Loads,
    Fails,
    Dies,
}

/// Scripted cells. They answer by the path asked for: see [`Worker::request`].
pub(crate) struct Script {
    pub(crate) isolation: Isolation,
    /// For the next cells that are handed a version; then they load.
    pub(crate) loads: Mutex<VecDeque<Load>>,
    pub(crate) spawned: AtomicUsize,
    pub(crate) handovers: Mutex<Vec<Handover>>,
    /// Targets of the requests seen, and `cancel` for each cancellation.
    pub(crate) seen: Mutex<Vec<String>>,
    /// Has all calls of `/held` answered.
    pub(crate) release: Notify,
    /// What each cell holds, in bytes.
    pub(crate) resident: Arc<AtomicU64>,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            isolation: Isolation::Full,
            loads: Mutex::default(),
            spawned: AtomicUsize::new(0),
            handovers: Mutex::default(),
            seen: Mutex::default(),
            release: Notify::new(),
            resident: Arc::default(),
        }
    }
}

impl Script {
    pub(crate) fn spawned(&self) -> usize {
        self.spawned.load(Ordering::SeqCst)
    }

    pub(crate) fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }
}

impl Spawn for Arc<Script> {
    fn spawn(&self) -> Result<(UnixStream, Process), SandboxError> {
        self.spawned.fetch_add(1, Ordering::SeqCst);
        let (ours, theirs) = UnixStream::pair().unwrap();
        let worker =
            Worker { script: self.clone(), socket: theirs, out: Vec::new(), held: Vec::new(), echo: Vec::new() };
        tokio::spawn(worker.live());
        let resident = self.resident.clone();
        Ok((ours, Process::weighing(Arc::new(move || Some(resident.load(Ordering::SeqCst))))))
    }
}

struct Worker {
    script: Arc<Script>,
    socket: UnixStream,
    out: Vec<u8>,
    held: Vec<u32>,
    echo: Vec<(u32, usize)>,
}

impl Worker {
    async fn live(mut self) {
        frame::put_ready(&mut self.out, self.script.isolation).unwrap();
        let script = self.script.clone();
        loop {
            if self.socket.write_all(&std::mem::take(&mut self.out)).await.is_err() {
                return;
            }
            let mut bytes = [0; HEADER_BYTES];
            // Frames are written whole, so a header is never half here when the other branch is taken.
            tokio::select! {
                read = self.socket.read_exact(&mut bytes) => if read.is_err() { return },
                () = script.release.notified() => {
                    std::mem::take(&mut self.held).into_iter().for_each(|call| self.answer(call, b"held"));
                    continue;
                }
            }
            let header = Header::decode(&bytes).unwrap();
            let mut payload = vec![0; header.length];
            if self.socket.read_exact(&mut payload).await.is_err() || !self.frame(header, payload) {
                return;
            }
        }
    }

    /// Whether the cell lives on.
    fn frame(&mut self, header: Header, payload: Vec<u8>) -> bool {
        match header.kind {
            Kind::Handover => {
                self.script.handovers.lock().unwrap().push(Handover::decode(&payload).unwrap());
                let load = self.script.loads.lock().unwrap().pop_front().unwrap_or(Load::Loads);
                match load {
                    Load::Loads => frame::put(&mut self.out, Kind::Loaded, false, 0, &[]).unwrap(),
                    Load::Fails => frame::put(&mut self.out, Kind::Failed, false, 0, b"no \x1bsuch import").unwrap(),
                    Load::Dies => return false,
                }
                true
            }
            Kind::Request => self.request(header, frame::decode_request(payload.into()).unwrap()),
            Kind::Data => {
                self.data(header, payload.len());
                true
            }
            Kind::Cancel => {
                self.script.seen.lock().unwrap().push("cancel".into());
                let used = Usage { cpu_us: 7, ..Usage::default() };
                frame::put_done(&mut self.out, header.call, Ending::ClientGone, &used).unwrap();
                true
            }
            _ => true,
        }
    }

    fn request(&mut self, header: Header, head: RequestHead) -> bool {
        let call = header.call;
        self.script.seen.lock().unwrap().push(head.target.clone());
        match head.target.as_str() {
            "/ok" => self.answer(call, b"ok"),
            "/trap" => frame::put_done(&mut self.out, call, Ending::Trapped, &Usage::default()).unwrap(),
            "/stream" => {
                frame::put_response(&mut self.out, false, call, StatusCode::OK, &HeaderMap::new()).unwrap();
                frame::put(&mut self.out, Kind::Data, false, call, b"part").unwrap();
            }
            // Answers its head at once and the length of what came at the end.
            "/duplex" => {
                frame::put_response(&mut self.out, false, call, StatusCode::OK, &HeaderMap::new()).unwrap();
                self.echo.push((call, 0));
            }
            "/echo" => self.echo.push((call, 0)),
            "/held" => self.held.push(call),
            "/die" => return false,
            _ => {}
        }
        if header.end && matches!(head.target.as_str(), "/echo" | "/duplex") {
            self.data(header, 0);
        }
        true
    }

    fn data(&mut self, header: Header, bytes: usize) {
        let Some((call, total)) = self.echo.iter_mut().find(|(call, _)| *call == header.call) else { return };
        *total += bytes;
        let (call, total) = (*call, *total);
        if bytes > 0 {
            frame::put_credit(&mut self.out, call, u32::try_from(bytes).unwrap()).unwrap();
        }
        if header.end {
            let duplex = self.script.seen.lock().unwrap().iter().any(|target| target == "/duplex");
            if !duplex {
                frame::put_response(&mut self.out, false, call, StatusCode::OK, &HeaderMap::new()).unwrap();
            }
            self.finish(call, total.to_string().as_bytes());
        }
    }

    fn answer(&mut self, call: u32, body: &[u8]) {
        frame::put_response(&mut self.out, false, call, StatusCode::OK, &HeaderMap::new()).unwrap();
        self.finish(call, body);
    }

    fn finish(&mut self, call: u32, body: &[u8]) {
        frame::put(&mut self.out, Kind::Data, true, call, body).unwrap();
        frame::put_done(&mut self.out, call, Ending::Answered, &Usage::default()).unwrap();
    }
}

/// A pool over scripted cells.
pub(crate) struct Rig {
    pub(crate) pool: Arc<Pool>,
    pub(crate) script: Arc<Script>,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) dir: tempfile::TempDir,
}

/// No blank cells are kept, so that the number started says something.
pub(crate) fn limits() -> Limits {
    Limits { blank_cells: 0, queue_ms: 10_000, ..Limits::default() }
}

pub(crate) fn config(dir: &Path, compiler: PathBuf, limits: Limits) -> SandboxConfig {
    SandboxConfig {
        worker: "/nonexistent".into(),
        compiler,
        artifacts: dir.join("artifacts"),
        logs: dir.join("logs"),
        mac_key: Zeroizing::new([7; 32]),
        required: Isolation::Reduced,
        cgroup: None,
        limits,
    }
}

/// A program of one shell script. Written by another process: while this one had it open for writing, a test in
/// another thread could start a process that inherits the descriptor, and the script could not be run.
pub(crate) fn script(dir: &Path, name: &str, text: &str) -> PathBuf {
    let path = dir.join(name);
    let mut shell = std::process::Command::new("/bin/sh")
        .args(["-c", "cat > \"$0\" && chmod 700 \"$0\""])
        .arg(&path)
        .stdin(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    shell.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    assert!(shell.wait().unwrap().success());
    path
}

impl Rig {
    pub(crate) fn new(script: Script) -> Self {
        Self::with(script, limits())
    }

    pub(crate) fn with(script: Script, limits: Limits) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let compiler = dir.path().join("compiler");
        std::fs::write(&compiler, "none").unwrap();
        let config = config(dir.path(), compiler, limits);
        let library = Arc::new(Library::open(&config).unwrap());
        library.put(COMPONENT, b"machine code");
        let clock = Arc::new(ManualClock::at(UnixNanos::from_seconds(1_795_171_080)));
        let script = Arc::new(script);
        let pool = Pool::new(Parts {
            spawn: Box::new(script.clone()),
            library,
            logs: Logs::open(&config.logs, &config.limits, clock.clone()).unwrap(),
            limits: config.limits,
            required: config.required,
            cgroups: Arc::new(Cgroups::none()),
            clock: clock.clone(),
            random: Arc::new(SeededRandom::new(5)),
        });
        Self { pool, script, clock, dir }
    }
}

pub(crate) fn operation(seed: u64, limits: FunctionLimits) -> Invoke {
    operation_of(99, seed, limits)
}

/// A call of a function of some tenant.
pub(crate) fn operation_of(tenant: u64, seed: u64, limits: FunctionLimits) -> Invoke {
    let random = SeededRandom::new(seed);
    let tenant = TenantId::mint(&SeededRandom::new(tenant));
    let function = FunctionId::mint(&tenant, &random);
    Invoke {
        version: VersionId::mint(&function, &random),
        tenant,
        function,
        function_name: "orders".into(),
        component: COMPONENT,
        route: None,
        public: true,
        audit: Level::Standard,
        limits: Arc::new(limits),
        secrets: Arc::default(),
        egress: false,
    }
}

pub(crate) fn deployment(generation: u64) -> Deployment {
    let unseal = || {
        let mut env = Env::new();
        env.push("TOKEN".into(), "s3cret".into());
        Ok(env)
    };
    Deployment {
        generation,
        recycle: Recycle::default(),
        tenant: Arc::default(),
        ready: None,
        unseal: Arc::new(unseal),
        outlet: None,
    }
}

pub(crate) fn head(target: &str) -> RequestHead {
    RequestHead {
        method: Method::POST,
        authority: "a.example".into(),
        target: target.into(),
        headers: HeaderMap::new(),
    }
}

pub(crate) fn no_body() -> InboundBody {
    use http_body_util::{BodyExt, Empty};
    Box::pin(Empty::new().map_err(|never| match never {}))
}

/// Waits until something is so that is about to become so.
pub(crate) async fn until(what: &str, so: impl Fn() -> bool) {
    let wait = async {
        while !so() {
            tokio::task::yield_now().await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(20), wait).await.is_ok(), "never came true: {what}");
}

struct Nobody;

impl Directory for Nobody {
    fn tenant_named(&self, _: &str) -> Option<TenantId> {
        None
    }

    fn tenant_active(&self, _: &TenantId) -> bool {
        true
    }

    fn member_roles(&self, _: &TenantId, _: &str, _: &str) -> Vec<String> {
        Vec::new()
    }

    fn revoked(&self, _: &cofferdam_authz::Shown<'_>) -> Option<cofferdam_authz::RevokedBy> {
        None
    }

    fn user(&self, _: &TenantId, _: &str) -> Option<Arc<cofferdam_authz::UserRecord>> {
        None
    }

    fn api_key(&self, _: &cofferdam_model::KeyId) -> Option<Arc<cofferdam_authz::ApiKeyRecord>> {
        None
    }
}

struct Offline;

impl JwksSource for Offline {
    fn fetch<'a>(
        &'a self,
        url: &'a str,
    ) -> std::pin::Pin<Box<dyn Future<Output = Result<Vec<u8>, cofferdam_authz::FetchError>> + Send + 'a>> {
        Box::pin(async move { Err(cofferdam_authz::FetchError::new(url, "there is no network here")) })
    }
}

/// A real log in a directory of its own.
pub(crate) fn log(dir: &Path) -> Log {
    let random = SeededRandom::new(11);
    let origin = "test.example/node";
    let signer = Signer::create(&dir.join("signer"), origin, &random).unwrap();
    let config = LogConfig::new(dir.join("log"), origin);
    Log::open(config, signer, Arc::new(SystemClock::default()), Arc::new(random)).unwrap().0
}

/// The real way to an open entry: an anonymous caller, decided on by the default policies.
pub(crate) async fn entry(log: &Log, operation: Invoke) -> Entry<Permit<Invoke>> {
    let pepper = Pepper::new([1; 32]);
    let clock = Arc::new(SystemClock::default());
    let identities = Identities::new(Vec::new(), pepper, Arc::new(Offline), clock).unwrap();
    let principal = identities.identify(Credential::None, &Nobody).await.ok().unwrap();
    let authorizer = Authorizer::new().unwrap();
    let policies = authorizer.compile(&operation.tenant, &[]).unwrap();
    let circumstances = Circumstances {
        request: RequestId::mint(&SeededRandom::new(12)),
        at: UnixNanos::from_seconds(1_795_171_080),
        source: IpAddr::V4(Ipv4Addr::LOCALHOST),
        tls: TlsVersion::Tls13,
        method: "POST".into(),
        host: "a.example".into(),
        path: "/".into(),
        connection: None,
        headers: None,
    };
    let permit = authorizer.decide(&policies, principal, operation, circumstances).ok().unwrap();
    log.enter(permit).unwrap()
}
