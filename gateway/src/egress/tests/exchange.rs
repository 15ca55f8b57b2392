//! Evidence for single requests: what goes out, what comes back, and what becomes of those that break.

use super::server::{Reply, Server, ok};
use super::*;

const HOST: &str = "api.example.com";
const PLACE: &str = "93.184.216.34:80";

async fn led(scene: &Scene, answer: impl Fn(&str) -> Reply + Send + Sync + 'static) -> Server {
    let server = Server::plain(answer).await;
    scene.script.answer(HOST, &["93.184.216.34"]);
    scene.leads.lead(PLACE, server.address);
    server
}

#[tokio::test]
async fn an_allowed_request_goes_out_clean_and_is_recorded() {
    let scene = Scene::new().await;
    let answer = "HTTP/1.1 201 Created\r\ncontent-length: 5\r\nconnection: keep-alive, x-hop\r\nx-hop: 1\r\n\
                  x-cofferdam-request: forged\r\nset-cookie: a=b\r\n\r\nhello";
    let server = led(&scene, |_| Reply::Say(answer.into())).await;
    let outlet = scene.outlet(&[rule("*.example.com", 80, false)]);
    let fields = [
        ("accept", "*/*"),
        ("host", "other.example"),
        ("connection", "x-private"),
        ("x-private", "1"),
        ("transfer-encoding", "chunked"),
        ("proxy-authorization", "Basic x"),
        ("x-cofferdam-principal", "operator"),
        ("content-length", "4"),
    ];
    let outgoing = with(post("API.example.com.", "body"), &fields);
    let (status, headers, body) =
        scene.fetch(&*outlet, Outgoing { target: "/a?b=c".into(), ..outgoing }).await.unwrap();
    assert_eq!((status, body.as_str()), (201, "hello"));
    let names: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
    assert_eq!(names, ["content-length", "set-cookie"]);
    let sent = server.requests().remove(0);
    let (head, body) = sent.split_once("\r\n\r\n").unwrap();
    let mut lines: Vec<&str> = head.lines().collect();
    lines[1..].sort_unstable();
    assert_eq!(lines, ["POST /a?b=c HTTP/1.1", "accept: */*", "content-length: 4", "host: api.example.com"]);
    assert_eq!(body, "body");
    let record = scene.records().await.remove(0);
    assert_eq!(record["rule"], "http://*.example.com:80");
    assert_eq!((&record["host"], &record["port"]), (&HOST.into(), &80.into()));
    assert_eq!((&record["address"], &record["ending"]), (&"93.184.216.34".into(), &"answered".into()));
    assert!(record.get("tls").is_none() && record.get("credential").is_none(), "{record}");
}

#[tokio::test]
async fn bodies_go_out_as_announced_or_not_at_all() {
    let scene = Scene::new().await;
    let server = led(&scene, |_| Reply::Say(ok(""))).await;
    let outlet = scene.outlet(&anything());
    // Not announced: in chunks. Empty: said to be, where a body is usual, and unsaid where it is not.
    let unannounced: OutgoingBody = Box::pin(http_body_util::StreamBody::new(futures_util::stream::iter([Ok(
        http_body::Frame::data(Bytes::from_static(b"abc")),
    )])));
    scene.fetch(&*outlet, Outgoing { body: unannounced, ..post(HOST, "") }).await.unwrap();
    scene.fetch(&*outlet, Outgoing { body: no_body(), ..post(HOST, "") }).await.unwrap();
    let nothing: OutgoingBody = Box::pin(http_body_util::StreamBody::new(futures_util::stream::iter([])));
    scene.fetch(&*outlet, Outgoing { body: nothing, ..get(HOST) }).await.unwrap();
    scene.fetch(&*outlet, with(post(HOST, "abc"), &[("content-length", "3")])).await.unwrap();
    let requests = server.requests();
    assert!(
        requests[0].ends_with("\r\n\r\n3\r\nabc\r\n0\r\n\r\n") && requests[0].contains("transfer-encoding: chunked")
    );
    assert!(requests[1].contains("content-length: 0\r\n"), "{}", requests[1]);
    assert!(!requests[2].contains("content-length") && !requests[2].contains("chunked"), "{}", requests[2]);
    assert!(requests[3].ends_with("\r\n\r\nabc") && requests[3].contains("content-length: 3"));
    // Longer or shorter than announced, or where none is expected.
    for (outgoing, what) in [
        (with(post(HOST, "abcd"), &[("content-length", "3")]), "longer"),
        (with(post(HOST, "ab"), &[("content-length", "3")]), "shorter"),
        (Outgoing { body: body("abc"), ..get(HOST) }, "announce"),
        (with(post(HOST, "abc"), &[("content-length", "3"), ("content-length", "4")]), "two things"),
    ] {
        let error = scene.failure(&*outlet, outgoing).await;
        assert!(error.ending == EgressEnd::Malformed && error.reason.contains(what), "{what}: {error:?}");
    }
    let broken: OutgoingBody = Box::pin(http_body_util::StreamBody::new(futures_util::stream::iter([Err(
        EgressError::new(EgressEnd::Cut, "the function went away"),
    )])));
    let error = scene.failure(&*outlet, Outgoing { body: broken, ..post(HOST, "") }).await;
    assert_eq!(error, EgressError::new(EgressEnd::Cut, "the function went away"));
    assert_eq!(server.requests().len(), 4);
}

#[tokio::test]
async fn answers_cut_short_are_failures() {
    for answer in [
        "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhel",
        "HTTP/1.1 200 OK\r\ncontent-len",
        "",
    ] {
        let scene = Scene::new().await;
        led(&scene, move |_| Reply::Break(answer.into())).await;
        let outlet = scene.outlet(&anything());
        let error = scene.failure(&*outlet, get(HOST)).await;
        assert_eq!(error.ending, EgressEnd::PeerFailed, "{answer}: {error}");
    }
}

#[tokio::test]
async fn answers_that_are_none_are_failures() {
    let long = "a".repeat(40_000);
    for answer in [
        "SSH-2.0-OpenSSH_9.9\r\n\r\n".to_owned(),
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n".to_owned(),
        "HTTP/1.1 200 OK\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabcd".to_owned(),
        "HTTP/1.1 200 OK\r\ncontent-length: -3\r\n\r\nabcd".to_owned(),
        format!("HTTP/1.1 200 OK\r\nx-long: {long}\r\ncontent-length: 0\r\n\r\n"),
        format!("HTTP/1.1 200 OK\r\n{}content-length: 0\r\n\r\n", "a: b\r\n".repeat(200)),
        format!("HTTP/1.1 200 OK\r\nx-endless: {}", long.repeat(10)),
    ] {
        let scene = Scene::new().await;
        let shown: String = answer.chars().take(60).collect();
        led(&scene, move |_| Reply::Stall(answer.clone())).await;
        let outlet = scene.outlet(&anything());
        let error = scene.failure(&*outlet, get(HOST)).await;
        assert_eq!(error.ending, EgressEnd::PeerFailed, "{shown}: {error}");
    }
}

#[tokio::test]
async fn nothing_is_waited_for_without_end() {
    let scene = Scene::new().await;
    let server = led(&scene, |request| {
        let begun =
            if request.starts_with("GET /body") { "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nbegun" } else { "" };
        Reply::Stall(begun.into())
    })
    .await;
    scene.script.answer("unanswered.example.com", &[]);
    scene.leads.silence("1.1.1.1:80");
    let outlet = scene.outlet(&anything());
    let (connect, first_byte, between_bytes) = (soon(), soon(), soon());
    let patient = |part: Patience, outgoing: Outgoing| Outgoing { patience: part, ..outgoing };
    let only_connect = Patience { connect, ..Patience::default() };
    let cases = [
        (patient(only_connect, get("unanswered.example.com")), EgressEnd::NameFailed),
        (patient(only_connect, get("1.1.1.1")), EgressEnd::TimedOut),
        // TLS is spoken to one that says nothing.
        (Outgoing { tls: true, ..patient(only_connect, get("api.example.com:80")) }, EgressEnd::TimedOut),
        (patient(Patience { first_byte, ..Patience::default() }, get(HOST)), EgressEnd::TimedOut),
        (
            Outgoing {
                target: "/body".into(),
                ..patient(Patience { between_bytes, ..Patience::default() }, get(HOST))
            },
            EgressEnd::TimedOut,
        ),
    ];
    for (outgoing, ending) in cases {
        let what = format!("{}{} {:?}", outgoing.authority, outgoing.target, outgoing.patience);
        assert_eq!(scene.failure(&*outlet, outgoing).await.ending, ending, "{what}");
    }
    // None of the connections is left behind.
    server.ended(server.connections()).await;
}

#[tokio::test]
async fn a_request_is_over_in_its_time_as_a_whole() {
    let config = EgressConfig { total_ms: 60, ..EgressConfig::default() };
    let scene = Scene::with(config, Arc::new(SystemClock::default())).await;
    led(&scene, |request| {
        let begun = "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nbegun";
        Reply::Stall(if request.starts_with("GET /stall") { begun.into() } else { String::new() })
    })
    .await;
    let outlet = scene.outlet(&anything());
    for target in ["/head", "/stall"] {
        let outgoing = Outgoing { target: target.into(), ..get(HOST) };
        assert_eq!(scene.failure(&*outlet, outgoing).await.ending, EgressEnd::TimedOut, "{target}");
    }
}

#[tokio::test]
async fn bodies_are_no_longer_than_allowed_in_either_direction() {
    let config = EgressConfig { response_bytes: 10, request_bytes: 10, ..EgressConfig::default() };
    let scene = Scene::with(config, Arc::new(SystemClock::default())).await;
    led(&scene, |request| Reply::Say(ok(if request.starts_with("GET /long") { "eleven byte" } else { "ten bytes." })))
        .await;
    let outlet = scene.outlet(&anything());
    let long = || Outgoing { target: "/long".into(), ..get(HOST) };
    assert_eq!(scene.fetch(&*outlet, post(HOST, "ten bytes.")).await.unwrap().2, "ten bytes.");
    let announced = with(post(HOST, "eleven byte"), &[("content-length", "11")]);
    for outgoing in [long(), post(HOST, "eleven byte"), announced] {
        assert_eq!(scene.failure(&*outlet, outgoing).await.ending, EgressEnd::OverQuota);
    }
}

#[tokio::test]
async fn what_a_function_drops_is_ended() {
    let scene = Scene::new().await;
    let server = led(&scene, |_| Reply::Stall("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nbegun".into())).await;
    let outlet = scene.outlet(&anything());
    let answer = scene.send(&*outlet, get(HOST)).await.unwrap();
    drop(answer);
    server.ended(1).await;
}

#[tokio::test]
async fn the_next_address_is_tried_where_one_does_not_answer() {
    let scene = Scene::new().await;
    let server = Server::plain(|_| Reply::Say(ok("hello"))).await;
    scene.script.answer(HOST, &["93.184.216.34", "93.184.216.35", "2606:2800:220:1::1"]);
    scene.leads.lead("93.184.216.35:80", server.address);
    scene.leads.silence("93.184.216.34:80");
    let outlet = scene.outlet(&anything());
    let patience = Patience { connect: Some(Duration::from_secs(1)), ..Patience::default() };
    let (status, ..) = scene.fetch(&*outlet, Outgoing { patience, ..get(HOST) }).await.unwrap();
    assert_eq!(status, 200);
    let dialled = ["[2606:2800:220:1::1]:80", "93.184.216.34:80", "93.184.216.35:80"];
    assert_eq!(scene.leads.dialled(), dialled);
    assert_eq!(scene.records().await[0]["address"], "93.184.216.35");
}
