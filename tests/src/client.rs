//! A plain HTTPS client over one kept connection, and another one after the node announced that it ends the first.
//!
//! Owns TLS trust in the node's own certificate and the reading of whole answers. Must never retry: a test counts.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Anything that ends a call without an answer.
pub type Broken = Box<dyn std::error::Error + Send + Sync>;

/// A whole answer.
#[derive(Debug)]
pub struct Answer {
    /// Status.
    pub status: StatusCode,
    /// Header fields.
    pub headers: HeaderMap,
    /// Body.
    pub body: Bytes,
}

impl Answer {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON; null where it is none.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// A header as text; empty where it is not there.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default()
    }
}

/// TLS that trusts exactly this certificate.
pub fn connector(certificate: &Path, alpn: &[&[u8]]) -> Result<TlsConnector, Broken> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(certificate)? {
        roots.add(certificate?)?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|p| p.to_vec()).collect();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// A connection, and whether it resumed an earlier session.
type Dialled = (http1::SendRequest<Full<Bytes>>, bool);

/// One kept HTTP/1.1 connection.
pub struct Client {
    sender: http1::SendRequest<Full<Bytes>>,
    to: (String, u16, TlsConnector),
    /// Whether the last answer said that it is the last one.
    over: bool,
    host: String,
    resumed: bool,
    authorization: Option<String>,
    more: Option<(String, String)>,
}

impl Client {
    /// Connects to a node on loopback.
    pub async fn connect(port: u16, certificate: &Path) -> Result<Self, Broken> {
        Self::connect_to("localhost", port, connector(certificate, &[b"http/1.1"])?).await
    }

    /// Connects to a node on loopback as a host of that name.
    pub async fn connect_to(host: &str, port: u16, connector: TlsConnector) -> Result<Self, Broken> {
        let to = (host.to_owned(), port, connector);
        let (sender, resumed) = dial(&to).await?;
        Ok(Self { sender, to, over: false, host: host.to_owned(), resumed, authorization: None, more: None })
    }

    /// Names this host in every call from now on, whatever the connection was made to.
    pub fn at_host(mut self, host: &str) -> Self {
        self.host = host.to_owned();
        self
    }

    /// Whether the handshake resumed an earlier session.
    pub fn resumed(&self) -> bool {
        self.resumed
    }

    /// Sends this `authorization` with every call from now on.
    pub fn with(mut self, authorization: &str) -> Self {
        self.authorization = Some(authorization.to_owned());
        self
    }

    /// Sends this header field with every call from now on.
    pub fn with_header(mut self, name: &str, value: &str) -> Self {
        self.more = Some((name.to_owned(), value.to_owned()));
        self
    }

    /// Sends a request and gives the answer while its body is still coming.
    pub async fn open(
        &mut self,
        method: Method,
        path: &str,
        body: impl Into<Bytes>,
    ) -> Result<http::Response<hyper::body::Incoming>, Broken> {
        if std::mem::take(&mut self.over) {
            (self.sender, self.resumed) = dial(&self.to).await?;
        }
        self.sender.ready().await?;
        let mut request = Request::builder().method(method).uri(path).header("host", &self.host);
        if let Some(authorization) = &self.authorization {
            request = request.header("authorization", authorization);
        }
        if let Some((name, value)) = &self.more {
            request = request.header(name, value);
        }
        let answer = self.sender.send_request(request.body(Full::new(body.into()))?).await?;
        self.over = answer.headers().get(http::header::CONNECTION).is_some_and(|field| field == "close");
        Ok(answer)
    }

    /// Sends a request and reads its whole answer.
    pub async fn call(&mut self, method: Method, path: &str, body: impl Into<Bytes>) -> Result<Answer, Broken> {
        let (head, body) = self.open(method, path, body).await?.into_parts();
        Ok(Answer { status: head.status, headers: head.headers, body: body.collect().await?.to_bytes() })
    }

    /// GET.
    pub async fn get(&mut self, path: &str) -> Result<Answer, Broken> {
        self.call(Method::GET, path, Bytes::new()).await
    }
}

/// A new connection, and whether it resumed an earlier session.
async fn dial((host, port, connector): &(String, u16, TlsConnector)) -> Result<Dialled, Broken> {
    let tcp = TcpStream::connect(("127.0.0.1", *port)).await?;
    tcp.set_nodelay(true)?;
    let tls = connector.connect(ServerName::try_from(host.clone())?, tcp).await?;
    let resumed = tls.get_ref().1.handshake_kind() == Some(rustls::HandshakeKind::Resumed);
    let (sender, connection) = http1::handshake(TokioIo::new(tls)).await?;
    tokio::spawn(connection);
    Ok((sender, resumed))
}
