//! A small HTTPS client, for the key sets of issuers and for the command line.
//!
//! Owns whom to trust, and the caps and deadline every exchange is under. Must never follow a redirect, speak without
//! TLS, or read more than it was told to.

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use cofferdam_authz::{FetchError, JwksSource};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::error::GatewayError;
use crate::tls;

/// Whom a client trusts.
#[derive(Debug, Clone)]
pub enum Trust {
    /// The roots of the system.
    Native,
    /// The certificates of a PEM file and nobody else: an authority's, or a server's own self-signed one.
    File(PathBuf),
}

/// Caps of an exchange.
#[derive(Debug, Clone, Copy)]
pub struct Caps {
    /// From the first packet to the last byte of the answer.
    pub deadline: Duration,
    /// Bytes of the answer's body.
    pub answer_bytes: usize,
}

impl Default for Caps {
    fn default() -> Self {
        Self { deadline: Duration::from_secs(60), answer_bytes: 64 * 1024 * 1024 }
    }
}

/// An answer, whatever its status.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its fields.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

/// The client. One connection per request.
#[derive(Clone)]
pub struct Client {
    connector: TlsConnector,
    caps: Caps,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("caps", &self.caps).finish_non_exhaustive()
    }
}

impl Client {
    /// A client that trusts so and is capped so.
    pub fn new(trust: &Trust, caps: Caps) -> Result<Self, GatewayError> {
        let mut config = ClientConfig::builder_with_provider(Arc::new(tls::provider()))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(|source| GatewayError::Tls { source })?
            .with_root_certificates(roots(trust)?)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { connector: TlsConnector::from(Arc::new(config)), caps })
    }

    /// Asks, and reads the whole answer. `host` and the body's length are added to the fields.
    pub async fn request(
        &self,
        method: Method,
        url: &str,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Answer, GatewayError> {
        let target = Target::parse(url)?;
        let authority = target.authority.clone();
        match tokio::time::timeout(self.caps.deadline, self.exchange(target, method, headers, body)).await {
            Ok(answered) => answered,
            Err(_) => Err(GatewayError::Timeout { authority }),
        }
    }

    async fn exchange(
        &self,
        target: Target,
        method: Method,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Answer, GatewayError> {
        let Target { authority, host, port, path, name } = target;
        let unreachable = |source| GatewayError::Connect { authority: authority.clone(), source };
        let stream = TcpStream::connect((host.as_str(), port)).await.map_err(unreachable)?;
        stream.set_nodelay(true).map_err(unreachable)?;
        let stream = self.connector.connect(name, stream).await.map_err(unreachable)?;
        let exchange = Exchange { authority, path, answer_bytes: self.caps.answer_bytes };
        exchange.over(stream, method, headers, body).await
    }
}

/// One request over a stream that is there, and its answer.
pub(crate) struct Exchange {
    /// As the `Host` field gives it.
    pub(crate) authority: String,
    /// With its query.
    pub(crate) path: Uri,
    /// Bytes of the answer's body.
    pub(crate) answer_bytes: usize,
}

impl Exchange {
    /// Asks, and reads the whole answer. The stream ends with it.
    pub(crate) async fn over<S: AsyncRead + AsyncWrite + Unpin>(
        self,
        stream: S,
        method: Method,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Answer, GatewayError> {
        let Self { authority, path, answer_bytes } = self;
        let unreachable = |source| GatewayError::Connect { authority: authority.clone(), source };
        let broken =
            |source: hyper::Error| GatewayError::Exchange { authority: authority.clone(), source: source.into() };
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = path;
        *request.headers_mut() = headers;
        let host = HeaderValue::from_str(&authority).map_err(|_| bad_url(&authority, "its host is no field value"))?;
        request.headers_mut().insert(header::HOST, host);
        let exchange = async {
            let answer = sender.send_request(request).await.map_err(broken)?;
            let (parts, mut body) = answer.into_parts();
            let mut whole = BytesMut::new();
            while let Some(frame) = body.frame().await {
                let Ok(data) = frame.map_err(broken)?.into_data() else { continue };
                if whole.len().saturating_add(data.len()) > answer_bytes {
                    return Err(GatewayError::AnswerTooLarge { authority: authority.clone(), most: answer_bytes });
                }
                whole.extend_from_slice(&data);
            }
            Ok(Answer { status: parts.status, headers: parts.headers, body: whole.freeze() })
        };
        // The connection ends with the exchange: dropped here, not left to a task of its own.
        tokio::pin!(connection);
        tokio::select! {
            biased;
            answered = exchange => answered,
            Err(error) = &mut connection => Err(broken(error)),
            else => Err(unreachable(std::io::ErrorKind::UnexpectedEof.into())),
        }
    }
}

/// Who is asked, and for what.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    /// As the `Host` field gives it.
    pub(crate) authority: String,
    /// Without brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) path: Uri,
    pub(crate) name: ServerName<'static>,
}

fn bad_url(url: &str, reason: &'static str) -> GatewayError {
    GatewayError::Url { url: url.chars().take(200).collect(), reason }
}

impl Target {
    pub(crate) fn parse(url: &str) -> Result<Self, GatewayError> {
        let uri: Uri = url.parse().map_err(|_| bad_url(url, "it is malformed"))?;
        if uri.scheme_str() != Some("https") {
            return Err(bad_url(url, "only `https` is spoken"));
        }
        let authority = uri.authority().ok_or_else(|| bad_url(url, "it names no host"))?;
        if authority.as_str().contains('@') {
            return Err(bad_url(url, "it must not hold a credential"));
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = ServerName::try_from(host.clone()).map_err(|_| bad_url(url, "its host cannot be certified"))?;
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let path = path.parse().map_err(|_| bad_url(url, "its path is malformed"))?;
        Ok(Self { authority: authority.to_string(), host, port: authority.port_u16().unwrap_or(443), path, name })
    }
}

/// The certificates of those who are trusted.
pub(crate) fn roots(trust: &Trust) -> Result<RootCertStore, GatewayError> {
    let mut store = RootCertStore::empty();
    let location = match trust {
        Trust::Native => {
            store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            "the system's store".to_owned()
        }
        Trust::File(path) => {
            let certificates: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(path)
                .and_then(Iterator::collect)
                .map_err(|source| GatewayError::Pem { path: path.clone(), source })?;
            store.add_parsable_certificates(certificates);
            format!("`{}`", path.display())
        }
    };
    if store.is_empty() { Err(GatewayError::NoRoots { location }) } else { Ok(store) }
}

/// Key sets over HTTPS.
#[derive(Debug, Clone)]
pub struct HttpsJwks(Client);

impl HttpsJwks {
    /// At most 256 KiB in at most five seconds, by those the system trusts (or another set, for a private issuer).
    pub fn new(trust: &Trust) -> Result<Self, GatewayError> {
        let caps = Caps { deadline: Duration::from_secs(5), answer_bytes: 256 * 1024 };
        Client::new(trust, caps).map(Self)
    }
}

impl JwksSource for HttpsJwks {
    fn fetch<'a>(&'a self, url: &'a str) -> Pin<Box<dyn Future<Output = Result<Vec<u8>, FetchError>> + Send + 'a>> {
        Box::pin(async move {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
            let answer = self.0.request(Method::GET, url, headers, Bytes::new()).await;
            let answer = answer.map_err(|error| FetchError::new(url, error))?;
            if answer.status != StatusCode::OK {
                return Err(FetchError::new(url, format!("the answer's status is {}", answer.status.as_u16())));
            }
            Ok(answer.body.to_vec())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_https_urls_are_asked() {
        for url in ["http://a/", "a", "/x", "ftp://a/", "https://", "https://u:p@a/", "https://a b/", ""] {
            assert!(Target::parse(url).is_err(), "{url}");
        }
        let target = Target::parse("https://[::1]:8443/a?b").unwrap();
        assert_eq!((target.authority.as_str(), target.host.as_str(), target.port), ("[::1]:8443", "::1", 8443));
        assert_eq!(target.path, "/a?b");
        assert_eq!(Target::parse("https://a.example").unwrap().port, 443);
    }

    #[test]
    fn a_file_without_certificates_is_no_trust() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let trust = Trust::File(file.path().to_owned());
        assert!(matches!(Client::new(&trust, Caps::default()), Err(GatewayError::NoRoots { .. })));
    }
}
