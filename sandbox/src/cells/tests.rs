//! Which call gets which cell, and when each cell goes, over scripted cells.

use cofferdam_model::{Ending, Recycle};

mod recycling;
mod tenants;

use super::member::{Member, Verdict};
use super::*;
use crate::testing::{Load, Rig, Script, deployment, limits, operation, until};

fn function_limits(concurrency: u32, cells: u32) -> FunctionLimits {
    FunctionLimits { concurrency, cells, ..FunctionLimits::default() }
}

async fn lease(rig: &Rig, operation: &Invoke, deployment: &Deployment) -> Result<Lease, Refusal> {
    rig.pool.acquire(&Want::of(operation, deployment)).await
}

fn serving(rig: &Rig) -> usize {
    rig.pool.cells().iter().filter(|cell| cell.version.is_some()).count()
}

#[tokio::test]
async fn a_cold_call_starts_a_cell_and_the_next_ones_share_it() {
    let rig = Rig::new(Script::default());
    let operation = operation(1, function_limits(64, 2));
    let first = lease(&rig, &operation, &deployment(1)).await.unwrap();
    let second = lease(&rig, &operation, &deployment(1)).await.unwrap();
    assert_eq!(first.cell().id, second.cell().id);
    assert_eq!((first.ordinal(), second.ordinal(), rig.script.spawned()), (1, 2, 1));
    let handovers = rig.script.handovers.lock().unwrap();
    let handover = handovers.first().unwrap();
    assert_eq!((handover.limits.concurrency, handover.limits.cells), (32, 1));
    assert_eq!(handover.env.expose().collect::<Vec<_>>(), [("TOKEN", "s3cret")]);
}

#[tokio::test]
async fn versions_generations_and_functions_never_share_a_cell() {
    let rig = Rig::new(Script::default());
    let (one, other) = (operation(1, function_limits(64, 2)), operation(2, function_limits(64, 2)));
    let first = lease(&rig, &one, &deployment(1)).await.unwrap();
    let newer = lease(&rig, &one, &deployment(2)).await.unwrap();
    let elsewhere = lease(&rig, &other, &deployment(2)).await.unwrap();
    let version = Invoke { version: VersionId::mint(&one.function, &*rig.pool.parts.random), ..one.clone() };
    let versioned = lease(&rig, &version, &deployment(2)).await.unwrap();
    let mut ids = [&first, &newer, &elsewhere, &versioned].map(|lease| lease.cell().id.clone());
    ids.sort();
    assert!(ids.windows(2).all(|pair| pair[0] != pair[1]));
}

#[tokio::test]
async fn calls_that_wait_for_the_same_cell_start_it_once() {
    let rig = Rig::new(Script::default());
    let operation = operation(1, function_limits(64, 2));
    let waiting: Vec<_> = (0..20)
        .map(|_| {
            let (pool, operation) = (rig.pool.clone(), operation.clone());
            tokio::spawn(async move { pool.acquire(&Want::of(&operation, &deployment(1))).await.map(drop) })
        })
        .collect();
    for call in waiting {
        call.await.unwrap().unwrap();
    }
    assert_eq!(rig.script.spawned(), 1);
}

#[tokio::test]
async fn a_busy_function_gets_a_second_cell_without_waiting_for_it() {
    let rig = Rig::new(Script::default());
    let operation = operation(1, function_limits(64, 2));
    let mut leases = Vec::new();
    for _ in 0..6 {
        leases.push(lease(&rig, &operation, &deployment(1)).await.unwrap());
    }
    until("a second cell", || serving(&rig) == 2).await;
    let next = lease(&rig, &operation, &deployment(1)).await.unwrap();
    assert_ne!(next.cell().id, leases[0].cell().id);
    for _ in 0..20 {
        leases.push(lease(&rig, &operation, &deployment(1)).await.unwrap());
    }
    assert_eq!(rig.script.spawned(), 2, "never more than the function may have");
}

#[tokio::test]
async fn calls_over_the_functions_concurrency_are_refused() {
    let rig = Rig::new(Script::default());
    let operation = operation(1, function_limits(2, 1));
    let first = lease(&rig, &operation, &deployment(1)).await.unwrap();
    let _second = lease(&rig, &operation, &deployment(1)).await.unwrap();
    assert!(matches!(lease(&rig, &operation, &deployment(1)).await, Err(Refusal::Overloaded)));
    drop(first);
    assert!(lease(&rig, &operation, &deployment(1)).await.is_ok());
}

#[tokio::test]
async fn a_new_generation_ends_old_cells_once_they_are_quiet() {
    let rig = Rig::new(Script::default());
    let operation = operation(1, function_limits(64, 2));
    let old = lease(&rig, &operation, &deployment(1)).await.unwrap();
    let channel = old.cell().channel.clone();
    let _new = lease(&rig, &operation, &deployment(2)).await.unwrap();
    assert_eq!(channel.why_closed(), None, "it still has a call");
    drop(old);
    assert_eq!(channel.closed().await, Closed::Retired);
}

/// Ends of calls whose guest did not come to its own.
const FORCED: [Ending; 6] = [
    Ending::Trapped,
    Ending::MemoryExhausted,
    Ending::CpuExhausted,
    Ending::StackExhausted,
    Ending::HandlesExhausted,
    Ending::HostcallExhausted,
];

#[tokio::test]
async fn a_cell_whose_guest_was_stopped_by_force_is_not_used_again() {
    for ending in FORCED {
        let rig = Rig::new(Script::default());
        let operation = operation(1, function_limits(64, 2));
        let mut soiled = lease(&rig, &operation, &deployment(1)).await.unwrap();
        let (id, channel) = (soiled.cell().id.clone(), soiled.cell().channel.clone());
        soiled.ended(ending);
        drop(soiled);
        assert_eq!(channel.closed().await, Closed::Retired);
        assert_ne!(lease(&rig, &operation, &deployment(1)).await.unwrap().cell().id, id);
    }
}

#[tokio::test]
async fn traps_cannot_make_the_node_start_processes_without_pause() {
    let rig = Rig::new(Script::default());
    let operation = operation(1, function_limits(64, 2));
    for _ in 0..50 {
        let mut lease = lease(&rig, &operation, &deployment(1)).await.unwrap();
        lease.ended(Ending::Trapped);
    }
    assert_eq!(rig.script.spawned(), 2, "one went at once, the next waits for its round");
    let soiled = lease(&rig, &operation, &deployment(1)).await.unwrap().cell().channel.clone();
    tend::judge(&rig.pool);
    assert_eq!(soiled.closed().await, Closed::Retired);
}

#[tokio::test]
async fn a_used_up_cell_goes_when_its_replacement_is_there() {
    let rig = Rig::new(Script::default());
    let operation = operation(1, function_limits(64, 1));
    let recycle = Recycle { after_calls: 3, ..Recycle::default() };
    let deployment = Deployment { recycle, ..deployment(1) };
    let mut ids = Vec::new();
    let mut last = None;
    for _ in 0..3 {
        let lease = lease(&rig, &operation, &deployment).await.unwrap();
        ids.push(lease.cell().id.clone());
        last = Some(lease.cell().channel.clone());
    }
    assert!(ids.iter().all(|id| *id == ids[0]));
    assert_eq!(last.unwrap().closed().await, Closed::Retired);
    assert_eq!(serving(&rig), 1);
    assert_ne!(lease(&rig, &operation, &deployment).await.unwrap().cell().id, ids[0]);
    assert_eq!(rig.script.spawned(), 2);
}

#[tokio::test]
async fn a_function_without_calls_costs_nothing_after_a_while() {
    let rig = Rig::new(Script::default());
    let operation = operation(1, function_limits(64, 2));
    let channel = lease(&rig, &operation, &deployment(1)).await.unwrap().cell().channel.clone();
    rig.clock.advance(Duration::from_secs(59));
    tend::judge(&rig.pool);
    assert_eq!(serving(&rig), 1);
    rig.clock.advance(Duration::from_secs(1));
    tend::judge(&rig.pool);
    assert_eq!(channel.closed().await, Closed::Retired);
    rig.pool.places.empty().await;
    tend::judge(&rig.pool);
    assert!(rig.pool.groups().is_empty());
}

#[tokio::test]
async fn recycling_is_decided_by_age_use_and_idleness() {
    let rig = Rig::new(Script::default());
    let operation = operation(1, function_limits(64, 2));
    let lease = lease(&rig, &operation, &deployment(1)).await.unwrap();
    let group = rig.pool.group(&operation.function);
    let state = group.lock();
    let cell = &state.members[0];
    let seconds = Duration::from_secs;
    let case = |load, served, age, quiet, soiled, newest| {
        let born = seconds(10_000) - age;
        let member = Member {
            cell: lease.cell().clone(),
            spec: cell.spec.clone(),
            load,
            served,
            born,
            lifetime: seconds(600),
            quiet_since: seconds(10_000) - quiet,
            soiled,
            resident: 0,
            weighed: 0,
            leaving: false,
            draining: false,
        };
        member.verdict(seconds(10_000), newest)
    };
    assert_eq!(case(1, 10, seconds(10), seconds(0), false, 1), Verdict::Stay);
    assert_eq!(case(0, 10, seconds(100), seconds(59), false, 1), Verdict::Stay);
    assert_eq!(case(0, 10, seconds(100), seconds(60), false, 1), Verdict::Drain(Cause::Idle), "idle");
    assert_eq!(case(1, 10, seconds(100), seconds(60), false, 1), Verdict::Stay, "a long call is no idleness");
    assert_eq!(case(1, 10_000, seconds(10), seconds(0), false, 1), Verdict::Replace(Cause::Count), "used up");
    assert_eq!(case(1, 10, seconds(600), seconds(0), false, 1), Verdict::Replace(Cause::Age), "old and busy");
    assert_eq!(case(0, 10, seconds(600), seconds(30), false, 1), Verdict::Drain(Cause::Age), "old and quiet");
    assert_eq!(case(1, 10, seconds(10), seconds(0), true, 1), Verdict::Drain(Cause::Trap), "soiled");
    assert_eq!(case(1, 10, seconds(10), seconds(0), false, 2), Verdict::Drain(Cause::Changed), "of an old generation");
}

#[tokio::test]
async fn those_who_wait_for_a_version_that_cannot_load_are_told_and_it_is_not_tried_at_once() {
    let script = Script::default();
    script.loads.lock().unwrap().push_back(Load::Fails);
    let rig = Rig::new(script);
    let operation = operation(1, function_limits(64, 2));
    let Err(Refusal::Unavailable { error, .. }) = lease(&rig, &operation, &deployment(1)).await else {
        panic!("not unavailable")
    };
    assert_eq!(error.to_string(), r"the function cannot be loaded: no \u{1b}such import");
    assert!(matches!(lease(&rig, &operation, &deployment(1)).await, Err(Refusal::Unavailable { .. })));
    assert_eq!(rig.script.spawned(), 1);
    rig.clock.advance(Duration::from_millis(501));
    assert!(lease(&rig, &operation, &deployment(1)).await.is_ok());
}

#[tokio::test]
async fn a_cell_that_dies_at_handover_is_replaced_by_another() {
    let script = Script::default();
    script.loads.lock().unwrap().push_back(Load::Dies);
    let rig = Rig::new(script);
    assert!(lease(&rig, &operation(1, function_limits(64, 2)), &deployment(1)).await.is_ok());
    assert_eq!(rig.script.spawned(), 2);
}

#[tokio::test]
async fn secrets_are_not_unsealed_for_a_cell_below_the_required_isolation() {
    let rig = Rig::new(Script { isolation: Isolation::Minimal, ..Script::default() });
    let unseal: crate::Unseal = Arc::new(|| panic!("unsealed"));
    let deployment = Deployment { unseal, ..deployment(1) };
    let Err(Refusal::Unavailable { error, .. }) = lease(&rig, &operation(1, function_limits(64, 2)), &deployment).await
    else {
        panic!("not unavailable")
    };
    assert!(matches!(&*error, SandboxError::Isolation { reached: Isolation::Minimal, .. }), "{error}");
    assert!(rig.script.handovers.lock().unwrap().is_empty());
    rig.pool.places.empty().await;
}

#[tokio::test]
async fn a_full_node_ends_the_cell_idle_for_longest_to_make_room() {
    let rig = Rig::with(Script::default(), Limits { cells: 3, ..limits() });
    let [one, two, three] = [1, 2, 3].map(|seed| operation(seed, function_limits(64, 2)));
    let oldest = lease(&rig, &one, &deployment(1)).await.unwrap().cell().channel.clone();
    rig.clock.advance(Duration::from_secs(1));
    let busy = lease(&rig, &two, &deployment(1)).await.unwrap();
    assert!(lease(&rig, &three, &deployment(1)).await.is_ok());
    assert_eq!(oldest.closed().await, Closed::Retired);
    assert_eq!(busy.cell().channel.why_closed(), None);
}

#[tokio::test]
async fn a_call_that_waits_too_long_is_told_to_come_back() {
    let rig = Rig::with(Script::default(), Limits { cells: 1, queue_ms: 30, ..limits() });
    let (one, two) = (operation(1, function_limits(64, 1)), operation(2, function_limits(1, 1)));
    let _busy = lease(&rig, &one, &deployment(1)).await.unwrap();
    for _ in 0..2 {
        let refusal = lease(&rig, &two, &deployment(1)).await.err().unwrap();
        assert!(matches!(refusal, Refusal::Overloaded | Refusal::Unavailable { .. }));
        assert_eq!(rig.pool.group(&two.function).lock().active, 0);
    }
}

#[tokio::test]
async fn blank_cells_are_kept_waiting_and_taken_first() {
    let rig = Rig::with(Script::default(), Limits { blank_cells: 2, ..limits() });
    until("two blank cells", || rig.pool.cells().len() == 2).await;
    let waiting: Vec<CellId> = rig.pool.cells().into_iter().map(|cell| cell.id).collect();
    let lease = lease(&rig, &operation(1, function_limits(64, 2)), &deployment(1)).await.unwrap();
    assert!(waiting.contains(&lease.cell().id));
    until("another in its place", || rig.pool.cells().len() == 3).await;
}

#[tokio::test]
async fn shutdown_waits_for_calls_then_ends_every_cell() {
    let rig = Rig::with(Script::default(), Limits { blank_cells: 1, ..limits() });
    let operation = operation(1, function_limits(64, 2));
    let lease_held = lease(&rig, &operation, &deployment(1)).await.unwrap();
    let pool = rig.pool.clone();
    let shutdown = tokio::spawn(async move { pool.shutdown().await });
    until("closing", || rig.pool.closing.load(Ordering::SeqCst)).await;
    assert!(matches!(lease(&rig, &operation, &deployment(1)).await, Err(Refusal::Closing)));
    assert_eq!(lease_held.cell().channel.why_closed(), None);
    drop(lease_held);
    shutdown.await.unwrap();
    assert!(rig.pool.cells().is_empty());
    rig.pool.places.empty().await;
}
