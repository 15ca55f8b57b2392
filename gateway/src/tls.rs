//! TLS towards clients: versions, key exchange, certificates, and the handshake under a deadline.
//!
//! Owns the server configuration and the step from an accepted to a secured connection. Must never use a crypto
//! provider it did not name, take early data, or let one peer's handshakes keep everyone else out.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use cofferdam_authz::PeerCertificate;
use cofferdam_model::{ConnectionFacts, Limits, TlsVersion};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::{Acceptor, ClientHello, ResolvesServerCert, ServerSessionMemoryCache};
use rustls::sign::CertifiedKey;
use rustls::{HandshakeKind, ProtocolVersion, ServerConfig, ServerConnection};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

use crate::doors::{CameBy, Door};
use crate::error::GatewayError;
use crate::peers::PeerSlot;
use crate::respond::digest_of;

/// Sessions remembered for resumption.
const SESSIONS: usize = 4096;
/// The same at one tenant's door.
const SESSIONS_AT_DOOR: usize = 256;
const H2: &[u8] = b"h2";
const HTTP_1: &[u8] = b"http/1.1";

/// The provider of all cryptography of TLS, in both directions. X25519MLKEM768 comes first.
pub(crate) fn provider() -> CryptoProvider {
    let mut provider = aws_lc_rs::default_provider();
    provider.kx_groups = vec![
        aws_lc_rs::kx_group::X25519MLKEM768,
        aws_lc_rs::kx_group::X25519,
        aws_lc_rs::kx_group::SECP256R1,
        aws_lc_rs::kx_group::SECP384R1,
    ];
    provider
}

/// The certificate served now. Replacing it takes effect with the next handshake.
#[derive(Debug)]
struct Served(ArcSwap<CertifiedKey>);

impl ResolvesServerCert for Served {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

/// Secures connections.
#[derive(Debug, Clone)]
pub struct Tls {
    config: Arc<ServerConfig>,
    served: Arc<Served>,
    handshakes: Arc<Semaphore>,
    deadline: Duration,
    /// Handshakes that were completed.
    secured: Arc<AtomicU64>,
}

/// A connection after its handshake.
#[derive(Debug)]
pub struct Secured<S> {
    /// The decrypted stream.
    pub(crate) stream: TlsStream<S>,
    /// Version agreed on.
    pub(crate) version: TlsVersion,
    /// Whether the client chose HTTP/2.
    pub(crate) h2: bool,
    /// The door of a tenant, where the client named one's host.
    pub(crate) came: Option<CameBy>,
    /// What the log is told of it.
    pub(crate) facts: Arc<ConnectionFacts>,
    /// The peer.
    pub(crate) peer: SocketAddr,
    pub(crate) slot: PeerSlot,
}

impl Tls {
    /// Serves a certificate under the node's limits.
    pub fn new(certificate: CertifiedKey, limits: &Limits) -> Result<Self, GatewayError> {
        let served = Arc::new(Served(ArcSwap::from_pointee(certificate)));
        let mut config = ServerConfig::builder_with_provider(Arc::new(provider()))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(|source| GatewayError::Tls { source })?
            .with_no_client_auth()
            .with_cert_resolver(served.clone());
        settle(&mut config, SESSIONS);
        Ok(Self {
            config: Arc::new(config),
            served,
            handshakes: Arc::new(Semaphore::new(limits.handshakes.clamp(1, Semaphore::MAX_PERMITS))),
            deadline: Duration::from_millis(limits.handshake_ms),
            secured: Arc::default(),
        })
    }

    /// Serves another certificate from the next handshake on.
    pub fn replace(&self, certificate: CertifiedKey) {
        self.served.0.store(Arc::new(certificate));
    }

    /// What handshakes at a door are made with: certificates under its authorities, and a memory of sessions of its
    /// own. A session resumed is a chain not checked again, so none may come from another door or other authorities.
    fn at_door(&self, door: &Door) -> io::Result<Arc<ServerConfig>> {
        if let Some(made) = door.config.get() {
            return Ok(made.clone());
        }
        let mut config = ServerConfig::builder_with_provider(Arc::new(provider()))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(io::Error::other)?
            .with_client_cert_verifier(door.authorities.verifier())
            .with_cert_resolver(self.served.clone());
        settle(&mut config, SESSIONS_AT_DOOR);
        Ok(door.config.get_or_init(|| Arc::new(config)).clone())
    }

    /// Makes the handshake, or fails by its deadline. `doors` knows the hosts at which certificates are asked for.
    ///
    /// Waiting for the client's first message costs nothing but its connection. Only then a handshake counts against
    /// the number under way, and has a quarter of the time left to end, so that peers which begin and fall silent
    /// cannot hold up the others for long.
    pub(crate) async fn secure<S>(
        &self,
        stream: S,
        (peer, slot): (SocketAddr, PeerSlot),
        doors: impl Fn(&str) -> Option<Arc<Door>>,
    ) -> io::Result<Secured<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let work = async {
            let start = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
            let _share = slot.begin_handshake().ok_or_else(|| io::Error::from(io::ErrorKind::ConnectionRefused))?;
            let _permit = self.handshakes.acquire().await.map_err(io::Error::other)?;
            let named = start.client_hello().server_name().map(str::to_ascii_lowercase);
            let door = named.and_then(|host| doors(&host));
            let config = door.as_ref().map_or_else(|| Ok(self.config.clone()), |door| self.at_door(door))?;
            Ok((within(self.deadline / 4, start.into_stream(config)).await?, door))
        };
        let (stream, door) = within(self.deadline, work).await?;
        let (_, session) = stream.get_ref();
        let version = match session.protocol_version() {
            Some(ProtocolVersion::TLSv1_3) => TlsVersion::Tls13,
            Some(ProtocolVersion::TLSv1_2) => TlsVersion::Tls12,
            _ => return Err(io::Error::other("a version that was not offered")),
        };
        let h2 = session.alpn_protocol() == Some(H2);
        let shown = session.peer_certificates().map(<[_]>::to_vec);
        let facts = Arc::new(self.facts(session, peer));
        let came = door.map(|door| {
            let certificate = shown.map(|chain| Arc::new(PeerCertificate::new(door.tenant.clone(), chain)));
            CameBy { tenant: door.tenant.clone(), certificate }
        });
        Ok(Secured { stream, version, h2, came, facts, peer, slot })
    }

    /// What the log is told of a connection.
    fn facts(&self, session: &ServerConnection, peer: SocketAddr) -> ConnectionFacts {
        let named = |debug: String| Arc::from(debug);
        let certificate = session.peer_certificates().and_then(|chain| chain.first());
        ConnectionFacts {
            number: self.secured.fetch_add(1, Ordering::Relaxed).saturating_add(1),
            port: peer.port(),
            protocol: if session.alpn_protocol() == Some(H2) { "h2".into() } else { "http/1.1".into() },
            cipher: session
                .negotiated_cipher_suite()
                .map_or_else(|| "-".into(), |suite| named(format!("{:?}", suite.suite()))),
            group: session.negotiated_key_exchange_group().map(|group| named(format!("{:?}", group.name()))),
            resumed: session.handshake_kind() == Some(HandshakeKind::Resumed),
            certificate: certificate.map(|shown| digest_of(shown)),
        }
    }
}

/// What is the same at every door.
fn settle(config: &mut ServerConfig, sessions: usize) {
    config.alpn_protocols = vec![H2.to_vec(), HTTP_1.to_vec()];
    config.session_storage = ServerSessionMemoryCache::new(sessions);
    config.max_early_data_size = 0;
    config.send_tls13_tickets = 1;
}

async fn within<T>(time: Duration, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    match tokio::time::timeout(time, work).await {
        Ok(result) => result,
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "the handshake took too long")),
    }
}
