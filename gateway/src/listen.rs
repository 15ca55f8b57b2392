//! Accepting connections and driving each until its end.
//!
//! Owns the accept loop, the settings hyper is run with, and when a connection is closed: idle, stalled, worn out,
//! drained or cut. Must never answer a request itself, nor let one slow peer delay another.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cofferdam_model::{ConnectionFacts, Limits, TlsVersion};
use http::{HeaderValue, Request, Response, Version, header};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::doors::{CameBy, Door};
use crate::drain::{Drain, Phase};
use crate::error::GatewayError;
use crate::io::{Guarded, Patience};
use crate::peers::{PeerSlot, Peers};
use crate::pulse::{Pulse, Tracked};
use crate::refusal::Refusal;
use crate::respond::OutBody;
use crate::sniff::HeadCaps;
use crate::tls::{Secured, Tls};

/// What the kernel may hold of an answer. Left to itself it holds megabytes, out of which a peer that takes nothing
/// cannot be told from one that is slow, and which a slow one would have us pay for.
const SEND_BUFFER_BYTES: u32 = 128 * 1024;
/// Connections the kernel holds until we accept them.
const BACKLOG: u32 = 1024;

/// What is known of a connection.
#[derive(Debug, Clone)]
pub struct Connection {
    /// Address of the peer, from the socket.
    pub peer: SocketAddr,
    /// TLS version agreed on.
    pub tls: TlsVersion,
    /// `HTTP/1.1` or `HTTP/2`, by what was agreed on.
    pub version: Version,
    /// The door of a tenant it came by, and what was shown there.
    pub came: Option<CameBy>,
    /// The same and more, as the log tells it.
    pub facts: Arc<ConnectionFacts>,
}

/// A request as it came off a connection.
#[derive(Debug)]
pub struct Arrived {
    /// What hyper made of it.
    pub(crate) request: Request<Incoming>,
    /// The connection it came by.
    pub(crate) connection: Arc<Connection>,
    /// Set where the head was refused below hyper, and the request only stands in for it.
    pub(crate) refused: Option<Refusal>,
}

/// No answer can be given: the connection (or the stream, in HTTP/2) is reset.
#[derive(Debug, thiserror::Error)]
#[error("no answer can be given")]
pub struct Reset;

/// What answers requests.
pub trait Handler: Send + Sync + 'static {
    /// Answers one.
    fn handle(self: Arc<Self>, arrived: Arrived) -> impl Future<Output = Result<Response<OutBody>, Reset>> + Send;

    /// Hears of a peer whose connection never came to carry a request, and why.
    fn lost(&self, _peer: IpAddr, _why: &'static str) {}

    /// The door of a host, where machines are asked for certificates.
    fn door(&self, _host: &str) -> Option<Arc<Door>> {
        None
    }
}

/// Bound sockets and everything needed to serve on them.
#[derive(Debug)]
pub struct Listener {
    sockets: Vec<TcpListener>,
    tls: Tls,
    limits: Arc<Limits>,
    peers: Peers,
    counts: Arc<Vec<SocketCounts>>,
}

/// What came of the connections to one address.
#[derive(Debug)]
struct SocketCounts {
    address: SocketAddr,
    accepted: AtomicU64,
    refused: AtomicU64,
    tls_failed: AtomicU64,
    secured: AtomicU64,
}

impl SocketCounts {
    fn of(address: SocketAddr) -> Self {
        let zero = || AtomicU64::new(0);
        Self { address, accepted: zero(), refused: zero(), tls_failed: zero(), secured: zero() }
    }
}

/// What came of the connections to all addresses so far, in lines.
#[derive(Debug, Clone)]
pub struct ListenerCounts(Arc<Vec<SocketCounts>>);

impl ListenerCounts {
    /// A line for each address.
    pub fn lines(&self) -> Vec<String> {
        let told = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let line = |each: &SocketCounts| {
            let (accepted, refused) = (told(&each.accepted), told(&each.refused));
            let (failed, secured) = (told(&each.tls_failed), told(&each.secured));
            format!("{} accepted={accepted} refused={refused} tls_failed={failed} secured={secured}", each.address)
        };
        self.0.iter().map(line).collect()
    }
}

impl Listener {
    /// Binds all addresses, or fails naming the one that cannot be had. Async because sockets belong to a runtime.
    pub async fn bind(addresses: &[SocketAddr], tls: Tls, limits: Arc<Limits>) -> Result<Self, GatewayError> {
        let mut sockets = Vec::with_capacity(addresses.len());
        for address in addresses.iter().copied() {
            sockets.push(bind(address).map_err(|source| GatewayError::Listen { address, source })?);
        }
        let peers = Peers::new(&limits);
        let bound = sockets.iter().filter_map(|socket| socket.local_addr().ok());
        let counts = Arc::new(bound.map(SocketCounts::of).collect());
        Ok(Self { sockets, tls, limits, peers, counts })
    }

    /// What comes of its connections, now and from now on.
    pub fn counts(&self) -> ListenerCounts {
        ListenerCounts(self.counts.clone())
    }

    /// The addresses bound, with the ports the system chose where none was given.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.sockets.iter().filter_map(|socket| socket.local_addr().ok()).collect()
    }

    /// Serves until `drain` leaves its serving phase; connections under way are then closed gracefully, each holding
    /// the drain, and dropped when it cuts.
    pub async fn serve<H: Handler>(self, handler: Arc<H>, drain: Drain) {
        let Self { sockets, tls, limits, peers, counts } = self;
        let server = Arc::new(Server { handler, tls, limits, peers, drain: drain.clone(), counts });
        let numbered = sockets.into_iter().enumerate();
        let loops: Vec<_> =
            numbered.map(|(number, socket)| tokio::spawn(accept_loop(socket, number, server.clone()))).collect();
        for accepting in loops {
            let _ = accepting.await;
        }
    }
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.set_send_buffer_size(SEND_BUFFER_BYTES)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

struct Server<H> {
    handler: Arc<H>,
    tls: Tls,
    limits: Arc<Limits>,
    peers: Peers,
    drain: Drain,
    counts: Arc<Vec<SocketCounts>>,
}

impl<H> Server<H> {
    /// Counts something of the connections to one of the addresses.
    fn count(&self, number: usize, which: impl Fn(&SocketCounts) -> &AtomicU64) {
        if let Some(counts) = self.counts.get(number) {
            which(counts).fetch_add(1, Ordering::Relaxed);
        }
    }
}

async fn accept_loop<H: Handler>(socket: TcpListener, number: usize, server: Arc<Server<H>>) {
    let draining = server.drain.reached(Phase::Draining);
    tokio::pin!(draining);
    let mut backoff = Duration::ZERO;
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut draining => return,
            accepted = socket.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                backoff = Duration::ZERO;
                server.count(number, |counts| &counts.accepted);
                // Too many: closed at once, which is all that is owed to them.
                if let Some(slot) = server.peers.enter(peer.ip()) {
                    tokio::spawn(connection(server.clone(), stream, (peer, number), slot));
                } else {
                    server.count(number, |counts| &counts.refused);
                    server.handler.lost(peer.ip(), "connection_refused");
                }
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                // Out of descriptors or memory: trying again at once would only burn the CPU.
                backoff = (backoff * 2).clamp(Duration::from_millis(10), Duration::from_secs(1));
                tracing::warn!(%error, open = server.peers.open(), "cannot accept connections");
                tokio::time::sleep(backoff).await;
            }
        }
    }
}

fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    )
}

async fn connection<H: Handler>(
    server: Arc<Server<H>>,
    stream: TcpStream,
    (peer, number): (SocketAddr, usize),
    slot: PeerSlot,
) {
    // Answers are written whole; waiting for more to send would only delay them.
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let drain = server.drain.clone();
    let secured = tokio::select! {
        // A handshake is not work anyone waits for.
        () = drain.reached(Phase::Draining) => return,
        secured = server.tls.secure(stream, (peer, slot), |host| server.handler.door(host)) => secured,
    };
    let Ok(secured) = secured else {
        server.count(number, |counts| &counts.tls_failed);
        return server.handler.lost(peer.ip(), "tls_failed");
    };
    server.count(number, |counts| &counts.secured);
    let hold = drain.hold();
    serve_secured(&server, secured).await;
    drop(hold);
}

async fn serve_secured<H: Handler>(server: &Server<H>, secured: Secured<TcpStream>) {
    let Secured { stream, version, h2, came, facts, peer, slot: _slot } = secured;
    let limits = &server.limits;
    let pulse = Pulse::new(limits.requests_per_connection);
    let http = if h2 { Version::HTTP_2 } else { Version::HTTP_11 };
    let info = Arc::new(Connection { peer, tls: version, version: http, came, facts });
    let service = service_fn(|request: Request<Incoming>| {
        let (refused, open) = pulse.begin();
        let arrived = Arrived { request, connection: info.clone(), refused };
        let handler = server.handler.clone();
        async move {
            let mut answer = handler.handle(arrived).await?;
            // HTTP/2 is told by GOAWAY; HTTP/1 might have the next request in its buffer already.
            if !h2 && open.is_last() {
                answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, Reset>(answer.map(|body| Tracked::new(body, open)))
        }
    });
    let patience = Patience { head: ms(limits.head_ms), write: ms(limits.write_idle_ms) };
    let ended = if h2 {
        let io = TokioIo::new(Guarded::http2(stream, patience, pulse.clone()));
        let connection = http2_builder(limits).serve_connection(io, service);
        tokio::pin!(connection);
        drive(connection, |it| it.graceful_shutdown(), &pulse, &server.drain, limits).await
    } else {
        let caps = HeadCaps {
            target_bytes: limits.uri_bytes,
            header_bytes: limits.header_bytes,
            header_count: limits.header_count,
        };
        let io = TokioIo::new(Guarded::http1(stream, caps, patience, pulse.clone()));
        let connection = http1_builder(limits).serve_connection(io, service);
        tokio::pin!(connection);
        drive(connection, |it| it.graceful_shutdown(), &pulse, &server.drain, limits).await
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, error = &error as &dyn std::error::Error, "connection ended early");
    }
}

/// Polls a connection until it ends or has to.
async fn drive<C>(
    mut connection: Pin<&mut C>,
    leave: impl Fn(Pin<&mut C>),
    pulse: &Pulse,
    drain: &Drain,
    limits: &Limits,
) -> hyper::Result<()>
where
    C: Future<Output = hyper::Result<()>>,
{
    let (draining, cut) = (drain.reached(Phase::Draining), drain.reached(Phase::Cut));
    tokio::pin!(draining, cut);
    // Looked at twice in the time a connection may be idle, so that it is closed at most half as much later.
    let mut check = tokio::time::interval(ms(limits.idle_ms).div_f32(2.0).max(ms(1)));
    check.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (mut leaving, mut offered) = (false, Offered::default());
    loop {
        let leave_now = tokio::select! {
            biased;
            ended = connection.as_mut() => return ended,
            () = &mut cut => return Ok(()),
            () = &mut draining, if !leaving => true,
            () = pulse.full(), if !leaving => true,
            _ = check.tick() => {
                if offered.is_stuck(pulse.offer()) {
                    return Ok(());
                }
                let idle = pulse.is_idle(ms(limits.idle_ms));
                if idle && leaving {
                    return Ok(());
                }
                idle
            }
        };
        if leave_now {
            leaving = true;
            leave(connection.as_mut());
        }
    }
}

/// What an answer's peer was seen to take, check by check. A peer that takes no byte at all is cut by the stream; this
/// is for the one that keeps the window of its HTTP/2 streams shut.
#[derive(Debug, Default)]
struct Offered {
    last: Option<u64>,
    unchanged: u32,
}

impl Offered {
    /// Whether nothing was taken in the time a connection may be idle.
    fn is_stuck(&mut self, offer: Option<u64>) -> bool {
        self.unchanged = if offer.is_some() && offer == self.last { self.unchanged + 1 } else { 0 };
        self.last = offer;
        self.unchanged >= 2
    }
}

fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

fn http1_builder(limits: &Limits) -> http1::Builder {
    let mut builder = http1::Builder::new();
    // Heads are capped and timed below hyper; these are a second line and must be the wider ones.
    let head = limits.header_bytes.saturating_add(limits.uri_bytes).saturating_add(1024);
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(ms(limits.idle_ms.saturating_add(limits.head_ms)))
        .max_buf_size(head.max(64 * 1024))
        .max_header_size(head)
        .half_close(false)
        .pipeline_flush(false);
    if limits.header_count > 100 {
        builder.max_headers(limits.header_count);
    }
    builder
}

fn http2_builder(limits: &Limits) -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    // Twice our own cap, so that a head somewhat too large is refused by us, and recorded.
    let list = u32::try_from(limits.header_bytes.saturating_add(limits.uri_bytes).saturating_mul(2));
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.h2_streams)
        .initial_stream_window_size(64 * 1024)
        .initial_connection_window_size(1024 * 1024)
        .adaptive_window(false)
        .max_send_buf_size(64 * 1024)
        .max_header_list_size(list.unwrap_or(u32::MAX))
        .max_pending_accept_reset_streams(20)
        .max_local_error_reset_streams(100)
        .keep_alive_interval(ms(limits.idle_ms))
        .keep_alive_timeout(Duration::from_secs(20));
    builder
}

#[cfg(test)]
mod tests;
