//! Evidence for TLS towards the outside: who is believed, and that sessions stay with their cell.

use super::server::{Identity, Reply, Server, ok};
use super::*;

use rustls::HandshakeKind;

const HOST: &str = "api.example.com";

fn secure(authority: &str) -> Outgoing {
    Outgoing { tls: true, ..get(authority) }
}

fn with_ca(host: &str, pem: &str) -> EgressRule {
    EgressRule { ca: Some(pem.to_owned()), ..rule(host, 443, true) }
}

async fn led(scene: &Scene, identity: &Identity) -> Server {
    let server = Server::tls(identity, |_| Reply::Last(ok("hello"))).await;
    scene.script.answer(HOST, &["93.184.216.34"]);
    scene.script.answer("other.example.com", &["93.184.216.34"]);
    scene.leads.lead("93.184.216.34:443", server.address);
    server
}

#[tokio::test]
async fn a_rules_own_authority_is_believed_and_nobody_else() {
    let scene = Scene::new().await;
    let (identity, stranger) = (Identity::of(&[HOST, "93.184.216.34"]), Identity::of(&[HOST]));
    let server = led(&scene, &identity).await;
    let outlet = scene.outlet(&[with_ca("*", &identity.pem)]);
    let (status, _, body) = scene.fetch(&*outlet, secure(HOST)).await.unwrap();
    assert_eq!((status, body.as_str()), (200, "hello"));
    // An address has to be in the certificate as one.
    scene.fetch(&*outlet, secure("93.184.216.34")).await.unwrap();
    assert_eq!(server.requests().len(), 2);
    let public = scene.outlet(&[rule("*", 443, true)]);
    let other = scene.outlet(&[with_ca("*", &stranger.pem)]);
    for (outlet, authority) in [(&public, HOST), (&other, HOST), (&outlet, "other.example.com")] {
        let error = scene.failure(&**outlet, secure(authority)).await;
        assert_eq!(error.ending, EgressEnd::TlsFailed, "{authority}: {error}");
    }
    assert_eq!(server.requests().len(), 2);
    let records = scene.records().await;
    assert_eq!(
        (&records[0]["tls"], &records[0]["rule"]),
        (&TlsVersion::Tls13.as_str().into(), &"https://*:443".into())
    );
    assert!(records[2].get("tls").is_none(), "{}", records[2]);
}

#[tokio::test]
async fn one_rules_authority_does_not_speak_for_anothers_host() {
    let scene = Scene::new().await;
    let identity = Identity::of(&[HOST, "other.example.com"]);
    let server = led(&scene, &identity).await;
    let outlet = scene.outlet(&[with_ca(HOST, &identity.pem), rule("*", 443, true)]);
    scene.fetch(&*outlet, secure(HOST)).await.unwrap();
    assert_eq!(scene.failure(&*outlet, secure("other.example.com")).await.ending, EgressEnd::TlsFailed);
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn sessions_are_resumed_by_their_own_cell_alone() {
    let scene = Scene::new().await;
    let identity = Identity::of(&[HOST]);
    let server = led(&scene, &identity).await;
    let rules = [with_ca("*", &identity.pem)];
    let (one, other) = (scene.outlet(&rules), scene.outlet(&rules));
    for outlet in [&one, &one, &other] {
        scene.fetch(&**outlet, secure(HOST)).await.unwrap();
    }
    let kinds = server.handshakes();
    assert_eq!(kinds[1], HandshakeKind::Resumed);
    assert_eq!((kinds[0], kinds[2]), (HandshakeKind::Full, HandshakeKind::Full));
}

#[tokio::test]
async fn an_answer_without_length_that_breaks_off_is_a_failure_under_tls() {
    for (goodbye, good) in [(true, true), (false, false)] {
        let scene = Scene::new().await;
        let identity = Identity::of(&[HOST]);
        let text = "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nhello";
        let reply = move |_: &str| if goodbye { Reply::Last(text.into()) } else { Reply::Break(text.into()) };
        let server = Server::tls(&identity, reply).await;
        scene.script.answer(HOST, &["93.184.216.34"]);
        scene.leads.lead("93.184.216.34:443", server.address);
        let outlet = scene.outlet(&[with_ca("*", &identity.pem)]);
        match scene.fetch(&*outlet, secure(HOST)).await {
            Ok((_, _, body)) => assert!(good && body == "hello"),
            Err(error) => assert!(!good && error.ending == EgressEnd::PeerFailed, "{error}"),
        }
    }
}

#[tokio::test]
async fn rules_that_cannot_be_kept_are_refused_with_a_reason() {
    let scene = Scene::new().await;
    let refused = |rule: EgressRule| {
        let error = scene.egress.outlet(scope(tenant(1), &[rule])).map(|_| ()).unwrap_err();
        error.to_string()
    };
    let pem = Identity::of(&[HOST]).pem;
    assert!(refused(with_ca("*", "nothing")).contains("holds no certificate"));
    assert!(refused(with_ca("*", &pem.replace("MII", "AAA"))).contains("cannot be read"));
    assert!(refused(with_ca("*", &"a".repeat(40_000))).contains("32768 bytes"));
    assert!(refused(EgressRule { tls: false, ..with_ca("*", &pem) }).contains("without TLS"));
    assert!(refused(rule("*", 0, true)).contains("port is 0"));
    assert!(refused(EgressRule { methods: vec!["CONNECT".into()], ..rule("*", 443, true) }).contains("`CONNECT`"));
    let many = vec![rule("*", 443, true); cofferdam_model::egress::RULES + 1];
    assert!(scene.egress.outlet(scope(tenant(1), &many)).is_err());
    let ceiling = EgressCeiling { networks: vec!["everything".into()], ..wide() };
    let scope = Scope { ceiling: Arc::new(ceiling), ..scope(tenant(1), &[]) };
    assert!(scene.egress.outlet(scope).map(|_| ()).unwrap_err().to_string().contains("`everything`"));
}
