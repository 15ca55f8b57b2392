//! When a cell goes, by what the log says of where calls ran.

use cofferdam_tests::guests::root;
use cofferdam_tests::{Client, Scene, processes};
use http::StatusCode;
use serde_json::Value;

/// Looks at the cells before a test gives up; each is a command, so there is no need to wait between them.
const LOOKS: usize = 3_000;

/// A tenant whose functions are recycled for one reason each, and somebody who may call them.
async fn scene() -> (Scene, Client) {
    let scene = Scene::bare().unwrap();
    for tenant in ["acme", "globex"] {
        scene.node.run(&scene.site, &["tenant", "create", tenant]).unwrap();
    }
    let function = |name: &str, guest: &str, more: &str| {
        let guest = root().join(format!("examples/{guest}/{guest}.wasm"));
        format!("[functions.{name}]\nsource = {{ path = {:?} }}\n{more}\n", guest.display().to_string())
    };
    let manifest = [
        "manifest = 1\n[app]\nname = \"x\"\ntenant = \"acme\"\n".to_owned(),
        function("counted", "hello-c", "recycle = { after_calls = 3 }"),
        function("aged", "hello-c", "recycle = { after = \"1s\" }"),
        function("idle", "hello-c", "recycle = { idle = \"1s\" }"),
        function("heavy", "hello-c", "recycle = { memory = \"1MiB\" }"),
        function("plain", "hello-c", ""),
        function("faults", "faults", ""),
        function("secretive", "whoami", "secrets = [\"API_SECRET\"]"),
    ];
    let manifest = scene.site.file("app.toml", &manifest.concat()).unwrap();
    scene.node.run(&scene.site, &["apply", &manifest.display().to_string()]).unwrap();
    let alice = scene.alice().await.unwrap();
    (scene, alice)
}

/// Calls a function and gives the cell that the log says it ran in, and the how-manieth call of it this was.
async fn ran(scene: &Scene, alice: &mut Client, path: &str) -> (String, u64) {
    let answer = alice.get(&format!("/-/invoke/acme/{path}")).await.unwrap();
    let request = answer.header("x-request-id").to_owned();
    let records = scene.site.records().unwrap();
    let record = records.iter().find(|record| record["request"] == request.as_str() && !record["cell"].is_null());
    let cell = &record.unwrap_or_else(|| panic!("{path} ran nowhere: {}", answer.text()))["cell"];
    (cell["id"].as_str().unwrap().to_owned(), cell["ordinal"].as_u64().unwrap_or_default())
}

/// The cells of the tenant, as an operator sees them.
fn cells(scene: &Scene) -> Vec<Value> {
    let listed = scene.node.run(&scene.site, &["cells", "list", "acme", "--json"]).unwrap();
    let listed: Value = serde_json::from_str(&listed).unwrap();
    listed["cells"].as_array().unwrap().clone()
}

fn await_end(scene: &Scene, cell: &str) {
    let gone = || cells(scene).iter().all(|each| each["id"] != cell);
    assert!((0..LOOKS).any(|_| gone()), "cell {cell} is still there");
}

/// How many cells the node says ended of this.
fn ended(scene: &Scene, cause: &str) -> u64 {
    let metrics = scene.node.run(&scene.site, &["metrics"]).unwrap();
    let name = format!("cofferdam_cells_ended_total{{cause=\"{cause}\"}} ");
    metrics.lines().find_map(|line| line.strip_prefix(&name)).and_then(|count| count.parse().ok()).unwrap()
}

/// Ends are counted when the process is gone, which is a little after the cell is off the list.
fn await_count(scene: &Scene, cause: &str) {
    assert!((0..LOOKS).any(|_| ended(scene, cause) > 0), "no cell ended of `{cause}`");
}

#[tokio::test(flavor = "multi_thread")]
async fn cells_go_by_count_age_idleness_and_memory() {
    let (scene, mut alice) = scene().await;
    for (function, calls, cause) in
        [("counted", 3, "count"), ("aged", 1, "age"), ("idle", 1, "idle"), ("heavy", 1, "memory")]
    {
        let (first, _) = ran(&scene, &mut alice, function).await;
        for _ in 1..calls {
            alice.get(&format!("/-/invoke/acme/{function}")).await.unwrap();
        }
        await_end(&scene, &first);
        assert_ne!(ran(&scene, &mut alice, function).await.0, first, "{function}");
        await_count(&scene, cause);
    }
    let (before, _) = ran(&scene, &mut alice, "plain").await;
    assert_eq!(ran(&scene, &mut alice, "plain").await.0, before, "one that is not due stays");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cell_goes_after_a_trap_and_when_it_is_killed() {
    let (scene, mut alice) = scene().await;
    let (trapped, _) = ran(&scene, &mut alice, "faults/trap").await;
    await_end(&scene, &trapped);
    assert_ne!(ran(&scene, &mut alice, "faults/hello").await.0, trapped);
    await_count(&scene, "trap");
    let (killed, _) = ran(&scene, &mut alice, "plain").await;
    processes::below(scene.node.pid()).into_iter().for_each(processes::kill);
    await_end(&scene, &killed);
    assert_ne!(ran(&scene, &mut alice, "plain").await.0, killed);
    await_count(&scene, "died");
}

#[tokio::test(flavor = "multi_thread")]
async fn cells_go_when_a_secret_or_a_policy_changes() {
    let (scene, mut alice) = scene().await;
    let (filled, _) = ran(&scene, &mut alice, "secretive").await;
    let (other, _) = ran(&scene, &mut alice, "plain").await;
    scene.set_secret("acme/secretive", "API_SECRET", "new").unwrap();
    await_end(&scene, &filled);
    assert_ne!(ran(&scene, &mut alice, "secretive").await.0, filled);
    assert_eq!(ran(&scene, &mut alice, "plain").await.0, other, "another function's cells stay");
    let policy = scene.site.file("p.cedar", "forbid(principal, action == Action::\"ReadLogs\", resource);").unwrap();
    for change in [&["policy", "put", "acme", "p", &policy.display().to_string()][..], &["policy", "rm", "acme", "p"]] {
        let (before, _) = ran(&scene, &mut alice, "plain").await;
        let (also, _) = ran(&scene, &mut alice, "secretive").await;
        scene.node.run(&scene.site, change).unwrap();
        await_end(&scene, &before);
        await_end(&scene, &also);
        assert_ne!(ran(&scene, &mut alice, "plain").await.0, before, "{change:?}");
    }
    await_count(&scene, "changed");
}

#[tokio::test(flavor = "multi_thread")]
async fn cells_go_when_asked_for_by_those_who_may() {
    let (scene, mut alice) = scene().await;
    let (plain, _) = ran(&scene, &mut alice, "plain").await;
    let (idle, _) = ran(&scene, &mut alice, "counted").await;
    let said = scene.node.run(&scene.site, &["cells", "recycle", "acme", "--function", "plain"]).unwrap();
    assert_eq!(said, "1 cells go when their calls are over\n");
    await_end(&scene, &plain);
    assert!(cells(&scene).iter().any(|cell| cell["id"] == idle.as_str()), "those of other functions stay");
    assert_ne!(ran(&scene, &mut alice, "plain").await.0, plain);
    await_count(&scene, "asked");
    let path = "/-/v1/tenants/acme/cells";
    for (role, list, recycle) in [("viewer", 200, 403), ("deployer", 200, 200), ("invoker", 403, 403)] {
        let mut caller = scene.caller("acme", "dave", role).await.unwrap();
        assert_eq!(caller.get(path).await.unwrap().status.as_u16(), list, "{role}");
        let answer = caller.call(http::Method::DELETE, path, "").await.unwrap();
        assert_eq!(answer.status.as_u16(), recycle, "{role}: {}", answer.text());
    }
    let mut mallory = scene.caller("globex", "mallory", "admin").await.unwrap();
    assert_eq!(mallory.get(path).await.unwrap().status, StatusCode::NOT_FOUND);
    let records = scene.site.records().unwrap();
    let asked = records.iter().find(|record| record["action"] == "RecycleCells").unwrap();
    assert_eq!(asked["detail"], "function=plain", "who asked for what is in the log: {asked}");
}
