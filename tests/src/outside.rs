//! A server of somebody else's, for functions that call out: HTTPS on loopback, for one run.
//!
//! Owns its certificate and the count of what it was asked. Must never be reachable from elsewhere.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use bytes::Bytes;
use cofferdam_gateway::certificate;
use cofferdam_model::SystemClock;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::client::Broken;

/// The name it goes by.
pub const NAME: &str = "api.outside.example";

/// A running server. What it answers depends on the path: `/echo` says what it was sent, `/away` redirects to an
/// address inside, `/big` is 3 MiB, and anything else is greeted.
pub struct Outside {
    /// Port it listens on.
    pub port: u16,
    asked: Arc<AtomicUsize>,
    certificate: PathBuf,
    _dir: tempfile::TempDir,
}

impl Outside {
    /// Starts one.
    pub async fn start() -> Result<Self, Broken> {
        let dir = tempfile::tempdir()?;
        let (certificate, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
        certificate::create(&certificate, &key, &[NAME.to_owned()], &SystemClock::default())?;
        let chain = CertificateDer::pem_file_iter(&certificate)?.collect::<Result<_, _>>()?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, PrivateKeyDer::from_pem_file(&key)?)?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let (port, asked) = (listener.local_addr()?.port(), Arc::new(AtomicUsize::new(0)));
        tokio::spawn(serve(listener, TlsAcceptor::from(Arc::new(config)), asked.clone()));
        Ok(Self { port, asked, certificate, _dir: dir })
    }

    /// Its certificate.
    pub fn certificate(&self) -> &Path {
        &self.certificate
    }

    /// Requests it has seen.
    pub fn asked(&self) -> usize {
        self.asked.load(SeqCst)
    }

    /// Where a path of it is, as a query parameter of the function `fetch`.
    pub fn url(&self, path: &str) -> String {
        format!("url=https://{NAME}:{}{path}", self.port)
    }
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, asked: Arc<AtomicUsize>) {
    while let Ok((socket, _)) = listener.accept().await {
        let (acceptor, asked) = (acceptor.clone(), asked.clone());
        tokio::spawn(async move {
            let Ok(tls) = acceptor.accept(socket).await else { return };
            let service = service_fn(move |request| {
                asked.fetch_add(1, SeqCst);
                answer(request)
            });
            // A client that goes away in the middle is no error of ours.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(tls), service).await;
        });
    }
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let field =
        |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or("-").to_owned();
    let (path, authorization) = (request.uri().path().to_owned(), field("authorization"));
    let seen = format!(
        "{} {} host={} authorization={authorization} principal={}\n",
        request.method(),
        request.uri(),
        field("host"),
        field("x-cofferdam-principal"),
    );
    let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let response = match path.as_str() {
        "/echo" => {
            let text = [seen.as_bytes(), &body].concat();
            Response::builder().header("x-seen", authorization).body(Full::new(text.into()))
        }
        "/away" => Response::builder().status(302).header("location", "http://169.254.169.254/").body(Full::default()),
        "/big" => Response::builder().body(Full::new(vec![b'x'; 3 * 1024 * 1024].into())),
        _ => Response::builder().body(Full::new("greetings from outside\n".into())),
    };
    Ok(response.unwrap_or_default())
}
