//! Evidence for the way out: real requests to real servers on this machine, with names and addresses by script.
//!
//! Must never reach a network: whatever is dialled is counted, and goes to a server of the test or nowhere.

mod credentials;
mod exchange;
mod kept;
mod names;
mod server;
mod ssrf;
mod tls;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use cofferdam_audit::{Effects, Entry, Log, LogConfig, Signer, query};
use cofferdam_model::random::SeededRandom;
use cofferdam_model::{
    CallFacts, Circumstances, Clock, DecisionFacts, Digest, EgressCeiling, EgressEnd, EgressRule, Level, Rate,
    RequestId, Subject, SystemClock, TenantId, TlsVersion, UnixNanos,
};
use cofferdam_sandbox::{Attempt, EgressError, IncomingBody, Outgoing, OutgoingBody, Outlet, Patience};
use futures_util::FutureExt as _;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response};
use http_body_util::{BodyExt as _, Empty, Full};
use zeroize::Zeroizing;

use super::dial::{Dial, Dialled, Io, Tcp};
use super::names::{Looked, Names, NoAddress};
use super::{Egress, EgressConfig, Scope};

/// Answers by script. The last answer of a name is given again and again; names without one do not exist.
#[derive(Default, Clone)]
struct Script(Arc<Mutex<ScriptState>>);

#[derive(Default)]
struct ScriptState {
    answers: BTreeMap<String, VecDeque<Vec<IpAddr>>>,
    asked: Vec<String>,
}

impl Script {
    fn answer(&self, name: &str, addresses: &[&str]) {
        let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
        self.0.lock().unwrap().answers.entry(name.to_owned()).or_default().push_back(addresses);
    }

    fn asked(&self) -> Vec<String> {
        self.0.lock().unwrap().asked.clone()
    }
}

impl Names for Script {
    fn lookup<'a>(&'a self, name: &'a str) -> Looked<'a> {
        let mut state = self.0.lock().unwrap();
        state.asked.push(name.to_owned());
        let found = state.answers.get_mut(name).map(|answers| match answers.len() {
            1 => answers[0].clone(),
            _ => answers.pop_front().unwrap(),
        });
        Box::pin(async move {
            match found {
                // A name for which the script has an empty answer is never answered.
                Some(addresses) if addresses.is_empty() => std::future::pending().await,
                Some(addresses) => Ok(addresses),
                None => Err(NoAddress("no such name".into())),
            }
        })
    }
}

/// Leads addresses to servers of the test. Others refuse; `silent` ones never answer.
#[derive(Default, Clone)]
struct Leads(Arc<Mutex<LeadsState>>);

#[derive(Default)]
struct LeadsState {
    to: BTreeMap<SocketAddr, SocketAddr>,
    silent: Vec<SocketAddr>,
    dialled: Vec<SocketAddr>,
    here: Vec<IpAddr>,
}

impl Leads {
    fn lead(&self, from: &str, to: SocketAddr) {
        self.0.lock().unwrap().to.insert(from.parse().unwrap(), to);
    }

    fn silence(&self, address: &str) {
        self.0.lock().unwrap().silent.push(address.parse().unwrap());
    }

    fn dialled(&self) -> Vec<String> {
        self.0.lock().unwrap().dialled.iter().map(SocketAddr::to_string).collect()
    }
}

impl Dial for Leads {
    fn dial(&self, to: SocketAddr) -> Dialled<'_> {
        let mut state = self.0.lock().unwrap();
        state.dialled.push(to);
        let (lead, silent) = (state.to.get(&to).copied(), state.silent.contains(&to));
        Box::pin(async move {
            match lead {
                Some(lead) => Tcp.dial(lead).await,
                None if silent => std::future::pending::<io::Result<Box<dyn Io>>>().await,
                None => Err(io::ErrorKind::ConnectionRefused.into()),
            }
        })
    }

    fn is_here(&self, address: IpAddr) -> bool {
        self.0.lock().unwrap().here.contains(&address)
    }
}

/// A call in whose name requests are made.
struct Call;

impl Subject for Call {
    fn facts(&self) -> CallFacts {
        let circumstances = Circumstances {
            request: RequestId::mint(&SeededRandom::new(12)),
            at: UnixNanos::from_seconds(1_795_171_080),
            source: IpAddr::from([127, 0, 0, 1]),
            tls: TlsVersion::Tls13,
            method: "POST".into(),
            host: "a.example".into(),
            path: "/".into(),
            connection: None,
            headers: None,
        };
        CallFacts::of(&circumstances)
    }

    fn level(&self) -> Level {
        Level::Relaxed
    }
}

/// A node's way out, with a real log, and everything else by script.
struct Scene {
    egress: Arc<Egress>,
    script: Script,
    leads: Leads,
    log: Log,
    effects: Effects,
    _entry: Entry<Call>,
    dir: tempfile::TempDir,
}

impl Scene {
    async fn new() -> Self {
        Self::with(EgressConfig::default(), Arc::new(SystemClock::default())).await
    }

    async fn with(config: EgressConfig, clock: Arc<dyn Clock>) -> Self {
        let (script, leads) = (Script::default(), Leads::default());
        let egress = Egress::with(config, clock, Box::new(script.clone()), Box::new(leads.clone())).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let random = SeededRandom::new(11);
        let signer = Signer::create(&dir.path().join("signer"), "test.example/node", &random).unwrap();
        let config = LogConfig::new(dir.path().join("log"), "test.example/node");
        let (log, _) = Log::open(config, signer, Arc::new(SystemClock::default()), Arc::new(random)).unwrap();
        let mut entry = log.enter(Call).unwrap();
        let effects = entry.effects().await.unwrap();
        Self { egress, script, leads, log, effects, _entry: entry, dir }
    }

    /// The way out of a cell: everything to these ports, by these rules.
    fn outlet(&self, rules: &[EgressRule]) -> Arc<dyn Outlet> {
        self.egress.outlet(scope(tenant(1), rules)).unwrap()
    }

    fn attempt(&self, method: &Method, authority: &str) -> Attempt {
        let effect = self.effects.clone().place().now_or_never().unwrap().unwrap();
        Attempt::begin(effect, Arc::new(SystemClock::default()), 1, method, authority)
    }

    async fn send(&self, outlet: &dyn Outlet, outgoing: Outgoing) -> Result<Response<IncomingBody>, EgressError> {
        let attempt = self.attempt(&outgoing.method, &outgoing.authority);
        let sent = outlet.send(outgoing, &attempt).await;
        attempt.finish(sent.as_ref().map_or_else(|error| error.ending, |_| EgressEnd::Answered));
        sent
    }

    /// Sends and reads the whole answer.
    async fn fetch(&self, outlet: &dyn Outlet, outgoing: Outgoing) -> Result<(u16, HeaderMap, String), EgressError> {
        let (parts, body) = self.send(outlet, outgoing).await?.into_parts();
        let body = body.collect().await?.to_bytes();
        Ok((parts.status.as_u16(), parts.headers, String::from_utf8_lossy(&body).into_owned()))
    }

    /// The ending of a request that has to fail.
    async fn failure(&self, outlet: &dyn Outlet, outgoing: Outgoing) -> EgressError {
        let what = format!("{} {}", outgoing.method, outgoing.authority);
        self.fetch(outlet, outgoing).await.err().unwrap_or_else(|| panic!("{what} came through"))
    }

    /// What the log has of requests, in order.
    async fn records(&self) -> Vec<serde_json::Value> {
        self.log.shutdown().await.unwrap();
        let lines = query::tail(&self.dir.path().join("log"), 1000).unwrap();
        let records = lines.iter().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        let inner = records.map(|line| line.get("record").cloned().unwrap_or(line));
        inner.filter(|record| record["kind"] == "egress").collect()
    }
}

fn tenant(seed: u64) -> TenantId {
    TenantId::mint(&SeededRandom::new(seed))
}

/// A ceiling as wide as can be, which opens no network.
fn wide() -> EgressCeiling {
    let rule = r#"{"host": "*", "ports": [80, 443, 8080, 8443], "plain": true}"#;
    serde_json::from_str(&format!(r#"{{"rules": [{rule}]}}"#)).unwrap()
}

/// More often than any test asks.
const OFTEN: Rate = Rate { per_second: 10_000, burst: 10_000 };

fn scope(tenant: TenantId, rules: &[EgressRule]) -> Scope {
    let secrets = vec![("API_KEY".to_owned(), Zeroizing::new("s3cret-of-the-api".to_owned()))];
    Scope {
        tenant,
        rules: rules.to_vec(),
        ceiling: Arc::new(wide()),
        connections: 16,
        requests: OFTEN,
        secrets,
        policies: Arc::new(|_, _, _| Ok(permitted())),
    }
}

/// What policies say where nothing else is said.
fn permitted() -> DecisionFacts {
    DecisionFacts {
        outcome: "allow".into(),
        tier: "tenant".into(),
        policies: vec!["10-defaults/workload".into()],
        policy_set: Digest([0; 32]),
        sets: vec![],
        given: None,
    }
}

fn rule(host: &str, port: u16, tls: bool) -> EgressRule {
    serde_json::from_value(serde_json::json!({"host": host, "port": port, "tls": tls})).unwrap()
}

/// Everything there is, with and without TLS.
fn anything() -> Vec<EgressRule> {
    [80, 443, 8080, 8443].into_iter().flat_map(|port| [rule("*", port, true), rule("*", port, false)]).collect()
}

fn no_body() -> OutgoingBody {
    Box::pin(Empty::new().map_err(|never| match never {}))
}

fn body(text: &str) -> OutgoingBody {
    Box::pin(Full::new(Bytes::from(text.to_owned())).map_err(|never| match never {}))
}

/// A plain GET.
fn get(authority: &str) -> Outgoing {
    Outgoing {
        method: Method::GET,
        tls: false,
        authority: authority.into(),
        target: "/".into(),
        headers: HeaderMap::new(),
        patience: Patience::default(),
        errand: None,
        body: no_body(),
    }
}

fn post(authority: &str, text: &str) -> Outgoing {
    Outgoing { method: Method::POST, body: body(text), ..get(authority) }
}

fn with(mut outgoing: Outgoing, fields: &[(&'static str, &'static str)]) -> Outgoing {
    for (name, value) in fields {
        outgoing.headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    outgoing
}

fn soon() -> Option<Duration> {
    Some(Duration::from_millis(40))
}
