//! Whoever changes the files afterwards is found out.

use std::sync::Arc;

use super::disk::QuickDisk;
use super::*;
use crate::VerifyError;
use crate::segment::{HEADER_BYTES, complete_frame};

/// A log of some segments, cleanly shut down: every record is signed for and no byte is unused.
fn closed() -> Place {
    let place = Place::new();
    let config = LogConfig { segment_bytes: 1_024, ..place.config() };
    let (log, _) = place.open_with(config, Arc::new(QuickDisk)).unwrap();
    calls(&log, 3);
    run(log.shutdown()).unwrap();
    place
}

fn files(place: &Place) -> Vec<PathBuf> {
    let mut files = vec![place.dir().join("checkpoint"), place.dir().join("checkpoints")];
    files.extend(segments(place));
    files
}

fn segments(place: &Place) -> Vec<PathBuf> {
    let mut files: Vec<_> =
        fs::read_dir(place.dir().join("segments")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn write(path: &Path, bytes: &[u8]) {
    // Sealed files are replaced, not written: that takes no more than the directory.
    fs::remove_file(path).unwrap();
    fs::write(path, bytes).unwrap();
}

#[test]
fn one_changed_byte_anywhere_is_found() {
    let place = closed();
    place.verify().unwrap();
    // So that opening, too, has to read everything.
    fs::remove_dir_all(place.dir().join("resume")).unwrap();
    for path in files(&place) {
        let bytes = fs::read(&path).unwrap();
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1 << (at % 8);
            write(&path, &changed);
            let found = place.verify();
            assert!(found.is_err(), "byte {at} of {path:?}: {found:?}");
            if at % 16 == 0 {
                assert!(matches!(place.open(), Err(AuditError::Damaged { .. })), "byte {at} of {path:?}");
                assert_eq!(fs::read(&path).unwrap(), changed, "refusing changes nothing");
            }
        }
        write(&path, &bytes);
    }
    place.verify().unwrap();
}

#[test]
fn a_log_cut_anywhere_below_its_checkpoint_is_found() {
    let place = closed();
    let last = segments(&place).pop().unwrap();
    let bytes = fs::read(&last).unwrap();
    for length in 0..bytes.len() {
        write(&last, &bytes[..length]);
        assert!(place.verify().is_err(), "{length}");
        let zeros = [&bytes[..length], &vec![0; 1_024 - length.min(1_024)]].concat();
        write(&last, &zeros);
        assert!(place.verify().is_err(), "{length} and zeros");
        assert!(matches!(place.open(), Err(AuditError::Damaged { .. })), "{length} and zeros");
    }
    write(&last, &bytes);
    place.verify().unwrap();
}

#[test]
fn changes_above_the_checkpoint_are_found_in_all_but_the_last_record() {
    let place = Place::new();
    let (log, _) = place.open().unwrap();
    calls(&log, 3);
    let copy = place.copy();
    drop(log);
    let path = segments(&copy).pop().unwrap();
    let bytes = fs::read(&path).unwrap();
    let used = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    let last = 64 + (used - 64) / 3 * 2;
    for at in 0..used + 8 {
        let mut changed = bytes.clone();
        changed[at] ^= 1 << (at % 8);
        write(&path, &changed);
        match copy.verify() {
            Err(_) => {}
            // Nothing tells such a record, or bytes after it, from a write that the power cut short.
            Ok(found) => {
                assert!(at >= last, "byte {at}");
                assert!(found.torn_bytes > 0, "byte {at}");
            }
        }
    }
}

#[test]
fn errors_name_record_file_and_offset() {
    let place = closed();
    let second = &segments(&place)[1];
    let mut bytes = fs::read(second).unwrap();
    bytes[100] ^= 1;
    write(second, &bytes);
    let error = place.verify().unwrap_err();
    assert_eq!(error.to_string(), "record 1 in `segments/0000000001.log` at byte 64: the record's checksum is wrong");
    fs::remove_dir_all(place.dir().join("resume")).unwrap();
    let refused = place.open().unwrap_err().to_string();
    assert!(refused.contains("cofferdam audit verify") && refused.contains("restore"), "{refused}");
}

#[test]
fn a_missing_swapped_repeated_or_foreign_segment_is_found() {
    let place = closed();
    let paths = segments(&place);
    assert_eq!(paths.len(), 3);
    let contents: Vec<_> = paths.iter().map(|path| fs::read(path).unwrap()).collect();
    for path in &paths {
        let bytes = fs::read(path).unwrap();
        fs::remove_file(path).unwrap();
        assert!(place.verify().is_err(), "without {path:?}");
        fs::write(path, bytes).unwrap();
    }
    write(&paths[0], &contents[1]);
    write(&paths[1], &contents[0]);
    assert!(matches!(place.verify(), Err(VerifyError::Segment { offset: 0, .. })));
    write(&paths[0], &contents[0]);
    assert!(place.verify().is_err(), "the first twice");
    write(&paths[1], &contents[1]);
    place.verify().unwrap();
}

#[test]
fn a_consistent_forgery_needs_the_key() {
    // The same calls, recorded by somebody else: all sums are right, only the signature is not.
    let (genuine, other) = (closed(), Place::new());
    let signer = Signer::create(&other.home.path().join("forged"), ORIGIN, &SeededRandom::new(666)).unwrap();
    let log = Log::open(other.config(), signer, other.clock.clone(), Arc::new(SeededRandom::new(9))).unwrap().0;
    call(&log, 1).unwrap();
    run(log.shutdown()).unwrap();
    assert!(matches!(verify::verify(&other.dir(), &genuine.vkey()), Err(VerifyError::Checkpoint { .. })));
    assert!(matches!(verify::verify(&genuine.dir(), "x+00000000+AAAA"), Err(VerifyError::Key { .. })));

    // Their records under our checkpoint.
    for path in segments(&genuine) {
        fs::remove_file(path).unwrap();
    }
    for path in segments(&other) {
        fs::copy(&path, genuine.dir().join("segments").join(path.file_name().unwrap())).unwrap();
    }
    assert!(matches!(genuine.verify(), Err(VerifyError::Short { .. } | VerifyError::Root { .. })));
}

#[test]
fn a_record_rewritten_with_its_sum_contradicts_the_checkpoint() {
    let place = closed();
    let path = &segments(&place)[0];
    let mut bytes = fs::read(path).unwrap();
    let kept = bytes.clone();
    let mut rewrite = |from: &[u8], to: &[u8]| {
        bytes.copy_from_slice(&kept);
        let at = bytes.windows(from.len()).position(|window| window == from).unwrap();
        bytes[at..at + to.len()].copy_from_slice(to);
        // One record fills each of these segments, so the frame is all that follows the header.
        complete_frame(&mut bytes[HEADER_BYTES..], 0, 0);
        write(path, &bytes);
        place.verify()
    };
    assert!(matches!(rewrite(b"Invoke", b"Revoke"), Err(VerifyError::Root { checkpoint: 1, .. })));
    // What stands beside an entry is no part of the tree, but the entry commits to it.
    let found = rewrite(b"alice", b"mally").unwrap_err().to_string();
    assert!(found.contains("a field is not the one that it commits to"), "{found}");
    let found = rewrite(b"\n{\"fields\":{", b"\n{\"shields\":").unwrap_err().to_string();
    assert!(found.contains("what stands beside the record cannot be read"), "{found}");
    rewrite(b"Invoke", b"Revoke").unwrap_err();
    fs::remove_dir_all(place.dir().join("resume")).unwrap();
    assert!(
        matches!(place.verify(), Err(VerifyError::Root { checkpoint: 3, .. })),
        "without what a segment began with"
    );
    assert!(matches!(place.open(), Err(AuditError::Damaged { .. })));
}

#[test]
fn records_in_another_order_are_found_before_any_checkpoint() {
    let place = Place::new();
    let (log, _) = place.open().unwrap();
    calls(&log, 3);
    let copy = place.copy();
    drop(log);
    let path = segments(&copy).pop().unwrap();
    let bytes = fs::read(&path).unwrap();
    let used = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    // The three calls are told in equally many bytes.
    let frame = (used - HEADER_BYTES) / 3;
    let (first, second) = (HEADER_BYTES, HEADER_BYTES + frame);
    let order = |frames: [&[u8]; 4]| [&bytes[..HEADER_BYTES], frames.concat().as_slice()].concat();
    let (one, two, rest) = (&bytes[first..second], &bytes[second..second + frame], &bytes[second + frame..]);
    write(&path, &order([one, two, rest, &[]]));
    assert_eq!(copy.verify().unwrap().size, 3);
    for changed in [[two, one, rest, &[]], [one, one, two, rest], [two, rest, &[], &[]], [one, rest, &[], &[]]] {
        write(&path, &order(changed));
        let found = copy.verify();
        assert!(matches!(found, Err(VerifyError::Segment { .. })), "{found:?}");
    }
}

#[test]
fn records_without_their_checkpoint_are_not_believed() {
    let place = closed();
    fs::remove_file(place.dir().join("checkpoint")).unwrap();
    assert!(matches!(place.verify(), Err(VerifyError::Checkpoint { .. })));
    fs::remove_file(place.dir().join("checkpoints")).unwrap();
    assert!(matches!(place.verify(), Err(VerifyError::Checkpoint { .. })));
    assert!(matches!(place.open(), Err(AuditError::Damaged { .. })));
}

#[test]
fn an_export_tells_of_damage_it_meets() {
    let place = closed();
    let first = &segments(&place)[0];
    let mut bytes = fs::read(first).unwrap();
    bytes[200] ^= 1;
    write(first, &bytes);
    let mut out = Vec::new();
    assert!(matches!(
        query::export(&place.dir(), &query::Filter::default(), &mut out),
        Err(AuditError::Damaged { .. })
    ));
}
