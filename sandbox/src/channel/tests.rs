//! The channel against a scripted cell at the other end of a real socket pair.

mod fetch;
mod script;

use std::sync::Arc;
use std::task::Waker;

use bytes::{Bytes, BytesMut};
use cofferdam_model::clock::ManualClock;
use cofferdam_model::frame::{HEADER_BYTES, Header, INITIAL_CREDIT};
use cofferdam_model::random::SeededRandom;
use cofferdam_model::{FunctionLimits, RequestId, UnixNanos, Usage};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::egress::NoOutlet;

const USAGE: Usage = Usage {
    cpu_us: 7,
    wall_us: 99_999_999,
    memory_bytes: u64::MAX,
    memory_kib_ms: u64::MAX,
    bytes_in: 9,
    bytes_out: 9,
    log_bytes: 9,
    egress_calls: 0,
    egress_bytes_out: 0,
    egress_bytes_in: 0,
};

/// The cell's end.
struct Peer(UnixStream);

impl Peer {
    async fn hears(&mut self) -> (Header, Vec<u8>) {
        let mut bytes = [0; HEADER_BYTES];
        self.0.read_exact(&mut bytes).await.unwrap();
        let header = Header::decode(&bytes).unwrap();
        let mut payload = vec![0; header.length];
        self.0.read_exact(&mut payload).await.unwrap();
        (header, payload)
    }

    async fn says(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = Vec::new();
        write(&mut bytes);
        self.0.write_all(&bytes).await.unwrap();
    }
}

struct Rig {
    channel: Arc<Channel>,
    peer: Peer,
    clock: Arc<ManualClock>,
    lines: Arc<Mutex<Vec<Line>>>,
}

fn rig() -> Rig {
    rig_with(Arc::new(NoOutlet))
}

fn rig_with(outlet: Arc<dyn Outlet>) -> Rig {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let clock = Arc::new(ManualClock::at(UnixNanos(0)));
    let lines = Arc::new(Mutex::new(Vec::new()));
    let sink = lines.clone();
    let channel = Channel::start(ours, clock.clone(), Arc::new(move |more| sink.lock().unwrap().extend(more)), outlet);
    Rig { channel, peer: Peer(theirs), clock, lines }
}

fn ticket(limits: FunctionLimits) -> Ticket {
    Ticket { request: RequestId::mint(&SeededRandom::new(1)), limits: Arc::new(limits), errand: None, lease: None }
}

fn head() -> RequestHead {
    RequestHead { method: Method::GET, authority: "a.example".into(), target: "/".into(), headers: HeaderMap::new() }
}

impl Rig {
    fn open_with(&self, end: bool, limits: FunctionLimits) -> Handle {
        let mut handle = self.channel.open(&head(), end, ticket(limits)).unwrap();
        handle.start();
        handle
    }

    fn open(&self) -> Handle {
        self.open_with(true, FunctionLimits::default())
    }

    async fn closed_by(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> Closed {
        self.peer.says(write).await;
        self.channel.closed().await
    }
}

fn response(out: &mut Vec<u8>, end: bool, call: u32) {
    frame::put_response(out, end, call, StatusCode::OK, &HeaderMap::new()).unwrap();
}

fn data(out: &mut Vec<u8>, end: bool, call: u32, bytes: &[u8]) {
    frame::put(out, Kind::Data, end, call, bytes).unwrap();
}

fn done(out: &mut Vec<u8>, call: u32, ending: Ending) {
    frame::put_done(out, call, ending, &USAGE).unwrap();
}

fn whole(out: &mut Vec<u8>, call: u32, body: &[u8]) {
    response(out, false, call);
    data(out, true, call, body);
    done(out, call, Ending::Answered);
}

async fn head_of(handle: &Handle) -> Result<StatusCode, Ending> {
    let head = std::future::poll_fn(|cx| handle.poll_head(cx)).await;
    head.map(|(status, _)| status).map_err(|(ending, _)| ending)
}

async fn piece_of(handle: &Handle) -> Option<Result<Bytes, Ending>> {
    let piece = std::future::poll_fn(|cx| handle.poll_piece(cx)).await;
    piece.map(|piece| piece.map_err(|(ending, _)| ending))
}

async fn end_of(handle: &Handle) -> (Ending, Usage) {
    std::future::poll_fn(|cx| handle.poll_over(cx)).await
}

#[tokio::test]
async fn a_small_answer_is_there_in_one_wake() {
    let mut rig = rig();
    let handle = rig.open();
    let (header, _) = rig.peer.hears().await;
    assert_eq!((header.kind, header.end, header.call), (Kind::Request, true, handle.number()));
    rig.clock.advance(Duration::from_micros(50));
    rig.peer.says(|out| whole(out, header.call, b"hello")).await;
    assert_eq!(head_of(&handle).await, Ok(StatusCode::OK));
    let cx = Context::from_waker(Waker::noop());
    assert!(matches!(handle.poll_piece(&cx), Poll::Ready(Some(Ok(piece))) if piece == "hello"));
    assert!(matches!(handle.poll_piece(&cx), Poll::Ready(None)));
    let Poll::Ready((ending, usage)) = handle.poll_over(&cx) else { panic!("not over") };
    assert_eq!(ending, Ending::Answered);
    // Bytes and wall time are the gateway's own counts; the rest is cut to what is possible.
    let memory_bytes = FunctionLimits::default().memory_bytes;
    let memory_kib_ms = (memory_bytes * 50).div_ceil(1024 * 1000);
    assert_eq!(usage, Usage { cpu_us: 7, wall_us: 50, memory_bytes, memory_kib_ms, bytes_out: 5, ..Usage::default() });
}

#[tokio::test]
async fn answers_of_many_calls_do_not_mix() {
    let mut rig = rig();
    let handles: Vec<Handle> = (0..50).map(|_| rig.open()).collect();
    let mut out = Vec::new();
    for _ in &handles {
        let (header, _) = rig.peer.hears().await;
        response(&mut out, false, header.call);
    }
    for handle in handles.iter().rev() {
        data(&mut out, true, handle.number(), &handle.number().to_be_bytes());
        done(&mut out, handle.number(), Ending::Answered);
    }
    rig.peer.says(|bytes| bytes.append(&mut out)).await;
    for handle in &handles {
        assert_eq!(head_of(handle).await, Ok(StatusCode::OK));
        assert_eq!(piece_of(handle).await, Some(Ok(Bytes::copy_from_slice(&handle.number().to_be_bytes()))));
        assert_eq!(end_of(handle).await.0, Ending::Answered);
    }
}

/// What a cell might say in its first call (number 1) that it must not, and how that is judged.
type Offence = (&'static str, fn(&mut Vec<u8>), Violation);

const OFFENCES: &[Offence] = &[
    ("a call never opened", |out| response(out, true, 2), Violation::UnknownCall),
    ("call number 0", |out| data(out, true, 0, b"x"), Violation::UnknownCall),
    ("body before head", |out| data(out, false, 1, b"x"), Violation::OutOfOrder("body before head")),
    (
        "a second head",
        |out| {
            response(out, false, 1);
            response(out, false, 1);
        },
        Violation::OutOfOrder("a second head"),
    ),
    (
        "body after the end",
        |out| {
            response(out, true, 1);
            data(out, false, 1, b"x");
        },
        Violation::OutOfOrder("body after its end"),
    ),
    (
        "an empty piece",
        |out| {
            response(out, false, 1);
            data(out, false, 1, b"");
        },
        Violation::OutOfOrder("an empty piece"),
    ),
    (
        "more than its credit",
        |out| {
            response(out, false, 1);
            (0..4).for_each(|_| data(out, false, 1, &[0; 65536]));
            data(out, false, 1, b"x");
        },
        Violation::OverCredit,
    ),
    (
        "done twice",
        |out| {
            whole(out, 1, b"");
            done(out, 1, Ending::Answered);
        },
        Violation::UnknownCall,
    ),
    (
        "answered without an answer",
        |out| done(out, 1, Ending::Answered),
        Violation::OutOfOrder("done without an answer"),
    ),
    (
        "answered without the end of the answer",
        |out| {
            response(out, false, 1);
            done(out, 1, Ending::Answered);
        },
        Violation::OutOfOrder("done without an answer"),
    ),
    ("credit for nothing", |out| frame::put_credit(out, 1, 1).unwrap(), Violation::OutOfOrder("credit for nothing")),
    ("no credit at all", |out| frame::put_credit(out, 1, 0).unwrap(), Violation::OutOfOrder("credit for nothing")),
    (
        "an interim head",
        |out| frame::put_response(out, false, 1, StatusCode::CONTINUE, &HeaderMap::new()).unwrap(),
        Violation::OutOfOrder("an interim head"),
    ),
    (
        "more log than allowed",
        |out| (0..2).for_each(|_| frame::put(out, Kind::Log, false, 1, &[1; 40_000]).unwrap()),
        Violation::OverLimit("log"),
    ),
    (
        "more head than allowed",
        |out| {
            let mut headers = HeaderMap::new();
            headers.insert("x", HeaderValue::from_str(&"y".repeat(33_000)).unwrap());
            frame::put_response(out, true, 1, StatusCode::OK, &headers).unwrap();
        },
        Violation::OverLimit("header"),
    ),
    (
        "a kind only the gateway sends",
        |out| frame::put(out, Kind::Cancel, false, 1, &[]).unwrap(),
        Violation::Kind(Kind::Cancel),
    ),
];

#[tokio::test]
async fn a_cell_that_breaks_a_rule_is_cut_off_and_all_its_calls_are_lost() {
    for (what, offence, violation) in OFFENCES {
        let mut rig = rig();
        let (guilty, other) = (rig.open(), rig.open_with(true, FunctionLimits::default()));
        // The second call is number 2, so the one never opened has to be another.
        let shift = |out: &mut Vec<u8>| match what {
            &"a call never opened" => response(out, true, 3),
            _ => offence(out),
        };
        let closed = rig.closed_by(shift).await;
        let Closed::Violated(_, found) = closed else { panic!("{what}: {closed:?}") };
        assert_eq!(found, *violation, "{what}");
        assert_eq!(end_of(&other).await.0, Ending::CellLost, "{what}");
        if *what != "done twice" {
            assert_eq!(end_of(&guilty).await.0, Ending::CellLost, "{what}");
        }
        assert!(rig.channel.open(&head(), true, ticket(FunctionLimits::default())).is_err(), "{what}");
    }
}

#[tokio::test]
async fn bytes_that_are_no_frame_close_the_channel() {
    let mut rig = rig();
    let handle = rig.open();
    let closed = rig.closed_by(|out| out.extend_from_slice(b"HTTP/1.1 200 OK\r\n\r\n")).await;
    assert!(matches!(closed, Closed::Violated(0, Violation::Frame(_))), "{closed:?}");
    assert_eq!(head_of(&handle).await, Err(Ending::CellLost));
}

#[tokio::test]
async fn an_answer_before_a_violation_in_the_same_bytes_still_counts() {
    let mut rig = rig();
    let (first, second) = (rig.open(), rig.open());
    rig.closed_by(|out| {
        whole(out, first.number(), b"fine");
        out.extend_from_slice(&[255; HEADER_BYTES]);
    })
    .await;
    assert_eq!(head_of(&first).await, Ok(StatusCode::OK));
    assert_eq!(piece_of(&first).await, Some(Ok("fine".into())));
    assert_eq!(end_of(&first).await.0, Ending::Answered);
    assert_eq!(head_of(&second).await, Err(Ending::CellLost));
}

#[tokio::test]
async fn an_answer_over_the_limit_ends_as_too_large() {
    let mut rig = rig();
    let handle = rig.open_with(true, FunctionLimits { response_bytes: 3, ..FunctionLimits::default() });
    rig.closed_by(|out| {
        response(out, false, handle.number());
        data(out, false, handle.number(), b"four");
    })
    .await;
    assert_eq!(end_of(&handle).await.0, Ending::ResponseTooLarge);
}

#[tokio::test]
async fn the_death_of_a_cell_ends_its_calls_as_lost() {
    let mut rig = rig();
    let (asked, streaming) = (rig.open(), rig.open());
    rig.peer
        .says(|out| {
            response(out, false, streaming.number());
            data(out, false, streaming.number(), b"part");
        })
        .await;
    assert_eq!(head_of(&streaming).await, Ok(StatusCode::OK));
    drop(rig.peer);
    assert_eq!(head_of(&asked).await, Err(Ending::CellLost));
    assert_eq!(piece_of(&streaming).await, Some(Ok("part".into())), "what was here is given");
    assert_eq!(piece_of(&streaming).await, Some(Err(Ending::CellLost)));
    assert_eq!(rig.channel.closed().await, Closed::Gone);
}

#[tokio::test]
async fn a_call_out_of_time_takes_the_others_with_it_under_another_name() {
    let rig = rig();
    let (late, other) = (rig.open(), rig.open());
    late.expire();
    assert_eq!(head_of(&late).await, Err(Ending::WallExceeded));
    assert_eq!(head_of(&other).await, Err(Ending::CellLost));
}

#[tokio::test]
async fn a_request_body_waits_for_credit() {
    let mut rig = rig();
    let handle = rig.open_with(false, FunctionLimits::default());
    let number = handle.number();
    let cx = Context::from_waker(Waker::noop());
    let mut sent = 0;
    while let Poll::Ready(Some(room)) = rig.channel.poll_room(number, &cx) {
        rig.channel.send(number, &vec![1; room], false);
        sent += room;
    }
    assert_eq!(sent, usize::try_from(INITIAL_CREDIT).unwrap());
    rig.channel.flush();
    rig.peer.hears().await;
    rig.peer.says(|out| frame::put_credit(out, number, 10).unwrap()).await;
    let room = std::future::poll_fn(|cx| rig.channel.poll_room(number, cx)).await;
    assert_eq!(room, Some(10));
    rig.channel.send(number, &[2; 10], true);
    rig.channel.flush();
    let mut read = BytesMut::new();
    loop {
        let (header, payload) = rig.peer.hears().await;
        read.extend_from_slice(&payload);
        if header.end {
            break;
        }
    }
    assert_eq!(read.len(), sent + 10);
    assert!(matches!(rig.channel.poll_room(number, &cx), Poll::Ready(None)), "nothing after the end");
}

#[tokio::test]
async fn credit_is_given_back_as_the_answer_is_taken() {
    let mut rig = rig();
    let handle = rig.open();
    let number = handle.number();
    rig.peer.hears().await;
    rig.peer
        .says(|out| {
            response(out, false, number);
            (0..4).for_each(|_| data(out, false, number, &[0; 65536]));
        })
        .await;
    assert_eq!(head_of(&handle).await, Ok(StatusCode::OK));
    for _ in 0..4 {
        assert_eq!(piece_of(&handle).await.unwrap().unwrap().len(), 65536);
        let (header, payload) = rig.peer.hears().await;
        assert_eq!((header.kind, header.call), (Kind::Credit, number));
        assert_eq!(frame::decode_credit(&payload), Ok(65536));
    }
    rig.peer.says(|out| data(out, true, number, &[0; 65536])).await;
    assert!(piece_of(&handle).await.unwrap().is_ok());
    assert_eq!(piece_of(&handle).await, None);
}

#[tokio::test]
async fn a_dropped_call_is_cancelled_and_its_late_frames_are_no_offence() {
    let mut rig = rig();
    let handle = rig.open();
    let number = handle.number();
    rig.peer.hears().await;
    drop(handle);
    let (header, _) = rig.peer.hears().await;
    assert_eq!((header.kind, header.call), (Kind::Cancel, number));
    let next = rig.open();
    rig.peer
        .says(|out| {
            response(out, false, number);
            data(out, false, number, b"late");
            done(out, number, Ending::ClientGone);
            whole(out, next.number(), b"fine");
        })
        .await;
    assert_eq!(head_of(&next).await, Ok(StatusCode::OK));
    assert_eq!(rig.channel.why_closed(), None);
    // Now its end was said, and the number is a stranger's.
    let closed = rig.closed_by(|out| done(out, number, Ending::ClientGone)).await;
    assert_eq!(closed, Closed::Violated(number, Violation::UnknownCall));
}

#[tokio::test]
async fn a_cancelled_call_the_cell_never_ends_is_overdue() {
    let rig = rig();
    let handle = rig.open();
    let number = handle.number();
    drop(handle);
    let wall = Duration::from_millis(FunctionLimits::default().wall_ms);
    rig.clock.advance(wall);
    assert_eq!(rig.channel.overdue(Duration::from_secs(1)), None);
    rig.clock.advance(Duration::from_millis(1001));
    assert_eq!(rig.channel.overdue(Duration::from_secs(1)), Some(number));
}

#[tokio::test]
async fn log_pieces_become_lines_of_their_call() {
    let mut rig = rig();
    let handle = rig.open();
    let number = handle.number();
    rig.peer
        .says(|out| {
            for piece in [&b"\x01one\ntw"[..], b"\x02oops", b"\x01o\n", b"\x01rest"] {
                frame::put(out, Kind::Log, false, number, piece).unwrap();
            }
            done(out, number, Ending::Trapped);
        })
        .await;
    let (ending, usage) = end_of(&handle).await;
    assert_eq!((ending, usage.log_bytes), (Ending::Trapped, 16));
    let lines = rig.lines.lock().unwrap();
    let texts: Vec<(&str, &[u8])> = lines.iter().map(|line| (line.stream.as_str(), line.text())).collect();
    assert_eq!(texts, [("out", &b"one\n"[..]), ("out", b"two\n"), ("out", b"rest"), ("err", b"oops")]);
}
