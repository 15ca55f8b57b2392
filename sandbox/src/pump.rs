//! Moves a request body from the client to the cell, as fast as the cell takes it.
//!
//! Owns the function's bound on it. Must never hold more than one piece, and never go on for a call that is over.

use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;

use crate::channel::Channel;
use crate::config::InboundBody;
use crate::error::InboundError;

/// A request body on its way.
pub(crate) struct Pump {
    channel: Arc<Channel>,
    number: u32,
    body: InboundBody,
    piece: Bytes,
    left: u64,
}

impl Pump {
    /// A pump for a call whose request is not at its end. `most` bounds the body.
    pub(crate) fn new(channel: Arc<Channel>, number: u32, body: InboundBody, most: u64) -> Self {
        Self { channel, number, body, piece: Bytes::new(), left: most }
    }

    /// Ready when the body is sent or the call wants no more of it; `Err` where the body broke off.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), InboundError>> {
        loop {
            if self.piece.is_empty() {
                match ready!(self.body.as_mut().poll_frame(cx)) {
                    None => {
                        self.channel.send(self.number, &[], true);
                        self.channel.flush();
                        return Poll::Ready(Ok(()));
                    }
                    Some(Err(error)) => return Poll::Ready(Err(error)),
                    // Trailers have no place in the frames and are dropped.
                    Some(Ok(frame)) => self.piece = frame.into_data().unwrap_or_default(),
                }
                let length = u64::try_from(self.piece.len()).unwrap_or(u64::MAX);
                match self.left.checked_sub(length) {
                    Some(left) => self.left = left,
                    None => return Poll::Ready(Err(InboundError::TooLarge)),
                }
                continue;
            }
            let Some(room) = ready!(self.channel.poll_room(self.number, cx)) else { return Poll::Ready(Ok(())) };
            let piece = self.piece.split_to(room.min(self.piece.len()));
            let end = self.piece.is_empty() && self.body.is_end_stream();
            self.channel.send(self.number, &piece, end);
            self.channel.flush();
            if end {
                return Poll::Ready(Ok(()));
            }
        }
    }
}
