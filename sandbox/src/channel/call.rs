//! One call as the channel sees it: what each side sent, what it may still send, and how it ended. No I/O.
//!
//! Owns the rules of a call's frames. Must never believe the cell where the gateway knows better: bytes and wall time
//! are its own counts, and what only the cell can know is cut to what is possible.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use bytes::Bytes;
use cofferdam_authz::Errand;
use cofferdam_model::frame::INITIAL_CREDIT;
use cofferdam_model::{Ending, FunctionLimits, RequestId, Usage};
use http::{HeaderMap, StatusCode};
use tokio::task::AbortHandle;

use super::fetch::Egress;
use super::wire::{Said, Violation};
use crate::cells::Lease;
use crate::logs::{Assembler, Line};

/// Body taken by the client but not yet granted to the cell again, before it is worth a frame.
const GRANT_AT: u32 = INITIAL_CREDIT / 4;

/// Byte-microseconds of one KiB held for one millisecond.
const BYTE_US_PER_KIB_MS: u64 = 1024 * 1000;

/// What a call is opened with.
pub(crate) struct Ticket {
    /// Id of the request, for its log lines.
    pub(crate) request: RequestId,
    /// What the call may use.
    pub(crate) limits: Arc<FunctionLimits>,
    /// The function at work, on whose behalf it asks the outside.
    pub(crate) errand: Option<Arc<Errand>>,
    /// Its place in the cell, given back when the cell says the call is over.
    pub(crate) lease: Option<Lease>,
}

/// What a cell that was killed or lost cannot say any more: all that is possible, so that nothing is had for free by
/// losing the cell. Of each call it is cut to what that can have used.
pub(super) const UNSAID: Usage =
    Usage { cpu_us: u64::MAX, memory_bytes: u64::MAX, memory_kib_ms: u64::MAX, ..Usage::NONE };

enum Head {
    Awaited,
    Here(StatusCode, HeaderMap),
    Taken,
}

/// State of a call.
pub(crate) struct Call {
    request: RequestId,
    limits: Arc<FunctionLimits>,
    lease: Option<Lease>,
    started: Duration,
    // From the gateway to the cell.
    sent: u64,
    granted: u64,
    request_ended: bool,
    pump: Option<Waker>,
    // From the cell to the gateway.
    head: Head,
    pieces: VecDeque<Bytes>,
    received: u64,
    window: u32,
    owed: u32,
    answer_ended: bool,
    log: Assembler,
    waiter: Option<Waker>,
    // The end.
    over: Option<(Ending, Usage, Duration)>,
    deserted: bool,
    /// Whether anybody still asks how it ended.
    held: bool,
    /// What it asks of the outside.
    pub(super) egress: Egress,
}

/// What a frame, or the end of a cell, makes the channel do once its lock is released.
#[derive(Default)]
pub(crate) struct Aftermath {
    /// Tasks to wake.
    pub(crate) wakers: Vec<Waker>,
    /// Log lines that became whole.
    pub(crate) lines: Vec<Line>,
    /// Places in the cell that became free.
    pub(crate) leases: Vec<(Lease, Ending)>,
    /// Requests to the outside that may begin.
    pub(super) fetches: Vec<u32>,
    /// What worked on requests to the outside that are over.
    pub(super) tasks: Vec<AbortHandle>,
    /// Whether something for the cell was put into the buffer.
    pub(super) flush: bool,
}

impl Call {
    /// A call of which at most `redacted` bytes at once have to be blotted out of its log.
    pub(crate) fn new(ticket: Ticket, request_ended: bool, redacted: usize, now: Duration) -> Self {
        Self {
            egress: Egress::new(&ticket.limits, ticket.errand),
            request: ticket.request,
            limits: ticket.limits,
            lease: ticket.lease,
            started: now,
            sent: 0,
            granted: 0,
            request_ended,
            pump: None,
            head: Head::Awaited,
            pieces: VecDeque::new(),
            received: 0,
            window: INITIAL_CREDIT,
            owed: 0,
            answer_ended: false,
            log: Assembler::new(redacted),
            waiter: None,
            over: None,
            deserted: false,
            held: true,
        }
    }

    /// Takes what the cell said, or says why it must not have.
    pub(crate) fn hear(&mut self, end: bool, said: Said, now: Duration, out: &mut Aftermath) -> Result<(), Violation> {
        if self.over.is_some() {
            return Err(Violation::UnknownCall);
        }
        match said {
            Said::Response(status, headers) => self.hear_head(end, status, headers)?,
            Said::Data(piece) => self.hear_piece(end, piece)?,
            Said::Done(ending, usage) if end => return self.hear_done(ending, usage, now, out),
            Said::Credit(bytes) if !end => return self.hear_credit(bytes, out),
            Said::Log(stream, bytes) if !end => {
                let cap = usize::try_from(self.limits.log_bytes).unwrap_or(usize::MAX);
                if self.log.take(&self.request, stream, &bytes, cap, &mut out.lines).is_err() {
                    return Err(Violation::OverLimit("log"));
                }
                return Ok(());
            }
            Said::Done(..) => return Err(Violation::OutOfOrder("an end that is not the last")),
            Said::Credit(_) | Said::Log(..) => return Err(Violation::OutOfOrder("a last frame of what has no last")),
            Said::Fetch(_) | Said::FetchData(_) | Said::FetchCredit(_) | Said::FetchCancel => {
                return Err(Violation::OutOfOrder("a frame of a fetch is no frame of a call"));
            }
        }
        out.wakers.extend(self.waiter.take());
        Ok(())
    }

    fn hear_head(&mut self, end: bool, status: StatusCode, headers: HeaderMap) -> Result<(), Violation> {
        if !matches!(self.head, Head::Awaited) {
            return Err(Violation::OutOfOrder("a second head"));
        }
        if status.is_informational() {
            return Err(Violation::OutOfOrder("an interim head"));
        }
        let bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
        if u64::try_from(bytes).unwrap_or(u64::MAX) > u64::from(self.limits.response_header_bytes) {
            return Err(Violation::OverLimit("header"));
        }
        // Somebody who does not listen any more must still know that a head came.
        self.head = if self.deserted { Head::Taken } else { Head::Here(status, headers) };
        self.answer_ended = end;
        Ok(())
    }

    fn hear_piece(&mut self, end: bool, piece: Bytes) -> Result<(), Violation> {
        if matches!(self.head, Head::Awaited) {
            return Err(Violation::OutOfOrder("body before head"));
        }
        if self.answer_ended {
            return Err(Violation::OutOfOrder("body after its end"));
        }
        if piece.is_empty() && !end {
            return Err(Violation::OutOfOrder("an empty piece"));
        }
        let length = u32::try_from(piece.len()).map_err(|_| Violation::OverCredit)?;
        self.window = self.window.checked_sub(length).ok_or(Violation::OverCredit)?;
        self.received = self.received.saturating_add(u64::from(length));
        if self.received > self.limits.response_bytes {
            return Err(Violation::OverLimit("body"));
        }
        self.answer_ended = end;
        if !self.deserted && !piece.is_empty() {
            self.pieces.push_back(piece);
        }
        Ok(())
    }

    /// Credit gives back what was consumed, so there can never be more of it than was sent.
    fn hear_credit(&mut self, bytes: u32, out: &mut Aftermath) -> Result<(), Violation> {
        self.granted = self.granted.saturating_add(u64::from(bytes));
        if bytes == 0 || self.granted > self.sent {
            return Err(Violation::OutOfOrder("credit for nothing"));
        }
        out.wakers.extend(self.pump.take());
        Ok(())
    }

    fn hear_done(&mut self, ending: Ending, usage: Usage, now: Duration, out: &mut Aftermath) -> Result<(), Violation> {
        if ending == Ending::Answered && (matches!(self.head, Head::Awaited) || !self.answer_ended) {
            return Err(Violation::OutOfOrder("done without an answer"));
        }
        self.end(ending, usage, now, out);
        Ok(())
    }

    /// Ends the call, if it has not ended yet.
    pub(crate) fn end(&mut self, ending: Ending, usage: Usage, now: Duration, out: &mut Aftermath) {
        if self.over.is_none() {
            self.over = Some((ending, usage, now));
            self.log.flush(&self.request, &mut out.lines);
        }
        out.leases.extend(self.lease.take().map(|lease| (lease, ending)));
        out.wakers.extend(self.waiter.take());
        out.wakers.extend(self.pump.take());
    }

    /// The head, once it is here. `Err` where the call ended without one.
    pub(crate) fn take_head(&mut self, cx: &Context<'_>) -> Option<Result<(StatusCode, HeaderMap), (Ending, Usage)>> {
        match std::mem::replace(&mut self.head, Head::Taken) {
            Head::Here(status, headers) => return Some(Ok((status, headers))),
            Head::Awaited => self.head = Head::Awaited,
            Head::Taken => {}
        }
        if self.over.is_none() {
            wait(&mut self.waiter, cx);
        }
        self.ending().map(Err)
    }

    /// The next piece of the answer: `Some(None)` after the last, `Err` where it broke off.
    pub(crate) fn take_piece(&mut self, cx: &Context<'_>) -> Option<Option<Result<Bytes, (Ending, Usage)>>> {
        if let Some(piece) = self.pieces.pop_front() {
            self.owed = self.owed.saturating_add(u32::try_from(piece.len()).unwrap_or(u32::MAX));
            return Some(Some(Ok(piece)));
        }
        if self.answer_ended {
            return Some(None);
        }
        if self.over.is_none() {
            wait(&mut self.waiter, cx);
        }
        self.ending().map(|ending| Some(Err(ending)))
    }

    /// Credit to grant the cell now, if it is worth a frame.
    pub(crate) fn grant(&mut self) -> Option<u32> {
        if self.owed < GRANT_AT || self.answer_ended || self.over.is_some() {
            return None;
        }
        let bytes = std::mem::take(&mut self.owed);
        self.window = self.window.saturating_add(bytes);
        Some(bytes)
    }

    /// The end, or be woken for it.
    pub(crate) fn take_end(&mut self, cx: &Context<'_>) -> Option<(Ending, Usage)> {
        if self.over.is_none() {
            wait(&mut self.waiter, cx);
        }
        self.ending()
    }

    fn ending(&self) -> Option<(Ending, Usage)> {
        let (ending, usage, at) = self.over.as_ref()?;
        Some((*ending, self.usage(usage, *at)))
    }

    /// What was used in all where it is over, and else so far, as far as the gateway can tell by itself.
    pub(crate) fn seen(&self, now: Duration) -> Usage {
        self.ending().map_or_else(|| self.usage(&Usage::default(), now), |(_, usage)| usage)
    }

    fn usage(&self, reported: &Usage, at: Duration) -> Usage {
        let wall_us = u64::try_from(at.saturating_sub(self.started).as_micros()).unwrap_or(u64::MAX);
        let (egress_calls, egress_bytes_out, egress_bytes_in) = self.egress.used();
        let most_held = self.limits.memory_bytes.saturating_mul(wall_us).div_ceil(BYTE_US_PER_KIB_MS);
        Usage {
            // A cell has one thread, so it cannot have used more than passed.
            cpu_us: reported.cpu_us.min(wall_us),
            wall_us,
            memory_bytes: reported.memory_bytes.min(self.limits.memory_bytes),
            bytes_in: self.sent,
            bytes_out: self.received,
            log_bytes: self.log.taken(),
            egress_calls,
            egress_bytes_out,
            egress_bytes_in,
            // Nor held more than it may, for longer than it ran.
            memory_kib_ms: reported.memory_kib_ms.min(most_held),
        }
    }

    /// Bytes of request body that may be sent now. `Some(0)` never; `None` means wait.
    pub(crate) fn room(&mut self, cx: &Context<'_>) -> Option<u64> {
        let room = u64::from(INITIAL_CREDIT).saturating_add(self.granted).saturating_sub(self.sent);
        if room == 0 {
            wait(&mut self.pump, cx);
            return None;
        }
        Some(room)
    }

    /// Notes request body as sent.
    pub(crate) fn spend(&mut self, bytes: usize, end: bool) {
        self.sent = self.sent.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
        self.request_ended |= end;
    }

    /// Whether the request may still be added to.
    pub(crate) fn takes_more(&self) -> bool {
        !self.request_ended && !self.is_over() && !self.deserted
    }

    pub(crate) fn is_over(&self) -> bool {
        self.over.is_some()
    }

    /// Nobody waits for this call any more: what still comes is dropped.
    pub(crate) fn desert(&mut self) {
        self.deserted = true;
        self.pieces.clear();
        self.waiter = None;
        if matches!(self.head, Head::Here(..)) {
            self.head = Head::Taken;
        }
    }

    /// Wakes whoever waits for the answer.
    pub(super) fn wake(&mut self, out: &mut Aftermath) {
        out.wakers.extend(self.waiter.take());
    }

    /// Bytes of the answer that wait to be taken.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.pieces.iter().map(Bytes::len).sum()
    }

    pub(crate) fn is_deserted(&self) -> bool {
        self.deserted
    }

    /// Nobody will ask how it ended either.
    pub(crate) fn forget(&mut self) {
        self.held = false;
    }

    pub(crate) fn is_held(&self) -> bool {
        self.held
    }

    /// When the cell should long have ended the call by itself.
    pub(crate) fn deadline(&self, grace: Duration) -> Duration {
        self.started.saturating_add(Duration::from_millis(self.limits.wall_ms)).saturating_add(grace)
    }
}

pub(super) fn wait(slot: &mut Option<Waker>, cx: &Context<'_>) {
    if !slot.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
        *slot = Some(cx.waker().clone());
    }
}
