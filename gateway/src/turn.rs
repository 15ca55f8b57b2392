//! Where a request turns to: a function, the management API, or one of the two health questions.
//!
//! Owns the reserved paths below `/-/`. Must never look at who is calling.

use std::sync::Arc;

use http::Method;

use crate::call::Received;
use crate::evidence::Open;
use crate::live::Picture;
use crate::manage::{Asked, recognise};
use crate::refusal::Refusal;
use crate::routes::{Found, Target};

/// What a request asks for, before anyone knows who asks.
pub(crate) enum Turn {
    /// Whether the process lives.
    Health,
    /// Whether the node takes calls.
    Ready,
    /// What others verify tokens of the node's own issuer by.
    Published(Document),
    /// Evidence of the log that is for whoever asks.
    Evidence(Open),
    /// A token of the node's own issuer.
    Token,
    /// A function.
    Invoke(Arc<Target>),
    /// A change, or a look at what exists.
    Manage(Asked),
}

/// A document of the node's own issuer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Document {
    /// Where its keys and its endpoints are.
    Discovery,
    /// Its keys.
    Keys,
}

/// Finds it, or says that there is nothing.
pub(crate) fn turn(picture: &Picture, call: &Received, public_tiles: bool) -> Result<Turn, Refusal> {
    let path = &*call.circumstances.path;
    let Some(reserved) = path.strip_prefix("/-/") else {
        return match picture.routes.find(&call.circumstances.host, path, &call.method) {
            Found::Target(target) => Ok(Turn::Invoke(target.clone())),
            Found::Methods(allow) => Err(Refusal::MethodNotAllowed { allow }),
            Found::Nothing => Err(Refusal::NotFound),
        };
    };
    if let Some(open) = reserved.strip_prefix("v1/audit/").and_then(|path| Open::at(path, public_tiles)) {
        return match call.method {
            Method::GET | Method::HEAD => Ok(Turn::Evidence(open)),
            _ => Err(Refusal::MethodNotAllowed { allow: "GET, HEAD".into() }),
        };
    }
    match reserved {
        "health" | "ready" | "issuer/jwks" | "issuer/.well-known/openid-configuration"
            if call.method != Method::GET && call.method != Method::HEAD =>
        {
            Err(Refusal::MethodNotAllowed { allow: "GET, HEAD".into() })
        }
        "health" => Ok(Turn::Health),
        "ready" => Ok(Turn::Ready),
        "issuer/jwks" => Ok(Turn::Published(Document::Keys)),
        "issuer/.well-known/openid-configuration" => Ok(Turn::Published(Document::Discovery)),
        "issuer/token" if call.method == Method::POST => Ok(Turn::Token),
        "issuer/token" => Err(Refusal::MethodNotAllowed { allow: "POST".into() }),
        _ => by_name(picture, call, reserved),
    }
}

fn by_name(picture: &Picture, call: &Received, reserved: &str) -> Result<Turn, Refusal> {
    if let Some(asked) = reserved.strip_prefix("v1/") {
        return recognise(&call.method, asked).map(Turn::Manage);
    }
    let mut parts = reserved.strip_prefix("invoke/").ok_or(Refusal::NotFound)?.splitn(3, '/');
    match (parts.next(), parts.next()) {
        (Some(tenant), Some(function)) => {
            picture.direct(tenant, function).map(|target| Turn::Invoke(Arc::new(target))).ok_or(Refusal::NotFound)
        }
        _ => Err(Refusal::NotFound),
    }
}
