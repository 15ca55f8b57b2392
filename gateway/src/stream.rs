//! An answer that streams: from cell to client, with its entry closed by whichever of the two ends it.
//!
//! Owns the task that carries the pieces and the body the client reads them from. Must never let an entry stay open:
//! dropping the task closes it too, as abandoned.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use aws_lc_rs::digest as sha;
use bytes::Bytes;
use cofferdam_audit::Closing;
use cofferdam_model::{Digest, Ending, OutcomeFacts, Usage, Way};
use cofferdam_sandbox::{AnswerBody, Cut};
use http_body::{Body, Frame};
use tokio::sync::mpsc;

use crate::metrics::Metrics;
use crate::perform::Held;
use crate::respond::StreamError;

/// Pieces on their way to the client; beyond it the guest waits.
const PIECES: usize = 2;

/// The answer broke off after its head had gone out.
#[derive(Debug, thiserror::Error)]
#[error("the answer broke off: {}", .0.as_str())]
struct BrokenOff(Ending);

/// The client's end.
pub(crate) struct Pieces(mpsc::Receiver<Result<Bytes, Ending>>);

impl Body for Pieces {
    type Data = Bytes;
    type Error = StreamError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, StreamError>>> {
        self.0.poll_recv(cx).map(|next| {
            next.map(|piece| match piece {
                Ok(bytes) => Ok(Frame::data(bytes)),
                Err(ending) => Err(BrokenOff(ending).into()),
            })
        })
    }
}

/// The cell's end.
pub(crate) struct Source {
    /// Pieces taken already, which go first.
    pub(crate) first: Vec<Bytes>,
    /// Where the rest comes from.
    pub(crate) body: AnswerBody,
    /// What the call holds until its end.
    pub(crate) held: Held,
    /// Where its end is counted.
    pub(crate) metrics: Arc<Metrics>,
}

/// The sender's end of a stream.
pub(crate) type Sender = mpsc::Sender<Result<Bytes, Ending>>;

/// A stream and its two ends.
pub(crate) fn pieces() -> (Sender, Pieces) {
    let (sender, receiver) = mpsc::channel(PIECES);
    (sender, Pieces(receiver))
}

/// Carries the pieces until either side ends, then closes the entry with how and after how much.
pub(crate) async fn pump(source: Source, pieces: Sender, closing: Closing, begun: OutcomeFacts) {
    let Source { first, mut body, held, metrics } = source;
    let (mut hasher, mut sent) = (sha::Context::new(&sha::SHA256), 0u64);
    let (ending, mut usage) = carry(first, &mut body, &pieces, |piece| {
        hasher.update(piece);
        sent += u64::try_from(piece.len()).unwrap_or(u64::MAX);
    })
    .await;
    usage.bytes_out = sent;
    let mut whole = [0u8; 32];
    whole.copy_from_slice(hasher.finish().as_ref());
    metrics.ended(ending);
    // What was waited for until the head was durable is in this record, as it could not be in that one.
    let way = Way { steps: held.watch.steps(), ..begun.way };
    closing.finish(OutcomeFacts { ending, usage, body: Some(Digest(whole)), way, ..begun });
    drop(held);
}

async fn carry(
    first: Vec<Bytes>,
    body: &mut AnswerBody,
    pieces: &Sender,
    mut seen: impl FnMut(&[u8]),
) -> (Ending, Usage) {
    let mut first = first.into_iter();
    loop {
        let next = match first.next() {
            Some(piece) => Some(Ok(piece)),
            None => tokio::select! {
                next = body.next() => next,
                () = pieces.closed() => return (Ending::ClientGone, body.left().await),
            },
        };
        match next {
            Some(Ok(piece)) => {
                seen(&piece);
                if pieces.send(Ok(piece)).await.is_err() {
                    return (Ending::ClientGone, body.left().await);
                }
            }
            Some(Err(Cut { ending, usage })) => {
                let _ = pieces.send(Err(ending)).await;
                return (ending, usage);
            }
            None => {
                let (ending, usage) = body.finished().await;
                if ending != Ending::Answered {
                    let _ = pieces.send(Err(ending)).await;
                }
                return (ending, usage);
            }
        }
    }
}
