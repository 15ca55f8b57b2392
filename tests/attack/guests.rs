//! Hostile functions. Each tries something; while it does, another tenant's function keeps answering.

use cofferdam_tests::Scene;
use http::{Method, StatusCode};
use http_body_util::BodyExt;

#[tokio::test(flavor = "multi_thread")]
async fn guest_cannot_forge_platform_headers_or_framing() {
    let scene = Scene::new().unwrap();
    let mut alice = scene.alice().await.unwrap();
    let answer = alice.get("/acme/faults/headers").await.unwrap();
    for name in
        ["connection", "transfer-encoding", "upgrade", "keep-alive", "x-cofferdam-principal", "cofferdam-error-source"]
    {
        let value = answer.header(name);
        assert!(!value.contains("evil") && !value.contains("forged"), "{name}: {value}");
    }
    assert!(answer.headers.keys().all(|k| !k.as_str().starts_with("x-cofferdam-")), "{:?}", answer.headers);
    assert!(answer.header("x-request-id").starts_with("req_"));
}

#[tokio::test(flavor = "multi_thread")]
async fn guest_cannot_reach_a_network_or_a_file() {
    let scene = Scene::new().unwrap();
    let mut alice = scene.alice().await.unwrap();
    let out = alice.get("/acme/faults/out").await.unwrap();
    assert!(out.text().to_lowercase().contains("denied"), "{}", out.text());
    let fs = alice.get("/acme/faults/fs").await.unwrap();
    assert_eq!(fs.status, StatusCode::OK, "{}", fs.text());
    assert!(!fs.text().contains("root:"), "a file of the host was read: {}", fs.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn guest_cannot_read_another_functions_env() {
    let scene = Scene::new().unwrap();
    scene.set_secret("acme/whoami", "API_SECRET", "only-for-whoami").unwrap();
    let mut alice = scene.alice().await.unwrap();
    let env = alice.get("/acme/faults/env").await.unwrap();
    assert_eq!(env.status, StatusCode::OK);
    for name in ["API_SECRET", "PATH", "HOME", "GREETING"] {
        assert!(!env.text().contains(name), "{}", env.text());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn guest_clock_is_coarse() {
    let scene = Scene::new().unwrap();
    let mut alice = scene.alice().await.unwrap();
    let told = alice.get("/acme/faults/time").await.unwrap();
    let digits: String = told.text().chars().filter(char::is_ascii_digit).collect();
    let nanos: u64 = digits.parse().unwrap_or_else(|_| panic!("{}", told.text()));
    assert!(nanos >= 1_000_000, "the guest saw a step of {nanos} ns");
}

#[tokio::test(flavor = "multi_thread")]
async fn guest_log_flood_is_capped_and_costs_others_nothing() {
    let scene = Scene::new().unwrap();
    let mut alice = scene.alice().await.unwrap();
    for _ in 0..5 {
        alice.get("/acme/faults/log").await.unwrap();
    }
    let mut bob = scene.caller("globex", "bob", "invoker").await.unwrap();
    assert_eq!(bob.get("/globex/hello").await.unwrap().status, StatusCode::OK);
    let logs = scene.site.data().join("logs");
    let mut bytes = 0;
    let mut folders = vec![logs];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.path().is_dir() { folders.push(entry.path()) } else { bytes += entry.metadata().unwrap().len() }
        }
    }
    assert!(bytes < 4 * 1024 * 1024, "{bytes} bytes of logs");
}

#[tokio::test(flavor = "multi_thread")]
async fn guest_answer_over_its_limit_is_cut() {
    let scene = Scene::new().unwrap();
    let mut alice = scene.alice().await.unwrap();
    let mut answer = alice.open(Method::GET, "/acme/faults/big", "").await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    let id = answer.headers()["x-request-id"].to_str().unwrap().to_owned();
    let mut bytes = 0;
    let cut = loop {
        match answer.body_mut().frame().await {
            Some(Ok(frame)) => bytes += frame.data_ref().map_or(0, |data| data.len()),
            Some(Err(_)) => break true,
            None => break false,
        }
    };
    assert!(cut, "the answer ended as if it were whole, after {bytes} bytes");
    assert!((1..=32 * 1024 * 1024).contains(&bytes), "{bytes} bytes went through a limit of 32 MiB");
    assert!(scene.node.stop().unwrap());
    let of_call = |r: &&serde_json::Value| r["request"] == id.as_str() && r["ending"] == "response_too_large";
    assert_eq!(scene.site.records().unwrap().iter().filter(of_call).count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_victim_keeps_answering_while_others_misbehave() {
    let scene = Scene::new().unwrap();
    let mut bob = scene.caller("globex", "bob", "invoker").await.unwrap();
    assert_eq!(bob.get("/globex/hello").await.unwrap().status, StatusCode::OK);
    let mut attackers = Vec::new();
    for what in ["spin", "eat", "trap", "die", "log", "big", "spin", "eat"] {
        let mut alice = scene.alice().await.unwrap();
        attackers.push(tokio::spawn(async move { alice.get(&format!("/acme/faults/{what}")).await.map(|a| a.status) }));
    }
    let mut served = 0;
    while attackers.iter().any(|a| !a.is_finished()) || served < 50 {
        assert_eq!(bob.get("/globex/hello").await.unwrap().status, StatusCode::OK);
        served += 1;
    }
    for attacker in attackers {
        let status = attacker.await.unwrap();
        assert!(
            status.is_err()
                || status.is_ok_and(|s| s.is_server_error() || s.is_success() || s == StatusCode::TOO_MANY_REQUESTS)
        );
    }
}
