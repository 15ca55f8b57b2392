//! What a node still does when its log's disk runs out of room, and what the log says of it.

use std::sync::Arc;

use cofferdam_model::Level;

use super::disk::TestDisk;
use super::*;
use crate::watch::{self, RESERVE};
use crate::{Note, Step, Thresholds};

const KIB: u64 = 1024;
/// Looks after which a step may be taken back.
const CALM: u32 = 10;

fn config(place: &Place) -> LogConfig {
    let free_bytes = [400 * KIB, 300 * KIB, 200 * KIB, 100 * KIB];
    let thresholds = Thresholds { free_bytes, ..Thresholds::NEVER };
    LogConfig { thresholds, reserve_bytes: 64 * KIB, segment_bytes: 64 * KIB, ..place.config() }
}

fn opened() -> (Place, TestDisk, Log) {
    let (place, disk) = (Place::new(), TestDisk::default());
    let (log, _) = place.open_with(config(&place), Arc::new(disk.clone())).unwrap();
    (place, disk, log)
}

/// Leaves so much room, looks, and gives the step.
fn step(log: &Log, disk: &TestDisk, room: u64) -> Step {
    disk.leave_room(room);
    watch::look(log.shared());
    log.standing().step
}

fn taken(log: &Log, level: Level, method: &str) -> bool {
    let mut subject = Call::new(7, level);
    subject.facts.method = method.into();
    match log.enter(subject) {
        Ok(entry) => run(entry.close(Answer)).is_ok(),
        Err(error) => {
            assert!(matches!(error, AuditError::Withheld { .. }), "{error}");
            false
        }
    }
}

#[test]
fn the_less_room_the_less_is_done_and_each_step_is_recorded() {
    let (place, disk, log) = opened();
    let all = [(Level::Relaxed, "GET"), (Level::Standard, "POST"), (Level::Strict, "GET")];
    let done = |log: &Log| all.map(|(level, method)| taken(log, level, method));
    assert_eq!((step(&log, &disk, 4_000 * KIB), done(&log)), (Step::Normal, [true; 3]));
    assert_eq!((step(&log, &disk, 399 * KIB), done(&log)), (Step::Warn, [true; 3]));
    assert_eq!((step(&log, &disk, 299 * KIB), done(&log)), (Step::Shed, [false, true, true]));
    assert_eq!((step(&log, &disk, 199 * KIB), done(&log)), (Step::ReadOnly, [false, false, true]));
    assert_eq!((step(&log, &disk, 99 * KIB), done(&log)), (Step::Deny, [false; 3]));
    // A refusal is counted then, and everybody still hears how it stands.
    assert_eq!(run(log.refuse(facts_of(3), Answer)).unwrap().index(), None);
    assert!(log.health().is_ok());
    // With room again, all of it comes back, step by step.
    disk.leave_room(4_000 * KIB);
    (0..4 * CALM).for_each(|_| watch::look(log.shared()));
    assert_eq!((log.standing().step, done(&log)), (Step::Normal, [true; 3]));
    run(log.shutdown()).unwrap();
    let told: Vec<_> = exported(&place.dir())
        .iter()
        .filter(|record| record["event"] == "log_step")
        .map(|record| record["detail"].as_str().unwrap().split(" free").next().unwrap().to_owned())
        .collect();
    let steps = ["normal", "warn", "shed", "read_only", "deny", "read_only", "shed", "warn", "normal"];
    let expected: Vec<_> = steps.windows(2).map(|pair| format!("from={} to={}", pair[0], pair[1])).collect();
    assert_eq!(told, expected);
    place.verify().unwrap();
}

#[test]
fn a_slow_disk_is_seen_while_it_is_slow() {
    let (place, disk) = (Place::new(), TestDisk::default());
    let sync = [SECOND, SECOND * 5, SECOND * 10, SECOND * 20];
    let config = LogConfig { thresholds: Thresholds { free_bytes: [0; 4], sync }, ..place.config() };
    let (log, _) = place.open_with(config, Arc::new(disk.clone())).unwrap();
    disk.hold();
    let entry = log.enter(Call::new(1, Level::Standard)).unwrap();
    drop(entry);
    disk.wait_for_syncs(1);
    for (seconds, step) in [(2, Step::Warn), (4, Step::Shed), (5, Step::ReadOnly), (10, Step::Deny)] {
        place.clock.advance(SECOND * seconds);
        watch::look(log.shared());
        assert_eq!(log.standing().step, step);
    }
    disk.release();
    run(log.shutdown()).unwrap();
    place.verify().unwrap();
}

#[test]
fn a_full_disk_is_recorded_in_the_room_that_was_kept_for_that() {
    let (place, disk, log) = opened();
    assert!(place.dir().join(RESERVE).is_file() && log.standing().reserve);
    call(&log, 1).unwrap();
    // The disk is full between two looks: the write itself finds out.
    disk.leave_room(100);
    assert_eq!(call(&log, 2).unwrap(), Some(1), "what was taken on is still recorded");
    assert_eq!(log.standing().step, Step::Deny);
    assert!(!place.dir().join(RESERVE).exists());
    assert!(!taken(&log, Level::Standard, "GET"));
    watch::look(log.shared());
    run(log.note(Note::Event { kind: "still_here".into(), detail: String::new() })).unwrap();
    // It is made anew once there is room.
    disk.leave_room(4_000 * KIB);
    (0..4 * CALM).for_each(|_| watch::look(log.shared()));
    assert!(log.standing().reserve && place.dir().join(RESERVE).is_file());
    run(log.shutdown()).unwrap();
    let full = exported(&place.dir()).iter().any(|record| {
        record["event"] == "log_step" && record["detail"].as_str().unwrap().contains("to=deny free_bytes=0")
    });
    assert!(full, "that the disk was full is in the log");
    place.verify().unwrap();
}

#[test]
fn a_disk_full_beyond_its_reserve_fails_the_log_and_loses_nothing() {
    let (place, disk, log) = opened();
    call(&log, 1).unwrap();
    disk.leave_room(0);
    let mut acknowledged = 1;
    while let Ok(_index) = run(log.note(Note::Event { kind: "x".into(), detail: "y".repeat(4_000) })) {
        acknowledged += 1;
    }
    assert!(acknowledged > 10, "the reserve was used: {acknowledged}");
    assert!(matches!(log.health(), Err(AuditError::Failed { .. })));
    assert!(run(log.shutdown()).is_err());
    drop(log);
    let after = Place::new();
    disk.power_cut(&place.dir(), &after.dir(), super::disk::Left::Nothing);
    let (_log, opened) = after.open().unwrap();
    assert!(opened.records >= acknowledged);
}

/// A wall clock that can be set; time goes by as another one says.
struct SetClock(Arc<cofferdam_model::clock::ManualClock>, std::sync::atomic::AtomicU64);

impl cofferdam_model::Clock for SetClock {
    fn now(&self) -> UnixNanos {
        UnixNanos(self.0.now().0 + self.1.load(std::sync::atomic::Ordering::SeqCst))
    }

    fn monotonic(&self) -> Duration {
        self.0.monotonic()
    }
}

#[test]
fn a_wall_clock_that_was_set_is_recorded() {
    let place = Place::new();
    let clock = Arc::new(SetClock(place.clock.clone(), Default::default()));
    let random = Arc::new(SeededRandom::new(9));
    let (log, _) =
        Log::open_on(Arc::new(TestDisk::default()), config(&place), place.signer(), clock.clone(), random).unwrap();
    place.clock.advance(SECOND * 100);
    watch::look(log.shared());
    clock.1.store(5_000_000_000, std::sync::atomic::Ordering::SeqCst);
    watch::look(log.shared());
    watch::look(log.shared());
    run(log.shutdown()).unwrap();
    let steps: Vec<_> = exported(&place.dir()).into_iter().filter(|record| record["event"] == "clock_step").collect();
    assert_eq!(steps.len(), 1);
    assert_eq!(steps[0]["detail"], "by_ms=5000");
}

#[test]
fn the_scrub_finds_damage_in_sealed_segments_while_the_node_runs() {
    let place = Place::new();
    let config = LogConfig { segment_bytes: 1_024, scrub_bytes_per_second: 1 << 20, ..place.config() };
    let (log, _) = place.open_with(config, Arc::new(super::disk::QuickDisk)).unwrap();
    calls(&log, 6);
    (0..5).for_each(|_| watch::look(log.shared()));
    assert_eq!(log.standing().damaged, 0);
    // One changed byte in one segment, and in another a record that was rewritten with its sum.
    for (number, rewritten) in [(1, false), (3, true)] {
        let path = crate::segment::path(&place.dir(), number);
        let mut bytes = fs::read(&path).unwrap();
        let name = bytes.windows(5).position(|window| window == b"alice").unwrap();
        bytes[name..name + 5].copy_from_slice(b"mally");
        if rewritten {
            crate::segment::complete_frame(&mut bytes[crate::segment::HEADER_BYTES..], number, 0);
        }
        fs::remove_file(&path).unwrap();
        fs::write(&path, bytes).unwrap();
    }
    while log.standing().damaged < 2 {
        watch::look(log.shared());
    }
    run(log.shutdown()).unwrap();
    let told: Vec<_> = exported_loosely(&place).into_iter().filter(|line| line.contains("log_damaged")).collect();
    assert!(
        told.iter().any(|line| line.contains("0000000001.log"))
            && told.iter().any(|line| line.contains("0000000003.log"))
    );
}

/// The newest records, whatever became of the old ones.
fn exported_loosely(place: &Place) -> Vec<String> {
    query::tail(&place.dir(), 100).unwrap()
}
