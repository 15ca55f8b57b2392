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

fn overwrite(file: &std::path::Path, bytes: &[u8]) {
    std::fs::set_permissions(file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    std::fs::write(file, bytes).unwrap();
}

/// Each way of tampering with compiled code, on a node that is down; what it does with the artifacts' paths.
type Tampering = fn(&[std::path::PathBuf], &std::path::Path);

#[tokio::test(flavor = "multi_thread")]
async fn a_swapped_or_bent_artifact_is_made_anew_and_never_run() {
    let ways: [(&str, Tampering); 3] = [
        ("one byte of the code bent", |artifacts, _| {
            for file in artifacts {
                let mut bytes = std::fs::read(file).unwrap();
                let last = bytes.len() - 1;
                bytes[last] ^= 1;
                overwrite(file, &bytes);
            }
        }),
        ("each under the name of another", |artifacts, _| {
            let contents: Vec<_> = artifacts.iter().map(|file| std::fs::read(file).unwrap()).collect();
            for (number, file) in artifacts.iter().enumerate() {
                overwrite(file, &contents[(number + 1) % contents.len()]);
            }
        }),
        ("bound by another key", |_, data| overwrite(&data.join("artifact.key"), &[7; 32])),
    ];
    let Scene { site, mut node } = Scene::new().unwrap();
    let token = site.token("acme", "alice", "invoker").unwrap();
    for (way, tamper) in ways {
        assert!(node.stop().unwrap());
        let mut artifacts = files_below(site.data().join("artifacts"));
        artifacts.retain(|file| file.extension().is_some_and(|extension| extension == "artifact"));
        assert!(artifacts.len() >= 3, "{artifacts:?}");
        let before: Vec<_> = artifacts.iter().map(|file| std::fs::read(file).unwrap()).collect();
        tamper(&artifacts, &site.data());
        node = Node::start(&site).unwrap();
        let mut alice = node.client().await.unwrap().with(&token);
        let answer = alice.get("/acme/hello").await.unwrap();
        assert_eq!((answer.status, answer.text().as_str()), (StatusCode::OK, "hello, world\n"), "{way}");
        // The same code again, under the same key; other bytes under another one.
        let made_anew = artifacts.iter().zip(before).any(|(file, was)| {
            let same = std::fs::read(file).unwrap() == was;
            same != (way == "bound by another key")
        });
        assert!(made_anew, "{way}: nothing was compiled");
    }
}
