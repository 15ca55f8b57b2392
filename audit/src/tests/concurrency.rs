//! Many at once, too many at once, and callers who leave.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use cofferdam_model::Level;

use super::disk::TestDisk;
use super::*;

fn held(place: &Place, queue_records: usize) -> (Log, TestDisk) {
    let disk = TestDisk::default();
    let config = LogConfig { queue_records, ..place.config() };
    let (log, _) = place.open_with(config, Arc::new(disk.clone())).unwrap();
    disk.hold();
    (log, disk)
}

fn poll_once<F: Future>(future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// Ends an entry in one of the many ways one can end.
fn end(log: &Log, number: u64) {
    let level = Level::ALL[number as usize % 3];
    let mut entry = log.enter(Call::new(number, level)).unwrap();
    match number % 7 {
        0 => run(entry.close(Answer)).unwrap().into_value(),
        1 => {
            run(entry.intent()).unwrap().into_value();
            run(entry.close(Answer)).unwrap().into_value()
        }
        2 => {
            entry.queue_intent().unwrap();
            drop(entry);
            Answer
        }
        3 => {
            let (answer, closing) = run(entry.begin(Answer)).unwrap();
            closing.finish(outcome_facts());
            answer.into_value()
        }
        4 => {
            let (answer, closing) = run(entry.begin(Answer)).unwrap();
            drop(closing);
            answer.into_value()
        }
        5 => {
            let mut future = pin!(entry.close(Answer));
            let _left = poll_once(future.as_mut());
            Answer
        }
        _ => {
            let mut future = pin!(entry.begin(Answer));
            let _left = poll_once(future.as_mut());
            Answer
        }
    };
}

#[test]
fn every_entry_has_exactly_one_outcome_whoever_ends_it_and_however() {
    const THREADS: u64 = 8;
    const ENTRIES: u64 = 105;
    let place = Place::new();
    // Room for all, so that no relaxed record is dropped: this test counts them.
    let config = LogConfig { queue_records: 4_096, segment_bytes: 64 * 1024, ..place.config() };
    let (log, _) = place.open_with(config, Arc::new(Disk)).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let log = &log;
            scope.spawn(move || (0..ENTRIES).for_each(|n| end(log, thread * ENTRIES + n)));
        }
    });
    run(log.shutdown()).unwrap();

    let mut outcomes: HashMap<String, u32> = HashMap::new();
    let mut open_streams: HashMap<String, i32> = HashMap::new();
    for record in exported(&place.dir()) {
        let request = record["request"].as_str().unwrap().to_owned();
        match record["kind"].as_str().unwrap() {
            "call" | "outcome" => *outcomes.entry(request.clone()).or_default() += 1,
            "end" => *open_streams.entry(request.clone()).or_default() -= 1,
            other => assert_eq!(other, "intent"),
        }
        if record["streamed"] == true {
            *open_streams.entry(request).or_default() += 1;
        }
    }
    assert_eq!(outcomes.len() as u64, THREADS * ENTRIES);
    assert!(outcomes.values().all(|count| *count == 1));
    assert!(open_streams.len() as u64 >= THREADS * ENTRIES * 2 / 7);
    assert!(open_streams.values().all(|open| *open == 0));
    let (_, opened) = place.open().unwrap();
    assert_eq!((opened.unknown_outcomes, opened.torn_bytes), (0, 0));
}

#[test]
fn a_log_can_be_verified_and_read_while_it_is_written() {
    let place = Place::new();
    let config = LogConfig { segment_bytes: 32 * 1024, ..place.config() };
    let (log, _) = place.open_with(config, Arc::new(super::disk::QuickDisk)).unwrap();
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..4u64)
            .map(|thread| {
                let log = &log;
                scope.spawn(move || (0..200).for_each(|n| assert!(call(log, thread * 1000 + n).is_ok())))
            })
            .collect();
        let mut before = 0;
        while !writers.iter().all(std::thread::ScopedJoinHandle::is_finished) {
            let verified = place.verify().unwrap();
            assert!(verified.size >= before);
            before = verified.size;
            assert!(exported(&place.dir()).len() as u64 >= before);
            query::tail(&place.dir(), 10).unwrap();
        }
    });
    assert_eq!(place.verify().unwrap().size, 800);
}

#[test]
fn standard_records_wait_for_room_in_the_queue() {
    let place = Place::new();
    let (log, disk) = held(&place, 1);
    let first = log.enter(Call::new(1, Level::Standard)).unwrap();
    let second = log.enter(Call::new(2, Level::Standard)).unwrap();
    let (first, second) = run(async {
        let (mut first, mut second) = (pin!(first.close(Answer)), pin!(second.close(Answer)));
        assert!(poll_once(first.as_mut()).is_pending());
        assert!(poll_once(second.as_mut()).is_pending());
        disk.release();
        tokio::join!(first, second)
    });
    assert_eq!((first.unwrap().index(), second.unwrap().index()), (Some(0), Some(1)));
}

#[test]
fn relaxed_records_without_room_leave_a_gap_that_is_counted() {
    let place = Place::new();
    let (log, disk) = held(&place, 2);
    for n in 0..5 {
        let recorded = run(log.enter(Call::new(n, Level::Relaxed)).unwrap().close(Answer)).unwrap();
        assert_eq!(recorded.index(), None);
    }
    disk.release();
    run(log.shutdown()).unwrap();
    let records = exported(&place.dir());
    let kept = records.iter().filter(|record| record["kind"] == "call").count();
    let dropped: u64 = records.iter().filter_map(|record| record["dropped"].as_u64()).sum();
    assert_eq!((kept, dropped), (2, 3));
}

#[test]
fn a_log_hopelessly_behind_takes_no_new_calls_but_ends_those_it_took() {
    let place = Place::new();
    let (log, disk) = held(&place, 1);
    let entries: Vec<_> = (0..3).map(|n| log.enter(Call::new(n, Level::Standard)).unwrap()).collect();
    drop(entries);
    assert!(matches!(log.enter(Call::new(9, Level::Standard)), Err(AuditError::Full)));
    disk.release();
    run(log.shutdown()).unwrap();
    assert_eq!(kinds(&place.dir()), ["call", "call", "call"]);
}

#[test]
fn a_caller_who_leaves_while_waiting_for_room_leaves_an_abandoned_call() {
    let place = Place::new();
    let (log, disk) = held(&place, 1);
    let first = log.enter(Call::new(1, Level::Standard)).unwrap();
    let second = log.enter(Call::new(2, Level::Standard)).unwrap();
    {
        let (mut first, mut second) = (pin!(first.close(Answer)), pin!(second.close(Answer)));
        assert!(poll_once(first.as_mut()).is_pending());
        assert!(poll_once(second.as_mut()).is_pending());
    }
    disk.release();
    run(log.shutdown()).unwrap();
    let endings: Vec<_> = exported(&place.dir()).iter().map(|record| record["ending"].clone()).collect();
    assert_eq!(endings, ["answered", "abandoned"]);
}

#[test]
fn records_that_wait_are_committed_together() {
    let place = Place::new();
    let (log, disk) = held(&place, 64);
    let entries: Vec<_> = (0..21).map(|n| log.enter(Call::new(n, Level::Standard)).unwrap()).collect();
    run(async {
        let mut waiting: Vec<_> = entries.into_iter().map(|entry| Box::pin(entry.close(Answer))).collect();
        waiting.iter_mut().for_each(|close| assert!(poll_once(close.as_mut()).is_pending()));
        disk.release();
        for (n, close) in (0..).zip(waiting) {
            assert_eq!(close.await.unwrap().index(), Some(n));
        }
    });
}

#[test]
fn what_one_tenant_does_to_the_outside_waits_for_the_log_and_never_fills_it() {
    let (place, disk) = (Place::new(), TestDisk::default());
    let config = LogConfig { queue_records: 32, ..place.config() };
    let (log, _) = place.open_with(config, Arc::new(disk.clone())).unwrap();
    let mut entry = log.enter(Call::new(1, Level::Standard)).unwrap();
    let effects = run(entry.effects()).unwrap();
    disk.hold();
    let facts = cofferdam_model::EgressFacts {
        number: 1,
        method: "GET".into(),
        host: "a.example".into(),
        port: 443,
        rule: None,
        decision: None,
        address: None,
        tls: None,
        credential: None,
        status: None,
        ending: cofferdam_model::EgressEnd::DeniedByRule,
        bytes_out: 0,
        bytes_in: 0,
        wall_us: 0,
    };
    // Far more than the queue may hold before calls are refused.
    let mut begun = 0;
    for _ in 0..1000 {
        if let Poll::Ready(effect) = poll_once(pin!(effects.clone().place())) {
            effect.unwrap().egress(&facts).unwrap();
            begun += 1;
        }
    }
    assert_eq!(begun, 2, "an eighth of half of the queue's places");
    // Neither calls nor what others do wait for that.
    drop(log.enter(Call::new(2, Level::Standard)).unwrap());
    let others = CallFacts { tenant: Some("another".into()), ..facts_of(2) };
    let other = crate::effects::Effects::new(log.clone(), others, Level::Standard);
    assert!(poll_once(pin!(other.place())).is_ready());
    disk.release();
    for _ in 0..10 {
        run(effects.clone().place()).unwrap().egress(&facts).unwrap();
    }
    run(log.shutdown()).unwrap();
    assert!(run(effects.place()).is_err(), "nothing begins that cannot be recorded");
}
