//! An issuer of the tests' own: real HTTPS on loopback, with discovery, keys that change, and a switch.
//!
//! Owns its certificate, what it publishes and the tokens it signs. Must never be reachable from elsewhere.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use bytes::Bytes;
use cofferdam_gateway::certificate;
use cofferdam_model::{Clock, SystemClock};
use cofferdam_tests::Broken;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// A signing key.
pub(crate) struct Key {
    pair: Ed25519KeyPair,
    kid: &'static str,
}

impl Key {
    pub(crate) fn new(kid: &'static str) -> Self {
        Self { pair: Ed25519KeyPair::generate().unwrap(), kid }
    }

    fn jwk(&self) -> Value {
        let x = base64url(self.pair.public_key().as_ref());
        json!({ "kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": "EdDSA", "kid": self.kid, "x": x })
    }
}

#[derive(Default)]
struct State {
    set: Mutex<String>,
    away: AtomicBool,
    asked: AtomicUsize,
}

/// A running issuer.
pub(crate) struct Issuer {
    port: u16,
    state: Arc<State>,
    certificate: PathBuf,
    _dir: tempfile::TempDir,
}

impl Issuer {
    /// Starts one that publishes these keys.
    pub(crate) async fn start(keys: &[&Key]) -> Result<Self, Broken> {
        let dir = tempfile::tempdir()?;
        let (certificate, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
        certificate::create(&certificate, &key, &[], &SystemClock::default())?;
        let chain = CertificateDer::pem_file_iter(&certificate)?.collect::<Result<_, _>>()?;
        let config =
            rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
                .with_safe_default_protocol_versions()?
                .with_no_client_auth()
                .with_single_cert(chain, PrivateKeyDer::from_pem_file(&key)?)?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let (port, state) = (listener.local_addr()?.port(), Arc::<State>::default());
        let issuer = Self { port, state: state.clone(), certificate, _dir: dir };
        issuer.publish(keys);
        tokio::spawn(serve(listener, TlsAcceptor::from(Arc::new(config)), state, issuer.name()));
        Ok(issuer)
    }

    /// What it is called.
    pub(crate) fn name(&self) -> String {
        format!("https://localhost:{}", self.port)
    }

    /// Its certificate.
    pub(crate) fn certificate(&self) -> &Path {
        &self.certificate
    }

    /// Publishes these keys and no others.
    pub(crate) fn publish(&self, keys: &[&Key]) {
        let keys: Vec<_> = keys.iter().map(|key| key.jwk()).collect();
        *self.state.set.lock().unwrap() = json!({ "keys": keys }).to_string();
    }

    /// Hangs up on whoever asks, or no more.
    pub(crate) fn away(&self, away: bool) {
        self.state.away.store(away, SeqCst);
    }

    /// Requests for keys it has answered.
    pub(crate) fn asked(&self) -> usize {
        self.state.asked.load(SeqCst)
    }

    /// A token for somebody, as an `authorization` value; good for five minutes.
    pub(crate) fn token(&self, key: &Key, subject: &str) -> String {
        let now = SystemClock::default().now().seconds();
        let header = json!({ "alg": "EdDSA", "typ": "at+jwt", "kid": key.kid });
        let claims = json!({
            "iss": self.name(), "aud": "cofferdam", "sub": subject, "client_id": "tests",
            "jti": format!("{subject}-{now}"), "roles": ["invoker"], "iat": now, "exp": now + 300,
        });
        let signed =
            format!("{}.{}", base64url(header.to_string().as_bytes()), base64url(claims.to_string().as_bytes()));
        let signature = base64url(key.pair.sign(signed.as_bytes()).as_ref());
        format!("Bearer {signed}.{signature}")
    }
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, state: Arc<State>, name: String) {
    while let Ok((socket, _)) = listener.accept().await {
        if state.away.load(SeqCst) {
            continue;
        }
        let (acceptor, state, name) = (acceptor.clone(), state.clone(), name.clone());
        tokio::spawn(async move {
            let Ok(tls) = acceptor.accept(socket).await else { return };
            let service = service_fn(move |request| {
                let answer = answer(&request, &state, &name);
                async move { Ok::<_, Infallible>(answer) }
            });
            // A client that goes away in the middle is no error of ours.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(tls), service).await;
        });
    }
}

fn answer(request: &Request<Incoming>, state: &State, name: &str) -> Response<Full<Bytes>> {
    let text = match request.uri().path() {
        "/.well-known/openid-configuration" => {
            json!({ "issuer": name, "jwks_uri": format!("{name}/keys") }).to_string()
        }
        "/keys" => {
            state.asked.fetch_add(1, SeqCst);
            state.set.lock().unwrap().clone()
        }
        _ => {
            let mut missing = Response::new(Full::default());
            *missing.status_mut() = StatusCode::NOT_FOUND;
            return missing;
        }
    };
    Response::new(Full::new(text.into()))
}

fn base64url(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let number = chunk.iter().fold(0u32, |n, b| n << 8 | u32::from(*b)) << (8 * (3 - chunk.len()));
        for place in 0..=chunk.len() {
            out.push(char::from(ALPHABET[(number >> (18 - 6 * place)) as usize & 63]));
        }
    }
    out
}
