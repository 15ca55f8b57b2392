//! One connection to one HTTPS server, kept for as long as it is good.
//!
//! Owns whom to believe and what to show, and the exchange. Must never follow a redirect, speak without TLS, or read
//! more of an answer than it needs.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::config::SinkTls;
use super::error::SinkError;
use crate::client::{Target, Trust, roots};
use crate::error::GatewayError;
use crate::{certificate, credentials, tls};

/// Bytes of an answer that are looked at.
const ANSWER_BYTES: usize = 64 * 1024;
/// The longest a server can have us wait.
const LONGEST_WAIT: u64 = 300;

/// The authorities that browsers believe.
static PUBLIC: LazyLock<Arc<RootCertStore>> =
    LazyLock::new(|| Arc::new(RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() }));

/// Reads what a connection is made with. Done anew after each failure, so that replaced files count.
fn connector(files: &SinkTls, http: bool) -> Result<TlsConnector, GatewayError> {
    let trusted = match &files.ca {
        Some(ca) => Arc::new(roots(&Trust::File(ca.clone()))?),
        None => PUBLIC.clone(),
    };
    let builder = ClientConfig::builder_with_provider(Arc::new(tls::provider()))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(|source| GatewayError::Tls { source })?
        .with_root_certificates(trusted);
    let mut config = match (&files.certificate, &files.key) {
        (Some(chain), Some(key)) => {
            let shown = SingleCertAndKey::from(certificate::load(chain, key)?);
            builder.with_client_cert_resolver(Arc::new(shown))
        }
        _ => builder.with_no_client_auth(),
    };
    if http {
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
    }
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Connects to a server by TLS.
pub(super) struct Dial {
    files: SinkTls,
    http: bool,
    connector: Option<TlsConnector>,
}

impl Dial {
    /// Fails where a file is not what it should be.
    pub(super) fn new(files: SinkTls, http: bool) -> Result<Self, GatewayError> {
        let connector = Some(connector(&files, http)?);
        Ok(Self { files, http, connector })
    }

    pub(super) async fn connect(&mut self, to: &Target) -> Result<TlsStream<TcpStream>, GatewayError> {
        let connector = match self.connector.take() {
            Some(connector) => connector,
            None => connector(&self.files, self.http)?,
        };
        let unreachable = |source| GatewayError::Connect { authority: to.authority.clone(), source };
        let stream = TcpStream::connect((to.host.as_str(), to.port)).await.map_err(unreachable)?;
        stream.set_nodelay(true).map_err(unreachable)?;
        let stream = connector.connect(to.name.clone(), stream).await.map_err(unreachable)?;
        self.connector = Some(connector);
        Ok(stream)
    }

    /// Has files read anew.
    pub(super) fn forget(&mut self) {
        self.connector = None;
    }
}

/// What was answered.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// The connection.
pub(super) struct Line {
    pub(super) target: Target,
    dial: Dial,
    kept: Option<Kept>,
}

struct Kept {
    sender: SendRequest<Full<Bytes>>,
    driving: JoinHandle<()>,
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.driving.abort();
    }
}

impl Line {
    pub(super) fn new(url: &str, files: &SinkTls) -> Result<Self, GatewayError> {
        Ok(Self { target: Target::parse(url)?, dial: Dial::new(files.clone(), true)?, kept: None })
    }

    /// Asks. One that fails on a connection that was used before is asked once more on a new one: servers close those
    /// they hold idle.
    pub(super) async fn ask(
        &mut self,
        method: Method,
        path: Uri,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Answer, SinkError> {
        let mut request = Request::new(Full::new(body));
        (*request.method_mut(), *request.uri_mut(), *request.headers_mut()) = (method, path, headers);
        let host = HeaderValue::from_str(&self.target.authority).map_err(|error| self.broken(error))?;
        request.headers_mut().insert(header::HOST, host);
        if let Some(kept) = self.kept.take()
            && !kept.sender.is_closed()
            && let Ok(answer) = self.exchange(kept, request.clone()).await
        {
            return Ok(answer);
        }
        let stream = self.dial.connect(&self.target).await?;
        let handshake = http1::handshake(TokioIo::new(stream)).await;
        let (sender, connection) = handshake.map_err(|error| self.broken(error))?;
        // Ends with the sender: by itself, or by the drop of what is kept.
        let driving = tokio::spawn(async move {
            let _ = connection.await;
        });
        self.exchange(Kept { sender, driving }, request).await
    }

    async fn exchange(&mut self, mut kept: Kept, request: Request<Full<Bytes>>) -> Result<Answer, SinkError> {
        kept.sender.ready().await.map_err(|error| self.broken(error))?;
        let answer = kept.sender.send_request(request).await.map_err(|error| self.broken(error))?;
        let (parts, mut body) = answer.into_parts();
        let mut whole = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map_err(|error| self.broken(error))?.into_data() else { continue };
            if whole.len().saturating_add(data.len()) > ANSWER_BYTES {
                // The status is known, which is all that counts; what else it says is not waited for.
                return Ok(Answer { status: parts.status, headers: parts.headers, body: whole.freeze() });
            }
            whole.extend_from_slice(&data);
        }
        self.kept = Some(kept);
        Ok(Answer { status: parts.status, headers: parts.headers, body: whole.freeze() })
    }

    fn broken(&self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> SinkError {
        SinkError::Broken { authority: self.target.authority.clone(), source: source.into() }
    }

    /// Gives the connection up, and has files read anew.
    pub(super) fn forget(&mut self) {
        self.kept = None;
        self.dial.forget();
    }

    /// Takes an answer for what it is: an acknowledgement, or a refusal with a name.
    pub(super) fn acknowledged(&self, answer: &Answer, code: impl FnOnce(&[u8]) -> String) -> Result<(), SinkError> {
        if answer.status.is_success() {
            return Ok(());
        }
        let wait = answer.headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
        Err(SinkError::Status {
            authority: self.target.authority.clone(),
            status: answer.status.as_u16(),
            code: code(&answer.body),
            retry_after: wait.map(|seconds| Duration::from_secs(seconds.min(LONGEST_WAIT))),
        })
    }
}

/// A field whose value is shown to nobody else.
pub(super) fn secret_field(value: &str, what: &str) -> Result<HeaderValue, SinkError> {
    let bad = |_| SinkError::Credential(format!("{what} cannot be a header's value"));
    let mut value = HeaderValue::from_str(value.trim()).map_err(bad)?;
    value.set_sensitive(true);
    Ok(value)
}

/// Adds `authorization` as a file has it, read anew each time.
pub(super) fn authorize(headers: &mut HeaderMap, file: Option<&std::path::Path>) -> Result<(), SinkError> {
    if let Some(file) = file {
        let value = credentials::read(file).map_err(SinkError::Credential)?;
        headers.insert(header::AUTHORIZATION, secret_field(&value, "what is in `authorization_file`")?);
    }
    Ok(())
}

/// A field of ours.
pub(super) fn field(headers: &mut HeaderMap, name: &'static str, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(HeaderName::from_static(name), value);
    }
}
