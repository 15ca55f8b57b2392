//! What comes out of a followed log: every durable record, once, in order, wherever it is taken up again.

use cofferdam_model::{Ending, Level};

use super::*;
use crate::Follower;

fn seen(follower: &mut Follower, most: u64) -> Vec<u64> {
    let mut indexes = Vec::new();
    assert_eq!(follower.read(most, |record| indexes.push(record.index)).unwrap(), indexes.len() as u64);
    indexes
}

#[test]
fn followed_log_gives_each_record_once_across_segments_and_pauses() {
    let place = Place::new();
    let (log, _) = place.open().unwrap();
    let mut follower = Follower::new(&log, 0);
    assert_eq!(seen(&mut follower, 100), [0u64; 0]);
    calls(&log, 3);
    assert_eq!(seen(&mut follower, 2), [0, 1]);
    assert_eq!(seen(&mut follower, 100), [2]);
    // Enough for several segments of 8 KiB, the last of them only begun.
    calls(&log, 40);
    assert!(crate::segment::numbers(&place.dir()).unwrap().len() > 3);
    assert_eq!(seen(&mut follower, 1000), (3..43).collect::<Vec<_>>());
    calls(&log, 1);
    assert_eq!(seen(&mut follower, 1000), [43]);
    run(log.shutdown()).unwrap();
    assert_eq!(seen(&mut follower, 1000), [0u64; 0]);
    assert_eq!(log.records(), 44);
}

#[test]
fn followed_log_stops_where_it_is_told_to_and_tells_records_as_they_are_exported() {
    let place = Place::new();
    let (log, _) = place.open().unwrap();
    calls(&log, 40);
    let (mut follower, mut lines, mut bytes) = (Follower::new(&log, 0), Vec::new(), 0);
    while lines.len() < 40 {
        let before = lines.len();
        let read = follower.read_while(1000, |record| {
            bytes += record.record.len();
            lines.push(String::from_utf8(record.line()).unwrap());
            lines.len() % 7 != 0
        });
        assert_eq!(read.unwrap(), (7 - before as u64 % 7).min(40 - before as u64));
    }
    assert!(bytes > 0);
    assert_eq!(lines, crate::query::tail(&place.dir(), 40).unwrap());
}

#[test]
fn followed_log_can_be_taken_up_anywhere_also_after_a_restart() {
    let place = Place::new();
    let (log, _) = place.open().unwrap();
    calls(&log, 30);
    let mut whole = Follower::new(&log, 0);
    assert_eq!(seen(&mut whole, 1000).len(), 30);
    drop(whole);
    run(log.shutdown()).unwrap();
    drop(log);
    let (log, opened) = place.open().unwrap();
    assert_eq!(log.records(), opened.records);
    for from in 0..30 {
        assert_eq!(seen(&mut Follower::new(&log, from), 1000), (from..30).collect::<Vec<_>>(), "from {from}");
    }
    // The hash tells where one was, whatever was read before.
    let (mut one, mut other) = (Follower::new(&log, 0), Follower::new(&log, 19));
    one.read(20, |_| {}).unwrap();
    other.read(1, |_| {}).unwrap();
    assert!(one.leaf().is_some() && one.leaf() == other.leaf());
}

#[test]
fn followed_records_tell_what_a_call_was_and_used() {
    let place = Place::new();
    let (log, _) = place.open().unwrap();
    let (_, closing) = run(log.enter(Call::new(1, Level::Strict)).unwrap().begin(Answer)).unwrap();
    closing.finish(outcome_facts());
    call(&log, 2).unwrap();
    let mut told = Vec::new();
    Follower::new(&log, 0)
        .read(100, |r| {
            let action = r.action.map(|action| action.into_owned());
            told.push((
                r.kind.into_owned(),
                action,
                r.streamed,
                r.ending,
                r.usage.map(|u| u.cpu_us),
                r.request.is_some(),
            ));
        })
        .unwrap();
    let invoke = Some("Invoke".to_owned());
    assert_eq!(
        told,
        [
            ("intent".into(), invoke.clone(), false, None, None, true),
            ("outcome".into(), None, true, Some(Ending::Answered), Some(11), true),
            ("end".into(), None, false, Some(Ending::Answered), Some(11), true),
            ("call".into(), invoke, false, Some(Ending::Answered), Some(11), true),
        ]
    );
}
