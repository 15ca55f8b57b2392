//! Answers. The only place where an `http::Response` is made.
//!
//! Owns `Reply`, which the log closes an entry with, and the one step from a recorded reply to a response. Must never
//! offer a second way: a response that is not made of a `Recorded<Reply>` would be an answer nobody recorded.

use std::pin::Pin;
use std::task::{Context, Poll};

use aws_lc_rs::digest;
use bytes::Bytes;
use cofferdam_audit::Recorded;
use cofferdam_model::{CellId, Digest, Ending, Isolation, Origin, OutcomeFacts, RequestId, Steps, Usage, Way};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use http_body::{Body, Frame, SizeHint};

use crate::call::strip_hop_by_hop;
use crate::evidence::Evidence;
use crate::limits::Standing;
use crate::refusal::Refusal;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const ERROR_SOURCE: HeaderName = HeaderName::from_static("cofferdam-error-source");
/// A held body is handed out in pieces of this size, so that a peer which stops taking it shows.
const PIECE: usize = 16 * 1024;

/// Why a body that streams broke off after its head had gone out. The connection or stream is reset.
pub type StreamError = Box<dyn std::error::Error + Send + Sync>;

/// A body that streams.
pub type Stream = Pin<Box<dyn Body<Data = Bytes, Error = StreamError> + Send>>;

/// Body of an answer.
pub enum OutBody {
    /// Known whole.
    Held(Bytes),
    /// Follows piece by piece.
    Stream(Stream),
}

impl std::fmt::Debug for OutBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Held(bytes) => write!(f, "Held({} bytes)", bytes.len()),
            Self::Stream(_) => f.write_str("Stream"),
        }
    }
}

impl Body for OutBody {
    type Data = Bytes;
    type Error = StreamError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, StreamError>>> {
        match self.get_mut() {
            Self::Held(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Held(bytes) => Poll::Ready(Some(Ok(Frame::data(bytes.split_to(bytes.len().min(PIECE)))))),
            Self::Stream(stream) => stream.as_mut().poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Held(bytes) => bytes.is_empty(),
            Self::Stream(stream) => stream.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Held(bytes) => SizeHint::with_exact(u64::try_from(bytes.len()).unwrap_or(u64::MAX)),
            Self::Stream(stream) => stream.size_hint(),
        }
    }
}

/// What a cell told of a call besides its answer.
#[derive(Debug, Clone, Default)]
pub struct Ran {
    /// What it used.
    pub usage: Usage,
    /// Where it ran, and the how-manieth call it was there.
    pub cell: Option<(CellId, u64)>,
    /// How well the cell was jailed.
    pub isolation: Option<Isolation>,
}

/// An answer about to be given. The log closes an entry with it and gives it back recorded.
#[derive(Debug)]
pub struct Reply {
    status: StatusCode,
    headers: HeaderMap,
    body: OutBody,
    outcome: OutcomeFacts,
}

impl cofferdam_model::Reply for Reply {
    fn outcome(&self) -> OutcomeFacts {
        self.outcome.clone()
    }
}

impl Reply {
    /// A refusal or failure, as a problem document.
    pub fn refused(refusal: &Refusal, request: &RequestId, standing: &Standing, ran: Ran) -> Self {
        let document = refusal.problem(request);
        let mut headers = refusal.headers();
        headers.insert(ERROR_SOURCE, HeaderValue::from_static(refusal.origin().as_str()));
        let mut outcome = facts(refusal.status(), refusal.origin(), refusal.ending(), ran);
        outcome.code = Some(refusal.code().to_owned());
        outcome.body = Some(digest_of(&document));
        Self { status: refusal.status(), headers, body: OutBody::Held(document), outcome }.finish(request, standing)
    }

    /// An answer of the platform's own.
    pub fn json(status: StatusCode, value: &serde_json::Value, request: &RequestId, standing: &Standing) -> Self {
        Self::text(status, "application/json", value.to_string(), request, standing)
    }

    /// An answer of the platform's own, in another form.
    pub fn text(
        status: StatusCode,
        kind: &'static str,
        text: String,
        request: &RequestId,
        standing: &Standing,
    ) -> Self {
        Self::own(status, Evidence { kind, cache: "no-store", bytes: text.into() }, request, standing)
    }

    /// Evidence of the log.
    pub(crate) fn evidence(evidence: Evidence, request: &RequestId, standing: &Standing) -> Self {
        Self::own(StatusCode::OK, evidence, request, standing)
    }

    fn own(status: StatusCode, evidence: Evidence, request: &RequestId, standing: &Standing) -> Self {
        let Evidence { kind, cache, bytes } = evidence;
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(cache));
        let mut outcome = facts(status, Origin::Platform, Ending::Answered, Ran::default());
        outcome.usage.bytes_out = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        outcome.body = Some(digest_of(&bytes));
        Self { status, headers, body: OutBody::Held(bytes), outcome }.finish(request, standing)
    }

    /// A function's answer, known whole. One that HTTP cannot carry becomes a failure of the function.
    pub fn held(head: Answered, body: Bytes, ran: Ran, request: &RequestId, standing: &Standing) -> Self {
        let Answered { status, mut headers, to_head } = head;
        if !is_final(status) {
            return Self::refused(&Refusal::FunctionNoAnswer, request, standing, ran);
        }
        let body = if is_bodiless(status) { Bytes::new() } else { body };
        strip_platforms(&mut headers);
        // The length is ours to say, except that an answer to HEAD speaks of a body which is not there.
        if !to_head || !is_plain_length(&headers) {
            headers.remove(header::CONTENT_LENGTH);
        }
        let mut outcome = facts(status, Origin::Function, Ending::Answered, ran);
        outcome.body = Some(digest_of(&body));
        Self { status, headers, body: OutBody::Held(body), outcome }.finish(request, standing)
    }

    /// A function's answer whose body follows. `ran` is what is known by now.
    pub fn streamed(head: Answered, body: Stream, ran: Ran, request: &RequestId, standing: &Standing) -> Self {
        let Answered { status, mut headers, to_head } = head;
        if !is_final(status) {
            return Self::refused(&Refusal::FunctionNoAnswer, request, standing, ran);
        }
        if is_bodiless(status) {
            return Self::held(Answered { status, headers, to_head }, Bytes::new(), ran, request, standing);
        }
        strip_platforms(&mut headers);
        if !is_plain_length(&headers) {
            headers.remove(header::CONTENT_LENGTH);
        }
        let mut outcome = facts(status, Origin::Function, Ending::Answered, ran);
        outcome.streamed = true;
        Self { status, headers, body: OutBody::Stream(body), outcome }.finish(request, standing)
    }

    /// How the call ended, as far as is known; nothing while its body streams.
    pub(crate) fn ending(&self) -> Option<Ending> {
        (!self.outcome.streamed).then_some(self.outcome.ending)
    }

    /// The same, with how long each step took that led to it.
    #[must_use]
    pub(crate) fn timed(mut self, steps: Steps) -> Self {
        self.outcome.way.steps = steps;
        self
    }

    /// The same, for a credential that failed a check.
    #[must_use]
    pub(crate) fn failing(mut self, check: Option<&'static str>) -> Self {
        self.outcome.way.check = check.map(str::to_owned);
        self
    }

    /// The status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    fn finish(mut self, request: &RequestId, standing: &Standing) -> Self {
        if let Ok(id) = HeaderValue::from_str(request.as_str()) {
            self.headers.insert(REQUEST_ID, id);
        }
        standing.write(&mut self.headers);
        self.outcome.way.limits = standing.facts();
        self
    }
}

/// Head of a function's answer.
#[derive(Debug, Clone)]
pub struct Answered {
    /// Its status.
    pub status: StatusCode,
    /// Its fields, not stripped of anything yet.
    pub headers: HeaderMap,
    /// Whether it answers a HEAD request.
    pub to_head: bool,
}

impl Answered {
    /// Whether its body can go out piece by piece: there is one, and HTTP can carry the answer at all.
    pub(crate) fn may_stream(&self) -> bool {
        is_final(self.status) && !is_bodiless(self.status) && !self.to_head
    }
}

/// Makes the response of a recorded reply.
pub fn respond(recorded: Recorded<Reply>) -> Response<OutBody> {
    into_response(recorded.into_value())
}

fn into_response(reply: Reply) -> Response<OutBody> {
    let mut response = Response::new(reply.body);
    *response.status_mut() = reply.status;
    *response.headers_mut() = reply.headers;
    response
}

fn facts(status: StatusCode, origin: Origin, ending: Ending, ran: Ran) -> OutcomeFacts {
    OutcomeFacts {
        status: status.as_u16(),
        origin,
        ending,
        code: None,
        usage: ran.usage,
        body: None,
        streamed: false,
        cell: ran.cell,
        isolation: ran.isolation,
        way: Way::default(),
    }
}

/// SHA-256 of bytes the log names by it.
pub(crate) fn digest_of(bytes: &[u8]) -> Digest {
    let mut out = [0; 32];
    for (to, from) in out.iter_mut().zip(digest::digest(&digest::SHA256, bytes).as_ref()) {
        *to = *from;
    }
    Digest(out)
}

/// Whether a status may end an exchange: no interim one, no change of protocol, none HTTP does not define.
fn is_final(status: StatusCode) -> bool {
    (200..600).contains(&status.as_u16())
}

fn is_bodiless(status: StatusCode) -> bool {
    matches!(status, StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::NOT_MODIFIED)
}

fn is_plain_length(headers: &HeaderMap) -> bool {
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    let plain =
        |value: &HeaderValue| (1..=18).contains(&value.len()) && value.as_bytes().iter().all(u8::is_ascii_digit);
    lengths.next().is_some_and(plain) && lengths.next().is_none()
}

/// Removes what only the platform may say, so that a function cannot speak for it.
fn strip_platforms(headers: &mut HeaderMap) {
    strip_hop_by_hop(headers);
    let ours: Vec<HeaderName> = headers
        .keys()
        .filter(|name| {
            let name = name.as_str();
            name.starts_with("x-cofferdam-")
                || name.starts_with("cofferdam-")
                || matches!(name, "x-request-id" | "ratelimit" | "ratelimit-policy")
        })
        .cloned()
        .collect();
    for name in ours {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cofferdam_model::Reply as _;
    use cofferdam_model::random::SeededRandom;
    use http_body_util::BodyExt as _;

    fn request() -> RequestId {
        RequestId::mint(&SeededRandom::new(3))
    }

    fn answered(status: u16, fields: &[(&'static str, &'static str)]) -> Answered {
        let headers = fields
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect();
        Answered { status: StatusCode::from_u16(status).unwrap(), headers, to_head: false }
    }

    fn held(head: Answered, body: &'static str) -> Reply {
        Reply::held(head, Bytes::from_static(body.as_bytes()), Ran::default(), &request(), &Standing::default())
    }

    #[test]
    fn a_function_cannot_speak_for_the_platform() {
        let head = answered(
            500,
            &[
                ("cofferdam-error-source", "platform"),
                ("x-cofferdam-tenant", "other"),
                ("x-request-id", "forged"),
                ("ratelimit", "forged"),
                ("connection", "keep-alive, x-hop"),
                ("x-hop", "1"),
                ("transfer-encoding", "chunked"),
                ("content-length", "1000"),
                ("x-own", "kept"),
            ],
        );
        let reply = held(head, "hello");
        let mut names: Vec<&str> = reply.headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["x-own", "x-request-id"]);
        assert_eq!(reply.headers["x-request-id"], request().as_str());
        assert_eq!(reply.outcome().origin, Origin::Function);
    }

    #[test]
    fn an_answer_http_cannot_carry_is_no_answer() {
        for status in [100, 101, 103, 199, 600, 999] {
            let reply = held(answered(status, &[]), "x");
            assert_eq!((reply.status, reply.outcome().ending), (StatusCode::BAD_GATEWAY, Ending::NoAnswer));
        }
    }

    #[tokio::test]
    async fn a_held_body_comes_out_in_pieces_and_matches_its_digest() {
        let text = Bytes::from(vec![b'a'; 40_000]);
        let head = answered(200, &[]);
        let reply = Reply::held(head, text.clone(), Ran::default(), &request(), &Standing::default());
        assert_eq!(reply.outcome().body, Some(digest_of(&text)));
        let mut response = into_response(reply);
        let first = response.body_mut().frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(first.len(), PIECE);
        let rest = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(rest.len(), 40_000 - PIECE);
    }

    #[test]
    fn a_status_without_a_body_has_none_and_head_keeps_its_length() {
        assert!(held(answered(204, &[]), "x").body.is_end_stream());
        let mut head = answered(200, &[("content-length", "12")]);
        head.to_head = true;
        assert_eq!(held(head, "").headers[header::CONTENT_LENGTH], "12");
    }

    #[test]
    fn a_refusal_names_its_source_and_code() {
        let reply = Reply::refused(&Refusal::CellLost, &request(), &Standing::default(), Ran::default());
        assert_eq!(reply.headers["cofferdam-error-source"], "platform");
        assert_eq!(reply.outcome().code.as_deref(), Some("cell_lost"));
        let reply = Reply::refused(&Refusal::FunctionTrapped, &request(), &Standing::default(), Ran::default());
        assert_eq!(reply.headers["cofferdam-error-source"], "function");
    }
}
