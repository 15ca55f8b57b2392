//! What several tenants on one node owe each other, over scripted cells.

use cofferdam_model::TenantLimits;

use super::*;
use crate::testing::operation_of;

fn under(tenant: TenantLimits) -> Deployment {
    Deployment { tenant: Arc::new(tenant), ..deployment(1) }
}

fn wait_for(rig: &Rig, operation: &Invoke, deployment: Deployment) -> tokio::task::JoinHandle<Result<Lease, Refusal>> {
    let (pool, operation) = (rig.pool.clone(), operation.clone());
    tokio::spawn(async move { pool.acquire(&Want::of(&operation, &deployment)).await })
}

fn waiting(rig: &Rig, operation: &Invoke) -> usize {
    rig.pool.group(&operation.function).lock().waiting.len()
}

/// Has everything that can go on without another call go on.
async fn settle(rig: &Rig) {
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
    rig.pool.make_room();
}

#[tokio::test]
async fn calls_over_the_tenants_concurrency_are_refused_over_all_its_functions() {
    let rig = Rig::new(Script::default());
    let limits = TenantLimits { concurrency: 2, ..TenantLimits::default() };
    let [one, two] = [1, 2].map(|seed| operation(seed, function_limits(64, 1)));
    let first = lease(&rig, &one, &under(limits.clone())).await.unwrap();
    let _second = lease(&rig, &two, &under(limits.clone())).await.unwrap();
    for each in [&one, &two] {
        assert!(matches!(lease(&rig, each, &under(limits.clone())).await, Err(Refusal::Overloaded)));
    }
    let other = operation_of(7, 3, function_limits(64, 1));
    assert!(lease(&rig, &other, &under(limits.clone())).await.is_ok(), "another tenant's calls are its own");
    drop(first);
    assert!(lease(&rig, &two, &under(limits)).await.is_ok());
}

#[tokio::test]
async fn calls_over_the_tenants_queue_are_refused_at_once() {
    let rig = Rig::new(Script::default());
    let limits = TenantLimits { cells: 1, queued_calls: 2, ..TenantLimits::default() };
    let [one, two] = [1, 2].map(|seed| operation(seed, function_limits(64, 1)));
    let busy = lease(&rig, &one, &under(limits.clone())).await.unwrap();
    let queued: Vec<_> = (0..2).map(|_| wait_for(&rig, &two, under(limits.clone()))).collect();
    until("two to wait", || waiting(&rig, &two) == 2).await;
    assert!(matches!(lease(&rig, &two, &under(limits.clone())).await, Err(Refusal::Overloaded)));
    drop(busy);
    for call in queued {
        assert!(call.await.unwrap().is_ok());
    }
    assert!(lease(&rig, &two, &under(limits)).await.is_ok(), "who waits no more does not count");
}

#[tokio::test]
async fn a_tenant_at_its_limit_of_cells_gives_up_an_idle_one_of_its_own_and_no_busy_one() {
    let rig = Rig::new(Script::default());
    let limits = TenantLimits { cells: 2, ..TenantLimits::default() };
    let [one, two, three] = [1, 2, 3].map(|seed| operation(seed, function_limits(64, 1)));
    let stranger = operation_of(7, 9, function_limits(64, 1));
    let foreign = lease(&rig, &stranger, &under(limits.clone())).await.unwrap().cell().channel.clone();
    let busy = lease(&rig, &one, &under(limits.clone())).await.unwrap();
    let idle = lease(&rig, &two, &under(limits.clone())).await.unwrap().cell().channel.clone();
    assert!(lease(&rig, &three, &under(limits.clone())).await.is_ok());
    assert_eq!(idle.closed().await, Closed::Retired);
    assert_eq!((busy.cell().channel.why_closed(), foreign.why_closed()), (None, None));
    let held = lease(&rig, &three, &under(limits.clone())).await.unwrap();
    let fourth = wait_for(&rig, &two, under(limits));
    until("it to wait", || waiting(&rig, &two) == 1).await;
    settle(&rig).await;
    assert!(!fourth.is_finished() && foreign.why_closed().is_none(), "no cell of another tenant goes for it");
    drop(held);
    assert!(fourth.await.unwrap().is_ok(), "a cell that falls idle later makes room too");
    let ended: u64 =
        rig.pool.gauges().ended.into_iter().filter(|(cause, _)| *cause == Cause::Evicted).map(|x| x.1).sum();
    assert_eq!(ended, 2);
}

#[tokio::test]
async fn one_tenant_cannot_hold_all_cells_of_the_node() {
    let rig = Rig::with(Script::default(), Limits { cells: 4, queue_ms: 50, ..limits() });
    let mut held = Vec::new();
    for seed in 0..3 {
        held.push(lease(&rig, &operation(seed, function_limits(64, 1)), &deployment(1)).await.unwrap());
    }
    assert!(matches!(
        lease(&rig, &operation(3, function_limits(64, 1)), &deployment(1)).await,
        Err(Refusal::Overloaded)
    ));
    assert!(lease(&rig, &operation_of(7, 4, function_limits(64, 1)), &deployment(1)).await.is_ok());
}

#[tokio::test]
async fn a_freed_place_goes_to_the_tenant_with_the_fewest_cells() {
    let rig = Rig::with(Script::default(), Limits { cells: 4, ..limits() });
    let mut big = Vec::new();
    for seed in 0..3 {
        big.push(lease(&rig, &operation(seed, function_limits(64, 1)), &deployment(1)).await.unwrap());
    }
    let small = lease(&rig, &operation_of(7, 10, function_limits(64, 1)), &deployment(1)).await.unwrap();
    let second_of_small = operation_of(7, 11, function_limits(64, 1));
    let first_of_none = operation_of(8, 12, function_limits(64, 1));
    let impatient = wait_for(&rig, &second_of_small, deployment(1));
    until("the first to wait", || rig.pool.shares.needs().wants.len() == 1).await;
    let newcomer = wait_for(&rig, &first_of_none, deployment(1));
    until("both to wait", || rig.pool.shares.needs().wants.len() == 2).await;
    big.pop();
    let _served = newcomer.await.unwrap().unwrap();
    assert!(!impatient.is_finished(), "it came first, but its tenant has a cell");
    big.pop();
    assert!(impatient.await.unwrap().is_ok());
    drop(small);
}

#[tokio::test]
async fn an_idle_cell_of_a_tenant_below_its_share_stays_while_another_is_above_it() {
    let rig = Rig::with(Script::default(), Limits { cells: 6, queue_ms: 10_000, ..limits() });
    let mut big = Vec::new();
    for seed in 0..5 {
        big.push(lease(&rig, &operation(seed, function_limits(64, 1)), &deployment(1)).await.unwrap());
    }
    let idle = lease(&rig, &operation_of(7, 10, function_limits(64, 1)), &deployment(1)).await.unwrap();
    let quiet = idle.cell().channel.clone();
    drop(idle);
    let newcomer = wait_for(&rig, &operation_of(8, 11, function_limits(64, 1)), deployment(1));
    until("it to wait", || rig.pool.shares.is_pressed()).await;
    settle(&rig).await;
    assert!(!newcomer.is_finished() && quiet.why_closed().is_none());
    let busy = big.pop().unwrap();
    let given = busy.cell().channel.clone();
    drop(busy);
    assert!(newcomer.await.unwrap().is_ok());
    assert_eq!((given.closed().await, quiet.why_closed()), (Closed::Retired, None));
}

#[tokio::test]
async fn a_cell_that_would_only_be_good_to_have_takes_nothing_from_anybody() {
    let rig = Rig::with(Script::default(), Limits { cells: 2, ..limits() });
    let stranger = operation_of(7, 1, function_limits(64, 1));
    let idle = lease(&rig, &stranger, &deployment(1)).await.unwrap().cell().channel.clone();
    let busy = operation(2, function_limits(64, 2));
    let mut leases = Vec::new();
    for _ in 0..12 {
        leases.push(lease(&rig, &busy, &deployment(1)).await.unwrap());
    }
    settle(&rig).await;
    assert_eq!((idle.why_closed(), rig.script.spawned()), (None, 2));
}

#[tokio::test]
async fn a_used_up_cell_is_replaced_also_where_there_is_no_room_for_two() {
    let rig = Rig::new(Script::default());
    let recycle = Recycle { after_calls: 2, ..Recycle::default() };
    let tenant = Arc::new(TenantLimits { cells: 1, ..TenantLimits::default() });
    let deployment = Deployment { recycle, tenant, ..deployment(1) };
    let operation = operation(1, function_limits(64, 2));
    let mut ids = std::collections::HashSet::new();
    for _ in 0..6 {
        // Used up cells go once in a second.
        rig.clock.advance(Duration::from_secs(1));
        let lease = lease(&rig, &operation, &deployment).await.unwrap();
        let (id, ordinal) = (lease.cell().id.clone(), lease.ordinal());
        drop(lease);
        settle(&rig).await;
        assert!(ordinal <= 2, "{ordinal}");
        ids.insert(id);
    }
    assert_eq!(ids.len(), 3);
}
