//! What is there after the node was killed, or the power cut.

use std::sync::Arc;

use cofferdam_model::Level;

use super::disk::{Left, TestDisk};
use super::*;
use crate::Note;
use crate::segment::HEADER_BYTES;

const SEGMENT: &str = "segments/0000000000.log";

#[test]
fn after_a_kill_every_acknowledged_record_is_there() {
    let place = Place::new();
    let (log, _) = place.open().unwrap();
    for n in 0..30 {
        call(&log, n).unwrap();
        let copy = place.copy();
        let (reopened, opened) = copy.open().unwrap();
        assert_eq!((opened.records, opened.torn_bytes), (n + 1, 0));
        std::mem::forget(reopened);
        assert_eq!(copy.verify().unwrap().checkpoint_size, n + 1, "opening signs for what it found");
    }
    std::mem::forget(log);
}

#[test]
fn calls_cut_off_by_a_crash_are_closed_as_unknown() {
    let place = Place::new();
    let (log, _) = place.open().unwrap();
    let mut plain = log.enter(Call::new(1, Level::Strict)).unwrap();
    run(plain.intent()).unwrap().into_value();
    let streamed = run(log.enter(Call::new(2, Level::Standard)).unwrap().begin(Answer)).unwrap();
    call(&log, 3).unwrap();
    let copy = place.copy();
    let (reopened, opened) = copy.open().unwrap();
    assert_eq!((opened.records, opened.unknown_outcomes), (6, 2));
    drop(reopened);
    let records = exported(&copy.dir());
    assert_eq!(kinds(&copy.dir()), ["intent", "intent", "outcome", "call", "outcome", "end"]);
    for (index, call) in [(4, 0), (5, 1)] {
        assert_eq!(records[index]["ending"], "unknown");
        assert_eq!(records[index]["request"], records[call]["request"]);
        assert_eq!(records[index]["tenant"], records[call]["tenant"]);
    }
    let (_, opened) = copy.open().unwrap();
    assert_eq!(opened.unknown_outcomes, 0, "they are closed once");
    drop((plain, streamed));
}

#[test]
fn a_log_cut_at_any_byte_opens_with_the_records_before_it() {
    let place = Place::new();
    let (log, _) = place.open().unwrap();
    for _ in 0..3 {
        run(log.note(Note::Stop { reason: String::new() })).unwrap();
    }
    let cut = place.copy();
    std::mem::forget(log);
    let whole = fs::read(cut.dir().join(SEGMENT)).unwrap();
    let used = whole.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    for length in 0..=used {
        let copy = cut.copy();
        fs::write(copy.dir().join(SEGMENT), &whole[..length]).unwrap();
        if length < HEADER_BYTES {
            assert!(matches!(copy.open(), Err(AuditError::Damaged { .. })), "a segment gets its name with its header");
            continue;
        }
        let (log, opened) = copy.open().unwrap();
        let recovered = u64::from(opened.torn_bytes > 0);
        assert_eq!(opened.records - recovered, ((length - HEADER_BYTES) * 3 / (used - HEADER_BYTES)) as u64);
        assert!(call(&log, 9).is_ok());
        drop(log);
        assert_eq!(copy.verify().unwrap().size, opened.records + 1);
        assert_eq!(kinds(&copy.dir()).iter().any(|kind| kind == "recovered"), recovered == 1);
    }
}

/// A log killed after four records, of which the last two were one write, and where the text of the last but one is.
fn with_a_batch_of_two() -> (Place, usize) {
    let place = Place::new();
    let disk = TestDisk::default();
    let config = LogConfig { segment_bytes: 16 * 1024, syncs: 1, ..place.config() };
    let (log, _) = place.open_with(config, Arc::new(disk.clone())).unwrap();
    call(&log, 1).unwrap();
    // The first note keeps the one commit thread at the disk, so that the next two become one batch.
    disk.hold();
    run(async {
        let note = |kind: &str| log.note(Note::Event { kind: kind.into(), detail: kind.repeat(1_500) });
        let then = async {
            disk.wait_for_syncs(1);
            let released = async { disk.release() };
            tokio::join!(note("b"), note("c"), released)
        };
        let (first, (second, third, ())) = tokio::join!(note("a"), then);
        assert_eq!((first.unwrap(), second.unwrap(), third.unwrap()), (1, 2, 3));
    });
    let copy = place.copy();
    let bytes = fs::read(copy.dir().join(SEGMENT)).unwrap();
    let text = bytes.windows(100).position(|window| window == [b'b'; 100]).unwrap();
    (copy, text)
}

#[test]
fn a_batch_that_lost_a_sector_in_its_middle_is_a_write_cut_short() {
    let (place, text) = with_a_batch_of_two();
    let path = place.dir().join(SEGMENT);
    let mut bytes = fs::read(&path).unwrap();
    let sector = text.next_multiple_of(512);
    bytes[sector..sector + 512].fill(0);
    fs::write(&path, &bytes).unwrap();
    let (log, opened) = place.open().unwrap();
    assert!(opened.torn_bytes > 3_000, "both of the batch are cut off");
    drop(log);
    assert_eq!(kinds(&place.dir()), ["call", "event", "recovered"]);
    place.verify().unwrap();
}

#[test]
fn a_changed_byte_in_the_middle_of_a_batch_is_damage() {
    let (place, text) = with_a_batch_of_two();
    let path = place.dir().join(SEGMENT);
    let mut bytes = fs::read(&path).unwrap();
    for change in [b'B', 0] {
        bytes[text + 700] = change;
        fs::write(&path, &bytes).unwrap();
        assert!(place.verify().is_err());
        assert!(matches!(place.open(), Err(AuditError::Damaged { .. })));
    }
}

#[test]
fn a_power_cut_at_any_moment_of_a_life_leaves_a_log_that_opens() {
    let place = Place::new();
    let disk = TestDisk::default();
    let config = LogConfig { segment_bytes: 1_024, ..place.config() };
    let (log, _) = place.open_with(config, Arc::new(disk.clone())).unwrap();
    for n in 0..12 {
        call(&log, n).unwrap();
        for left in [Left::Nothing, Left::Everything, Left::Half] {
            let after = Place::new();
            disk.power_cut(&place.dir(), &after.dir(), left);
            let (reopened, opened) = after.open().unwrap();
            assert_eq!(opened.records, n + 1, "{left:?}");
            drop(reopened);
            after.verify().unwrap();
        }
    }
}
