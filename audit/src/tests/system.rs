//! Faults that the system itself makes: syscalls that fail under `strace`, and a file system that is full.
//!
//! Where the host allows neither, each says why it did nothing.

use std::process::{Command, Stdio};
use std::sync::Arc;

use super::kills::{PLACE, receipts_of};
use super::*;
use crate::watch::{self, RESERVE};
use crate::{Note, Step, Thresholds};

const KIB: u64 = 1024;

fn strace(arguments: &[&str]) -> Command {
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-o", "/dev/null"]).args(arguments).stderr(Stdio::null());
    command
}

#[test]
fn whichever_sync_write_or_rename_the_system_fails_nothing_with_a_receipt_is_lost() {
    if !strace(&["true"]).stdout(Stdio::null()).status().is_ok_and(|status| status.success()) {
        return eprintln!("skipped: strace is not installed, or may not trace here");
    }
    for (call, error) in [("fdatasync", "EIO"), ("pwrite64", "EIO"), ("pwrite64", "ENOSPC"), ("rename", "EIO")] {
        for number in [1, 2, 3, 7] {
            let place = Place::new();
            let inject = format!("inject={call}:error={error}:when={number}");
            let mut command = strace(&["-e", &format!("trace={call}"), "-e", &inject]);
            command.arg(std::env::current_exe().unwrap()).args(["--exact", "tests::kills::appender", "--nocapture"]);
            // It goes on until the call fails; then the log has failed, and so does the process.
            let output = command.env(PLACE, place.home.path()).output().unwrap();
            assert!(!output.status.success(), "{inject}");
            let receipts = receipts_of(&output.stdout[..]);
            let (log, opened) = place.open().unwrap_or_else(|error| panic!("{inject}: {error:?}"));
            run(log.shutdown()).unwrap();
            assert_eq!(place.verify().unwrap().size, opened.records, "{inject}");
            let records = exported(&place.dir());
            for (index, kind) in receipts {
                assert_eq!(records[usize::try_from(index).unwrap()]["event"], kind.as_str(), "{inject}");
            }
        }
    }
}

/// A file system in memory, unmounted when it is dropped.
struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_file_system_that_fills_up_is_recorded_and_loses_nothing() {
    let place = Place::new();
    fs::create_dir_all(place.dir()).unwrap();
    let mount = |options: &str| {
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", options, "none"]).arg(place.dir()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    if !mount("size=1m") {
        return eprintln!("skipped: file systems may not be mounted here");
    }
    let _mounted = Mounted(place.dir());
    let thresholds = Thresholds { free_bytes: [700 * KIB, 600 * KIB, 500 * KIB, 400 * KIB], ..Thresholds::NEVER };
    let config = LogConfig { thresholds, reserve_bytes: 128 * KIB, segment_bytes: 32 * KIB, ..place.config() };
    let (log, _) = place.open_with(config.clone(), Arc::new(Disk)).unwrap();
    assert!(log.standing().reserve);
    let mut told = 0;
    // Notes are not held back by the ladder, so the file system does fill up.
    while run(log.note(Note::Event { kind: "x".into(), detail: "y".repeat(2_000) })).is_ok() {
        told += 1;
        watch::look(log.shared());
        assert!(told < 1_000, "the file system never fills up");
    }
    assert_eq!(log.standing().step, Step::Deny);
    assert!(!place.dir().join(RESERVE).exists(), "what was reserved was used");
    assert!(matches!(log.health(), Err(AuditError::Failed { .. })));
    drop(log);
    assert!(mount("remount,size=4m"));
    let (log, opened) = place.open_with(config, Arc::new(Disk)).unwrap();
    assert!(opened.records >= told);
    run(log.shutdown()).unwrap();
    place.verify().unwrap();
    let denied = |record: &serde_json::Value| record["detail"].as_str().is_some_and(|text| text.contains("to=deny"));
    assert!(exported(&place.dir()).iter().any(denied));
}
