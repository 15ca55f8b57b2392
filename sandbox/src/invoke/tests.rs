//! Whole calls with a real permit in a real audit entry, over scripted cells.

use bytes::Bytes;
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Full};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::*;
use crate::client::attended;
use crate::testing::{Rig, Script, deployment, entry, head, log, no_body, operation, until};

type Piece = Result<Bytes, InboundError>;

/// A body that goes on for as long as its sender lives.
struct Piped(UnboundedReceiver<Piece>);

impl Body for Piped {
    type Data = Bytes;
    type Error = InboundError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, InboundError>>> {
        self.0.poll_recv(cx).map(|piece| piece.map(|piece| piece.map(Frame::data)))
    }
}

fn piped() -> (UnboundedSender<Piece>, InboundBody) {
    let (sender, receiver) = unbounded_channel();
    (sender, Box::pin(Piped(receiver)))
}

fn full(bytes: Vec<u8>) -> InboundBody {
    Box::pin(Full::new(Bytes::from(bytes)).map_err(|never| match never {}))
}

async fn run(rig: &Rig, limits: FunctionLimits, target: &str, body: InboundBody) -> Result<Answer, Failure> {
    let log = log(rig.dir.path());
    let mut entry = entry(&log, operation(1, limits)).await;
    invoke(&rig.pool, &mut entry, &deployment(1), (head(target), body), &Client::default()).await
}

async fn text(body: &mut AnswerBody) -> Result<String, Ending> {
    let mut out = Vec::new();
    while let Some(piece) = body.next().await {
        out.extend_from_slice(&piece.map_err(|cut| cut.ending)?);
    }
    Ok(String::from_utf8(out).unwrap())
}

fn load(rig: &Rig) -> u32 {
    rig.pool.cells().iter().map(|cell| cell.calls).sum()
}

#[tokio::test]
async fn a_call_is_answered_and_accounted_for() {
    let rig = Rig::new(Script::default());
    let mut answer = run(&rig, FunctionLimits::default(), "/ok", no_body()).await.unwrap();
    assert_eq!((answer.status, answer.cell.1, answer.isolation), (StatusCode::OK, 1, cofferdam_model::Isolation::Full));
    assert_eq!(text(&mut answer.body).await.as_deref(), Ok("ok"));
    let (ending, usage) = answer.body.finished().await;
    assert_eq!((ending, usage.bytes_out), (Ending::Answered, 2));
    assert_eq!(load(&rig), 0);
}

#[tokio::test]
async fn a_large_body_reaches_the_guest_whole() {
    let rig = Rig::new(Script::default());
    let body = full(vec![7; 3_000_000]);
    let mut answer = run(&rig, FunctionLimits::default(), "/echo", body).await.unwrap();
    assert_eq!(text(&mut answer.body).await.as_deref(), Ok("3000000"));
    assert_eq!(answer.body.finished().await.1.bytes_in, 3_000_000);
}

#[tokio::test]
async fn an_answer_may_begin_before_the_request_has_ended() {
    let rig = Rig::new(Script::default());
    let (sender, body) = piped();
    sender.send(Ok("12345".into())).unwrap();
    let mut answer = run(&rig, FunctionLimits::default(), "/duplex", body).await.unwrap();
    sender.send(Ok("678".into())).unwrap();
    drop(sender);
    assert_eq!(text(&mut answer.body).await.as_deref(), Ok("8"));
}

#[tokio::test]
async fn a_body_over_the_functions_limit_is_refused_and_the_call_cancelled() {
    let limits = FunctionLimits { request_bytes: 10, ..FunctionLimits::default() };
    let rig = Rig::new(Script::default());
    let failure = run(&rig, limits.clone(), "/echo", full(vec![0; 11])).await.err().unwrap();
    assert!(matches!(failure.inbound, Some(InboundError::TooLarge)));
    assert!(failure.cell.is_none(), "a declared length is refused before anything runs");

    let rig = Rig::new(Script::default());
    let (sender, body) = piped();
    (0..2).for_each(|_| sender.send(Ok(Bytes::from_static(&[0; 6]))).unwrap());
    let failure = run(&rig, limits, "/echo", body).await.err().unwrap();
    assert!(matches!(failure.inbound, Some(InboundError::TooLarge)));
    assert_eq!(failure.ending, Ending::Refused);
    until("the cancellation", || rig.script.seen() == ["/echo", "cancel"]).await;
}

#[tokio::test]
async fn a_body_that_breaks_off_cancels_the_call() {
    let rig = Rig::new(Script::default());
    let (sender, body) = piped();
    sender.send(Err(InboundError::Stalled)).unwrap();
    let failure = run(&rig, FunctionLimits::default(), "/echo", body).await.err().unwrap();
    assert!(matches!(failure.inbound, Some(InboundError::Stalled)));
    assert_eq!(failure.ending, Ending::ClientGone);
    until("the place given back", || load(&rig) == 0).await;
}

#[tokio::test]
async fn dropping_an_answer_cancels_the_call_and_frees_its_place_once_the_cell_says_so() {
    let rig = Rig::new(Script::default());
    let mut answer = run(&rig, FunctionLimits::default(), "/stream", no_body()).await.unwrap();
    assert_eq!(answer.body.next().await, Some(Ok("part".into())));
    assert_eq!(load(&rig), 1);
    drop(answer);
    assert_eq!(load(&rig), 1, "the cell has not said that it stopped");
    until("the place given back", || load(&rig) == 0).await;
    assert_eq!(rig.script.seen(), ["/stream", "cancel"]);
}

#[tokio::test]
async fn a_call_without_an_answer_says_how_it_ended() {
    let rig = Rig::new(Script::default());
    let failure = run(&rig, FunctionLimits::default(), "/trap", no_body()).await.err().unwrap();
    assert_eq!((failure.ending, failure.cell.map(|(_, ordinal)| ordinal)), (Ending::Trapped, Some(1)));
    let rig = Rig::new(Script::default());
    let failure = run(&rig, FunctionLimits::default(), "/die", no_body()).await.err().unwrap();
    assert_eq!(failure.ending, Ending::CellLost);
}

#[tokio::test]
async fn a_cell_that_does_not_end_a_call_in_time_is_killed() {
    let limits = FunctionLimits { wall_ms: 1, ..FunctionLimits::default() };
    let rig = Rig::new(Script::default());
    let failure = run(&rig, limits.clone(), "/hang", no_body()).await.err().unwrap();
    assert_eq!(failure.ending, Ending::WallExceeded);
    until("no cell", || rig.pool.cells().is_empty()).await;

    let mut answer = run_again(&rig, limits, "/stream").await;
    assert_eq!(text(&mut answer.body).await, Err(Ending::WallExceeded));
    until("no cell", || rig.pool.cells().is_empty()).await;
}

async fn run_again(rig: &Rig, limits: FunctionLimits, target: &str) -> Answer {
    let dir = tempfile::tempdir().unwrap();
    let log = log(dir.path());
    let mut entry = entry(&log, operation(1, limits)).await;
    invoke(&rig.pool, &mut entry, &deployment(1), (head(target), no_body()), &Client::default()).await.unwrap()
}

#[tokio::test]
async fn a_strict_call_is_not_sent_before_its_intent_is_recorded() {
    let rig = Rig::new(Script::default());
    let log = log(rig.dir.path());
    let strict = Invoke { audit: Level::Strict, ..operation(1, FunctionLimits::default()) };
    let mut entry = entry(&log, strict).await;
    log.shutdown().await.unwrap();
    let failure = invoke(&rig.pool, &mut entry, &deployment(1), (head("/ok"), no_body()), &Client::default())
        .await
        .err()
        .unwrap();
    assert_eq!(failure.ending, Ending::PlatformFailed);
    assert_eq!(rig.script.spawned(), 0);
}

#[tokio::test]
async fn a_call_that_outlives_its_moment_has_its_intent_recorded_or_is_stopped() {
    let rig = Rig::new(Script::default());
    let log = log(rig.dir.path());
    let mut entry = entry(&log, operation(1, FunctionLimits::default())).await;
    log.shutdown().await.unwrap();
    let failure = invoke(&rig.pool, &mut entry, &deployment(1), (head("/hang"), no_body()), &Client::default())
        .await
        .err()
        .unwrap();
    assert_eq!(failure.ending, Ending::PlatformFailed);
    until("the cancellation", || rig.script.seen() == ["/hang", "cancel"]).await;
}

#[tokio::test]
async fn calls_held_by_a_cell_are_answered_when_it_lets_them_go() {
    let rig = Rig::new(Script::default());
    let log = log(rig.dir.path());
    let mut entry = entry(&log, operation(1, FunctionLimits::default())).await;
    let deployment = deployment(1);
    let client = Client::default();
    let call = invoke(&rig.pool, &mut entry, &deployment, (head("/held"), no_body()), &client);
    let release = async {
        until("the request", || rig.script.seen() == ["/held"]).await;
        rig.script.release.notify_one();
    };
    let (answer, ()) = tokio::join!(call, release);
    assert_eq!(text(&mut answer.unwrap().body).await.as_deref(), Ok("held"));
}

/// A call whose client leaves once the cell has it: what its finisher says of it.
async fn left(rig: &Rig, limits: FunctionLimits, target: &'static str, meanwhile: impl Fn()) -> Failure {
    let log = log(rig.dir.path());
    let mut entry = entry(&log, operation(1, limits)).await;
    let (pool, (told, heard)) = (rig.pool.clone(), tokio::sync::oneshot::channel());
    let mut call = Box::pin(attended(move |client| async move {
        let made = invoke(&pool, &mut entry, &deployment(1), (head(target), no_body()), &client).await;
        let _ = told.send(made.err());
    }));
    let begun = async {
        until("the request", || rig.script.seen().iter().any(|seen| seen == target)).await;
        meanwhile();
    };
    tokio::select! {
        biased;
        () = &mut call => panic!("it ended by itself"),
        () = begun => {}
    }
    drop(call);
    heard.await.unwrap().unwrap()
}

#[tokio::test]
async fn a_call_whose_client_leaves_is_stopped_at_once_and_charged_what_it_used() {
    let rig = Rig::new(Script::default());
    let clock = rig.clock.clone();
    let failure = left(&rig, FunctionLimits::default(), "/hang", || clock.advance(Duration::from_micros(50))).await;
    assert_eq!((failure.ending, failure.usage.cpu_us, failure.usage.wall_us), (Ending::ClientGone, 7, 50));
    assert!(failure.cell.is_some() && failure.isolation.is_some());
    assert_eq!(rig.script.seen(), ["/hang", "cancel"]);
    assert_eq!(load(&rig), 0);
}

#[tokio::test]
async fn a_stream_whose_client_leaves_is_charged_what_it_used() {
    let rig = Rig::new(Script::default());
    let mut answer = run(&rig, FunctionLimits::default(), "/stream", no_body()).await.unwrap();
    assert_eq!(answer.body.next().await, Some(Ok("part".into())));
    rig.clock.advance(Duration::from_micros(50));
    assert_eq!(answer.body.left().await.cpu_us, 7);
    assert_eq!(load(&rig), 0, "by then the guest is gone");
}

#[tokio::test]
async fn a_call_whose_cell_is_lost_is_charged_all_it_can_have_used() {
    let limits = FunctionLimits { wall_ms: 1, ..FunctionLimits::default() };
    let rig = Rig::new(Script::default());
    let clock = rig.clock.clone();
    let log = log(rig.dir.path());
    let mut entry = entry(&log, operation(1, limits.clone())).await;
    let (deployment, client) = (deployment(1), Client::default());
    let call = invoke(&rig.pool, &mut entry, &deployment, (head("/hang"), no_body()), &client);
    let tick = async {
        until("the request", || rig.script.seen() == ["/hang"]).await;
        clock.advance(Duration::from_micros(50));
    };
    let (made, ()) = tokio::join!(call, tick);
    let Failure { ending, usage, .. } = made.err().unwrap();
    assert_eq!((ending, usage.wall_us), (Ending::WallExceeded, 50));
    assert_eq!((usage.cpu_us, usage.memory_bytes), (50, limits.memory_bytes));
}

#[tokio::test]
async fn work_learns_that_its_client_left_and_stops_waiting() {
    let (told, heard) = tokio::sync::oneshot::channel();
    let waiting = attended(|client| async move {
        let waited = client.unless_gone(std::future::pending::<()>()).await;
        let _ = told.send((waited, client.is_gone()));
    });
    drop(waiting);
    assert_eq!(heard.await, Ok((None, true)));
    assert_eq!(attended(|client| async move { client.unless_gone(async { 1 }).await }).await, Some(1));
}
