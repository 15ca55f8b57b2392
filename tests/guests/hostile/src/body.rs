//! Attacks with bodies: never begun, never ended, thrown away, more than allowed.
//! Must never end a body in order where its name promises otherwise.
use wasip2::clocks::monotonic_clock;
use wasip2::http::types::{Fields, OutgoingResponse, ResponseOutparam};

use crate::Call;
use crate::reply::Reply;

const CHUNK: [u8; 16 * 1024] = [b'e'; 16 * 1024];

/// Takes both bodies, and the streams of them, twice; tells what was given.
pub fn take_twice(call: Call) {
    let first = call.request.consume();
    let second = call.request.consume().is_ok();
    let stream = first.as_ref().ok().and_then(|body| body.stream().ok());
    let streams = first.as_ref().is_ok_and(|body| body.stream().is_ok());
    let response = OutgoingResponse::new(Fields::new());
    let body = response.body();
    let bodies = response.body().is_ok();
    let write = body.as_ref().ok().and_then(|body| body.write().ok());
    let writes = body.as_ref().is_ok_and(|body| body.write().is_ok());
    drop((write, stream));
    Reply::new(call.out).text(200, &format!("{second} {streams} {bodies} {writes}\n"));
}

/// Answers, and drops the body it never ended.
pub fn dropped(call: Call) {
    let mut body = Reply::new(call.out).begin(200, Fields::new());
    body.send(b"half of the ans");
    drop(body);
}

/// Answers, and returns while the body is still open.
pub fn forgotten(call: Call) {
    let mut body = Reply::new(call.out).begin(200, Fields::new());
    body.send(b"half of the ans");
    std::mem::forget(body);
}

/// Answers with a body that never has a byte.
pub fn never_write(call: Call) {
    let response = OutgoingResponse::new(Fields::new());
    let body = response.body();
    ResponseOutparam::set(call.out, Ok(response));
    monotonic_clock::subscribe_duration(u64::MAX).block();
    drop(body);
}

/// A byte at a time, for ever.
pub fn trickle(call: Call) {
    let mut body = Reply::new(call.out).begin(200, Fields::new());
    while body.send(b".") && body.flush() {
        monotonic_clock::subscribe_duration(20_000_000).block();
    }
}

/// As many bytes as it can, for ever.
pub fn endless(call: Call) {
    let mut body = Reply::new(call.out).begin(200, Fields::new());
    while body.send(&CHUNK) {}
}

/// Writes more at once than it was told it may.
pub fn over_write(call: Call) {
    let response = OutgoingResponse::new(Fields::new());
    let Ok(body) = response.body() else { unreachable!("the body is taken once") };
    ResponseOutparam::set(call.out, Ok(response));
    let Ok(stream) = body.write() else { unreachable!("the stream is taken once") };
    let _ = stream.check_write();
    let _ = stream.write(&vec![b'o'; 1024 * 1024]);
}

/// Answers each piece of the request with ten times as much.
pub fn ping_pong(call: Call) {
    let mut body = Reply::new(call.out).begin(200, Fields::new());
    let Ok(inbound) = call.request.consume() else { return };
    let Ok(stream) = inbound.stream() else { return };
    while let Ok(piece) = stream.blocking_read(1024) {
        for _ in 0..10 {
            if !body.send(&piece) || !body.flush() {
                return;
            }
        }
    }
    body.finish();
}

/// Writes nothing to its body, for ever.
pub fn write_nothing(call: Call) {
    let response = OutgoingResponse::new(Fields::new());
    let Ok(body) = response.body() else { unreachable!("the body is taken once") };
    ResponseOutparam::set(call.out, Ok(response));
    let Ok(stream) = body.write() else { unreachable!("the stream is taken once") };
    loop {
        match stream.check_write() {
            Ok(0) => stream.subscribe().block(),
            Ok(_) if stream.write(&[]).is_ok() => {}
            _ => return,
        }
    }
}
