//! Two syncs at a time, acknowledged in the order of the records.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use super::disk::{Left, TestDisk};
use super::*;
use crate::Note;

type Waiting = Pin<Box<dyn Future<Output = Result<u64, AuditError>>>>;

/// A log of one record, and two more whose syncs are under way, each of a write of its own.
fn two_under_way() -> (Place, TestDisk, Log, [Waiting; 2]) {
    let (place, disk) = (Place::new(), TestDisk::default());
    let config = LogConfig { segment_bytes: 16 * 1024, ..place.config() };
    let (log, _) = place.open_with(config, Arc::new(disk.clone())).unwrap();
    call(&log, 1).unwrap();
    disk.hold();
    let note = |kind: &str| -> Waiting {
        let (log, note) = (log.clone(), Note::Event { kind: kind.into(), detail: kind.repeat(1_500) });
        Box::pin(async move { log.note(note).await })
    };
    let mut waiting = [note("a"), note("b")];
    for (syncs, waiting) in (1..).zip(&mut waiting) {
        assert!(poll(waiting).is_pending());
        disk.wait_for_syncs(syncs);
    }
    (place, disk, log, waiting)
}

fn poll(waiting: &mut Waiting) -> Poll<Result<u64, AuditError>> {
    waiting.as_mut().poll(&mut Context::from_waker(Waker::noop()))
}

fn left(place: &Place, disk: &TestDisk, left: Left) -> Place {
    let after = Place::new();
    disk.power_cut(&place.dir(), &after.dir(), left);
    after
}

#[test]
fn a_write_is_acknowledged_only_after_the_one_before_it() {
    let (place, disk, log, [mut first, mut second]) = two_under_way();
    disk.release_the_last();
    disk.wait_for_one_sync_less(2);
    // The second is on the disk by now, and still nobody is told.
    assert!(poll(&mut second).is_pending() && poll(&mut first).is_pending());
    assert_eq!(log.records(), 1);
    assert_eq!(left(&place, &disk, Left::Nothing).open().unwrap().1.records, 3);
    disk.release();
    assert_eq!((run(first).unwrap(), run(second).unwrap(), log.records()), (1, 2, 3));
}

#[test]
fn a_write_after_one_that_failed_is_never_acknowledged() {
    let (place, disk, log, [first, second]) = two_under_way();
    disk.fail_the_first_sync();
    disk.release();
    assert!(matches!(run(first), Err(AuditError::Failed { .. })));
    assert!(matches!(run(second), Err(AuditError::Failed { .. })));
    assert_eq!(log.records(), 1);
    assert!(matches!(log.health(), Err(AuditError::Failed { .. })));
    assert!(left(&place, &disk, Left::Nothing).open().is_ok());
}

#[test]
fn a_write_that_is_not_there_is_cut_short_with_the_one_that_overtook_it() {
    let (place, disk, _log, waiting) = two_under_way();
    let copy = left(&place, &disk, Left::Everything);
    let path = segment_path(&copy);
    let whole = fs::read(&path).unwrap();
    let text = |letter: u8| whole.windows(100).position(|window| *window == [letter; 100]).unwrap();
    let (first, second) = (text(b'a'), text(b'b'));
    // None of the first reached the disk; or all but one of its sectors; or half of one.
    let start = 64 + frame_bytes(&whole[64..]);
    let sector = first.next_multiple_of(512);
    for gone in [start..second - 200, sector..sector + 512, sector + 300..sector + 512] {
        let mut bytes = whole.clone();
        bytes[gone.clone()].fill(0);
        fs::write(&path, &bytes).unwrap();
        let again = copy.copy();
        let (log, opened) = again.open().unwrap_or_else(|error| panic!("{gone:?}: {error:?}"));
        assert_eq!((opened.records, opened.torn_bytes > 3_000), (2, true), "{gone:?}");
        drop(log);
        assert_eq!(kinds(&again.dir()), ["call", "recovered"]);
        again.verify().unwrap();
    }
    // A changed byte is no write cut short.
    let mut bytes = whole.clone();
    bytes[sector + 100] ^= 1;
    fs::write(&path, &bytes).unwrap();
    assert!(matches!(copy.open(), Err(AuditError::Damaged { .. })));
    disk.release();
    waiting.into_iter().for_each(|waiting| drop(run(waiting)));
}

#[test]
fn a_record_that_a_later_one_says_was_durable_cannot_be_missing() {
    let (place, disk, log, [first, second]) = two_under_way();
    disk.release();
    assert_eq!((run(first).unwrap(), run(second).unwrap()), (1, 2));
    call(&log, 2).unwrap();
    let copy = left(&place, &disk, Left::Everything);
    let path = segment_path(&copy);
    let mut bytes = fs::read(&path).unwrap();
    let text = bytes.windows(100).position(|window| window == [b'a'; 100]).unwrap();
    let sector = text.next_multiple_of(512);
    bytes[sector..sector + 512].fill(0);
    fs::write(&path, &bytes).unwrap();
    assert!(matches!(copy.open(), Err(AuditError::Damaged { .. })));
    assert!(copy.verify().is_err());
}

fn segment_path(place: &Place) -> PathBuf {
    crate::segment::path(&place.dir(), 0)
}

/// Bytes of the first frame.
fn frame_bytes(bytes: &[u8]) -> usize {
    let header = crate::segment::FrameHeader::parse(bytes).unwrap();
    crate::segment::FRAME_HEADER_BYTES + header.length as usize
}
