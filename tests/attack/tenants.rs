//! Tenants against each other and against the platform.

use cofferdam_tests::Scene;
use http::{Method, StatusCode};

#[tokio::test(flavor = "multi_thread")]
async fn a_tenants_admin_cannot_touch_another_tenant() {
    let scene = Scene::new().unwrap();
    let mut mallory = scene.caller("globex", "mallory", "admin").await.unwrap();
    let tries = [
        (Method::GET, "/-/v1/tenants/acme", ""),
        (Method::PUT, "/-/v1/tenants/acme/functions/hello", "{}"),
        (Method::PUT, "/-/v1/tenants/acme/functions/whoami/secrets/API_SECRET", "x"),
        (Method::GET, "/-/v1/tenants/acme/functions/whoami/secrets", ""),
        (Method::GET, "/-/v1/tenants/acme/functions/whoami/logs", ""),
        (Method::GET, "/-/v1/tenants/acme/usage", ""),
        (Method::POST, "/-/v1/tenants/acme/functions/hello/prune", r#"{"keep":1}"#),
        (Method::DELETE, "/-/v1/tenants/acme/functions/hello", ""),
        (Method::PUT, "/-/v1/tenants/acme/policies/evil", r#"{"text":"permit(principal, action, resource);"}"#),
        (Method::POST, "/-/v1/tenants/acme/keys", r#"{"account":"x","roles":["admin"],"ttl_seconds":60}"#),
        (Method::GET, "/-/invoke/acme/hello/", ""),
    ];
    for (method, path, body) in tries {
        let answer = mallory.call(method.clone(), path, body).await.unwrap();
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{method} {path}: {}", answer.text());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenants_policy_cannot_let_another_tenant_in() {
    let scene = Scene::new().unwrap();
    let file = scene.site.file("open.cedar", "permit(principal, action, resource);").unwrap();
    scene.node.run(&scene.site, &["policy", "put", "acme", "open", &file.display().to_string()]).unwrap();
    let mut bob = scene.caller("globex", "bob", "invoker").await.unwrap();
    assert_eq!(bob.get("/acme/hello").await.unwrap().status, StatusCode::NOT_FOUND);
    let mut nobody = scene.node.client().await.unwrap();
    assert_eq!(nobody.get("/acme/hello").await.unwrap().status, StatusCode::UNAUTHORIZED);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_cannot_take_anothers_route() {
    let scene = Scene::new().unwrap();
    let mut mallory = scene.caller("globex", "mallory", "admin").await.unwrap();
    let route = r#"[{"host":"localhost","path":"/acme/hello","function":"hello"}]"#;
    let answer = mallory.call(Method::PUT, "/-/v1/tenants/globex/apps/evil/routes", route).await.unwrap();
    assert!(answer.status.is_client_error(), "{}", answer.text());
    let mut alice = scene.alice().await.unwrap();
    assert_eq!(alice.get("/acme/hello").await.unwrap().status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_cannot_call_or_read_logs_of_a_tenants_function() {
    let scene = Scene::new().unwrap();
    let key = std::fs::read_to_string(scene.site.data().join("operator.key")).unwrap();
    let mut operator = scene.node.client().await.unwrap().with(&format!("ApiKey {}", key.trim()));
    assert_eq!(operator.get("/-/v1/tenants").await.unwrap().status, StatusCode::OK);
    assert_eq!(operator.get("/acme/hello").await.unwrap().status, StatusCode::FORBIDDEN);
    assert_eq!(operator.get("/-/v1/tenants/acme/functions/whoami/logs").await.unwrap().status, StatusCode::FORBIDDEN);
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_above_the_ceiling_are_refused() {
    let scene = Scene::new().unwrap();
    let mut boss = scene.caller("acme", "boss", "admin").await.unwrap();
    let settings = r#"{"limits":{"memory_bytes":109951162777600}}"#;
    let answer = boss.call(Method::PUT, "/-/v1/tenants/acme/functions/greedy", settings).await.unwrap();
    assert!(answer.status.is_client_error(), "{}", answer.text());
    assert!(answer.text().contains("memory_bytes"), "{}", answer.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_and_outsiders_learn_nothing_of_what_exists() {
    let scene = Scene::new().unwrap();
    let mut nobody = scene.node.client().await.unwrap();
    for path in ["/-/invoke/acme/hello", "/-/invoke/acme/nothing", "/-/v1/tenants/acme", "/-/v1/nothing"] {
        assert_eq!(nobody.get(path).await.unwrap().status, StatusCode::UNAUTHORIZED, "{path}");
    }
    let mut bob = scene.caller("globex", "bob", "admin").await.unwrap();
    for (there, nowhere) in [("/acme/hello", "/acme/nothing"), ("/-/invoke/acme/hello", "/-/invoke/acme/nothing")] {
        let (hidden, missing) = (bob.get(there).await.unwrap(), bob.get(nowhere).await.unwrap());
        let shown = |answer: &cofferdam_tests::Answer| {
            let names: Vec<String> = answer.headers.keys().map(ToString::to_string).collect();
            (answer.status, names, answer.json()["code"].clone(), answer.json()["detail"].clone())
        };
        assert_eq!(shown(&hidden), shown(&missing), "{there} can be told from {nowhere}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outsider_cannot_use_up_a_routes_limit() {
    let scene = Scene::new().unwrap();
    let mut bob = scene.caller("globex", "bob", "invoker").await.unwrap();
    for _ in 0..10 {
        assert_eq!(bob.get("/acme/limited").await.unwrap().status, StatusCode::NOT_FOUND);
    }
    let mut alice = scene.alice().await.unwrap();
    assert_eq!(alice.get("/acme/limited").await.unwrap().status, StatusCode::OK);
}
