//! How much anyone may ask, over the wire.

use cofferdam_tests::Scene;
use http::{Method, StatusCode};

#[tokio::test(flavor = "multi_thread")]
async fn a_used_up_limit_says_when_to_come_back() {
    let scene = Scene::new().unwrap();
    let mut alice = scene.alice().await.unwrap();
    let mut statuses = Vec::new();
    for _ in 0..5 {
        let answer = alice.get("/acme/limited").await.unwrap();
        assert!(answer.header("ratelimit").contains("\"route\";r="), "{:?}", answer.headers);
        assert!(answer.header("ratelimit-policy").contains("\"route\";q=3;w=3"), "{:?}", answer.headers);
        if answer.status == StatusCode::TOO_MANY_REQUESTS {
            assert!(answer.header("retry-after").parse::<u64>().unwrap() >= 1);
            assert_eq!(answer.json()["code"], "rate_limited");
        }
        statuses.push(answer.status.as_u16());
    }
    assert_eq!(statuses.first(), Some(&200));
    assert!(statuses.contains(&429), "{statuses:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_over_the_routes_limit_are_refused() {
    let scene = Scene::new().unwrap();
    let mut alice = scene.alice().await.unwrap();
    let answer = alice.call(Method::POST, "/acme/small", vec![b'x'; 2000]).await.unwrap();
    assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE, "{}", answer.text());
    assert_eq!(answer.json()["code"], "body_too_large");
}

#[tokio::test(flavor = "multi_thread")]
async fn methods_a_route_does_not_take_are_named() {
    let scene = Scene::new().unwrap();
    let mut alice = scene.alice().await.unwrap();
    let answer = alice.call(Method::DELETE, "/acme/hello", "").await.unwrap();
    assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(answer.header("allow"), "GET");
}
