//! The root key: elsewhere and out of reach, replaced while calls are answered, and destroyed.

use std::convert::Infallible;
use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use aws_lc_rs::aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use cofferdam_gateway::certificate;
use cofferdam_model::SystemClock;
use cofferdam_tests::{Client, LIMITS, Node, Scene, Site, guests};
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
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

const TOKEN: &str = "hvs.token-of-the-node";

/// A transit engine with one key, which can be sealed, or take requests and not answer them.
struct Transit {
    port: u16,
    sealed: Arc<AtomicBool>,
    silent: watch::Sender<bool>,
    decrypts: Arc<AtomicUsize>,
    dir: tempfile::TempDir,
}

/// What its connections share.
#[derive(Clone)]
struct State {
    sealed: Arc<AtomicBool>,
    silent: watch::Receiver<bool>,
    decrypts: Arc<AtomicUsize>,
}

impl Transit {
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
        let (port, sealed) = (listener.local_addr().unwrap().port(), Arc::new(AtomicBool::new(false)));
        let (silent, decrypts) = (watch::Sender::new(false), Arc::new(AtomicUsize::new(0)));
        let state = State { sealed: sealed.clone(), silent: silent.subscribe(), decrypts: decrypts.clone() };
        let acceptor = TlsAcceptor::from(Arc::new(config));
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (acceptor, state) = (acceptor.clone(), state.clone());
                tokio::spawn(async move {
                    let Ok(tls) = acceptor.accept(socket).await else { return };
                    let service = service_fn(move |request| answer(request, state.clone()));
                    let _ = http1::Builder::new().serve_connection(TokioIo::new(tls), service).await;
                });
            }
        });
        cofferdam_control::create_private(&dir.path().join("token"), TOKEN.as_bytes()).unwrap();
        Self { port, sealed, silent, decrypts, dir }
    }

    /// What an operator writes about it.
    fn config(&self) -> String {
        self.config_within(2000)
    }

    fn config_within(&self, deadline_ms: u64) -> String {
        let file = |name: &str| self.dir.path().join(name).display().to_string();
        format!(
            "[root_key]\nkeep_seconds = 1\n[root_key.provider.vault]\naddress = \"https://localhost:{}\"\n\
             token_file = {:?}\nca = {:?}\ndeadline_ms = {deadline_ms}\n",
            self.port,
            file("token"),
            file("cert.pem")
        )
    }
}

async fn answer(request: Request<Incoming>, mut state: State) -> Result<Response<Full<Bytes>>, Infallible> {
    let sealed = state.sealed;
    if request.uri().path().contains("/decrypt/") {
        state.decrypts.fetch_add(1, SeqCst);
    }
    let _ = state.silent.wait_for(|silent| !silent).await;
    let token = request.headers().get("x-vault-token").is_some_and(|token| token == TOKEN);
    let path = request.uri().path().to_owned();
    let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let key = RandomizedNonceKey::new(&AES_256_GCM, &[7; 32]).unwrap();
    let text = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
    let (status, answer) = match path.as_str() {
        _ if sealed.load(SeqCst) => (503, json!({ "errors": ["Vault is sealed"] })),
        _ if !token => (403, json!({ "errors": ["permission denied"] })),
        "/v1/transit/encrypt/cofferdam" => {
            let mut bytes = STANDARD.decode(text("plaintext")).unwrap();
            let nonce = key.seal_in_place_append_tag(Aad::empty(), &mut bytes).unwrap();
            let sealed = STANDARD.encode([nonce.as_ref().as_slice(), &bytes].concat());
            (200, json!({ "data": { "ciphertext": format!("vault:v1:{sealed}"), "key_version": 1 } }))
        }
        "/v1/transit/decrypt/cofferdam" => {
            let bytes = STANDARD.decode(text("ciphertext").trim_start_matches("vault:v1:")).unwrap();
            let (nonce, rest) = bytes.split_first_chunk::<12>().unwrap();
            let mut rest = rest.to_vec();
            let nonce = Nonce::assume_unique_for_key(*nonce);
            let opened = key.open_in_place(nonce, Aad::empty(), &mut rest).unwrap();
            (200, json!({ "data": { "plaintext": STANDARD.encode(opened) } }))
        }
        _ => (404, json!({ "errors": [] })),
    };
    Ok(Response::builder().status(status).body(Full::new(answer.to_string().into())).unwrap())
}

async fn ready(client: &mut Client) -> Value {
    client.get("/-/ready").await.unwrap().json()
}

fn has_secret(answer: &cofferdam_tests::Answer) -> bool {
    answer.status == StatusCode::OK && answer.json()["secret_sha256"].is_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_its_root_key_serves_what_needs_no_secret_and_says_so() {
    let transit = Transit::start().await;
    let chosen = transit.dir.path().join("root-key.toml");
    std::fs::write(&chosen, transit.config()).unwrap();
    let site = Site::init_with(&["--root-key", &chosen.display().to_string()]).unwrap();
    assert!(!site.data().join("root.key").exists(), "the root key is elsewhere");
    let scene = Scene { node: Node::start(&site).unwrap(), site };
    scene.node.run(&scene.site, &["tenant", "create", "acme"]).unwrap();
    let manifest = guests::root().join("tests/scene/acme.toml").display().to_string();
    scene.node.run(&scene.site, &["apply", &manifest]).unwrap();
    scene.set_secret("acme/whoami", "API_SECRET", "kept-elsewhere").unwrap();
    assert!(has_secret(&scene.alice().await.unwrap().get("/acme/whoami").await.unwrap()));
    let Scene { site, node } = scene;
    assert!(node.stop().unwrap());

    transit.sealed.store(true, SeqCst);
    let scene = Scene { node: Node::start(&site).unwrap(), site };
    let mut alice = scene.alice().await.unwrap();
    assert_eq!(ready(&mut alice).await, json!({ "status": "degraded", "secrets": "unavailable" }));
    assert_eq!(alice.get("/acme/hello").await.unwrap().status, 200);
    let refused = alice.get("/acme/whoami").await.unwrap();
    assert_eq!((refused.status.as_u16(), &refused.json()["code"]), (503, &json!("secrets_unavailable")));
    assert!(!refused.header("retry-after").is_empty());
    assert!(scene.set_secret("acme/whoami", "API_SECRET", "not-now").is_err());
    let status = scene.node.run(&scene.site, &["vault", "status"]).unwrap();
    assert!(status.contains("Vault is sealed"), "{status}");
    let doctor = scene.site.try_run(&["doctor"]).unwrap();
    assert!(String::from_utf8_lossy(&doctor.stdout).contains("Vault is sealed"));

    transit.sealed.store(false, SeqCst);
    let back = tokio::time::timeout(Duration::from_secs(60), async {
        while ready(&mut alice).await["status"] != "ok" {
            tokio::task::yield_now().await;
        }
        while !has_secret(&alice.get("/acme/whoami").await.unwrap()) {
            tokio::task::yield_now().await;
        }
    });
    back.await.expect("the root key is asked after, and calls are answered again");
    let records = scene.site.records().unwrap();
    let start = |text: &str| {
        records.iter().filter(|record| record["detail"].as_str().unwrap_or_default().contains(text)).count()
    };
    assert_eq!((start("secrets=available"), start("secrets=unavailable")), (1, 1));
    assert!(records.iter().any(|record| record["ending"] == "secrets_unavailable"));
}

/// Calls with curl's own signer, as often at once: how each was answered.
fn signed(scene: &Scene, (id, secret): (&str, &str), times: usize) -> std::process::Child {
    let mut curl = std::process::Command::new("curl");
    curl.args(["--silent", "--show-error", "--cacert"]).arg(scene.node.certificate());
    curl.args(["--aws-sigv4", "aws:amz:us-east-1:execute-api", "--user", &format!("{id}:{secret}")]);
    curl.args(["--parallel", "--parallel-immediate", "--parallel-max", "64", "--http1.1"]);
    curl.args(["--write-out", "%{http_code} %header{retry-after}\\n"]);
    for _ in 0..times {
        curl.args(["--output", "/dev/null"]).arg(format!("{}/acme/hello", scene.node.url()));
    }
    let piped = std::process::Stdio::piped;
    curl.stdout(piped()).stderr(piped()).spawn().expect("curl is needed: apt-get install curl")
}

fn answers(curl: std::process::Child) -> Vec<String> {
    let output = curl.wait_with_output().unwrap();
    String::from_utf8(output.stdout).unwrap().lines().map(|line| line.trim().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn access_keys_wait_for_a_root_key_that_is_slow_without_holding_up_others_and_are_told_of_an_outage() {
    let transit = Transit::start().await;
    let chosen = transit.dir.path().join("root-key.toml");
    std::fs::write(&chosen, transit.config_within(30_000)).unwrap();
    let site = Site::init_with(&["--root-key", &chosen.display().to_string()]).unwrap();
    let config = site.data().join("cofferdam.toml");
    let was = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, format!("{was}\n{LIMITS}")).unwrap();
    let scene = Scene { node: Node::start(&site).unwrap(), site };
    scene.node.run(&scene.site, &["tenant", "create", "acme"]).unwrap();
    let manifest = guests::root().join("tests/scene/acme.toml").display().to_string();
    scene.node.run(&scene.site, &["apply", &manifest]).unwrap();
    let mut alice = scene.alice().await.unwrap();
    assert_eq!(alice.get("/acme/hello").await.unwrap().status, 200);
    let create = ["key", "create", "acme", "signer", "--role", "invoker", "--kind", "sigv4", "--json"];
    let made: Value = serde_json::from_str(&scene.node.run(&scene.site, &create).unwrap()).unwrap();
    let text = |name: &str| made[name].as_str().unwrap().to_owned();
    let (id, secret) = (text("access_key_id"), text("secret_access_key"));
    let keys = (id.as_str(), secret.as_str());

    // The key is let go of after a second. Then several calls want it at once, and its keeper says nothing for a while.
    let held = |metrics: &str| metrics.contains("cofferdam_tenant_keys{state=\"held\"} 0\n");
    while !held(&metrics(&scene)) {
        tokio::task::yield_now().await;
    }
    transit.silent.send_replace(true);
    let before = transit.decrypts.load(SeqCst);
    let waiting = signed(&scene, keys, 8);
    while transit.decrypts.load(SeqCst) == before {
        tokio::task::yield_now().await;
    }
    for _ in 0..100 {
        assert_eq!(alice.get("/acme/hello").await.unwrap().status, 200, "who needs no key is answered meanwhile");
    }
    assert_eq!(transit.decrypts.load(SeqCst), before + 1);
    transit.silent.send_replace(false);
    assert_eq!(answers(waiting), vec!["200"; 8], "as many as one source may have in their handshakes at once");

    // An outage is no fault of the caller's.
    while !held(&metrics(&scene)) {
        tokio::task::yield_now().await;
    }
    transit.sealed.store(true, SeqCst);
    let before = transit.decrypts.load(SeqCst);
    assert_eq!(answers(signed(&scene, keys, 8)), vec!["503 5"; 8]);
    assert!(transit.decrypts.load(SeqCst) - before <= 4, "not each call asks");
    assert!(metrics(&scene).contains("cofferdam_secrets_available 0\n"));
    assert_eq!(ready(&mut alice).await["status"], "degraded");
    assert_eq!(alice.get("/acme/hello").await.unwrap().status, 200);
    transit.sealed.store(false, SeqCst);
    let back = tokio::time::timeout(Duration::from_secs(60), async {
        while answers(signed(&scene, keys, 1)) != ["200"] {
            tokio::task::yield_now().await;
        }
    });
    back.await.expect("calls are answered again, by the same process");
}

fn metrics(scene: &Scene) -> String {
    scene.node.run(&scene.site, &["metrics"]).unwrap()
}

fn rotate(scene: &Scene, value: &str, more: &[&str]) {
    let mut child = std::process::Command::new(guests::binary("cofferdam"))
        .args(["secret", "rotate", "acme/whoami", "API_SECRET", "--url", &scene.node.url(), "--data"])
        .arg(scene.site.data())
        .args(more)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(value.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn values_and_keys_are_replaced_while_calls_are_answered_and_gone_when_destroyed() {
    let scene = Scene::new().unwrap();
    let run = |line: &str| scene.node.run(&scene.site, &line.split(' ').collect::<Vec<_>>());
    let mut alice = scene.alice().await.unwrap();
    scene.set_secret("acme/whoami", "API_SECRET", "first-value").unwrap();
    let first = alice.get("/acme/whoami").await.unwrap().json()["secret_sha256"].clone();
    rotate(&scene, "second-value", &[]);
    let second = alice.get("/acme/whoami").await.unwrap().json()["secret_sha256"].clone();
    assert!(first.is_string() && second.is_string() && first != second);
    let versions: Value = serde_json::from_str(&run("secret versions acme/whoami API_SECRET --json").unwrap()).unwrap();
    let oldest = versions["versions"][1]["version"].as_u64().unwrap();
    run(&format!("secret rollback acme/whoami API_SECRET --version {oldest}")).unwrap();
    assert_eq!(alice.get("/acme/whoami").await.unwrap().json()["secret_sha256"], first);
    rotate(&scene, "third-value", &["--revoke-older"]);
    let refused = run(&format!("secret rollback acme/whoami API_SECRET --version {oldest}")).unwrap_err().to_string();
    assert!(refused.contains("taken out of use"), "{refused}");

    let third = alice.get("/acme/whoami").await.unwrap().json()["secret_sha256"].clone();
    run("tenant rotate-key acme").unwrap();
    run("vault rotate-root").unwrap();
    run("vault rotate-root --destroy-old").unwrap();
    run("cells recycle acme").unwrap();
    assert_eq!(alice.get("/acme/whoami").await.unwrap().json()["secret_sha256"], third);

    assert!(run("tenant shred acme --confirm globex").is_err());
    let gone: Value = serde_json::from_str(&run("tenant shred acme --confirm acme --json").unwrap()).unwrap();
    assert_eq!(alice.get("/acme/whoami").await.unwrap().status, StatusCode::NOT_FOUND);
    assert!(scene.set_secret("acme/whoami", "API_SECRET", "again").is_err());
    let mut bob = scene.caller("globex", "bob", "invoker").await.unwrap();
    assert_eq!(bob.get("/globex/whoami").await.unwrap().status, 200);
    let proof = format!("destroys={}", gone["destroyed"][0].as_str().unwrap());
    let records = scene.site.records().unwrap();
    let found = records.iter().find(|record| record["detail"].as_str().unwrap_or_default().contains(&proof));
    assert_eq!(found.expect("a record of it")["action"], "ShredTenant");
}
