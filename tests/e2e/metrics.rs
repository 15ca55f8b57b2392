//! The node in numbers, for those who run it.

use cofferdam_tests::Scene;
use http::StatusCode;

fn value(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("no `{name}` in\n{text}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn each_way_a_call_ends_is_counted_as_itself() {
    let scene = Scene::new().unwrap();
    let mut alice = scene.alice().await.unwrap();
    let read = || scene.node.run(&scene.site, &["metrics"]).unwrap();
    for (path, ending) in [
        ("/acme/hello", "answered"),
        ("/acme/faults/spin", "cpu_exhausted"),
        ("/acme/faults/eat", "memory_exhausted"),
        ("/acme/faults/trap", "trapped"),
        ("/acme/faults/noanswer", "no_answer"),
        ("/acme/nothing/here", "refused"),
    ] {
        let name = format!("cofferdam_calls_total{{ending=\"{ending}\"}}");
        let before = value(&read(), &name);
        alice.get(path).await.unwrap();
        let after = value(&read(), &name);
        // Reading is a call too, and one that is answered.
        assert_eq!(after - before, 1 + u64::from(ending == "answered"), "{path}");
    }
    let text = read();
    assert!(value(&text, "cofferdam_cells{state=\"serving\"}") >= 1, "{text}");
    assert!(value(&text, "cofferdam_cells_started_total") >= 2, "{text}");
    assert_eq!(value(&text, "cofferdam_calls_queued"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn counters_are_for_operators_alone_and_name_nobody() {
    let scene = Scene::new().unwrap();
    let mut alice = scene.alice().await.unwrap();
    assert_eq!(alice.get("/acme/hello").await.unwrap().status, StatusCode::OK);
    for (tenant, role) in [("acme", "admin"), ("acme", "operator"), ("globex", "viewer")] {
        let mut caller = scene.caller(tenant, "dave", role).await.unwrap();
        assert_eq!(caller.get("/-/v1/metrics").await.unwrap().status, StatusCode::NOT_FOUND, "{role} of {tenant}");
    }
    let mut stranger = scene.node.client().await.unwrap();
    assert_eq!(stranger.get("/-/v1/metrics").await.unwrap().status, StatusCode::UNAUTHORIZED);
    let key = std::fs::read_to_string(scene.site.data().join("operator.key")).unwrap();
    let mut operator = scene.node.client().await.unwrap().with(&format!("ApiKey {}", key.trim()));
    let answer = operator.get("/-/v1/metrics").await.unwrap();
    assert_eq!(answer.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    for name in ["acme", "globex", "hello", "alice", "t_"] {
        let said = answer.text();
        let labels: Vec<&str> = said.lines().filter(|line| !line.starts_with('#')).collect();
        assert!(!labels.concat().contains(&format!("\"{name}")), "{name}: {said}");
    }
}
