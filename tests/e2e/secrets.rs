//! Secrets reach the one function they are for, and nobody else.

use cofferdam_tests::{Scene, guests};

const VALUE: &str = "s3cret-value-that-must-not-leak-91b2";

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_is_readable_by_its_function_alone() {
    let scene = Scene::new().unwrap();
    let mut alice = scene.alice().await.unwrap();
    assert!(alice.get("/acme/whoami").await.unwrap().json()["secret_sha256"].is_null());
    scene.set_secret("acme/whoami", "API_SECRET", VALUE).unwrap();
    let told = alice.get("/acme/whoami").await.unwrap().json();
    assert_eq!(told["secret_sha256"].as_str().map(str::len), Some(16), "the next call sees the new secret: {told}");
    let mut bob = scene.caller("globex", "bob", "invoker").await.unwrap();
    assert!(bob.get("/globex/whoami").await.unwrap().json()["secret_sha256"].is_null());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_is_in_no_file_answer_or_command_line() {
    let scene = Scene::new().unwrap();
    scene.set_secret("acme/whoami", "API_SECRET", VALUE).unwrap();
    let mut alice = scene.alice().await.unwrap();
    let answer = alice.get("/acme/whoami").await.unwrap();
    assert!(!answer.json()["secret_sha256"].is_null());
    assert!(!answer.text().contains(VALUE));
    let listed = scene.node.run(&scene.site, &["secret", "list", "acme/whoami", "--json"]).unwrap();
    assert!(listed.contains("API_SECRET") && !listed.contains(VALUE));
    let mut read = 0;
    let mut folders = vec![scene.site.data()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let bytes = std::fs::read(&path).unwrap();
            read += 1;
            let found = bytes.windows(VALUE.len()).any(|w| w == VALUE.as_bytes());
            assert!(!found, "{} holds the secret in plaintext", path.display());
        }
    }
    assert!(read > 5, "only {read} files were looked at");
}

#[test]
fn published_vectors_are_what_the_description_gives() {
    let script = guests::root().join("docs/formats/sealed-value.mjs");
    let checked = std::process::Command::new("node").arg(script).output().expect("node, as `make fixtures` needs it");
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_secret_is_gone_with_the_next_call() {
    let scene = Scene::new().unwrap();
    scene.set_secret("acme/whoami", "API_SECRET", VALUE).unwrap();
    let mut alice = scene.alice().await.unwrap();
    assert!(!alice.get("/acme/whoami").await.unwrap().json()["secret_sha256"].is_null());
    scene.node.run(&scene.site, &["secret", "rm", "acme/whoami", "API_SECRET"]).unwrap();
    assert!(alice.get("/acme/whoami").await.unwrap().json()["secret_sha256"].is_null());
}
