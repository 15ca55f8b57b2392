//! A process that only records, killed again and again: what it said was safe is there.
//!
//! The process is this very test program, asked for one test; it tells of each record it was acknowledged, and whoever
//! reads that holds the receipts.

use std::io::{BufRead, BufReader, Write as _};
use std::process::{Command, Stdio};
use std::sync::Arc;

use super::*;
use crate::Note;

const KILLS: u64 = 200;
/// The one test here, which the process that is killed is asked for as well.
const OWN: &str = "tests::kills::no_record_with_a_receipt_is_lost_in_two_hundred_kills";
/// Where the process that is killed has its log.
const PLACE: &str = "COFFERDAM_TEST_APPEND";

/// Appends until it is killed, four records at a time, and tells of each that it was acknowledged.
fn append(home: &Path) {
    let signer = Signer::load(&home.join("key")).unwrap();
    let clock = Arc::new(cofferdam_model::SystemClock::default());
    let config = LogConfig { segment_bytes: 16 * 1024, ..LogConfig::new(home.join("log"), ORIGIN) };
    let (log, _) = Log::open(config, signer, clock, Arc::new(cofferdam_model::OsRandom)).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let kind = cofferdam_model::RequestId::mint(&cofferdam_model::OsRandom).to_string();
                    let index = run(log.note(Note::Event { kind: kind.clone(), detail: String::new() })).unwrap();
                    // One write for each line, so that none is torn.
                    let line = format!("receipt {index} {kind}\n");
                    std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
                }
            });
        }
    });
}

#[test]
fn no_record_with_a_receipt_is_lost_in_two_hundred_kills() {
    if let Some(home) = std::env::var_os(PLACE) {
        return append(Path::new(&home));
    }
    let place = Place::new();
    let mut receipts: Vec<(u64, String)> = Vec::new();
    for kill in 0..KILLS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", OWN, "--nocapture"])
            .env(PLACE, place.home.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // After a different number of receipts each time, the very first moments included.
        let wanted = (kill * 7 % 11) as usize;
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let receipt = |line: String| {
            let (_, rest) = line.split_once("receipt ")?;
            let (index, kind) = rest.split_once(' ')?;
            Some((index.parse().ok()?, kind.to_owned()))
        };
        receipts.extend(lines.by_ref().map_while(Result::ok).filter_map(receipt).take(wanted));
        child.kill().unwrap();
        // What it said before it died counts as well.
        receipts.extend(lines.map_while(Result::ok).filter_map(receipt));
        child.wait().unwrap();
    }
    let (log, opened) = place.open().unwrap();
    run(log.shutdown()).unwrap();
    assert_eq!(place.verify().unwrap().size, opened.records);
    let records = exported(&place.dir());
    assert!(receipts.len() > 500, "{} receipts", receipts.len());
    for (index, kind) in &receipts {
        assert_eq!(records[usize::try_from(*index).unwrap()]["event"], kind.as_str(), "record {index}");
    }
}
