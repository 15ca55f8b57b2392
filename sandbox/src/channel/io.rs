//! The two tasks at a cell's socket.
//!
//! Owns reading and writing it, each in one system call for as much as there is. Must never hold the channel's lock
//! across either.

use std::sync::Arc;
use std::task::Waker;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

use super::call::Aftermath;
use super::wire::{READ_BYTES, parse};
use super::{Channel, Closed};

/// Memory a quiet channel keeps for the next batch.
const KEPT_BYTES: usize = 256 * 1024;
const KEPT_FRAMES: usize = 256;

/// Reads until the cell ends, the channel is closed or the cell breaks a rule.
pub(super) async fn read(channel: Arc<Channel>, mut socket: OwnedReadHalf) {
    let mut buffer = BytesMut::with_capacity(READ_BYTES);
    let (mut frames, mut after) = (Vec::new(), Aftermath::default());
    let why = loop {
        match socket.read_buf(&mut buffer).await {
            Ok(0) | Err(_) => break Closed::Gone,
            Ok(_) => {}
        }
        let heard = match parse(&mut buffer, &mut frames) {
            Ok(()) => channel.hear(&mut frames, &mut after),
            // What came before the bad bytes still counts: it may be the whole answer of another call.
            Err(violation) => channel.hear(&mut frames, &mut after).and(Err((0, violation))),
        };
        channel.settle(&mut after);
        // A cell that breaks a rule is closed at once, and nothing it asked for in the same breath begins.
        match heard {
            Ok(()) => after.fetches.drain(..).for_each(|fetch| channel.begin_fetch(fetch)),
            Err(_) => after.fetches.clear(),
        }
        frames.shrink_to(KEPT_FRAMES);
        match (heard, channel.why_closed()) {
            (_, Some(closed)) => break closed,
            (Err((call, violation)), None) => break Closed::Violated(call, violation),
            (Ok(()), None) => {}
        }
    };
    channel.close(why);
}

/// Writes what there is whenever there is something.
pub(super) async fn write(channel: Arc<Channel>, mut socket: OwnedWriteHalf) {
    let mut batch = Vec::new();
    loop {
        channel.work.notified().await;
        // With other calls under way, let the tasks that are ready now add their frames to this batch.
        if channel.lock().calls.len() > 1 {
            tokio::task::yield_now().await;
        }
        let crowd = {
            let mut state = channel.lock();
            if state.closed.is_some() {
                return;
            }
            std::mem::swap(&mut batch, &mut state.out);
            std::mem::take(&mut state.crowd)
        };
        crowd.into_iter().for_each(Waker::wake);
        if socket.write_all(&batch).await.is_err() {
            channel.close(Closed::Gone);
            return;
        }
        batch.clear();
        batch.shrink_to(KEPT_BYTES);
    }
}
