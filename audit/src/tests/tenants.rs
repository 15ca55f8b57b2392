//! Each tenant's records have a tree of their own, whose root the log records, and nothing of another tenant's.

use cofferdam_model::TenantId;

use super::tiles::deriving;
use super::*;
use crate::roots::Batch;
use crate::{TenantHead, check_tenant, rebuild, record_line};

fn tenant(number: u64) -> TenantId {
    TenantId::mint(&SeededRandom::new(number))
}

fn call_in(log: &Log, number: u64, tenant: &TenantId) {
    let mut subject = Call::new(number, Level::Standard);
    subject.facts.tenant = Some(tenant.to_string());
    let entry = log.enter(subject).unwrap();
    run(entry.close(Answer)).map(|recorded| recorded.index()).unwrap();
}

#[test]
fn a_tenants_tree_has_its_own_records_and_their_root_is_in_the_log() {
    let place = Place::new();
    let log = deriving(&place);
    let (a, b) = (tenant(1), tenant(2));
    for number in 0..300 {
        call_in(&log, number, if number % 3 == 0 { &a } else { &b });
    }
    let log = roots_recorded(&place, log);
    let page = log.tenant_page(&a, 0).unwrap();
    assert_eq!((page.size, page.entries.len(), page.next), (100, 100, None));
    assert!(page.entries.iter().all(|entry| entry.contains(a.as_str()) && !entry.contains(b.as_str())));
    let roots = page.committed.expect("a recorded root");
    assert_eq!((roots.size, roots.count), (100, 2));
    assert!(!roots.entry.contains(b.as_str()) && roots.entry.contains("tenant_roots"));
    assert!(roots.proof.is_some());
    assert_eq!(log.tenant_page(&tenant(3), 0).unwrap().size, 0);
    assert_eq!(log.tenant_checkpoint(&tenant(3)).unwrap(), None);
    drop(log);
    let made = rebuild(&place.dir(), &place.vkey(), Some(place.signer())).unwrap();
    assert_eq!((made.tenants, made.roots, made.wrong.len()), (2, 1, 0));
}

/// Lets the log record the roots of tenants' trees, and publish a checkpoint over that.
fn roots_recorded(place: &Place, log: Log) -> Log {
    let before = log.records();
    until(place, || log.records() > before);
    let after = log.records();
    until(place, || log.published().is_some_and(|published| published.size >= after));
    drop(log);
    deriving(place)
}

/// Lets time go by until something has come true.
fn until(place: &Place, come: impl Fn() -> bool) {
    while !come() {
        place.clock.advance(SECOND);
        std::thread::yield_now();
    }
}

/// A tenant's export, by lines.
fn exported_of(log: &Log, tenant: &TenantId) -> Vec<String> {
    let page = log.tenant_page(tenant, 0).unwrap();
    let head = TenantHead::of(tenant, &page).unwrap().line();
    let records = (0..).zip(&page.entries).map(|(n, entry)| record_line(n, entry));
    std::iter::once(head).chain(records).collect()
}

#[test]
fn a_tenant_finds_out_by_its_export_whether_a_record_of_its_own_is_missing() {
    let place = Place::new();
    let log = deriving(&place);
    let (a, b) = (tenant(1), tenant(2));
    for number in 0..30 {
        call_in(&log, number, if number % 3 == 0 { &a } else { &b });
    }
    let log = roots_recorded(&place, log);
    // One more, which no recorded root covers yet.
    call_in(&log, 31, &a);
    drop(log);
    let log = deriving(&place);
    let lines = exported_of(&log, &a);
    let check = |lines: &[String]| check_tenant(lines.concat().as_bytes(), &place.vkey());
    let found = check(&lines).unwrap();
    assert_eq!((found.size, found.recorded), (11, 10));
    assert!(found.origin.ends_with(&format!("/tenant/{a}")));

    for missing in 1..lines.len() {
        let mut less = lines.clone();
        less.remove(missing);
        assert!(check(&less).is_err(), "without line {missing}");
        // Even if those that follow are numbered anew.
        let mut anew = lines.clone();
        anew.remove(missing);
        for (n, line) in (0..).zip(anew.iter_mut().skip(1)) {
            let mut value: serde_json::Value = serde_json::from_str(line).unwrap();
            value["n"] = n.into();
            *line = format!("{value}\n");
        }
        assert!(check(&anew).is_err(), "without line {missing}, renumbered");
    }
    let others = exported_of(&log, &b);
    let swapped = |at: usize| {
        let mut swapped = lines.clone();
        swapped[at] = others[at].clone();
        check(&swapped)
    };
    assert!((0..lines.len()).all(|at| swapped(at).is_err()), "nothing of another tenant's stands in for one's own");
    let whole = lines.concat();
    for at in (0..whole.len()).step_by(7) {
        let mut changed = whole.clone().into_bytes();
        changed[at] ^= 1;
        if let Ok(found) = check_tenant(changed.as_slice(), &place.vkey()) {
            panic!("byte {at} changed: {found:?}");
        }
    }
    assert!(check_tenant(whole.as_bytes(), &Place::other_key()).is_err());
}

#[test]
fn roots_that_leave_a_record_out_are_found_by_whoever_rebuilds() {
    let place = Place::new();
    let log = deriving(&place);
    let a = tenant(1);
    (0..10).for_each(|number| call_in(&log, number, &a));
    // What an operator would record who leaves the last record out of the tenant's tree.
    let batch = Batch { until: 10, count: 1, root: [7; 32] };
    log.shared().queue_unawaited(|stamp| crate::record::tenant_roots(stamp, &batch), None).unwrap();
    drop(log);
    let made = rebuild(&place.dir(), &place.vkey(), Some(place.signer())).unwrap();
    assert_eq!((made.roots, made.wrong), (0, vec![10]));
}

#[test]
fn trees_of_more_tenants_than_are_held_in_memory_are_right() {
    let place = Place::new();
    let log = deriving(&place);
    let tenants: Vec<TenantId> = (0..600).map(tenant).collect();
    for round in 0..2 {
        for (number, tenant) in (0..).zip(&tenants) {
            call_in(&log, round * 1_000 + number, tenant);
        }
    }
    let log = roots_recorded(&place, log);
    for tenant in tenants.iter().step_by(97) {
        let lines = exported_of(&log, tenant);
        assert_eq!(check_tenant(lines.concat().as_bytes(), &place.vkey()).unwrap().recorded, 2);
    }
    drop(log);
    let made = rebuild(&place.dir(), &place.vkey(), Some(place.signer())).unwrap();
    assert_eq!((made.tenants, made.wrong.len()), (600, 0));
}

#[test]
fn a_kill_at_any_time_leaves_trees_that_go_on() {
    let place = Place::new();
    let a = tenant(1);
    let mut log = deriving(&place);
    for round in 0..6 {
        (0..50).for_each(|number| call_in(&log, round * 100 + number, &a));
        drop(log);
        // Whatever had not been written when the process died.
        for lost in ["tenant/state", "tile/state"].iter().take((round % 3) as usize) {
            let _ = fs::remove_file(place.dir().join(lost));
        }
        log = deriving(&place);
    }
    let log = roots_recorded(&place, log);
    let found = check_tenant(exported_of(&log, &a).concat().as_bytes(), &place.vkey()).unwrap();
    assert_eq!((found.size, found.recorded), (300, 300));
}
