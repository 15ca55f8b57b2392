//! A hostile disk: what was stored is believed only where it is what was stored.

use cofferdam_tests::{Node, Scene};
use http::StatusCode;

fn files_below(folder: std::path::PathBuf) -> Vec<std::path::PathBuf> {
    let (mut found, mut folders) = (Vec::new(), vec![folder]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.path().is_dir() { folders.push(entry.path()) } else { found.push(entry.path()) }
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_artifact_is_never_run() {
    let Scene { site, node } = Scene::new().unwrap();
    assert!(node.stop().unwrap());
    let mut changed = 0;
    for file in files_below(site.data().join("artifacts")) {
        let mut bytes = std::fs::read(&file).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x40;
        let mut permissions = std::fs::metadata(&file).unwrap().permissions();
        std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o600);
        std::fs::set_permissions(&file, permissions).unwrap();
        std::fs::write(&file, bytes).unwrap();
        changed += 1;
    }
    assert!(changed > 0);
    let token = site.token("acme", "alice", "invoker").unwrap();
    let node = Node::start(&site).unwrap();
    let mut alice = node.client().await.unwrap().with(&token);
    let answer = alice.get("/acme/hello").await.unwrap();
    assert!(answer.status.is_server_error(), "{}: {}", answer.status, answer.text());
    assert_eq!(answer.json()["source"], "platform");
    assert_ne!(answer.status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_does_not_start_on_a_changed_log() {
    let Scene { site, node } = Scene::new().unwrap();
    assert!(node.stop().unwrap());
    let segment = files_below(site.data().join("audit/segments")).pop().unwrap();
    let mut bytes = std::fs::read(&segment).unwrap();
    bytes[900] ^= 1;
    std::fs::write(&segment, bytes).unwrap();
    let refused = Node::start(&site).err().map(|e| e.to_string()).unwrap_or_default();
    assert!(refused.contains("audit verify") || refused.contains("record"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_others_can_read_are_refused() {
    let Scene { site, node } = Scene::new().unwrap();
    assert!(node.stop().unwrap());
    let key = site.data().join("root.key");
    std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let refused = Node::start(&site).err().map(|e| e.to_string()).unwrap_or_default();
    assert!(refused.contains("root.key"), "{refused}");
}
