//! How soon a guest that will not stop is stopped.

use cofferdam_tests::Scene;
use cofferdam_tests::guests::root;

/// What half of all stops may take beyond their limit here, where tests run beside each other, and what any may: less
/// than the supervisor waits for a cell that does not stop its guest by itself, and much more. `make bench` says what
/// it takes alone.
const USUAL_US: u64 = 150_000;
const LATE_US: u64 = 1_000_000;
/// Stops of each kind.
const STOPS: usize = 5;

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
        let mut requests = Vec::new();
        for _ in 0..STOPS {
            let answer = alice.get(&format!("/-/invoke/acme/{function}/spin")).await.unwrap();
            assert_eq!(answer.json()["code"], code, "{}", answer.text());
            requests.push(answer.header("x-request-id").to_owned());
        }
        let records = scene.site.records().unwrap();
        let took = |request: &String| {
            let ended = |record: &&serde_json::Value| record["request"] == **request && !record["usage"].is_null();
            let usage = &records.iter().find(ended).unwrap_or_else(|| panic!("no outcome of {request}"))["usage"];
            usage[used].as_u64().unwrap().checked_sub(limit_us).unwrap_or_else(|| panic!("early: {usage}"))
        };
        let mut over: Vec<u64> = requests.iter().map(took).collect();
        over.sort_unstable();
        println!("{function}: limit {limit_us} us, over by {over:?} us");
        assert!(over[STOPS / 2] < USUAL_US && over[STOPS - 1] < LATE_US, "{function}: over by {over:?} us");
    }
}
