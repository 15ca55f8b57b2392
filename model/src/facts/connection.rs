//! What surrounds a call: what its head says of it, and what is known of the connection it came by.
//!
//! Owns those facts as decisions and the log are told them. Must never hold anything of a session's keys, a query, or a
//! field of the head that the node was not set to record.

use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::TlsVersion;
use crate::clock::UnixNanos;
use crate::digest::Digest;
use crate::id::RequestId;

/// Fields of a request: names in lower case, and values.
pub type Fields = Arc<[(Arc<str>, String)]>;

/// What surrounds a call, taken from the connection and the request before anyone is identified.
#[derive(Debug, Clone)]
pub struct Circumstances {
    /// The call's id.
    pub request: RequestId,
    /// When its head was complete.
    pub at: UnixNanos,
    /// Address of the peer.
    pub source: IpAddr,
    /// TLS version of the connection.
    pub tls: TlsVersion,
    /// Method, upper case.
    pub method: Arc<str>,
    /// Host, lower case, without port.
    pub host: Arc<str>,
    /// Path as routed and decided on: canonical, without query.
    pub path: Arc<str>,
    /// What else is known of the connection.
    pub connection: Option<Arc<ConnectionFacts>>,
    /// Those of the request's fields that the node is set to record; most often none.
    pub headers: Option<Fields>,
}

/// A connection as the log tells of it, made once for all its calls.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionFacts {
    /// Its number since the node started: calls of the same one came by the same connection.
    pub number: u64,
    /// Port of the peer, which tells apart those behind one address.
    pub port: u16,
    /// `h2` or `http/1.1`.
    pub protocol: Arc<str>,
    /// Cipher suite, such as `TLS13_AES_256_GCM_SHA384`.
    pub cipher: Arc<str>,
    /// Group of the key exchange, such as `X25519MLKEM768`; absent where a session was resumed without one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub group: Option<Arc<str>>,
    /// Whether a session was resumed.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub resumed: bool,
    /// SHA-256 of the certificate the peer showed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub certificate: Option<Digest>,
}
