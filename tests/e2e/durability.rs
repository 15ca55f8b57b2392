//! What was answered before a crash is in the log after it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use cofferdam_tests::{Node, Scene};
use http::StatusCode;

use crate::audit::outcomes;

const CRASHES: usize = 20;
const CALLERS: usize = 8;
/// Answered calls after which the node is killed, different each time.
fn calls_before(crash: usize) -> usize {
    40 + 37 * (crash % 7)
}

#[tokio::test(flavor = "multi_thread")]
async fn no_answered_call_is_lost_when_the_node_is_killed() {
    let Scene { site, node } = Scene::new().unwrap();
    let token = site.token("acme", "alice", "invoker").unwrap();
    let mut node = Some(node);
    let answered = Arc::new(Mutex::new(Vec::new()));
    for crash in 0..CRASHES {
        let running = match node.take() {
            Some(running) => running,
            None => Node::start(&site).unwrap(),
        };
        let enough = Arc::new(AtomicBool::new(false));
        let goal = answered.lock().unwrap().len() + calls_before(crash);
        let mut callers = Vec::new();
        for _ in 0..CALLERS {
            let mut client = running.client().await.unwrap().with(&token);
            let (answered, enough) = (answered.clone(), enough.clone());
            callers.push(tokio::spawn(async move {
                while let Ok(answer) = client.get("/acme/hello").await {
                    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
                    let mut ids = answered.lock().unwrap();
                    ids.push(answer.header("x-request-id").to_owned());
                    enough.fetch_or(ids.len() >= goal, Ordering::SeqCst);
                }
            }));
        }
        while !enough.load(Ordering::SeqCst) {
            tokio::task::yield_now().await;
        }
        running.kill().unwrap();
        for caller in callers {
            caller.await.unwrap();
        }
    }
    let survivor = Node::start(&site).unwrap();
    assert!(survivor.stop().unwrap());
    let said = site.run(&["audit", "verify"]).unwrap();
    assert!(said.contains("OK"), "{said}");
    let found = outcomes(&site.records().unwrap());
    let ids = answered.lock().unwrap();
    let lost = ids.iter().filter(|id| found.get(*id) != Some(&1)).count();
    assert_eq!(lost, 0, "of {} answered calls", ids.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_cut_off_by_a_crash_is_closed_as_unknown() {
    let Scene { site, node } = Scene::new().unwrap();
    let token = site.token("acme", "alice", "invoker").unwrap();
    let mut client = node.client().await.unwrap().with(&token);
    let calling = tokio::spawn(async move { client.get("/acme/burn/spin").await.is_err() });
    // The intent is written once the call outlives 100 ms; the export reads what is durable.
    while !site.records().unwrap().iter().any(|r| r["kind"] == "intent" && r.to_string().contains("/acme/burn/spin")) {
        assert!(!calling.is_finished(), "the call ended before it could be cut off");
    }
    node.kill().unwrap();
    assert!(calling.await.unwrap());
    assert!(Node::start(&site).unwrap().stop().unwrap());
    let records = site.records().unwrap();
    assert!(records.iter().any(|r| r["kind"] == "outcome" && r.to_string().contains("\"unknown\"")));
}
