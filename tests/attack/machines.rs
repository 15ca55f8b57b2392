//! Attacks on machines: signatures that are bent or shown again, certificates where they do not belong.

use std::process::Command;
use std::sync::Arc;

use cofferdam_tests::pki::{Authority, Machine, settings};
use cofferdam_tests::{Broken, Client, Scene, guests};
use http::StatusCode;
use rustls::NamedGroup;
use rustls::client::{
    ClientSessionMemoryCache, ClientSessionStore, Resumption, Tls12ClientSessionValue, Tls13ClientSessionValue,
};
use rustls::pki_types::ServerName;
use tokio_rustls::TlsConnector;

const PAY: &str = "spiffe://acme.example/pay";

/// A machine that signs with botocore and sends with curl, so that what is sent need not be what was signed.
struct Attacker {
    scene: Scene,
    id: String,
    secret: String,
}

impl Attacker {
    fn new(more: &[&str]) -> Self {
        let scene = Scene::new().unwrap();
        let create = ["key", "create", "acme", "signer", "--role", "invoker", "--kind", "sigv4", "--json"];
        let made = scene.node.run(&scene.site, &[&create, more].concat()).unwrap();
        let made: serde_json::Value = serde_json::from_str(&made).unwrap();
        let text = |name: &str| made[name].as_str().unwrap().to_owned();
        let (id, secret) = (text("access_key_id"), text("secret_access_key"));
        Self { scene, id, secret }
    }

    /// The fields of a signed request.
    fn signs(&self, method: &str, path: &str, body: &str, fields: &[&str]) -> Vec<String> {
        let url = format!("{}{path}", self.scene.node.url());
        let mut sign = Command::new(guests::built("sign"));
        let output = sign.args([&self.id, &self.secret, "fields", method, &url, body]).args(fields).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
    }

    /// Sends these fields and this body; gives the body and the status answered.
    fn sends(&self, method: &str, path: &str, body: &str, fields: &[String]) -> (String, u16) {
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--http1.1", "--write-out", "\n%{http_code}", "--request", method, "--cacert"]);
        curl.arg(self.scene.node.certificate()).args(["--header", "content-type:", "--header", "accept:"]);
        for field in fields {
            curl.args(["--header", field]);
        }
        if !body.is_empty() {
            curl.args(["--data-binary", body]);
        }
        let output = curl.arg(format!("{}{path}", self.scene.node.url())).output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        let (body, status) = said.rsplit_once('\n').unwrap();
        (body.to_owned(), status.parse().unwrap())
    }
}

fn code(answer: &(String, u16)) -> (String, u16) {
    let problem: serde_json::Value = serde_json::from_str(&answer.0).unwrap_or_default();
    (problem["code"].as_str().unwrap_or_default().to_owned(), answer.1)
}

fn declared(body: &str) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, body.as_bytes());
    let hex: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("x-amz-content-sha256:{hex}")
}

#[test]
fn a_body_other_than_the_one_signed_never_comes_to_its_end() {
    let attacker = Attacker::new(&[]);
    let (sink, echo) = ("/acme/faults/sink", "/acme/faults/echo");
    // Named in a field: checked while it comes.
    let fields = attacker.signs("POST", sink, "signed body", &[&declared("signed body")]);
    assert_eq!(attacker.sends("POST", sink, "signed body", &fields), ("11\n".into(), 200));
    let fields = attacker.signs("POST", sink, "signed body", &[&declared("signed body"), "x-second:1"]);
    let bent = attacker.sends("POST", sink, "signed bodx", &fields);
    assert_eq!(code(&bent), ("body_altered".into(), 400), "{bent:?}");
    // Nothing of it comes back from a function that has begun to answer.
    let fields = attacker.signs("POST", echo, "signed body", &[&declared("signed body")]);
    let bent = attacker.sends("POST", echo, "signed bodx", &fields);
    assert!(!bent.0.contains("signed bod"), "{bent:?}");
    let chunked = |signed: &str| {
        let mut fields = attacker.signs("PUT", sink, signed, &[&declared(signed)]);
        fields.push("transfer-encoding: chunked".into());
        fields
    };
    let fields = chunked("in chunks");
    assert_eq!(attacker.sends("PUT", sink, "in chunks", &fields), ("9\n".into(), 200));
    assert_eq!(code(&attacker.sends("PUT", sink, "ni chunks", &fields)).1, 401, "that signature is used up");
    let bent = attacker.sends("PUT", sink, "in pieced", &chunked("in pieces"));
    assert_eq!(code(&bent), ("body_altered".into(), 400));
    let cut = attacker.signs("PUT", sink, "cut short", &[&declared("cut short")]);
    assert_eq!(code(&attacker.sends("PUT", sink, "cut", &cut)), ("body_altered".into(), 400));
    let none = attacker.signs("PUT", sink, "left out", &[&declared("left out")]);
    assert_eq!(code(&attacker.sends("PUT", sink, "", &none)), ("body_altered".into(), 400));
    // Not named: read first, and then the signature is not of it.
    let fields = attacker.signs("POST", echo, "plain", &[]);
    assert_eq!(code(&attacker.sends("POST", echo, "plaim", &fields)), ("unauthenticated".into(), 401));
    assert_eq!(attacker.sends("POST", echo, "plain", &fields), ("plain".into(), 200));
}

#[test]
fn a_signed_change_is_made_once_and_only_as_signed() {
    let attacker = Attacker::new(&[]);
    let path = "/acme/faults/echo";
    let fields = attacker.signs("POST", path, "once", &[]);
    assert_eq!(attacker.sends("POST", path, "once", &fields), ("once".into(), 200));
    assert_eq!(code(&attacker.sends("POST", path, "once", &fields)), ("unauthenticated".into(), 401));
    // Reading is as good the second time.
    let get = attacker.signs("GET", "/acme/hello", "", &[]);
    for _ in 0..2 {
        assert_eq!(attacker.sends("GET", "/acme/hello", "", &get).1, 200);
    }
    let with = |more: &str| attacker.sends("GET", "/acme/hello", "", &[&get[..], &[more.to_owned()]].concat()).1;
    assert_eq!(with("x-anything: 1"), 200);
    assert_eq!(with("x-amz-meta: 1"), 401);
    assert_eq!(with("authorization: ApiKey cof_x"), 401);
    for other in ["/acme/whoami", "/acme/hello?a=1", "/acme/hello?X-Amz-Expires=1", "/acme/hello?x-amz-signature=1"] {
        assert_eq!(attacker.sends("GET", other, "", &get).1, 401, "{other}");
    }
}

#[test]
fn a_key_bound_to_a_network_is_good_nowhere_else() {
    let attacker = Attacker::new(&["--network", "198.51.100.0/24"]);
    let get = attacker.signs("GET", "/acme/hello", "", &[]);
    assert_eq!(code(&attacker.sends("GET", "/acme/hello", "", &get)), ("unauthenticated".into(), 401));
    let here = Attacker::new(&["--network", "127.0.0.0/8"]);
    let get = here.signs("GET", "/acme/hello", "", &[]);
    assert_eq!(here.sends("GET", "/acme/hello", "", &get).1, 200);
}

/// A scene whose two tenants trust an authority each.
struct Doors {
    scene: Scene,
    acme: Authority,
    globex: Authority,
}

impl Doors {
    fn new() -> Self {
        let scene = Scene::with_doors().unwrap();
        let doors = Self { scene, acme: Authority::new("Acme").unwrap(), globex: Authority::new("Globex").unwrap() };
        doors.set("acme", &[]);
        doors.set("globex", &[]);
        doors
    }

    fn set(&self, tenant: &str, more: &[&str]) {
        let ca = if tenant == "acme" { &self.acme } else { &self.globex };
        let file = self.scene.site.file(&format!("{tenant}.pem"), &ca.pem).unwrap().display().to_string();
        let account = format!("{PAY}=>pay:invoker");
        let set = ["tenant", "ca", "set", tenant, "corp", "--certificates", &file, "--account", &account];
        self.scene.node.run(&self.scene.site, &[&set, more].concat()).unwrap();
    }

    fn revoke(&self, serials: &[u64]) {
        let crl = self.scene.site.file("acme.crl", &self.acme.revokes(serials).unwrap()).unwrap();
        self.set("acme", &["--crl", &crl.display().to_string()]);
    }

    async fn connect(&self, host: &str, machine: Option<&Machine>, resumption: Resumption) -> Result<Client, Broken> {
        let settings = settings(self.scene.node.certificate(), machine, resumption)?;
        Client::connect_to(host, self.scene.node.port, TlsConnector::from(settings)).await
    }

    async fn status(&self, client: Result<Client, Broken>) -> Option<StatusCode> {
        Some(client.ok()?.get("/hello").await.ok()?.status)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_counts_at_its_own_tenants_hosts_alone() {
    let doors = Doors::new();
    let pay = doors.acme.names(PAY, 7, 3000).unwrap();
    let never = Resumption::disabled;
    assert_eq!(doors.status(doors.connect("acme.test", Some(&pay), never()).await).await, Some(StatusCode::OK));
    assert_eq!(doors.status(doors.connect("globex.test", Some(&pay), never()).await).await, None);
    // Through the one door, and then to another host.
    for host in ["globex.test", "localhost", "127.0.0.1"] {
        let client = doors.connect("acme.test", Some(&pay), never()).await.map(|client| client.at_host(host));
        assert_eq!(doors.status(client).await, Some(StatusCode::MISDIRECTED_REQUEST), "{host}");
    }
    let token = doors.scene.site.token("acme", "alice", "invoker").unwrap();
    let two = doors.connect("acme.test", Some(&pay), never()).await.map(|client| client.with(&token));
    assert_eq!(doors.status(two).await, Some(StatusCode::UNAUTHORIZED));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_wants_certificates_is_reached_without_one_by_no_way() {
    let doors = Doors::new();
    let before = doors.connect("acme.test", None, Resumption::disabled()).await.unwrap();
    doors.set("acme", &["--required"]);
    let token = doors.scene.site.token("acme", "alice", "invoker").unwrap();
    let without = doors.connect("acme.test", None, Resumption::disabled()).await.map(|client| client.with(&token));
    assert_eq!(doors.status(without).await, Some(StatusCode::UNAUTHORIZED));
    // Neither by another host's connection, nor by one from before.
    for host in ["localhost", "globex.test"] {
        let aside = doors.connect(host, None, Resumption::disabled()).await.unwrap().at_host("acme.test").with(&token);
        assert_eq!(doors.status(Ok(aside)).await, Some(StatusCode::MISDIRECTED_REQUEST), "{host}");
    }
    let mut before = before.with(&token);
    assert_eq!(before.get("/hello").await.unwrap().status, StatusCode::UNAUTHORIZED);
    // The platform's own paths are not the tenant's to close.
    assert_eq!(before.get("/-/health").await.unwrap().status, StatusCode::OK);
    let pay = doors.acme.names(PAY, 7, 3000).unwrap();
    assert_eq!(
        doors.status(doors.connect("acme.test", Some(&pay), Resumption::disabled()).await).await,
        Some(StatusCode::OK)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_certificate_is_refused_at_once_also_on_connections_there_are() {
    let doors = Doors::new();
    let (pay, good) = (doors.acme.names(PAY, 7, 3000).unwrap(), doors.acme.names(PAY, 8, 3000).unwrap());
    let mut kept = doors.connect("acme.test", Some(&pay), Resumption::disabled()).await.unwrap();
    assert_eq!(kept.get("/hello").await.unwrap().status, StatusCode::OK);
    doors.revoke(&[7]);
    assert_eq!(kept.get("/hello").await.unwrap().status, StatusCode::UNAUTHORIZED);
    assert_eq!(doors.status(doors.connect("acme.test", Some(&pay), Resumption::disabled()).await).await, None);
    assert_eq!(
        doors.status(doors.connect("acme.test", Some(&good), Resumption::disabled()).await).await,
        Some(StatusCode::OK)
    );
}

/// A memory of sessions that offers any of them to every host.
#[derive(Debug)]
struct AnyHost(ClientSessionMemoryCache);

fn any() -> ServerName<'static> {
    ServerName::try_from("any.test").unwrap()
}

impl ClientSessionStore for AnyHost {
    fn set_kx_hint(&self, _: ServerName<'static>, group: NamedGroup) {
        self.0.set_kx_hint(any(), group);
    }

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        self.0.kx_hint(&any())
    }

    fn set_tls12_session(&self, _: ServerName<'static>, value: Tls12ClientSessionValue) {
        self.0.set_tls12_session(any(), value);
    }

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.0.tls12_session(&any())
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {
        self.0.remove_tls12_session(&any());
    }

    fn insert_tls13_ticket(&self, _: ServerName<'static>, value: Tls13ClientSessionValue) {
        self.0.insert_tls13_ticket(any(), value);
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.0.take_tls13_ticket(&any())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_session_is_resumed_at_another_door_or_after_its_authorities_changed() {
    let doors = Doors::new();
    let pay = doors.acme.names(PAY, 7, 3000).unwrap();
    let sessions: Arc<dyn ClientSessionStore> = Arc::new(AnyHost(ClientSessionMemoryCache::new(8)));
    let certificate = doors.scene.node.certificate();
    let settings = settings(certificate, Some(&pay), Resumption::store(sessions)).unwrap();
    let connect = async |host: &str| {
        let connector = TlsConnector::from(settings.clone());
        let mut client = Client::connect_to(host, doors.scene.node.port, connector).await.unwrap();
        let resumed = client.resumed();
        (resumed, client.get("/hello").await.ok().map(|answer| answer.status))
    };
    assert_eq!(connect("acme.test").await, (false, Some(StatusCode::OK)));
    assert_eq!(connect("acme.test").await, (true, Some(StatusCode::OK)));
    // A ticket of acme's door, shown at another: whoever shows it has to show its certificate anew.
    assert_eq!(connect("globex.test").await, (false, None));
    assert_eq!(connect("acme.test").await, (false, Some(StatusCode::OK)));
    let (resumed, status) = connect("localhost").await;
    assert!(!resumed && status != Some(StatusCode::OK));
    assert_eq!(connect("acme.test").await.1, Some(StatusCode::OK));
    assert_eq!(connect("acme.test").await, (true, Some(StatusCode::OK)));
    doors.revoke(&[8]);
    assert_eq!(connect("acme.test").await, (false, Some(StatusCode::OK)), "its list changed: nothing is resumed");
    assert_eq!(connect("acme.test").await, (true, Some(StatusCode::OK)));
    doors.revoke(&[7]);
    assert_eq!(connect("acme.test").await, (false, None));
}
