//! Example function: answers who the gateway says is calling, and what the function was given.
//! Must never put a secret in the answer or the log: only the first 16 digits of its digest.
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU32, Ordering};

use sha2::{Digest, Sha256};
use wasip2::exports::http::incoming_handler::Guest;
use wasip2::http::types::{Fields, IncomingRequest, Method, OutgoingBody, OutgoingResponse, ResponseOutparam};

struct Whoami;
wasip2::http::proxy::export!(Whoami);

/// Calls this instance has seen. A fresh instance for every call means that nobody ever reads more than 1.
static CALLS: AtomicU32 = AtomicU32::new(0);

impl Guest for Whoami {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let path = request.path_with_query().unwrap_or_default();
        let method = method_name(request.method());
        let body = describe(&method, &path, &request.headers());
        println!("whoami: {method} {path}");
        answer(out, body.as_bytes());
    }
}

fn describe(method: &str, path: &str, headers: &Fields) -> String {
    let header = |name: &str| {
        let first = headers.get(name).into_iter().next()?;
        Some(String::from_utf8_lossy(&first).into_owned())
    };
    let members = [
        ("method", Some(method.to_owned())),
        ("path", Some(path.to_owned())),
        ("principal", header("x-cofferdam-principal")),
        ("tenant", header("x-cofferdam-tenant")),
        ("request_id", header("x-cofferdam-request-id")),
        ("greeting", std::env::var("GREETING").ok()),
        ("secret_sha256", std::env::var("API_SECRET").ok().map(|it| fingerprint(&it))),
    ];
    let members = members
        .map(|(name, value)| format!("\"{name}\":{}", value.map_or_else(|| "null".to_owned(), |it| quoted(&it))));
    let calls_seen = CALLS.fetch_add(1, Ordering::Relaxed) + 1;
    format!("{{{},\"calls_seen\":{calls_seen}}}\n", members.join(","))
}

/// The first 8 bytes: enough to see that a rotated secret arrived, useless for finding it out.
fn fingerprint(secret: &str) -> String {
    let digest = Sha256::digest(secret.as_bytes());
    digest.iter().take(8).fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

fn quoted(text: &str) -> String {
    let mut json = String::from("\"");
    for character in text.chars() {
        match character {
            '"' | '\\' => json.extend(['\\', character]),
            control if control < ' ' => {
                let _ = write!(json, "\\u{:04x}", u32::from(control));
            }
            other => json.push(other),
        }
    }
    json.push('"');
    json
}

fn method_name(method: Method) -> String {
    match method {
        Method::Get => "GET",
        Method::Head => "HEAD",
        Method::Post => "POST",
        Method::Put => "PUT",
        Method::Delete => "DELETE",
        Method::Connect => "CONNECT",
        Method::Options => "OPTIONS",
        Method::Trace => "TRACE",
        Method::Patch => "PATCH",
        Method::Other(name) => return name,
    }
    .to_owned()
}

/// A caller that hangs up midway is no error of ours, so failed writes end the answer quietly.
fn answer(out: ResponseOutparam, bytes: &[u8]) {
    let headers = Fields::new();
    let _ = headers.set("content-type", &[b"application/json".to_vec()]);
    let response = OutgoingResponse::new(headers);
    let body = response.body();
    ResponseOutparam::set(out, Ok(response));
    let Ok(body) = body else { return };
    if let Ok(stream) = body.write() {
        for chunk in bytes.chunks(4096) {
            if stream.blocking_write_and_flush(chunk).is_err() {
                break;
            }
        }
    }
    let _ = OutgoingBody::finish(body, None);
}
