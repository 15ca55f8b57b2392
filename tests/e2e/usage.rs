//! What was used: the sums are the log's, whatever happens to the node, and for those who may see them.

use std::collections::BTreeMap;

use cofferdam_tests::{Client, Node, Scene, Site};
use http::{Method, StatusCode};
use serde_json::Value;

const USED: [&str; 10] = [
    "cpu_us",
    "wall_us",
    "memory_bytes",
    "memory_kib_ms",
    "bytes_in",
    "bytes_out",
    "log_bytes",
    "egress_calls",
    "egress_bytes_out",
    "egress_bytes_in",
];

/// By hour (counted since 1970) and function: calls, answered, failed, refused, then what was used.
type Sums = BTreeMap<(u64, String), [u64; 14]>;

/// The sums as anyone can work them out from the exported log.
fn of_log(records: &[Value]) -> Sums {
    let text = |record: &Value, name: &str| record[name].as_str().unwrap_or_default().to_owned();
    let mut functions = BTreeMap::new();
    for record in records.iter().filter(|record| record["action"] == "Invoke") {
        functions.insert(text(record, "request"), text(record, "resource"));
    }
    let mut sums = Sums::new();
    for record in records {
        let ends = match record["kind"].as_str() {
            Some("call" | "end") => true,
            Some("outcome") => record["streamed"] != true,
            Some("refusal") => record["decision"]["outcome"] == "allow",
            _ => false,
        };
        let Some(function) = functions.get(&text(record, "request")).filter(|_| ends) else { continue };
        let hour = record["at"].as_u64().unwrap() / 3_600_000_000_000;
        let sum = sums.entry((hour, function.clone())).or_insert([0; 14]);
        let class = match record["ending"].as_str() {
            Some("answered") => 1,
            Some("refused" | "overloaded" | "unavailable") => 3,
            _ => 2,
        };
        sum[0] += 1;
        sum[class] += 1;
        for (at, name) in USED.iter().enumerate() {
            sum[4 + at] += record["usage"][*name].as_u64().unwrap();
        }
    }
    sums
}

/// The sums as the node tells them.
fn told(answer: &Value) -> Sums {
    assert_eq!(answer["records_behind"], 0);
    let row = |row: &Value| {
        let hour = cofferdam_model::UnixNanos::parse(row["hour"].as_str().unwrap()).unwrap().seconds() / 3600;
        let calls = ["calls", "answered", "failed", "refused"].map(|name| row[name].as_u64().unwrap());
        let used = USED.map(|name| row["usage"][name].as_u64().unwrap());
        let mut sum = [0; 14];
        sum.iter_mut().zip(calls.into_iter().chain(used)).for_each(|(to, from)| *to = from);
        ((hour, row["function_id"].as_str().unwrap().to_owned()), sum)
    };
    answer["rows"].as_array().unwrap().iter().map(row).collect()
}

/// One call of each kind: answered, trapped, over each limit, streamed, refused, with logs and bodies.
async fn some_of_each(alice: &mut Client) {
    for path in ["hello", "strict", "whoami", "faults/trap", "faults/busy", "faults/eat", "faults/noanswer"] {
        alice.get(&format!("/acme/{path}")).await.unwrap();
    }
    for path in ["faults/slow", "faults/log", "faults/sleep?n=150", "faults/big?n=1"] {
        assert_eq!(alice.get(&format!("/acme/{path}")).await.unwrap().status, StatusCode::OK, "{path}");
    }
    alice.call(Method::POST, "/acme/faults/echo", vec![7; 100_000]).await.unwrap();
    for _ in 0..5 {
        alice.get("/acme/limited").await.unwrap();
    }
    let large = alice.call(Method::POST, "/acme/small", vec![7; 4000]).await.unwrap();
    assert_eq!(large.status, StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test(flavor = "multi_thread")]
async fn usage_equals_the_log_in_every_field_also_when_the_node_is_killed() {
    let Scene { site, node } = Scene::new().unwrap();
    let gone = leaves(&site, &node, "/acme/burn/spin").await;
    assert!(gone["usage"]["cpu_us"].as_u64().unwrap() > 0, "{gone}");
    let viewer = site.token("acme", "vera", "viewer").unwrap();
    let alice = site.token("acme", "alice", "invoker").unwrap();
    let mut caller = node.client().await.unwrap().with(&alice);
    some_of_each(&mut caller).await;
    // What is asked for is counted and stored; what follows is not when the node dies.
    let mut vera = node.client().await.unwrap().with(&viewer);
    assert!(told(&vera.get("/-/v1/tenants/acme/usage").await.unwrap().json()).len() >= 3);
    some_of_each(&mut caller).await;
    let mut cut = node.client().await.unwrap().with(&alice);
    let cut = tokio::spawn(async move { cut.get("/acme/burn/spin").await.is_err() });
    while !site.records().unwrap().iter().any(|r| r["kind"] == "intent" && r.to_string().contains("/acme/burn/spin")) {
        assert!(!cut.is_finished(), "the call ended before it could be cut off");
    }
    // The intent of the call that will be cut is counted, its end is not yet there.
    told(&vera.get("/-/v1/tenants/acme/usage").await.unwrap().json());
    caller.get("/acme/hello").await.unwrap();
    node.kill().unwrap();
    assert!(cut.await.unwrap());

    let node = Node::start(&site).unwrap();
    some_of_each(&mut node.client().await.unwrap().with(&alice)).await;
    assert!(node.stop().unwrap());
    let node = Node::start(&site).unwrap();
    let mut vera = node.client().await.unwrap().with(&viewer);
    let sums = told(&vera.get("/-/v1/tenants/acme/usage").await.unwrap().json());
    let own = |sums: Sums| -> Sums {
        let acme = site.run(&["tenant", "show", "acme", "--json", "--url", &node.url()]).unwrap();
        let acme: Value = serde_json::from_str(&acme).unwrap();
        sums.into_iter().filter(|((_, function), _)| function.starts_with(acme["id"].as_str().unwrap())).collect()
    };
    let expected = own(of_log(&site.records().unwrap()));
    assert_eq!(sums, expected);
    // Nothing that should be there is missing from both.
    let total = sums.values().fold([0; 14], |total: [u64; 14], sum| std::array::from_fn(|at| total[at] + sum[at]));
    for (at, name) in ["calls", "answered", "failed", "refused"].iter().chain(&USED[..7]).enumerate() {
        assert!(total[at] > 0, "{name}: {total:?}");
    }
    assert_eq!(total[0], total[1] + total[2] + total[3]);
}

/// Calls, leaves in the middle, and gives the record of how the call ended.
async fn leaves(site: &Site, node: &Node, path: &str) -> Value {
    let alice = site.token("acme", "alice", "invoker").unwrap();
    let mut client = node.client().await.unwrap().with(&alice);
    let target = path.to_owned();
    let call = tokio::spawn(async move { client.get(&target).await.is_ok() });
    let (recorded, _) = path.split_once('?').unwrap_or((path, ""));
    let begun = |record: &Value| record["kind"] == "intent" && record["path"] == recorded;
    let request = loop {
        assert!(!call.is_finished(), "the call ended before its client could leave");
        if let Some(intent) = site.records().unwrap().into_iter().rfind(begun) {
            break intent["request"].clone();
        }
    };
    call.abort();
    loop {
        let ended = |record: &Value| {
            record["request"] == request && (record["kind"] == "end" || record["ending"] == "client_gone")
        };
        if let Some(end) = site.records().unwrap().into_iter().find(ended) {
            return end;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_stops_its_guest_and_is_charged_what_that_used() {
    let scene = Scene::new().unwrap();
    let mut alice = scene.alice().await.unwrap();
    // One before its answer began, one while that streams.
    for path in ["/acme/burn/spin", "/acme/burn/slow?n=100"] {
        let end = leaves(&scene.site, &scene.node, path).await;
        assert_eq!(end["ending"], "client_gone", "{end}");
        let usage = &end["usage"];
        assert!(usage["cpu_us"].as_u64().unwrap() > 0, "{end}");
        assert!(usage["memory_bytes"].as_u64().unwrap() > 0, "{end}");
        // Both would go on for longer than this.
        assert!(usage["wall_us"].as_u64().unwrap() < 9_000_000, "{end}");
        assert!(end["cell"]["id"].is_string() && end["isolation"].is_string(), "{end}");
        let metrics = scene.node.run(&scene.site, &["metrics"]).unwrap();
        assert!(metrics.contains("cofferdam_calls_under_way 0\n"), "{metrics}");
        assert_eq!(alice.get("/acme/burn/time").await.unwrap().status, StatusCode::OK);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn usage_is_told_in_three_forms_to_those_who_may_see_it() {
    let scene = Scene::new().unwrap();
    let mut alice = scene.alice().await.unwrap();
    for _ in 0..3 {
        assert_eq!(alice.get("/acme/hello").await.unwrap().status, StatusCode::OK);
    }
    alice.get("/acme/whoami").await.unwrap();
    let token = scene.site.token("acme", "vera", "viewer").unwrap();
    let file = scene.site.file("vera.token", token.trim_start_matches("Bearer ")).unwrap().display().to_string();
    let usage = |more: &[&str]| {
        let asked = [&["usage", "acme", "--token-file", &file], more].concat();
        scene.node.run(&scene.site, &asked).unwrap()
    };
    let json: Value = serde_json::from_str(&usage(&["--json", "--function", "hello"])).unwrap();
    assert_eq!(json["rows"].as_array().unwrap().len(), 1);
    assert_eq!((&json["rows"][0]["function"], &json["rows"][0]["calls"]), (&"hello".into(), &3.into()));
    let csv = usage(&["--format", "csv", "--since", "2h"]);
    let mut lines = csv.lines();
    assert!(lines.next().unwrap().starts_with("hour,function,function_id,calls,answered,failed,refused,cpu_us,"));
    assert_eq!(lines.count(), 2, "{csv}");
    let table = usage(&[]);
    assert!(table.contains("hello") && table.contains("whoami") && table.contains("\nsum"), "{table}");
    assert!(!usage(&["--until", "2h"]).contains("hello"));

    // The operator may too, other tenants and those who only call may not.
    let operator = scene.node.run(&scene.site, &["usage", "acme"]).unwrap();
    assert!(operator.contains("whoami"), "{operator}");
    let mut mallory = scene.caller("globex", "mallory", "admin").await.unwrap();
    assert_eq!(mallory.get("/-/v1/tenants/acme/usage").await.unwrap().status, StatusCode::NOT_FOUND);
    assert_eq!(alice.get("/-/v1/tenants/acme/usage").await.unwrap().status, StatusCode::FORBIDDEN);
    let none = mallory.get("/-/v1/tenants/globex/usage").await.unwrap().json();
    assert_eq!(none["rows"], serde_json::json!([]));
}
