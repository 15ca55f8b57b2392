//! A server for tests that says exactly what it is told to, byte by byte.
//!
//! Must never be lenient: what it saw is kept as it was sent.

use super::*;

use std::sync::atomic::{AtomicUsize, Ordering};

use rcgen::{CertificateParams, KeyPair};
use rustls::HandshakeKind;
use rustls_pki_types::PrivateKeyDer;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio_rustls::TlsAcceptor;

/// What the server does with a request.
pub(super) enum Reply {
    /// Says this and goes on.
    Say(String),
    /// Says this and closes, with a goodbye in TLS.
    Last(String),
    /// Says this and breaks off, without one.
    Break(String),
    /// Says this and no more, but stays.
    Stall(String),
}

type Answer = Arc<dyn Fn(&str) -> Reply + Send + Sync>;

#[derive(Default)]
struct Seen {
    requests: Mutex<Vec<String>>,
    connections: AtomicUsize,
    ended: AtomicUsize,
    kinds: Mutex<Vec<Option<HandshakeKind>>>,
    changed: Notify,
}

/// A running server; it ends with the test's runtime.
pub(super) struct Server {
    pub(super) address: SocketAddr,
    seen: Arc<Seen>,
}

/// A certificate for these names, and its key; it is its own authority.
pub(super) struct Identity {
    pub(super) pem: String,
    acceptor: TlsAcceptor,
}

impl Identity {
    pub(super) fn of(names: &[&str]) -> Self {
        let params = CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap();
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let der = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let config = rustls::ServerConfig::builder_with_provider(Arc::new(crate::tls::provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], der)
            .unwrap();
        Self { pem: certificate.pem(), acceptor: TlsAcceptor::from(Arc::new(config)) }
    }
}

impl Server {
    /// Without TLS.
    pub(super) async fn plain(answer: impl Fn(&str) -> Reply + Send + Sync + 'static) -> Self {
        Self::start(None, Arc::new(answer)).await
    }

    pub(super) async fn tls(identity: &Identity, answer: impl Fn(&str) -> Reply + Send + Sync + 'static) -> Self {
        Self::start(Some(identity.acceptor.clone()), Arc::new(answer)).await
    }

    async fn start(acceptor: Option<TlsAcceptor>, answer: Answer) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Seen::default());
        let shared = seen.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                shared.connections.fetch_add(1, Ordering::SeqCst);
                let (acceptor, answer, seen) = (acceptor.clone(), answer.clone(), shared.clone());
                tokio::spawn(async move {
                    match acceptor {
                        None => serve(stream, &*answer, &seen).await,
                        Some(acceptor) => {
                            if let Ok(stream) = acceptor.accept(stream).await {
                                seen.kinds.lock().unwrap().push(stream.get_ref().1.handshake_kind());
                                serve(stream, &*answer, &seen).await;
                            }
                        }
                    }
                    seen.ended.fetch_add(1, Ordering::SeqCst);
                    seen.changed.notify_one();
                });
            }
        });
        Self { address, seen }
    }

    /// Requests as they came, head and body.
    pub(super) fn requests(&self) -> Vec<String> {
        self.seen.requests.lock().unwrap().clone()
    }

    pub(super) fn connections(&self) -> usize {
        self.seen.connections.load(Ordering::SeqCst)
    }

    pub(super) fn handshakes(&self) -> Vec<HandshakeKind> {
        self.seen.kinds.lock().unwrap().iter().map(|kind| kind.unwrap()).collect()
    }

    /// Waits until so many of its connections have ended.
    pub(super) async fn ended(&self, count: usize) {
        let wait = async {
            while self.seen.ended.load(Ordering::SeqCst) < count {
                self.seen.changed.notified().await;
            }
        };
        let ended = tokio::time::timeout(Duration::from_secs(20), wait).await;
        assert!(ended.is_ok(), "{count} connections never ended");
    }
}

async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin, answer: &(dyn Fn(&str) -> Reply + Sync), seen: &Seen) {
    while let Some(request) = read(&mut stream).await {
        seen.requests.lock().unwrap().push(request.clone());
        let (text, goes_on, goodbye) = match answer(&request) {
            Reply::Say(text) => (text, true, false),
            Reply::Last(text) => (text, false, true),
            Reply::Break(text) => (text, false, false),
            Reply::Stall(text) => {
                _ = stream.write_all(text.as_bytes()).await;
                _ = stream.flush().await;
                // Until the other side is gone.
                while !matches!(stream.read(&mut [0; 1024]).await, Ok(0) | Err(_)) {}
                return;
            }
        };
        if stream.write_all(text.as_bytes()).await.is_err() || stream.flush().await.is_err() {
            return;
        }
        if goodbye {
            _ = stream.shutdown().await;
        }
        if !goes_on {
            return;
        }
    }
}

/// A request with its body, as it was framed.
async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Option<String> {
    let mut text = Vec::new();
    let mut byte = [0];
    while !text.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte).await.ok()? == 0 {
            return None;
        }
        text.push(byte[0]);
    }
    let head = String::from_utf8(text.clone()).unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).map(|n| n.parse().unwrap());
    let chunked = head.contains("transfer-encoding: chunked");
    let mut body = Vec::new();
    while if chunked { !body.ends_with(b"0\r\n\r\n") } else { body.len() < length.unwrap_or(0usize) } {
        if stream.read(&mut byte).await.ok()? == 0 {
            return None;
        }
        body.push(byte[0]);
    }
    text.extend_from_slice(&body);
    Some(String::from_utf8(text).unwrap())
}

/// A whole answer.
pub(super) fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}
