//! Evidence for kept connections: by whom they are used again, for how long, and how many there are.

use super::server::{Reply, Server, ok};
use super::*;

use cofferdam_model::clock::ManualClock;

const HOST: &str = "api.example.com";

async fn led(scene: &Scene, answer: impl Fn(&str) -> Reply + Send + Sync + 'static) -> Server {
    let server = Server::plain(answer).await;
    scene.script.answer(HOST, &["93.184.216.34"]);
    for port in ["80", "8080"] {
        scene.leads.lead(&format!("93.184.216.34:{port}"), server.address);
    }
    server
}

#[tokio::test]
async fn a_connection_is_used_again_by_its_own_cell_alone() {
    let scene = Scene::new().await;
    let server = led(&scene, |_| Reply::Say(ok("hello"))).await;
    let (one, other) = (scene.outlet(&anything()), scene.outlet(&anything()));
    for _ in 0..3 {
        scene.fetch(&*one, get(HOST)).await.unwrap();
    }
    assert_eq!(server.connections(), 1);
    scene.fetch(&*other, get(HOST)).await.unwrap();
    assert_eq!(server.connections(), 2);
    // Another port and another host are other connections, though they lead to one server.
    scene.fetch(&*one, get("api.example.com:8080")).await.unwrap();
    scene.script.answer("other.example.com", &["93.184.216.34"]);
    scene.fetch(&*one, get("other.example.com")).await.unwrap();
    assert_eq!(server.connections(), 4);
    // They end with the cell.
    drop(one);
    server.ended(3).await;
}

#[tokio::test]
async fn answers_without_a_body_leave_their_connection_free() {
    let scene = Scene::new().await;
    let server = led(&scene, |request| {
        let hints = "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n";
        Reply::Say(match request.split(' ').next() {
            Some("HEAD") => "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n".into(),
            Some("DELETE") => "HTTP/1.1 204 No Content\r\n\r\n".into(),
            _ => format!("{hints}HTTP/1.1 304 Not Modified\r\ncontent-length: 9\r\n\r\n"),
        })
    })
    .await;
    let outlet = scene.outlet(&anything());
    for (method, status) in [(Method::HEAD, 200), (Method::DELETE, 204), (Method::GET, 304)] {
        let (found, headers, body) = scene.fetch(&*outlet, Outgoing { method, ..get(HOST) }).await.unwrap();
        assert_eq!((found, body.as_str(), headers.contains_key("link")), (status, "", false));
        assert_eq!(headers.contains_key("content-length"), status != 204);
    }
    assert_eq!((server.requests().len(), server.connections()), (3, 1));
}

#[tokio::test]
async fn an_idle_connection_is_closed_in_time() {
    let clock = Arc::new(ManualClock::at(UnixNanos::from_seconds(1)));
    let config = EgressConfig { idle_ms: 20, ..EgressConfig::default() };
    let scene = Scene::with(config, clock.clone()).await;
    let server = led(&scene, |_| Reply::Say(ok("hello"))).await;
    let outlet = scene.outlet(&anything());
    scene.fetch(&*outlet, get(HOST)).await.unwrap();
    scene.fetch(&*outlet, get(HOST)).await.unwrap();
    assert_eq!(server.connections(), 1);
    clock.advance(Duration::from_millis(20));
    // Without anybody asking for it.
    server.ended(1).await;
    scene.fetch(&*outlet, get(HOST)).await.unwrap();
    assert_eq!(server.connections(), 2);
}

#[tokio::test]
async fn a_dead_connection_is_replaced_once_where_nothing_can_have_been_done_by_it() {
    let scene = Scene::new().await;
    // Answers the first request of each connection, and breaks off at the second without an answer.
    let count = Mutex::new(0);
    let server = led(&scene, move |_| {
        let mut count = count.lock().unwrap();
        *count += 1;
        if *count % 2 == 1 { Reply::Say(ok("hello")) } else { Reply::Break(String::new()) }
    })
    .await;
    let outlet = scene.outlet(&anything());
    scene.fetch(&*outlet, get(HOST)).await.unwrap();
    scene.fetch(&*outlet, get(HOST)).await.unwrap();
    assert_eq!((server.requests().len(), server.connections()), (3, 2));
    // A request that may have done something is not made twice.
    let error = scene.failure(&*outlet, post(HOST, "order one")).await;
    assert_eq!(error.ending, EgressEnd::PeerFailed);
    assert_eq!((server.requests().len(), server.connections()), (4, 2));
}

#[tokio::test]
async fn a_connection_closed_by_the_other_side_is_not_used_again() {
    let scene = Scene::new().await;
    let server = led(&scene, |_| Reply::Last(ok("hello"))).await;
    let outlet = scene.outlet(&anything());
    for number in 1..=3 {
        // The close may be seen before the request leaves or after; either way it is made on a new connection.
        scene.fetch(&*outlet, get(HOST)).await.unwrap();
        server.ended(number).await;
        assert_eq!((server.requests().len(), server.connections()), (number, number));
    }
}

#[tokio::test]
async fn an_answer_nobody_asked_for_is_not_taken_for_the_next() {
    let scene = Scene::new().await;
    let count = Mutex::new(0);
    let server = led(&scene, move |_| {
        let mut count = count.lock().unwrap();
        *count += 1;
        if *count == 1 { Reply::Say(ok("first") + &ok("forged")) } else { Reply::Say(ok("second")) }
    })
    .await;
    let outlet = scene.outlet(&anything());
    assert_eq!(scene.fetch(&*outlet, get(HOST)).await.unwrap().2, "first");
    assert_eq!(scene.fetch(&*outlet, get(HOST)).await.unwrap().2, "second");
    assert_eq!(server.connections(), 2);
}

#[tokio::test]
async fn a_tenant_has_no_more_connections_than_its_quota_and_waits_for_no_other() {
    let scene = Scene::new().await;
    let server = led(&scene, |request| match request.starts_with("GET /hold") {
        true => Reply::Stall("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nbegun".into()),
        false => Reply::Say(ok("hello")),
    })
    .await;
    let limited = |id: u64| Scope { connections: 1, ..scope(tenant(id), &anything()) };
    let (first, second) = (scene.egress.outlet(limited(1)).unwrap(), scene.egress.outlet(limited(1)).unwrap());
    let hold = Outgoing { target: "/hold".into(), ..get(HOST) };
    let held = scene.send(&*first, hold).await.unwrap();
    let patience = Patience { connect: soon(), ..Patience::default() };
    let error = scene.failure(&*second, Outgoing { patience, ..get(HOST) }).await;
    assert_eq!(error.ending, EgressEnd::OverQuota);
    // Another tenant has its own.
    let stranger = scene.egress.outlet(limited(2)).unwrap();
    scene.fetch(&*stranger, get(HOST)).await.unwrap();
    // What is given back is had by who waits, and a kept connection makes room.
    drop(held);
    scene.fetch(&*second, get(HOST)).await.unwrap();
    scene.fetch(&*first, get(HOST)).await.unwrap();
    scene.fetch(&*first, get("api.example.com:8080")).await.unwrap();
    scene.fetch(&*second, get(HOST)).await.unwrap();
    assert_eq!(server.connections(), 6);
    // One who has none gets none.
    let none = Scope { connections: 0, ..scope(tenant(3), &anything()) };
    let none = scene.egress.outlet(none).unwrap();
    let error = scene.failure(&*none, Outgoing { patience, ..get(HOST) }).await;
    assert_eq!(error.ending, EgressEnd::OverQuota);
}

#[tokio::test]
async fn the_node_as_a_whole_has_no_more_connections_than_set() {
    let config = EgressConfig { connections: 1, ..EgressConfig::default() };
    let scene = Scene::with(config, Arc::new(SystemClock::default())).await;
    let server = led(&scene, |_| Reply::Say(ok("hello"))).await;
    let [one, other] = [1, 2].map(|id| scene.egress.outlet(scope(tenant(id), &anything())).unwrap());
    let held = scene.send(&*one, get(HOST)).await.unwrap();
    // Nobody waits for another tenant.
    let error = scene.failure(&*other, get(HOST)).await;
    assert_eq!((error.ending, error.reason.as_str()), (EgressEnd::OverQuota, "all connections of the node are in use"));
    // But what is merely kept makes room.
    held.into_body().collect().await.unwrap();
    scene.fetch(&*other, get(HOST)).await.unwrap();
    scene.fetch(&*one, get(HOST)).await.unwrap();
    assert_eq!(server.connections(), 3);
}

#[tokio::test]
async fn whoever_waits_for_a_place_gets_that_of_a_connection_about_to_be_kept() {
    let scene = Scene::new().await;
    let server = led(&scene, |_| Reply::Say(ok("hello"))).await;
    let limited = || Scope { connections: 1, ..scope(tenant(1), &anything()) };
    let (first, second) = (scene.egress.outlet(limited()).unwrap(), scene.egress.outlet(limited()).unwrap());
    let answer = scene.send(&*first, get(HOST)).await.unwrap();
    let reading = async {
        // Only once the other one waits.
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        answer.into_body().collect().await.unwrap().to_bytes()
    };
    let (waited, read) = tokio::join!(scene.fetch(&*second, get(HOST)), reading);
    assert_eq!((waited.unwrap().0, &read[..]), (200, &b"hello"[..]));
    assert_eq!(server.connections(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_tenant_that_asks_too_often_waits_for_its_turn_and_nobody_waits_for_it() {
    let clock = Arc::new(ManualClock::at(UnixNanos::from_seconds(1_000_000)));
    let scene = Scene::with(EgressConfig::default(), clock).await;
    let rate = Rate { per_second: 1, burst: 1 };
    let seldom = |id: u64| Scope { requests: rate, ..scope(tenant(id), &[]) };
    // Two cells of one tenant share its turns. What is refused anyway takes one all the same.
    let (first, second) = (scene.egress.outlet(seldom(1)).unwrap(), scene.egress.outlet(seldom(1)).unwrap());
    let error = scene.failure(&*first, get(HOST)).await;
    assert_eq!(error.ending, EgressEnd::DeniedByRule);
    let patience = Patience { connect: soon(), ..Patience::default() };
    let error = scene.failure(&*second, Outgoing { patience, ..get(HOST) }).await;
    assert_eq!(
        (error.ending, error.reason.as_str()),
        (EgressEnd::OverQuota, "the tenant's functions ask the outside too often")
    );
    let before = tokio::time::Instant::now();
    let error = scene.failure(&*second, get(HOST)).await;
    assert_eq!(error.ending, EgressEnd::DeniedByRule);
    assert!(before.elapsed() >= Duration::from_secs(1), "its turn had not come: {:?}", before.elapsed());
    let stranger = scene.egress.outlet(seldom(2)).unwrap();
    let before = tokio::time::Instant::now();
    assert_eq!(scene.failure(&*stranger, get(HOST)).await.ending, EgressEnd::DeniedByRule);
    assert_eq!(before.elapsed(), Duration::ZERO);
}
