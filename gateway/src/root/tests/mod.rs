//! Root keys elsewhere, tried against servers of their protocols: real HTTPS, started by the test.
//!
//! Must never be more lenient than the real ones: a request these would refuse is refused here too.
#![cfg(all(feature = "aws-kms", feature = "vault-transit"))]

mod kms;
mod metadata;
mod transit;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use cofferdam_control::vault::{OrdinaryMemory, RootError, RootKey, WrapContext};
use cofferdam_model::clock::ManualClock;
use cofferdam_model::random::SeededRandom;
use cofferdam_model::{Random, TenantId, UnixNanos};
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rcgen::{CertificateParams, KeyPair};
use rustls_pki_types::PrivateKeyDer;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use zeroize::Zeroizing;

use super::*;

pub(super) const NOW: u64 = 1_795_171_080;

/// A request as a server sees it.
pub(super) struct Seen {
    pub(super) method: String,
    pub(super) path: String,
    pub(super) headers: HashMap<String, String>,
    pub(super) body: Vec<u8>,
}

pub(super) type Answers = Arc<dyn Fn(Seen) -> (u16, String) + Send + Sync>;

/// A server of somebody else's, for one test.
pub(super) struct Server {
    pub(super) url: String,
    pub(super) dir: tempfile::TempDir,
    runtime: tokio::runtime::Runtime,
}

impl Server {
    pub(super) fn start(answers: Answers) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let certificate = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
        std::fs::write(dir.path().join("ca.pem"), certificate.pem()).unwrap();
        let der = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let config = rustls::ServerConfig::builder_with_provider(Arc::new(crate::tls::provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], der)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let (mut server, listener) = Self::begin(dir);
        server.url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
        server.runtime.spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (acceptor, answers) = (acceptor.clone(), answers.clone());
                tokio::spawn(async move {
                    let Ok(tls) = acceptor.accept(socket).await else { return };
                    let service = service_fn(move |request| answer(request, answers.clone()));
                    let _ = http1::Builder::new().serve_connection(TokioIo::new(tls), service).await;
                });
            }
        });
        server
    }

    /// One without TLS, as metadata services are.
    pub(super) fn plain(answers: Answers) -> Self {
        let (server, listener) = Self::begin(tempfile::tempdir().unwrap());
        server.runtime.spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let answers = answers.clone();
                tokio::spawn(async move {
                    let service = service_fn(move |request| answer(request, answers.clone()));
                    let _ = http1::Builder::new().serve_connection(TokioIo::new(socket), service).await;
                });
            }
        });
        server
    }

    fn begin(dir: tempfile::TempDir) -> (Self, TcpListener) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        (Self { url, dir, runtime }, listener)
    }

    /// A file beside its certificate that its owner alone may read.
    pub(super) fn private(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        let _ = std::fs::remove_file(&path);
        cofferdam_control::create_private(&path, text.as_bytes()).unwrap();
        path
    }

    pub(super) fn ca(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }
}

async fn answer(
    request: Request<Incoming>,
    answers: Answers,
) -> Result<Response<Full<Bytes>>, std::convert::Infallible> {
    let (head, body) = request.into_parts();
    let headers = head.headers.iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()));
    let seen = Seen {
        method: head.method.to_string(),
        path: head.uri.path().to_owned(),
        headers: headers.collect(),
        body: body.collect().await.map(|body| body.to_bytes().to_vec()).unwrap_or_default(),
    };
    let (status, text) = answers(seen);
    Ok(Response::builder().status(status).body(Full::new(Bytes::from(text))).unwrap())
}

pub(super) fn parts() -> Parts {
    parts_at(Arc::new(ManualClock::at(UnixNanos::from_seconds(NOW))))
}

pub(super) fn parts_at(clock: Arc<ManualClock>) -> Parts {
    Parts { memory: Arc::new(OrdinaryMemory), clock, random: Arc::new(SeededRandom::new(4)) }
}

pub(super) fn opened(provider: &Provider) -> Arc<dyn RootKey> {
    open(provider, std::path::Path::new("/nonexistent"), &parts()).unwrap()
}

/// A key that is wrapped, and what it belongs to.
pub(super) struct Wrapping {
    pub(super) tenant: TenantId,
    pub(super) id: [u8; 32],
    pub(super) key: Zeroizing<[u8; 32]>,
}

impl Wrapping {
    pub(super) fn new() -> Self {
        let random = SeededRandom::new(8);
        let mut key = Zeroizing::new([0; 32]);
        random.fill(key.as_mut_slice());
        Self { tenant: TenantId::mint(&random), id: [9; 32], key }
    }

    pub(super) fn context(&self) -> WrapContext<'_> {
        WrapContext { tenant: &self.tenant, version: 3, id: &self.id }
    }
}

/// AES-256-GCM under random nonces, as those servers have it inside.
pub(super) mod crypt {
    use aws_lc_rs::aead::{AES_256_GCM, Aad, RandomizedNonceKey};

    pub(in super::super) fn seal(key: &[u8; 32], aad: &[u8], plaintext: &[u8]) -> Vec<u8> {
        let mut bytes = plaintext.to_vec();
        let key = RandomizedNonceKey::new(&AES_256_GCM, key).unwrap();
        let nonce = key.seal_in_place_append_tag(Aad::from(aad), &mut bytes).unwrap();
        [nonce.as_ref().as_slice(), &bytes].concat()
    }

    pub(in super::super) fn open(key: &[u8; 32], aad: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        let (nonce, bytes) = sealed.split_first_chunk::<12>()?;
        let mut bytes = bytes.to_vec();
        let key = RandomizedNonceKey::new(&AES_256_GCM, key).unwrap();
        let nonce = aws_lc_rs::aead::Nonce::assume_unique_for_key(*nonce);
        Some(key.open_in_place(nonce, Aad::from(aad), &mut bytes).ok()?.to_vec())
    }
}

pub(super) fn is_unavailable(error: &RootError) -> bool {
    matches!(error, RootError::Unavailable(_))
}

pub(super) fn is_refused(error: &RootError) -> bool {
    matches!(error, RootError::Refused(_))
}

pub(super) fn is_wrong(error: &RootError) -> bool {
    matches!(error, RootError::WrongKey(_))
}

#[test]
fn a_root_key_that_nobody_serves_is_out_of_reach_within_its_deadline() {
    // A port that was just given back: nobody listens there.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    drop(listener);
    let server = Server::start(Arc::new(|_| (200, "{}".into())));
    let token_file = server.private("token", "t");
    let config = serde_json::json!({ "vault": {
        "address": address, "token_file": token_file, "ca": server.ca(), "deadline_ms": 500,
    } });
    let root = opened(&serde_json::from_value(config).unwrap());
    assert!(is_unavailable(&root.check().unwrap_err()));
}

#[test]
fn a_server_that_the_authority_does_not_vouch_for_is_told_nothing() {
    let asked = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = asked.clone();
    let server = Server::start(Arc::new(move |_| {
        count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        (200, "{}".into())
    }));
    let other = Server::start(Arc::new(|_| (200, "{}".into())));
    let token_file = server.private("token", "t");
    let config = serde_json::json!({ "vault": { "address": server.url, "token_file": token_file, "ca": other.ca() } });
    let root = opened(&serde_json::from_value(config).unwrap());
    let wrapping = Wrapping::new();
    assert!(is_unavailable(&root.wrap(&wrapping.context(), &wrapping.key).unwrap_err()));
    assert_eq!(asked.load(std::sync::atomic::Ordering::SeqCst), 0);
}

#[test]
fn credential_that_others_can_read_is_not_used() {
    use std::os::unix::fs::PermissionsExt as _;
    let server = Server::start(Arc::new(|_| (200, "{}".into())));
    let token_file = server.private("token", "t");
    std::fs::set_permissions(&token_file, std::fs::Permissions::from_mode(0o644)).unwrap();
    let config = serde_json::json!({ "vault": { "address": server.url, "token_file": token_file, "ca": server.ca() } });
    let refused = opened(&serde_json::from_value(config).unwrap()).check().unwrap_err();
    assert!(is_refused(&refused) && refused.to_string().contains("readable by others"), "{refused}");
}

#[test]
fn credential_of_systemd_is_a_root_key_and_goes_on_with_the_one_before() {
    let server = Server::start(Arc::new(|_| (200, "{}".into())));
    let directory = server.dir.path().to_owned();
    for (name, byte) in [("old", "1"), ("new", "2")] {
        server.private(name, &byte.repeat(32));
    }
    let given = |credential: &str, before: &[&str]| {
        let config = serde_json::json!({
            "systemd": { "credential": credential, "before": before, "directory": directory },
        });
        opened(&serde_json::from_value(config).unwrap())
    };
    let wrapping = Wrapping::new();
    let old = given("old", &[]).wrap(&wrapping.context(), &wrapping.key).unwrap();
    assert!(is_wrong(&given("new", &[]).unwrap(&wrapping.context(), &old).unwrap_err()));
    let both = given("new", &["old"]);
    assert_eq!(both.unwrap(&wrapping.context(), &old).unwrap(), wrapping.key);
    both.begin_rotation().unwrap();
    let new = both.rewrap(&wrapping.context(), &old).unwrap().unwrap();
    assert!(both.is_current(&new.root) && !both.is_current(&old.root));
    both.end_rotation(false).unwrap();
    assert_eq!(given("new", &[]).unwrap(&wrapping.context(), &new).unwrap(), wrapping.key);
}
