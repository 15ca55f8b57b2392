//! A real guest that asks the outside, seen from the gateway's end of the socket.

use cofferdam_model::egress::EgressEnd;
use cofferdam_model::facts::Ending;
use cofferdam_model::frame::{FETCH_CREDIT, Kind, put, put_fetch_failed, put_fetch_head};
use cofferdam_model::limits::FunctionLimits;
use http::{HeaderMap, HeaderValue, Method, StatusCode};

use super::gateway::{FETCH, Gateway};
use super::limits;

const URL: &str = "/a/get?url=https://api.example:8443/x%3fy=1";

fn start() -> Gateway {
    Gateway::start(FETCH, limits(), &[])
}

fn answer(gateway: &mut Gateway, fetch: u32, body: &[u8]) {
    let (mut out, mut headers) = (Vec::new(), HeaderMap::new());
    headers.insert("x-from", HeaderValue::from_static("outside"));
    put_fetch_head(&mut out, false, fetch, StatusCode::CREATED, &headers).unwrap();
    put(&mut out, Kind::FetchData, false, fetch, body).unwrap();
    put(&mut out, Kind::FetchData, true, fetch, &[]).unwrap();
    gateway.raw(&out);
}

#[test]
fn a_guests_request_is_handed_to_the_gateway_and_its_answer_to_the_guest() {
    let mut gateway = start();
    let call = gateway.begin(&Method::POST, URL, false);
    gateway.data(call, b"some body", true);
    let (fetch, head, body) = gateway.fetched();
    assert_eq!((head.call, head.method, head.tls), (call, Method::POST, true));
    assert_eq!((head.authority.as_str(), head.target.as_str()), ("api.example:8443", "/x?y=1"));
    assert!(head.headers.is_empty(), "{:?}", head.headers);
    assert_eq!(body, b"some body");
    answer(&mut gateway, fetch, b"hello");
    let end = gateway.finish(call);
    assert_eq!((end.ending, end.text()), (Ending::Answered, "status: 201\nx-from: outside\n\nhello\n"));
}

#[test]
fn a_request_without_a_body_says_so_at_once() {
    let mut gateway = start();
    let call = gateway.begin(&Method::GET, URL, true);
    let (fetch, head, body) = gateway.fetched();
    assert_eq!((head.method, body.len()), (Method::GET, 0));
    let mut out = Vec::new();
    put_fetch_head(&mut out, true, fetch, StatusCode::NO_CONTENT, &HeaderMap::new()).unwrap();
    gateway.raw(&out);
    assert_eq!(gateway.finish(call).text(), "status: 204\n\n\n");
}

#[test]
fn a_guest_is_told_why_there_is_no_answer() {
    let mut gateway = start();
    for (ending, told) in [
        (EgressEnd::DeniedByRule, "HttpRequestDenied"),
        (EgressEnd::DeniedByPolicy, "HttpRequestDenied"),
        (EgressEnd::DeniedAddress, "DestinationIpProhibited"),
        (EgressEnd::TimedOut, "ConnectionTimeout"),
        (EgressEnd::OverQuota, "ConnectionLimitReached"),
    ] {
        let call = gateway.begin(&Method::GET, URL, true);
        let (fetch, ..) = gateway.fetched();
        let mut out = Vec::new();
        put_fetch_failed(&mut out, fetch, ending).unwrap();
        gateway.raw(&out);
        let end = gateway.finish(call);
        assert!(end.text().contains(told), "{ending:?}: {}", end.text());
    }
}

#[test]
fn an_answer_that_breaks_off_is_an_error_to_the_guest() {
    let mut gateway = start();
    let call = gateway.begin(&Method::GET, URL, true);
    let (fetch, ..) = gateway.fetched();
    let mut out = Vec::new();
    put_fetch_head(&mut out, false, fetch, StatusCode::OK, &HeaderMap::new()).unwrap();
    put(&mut out, Kind::FetchData, false, fetch, b"half").unwrap();
    put_fetch_failed(&mut out, fetch, EgressEnd::PeerFailed).unwrap();
    gateway.raw(&out);
    assert!(gateway.finish(call).text().contains("after 4 bytes"));
}

#[test]
fn an_answer_after_its_failure_changes_nothing_and_hangs_nobody() {
    let mut gateway = start();
    let call = gateway.begin(&Method::GET, URL, true);
    let (fetch, ..) = gateway.fetched();
    let (mut out, mut late) = (Vec::new(), Vec::new());
    put_fetch_head(&mut out, false, fetch, StatusCode::OK, &HeaderMap::new()).unwrap();
    put(&mut out, Kind::FetchData, false, fetch, b"half").unwrap();
    put_fetch_failed(&mut out, fetch, EgressEnd::PeerFailed).unwrap();
    put_fetch_head(&mut late, false, fetch, StatusCode::OK, &HeaderMap::new()).unwrap();
    put(&mut late, Kind::FetchData, false, fetch, b"more").unwrap();
    gateway.raw(&[out, late].concat());
    assert!(gateway.finish(call).text().contains("after 4 bytes"));
}

#[test]
fn a_guest_that_asks_too_often_is_refused_by_its_own_cell() {
    let limits = FunctionLimits { egress_calls: 0, ..limits() };
    let mut gateway = Gateway::start(FETCH, limits, &[]);
    let call = gateway.begin(&Method::GET, "/a/5?url=https://api.example/", true);
    let end = gateway.finish(call);
    assert_eq!(end.text().matches("ConnectionLimitReached").count(), 5, "{end:?}");
    assert!(gateway.fetches.is_empty(), "the gateway is not even asked");
}

#[test]
fn what_a_guest_does_not_wait_for_is_cancelled() {
    let mut gateway = start();
    // The guest returns without ever having waited, so its request may not even have been sent.
    let call = gateway.begin(&Method::GET, "/a/deaf?url=https://api.example/", true);
    assert_eq!(gateway.finish(call).text(), "asked: true\n");
    let call = gateway.begin(&Method::GET, URL, true);
    let mut fetched = gateway.fetched();
    while fetched.1.call != call {
        fetched = gateway.fetched();
    }
    gateway.cancelled.clear();
    gateway.cancel(call);
    assert_eq!(gateway.finish(call).ending, Ending::ClientGone);
    assert_eq!(gateway.begin(&Method::GET, URL, true), call + 1);
    assert_eq!(gateway.cancellation(), fetched.0);
}

#[test]
fn a_gateway_over_its_credit_ends_the_cell() {
    let mut gateway = start();
    gateway.begin(&Method::GET, URL, true);
    let (fetch, ..) = gateway.fetched();
    let mut out = Vec::new();
    put_fetch_head(&mut out, false, fetch, StatusCode::OK, &HeaderMap::new()).unwrap();
    let half = vec![0; FETCH_CREDIT as usize / 2 + 1];
    (0..2).for_each(|_| put(&mut out, Kind::FetchData, false, fetch, &half).unwrap());
    gateway.raw(&out);
    assert!(gateway.ended().is_err());
}
