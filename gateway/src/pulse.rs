//! Signs of life of one connection, shared by its stream, its service and whoever decides when to close it.
//!
//! Owns the counts and moments; must never decide anything itself but whether they amount to idleness or a stall.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::refusal::Refusal;

/// The signs.
#[derive(Debug)]
pub(crate) struct Pulse {
    /// Requests handed to the service.
    requests: AtomicU64,
    most_requests: u64,
    full: Notify,
    /// Requests whose answer is not over.
    open: AtomicUsize,
    /// Answers with something to send that the peer has to take first.
    offering: AtomicUsize,
    /// Pieces of answers taken.
    taken: AtomicU64,
    start: Instant,
    /// Milliseconds from `start` to the end of the last answer.
    quiet_since_ms: AtomicU64,
    /// The head that was refused below HTTP, by its number, and why.
    refused: Mutex<Option<(u64, Refusal)>>,
}

impl Pulse {
    pub(crate) fn new(most_requests: u64) -> Arc<Self> {
        Arc::new(Self {
            requests: AtomicU64::new(0),
            most_requests: most_requests.max(1),
            full: Notify::new(),
            open: AtomicUsize::new(0),
            offering: AtomicUsize::new(0),
            taken: AtomicU64::new(0),
            start: Instant::now(),
            quiet_since_ms: AtomicU64::new(0),
            refused: Mutex::new(None),
        })
    }

    /// Notes that head number `head` (from 1) was refused.
    pub(crate) fn refuse(&self, head: u64, refusal: Refusal) {
        *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = Some((head, refusal));
    }

    /// A request begins. Gives the refusal of its head, if it stands in for one, and the sign that it is open.
    pub(crate) fn begin(self: &Arc<Self>) -> (Option<Refusal>, Open) {
        let number = self.requests.fetch_add(1, Ordering::AcqRel) + 1;
        let last = number >= self.most_requests;
        if last {
            self.full.notify_one();
        }
        self.open.fetch_add(1, Ordering::AcqRel);
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let refusal = match refused.take() {
            Some((head, refusal)) if head == number => Some(refusal),
            other => {
                *refused = other;
                None
            }
        };
        (refusal, Open { pulse: self.clone(), last })
    }

    /// Waits until the connection has had as many requests as it may.
    pub(crate) async fn full(&self) {
        self.full.notified().await;
    }

    /// Whether nothing was under way for `patience`.
    pub(crate) fn is_idle(&self, patience: Duration) -> bool {
        let since = Duration::from_millis(self.quiet_since_ms.load(Ordering::Acquire));
        self.open.load(Ordering::Acquire) == 0 && self.start.elapsed().saturating_sub(since) >= patience
    }

    /// A number that changes when an answer makes progress; none while nothing waits to be taken.
    pub(crate) fn offer(&self) -> Option<u64> {
        (self.offering.load(Ordering::Acquire) > 0).then(|| self.taken.load(Ordering::Acquire))
    }
}

/// A request under way, until its answer is over.
#[derive(Debug)]
pub(crate) struct Open {
    pulse: Arc<Pulse>,
    last: bool,
}

impl Open {
    /// Whether the connection has had as many requests as it may with this one.
    pub(crate) fn is_last(&self) -> bool {
        self.last
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let quiet = u64::try_from(self.pulse.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.pulse.quiet_since_ms.store(quiet, Ordering::Release);
        self.pulse.open.fetch_sub(1, Ordering::AcqRel);
    }
}

/// An answer's body that shows in the pulse.
#[derive(Debug)]
pub(crate) struct Tracked<B> {
    body: B,
    open: Open,
    offering: bool,
}

impl<B> Tracked<B> {
    pub(crate) fn new(body: B, open: Open) -> Self {
        let mut tracked = Self { body, open, offering: false };
        tracked.offer(true);
        tracked
    }

    fn offer(&mut self, offering: bool) {
        let pulse = &self.open.pulse;
        match (self.offering, offering) {
            (false, true) => pulse.offering.fetch_add(1, Ordering::AcqRel),
            (true, false) => pulse.offering.fetch_sub(1, Ordering::AcqRel),
            (true, true) | (false, false) => 0,
        };
        self.offering = offering;
    }
}

impl<B> Drop for Tracked<B> {
    fn drop(&mut self) {
        self.offer(false);
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Tracked<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.get_mut();
        // Being asked for more means that what was offered has been taken.
        this.open.pulse.taken.fetch_add(1, Ordering::AcqRel);
        let polled = Pin::new(&mut this.body).poll_frame(cx);
        // While the function has nothing to send, the peer is not to blame.
        this.offer(polled.is_ready());
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::{BodyExt as _, Full};

    #[test]
    fn a_refusal_meets_the_very_request_that_stands_in_for_it() {
        let pulse = Pulse::new(10);
        pulse.refuse(2, Refusal::UriTooLong);
        assert_eq!(pulse.begin().0, None);
        assert_eq!(pulse.begin().0, Some(Refusal::UriTooLong));
        assert_eq!(pulse.begin().0, None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_idle_only_after_its_last_answer() {
        let pulse = Pulse::new(10);
        let (_, open) = pulse.begin();
        tokio::time::advance(Duration::from_secs(100)).await;
        assert!(!pulse.is_idle(Duration::from_secs(10)));
        drop(open);
        assert!(!pulse.is_idle(Duration::from_secs(10)));
        tokio::time::advance(Duration::from_secs(10)).await;
        assert!(pulse.is_idle(Duration::from_secs(10)));
    }

    #[tokio::test]
    async fn an_answer_is_on_offer_until_it_is_taken() {
        let pulse = Pulse::new(10);
        assert_eq!(pulse.offer(), None);
        let mut body = Tracked::new(Full::new(Bytes::from_static(b"x")), pulse.begin().1);
        let before = pulse.offer();
        assert!(before.is_some());
        let _ = body.frame().await;
        assert_ne!(pulse.offer(), before);
        drop(body);
        assert_eq!(pulse.offer(), None);
    }

    #[tokio::test]
    async fn the_last_allowed_request_is_announced() {
        let pulse = Pulse::new(2);
        let _first = pulse.begin();
        let _second = pulse.begin();
        pulse.full().await;
    }
}
