//! The log alone: durable records a second beside what the disk does by itself, bytes of a record, how fast a log is
//! verified and opened, and the memory of a process that appends to a long one.
//!
//! Owns its tables. The raw rate is of the same disk, in the same run, right before.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cofferdam_audit::{Log, LogConfig, Note, Signer, verify};
use cofferdam_model::{OsRandom, SystemClock};
use tokio::task::JoinSet;

use crate::times::now;

const ORIGIN: &str = "cofferdam.test/bench";
/// Time each rate is measured for.
const WHILE: Duration = Duration::from_secs(5);
/// Records of the long log.
const MANY: u64 = 2_000_000;
/// Records that are waited for at a time while it is made.
const AT_ONCE: u64 = 4_096;

/// Measures it all.
pub(crate) async fn run() {
    let home = tempfile::tempdir().expect("a directory");
    println!("\n## The log\n\nfdatasync of 700 bytes, one after the other: {:.0}/s\n", raw(home.path()));
    println!("| waiters | one sync at a time, records/s | two, records/s |\n|---|---|---|");
    for waiters in [1, 16, 64, 256] {
        let mut rates = Vec::new();
        for syncs in [1, 2] {
            let dir = home.path().join(format!("{waiters}-{syncs}"));
            std::fs::create_dir(&dir).expect("a directory");
            let (log, _) = open(&dir, syncs);
            rates.push(rate(&log, waiters).await);
            log.shutdown().await.expect("a log that closes");
        }
        println!("| {waiters} | {:.0} | {:.0} |", rates[0], rates[1]);
    }
    long(home.path()).await;
}

fn open(dir: &Path, syncs: usize) -> (Log, String) {
    let key = dir.join("key");
    let signer = Signer::load(&key).or_else(|_| Signer::create(&key, ORIGIN, &OsRandom)).expect("a key");
    let vkey = signer.verifier_key();
    let settings = LogConfig { syncs, ..LogConfig::new(dir.join("log"), ORIGIN) };
    let opened = Log::open(settings, signer, Arc::new(SystemClock::default()), Arc::new(OsRandom));
    (opened.expect("a log").0, vkey)
}

/// What the disk does by itself, with what one record takes.
fn raw(home: &Path) -> f64 {
    let file = File::create(home.join("raw")).expect("a file");
    file.set_len(64 << 20).and_then(|()| file.sync_all()).expect("room");
    let (begun, mut count) = (now(), 0u64);
    while begun.elapsed() < WHILE {
        file.write_all_at(&[b'x'; 700], 64 + 700 * count).and_then(|()| file.sync_data()).expect("a sync");
        count += 1;
    }
    count as f64 / begun.elapsed().as_secs_f64()
}

fn note() -> Note {
    Note::Event { kind: "bench".into(), detail: "x".repeat(500) }
}

async fn rate(log: &Log, waiters: usize) -> f64 {
    let (begun, mut tasks) = (now(), JoinSet::new());
    for _ in 0..waiters {
        let log = log.clone();
        tasks.spawn(async move {
            while begun.elapsed() < WHILE {
                log.note(note()).await.expect("a record");
            }
        });
    }
    tasks.join_all().await;
    log.records() as f64 / begun.elapsed().as_secs_f64()
}

/// Resident memory of this process, in KiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or_default()
}

async fn long(home: &Path) {
    let dir = home.join("long");
    std::fs::create_dir(&dir).expect("a directory");
    let (log, vkey) = open(&dir, 2);
    println!("\n| records in the log | resident KiB while appending |\n|---|---|");
    for part in 1..=4 {
        while log.records() < MANY / 4 * part {
            let mut tasks = JoinSet::new();
            for _ in 0..AT_ONCE {
                let log = log.clone();
                tasks.spawn(async move { log.note(note()).await.map(drop) });
            }
            assert!(tasks.join_all().await.iter().all(Result::is_ok), "every record is durable");
        }
        println!("| {} | {} |", log.records(), resident());
    }
    log.shutdown().await.expect("a log that closes");
    drop(log);
    let segments = dir.join("log/segments");
    let files = std::fs::read_dir(segments).expect("segments").filter_map(|entry| entry.ok()?.metadata().ok());
    let bytes: u64 = files.map(|about| about.len()).sum();
    let begun = now();
    let found = verify::verify(&dir.join("log"), &vkey).expect("a good log");
    let verifying = begun.elapsed();
    let begun = now();
    let (log, _) = open(&dir, 2);
    let opening = begun.elapsed();
    println!("\n- {} bytes of a record as stored", bytes / found.size);
    println!("- verified: {:.0} records/s", found.size as f64 / verifying.as_secs_f64());
    println!("- opened in {} ms, {} KiB resident", opening.as_millis(), resident());
    drop(log);
}
