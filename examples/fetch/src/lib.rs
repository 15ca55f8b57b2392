//! Example function: asks the outside for what its caller names, and answers what came of it.
//! Must never decide where it may go: that is in its manifest, and the platform's business.
use wasip2::exports::http::incoming_handler::Guest;
use wasip2::http::outgoing_handler;
use wasip2::http::types::{
    ErrorCode, Fields, FutureIncomingResponse, IncomingBody, IncomingRequest, IncomingResponse, Method, OutgoingBody,
    OutgoingRequest, OutgoingResponse, ResponseOutparam, Scheme,
};
use wasip2::io::streams::{InputStream, OutputStream, StreamError};

struct Fetch;
wasip2::http::proxy::export!(Fetch);

/// Bytes moved at a time.
const PIECE: u64 = 16 * 1024;

impl Guest for Fetch {
    /// `?url=URL` is asked for with the caller's method and body. The last part of the path says how:
    /// `get` answers what came; `log` writes it to the log as well; `late` begins to answer first and asks then;
    /// `deaf` asks and does not wait; `N` (a number) asks that many times, one after the other.
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let target = request.path_with_query().unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let how = path.rsplit('/').next().unwrap_or_default();
        let url = query.strip_prefix("url=").map(decoded).unwrap_or_default();
        match how {
            "late" => late(out, &url),
            "deaf" => {
                let asked = ask(&url, &Method::Get, &request.headers(), None);
                answer(out, 200, &format!("asked: {}\n", asked.is_ok()));
            }
            "log" => {
                let text = describe(exchange(&url, &Method::Get, &request.headers(), None));
                println!("fetch: {text}");
                answer(out, 200, &text);
            }
            times if times.parse::<u32>().is_ok() => {
                let times = times.parse().unwrap_or(1);
                let each = |_| describe(exchange(&url, &Method::Get, &request.headers(), None));
                answer(out, 200, &(0..times).map(each).collect::<Vec<_>>().join("---\n"));
            }
            _ => {
                let (method, headers) = (request.method(), request.headers());
                let body = matches!(method, Method::Post | Method::Put | Method::Patch).then(|| request.consume().ok());
                answer(out, 200, &describe(exchange(&url, &method, &headers, body.flatten())));
            }
        }
    }
}

/// What came of a request, as text: status, header fields whose names begin with `x-` or `location`, and body.
fn describe(came: Result<(IncomingResponse, String), String>) -> String {
    match came {
        Err(error) => format!("error: {error}\n"),
        Ok((response, body)) => {
            let mut text = format!("status: {}\n", response.status());
            for (name, value) in response.headers().entries() {
                if name.starts_with("x-") || name == "location" {
                    text += &format!("{name}: {}\n", String::from_utf8_lossy(&value));
                }
            }
            text + &format!("\n{body}\n")
        }
    }
}

fn exchange(
    url: &str,
    method: &Method,
    headers: &Fields,
    body: Option<IncomingBody>,
) -> Result<(IncomingResponse, String), String> {
    let answer = ask(url, method, headers, body).map_err(|error| format!("{error:?}"))?;
    answer.subscribe().block();
    let response = match answer.get() {
        Some(Ok(Ok(response))) => response,
        Some(Ok(Err(error))) => return Err(format!("{error:?}")),
        _ => return Err("no answer".to_owned()),
    };
    let body = response.consume().map_err(|()| "no body".to_owned())?;
    let stream = body.stream().map_err(|()| "no body".to_owned())?;
    let text = read_all(&stream)?;
    Ok((response, String::from_utf8_lossy(&text).into_owned()))
}

fn ask(
    url: &str,
    method: &Method,
    inbound: &Fields,
    body: Option<IncomingBody>,
) -> Result<FutureIncomingResponse, ErrorCode> {
    let (scheme, rest) = url.split_once("://").unwrap_or(("https", url));
    let (authority, path) = rest.find('/').map_or((rest, "/"), |at| rest.split_at(at));
    let headers = Fields::new();
    // What the caller marks so is passed on: `x-pass-authorization: a` is sent as `authorization: a`.
    for (name, value) in inbound.entries() {
        if let Some(name) = name.strip_prefix("x-pass-") {
            let _ = headers.append(name, &value);
        }
    }
    let request = OutgoingRequest::new(headers);
    let scheme = if scheme == "http" { Scheme::Http } else { Scheme::Https };
    let set = request.set_method(method).is_ok()
        && request.set_scheme(Some(&scheme)).is_ok()
        && request.set_authority(Some(authority)).is_ok()
        && request.set_path_with_query(Some(path)).is_ok();
    if !set {
        return Err(ErrorCode::HttpRequestUriInvalid);
    }
    let outgoing = request.body().map_err(|()| ErrorCode::InternalError(None))?;
    let answer = outgoing_handler::handle(request, None)?;
    if let Some(body) = body {
        if let (Ok(from), Ok(to)) = (body.stream(), outgoing.write()) {
            copy(&from, &to);
        }
    }
    OutgoingBody::finish(outgoing, None)?;
    Ok(answer)
}

/// Begins its own answer first, and asks while that is under way.
fn late(out: ResponseOutparam, url: &str) {
    let response = OutgoingResponse::new(Fields::new());
    let Ok(body) = response.body() else { return };
    ResponseOutparam::set(out, Ok(response));
    if let Ok(stream) = body.write() {
        let _ = stream.blocking_write_and_flush(b"begun\n");
        let text = describe(exchange(url, &Method::Get, &Fields::new(), None));
        send(&stream, text.as_bytes());
    }
    let _ = OutgoingBody::finish(body, None);
}

fn answer(out: ResponseOutparam, status: u16, text: &str) {
    let response = OutgoingResponse::new(Fields::new());
    let _ = response.set_status_code(status);
    let Ok(body) = response.body() else { return };
    ResponseOutparam::set(out, Ok(response));
    if let Ok(stream) = body.write() {
        send(&stream, text.as_bytes());
    }
    let _ = OutgoingBody::finish(body, None);
}

fn send(stream: &OutputStream, bytes: &[u8]) {
    for piece in bytes.chunks(4096) {
        if stream.blocking_write_and_flush(piece).is_err() {
            return;
        }
    }
}

fn copy(from: &InputStream, to: &OutputStream) {
    while let Ok(bytes) = from.blocking_read(PIECE) {
        send(to, &bytes);
    }
}

fn read_all(stream: &InputStream) -> Result<Vec<u8>, String> {
    let mut all = Vec::new();
    loop {
        match stream.blocking_read(PIECE) {
            Ok(bytes) => all.extend(bytes),
            Err(StreamError::Closed) => return Ok(all),
            Err(StreamError::LastOperationFailed(error)) => {
                return Err(format!("after {} bytes: {}", all.len(), error.to_debug_string()));
            }
        }
    }
}

/// Percent-decoded.
fn decoded(text: &str) -> String {
    let (mut bytes, mut rest) = (Vec::new(), text.as_bytes());
    while let Some((first, more)) = rest.split_first() {
        let code = (*first == b'%').then(|| more.get(..2)).flatten();
        let code = code.and_then(|hex| std::str::from_utf8(hex).ok()).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        rest = if code.is_some() { &more[2..] } else { more };
        bytes.push(code.unwrap_or(*first));
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
