//! Opening reads what the newest checkpoint does not vouch for, and no more of the log than that.

use std::sync::Arc;

use cofferdam_model::Level;

use super::disk::QuickDisk;
use super::*;
use crate::resume;

fn segment(place: &Place, number: u64) -> PathBuf {
    crate::segment::path(&place.dir(), number)
}

fn small(place: &Place) -> LogConfig {
    LogConfig { segment_bytes: 1_024, ..place.config() }
}

fn reopen(place: &Place) -> Result<(Log, Opened), AuditError> {
    place.open_with(small(place), Arc::new(QuickDisk))
}

/// A log of a segment for each of its `calls` calls, cleanly shut down.
fn closed(calls: u64) -> Place {
    let place = Place::new();
    let (log, _) = reopen(&place).unwrap();
    super::calls(&log, calls);
    run(log.shutdown()).unwrap();
    place
}

fn spoil(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    bytes[200] ^= 1;
    fs::remove_file(path).unwrap();
    fs::write(path, bytes).unwrap();
}

#[test]
fn segments_before_the_last_signed_one_are_not_read_to_open_but_to_verify() {
    let place = closed(20);
    let root = place.verify().unwrap().root;
    (0..19).for_each(|number| spoil(&segment(&place, number)));
    let (log, opened) = reopen(&place).unwrap();
    assert_eq!((opened.records, &*opened.root), (20, &*root));
    assert_eq!(call(&log, 20).unwrap(), Some(20));
    drop(log);
    assert!(place.verify().is_err(), "verifying reads everything");
    // Without what opening resumes from, it reads everything as well.
    fs::remove_dir_all(place.dir().join(resume::DIRECTORY)).unwrap();
    assert!(matches!(reopen(&place), Err(AuditError::Damaged { .. })));
}

#[test]
fn damage_in_the_segment_opening_resumes_from_is_found() {
    let place = closed(5);
    spoil(&segment(&place, 4));
    assert!(matches!(reopen(&place), Err(AuditError::Damaged { .. })));
}

#[test]
fn a_missing_segment_is_found_by_opening_wherever_it_was() {
    let place = closed(5);
    fs::remove_file(segment(&place, 1)).unwrap();
    assert!(matches!(reopen(&place), Err(AuditError::Damaged { .. })));
}

#[test]
fn what_opening_resumes_from_is_believed_only_with_the_signature_and_never_against_a_checkpoint() {
    let (place, other) = (closed(4), Place::new());
    let path = resume::path(&place.dir(), 3);
    let good = fs::read(&path).unwrap();
    for at in 0..good.len() {
        let mut changed = good.clone();
        changed[at] ^= 1;
        fs::write(&path, &changed).unwrap();
        let copy = place.copy();
        spoil(&segment(&copy, 2));
        assert!(reopen(&copy).is_err(), "byte {at}: it was passed over, so more was read");
    }
    fs::write(&path, &good).unwrap();
    assert_eq!(reopen(&place).unwrap().1.records, 4);
    // Signed by the same key, of another history.
    let log = reopen(&other).unwrap().0;
    super::calls(&log, 2);
    call(&log, 77).unwrap();
    call(&log, 78).unwrap();
    run(log.shutdown()).unwrap();
    fs::copy(resume::path(&other.dir(), 3), &path).unwrap();
    assert!(matches!(reopen(&place), Err(AuditError::Damaged { .. })));
    assert!(place.verify().is_err());
}

#[test]
fn calls_left_open_many_segments_ago_are_closed_as_unknown() {
    let place = Place::new();
    let (log, _) = reopen(&place).unwrap();
    let mut open = log.enter(Call::new(100, Level::Strict)).unwrap();
    run(open.intent()).unwrap().into_value();
    let streamed = run(log.enter(Call::new(101, Level::Standard)).unwrap().begin(Answer)).unwrap();
    // One that ended is not among them.
    let mut ended = log.enter(Call::new(102, Level::Strict)).unwrap();
    run(ended.intent()).unwrap().into_value();
    run(ended.close(Answer)).unwrap().into_value();
    super::calls(&log, 10);
    place.clock.advance(SECOND);
    super::calls(&log, 2);
    while place.verify().unwrap().checkpoint_size < 16 {
        super::calls(&log, 1);
        place.clock.advance(SECOND);
    }
    let copy = place.copy();
    spoil(&segment(&copy, 0));
    let (reopened, opened) = reopen(&copy).unwrap();
    assert_eq!(opened.unknown_outcomes, 2);
    drop(reopened);
    fs::remove_file(segment(&copy, 0)).unwrap();
    fs::copy(segment(&place, 0), segment(&copy, 0)).unwrap();
    let records = exported(&copy.dir());
    let unknown: Vec<_> = records.iter().filter(|record| record["ending"] == "unknown").collect();
    let requests = [100, 101].map(|call| facts_of(call).request.to_string());
    assert_eq!(unknown.iter().map(|record| record["request"].as_str().unwrap()).collect::<Vec<_>>(), requests);
    assert_eq!((&unknown[0]["kind"], &unknown[1]["kind"]), (&"outcome".into(), &"end".into()));
    assert_eq!(reopen(&copy).unwrap().1.unknown_outcomes, 0);
    drop((open, streamed, log));
}

#[test]
fn relaxed_calls_whose_end_was_dropped_are_not_carried_for_ever() {
    let place = Place::new();
    let disk = super::disk::TestDisk::default();
    let config = LogConfig { queue_records: 1, ..small(&place) };
    let (log, _) = place.open_with(config, Arc::new(disk.clone())).unwrap();
    let mut entry = log.enter(Call::new(1, Level::Relaxed)).unwrap();
    run(entry.intent()).unwrap().into_value();
    disk.hold();
    let mut waiting = Box::pin(log.note(crate::Note::Stop { reason: String::new() }));
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    // Until the intent is durable and its place free again, the note waits for one.
    while waiting.as_mut().poll(&mut context).is_pending() && log.records() == 0 {
        disk.release();
        std::thread::yield_now();
        disk.hold();
    }
    disk.release();
    let _ = run(waiting);
    disk.hold();
    let mut filling = Box::pin(log.note(crate::Note::Stop { reason: String::new() }));
    assert!(filling.as_mut().poll(&mut context).is_pending());
    run(entry.close(Answer)).unwrap().into_value();
    disk.release();
    run(filling).unwrap();
    for _ in 0..20 {
        run(log.note(crate::Note::Stop { reason: String::new() })).unwrap();
    }
    run(log.shutdown()).unwrap();
    let newest = resume::numbers(&place.dir()).unwrap().pop().unwrap();
    let resumed = resume::Resume::read(&place.dir(), newest, &place.signer().verifier()).unwrap().unwrap();
    assert_eq!(resumed.open.sorted(), []);
    assert!(kinds(&place.dir()).contains(&"gap".to_owned()));
}
