//! Who may, over the wire.

use cofferdam_tests::Scene;
use http::{Method, StatusCode};

#[tokio::test(flavor = "multi_thread")]
async fn roles_and_tenants_are_kept_apart() {
    let scene = Scene::new().unwrap();
    let mut bob = scene.caller("globex", "bob", "invoker").await.unwrap();
    assert_eq!(bob.get("/globex/hello").await.unwrap().status, StatusCode::OK);
    let hidden = bob.get("/acme/hello").await.unwrap();
    let nothing = bob.get("/acme/nothing").await.unwrap();
    assert_eq!(hidden.status, StatusCode::NOT_FOUND);
    assert_eq!(hidden.json()["code"], nothing.json()["code"], "what may not be known looks like what is not there");

    let mut carol = scene.caller("acme", "carol", "nothing-much").await.unwrap();
    let refused = carol.get("/acme/hello").await.unwrap();
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    assert!(refused.json()["request_id"].as_str().unwrap().starts_with("req_"));
}

#[tokio::test(flavor = "multi_thread")]
async fn public_routes_take_strangers_and_only_they_do() {
    let scene = Scene::new().unwrap();
    let mut nobody = scene.node.client().await.unwrap();
    assert_eq!(nobody.get("/acme/public").await.unwrap().status, StatusCode::OK);
    assert_eq!(nobody.get("/acme/hello").await.unwrap().status, StatusCode::UNAUTHORIZED);
    assert_eq!(nobody.get("/-/v1/tenants").await.unwrap().status, StatusCode::UNAUTHORIZED);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenants_policy_changes_the_next_decision() {
    let scene = Scene::new().unwrap();
    let mut alice = scene.alice().await.unwrap();
    assert_eq!(alice.get("/acme/hello").await.unwrap().status, StatusCode::OK);
    let policy = r#"forbid(principal, action == Action::"Invoke", resource) when { resource.name == "hello" };"#;
    let file = scene.site.file("no-hello.cedar", policy).unwrap();
    scene.node.run(&scene.site, &["policy", "put", "acme", "no-hello", &file.display().to_string()]).unwrap();
    assert_eq!(alice.get("/acme/hello").await.unwrap().status, StatusCode::FORBIDDEN);
    assert_eq!(alice.get("/acme/whoami").await.unwrap().status, StatusCode::OK);
    scene.node.run(&scene.site, &["policy", "rm", "acme", "no-hello"]).unwrap();
    assert_eq!(alice.get("/acme/hello").await.unwrap().status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn management_is_authorized_like_everything_else() {
    let scene = Scene::new().unwrap();
    let mut alice = scene.alice().await.unwrap();
    let refused = alice.call(Method::POST, "/-/v1/tenants", r#"{"name":"evil"}"#).await.unwrap();
    assert!([StatusCode::FORBIDDEN, StatusCode::NOT_FOUND].contains(&refused.status), "{}", refused.text());
    let own = alice.call(Method::PUT, "/-/v1/tenants/acme/members/alice", r#"{"roles":["admin"]}"#).await.unwrap();
    assert_eq!(own.status, StatusCode::FORBIDDEN, "nobody promotes himself");
    let mut bob = scene.caller("globex", "bob", "admin").await.unwrap();
    let other = bob.call(Method::PUT, "/-/v1/tenants/acme/members/bob", r#"{"roles":["admin"]}"#).await.unwrap();
    assert_eq!(other.status, StatusCode::NOT_FOUND);
}
