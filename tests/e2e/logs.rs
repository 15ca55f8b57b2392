//! Logs that are followed: each line once, as it comes, at the price of few records.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};

use cofferdam_tests::Scene;
use cofferdam_tests::guests::binary;
use http::StatusCode;

/// `cofferdam logs -f`, ended when dropped.
struct Following {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
}

impl Following {
    fn start(scene: &Scene, function: &str, token: &str) -> Self {
        let mut child = Command::new(binary("cofferdam"))
            .args(["logs", function, "-f", "--token-file", token, "--url", &scene.node.url(), "--data"])
            .arg(scene.site.data())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    /// The next line that has this in it; what comes before it must be nothing but other lines, each seen once.
    fn until(&mut self, part: &str, seen: &mut Vec<String>) {
        loop {
            let line = self.lines.next().expect("it ended").unwrap();
            let found = line.contains(part);
            assert!(!seen.contains(&line), "told twice: {line}");
            seen.push(line);
            if found {
                return;
            }
        }
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn token(scene: &Scene) -> String {
    let token = scene.site.token("acme", "vera", "viewer").unwrap();
    scene.site.file("vera.token", token.trim_start_matches("Bearer ")).unwrap().display().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn followed_logs_come_as_they_are_written_each_line_once_and_with_few_records() {
    let scene = Scene::new().unwrap();
    let mut alice = scene.alice().await.unwrap();
    let mut id = async || alice.get("/acme/whoami").await.unwrap().header("x-request-id").to_owned();
    let before = id().await;
    let (mut following, mut seen) = (Following::start(&scene, "acme/whoami", &token(&scene)), Vec::new());
    tokio::task::block_in_place(|| following.until(&before, &mut seen));
    for _ in 0..3 {
        let mut last = String::new();
        for _ in 0..20 {
            last = id().await;
        }
        tokio::task::block_in_place(|| following.until(&last, &mut seen));
    }
    assert_eq!(seen.len(), 61, "one line for each call");
    drop(following);
    let records = scene.site.records().unwrap();
    let asked = records.iter().filter(|record| record["action"] == "ReadLogs").count();
    assert!((2..61).contains(&asked), "{asked} askings for 61 lines");
}

#[tokio::test(flavor = "multi_thread")]
async fn followed_logs_survive_rotation() {
    let scene = Scene::bare_with("log_file_bytes = 4096").unwrap();
    scene.node.run(&scene.site, &["tenant", "create", "acme"]).unwrap();
    let manifest = cofferdam_tests::guests::root().join("tests/scene/acme.toml").display().to_string();
    scene.node.run(&scene.site, &["apply", &manifest]).unwrap();
    let mut alice = scene.alice().await.unwrap();
    let mut id = async || alice.get("/acme/whoami").await.unwrap().header("x-request-id").to_owned();
    let mut wanted = vec![id().await];
    let (mut following, mut seen) = (Following::start(&scene, "acme/whoami", &token(&scene)), Vec::new());
    tokio::task::block_in_place(|| following.until(&wanted[0], &mut seen));
    // Some thirty lines fill a file. Ten at a time, so that what is followed is never two files behind.
    for _ in 0..12 {
        for _ in 0..10 {
            wanted.push(id().await);
        }
        tokio::task::block_in_place(|| following.until(wanted.last().unwrap(), &mut seen));
    }
    assert_eq!(seen.len(), wanted.len());
    assert!(seen.iter().zip(&wanted).all(|(line, id)| line.contains(id.as_str())), "a line is missing or out of order");
    let rotated = std::fs::read_dir(scene.site.data().join("logs")).unwrap();
    assert!(rotated.flatten().any(|file| file.file_name().to_string_lossy().ends_with(".log.1")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_reader_does_not_hold_up_a_stop() {
    let scene = Scene::new().unwrap();
    let mut vera = scene.caller("acme", "vera", "viewer").await.unwrap();
    let first = vera.get("/-/v1/tenants/acme/functions/hello/logs").await.unwrap().json();
    let after = first["cursor"].as_str().unwrap().to_owned();
    let path = format!("/-/v1/tenants/acme/functions/hello/logs?after={after}&wait_ms=20000");
    let waiting = tokio::spawn(async move { vera.get(&path).await.map(|answer| (answer.status, answer.json())) });
    // Its intent is durable before it waits.
    let asked = || {
        let records = scene.site.records().unwrap();
        records.iter().filter(|record| record["kind"] == "intent" && record["action"] == "ReadLogs").count()
    };
    while asked() < 2 {
        assert!(!waiting.is_finished());
    }
    assert!(scene.node.stop().unwrap());
    let (status, page) = waiting.await.unwrap().unwrap();
    assert_eq!((status, &page["lines"]), (StatusCode::OK, &serde_json::json!([])));
}
