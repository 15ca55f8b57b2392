//! Boots, heartbeats and counts: what is missing shows.

use std::sync::Arc;

use super::disk::QuickDisk;
use super::*;
use crate::{Counts, Note};

fn started(place: &Place) -> Log {
    let config = LogConfig { segment_bytes: 1_024, ..place.config() };
    let (log, _) = place.open_with(config, Arc::new(QuickDisk)).unwrap();
    run(log.note(Note::Start { version: "1".into(), detail: String::new() })).unwrap();
    log
}

fn counts(requests: u64) -> Counts {
    Counts { totals: vec![("answered", requests), ("requests", requests)], listeners: vec!["a accepted=1".into()] }
}

fn stopped(log: Log, requests: u64) {
    run(log.beat(&counts(requests))).unwrap();
    run(log.note(Note::Stop { reason: "SIGTERM".into() })).unwrap();
    run(log.shutdown()).unwrap();
}

fn gaps(place: &Place) -> Vec<String> {
    place.verify().unwrap().gaps.into_iter().map(|gap| gap.what).collect()
}

#[test]
fn boots_are_numbered_and_a_log_that_tells_of_all_calls_has_no_gap() {
    let place = Place::new();
    for boot in 1..4 {
        let log = started(&place);
        calls(&log, 3);
        log.tally(&facts_of(9), Answer).unwrap().into_value();
        log.count("tls_failed", "192.0.2.1".parse().unwrap());
        run(log.beat(&counts(2))).unwrap();
        stopped(log, 4);
        let records = exported(&place.dir());
        let start = records.iter().rfind(|record| record["kind"] == "start").unwrap();
        assert_eq!(start["epoch"], boot);
        assert_eq!(records.last().unwrap()["epoch"], boot);
        assert_eq!(records.last().unwrap()["boot"], start["boot"]);
        let beats = records.iter().filter(|record| record["epoch"] == boot && record["kind"] == "heartbeat");
        assert_eq!(beats.map(|beat| beat["number"].as_u64().unwrap()).collect::<Vec<_>>(), [1, 2]);
    }
    assert_eq!(gaps(&place), [""; 0]);
}

#[test]
fn a_kill_shows_as_an_epoch_without_a_stop() {
    let place = Place::new();
    let log = started(&place);
    calls(&log, 2);
    let copy = place.copy();
    drop(log);
    stopped(started(&copy), 0);
    let gaps = gaps(&copy);
    assert!(gaps.len() == 1 && gaps[0].starts_with("epoch 1 ended without a stop"), "{gaps:?}");
}

#[test]
fn a_call_that_was_answered_unrecorded_would_show() {
    let place = Place::new();
    let log = started(&place);
    calls(&log, 2);
    stopped(log, 3);
    let gaps = gaps(&place);
    assert!(gaps.iter().any(|gap| gap.starts_with("3 calls were answered by now, and the end of 2")), "{gaps:?}");
    assert!(gaps.iter().any(|gap| gap.starts_with("3 calls came in epoch 1, and 2 ended")), "{gaps:?}");
}

#[test]
fn counts_of_strangers_are_in_the_log_before_the_heartbeat_that_counts_them() {
    let place = Place::new();
    let log = started(&place);
    log.tally(&facts_of(1), Answer).unwrap().into_value();
    run(log.beat(&counts(1))).unwrap();
    assert_eq!(kinds(&place.dir()), ["start", "refusals", "heartbeat"]);
    assert_eq!(gaps(&place), [""; 0]);
    drop(log);
}

#[test]
fn a_refusal_whose_caller_leaves_before_there_is_room_is_recorded() {
    let (place, disk) = (Place::new(), super::disk::TestDisk::default());
    let config = LogConfig { queue_records: 1, ..place.config() };
    let (log, _) = place.open_with(config, Arc::new(disk.clone())).unwrap();
    disk.hold();
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    let mut first = Box::pin(log.refuse(facts_of(1), Answer));
    let mut second = Box::pin(log.refuse(facts_of(2), Answer));
    assert!(first.as_mut().poll(&mut context).is_pending() && second.as_mut().poll(&mut context).is_pending());
    drop((first, second));
    disk.release();
    run(log.shutdown()).unwrap();
    assert_eq!(kinds(&place.dir()), ["refusal", "refusal"]);
}
