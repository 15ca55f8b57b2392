//! What a call's task and the cell's dispatcher share: flow of bytes both ways, cancellation, and the counters.
//!
//! Owns credit. Must never block and must never hold more of a request body than the credit it gave.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use cofferdam_model::frame::{INITIAL_CREDIT, put_credit};
use cofferdam_model::limits::FunctionLimits;
use http::Response;
use http_body::{Body, Frame};
use wasmtime_wasi_http::Error;
use wasmtime_wasi_http::p2::bindings::http::types::ErrorCode;
use wasmtime_wasi_http::p2::body::HyperOutgoingBody;

use crate::channel::Outbox;
use crate::error::WorkerError;
use crate::limiter::MemoryUse;
use crate::meter::Meter;

/// Bytes a guest reads before the gateway is granted as many again.
const GRANT_BYTES: u64 = 64 * 1024;

/// What a guest gave to its response-outparam.
pub(crate) type Given = Result<Response<HyperOutgoingBody>, ErrorCode>;

/// One call, as far as more than its own task must see it.
pub(crate) struct CallState {
    /// Its number.
    pub(crate) number: u32,
    /// What it may use.
    pub(crate) limits: Arc<FunctionLimits>,
    /// What it has used of its CPU time.
    pub(crate) meter: Meter,
    /// What it has used of its memory.
    pub(crate) memory: Arc<MemoryUse>,
    given: Mutex<Option<Given>>,
    flow: Mutex<Flow>,
    logged: AtomicU64,
}

#[derive(Default)]
struct Flow {
    /// Body received and not yet read by the guest.
    inbound: VecDeque<Bytes>,
    received: u64,
    /// Bytes the gateway may still send.
    window: u64,
    /// Bytes read by the guest since the last grant.
    read: u64,
    ended: bool,
    over_limit: bool,
    /// Bytes of answer we may still send.
    credit: u64,
    cancelled: bool,
    waker: Option<Waker>,
}

impl Flow {
    fn wake(&self) {
        if let Some(waker) = &self.waker {
            waker.wake_by_ref();
        }
    }
}

impl CallState {
    /// A call whose request body is still to come, or has none (`ended`).
    pub(crate) fn new(number: u32, limits: Arc<FunctionLimits>, ended: bool) -> Self {
        let flow = Flow { window: INITIAL_CREDIT.into(), credit: INITIAL_CREDIT.into(), ended, ..Flow::default() };
        Self {
            number,
            meter: Meter::new(limits.cpu_ms),
            limits,
            memory: Arc::default(),
            given: Mutex::default(),
            flow: Mutex::new(flow),
            logged: AtomicU64::new(0),
        }
    }

    /// A piece of body from the gateway.
    pub(crate) fn deliver(&self, data: Bytes, end: bool) -> Result<(), WorkerError> {
        let mut flow = lock(&self.flow);
        let length = u64::try_from(data.len()).unwrap_or(u64::MAX);
        if flow.ended {
            return Err(WorkerError::Protocol("body after its end"));
        }
        flow.window = flow.window.checked_sub(length).ok_or(WorkerError::Protocol("body over its credit"))?;
        flow.received = flow.received.saturating_add(length);
        flow.ended = end;
        if flow.received > self.limits.request_bytes {
            flow.over_limit = true;
            flow.inbound.clear();
        } else if !data.is_empty() {
            flow.inbound.push_back(data);
        }
        flow.wake();
        Ok(())
    }

    /// More credit for the answer.
    pub(crate) fn grant(&self, bytes: u32) {
        let mut flow = lock(&self.flow);
        flow.credit = flow.credit.saturating_add(bytes.into());
        flow.wake();
    }

    /// Asks the call to stop.
    pub(crate) fn cancel(&self) {
        let mut flow = lock(&self.flow);
        flow.cancelled = true;
        flow.wake();
    }

    /// Makes `cx` the one to wake when anything of the above happens; whether the call has been cancelled.
    pub(crate) fn attend(&self, cx: &Context<'_>) -> bool {
        let mut flow = lock(&self.flow);
        if !flow.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            flow.waker = Some(cx.waker().clone());
        }
        flow.cancelled
    }

    /// Takes up to `wanted` bytes of credit for the answer.
    pub(crate) fn take_credit(&self, wanted: usize) -> usize {
        let mut flow = lock(&self.flow);
        let taken = wanted.min(usize::try_from(flow.credit).unwrap_or(usize::MAX));
        flow.credit = flow.credit.saturating_sub(u64::try_from(taken).unwrap_or(u64::MAX));
        taken
    }

    /// Bytes of request body received.
    pub(crate) fn received(&self) -> u64 {
        lock(&self.flow).received
    }

    /// Puts down the guest's answer for the call's task to pick up.
    pub(crate) fn give(&self, given: Given) {
        *lock(&self.given) = Some(given);
    }

    /// Picks up the guest's answer.
    pub(crate) fn take_given(&self) -> Option<Given> {
        lock(&self.given).take()
    }

    /// Counts a write to the log; how many bytes of it are within the limit.
    pub(crate) fn admit_log(&self, bytes: usize) -> usize {
        let before = self.logged.fetch_add(u64::try_from(bytes).unwrap_or(u64::MAX), Relaxed);
        let room = self.limits.log_bytes.saturating_sub(before);
        bytes.min(usize::try_from(room).unwrap_or(usize::MAX))
    }

    /// Bytes written to the log, dropped ones included.
    pub(crate) fn logged(&self) -> u64 {
        self.logged.load(Relaxed)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The request body as the guest reads it.
pub(crate) struct Inbound {
    pub(crate) state: Arc<CallState>,
    pub(crate) outbox: Arc<Outbox>,
}

impl Body for Inbound {
    type Data = Bytes;
    type Error = Error;

    /// Does not keep the waker: whoever polls is part of the call's task, which is woken for everything.
    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let mut flow = lock(&self.state.flow);
        if flow.over_limit {
            return Poll::Ready(Some(Err(Error::HttpRequestBodySize(Some(self.state.limits.request_bytes)))));
        }
        let Some(data) = flow.inbound.pop_front() else {
            return if flow.ended { Poll::Ready(None) } else { Poll::Pending };
        };
        flow.read = flow.read.saturating_add(u64::try_from(data.len()).unwrap_or(u64::MAX));
        if flow.read >= GRANT_BYTES && !flow.ended {
            let granted = u32::try_from(std::mem::take(&mut flow.read)).unwrap_or(u32::MAX);
            flow.window = flow.window.saturating_add(granted.into());
            // A credit frame is eight fixed bytes; it cannot be too long.
            let _ = self.outbox.add(|out| put_credit(out, self.state.number, granted));
        }
        Poll::Ready(Some(Ok(Frame::data(data))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(limits: FunctionLimits) -> CallState {
        CallState::new(1, Arc::new(limits), false)
    }

    #[test]
    fn a_body_over_its_credit_or_after_its_end_is_a_violation() {
        let state = call(FunctionLimits::default());
        let most = usize::try_from(INITIAL_CREDIT).unwrap();
        state.deliver(vec![0; most].into(), false).unwrap();
        assert!(state.deliver(vec![0; 1].into(), false).is_err());
        let state = call(FunctionLimits::default());
        state.deliver(Bytes::new(), true).unwrap();
        assert!(state.deliver(Bytes::new(), true).is_err());
    }

    #[test]
    fn log_over_the_limit_is_counted_and_dropped() {
        let state = call(FunctionLimits { log_bytes: 10, ..FunctionLimits::default() });
        assert_eq!([state.admit_log(8), state.admit_log(8), state.admit_log(8)], [8, 2, 0]);
        assert_eq!(state.logged(), 24);
    }

    #[test]
    fn an_answer_takes_no_more_credit_than_there_is() {
        let state = call(FunctionLimits::default());
        let most = usize::try_from(INITIAL_CREDIT).unwrap();
        assert_eq!(state.take_credit(usize::MAX), most);
        assert_eq!(state.take_credit(1), 0);
        state.grant(7);
        assert_eq!(state.take_credit(9), 7);
    }
}
