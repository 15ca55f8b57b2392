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
