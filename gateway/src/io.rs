//! The byte stream between TLS and hyper: deadlines on progress, and the readers that watch what comes in.
//!
//! Owns the alarms for slow heads and slow readers, the replacement of a refused head by one the service can answer,
//! and the pulse a connection is judged by. Must never hold a body: only a head not yet complete waits here.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};
use zeroize::Zeroize as _;

use crate::flood::Flood;
use crate::pulse::Pulse;
use crate::refusal::Refusal;
use crate::sniff::{Framing, HeadCaps, Step};

/// Bytes read at once while a head is incomplete.
const PIECE: usize = 8 * 1024;
/// Bytes of a refused client that are read and thrown away, so that closing does not destroy the answer under way.
const LINGER_BYTES: usize = 256 * 1024;
/// Time for the same.
const LINGER: Duration = Duration::from_secs(1);
/// What the service is given in place of a refused head; it answers by the refusal noted in the pulse.
const STAND_IN: &[u8] = b"GET / HTTP/1.1\r\nhost: refused.invalid\r\nconnection: close\r\n\r\n";

/// A deadline that costs nothing until something waits, and one timer at most then.
#[derive(Debug, Default)]
pub(crate) struct Alarm {
    sleep: Option<Pin<Box<Sleep>>>,
    armed: bool,
}

impl Alarm {
    /// Starts waiting, unless it already does; tells whether the wait is over. Wakes the task when it is.
    pub(crate) fn rings(&mut self, cx: &mut Context<'_>, after: Duration) -> bool {
        let sleep = self.sleep.get_or_insert_with(|| {
            self.armed = true;
            Box::pin(tokio::time::sleep(after))
        });
        if !self.armed {
            self.armed = true;
            sleep.as_mut().reset(Instant::now() + after);
        }
        sleep.as_mut().poll(cx).is_ready()
    }

    /// Stops waiting.
    pub(crate) fn disarm(&mut self) {
        self.armed = false;
    }
}

/// How patient a connection is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    pub(crate) head: Duration,
    pub(crate) write: Duration,
}

/// What reads along.
#[derive(Debug)]
enum Watch {
    H1(Box<Http1>),
    H2(Flood),
}

#[derive(Debug)]
struct Http1 {
    framing: Framing,
    /// Bytes read but not passed on.
    held: BytesMut,
    /// How many of them may be passed on.
    passable: usize,
    heads: u64,
    head: Alarm,
    refused: bool,
    thrown_away: usize,
}

/// The stream hyper is given.
#[derive(Debug)]
pub(crate) struct Guarded<S> {
    stream: S,
    watch: Watch,
    pulse: Arc<Pulse>,
    patience: Patience,
    stall: Alarm,
    linger: Alarm,
}

impl<S> Guarded<S> {
    /// A connection that speaks HTTP/1.1.
    pub(crate) fn http1(stream: S, caps: HeadCaps, patience: Patience, pulse: Arc<Pulse>) -> Self {
        let http1 = Http1 {
            framing: Framing::new(caps),
            held: BytesMut::new(),
            passable: 0,
            heads: 0,
            head: Alarm::default(),
            refused: false,
            thrown_away: 0,
        };
        Self::new(stream, Watch::H1(Box::new(http1)), patience, pulse)
    }

    /// A connection that speaks HTTP/2.
    pub(crate) fn http2(stream: S, patience: Patience, pulse: Arc<Pulse>) -> Self {
        Self::new(stream, Watch::H2(Flood::new()), patience, pulse)
    }

    fn new(stream: S, watch: Watch, patience: Patience, pulse: Arc<Pulse>) -> Self {
        Self { stream, watch, pulse, patience, stall: Alarm::default(), linger: Alarm::default() }
    }

    /// Minds how long the peer takes to accept bytes.
    fn watch_write<T>(&mut self, cx: &mut Context<'_>, wrote: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        match wrote {
            Poll::Ready(result) => {
                self.stall.disarm();
                Poll::Ready(result)
            }
            Poll::Pending if self.stall.rings(cx, self.patience.write) => Poll::Ready(Err(too_slow())),
            Poll::Pending => Poll::Pending,
        }
    }
}

fn too_slow() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the peer makes no progress")
}

fn bad_framing() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the body is not framed as announced")
}

impl Http1 {
    fn poll_read<S: AsyncRead + Unpin>(
        &mut self,
        stream: &mut S,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
        patience: Duration,
        pulse: &Pulse,
    ) -> Poll<io::Result<()>> {
        loop {
            if self.passable > 0 {
                let count = self.passable.min(out.remaining());
                out.put_slice(self.held.get(..count).unwrap_or_default());
                self.pass(count);
                return Poll::Ready(Ok(()));
            }
            if self.held.is_empty()
                && let Some(left) = self.framing.plain_left()
            {
                return self.read_plain(stream, cx, out, left);
            }
            if self.refused {
                return self.throw_away(stream, cx);
            }
            match self.framing.look(&self.held) {
                Step::Head(count) => {
                    self.passable = count;
                    self.heads += 1;
                    self.head.disarm();
                }
                Step::Body(count) => self.passable = count,
                Step::Refuse(refusal) => self.refuse(refusal, pulse),
                Step::Broken => return Poll::Ready(Err(bad_framing())),
                Step::More => match self.read_more(stream, cx) {
                    Poll::Ready(Ok(0)) => return Poll::Ready(Ok(())),
                    Poll::Ready(Ok(_)) => {}
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Pending => {
                        // A connection has to bring its first head in time, and every later one once it has begun.
                        let due = self.framing.in_head() && (!self.held.is_empty() || self.heads == 0);
                        if !due || !self.head.rings(cx, patience) {
                            return Poll::Pending;
                        }
                        if self.held.is_empty() {
                            return Poll::Ready(Ok(()));
                        }
                        self.refuse(Refusal::HeadTimeout, pulse);
                    }
                },
            }
        }
    }

    fn pass(&mut self, count: usize) {
        self.held.advance(count);
        self.passable -= count;
        if self.held.is_empty() {
            // An idle connection holds no buffer.
            self.held = BytesMut::new();
        }
    }

    /// Bytes of a body of known length go straight through, up to its end.
    fn read_plain<S: AsyncRead + Unpin>(
        &mut self,
        stream: &mut S,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
        left: u64,
    ) -> Poll<io::Result<()>> {
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(out.remaining());
        let mut piece = ReadBuf::new(out.initialize_unfilled_to(most));
        ready!(Pin::new(stream).poll_read(cx, &mut piece))?;
        let count = piece.filled().len();
        out.advance(count);
        self.framing.passed_plain(count);
        Poll::Ready(Ok(()))
    }

    fn read_more<S: AsyncRead + Unpin>(&mut self, stream: &mut S, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut space = [MaybeUninit::uninit(); PIECE];
        let mut piece = ReadBuf::uninit(&mut space);
        ready!(Pin::new(stream).poll_read(cx, &mut piece))?;
        self.held.extend_from_slice(piece.filled());
        Poll::Ready(Ok(wiped(piece)))
    }

    /// Puts the stand-in where the refused head was. It is the last head of the connection.
    fn refuse(&mut self, refusal: Refusal, pulse: &Pulse) {
        self.heads += 1;
        self.refused = true;
        self.head.disarm();
        pulse.refuse(self.heads, refusal);
        self.held = BytesMut::from(STAND_IN);
        self.passable = STAND_IN.len();
    }

    fn throw_away<S: AsyncRead + Unpin>(&mut self, stream: &mut S, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.thrown_away < LINGER_BYTES {
            let mut space = [MaybeUninit::uninit(); PIECE];
            let mut piece = ReadBuf::uninit(&mut space);
            ready!(Pin::new(&mut *stream).poll_read(cx, &mut piece))?;
            match wiped(piece) {
                0 => return Poll::Ready(Ok(())),
                count => self.thrown_away += count,
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// Wipes what was read onto the stack, which nobody else does: it holds whatever came with a head, such as the value of
/// a secret, and can stay there for as long as its thread lives. Gives how much it was.
fn wiped(mut piece: ReadBuf<'_>) -> usize {
    let count = piece.filled().len();
    piece.filled_mut().zeroize();
    count
}

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        match &mut this.watch {
            Watch::H1(http1) => http1.poll_read(&mut this.stream, cx, out, this.patience.head, &this.pulse),
            Watch::H2(flood) => {
                let before = out.filled().len();
                ready!(Pin::new(&mut this.stream).poll_read(cx, out))?;
                flood.read(out.filled().get(before..).unwrap_or_default());
                if flood.is_over() {
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, "too many control frames")));
                }
                Poll::Ready(Ok(()))
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let wrote = Pin::new(&mut this.stream).poll_write(cx, bytes);
        if let (Watch::H2(flood), Poll::Ready(Ok(count))) = (&mut this.watch, &wrote) {
            flood.wrote(*count);
        }
        this.watch_write(cx, wrote)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let flushed = Pin::new(&mut this.stream).poll_flush(cx);
        this.watch_write(cx, flushed)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let shut = Pin::new(&mut this.stream).poll_shutdown(cx);
        ready!(this.watch_write(cx, shut))?;
        match &mut this.watch {
            // Closing a socket with bytes unread resets it, and the answer that refused them may be lost with it.
            Watch::H1(http1) if http1.refused || !http1.framing.in_head() => {
                match http1.throw_away(&mut this.stream, cx) {
                    Poll::Pending if !this.linger.rings(cx, LINGER) => Poll::Pending,
                    _ => Poll::Ready(Ok(())),
                }
            }
            Watch::H1(_) | Watch::H2(_) => Poll::Ready(Ok(())),
        }
    }
}

#[cfg(test)]
mod tests;
