//! What comes of an invocation: an answer with its body, or a failure, each with how it ended and what it used.
//!
//! Owns these values. Must never know HTTP statuses for failures: what a failure is answered with is decided in the
//! gateway's refusals alone.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use cofferdam_audit::Effects;
use cofferdam_model::{CellId, Ending, Isolation, Usage};
use http::{HeaderMap, StatusCode};
use tokio::task::JoinHandle;
use tokio::time::{Instant, Sleep};

use crate::channel::Handle;
use crate::error::InboundError;
use crate::pump::Pump;

/// Head of a guest's answer, with its body to follow.
#[derive(Debug)]
pub struct Answer {
    /// Status.
    pub status: StatusCode,
    /// Header fields as the guest gave them: valid and bounded, but a stranger's.
    pub headers: HeaderMap,
    /// The body. Dropping it cancels the call.
    pub body: AnswerBody,
    /// Cell that answers, and the how-manieth call it is there.
    pub cell: (CellId, u64),
    /// How well that cell is jailed.
    pub isolation: Isolation,
    /// What was waited for before the guest could begin.
    pub waited: Waited,
}

/// What a call waited for before its guest could begin; none for what it did not have to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Waited {
    /// Until its intent was durable.
    pub intent: Option<Duration>,
    /// For a cell.
    pub cell: Option<Duration>,
}

/// A body that broke off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// Why.
    pub ending: Ending,
    /// What the call had used.
    pub usage: Usage,
}

/// A call that ended without an answer.
#[derive(Debug)]
pub struct Failure {
    /// How it ended.
    pub ending: Ending,
    /// What it used.
    pub usage: Usage,
    /// Cell that ran it and the how-manieth call it was there; none when it never reached one.
    pub cell: Option<(CellId, u64)>,
    /// How well that cell was jailed.
    pub isolation: Option<Isolation>,
    /// When it may be worth trying again.
    pub retry_after: Option<Duration>,
    /// The request body's fault, where it was that.
    pub inbound: Option<InboundError>,
    /// What was waited for before the guest could begin.
    pub waited: Waited,
}

/// Where a call ran.
#[derive(Clone)]
pub(crate) struct Ran {
    pub(crate) cell: CellId,
    pub(crate) ordinal: u64,
    pub(crate) isolation: Isolation,
}

impl Failure {
    /// Before anything ran.
    pub(crate) fn before(ending: Ending, retry_after: Option<Duration>) -> Self {
        let (usage, waited) = (Usage::default(), Waited::default());
        Self { ending, usage, cell: None, isolation: None, retry_after, inbound: None, waited }
    }

    /// After it ran.
    pub(crate) fn after(ending: Ending, usage: Usage, ran: Ran) -> Self {
        let (cell, isolation) = (Some((ran.cell, ran.ordinal)), Some(ran.isolation));
        Self { ending, usage, cell, isolation, retry_after: None, inbound: None, waited: Waited::default() }
    }

    /// Because of the request body.
    pub(crate) fn inbound(error: InboundError, usage: Usage, ran: Option<Ran>) -> Self {
        let ending = match error {
            InboundError::TooLarge | InboundError::Altered => Ending::Refused,
            InboundError::Stalled | InboundError::Gone(_) => Ending::ClientGone,
        };
        let failure = match ran {
            Some(ran) => Self::after(ending, usage, ran),
            None => Self::before(ending, None),
        };
        Self { inbound: Some(error), ..failure }
    }
}

/// Body of an answer. Dropping it before its end cancels the call.
pub struct AnswerBody {
    handle: Handle,
    deadline: Instant,
    timer: Option<Pin<Box<Sleep>>>,
    pump: Option<JoinHandle<()>>,
}

impl fmt::Debug for AnswerBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AnswerBody").finish_non_exhaustive()
    }
}

impl AnswerBody {
    /// Where the request body is not at its end yet it goes on in a task of its own: whoever takes the answer may
    /// well take it only once all of the request is gone.
    pub(crate) fn new(handle: Handle, deadline: Instant, pump: Option<Pump>) -> Self {
        let (channel, number) = (handle.channel().clone(), handle.number());
        let pump = pump.map(|mut pump| {
            tokio::spawn(async move {
                if poll_fn(|cx| pump.poll(cx)).await.is_err() {
                    channel.cancel(number);
                }
            })
        });
        Self { handle, deadline, timer: None, pump }
    }

    /// The next piece; `None` after the last, `Err` where the body broke off. Safe to drop and call again.
    pub async fn next(&mut self) -> Option<Result<Bytes, Cut>> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// As [`Self::next`], for use in a poll function.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Cut>>> {
        loop {
            if let Poll::Ready(piece) = self.handle.poll_piece(cx) {
                return Poll::Ready(piece.map(|piece| piece.map_err(|(ending, usage)| Cut { ending, usage })));
            }
            ready!(self.poll_deadline(cx));
        }
    }

    /// How the call ended and what it used, once the cell has said so. What is left of the body is thrown away.
    pub async fn finished(&mut self) -> (Ending, Usage) {
        poll_fn(|cx| self.poll_finished(cx)).await
    }

    /// As [`Self::finished`], for use in a poll function.
    pub fn poll_finished(&mut self, cx: &mut Context<'_>) -> Poll<(Ending, Usage)> {
        while let Some(Ok(_)) = ready!(self.poll_next(cx)) {}
        loop {
            if let Poll::Ready(over) = self.handle.poll_over(cx) {
                return Poll::Ready(over);
            }
            ready!(self.poll_deadline(cx));
        }
    }

    /// Whether the guest waits for leave to have effects: it goes on only once it has it.
    pub fn wants_effects(&self) -> bool {
        self.handle.wants_effects()
    }

    /// Gives the guest leave to have effects.
    pub fn allow(&self, effects: Effects) {
        self.handle.allow(effects);
    }

    /// As [`Self::finished`], but comes back early, with nothing, where the guest waits for leave to have effects.
    pub async fn finished_or_asking(&mut self) -> Option<(Ending, Usage)> {
        poll_fn(|cx| match self.poll_finished(cx) {
            Poll::Ready(over) => Poll::Ready(Some(over)),
            Poll::Pending if self.wants_effects() => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        })
        .await
    }

    /// Nobody waits for the answer any more: stops the guest at once, and gives what the call used in all, once the
    /// cell has said so or had to be killed.
    pub async fn left(&mut self) -> Usage {
        if let Some(pump) = self.pump.take() {
            pump.abort();
        }
        self.handle.leave();
        self.finished().await.1
    }

    /// Past the deadline the cell is killed; what it had to say is then known.
    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let deadline = self.deadline;
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        ready!(timer.as_mut().poll(cx));
        self.handle.expire();
        Poll::Ready(())
    }
}

impl Drop for AnswerBody {
    fn drop(&mut self) {
        if let Some(pump) = self.pump.take() {
            pump.abort();
        }
    }
}
