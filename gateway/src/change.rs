//! What a management call does once it is permitted and its entry is open: change what exists, or look at it.
//!
//! Owns the order: the intent is recorded first, what has to be compiled is compiled before it is made current, and
//! cells that hold what a change replaced go with it. Must never act on anything but the permit inside the entry.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cofferdam_audit::{Entry, Note, Recorded};
use cofferdam_authz::Permit;
use cofferdam_model::id::platform_tenant;
use cofferdam_model::operation::{FunctionRef, SinkReset};
use cofferdam_model::{
    EgressRule, Ending, FunctionId, Govern, Keep, KeyKind, LogRange, Manage, Operation as _, OrganisationId, Step,
    TenantId,
};
use cofferdam_sandbox::{Cause, LogPage};
use http::StatusCode;
use zeroize::Zeroizing;

use crate::body::Inbound;
use crate::drain::Phase;
use crate::evidence::{self, Evidence};
use crate::limits::Standing;
use crate::manage::Asked;
use crate::node::Node;
use crate::pipeline::Unrecorded;
use crate::refusal::Refusal;
use crate::respond::{Ran, Reply};
use crate::signed::Payload;
use crate::watch::Watch;
use crate::{egress, inquire, metrics, observe};

/// Steps of counting that whoever asks for usage waits for. More is only left after a long time without counting.
const STEPS_TO_ANSWER: usize = 8;
/// Bytes of a change that is no component.
const CHANGE_BYTES: u64 = 1024 * 1024;
/// Time in which the body of a change has come, and that of a component.
const CHANGE_TIME: Duration = Duration::from_secs(60);
const COMPONENT_TIME: Duration = Duration::from_secs(900);

/// Reads the body of a change, which must be whole to be decided on; the larger kind a few at a time.
pub(crate) async fn read(node: &Node, asked: &Asked, body: Payload) -> Result<Bytes, Refusal> {
    let idle = Duration::from_millis(node.limits.body_idle_ms);
    if !asked.takes_component() {
        return Inbound::new(body, CHANGE_BYTES, idle)?.collect_within(CHANGE_TIME).await;
    }
    let busy = |_| Refusal::Overloaded { retry_after: Duration::from_secs(5) };
    let _place = node.uploads.0.try_acquire().map_err(busy)?;
    Inbound::new(body, node.limits.component_bytes, idle)?.collect_within(COMPONENT_TIME).await
}

/// Makes the change the permit names, after its intent is durable, and records how it ended.
pub(crate) async fn manage(
    node: &Arc<Node>,
    mut entry: Entry<Permit<Manage>>,
    body: Bytes,
    (standing, mut watch): (Standing, Watch),
) -> Result<Recorded<Reply>, Unrecorded> {
    entry.if_dropped(Ending::ClientGone);
    let request = entry.subject().circumstances().request.clone();
    watch.enter(Step::Record);
    let reply = match change(node, &mut entry, body, &mut watch).await {
        Ok(Told::Json(value)) => Reply::json(StatusCode::OK, &value, &request, &standing),
        Ok(Told::Text(kind, text)) => Reply::text(StatusCode::OK, kind, text, &request, &standing),
        Ok(Told::Evidence(evidence)) => Reply::evidence(evidence, &request, &standing),
        Err(refusal) => Reply::refused(&refusal, &request, &standing, Ran::default()),
    };
    entry.close(reply.timed(watch.steps())).await.map_err(|error| {
        tracing::error!(%error, "an answer could not be recorded");
        Unrecorded
    })
}

/// What a management call is answered with.
enum Told {
    /// As nearly all are.
    Json(serde_json::Value),
    /// Text of a media type.
    Text(&'static str, String),
    /// Bytes of the log's, or made from them.
    Evidence(Evidence),
}

async fn change(
    node: &Node,
    entry: &mut Entry<Permit<Manage>>,
    body: Bytes,
    watch: &mut Watch,
) -> Result<Told, Refusal> {
    let recorded = entry.intent().await.map_err(|error| {
        tracing::error!(%error, "an intent could not be recorded");
        Refusal::AuditUnavailable
    })?;
    watch.enter(Step::Change);
    let told = match recorded.value().operation() {
        Manage::ReadLogs { function, range } => read_logs(node, function, *range).await?,
        // When a key was last used is counted as usage is.
        Manage::ReadUsage { .. } | Manage::ListKeys { .. } => counted(node, recorded)?,
        Manage::SimulatePolicy { tenant, simulation } => {
            let by_operator = recorded.value().principal().tenant() == Some(&platform_tenant());
            tokio::task::block_in_place(|| inquire::simulate(node, tenant, simulation, by_operator))?
        }
        Manage::QueryAudit { tenant, range } => tokio::task::block_in_place(|| inquire::records(node, tenant, range))?,
        Manage::Prove(prove) => {
            let evidence = tokio::task::block_in_place(|| evidence::permitted(node, prove))?;
            return Ok(Told::Evidence(evidence));
        }
        Manage::ListCells { tenant, function } => observe::cells(node, tenant, function.as_ref()),
        Manage::RecycleCells { tenant, function } => {
            let told = match function {
                Some(function) => node.sandbox.retire(&function.id, Cause::Asked),
                None => node.sandbox.retire_tenant(tenant, Cause::Asked),
            };
            serde_json::json!({ "cells": told })
        }
        Manage::ListSinks => node.sinks.told(),
        Manage::ResetSink(SinkReset { sink, to }) => {
            node.sinks.reset(sink, *to).await?;
            serde_json::json!({ "sink": sink, "next": to })
        }
        Manage::ReadMetrics => {
            let (cells, identities) = (node.sandbox.gauges(), node.identities.gauges());
            let (keys, log) = (node.live.control().vault().gauges(), node.log.standing());
            let text = node.metrics.exposition(&cells, &identities, &keys, &log, &node.sinks.standing());
            return Ok(Told::Text(metrics::MEDIA_TYPE, text));
        }
        Manage::RotateIssuerKey { .. } => rotated(node, recorded)?,
        Manage::PublishVersion { .. } => publish(node, recorded, body).await?,
        Manage::Keep(Keep::ShredSubject { .. }) => shred(node, recorded).await?,
        operation => {
            if opens(operation) {
                node.live.control().keys_at_hand(&operation.tenant()).await?;
            }
            check_credentials(node, operation)?;
            apply(node, recorded)?
        }
    };
    Ok(Told::Json(told))
}

/// Whether a change seals something of its tenant or opens it. Its keys may be elsewhere, and no thread is to wait.
fn opens(operation: &Manage) -> bool {
    match operation {
        Manage::PutSecret { .. } | Manage::RotateSecret { .. } => true,
        Manage::PutFunction { settings, .. } => settings.egress.iter().any(|rule| rule.credential.is_some()),
        Manage::CreateKey { settings, .. } => settings.kind == KeyKind::Sigv4,
        _ => false,
    }
}

/// Refuses a credential with which no call could be made: better told to whoever sets it than to each caller of the
/// function. Only once the change is permitted, since what a function's rules name is not for everybody.
fn check_credentials(node: &Node, operation: &Manage) -> Result<(), Refusal> {
    let control = node.live.control();
    let wrong = |message: String| Refusal::Invalid { message };
    let (rules, secrets) = match operation {
        Manage::PutFunction { function, settings } => {
            let opened = tokio::task::block_in_place(|| control.egress_by(&function.id, &settings.egress))?;
            (opened.rules, opened.credentials)
        }
        Manage::PutSecret { function, name, value } | Manage::RotateSecret { function, name, value, .. } => {
            let snapshot = control.snapshot();
            let Some(entry) = snapshot.function_by_id(&function.id) else { return Ok(()) };
            let named = |rule: &&EgressRule| rule.credential.as_ref().is_some_and(|part| part.secret == *name);
            let rules: Vec<EgressRule> = entry.settings.egress.iter().filter(named).cloned().collect();
            if rules.is_empty() {
                return Ok(());
            }
            let text = std::str::from_utf8(value.expose()).map_err(|_| {
                wrong(format!("secret `{name}`: a credential of an egress rule is text; set one that is"))
            })?;
            (rules, vec![(name.clone(), Zeroizing::new(text.to_owned()))])
        }
        _ => return Ok(()),
    };
    egress::check_credentials(&rules, &secrets).map_err(|error| wrong(error.to_string()))
}

/// Makes a change, shows it to the calls that come from now on, and lets go of what it replaced.
fn apply(node: &Node, recorded: Recorded<&Permit<Manage>>) -> Result<serde_json::Value, Refusal> {
    let operation = recorded.value().operation();
    let (outdated, frees) = (outdated(operation), frees(operation));
    let applied = tokio::task::block_in_place(|| node.live.control().apply(recorded))?;
    tokio::task::block_in_place(|| node.live.refresh());
    match outdated {
        Some(Outdated::Function(function)) => drop(node.sandbox.retire(&function, Cause::Changed)),
        Some(Outdated::Tenant(tenant)) => drop(node.sandbox.retire_tenant(&tenant, Cause::Changed)),
        Some(Outdated::Organisation(organisation)) => {
            for tenant in node.live.load().snapshot.tenants() {
                if tenant.organisation.as_ref() == Some(&organisation) {
                    node.sandbox.retire_tenant(&tenant.id, Cause::Changed);
                }
            }
        }
        None => {}
    }
    if frees {
        collect(node);
    }
    Ok(applied)
}

/// Destroys keys of subjects, and records by name which ones those were: the names are in the records they sealed.
async fn shred(node: &Node, recorded: Recorded<&Permit<Manage>>) -> Result<serde_json::Value, Refusal> {
    let applied = apply(node, recorded)?;
    let told = |name: &str| applied.get(name).map(ToString::to_string).unwrap_or_default();
    let detail = format!("tenant={} keys={}", told("tenant"), told("destroyed")).replace('"', "");
    let note = Note::Event { kind: "subject_keys_destroyed".into(), detail };
    // They are gone, and that they were to go is in the log: what cannot be added is no reason to say otherwise.
    if let Err(error) = node.log.note(note).await {
        tracing::error!(%error, "which keys were destroyed could not be recorded");
    }
    Ok(applied)
}

/// Signs with a new key, and has it believed before the first token of it is shown.
fn rotated(node: &Node, recorded: Recorded<&Permit<Manage>>) -> Result<serde_json::Value, Refusal> {
    let applied = apply(node, recorded)?;
    tokio::task::block_in_place(|| node.hold_issuer_keys())?;
    Ok(applied)
}

/// Makes a component current. It is compiled before that, so that a version that exists can be run, and not compiled
/// where its tenant has no room for it.
async fn publish(node: &Node, recorded: Recorded<&Permit<Manage>>, body: Bytes) -> Result<serde_json::Value, Refusal> {
    let tenant = recorded.value().operation().tenant();
    if let Manage::PublishVersion { component, component_bytes, .. } = recorded.value().operation() {
        let control = node.live.control();
        tokio::task::block_in_place(|| control.room_for(&tenant, *component, *component_bytes))?;
    }
    let (_, hold) = node.sandbox.prepare(&tenant, body).await?;
    let applied = apply(node, recorded);
    // From here on it is referred to, or it is not wanted.
    drop(hold);
    collect(node);
    applied
}

/// Lines of a function's log, waited for where the caller asks for that; a node that stops does not wait.
async fn read_logs(node: &Node, function: &FunctionRef, range: LogRange) -> Result<serde_json::Value, Refusal> {
    let page = tokio::select! {
        page = node.sandbox.read_logs(&function.id, range) => page?,
        () = node.drain.reached(Phase::Draining) => {
            node.sandbox.read_logs(&function.id, LogRange { wait: Duration::ZERO, ..range }).await?
        }
    };
    let LogPage { lines, cursor, missed } = page;
    Ok(serde_json::json!({ "lines": lines, "cursor": cursor.to_string(), "missed": missed }))
}

/// What is counted from the log, up to now as far as that takes no time to speak of.
fn counted(node: &Node, recorded: Recorded<&Permit<Manage>>) -> Result<serde_json::Value, Refusal> {
    tokio::task::block_in_place(|| {
        let behind = node.meter.catch_up(STEPS_TO_ANSWER)?;
        let mut answer = node.live.control().apply(recorded)?;
        if let serde_json::Value::Object(fields) = &mut answer {
            fields.insert("records_behind".into(), behind.into());
        }
        Ok(answer)
    })
}

/// Deletes components that no version refers to any more. A failure does not undo the change: the next one tries again.
fn collect(node: &Node) {
    let control = node.live.control();
    let referenced = || control.components().inspect_err(|error| tracing::warn!(%error, "components unknown")).ok();
    if let Err(error) = tokio::task::block_in_place(|| node.sandbox.collect(referenced)) {
        tracing::warn!(%error, "components that nobody refers to could not be deleted");
    }
}

/// Whether a change may leave components behind that no version refers to.
fn frees(operation: &Manage) -> bool {
    matches!(operation, Manage::RemoveFunction { .. } | Manage::PruneVersions { .. })
}

/// Whose cells a change makes outdated.
enum Outdated {
    Function(FunctionId),
    Tenant(TenantId),
    Organisation(OrganisationId),
}

/// Those whose cells hold what a change takes away or replaces, or were filled under rules that hold no more. They go
/// now, not with the next call.
fn outdated(operation: &Manage) -> Option<Outdated> {
    match operation {
        Manage::RemoveFunction { function }
        | Manage::PutFunction { function, .. }
        | Manage::PutSecret { function, .. }
        | Manage::RotateSecret { function, .. }
        | Manage::RollbackSecret { function, .. }
        | Manage::RemoveSecret { function, .. } => Some(Outdated::Function(function.id.clone())),
        Manage::PutPolicy { tenant, .. }
        | Manage::RemovePolicy { tenant, .. }
        | Manage::SuspendTenant { tenant, .. }
        | Manage::ShredTenant { tenant, .. }
        | Manage::PutTenantSettings { tenant, .. }
        | Manage::Govern(
            Govern::AssignTenant { tenant, .. }
            | Govern::PutBoundary { tenant, .. }
            | Govern::RemoveBoundary { tenant, .. },
        ) => Some(Outdated::Tenant(tenant.clone())),
        Manage::Govern(Govern::PutCeiling { organisation, .. } | Govern::RemoveCeiling { organisation, .. }) => {
            Some(Outdated::Organisation(organisation.id.clone()))
        }
        _ => None,
    }
}
