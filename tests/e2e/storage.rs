//! What tenants store: no more than they may, and no longer than it is wanted.

use std::path::PathBuf;

use cofferdam_tests::guests::committed;
use cofferdam_tests::{Node, Scene, Site};
use http::StatusCode;

const HELLO: &str = "hello-c/hello-c.wasm";
const WHOAMI: &str = "whoami/whoami.wasm";
const FAULTS: &str = "faults/faults.wasm";

fn length(component: &str) -> u64 {
    committed(component).metadata().unwrap().len()
}

/// Deploys a component as the one function of the tenant; what it said where it was refused.
fn deploy(site: &Site, node: &Node, component: &str) -> Result<(), String> {
    let path = committed(component).display().to_string();
    let manifest = format!(
        "manifest = 1\n[app]\nname = \"x\"\ntenant = \"acme\"\n[functions.f]\nsource = {{ path = {path:?} }}\n\
         [[routes]]\nhost = \"localhost\"\npath = \"/f\"\nfunction = \"f\"\n"
    );
    let manifest = site.file("app.toml", &manifest).unwrap().display().to_string();
    let output = site.try_run(&["apply", &manifest, "--url", &node.url()]).unwrap();
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

/// Lengths of the components that are stored, and how many artifacts.
fn stored(site: &Site) -> (Vec<u64>, usize) {
    let files: Vec<PathBuf> =
        std::fs::read_dir(site.data().join("artifacts")).unwrap().map(|entry| entry.unwrap().path()).collect();
    let of = |kind: &str| files.iter().filter(|path| path.extension().is_some_and(|e| e == kind)).collect::<Vec<_>>();
    let mut lengths: Vec<_> = of("wasm").iter().map(|path| path.metadata().unwrap().len()).collect();
    lengths.sort_unstable();
    (lengths, of("artifact").len())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_stores_what_it_may_and_pruning_makes_room() {
    let most = length(HELLO) + length(FAULTS);
    let scene = Scene::bare_with(&format!("tenant = {{ stored_bytes = {most} }}")).unwrap();
    let Scene { site, node } = &scene;
    node.run(site, &["tenant", "create", "acme"]).unwrap();
    deploy(site, node, HELLO).unwrap();
    deploy(site, node, WHOAMI).unwrap();
    let said = deploy(site, node, FAULTS).unwrap_err();
    assert!(
        said.contains("stored_bytes") && said.contains("function prune") && said.contains(&most.to_string()),
        "{said}"
    );
    assert_eq!(stored(site), (vec![length(HELLO), length(WHOAMI)], 2), "what was refused is not stored");
    let mut alice = scene.alice().await.unwrap();
    assert!(alice.get("/f").await.unwrap().text().contains("principal"), "the version before goes on");

    let said = node.run(site, &["function", "prune", "acme/f", "--keep", "1"]).unwrap();
    assert!(said.contains(&format!("{} bytes freed", length(HELLO))), "{said}");
    assert_eq!(stored(site), (vec![length(WHOAMI)], 1));
    assert_eq!(alice.get("/f").await.unwrap().status, StatusCode::OK);
    deploy(site, node, HELLO).unwrap();
    assert_eq!(alice.get("/f").await.unwrap().text(), "hello, world\n");
    node.run(site, &["function", "rm", "acme/f"]).unwrap();
    assert_eq!(stored(site), (vec![], 0));
    deploy(site, node, FAULTS).unwrap();
    assert_eq!(stored(site), (vec![length(FAULTS)], 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_crash_left_behind_is_deleted_at_the_next_start_and_nothing_else() {
    let Scene { site, node } = Scene::bare().unwrap();
    node.run(&site, &["tenant", "create", "acme"]).unwrap();
    deploy(&site, &node, HELLO).unwrap();
    node.kill().unwrap();
    let stray = site.data().join("artifacts").join(format!("{}.wasm", "0a".repeat(32)));
    std::fs::write(&stray, "uploaded, and never published").unwrap();
    let node = Node::start(&site).unwrap();
    assert!(!stray.exists());
    assert_eq!(stored(&site), (vec![length(HELLO)], 1));
    let token = site.token("acme", "alice", "invoker").unwrap();
    let mut alice = node.client().await.unwrap().with(&token);
    assert_eq!(alice.get("/f").await.unwrap().status, StatusCode::OK);
}
