//! Who is believed, over the wire.

use cofferdam_tests::{Client, Scene};
use http::StatusCode;

#[tokio::test(flavor = "multi_thread")]
async fn only_a_believed_credential_gets_past_the_door() {
    let scene = Scene::new().unwrap();
    let mut nobody = scene.node.client().await.unwrap();
    let refused = nobody.get("/acme/hello").await.unwrap();
    assert_eq!(refused.status, StatusCode::UNAUTHORIZED);
    assert_eq!(refused.header("content-type"), "application/problem+json");
    assert_eq!(refused.json()["code"], "unauthenticated");
    assert_eq!(refused.json()["request_id"], refused.header("x-request-id"));
    assert!(!refused.header("www-authenticate").is_empty());

    let good = scene.site.token("acme", "alice", "invoker").unwrap();
    let mut broken = good.clone();
    broken.truncate(good.len() - 2);
    for wrong in [broken.as_str(), "Bearer x", "Bearer ", "Basic YTpi", "ApiKey cof_nope", "nonsense"] {
        let mut client = scene.node.client().await.unwrap().with(wrong);
        assert_eq!(client.get("/acme/hello").await.unwrap().status, StatusCode::UNAUTHORIZED, "{wrong}");
    }
    let mut alice = scene.node.client().await.unwrap().with(&good);
    assert_eq!(alice.get("/acme/hello").await.unwrap().text(), "hello, world\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn api_keys_work_until_they_are_revoked() {
    let scene = Scene::new().unwrap();
    let made = scene.node.run(&scene.site, &["key", "create", "acme", "robot", "--role", "invoker", "--json"]).unwrap();
    let made: serde_json::Value = serde_json::from_str(&made).unwrap();
    let mut robot = key_client(&scene, made["key"].as_str().unwrap()).await;
    assert_eq!(robot.get("/acme/hello").await.unwrap().status, StatusCode::OK);
    scene.node.run(&scene.site, &["key", "revoke", made["id"].as_str().unwrap()]).unwrap();
    assert_eq!(robot.get("/acme/hello").await.unwrap().status, StatusCode::UNAUTHORIZED);
    let listed = scene.node.run(&scene.site, &["key", "list", "acme", "--json"]).unwrap();
    assert!(!listed.contains(made["key"].as_str().unwrap()), "a key is shown once");
}

async fn key_client(scene: &Scene, key: &str) -> Client {
    scene.node.client().await.unwrap().with(&format!("ApiKey {key}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn health_answers_without_a_credential() {
    let scene = Scene::bare().unwrap();
    let mut nobody = scene.node.client().await.unwrap();
    assert_eq!(nobody.get("/-/health").await.unwrap().status, StatusCode::OK);
    assert_eq!(nobody.get("/-/ready").await.unwrap().status, StatusCode::OK);
}
