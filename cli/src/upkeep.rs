//! What a serving node does by itself: lets go of keys in time, asks after a root key that was out of reach, goes on
//! with a rotation that was cut off, and prunes the log.
//!
//! Owns how often. Must never hold up a call, and never begin a rotation nobody asked for.

use std::sync::Arc;
use std::time::Duration;

use cofferdam_audit::retain::{Pruning, Retention};
use cofferdam_audit::{Log, Note};
use cofferdam_control::{Control, ControlError};
use cofferdam_gateway::Node;

use crate::failure::chain;

/// Time between two looks.
const EVERY: Duration = Duration::from_secs(1);
/// The longest time between two askings of a root key that is out of reach.
const MOST: u32 = 30;

/// Time between two looks at whether records have been kept long enough.
const PRUNE_EVERY: Duration = Duration::from_secs(60);

/// Removes records that have been kept as long as is set, again and again; nothing that is held, not counted for usage
/// yet, or not streamed yet to where it shall be.
pub(crate) async fn prune(node: Arc<Node>, control: Arc<Control>, retention: Retention) {
    if retention == Retention::default() {
        return;
    }
    loop {
        tokio::time::sleep(PRUNE_EVERY).await;
        let (control, node) = (control.clone(), node.clone());
        // Reading what is to go takes its time, and so does the disk.
        let runtime = tokio::runtime::Handle::current();
        let step = tokio::task::spawn_blocking(move || {
            let (holds, counted) = (control.holds(), control.counted());
            match (holds, counted) {
                (Ok(holds), Ok(counted)) => {
                    let needed = Some(node.sinks.lowest_needed().map_or(counted, |lowest| lowest.min(counted)));
                    runtime.block_on(node.log.prune(&retention, &holds, &needed)).map_err(|error| chain(&error))
                }
                (Err(error), _) | (_, Err(error)) => Err(chain(&error)),
            }
        });
        match step.await {
            Ok(Ok(Pruning::Done { first, record })) => tracing::info!(first, record, "pruned the log"),
            Ok(Ok(Pruning::Nothing | Pruning::Recorded { .. })) => {}
            Ok(Err(error)) => tracing::error!(error, "the log could not be pruned; it is tried again"),
            Err(_) => {}
        }
    }
}

/// Asks whether secrets can be opened, for the record of the start.
pub(crate) async fn look(control: &Arc<Control>) -> &'static str {
    let asked = control.clone();
    match tokio::task::spawn_blocking(move || asked.vault().check()).await {
        Ok(Ok(())) => "available",
        Ok(Err(error)) => {
            let root_key = control.vault().root().describe();
            let error = chain(&error);
            tracing::error!(root_key, error, "DEGRADED: secrets cannot be opened; functions that need none go on");
            "unavailable"
        }
        Err(_) => "unavailable",
    }
}

/// Keeps at it until it is ended.
pub(crate) async fn run(control: Arc<Control>, log: Log) {
    let mut degraded = control.vault().trouble().is_some();
    let (mut wait, mut left) = (1, 0);
    let mut unfinished = true;
    loop {
        tokio::time::sleep(EVERY).await;
        control.vault().forget(None);
        let trouble = control.vault().trouble();
        if trouble.is_some() && left == 0 {
            let asked = control.clone();
            let _ = tokio::task::spawn_blocking(move || asked.vault().check()).await;
            (wait, left) = ((wait * 2).min(MOST), wait);
        }
        left = left.saturating_sub(1);
        let now = control.vault().trouble().is_some();
        if now != degraded {
            degraded = now;
            wait = 1;
            note(&control, &log, now).await;
        }
        if unfinished && !degraded {
            unfinished = !resumed(&control, &log).await;
        }
    }
}

/// Tells log and journal that secrets went out of reach, or came back.
async fn note(control: &Control, log: &Log, degraded: bool) {
    let (kind, root_key) = (if degraded { "secrets_unavailable" } else { "secrets_available" }, control.vault().root());
    let root_key = root_key.describe();
    match control.vault().trouble() {
        Some(error) => tracing::error!(root_key, error = chain(&error), "DEGRADED: secrets cannot be opened"),
        None => tracing::info!(root_key, "secrets can be opened again"),
    }
    if let Err(error) = log.note(Note::Event { kind: kind.into(), detail: root_key }).await {
        tracing::error!(error = chain(&error), "what became of the root key could not be recorded");
    }
}

/// Goes on with what was cut off, once that is in the log. Gives whether nothing is left to do.
async fn resumed(control: &Arc<Control>, log: &Log) -> bool {
    let asked = control.clone();
    let found = tokio::task::spawn_blocking(move || asked.has_unfinished_rotation()).await;
    match found {
        Ok(Ok(false)) => return true,
        Ok(Ok(true)) => {}
        _ => return false,
    }
    let note = Note::Event { kind: "rotation_resumed".into(), detail: control.vault().root().describe() };
    if log.note(note).await.is_err() {
        return false;
    }
    let doing = control.clone();
    let done: Option<Result<usize, ControlError>> =
        tokio::task::spawn_blocking(move || doing.resume_rotations()).await.ok();
    match done {
        Some(Ok(rotations)) => {
            tracing::info!(rotations, "rotations that were cut off are at their end");
            true
        }
        Some(Err(error)) => {
            tracing::error!(error = chain(&error), "a rotation that was cut off is not at its end; it is tried again");
            false
        }
        None => false,
    }
}
