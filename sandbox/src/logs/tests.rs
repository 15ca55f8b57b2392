//! Log files as guests may try to abuse them.

use cofferdam_model::clock::ManualClock;
use cofferdam_model::random::SeededRandom;
use cofferdam_model::{RequestId, TenantId, UnixNanos};

use super::*;

fn request() -> RequestId {
    RequestId::mint(&SeededRandom::new(3))
}

fn function() -> FunctionId {
    FunctionId::mint(&TenantId::mint(&SeededRandom::new(1)), &SeededRandom::new(2))
}

fn line(text: &[u8]) -> Line {
    Line { request: request(), stream: Stream::Out, text: text.to_vec() }
}

struct Rig {
    dir: tempfile::TempDir,
    clock: Arc<ManualClock>,
    logs: Logs,
}

fn rig(limits: Limits) -> Rig {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::at(UnixNanos::from_seconds(1_795_171_080)));
    let logs = Logs::open(dir.path(), &limits, clock.clone()).unwrap();
    Rig { dir, clock, logs }
}

#[test]
fn a_line_names_time_request_and_stream() {
    let rig = rig(Limits::default());
    rig.logs.append(&function(), vec![line(b"hello\r\n\nworld\n")]);
    let at = "2026-11-20T10:38:00.000000Z";
    let expected = [format!("{at} {} out hello", request()), format!("{at} {} out world", request())];
    assert_eq!(rig.logs.newest(&function(), 10).unwrap(), expected);
    assert_eq!(rig.logs.newest(&function(), 1).unwrap(), expected[1..]);
}

#[test]
fn guest_cannot_write_control_characters_or_forge_lines() {
    let rig = rig(Limits::default());
    let naughty = "\x1b[2J\x07 a\rb\tc \u{202e}evil\u{2028} \u{9b}31m \\u{1b} ü 日本".as_bytes();
    rig.logs.append(&function(), vec![line(&[naughty, b" \xff\xfe\x00"].concat())]);
    let lines = rig.logs.newest(&function(), 10).unwrap();
    assert_eq!(lines.len(), 1);
    assert!(
        lines[0]
            .ends_with(r"out \u{1b}[2J\u{7} a\u{d}b\tc \u{202e}evil\u{2028} \u{9b}31m \\u{1b} ü 日本 \xff\xfe\u{0}")
    );
    let raw = std::fs::read(path(rig.dir.path(), &function())).unwrap();
    assert!(raw[..raw.len() - 1].iter().all(|byte| !byte.is_ascii_control()));
}

#[test]
fn long_lines_are_broken_and_unfinished_ones_kept_until_the_end() {
    let (mut held, mut out) = (Assembler::default(), Vec::new());
    held.take(&request(), Stream::Err, b"no end", 1 << 20, &mut out).unwrap();
    assert!(out.is_empty());
    held.take(&request(), Stream::Out, &[b'x'; 9000], 1 << 20, &mut out).unwrap();
    held.flush(&request(), &mut out);
    let lengths: Vec<usize> = out.iter().flat_map(Line::lines).map(<[u8]>::len).collect();
    assert_eq!(lengths, [4096, 4096, 808, 6]);
}

#[test]
fn one_call_cannot_say_more_than_its_limit_not_even_in_empty_pieces() {
    let (mut held, mut out) = (Assembler::default(), Vec::new());
    let mut taken = 0;
    while held.take(&request(), Stream::Out, b"", 100, &mut out).is_ok() {
        taken += 1;
        assert!(taken < 100_000);
    }
    assert!(out.is_empty());
}

#[test]
fn a_log_flood_is_cut_and_counted() {
    let rig = rig(Limits { log_bytes_per_second: 250, ..Limits::default() });
    rig.logs.append(&function(), vec![line(&b"0123456789\n".repeat(100))]);
    let before = rig.logs.newest(&function(), 1000).unwrap();
    assert!((10..20).contains(&before.len()), "{}", before.len());
    rig.clock.advance(Duration::from_secs(4));
    rig.logs.append(&function(), vec![line(b"again\n")]);
    let after = rig.logs.newest(&function(), 1000).unwrap();
    let dropped = 100 - before.len();
    assert!(after[before.len()].ends_with(&format!("- platform {dropped} lines were dropped here")));
    assert!(after.last().unwrap().ends_with("out again"));
}

#[test]
fn files_are_rotated_and_bounded() {
    let rig = rig(Limits { log_file_bytes: 2000, ..Limits::default() });
    for number in 0..200 {
        rig.logs.append(&function(), vec![line(format!("line {number}\n").as_bytes())]);
        // One at a time: the queue is not what is looked at here.
        rig.logs.flush();
    }
    let lines = rig.logs.newest(&function(), 1000).unwrap();
    assert!(lines.len() > 20 && lines.len() < 80, "{}", lines.len());
    assert!(lines.last().unwrap().ends_with("line 199"));
    for (older, newer) in lines.iter().zip(&lines[1..]) {
        let number = |line: &str| line.rsplit(' ').next().unwrap().parse::<u32>().unwrap();
        assert_eq!(number(older) + 1, number(newer));
    }
    let sizes: u64 = rig.dir.path().read_dir().unwrap().map(|e| e.unwrap().metadata().unwrap().len()).sum();
    assert!(sizes <= 2 * 2100, "{sizes}");
}

#[test]
fn a_function_that_never_wrote_has_no_lines() {
    let rig = rig(Limits::default());
    assert_eq!(rig.logs.newest(&function(), 10).unwrap(), Vec::<String>::new());
}
