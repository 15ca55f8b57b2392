//! Log files as guests may try to abuse them.

use cofferdam_model::clock::ManualClock;
use cofferdam_model::random::SeededRandom;
use cofferdam_model::{LogCursor, RequestId, TenantId, UnixNanos};

use super::assemble::LINE_BYTES;
use super::*;

fn request() -> RequestId {
    RequestId::mint(&SeededRandom::new(3))
}

fn function() -> FunctionId {
    FunctionId::mint(&TenantId::mint(&SeededRandom::new(1)), &SeededRandom::new(2))
}

fn line(text: &[u8]) -> Line {
    Line::new(request(), Stream::Out, text.to_vec())
}

struct Rig {
    dir: tempfile::TempDir,
    clock: Arc<ManualClock>,
    logs: Logs,
}

impl Rig {
    fn newest(&self, lines: usize) -> Result<Vec<String>, SandboxError> {
        self.logs.flush();
        tail::newest(self.dir.path(), &function(), lines).map(|page| page.lines)
    }

    fn write(&self, text: &str) {
        self.logs.append(&function(), vec![line(text.as_bytes())]);
        self.logs.flush();
    }

    fn after(&self, place: LogCursor, lines: usize) -> LogPage {
        tail::after(self.dir.path(), &function(), place, lines).unwrap()
    }
}

/// What was written, without what stands before it.
fn said(page: &LogPage) -> Vec<&str> {
    page.lines.iter().map(|line| line.rsplit("out ").next().unwrap()).collect()
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
    assert_eq!(rig.newest(10).unwrap(), expected);
    assert_eq!(rig.newest(1).unwrap(), expected[1..]);
}

#[test]
fn guest_cannot_write_control_characters_or_forge_lines() {
    let rig = rig(Limits::default());
    let naughty = "\x1b[2J\x07 a\rb\tc \u{202e}evil\u{2028} \u{9b}31m \\u{1b} ü 日本".as_bytes();
    rig.logs.append(&function(), vec![line(&[naughty, b" \xff\xfe\x00"].concat())]);
    let lines = rig.newest(10).unwrap();
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

/// What is in the log of a call that writes these pieces, where every occurrence of `secret` is blotted out.
fn blotted(secret: &[u8], pieces: &[&[u8]]) -> Vec<u8> {
    let (mut held, mut lines) = (Assembler::new(secret.len()), Vec::new());
    for piece in pieces {
        held.take(&request(), Stream::Out, piece, 1 << 20, &mut lines).unwrap();
        assert!(held.held() < LINE_BYTES + 2 * secret.len(), "{} bytes are held back", held.held());
    }
    held.flush(&request(), &mut lines);
    for line in &mut lines {
        line.change(|text, own| {
            let mut clean = text.to_vec();
            let found = text.windows(secret.len()).enumerate().filter(|(_, window)| window == &secret);
            found.for_each(|(at, _)| clean[at..at + secret.len()].fill(b'*'));
            clean[own].to_vec()
        });
    }
    lines.iter().flat_map(|line| line.text().to_vec()).collect()
}

#[test]
fn a_credential_is_found_wherever_a_long_line_is_cut_and_however_it_was_written() {
    let secret = b"s3cret-of-the-api";
    let place = |at: usize| [&vec![b'x'; at][..], secret, &[b'y'; 5000]].concat();
    let hidden = |at: usize| [&vec![b'x'; at][..], &[b'*'; 17], &[b'y'; 5000]].concat();
    for at in LINE_BYTES - 40..LINE_BYTES + 40 {
        let (text, expected) = (place(at), hidden(at));
        // As one piece, as pieces of several sizes, and as two that part inside of the credential.
        assert_eq!(blotted(secret, &[&text]), expected, "{at}");
        for size in [7, 100, LINE_BYTES] {
            assert_eq!(blotted(secret, &text.chunks(size).collect::<Vec<_>>()), expected, "{at} by {size}");
        }
        let (first, second) = text.split_at(at + 5);
        assert_eq!(blotted(secret, &[first, second]), expected, "{at}");
        // A line break ends what is looked at, and the next line begins anew.
        let ended = [&text, &b"\n"[..], &text].concat();
        let both = [&expected, &b"\n"[..], &expected].concat();
        assert_eq!(blotted(secret, &ended.chunks(100).collect::<Vec<_>>()), both, "{at}");
    }
    let byte_by_byte = place(LINE_BYTES - 3);
    assert_eq!(blotted(secret, &byte_by_byte.chunks(1).collect::<Vec<_>>()), hidden(LINE_BYTES - 3));
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
    let before = rig.newest(1000).unwrap();
    assert!((10..20).contains(&before.len()), "{}", before.len());
    rig.clock.advance(Duration::from_secs(4));
    rig.logs.append(&function(), vec![line(b"again\n")]);
    let after = rig.newest(1000).unwrap();
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
    let lines = rig.newest(1000).unwrap();
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
    assert_eq!(rig.newest(10).unwrap(), Vec::<String>::new());
}

#[test]
fn a_reader_who_comes_back_gets_each_line_once_also_across_rotation() {
    let rig = rig(Limits { log_file_bytes: 2000, ..Limits::default() });
    let start = tail::newest(rig.dir.path(), &function(), 10).unwrap();
    assert_eq!(start, LogPage { lines: vec![], cursor: LogCursor::default(), missed: false });
    let (mut place, mut seen) = (start.cursor, Vec::new());
    for number in 0..200 {
        rig.write(&format!("line {number}\n"));
        // Sometimes at once, sometimes after several, never after so many that the older file is gone.
        if number % 7 == 0 || number % 5 == 0 {
            let page = rig.after(place, 100);
            assert!(!page.missed);
            seen.extend(said(&page).into_iter().map(str::to_owned));
            place = page.cursor;
            assert_eq!(rig.after(place, 100), LogPage { lines: vec![], cursor: place, missed: false });
        }
    }
    seen.extend(said(&rig.after(place, 100)).into_iter().map(str::to_owned));
    assert_eq!(seen, (0..200).map(|number| format!("line {number}")).collect::<Vec<_>>());
}

#[test]
fn a_reader_gets_no_more_than_asked_for_and_goes_on_where_that_ended() {
    let rig = rig(Limits { log_file_bytes: 2000, ..Limits::default() });
    (0..40).for_each(|number| rig.write(&format!("{number}\n")));
    let mut place = LogCursor::default();
    let all = tail::newest(rig.dir.path(), &function(), 100).unwrap();
    let mut seen = Vec::new();
    loop {
        let page = rig.after(place, 3);
        assert!(page.lines.len() <= 3);
        if page.lines.is_empty() {
            break;
        }
        place = page.cursor;
        seen.extend(page.lines);
    }
    assert_eq!((seen, place), (all.lines, all.cursor));
}

#[test]
fn a_reader_who_stayed_away_too_long_is_told_that_lines_are_gone() {
    let rig = rig(Limits { log_file_bytes: 2000, ..Limits::default() });
    rig.write("first\n");
    let place = tail::newest(rig.dir.path(), &function(), 10).unwrap().cursor;
    (0..200).for_each(|number| rig.write(&format!("line {number}\n")));
    let page = rig.after(place, 1000);
    assert!(page.missed && said(&page).last() == Some(&"line 199"));
    assert!(!rig.after(page.cursor, 10).missed);
    let beyond = LogCursor { offset: u64::MAX, ..page.cursor };
    assert!(rig.after(beyond, 10).missed, "a place nobody was at");
}

#[tokio::test]
async fn a_reader_waits_for_the_next_line_and_no_longer_than_asked() {
    let rig = rig(Limits::default());
    rig.write("first\n");
    let place = tail::newest(rig.dir.path(), &function(), 10).unwrap().cursor;
    let range = LogRange { lines: 10, after: Some(place), wait: Duration::from_millis(1) };
    assert_eq!(rig.logs.read(&function(), range).await.unwrap().lines, Vec::<String>::new());
    // Far longer than a test may take, so that it passes only if the line wakes the reader.
    let range = LogRange { wait: Duration::from_secs(3600), ..range };
    let (logs, id) = (rig.logs.clone(), function());
    let reading = tokio::spawn(async move { logs.read(&id, range).await.unwrap() });
    rig.logs.append(&function(), vec![line(b"second\n")]);
    assert_eq!(said(&reading.await.unwrap()), ["second"]);
}
