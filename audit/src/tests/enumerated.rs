//! Everything that can be left of a small log: each state a power cut can leave, each length, each flipped bit.

use std::collections::{BTreeMap, HashSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

use super::disk::{Moment, Op, QuickDisk, TestDisk};
use super::*;
use crate::segment::{self, HEADER_BYTES, Header};
use crate::{Note, VerifyError};

/// Operations that were not synced of which every subset is tried. Of more, only all but one, and one alone.
const MOST_SUBSETS: usize = 4;

type Files = BTreeMap<PathBuf, Vec<u8>>;

/// Which of `count` operations may have reached the disk.
fn subsets(count: usize) -> Vec<Vec<bool>> {
    if count <= MOST_SUBSETS {
        return (0..1u32 << count).map(|bits| (0..count).map(|at| bits & (1 << at) != 0).collect()).collect();
    }
    let one = |kept: bool| (0..count).map(move |one| (0..count).map(|at| (at == one) == kept).collect::<Vec<_>>());
    one(true).chain(one(false)).chain([vec![true; count], vec![false; count]]).collect()
}

/// What a power cut at this moment can leave: of what was not synced any part, in any order, the last of it in half.
fn left(moment: &Moment) -> Vec<Files> {
    let pending: usize = moment.files.iter().map(|file| file.since.len()).sum();
    let mut states = Vec::new();
    for subset in subsets(pending) {
        for (halved, names) in [(false, &moment.names), (true, &moment.names), (false, &moment.durable_names)] {
            let mut kept = subset.iter();
            let contents: Vec<Vec<u8>> = moment
                .files
                .iter()
                .map(|file| {
                    let mut content = file.durable.clone();
                    let done: Vec<_> = file.since.iter().filter(|_| kept.next().copied().unwrap_or(false)).collect();
                    for (number, (_, op)) in done.iter().enumerate() {
                        match op {
                            Op::Write(at, bytes) if halved && number + 1 == done.len() => {
                                Op::Write(*at, bytes[..bytes.len() / 2].to_vec()).apply(&mut content);
                            }
                            op => op.apply(&mut content),
                        }
                    }
                    content
                })
                .collect();
            states.push(names.iter().map(|(path, id)| (path.clone(), contents[*id].clone())).collect());
        }
    }
    states
}

#[test]
fn whatever_a_power_cut_leaves_at_any_call_nothing_told_is_lost() {
    let (place, disk) = (Place::new(), TestDisk::default());
    disk.keep_moments();
    let config = LogConfig { segment_bytes: 1_536, ..place.config() };
    let (log, _) = place.open_with(config, Arc::new(disk.clone())).unwrap();
    let note = |kind: &str| log.note(Note::Event { kind: kind.into(), detail: "x".repeat(300) });
    for _ in 0..8 {
        // Two at a time, whose syncs may overlap.
        let (one, other) = run(async { tokio::join!(note("a"), note("b")) });
        assert!(one.is_ok() && other.is_ok());
        disk.was_told(log.records());
    }
    run(log.shutdown()).unwrap();
    let (mut seen, mut states) = (HashSet::new(), 0);
    for (call, moment) in disk.moments().iter().enumerate() {
        for files in left(moment) {
            let mut hasher = DefaultHasher::new();
            (&files, moment.told).hash(&mut hasher);
            if !seen.insert(hasher.finish()) {
                continue;
            }
            states += 1;
            let after = Place::new();
            for directory in ["segments", "resume"] {
                fs::create_dir_all(after.dir().join(directory)).unwrap();
            }
            for (path, content) in files {
                fs::write(after.dir().join(path.strip_prefix(place.dir()).unwrap()), content).unwrap();
            }
            let (log, opened) = after.open().unwrap_or_else(|error| panic!("after call {call}: {error:?}"));
            assert!(opened.records >= moment.told, "after call {call}: {opened:?}, {} were told", moment.told);
            run(log.shutdown()).unwrap();
            assert_eq!(after.verify().unwrap().size, opened.records);
        }
    }
    assert!(states > 100, "{states} states");
}

/// A log of two records in one segment, cleanly shut down, whose segment says to be of a format.
fn of_format(format: u32) -> Place {
    let place = Place::new();
    let (log, _) = place.open_with(place.config(), Arc::new(QuickDisk)).unwrap();
    for _ in 0..2 {
        run(log.note(Note::Stop { reason: "x".into() })).unwrap();
    }
    run(log.shutdown()).unwrap();
    let path = segment::path(&place.dir(), 0);
    let mut bytes = fs::read(&path).unwrap();
    bytes[..HEADER_BYTES].copy_from_slice(&Header::of(ORIGIN, 0).to_bytes(format));
    fs::write(&path, bytes).unwrap();
    place
}

#[test]
fn every_bit_flipped_and_every_byte_cut_off_is_found_in_both_formats() {
    for format in [1, 2] {
        let place = of_format(format);
        assert_eq!(place.verify().unwrap().size, 2, "format {format}");
        let files = ["segments/0000000000.log", "checkpoint", "checkpoints"].map(|name| place.dir().join(name));
        // Checkpoints are the same in both.
        for path in files.iter().take(if format == 1 { 1 } else { files.len() }) {
            let bytes = fs::read(path).unwrap();
            for at in 0..bytes.len() {
                for bit in 0..8 {
                    let mut changed = bytes.clone();
                    changed[at] ^= 1 << bit;
                    fs::write(path, &changed).unwrap();
                    assert!(place.verify().is_err(), "format {format}: bit {bit} of byte {at} of {path:?}");
                }
                fs::write(path, &bytes[..at]).unwrap();
                // Of the checkpoints kept for good, the newest is in a file of its own as well.
                if !path.ends_with("checkpoints") {
                    assert!(place.verify().is_err(), "format {format}: {path:?} cut at {at}");
                }
            }
            fs::write(path, &bytes).unwrap();
        }
        assert_eq!(place.verify().unwrap().size, 2);
    }
}

#[test]
fn a_log_of_the_older_format_is_continued_in_a_new_segment_and_verifies() {
    let place = of_format(1);
    let old = fs::read(segment::path(&place.dir(), 0)).unwrap();
    let (log, opened) = place.open().unwrap();
    assert_eq!(opened.records, 2);
    calls(&log, 3);
    run(log.shutdown()).unwrap();
    assert_eq!(fs::read(segment::path(&place.dir(), 0)).unwrap(), old, "what was written before stays as it was");
    let verified = place.verify().unwrap();
    assert_eq!((verified.size, verified.segments), (5, 2));
    assert_eq!(place.open().unwrap().1.records, 5);
}

#[test]
fn in_the_older_format_only_frames_of_one_write_are_ahead_of_the_disk() {
    let place = of_format(1);
    let path = segment::path(&place.dir(), 0);
    let mut bytes = fs::read(&path).unwrap();
    let first = segment::FrameHeader::parse(&bytes[HEADER_BYTES..]).unwrap();
    let second = HEADER_BYTES + segment::FRAME_HEADER_BYTES + first.length as usize;
    // That the first was not durable when the second was written is said by both formats, of one write or of two.
    segment::complete_frame(&mut bytes[second..], 1, 1);
    fs::write(&path, &bytes).unwrap();
    assert_eq!(place.verify().unwrap().size, 2);
    segment::complete_frame(&mut bytes[second..], 1, 2);
    fs::write(&path, &bytes).unwrap();
    assert!(matches!(place.verify(), Err(VerifyError::Segment { .. })));
}
