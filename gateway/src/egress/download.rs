//! The body of an answer, on its way in.
//!
//! Owns its deadlines and its cap, and when its connection may be used again. Must never end quietly where the other
//! side broke off.

use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use cofferdam_model::EgressEnd;
use cofferdam_sandbox::EgressError;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Sleep;

use super::credential::Credentials;
use super::heads;
use super::pool::{Connection, Pool};
use super::upload::Progress;
use crate::io::Alarm;

/// What the deadlines and the cap of a body are.
#[derive(Debug)]
pub(super) struct Bounds {
    pub(super) between: Duration,
    pub(super) total: Pin<Box<Sleep>>,
    pub(super) most: u64,
}

/// A body on its way in. Dropping it before its end ends the connection.
pub(super) struct Download {
    body: Incoming,
    connection: Option<Connection>,
    pool: Weak<Pool>,
    upload: Arc<Progress>,
    credentials: Arc<Credentials>,
    bounds: Bounds,
    pause: Alarm,
    received: u64,
    over: bool,
}

impl Download {
    pub(super) fn new(
        body: Incoming,
        connection: Connection,
        pool: Weak<Pool>,
        upload: Arc<Progress>,
        credentials: Arc<Credentials>,
        bounds: Bounds,
    ) -> Self {
        let connection = Some(connection);
        let (pause, received, over) = (Alarm::default(), 0, false);
        let mut this = Self { body, connection, pool, upload, credentials, bounds, pause, received, over };
        if this.body.is_end_stream() {
            this.finish();
        }
        this
    }

    /// The answer is whole: the connection is free, unless the request is still going out on it.
    fn finish(&mut self) {
        self.over = true;
        let connection = self.connection.take();
        if let (Some(connection), Some(pool), true) = (connection, self.pool.upgrade(), self.upload.is_done()) {
            pool.give_back(connection);
        }
    }

    fn fail(&mut self, error: EgressError) -> Poll<Option<Result<Frame<Bytes>, EgressError>>> {
        self.over = true;
        self.connection = None;
        Poll::Ready(Some(Err(error)))
    }

    fn took(&mut self, frame: Frame<Bytes>) -> Poll<Option<Result<Frame<Bytes>, EgressError>>> {
        self.pause.disarm();
        let frame = match frame.into_data() {
            Ok(data) => {
                self.received = self.received.saturating_add(u64::try_from(data.len()).unwrap_or(u64::MAX));
                if self.received > self.bounds.most {
                    let reason = format!("the answer is longer than {} bytes", self.bounds.most);
                    return self.fail(EgressError::new(EgressEnd::OverQuota, reason));
                }
                Frame::data(data)
            }
            Err(frame) => match frame.into_trailers() {
                Ok(mut trailers) => {
                    heads::response(&mut trailers);
                    self.credentials.redact_fields(&mut trailers);
                    Frame::trailers(trailers)
                }
                Err(other) => other,
            },
        };
        if self.body.is_end_stream() {
            self.finish();
        }
        Poll::Ready(Some(Ok(frame)))
    }
}

/// A fault of the other side, or of the guest's own body where that is what broke off.
pub(super) fn broken(error: &hyper::Error) -> EgressError {
    let mut reason = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        if let Some(own) = cause.downcast_ref::<EgressError>() {
            return own.clone();
        }
        reason = format!("{reason}: {cause}");
        source = cause.source();
    }
    EgressError::new(EgressEnd::PeerFailed, reason)
}

impl Body for Download {
    type Data = Bytes;
    type Error = EgressError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, EgressError>>> {
        let this = &mut *self;
        if this.over {
            return Poll::Ready(None);
        }
        // First of all, so that an answer without end has one.
        if this.bounds.total.as_mut().poll(cx).is_ready() {
            return this.fail(EgressError::new(EgressEnd::TimedOut, "the answer took too long as a whole"));
        }
        match Pin::new(&mut this.body).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => this.took(frame),
            Poll::Ready(Some(Err(error))) => this.fail(broken(&error)),
            Poll::Ready(None) => {
                this.finish();
                Poll::Ready(None)
            }
            Poll::Pending if this.pause.rings(cx, this.bounds.between) => {
                this.fail(EgressError::new(EgressEnd::TimedOut, "the answer stopped before its end"))
            }
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.over
    }

    fn size_hint(&self) -> SizeHint {
        if self.over { SizeHint::with_exact(0) } else { self.body.size_hint() }
    }
}
