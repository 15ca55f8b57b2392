//! The way out of one cell.
//!
//! Owns the order in which a request is understood, allowed, resolved, checked, connected and sent. Must never resolve
//! a name before a rule allows the request, or connect to an address other than those it checked.

use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use cofferdam_model::egress::{METHODS, RULES};
use cofferdam_model::{EgressCeiling, EgressEnd, EgressRule};
use cofferdam_sandbox::{Attempt, EgressError, IncomingBody, Outgoing, Outlet, Patience, Sent};
use http::header::{CONTENT_LENGTH, HOST, HeaderMap};
use http::uri::PathAndQuery;
use http::{Method, Request, Response, StatusCode, Uri};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::time::{Instant, timeout_at};
use zeroize::Zeroizing;

use super::address::Judge;
use super::authority::Target;
use super::credential::{self, Credentials};
use super::dial::{self, Io};
use super::download::{Bounds, Download, broken};
use super::error::EgressSetupError;
use super::heads::{self, HeadCaps};
use super::pool::{Connection, Driver, Key, Pool};
use super::quota::Place;
use super::trust::{self, TrustId, Trusts};
use super::upload::{Progress, Upload, is_idempotent};
use super::{Egress, MayConnect, Scope};

/// Addresses of one name that are tried.
const TRIES: usize = 6;
/// The smallest buffer that hyper reads into.
const LEAST_BUFFER: usize = 64 * 1024;

/// The way out of one cell.
pub(super) struct Way {
    egress: Arc<Egress>,
    rules: Vec<EgressRule>,
    ceiling: Arc<EgressCeiling>,
    judge: Judge,
    trusts: Trusts,
    credentials: Arc<Credentials>,
    pool: Arc<Pool>,
    policies: Arc<MayConnect>,
}

/// A request that may be made.
struct Leave {
    target: Target,
    rule: usize,
    trust: TrustId,
}

/// The head of a request as it goes out.
struct Head {
    method: Method,
    target: PathAndQuery,
    headers: HeaderMap,
}

/// An answer whose body is still to come.
struct Answered {
    response: Response<Incoming>,
    connection: Connection,
    upload: Arc<Progress>,
}

/// Whether rules can be kept at all, apart from secrets.
pub fn check_rules(rules: &[EgressRule]) -> Result<(), EgressSetupError> {
    for (number, rule) in rules.iter().enumerate() {
        if number >= RULES {
            return Err(EgressSetupError::rule(rule, format!("a function can have {RULES} rules at most")));
        }
        if rule.port == 0 {
            return Err(EgressSetupError::rule(rule, "its port is 0; give one from 1 to 65535"));
        }
        if let Some(method) = rule.methods.iter().find(|method| !METHODS.contains(&method.as_str())) {
            let method: String = method.chars().take(32).collect();
            return Err(EgressSetupError::rule(rule, format!("`{method}` is none of {}", METHODS.join(", "))));
        }
        credential::check(rule)?;
    }
    Trusts::new(rules).map(|_| ())
}

/// Whether the secrets that rules name can be put in. Rules whose secret is not there are the caller's to leave out.
pub(crate) fn check_credentials(
    rules: &[EgressRule],
    secrets: &[(String, Zeroizing<String>)],
) -> Result<(), EgressSetupError> {
    Credentials::new(rules, secrets).map(drop)
}

impl Way {
    pub(super) fn open(egress: Arc<Egress>, scope: Scope) -> Result<Self, EgressSetupError> {
        let Scope { tenant, rules, ceiling, connections, requests, secrets, policies } = scope;
        check_rules(&rules)?;
        let judge = Judge::new(&ceiling.networks, &egress.config.own)?;
        let trusts = Trusts::new(&rules)?;
        let credentials = Arc::new(Credentials::new(&rules, &secrets)?);
        let tenant = egress.tenants.enter(&tenant, connections, requests);
        let pool = Pool::new(tenant, egress.clock.clone(), egress.config.idle(), egress.config.idle_per_cell);
        Ok(Self { egress, rules, ceiling, judge, trusts, credentials, pool, policies })
    }

    /// The rule that allows a request, and whom it is for.
    fn allow(&self, outgoing: &Outgoing, attempt: &Attempt) -> Result<Leave, EgressError> {
        let target = Target::parse(&outgoing.authority, outgoing.tls)?;
        attempt.target(&target.host, target.port);
        let denied = |what: &str| {
            let scheme = if outgoing.tls { "https" } else { "http" };
            let (method, host, port) = (&outgoing.method, &target.host, target.port);
            EgressError::new(EgressEnd::DeniedByRule, format!("{what} allows {method} to {scheme}://{host}:{port}"))
        };
        let method = outgoing.method.as_str();
        if !METHODS.contains(&method) {
            return Err(denied("nothing ever"));
        }
        let allows = |rule: &EgressRule| rule.allows(&target.host, target.port, method, outgoing.tls);
        let (number, rule) = self
            .rules
            .iter()
            .enumerate()
            .find(|(_, rule)| allows(rule))
            .ok_or_else(|| denied("no rule of the function"))?;
        if !self.ceiling.allows(&target.host, target.port, method, outgoing.tls) {
            return Err(denied("the tenant's ceiling does not hold what"));
        }
        let named = rule.to_string();
        attempt.rule(&named);
        self.decide(outgoing, &target, rule, &named, attempt)?;
        Ok(Leave { rule: number, trust: self.trusts.of(rule), target })
    }

    /// Whether the policies of this moment let the function at work send it.
    fn decide(
        &self,
        outgoing: &Outgoing,
        target: &Target,
        rule: &EgressRule,
        named: &str,
        attempt: &Attempt,
    ) -> Result<(), EgressError> {
        let way = cofferdam_authz::Way {
            host: &target.host,
            port: target.port,
            tls: outgoing.tls,
            method: outgoing.method.as_str(),
            rule: named,
        };
        let secret = rule.credential.as_ref().map(|credential| credential.secret.as_str());
        match (self.policies)(outgoing.errand.as_deref(), way, secret) {
            Ok(decision) => {
                attempt.decided(decision);
                Ok(())
            }
            Err(decision) => {
                let by = decision.policies.join(" ");
                let reason = format!("{} by {} policies: {by}", decision.outcome, decision.tier);
                attempt.decided(*decision);
                Err(EgressError::new(EgressEnd::DeniedByPolicy, reason))
            }
        }
    }

    fn head(&self, outgoing: &Outgoing, leave: &Leave) -> Result<(Head, Option<u64>), EgressError> {
        let config = &self.egress.config;
        let caps = HeadCaps { bytes: config.head_bytes, count: config.head_count };
        let target = heads::target(&outgoing.target)?;
        let (mut headers, length) = heads::request(&outgoing.headers, caps)?;
        headers.insert(HOST, leave.target.field()?);
        if let Some(credential) = self.credentials.of(leave.rule) {
            credential.inject(&mut headers);
        }
        Ok((Head { method: outgoing.method.clone(), target, headers }, length))
    }

    async fn request(&self, outgoing: Outgoing, attempt: &Attempt) -> Result<Answered, EgressError> {
        self.turn(outgoing.patience).await?;
        let leave = self.allow(&outgoing, attempt)?;
        let (mut head, length) = self.head(&outgoing, &leave)?;
        let patience = outgoing.patience;
        let upload = Upload::new(&head.method, outgoing.body, length, self.egress.config.request_bytes).await?;
        match length {
            Some(length) => _ = head.headers.insert(CONTENT_LENGTH, heads::length_field(length)),
            None if upload.is_empty() && [Method::POST, Method::PUT, Method::PATCH].contains(&head.method) => {
                head.headers.insert(CONTENT_LENGTH, heads::length_field(0));
            }
            None => {}
        }
        let answered = self.exchange(&leave, head, upload, patience, attempt).await?;
        if answered.response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return Err(EgressError::new(EgressEnd::PeerFailed, "the other side changed to another protocol"));
        }
        Ok(answered)
    }

    /// Waits for the tenant's turn. What will be refused waits too: it is work and a record as well.
    async fn turn(&self, patience: Patience) -> Result<(), EgressError> {
        let patience = least(patience.connect, self.egress.config.connect());
        match self.pool.tenant().turn(self.egress.clock.monotonic(), patience) {
            Some(Duration::ZERO) => Ok(()),
            Some(wait) => {
                tokio::time::sleep(wait).await;
                Ok(())
            }
            None => Err(EgressError::new(EgressEnd::OverQuota, "the tenant's functions ask the outside too often")),
        }
    }

    /// Sends, and waits for the head of the answer. A kept connection that turns out to be dead is replaced once, where
    /// nothing can have been done by it.
    async fn exchange(
        &self,
        leave: &Leave,
        head: Head,
        mut upload: Upload,
        patience: Patience,
        attempt: &Attempt,
    ) -> Result<Answered, EgressError> {
        let first_byte = least(patience.first_byte, self.egress.config.first_byte());
        let mut connection = self.reach(leave, patience, true, attempt).await?;
        if let Some(credential) = self.credentials.of(leave.rule) {
            attempt.credential(&credential.secret);
        }
        loop {
            let again = connection.reused;
            let without_body = upload.is_empty() && is_idempotent(&head.method);
            let progress = upload.progress();
            let mut request = Request::new(upload);
            *request.method_mut() = head.method.clone();
            *request.uri_mut() = Uri::from(head.target.clone());
            *request.headers_mut() = head.headers.clone();
            let sending = connection.sender.try_send_request(request);
            let mut error = tokio::select! {
                biased;
                sent = sending => match sent {
                    Ok(response) => return Ok(Answered { response, connection, upload: progress }),
                    Err(error) => error,
                },
                () = no_progress(&progress, first_byte) => {
                    return Err(EgressError::new(EgressEnd::TimedOut, "no answer in time"));
                }
            };
            upload = match error.take_message() {
                Some(unsent) if again => unsent.into_body(),
                None if again && without_body && is_broken_off(error.error()) => Upload::empty(),
                _ => return Err(broken(error.error())),
            };
            connection = self.reach(leave, patience, false, attempt).await?;
        }
    }

    /// A connection to an address that has just been checked: a kept one, or a new one.
    async fn reach(
        &self,
        leave: &Leave,
        patience: Patience,
        kept: bool,
        attempt: &Attempt,
    ) -> Result<Connection, EgressError> {
        let until = Instant::now() + least(patience.connect, self.egress.config.connect());
        let target = &leave.target;
        let addresses = match timeout_at(until, self.addresses(target)).await {
            Ok(addresses) => addresses?,
            Err(_) => return Err(EgressError::new(EgressEnd::NameFailed, "the name was not resolved in time")),
        };
        while kept && let Some(mut found) = self.pool.take(leave.trust, &target.host, target.port, &addresses) {
            // Ready at once, or as soon as its task has seen the end of the last answer.
            if let Ok(Ok(())) = timeout_at(until, found.sender.ready()).await {
                attempt.address(found.key.address);
                if let Some(version) = found.tls {
                    attempt.tls(version);
                }
                return Ok(found);
            }
        }
        let full = |reason: &str| EgressError::new(EgressEnd::OverQuota, reason);
        let place = match timeout_at(until, self.pool.tenant().place()).await {
            Ok(place) => place.ok_or_else(|| full("all connections of the node are in use"))?,
            Err(_) => return Err(full("all connections of the tenant are in use")),
        };
        let (address, stream) = self.dial(target, &addresses, until, attempt).await?;
        let key = Key { trust: leave.trust, host: target.host.clone(), port: target.port, address };
        self.secure(key, target, stream, place, until, attempt).await
    }

    /// Every address of the target, all of them fit.
    async fn addresses(&self, target: &Target) -> Result<Vec<IpAddr>, EgressError> {
        let addresses = match target.literal {
            Some(address) => vec![address],
            None => self
                .egress
                .names
                .lookup(&target.host)
                .await
                .map_err(|why| EgressError::new(EgressEnd::NameFailed, why.0))?,
        };
        let own = self.judge.own_anywhere(target.port);
        for address in &addresses {
            let objection = self.judge.objection(*address, target.port).or_else(|| {
                // What listens on this machine is not public because its address is. A ceiling may open it, but not
                // where the node itself listens.
                let closed = own || !self.judge.opens(*address);
                (closed && self.egress.dial.is_here(*address)).then_some("this machine")
            });
            // One is enough: a name that leads both out and in is made to deceive.
            if let Some(what) = objection {
                let reason = format!("`{}` leads to `{address}`, which is not to be reached: {what}", target.host);
                return Err(EgressError::new(EgressEnd::DeniedAddress, reason));
            }
        }
        Ok(addresses)
    }

    /// Tries the addresses in turn, each with its share of the time.
    async fn dial(
        &self,
        target: &Target,
        addresses: &[IpAddr],
        until: Instant,
        attempt: &Attempt,
    ) -> Result<(IpAddr, Box<dyn Io>), EgressError> {
        let order = dial::order(addresses, TRIES);
        let mut left = u32::try_from(order.len()).unwrap_or(1);
        let (mut ending, mut reason) = (EgressEnd::ConnectFailed, "the name has no address".to_owned());
        for address in order {
            attempt.address(address);
            let share = until.saturating_duration_since(Instant::now()) / left.max(1);
            left = left.saturating_sub(1);
            let dialled = self.egress.dial.dial(SocketAddr::new(address, target.port));
            match timeout_at(Instant::now() + share, dialled).await {
                Ok(Ok(stream)) => return Ok((address, stream)),
                Ok(Err(error)) => {
                    (ending, reason) = (EgressEnd::ConnectFailed, format!("`{address}` cannot be reached: {error}"));
                }
                Err(_) => (ending, reason) = (EgressEnd::TimedOut, format!("`{address}` does not answer in time")),
            }
        }
        Err(EgressError::new(ending, reason))
    }

    /// Makes a connection of a stream: TLS where it is asked for, then HTTP/1.1.
    async fn secure(
        &self,
        key: Key,
        target: &Target,
        stream: Box<dyn Io>,
        place: Place,
        until: Instant,
        attempt: &Attempt,
    ) -> Result<Connection, EgressError> {
        let Some(trust) = key.trust else {
            return self.speak(key, None, stream, place).await;
        };
        let failed = |reason: String| EgressError::new(EgressEnd::TlsFailed, reason);
        let connector = self.trusts.connector(trust).ok_or_else(|| failed("no authorities are known".into()))?;
        let stream = match timeout_at(until, connector.connect(target.server_name()?, stream)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(failed(error.to_string())),
            Err(_) => return Err(EgressError::new(EgressEnd::TimedOut, "the TLS handshake took too long")),
        };
        let version = trust::version(stream.get_ref().1);
        if let Some(version) = version {
            attempt.tls(version);
        }
        self.speak(key, version, Box::new(stream), place).await
    }

    async fn speak(
        &self,
        key: Key,
        tls: Option<cofferdam_model::TlsVersion>,
        stream: Box<dyn Io>,
        place: Place,
    ) -> Result<Connection, EgressError> {
        let config = &self.egress.config;
        let (sender, connection) = http1::Builder::new()
            .max_headers(config.head_count)
            .max_header_size(config.head_bytes)
            .max_buf_size(config.head_bytes.max(LEAST_BUFFER))
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| broken(&error))?;
        // What goes wrong on it is told to whoever waits for an answer.
        let task = tokio::spawn(async move { _ = connection.await }).abort_handle();
        let driver = Driver { task, place: Some(place) };
        Ok(Connection { key, tls, sender, reused: false, _driver: driver })
    }
}

/// Returns once no byte of a body has moved for so long.
async fn no_progress(progress: &Progress, time: Duration) {
    loop {
        let before = progress.bytes();
        tokio::time::sleep(time).await;
        if progress.bytes() == before {
            return;
        }
    }
}

/// Whether a connection ended before it gave any answer.
fn is_broken_off(error: &hyper::Error) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset};
    let io = std::error::Error::source(error).and_then(|source| source.downcast_ref::<std::io::Error>());
    let reset = io.is_some_and(|io| [BrokenPipe, ConnectionAborted, ConnectionReset].contains(&io.kind()));
    error.is_incomplete_message() || error.is_canceled() || error.is_closed() || reset
}

fn least(wanted: Option<Duration>, most: Duration) -> Duration {
    wanted.map_or(most, |wanted| wanted.min(most))
}

impl Outlet for Way {
    fn send<'a>(&'a self, outgoing: Outgoing, attempt: &'a Attempt) -> Sent<'a> {
        Box::pin(async move {
            let config = &self.egress.config;
            let between = least(outgoing.patience.between_bytes, config.between_bytes());
            let mut total = Box::pin(tokio::time::sleep(config.total()));
            let answered = tokio::select! {
                biased;
                answered = self.request(outgoing, attempt) => answered?,
                () = &mut total => {
                    return Err(EgressError::new(EgressEnd::TimedOut, "the request took too long as a whole"));
                }
            };
            let Answered { response, connection, upload } = answered;
            let (mut parts, body) = response.into_parts();
            heads::response(&mut parts.headers);
            self.credentials.redact_fields(&mut parts.headers);
            // What hyper noted about the connection is nothing to a guest.
            parts.extensions.clear();
            let bounds = Bounds { between, total, most: config.response_bytes };
            let pool = Arc::downgrade(&self.pool);
            let body = Download::new(body, connection, pool, upload, self.credentials.clone(), bounds);
            Ok(Response::from_parts(parts, Box::pin(body) as IncomingBody))
        })
    }

    fn redact(&self, text: &[u8], own: Range<usize>) -> Vec<u8> {
        self.credentials.redact(text, own)
    }

    fn longest_redacted(&self) -> usize {
        self.credentials.longest()
    }
}
