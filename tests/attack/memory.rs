//! Whoever can look anywhere on the host finds a secret in the one cell it is for, and nowhere else.

use std::io::Write as _;
use std::path::PathBuf;

use cofferdam_tests::{Scene, guests, memory, processes};

const VALUE: &str = "value-of-a-secret-5f0c2e97ab41d8";
const REPLACED: &str = "value-that-took-its-place-c83e11d07";
/// No secret: shows that what is looked for is found where it is.
const CANARY: &str = "canary-that-is-no-secret-77e1b0c4";

fn manifest() -> String {
    let guest = guests::committed("whoami/whoami.wasm").display().to_string();
    format!(
        "manifest = 1\n[app]\nname = \"memory\"\ntenant = \"acme\"\n\
         [functions.holder]\nsource = {{ path = {guest:?} }}\nenv = {{ GREETING = {CANARY:?} }}\n\
         secrets = [\"API_SECRET\"]\n\
         [[routes]]\nhost = \"localhost\"\npath = \"/acme/holder\"\nfunction = \"holder\"\n"
    )
}

fn has(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

/// Every file of a node with its content.
fn files(scene: &Scene) -> Vec<(PathBuf, Vec<u8>)> {
    let (mut found, mut folders) = (Vec::new(), vec![scene.site.data()]);
    while let Some(folder) = folders.pop() {
        for path in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() { folders.push(path) } else { found.push((path.clone(), std::fs::read(&path).unwrap())) }
        }
    }
    found
}

async fn served() -> Scene {
    let scene = Scene::new().unwrap();
    let file = scene.site.file("memory.toml", &manifest()).unwrap().display().to_string();
    scene.node.run(&scene.site, &["apply", &file]).unwrap();
    scene.set_secret("acme/holder", "API_SECRET", VALUE).unwrap();
    let mut alice = scene.alice().await.unwrap();
    for _ in 0..20 {
        assert!(!alice.get("/acme/holder").await.unwrap().json()["secret_sha256"].is_null());
        assert_eq!(alice.get("/acme/hello").await.unwrap().status, 200);
    }
    scene
}

/// Processes are looked into through `/proc`, which root alone may: where the tests run without, the very refusal is
/// the claim that is left.
fn may_look(pid: u32) -> bool {
    match memory::find(pid, CANARY.as_bytes()) {
        Ok(_) => true,
        Err(error) => {
            assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied, "{error}");
            false
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_is_in_the_memory_of_its_cell_and_nowhere_else() {
    let scene = served().await;
    let (gateway, cells) = (scene.node.pid(), processes::below(scene.node.pid()));
    assert!(cells.len() >= 2, "{cells:?}");
    if !may_look(gateway) {
        return;
    }
    assert!(!memory::find(gateway, CANARY.as_bytes()).unwrap().is_empty(), "what is there is found");
    keeps_no_copy(gateway, VALUE).await;
    let with: Vec<_> = cells.iter().map(|pid| memory::find(*pid, VALUE.as_bytes()).unwrap()).collect();
    let holding: Vec<_> = with.iter().filter(|found| !found.is_empty()).collect();
    let [held] = holding[..] else { panic!("{} processes hold it: {holding:?}", holding.len()) };
    assert_eq!(held.len(), 1, "what a call was given is wiped after it; the cell's own is left: {held:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_was_replaced_is_in_no_memory_any_more() {
    let scene = served().await;
    if !may_look(scene.node.pid()) {
        return;
    }
    let before = processes::below(scene.node.pid());
    rotate(&scene);
    let mut alice = scene.alice().await.unwrap();
    assert!(!alice.get("/acme/holder").await.unwrap().json()["secret_sha256"].is_null());
    // The cell that held the old one goes by itself; a process that is gone holds nothing.
    let everywhere = || [vec![scene.node.pid()], processes::below(scene.node.pid())].concat();
    let held =
        || everywhere().into_iter().filter(|pid| !memory::find(*pid, VALUE.as_bytes()).unwrap_or_default().is_empty());
    let gone = tokio::time::timeout(std::time::Duration::from_secs(20), async {
        while held().next().is_some() {
            tokio::task::yield_now().await;
        }
    });
    gone.await.unwrap_or_else(|_| panic!("still held by {:?} of {before:?}", held().collect::<Vec<_>>()));
    keeps_no_copy(scene.node.pid(), REPLACED).await;
}

/// A connection that brought the value, or the hand-over of a cell that is being started, may not be over yet. What
/// they held is wiped when they are; what is still there long after that is kept.
async fn keeps_no_copy(pid: u32, value: &str) {
    let copies = || memory::find(pid, value.as_bytes()).unwrap();
    let gone = tokio::time::timeout(std::time::Duration::from_secs(20), async {
        while !copies().is_empty() {
            tokio::task::yield_now().await;
        }
    });
    gone.await.unwrap_or_else(|_| panic!("the gateway keeps a copy: {:?}", copies()));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_value_stays_in_the_gateway_however_often_one_is_set() {
    let scene = served().await;
    let gateway = scene.node.pid();
    if !may_look(gateway) {
        return;
    }
    let mut alice = scene.alice().await.unwrap();
    let mut kept = Vec::new();
    for round in 0..30 {
        let value = format!("value-of-round-{round:02}-6a1be20f93d7");
        scene.set_secret("acme/holder", "API_SECRET", &value).unwrap();
        assert!(!alice.get("/acme/holder").await.unwrap().json()["secret_sha256"].is_null());
        let copies = || memory::find(gateway, value.as_bytes()).unwrap();
        let gone = tokio::time::timeout(std::time::Duration::from_secs(5), async {
            while !copies().is_empty() {
                tokio::task::yield_now().await;
            }
        });
        if gone.await.is_err() {
            kept.push((round, copies()));
        }
    }
    assert!(kept.is_empty(), "{} of 30 are kept: {kept:?}", kept.len());
}

fn rotate(scene: &Scene) {
    let mut child = std::process::Command::new(guests::binary("cofferdam"))
        .args(["secret", "rotate", "acme/holder", "API_SECRET", "--revoke-older", "--url", &scene.node.url(), "--data"])
        .arg(scene.site.data())
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(REPLACED.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_is_in_no_file_log_argument_or_environment() {
    let scene = served().await;
    let everywhere = [vec![scene.node.pid()], processes::below(scene.node.pid())].concat();
    for pid in everywhere {
        for part in ["cmdline", "environ"] {
            let bytes = std::fs::read(format!("/proc/{pid}/{part}")).unwrap_or_default();
            assert!(!has(&bytes, VALUE), "{part} of {pid}");
        }
    }
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", scene.node.pid())).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"], "no core is dumped");
    let files = files(&scene);
    assert!(files.len() > 10 && files.iter().any(|(_, bytes)| has(bytes, CANARY)), "what is there is found");
    for (path, bytes) in files {
        assert!(!has(&bytes, VALUE), "{}", path.display());
    }
    let (ended_well, said) = scene.node.stop_and_tell().unwrap();
    assert!(ended_well && said.contains("serving") && !said.contains(VALUE), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_root_key_is_in_memory_that_is_neither_swapped_nor_dumped() {
    let scene = served().await;
    let key = std::fs::read(scene.site.data().join("root.key")).unwrap();
    if !may_look(scene.node.pid()) {
        return;
    }
    let found = memory::find(scene.node.pid(), &key).unwrap();
    assert!(!found.is_empty(), "the key is in use");
    let told = scene.site.try_run(&["doctor", "--json"]).unwrap();
    let told: serde_json::Value = serde_json::from_slice(&told.stdout).unwrap();
    let host = told["host"].as_array().unwrap();
    let kept = host.iter().find(|check| check["name"] == "key_memory").unwrap()["good"] == true;
    for place in found {
        let has = |flag: &str| place.mapping.flags.iter().any(|found| found == flag);
        assert!(!kept || (has("dd") && has("lo")), "{place:?}");
    }
}
