//! A call under way, held by whoever waits for its answer.
//!
//! Owns the call's place in the channel's table: while the handle lives the number stays known, and dropping it early
//! asks the cell to stop. Must never outlive its answer by accident: it is not `Clone`.

use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use cofferdam_audit::Effects;
use cofferdam_model::frame::{self, Kind};
use cofferdam_model::{Ending, Usage};
use http::{HeaderMap, StatusCode};

use super::call::Aftermath;
use super::{Channel, Closed, State};

/// How a call ended and what it used.
pub(crate) type Over = (Ending, Usage);

/// A call under way.
pub(crate) struct Handle {
    channel: Arc<Channel>,
    number: u32,
    started: bool,
}

impl Handle {
    pub(super) fn new(channel: Arc<Channel>, number: u32) -> Self {
        Self { channel, number, started: false }
    }

    /// The call's number.
    pub(crate) fn number(&self) -> u32 {
        self.number
    }

    /// The channel it goes over.
    pub(crate) fn channel(&self) -> &Arc<Channel> {
        &self.channel
    }

    /// Lets the request go out, once: what was put beside its head before goes with it.
    pub(crate) fn start(&mut self) {
        if !std::mem::replace(&mut self.started, true) {
            self.channel.flush();
        }
    }

    /// The head of the answer; `Err` where the call ended without one.
    pub(crate) fn poll_head(&self, cx: &Context<'_>) -> Poll<Result<(StatusCode, HeaderMap), Over>> {
        let mut state = self.channel.lock();
        let head = state.calls.get_mut(&self.number).map(|call| call.take_head(cx));
        ready(head.unwrap_or(Some(Err(LOST))))
    }

    /// The next piece of the answer's body.
    pub(crate) fn poll_piece(&self, cx: &Context<'_>) -> Poll<Option<Result<Bytes, Over>>> {
        let mut state = self.channel.lock();
        let state = &mut *state;
        let Some(call) = state.calls.get_mut(&self.number) else { return Poll::Ready(Some(Err(LOST))) };
        let piece = call.take_piece(cx);
        if let Some(bytes) = call.grant() {
            // Four bytes of payload always fit.
            let _ = frame::put_credit(&mut state.out, self.number, bytes);
            self.channel.flush();
        }
        ready(piece)
    }

    /// How the call ended, once the cell has said so.
    pub(crate) fn poll_over(&self, cx: &Context<'_>) -> Poll<Over> {
        let mut state = self.channel.lock();
        let over = state.calls.get_mut(&self.number).map(|call| call.take_end(cx));
        ready(over.unwrap_or(Some(LOST)))
    }

    /// Whether the call waits for leave to have effects. Whoever waits for the answer is woken when it does.
    pub(crate) fn wants_effects(&self) -> bool {
        self.channel.wants_effects(self.number)
    }

    /// Gives the call leave to have effects.
    pub(crate) fn allow(&self, effects: Effects) {
        self.channel.allow(self.number, effects);
    }

    /// Nobody waits for the answer any more: asks the cell to stop, at once. How the call ended is still to be had.
    pub(crate) fn leave(&self) {
        let mut after = Aftermath::default();
        self.stop(&mut self.channel.lock(), &mut after);
        self.channel.settle(&mut after);
    }

    fn stop(&self, state: &mut State, after: &mut Aftermath) {
        let State { calls, fetches, out, .. } = state;
        if let Some(call) = calls.get_mut(&self.number).filter(|call| !call.is_over() && !call.is_deserted()) {
            State::end_fetches_of(fetches, call, after);
            call.desert();
            // A frame without payload always fits.
            let _ = frame::put(out, Kind::Cancel, false, self.number, &[]);
            self.channel.flush();
        }
    }

    /// What was used in all where it is over, and else so far, as far as the gateway can tell by itself.
    pub(crate) fn seen(&self) -> Usage {
        let now = self.channel.clock.monotonic();
        self.channel.lock().calls.get(&self.number).map(|call| call.seen(now)).unwrap_or_default()
    }

    /// The cell did not end this call in time, and is not to be trusted with any other.
    pub(crate) fn expire(&self) {
        self.channel.close(Closed::Expired(self.number));
    }
}

/// Of a call the table does not know. It is kept there for as long as its handle lives.
const LOST: Over = (Ending::CellLost, Usage::NONE);

fn ready<T>(value: Option<T>) -> Poll<T> {
    value.map_or(Poll::Pending, Poll::Ready)
}

impl Drop for Handle {
    fn drop(&mut self) {
        let mut after = Aftermath::default();
        let call = {
            let mut state = self.channel.lock();
            self.stop(&mut state, &mut after);
            match state.calls.get_mut(&self.number) {
                Some(call) if !call.is_over() => {
                    call.forget();
                    None
                }
                _ => state.calls.remove(&self.number),
            }
        };
        // What is left of the call may give back a lease, which takes other locks.
        drop(call);
        self.channel.settle(&mut after);
    }
}
