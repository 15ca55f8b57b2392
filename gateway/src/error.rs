//! What can go wrong at the door apart from a request: settings, certificates, sockets, and our own client.
//!
//! Must never carry a status: those are `refusal`'s alone.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Why the gateway could not start, or could not reach someone else.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// A file could not be read or written.
    #[error("cannot use file `{}`", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The configuration does not make sense.
    #[error("{}:{line}:{column}: {message}; {remedy}", path.display())]
    Config {
        /// Of the configuration.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// Counted from 1, in characters.
        column: usize,
        /// What is wrong.
        message: String,
        /// What to do about it.
        remedy: String,
    },
    /// The root key's place cannot be used.
    #[error("the root key cannot be used")]
    RootKey {
        /// Why.
        #[source]
        source: Box<cofferdam_control::ControlError>,
    },
    /// The root key is to come from systemd, which gave nothing.
    #[error("the root key is to come from systemd, but `CREDENTIALS_DIRECTORY` is not set: use `LoadCredential=`")]
    NoCredentials,
    /// Credentials are to come from the instance or container, which cannot be asked.
    #[error("credentials of AWS are to come from a metadata service: {what}")]
    NoMetadata {
        /// Why not.
        what: &'static str,
    },
    /// This program was built without it.
    #[error("this program was built without `{what}`; build it with `--features {what}`")]
    NotBuilt {
        /// Name of the feature.
        what: &'static str,
    },
    /// A PEM file holds nothing usable.
    #[error("cannot read PEM file `{}`", path.display())]
    Pem {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: rustls_pki_types::pem::Error,
    },
    /// A private key is open to everyone.
    #[error("private key `{}` is open to other users, restrict it with `chmod 600`", path.display())]
    KeyReadable {
        /// Which.
        path: PathBuf,
    },
    /// A certificate cannot be served.
    #[error("cannot serve certificate `{}`", path.display())]
    Certificate {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: rustls::Error,
    },
    /// A self-signed certificate could not be made.
    #[error("cannot make a self-signed certificate")]
    SelfSigned {
        /// Why.
        #[source]
        source: rcgen::Error,
    },
    /// TLS cannot be set up.
    #[error("cannot set up TLS")]
    Tls {
        /// Why.
        #[source]
        source: rustls::Error,
    },
    /// An address cannot be listened on.
    #[error("cannot listen on `{address}`")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// No root certificates to trust.
    #[error("no trusted root certificates in {location}")]
    NoRoots {
        /// Where they were looked for.
        location: String,
    },
    /// A URL we cannot ask.
    #[error("cannot use url `{url}`: {reason}")]
    Url {
        /// Which.
        url: String,
        /// Why not.
        reason: &'static str,
    },
    /// A server could not be reached.
    #[error("cannot reach `{authority}`")]
    Connect {
        /// Which.
        authority: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A server broke off, or did not speak HTTP.
    #[error("no usable answer from `{authority}`")]
    Exchange {
        /// Which.
        authority: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A server took too long.
    #[error("no answer from `{authority}` in time")]
    Timeout {
        /// Which.
        authority: String,
    },
    /// A server answered with more than we read.
    #[error("the answer of `{authority}` is larger than {most} bytes")]
    AnswerTooLarge {
        /// Which.
        authority: String,
        /// The cap.
        most: usize,
    },
}
