//! The body of a request, on its way out.
//!
//! Owns that it is as long as was announced and no longer than allowed, and how far it has got. Must never pass on a
//! guest's trailers: nothing checks them.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use cofferdam_model::EgressEnd;
use cofferdam_sandbox::{EgressError, OutgoingBody};
use http::Method;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;

/// How far a body has got.
#[derive(Debug, Default)]
pub(super) struct Progress {
    bytes: AtomicU64,
    done: AtomicBool,
}

impl Progress {
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Whether all of it was taken.
    pub(super) fn is_done(&self) -> bool {
        self.done.load(Ordering::Relaxed)
    }
}

/// A body on its way out.
pub(super) struct Upload {
    /// None once it has ended, or where there is none.
    body: Option<OutgoingBody>,
    /// Read ahead.
    first: Option<Bytes>,
    length: Option<u64>,
    most: u64,
    progress: Arc<Progress>,
}

/// Whether a request may be made twice without harm (RFC 9110, 9.2.2).
pub(super) fn is_idempotent(method: &Method) -> bool {
    [Method::GET, Method::HEAD, Method::PUT, Method::DELETE, Method::OPTIONS].contains(method)
}

impl Upload {
    /// No body.
    pub(super) fn empty() -> Self {
        let progress = Progress::default();
        progress.done.store(true, Ordering::Relaxed);
        Self { body: None, first: None, length: None, most: 0, progress: Arc::new(progress) }
    }

    /// A guest's body. Where a method usually has none and no length is announced, this waits for its first piece or
    /// its end, so that such a request goes out without any framing.
    pub(super) async fn new(
        method: &Method,
        mut body: OutgoingBody,
        length: Option<u64>,
        most: u64,
    ) -> Result<Self, EgressError> {
        if length.is_some_and(|length| length > most) {
            return Err(too_much(most));
        }
        if length == Some(0) || (length.is_none() && body.is_end_stream()) {
            return Ok(Self::empty());
        }
        let mut first = None;
        if length.is_none() && ![Method::POST, Method::PUT, Method::PATCH].contains(method) {
            first = loop {
                match body.frame().await {
                    None => return Ok(Self::empty()),
                    Some(frame) => match frame?.into_data() {
                        Ok(data) if !data.is_empty() => break Some(data),
                        _ => {}
                    },
                }
            };
            if [Method::GET, Method::HEAD].contains(method) {
                let reason = format!("a {method} with a body has to announce it with `content-length`");
                return Err(EgressError::new(EgressEnd::Malformed, reason));
            }
        }
        Ok(Self { body: Some(body), first, length, most, progress: Arc::default() })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.body.is_none()
    }

    pub(super) fn progress(&self) -> Arc<Progress> {
        self.progress.clone()
    }

    fn took(&mut self, data: Bytes) -> Result<Frame<Bytes>, EgressError> {
        let before = self.progress.bytes();
        let bytes = before.saturating_add(u64::try_from(data.len()).unwrap_or(u64::MAX));
        if self.length.is_some_and(|length| bytes > length) {
            return Err(EgressError::new(EgressEnd::Malformed, "the body is longer than its `content-length`"));
        }
        if bytes > self.most {
            return Err(too_much(self.most));
        }
        self.progress.bytes.store(bytes, Ordering::Relaxed);
        if self.length == Some(bytes) {
            self.progress.done.store(true, Ordering::Relaxed);
        }
        Ok(Frame::data(data))
    }

    fn ended(&mut self) -> Option<Result<Frame<Bytes>, EgressError>> {
        self.body = None;
        if self.length.is_some_and(|length| self.progress.bytes() < length) {
            let error = EgressError::new(EgressEnd::Malformed, "the body is shorter than its `content-length`");
            return Some(Err(error));
        }
        self.progress.done.store(true, Ordering::Relaxed);
        None
    }
}

fn too_much(most: u64) -> EgressError {
    EgressError::new(EgressEnd::OverQuota, format!("the body is longer than {most} bytes"))
}

impl Body for Upload {
    type Data = Bytes;
    type Error = EgressError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, EgressError>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(self.took(first)));
        }
        loop {
            let Some(body) = &mut self.body else { return Poll::Ready(None) };
            match ready!(body.as_mut().poll_frame(cx)) {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Poll::Ready(Some(self.took(data)));
                    }
                }
                Some(Err(error)) => {
                    self.body = None;
                    return Poll::Ready(Some(Err(error)));
                }
                None => return Poll::Ready(self.ended()),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        match (self.length, &self.body) {
            (Some(length), _) => SizeHint::with_exact(length.saturating_sub(self.progress.bytes())),
            (None, None) => SizeHint::with_exact(0),
            // Not the guest's own estimate: what it does not announce goes out in chunks.
            (None, Some(_)) => SizeHint::default(),
        }
    }
}
