//! Carries a request to a root key's provider for somebody who may wait for it.
//!
//! Owns a thread of its own, so that whoever asks need not be in a runtime, and may be in any. Must never wait longer
//! than the deadline it was made with.
#![cfg(any(feature = "aws-kms", feature = "vault-transit"))]

#[cfg(feature = "aws-kms")]
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

use bytes::Bytes;
use cofferdam_control::vault::RootError;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::{HeaderMap, Method};
use tokio::sync::mpsc::{Sender, channel};

#[cfg(feature = "aws-kms")]
use crate::client::Exchange;
use crate::client::{Answer, Caps, Client, Trust};
use crate::error::GatewayError;

/// Bytes of an answer.
const ANSWER_BYTES: usize = 256 * 1024;
/// Requests that may be under way.
const AT_ONCE: usize = 64;

/// A request on its way.
struct Job {
    method: Method,
    url: String,
    headers: HeaderMap,
    body: Bytes,
    answered: SyncSender<Result<Answer, GatewayError>>,
}

/// What carries one request.
type Carrier =
    Arc<dyn Fn(Method, String, HeaderMap, Bytes) -> BoxFuture<'static, Result<Answer, GatewayError>> + Send + Sync>;

/// Who carries them.
pub(super) struct Courier {
    jobs: Sender<Job>,
    patience: Duration,
}

impl Courier {
    pub(super) fn new(ca: Option<&Path>, deadline_ms: u64) -> Result<Self, GatewayError> {
        let trust = ca.map_or(Trust::Native, |ca| Trust::File(ca.to_owned()));
        let deadline = Duration::from_millis(deadline_ms);
        let client = Client::new(&trust, Caps { deadline, answer_bytes: ANSWER_BYTES })?;
        let carrier: Carrier = Arc::new(move |method, url, headers, body| {
            let client = client.clone();
            async move { client.request(method, &url, headers, body).await }.boxed()
        });
        Self::with(carrier, deadline)
    }

    /// One without TLS, to an address of this host or its link.
    #[cfg(feature = "aws-kms")]
    pub(super) fn nearby(at: SocketAddr, deadline: Duration) -> Result<Self, GatewayError> {
        let carrier: Carrier = Arc::new(move |method, path, headers, body| {
            async move {
                let authority = at.to_string();
                match tokio::time::timeout(deadline, nearby(at, method, path, headers, body)).await {
                    Ok(answered) => answered,
                    Err(_) => Err(GatewayError::Timeout { authority }),
                }
            }
            .boxed()
        });
        Self::with(carrier, deadline)
    }

    fn with(carrier: Carrier, deadline: Duration) -> Result<Self, GatewayError> {
        let failed = |source| GatewayError::File { path: "the thread that asks for root keys".into(), source };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let (jobs, mut queue) = channel::<Job>(AT_ONCE);
        let work = move || {
            runtime.block_on(async {
                while let Some(Job { method, url, headers, body, answered }) = queue.recv().await {
                    let carried = carrier(method, url, headers, body);
                    tokio::spawn(async move {
                        // One who does not wait any more does not need to know.
                        let _ = answered.send(carried.await);
                    });
                }
            });
        };
        std::thread::Builder::new().name("root-key".into()).spawn(work).map_err(failed)?;
        Ok(Self { jobs, patience: deadline.saturating_add(Duration::from_secs(1)) })
    }

    /// Asks, and waits for the whole answer.
    pub(super) fn ask(
        &self,
        method: Method,
        url: String,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Answer, RootError> {
        let (answered, answer) = sync_channel(1);
        let busy = |_| RootError::Unavailable("too many requests are under way".into());
        self.jobs.try_send(Job { method, url, headers, body, answered }).map_err(busy)?;
        match answer.recv_timeout(self.patience) {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(RootError::Unavailable(chain(&error))),
            Err(_) => Err(RootError::Unavailable("no answer in time".into())),
        }
    }
}

/// Asks a service of this link, which has no TLS.
#[cfg(feature = "aws-kms")]
async fn nearby(
    at: SocketAddr,
    method: Method,
    path: String,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Answer, GatewayError> {
    let authority = at.to_string();
    let path = path.parse().map_err(|_| GatewayError::Url { url: path.clone(), reason: "its path is malformed" })?;
    let connect = |source| GatewayError::Connect { authority: authority.clone(), source };
    let stream = tokio::net::TcpStream::connect(at).await.map_err(connect)?;
    let exchange = Exchange { authority: authority.clone(), path, answer_bytes: ANSWER_BYTES };
    exchange.over(stream, method, headers, body).await
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        text = format!("{text}: {error}");
        next = error.source();
    }
    text
}
