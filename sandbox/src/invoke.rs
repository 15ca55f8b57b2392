//! One call, from its open audit entry to the head of its answer.
//!
//! Owns the order: intent first where the route is strict, then a cell, then the request; the intent at the latest
//! when the call outlives its moment. Must never send a byte for a permit that is not in an entry, and never try a
//! call again of which anything was sent.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use cofferdam_audit::Entry;
use cofferdam_authz::Permit;
use cofferdam_model::frame::RequestHead;
use cofferdam_model::{Ending, FunctionLimits, Invoke, Level, Subject, Usage};
use http::{HeaderMap, StatusCode};
use tokio::time::{Instant, Sleep};

use crate::cells::{Pool, Refusal, Want};
use crate::channel::{Handle, NotOpened, Ticket};
use crate::client::Client;
use crate::config::{Deployment, InboundBody};
use crate::error::{InboundError, SandboxError};
use crate::outcome::{Answer, AnswerBody, Failure, Ran, Waited};
use crate::pump::Pump;

/// A call that has no answer after this long has its intent written.
const INTENT_AFTER: Duration = Duration::from_millis(100);
/// What a cell may be over a call's wall time before it is killed.
pub(crate) const GRACE: Duration = Duration::from_millis(250);
/// Attempts to get a call into a cell, while nothing of it was sent.
const ATTEMPTS: usize = 3;

/// Runs the call its entry was opened for.
pub(crate) async fn invoke(
    pool: &Arc<Pool>,
    entry: &mut Entry<Permit<Invoke>>,
    deployment: &Deployment,
    request: (RequestHead, InboundBody),
    client: &Client,
) -> Result<Answer, Failure> {
    let mut waited = Waited::default();
    match run(pool, entry, deployment, request, (client, &mut waited)).await {
        Ok(answer) => Ok(Answer { waited, ..answer }),
        Err(failure) => Err(Failure { waited, ..failure }),
    }
}

async fn run(
    pool: &Arc<Pool>,
    entry: &mut Entry<Permit<Invoke>>,
    deployment: &Deployment,
    (head, body): (RequestHead, InboundBody),
    (client, waited): (&Client, &mut Waited),
) -> Result<Answer, Failure> {
    let since = |begun: Duration| Some(pool.clock().monotonic().saturating_sub(begun));
    let limits = entry.subject().operation().limits.clone();
    if body.size_hint().lower() > limits.request_bytes {
        return Err(Failure::inbound(InboundError::TooLarge, Usage::default(), None));
    }
    if entry.subject().level() == Level::Strict {
        // Dropping the proof is all there is to do with it: having waited for it is the point.
        let asked = pool.clock().monotonic();
        let recorded = entry.intent().await.map(drop);
        waited.intent = since(asked);
        recorded.map_err(|error| {
            tracing::error!(%error, "a call was stopped because its intent could not be recorded");
            Failure::before(Ending::PlatformFailed, None)
        })?;
    }
    let asked = pool.clock().monotonic();
    let begun = client.unless_gone(begin(pool, entry.subject(), deployment, &head, body.is_end_stream())).await;
    waited.cell = since(asked);
    let Some(begun) = begun else { return Err(Failure::before(Ending::ClientGone, None)) };
    let (handle, ran) = begun?;
    let mut exchange = Exchange::new(handle, body, &limits, client.clone());
    let mut timer = pin!(tokio::time::sleep(INTENT_AFTER));
    let (status, headers) = loop {
        match poll_fn(|cx| exchange.poll(entry, timer.as_mut(), cx)).await {
            Ok(Step::Head(status, headers)) => break (status, headers),
            Ok(Step::Effect) => exchange.allow(entry).await.map_err(|stop| stop.into_failure(ran.clone()))?,
            Err(stop) => return Err(stop.into_failure(ran)),
        }
    };
    let (handle, deadline, pump) = exchange.into_parts();
    let body = AnswerBody::new(handle, deadline, pump);
    let cell = (ran.cell, ran.ordinal);
    Ok(Answer { status, headers, body, cell, isolation: ran.isolation, waited: Waited::default() })
}

/// Gets the call into a cell. A cell may go while a call is on its way to it; then the next one is taken.
async fn begin(
    pool: &Arc<Pool>,
    permit: &Permit<Invoke>,
    deployment: &Deployment,
    head: &RequestHead,
    ended: bool,
) -> Result<(Handle, Ran), Failure> {
    let operation = permit.operation();
    let want = Want::of(operation, deployment);
    for _ in 0..ATTEMPTS {
        let lease = pool.acquire(&want).await.map_err(|refusal| refused(&refusal))?;
        let cell = lease.cell().clone();
        let ran = Ran { cell: cell.id.clone(), ordinal: lease.ordinal(), isolation: cell.isolation };
        let ticket = Ticket {
            request: permit.circumstances().request.clone(),
            limits: operation.limits.clone(),
            errand: permit.errand().cloned(),
            lease: Some(lease),
        };
        match cell.channel.open(head, ended, ticket) {
            Ok(handle) => return Ok((handle, ran)),
            Err(NotOpened::Closed) => {}
            Err(NotOpened::Head(error)) => {
                tracing::error!(%error, "a request head passed the gateway's limits but not the channel's");
                return Err(Failure::before(Ending::PlatformFailed, None));
            }
        }
    }
    Err(Failure::before(Ending::Unavailable, Some(Refusal::Overloaded.retry_after())))
}

fn refused(refusal: &Refusal) -> Failure {
    let ending = match refusal {
        Refusal::Overloaded => Ending::Overloaded,
        Refusal::Unavailable { error, .. } => {
            tracing::debug!(%error, "a call got no cell");
            match &**error {
                SandboxError::Secrets(_) => Ending::SecretsUnavailable,
                _ => Ending::Unavailable,
            }
        }
        Refusal::Closing => Ending::Unavailable,
    };
    Failure::before(ending, Some(refusal.retry_after()))
}

/// Why there will be no answer.
enum Stop {
    Over(Ending, Usage),
    Inbound(InboundError, Usage),
}

impl Stop {
    fn into_failure(self, ran: Ran) -> Failure {
        match self {
            Self::Over(ending, usage) => Failure::after(ending, usage, ran),
            Self::Inbound(error, usage) => Failure::inbound(error, usage, Some(ran)),
        }
    }
}

/// What a call without an answer comes to next.
enum Step {
    /// The head of its answer.
    Head(StatusCode, HeaderMap),
    /// It asks for leave to have an effect.
    Effect,
}

/// A call under way that has no answer yet.
struct Exchange {
    handle: Handle,
    pump: Option<Pump>,
    deadline: Instant,
    late: bool,
    client: Client,
    /// Why the answer is not waited for any more, where it is not; the end of the call still is.
    broken: Option<Broken>,
}

/// What can break a call off from outside.
enum Broken {
    /// The client left.
    Gone,
    /// The request body went wrong.
    Inbound(InboundError),
}

impl Broken {
    /// Having used so much.
    fn stop(self, usage: Usage) -> Stop {
        match self {
            Self::Gone => Stop::Over(Ending::ClientGone, usage),
            Self::Inbound(error) => Stop::Inbound(error, usage),
        }
    }
}

impl Exchange {
    fn new(handle: Handle, body: InboundBody, limits: &FunctionLimits, client: Client) -> Self {
        let wall = Duration::from_millis(limits.wall_ms).saturating_add(GRACE);
        let ended = body.is_end_stream();
        let pump = (!ended).then(|| Pump::new(handle.channel().clone(), handle.number(), body, limits.request_bytes));
        Self { handle, pump, deadline: Instant::now() + wall, late: false, client, broken: None }
    }

    /// Moves the request on and looks for the answer; of a call that was broken off, for its end alone.
    fn poll(
        &mut self,
        entry: &mut Entry<Permit<Invoke>>,
        mut timer: Pin<&mut Sleep>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Step, Stop>> {
        if self.client.is_gone() && self.broken.is_none() {
            self.break_off(Broken::Gone);
        }
        if let Poll::Ready(found) = self.poll_answer(cx) {
            return Poll::Ready(found);
        }
        while timer.as_mut().poll(cx).is_ready() {
            if self.late {
                self.handle.expire();
                let usage = self.handle.seen();
                let broken = self.broken.take().map(|broken| broken.stop(usage));
                return Poll::Ready(Err(broken.unwrap_or(Stop::Over(Ending::WallExceeded, usage))));
            }
            self.late = true;
            timer.as_mut().reset(self.deadline);
            if let Err(error) = entry.queue_intent() {
                tracing::error!(%error, "a call was stopped because its intent could not be recorded");
                return Poll::Ready(Err(Stop::Over(Ending::PlatformFailed, self.handle.seen())));
            }
        }
        Poll::Pending
    }

    /// The answer, or the end of a call that was broken off.
    fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<Result<Step, Stop>> {
        if self.broken.is_some() {
            return self.poll_end(cx);
        }
        // First of all: a guest may answer without taking the whole request, and then that is what counts.
        if let Poll::Ready(head) = self.handle.poll_head(cx) {
            let step = head.map(|(status, headers)| Step::Head(status, headers));
            return Poll::Ready(step.map_err(|(ending, usage)| Stop::Over(ending, usage)));
        }
        if self.handle.wants_effects() {
            return Poll::Ready(Ok(Step::Effect));
        }
        match self.pump.as_mut().map(|pump| pump.poll(cx)) {
            Some(Poll::Ready(Ok(()))) => self.pump = None,
            Some(Poll::Ready(Err(error))) => {
                self.break_off(Broken::Inbound(error));
                return self.poll_end(cx);
            }
            Some(Poll::Pending) | None => {}
        }
        self.handle.start();
        Poll::Pending
    }

    /// Stops the guest at once. What it used by then is for the cell to say.
    fn break_off(&mut self, why: Broken) {
        self.pump = None;
        self.handle.leave();
        self.broken = Some(why);
    }

    fn poll_end(&mut self, cx: &Context<'_>) -> Poll<Result<Step, Stop>> {
        let (ending, usage) = ready!(self.handle.poll_over(cx));
        Poll::Ready(Err(self.broken.take().map_or(Stop::Over(ending, usage), |broken| broken.stop(usage))))
    }

    /// Lets the call have effects, once its intent is recorded. The guest computes on meanwhile, but not past its time.
    async fn allow(&mut self, entry: &mut Entry<Permit<Invoke>>) -> Result<(), Stop> {
        match tokio::time::timeout_at(self.deadline, entry.effects()).await {
            Ok(Ok(effects)) => {
                self.handle.allow(effects);
                Ok(())
            }
            Ok(Err(error)) => {
                tracing::error!(%error, "a call was stopped because its intent could not be recorded");
                Err(Stop::Over(Ending::PlatformFailed, self.handle.seen()))
            }
            Err(_) => {
                self.handle.expire();
                Err(Stop::Over(Ending::WallExceeded, self.handle.seen()))
            }
        }
    }

    fn into_parts(self) -> (Handle, Instant, Option<Pump>) {
        (self.handle, self.deadline, self.pump)
    }
}

#[cfg(test)]
mod tests;
