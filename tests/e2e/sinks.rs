//! The log streamed elsewhere by a real node: everything arrives, whatever kills the node, and nothing waits for it.

use std::convert::Infallible;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use cofferdam_gateway::certificate;
use cofferdam_model::SystemClock;
use cofferdam_tests::{Node, Scene};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio_rustls::TlsAcceptor;

const CRASHES: usize = 5;
const CALLS: usize = 150;
const LIMITS: &str = "[limits]\nper_source = { per_second = 1000000, burst = 1000000 }\n\
    per_principal = { per_second = 1000000, burst = 1000000 }\n\
    per_tenant = { per_second = 1000000, burst = 1000000 }\n";

/// Somebody's receiver: takes what comes to `/in`, refuses now and then, and never answers `/hung`.
struct Receiver {
    port: u16,
    taken: Arc<Taken>,
    dir: tempfile::TempDir,
}

#[derive(Default)]
struct Taken {
    asked: AtomicUsize,
    lines: Mutex<Vec<String>>,
    more: Notify,
}

impl Receiver {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (certificate, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
        certificate::create(&certificate, &key, &[], &SystemClock::default()).unwrap();
        let chain = CertificateDer::pem_file_iter(&certificate).unwrap().collect::<Result<_, _>>().unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, PrivateKeyDer::from_pem_file(&key).unwrap())
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (port, taken) = (listener.local_addr().unwrap().port(), Arc::new(Taken::default()));
        let (acceptor, state) = (TlsAcceptor::from(Arc::new(config)), taken.clone());
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (acceptor, state) = (acceptor.clone(), state.clone());
                tokio::spawn(async move {
                    let Ok(tls) = acceptor.accept(socket).await else { return };
                    let service = service_fn(move |request| take(request, state.clone()));
                    let _ = http1::Builder::new().serve_connection(TokioIo::new(tls), service).await;
                });
            }
        });
        Self { port, taken, dir }
    }

    /// What an operator writes about a sink there.
    fn sink(&self, name: &str, path: &str, more: &str) -> String {
        format!(
            "[[audit.sinks]]\nname = \"{name}\"\nbatch_ms = 20\n{more}\n[audit.sinks.to.webhook]\n\
             url = \"https://localhost:{}/{path}\"\ntls = {{ ca = {:?} }}\n",
            self.port,
            self.dir.path().join("cert.pem").display().to_string()
        )
    }

    /// Waits until a record has come.
    async fn has(&self, index: u64) {
        let start = format!("{{\"index\":{index},");
        let waiting = async {
            while !self.taken.lines.lock().unwrap().iter().rev().any(|line| line.starts_with(&start)) {
                self.taken.more.notified().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(120), waiting).await.expect("the record arrives");
    }
}

async fn take(request: Request<Incoming>, taken: Arc<Taken>) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path().to_owned();
    // A body cut off by a kill was never acknowledged.
    let Ok(body) = request.into_body().collect().await else { return Ok(Response::default()) };
    if path == "/hung" {
        std::future::pending::<()>().await;
    }
    let text = String::from_utf8(body.to_bytes().to_vec()).unwrap();
    // One in seven comes at a bad time.
    let status = if taken.asked.fetch_add(1, SeqCst) % 7 == 3 { 503 } else { 200 };
    if status == 200 {
        taken.lines.lock().unwrap().extend(text.lines().map(str::to_owned));
        taken.more.notify_one();
    }
    Ok(Response::builder().status(status).body(Full::default()).unwrap())
}

/// Every record up to the last that came, each first seen after the one before it.
fn in_order_without_gaps(came: &[String], all: &[String], least: usize) {
    let mut known = 0;
    for line in came {
        let index = serde_json::from_str::<Value>(line).unwrap()["index"].as_u64().unwrap() as usize;
        assert_eq!(Some(line), all.get(index), "as exported");
        assert!(index <= known, "record {index} came before record {known}");
        known = known.max(index + 1);
    }
    assert!(known >= least, "{known} of {least}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_record_reaches_the_sinks_in_order_though_the_node_is_killed() {
    let receiver = Receiver::start().await;
    let config = [
        LIMITS.to_owned(),
        receiver.sink("hook", "in", "batch_records = 40"),
        receiver.sink("hung", "hung", "deadline_ms = 600000"),
        "[[audit.sinks]]\nname = \"file\"\nbatch_ms = 20\nbatch_records = 40\n[audit.sinks.to.file]\n\
         path = \"streamed.jsonl\"\n"
            .to_owned(),
    ];
    let Scene { site, node } = Scene::with_config(&config.concat()).unwrap();
    let token = site.token("acme", "alice", "invoker").unwrap();
    let mut node = Some(node);
    for crash in 0..CRASHES {
        let running = match node.take() {
            Some(running) => running,
            None => Node::start(&site).unwrap(),
        };
        let mut alice = running.client().await.unwrap().with(&token);
        for _ in 0..CALLS + crash {
            assert_eq!(alice.get("/acme/hello").await.unwrap().status, StatusCode::OK, "a hung sink costs no call");
        }
        running.kill().unwrap();
    }
    let survivor = Node::start(&site).unwrap();
    let exported = site.run(&["audit", "export"]).unwrap();
    let due = exported.lines().count() as u64 - 1;
    receiver.has(due).await;
    let stands = |name: &str| {
        let listed: Value = serde_json::from_str(&survivor.run(&site, &["audit", "sinks", "--json"]).unwrap()).unwrap();
        listed["sinks"].as_array().unwrap().iter().find(|sink| sink["name"] == name).unwrap().clone()
    };
    // Each look is a command, so there is no need to wait between them.
    assert!((0..1_000).any(|_| stands("file")["next"].as_u64() > Some(due)), "{}", stands("file"));
    // What hangs is still where it was: at the first record.
    let hung = stands("hung");
    assert!(hung["next"] == 0 && hung["lag_records"].as_u64() >= Some(due), "{hung}");
    assert!(survivor.stop().unwrap(), "a hung sink does not keep a node from stopping");
    let all: Vec<String> = site.run(&["audit", "export"]).unwrap().lines().map(str::to_owned).collect();
    in_order_without_gaps(&receiver.taken.lines.lock().unwrap(), &all, due as usize + 1);
    let streamed = std::fs::read_to_string(site.data().join("streamed.jsonl")).unwrap();
    let streamed: Vec<String> = streamed.lines().map(str::to_owned).collect();
    in_order_without_gaps(&streamed, &all, due as usize + 1);
    assert!(site.run(&["audit", "verify"]).unwrap().contains("OK"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_too_far_behind_does_what_was_configured_until_somebody_looks_after_it() {
    let receiver = Receiver::start().await;
    let stop = "from = \"start\"\nmax_lag_records = 20\non_lag = \"stop\"\ndeadline_ms = 600000";
    let scene = Scene::with_config(&format!("{LIMITS}{}", receiver.sink("siem", "hung", stop))).unwrap();
    let mut alice = scene.alice().await.unwrap();
    let ready = async |alice: &mut cofferdam_tests::Client, as_it: Value| {
        let looking = async { while alice.get("/-/ready").await.unwrap().json() != as_it {} };
        tokio::time::timeout(Duration::from_secs(60), looking).await.expect("the node says how it is");
    };
    ready(&mut alice, json!({ "status": "degraded", "audit_sinks": "behind" })).await;
    let refused = alice.get("/acme/hello").await.unwrap();
    assert_eq!((refused.status.as_u16(), &refused.json()["code"]), (503, &json!("audit_behind")));
    assert_eq!(alice.get("/-/health").await.unwrap().status, StatusCode::OK);
    let doctor = scene.site.try_run(&["doctor"]).unwrap();
    let doctor = String::from_utf8_lossy(&doctor.stdout).into_owned();
    let row = doctor.lines().find(|line| line.contains("sink siem")).unwrap();
    assert!(row.starts_with("!!") && row.contains("records behind"), "{row}");
    let metrics = scene.node.run(&scene.site, &["metrics"]).unwrap();
    assert!(metrics.contains("cofferdam_sink_up{sink=\"siem\"} 1") && metrics.contains("cofferdam_sink_lag_records{"));

    // Let off what it did not get; the node goes on at once.
    let listed = scene.node.run(&scene.site, &["audit", "sinks", "--json"]).unwrap();
    let end = serde_json::from_str::<Value>(&listed).unwrap()["records"].as_u64().unwrap().to_string();
    let reset = ["audit", "sinks", "reset", "siem", "--to", &end];
    let beyond = ["audit", "sinks", "reset", "siem", "--to", "999999999"];
    assert!(scene.node.run(&scene.site, &beyond).unwrap_err().to_string().contains("the log ends before"));
    scene.node.run(&scene.site, &reset).unwrap();
    ready(&mut alice, json!({ "status": "ok" })).await;
    assert_eq!(alice.get("/acme/hello").await.unwrap().status, StatusCode::OK);
    let shown = scene.node.run(&scene.site, &["audit", "sinks"]).unwrap();
    assert!(shown.contains("LAG_RECORDS") && shown.contains("siem"), "{shown}");
    let records = scene.site.records().unwrap();
    let detail = |record: &&Value| record["detail"].as_str().unwrap_or_default().to_owned();
    let asked = records.iter().filter(|record| record["action"] == "ResetSink" && record["decision"].is_object());
    let asked: Vec<String> = asked.map(|record| detail(&record)).collect();
    assert_eq!(asked, ["sink=siem to=999999999".to_owned(), format!("sink=siem to={end}")]);
    for (event, says) in [
        ("sink_behind", "on_lag=stop"),
        ("sink_cursor_reset", &*format!("sink=siem from=0 to={end} reason=asked")),
        ("sink_caught_up", "sink=siem"),
    ] {
        let told = records.iter().filter(|record| record["event"] == event).collect::<Vec<_>>();
        assert!(told.len() == 1 && detail(&told[0]).contains(says), "{event}: {told:?}");
    }
}

#[test]
fn a_node_whose_sink_cannot_be_set_up_says_why_and_does_not_start() {
    let site = cofferdam_tests::Site::init().unwrap();
    let config = site.data().join("cofferdam.toml");
    let was = std::fs::read_to_string(&config).unwrap();
    let secret = site.file("secret", "0123456789abcdef").unwrap();
    assert!(Command::new("chmod").arg("644").arg(&secret).status().unwrap().success());
    let sink = format!(
        "{was}\n[[audit.sinks]]\nname = \"siem\"\n[audit.sinks.to.webhook]\nurl = \"https://siem.example/\"\n\
         secret_file = {:?}\n",
        secret.display().to_string()
    );
    std::fs::write(&config, sink).unwrap();
    let refused = Node::start(&site).map(|_| ()).unwrap_err().to_string();
    assert!(refused.contains("sink `siem` cannot be set up") && refused.contains("chmod 600"), "{refused}");
}
