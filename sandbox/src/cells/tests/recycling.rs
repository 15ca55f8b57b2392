//! Why a cell goes, and that each reason is told and counted, over scripted cells.

use super::*;

fn ended(rig: &Rig, cause: Cause) -> u64 {
    rig.pool.gauges().ended.into_iter().find(|(each, _)| *each == cause).unwrap().1
}

#[tokio::test]
async fn a_cell_that_holds_too_much_after_a_call_is_replaced() {
    let rig = Rig::new(Script::default());
    let operation = operation(1, FunctionLimits { memory_bytes: 1024 * 1024, ..function_limits(64, 1) });
    let bound = 2 * 1024 * 1024 + 64 * 1024 * 1024;
    let first = lease(&rig, &operation, &deployment(1)).await.unwrap();
    let (id, channel) = (first.cell().id.clone(), first.cell().channel.clone());
    rig.script.resident.store(bound, Ordering::SeqCst);
    drop(first);
    tend::judge(&rig.pool);
    assert_eq!(rig.pool.cells()[0].memory_bytes, bound, "it is looked at after a call");
    assert_eq!(lease(&rig, &operation, &deployment(1)).await.unwrap().cell().id, id, "not too much yet");
    rig.script.resident.store(bound + 1, Ordering::SeqCst);
    tend::judge(&rig.pool);
    assert_eq!(channel.closed().await, Closed::Retired);
    until("it to be counted", || ended(&rig, Cause::Memory) == 1).await;
}

#[tokio::test]
async fn a_function_may_say_how_much_is_too_much() {
    let rig = Rig::new(Script::default());
    let recycle = Recycle { memory_bytes: 4096, ..Recycle::default() };
    let deployment = Deployment { recycle, ..deployment(1) };
    let operation = operation(1, function_limits(64, 1));
    let channel = lease(&rig, &operation, &deployment).await.unwrap().cell().channel.clone();
    rig.script.resident.store(4097, Ordering::SeqCst);
    tend::judge(&rig.pool);
    assert_eq!(channel.closed().await, Closed::Retired);
}

#[tokio::test]
async fn every_reason_is_counted_as_what_it_is() {
    type Act = fn(&Rig, Lease, &Invoke);
    let cases: [(Cause, Act); 7] = [
        (Cause::Idle, |rig, lease, _| {
            drop(lease);
            rig.clock.advance(Duration::from_secs(61));
            tend::judge(&rig.pool);
        }),
        (Cause::Age, |rig, lease, _| {
            drop(lease);
            for _ in 0..12 {
                rig.clock.advance(Duration::from_secs(59));
                let group = rig.pool.groups().values().next().cloned().unwrap();
                group.lock().members.iter_mut().for_each(|member| member.quiet_since += Duration::from_secs(59));
                tend::judge(&rig.pool);
            }
        }),
        (Cause::Trap, |_, mut lease, _| lease.ended(Ending::Trapped)),
        (Cause::Killed, |_, lease, _| lease.cell().channel.close(Closed::Expired(1))),
        (Cause::Died, |_, lease, _| lease.cell().channel.close(Closed::Gone)),
        (Cause::Asked, |rig, lease, operation| {
            assert_eq!(rig.pool.retire(&operation.function, Cause::Asked), 1);
            assert_eq!(rig.pool.retire(&operation.function, Cause::Asked), 0, "it was told already");
            drop(lease);
        }),
        (Cause::Changed, |rig, lease, operation| {
            assert_eq!(rig.pool.retire_tenant(&operation.tenant, Cause::Changed), 1);
            drop(lease);
        }),
    ];
    for (cause, act) in cases {
        let rig = Rig::new(Script::default());
        let operation = operation(1, function_limits(64, 1));
        let leased = lease(&rig, &operation, &deployment(1)).await.unwrap();
        act(&rig, leased, &operation);
        until(cause.as_str(), || ended(&rig, cause) == 1).await;
        let all: u64 = rig.pool.gauges().ended.iter().map(|(_, count)| count).sum();
        // A cell that is old while it is in use is replaced; for all others there is nothing to do any more.
        let started = if cause == Cause::Age { 2 } else { 1 };
        assert_eq!((all, rig.pool.gauges().started), (1, started), "{}", cause.as_str());
    }
}

#[tokio::test]
async fn a_tenants_cells_go_together_and_nobody_elses() {
    let rig = Rig::new(Script::default());
    let [one, two] = [1, 2].map(|seed| operation(seed, function_limits(64, 1)));
    let other = crate::testing::operation_of(7, 3, function_limits(64, 1));
    let mut channels = Vec::new();
    for each in [&one, &two, &other] {
        channels.push(lease(&rig, each, &deployment(1)).await.unwrap().cell().channel.clone());
    }
    assert_eq!(rig.pool.retire_tenant(&one.tenant, Cause::Changed), 2);
    assert_eq!(channels[0].closed().await, Closed::Retired);
    assert_eq!(channels[1].closed().await, Closed::Retired);
    assert_eq!(channels[2].why_closed(), None);
}

#[tokio::test]
async fn what_is_under_way_is_counted_when_asked() {
    let rig = Rig::with(Script::default(), Limits { blank_cells: 1, ..limits() });
    let operation = operation(1, function_limits(64, 1));
    let lease = lease(&rig, &operation, &deployment(1)).await.unwrap();
    until("another blank cell", || rig.pool.gauges().blank == 1).await;
    let gauges = rig.pool.gauges();
    assert_eq!((gauges.serving, gauges.draining, gauges.calls, gauges.queued), (1, 0, 1, 0));
    rig.pool.retire(&operation.function, Cause::Asked);
    assert_eq!((rig.pool.gauges().serving, rig.pool.gauges().draining), (0, 1));
    drop(lease);
    until("it to go", || rig.pool.gauges().draining == 0 && rig.pool.gauges().calls == 0).await;
}

/// A deployment whose cell waits, when it is about to be filled, until it is told to go on; and how to know and tell.
fn slow(generation: u64) -> (Deployment, std::sync::mpsc::Receiver<()>, std::sync::mpsc::Sender<()>) {
    let (reached, is_reached) = std::sync::mpsc::channel();
    let (go_on, told) = std::sync::mpsc::channel();
    let told = std::sync::Mutex::new(told);
    let unseal: crate::Unseal = Arc::new(move || {
        let _ = reached.send(());
        let _ = told.lock().unwrap().recv();
        Ok(cofferdam_model::Env::new())
    });
    (Deployment { unseal, ..deployment(generation) }, is_reached, go_on)
}

#[tokio::test]
async fn a_cell_on_its_way_when_all_are_told_to_go_serves_nobody_who_came_after() {
    // Where the tenant's settings change, calls after the change ask for another generation; where a policy does, not.
    for (newer, cause) in [(2, Cause::Changed), (1, Cause::Changed), (1, Cause::Asked)] {
        let rig = Rig::new(Script::default());
        let operation = operation(1, function_limits(64, 4));
        let (before, reached, go_on) = slow(1);
        let (pool, first) = (rig.pool.clone(), operation.clone());
        let waiting = tokio::spawn(async move { pool.acquire(&Want::of(&first, &before)).await });
        until("the first to be filled", || reached.try_recv().is_ok()).await;
        rig.pool.retire_tenant(&operation.tenant, cause);
        let after = lease(&rig, &operation, &deployment(newer)).await.unwrap();
        go_on.send(()).unwrap();
        let old = waiting.await.unwrap().unwrap();
        assert_ne!(old.cell().id, after.cell().id, "who waited from before is served by what is from before");
        let again = lease(&rig, &operation, &deployment(newer)).await.unwrap();
        assert_eq!(again.cell().id, after.cell().id);
        let channel = old.cell().channel.clone();
        assert_eq!(channel.why_closed(), None, "it still has a call");
        drop(old);
        assert_eq!(channel.closed().await, Closed::Retired);
        until("it to be counted", || ended(&rig, cause) == 1).await;
        assert_eq!((after.cell().channel.why_closed(), rig.script.spawned()), (None, 2));
    }
}

#[tokio::test]
async fn a_cell_nobody_waits_for_any_more_goes_at_once_when_it_is_outdated() {
    let rig = Rig::new(Script::default());
    let operation = operation(1, function_limits(64, 4));
    let (before, reached, go_on) = slow(1);
    let (pool, first) = (rig.pool.clone(), operation.clone());
    let waiting = tokio::spawn(async move { pool.acquire(&Want::of(&first, &before)).await.map(drop) });
    until("the first to be filled", || reached.try_recv().is_ok()).await;
    rig.pool.retire(&operation.function, Cause::Changed);
    waiting.abort();
    assert!(waiting.await.is_err());
    go_on.send(()).unwrap();
    until("it to be gone", || ended(&rig, Cause::Changed) == 1).await;
    assert_eq!(serving(&rig), 0);
}

#[tokio::test]
async fn small_limits_cannot_make_the_node_start_processes_without_pause() {
    let by_count = Recycle { after_calls: 1, ..Recycle::default() };
    let by_memory = Recycle { memory_bytes: 1, ..Recycle::default() };
    for recycle in [by_count, by_memory] {
        let rig = Rig::new(Script::default());
        rig.script.resident.store(2, Ordering::SeqCst);
        let operation = operation(1, function_limits(64, 4));
        let deployment = Deployment { recycle, ..deployment(1) };
        let mut last = lease(&rig, &operation, &deployment).await.unwrap().cell().id.clone();
        for round in 1..=3 {
            for _ in 0..20 {
                drop(lease(&rig, &operation, &deployment).await.unwrap());
                tend::judge(&rig.pool);
            }
            until("another in its place", || serving(&rig) == 1 && rig.pool.cells()[0].id != last).await;
            for _ in 0..20 {
                last = lease(&rig, &operation, &deployment).await.unwrap().cell().id.clone();
                tend::judge(&rig.pool);
            }
            assert_eq!(rig.script.spawned(), 1 + round, "once in a second");
            rig.clock.advance(Duration::from_secs(1));
        }
    }
}

#[tokio::test]
async fn cells_started_together_do_not_grow_old_together() {
    let rig = Rig::new(Script::default());
    let mut lifetimes = std::collections::BTreeSet::new();
    for seed in 1..=20 {
        let operation = operation(seed, function_limits(1, 1));
        let recycle = Recycle { after_seconds: 1_000, ..Recycle::default() };
        drop(lease(&rig, &operation, &Deployment { recycle, ..deployment(1) }).await.unwrap());
        lifetimes.insert(rig.pool.group(&operation.function).lock().members[0].lifetime);
    }
    let (least, most) = (Duration::from_secs(900), Duration::from_secs(1_100));
    assert!(lifetimes.iter().all(|lifetime| (least..=most).contains(lifetime)), "{lifetimes:?}");
    assert!(lifetimes.len() > 10, "{lifetimes:?}");
    assert!(*lifetimes.last().unwrap() - *lifetimes.first().unwrap() > Duration::from_secs(50), "{lifetimes:?}");
}
