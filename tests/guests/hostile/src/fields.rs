//! Attacks with header fields: smuggled line ends, forged names, too many of them, lengths that lie.
//! Must never answer what is asked of the caller's own fields but names.
use std::fmt::Write as _;

use wasip2::http::types::{Fields, OutgoingBody, OutgoingResponse, ResponseOutparam};

use crate::Call;
use crate::reply::Reply;

/// Tries to put a line end, or something else that ends a field, into names and values; tells which were taken.
pub fn split(call: Call) {
    let headers = Fields::new();
    let mut report = String::new();
    let mut number = 0;
    let mut tell = |name: &str, value: &[u8], headers: &Fields| {
        number += 1;
        let many = headers.set(name, &[value.to_vec()]).is_ok();
        if headers.append(name, value).is_ok() || many {
            let _ = writeln!(report, "taken {number}: {name:?} {:?}", String::from_utf8_lossy(value));
        }
    };
    for value in [
        b"a\r\nx-injected: forged".as_slice(),
        b"a\nx-injected: forged",
        b"a\rx-injected: forged",
        b"a\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
        b"a\0b",
        b"a\x0bb",
        b"a\x0cb",
        b"\x7f",
        b"a\x1bb",
    ] {
        tell("x-value", value, &headers);
    }
    for name in [
        "x-name: forged\r\nx-injected",
        "x-injected\r\n",
        "\r\nx-injected",
        "x injected",
        "x-injected:",
        " x-injected",
        "x-injected\0",
        "x-injected\t",
        "",
        ":status",
        "x-inj\u{e9}cted",
        "x\"injected",
        "x(injected)",
        "x/injected",
    ] {
        tell(name, b"forged", &headers);
    }
    let mut body = Reply::new(call.out).begin(200, headers);
    body.send(report.as_bytes());
    body.send(b"end of report\n");
    body.finish();
}

/// The names of the fields it was called with.
pub fn inbound(call: Call) {
    let mut names: Vec<String> = call.request.headers().entries().into_iter().map(|(name, _)| name).collect();
    names.sort();
    let authority = call.request.authority().unwrap_or_default();
    Reply::new(call.out).text(200, &format!("{}\nauthority {authority}\n", names.join("\n")));
}

pub fn append_forever(call: Call) {
    let headers = Fields::new();
    while headers.append("x-more", &[b'v'; 1000]).is_ok() {}
    // Full is as good as endless: what could be taken is sent.
    Reply::new(call.out).begin(200, headers).finish();
}

/// Ends an answer with trailers that look like headers.
pub fn trailers(call: Call) {
    end_with(call, 4);
}

pub fn trailer_bomb(call: Call) {
    end_with(call, 100_000);
}

fn end_with(call: Call, count: usize) {
    let trailers = Fields::new();
    for (name, value) in [("x-cofferdam-principal", "forged"), ("set-cookie", "forged=1"), ("x-trailer", "forged")] {
        let _ = trailers.append(name, value.as_bytes());
    }
    for number in 0..count {
        let _ = trailers.append(&format!("x-{number}"), &[b'v'; 90]);
    }
    let response = OutgoingResponse::new(Fields::new());
    let Ok(body) = response.body() else { unreachable!("the body is taken once") };
    ResponseOutparam::set(call.out, Ok(response));
    if let Ok(stream) = body.write() {
        let _ = stream.blocking_write_and_flush(b"body\n");
    }
    let _ = OutgoingBody::finish(body, Some(trailers));
}

/// Promises `n` bytes, 100 unless told, and sends 10.
pub fn length(call: Call) {
    let promised = call.size(100).to_string();
    promising(call, &[&promised]);
}

/// Promises two lengths.
pub fn lengths(call: Call) {
    promising(call, &["10", "11"]);
}

/// Promises a length that is none.
pub fn promise(call: Call) {
    promising(call, &["-1"]);
}

fn promising(call: Call, lengths: &[&str]) {
    let headers = Fields::new();
    for length in lengths {
        let _ = headers.append("content-length", length.as_bytes());
    }
    let mut body = Reply::new(call.out).begin(200, headers);
    body.send(b"ten bytes!");
    body.finish();
}

/// Tries statuses that are none; tells which were taken.
pub fn statuses(call: Call) {
    let mut report = String::from("taken:");
    for status in [0, 1, 99, 1000, 9999, u16::MAX] {
        let response = OutgoingResponse::new(Fields::new());
        if response.set_status_code(status).is_ok() {
            let _ = write!(report, " {status}");
        }
    }
    Reply::new(call.out).text(200, &(report + "\n"));
}
