//! The way of every request, as one straight function that reads as the security argument.
//!
//! Owns the order: head, limits, route, identity, decision, entry, effect, record, answer. Each step takes what the
//! step before gave and cannot be reached without it: what acts takes a permit out of an open entry, and a response
//! is only made of a recorded reply. Must never skip a step for a kind of request, and never answer unrecorded.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cofferdam_audit::{Entry, Recorded};
use cofferdam_authz::{Because, IdentityError, Permit, Principal, Refusal as Reason};
use cofferdam_model::{CallFacts, Circumstances, Ending, Operation, PrincipalKind, Step, Subject};
use http::{HeaderValue, Method, Response, StatusCode, Version, header};

use crate::call::{self, Received};
use crate::doors::Door;
use crate::identify::{Unknown, identify, is_bare};
use crate::limits::Standing;
use crate::listen::{Arrived, Handler, Reset};
use crate::live::Picture;
use crate::manage::Asked;
use crate::node::Node;
use crate::receipts::RECEIPT;
use crate::refusal::Refusal;
use crate::respond::{OutBody, Ran, Reply, respond};
use crate::routes::Target;
use crate::turn::{Turn, turn};
use crate::watch::Watch;
use crate::{change, perform, token};

/// The call could not be recorded, so there is no answer: the connection is reset.
#[derive(Debug, thiserror::Error)]
#[error("the call could not be recorded")]
pub(crate) struct Unrecorded;

impl Handler for Node {
    async fn handle(self: Arc<Self>, arrived: Arrived) -> Result<Response<OutBody>, Reset> {
        answer(&self, arrived).await.map_err(|Unrecorded| Reset)
    }

    fn lost(&self, peer: IpAddr, why: &'static str) {
        self.log.count(why, peer);
    }

    fn door(&self, host: &str) -> Option<Arc<Door>> {
        self.live.load().doors.at(host).cloned()
    }
}

/// A call stopped on its way, with all that was known of it by then.
pub(crate) struct Stopped {
    facts: CallFacts,
    refusal: Refusal,
    standing: Standing,
    /// The check that its credential failed.
    check: Option<&'static str>,
    /// Whether it is recorded by itself although nobody is known: bounded elsewhere, and worth knowing one by one.
    alone: bool,
}

/// What came of a call: a reply, recorded or not; or where it was stopped before an entry was open.
type Attempted = Result<Result<Recorded<Reply>, Unrecorded>, Box<Stopped>>;

/// Answers one request.
async fn answer(node: &Arc<Node>, arrived: Arrived) -> Result<Response<OutBody>, Unrecorded> {
    let closable = arrived.connection.version == Version::HTTP_11;
    let secret = carries_secret(&arrived);
    let mut counting = node.metrics.count();
    let mut along = Along {
        watch: Watch::start(node.clock.clone()),
        unseen: Unseen { node, source: Some(arrived.connection.peer.ip()), answered: false },
        receipt: Wish { asked: node.receipts.asked_by(arrived.request.headers()), granted: false },
    };
    node.tallies.came();
    let (performed, refused) = match attempt(node, arrived, &mut along).await {
        Ok(performed) => (performed, false),
        Err(stopped) => {
            along.unseen.seen();
            (refuse(node, *stopped, &along.watch).await, true)
        }
    };
    along.unseen.answered = performed.is_ok();
    // An answer that streams is counted at its end; one that nobody gets, as what it is.
    counting.will_be(performed.as_ref().map_or(Some(Ending::PlatformFailed), |recorded| recorded.value().ending()));
    let recorded = performed?;
    let receipt = along.receipt.granted.then(|| recorded.receipt(&node.log)).flatten();
    let mut response = respond(recorded);
    if let Some(receipt) = receipt.and_then(|receipt| HeaderValue::from_str(&receipt.to_string()).ok()) {
        response.headers_mut().insert(RECEIPT, receipt);
    }
    // Who sends what has two readings is not listened to any further. A function's own 400 is no such thing.
    // What was read of a secret stays in the connection's buffers until those are freed, which wipes them.
    if closable && (secret || (refused && response.status() == StatusCode::BAD_REQUEST)) {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(response)
}

/// What goes along with a call and decides nothing: how long its steps take, whether anything is recorded of it yet,
/// and whether its answer shall carry a receipt.
struct Along<'a> {
    watch: Watch,
    unseen: Unseen<'a>,
    receipt: Wish,
}

/// Whether the answer shall carry a receipt.
struct Wish {
    /// Whether the caller asked for one, which counts for those who are known.
    asked: bool,
    granted: bool,
}

/// A call of which nothing is recorded yet. Where its client leaves before anything is, that is counted.
struct Unseen<'a> {
    node: &'a Node,
    source: Option<IpAddr>,
    answered: bool,
}

impl Unseen<'_> {
    /// From here on the call has an entry, or a refusal, that is recorded whatever happens.
    fn seen(&mut self) {
        self.source = None;
    }
}

impl Drop for Unseen<'_> {
    fn drop(&mut self) {
        if let Some(source) = self.source {
            self.node.log.count(Ending::ClientGone.as_str(), source);
        }
        self.node.tallies.ended(self.answered);
    }
}

/// Parts of paths below which bodies hold secrets, passphrases or tokens.
const SECRET_PATHS: [&str; 3] = ["/secrets/", "/users/", "/token"];

/// Whether the body may be a secret's value, a passphrase or a token.
fn carries_secret(arrived: &Arrived) -> bool {
    let path = arrived.request.uri().path();
    let sets = [Method::PUT, Method::POST].contains(arrived.request.method());
    sets && is_reserved(path) && SECRET_PATHS.iter().any(|part| path.contains(part))
}

/// The straight way. Whatever goes wrong before an entry is open comes out as `Stopped` and is recorded as that.
async fn attempt(node: &Arc<Node>, arrived: Arrived, along: &mut Along<'_>) -> Attempted {
    // Read the head: one reading, or none.
    let mut call = call::receive(arrived, (&node.limits, &node.recorded), &*node.clock, &*node.random)
        .map_err(|rejected| Stopped::at(&rejected.circumstances, rejected.refusal))?;
    let at = call.circumstances.clone();

    // Limits of the source, before anything costs.
    let mut standing = Standing::default();
    standing.take(node.limiter.source(at.source)).map_err(|refusal| Stopped::limited(&at, &standing, refusal))?;

    // Route: on the canonical path, in one immutable picture of what exists.
    along.watch.enter(Step::Route);
    let picture = node.live.load();
    picture.doors.check(&at, call.came.as_ref()).map_err(|refusal| Stopped::at(&at, refusal))?;
    let turn = match turn(&picture, &call, node.public_tiles) {
        Ok(turn @ (Turn::Health | Turn::Ready)) => {
            along.unseen.seen();
            return Ok(perform::health(node, &turn, &at).await);
        }
        Ok(Turn::Published(document)) => {
            along.unseen.seen();
            return Ok(perform::published(node, document, &at).await);
        }
        Ok(Turn::Evidence(open)) => {
            along.unseen.seen();
            return Ok(perform::evidence(node, open, call.query.as_deref(), &at).await);
        }
        // Below `/-/` only those who are known learn what there is not.
        Err(refusal) if !is_reserved(&at.path) => return Err(Stopped::at(&at, refusal)),
        turned => turned,
    };

    // A place among the calls under way; health never has to wait for one.
    along.watch.enter(Step::Limits);
    let admission = node.limiter.admit().map_err(|refusal| Stopped::at(&at, refusal))?;
    let hold = node.drain.hold();

    // Authenticate. Nothing shown is nobody; something bad is never nobody.
    if let Ok(Turn::Token) = &turn {
        return log_in(node, call, standing, along).await;
    }
    let caller = known(node, &picture, &mut call, &mut standing, &mut along.watch).await?;
    along.receipt.granted = along.receipt.asked && caller.kind() != PrincipalKind::Anonymous;
    let turn = turn.map_err(|refusal| Stopped::known(&at, &caller, &Standing::default(), refusal))?;

    // Authorize exactly what would be done; open the entry with the permit; only then do it, from the permit.
    match turn {
        Turn::Invoke(target) => {
            along.receipt.granted |= target.receipt;
            along.watch.enter(Step::Authorize);
            let permit = permit(node, &picture, caller, target.invoke.clone(), at, &standing)?;
            // What all callers of a tenant share is charged for those alone who may call.
            along.watch.enter(Step::Limits);
            if let Err(refusal) = limit_target(node, &target, &mut standing) {
                return Err(Stopped::with(permit.facts(), standing, refusal));
            }
            along.watch.enter(Step::Open);
            let entry = enter(node, permit)?;
            along.unseen.seen();
            let held = perform::Held { admission, hold, standing, watch: along.watch.clone() };
            Ok(perform::invoke(node, entry, target, &picture, call, held).await)
        }
        Turn::Manage(asked) => managed(node, &picture, caller, (call, asked), standing, along).await,
        Turn::Health | Turn::Ready | Turn::Published(_) | Turn::Evidence(_) | Turn::Token => {
            Err(Stopped::at(&at, Refusal::NotFound))
        }
    }
}

/// The rest of the way of a change, or of a look at what exists: its body must be whole to be decided on.
async fn managed(
    node: &Arc<Node>,
    picture: &Picture,
    caller: Principal,
    (call, asked): (Received, Asked),
    standing: Standing,
    along: &mut Along<'_>,
) -> Attempted {
    let at = call.circumstances;
    along.watch.enter(Step::Body);
    let stopped = |refusal| Stopped::known(&at, &caller, &standing, refusal);
    let body = change::read(node, &asked, call.body).await.map_err(stopped)?;
    along.watch.enter(Step::Authorize);
    let picture = still(node, picture, &caller).map_err(stopped)?;
    // Reading and hashing up to 64 MiB must not hold up the other calls of this thread.
    let asked = tokio::task::block_in_place(|| {
        let query = call.query.as_deref();
        asked.operation(&picture.snapshot, &*node.random, query, &body, perform::digest)
    });
    let operation = asked.map_err(stopped)?;
    let permit = permit(node, &picture, caller, operation, at, &standing)?;
    along.watch.enter(Step::Open);
    let entry = enter(node, permit)?;
    along.unseen.seen();
    Ok(change::manage(node, entry, body, (standing, along.watch.clone())).await)
}

/// Who calls, as far as that was shown, within the limits of one caller.
async fn known(
    node: &Node,
    picture: &Picture,
    call: &mut Received,
    standing: &mut Standing,
    watch: &mut Watch,
) -> Result<Principal, Box<Stopped>> {
    watch.enter(Step::Authenticate);
    let found = identify(node, picture, call).await;
    let at = &call.circumstances;
    let caller = found.map_err(|error| unknown(node, at, error, standing))?;
    if caller.kind() == PrincipalKind::Anonymous && is_reserved(&at.path) {
        return Err(Stopped::at(at, Refusal::Unauthenticated));
    }
    watch.enter(Step::Limits);
    if let Err(refusal) = limit_caller(node, &caller, standing) {
        return Err(Stopped::known(at, &caller, standing, refusal));
    }
    Ok(caller)
}

/// The picture of now, in which a caller is who he was: what was revoked or changed while his call came counts for it.
fn still(node: &Node, before: &Picture, caller: &Principal) -> Result<Arc<Picture>, Refusal> {
    let now = node.live.load();
    let alike = caller.tenant().is_none_or(|tenant| now.snapshot.knows_alike(&before.snapshot, tenant));
    let message = || "who may do what was changed while this call came; ask again".to_owned();
    if alike { Ok(now) } else { Err(Refusal::Conflict { message: message() }) }
}

/// The same way for whoever asks for a token: what is shown is in the body, so that is read first.
async fn log_in(node: &Arc<Node>, call: Received, mut standing: Standing, along: &mut Along<'_>) -> Attempted {
    let Along { watch, unseen, .. } = along;
    watch.enter(Step::Body);
    let bare = is_bare(&call);
    let at = call.circumstances;
    if node.live.control().own_issuer().is_none() {
        return Err(Stopped::at(&at, Refusal::NotFound));
    }
    if !bare {
        let message = "what is shown for a token goes into the body, and nothing into `authorization`".to_owned();
        return Err(Stopped::at(&at, Refusal::Invalid { message }));
    }
    let asked = token::read(node, call.body).await.map_err(|refusal| Stopped::at(&at, refusal))?;
    watch.enter(Step::Authenticate);
    let picture = &node.live.load();
    let caller = match node.identities.identify(asked.credential(at.source), &*picture.snapshot).await {
        Ok(caller) => caller,
        Err(error) => {
            let mut stopped = unknown(node, &at, error.into(), &mut standing);
            // How many there are is bounded by how often passphrases are checked at all.
            stopped.alone |= stopped.refusal == Refusal::LoginFailed;
            stopped.facts.detail.get_or_insert_with(|| asked.detail(node));
            return Err(stopped);
        }
    };
    // Checking a passphrase takes its time.
    let picture = &still(node, picture, &caller).map_err(|refusal| Stopped::known(&at, &caller, &standing, refusal))?;
    watch.enter(Step::Limits);
    if let Err(refusal) = limit_caller(node, &caller, &mut standing) {
        return Err(Stopped::known(&at, &caller, &standing, refusal));
    }
    watch.enter(Step::Authorize);
    let operation =
        asked.operation(node, &caller).map_err(|refusal| Stopped::known(&at, &caller, &standing, refusal))?;
    let permit = permit(node, picture, caller, operation, at, &standing)?;
    watch.enter(Step::Open);
    let entry = enter(node, permit)?;
    unseen.seen();
    Ok(change::manage(node, entry, Bytes::new(), (standing, watch.clone())).await)
}

/// What becomes of a call whose caller is not known. Of a genuine credential that was revoked it is known whose it was:
/// that is recorded, as often as its holder may call at all.
fn unknown(node: &Node, at: &Circumstances, error: Unknown, standing: &mut Standing) -> Box<Stopped> {
    let error = match error {
        Unknown::Refused(refusal) => return Stopped::at(at, refusal),
        Unknown::Identity(error) => error,
    };
    match error {
        IdentityError::Refused(reason @ Reason::Passphrase) => Stopped::failing(at, Refusal::LoginFailed, reason),
        IdentityError::Refused(reason) => {
            tracing::debug!(request = %at.request, reason = reason.as_str(), "credential refused");
            Stopped::failing(at, Refusal::Unauthenticated, reason)
        }
        IdentityError::Revoked { who, key, by } => {
            if let Err(refusal) = standing.take(node.limiter.principal(&key)) {
                return Stopped::limited(at, standing, refusal);
            }
            let detail = Some(format!("revoked={}", by.as_str()));
            let facts = CallFacts { tenant: who.tenant.clone(), principal: Some(*who), detail, ..CallFacts::of(at) };
            let (refusal, standing) = (Refusal::CredentialRevoked, standing.clone());
            let check = Some(Reason::Revoked.as_str());
            Box::new(Stopped { facts, refusal, standing, check, alone: true })
        }
        IdentityError::Throttled { retry_after } => {
            Stopped::limited(at, standing, Refusal::RateLimited { retry_after })
        }
        IdentityError::Overloaded => {
            tracing::warn!(request = %at.request, "too many signatures to remember");
            Stopped::at(at, Refusal::Overloaded { retry_after: Duration::from_secs(60) })
        }
        IdentityError::Unavailable { issuer, cause } => {
            tracing::warn!(request = %at.request, issuer, ?cause, "keys cannot be had");
            Stopped::at(at, Refusal::KeysUnavailable)
        }
        IdentityError::Sealed { key, cause } => {
            tracing::warn!(request = %at.request, %key, ?cause, "the secret of an access key cannot be opened now");
            Stopped::at(at, Refusal::KeysUnavailable)
        }
    }
}

/// Whether a path is one of the platform's own.
pub(crate) fn is_reserved(path: &str) -> bool {
    path.starts_with("/-/")
}

fn limit_caller(node: &Node, caller: &Principal, standing: &mut Standing) -> Result<(), Refusal> {
    match caller.kind() {
        PrincipalKind::Anonymous => Ok(()),
        PrincipalKind::User | PrincipalKind::ServiceAccount => standing.take(node.limiter.principal(&caller.key())),
    }
}

fn limit_target(node: &Node, target: &Target, standing: &mut Standing) -> Result<(), Refusal> {
    standing.take(node.limiter.tenant(&target.invoke.tenant))?;
    match &target.limit {
        Some((route, rate)) => standing.take(node.limiter.route(route, *rate)),
        None => Ok(()),
    }
}

fn permit<A: Operation>(
    node: &Node,
    picture: &Picture,
    caller: Principal,
    operation: A,
    at: Circumstances,
    standing: &Standing,
) -> Result<Permit<A>, Box<Stopped>> {
    let Some(policies) = picture.snapshot.policies(&operation.tenant()) else {
        return Err(Stopped::known(&at, &caller, standing, Refusal::NotFound));
    };
    node.authorizer.decide(&policies, caller, operation, at).map_err(|denied| {
        let refusal = match (denied.because(), denied.unidentified(), denied.hidden()) {
            (Some(why), ..) => because(why),
            (None, true, _) => Refusal::Unauthenticated,
            (None, false, true) => Refusal::NotFound,
            (None, false, false) => Refusal::Forbidden,
        };
        // What is not admitted to exist must look like what does not: no fields that only a real one would bring.
        let standing = if refusal == Refusal::NotFound { Standing::default() } else { standing.clone() };
        Stopped::with(denied.facts(), standing, refusal)
    })
}

/// Opens the entry of a permit.
fn enter<A: Operation>(node: &Node, permit: Permit<A>) -> Result<Entry<Permit<A>>, Box<Stopped>> {
    let facts = permit.facts();
    node.log.enter(permit).map_err(|_| Stopped::unrecordable(facts))
}

/// What somebody is told who may do what he asked for, but for what would come of it.
fn because(why: &Because) -> Refusal {
    match why {
        Because::Escalates(action) => Refusal::Escalates {
            message: format!(
                "this would let others `{}`, which you may not do here yourself: leave it out, or ask somebody who may",
                action.as_str()
            ),
        },
        Because::Secret(secret) => {
            Refusal::SecretDenied { message: format!("policies do not let the function have its secret `{secret}`") }
        }
    }
}

/// Records a stopped call: in full where the caller is known, counted where it could be anyone.
async fn refuse(node: &Node, stopped: Stopped, watch: &Watch) -> Result<Recorded<Reply>, Unrecorded> {
    let Stopped { facts, refusal, standing, check, alone } = stopped;
    let known = alone || facts.principal.as_ref().is_some_and(|principal| principal.kind != PrincipalKind::Anonymous);
    let reply = Reply::refused(&refusal, &facts.request, &standing, Ran::default());
    let reply = reply.timed(watch.steps()).failing(check);
    let recorded = if known { node.log.refuse(facts, reply).await } else { node.log.tally(&facts, reply) };
    recorded.map_err(|error| {
        tracing::error!(%error, "a refusal could not be recorded");
        Unrecorded
    })
}

impl Stopped {
    fn at(at: &Circumstances, refusal: Refusal) -> Box<Self> {
        Self::with(CallFacts::of(at), Standing::default(), refusal)
    }

    fn limited(at: &Circumstances, standing: &Standing, refusal: Refusal) -> Box<Self> {
        Self::with(CallFacts::of(at), standing.clone(), refusal)
    }

    fn known(at: &Circumstances, caller: &Principal, standing: &Standing, refusal: Refusal) -> Box<Self> {
        let facts = CallFacts { principal: Some(caller.facts()), ..CallFacts::of(at) };
        Self::with(facts, standing.clone(), refusal)
    }

    fn failing(at: &Circumstances, refusal: Refusal, reason: Reason) -> Box<Self> {
        Box::new(Self { check: Some(reason.as_str()), ..*Self::at(at, refusal) })
    }

    /// With all that was known of it by then.
    fn with(facts: CallFacts, standing: Standing, refusal: Refusal) -> Box<Self> {
        Box::new(Self { facts, refusal, standing, check: None, alone: false })
    }

    fn unrecordable(facts: CallFacts) -> Box<Self> {
        Self::with(facts, Standing::default(), Refusal::AuditUnavailable)
    }
}
