//! Requests to the outside, against a scripted cell at one end and a scripted outlet at the other.

use cofferdam_audit::Log;
use cofferdam_model::EgressEnd;
use cofferdam_model::frame::{FETCH_CREDIT, FetchHead, decode_fetch_failed, put_fetch, put_fetch_credit};
use http::Response;
use http_body_util::{BodyExt, Full};

use super::*;
use crate::egress::{Attempt, EgressError, IncomingBody, Outgoing, Sent};
use crate::testing::{entry, log, operation};

/// Answers by path: `/hang` never, `/no` with a refusal, `/big` with much, and any other with what it was sent.
struct Scripted;

impl Outlet for Scripted {
    fn send<'a>(&'a self, outgoing: Outgoing, attempt: &'a Attempt) -> Sent<'a> {
        attempt.target("api.example", 443);
        Box::pin(async move {
            let body = match outgoing.target.as_str() {
                "/hang" => std::future::pending().await,
                "/no" => return Err(EgressError::new(EgressEnd::DeniedAddress, "private")),
                "/big" => vec![7; 300_000],
                _ => outgoing.body.collect().await?.to_bytes().to_vec(),
            };
            let body: IncomingBody = Box::pin(Full::new(Bytes::from(body)).map_err(|never| match never {}));
            Ok(Response::builder().status(201).body(body).unwrap())
        })
    }

    fn redact(&self, text: &[u8], own: std::ops::Range<usize>) -> Vec<u8> {
        text[own].to_vec()
    }

    fn longest_redacted(&self) -> usize {
        0
    }
}

struct Outside {
    rig: Rig,
    handle: Handle,
    log: Log,
    dir: tempfile::TempDir,
}

impl Outside {
    async fn with(limits: FunctionLimits, allowed: bool) -> Self {
        let mut rig = rig_with(Arc::new(Scripted));
        let handle = rig.open_with(true, limits.clone());
        rig.peer.hears().await;
        let dir = tempfile::tempdir().unwrap();
        let log = log(dir.path());
        let outside = Self { rig, handle, log, dir };
        if allowed {
            outside.allow().await;
        }
        outside
    }

    async fn new() -> Self {
        Self::with(FunctionLimits::default(), true).await
    }

    async fn allow(&self) {
        let mut entry = entry(&self.log, operation(1, FunctionLimits::default())).await;
        self.handle.allow(entry.effects().await.unwrap());
    }

    fn ask(&self, out: &mut Vec<u8>, end: bool, fetch: u32, target: &str) {
        ask(out, end, fetch, self.handle.number(), target);
    }

    /// Endings of the requests recorded so far, in order.
    async fn recorded(&self) -> Vec<String> {
        self.log.shutdown().await.unwrap();
        let mut out = Vec::new();
        let all = cofferdam_audit::query::Filter::default();
        cofferdam_audit::query::export(&self.dir.path().join("log"), &all, &mut out).unwrap();
        let lines = String::from_utf8(out).unwrap();
        let records = lines.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        let record = |line: serde_json::Value| line.get("record").cloned().unwrap_or(line);
        let egress = records.map(record).filter(|record| record["kind"] == "egress");
        egress.map(|record| record["ending"].as_str().unwrap().to_owned()).collect()
    }

    fn used(&self) -> (u64, u64, u64) {
        let usage = self.handle.seen();
        (usage.egress_calls, usage.egress_bytes_out, usage.egress_bytes_in)
    }

    /// The next frame of a fetch, past any credit.
    async fn next(&mut self) -> (Kind, bool, Vec<u8>) {
        loop {
            let (header, payload) = self.rig.peer.hears().await;
            if header.kind != Kind::FetchCredit {
                return (header.kind, header.end, payload);
            }
        }
    }

    async fn fails(&mut self) -> EgressEnd {
        let (kind, _, payload) = self.next().await;
        assert_eq!(kind, Kind::FetchFailed);
        decode_fetch_failed(&payload).unwrap()
    }
}

fn ask(out: &mut Vec<u8>, end: bool, fetch: u32, call: u32, target: &str) {
    let head = FetchHead {
        call,
        method: Method::POST,
        tls: true,
        authority: "api.example".into(),
        target: target.into(),
        patience: [None; 3],
        headers: HeaderMap::new(),
    };
    put_fetch(out, end, fetch, &head).unwrap();
}

fn more(out: &mut Vec<u8>, end: bool, fetch: u32, bytes: &[u8]) {
    frame::put(out, Kind::FetchData, end, fetch, bytes).unwrap();
}

#[tokio::test]
async fn a_request_goes_out_and_its_answer_comes_back() {
    let mut outside = Outside::new().await;
    let mut out = Vec::new();
    outside.ask(&mut out, false, 1, "/echo");
    more(&mut out, false, 1, b"hello ");
    more(&mut out, true, 1, b"world");
    outside.rig.peer.says(|frames| frames.extend(out)).await;
    assert_eq!(outside.next().await.0, Kind::FetchHead);
    assert_eq!(outside.next().await, (Kind::FetchData, false, b"hello world".to_vec()));
    assert_eq!(outside.next().await, (Kind::FetchData, true, Vec::new()));
    assert_eq!(outside.used(), (1, 11, 11));
    assert_eq!(outside.recorded().await, ["answered"]);
}

#[tokio::test]
async fn nothing_goes_out_before_the_intent_is_recorded() {
    let mut outside = Outside::with(FunctionLimits::default(), false).await;
    let mut out = Vec::new();
    outside.ask(&mut out, true, 1, "/echo");
    outside.rig.peer.says(|frames| frames.extend(out)).await;
    let wanted = std::future::poll_fn(|cx| match outside.handle.poll_head(cx) {
        Poll::Pending if outside.handle.wants_effects() => Poll::Ready(()),
        _ => Poll::Pending,
    });
    wanted.await;
    outside.allow().await;
    assert_eq!(outside.next().await.0, Kind::FetchHead);
    assert_eq!(outside.recorded().await, ["answered"]);
}

#[tokio::test]
async fn a_refusal_is_told_and_recorded() {
    let mut outside = Outside::new().await;
    let mut out = Vec::new();
    outside.ask(&mut out, true, 1, "/no");
    outside.rig.peer.says(|frames| frames.extend(out)).await;
    assert_eq!(outside.fails().await, EgressEnd::DeniedAddress);
    assert_eq!(outside.recorded().await, ["denied_address"]);
}

#[tokio::test]
async fn more_requests_than_allowed_are_not_made() {
    let limits = FunctionLimits { egress_calls: 1, ..FunctionLimits::default() };
    let mut outside = Outside::with(limits, true).await;
    let mut out = Vec::new();
    (1..=3).for_each(|fetch| outside.ask(&mut out, true, fetch, "/no"));
    outside.rig.peer.says(|frames| frames.extend(out)).await;
    let mut endings = [outside.fails().await, outside.fails().await, outside.fails().await];
    endings.sort_by_key(|ending| ending.as_str());
    assert_eq!(endings, [EgressEnd::DeniedAddress, EgressEnd::OverQuota, EgressEnd::OverQuota]);
    assert_eq!(outside.used().0, 1, "what was made is what is counted");
    assert_eq!(outside.recorded().await, ["denied_address"]);
}

#[tokio::test]
async fn a_cell_that_asks_on_and_on_is_closed_before_its_refusals_fill_memory() {
    let limits = FunctionLimits { egress_calls: 1, ..FunctionLimits::default() };
    let mut outside = Outside::with(limits, true).await;
    let call = outside.handle.number();
    let closed = outside.rig.closed_by(|out| (1..=1100).for_each(|fetch| ask(out, true, fetch, call, "/hang"))).await;
    assert!(matches!(closed, Closed::Violated(0, Violation::OverLimit("requests to the outside"))), "{closed:?}");

    // Nor is there more to be had from a call nobody waits for.
    let limits = FunctionLimits { egress_calls: 1, ..FunctionLimits::default() };
    let mut outside = Outside::with(limits, true).await;
    let call = outside.handle.number();
    outside.handle.leave();
    let closed = outside.rig.closed_by(|out| (1..=1100).for_each(|fetch| ask(out, true, fetch, call, "/hang"))).await;
    assert!(matches!(closed, Closed::Violated(0, Violation::OverLimit(_))), "{closed:?}");
}

#[tokio::test]
async fn the_head_of_an_answer_never_follows_the_word_that_there_is_none() {
    let outside = Outside::new().await;
    let channel = &outside.rig.channel;
    let before = channel.lock().out.len();
    // Of a fetch that is over the channel knows nothing any more, however far its task had got.
    assert!(channel.send_head(7, false, StatusCode::OK, &HeaderMap::new()).is_err());
    assert_eq!(channel.lock().out.len(), before);
}

#[tokio::test]
async fn only_body_that_went_out_is_counted_and_the_record_says_the_same() {
    let limits = FunctionLimits { egress_bytes: 1000, ..FunctionLimits::default() };
    let mut outside = Outside::with(limits, true).await;
    let mut out = Vec::new();
    outside.ask(&mut out, false, 1, "/hang");
    more(&mut out, true, 1, &[1; 500]);
    outside.rig.peer.says(|frames| frames.extend(out)).await;
    outside.rig.peer.says(|out| frame::put(out, Kind::FetchCancel, false, 1, &[]).unwrap()).await;
    assert_eq!(outside.fails().await, EgressEnd::Cut);
    assert_eq!(outside.used().1, 0, "nobody took it");
}

#[tokio::test]
async fn more_bytes_than_allowed_cut_a_request_off() {
    let limits = FunctionLimits { egress_bytes: 1000, ..FunctionLimits::default() };
    let mut outside = Outside::with(limits.clone(), true).await;
    let mut out = Vec::new();
    outside.ask(&mut out, false, 1, "/echo");
    more(&mut out, false, 1, &[1; 1001]);
    outside.rig.peer.says(|frames| frames.extend(out)).await;
    assert_eq!(outside.fails().await, EgressEnd::OverQuota);

    let mut outside = Outside::with(limits, true).await;
    let mut out = Vec::new();
    outside.ask(&mut out, true, 1, "/big");
    outside.rig.peer.says(|frames| frames.extend(out)).await;
    assert_eq!(outside.next().await.0, Kind::FetchHead);
    assert_eq!(outside.fails().await, EgressEnd::OverQuota);
    assert_eq!(outside.recorded().await, ["over_quota"]);
}

#[tokio::test]
async fn an_answer_waits_for_the_guest_to_read_it() {
    let mut outside = Outside::new().await;
    let mut out = Vec::new();
    outside.ask(&mut out, true, 1, "/big");
    outside.rig.peer.says(|frames| frames.extend(out)).await;
    assert_eq!(outside.next().await.0, Kind::FetchHead);
    let mut got = outside.next().await.2.len();
    assert_eq!(got, usize::try_from(FETCH_CREDIT).unwrap());
    assert_eq!(outside.used().2, u64::from(FETCH_CREDIT), "the rest is not even taken from the other side");
    outside.rig.peer.says(|out| put_fetch_credit(out, 1, FETCH_CREDIT).unwrap()).await;
    while got < 2 * usize::try_from(FETCH_CREDIT).unwrap() {
        got += outside.next().await.2.len();
    }
}

#[tokio::test]
async fn a_request_ends_with_its_call_and_is_in_the_log_before_it() {
    let mut outside = Outside::new().await;
    let number = outside.handle.number();
    let mut out = Vec::new();
    outside.ask(&mut out, true, 1, "/hang");
    done(&mut out, number, Ending::Trapped);
    outside.rig.peer.says(|frames| frames.extend(out)).await;
    let (ending, usage) = end_of(&outside.handle).await;
    assert_eq!((ending, usage.egress_calls), (Ending::Trapped, 0), "it was over before it could begin");
    // What the cell still says of it is late, not wrong.
    outside.rig.peer.says(|out| frame::put(out, Kind::FetchCancel, false, 1, &[]).unwrap()).await;
    let handle = outside.rig.open();
    assert_eq!(outside.rig.peer.hears().await.0.call, handle.number());
}

#[tokio::test]
async fn requests_under_way_end_when_nobody_waits_for_them() {
    let mut outside = Outside::new().await;
    let mut out = Vec::new();
    outside.ask(&mut out, true, 1, "/hang");
    outside.ask(&mut out, true, 2, "/no");
    outside.rig.peer.says(|frames| frames.extend(out)).await;
    assert_eq!(outside.fails().await, EgressEnd::DeniedAddress);
    outside.rig.peer.says(|out| frame::put(out, Kind::FetchCancel, false, 1, &[]).unwrap()).await;
    assert_eq!(outside.fails().await, EgressEnd::Cut);
    assert_eq!(outside.recorded().await, ["denied_address", "cut"]);
}

#[tokio::test]
async fn a_cell_that_breaks_the_rules_of_fetches_is_closed() {
    type Break = fn(&mut Vec<u8>, u32);
    let breaks: [(&str, Break); 7] = [
        ("a number used twice", |out, call| (0..2).for_each(|_| ask(out, true, 1, call, "/hang"))),
        ("a number that falls", |out, call| [5, 4].into_iter().for_each(|fetch| ask(out, true, fetch, call, "/hang"))),
        ("a call that is not there", |out, call| ask(out, true, 1, call + 1, "/hang")),
        ("a fetch that is not there", |out, _| more(out, true, 9, b"x")),
        ("body after its end", |out, call| {
            ask(out, true, 1, call, "/hang");
            more(out, true, 1, b"x");
        }),
        ("more body than credit", |out, call| {
            ask(out, false, 1, call, "/hang");
            (0..2).for_each(|_| more(out, false, 1, &[0; 40_000]));
        }),
        ("credit for nothing", |out, call| {
            ask(out, true, 1, call, "/hang");
            put_fetch_credit(out, 1, 1).unwrap();
        }),
    ];
    for (what, write) in breaks {
        let mut outside = Outside::new().await;
        let number = outside.handle.number();
        let closed = outside.rig.closed_by(|out| write(out, number)).await;
        assert!(matches!(closed, Closed::Violated(0, _)), "{what}: {closed:?}");
        assert_eq!(end_of(&outside.handle).await.0, Ending::CellLost, "{what}");
    }
}
