//! Somebody is erased from the log, unless a hold keeps him there; and the log still proves itself.

use cofferdam_tests::Scene;
use http::StatusCode;
use serde_json::Value;

const CONFIG: &str = "[audit]\nshred = true\nredact = [\"source\"]\nheaders = [\"user-agent\"]\n";

/// What an operator is shown of a call.
fn shown(scene: &Scene, call: &str) -> Value {
    let args = ["audit", "export", "--withhold", "none"];
    let lines = scene.site.run(&args).unwrap();
    let entry = |line: &str| {
        let line: Value = serde_json::from_str(line).unwrap();
        serde_json::from_str::<Value>(line["entry"].as_str().unwrap()).unwrap()
    };
    lines.lines().map(entry).find(|entry| entry["request"] == call).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erased_caller_is_in_no_record_any_more_and_the_log_verifies() {
    let scene = Scene::with_config(CONFIG).unwrap();
    let admin = scene.site.token("acme", "ada", "admin").unwrap();
    let mut ada = scene.node.client().await.unwrap().with(&admin);
    let token = scene.site.token("acme", "alice", "invoker").unwrap();
    let mut alice = scene.node.client().await.unwrap().with(&token).with_header("user-agent", "curious/1");
    let answer = alice.get("/acme/hello").await.unwrap();
    assert_eq!(answer.status, StatusCode::OK);
    let call = answer.header("x-request-id").to_owned();
    let path = format!("/-/v1/tenants/acme/audit?request={call}");

    let before = ada.get(&path).await.unwrap().json()["records"][0].clone();
    assert_eq!((&before["principal"]["id"], &before["path"]), (&"alice".into(), &"/acme/hello".into()), "{before}");
    assert_eq!(before["headers"]["user-agent"], "curious/1");
    assert_eq!(before["withheld"], serde_json::json!({ "source": "redacted" }));
    assert_eq!(before["connection"]["port"].as_u64().map(|port| port > 0), Some(true));
    assert!(before["limits"]["cpu_ms"].as_u64() > Some(0) && before["decided"].as_u64() >= before["received"].as_u64());
    let key = shown(&scene, &call)["sealed"]["key"].as_str().unwrap().to_owned();

    // A hold keeps the key, until it is gone.
    let shred = ["audit", "shred", "--tenant", "acme", "--subject", "alice", "--reason", "asked for", "--yes"];
    let hold = ["audit", "hold", "add", "case-7", "--reason", "litigation", "--tenant", "acme"];
    scene.node.run(&scene.site, &hold).unwrap();
    let refused = scene.node.run(&scene.site, &shred).unwrap_err().to_string();
    assert!(refused.contains("case-7"), "{refused}");
    assert!(scene.node.run(&scene.site, &["audit", "hold", "list"]).unwrap().contains("litigation"));
    scene.node.run(&scene.site, &["audit", "hold", "remove", "case-7"]).unwrap();
    assert!(scene.node.run(&scene.site, &shred).unwrap().contains(&key));

    let after = ada.get(&path).await.unwrap().json()["records"][0].clone();
    assert_eq!((&after["withheld"]["principal"], &after["withheld"]["path"]), (&"shredded".into(), &"shredded".into()));
    assert_eq!((&after["status"], &after["principal"]["kind"]), (&200.into(), &"user".into()));
    assert!(scene.node.stop().unwrap());
    let verdict = scene.site.run(&["audit", "verify"]).unwrap();
    assert!(verdict.starts_with("OK"), "{verdict}");
    let records = scene.site.records().unwrap();
    let told = records.iter().find(|record| record["event"] == "subject_keys_destroyed").unwrap();
    assert!(told["detail"].as_str().unwrap().contains(&key));
    for file in std::fs::read_dir(scene.site.data().join("audit/segments")).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        assert!(!bytes.windows(5).any(|window| window == b"alice"), "the log's files name whoever was erased");
    }
}
