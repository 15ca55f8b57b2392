//! Stopping loses nobody.

use cofferdam_tests::{Scene, processes};
use http::StatusCode;

#[tokio::test(flavor = "multi_thread")]
async fn a_call_under_way_is_answered_before_the_node_stops() {
    let scene = Scene::new().unwrap();
    let mut alice = scene.alice().await.unwrap();
    let mut slow = scene.alice().await.unwrap();
    assert_eq!(alice.get("/acme/faults/echo").await.unwrap().status, StatusCode::OK);
    let mut answer = slow.open(http::Method::GET, "/acme/faults/slow", "").await.unwrap();
    let stopping = tokio::task::spawn_blocking(move || scene.node.stop().map(|well| (well, scene.site)));
    let body = http_body_util::BodyExt::collect(answer.body_mut()).await.unwrap().to_bytes();
    assert!(!body.is_empty());
    let (well, site) = stopping.await.unwrap().unwrap();
    assert!(well);
    let last = site.records().unwrap().pop().unwrap();
    assert_eq!(last["kind"], "stop", "{last}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_or_killed_node_leaves_no_process_behind() {
    for kill in [false, true] {
        let scene = Scene::new().unwrap();
        let mut alice = scene.alice().await.unwrap();
        assert_eq!(alice.get("/acme/hello").await.unwrap().status, StatusCode::OK);
        let cells = processes::below(scene.node.pid());
        assert!(!cells.is_empty());
        if kill {
            scene.node.kill().unwrap();
        } else {
            assert!(scene.node.stop().unwrap());
        }
        let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(10);
        while cells.iter().any(|pid| processes::resident_kib(*pid) > 0) {
            assert!(tokio::time::Instant::now() < deadline, "cells outlived their node");
            tokio::task::yield_now().await;
        }
    }
}
