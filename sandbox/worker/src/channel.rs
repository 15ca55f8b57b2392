//! The socket to the gateway: frames in one by one, frames out in batches.
//!
//! Owns the bytes on their way out and how long they may wait for company. Must never know what a call is, and must
//! never hold more than its bound for a gateway that does not read.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use cofferdam_model::clock::Clock;
use cofferdam_model::frame::{HEADER_BYTES, Header, MAX_PAYLOAD};
use tokio::net::UnixStream;
use tokio::sync::Notify;

use crate::error::WorkerError;

/// Bytes waiting to be written above which whoever can wait has to.
const HIGH_WATER: usize = 256 * 1024;
/// How long the first frame of a batch may wait for the tasks that are ready before it is written all the same.
const BATCH_WAIT: Duration = Duration::from_micros(200);
/// Capacity kept for the next batch.
const KEPT_CAPACITY: usize = 64 * 1024;

/// Frames on their way to the gateway. Finished frames of all tasks that are ready leave in one write.
pub(crate) struct Outbox {
    stream: Arc<UnixStream>,
    clock: Arc<dyn Clock>,
    batch: Mutex<Batch>,
    filled: Notify,
}

#[derive(Default)]
struct Batch {
    bytes: Vec<u8>,
    written: usize,
    since: Duration,
    /// The socket takes no more; only the writer task, which waits for it, may try again.
    stuck: bool,
    waiting: Vec<Waker>,
}

impl Batch {
    fn pending(&self) -> usize {
        self.bytes.len().saturating_sub(self.written)
    }

    /// Writes what can be written; whether that was all.
    fn write(&mut self, stream: &UnixStream) -> io::Result<bool> {
        while let Some(rest) = self.bytes.get(self.written..).filter(|rest| !rest.is_empty()) {
            match stream.try_write(rest) {
                Ok(count) => self.written += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.stuck = true;
                    return Ok(false);
                }
                Err(error) => return Err(error),
            }
        }
        (self.written, self.stuck) = (0, false);
        self.bytes.clear();
        self.bytes.shrink_to(KEPT_CAPACITY);
        self.waiting.drain(..).for_each(Waker::wake);
        Ok(true)
    }
}

impl Outbox {
    /// An outbox for one end of a socket.
    pub(crate) fn new(stream: Arc<UnixStream>, clock: Arc<dyn Clock>) -> Self {
        Self { stream, clock, batch: Mutex::default(), filled: Notify::new() }
    }

    /// Adds what `put` appends to the batch under way.
    pub(crate) fn add<T>(&self, put: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        let mut batch = self.lock();
        if batch.bytes.is_empty() {
            batch.since = self.clock.monotonic();
            self.filled.notify_one();
        }
        put(&mut batch.bytes)
    }

    /// Ready while there is room for bytes that can wait.
    pub(crate) fn poll_room(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut batch = self.lock();
        if batch.pending() < HIGH_WATER {
            return Poll::Ready(());
        }
        if !batch.waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
            batch.waiting.push(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Whether there is room for bytes that can wait.
    pub(crate) fn has_room(&self) -> bool {
        self.lock().pending() < HIGH_WATER
    }

    /// Writes the batch if its first frame has waited long enough. Called wherever a task has just held the thread.
    pub(crate) fn tend(&self) {
        let mut batch = self.lock();
        if batch.bytes.is_empty() || batch.stuck || self.clock.monotonic() < batch.since + BATCH_WAIT {
            return;
        }
        // A failure is met again by the writer task, which ends the cell.
        let _ = batch.write(&self.stream);
    }

    /// Writes batches until the socket fails. Woken by the first frame of a batch, it runs after every task that was
    /// ready at that moment: their frames are in the same write. In an idle cell that is at once.
    pub(crate) async fn run(&self) -> Result<(), WorkerError> {
        loop {
            self.filled.notified().await;
            while !self.lock().write(&self.stream).map_err(WorkerError::Channel)? {
                self.stream.writable().await.map_err(WorkerError::Channel)?;
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Batch> {
        self.batch.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Frames from the gateway.
pub(crate) struct Inbox {
    stream: Arc<UnixStream>,
    buffer: BytesMut,
}

impl Inbox {
    /// An inbox for one end of a socket.
    pub(crate) fn new(stream: Arc<UnixStream>) -> Self {
        Self { stream, buffer: BytesMut::new() }
    }

    /// The next frame; none where the gateway has closed the socket between two frames.
    pub(crate) async fn next(&mut self) -> Result<Option<(Header, Bytes)>, WorkerError> {
        loop {
            if let Some(frame) = self.parse()? {
                return Ok(Some(frame));
            }
            self.buffer.reserve(HEADER_BYTES + MAX_PAYLOAD);
            self.stream.readable().await.map_err(WorkerError::Channel)?;
            match self.stream.try_read_buf(&mut self.buffer) {
                Ok(0) if self.buffer.is_empty() => return Ok(None),
                Ok(0) => return Err(WorkerError::Channel(io::ErrorKind::UnexpectedEof.into())),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(WorkerError::Channel(error)),
            }
        }
    }

    fn parse(&mut self) -> Result<Option<(Header, Bytes)>, WorkerError> {
        let Some(head) = self.buffer.first_chunk::<HEADER_BYTES>() else { return Ok(None) };
        let header = Header::decode(head)?;
        if self.buffer.len() < HEADER_BYTES + header.length {
            return Ok(None);
        }
        self.buffer.advance(HEADER_BYTES);
        Ok(Some((header, self.buffer.split_to(header.length).freeze())))
    }
}
