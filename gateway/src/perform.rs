//! What is done once it is permitted and an entry is open: run a function, or answer a health question.
//!
//! Owns how an effect becomes a recorded reply: held whole where it is small, begun and streamed where it is not.
//! Must never act on anything but the permit inside the entry, and never give a byte of an answer before its record.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest as sha;
use bytes::Bytes;
use cofferdam_audit::{Entry, Recorded, Step as Rung};
use cofferdam_authz::Permit;
use cofferdam_model::frame::RequestHead;
use cofferdam_model::{CallFacts, Circumstances, Digest, Ending, Invoke, Reply as _, RequestId, Step, Usage};
use cofferdam_sandbox::{Answer, AnswerBody, Client, Cut, Failure, InboundBody, attended};
use futures_util::FutureExt;
use http::{HeaderMap, HeaderValue, Method, StatusCode};

use crate::body::{self, Inbound};
use crate::call::Received;
use crate::drain::{Hold, Phase};
use crate::evidence;
use crate::limits::{Admission, Standing};
use crate::live::Picture;
use crate::node::Node;
use crate::pipeline::Unrecorded;
use crate::refusal::Refusal;
use crate::respond::{Answered, Ran, Reply};
use crate::routes::Target;
use crate::stream::{Source, pieces, pump};
use crate::turn::{Document, Turn};
use crate::watch::Watch;

/// How long an answer that has begun is waited for in the hope of holding it whole.
const HOLD_FOR: Duration = Duration::from_millis(10);

/// What a call holds until the last byte of its answer.
pub(crate) struct Held {
    #[expect(dead_code, reason = "held for its drop")]
    pub(crate) admission: Admission,
    #[expect(dead_code, reason = "held for its drop")]
    pub(crate) hold: Hold,
    pub(crate) standing: Standing,
    pub(crate) watch: Watch,
}

/// SHA-256.
pub(crate) fn digest(bytes: &[u8]) -> Digest {
    let mut out = [0u8; 32];
    out.copy_from_slice(sha::digest(&sha::SHA256, bytes).as_ref());
    Digest(out)
}

fn unrecorded(error: cofferdam_audit::AuditError) -> Unrecorded {
    tracing::error!(%error, "an answer could not be recorded");
    Unrecorded
}

/// Runs the function the permit names, and records how it ended. Dropped early, as the end of a connection does, it
/// stops the function at once and goes on to its record by itself: what was used until then is charged too.
pub(crate) async fn invoke(
    node: &Arc<Node>,
    mut entry: Entry<Permit<Invoke>>,
    target: Arc<Target>,
    picture: &Picture,
    call: Received,
    mut held: Held,
) -> Result<Recorded<Reply>, Unrecorded> {
    held.watch.enter(Step::Guest);
    // Where even that cannot be done any more, this is still why.
    entry.if_dropped(Ending::ClientGone);
    let request = entry.subject().circumstances().request.clone();
    let to_head = call.method == Method::HEAD;
    let idle = Duration::from_millis(node.limits.body_idle_ms);
    let body = match Inbound::new(call.body, target.body_bytes, idle) {
        Ok(body) => body.boxed(),
        Err(refusal) => {
            let reply = Reply::refused(&refusal, &request, &held.standing, Ran::default()).timed(held.watch.steps());
            return entry.close(reply).await.map_err(unrecorded);
        }
    };
    let head = request_head(picture, entry.subject(), call.method, call.query.as_deref(), call.headers);
    let running = Running { node: node.clone(), entry, to_head, request, held };
    attended(move |client| running.run(target, (head, body), client)).await
}

/// A call under way, with all its work needs: it may outlive the connection it came by.
struct Running {
    node: Arc<Node>,
    entry: Entry<Permit<Invoke>>,
    to_head: bool,
    request: RequestId,
    held: Held,
}

impl Running {
    async fn run(
        mut self,
        target: Arc<Target>,
        request: (RequestHead, InboundBody),
        client: Client,
    ) -> Result<Recorded<Reply>, Unrecorded> {
        match self.node.sandbox.invoke(&mut self.entry, &target.deployment, request, &client).await {
            Ok(answer) => {
                self.held.watch.waited(&answer.waited);
                self.deliver(answer, client).await
            }
            Err(failure) => {
                self.held.watch.waited(&failure.waited);
                let reply = failed(failure, &self.request, &self.held.standing).timed(self.held.watch.steps());
                self.entry.close(reply).await.map_err(unrecorded)
            }
        }
    }

    async fn deliver(self, answer: Answer, client: Client) -> Result<Recorded<Reply>, Unrecorded> {
        let Self { node, mut entry, to_head, request, mut held } = self;
        let Answer { status, headers, mut body, cell, isolation, .. } = answer;
        let ran = |usage| Ran { usage, cell: Some(cell.clone()), isolation: Some(isolation) };
        let head = Answered { status, headers, to_head };
        let most = node.limits.buffered_answer_bytes;
        let had = match client.unless_gone(had_of(&mut body, &mut entry, most, head.may_stream())).await {
            Some(had) => had?,
            None => Had::Whole(Bytes::new(), Ending::ClientGone, body.left().await),
        };
        match had {
            Had::Whole(bytes, Ending::Answered, usage) => {
                let reply = Reply::held(head, bytes, ran(usage), &request, &held.standing).timed(held.watch.steps());
                entry.close(reply).await.map_err(unrecorded)
            }
            Had::Whole(_, ending, usage) => {
                let refusal = Refusal::of_ending(ending, None);
                let reply = Reply::refused(&refusal, &request, &held.standing, ran(usage)).timed(held.watch.steps());
                entry.close(reply).await.map_err(unrecorded)
            }
            Had::Part(first) => {
                let (sender, stream) = pieces();
                let reply = Reply::streamed(head, Box::pin(stream), ran(Usage::default()), &request, &held.standing)
                    .timed(held.watch.steps());
                let begun = reply.outcome();
                held.watch.enter(Step::Record);
                let (recorded, closing) = entry.begin(reply).await.map_err(unrecorded)?;
                held.watch.enter(Step::Guest);
                body.allow(closing.effects());
                let metrics = node.metrics.clone();
                tokio::spawn(pump(Source { first, body, held, metrics }, sender, closing, begun));
                Ok(recorded)
            }
        }
    }
}

/// The head as the function sees it: what the caller sent, and who that is, which the caller cannot say of itself.
fn request_head(
    picture: &Picture,
    permit: &Permit<Invoke>,
    method: Method,
    query: Option<&str>,
    mut headers: HeaderMap,
) -> RequestHead {
    let (at, who) = (permit.circumstances(), permit.principal());
    let tenant = who.tenant().and_then(|id| picture.snapshot.tenant(id)).map_or("", |tenant| &tenant.name);
    let told = [
        ("x-cofferdam-principal", who.id()),
        ("x-cofferdam-tenant", tenant),
        ("x-cofferdam-request-id", at.request.as_str()),
    ];
    for (name, text) in told {
        if let Ok(value) = HeaderValue::from_str(text) {
            headers.insert(name, value);
        }
    }
    let target = match query {
        Some(query) => format!("{}?{query}", at.path),
        None => at.path.to_string(),
    };
    RequestHead { method, authority: at.host.to_string(), target, headers }
}

/// What could be had of an answer while its record could still wait for it.
enum Had {
    /// All of it, with its end.
    Whole(Bytes, Ending, Usage),
    /// The beginning of it.
    Part(Vec<Bytes>),
}

/// What can be had of an answer: all of it where it comes at once or must not go out ahead of its record.
async fn had_of(
    body: &mut AnswerBody,
    entry: &mut Entry<Permit<Invoke>>,
    most: usize,
    may_stream: bool,
) -> Result<Had, Unrecorded> {
    let had = had(body, most).await;
    if may_stream || matches!(had, Had::Whole(..)) {
        return Ok(had);
    }
    // Nothing of it can go out ahead of its record, however long the guest goes on: wait, and leave a trace.
    entry.queue_intent().map_err(unrecorded)?;
    loop {
        match body.finished_or_asking().await {
            Some((ending, usage)) => return Ok(Had::Whole(Bytes::new(), ending, usage)),
            None => body.allow(entry.effects().await.map_err(unrecorded)?),
        }
    }
}

/// Takes what comes at once, or nearly so. What is small and quick is recorded with its answer in one piece.
async fn had(body: &mut AnswerBody, most: usize) -> Had {
    let (mut pieces, mut bytes) = (Vec::new(), 0);
    let deadline = tokio::time::sleep(HOLD_FOR);
    tokio::pin!(deadline);
    loop {
        let next = match body.next().now_or_never() {
            Some(next) => next,
            None => tokio::select! {
                next = body.next() => next,
                () = &mut deadline => return Had::Part(pieces),
            },
        };
        match next {
            Some(Ok(piece)) => {
                bytes += piece.len();
                pieces.push(piece);
                if bytes > most {
                    return Had::Part(pieces);
                }
            }
            Some(Err(Cut { ending, usage })) => return Had::Whole(Bytes::new(), ending, usage),
            // The last byte is there; a guest that goes on computing does not hold it back.
            None => tokio::select! {
                biased;
                (ending, usage) = body.finished() => return Had::Whole(joined(pieces), ending, usage),
                () = &mut deadline => return Had::Part(pieces),
            },
        }
    }
}

fn joined(mut pieces: Vec<Bytes>) -> Bytes {
    match pieces.len() {
        0 => Bytes::new(),
        1 => pieces.swap_remove(0),
        _ => pieces.concat().into(),
    }
}

/// A call without a usable answer, as a problem that says whose fault it was.
fn failed(failure: Failure, request: &RequestId, standing: &Standing) -> Reply {
    let refusal = match &failure.inbound {
        Some(error) => body::refusal(error),
        None => Refusal::of_ending(failure.ending, failure.retry_after),
    };
    let ran = Ran { usage: failure.usage, cell: failure.cell, isolation: failure.isolation };
    Reply::refused(&refusal, request, standing, ran)
}

/// Answers a health question. Counted, not journaled: it comes every second from every balancer. A node whose log has
/// failed cannot even count, so it gives no answer at all, here as everywhere.
pub(crate) async fn health(node: &Node, turn: &Turn, at: &Circumstances) -> Result<Recorded<Reply>, Unrecorded> {
    let serving = node.drain.phase() == Phase::Serving;
    let step = node.log.standing().step;
    let standing = Standing::default();
    let reply = match turn {
        Turn::Ready if !serving || step == Rung::Deny => {
            Reply::refused(&Refusal::NotReady, &at.request, &standing, Ran::default())
        }
        // Calls that need no secret are answered, so this is no reason to send them elsewhere: it is said, not refused.
        Turn::Ready if node.live.control().vault().trouble().is_some() => {
            let told = serde_json::json!({ "status": "degraded", "secrets": "unavailable" });
            Reply::json(StatusCode::OK, &told, &at.request, &standing)
        }
        Turn::Ready if step != Rung::Normal => {
            let told = serde_json::json!({ "status": "degraded", "log": step.as_str() });
            Reply::json(StatusCode::OK, &told, &at.request, &standing)
        }
        _ => Reply::json(StatusCode::OK, &serde_json::json!({ "status": "ok" }), &at.request, &standing),
    };
    node.log.tally(&CallFacts::of(at), reply).map_err(unrecorded)
}

/// Gives evidence of the log that nobody is asked for who they are: it tells nothing to whoever cannot use it. Counted
/// like a health question.
pub(crate) async fn evidence(
    node: &Node,
    open: evidence::Open,
    query: Option<&str>,
    at: &Circumstances,
) -> Result<Recorded<Reply>, Unrecorded> {
    let standing = Standing::default();
    let reply = match evidence::open(node, open, query).await {
        Ok(evidence) => Reply::evidence(evidence, &at.request, &standing),
        Err(refusal) => Reply::refused(&refusal, &at.request, &standing, Ran::default()),
    };
    node.log.tally(&CallFacts::of(at), reply).map_err(unrecorded)
}

/// Gives what tokens of the node's own issuer are verified by: nothing in it is secret, and nobody is asked who they
/// are. Counted like a health question.
pub(crate) async fn published(
    node: &Node,
    document: Document,
    at: &Circumstances,
) -> Result<Recorded<Reply>, Unrecorded> {
    let control = node.live.control();
    let standing = Standing::default();
    let found = match document {
        Document::Discovery => Ok(control.issuer_document().map(|document| document.to_string())),
        Document::Keys if control.own_issuer().is_none() => Ok(None),
        Document::Keys => tokio::task::block_in_place(|| control.issuer_keys()).map(Some),
    };
    let refusal = match found {
        Ok(Some(text)) => {
            let reply = Reply::text(StatusCode::OK, "application/json", text, &at.request, &standing);
            return node.log.tally(&CallFacts::of(at), reply).map_err(unrecorded);
        }
        Ok(None) => Refusal::NotFound,
        Err(error) => error.into(),
    };
    let reply = Reply::refused(&refusal, &at.request, &standing, Ran::default());
    node.log.tally(&CallFacts::of(at), reply).map_err(unrecorded)
}
