//! What a function is given, what it may do, and how it ends.

use cofferdam_tests::{Answer, Scene, processes};
use http::{Method, StatusCode};
use http_body_util::BodyExt;

#[tokio::test(flavor = "multi_thread")]
async fn a_function_is_told_who_calls_and_cannot_be_lied_to() {
    let scene = Scene::new().unwrap();
    let mut alice = scene.alice().await.unwrap();
    let answer = alice.get("/acme/whoami?x=1").await.unwrap();
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    let told = answer.json();
    assert!(told["principal"].as_str().unwrap().contains("alice"), "{told}");
    assert_eq!(told["request_id"], answer.header("x-request-id"));
    assert!(!answer.text().to_lowercase().contains("bearer"), "a function never sees the caller's credential");
}

fn platform_or_function(answer: &Answer, status: u16, code: &str) {
    assert_eq!(answer.status.as_u16(), status, "{}", answer.text());
    assert_eq!(answer.json()["code"], code, "{}", answer.text());
    assert_eq!(answer.json()["source"], "function");
    assert_eq!(answer.header("cofferdam-error-source"), "function");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_function_fails_alone_and_says_how() {
    let scene = Scene::new().unwrap();
    let mut alice = scene.alice().await.unwrap();
    platform_or_function(&alice.get("/acme/faults/spin").await.unwrap(), 504, "function_cpu_exhausted");
    platform_or_function(&alice.get("/acme/faults/eat").await.unwrap(), 502, "function_memory_exhausted");
    platform_or_function(&alice.get("/acme/faults/trap").await.unwrap(), 502, "function_trapped");
    platform_or_function(&alice.get("/acme/faults/die").await.unwrap(), 502, "function_stack_exhausted");
    platform_or_function(&alice.get("/acme/faults/noanswer").await.unwrap(), 502, "function_no_answer");
    assert_eq!(alice.get("/acme/hello").await.unwrap().status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_stream_both_ways() {
    let scene = Scene::new().unwrap();
    let mut alice = scene.alice().await.unwrap();
    let sent: Vec<u8> = (0..1_500_000u32).map(|i| (i % 251) as u8).collect();
    let answer = alice.call(Method::POST, "/acme/faults/echo", sent.clone()).await.unwrap();
    assert_eq!(answer.status, StatusCode::OK);
    assert!(answer.body == sent, "{} bytes came back of {}", answer.body.len(), sent.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_answer_arrives_piece_by_piece() {
    let scene = Scene::new().unwrap();
    let mut alice = scene.alice().await.unwrap();
    let mut answer = alice.open(Method::GET, "/acme/faults/slow", "").await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    let mut pieces = 0;
    while let Some(frame) = answer.body_mut().frame().await {
        pieces += usize::from(frame.unwrap().is_data());
    }
    assert!(pieces >= 5, "{pieces} pieces: the answer was held back");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_call_has_a_fresh_instance() {
    let scene = Scene::new().unwrap();
    let mut alice = scene.alice().await.unwrap();
    let first = alice.get("/acme/whoami").await.unwrap().json();
    let second = alice.get("/acme/whoami").await.unwrap().json();
    assert_eq!(first["calls_seen"], 1, "{first}");
    assert_eq!(second["calls_seen"], 1, "state survived a call: {second}");
}

#[tokio::test(flavor = "multi_thread")]
async fn killing_a_cell_costs_its_call_and_nothing_else() {
    let scene = Scene::new().unwrap();
    let mut alice = scene.alice().await.unwrap();
    assert_eq!(alice.get("/acme/hello").await.unwrap().status, StatusCode::OK);
    let mut other = scene.alice().await.unwrap();
    let spinning = tokio::spawn(async move { other.get("/acme/burn/spin").await });
    // The guest burns CPU, which is how its process is told from the idle ones.
    let cell = loop {
        assert_eq!(alice.get("/acme/hello").await.unwrap().status, StatusCode::OK);
        if let Some(pid) = processes::below(scene.node.pid()).into_iter().find(|pid| processes::cpu_ticks(*pid) > 25) {
            break pid;
        }
        assert!(!spinning.is_finished(), "it ended before it could be killed");
    };
    processes::kill(cell);
    let lost = spinning.await.unwrap().unwrap();
    assert_eq!(lost.status, StatusCode::BAD_GATEWAY, "{}", lost.text());
    assert_eq!(lost.json()["code"], "cell_lost");
    assert_eq!(lost.json()["source"], "platform");
    assert_eq!(alice.get("/acme/hello").await.unwrap().status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_can_be_invoked_by_name() {
    let scene = Scene::new().unwrap();
    let token = scene.site.token("acme", "alice", "invoker").unwrap();
    let file = scene.site.file("alice.token", token.trim_start_matches("Bearer ")).unwrap();
    let file = file.display().to_string();
    let said = scene.node.run(&scene.site, &["invoke", "acme/hello", "--token-file", &file]).unwrap();
    assert_eq!(said, "hello, world\n");
}
