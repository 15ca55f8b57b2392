//! The node in numbers, for those who run it.

use cofferdam_tests::{Client, Scene, guests, processes};
use http::StatusCode;

fn value(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("no `{name}` in\n{text}"))
}

fn calls_ended(scene: &Scene, ending: &str) -> u64 {
    let text = scene.node.run(&scene.site, &["metrics"]).unwrap();
    value(&text, &format!("cofferdam_calls_total{{ending=\"{ending}\"}}"))
}

/// Looks at the counters until this is so; each look is a command, so there is no need to wait between them.
fn until(scene: &Scene, what: &str, is: impl Fn(&str) -> bool) {
    let read = || scene.node.run(&scene.site, &["metrics"]).unwrap();
    assert!((0..3_000).any(|_| is(&read())), "never {what}:\n{}", read());
}

/// A function beside those of the scene that takes one call at a time.
fn narrow(scene: &Scene) {
    let guest = guests::committed("faults/faults.wasm").display().to_string();
    let manifest = format!(
        "manifest = 1\n[app]\nname = \"narrow\"\ntenant = \"acme\"\n[functions.one]\nsource = {{ path = {guest:?} }}\n\
         limits = {{ wall = \"60s\", concurrency = 1, cells = 1 }}\n\
         [[routes]]\nhost = \"localhost\"\npath = \"/acme/one/{{*what}}\"\nfunction = \"one\"\n"
    );
    let manifest = scene.site.file("narrow.toml", &manifest).unwrap().display().to_string();
    scene.node.run(&scene.site, &["apply", &manifest]).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn each_way_a_call_ends_is_counted_as_itself() {
    let scene = Scene::new().unwrap();
    let mut alice = scene.alice().await.unwrap();
    for (path, ending, code) in [
        ("/acme/hello", "answered", ""),
        ("/acme/faults/spin", "cpu_exhausted", "function_cpu_exhausted"),
        ("/acme/faults/sleep?n=60000", "wall_exceeded", "function_wall_exceeded"),
        ("/acme/faults/eat", "memory_exhausted", "function_memory_exhausted"),
        ("/acme/faults/die", "stack_exhausted", "function_stack_exhausted"),
        ("/acme/faults/hoard", "handles_exhausted", "function_handles_exhausted"),
        ("/acme/faults/glut", "hostcall_exhausted", "function_hostcall_exhausted"),
        ("/acme/faults/many?n=400", "response_too_large", "function_response_too_large"),
        ("/acme/faults/trap", "trapped", "function_trapped"),
        ("/acme/faults/noanswer", "no_answer", "function_no_answer"),
        ("/acme/nothing/here", "refused", "not_found"),
    ] {
        let before = calls_ended(&scene, ending);
        let answer = alice.get(path).await.unwrap();
        assert_eq!(answer.json()["code"].as_str().unwrap_or_default(), code, "{path}: {}", answer.text());
        let after = calls_ended(&scene, ending);
        // Reading is a call too, and one that is answered.
        assert_eq!(after - before, 1 + u64::from(ending == "answered"), "{path}");
    }
    let text = scene.node.run(&scene.site, &["metrics"]).unwrap();
    assert!(value(&text, "cofferdam_cells{state=\"serving\"}") >= 1, "{text}");
    assert!(value(&text, "cofferdam_cells_started_total") >= 2, "{text}");
    assert_eq!(value(&text, "cofferdam_calls_queued"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_without_room_left_by_their_client_or_lost_with_their_cell_are_counted_as_that() {
    let scene = Scene::new().unwrap();
    narrow(&scene);
    let under_way = |count: u64| move |text: &str| value(text, "cofferdam_calls_under_way") == count;
    let sleeper = |mut alice: Client| tokio::spawn(async move { alice.get("/acme/one/sleep?n=50000").await });
    let first = sleeper(scene.alice().await.unwrap());
    tokio::task::block_in_place(|| until(&scene, "under way", under_way(1)));
    let answer = scene.alice().await.unwrap().get("/acme/one/count").await.unwrap();
    assert_eq!((answer.status, answer.json()["code"].as_str()), (StatusCode::TOO_MANY_REQUESTS, Some("function_busy")));
    assert_eq!(calls_ended(&scene, "overloaded"), 1);
    assert_eq!(calls_ended(&scene, "client_gone"), 0);
    first.abort();
    tokio::task::block_in_place(|| {
        until(&scene, "left", |text| value(text, "cofferdam_calls_total{ending=\"client_gone\"}") == 1);
        until(&scene, "stopped", under_way(0));
    });
    let second = sleeper(scene.alice().await.unwrap());
    tokio::task::block_in_place(|| until(&scene, "under way", under_way(1)));
    processes::below(scene.node.pid()).into_iter().for_each(processes::kill);
    let answer = second.await.unwrap().unwrap();
    assert_eq!((answer.status, answer.json()["code"].as_str()), (StatusCode::BAD_GATEWAY, Some("cell_lost")));
    assert_eq!(calls_ended(&scene, "cell_lost"), 1);
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
