//! Hostile bytes on the wire: framing that two readers could read differently is refused, and the connection closed.

use cofferdam_tests::{Scene, client};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

async fn connect(scene: &Scene) -> TlsStream<TcpStream> {
    let tcp = TcpStream::connect(("127.0.0.1", scene.node.port)).await.unwrap();
    let connector = client::connector(scene.node.certificate(), &[b"http/1.1"]).unwrap();
    connector.connect(ServerName::try_from("localhost").unwrap(), tcp).await.unwrap()
}

/// Sends raw bytes and reads until the server closes.
async fn exchange(scene: &Scene, bytes: &[u8]) -> String {
    let mut tls = connect(scene).await;
    tls.write_all(bytes).await.unwrap();
    let mut said = Vec::new();
    // A close without close_notify is as good an ending as any here.
    let _ = tls.read_to_end(&mut said).await;
    String::from_utf8_lossy(&said).into_owned()
}

const GOOD: &str = "GET /acme/public HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";

/// What must be refused, by name. Where a body or a second request follows, it must never be answered.
fn malformed() -> Vec<(&'static str, String)> {
    let post =
        |fields: &str, body: &str| format!("POST /acme/public HTTP/1.1\r\nhost: localhost\r\n{fields}\r\n{body}");
    let get = |target: &str| format!("GET {target} HTTP/1.1\r\nhost: localhost\r\n\r\n");
    let get_with = |field: &str| format!("GET /acme/public HTTP/1.1\r\nhost: localhost\r\n{field}\r\n\r\n");
    vec![
        ("length and encoding", post("content-length: 5\r\ntransfer-encoding: chunked\r\n", "0\r\n\r\n")),
        ("encoding and length", post("transfer-encoding: chunked\r\ncontent-length: 5\r\n", "0\r\n\r\n")),
        ("two lengths", post("content-length: 1\r\ncontent-length: 2\r\n", "ab")),
        ("two equal lengths", post("content-length: 1\r\ncontent-length: 1\r\n", "a")),
        ("length list", post("content-length: 1, 1\r\n", "a")),
        ("signed length", post("content-length: +1\r\n", "a")),
        ("length of words", post("content-length: one\r\n", "a")),
        ("gzip then chunked", post("transfer-encoding: gzip, chunked\r\n", "0\r\n\r\n")),
        ("chunked twice", post("transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n", "0\r\n\r\n")),
        ("odd encoding", post("transfer-encoding: xchunked\r\n", "0\r\n\r\n")),
        ("space before colon", post("content-length : 1\r\n", "a")),
        ("folded field", "GET /acme/public HTTP/1.1\r\nhost: localhost\r\nx: a\r\n b\r\n\r\n".into()),
        ("bare line feed", "GET /acme/public HTTP/1.1\nhost: localhost\n\n".into()),
        ("no host", "GET /acme/public HTTP/1.1\r\n\r\n".into()),
        ("two hosts", "GET /acme/public HTTP/1.1\r\nhost: localhost\r\nhost: evil\r\n\r\n".into()),
        ("host with user", "GET /acme/public HTTP/1.1\r\nhost: a@localhost\r\n\r\n".into()),
        ("host with path", "GET /acme/public HTTP/1.1\r\nhost: localhost/x\r\n\r\n".into()),
        ("absolute form of another host", "GET https://evil/acme/public HTTP/1.1\r\nhost: localhost\r\n\r\n".into()),
        ("dot segment", get("/acme/x/../public")),
        ("encoded dot segment", get("/acme/x/%2e%2e/public")),
        ("encoded slash", get("/acme%2fpublic")),
        ("encoded backslash", get("/acme/%5cpublic")),
        ("double slash", get("//acme/public")),
        ("encoded nul", get("/acme/public%00")),
        ("broken escape", get("/acme/public%zz")),
        ("connect", "CONNECT localhost:443 HTTP/1.1\r\nhost: localhost\r\n\r\n".into()),
        ("trace", "TRACE /acme/public HTTP/1.1\r\nhost: localhost\r\n\r\n".into()),
        ("chunk extension", post("transfer-encoding: chunked\r\n", "1;x=y\r\na\r\n0\r\n\r\n")),
        ("bad chunk size", post("transfer-encoding: chunked\r\n", "0x1\r\na\r\n0\r\n\r\n")),
        ("method override", get_with("x-http-method-override: DELETE")),
        ("another method override", get_with("X-Method-Override: PUT")),
        ("target override", get_with("x-original-url: /acme/hello")),
        ("another target override", get_with("X-Rewrite-URL: /-/v1/tenants")),
        ("host override", get_with("x-original-host: evil")),
        ("control byte in a field", "GET /acme/public HTTP/1.1\r\nhost: localhost\r\nx: a\x01b\r\n\r\n".into()),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn ambiguous_requests_are_refused_and_nothing_behind_them_is_answered() {
    let scene = Scene::new().unwrap();
    let good = exchange(&scene, GOOD.as_bytes()).await;
    assert!(good.starts_with("HTTP/1.1 200"), "{good}");
    for (name, bytes) in malformed() {
        let said = exchange(&scene, format!("{bytes}{GOOD}").as_bytes()).await;
        assert!(!said.contains("HTTP/1.1 200"), "{name}: {said}");
        let refused = said.is_empty() || said.starts_with("HTTP/1.1 4") || said.starts_with("HTTP/1.1 501");
        assert!(refused, "{name}: {said}");
    }
    assert!(exchange(&scene, GOOD.as_bytes()).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test(flavor = "multi_thread")]
async fn oversized_heads_are_refused() {
    let scene = Scene::new().unwrap();
    let long_target = format!("GET /{} HTTP/1.1\r\nhost: localhost\r\n\r\n", "a".repeat(10_000));
    let many: String = (0..200).map(|i| format!("x-{i}: 1\r\n")).collect();
    let many = format!("GET /acme/public HTTP/1.1\r\nhost: localhost\r\n{many}\r\n");
    let big = format!("GET /acme/public HTTP/1.1\r\nhost: localhost\r\nx: {}\r\n\r\n", "a".repeat(60_000));
    for (bytes, statuses) in [(long_target, ["414", "431"]), (many, ["431", "400"]), (big, ["431", "400"])] {
        let said = exchange(&scene, bytes.as_bytes()).await;
        let status = said.split(' ').nth(1).unwrap_or_default();
        assert!(said.is_empty() || statuses.contains(&status), "{}", said.chars().take(200).collect::<String>());
    }
    assert!(exchange(&scene, GOOD.as_bytes()).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_before_tls_is_dropped_and_others_are_served() {
    let scene = Scene::new().unwrap();
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0u8; 64], b"\x16\x03\x01\xff\xff"] {
        let mut tcp = TcpStream::connect(("127.0.0.1", scene.node.port)).await.unwrap();
        tcp.write_all(bytes).await.unwrap();
        tcp.shutdown().await.unwrap();
        let mut rest = Vec::new();
        let _ = tcp.read_to_end(&mut rest).await;
        assert!(!rest.starts_with(b"HTTP/"), "plain HTTP was answered");
    }
    assert!(exchange(&scene, GOOD.as_bytes()).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_connections_do_not_keep_others_out() {
    let scene = Scene::new().unwrap();
    let mut silent = Vec::new();
    for _ in 0..200 {
        silent.push(TcpStream::connect(("127.0.0.1", scene.node.port)).await.unwrap());
    }
    assert!(exchange(&scene, GOOD.as_bytes()).await.starts_with("HTTP/1.1 200"));
    drop(silent);
}
