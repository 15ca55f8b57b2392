//! Faults of bodies: endless, slow, cut short, or not as long as they claim to be.
//! Must never read or hold more of a body than one chunk.
use std::arch::wasm32::unreachable;

use wasip2::clocks::monotonic_clock;
use wasip2::http::types::{Fields, IncomingRequest};

use crate::Call;

const CHUNK: u64 = 16 * 1024;
const MEBIBYTE: u64 = 1024 * 1024;

pub fn echo(call: Call) {
    let mut body = call.reply.begin(200, Fields::new());
    let whole = read(&call.request, |chunk| body.send(chunk) && body.flush());
    if whole {
        body.finish();
    }
}

/// Reads the whole body and answers its length.
pub fn sink(call: Call) {
    let mut length = 0_u64;
    let whole = read(&call.request, |chunk| {
        length += chunk.len() as u64;
        true
    });
    let status = if whole { 200 } else { 400 };
    call.reply.text(status, &format!("{length}\n"));
}

/// `n` chunks, 20 unless told, 100 ms apart.
pub fn slow(call: Call) {
    let chunks = call.size(20);
    let mut body = call.reply.begin(200, Fields::new());
    for number in 0..chunks {
        wait_ms(100);
        if !body.send(format!("chunk {number}\n").as_bytes()) || !body.flush() {
            return;
        }
    }
    body.finish();
}

/// Waits `n` ms, 1000 unless told, before the head.
pub fn sleep(call: Call) {
    wait_ms(call.size(1000));
    call.reply.text(200, "awake\n");
}

/// `n` MiB, 64 unless told.
pub fn big(call: Call) {
    let bytes = call.size(64).saturating_mul(MEBIBYTE);
    let mut body = call.reply.begin(200, Fields::new());
    let chunk = [b'x'; CHUNK as usize];
    for _ in 0..bytes / CHUNK {
        if !body.send(&chunk) {
            return;
        }
    }
    body.finish();
}

/// Part of a body, then a trap.
pub fn cut(call: Call) {
    let mut body = call.reply.begin(200, Fields::new());
    body.send(b"this sentence will not be\n");
    body.flush();
    unreachable();
}

/// Promises 5 bytes and sends more.
pub fn lie(call: Call) {
    let headers = Fields::new();
    let _ = headers.set("content-length", &[b"5".to_vec()]);
    let mut body = call.reply.begin(200, headers);
    body.send(b"12345HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nforged");
    body.finish();
}

/// Answers in full, then goes on computing.
pub fn after(call: Call) {
    call.reply.text(200, "that was all\n");
    crate::machine::spin();
}

fn read(request: &IncomingRequest, mut take: impl FnMut(&[u8]) -> bool) -> bool {
    let Ok(body) = request.consume() else { return false };
    let Ok(stream) = body.stream() else { return false };
    loop {
        match stream.blocking_read(CHUNK) {
            Ok(chunk) if take(&chunk) => {}
            Ok(_) => return false,
            Err(error) => return matches!(error, wasip2::io::streams::StreamError::Closed),
        }
    }
}

fn wait_ms(ms: u64) {
    monotonic_clock::subscribe_duration(ms.saturating_mul(1_000_000)).block();
}
