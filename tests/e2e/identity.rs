//! Issuers that rotate and fail, credentials that are revoked, and people who log in: over the wire, on a real node.

mod issuer;

use std::time::Duration;

use cofferdam_model::{Clock, SystemClock};
use cofferdam_tests::{Answer, Client, Node, Scene};
use http::{Method, StatusCode};
use serde_json::Value;

use self::issuer::{Issuer, Key};

const PASSPHRASE: &str = "correct horse battery staple";
const FORM: &str = "application/x-www-form-urlencoded";

async fn call(node: &Node, authorization: &str) -> Answer {
    node.client().await.unwrap().with(authorization).get("/acme/hello").await.unwrap()
}

/// Asks again and again until it is so.
async fn until(what: &str, mut so: impl AsyncFnMut() -> bool) {
    let wait = async { while !so().await {} };
    assert!(tokio::time::timeout(Duration::from_secs(40), wait).await.is_ok(), "never came true: {what}");
}

fn counter(scene: &Scene, name: &str) -> u64 {
    let text = scene.node.run(&scene.site, &["metrics"]).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("no {name}"));
    line.trim().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_a_real_issuer_survive_rotation_outage_and_restart() {
    let (first, second, third) = (Key::new("first"), Key::new("second"), Key::new("third"));
    let issuer = Issuer::start(&[&first]).await.unwrap();
    let trust = format!("issuers_ca = {:?}\n", issuer.certificate());
    let declared = format!(
        "[[issuers]]\nissuer = {:?}\naudience = \"cofferdam\"\nalgorithms = [\"EdDSA\"]\ntenant = \"acme\"\n\
         roles_claim = \"roles\"\nmax_age_seconds = 10\n",
        issuer.name()
    );
    let mut scene = Scene::with_settings(&trust, &declared).unwrap();

    assert_eq!(call(&scene.node, &issuer.token(&first, "alice")).await.status, StatusCode::OK, "found by discovery");
    issuer.publish(&[&second]);
    assert_eq!(call(&scene.node, &issuer.token(&second, "alice")).await.status, StatusCode::OK, "a new key at once");
    let gone = call(&scene.node, &issuer.token(&first, "alice")).await;
    assert_eq!(gone.status, StatusCode::UNAUTHORIZED, "a key that is listed no more");

    let asked = issuer.asked();
    until("keys are renewed without a call", async || issuer.asked() > asked).await;

    // What the issuer has answered has arrived, so that the next request is one it does not answer.
    let had = "cofferdam_key_fetches_total{outcome=\"had\"}";
    until("no request is under way", async || counter(&scene, had) == issuer.asked() as u64).await;
    issuer.away(true);
    let known = issuer.token(&second, "alice");
    assert_eq!(call(&scene.node, &known).await.status, StatusCode::OK, "what was had is still good");
    let unknown = call(&scene.node, &issuer.token(&third, "alice")).await;
    assert_eq!(
        (unknown.status, unknown.json()["code"].as_str()),
        (StatusCode::SERVICE_UNAVAILABLE, Some("keys_unavailable"))
    );
    assert_eq!(unknown.header("retry-after"), "5", "not 401: nobody can tell yet");

    let Scene { site, node } = scene;
    assert!(node.stop().unwrap());
    scene = Scene { node: Node::start(&site).unwrap(), site };
    assert_eq!(call(&scene.node, &known).await.status, StatusCode::OK, "kept on disk");
    let failed = "cofferdam_key_fetches_total{outcome=\"failed\"}";
    until("the outage is counted", async || counter(&scene, failed) > 0).await;
    assert!(counter(&scene, "cofferdam_tokens_total{how=\"verified\"}") > 0);

    issuer.publish(&[&second, &third]);
    issuer.away(false);
    let third = issuer.token(&third, "alice");
    until("the issuer is asked again", async || call(&scene.node, &third).await.status == StatusCode::OK).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_revoked_is_refused_within_a_second_and_every_later_attempt_is_in_the_log() {
    let scene = Scene::new().unwrap();
    let alice = scene.site.token("acme", "alice", "invoker").unwrap();
    let file = scene.site.file("alice.token", alice.trim_start_matches("Bearer ")).unwrap().display().to_string();
    let clock = SystemClock::default();
    for (arguments, by) in [
        (vec!["token", "acme", "--file", &file], "token"),
        (vec!["subject", "acme", "alice"], "subject"),
        (vec!["sessions", "acme", "--subject", "alice"], "epoch"),
        (vec!["sessions", "acme"], "epoch"),
    ] {
        assert_eq!(call(&scene.node, &alice).await.status, StatusCode::OK, "{arguments:?}");
        let done = scene.node.run(&scene.site, &[&["revoke", "--json", "--reason", "lost"][..], &arguments].concat());
        let at = clock.monotonic();
        let revoked: Value = serde_json::from_str(&done.unwrap()).unwrap();
        let refused = call(&scene.node, &alice).await;
        assert!(clock.monotonic() - at < Duration::from_secs(1));
        assert_eq!(
            (refused.status, refused.json()["code"].as_str()),
            (StatusCode::UNAUTHORIZED, Some("credential_revoked"))
        );
        let records = scene.site.records().unwrap();
        let record = records.iter().find(|record| record["request"] == refused.header("x-request-id")).unwrap();
        assert_eq!((&record["kind"], &record["code"]), (&"refusal".into(), &"credential_revoked".into()));
        assert_eq!((&record["detail"], &record["principal"]["id"]), (&format!("revoked={by}").into(), &"alice".into()));
        let id = revoked["id"].as_str().unwrap();
        let listed = scene.node.run(&scene.site, &["revoke", "list", "acme"]).unwrap();
        assert!(listed.contains(id) && listed.contains("lost"), "{listed}");
        scene.node.run(&scene.site, &["revoke", "undo", id]).unwrap();
    }
    assert_eq!(call(&scene.node, &alice).await.status, StatusCode::OK, "all of it undone");

    scene.node.run(&scene.site, &["revoke", "tenant", "acme", "--reason", "unpaid"]).unwrap();
    let shut = call(&scene.node, &alice).await;
    assert_ne!(shut.status, StatusCode::OK);
    let direct = scene.node.client().await.unwrap().with(&alice).get("/-/invoke/acme/hello/").await.unwrap();
    assert_eq!(direct.json()["code"], "credential_revoked");
    let globex = scene.site.token("globex", "bob", "invoker").unwrap();
    let neighbour = scene.node.client().await.unwrap().with(&globex).get("/globex/hello").await.unwrap();
    assert_ne!(neighbour.json()["code"], "credential_revoked", "{}", neighbour.text());
    scene.node.run(&scene.site, &["revoke", "undo", "acme"]).unwrap();
    assert_eq!(call(&scene.node, &alice).await.status, StatusCode::OK);
}

/// A node with an issuer of its own, and dora, who may call functions and look at the tenant.
fn with_dora() -> Scene {
    let config = "[users]\nurl = \"https://localhost:8443\"\naudiences = [\"cofferdam\", \"billing.example\"]\n";
    let scene = Scene::with_config(config).unwrap();
    let add = ["user", "add", "acme", "dora", "--role", "invoker", "--role", "viewer", "--url", &scene.node.url()];
    let added = scene.site.try_run_with(&add, PASSPHRASE).unwrap();
    assert!(added.status.success(), "{added:?}");
    scene
}

fn login(scene: &Scene, more: &[&str], passphrase: &str) -> Result<Value, i32> {
    let url = scene.node.url();
    let arguments = [&["login", "--json", "--url", &url][..], more].concat();
    let done = scene.site.try_run_with(&arguments, passphrase).unwrap();
    match done.status.success() {
        true => Ok(serde_json::from_slice(&done.stdout).unwrap()),
        false => Err(done.status.code().unwrap_or(-1)),
    }
}

fn bearer(given: &Value) -> String {
    format!("Bearer {}", given["access_token"].as_str().unwrap())
}

async fn form(client: &mut Client, text: &str) -> Answer {
    client.call(Method::POST, "/-/issuer/token", text.to_owned()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_logs_in_calls_narrows_the_token_and_is_logged_out() {
    let scene = with_dora();
    let given = login(&scene, &["acme/dora"], PASSPHRASE).unwrap();
    let dora = bearer(&given);
    assert_eq!(call(&scene.node, &dora).await.status, StatusCode::OK);
    let mut client = scene.node.client().await.unwrap().with(&dora);
    assert_eq!(client.get("/-/v1/tenants/acme").await.unwrap().status, StatusCode::OK, "as a viewer");

    let file = scene.site.file("dora.token", given["access_token"].as_str().unwrap()).unwrap().display().to_string();
    let less =
        login(&scene, &["--exchange", &file, "--role", "invoker", "--scope", "Data", "--ttl", "60s"], "").unwrap();
    assert_eq!((&less["roles"], &less["scope"]), (&serde_json::json!(["invoker"]), &"Data".into()));
    assert!(less["expires_in"].as_u64().unwrap() <= 60);
    assert_eq!(call(&scene.node, &bearer(&less)).await.status, StatusCode::OK);
    let mut client = scene.node.client().await.unwrap().with(&bearer(&less));
    assert_eq!(client.get("/-/v1/tenants/acme").await.unwrap().status, StatusCode::FORBIDDEN, "a viewer no more");
    let narrow = scene.site.file("less.token", less["access_token"].as_str().unwrap()).unwrap().display().to_string();
    for wider in [&["--role", "viewer"][..], &["--scope", "Observe"], &["--audience", "elsewhere"]] {
        assert_eq!(login(&scene, &[&["--exchange", &narrow][..], wider].concat(), ""), Err(3), "{wider:?}");
    }
    let elsewhere = login(&scene, &["--exchange", &file, "--audience", "billing.example"], "").unwrap();
    assert_eq!(
        call(&scene.node, &bearer(&elsewhere)).await.status,
        StatusCode::UNAUTHORIZED,
        "meant for somebody else"
    );

    scene.node.run(&scene.site, &["issuer", "rotate"]).unwrap();
    assert_eq!(call(&scene.node, &dora).await.status, StatusCode::OK, "signed before, and not ended");
    let mut nobody = scene.node.client().await.unwrap();
    let keys = nobody.get("/-/issuer/jwks").await.unwrap().json();
    assert_eq!(keys["keys"].as_array().map(Vec::len), Some(2));
    let about = nobody.get("/-/issuer/.well-known/openid-configuration").await.unwrap().json();
    assert_eq!(about["issuer"], "https://localhost:8443/-/issuer");
    assert_eq!(about["jwks_uri"], "https://localhost:8443/-/issuer/jwks");
    assert_eq!(bearer(&login(&scene, &["acme/dora"], PASSPHRASE).unwrap()).split('.').count(), 3);

    let passwd = ["user", "passwd", "acme", "dora", "--url", &scene.node.url()];
    assert!(scene.site.try_run_with(&passwd, "another horse entirely").unwrap().status.success());
    assert_eq!(call(&scene.node, &dora).await.json()["code"], "credential_revoked");
    assert_eq!(login(&scene, &["acme/dora"], PASSPHRASE), Err(5));
}

#[tokio::test(flavor = "multi_thread")]
async fn logins_are_recorded_and_limited_and_no_passphrase_is_ever_written_down() {
    let scene = with_dora();
    let given = login(&scene, &["acme/dora"], PASSPHRASE).unwrap();
    assert_eq!(login(&scene, &["acme/dora"], "wrong horse battery staple"), Err(5));
    let mut nobody = scene.node.client().await.unwrap().with_header("content-type", FORM);
    let unknown = form(&mut nobody, "grant_type=password&username=acme/hunter2secret&password=x").await;
    let wrong = form(&mut nobody, "grant_type=password&username=acme/dora&password=x").await;
    for refused in [&unknown, &wrong] {
        assert_eq!((refused.status, refused.json()["code"].as_str()), (StatusCode::UNAUTHORIZED, Some("login_failed")));
    }
    assert_eq!(unknown.json()["detail"], wrong.json()["detail"], "whoever is nobody is told the same");
    let mut limited = 0;
    for _ in 0..8 {
        limited += usize::from(
            form(&mut nobody, "grant_type=password&username=acme/dora&password=x").await.status
                == StatusCode::TOO_MANY_REQUESTS,
        );
    }
    assert!(limited >= 4, "{limited}");
    for bad in ["", "grant_type=none", "grant_type=password&username=dora&password=x", "{}"] {
        // Whoever sends what makes no sense is hung up on.
        let mut nobody = scene.node.client().await.unwrap().with_header("content-type", FORM);
        assert_eq!(form(&mut nobody, bad).await.status, StatusCode::BAD_REQUEST, "{bad}");
    }
    let mut shown = scene.node.client().await.unwrap().with(&bearer(&given));
    assert_eq!(
        form(&mut shown, "grant_type=password&username=acme/dora&password=x").await.status,
        StatusCode::BAD_REQUEST
    );

    let records = scene.site.records().unwrap();
    let failed: Vec<_> =
        records.iter().filter(|record| record["code"] == "login_failed" && record["kind"] == "refusal").collect();
    assert!(failed.iter().any(|record| record["detail"] == "login user=acme/dora"), "{failed:?}");
    assert!(failed.iter().any(|record| record["detail"] == "login user=unknown"), "a wrong name may be a passphrase");
    let issued = records.iter().find(|record| record["action"] == "IssueToken" && record["kind"] == "intent").unwrap();
    assert_eq!(
        (&issued["principal"]["id"], &issued["principal"]["credential"]),
        (&"dora".into(), &"passphrase".into())
    );
    let all = serde_json::to_string(&records).unwrap();
    for secret in [PASSPHRASE, "wrong horse", "hunter2secret", given["access_token"].as_str().unwrap()] {
        assert!(!all.contains(secret), "{secret}");
    }
}
