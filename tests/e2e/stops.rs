//! How soon a guest that will not stop is stopped.

use cofferdam_tests::Scene;
use cofferdam_tests::guests::root;

/// What a stop may take beyond its limit here, where tests run beside each other: what the supervisor waits for a cell
/// that does not stop its guest by itself, and as much again. Benches say what it takes alone.
const LATE_US: u64 = 500_000;

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_will_not_stop_is_gone_shortly_after_its_limit() {
    let scene = Scene::bare().unwrap();
    scene.node.run(&scene.site, &["tenant", "create", "acme"]).unwrap();
    let guest = root().join("examples/faults/faults.wasm").display().to_string();
    let function = |name: &str, cpu: &str, wall: &str| {
        format!("[functions.{name}]\nsource = {{ path = {guest:?} }}\nlimits = {{ cpu = {cpu:?}, wall = {wall:?} }}\n")
    };
    let app = "manifest = 1\n[app]\nname = \"x\"\ntenant = \"acme\"\n";
    let manifest = [app.to_owned(), function("cpu", "200ms", "60s"), function("wall", "20s", "700ms")].concat();
    let manifest = scene.site.file("app.toml", &manifest).unwrap();
    scene.node.run(&scene.site, &["apply", &manifest.display().to_string()]).unwrap();
    let mut alice = scene.alice().await.unwrap();
    for (function, code, used, limit_us) in
        [("cpu", "function_cpu_exhausted", "cpu_us", 200_000), ("wall", "function_wall_exceeded", "wall_us", 700_000)]
    {
        let answer = alice.get(&format!("/-/invoke/acme/{function}/spin")).await.unwrap();
        assert_eq!(answer.json()["code"], code, "{}", answer.text());
        let request = answer.header("x-request-id").to_owned();
        let records = scene.site.records().unwrap();
        let ended = |record: &&serde_json::Value| record["request"] == request.as_str() && !record["usage"].is_null();
        let usage = &records.iter().find(ended).unwrap_or_else(|| panic!("no outcome of {request}"))["usage"];
        let took = usage[used].as_u64().unwrap();
        println!("{function}: limit {limit_us} us, used {took} us, over by {} us", took.saturating_sub(limit_us));
        assert!((limit_us..limit_us + LATE_US).contains(&took), "{function}: {usage}");
    }
}
