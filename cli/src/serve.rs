//! `cofferdam serve`: puts a node together and runs it until it is told to stop.
//!
//! Owns the order of start and stop. Every part that fails to start says what and where and ends the process; nothing
//! is served before all of them stand and the start is in the log. Must never hold logic of its own.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use cofferdam_audit::{AuditError, DeriveConfig, Log, LogConfig, Note, Signer};
use cofferdam_authz::{Authorizer, Identities};
use cofferdam_control::{Control, ControlConfig, Meter, OwnIssuerConfig};
use cofferdam_gateway::client::{HttpsJwks, Trust};
use cofferdam_gateway::config::ServerConfig;
use cofferdam_gateway::drain::Drain;
use cofferdam_gateway::egress::Egress;
use cofferdam_gateway::limits::Limiter;
use cofferdam_gateway::listen::{Listener, ListenerCounts};
use cofferdam_gateway::tls::Tls;
use cofferdam_gateway::{Live, Node, Subjects, Tallies, certificate};
use cofferdam_model::{Clock, OsRandom, Random, SystemClock};
use cofferdam_sandbox::{Sandbox, SandboxConfig};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::failure::{Failure, Kind};
use crate::keys::{self, Pages};
use crate::layout::Layout;
use crate::upkeep;

/// Bytes after which the log begins a new file.
const SEGMENT_BYTES: u64 = 64 * 1024 * 1024;
/// Time between signed checkpoints while the log grows.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(1);
/// Time over which refusals of strangers are counted before they are written.
const ROLLUP_WINDOW: Duration = Duration::from_secs(10);
/// Time that calls cut by a stop get to record how they ended.
const SETTLE: Duration = Duration::from_secs(2);
/// Time between two looks at which keys of the node's own issuer are still published.
const ISSUER_KEYS_EVERY: Duration = Duration::from_secs(60);
/// Steps of counting usage for which a stop is held up.
const STEPS_AT_STOP: usize = 32;
/// Records that may wait for the disk.
const QUEUE_RECORDS: usize = 16 * 1024;

/// Arguments of `cofferdam serve`.
#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// Configuration file; the one in the data directory unless told
    #[arg(long)]
    config: Option<PathBuf>,
    /// Address to listen on instead of those configured; port 0 takes a free one
    #[arg(long)]
    listen: Vec<SocketAddr>,
}

/// Serves until SIGTERM or SIGINT, then drains.
pub(crate) fn run(args: &ServeArgs, data: &Path, json: bool) -> Result<(), Failure> {
    let file = args.config.clone().unwrap_or_else(|| Layout::at(data).config());
    if !file.is_file() {
        let shown = file.display();
        return Err(Failure::config(format!("there is no configuration at `{shown}`; make one with `cofferdam init`")));
    }
    let mut config = ServerConfig::load(&file).map_err(|error| Failure::config(chain(&error)))?;
    if !args.listen.is_empty() {
        config.listen.addresses.clone_from(&args.listen);
    }
    undumpable();
    // Before the first thread, so that all of them do: no tenant's computing may hold up another tenant's answer here.
    cofferdam_jail::answer_promptly();
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if let Some(threads) = config.threads {
        builder.worker_threads(threads);
    }
    let runtime = builder.enable_all().build().map_err(|error| failed("starting the runtime", &error))?;
    runtime.block_on(serve(config, json))
}

/// Keeps secrets out of core dumps and away from debuggers of the same user. Where the kernel refuses, it stays as it
/// was: `doctor` shows the core pattern and limits of the host.
fn undumpable() {
    use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    let (limited, closed) = (setrlimit(Resource::Core, none), set_dumpable_behavior(DumpableBehavior::NotDumpable));
    if limited.is_err() || closed.is_err() {
        tracing::warn!("core dumps of this process could not be switched off");
    }
}

async fn serve(config: ServerConfig, json: bool) -> Result<(), Failure> {
    let layout = Layout::at(&config.data);
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
    let random: Arc<dyn Random> = Arc::new(OsRandom);

    // The log first: whatever else happens from here on can be recorded.
    let log = open_log(&layout, &config, &clock, &random)?;
    let authorizer = Arc::new(Authorizer::new().map_err(|error| failed("reading the built-in policies", &error))?);
    let (control, kept) = open_state(&layout, &config, &authorizer, &clock, &random)?;
    seal_log(&config, &log, &control);
    warm(control.clone());
    let secrets = upkeep::look(&control).await;
    let identities = identities(&layout, &config, &control, &clock)?;
    let sandbox = Sandbox::start(sandbox_config(&layout, &config)?, clock.clone(), random.clone())
        .await
        .map_err(|error| failed("starting the sandbox", &error))?;

    tidy(&sandbox, control.clone()).await?;
    let meter = Arc::new(Meter::new(control.clone(), log.clone()));

    // The door last, and opened only once the start is in the log.
    let listener = bind(&layout, &config).await?;
    let egress = way_out(&config, &listener.addresses(), &clock)?;
    let drain = Drain::new();
    let node = Node {
        limiter: Limiter::new(&config.limits, clock.clone()),
        limits: config.limits.clone(),
        recorded: config.audit.recorded(),
        log: log.clone(),
        identities,
        authorizer,
        live: Live::new(control.clone(), egress),
        meter: meter.clone(),
        sandbox: sandbox.clone(),
        drain: drain.clone(),
        clock,
        random,
        uploads: cofferdam_gateway::Uploads::default(),
        public_tiles: config.audit.public_tiles,
        receipts: config.audit.receipts,
        metrics: Arc::default(),
        tallies: Tallies::default(),
    };
    let detail = detail(&sandbox, secrets, kept, &config);
    node.hold_issuer_keys().map_err(|error| failed("reading the keys of the node's own issuer", &error))?;
    let start = Note::Start { version: env!("CARGO_PKG_VERSION").into(), detail: detail.clone() };
    log.note(start).await.map_err(|error| failed("recording the start", &error))?;
    let mut signals = Signals::listen()?;
    announce(&listener.addresses(), json);
    tracing::info!(detail, "serving");
    let counting = tokio::spawn(keep_counting(meter.clone(), Duration::from_millis(config.usage.every_ms)));
    let node = Arc::new(node);
    let pruning = tokio::spawn(upkeep::prune(control.clone(), log.clone(), config.audit.retention()));
    let keeping = tokio::spawn(upkeep::run(control, log.clone()));
    let renewing = tokio::spawn(node.identities.renewal().run());
    let holding = tokio::spawn(keep_issuer_keys(node.clone()));
    let beats = Beats { node: node.clone(), listening: listener.counts() };
    let beating = tokio::spawn(beats.clone().keep(Duration::from_millis(config.audit.heartbeat_ms)));
    let mut serving = tokio::spawn(listener.serve(node, drain.clone()));
    let reason = tokio::select! {
        reason = signals.told_to_stop() => reason,
        _ = &mut serving => "listening ended",
        () = log.ended() => return Err(log_failed(&log, &drain, &sandbox).await),
    };
    beating.abort();
    stop(reason, &drain, &config, serving, &sandbox, beats).await?;
    // What the log holds is final now; what is not counted here is at the next start.
    [counting, pruning, keeping, renewing, holding].iter().for_each(|task| task.abort());
    count(&meter, STEPS_AT_STOP).await;
    Ok(())
}

/// What the log and people are told of how a node started.
fn detail(sandbox: &Sandbox, secrets: &str, kept: bool, config: &ServerConfig) -> String {
    format!(
        "isolation={} cgroups={} secrets={secrets} keys={} {}",
        sandbox.isolation().as_str(),
        sandbox.cgroups(),
        if kept { "locked" } else { "unlocked" },
        config.audit.told()
    )
}

/// Has policies compiled before the first call that needs them, and says which cover less than they did.
fn warm(control: Arc<Control>) {
    // Not waited for: a node that cannot have the thread compiles with the first call that needs it.
    let _ = std::thread::Builder::new().name("policies".to_owned()).spawn(move || {
        for flagged in control.narrower() {
            tracing::warn!(what = flagged.told(), remedy = flagged.finding.remedy, "a policy covers less than it did");
        }
        control.warm();
    });
}

/// What the log is told again and again of the calls and connections of a node.
#[derive(Clone)]
struct Beats {
    node: Arc<Node>,
    listening: ListenerCounts,
}

impl Beats {
    async fn keep(self, every: Duration) {
        loop {
            tokio::time::sleep(every).await;
            if let Err(error) = self.beat().await {
                tracing::error!(error = chain(&error), "a heartbeat could not be recorded");
            }
        }
    }

    async fn beat(&self) -> Result<u64, AuditError> {
        self.node.log.beat(&self.node.counts(self.listening.lines())).await
    }
}

/// Ends a node whose log has failed. Nothing can be answered any more, and only reading the log back from the disk
/// tells what it holds, which the next start does.
async fn log_failed(log: &Log, drain: &Drain, sandbox: &Sandbox) -> Failure {
    let why = log.health().err().map_or_else(|| "it was closed".to_owned(), |error| chain(&error));
    tracing::error!(why, "the node ends, as nothing can be recorded");
    let _ = drain.drain(Duration::ZERO).await;
    sandbox.shutdown().await;
    Failure::new(Kind::Unrecorded, format!("the audit log has failed: {why}")).hint(
        "free the disk or replace it, then start the node again: it reads the log back and goes on with what is there",
    )
}

/// Has what records disclose sealed, where that is asked for.
fn seal_log(config: &ServerConfig, log: &Log, control: &Arc<Control>) {
    if config.audit.shred {
        log.seal_under(Arc::new(Subjects::of(control.clone())));
    }
}

/// What exists, with the vault that opens it; and whether its keys are in memory that is neither swapped nor dumped.
fn open_state(
    layout: &Layout,
    config: &ServerConfig,
    authorizer: &Arc<Authorizer>,
    clock: &Arc<dyn Clock>,
    random: &Arc<dyn Random>,
) -> Result<(Arc<Control>, bool), Failure> {
    let (ceiling, tenant_limits) = (config.ceilings.clone(), config.limits.tenant.clone());
    let issuer = config.users.clone();
    let state = ControlConfig { ceiling, tenant_limits, issuer, ..ControlConfig::in_dir(layout.data()) };
    let memory = Arc::new(Pages::new());
    let kept = memory.state();
    if let Err(reason) = &kept {
        tracing::warn!(reason, "keys are in ordinary memory: raise the limit on locked memory (LimitMEMLOCK=)");
    }
    let vault = keys::vault(&config.root_key, layout.data(), memory, clock, random)?;
    let control = Control::open_with(state, vault, authorizer.clone(), clock.clone(), random.clone())
        .map_err(|error| failed("opening the state", &error))?;
    Ok((Arc::new(control), kept.is_ok()))
}

/// Whoever can be known here: by declared issuers, by the node's own, by keys.
fn identities(
    layout: &Layout,
    config: &ServerConfig,
    control: &Arc<Control>,
    clock: &Arc<dyn Clock>,
) -> Result<Identities, Failure> {
    let trust = config.issuers_ca.clone().map_or(Trust::Native, Trust::File);
    let keys =
        HttpsJwks::new(&trust).map_err(|error| failed("reading the roots that issuers are trusted by", &error))?;
    let pepper = control.pepper().map_err(|error| failed("reading the key of API keys", &error))?;
    let own = config.users.as_ref().map(OwnIssuerConfig::declaration);
    let declared = config.issuers.iter().cloned().chain(own).collect();
    let kept = layout.issuer_keys();
    let identities = Identities::keeping(declared, pepper, Arc::new(keys), clock.clone(), Some(&kept))
        .map_err(|error| Failure::config(chain(&error)))?;
    Ok(identities.signed_by(config.sigv4.clone(), control.clone()))
}

/// Stops publishing keys of the node's own issuer whose tokens have all ended.
async fn keep_issuer_keys(node: Arc<Node>) {
    loop {
        tokio::time::sleep(ISSUER_KEYS_EVERY).await;
        let node = node.clone();
        match tokio::task::spawn_blocking(move || node.hold_issuer_keys()).await {
            Ok(Err(error)) => tracing::warn!(%error, "keys of the node's own issuer could not be read"),
            _ => continue,
        }
    }
}

/// Deletes components that were left behind by whatever ended the node before.
async fn tidy(sandbox: &Sandbox, control: Arc<Control>) -> Result<(), Failure> {
    let (sandbox, referenced) = (sandbox.clone(), move || control.components().ok());
    let collected = tokio::task::spawn_blocking(move || sandbox.collect(referenced)).await;
    match collected {
        Ok(Err(error)) => Err(failed("tidying the store of components", &error)),
        _ => Ok(()),
    }
}

/// Counts what comes into the log into the sums of usage, again and again.
async fn keep_counting(meter: Arc<Meter>, every: Duration) {
    loop {
        // A few steps at a time, so that a stop never waits for all that there may be.
        while count(&meter, STEPS_AT_STOP).await > 0 {}
        tokio::time::sleep(every).await;
    }
}

/// Counts, and gives how many records are left that can be counted now.
async fn count(meter: &Arc<Meter>, steps: usize) -> u64 {
    let meter = meter.clone();
    match tokio::task::spawn_blocking(move || meter.catch_up(steps)).await {
        Ok(Ok(left)) => left,
        Ok(Err(error)) => {
            tracing::warn!(error = chain(&error), "usage could not be counted; it will be tried again");
            0
        }
        Err(_) => 0,
    }
}

fn open_log(
    layout: &Layout,
    config: &ServerConfig,
    clock: &Arc<dyn Clock>,
    random: &Arc<dyn Random>,
) -> Result<Log, Failure> {
    let signer = Signer::load(&layout.audit_key()).map_err(|error| failed("reading the log's signing key", &error))?;
    let settings = LogConfig {
        segment_bytes: SEGMENT_BYTES,
        checkpoint_every: CHECKPOINT_EVERY,
        rollup_window: ROLLUP_WINDOW,
        queue_records: QUEUE_RECORDS,
        privacy: config.audit.privacy(),
        derive: Some(DeriveConfig { tenant_roots_every: Duration::from_millis(config.audit.tenant_roots_ms) }),
        ..config.audit.settings(LogConfig::new(layout.audit(), config.origin.clone()))
    };
    let opened = Log::open(settings, signer, clock.clone(), random.clone());
    let (log, found) = opened.map_err(|error| failed("opening the log", &error))?;
    tracing::info!(
        records = found.records,
        root = found.root,
        torn_bytes = found.torn_bytes,
        unknown_outcomes = found.unknown_outcomes,
        "log opened"
    );
    Ok(log)
}

fn sandbox_config(layout: &Layout, config: &ServerConfig) -> Result<SandboxConfig, Failure> {
    let program = std::env::current_exe().map_err(|error| failed("finding this program", &error))?;
    let beside = |name: &str| program.with_file_name(name);
    Ok(SandboxConfig {
        worker: beside("cofferdam-worker"),
        compiler: beside("cofferdam-compiler"),
        artifacts: layout.artifacts(),
        logs: layout.logs(),
        mac_key: cofferdam_control::load_key(&layout.artifact_key())
            .map_err(|error| failed("reading the key of artifacts", &error))?,
        required: config.isolation.required,
        cgroup: config.isolation.cgroup.clone(),
        limits: config.limits.clone(),
    })
}

/// The way out of functions, which leads to none of the addresses that are listened on: those that were bound, whatever
/// was asked for.
fn way_out(config: &ServerConfig, bound: &[SocketAddr], clock: &Arc<dyn Clock>) -> Result<Arc<Egress>, Failure> {
    let mut settings = config.egress.clone();
    settings.own.extend(bound);
    Egress::new(settings, clock.clone()).map_err(|error| failed("opening the way out", &error))
}

async fn bind(layout: &Layout, config: &ServerConfig) -> Result<Listener, Failure> {
    let (chain_file, key_file) = match &config.tls {
        Some(files) => (files.certificate.clone(), files.key.clone()),
        None => (layout.certificate(), layout.certificate_key()),
    };
    let certificate = certificate::load(&chain_file, &key_file).map_err(|error| Failure::config(chain(&error)))?;
    let tls = Tls::new(certificate, &config.limits).map_err(|error| failed("setting up TLS", &error))?;
    Listener::bind(&config.listen.addresses, tls, Arc::new(config.limits.clone()))
        .await
        .map_err(|error| failed("listening", &error))
}

/// Tells whoever started us that connections are taken from now on.
fn announce(addresses: &[SocketAddr], json: bool) {
    for address in addresses {
        let url = format!("https://{address}");
        if json {
            println!("{}", serde_json::json!({ "listening": url }));
        } else {
            println!("listening on {url}");
        }
    }
}

/// The signals that end a node. Heard from before anyone is told that it serves.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn listen() -> Result<Self, Failure> {
        let hear = |kind| signal(kind).map_err(|error| failed("listening for signals", &error));
        Ok(Self { terminate: hear(SignalKind::terminate())?, interrupt: hear(SignalKind::interrupt())? })
    }

    async fn told_to_stop(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// Takes no more, lets what is under way end within the deadline, and closes the log behind it all.
async fn stop(
    reason: &str,
    drain: &Drain,
    config: &ServerConfig,
    serving: tokio::task::JoinHandle<()>,
    sandbox: &Sandbox,
    beats: Beats,
) -> Result<(), Failure> {
    let log = &beats.node.log;
    tracing::info!(reason, "draining");
    let cut = drain.drain(Duration::from_millis(config.limits.drain_ms)).await;
    if !serving.is_finished() {
        let _ = serving.await;
    }
    sandbox.shutdown().await;
    // What was cut still writes how it ended; the stop comes after it.
    let unsettled = drain.settled(SETTLE).await;
    if unsettled > 0 {
        tracing::warn!(unsettled, "calls had not ended when the log was closed");
    }
    beats.beat().await.map_err(|error| failed("recording the last counts", &error))?;
    let stop = Note::Stop { reason: format!("{reason} cut={cut}") };
    log.note(stop).await.map_err(|error| failed("recording the stop", &error))?;
    log.shutdown().await.map_err(|error| failed("closing the log", &error))?;
    tracing::info!(cut, "stopped");
    Ok(())
}

fn failed(doing: &str, error: &dyn std::error::Error) -> Failure {
    Failure::internal(format!("{doing}: {}", chain(error)))
}

/// An error with its causes, once each.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
