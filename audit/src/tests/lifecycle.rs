//! What is recorded when, and what a caller gets for it.

use std::sync::Arc;

use cofferdam_model::{Ending, Level, OutcomeFacts};

use super::disk::TestDisk;
use super::*;
use crate::Note;
use crate::query::{Filter, export, tail};

#[test]
fn a_call_without_effect_is_one_record_and_durable_when_answered() {
    let place = Place::new();
    let (log, opened) = place.open().unwrap();
    assert_eq!((opened.records, opened.torn_bytes, opened.unknown_outcomes), (0, 0, 0));
    assert_eq!(call(&log, 1).unwrap(), Some(0));
    // The copy is what a crash right now would leave.
    let copy = place.copy();
    assert_eq!(kinds(&copy.dir()), ["call"]);
    assert_eq!(copy.verify().unwrap().size, 1);
}

#[test]
fn an_intent_is_recorded_once_and_durable_before_the_effect() {
    let place = Place::new();
    let (log, _) = place.open().unwrap();
    let mut entry = log.enter(Call::new(1, Level::Strict)).unwrap();
    run(async {
        let index = entry.intent().await.unwrap().index();
        assert_eq!(index, Some(0));
        assert_eq!(kinds(&place.copy().dir()), ["intent"]);
        assert_eq!(entry.intent().await.unwrap().index(), index);
        entry.queue_intent().unwrap();
    });
    let recorded = run(entry.close(Answer)).unwrap();
    assert_eq!(recorded.index(), Some(1));
    let records = exported(&place.dir());
    assert_eq!(records.len(), 2);
    assert_eq!(records[0]["request"], records[1]["request"]);
    assert_eq!((&records[1]["kind"], &records[1]["status"]), (&"outcome".into(), &200.into()));
}

#[test]
fn a_queued_intent_can_be_waited_for_later() {
    let place = Place::new();
    let (log, _) = place.open().unwrap();
    let mut entry = log.enter(Call::new(1, Level::Standard)).unwrap();
    entry.queue_intent().unwrap();
    assert_eq!(run(entry.intent()).unwrap().index(), Some(0));
    run(entry.close(Answer)).unwrap().into_value();
    assert_eq!(kinds(&place.dir()), ["intent", "outcome"]);
}

#[test]
fn a_streamed_answer_has_intent_outcome_and_end() {
    let place = Place::new();
    let (log, _) = place.open().unwrap();
    let (recorded, closing) = run(log.enter(Call::new(1, Level::Standard)).unwrap().begin(Answer)).unwrap();
    assert_eq!(recorded.index(), Some(1));
    assert_eq!(kinds(&place.copy().dir()), ["intent", "outcome"]);
    closing.finish(OutcomeFacts { ending: Ending::ClientGone, ..outcome_facts() });
    run(log.shutdown()).unwrap();
    let records = exported(&place.dir());
    assert_eq!(records[1]["streamed"], true);
    assert_eq!((&records[2]["kind"], &records[2]["ending"]), (&"end".into(), &"client_gone".into()));
    assert_eq!(records[2]["tenant"], records[0]["tenant"]);
}

#[test]
fn what_nobody_closes_is_recorded_as_abandoned() {
    let place = Place::new();
    let (log, _) = place.open().unwrap();
    drop(log.enter(Call::new(1, Level::Standard)).unwrap());
    let mut entry = log.enter(Call::new(2, Level::Strict)).unwrap();
    run(entry.intent()).unwrap().into_value();
    drop(entry);
    let (_, closing) = run(log.enter(Call::new(3, Level::Standard)).unwrap().begin(Answer)).unwrap();
    drop(closing);
    drop(log.enter(Call::new(4, Level::Relaxed)).unwrap());
    run(log.shutdown()).unwrap();
    let told: Vec<_> = exported(&place.dir())
        .iter()
        .map(|r| format!("{} {}", r["kind"].as_str().unwrap(), r["ending"].as_str().unwrap_or("-")))
        .collect();
    let expected = [
        "call abandoned",
        "intent -",
        "outcome abandoned",
        "intent -",
        "outcome answered",
        "end abandoned",
        "call abandoned",
    ];
    assert_eq!(told, expected);
}

#[test]
fn refusals_of_the_known_are_records_and_those_of_strangers_are_counts() {
    let place = Place::new();
    let (log, _) = place.open().unwrap();
    let refusal = run(log.refuse(facts_of(1), Answer)).unwrap();
    assert_eq!(refusal.index(), Some(0));
    for _ in 0..1000 {
        assert_eq!(log.tally(&facts_of(2), Answer).unwrap().index(), None);
    }
    place.clock.advance(SECOND * 10);
    run(log.note(Note::Event { kind: "tick".into(), detail: String::new() })).unwrap();
    log.tally(&facts_of(3), Answer).unwrap().into_value();
    run(log.shutdown()).unwrap();
    let records = exported(&place.dir());
    assert_eq!(kinds(&place.dir()), ["refusal", "refusals", "event", "refusals"]);
    assert_eq!((&records[1]["count"], &records[1]["network"]), (&1000.into(), &"192.0.2.0/24".into()));
    assert_eq!((&records[1]["status"], &records[3]["count"]), (&200.into(), &1.into()));
    assert_eq!(records[3]["from"], START.plus(SECOND * 10).0);
}

#[test]
fn checkpoints_follow_the_clock_while_the_log_grows() {
    let place = Place::new();
    let disk = TestDisk::default();
    let (log, _) = place.open_with(place.config(), Arc::new(disk.clone())).unwrap();
    call(&log, 1).unwrap();
    assert_eq!(place.verify().unwrap().checkpoint_size, 0);
    place.clock.advance(SECOND);
    call(&log, 2).unwrap();
    // One rename made the first checkpoint and one the segment; the third makes this one. Whether it covers the
    // second call depends on when exactly the commit thread looked at the clock.
    disk.wait_for_renames(3);
    assert!(place.verify().unwrap().checkpoint_size >= 1);
    run(log.shutdown()).unwrap();
}

#[test]
fn after_shutdown_everything_is_signed_for_and_nothing_more_is_taken() {
    let place = Place::new();
    let (log, _) = place.open().unwrap();
    run(log.note(Note::Start { version: "0.1.0".into(), detail: "isolation=full".into() })).unwrap();
    let waiting = log.enter(Call::new(1, Level::Relaxed)).unwrap();
    run(waiting.close(Answer)).unwrap().into_value();
    run(log.shutdown()).unwrap();
    run(log.shutdown()).unwrap();
    let verified = place.verify().unwrap();
    assert_eq!((verified.size, verified.checkpoint_size, verified.torn_bytes), (2, 2, 0));
    assert!(matches!(log.enter(Call::new(2, Level::Standard)), Err(AuditError::Closed)));
    assert!(matches!(log.health(), Err(AuditError::Closed)));

    let (again, opened) = place.open().unwrap();
    assert_eq!((opened.records, opened.root), (2, verified.root));
    assert_eq!(call(&again, 3).unwrap(), Some(2));
}

#[test]
fn a_log_has_one_opener() {
    let place = Place::new();
    let (log, _) = place.open().unwrap();
    assert!(matches!(place.open(), Err(AuditError::Locked { .. })));
    drop(log);
    assert!(place.open().is_ok());
}

#[test]
fn a_segment_deleted_under_a_running_node_fails_the_log() {
    let place = Place::new();
    let (log, _) = place.open().unwrap();
    call(&log, 1).unwrap();
    fs::remove_file(place.dir().join("segments/0000000000.log")).unwrap();
    place.clock.advance(SECOND);
    // What the thread was at when the clock moved may still be acknowledged; what comes after it is not.
    assert!((2..5).any(|n| call(&log, n).is_err()));
    assert!(matches!(log.health(), Err(AuditError::Failed { .. })));
    assert!(run(log.shutdown()).is_err());
}

#[test]
fn segments_roll_are_sealed_and_read_as_one_log() {
    let place = Place::new();
    let config = LogConfig { segment_bytes: 1_024, ..place.config() };
    let (log, _) = place.open_with(config, Arc::new(Disk)).unwrap();
    (0..10).for_each(|n| assert_eq!(call(&log, n).unwrap(), Some(n)));
    run(log.note(Note::Stop { reason: "x".repeat(5_000) })).unwrap();
    let segments = fs::read_dir(place.dir().join("segments")).unwrap().count();
    assert!(segments >= 6, "{segments}");
    let first = fs::metadata(place.dir().join("segments/0000000000.log")).unwrap();
    assert!(first.permissions().readonly());
    assert_eq!(place.verify().unwrap().size, 11);
    drop(log);
    let verified = place.verify().unwrap();
    assert_eq!((verified.size, verified.checkpoint_size), (11, 11));
}

#[test]
fn queries_filter_by_tenant_and_time_and_give_lines_in_order() {
    let place = Place::new();
    let config = LogConfig { segment_bytes: 1_024, ..place.config() };
    let (log, _) = place.open_with(config, Arc::new(Disk)).unwrap();
    for n in 0..9 {
        let mut subject = Call::new(n, Level::Standard);
        subject.facts.tenant = Some(format!("t_{}", n % 3));
        run(log.enter(subject).unwrap().close(Answer)).unwrap().into_value();
        place.clock.advance(SECOND);
    }
    let count = |filter: &Filter| export(&place.dir(), filter, std::io::sink()).unwrap();
    assert_eq!(count(&Filter::default()), 9);
    assert_eq!(count(&Filter { tenant: Some("t_1".into()), ..Filter::default() }), 3);
    let (from, until) = (Some(START.plus(SECOND * 2)), Some(START.plus(SECOND * 5)));
    assert_eq!(count(&Filter { from, until, tenant: None }), 3);
    assert_eq!(count(&Filter { from, until, tenant: Some("t_2".into()) }), 1);

    let newest = tail(&place.dir(), 4).unwrap();
    assert_eq!(newest.len(), 4);
    assert!(newest[0].starts_with("{\"index\":5,\"time\":\"2026-11-20T10:38:05.000000Z\",\"action\""), "{}", newest[0]);
    assert!(newest[3].starts_with("{\"index\":8,"));
    assert_eq!(tail(&place.dir(), 100).unwrap().len(), 9);
    assert_eq!(tail(&place.dir(), 0).unwrap().len(), 0);
}

#[test]
fn settings_that_cannot_work_are_refused() {
    let place = Place::new();
    let good = place.config();
    for config in [
        LogConfig { origin: "another.example/log".into(), ..good.clone() },
        LogConfig { origin: "a b".into(), ..good.clone() },
        LogConfig { segment_bytes: 1_023, ..good.clone() },
        LogConfig { queue_records: 0, ..good.clone() },
        LogConfig { queue_records: usize::MAX, ..good.clone() },
        LogConfig { checkpoint_every: Duration::ZERO, ..good.clone() },
        LogConfig { rollup_window: Duration::ZERO, ..good },
    ] {
        assert!(matches!(place.open_with(config, Arc::new(Disk)), Err(AuditError::Config { .. })));
    }
}
