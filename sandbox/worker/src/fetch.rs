//! Requests of guests to the outside, as the cell sees them: frames to the gateway, and frames back.
//!
//! Owns the table of fetches under way. Must never open a connection, and never believe that a request was allowed
//! because it could be asked for: the gateway decides.

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use cofferdam_model::egress::EgressEnd;
use cofferdam_model::frame::{
    FETCH_CREDIT, FetchHead, FrameError, Header, Kind, MAX_PAYLOAD, decode_credit, decode_fetch_failed,
    decode_response, put, put_fetch, put_fetch_credit,
};
use http::Response;
use http_body::{Body, Frame};
use wasmtime_wasi_http::{Error, WasiBody};

use crate::channel::Outbox;
use crate::error::WorkerError;

/// Bytes a guest reads before the gateway is granted as many again.
const GRANT_BYTES: u32 = FETCH_CREDIT / 4;

/// Every fetch of the cell that is under way.
#[derive(Default)]
pub(crate) struct Fetches {
    open: Mutex<HashMap<u32, Fetch>>,
    last: Mutex<u32>,
}

#[derive(Default)]
struct Fetch {
    // To the gateway.
    credit: u64,
    writer: Option<Waker>,
    // From the gateway.
    head: Option<Response<()>>,
    pieces: VecDeque<Bytes>,
    window: u32,
    read: u32,
    over: Option<Result<(), EgressEnd>>,
    reader: Option<Waker>,
}

impl Fetches {
    /// Takes a frame of the gateway. Those of a fetch nobody waits for any more are ignored.
    pub(crate) fn hear(&self, header: &Header, payload: Bytes) -> Result<(), WorkerError> {
        let mut open = lock(&self.open);
        // How a fetch ended is said once. What was still under way then changes nothing.
        let Some(fetch) = open.get_mut(&header.call).filter(|fetch| fetch.over.is_none()) else { return Ok(()) };
        match header.kind {
            Kind::FetchCredit => {
                fetch.credit = fetch.credit.saturating_add(decode_credit(&payload)?.into());
                wake(&mut fetch.writer);
                return Ok(());
            }
            Kind::FetchHead => {
                let (status, headers) = decode_response(payload)?;
                let mut head = Response::new(());
                (*head.status_mut(), *head.headers_mut()) = (status, headers);
                fetch.head = Some(head);
                fetch.over = header.end.then_some(Ok(()));
            }
            Kind::FetchData => {
                let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
                let window = fetch.window.checked_sub(length);
                fetch.window = window.ok_or(WorkerError::Protocol("an answer's body over its credit"))?;
                if !payload.is_empty() {
                    fetch.pieces.push_back(payload);
                }
                fetch.over = header.end.then_some(Ok(()));
            }
            Kind::FetchFailed => {
                fetch.over = Some(Err(decode_fetch_failed(&payload)?));
                wake(&mut fetch.writer);
            }
            _ => return Err(WorkerError::Protocol("no frame of a fetch")),
        }
        wake(&mut fetch.reader);
        Ok(())
    }

    /// Opens a fetch; the frame is on its way with that.
    fn open(self: &Arc<Self>, outbox: &Arc<Outbox>, head: &FetchHead, end: bool) -> Result<Open, FrameError> {
        // One lock for the number and the frame, so that numbers rise on the wire.
        let mut last = lock(&self.last);
        let number = last.wrapping_add(1);
        outbox.add(|out| put_fetch(out, end, number, head))?;
        *last = number;
        let fetch = Fetch { credit: FETCH_CREDIT.into(), window: FETCH_CREDIT, ..Fetch::default() };
        lock(&self.open).insert(number, fetch);
        Ok(Open { fetches: self.clone(), outbox: outbox.clone(), number })
    }
}

/// A fetch under way. Dropping it tells the gateway that nobody waits any more.
struct Open {
    fetches: Arc<Fetches>,
    outbox: Arc<Outbox>,
    number: u32,
}

impl Open {
    fn with<T>(&self, with: impl FnOnce(&mut Fetch) -> T) -> Option<T> {
        lock(&self.fetches.open).get_mut(&self.number).map(with)
    }

    fn poll_head(&self, cx: &Context<'_>) -> Poll<Result<Response<()>, Error>> {
        let polled = self.with(|fetch| match (fetch.head.take(), fetch.over) {
            (Some(head), _) => Poll::Ready(Ok(head)),
            (None, Some(Err(ending))) => Poll::Ready(Err(told(ending))),
            (None, _) => wait(&mut fetch.reader, cx),
        });
        polled.unwrap_or(Poll::Ready(Err(Error::ConnectionTerminated)))
    }

    fn poll_piece(&self, cx: &Context<'_>) -> Poll<Option<Result<Bytes, Error>>> {
        let mut granted = None;
        let polled = self.with(|fetch| match (fetch.pieces.pop_front(), fetch.over) {
            (Some(piece), over) => {
                fetch.read = fetch.read.saturating_add(u32::try_from(piece.len()).unwrap_or(u32::MAX));
                if fetch.read >= GRANT_BYTES && over.is_none() {
                    fetch.window = fetch.window.saturating_add(fetch.read);
                    granted = Some(std::mem::take(&mut fetch.read));
                }
                Poll::Ready(Some(Ok(piece)))
            }
            (None, Some(Ok(()))) => Poll::Ready(None),
            (None, Some(Err(ending))) => Poll::Ready(Some(Err(told(ending)))),
            (None, None) => wait(&mut fetch.reader, cx),
        });
        if let Some(bytes) = granted {
            // A credit frame is of a fixed length; it cannot be too long.
            let _ = self.outbox.add(|out| put_fetch_credit(out, self.number, bytes));
        }
        polled.unwrap_or(Poll::Ready(None))
    }

    /// Credit for the body, at least one byte and at most `wanted`; none where the gateway takes no more.
    fn poll_credit(&self, wanted: usize, cx: &Context<'_>) -> Poll<Option<usize>> {
        let polled = self.with(|fetch| match fetch.over {
            Some(_) => Poll::Ready(None),
            None if fetch.credit == 0 => wait(&mut fetch.writer, cx),
            None => {
                let taken = wanted.min(usize::try_from(fetch.credit).unwrap_or(usize::MAX));
                fetch.credit = fetch.credit.saturating_sub(u64::try_from(taken).unwrap_or(u64::MAX));
                Poll::Ready(Some(taken))
            }
        });
        polled.unwrap_or(Poll::Ready(None))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let fetch = lock(&self.fetches.open).remove(&self.number);
        if fetch.is_some_and(|fetch| fetch.over.is_none()) {
            // A frame without payload always fits.
            let _ = self.outbox.add(|out| put(out, Kind::FetchCancel, false, self.number, &[]));
        }
    }
}

/// The body of a fetch on its way to the gateway.
struct Upload {
    open: Arc<Open>,
    body: Option<WasiBody>,
    chunk: Bytes,
}

impl Upload {
    /// Ready when all of it is sent, or nobody takes more of it; `Err` where the guest broke it off.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        while let Some(body) = &mut self.body {
            if self.chunk.is_empty() {
                match ready!(Pin::new(body).poll_frame(cx)) {
                    None => {
                        self.body = None;
                        self.send(&[], true);
                    }
                    Some(Err(error)) => {
                        self.body = None;
                        return Poll::Ready(Err(error));
                    }
                    // Trailers have no place in the frames and are dropped.
                    Some(Ok(frame)) => self.chunk = frame.into_data().unwrap_or_default(),
                }
                continue;
            }
            ready!(self.open.outbox.poll_room(cx));
            match ready!(self.open.poll_credit(self.chunk.len().min(MAX_PAYLOAD), cx)) {
                Some(count) => {
                    let piece = self.chunk.split_to(count);
                    self.send(&piece, false);
                }
                None => self.body = None,
            }
        }
        Poll::Ready(Ok(()))
    }

    fn send(&self, piece: &[u8], end: bool) {
        // No piece is longer than a payload may be.
        let _ = self.open.outbox.add(|out| put(out, Kind::FetchData, end, self.open.number, piece));
    }
}

/// The body of an answer, as the guest reads it.
struct Download {
    open: Arc<Open>,
}

impl Body for Download {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        self.open.poll_piece(cx).map(|piece| piece.map(|piece| piece.map(Frame::data)))
    }
}

/// What is left to be done for a request once its answer has begun.
pub(crate) type Rest = Pin<Box<dyn Future<Output = Result<(), Error>> + Send>>;

/// Asks the gateway for one request, and waits for the head of its answer.
pub(crate) async fn fetch(
    fetches: Arc<Fetches>,
    outbox: Arc<Outbox>,
    head: FetchHead,
    mut body: WasiBody,
) -> Result<(Response<WasiBody>, Rest), Error> {
    // By now a guest without a body has mostly said so, which spares the other side an empty chunked one.
    let (mut chunk, mut ended) = (Bytes::new(), body.is_end_stream());
    if !ended {
        match std::future::poll_fn(|cx| Poll::Ready(Pin::new(&mut body).poll_frame(cx))).await {
            Poll::Ready(None) => ended = true,
            Poll::Ready(Some(frame)) => chunk = frame?.into_data().unwrap_or_default(),
            Poll::Pending => {}
        }
    }
    let open = Arc::new(fetches.open(&outbox, &head, ended).map_err(|_| Error::HttpRequestHeaderSectionSize(None))?);
    let mut upload = Upload { open: open.clone(), body: (!ended).then_some(body), chunk };
    let mut uploaded = Poll::Pending;
    let answer = std::future::poll_fn(|cx| {
        if uploaded.is_pending() {
            uploaded = upload.poll(cx)?;
        }
        open.poll_head(cx)
    });
    let (parts, ()) = answer.await?.into_parts();
    let body = http_body_util::BodyExt::boxed_unsync(Download { open });
    let rest = async move {
        match uploaded {
            Poll::Ready(()) => Ok(()),
            Poll::Pending => std::future::poll_fn(|cx| upload.poll(cx)).await,
        }
    };
    Ok((Response::from_parts(parts, body), Box::pin(rest)))
}

/// What a guest is told of a failure.
pub(crate) fn told(ending: EgressEnd) -> Error {
    match ending {
        EgressEnd::DeniedByRule | EgressEnd::DeniedByPolicy => Error::HttpRequestDenied,
        EgressEnd::DeniedAddress => Error::DestinationIpProhibited,
        EgressEnd::OverQuota => Error::ConnectionLimitReached,
        EgressEnd::Malformed => Error::HttpRequestUriInvalid,
        EgressEnd::NameFailed => Error::DnsError { rcode: None, info_code: None },
        EgressEnd::ConnectFailed => Error::ConnectionRefused,
        EgressEnd::TlsFailed => Error::TlsCertificateError,
        EgressEnd::PeerFailed => Error::HttpProtocolError,
        EgressEnd::TimedOut => Error::ConnectionTimeout,
        EgressEnd::Cut | EgressEnd::Answered => Error::ConnectionTerminated,
    }
}

fn wait<T>(slot: &mut Option<Waker>, cx: &Context<'_>) -> Poll<T> {
    if !slot.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
        *slot = Some(cx.waker().clone());
    }
    Poll::Pending
}

fn wake(slot: &mut Option<Waker>) {
    if let Some(waker) = slot.take() {
        waker.wake();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
