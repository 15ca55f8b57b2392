//! Ceilings over tenants, keys that are good for little, and functions that may less than they declare.

use cofferdam_tests::{Answer, Scene};
use http::{Method, StatusCode};
use serde_json::{Value, json};

fn put(scene: &Scene, owner: &str, name: &str, tier: &str, text: &str) {
    let file = scene.site.file(&format!("{name}.cedar"), text).unwrap().display().to_string();
    scene.node.run(&scene.site, &["policy", "put", owner, name, &file, "--tier", tier]).unwrap();
}

/// The record of a call.
fn record(scene: &Scene, answer: &Answer) -> Value {
    let request = answer.header("x-request-id").to_owned();
    let records = scene.site.records().unwrap();
    records.into_iter().find(|record| record["request"] == request.as_str()).expect("it is in the log")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_operators_bind_a_tenant_by_holds_for_the_next_call_and_is_in_its_record() {
    let scene = Scene::new().unwrap();
    let run = |arguments: &[&str]| scene.node.run(&scene.site, arguments).unwrap();
    let mut alice = scene.alice().await.unwrap();
    assert_eq!(alice.get("/acme/hello").await.unwrap().status, StatusCode::OK);
    run(&["org", "create", "group"]);
    put(&scene, "group", "no-data", "ceiling", r#"permit (principal, action in Action::"Manage", resource);"#);
    assert_eq!(alice.get("/acme/hello").await.unwrap().status, StatusCode::OK, "it is in no organisation yet");
    run(&["org", "assign", "group", "acme"]);
    let refused = alice.get("/acme/hello").await.unwrap();
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    let decision = record(&scene, &refused)["decision"].clone();
    assert_eq!((&decision["outcome"], &decision["tier"]), (&json!("ceiling_deny"), &json!("organisation")));
    let sets = decision["sets"].as_object().unwrap();
    assert_eq!(sets.keys().collect::<Vec<_>>(), ["organisation", "platform", "tenant"]);
    for set in sets.values() {
        assert_eq!(set["sha256"].as_str().unwrap().len(), 64, "{set}");
    }
    let mut bob = scene.caller("globex", "bob", "invoker").await.unwrap();
    assert_eq!(bob.get("/globex/hello").await.unwrap().status, StatusCode::OK, "another tenant is not bound");
    run(&["org", "release", "acme"]);
    assert_eq!(alice.get("/acme/hello").await.unwrap().status, StatusCode::OK);
    put(
        &scene,
        "acme",
        "edge",
        "boundary",
        r#"permit (principal, action in Action::"Data", resource) when { resource.name == "whoami" };"#,
    );
    assert_eq!(alice.get("/acme/hello").await.unwrap().status, StatusCode::FORBIDDEN);
    assert_eq!(alice.get("/acme/whoami").await.unwrap().status, StatusCode::OK);
    run(&["policy", "rm", "acme", "edge", "--tier", "boundary"]);
    assert_eq!(alice.get("/acme/hello").await.unwrap().status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenants_admin_cannot_loosen_what_binds_the_tenant() {
    let scene = Scene::new().unwrap();
    let mut admin = scene.caller("acme", "root", "admin").await.unwrap();
    let open = r#"{"text":"permit (principal, action, resource);"}"#;
    for (method, path, body) in [
        (Method::PUT, "/-/v1/tenants/acme/boundary/edge", open),
        (Method::DELETE, "/-/v1/tenants/acme/boundary/edge", ""),
        (Method::PUT, "/-/v1/tenants/acme/organisation", r#"{"organisation":null}"#),
        (Method::POST, "/-/v1/organisations", r#"{"name":"mine"}"#),
        (Method::GET, "/-/v1/organisations", ""),
    ] {
        let refused = admin.call(method, path, body).await.unwrap();
        let expected = [StatusCode::FORBIDDEN, StatusCode::NOT_FOUND];
        assert!(expected.contains(&refused.status), "{path}: {}", refused.text());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_good_for_its_scopes_alone() {
    let scene = Scene::new().unwrap();
    let create = ["key", "create", "acme", "ci", "--role", "admin", "--scope", "Data", "--scope", "fn:hello"];
    let key = scene.node.run(&scene.site, &create).unwrap();
    let mut ci = scene.node.client().await.unwrap().with(&format!("ApiKey {}", key.trim()));
    assert_eq!(ci.get("/acme/hello").await.unwrap().status, StatusCode::OK);
    let other = ci.get("/acme/whoami").await.unwrap();
    assert_eq!(other.status, StatusCode::FORBIDDEN);
    let decision = record(&scene, &other)["decision"].clone();
    assert_eq!((&decision["outcome"], &decision["tier"]), (&json!("ceiling_deny"), &json!("session")));
    assert_eq!(ci.get("/-/v1/tenants/acme").await.unwrap().status, StatusCode::FORBIDDEN);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_gives_what_he_does_not_hold_and_is_told_what_that_is() {
    let scene = Scene::new().unwrap();
    put(
        &scene,
        "acme",
        "hr",
        "tenant",
        r#"permit (principal in Role::"hr", action in [Action::"Identity", Action::"Policy"], resource);"#,
    );
    let mut carol = scene.caller("acme", "carol", "hr").await.unwrap();
    for (method, path, body) in [
        (Method::PUT, "/-/v1/tenants/acme/members/eve", r#"{"roles":["invoker"]}"#),
        (
            Method::PUT,
            "/-/v1/tenants/acme/policies/mine",
            r#"{"text":"permit (principal, action == Action::\"Invoke\", resource);"}"#,
        ),
        (Method::POST, "/-/v1/tenants/acme/keys", r#"{"account":"ci","roles":["invoker"],"ttl_seconds":60}"#),
    ] {
        let refused = carol.call(method, path, body).await.unwrap();
        assert_eq!(refused.status, StatusCode::FORBIDDEN, "{path}");
        let told = refused.json();
        assert_eq!(told["code"], "escalates", "{told}");
        assert!(told["detail"].as_str().unwrap().contains("`Invoke`"), "{told}");
        assert_eq!(record(&scene, &refused)["decision"]["policies"], json!(["00-platform/no-escalation"]));
    }
    let own = carol.call(Method::PUT, "/-/v1/tenants/acme/members/dan", r#"{"roles":["hr"]}"#).await.unwrap();
    assert_eq!(own.status, StatusCode::OK, "{}", own.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_whose_function_may_not_have_its_secret_does_not_run() {
    let scene = Scene::new().unwrap();
    scene.set_secret("acme/whoami", "API_SECRET", "s3cret").unwrap();
    let mut alice = scene.alice().await.unwrap();
    let allowed = alice.get("/acme/whoami").await.unwrap();
    assert!(!allowed.json()["secret_sha256"].is_null());
    assert_eq!(record(&scene, &allowed)["uses"], json!(["API_SECRET: allow by tenant: 10-defaults/workload"]));
    put(
        &scene,
        "acme",
        "keep",
        "tenant",
        r#"@id("api") forbid (principal is Workload, action == Action::"UseSecret", resource)
           when { resource.secret == "API_SECRET" };"#,
    );
    let refused = alice.get("/acme/whoami").await.unwrap();
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    let told = refused.json();
    assert_eq!(told["code"], "secret_denied");
    assert!(told["detail"].as_str().unwrap().contains("API_SECRET"), "{told}");
    let record = record(&scene, &refused);
    assert_eq!(record["uses"], json!(["API_SECRET: explicit_deny by tenant: keep/api"]));
    assert_eq!(record["decision"]["outcome"], "allow", "the caller might call");
    assert_eq!(alice.get("/acme/hello").await.unwrap().status, StatusCode::OK, "others are not concerned");
}

/// Whether somebody was told that he would give what he does not hold, and of which action.
fn escalates(answer: &Answer, action: &str) -> bool {
    let told = answer.json();
    let named = told["detail"].as_str().is_some_and(|detail| detail.contains(&format!("`{action}`")));
    answer.status == StatusCode::FORBIDDEN && told["code"] == "escalates" && named
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_lifts_a_forbid_or_undoes_a_revocation_for_more_than_he_holds() {
    let scene = Scene::new().unwrap();
    let hr = r#"permit (principal in Role::"hr", action in [Action::"Identity", Action::"Policy"], resource);"#;
    put(&scene, "acme", "hr", "tenant", hr);
    put(&scene, "acme", "freeze", "tenant", r#"forbid (principal, action == Action::"Invoke", resource);"#);
    let secret = r#"forbid (principal in Role::"hr", action == Action::"ListKeys", resource is Tenant)
                    when { principal.id == "carol" };"#;
    put(&scene, "acme", "no-keys", "tenant", secret);
    let mut carol = scene.caller("acme", "carol", "hr").await.unwrap();
    let mut dan = scene.caller("acme", "dan", "hr").await.unwrap();
    let mut root = scene.caller("acme", "root", "admin").await.unwrap();
    let path = |name: &str| format!("/-/v1/tenants/acme/policies/{name}");
    // Neither by removing it nor by writing something else in its place.
    assert!(escalates(&carol.call(Method::DELETE, &path("freeze"), "").await.unwrap(), "Invoke"));
    let other = r#"{"text":"permit (principal, action == Action::\"ListKeys\", resource);"}"#;
    assert!(escalates(&carol.call(Method::PUT, &path("gift"), other).await.unwrap(), "ListKeys"));
    // Of several that she does not hold the first is named.
    assert!(escalates(&carol.call(Method::PUT, &path("freeze"), other).await.unwrap(), "Invoke"));
    assert!(escalates(&dan.call(Method::PUT, &path("freeze"), other).await.unwrap(), "Invoke"));
    assert!(escalates(&carol.call(Method::DELETE, &path("no-keys"), "").await.unwrap(), "ListKeys"));
    assert_eq!(
        dan.call(Method::DELETE, &path("no-keys"), "").await.unwrap().status,
        StatusCode::OK,
        "it binds him not"
    );
    // A key that may more than they, revoked by them and not to be brought back by them.
    let key = r#"{"account":"ci","roles":["admin"],"ttl_seconds":60}"#;
    assert_eq!(root.call(Method::POST, "/-/v1/tenants/acme/keys", key).await.unwrap().status, StatusCode::OK);
    let target = r#"{"target":{"kind":"account","account":"ci"},"reason":"lost"}"#;
    let revoked = carol.call(Method::POST, "/-/v1/tenants/acme/revocations", target).await.unwrap();
    let undo = format!("/-/v1/revocations/{}", revoked.json()["id"].as_str().unwrap());
    assert!(escalates(&carol.call(Method::DELETE, &undo, "").await.unwrap(), "Invoke"));
    assert_eq!(root.call(Method::DELETE, &undo, "").await.unwrap().status, StatusCode::OK);
    assert_eq!(root.call(Method::DELETE, &undo, "").await.unwrap().status, StatusCode::NOT_FOUND, "it is undone");
    // What is taken from all alike goes back by whoever would hold it.
    let mut alice = scene.alice().await.unwrap();
    assert_eq!(alice.get("/acme/hello").await.unwrap().status, StatusCode::FORBIDDEN);
    assert_eq!(root.call(Method::DELETE, &path("freeze"), "").await.unwrap().status, StatusCode::OK);
    assert_eq!(alice.get("/acme/hello").await.unwrap().status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_call_one_function_does_not_let_others_call_it() {
    let scene = Scene::new().unwrap();
    let editor = r#"permit (principal in Role::"editor", action in Action::"Policy", resource);
                    permit (principal in Role::"editor", action in Action::"Data", resource)
                    unless { resource.name == "whoami" };"#;
    put(&scene, "acme", "editor", "tenant", editor);
    let mut erin = scene.caller("acme", "erin", "editor").await.unwrap();
    assert_eq!(erin.get("/acme/hello").await.unwrap().status, StatusCode::OK);
    assert_eq!(erin.get("/acme/whoami").await.unwrap().status, StatusCode::FORBIDDEN);
    let gift = r#"permit (principal, action == Action::"Invoke", resource) when { resource.name == "whoami" };"#;
    let gift = format!(r#"{{"text":"{}"}}"#, gift.replace('"', "\\\""));
    let given = erin.call(Method::PUT, "/-/v1/tenants/acme/policies/gift", gift).await.unwrap();
    assert!(escalates(&given, "Invoke"), "{}", given.text());
    assert_eq!(erin.get("/acme/whoami").await.unwrap().status, StatusCode::FORBIDDEN);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_of_a_token_has_what_policies_give_it_and_the_log_is_a_resource_of_its_own() {
    let scene = Scene::new().unwrap();
    put(
        &scene,
        "acme",
        "oncall",
        "tenant",
        r#"permit (principal in Group::"oncall", action in Action::"Data", resource);
           permit (principal in Group::"oncall", action, resource is AuditLog);"#,
    );
    let person = async |group: &str| {
        let asked = ["token", "--tenant", "acme", "--subject", "gina", "--group", group];
        let token = scene.site.run(&asked).unwrap();
        scene.node.client().await.unwrap().with(&format!("Bearer {}", token.trim()))
    };
    let (mut gina, mut other) = (person("oncall").await, person("admin").await);
    let called = gina.get("/acme/hello").await.unwrap();
    assert_eq!(called.status, StatusCode::OK, "{}", called.text());
    let decision = record(&scene, &called)["decision"].clone();
    assert_eq!((&decision["given"]["groups"], &decision["policies"]), (&json!(["oncall"]), &json!(["oncall/1"])));
    assert_eq!(other.get("/acme/hello").await.unwrap().status, StatusCode::FORBIDDEN, "a group is no role");
    let read = gina.get("/-/v1/tenants/acme/audit").await.unwrap();
    assert_eq!(read.status, StatusCode::OK, "{}", read.text());
    let told = record(&scene, &read);
    assert!(told["resource"].as_str().unwrap().ends_with("|audit"), "{told}");
    assert_eq!(gina.get("/-/v1/tenants/acme").await.unwrap().status, StatusCode::FORBIDDEN);
    let asked = ["authz", "simulate", "--tenant", "acme", "--principal", "user:x", "--group", "oncall", "--action"];
    let told = scene.node.run(&scene.site, &[&asked[..], &["Invoke", "--function", "hello", "--json"]].concat());
    assert!(told.unwrap().contains("\"allow\""));
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_names_stored_policies_that_cover_less_than_they_name() {
    let scene = Scene::new().unwrap();
    let doctor = || {
        let told = scene.site.try_run(&["doctor", "--json"]).unwrap();
        let told: Value = serde_json::from_slice(&told.stdout).unwrap();
        let policies = |check: &&Value| check["name"] == "policies";
        let checks = told["checks"].as_array().unwrap().iter().filter(policies).cloned();
        checks.map(|check| (check["good"] == true, check["found"].to_string(), check["remedy"].to_string())).collect()
    };
    let checks: Vec<(bool, String, String)> = doctor();
    assert!(matches!(&checks[..], [(true, ..)]), "{checks:?}");
    let keep = r#"@id("keep") forbid (principal, action in Action::"Secrets", resource is Function);"#;
    put(&scene, "globex", "narrow", "tenant", keep);
    let checks: Vec<(bool, String, String)> = doctor();
    let [(false, found, remedy)] = &checks[..] else { panic!("{checks:?}") };
    assert!(
        found.contains("tenant `globex`, policy `narrow`") && found.contains("does not cover PutSecret"),
        "{found}"
    );
    assert!(remedy.contains("say it of Secret too"), "{remedy}");
}
