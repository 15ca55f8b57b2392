//! What is answered is in the log, once, and the log cannot be changed unnoticed.

use std::collections::HashMap;

use cofferdam_tests::Scene;
use http::StatusCode;
use serde_json::Value;

/// Outcomes by request id: `call` and `outcome` records, of which each call must have exactly one.
pub(crate) fn outcomes(records: &[Value]) -> HashMap<String, usize> {
    let mut found = HashMap::new();
    for record in records.iter().filter(|r| r["kind"] == "call" || r["kind"] == "outcome") {
        *found.entry(request_of(record).to_owned()).or_default() += 1;
    }
    found
}

/// The request id of a record; empty where its kind has none.
pub(crate) fn request_of(record: &Value) -> &str {
    record["request"].as_str().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_calls_in_a_row_leave_a_thousand_outcomes() {
    let scene = Scene::new().unwrap();
    let mut alice = scene.alice().await.unwrap();
    let mut ids = Vec::new();
    for _ in 0..1000 {
        let answer = alice.get("/acme/hello").await.unwrap();
        assert_eq!(answer.status, StatusCode::OK);
        ids.push(answer.header("x-request-id").to_owned());
    }
    let found = outcomes(&scene.site.records().unwrap());
    assert!(ids.iter().all(|id| found.get(id) == Some(&1)), "a call without exactly one outcome");
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_calls_at_once_leave_ten_thousand_outcomes() {
    let scene = Scene::new().unwrap();
    let token = scene.site.token("acme", "alice", "invoker").unwrap();
    let mut callers = Vec::new();
    for _ in 0..64 {
        let mut client = scene.node.client().await.unwrap().with(&token);
        callers.push(tokio::spawn(async move {
            let mut ids = Vec::new();
            for _ in 0..157 {
                let answer = client.get("/acme/hello").await.unwrap();
                assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
                ids.push(answer.header("x-request-id").to_owned());
            }
            ids
        }));
    }
    let mut ids = Vec::new();
    for caller in callers {
        ids.extend(caller.await.unwrap());
    }
    assert!(ids.len() > 10_000);
    let found = outcomes(&scene.site.records().unwrap());
    assert!(ids.iter().all(|id| found.get(id) == Some(&1)), "a call without exactly one outcome");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_intent_of_its_own_is_written_where_the_level_or_the_call_asks_for_one() {
    let scene = Scene::new().unwrap();
    let mut alice = scene.alice().await.unwrap();
    let mut id = async |path: &str| alice.get(path).await.unwrap().header("x-request-id").to_owned();
    let (plain, strict, slow) = (id("/acme/hello").await, id("/acme/strict").await, id("/acme/faults/slow").await);
    assert!(scene.node.stop().unwrap());
    let records = scene.site.records().unwrap();
    let kinds = |id: &str| -> Vec<&str> {
        records.iter().filter(|r| request_of(r) == id).filter_map(|r| r["kind"].as_str()).collect()
    };
    assert_eq!(kinds(&plain), ["call"]);
    assert_eq!(kinds(&strict), ["intent", "outcome"]);
    assert_eq!(kinds(&slow), ["intent", "outcome", "end"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_of_known_callers_and_of_strangers_are_in_the_log() {
    let scene = Scene::new().unwrap();
    let mut carol = scene.caller("acme", "carol", "nothing-much").await.unwrap();
    let denied = carol.get("/acme/hello").await.unwrap().header("x-request-id").to_owned();
    let mut nobody = scene.node.client().await.unwrap();
    for _ in 0..25 {
        assert_eq!(nobody.get("/acme/hello").await.unwrap().status, StatusCode::UNAUTHORIZED);
    }
    assert!(scene.node.stop().unwrap());
    let records = scene.site.records().unwrap();
    assert!(records.iter().any(|r| r["kind"] == "refusal" && request_of(r) == denied), "a denied call left no record");
    let rolled: Vec<_> =
        records.iter().filter(|r| r["kind"] == "refusals" && r.to_string().contains("unauthenticated")).collect();
    assert!(!rolled.is_empty() && rolled.len() < 5, "{} records for 25 calls of a stranger", rolled.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_are_recorded_with_their_author_and_without_secrets() {
    let scene = Scene::new().unwrap();
    scene.set_secret("acme/whoami", "API_SECRET", "do-not-log-me-4711").unwrap();
    let records = scene.site.records().unwrap();
    let of = |action: &str| records.iter().filter(|r| r.to_string().contains(&format!("\"{action}\""))).count();
    for action in ["CreateTenant", "PutFunction", "PublishVersion", "PutRoutes", "PutSecret"] {
        assert!(of(action) >= 1, "no record of {action}");
    }
    assert!(!records.iter().any(|r| r.to_string().contains("do-not-log-me-4711")));
}

#[tokio::test(flavor = "multi_thread")]
async fn verify_accepts_the_log_and_refuses_a_changed_copy() {
    let scene = Scene::new().unwrap();
    let mut alice = scene.alice().await.unwrap();
    for _ in 0..20 {
        alice.get("/acme/hello").await.unwrap();
    }
    assert!(scene.node.stop().unwrap());
    let said = scene.site.run(&["audit", "verify"]).unwrap();
    assert!(said.contains("OK") && said.contains("root"), "{said}");
    let segment = std::fs::read_dir(scene.site.data().join("audit/segments")).unwrap().next().unwrap().unwrap().path();
    let mut bytes = std::fs::read(&segment).unwrap();
    bytes[1000] ^= 1;
    let mut permissions = std::fs::metadata(&segment).unwrap().permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o600);
    std::fs::set_permissions(&segment, permissions).unwrap();
    std::fs::write(&segment, bytes).unwrap();
    let refused = scene.site.try_run(&["audit", "verify"]).unwrap();
    assert_eq!(refused.status.code(), Some(8));
    let words = String::from_utf8_lossy(&refused.stderr).into_owned() + &String::from_utf8_lossy(&refused.stdout);
    assert!(words.contains("record"), "{words}");
}
