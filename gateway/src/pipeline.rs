//! The way of every request, as one straight function that reads as the security argument.
//!
//! Owns the order: head, limits, route, identity, decision, entry, effect, record, answer. Each step takes what the
//! step before gave and cannot be reached without it: what acts takes a permit out of an open entry, and a response
//! is only made of a recorded reply. Must never skip a step for a kind of request, and never answer unrecorded.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cofferdam_audit::Recorded;
use cofferdam_authz::{Because, IdentityError, Permit, Principal, Refusal as Reason};
use cofferdam_model::{CallFacts, Circumstances, Ending, Operation, PrincipalKind, Subject};
use http::{HeaderValue, Method, Response, StatusCode, Version, header};

use crate::call::{self, Received};
use crate::doors::Door;
use crate::identify::{Unknown, identify, is_bare};
use crate::limits::Standing;
use crate::listen::{Arrived, Handler, Reset};
use crate::live::Picture;
use crate::manage::Asked;
use crate::node::Node;
use crate::refusal::Refusal;
use crate::respond::{OutBody, Ran, Reply, respond};
use crate::routes::Target;
use crate::turn::{Turn, turn};
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
    /// Whether it is recorded by itself although nobody is known: bounded elsewhere, and worth knowing one by one.
    alone: bool,
}

/// Answers one request.
async fn answer(node: &Arc<Node>, arrived: Arrived) -> Result<Response<OutBody>, Unrecorded> {
    let closable = arrived.connection.version == Version::HTTP_11;
    let secret = carries_secret(&arrived);
    let mut counting = node.metrics.count();
    let mut unseen = Unseen { node, source: Some(arrived.connection.peer.ip()), answered: false };
    node.tallies.came();
    let (performed, refused) = match attempt(node, arrived, &mut unseen).await {
        Ok(performed) => (performed, false),
        Err(stopped) => {
            unseen.seen();
            (refuse(node, *stopped).await, true)
        }
    };
    unseen.answered = performed.is_ok();
    // An answer that streams is counted at its end; one that nobody gets, as what it is.
    counting.will_be(performed.as_ref().map_or(Some(Ending::PlatformFailed), |recorded| recorded.value().ending()));
    let recorded = performed?;
    let mut response = respond(recorded);
    // Who sends what has two readings is not listened to any further. A function's own 400 is no such thing.
    // What was read of a secret stays in the connection's buffers until those are freed, which wipes them.
    if closable && (secret || (refused && response.status() == StatusCode::BAD_REQUEST)) {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(response)
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
async fn attempt(
    node: &Arc<Node>,
    arrived: Arrived,
    unseen: &mut Unseen<'_>,
) -> Result<Result<Recorded<Reply>, Unrecorded>, Box<Stopped>> {
    // Read the head: one reading, or none.
    let mut call = call::receive(arrived, &node.limits, &*node.clock, &*node.random)
        .map_err(|rejected| Stopped::at(&rejected.circumstances, rejected.refusal))?;
    let at = call.circumstances.clone();

    // Limits of the source, before anything costs.
    let mut standing = Standing::default();
    standing.take(node.limiter.source(at.source)).map_err(|refusal| Stopped::limited(&at, &standing, refusal))?;

    // Route: on the canonical path, in one immutable picture of what exists.
    let picture = node.live.load();
    picture.doors.check(&at, call.came.as_ref()).map_err(|refusal| Stopped::at(&at, refusal))?;
    let turn = match turn(&picture, &call) {
        Ok(turn @ (Turn::Health | Turn::Ready)) => {
            unseen.seen();
            return Ok(perform::health(node, &turn, &at).await);
        }
        Ok(Turn::Published(document)) => {
            unseen.seen();
            return Ok(perform::published(node, document, &at).await);
        }
        // Below `/-/` only those who are known learn what there is not.
        Err(refusal) if !is_reserved(&at.path) => return Err(Stopped::at(&at, refusal)),
        turned => turned,
    };

    // A place among the calls under way; health never has to wait for one.
    let admission = node.limiter.admit().map_err(|refusal| Stopped::at(&at, refusal))?;
    let hold = node.drain.hold();

    // Authenticate. Nothing shown is nobody; something bad is never nobody.
    if let Ok(Turn::Token) = &turn {
        return log_in(node, call, standing, unseen).await;
    }
    let caller = known(node, &picture, &mut call, &mut standing).await?;
    let turn = turn.map_err(|refusal| Stopped::known(&at, &caller, &Standing::default(), refusal))?;

    // Authorize exactly what would be done; open the entry with the permit; only then do it, from the permit.
    match turn {
        Turn::Invoke(target) => {
            let permit = permit(node, &picture, caller, target.invoke.clone(), at, &standing)?;
            let facts = permit.facts();
            // What all callers of a tenant share is charged for those alone who may call.
            if let Err(refusal) = limit_target(node, &target, &mut standing) {
                return Err(Box::new(Stopped { facts, refusal, standing, alone: false }));
            }
            let Ok(entry) = node.log.enter(permit) else {
                return Err(Stopped::unrecordable(facts));
            };
            unseen.seen();
            let held = perform::Held { admission, hold, standing };
            Ok(perform::invoke(node, entry, target, &picture, call, held).await)
        }
        Turn::Manage(asked) => manage(node, &picture, (caller, at), (asked, call), standing, unseen).await,
        Turn::Health | Turn::Ready | Turn::Published(_) | Turn::Token => Err(Stopped::at(&at, Refusal::NotFound)),
    }
}

/// The rest of the way of a management call, whose body says what exactly would be done.
async fn manage(
    node: &Arc<Node>,
    picture: &Picture,
    (caller, at): (Principal, Circumstances),
    (asked, call): (Asked, Received),
    standing: Standing,
    unseen: &mut Unseen<'_>,
) -> Result<Result<Recorded<Reply>, Unrecorded>, Box<Stopped>> {
    let body = match change::read(node, &asked, call.body).await {
        Ok(body) => body,
        Err(refusal) => return Err(Stopped::known(&at, &caller, &standing, refusal)),
    };
    let picture = still(node, picture, &caller).map_err(|refusal| Stopped::known(&at, &caller, &standing, refusal))?;
    // Reading and hashing up to 64 MiB must not hold up the other calls of this thread.
    let asked = tokio::task::block_in_place(|| {
        let query = call.query.as_deref();
        asked.operation(&picture.snapshot, &*node.random, query, &body, perform::digest)
    });
    let operation = asked.map_err(|refusal| Stopped::known(&at, &caller, &standing, refusal))?;
    let permit = permit(node, &picture, caller, operation, at, &standing)?;
    let facts = permit.facts();
    let Ok(entry) = node.log.enter(permit) else {
        return Err(Stopped::unrecordable(facts));
    };
    unseen.seen();
    Ok(change::manage(node, entry, body, standing).await)
}

/// Who calls, as far as that was shown, within the limits of one caller.
async fn known(
    node: &Node,
    picture: &Picture,
    call: &mut Received,
    standing: &mut Standing,
) -> Result<Principal, Box<Stopped>> {
    let found = identify(node, picture, call).await;
    let at = &call.circumstances;
    let caller = found.map_err(|error| unknown(node, at, error, standing))?;
    if caller.kind() == PrincipalKind::Anonymous && is_reserved(&at.path) {
        return Err(Stopped::at(at, Refusal::Unauthenticated));
    }
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
async fn log_in(
    node: &Arc<Node>,
    call: Received,
    mut standing: Standing,
    unseen: &mut Unseen<'_>,
) -> Result<Result<Recorded<Reply>, Unrecorded>, Box<Stopped>> {
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
    if let Err(refusal) = limit_caller(node, &caller, &mut standing) {
        return Err(Stopped::known(&at, &caller, &standing, refusal));
    }
    let operation =
        asked.operation(node, &caller).map_err(|refusal| Stopped::known(&at, &caller, &standing, refusal))?;
    let permit = permit(node, picture, caller, operation, at, &standing)?;
    let facts = permit.facts();
    let Ok(entry) = node.log.enter(permit) else {
        return Err(Stopped::unrecordable(facts));
    };
    unseen.seen();
    Ok(change::manage(node, entry, Bytes::new(), standing).await)
}

/// What becomes of a call whose caller is not known. Of a genuine credential that was revoked it is known whose it was:
/// that is recorded, as often as its holder may call at all.
fn unknown(node: &Node, at: &Circumstances, error: Unknown, standing: &mut Standing) -> Box<Stopped> {
    let error = match error {
        Unknown::Refused(refusal) => return Stopped::at(at, refusal),
        Unknown::Identity(error) => error,
    };
    match error {
        IdentityError::Refused(Reason::Passphrase) => Stopped::at(at, Refusal::LoginFailed),
        IdentityError::Refused(reason) => {
            tracing::debug!(request = %at.request, reason = reason.as_str(), "credential refused");
            Stopped::at(at, Refusal::Unauthenticated)
        }
        IdentityError::Revoked { who, key, by } => {
            if let Err(refusal) = standing.take(node.limiter.principal(&key)) {
                return Stopped::limited(at, standing, refusal);
            }
            let detail = Some(format!("revoked={}", by.as_str()));
            let facts = CallFacts { tenant: who.tenant.clone(), principal: Some(*who), detail, ..CallFacts::of(at) };
            let (refusal, standing) = (Refusal::CredentialRevoked, standing.clone());
            Box::new(Stopped { facts, refusal, standing, alone: true })
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
        Box::new(Stopped { facts: denied.facts(), refusal, standing, alone: false })
    })
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
async fn refuse(node: &Node, stopped: Stopped) -> Result<Recorded<Reply>, Unrecorded> {
    let Stopped { facts, refusal, standing, alone } = stopped;
    let known = alone || facts.principal.as_ref().is_some_and(|principal| principal.kind != PrincipalKind::Anonymous);
    let reply = Reply::refused(&refusal, &facts.request, &standing, Ran::default());
    let recorded = if known { node.log.refuse(facts, reply).await } else { node.log.tally(&facts, reply) };
    recorded.map_err(|error| {
        tracing::error!(%error, "a refusal could not be recorded");
        Unrecorded
    })
}

impl Stopped {
    fn at(at: &Circumstances, refusal: Refusal) -> Box<Self> {
        Box::new(Self { facts: CallFacts::of(at), refusal, standing: Standing::default(), alone: false })
    }

    fn limited(at: &Circumstances, standing: &Standing, refusal: Refusal) -> Box<Self> {
        Box::new(Self { facts: CallFacts::of(at), refusal, standing: standing.clone(), alone: false })
    }

    fn known(at: &Circumstances, caller: &Principal, standing: &Standing, refusal: Refusal) -> Box<Self> {
        let facts = CallFacts { principal: Some(caller.facts()), ..CallFacts::of(at) };
        Box::new(Self { facts, refusal, standing: standing.clone(), alone: false })
    }

    fn unrecordable(facts: CallFacts) -> Box<Self> {
        let (refusal, standing) = (Refusal::AuditUnavailable, Standing::default());
        Box::new(Self { facts, refusal, standing, alone: false })
    }
}
