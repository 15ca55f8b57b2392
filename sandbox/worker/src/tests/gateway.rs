//! The gateway's end of the socket, for tests: starts a cell in a thread, hands a guest over, speaks frames.

use std::collections::HashMap;
use std::io::{IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, LazyLock, Mutex};
use std::thread::JoinHandle;

use bytes::Bytes;
use cofferdam_model::EgressEnd;
use cofferdam_model::clock::SystemClock;
use cofferdam_model::facts::{Ending, Isolation, Usage};
use cofferdam_model::frame::*;
use cofferdam_model::handover::Handover;
use cofferdam_model::limits::FunctionLimits;
use cofferdam_model::random::OsRandom;
use cofferdam_model::secret::Env;
use http::{HeaderMap, HeaderValue, Method};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};

use crate::{cell, profile};

pub(super) const HELLO: &str = "hello-c/hello-c.wasm";
pub(super) const FETCH: &str = "fetch/fetch.wasm";
pub(super) const FAULTS: &str = "faults/faults.wasm";
pub(super) const WHOAMI: &str = "whoami/whoami.wasm";
pub(super) const HOSTILE: &str = "../tests/guests/hostile.wasm";

/// How a call went, as the gateway sees it.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
    /// The body's end was marked.
    pub(super) complete: bool,
    pub(super) log: String,
    pub(super) ending: Ending,
    pub(super) usage: Usage,
}

impl Outcome {
    pub(super) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

/// A call under way.
#[derive(Default)]
struct Call {
    head: Option<(u16, HeaderMap)>,
    body: Vec<u8>,
    complete: bool,
    log: Vec<u8>,
    /// Bytes the cell may still send.
    granted: usize,
    /// Bytes we may still send.
    credit: usize,
    done: Option<(Ending, Usage)>,
}

pub(super) struct Gateway {
    socket: UnixStream,
    cell: JoinHandle<Result<(), String>>,
    calls: HashMap<u32, Call>,
    next: u32,
    /// Requests to the outside, in the order they were asked for: number, head, body and whether that has ended.
    pub(super) fetches: Vec<(u32, FetchHead, Vec<u8>, bool)>,
    /// Requests to the outside nobody waits for any more.
    pub(super) cancelled: Vec<u32>,
}

/// An artifact of a guest, compiled once per test run.
fn artifact(guest: &'static str) -> Vec<u8> {
    static COMPILED: LazyLock<Mutex<HashMap<&'static str, Vec<u8>>>> = LazyLock::new(Mutex::default);
    let mut compiled = COMPILED.lock().unwrap();
    let make = || {
        let component =
            std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples").join(guest)).unwrap();
        let code = wasmtime::Engine::new(&profile::config()).unwrap().precompile_component(&component).unwrap();
        let mut artifact = [b"COFART1\0".as_slice(), &[0; 32], &2u32.to_be_bytes(), b"{}"].concat();
        artifact.resize(4096, 0);
        artifact.extend_from_slice(&code);
        artifact
    };
    compiled.entry(guest).or_insert_with(make).clone()
}

/// The same as a file, and its length.
pub(super) fn artifact_file(guest: &'static str) -> (tempfile::NamedTempFile, usize) {
    let (artifact, file) = (artifact(guest), tempfile::NamedTempFile::new().unwrap());
    std::fs::write(file.path(), &artifact).unwrap();
    (file, artifact.len())
}

fn spawn() -> (UnixStream, JoinHandle<Result<(), String>>) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let cell = std::thread::spawn(move || {
        let (clock, random) = (Arc::new(SystemClock::default()), Arc::new(OsRandom));
        cell::live(theirs, Isolation::Minimal, || Ok(()), clock, random).map_err(|error| error.to_string())
    });
    (ours, cell)
}

fn hand_over(socket: &UnixStream, artifact: &[u8], limits: FunctionLimits, env: &[(&str, &str)]) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), artifact).unwrap();
    let file = std::fs::File::open(file.path()).unwrap();
    let mut sealed = Env::new();
    env.iter().for_each(|(name, value)| sealed.push((*name).into(), (*value).into()));
    let handover = Handover { limits, artifact_bytes: artifact.len() as u64, env: sealed };
    let mut frame = Vec::new();
    put(&mut frame, Kind::Handover, false, 0, &handover.encode().unwrap()).unwrap();
    let descriptors = [file.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(control.push(SendAncillaryMessage::ScmRights(&descriptors)));
    let sent = rustix::net::sendmsg(socket, &[IoSlice::new(&frame)], &mut control, SendFlags::empty()).unwrap();
    assert_eq!(sent, frame.len());
}

fn read_frame(socket: &mut UnixStream) -> Option<(Header, Bytes)> {
    let mut head = [0; HEADER_BYTES];
    socket.read_exact(&mut head).ok()?;
    let header = Header::decode(&head).unwrap();
    let mut payload = vec![0; header.length];
    socket.read_exact(&mut payload).ok()?;
    Some((header, payload.into()))
}

impl Gateway {
    pub(super) fn start(guest: &'static str, limits: FunctionLimits, env: &[(&str, &str)]) -> Self {
        let (mut socket, cell) = spawn();
        let (ready, isolation) = read_frame(&mut socket).unwrap();
        assert_eq!((ready.kind, decode_ready(&isolation)), (Kind::Ready, Ok(Isolation::Minimal)));
        hand_over(&socket, &artifact(guest), limits, env);
        let (loaded, reason) = read_frame(&mut socket).unwrap();
        assert_eq!(loaded.kind, Kind::Loaded, "{reason:?}");
        Self { socket, cell, calls: HashMap::new(), next: 1, fetches: Vec::new(), cancelled: Vec::new() }
    }

    /// Hands over a spoilt artifact; the reason the cell gives.
    pub(super) fn refused(spoil: impl FnOnce(&mut Vec<u8>), limits: FunctionLimits) -> String {
        let (mut socket, cell) = spawn();
        read_frame(&mut socket).unwrap();
        let mut artifact = artifact(FAULTS);
        spoil(&mut artifact);
        hand_over(&socket, &artifact, limits, &[]);
        let (header, reason) = read_frame(&mut socket).unwrap();
        assert_eq!(header.kind, Kind::Failed);
        assert!(cell.join().unwrap().is_err());
        String::from_utf8(reason.to_vec()).unwrap()
    }

    pub(super) fn get(&mut self, target: &str) -> Outcome {
        self.send(&Method::GET, target, &[])
    }

    pub(super) fn send(&mut self, method: &Method, target: &str, body: &[u8]) -> Outcome {
        let call = self.begin(method, target, body.is_empty());
        let mut rest = body;
        while !rest.is_empty() && !self.is_over(call) {
            let credit = self.calls[&call].credit;
            if credit == 0 {
                self.take_frame();
                continue;
            }
            let (piece, after) = rest.split_at(rest.len().min(credit).min(MAX_PAYLOAD));
            rest = after;
            self.data(call, piece, rest.is_empty());
        }
        self.finish(call)
    }

    pub(super) fn begin(&mut self, method: &Method, target: &str, end: bool) -> u32 {
        let mut headers = HeaderMap::new();
        headers.insert("x-cofferdam-principal", HeaderValue::from_static("alice"));
        let head =
            RequestHead { method: method.clone(), authority: "fn.example".into(), target: target.into(), headers };
        let (call, mut out) = (self.next, Vec::new());
        put_request(&mut out, end, call, &head).unwrap();
        self.raw(&out);
        self.next += 1;
        let credit = INITIAL_CREDIT as usize;
        self.calls.insert(call, Call { granted: credit, credit, ..Call::default() });
        call
    }

    pub(super) fn data(&mut self, call: u32, piece: &[u8], end: bool) {
        let mut out = Vec::new();
        put(&mut out, Kind::Data, end, call, piece).unwrap();
        if let Some(call) = self.calls.get_mut(&call) {
            call.credit = call.credit.saturating_sub(piece.len());
        }
        self.raw(&out);
    }

    pub(super) fn cancel(&mut self, call: u32) {
        let mut out = Vec::new();
        put(&mut out, Kind::Cancel, false, call, &[]).unwrap();
        self.raw(&out);
    }

    pub(super) fn raw(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).unwrap();
    }

    pub(super) fn is_over(&self, call: u32) -> bool {
        self.calls[&call].done.is_some()
    }

    /// Reads frames until a request to the outside is there with all of its body.
    pub(super) fn fetched(&mut self) -> (u32, FetchHead, Vec<u8>) {
        while !self.fetches.first().is_some_and(|fetch| fetch.3) {
            self.take_frame();
        }
        let (number, head, body, _) = self.fetches.remove(0);
        (number, head, body)
    }

    /// Refuses a request to the outside as a node does that has no rule for it.
    pub(super) fn deny(&mut self, fetch: u32) {
        let mut out = Vec::new();
        put_fetch_failed(&mut out, fetch, EgressEnd::DeniedByRule).unwrap();
        self.raw(&out);
    }

    /// Reads frames until a request to the outside is cancelled.
    pub(super) fn cancellation(&mut self) -> u32 {
        while self.cancelled.is_empty() {
            self.take_frame();
        }
        self.cancelled.remove(0)
    }

    /// Reads frames until the call is over.
    pub(super) fn finish(&mut self, call: u32) -> Outcome {
        while !self.is_over(call) {
            self.take_frame();
        }
        let Call { head, body, complete, log, done, .. } = self.calls.remove(&call).unwrap();
        let ((status, headers), (ending, usage)) = (head.unwrap_or_default(), done.unwrap());
        Outcome { status, headers, body, complete, log: String::from_utf8(log).unwrap(), ending, usage }
    }

    /// Closes the socket, if the cell has not, and says how the cell ended.
    pub(super) fn ended(mut self) -> Result<(), String> {
        self.socket.shutdown(std::net::Shutdown::Write).ok();
        while read_frame(&mut self.socket).is_some() {}
        self.cell.join().unwrap()
    }

    fn take_frame(&mut self) {
        let (header, payload) = read_frame(&mut self.socket).expect("the cell has ended");
        match header.kind {
            Kind::Fetch => {
                let head = decode_fetch(payload).unwrap();
                return self.fetches.push((header.call, head, Vec::new(), header.end));
            }
            Kind::FetchData => {
                let fetch = self.fetches.iter_mut().find(|fetch| fetch.0 == header.call).unwrap();
                fetch.2.extend_from_slice(&payload);
                fetch.3 = header.end;
                return;
            }
            Kind::FetchCredit => return,
            Kind::FetchCancel => return self.cancelled.push(header.call),
            _ => {}
        }
        let call = self.calls.get_mut(&header.call).expect("a frame of a call that is over");
        assert!(call.done.is_none(), "a frame after the end");
        match header.kind {
            Kind::Response => {
                let (status, headers) = decode_response(payload).unwrap();
                assert!(call.head.replace((status.as_u16(), headers)).is_none(), "a second head");
                call.complete = header.end;
            }
            Kind::Data => {
                assert!(call.head.is_some() && !call.complete, "data out of order");
                call.granted = call.granted.checked_sub(payload.len()).expect("more data than credit");
                call.body.extend_from_slice(&payload);
                call.complete = header.end;
                if call.granted < 100_000 {
                    call.granted += 100_000;
                    let mut out = Vec::new();
                    put_credit(&mut out, header.call, 100_000).unwrap();
                    self.socket.write_all(&out).unwrap();
                }
            }
            Kind::Credit => call.credit += decode_credit(&payload).unwrap() as usize,
            Kind::Log => call.log.extend_from_slice(&payload[1..]),
            Kind::Done => call.done = Some(decode_done(&payload).unwrap()),
            other => panic!("{other:?} from a serving cell"),
        }
    }
}
