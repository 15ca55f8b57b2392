//! Receivers of other people, started by the test: HTTPS that does what a script says, and syslog over TLS.
//!
//! Must never be more lenient than the real ones.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::PrivateKeyDer;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

/// A request as a server sees it.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) method: String,
    pub(super) path: String,
    pub(super) headers: HashMap<String, String>,
    pub(super) body: Vec<u8>,
}

/// What becomes of it.
pub(super) enum Does {
    Answers(u16, Vec<(&'static str, String)>, String),
    /// Never answers.
    Hangs,
    /// Breaks off without an answer.
    Breaks,
}

impl Does {
    pub(super) fn status(status: u16) -> Self {
        Self::Answers(status, Vec::new(), String::new())
    }
}

pub(super) type Script = Arc<dyn Fn(&Seen) -> Does + Send + Sync>;

/// Certificates of a server, and of a client it knows.
pub(super) struct Pki {
    pub(super) dir: tempfile::TempDir,
    chain: Vec<rustls_pki_types::CertificateDer<'static>>,
    key: Vec<u8>,
    roots: Arc<RootCertStore>,
}

impl Pki {
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let root = params.self_signed(&key).unwrap();
        std::fs::write(dir.path().join("ca.pem"), root.pem()).unwrap();
        let issuer = Issuer::new(params, key);
        let made = |name: &str| {
            let key = KeyPair::generate().unwrap();
            let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
            (params.signed_by(&key, &issuer).unwrap(), key)
        };
        let ((server, key), (client, client_key)) = (made("localhost"), made("node.example"));
        std::fs::write(dir.path().join("client.pem"), client.pem()).unwrap();
        let pki = Self {
            chain: vec![server.der().clone()],
            key: key.serialize_der(),
            roots: {
                let mut roots = RootCertStore::empty();
                roots.add(root.der().clone()).unwrap();
                Arc::new(roots)
            },
            dir,
        };
        pki.private("client.key", &client_key.serialize_pem());
        pki
    }

    /// A file that its owner alone may read.
    pub(super) fn private(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        let _ = std::fs::remove_file(&path);
        cofferdam_control::create_private(&path, text.as_bytes()).unwrap();
        path
    }

    pub(super) fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    fn acceptor(&self, mutual: bool) -> TlsAcceptor {
        let provider = Arc::new(crate::tls::provider());
        let builder = rustls::ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .unwrap();
        let builder = if mutual {
            let verifier = WebPkiClientVerifier::builder_with_provider(self.roots.clone(), provider).build().unwrap();
            builder.with_client_cert_verifier(verifier)
        } else {
            builder.with_no_client_auth()
        };
        let key = PrivateKeyDer::try_from(self.key.clone()).unwrap();
        TlsAcceptor::from(Arc::new(builder.with_single_cert(self.chain.clone(), key).unwrap()))
    }
}

/// A server that goes with all its connections when it is dropped.
pub(super) struct Running {
    pub(super) port: u16,
    serving: JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Running {
    /// Ends it, and waits until its port is free.
    pub(super) async fn stop(mut self) -> u16 {
        self.serving.abort();
        let _ = (&mut self.serving).await;
        self.port
    }
}

/// An HTTPS server on a port, or on any where that is 0.
pub(super) async fn https(pki: &Pki, port: u16, script: Script) -> Running {
    let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    let (port, acceptor) = (listener.local_addr().unwrap().port(), pki.acceptor(false));
    let serving = tokio::spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((socket, _)) = listener.accept().await {
            let (acceptor, script) = (acceptor.clone(), script.clone());
            connections.spawn(async move {
                let Ok(tls) = acceptor.accept(socket).await else { return };
                let service = service_fn(move |request| answer(request, script.clone()));
                let _ = http1::Builder::new().serve_connection(TokioIo::new(tls), service).await;
            });
        }
    });
    Running { port, serving }
}

async fn answer(request: Request<Incoming>, script: Script) -> Result<Response<Full<Bytes>>, &'static str> {
    let (head, body) = request.into_parts();
    let headers = head.headers.iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()));
    let seen = Seen {
        method: head.method.to_string(),
        path: head.uri.to_string(),
        headers: headers.collect(),
        body: body.collect().await.map(|body| body.to_bytes().to_vec()).unwrap_or_default(),
    };
    match script(&seen) {
        Does::Answers(status, headers, text) => {
            let mut response = Response::builder().status(status);
            for (name, value) in headers {
                response = response.header(name, value);
            }
            Ok(response.body(Full::new(Bytes::from(text))).unwrap())
        }
        Does::Hangs => std::future::pending().await,
        Does::Breaks => Err("broken off"),
    }
}

/// A receiver of syslog that wants to see a client's certificate. What it read of a connection comes out whole; whether
/// it then says that it read everything, `confirms` says by the connection's number.
pub(super) async fn syslog(
    pki: &Pki,
    confirms: impl Fn(usize) -> bool + Send + 'static,
) -> (Running, UnboundedReceiver<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (port, acceptor) = (listener.local_addr().unwrap().port(), pki.acceptor(true));
    let (read, seen) = unbounded_channel();
    let serving = tokio::spawn(async move {
        let mut number = 0;
        while let Ok((socket, _)) = listener.accept().await {
            let Ok(tls) = acceptor.accept(socket).await else { continue };
            receive(tls, confirms(number), &read).await;
            number += 1;
        }
    });
    (Running { port, serving }, seen)
}

async fn receive(
    mut tls: tokio_rustls::server::TlsStream<tokio::net::TcpStream>,
    confirms: bool,
    read: &UnboundedSender<Vec<u8>>,
) {
    let mut whole = Vec::new();
    // Ends at the other side's close alone: a connection cut short is an error.
    tls.read_to_end(&mut whole).await.unwrap();
    if confirms {
        let _ = read.send(whole);
        let _ = tls.shutdown().await;
    }
}
