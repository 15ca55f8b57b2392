//! Many calls over the one socket of a cell.
//!
//! Owns the table of calls, the buffer of frames going out and the two tasks at the socket. The table is behind one
//! lock, held for moments and never while anything is awaited, dropped or woken. The cell is hostile: the first frame
//! it may not send closes the channel, and whoever watches over the process kills it.

mod call;
mod fetch;
mod handle;
mod io;
mod wire;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use cofferdam_model::frame::{self, FrameError, Kind, MAX_PAYLOAD, RequestHead};
use cofferdam_model::{Clock, Ending};
use tokio::net::UnixStream;
use tokio::sync::Notify;

pub(crate) use call::Ticket;
use call::{Aftermath, Call};
use fetch::Fetches;
pub(crate) use handle::Handle;
use wire::Incoming;
pub(crate) use wire::Violation;

use crate::egress::Outlet;
use crate::logs::Line;

/// Bytes waiting for the socket above which request bodies are held back.
const CROWDED: usize = 1024 * 1024;

/// Takes a cell's log lines. Must not block.
pub(crate) type Sink = Arc<dyn Fn(Vec<Line>) + Send + Sync>;

/// Why a channel is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Closed {
    /// The cell went away by itself.
    Gone,
    /// The cell did what a cell may not, in this call.
    Violated(u32, Violation),
    /// This call was not ended in time.
    Expired(u32),
    /// It was not needed any more.
    Retired,
}

impl Closed {
    /// How a call ends that was under way.
    fn ending(self, number: u32) -> Ending {
        match self {
            Self::Expired(guilty) if guilty == number => Ending::WallExceeded,
            Self::Violated(guilty, Violation::OverLimit("body")) if guilty == number => Ending::ResponseTooLarge,
            _ => Ending::CellLost,
        }
    }
}

/// Why a call could not be opened. Nothing of it was sent.
#[derive(Debug)]
pub(crate) enum NotOpened {
    /// The channel is closed; another cell may do.
    Closed,
    /// The head does not fit a frame.
    Head(FrameError),
}

#[derive(Default)]
struct State {
    calls: HashMap<u32, Call>,
    last: u32,
    out: Vec<u8>,
    crowd: Vec<Waker>,
    fetches: Fetches,
    closed: Option<Closed>,
}

/// The channel to one cell.
pub(crate) struct Channel {
    state: Mutex<State>,
    work: Notify,
    ended: Notify,
    clock: Arc<dyn Clock>,
    sink: Sink,
    outlet: Arc<dyn Outlet>,
}

impl Channel {
    /// Takes over a socket whose other end is ready to serve.
    pub(crate) fn start(stream: UnixStream, clock: Arc<dyn Clock>, sink: Sink, outlet: Arc<dyn Outlet>) -> Arc<Self> {
        let (state, work, ended) = (Mutex::default(), Notify::new(), Notify::new());
        let channel = Arc::new(Self { state, work, ended, clock, sink, outlet });
        let (reading, writing) = stream.into_split();
        tokio::spawn(io::read(channel.clone(), reading));
        tokio::spawn(io::write(channel.clone(), writing));
        channel
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a call. Its frames leave with the next [`Self::flush`].
    pub(crate) fn open(self: &Arc<Self>, head: &RequestHead, end: bool, ticket: Ticket) -> Result<Handle, NotOpened> {
        let now = self.clock.monotonic();
        let call = Call::new(ticket, end, self.outlet.longest_redacted(), now);
        // On failure the call, and the lease in it, is dropped after the lock.
        let (number, refused) = {
            let mut state = self.lock();
            let state = &mut *state;
            let number = state.last.wrapping_add(1);
            if state.closed.is_some() || number == 0 {
                (0, Some((call, NotOpened::Closed)))
            } else if let Err(error) = frame::put_request(&mut state.out, end, number, head) {
                (0, Some((call, NotOpened::Head(error))))
            } else {
                state.last = number;
                state.calls.insert(number, call);
                (number, None)
            }
        };
        match refused {
            Some((call, why)) => {
                drop(call);
                Err(why)
            }
            None => Ok(Handle::new(self.clone(), number)),
        }
    }

    /// Lets what was put into the buffer go out.
    pub(crate) fn flush(&self) {
        self.work.notify_one();
    }

    /// Room for request body of a call: `None` when the call takes no more of it.
    pub(crate) fn poll_room(&self, number: u32, cx: &Context<'_>) -> Poll<Option<usize>> {
        let mut state = self.lock();
        let state = &mut *state;
        let Some(call) = state.calls.get_mut(&number).filter(|call| call.takes_more()) else {
            return Poll::Ready(None);
        };
        if state.out.len() > CROWDED {
            state.crowd.push(cx.waker().clone());
            return Poll::Pending;
        }
        match call.room(cx) {
            Some(room) => Poll::Ready(Some(usize::try_from(room).unwrap_or(MAX_PAYLOAD).min(MAX_PAYLOAD))),
            None => Poll::Pending,
        }
    }

    /// Puts a piece of request body, of at most the room there is, into the buffer.
    pub(crate) fn send(&self, number: u32, piece: &[u8], end: bool) {
        let mut state = self.lock();
        let state = &mut *state;
        let Some(call) = state.calls.get_mut(&number).filter(|call| call.takes_more()) else { return };
        if frame::put(&mut state.out, Kind::Data, end, number, piece).is_ok() {
            call.spend(piece.len(), end);
        }
    }

    /// Asks the cell to stop a call, which will still say how it ended.
    pub(crate) fn cancel(&self, number: u32) {
        let mut state = self.lock();
        let state = &mut *state;
        if state.calls.get(&number).is_some_and(|call| !call.is_over()) {
            // A frame without payload always fits.
            let _ = frame::put(&mut state.out, Kind::Cancel, false, number, &[]);
            self.flush();
        }
    }

    /// Takes what the cell said, in one go.
    fn hear(&self, incoming: &mut Vec<Incoming>, after: &mut Aftermath) -> Result<(), (u32, Violation)> {
        let now = self.clock.monotonic();
        let mut state = self.lock();
        let state = &mut *state;
        for Incoming { call: number, end, said } in incoming.drain(..) {
            if said.is_of_fetch() {
                // A fetch is no call, and its number must not be taken for one's.
                state.hear_fetch(number, end, said, after).map_err(|violation| (0, violation))?;
                continue;
            }
            let call = state.calls.get_mut(&number).ok_or((number, Violation::UnknownCall))?;
            call.hear(end, said, now, after).map_err(|violation| (number, violation))?;
            if call.is_over() {
                State::end_fetches_of(&mut state.fetches, call, after);
                if !call.is_held() {
                    state.calls.remove(&number);
                }
            }
        }
        Ok(())
    }

    /// Does what frames made necessary. The lock must not be held.
    fn settle(&self, after: &mut Aftermath) {
        for (mut lease, ending) in after.leases.drain(..) {
            lease.ended(ending);
        }
        if !after.lines.is_empty() {
            (self.sink)(std::mem::take(&mut after.lines));
        }
        after.tasks.drain(..).for_each(|task| task.abort());
        if std::mem::take(&mut after.flush) {
            self.flush();
        }
        after.wakers.drain(..).for_each(Waker::wake);
    }

    /// Closes the channel, once: calls under way end, and who watches over the process is told.
    pub(crate) fn close(&self, why: Closed) {
        let mut after = Aftermath::default();
        {
            let mut state = self.lock();
            if state.closed.is_some() {
                return;
            }
            let now = self.clock.monotonic();
            state.closed = Some(why);
            state.out = Vec::new();
            after.wakers.append(&mut state.crowd);
            let State { calls, fetches, .. } = &mut *state;
            for (number, call) in calls {
                State::end_fetches_of(fetches, call, &mut after);
                call.end(why.ending(*number), call::UNSAID, now, &mut after);
            }
            state.calls.retain(|_, call| call.is_held());
        }
        self.settle(&mut after);
        self.work.notify_one();
        self.ended.notify_waiters();
    }

    /// Why the channel is closed, once it is.
    pub(crate) async fn closed(&self) -> Closed {
        loop {
            let ended = self.ended.notified();
            if let Some(why) = self.why_closed() {
                return why;
            }
            ended.await;
        }
    }

    /// Why the channel is closed, if it is.
    pub(crate) fn why_closed(&self) -> Option<Closed> {
        self.lock().closed
    }

    /// A call the cell should long have ended, if there is one.
    pub(crate) fn overdue(&self, grace: Duration) -> Option<u32> {
        let now = self.clock.monotonic();
        let state = self.lock();
        state.calls.iter().find(|(_, call)| !call.is_over() && now > call.deadline(grace)).map(|(number, _)| *number)
    }
}
