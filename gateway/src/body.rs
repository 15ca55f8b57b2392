//! A request body on its way in: counted, capped and not allowed to stall.
//!
//! Owns the byte cap and the least speed. Must never hold more of a body than the piece under way.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use cofferdam_sandbox::{InboundBody, InboundError};
use http_body::{Body, Frame, SizeHint};
use tokio::time::Instant;

use crate::io::Alarm;
use crate::refusal::{Fault, Refusal};
use crate::signed::Altered;

/// So many bytes have to come in the time a body may be idle; a byte now and then is no progress.
const LEAST_BYTES: usize = 1024;

/// The body of one request.
#[derive(Debug)]
pub struct Inbound<B> {
    body: B,
    left: u64,
    patience: Duration,
    alarm: Alarm,
    /// When the wait for the next piece began.
    waiting: Option<Instant>,
    /// Time waited and bytes come since there was enough progress.
    waited: Duration,
    recent: usize,
    count: Counted,
    over: bool,
}

/// How many bytes of a body have come. Clones share the count.
#[derive(Debug, Clone, Default)]
pub struct Counted(Arc<AtomicU64>);

impl Counted {
    /// Bytes so far.
    pub fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl<B: Body<Data = Bytes> + Unpin> Inbound<B>
where
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    /// Caps a body at `most` bytes. Refuses at once where it announces more.
    pub fn new(body: B, most: u64, idle: Duration) -> Result<Self, Refusal> {
        if body.size_hint().lower() > most {
            return Err(Refusal::BodyTooLarge);
        }
        Ok(Self {
            body,
            left: most,
            patience: idle,
            alarm: Alarm::default(),
            waiting: None,
            waited: Duration::ZERO,
            recent: 0,
            count: Counted::default(),
            over: false,
        })
    }

    /// The count, to be read after the body is gone.
    pub fn counted(&self) -> Counted {
        self.count.clone()
    }

    /// As the sandbox takes it.
    pub fn boxed(self) -> InboundBody
    where
        B: Send + 'static,
    {
        Box::pin(self)
    }

    /// Reads it whole, which its cap keeps bounded.
    pub async fn collect(self) -> Result<Bytes, Refusal> {
        let whole = http_body_util::BodyExt::collect(self).await.map_err(|error| refusal(&error))?;
        Ok(whole.to_bytes())
    }

    /// The same, in so much time as a whole: what holds up somebody else must not come in drops for hours.
    pub async fn collect_within(self, time: Duration) -> Result<Bytes, Refusal> {
        tokio::time::timeout(time, self.collect()).await.unwrap_or(Err(Refusal::BodyTimeout))
    }

    fn take(&mut self, data: &Bytes) -> Result<(), InboundError> {
        let length = u64::try_from(data.len()).unwrap_or(u64::MAX);
        self.left = self.left.checked_sub(length).ok_or(InboundError::TooLarge)?;
        self.count.0.fetch_add(length, Ordering::Relaxed);
        self.recent = self.recent.saturating_add(data.len());
        if let Some(since) = self.waiting.take() {
            self.alarm.disarm();
            self.waited += since.elapsed();
        }
        if self.recent >= LEAST_BYTES {
            (self.recent, self.waited) = (0, Duration::ZERO);
        }
        Ok(())
    }
}

/// What a client is told whose body broke off.
pub fn refusal(error: &InboundError) -> Refusal {
    match error {
        InboundError::TooLarge => Refusal::BodyTooLarge,
        InboundError::Stalled => Refusal::BodyTimeout,
        InboundError::Gone(_) => Refusal::BadRequest(Fault::Body),
        InboundError::Altered => Refusal::BadRequest(Fault::BodyAltered),
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Inbound<B>
where
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Data = Bytes;
    type Error = InboundError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, InboundError>>> {
        let this = self.get_mut();
        if this.over {
            return Poll::Ready(None);
        }
        let result = match Pin::new(&mut this.body).poll_frame(cx) {
            Poll::Pending => {
                // Only waiting for the client counts: a function that is slow to read must not be its fault.
                this.waiting.get_or_insert_with(Instant::now);
                if !this.alarm.rings(cx, this.patience.saturating_sub(this.waited)) {
                    return Poll::Pending;
                }
                Err(InboundError::Stalled)
            }
            Poll::Ready(None) => {
                this.over = true;
                return Poll::Ready(None);
            }
            Poll::Ready(Some(Err(error))) => {
                let error = error.into();
                Err(if error.is::<Altered>() { InboundError::Altered } else { InboundError::Gone(error) })
            }
            Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                Ok(data) => this.take(&data).map(|()| Frame::data(data)),
                Err(_) => Err(InboundError::Gone("trailers are not taken".into())),
            },
        };
        this.over = result.is_err();
        Poll::Ready(Some(result))
    }

    fn is_end_stream(&self) -> bool {
        self.over || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::{BodyExt as _, Full, StreamBody};
    use tokio::sync::mpsc;

    const IDLE: Duration = Duration::from_secs(10);

    /// A body fed by hand.
    fn fed() -> (mpsc::Sender<Bytes>, impl Body<Data = Bytes, Error = std::convert::Infallible> + Unpin + Send) {
        let (sender, mut receiver) = mpsc::channel::<Bytes>(4);
        let stream = futures_util::stream::poll_fn(move |cx| {
            receiver.poll_recv(cx).map(|piece| piece.map(|data| Ok(Frame::data(data))))
        });
        (sender, StreamBody::new(stream))
    }

    #[tokio::test]
    async fn a_body_is_cut_at_its_cap_and_counted() {
        let announced = Inbound::new(Full::new(Bytes::from(vec![0; 11])), 10, IDLE);
        assert!(matches!(announced, Err(Refusal::BodyTooLarge)));
        let (sender, body) = fed();
        let body = Inbound::new(body, 10, IDLE).unwrap();
        let count = body.counted();
        sender.send(Bytes::from(vec![0; 10])).await.unwrap();
        sender.send(Bytes::from(vec![0; 1])).await.unwrap();
        drop(sender);
        assert_eq!(body.collect().await, Err(Refusal::BodyTooLarge));
        assert_eq!(count.bytes(), 10);
    }

    #[tokio::test]
    async fn a_body_of_exactly_its_cap_passes() {
        let body = Inbound::new(Full::new(Bytes::from_static(b"0123456789")), 10, IDLE).unwrap();
        assert_eq!(body.collect().await.unwrap(), "0123456789");
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_stops_is_cut_after_its_patience() {
        let (_sender, body) = fed();
        let start = Instant::now();
        let body = Inbound::new(body, 10, IDLE).unwrap();
        assert_eq!(body.collect().await, Err(Refusal::BodyTimeout));
        assert_eq!(start.elapsed().as_secs(), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn a_byte_now_and_then_is_no_progress() {
        let (sender, body) = fed();
        let dripping = tokio::spawn(async move {
            while sender.send(Bytes::from_static(b"x")).await.is_ok() {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        });
        let start = Instant::now();
        assert_eq!(Inbound::new(body, 1000, IDLE).unwrap().collect().await, Err(Refusal::BodyTimeout));
        assert!((10..=11).contains(&start.elapsed().as_secs()));
        dripping.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_reader_of_ours_is_not_held_against_the_client() {
        let (sender, body) = fed();
        let mut body = Inbound::new(body, 1000, IDLE).unwrap();
        for _ in 0..5 {
            sender.send(Bytes::from_static(b"x")).await.unwrap();
            assert!(body.frame().await.unwrap().is_ok());
            tokio::time::sleep(Duration::from_secs(60)).await;
        }
        drop(sender);
        assert!(body.frame().await.is_none());
    }
}
