//! Requests of a cell to the outside, over the same socket: who asked, what each side sent and may still send.
//!
//! Owns the table of fetches. A fetch begins once its call has leave to have effects, and is over, and recorded, no
//! later than its call: whoever sees the end of a call finds all its requests in the log before it. Must never hold
//! more of a body than the credit it gave.

use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use cofferdam_audit::{Effect, Effects};
use cofferdam_authz::Errand;
use cofferdam_model::EgressEnd;
use cofferdam_model::frame::{self, FETCH_CREDIT, FetchHead, Kind, MAX_PAYLOAD};
use http::{HeaderMap, StatusCode};
use http_body::Frame;
use tokio::task::AbortHandle;

use super::call::{Aftermath, Call, wait};
use super::wire::{Said, Violation};
use super::{CROWDED, Channel, State};
use crate::egress::{Attempt, EgressError, Outgoing, Patience};

/// Body taken from the cell but not yet granted to it again, before it is worth a frame.
const GRANT_AT: u32 = FETCH_CREDIT / 4;

/// Refusals one call gets beyond the fetches it may make. A cell knows how many those are and asks for no more, so
/// only one that breaks the rules comes here.
const SLACK: u32 = 1024;

/// Every fetch under way.
#[derive(Default)]
pub(super) struct Fetches {
    open: HashMap<u32, Fetch>,
    last: u32,
}

/// One fetch.
struct Fetch {
    call: u32,
    /// Which of its call's.
    ordinal: u32,
    /// What it asks, until it begins.
    head: Option<Box<FetchHead>>,
    attempt: Option<Arc<Attempt>>,
    task: Option<AbortHandle>,
    // From the cell to the outside.
    pieces: VecDeque<Bytes>,
    window: u32,
    owed: u32,
    taken: u64,
    ended: bool,
    reader: Option<Waker>,
    // From the outside to the cell.
    granted: u64,
    sent: u64,
    writer: Option<Waker>,
}

impl Fetch {
    fn new(ordinal: u32, head: Box<FetchHead>, ended: bool) -> Self {
        Self {
            call: head.call,
            ordinal,
            head: Some(head),
            attempt: None,
            task: None,
            pieces: VecDeque::new(),
            window: FETCH_CREDIT,
            owed: 0,
            taken: 0,
            ended,
            reader: None,
            granted: 0,
            sent: 0,
            writer: None,
        }
    }

    /// Records how it ended, at once: its call may be seen to end as soon as the channel's lock is free. What still
    /// works on it is stopped later.
    fn end(self, ending: EgressEnd, out: &mut Aftermath) {
        if let Some(attempt) = &self.attempt {
            attempt.sent(self.taken);
            attempt.received(self.sent);
            attempt.finish(ending);
        }
        out.tasks.extend(self.task);
        out.wakers.extend(self.reader);
        out.wakers.extend(self.writer);
    }
}

impl State {
    /// Takes what the cell said of a fetch, or says why it must not have.
    pub(super) fn hear_fetch(
        &mut self,
        number: u32,
        end: bool,
        said: Said,
        out: &mut Aftermath,
    ) -> Result<(), Violation> {
        if let Said::Fetch(head) = said {
            return self.hear_head(number, end, head, out);
        }
        if number > self.fetches.last {
            return Err(Violation::UnknownCall);
        }
        // Of one that is over, what was still under way.
        let Some(fetch) = self.fetches.open.get_mut(&number) else { return Ok(()) };
        match said {
            Said::FetchData(piece) => {
                if fetch.ended || (piece.is_empty() && !end) {
                    return Err(Violation::OutOfOrder("a fetch's body after its end, or an empty piece of it"));
                }
                let length = u32::try_from(piece.len()).map_err(|_| Violation::OverCredit)?;
                fetch.window = fetch.window.checked_sub(length).ok_or(Violation::OverCredit)?;
                fetch.ended = end;
                let within = self.calls.get_mut(&fetch.call).is_some_and(|call| call.egress.send(length.into()));
                if !within {
                    self.end_fetch(number, EgressEnd::OverQuota, out);
                    return Ok(());
                }
                if !piece.is_empty() {
                    fetch.pieces.push_back(piece);
                }
                out.wakers.extend(fetch.reader.take());
            }
            Said::FetchCredit(bytes) => {
                fetch.granted = fetch.granted.saturating_add(bytes.into());
                if bytes == 0 || fetch.granted > fetch.sent {
                    return Err(Violation::OutOfOrder("credit for nothing"));
                }
                out.wakers.extend(fetch.writer.take());
            }
            Said::FetchCancel => self.end_fetch(number, EgressEnd::Cut, out),
            _ => return Err(Violation::OutOfOrder("no frame of a fetch")),
        }
        Ok(())
    }

    fn hear_head(
        &mut self,
        number: u32,
        end: bool,
        head: Box<FetchHead>,
        out: &mut Aftermath,
    ) -> Result<(), Violation> {
        if number <= self.fetches.last {
            return Err(Violation::OutOfOrder("the number of a fetch used twice"));
        }
        self.fetches.last = number;
        let call = self.calls.get_mut(&head.call).filter(|call| !call.is_over()).ok_or(Violation::UnknownCall)?;
        let refused = match call.egress.ask() {
            None => Some(EgressEnd::OverQuota),
            // Its cell may not know yet that nobody waits.
            Some(_) if call.is_deserted() => Some(EgressEnd::Cut),
            Some(ordinal) => {
                call.egress.open.push(number);
                if call.egress.effects.is_some() {
                    out.fetches.push(number);
                } else {
                    call.egress.waiting.push(number);
                    call.wake(out);
                }
                self.fetches.open.insert(number, Fetch::new(ordinal, head, end));
                None
            }
        };
        if let Some(ending) = refused {
            if !call.egress.refuse() {
                return Err(Violation::OverLimit("requests to the outside"));
            }
            // One byte of payload always fits.
            let _ = frame::put_fetch_failed(&mut self.out, number, ending);
            out.flush = true;
        }
        Ok(())
    }

    /// Ends a fetch, telling the cell unless it was answered in full.
    fn end_fetch(&mut self, number: u32, ending: EgressEnd, out: &mut Aftermath) {
        let Some(fetch) = self.fetches.open.remove(&number) else { return };
        if let Some(call) = self.calls.get_mut(&fetch.call) {
            call.egress.open.retain(|open| *open != number);
        }
        if ending != EgressEnd::Answered {
            let _ = frame::put_fetch_failed(&mut self.out, number, ending);
            out.flush = true;
        }
        fetch.end(ending, out);
    }

    /// Ends what a call has open, before anybody can see that the call is over.
    pub(super) fn end_fetches_of(fetches: &mut Fetches, call: &mut Call, out: &mut Aftermath) {
        call.egress.waiting.clear();
        for number in call.egress.open.drain(..) {
            if let Some(fetch) = fetches.open.remove(&number) {
                fetch.end(EgressEnd::Cut, out);
            }
        }
    }
}

impl Channel {
    /// Whether a call waits for leave to have effects.
    pub(crate) fn wants_effects(&self, call: u32) -> bool {
        self.lock().calls.get(&call).is_some_and(|call| !call.egress.waiting.is_empty())
    }

    /// Gives a call leave to have effects.
    pub(crate) fn allow(self: &Arc<Self>, call: u32, effects: Effects) {
        let waiting = match self.lock().calls.get_mut(&call) {
            Some(call) => {
                call.egress.effects = Some(effects);
                std::mem::take(&mut call.egress.waiting)
            }
            None => return,
        };
        waiting.into_iter().for_each(|number| self.begin_fetch(number));
    }

    /// Sends a fetch on its way.
    pub(super) fn begin_fetch(self: &Arc<Self>, number: u32) {
        let effects = {
            let state = self.lock();
            let of = state.fetches.open.get(&number).map(|fetch| fetch.call);
            of.and_then(|call| state.calls.get(&call)).and_then(|call| call.egress.effects.clone())
        };
        let Some(effects) = effects else { return };
        let task = tokio::spawn(fetch(self.clone(), number, effects)).abort_handle();
        match self.lock().fetches.open.get_mut(&number) {
            Some(fetch) => fetch.task = Some(task),
            // Over already; what is left of the task has nothing to do, or nobody to do it for.
            None => task.abort(),
        }
    }

    /// Makes an attempt of a fetch, unless that is over: what its record will say, and what is to be asked.
    fn attempt(self: &Arc<Self>, number: u32, effect: Effect) -> Option<(Outgoing, Arc<Attempt>)> {
        let (head, errand, attempt) = {
            let mut state = self.lock();
            let State { calls, fetches, .. } = &mut *state;
            let fetch = fetches.open.get_mut(&number)?;
            let head = fetch.head.take()?;
            let attempt = Attempt::begin(effect, self.clock.clone(), fetch.ordinal, &head.method, &head.authority);
            let attempt = Arc::new(attempt);
            fetch.attempt = Some(attempt.clone());
            let egress = &mut calls.get_mut(&fetch.call)?.egress;
            egress.begun += 1;
            (head, egress.errand.clone(), attempt)
        };
        let [connect, first_byte, between_bytes] = head.patience;
        let outgoing = Outgoing {
            method: head.method,
            tls: head.tls,
            authority: head.authority,
            target: head.target,
            headers: head.headers,
            patience: Patience { connect, first_byte, between_bytes },
            errand,
            body: Box::pin(Body { channel: self.clone(), number }),
        };
        Some((outgoing, attempt))
    }

    fn finish_fetch(&self, number: u32, ending: EgressEnd) {
        let mut out = Aftermath::default();
        self.lock().end_fetch(number, ending, &mut out);
        // The task that says this is the one that would be aborted.
        out.tasks.clear();
        self.settle(&mut out);
    }

    /// Room for body towards the cell; none where nobody waits for it any more.
    fn poll_fetch_room(&self, number: u32, cx: &Context<'_>) -> Poll<Option<usize>> {
        let mut state = self.lock();
        let state = &mut *state;
        let Some(fetch) = state.fetches.open.get_mut(&number) else { return Poll::Ready(None) };
        if state.out.len() > CROWDED {
            state.crowd.push(cx.waker().clone());
            return Poll::Pending;
        }
        match u64::from(FETCH_CREDIT).saturating_add(fetch.granted).saturating_sub(fetch.sent) {
            0 => {
                wait(&mut fetch.writer, cx);
                Poll::Pending
            }
            room => Poll::Ready(Some(usize::try_from(room).unwrap_or(MAX_PAYLOAD).min(MAX_PAYLOAD))),
        }
    }

    /// Puts the head of the answer into the buffer. One that came too late must not follow the word that there is none.
    pub(super) fn send_head(
        &self,
        number: u32,
        end: bool,
        status: StatusCode,
        headers: &HeaderMap,
    ) -> Result<(), EgressError> {
        let mut state = self.lock();
        let State { fetches, out, .. } = &mut *state;
        if !fetches.open.contains_key(&number) {
            return Err(deserted());
        }
        frame::put_fetch_head(out, end, number, status, headers).map_err(unsendable)?;
        self.flush();
        Ok(())
    }

    /// Puts a piece of the answer's body into the buffer.
    fn send_fetched(&self, number: u32, piece: &[u8], end: bool) -> Result<(), EgressError> {
        let mut state = self.lock();
        let State { calls, fetches, out, .. } = &mut *state;
        let fetch = fetches.open.get_mut(&number).ok_or_else(deserted)?;
        let length = u64::try_from(piece.len()).unwrap_or(u64::MAX);
        if !calls.get_mut(&fetch.call).is_some_and(|call| call.egress.receive(length)) {
            return Err(EgressError::new(EgressEnd::OverQuota, "more bytes than one call may exchange"));
        }
        fetch.sent = fetch.sent.saturating_add(length);
        frame::put(out, Kind::FetchData, end, number, piece).map_err(unsendable)?;
        self.flush();
        Ok(())
    }
}

fn deserted() -> EgressError {
    EgressError::new(EgressEnd::Cut, "the function does not wait any more")
}

fn unsendable(error: frame::FrameError) -> EgressError {
    EgressError::new(EgressEnd::PeerFailed, format!("the answer's head is too large: {error}"))
}

/// Makes one request and takes its answer back to the cell.
async fn fetch(channel: Arc<Channel>, number: u32, effects: Effects) {
    let effect = match effects.place().await {
        Ok(effect) => effect,
        Err(error) => {
            tracing::error!(%error, "a request to the outside was not made because it could not be recorded");
            return channel.finish_fetch(number, EgressEnd::Cut);
        }
    };
    let Some((outgoing, attempt)) = channel.attempt(number, effect) else { return };
    let ending = match exchange(&channel, number, outgoing, &attempt).await {
        Ok(()) => EgressEnd::Answered,
        Err(error) => {
            tracing::debug!(%error, ending = error.ending.as_str(), ?attempt, "a request to the outside failed");
            error.ending
        }
    };
    channel.finish_fetch(number, ending);
}

async fn exchange(channel: &Channel, number: u32, outgoing: Outgoing, attempt: &Attempt) -> Result<(), EgressError> {
    let (head, mut body) = channel.outlet.send(outgoing, attempt).await?.into_parts();
    attempt.status(head.status.as_u16());
    let end = body.is_end_stream();
    poll_fn(|cx| channel.poll_fetch_room(number, cx)).await.ok_or_else(deserted)?;
    channel.send_head(number, end, head.status, &head.headers)?;
    if end {
        return Ok(());
    }
    while let Some(frame) = poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
        // Trailers have no place in the frames and are dropped.
        let mut piece = frame?.into_data().unwrap_or_default();
        while !piece.is_empty() {
            let room = poll_fn(|cx| channel.poll_fetch_room(number, cx)).await.ok_or_else(deserted)?;
            channel.send_fetched(number, &piece.split_to(room.min(piece.len())), false)?;
        }
    }
    channel.send_fetched(number, &[], true)
}

/// Body of a fetch, as the outlet reads it.
struct Body {
    channel: Arc<Channel>,
    number: u32,
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = EgressError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, EgressError>>> {
        let mut state = self.channel.lock();
        let State { calls, fetches, out, .. } = &mut *state;
        let Some(fetch) = fetches.open.get_mut(&self.number) else { return Poll::Ready(Some(Err(deserted()))) };
        let piece = ready!(match fetch.pieces.pop_front() {
            Some(piece) => Poll::Ready(Some(piece)),
            None if fetch.ended => Poll::Ready(None),
            None => {
                wait(&mut fetch.reader, cx);
                Poll::Pending
            }
        });
        let Some(piece) = piece else { return Poll::Ready(None) };
        let length = u32::try_from(piece.len()).unwrap_or(u32::MAX);
        fetch.taken = fetch.taken.saturating_add(length.into());
        if let Some(call) = calls.get_mut(&fetch.call) {
            call.egress.bytes_taken = call.egress.bytes_taken.saturating_add(length.into());
        }
        fetch.owed = fetch.owed.saturating_add(length);
        if fetch.owed >= GRANT_AT && !fetch.ended {
            let bytes = std::mem::take(&mut fetch.owed);
            fetch.window = fetch.window.saturating_add(bytes);
            // Four bytes of payload always fit.
            let _ = frame::put_fetch_credit(out, self.number, bytes);
            self.channel.flush();
        }
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        let state = self.channel.lock();
        state.fetches.open.get(&self.number).is_some_and(|fetch| fetch.ended && fetch.pieces.is_empty())
    }
}

/// What a call asks of the outside.
#[derive(Default)]
pub(super) struct Egress {
    /// The function at work.
    errand: Option<Arc<Errand>>,
    effects: Option<Effects>,
    /// Fetches that wait for leave.
    waiting: Vec<u32>,
    /// Fetches under way, waiting ones included.
    open: Vec<u32>,
    asked: u32,
    refused: u32,
    /// Those that were begun, each with a record.
    begun: u32,
    most_calls: u32,
    most_bytes: u64,
    /// Body the cell sent.
    bytes_out: u64,
    /// What of it was taken towards the outside.
    bytes_taken: u64,
    bytes_in: u64,
}

impl Egress {
    pub(super) fn new(limits: &cofferdam_model::FunctionLimits, errand: Option<Arc<Errand>>) -> Self {
        Self { errand, most_calls: limits.egress_calls, most_bytes: limits.egress_bytes, ..Self::default() }
    }

    /// Counts one more; which it is, if that many are allowed.
    fn ask(&mut self) -> Option<u32> {
        let asked = self.asked.checked_add(1).filter(|asked| *asked <= self.most_calls)?;
        self.asked = asked;
        Some(asked)
    }

    /// Counts a refusal; whether that many can come of a cell that keeps to the rules.
    fn refuse(&mut self) -> bool {
        self.refused = self.refused.saturating_add(1);
        self.refused <= self.most_calls.saturating_add(SLACK)
    }

    fn send(&mut self, bytes: u64) -> bool {
        self.bytes_out = self.bytes_out.saturating_add(bytes);
        self.bytes_out.saturating_add(self.bytes_in) <= self.most_bytes
    }

    /// Counts what goes to the cell, if it may.
    fn receive(&mut self, bytes: u64) -> bool {
        let bytes_in = self.bytes_in.saturating_add(bytes);
        let within = self.bytes_out.saturating_add(bytes_in) <= self.most_bytes;
        if within {
            self.bytes_in = bytes_in;
        }
        within
    }

    /// Requests made, and bytes sent and received: what the records of them say in sum.
    pub(super) fn used(&self) -> (u64, u64, u64) {
        (self.begun.into(), self.bytes_taken, self.bytes_in)
    }
}
