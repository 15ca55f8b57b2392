//! `doctor`: what this host can enforce, and whether a data directory is fit to serve from.
//!
//! Owns the list of checks. Must never change anything, and never call good what it did not look at.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use clap::Args;
use cofferdam_audit::Signer;
use cofferdam_authz::Authorizer;
use cofferdam_control::{ControlConfig, Flagged, flagged};
use cofferdam_gateway::AuditConfig;
use cofferdam_gateway::certificate;
use cofferdam_gateway::config::ServerConfig;
use cofferdam_gateway::root::RootKeyConfig;
use cofferdam_gateway::sinks::SinkConfig;
use cofferdam_jail::{HostCheck, Report, State, probe};
use cofferdam_model::{Clock, Isolation, OsRandom, Random, SystemClock};
use serde_json::{Value, json};

use super::{Context, sinks};
use crate::failure::{Failure, Kind, chain};
use crate::keys::{self, Pages};
use crate::layout::Layout;
use crate::output::table;

/// Arguments of `cofferdam doctor`.
#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// The least isolation this host has to reach [default: what the node's configuration requires, else reduced]
    #[arg(long, value_parser = isolation, value_name = "LEVEL")]
    required: Option<Isolation>,
}

/// One thing that was looked at.
struct Check {
    name: String,
    good: bool,
    found: String,
    remedy: Option<String>,
}

/// Runs `cofferdam doctor`.
pub(crate) fn run(args: &DoctorArgs, context: &Context) -> Result<(), Failure> {
    let mut report = probe();
    let config = ServerConfig::load(&context.layout.config());
    let groups = cgroups(config.as_ref().ok().and_then(|config| config.isolation.cgroup.as_deref()));
    // A cell without a control group of its own is not counted as fully isolated.
    let most = if groups.good == Some(true) { Isolation::Full } else { Isolation::Reduced };
    let reached = report.isolation().at_most(most);
    report.host.push(groups);
    report.host.push(key_memory());
    let mut checks = binaries();
    checks.extend(directory(&context.layout));
    let configured = || config.map_or(Isolation::Reduced, |config| config.isolation.required);
    let required = args.required.unwrap_or_else(configured);
    let enough = reached.reaches(required);
    let findings = checks.iter().filter(|check| !check.good).count() + usize::from(!enough);
    context.output.result(&told(&report, reached, &checks, findings), || shown(&report, reached, &checks))?;
    if findings == 0 {
        return Ok(());
    }
    let mut message = format!("{findings} findings");
    if !enough {
        let (reached, required) = (reached.as_str(), required.as_str());
        message = format!("{message}; isolation is {reached}, {required} is required");
    }
    Err(Failure::new(Kind::Finding, message).hint("the remedies stand beside what was found"))
}

/// Whether each cell would get a control group of its own, by the very look a node takes at its start. A service may be
/// in another group than whoever asks here, which is why what was found names the place.
fn cgroups(given: Option<&Path>) -> HostCheck {
    let (good, found) = match cofferdam_sandbox::cgroups(given) {
        Ok(found) => (true, found),
        Err(reason) => (false, reason),
    };
    let remedy =
        (!good).then_some("run under systemd with Delegate=yes, or name a delegated directory as [isolation].cgroup");
    HostCheck { name: "cgroup", good: Some(good), found, remedy }
}

/// Whether keys are kept out of swap and core dumps, by the very pages a node keeps them in.
fn key_memory() -> HostCheck {
    let (good, found) = match Pages::new().state() {
        Ok(()) => (true, "locked, and kept out of core dumps".to_owned()),
        Err(reason) => (false, reason),
    };
    let remedy = (!good).then_some("raise the limit on locked memory: LimitMEMLOCK=1M, or ulimit -l 1024");
    HostCheck { name: "key_memory", good: Some(good), found, remedy }
}

fn isolation(text: &str) -> Result<Isolation, String> {
    let found = Isolation::ALL.iter().copied().find(|level| level.as_str() == text);
    found.ok_or_else(|| "one of full, reduced, minimal".to_owned())
}

/// The programs a node starts lie beside this one.
fn binaries() -> Vec<Check> {
    let own = std::env::current_exe();
    let each = |name: &str| {
        let path = own.as_ref().map(|own| own.with_file_name(name));
        let good = path.as_ref().is_ok_and(|path| path.is_file());
        let found = path.map_or_else(|error| error.to_string(), |path| path.display().to_string());
        let remedy = (!good).then(|| format!("put {name} of the same release beside this program"));
        Check { name: name.to_owned(), good, found, remedy }
    };
    ["cofferdam-worker", "cofferdam-compiler"].map(each).into()
}

/// What `init` made, looked at without changing any of it. Nothing where there is no directory.
fn directory(layout: &Layout) -> Vec<Check> {
    if !layout.data().is_dir() {
        return Vec::new();
    }
    let control = ControlConfig::in_dir(layout.data());
    let mut checks = vec![private("data directory", layout.data())];
    let config = ServerConfig::load(&layout.config());
    let keys = [&control.pepper, &layout.artifact_key()].map(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        outcome(name, cofferdam_control::load_key(path).map(|_| "32 bytes, its owner's alone".to_owned()))
    });
    checks.extend(keys);
    checks.extend(policies(&control.state()));
    checks.push(root_key(layout, config.as_ref().map(|config| config.root_key.clone()).unwrap_or_default()));
    checks.push(outcome("audit.key".into(), Signer::load(&layout.audit_key()).map(|signer| signer.verifier_key())));
    checks.push(room(layout, config.as_ref().map(|config| config.audit.clone()).unwrap_or_default()));
    let sinks = config.as_ref().map(|config| config.audit.sinks.clone()).unwrap_or_default();
    checks.extend(sinks.iter().map(|sink| streamed(layout, sink)));
    let tls = config.as_ref().ok().and_then(|config| config.tls.clone());
    checks.push(outcome("cofferdam.toml".into(), config.map(|config| format!("origin {}", config.origin))));
    let (chain, key) = match tls {
        Some(files) => (files.certificate, files.key),
        None => (layout.certificate(), layout.certificate_key()),
    };
    let served = certificate::load(&chain, &key).map(|_| chain.display().to_string());
    checks.push(outcome("certificate".into(), served));
    checks
}

/// Whether this release takes every policy there is, and for no less than its writer meant.
fn policies(state: &Path) -> Vec<Check> {
    let name = || "policies".to_owned();
    let looked = Authorizer::new().map_err(|error| chain(&error));
    let looked = looked.and_then(|authorizer| flagged(state, &authorizer).map_err(|error| chain(&error)));
    let check = |flagged: &Flagged| {
        let remedy = Some(flagged.finding.remedy.clone());
        Check { name: name(), good: false, found: flagged.told(), remedy }
    };
    match looked {
        Ok(found) if found.is_empty() => {
            vec![Check {
                name: name(),
                good: true,
                found: "all compile, and cover what they name".into(),
                remedy: None,
            }]
        }
        Ok(found) => found.iter().map(check).collect(),
        Err(found) => {
            let remedy = Some("start the node once, or restore state.sqlite from a backup".to_owned());
            vec![Check { name: name(), good: false, found, remedy }]
        }
    }
}

/// Whether the log's file system has the room below which the node does less.
fn room(layout: &Layout, config: AuditConfig) -> Check {
    let dir = layout.audit();
    let free = rustix::fs::statvfs(if dir.is_dir() { &dir } else { layout.data() })
        .map(|found| found.f_bavail.saturating_mul(found.f_frsize) / (1024 * 1024));
    let good = free.is_ok_and(|free| free >= config.warn.free_mib);
    let found = free.map_or_else(|error| error.to_string(), |free| format!("{free} MiB free"));
    let remedy = (!good).then(|| format!("make room: below {} MiB the node does less", config.warn.free_mib));
    Check { name: "room for the log".into(), good, found, remedy }
}

/// Whether the root key is where the configuration says, and can be used now.
fn root_key(layout: &Layout, config: RootKeyConfig) -> Check {
    let (clock, random): (Arc<dyn Clock>, Arc<dyn Random>) = (Arc::new(SystemClock::default()), Arc::new(OsRandom));
    let opened = keys::vault(&config, layout.data(), Arc::new(Pages::new()), &clock, &random);
    let looked = opened.map_err(|failure| failure.message().to_owned()).and_then(|vault| {
        let known = vault.root().describe();
        vault.check().map(|()| known).map_err(|error| chain(&error))
    });
    let (good, found) = match looked {
        Ok(found) => (true, found),
        Err(reason) => (false, reason),
    };
    let remedy =
        (!good).then(|| "make it reachable, or correct `[root_key]`: until then no secret can be opened".to_owned());
    Check { name: "root key".into(), good, found, remedy }
}

/// Whether the log is not further ahead of a sink than it may be.
fn streamed(layout: &Layout, sink: &SinkConfig) -> Check {
    let looked = sinks::look(layout, sink, &SystemClock::default());
    let (good, found) = looked.unwrap_or_else(|failure| (false, failure.message().to_owned()));
    let remedy = (!good).then(|| "see why with `cofferdam audit sinks`, and whether the node runs".to_owned());
    Check { name: format!("sink {}", sink.name), good, found, remedy }
}

fn outcome(name: String, looked: Result<String, impl std::error::Error>) -> Check {
    match looked {
        Ok(found) => Check { name, good: true, found, remedy: None },
        Err(error) => Check {
            name,
            good: false,
            found: self::chain(&error),
            remedy: Some("restore it from a backup, or make a new directory with `cofferdam init`".to_owned()),
        },
    }
}

fn private(name: &str, path: &Path) -> Check {
    let mode = std::fs::metadata(path).map(|about| about.mode() & 0o777);
    let good = mode.as_ref().is_ok_and(|mode| mode & 0o077 == 0);
    let found = mode.map_or_else(|error| error.to_string(), |mode| format!("{} mode {mode:o}", path.display()));
    let remedy = (!good).then(|| format!("chmod 700 {}", path.display()));
    Check { name: name.to_owned(), good, found, remedy }
}

fn told(report: &Report, reached: Isolation, checks: &[Check], findings: usize) -> Value {
    let checks = checks
        .iter()
        .map(|check| json!({ "name": check.name, "good": check.good, "found": check.found, "remedy": check.remedy }));
    json!({
        "isolation": reached.as_str(),
        "layers": report.layers,
        "host": report.host,
        "checks": checks.collect::<Vec<_>>(),
        "findings": findings,
    })
}

fn shown(report: &Report, reached: Isolation, checks: &[Check]) -> Vec<String> {
    let mut lines = vec![format!("isolation  {}", reached.as_str()), String::new()];
    let mark = |good: Option<bool>| match good {
        Some(true) => "ok",
        Some(false) => "!!",
        None => "? ",
    };
    let mut rows = Vec::new();
    for layer in &report.layers {
        let good = Some(layer.state == State::On);
        rows.push((mark(good), layer.name.as_str().to_owned(), layer.why.clone(), layer.remedy.map(str::to_owned)));
    }
    for check in &report.host {
        rows.push((mark(check.good), check.name.to_owned(), check.found.clone(), check.remedy.map(str::to_owned)));
    }
    for check in checks {
        rows.push((mark(Some(check.good)), check.name.clone(), check.found.clone(), check.remedy.clone()));
    }
    let cells = rows.iter().map(|(mark, name, found, _)| vec![(*mark).to_owned(), name.clone(), found.clone()]);
    for (line, (_, _, _, remedy)) in table(&cells.collect::<Vec<_>>()).into_iter().zip(&rows) {
        lines.push(line);
        lines.extend(remedy.iter().map(|remedy| format!("      remedy: {remedy}")));
    }
    lines
}
