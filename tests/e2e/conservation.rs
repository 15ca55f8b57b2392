//! What came, by what callers count, is what the log has: nothing more, nothing less.

use std::io::{Read as _, Write as _};

use cofferdam_tests::Scene;
use http::StatusCode;
use serde_json::Value;

use crate::audit::{outcomes, request_of};

const CALLERS: u64 = 4;
const ROUNDS: u64 = 25;
const BAD_HANDSHAKES: u64 = 7;

/// The sum of what was counted of strangers under this code.
fn counted(records: &[Value], code: &str) -> u64 {
    let rolled = records.iter().filter(|r| r["kind"] == "refusals" && r["code"] == code);
    rolled.filter_map(|r| r["count"].as_u64()).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn under_load_with_faults_the_log_has_what_the_callers_count() {
    let scene = Scene::new().unwrap();
    let before = scene.site.records().unwrap().len();
    let mut callers = Vec::new();
    for number in 0..CALLERS {
        let mut alice = scene.caller("acme", &format!("alice-{number}"), "invoker").await.unwrap();
        let mut carol = scene.caller("acme", &format!("carol-{number}"), "nothing-much").await.unwrap();
        let mut nobody = scene.node.client().await.unwrap();
        callers.push(tokio::spawn(async move {
            let mut ids = Vec::new();
            for round in 0..ROUNDS {
                // Good ones, ones whose cell dies of it, ones refused to somebody known, and ones of strangers.
                let path = if round % 10 == 9 { "/acme/faults/trap" } else { "/acme/hello" };
                ids.push(alice.get(path).await.unwrap().header("x-request-id").to_owned());
                let denied = carol.get("/acme/hello").await.unwrap();
                assert_eq!(denied.status, StatusCode::FORBIDDEN);
                ids.push(denied.header("x-request-id").to_owned());
                assert_eq!(nobody.get("/acme/hello").await.unwrap().status, StatusCode::UNAUTHORIZED);
            }
            ids
        }));
    }
    for _ in 0..BAD_HANDSHAKES {
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", scene.node.port)).unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        // The node closes it, with an alert or without.
        let _ = stream.read_to_end(&mut Vec::new());
    }
    let mut ids = Vec::new();
    for caller in callers {
        ids.extend(caller.await.unwrap());
    }
    // Callers who leave in the middle of a call.
    let begun = || scene.site.records().unwrap().iter().filter(|r| r.to_string().contains("/acme/burn/spin")).count();
    for _ in 0..CALLERS {
        let mut client = scene.alice().await.unwrap();
        let before = begun();
        let calling = tokio::spawn(async move { client.get("/acme/burn/spin").await.is_ok() });
        // The intent is written once the call outlives 100 ms.
        while begun() == before {
            assert!(!calling.is_finished(), "the call ended before its caller could leave");
        }
        calling.abort();
    }
    assert!(scene.node.stop().unwrap());

    let records = scene.site.records().unwrap();
    let found = outcomes(&records);
    let refused = |id: &str| records.iter().filter(|r| r["kind"] == "refusal" && request_of(r) == id).count();
    assert!(ids.iter().all(|id| found.get(id).copied().unwrap_or(0) + refused(id) == 1), "one end each");
    let since = &records[before..];
    assert_eq!(counted(since, "unauthenticated"), CALLERS * ROUNDS);
    assert_eq!(counted(since, "tls_failed"), BAD_HANDSHAKES);
    let left = since.iter().filter(|r| r["kind"] == "outcome" && r["ending"] == "client_gone").count();
    assert_eq!(left as u64, CALLERS);
    // The node's own counts fit as well, to the last call.
    let verified: Value = serde_json::from_str(&scene.site.run(&["audit", "verify", "--json"]).unwrap()).unwrap();
    assert_eq!(verified["gaps"], serde_json::json!([]));
    let last = records.iter().rfind(|r| r["kind"] == "heartbeat").unwrap();
    assert!(last["counts"]["requests"].as_u64().unwrap() >= CALLERS * (3 * ROUNDS + 1));
}
