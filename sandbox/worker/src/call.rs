//! One call from its head to its one `Done`: a fresh instance, driven together with its answer, its deadlines and its
//! cancellation.
//!
//! Owns the decision how a call ended. Must never let anything of the instance outlive the call, and must never say
//! `Done` before the store is gone: its slots are free for the next call by then.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use cofferdam_model::facts::{Ending, Usage};
use cofferdam_model::frame::{RequestHead, put_done};
use http::uri::{Parts, PathAndQuery};
use http::{HeaderValue, Method, Request, Uri, header};
use tokio::time::Sleep;
use wasmtime::component::ResourceTableError;
use wasmtime::{Engine, Store, Trap};
use wasmtime_wasi_http::p2::bindings::http::types::Scheme;
use wasmtime_wasi_http::{FieldMapError, WasiHttpView};

use crate::answer::Answer;
use crate::capability::{Exited, HANDLES, Host, STDERR, Source, TooMuch, write_piece};
use crate::cell::Shared;
use crate::state::{CallState, Inbound};
use crate::turns::Turn;

/// Bytes one host call may copy out of the guest. Bodies pass in pieces far smaller.
const HOSTCALL_BYTES: usize = 2 * 1024 * 1024;
/// Bytes of the reason written to the function's log when its guest fails.
const REASON_BYTES: usize = 2048;
/// What the engine says where the store's handles, or what one host call may copy, are used up. It has no types for
/// these; that guests end as they must, and not as trapped, is what shows when its words change.
const WORDS: &[(&str, Ending)] = &[
    ("cannot allocate another handle", Ending::HandlesExhausted),
    ("too much data is being copied between the host and the guest", Ending::HostcallExhausted),
];

/// Takes a call on: its time runs from here, also while other guests have their turn.
pub(crate) fn begin(cell: &Arc<Shared>, state: Arc<CallState>, head: RequestHead) {
    let begun = cell.source.clock.monotonic();
    let over = begun.saturating_add(Duration::from_millis(state.limits.wall_ms));
    cell.turns.add(state.number, over);
    tokio::spawn(run(cell.clone(), state, head, begun, over));
}

/// Runs one call and reports its end.
async fn run(cell: Arc<Shared>, state: Arc<CallState>, head: RequestHead, begun: Duration, over: Duration) {
    let left = over.saturating_sub(cell.source.clock.monotonic());
    let method = head.method.clone();
    let mut exchange = Exchange { cell: &cell, state: &state, method, running: true, answer: None };
    let ending = match request(head, &cell, &state) {
        Some(request) => {
            let mut guest = pin!(guest(&cell, state.clone(), request));
            let mut deadline = pin!(tokio::time::sleep(left));
            poll_fn(|cx| {
                let polled = exchange.poll(guest.as_mut(), deadline.as_mut(), cx);
                cell.source.outbox.tend();
                polled
            })
            .await
        }
        None => Ending::NoAnswer,
    };
    let dropped = state.logged().saturating_sub(state.limits.log_bytes);
    if dropped > 0 {
        exchange.tell(&format!("cofferdam: {dropped} bytes of log over the call's limit were dropped"));
    }
    let usage = Usage {
        cpu_us: state.meter.used_us(),
        wall_us: micros(cell.source.clock.monotonic().saturating_sub(begun)),
        memory_bytes: state.memory.peak(),
        bytes_in: state.received(),
        bytes_out: exchange.answer.as_ref().map_or(0, Answer::sent),
        log_bytes: state.logged(),
        memory_kib_ms: state.memory.held_kib_ms(),
        ..Usage::default()
    };
    cell.turns.remove(state.number);
    cell.forget(state.number);
    // Every ending decided here is one a cell may report, so the frame cannot be refused.
    let _ = cell.source.outbox.add(|out| put_done(out, state.number, ending, &usage));
}

/// The request as the guest will see it; none where its target is no path.
fn request(head: RequestHead, cell: &Shared, state: &Arc<CallState>) -> Option<Request<Inbound>> {
    let mut parts = Parts::default();
    parts.path_and_query = Some(PathAndQuery::try_from(head.target).ok()?);
    let mut request = Request::new(Inbound { state: state.clone(), outbox: cell.source.outbox.clone() });
    *request.method_mut() = head.method;
    *request.uri_mut() = Uri::from_parts(parts).ok()?;
    *request.headers_mut() = head.headers;
    // Where the guest's `authority` comes from; the field itself is not shown to it.
    request.headers_mut().insert(header::HOST, HeaderValue::try_from(head.authority).ok()?);
    Some(request)
}

/// A store for one call, with every limit set.
pub(crate) fn store(engine: &Engine, source: &Source, state: Arc<CallState>) -> Store<Host> {
    let mut store = Store::new(engine, Host::prepare(source, state));
    store.limiter(|host| &mut host.limiter);
    store.set_epoch_deadline(1);
    store.epoch_deadline_callback(|store| Ok(store.data().state.meter.tick()));
    store.set_hostcall_fuel(HOSTCALL_BYTES);
    store.set_max_component_handles(HANDLES);
    store
}

/// The guest's whole life: store, instance, handler, and the store's end.
async fn guest(cell: &Shared, state: Arc<CallState>, request: Request<Inbound>) -> wasmtime::Result<()> {
    let proxy = &cell.loaded.proxy;
    let mut store = store(proxy.engine(), &cell.source, state.clone());
    let mut http = store.data_mut().http();
    let request = http.new_incoming_request(Scheme::Https, request)?;
    let answer = http.new_response_outparam_from_callback(move |given| state.give(given))?;
    let instance = proxy.instantiate_async(&mut store).await?;
    let ended = instance.wasi_http_incoming_handler().call_handle(&mut store, request, answer).await;
    store.data_mut().cut_unfinished();
    ended
}

/// A call under way.
struct Exchange<'a> {
    cell: &'a Shared,
    state: &'a Arc<CallState>,
    method: Method,
    /// The guest has not returned.
    running: bool,
    answer: Option<Answer>,
}

impl Exchange<'_> {
    /// Drives guest, answer and deadline one step. Ready with how the call ended.
    fn poll(
        &mut self,
        guest: Pin<&mut impl Future<Output = wasmtime::Result<()>>>,
        deadline: Pin<&mut Sleep>,
        cx: &mut Context<'_>,
    ) -> Poll<Ending> {
        if self.state.attend(cx) {
            return Poll::Ready(Ending::ClientGone);
        }
        if self.running {
            match self.cell.turns.of(self.state.number, self.cell.source.clock.monotonic()) {
                Turn::Over => return Poll::Ready(Ending::WallExceeded),
                Turn::Later => cx.waker().wake_by_ref(),
                Turn::Now => {
                    if let Err(ending) = self.run_guest(guest, cx) {
                        return Poll::Ready(ending);
                    }
                }
            }
        }
        match self.advance(cx) {
            Ok(true) => Poll::Ready(Ending::Answered),
            Ok(false) => deadline.poll(cx).map(|()| Ending::WallExceeded),
            Err(ending) => Poll::Ready(ending),
        }
    }

    /// Gives the guest a turn.
    fn run_guest(
        &mut self,
        guest: Pin<&mut impl Future<Output = wasmtime::Result<()>>>,
        cx: &mut Context<'_>,
    ) -> Result<(), Ending> {
        match self.cell.loaded.ticker.awake(|| self.state.meter.measure(|| guest.poll(cx))) {
            Poll::Ready(end) => {
                self.running = false;
                end.or_else(|error| self.judge(&error))
            }
            Poll::Pending if self.state.meter.exhausted() => Err(Ending::CpuExhausted),
            Poll::Pending => Ok(()),
        }
    }

    /// Moves the answer on; whether the call is complete.
    fn advance(&mut self, cx: &mut Context<'_>) -> Result<bool, Ending> {
        let outbox = &self.cell.source.outbox;
        if let Some(given) = self.state.take_given() {
            let response = given.map_err(|code| {
                self.tell(&format!("the guest answered with an error: {code:?}"));
                Ending::NoAnswer
            })?;
            self.answer = Some(Answer::start(response, &self.method, (self.state, outbox), cx)?);
        }
        let Some(answer) = &mut self.answer else {
            return match self.running {
                true => Ok(false),
                false if self.state.memory.refused() => Err(Ending::MemoryExhausted),
                false => Err(Ending::NoAnswer),
            };
        };
        let sent = answer.poll(self.state, outbox, cx)?.is_ready();
        Ok(sent && !self.running)
    }

    /// What a guest that did not return in peace ended with; nothing where it only exited with success.
    fn judge(&self, error: &wasmtime::Error) -> Result<(), Ending> {
        if let Some(Exited(true)) = error.downcast_ref() {
            return Ok(());
        }
        let ending = match limit_met(error) {
            _ if self.state.meter.exhausted() => Ending::CpuExhausted,
            Some(ending) => ending,
            None if self.state.memory.refused() => Ending::MemoryExhausted,
            None => Ending::Trapped,
        };
        self.tell(&format!("{}: {error:#}", ending.as_str()));
        Err(ending)
    }

    /// Writes a line to the function's log, outside the limit of what the guest may write itself.
    fn tell(&self, reason: &str) {
        let mut line: String = reason.chars().take(REASON_BYTES / 4).collect();
        line.push('\n');
        write_piece(&self.cell.source.outbox, self.state.number, STDERR, line.as_bytes());
    }
}

/// The limit that an error says was met, if it was one. Only the cause itself is looked at: around it are words that a
/// guest may choose, the names of its functions.
fn limit_met(error: &wasmtime::Error) -> Option<Ending> {
    match error.downcast_ref() {
        Some(Trap::StackOverflow) => return Some(Ending::StackExhausted),
        Some(_) => return None,
        None => {}
    }
    if let Some(ResourceTableError::Full) = error.downcast_ref() {
        return Some(Ending::HandlesExhausted);
    }
    if let Some(FieldMapError::TooManyFields | FieldMapError::TotalSizeTooBig) = error.downcast_ref() {
        return Some(Ending::HostcallExhausted);
    }
    if error.downcast_ref::<TooMuch>().is_some() {
        return Some(Ending::HostcallExhausted);
    }
    let cause = error.root_cause().to_string();
    WORDS.iter().find(|(words, _)| cause.starts_with(words)).map(|(_, ending)| *ending)
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
