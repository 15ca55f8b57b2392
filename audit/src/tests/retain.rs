//! What is old goes, what is held stays, and what is left proves itself.

use std::time::Duration;

use super::*;
use crate::VerifyError;
use crate::retain::{Hold, Pruning, Retention, minimum};

const MINUTE: u64 = 60_000_000_000;

/// Twenty calls, a minute apart, in segments of two or three.
fn twenty(place: &Place) -> Log {
    let (log, _) = place.open().unwrap();
    for number in 0..20 {
        call(&log, number).unwrap();
        place.clock.advance(Duration::from_secs(60));
    }
    log
}

fn by_age(minutes: u64) -> Retention {
    Retention { age: Some(Duration::from_secs(60 * minutes)), bytes: None }
}

fn prune(log: &Log, retention: &Retention, holds: &[Hold], needed: Option<u64>) -> Pruning {
    run(log.prune(retention, holds, &needed)).unwrap()
}

/// Lets the record of it be signed for, which a second of the clock is enough for.
fn until_done(place: &Place, log: &Log, retention: &Retention, holds: &[Hold], needed: Option<u64>) -> Pruning {
    loop {
        match prune(log, retention, holds, needed) {
            Pruning::Recorded { .. } => {
                place.clock.advance(SECOND);
                call(log, 99).unwrap();
            }
            end => return end,
        }
    }
}

fn first_of(place: &Place) -> u64 {
    exported(&place.dir())[0]["index"].as_u64().unwrap()
}

#[test]
fn old_segments_go_and_what_is_left_is_proved_to_the_last_record() {
    let place = Place::new();
    let log = twenty(&place);
    let kept = exported(&place.dir());
    let Pruning::Done { first, record } = until_done(&place, &log, &by_age(10), &[], None) else { panic!() };
    // Of the ten that are old enough, those of whole segments are gone.
    assert!((6..=10).contains(&first), "{first}");
    assert_eq!((first_of(&place), minimum(&place.dir()).unwrap()), (first, first));
    assert_eq!(exported(&place.dir())[0], kept[first as usize]);
    run(log.shutdown()).unwrap();
    drop(log);
    let found = place.verify().unwrap();
    let told = found.pruned.unwrap();
    assert_eq!((told.first, told.record), (first, record));
    assert!(told.checkpoints >= 1, "that of no records at least is of what is gone");
    let record = &exported(&place.dir())[(record - first) as usize];
    assert_eq!((&record["kind"], &record["first"], &record["from"]), (&"pruned".into(), &first.into(), &0.into()));
    // It is gone on with, and pruned again from there.
    let (log, opened) = place.open().unwrap();
    assert_eq!(opened.records, found.size);
    calls(&log, 3);
    assert!(
        matches!(until_done(&place, &log, &by_age(5), &[], None), Pruning::Done { first: again, .. } if again > first)
    );
    run(log.shutdown()).unwrap();
    place.verify().unwrap();
}

#[test]
fn the_oldest_go_while_the_log_is_too_large() {
    let place = Place::new();
    let log = twenty(&place);
    let bytes = |place: &Place| -> u64 {
        let files = fs::read_dir(place.dir().join("segments")).unwrap();
        files.map(|file| file.unwrap().metadata().unwrap().len()).sum()
    };
    let before = bytes(&place);
    let retention = Retention { age: None, bytes: Some(before / 2) };
    until_done(&place, &log, &retention, &[], None);
    let after = bytes(&place);
    assert!(after <= before / 2 + 8_192 && after > before / 4, "{before} {after}");
    run(log.shutdown()).unwrap();
    place.verify().unwrap();
}

#[test]
fn what_is_held_needed_or_not_old_stays() {
    let place = Place::new();
    let log = twenty(&place);
    assert_eq!(prune(&log, &by_age(60), &[], None), Pruning::Nothing);
    assert_eq!(prune(&log, &Retention::default(), &[], None), Pruning::Nothing);
    assert_eq!(prune(&log, &by_age(1), &[Hold::default()], None), Pruning::Nothing);
    assert_eq!(prune(&log, &by_age(1), &[], Some(0)), Pruning::Nothing);
    let (from, until) = (Some(UnixNanos(START.0 + 9 * MINUTE)), Some(UnixNanos(START.0 + 10 * MINUTE)));
    let held = [Hold { tenant: Some("t_0000000000000001".into()), from, until }];
    let Pruning::Done { first, .. } = until_done(&place, &log, &by_age(1), &held, None) else { panic!() };
    assert!((1..=9).contains(&first), "{first}");
    assert!(exported(&place.dir()).iter().any(|record| record["at"] == START.0 + 9 * MINUTE));
    let Pruning::Done { first, .. } = until_done(&place, &log, &by_age(1), &[], Some(14)) else { panic!() };
    assert!((10..=14).contains(&first), "{first}");
}

#[test]
fn a_hold_stops_what_was_recorded_and_has_not_gone_yet() {
    let place = Place::new();
    let log = twenty(&place);
    assert!(matches!(prune(&log, &by_age(5), &[], None), Pruning::Recorded { .. }));
    assert_eq!(until_done(&place, &log, &by_age(5), &[Hold::default()], None), Pruning::Nothing);
    assert_eq!(first_of(&place), 0);
    run(log.shutdown()).unwrap();
    assert_eq!(place.verify().unwrap().pruned, None);
}

#[test]
fn whoever_removes_segments_without_a_record_is_found_out() {
    let place = Place::new();
    let log = twenty(&place);
    let copy = place.copy();
    until_done(&place, &log, &by_age(10), &[], None);
    run(log.shutdown()).unwrap();
    drop(log);
    let told = fs::read_to_string(place.dir().join("pruned")).unwrap();
    place.verify().unwrap();

    // The same file over a log that never recorded it, with and without its older segments.
    fs::write(copy.dir().join("pruned"), &told).unwrap();
    assert!(matches!(copy.verify(), Err(VerifyError::Pruned { .. })), "{:?}", copy.verify());
    assert!(matches!(copy.open(), Err(AuditError::Damaged { .. })));

    // Without it, or with another.
    let file = place.dir().join("pruned");
    fs::remove_file(&file).unwrap();
    assert!(matches!(place.verify(), Err(VerifyError::Missing { .. })));
    for (from, to) in [("\"size\":", "\"size\":1"), ("\"record\":", "\"record\":1"), ("\"segment\":", "\"segment\":1")]
    {
        fs::write(&file, told.replace(from, to)).unwrap();
        assert!(place.verify().is_err(), "{from}");
    }
    let peak = told.find("\"peaks\":[\"").unwrap() + 12;
    let mut bytes = told.clone().into_bytes();
    bytes[peak] = if bytes[peak] == b'A' { b'B' } else { b'A' };
    fs::write(&file, &bytes).unwrap();
    assert!(place.verify().is_err());
    fs::write(&file, "{").unwrap();
    assert!(matches!(place.verify(), Err(VerifyError::Pruned { .. })));
    fs::write(&file, &told).unwrap();
    place.verify().unwrap();
}

#[test]
fn a_node_that_dies_while_segments_are_removed_goes_on_with_that() {
    let place = Place::new();
    let log = twenty(&place);
    assert!(matches!(prune(&log, &by_age(10), &[], None), Pruning::Recorded { .. }));
    place.clock.advance(SECOND);
    call(&log, 99).unwrap();
    run(log.shutdown()).unwrap();
    drop(log);
    // It had told where the log begins, and removed nothing yet.
    fs::copy(place.dir().join("pruned.next"), place.dir().join("pruned")).unwrap();
    let first = place.verify().unwrap().pruned.unwrap().first;
    let (log, _) = place.open().unwrap();
    assert!(matches!(prune(&log, &by_age(10), &[], None), Pruning::Done { first: done, .. } if done == first));
    assert_eq!(first_of(&place), first);
    run(log.shutdown()).unwrap();
    place.verify().unwrap();
}
