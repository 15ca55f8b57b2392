//! Evidence for the listener, over real sockets and real TLS: both versions, refusals, limits and draining.

use super::*;
use crate::call::{self, Received};
use crate::certificate;
use crate::client::{Caps, Client, HttpsJwks, Trust};
use crate::refusal::Refusal;
use bytes::Bytes;
use cofferdam_authz::JwksSource as _;
use cofferdam_model::{OsRandom, SystemClock};
use http::{HeaderMap, Method, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use rustls::pki_types::ServerName;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::Semaphore;
use tokio_rustls::TlsConnector;

/// Answers with what it received, or with the code of the refusal.
struct Echo {
    limits: Arc<Limits>,
    seen: AtomicUsize,
    /// A call to `/wait` takes one permit before it answers.
    gate: Semaphore,
}

fn plain(status: StatusCode, text: String) -> Response<OutBody> {
    let mut response = Response::new(OutBody::Held(text.into()));
    *response.status_mut() = status;
    response
}

impl Handler for Echo {
    async fn handle(self: Arc<Self>, arrived: Arrived) -> Result<Response<OutBody>, Reset> {
        self.seen.fetch_add(1, Ordering::SeqCst);
        match call::receive(arrived, (&self.limits, &[]), &SystemClock::default(), &OsRandom) {
            Err(rejected) => {
                let refusal: &Refusal = &rejected.refusal;
                Ok(plain(refusal.status(), refusal.code().to_owned()))
            }
            Ok(Received { circumstances, body, .. }) => {
                match &*circumstances.path {
                    "/reset" => return Err(Reset),
                    "/wait" => self.gate.acquire().await.map_err(|_| Reset)?.forget(),
                    _ => {}
                }
                let (method, host, path) = (&circumstances.method, &circumstances.host, &circumstances.path);
                let text = match body.collect().await {
                    Ok(whole) => format!("{method} {host} {path} {}", whole.to_bytes().len()),
                    Err(_) => return Ok(plain(StatusCode::BAD_REQUEST, "bad_body".into())),
                };
                Ok(plain(StatusCode::OK, text))
            }
        }
    }
}

struct Running {
    address: SocketAddr,
    echo: Arc<Echo>,
    drain: Drain,
    serving: tokio::task::JoinHandle<()>,
    dir: tempfile::TempDir,
}

impl Running {
    async fn start(limits: Limits) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
        certificate::create(&cert, &key, &[], &SystemClock::default()).unwrap();
        let limits = Arc::new(limits);
        let tls = Tls::new(certificate::load(&cert, &key).unwrap(), &limits).unwrap();
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let listener = Listener::bind(&[any], tls, limits.clone()).await.unwrap();
        let address = listener.addresses()[0];
        let echo = Arc::new(Echo { limits, seen: AtomicUsize::new(0), gate: Semaphore::new(0) });
        let drain = Drain::new();
        let serving = tokio::spawn(listener.serve(echo.clone(), drain.clone()));
        Self { address, echo, drain, serving, dir }
    }

    fn client(&self) -> Client {
        Client::new(&Trust::File(self.dir.path().join("cert.pem")), Caps::default()).unwrap()
    }

    /// A TLS connection with this ALPN.
    async fn connect(&self, alpn: &[u8]) -> io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
        let mut roots = rustls::RootCertStore::empty();
        let chain = certificate::load(&self.dir.path().join("cert.pem"), &self.dir.path().join("key.pem")).unwrap();
        roots.add(chain.cert[0].clone()).unwrap();
        let mut config = rustls::ClientConfig::builder_with_provider(Arc::new(crate::tls::provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![alpn.to_vec()];
        let name = ServerName::try_from("localhost").unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, TcpStream::connect(self.address).await?).await
    }

    /// Sends raw bytes over HTTP/1.1 and reads until the server closes.
    async fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect(b"http/1.1").await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        String::from_utf8(answer).unwrap()
    }
}

#[tokio::test]
async fn http_1_is_served_over_tls_1_3_with_the_hybrid_key_exchange() {
    let node = Running::start(Limits::default()).await;
    let url = format!("https://localhost:{}/a?b", node.address.port());
    let body = Bytes::from(vec![1; 100_000]);
    let answer = node.client().request(Method::POST, &url, HeaderMap::new(), body).await.unwrap();
    assert_eq!((answer.status, &answer.body[..]), (StatusCode::OK, &b"POST localhost /a 100000"[..]));
    let stream = node.connect(b"http/1.1").await.unwrap();
    let (_, session) = stream.get_ref();
    assert_eq!(session.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
    let group = session.negotiated_key_exchange_group().unwrap().name();
    assert_eq!(group, rustls::NamedGroup::X25519MLKEM768);
}

#[tokio::test]
async fn http_2_is_served_to_those_who_choose_it() {
    let node = Running::start(Limits::default()).await;
    let stream = node.connect(b"h2").await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    let driving = tokio::spawn(connection);
    for path in ["/one", "/two"] {
        let request = Request::get(format!("https://localhost{path}")).body(Empty::<Bytes>::new()).unwrap();
        let answer = sender.send_request(request).await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body, format!("GET localhost {path} 0"));
    }
    // A stream that cannot be answered is reset; the others live on.
    let request = Request::get("https://localhost/reset").body(Empty::<Bytes>::new()).unwrap();
    assert!(sender.send_request(request).await.is_err());
    let request = Request::get("https://localhost/three").body(Empty::<Bytes>::new()).unwrap();
    assert_eq!(sender.send_request(request).await.unwrap().status(), StatusCode::OK);
    drop(sender);
    driving.abort();
}

#[tokio::test]
async fn what_is_refused_below_http_is_answered_by_the_service_and_the_connection_closed() {
    let node = Running::start(Limits::default()).await;
    for (sent, status, code) in [
        (
            "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n",
            400,
            "length_and_encoding",
        ),
        ("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip, chunked\r\n\r\n", 400, "bad_transfer_encoding"),
        ("GET / HTTP/1.1\nhost: a\n\n", 400, "bad_line_ending"),
        ("GET / HTTP/1.1\r\nhost : a\r\n\r\n", 400, "bad_field_name"),
        ("GET / HTTP/1.0\r\n\r\n", 505, "version_unsupported"),
        ("GET / HTTP/1.1\r\nconnection: close\r\n\r\n", 400, "host_missing"),
        ("GET /../a HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n", 400, "ambiguous_path"),
    ] {
        let answer = node.raw(format!("{sent}GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n").as_bytes()).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{sent:?}: {answer}");
        assert!(answer.ends_with(&format!("\r\n\r\n{code}")), "{sent:?}: {answer}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{sent:?}: {answer}");
    }
    let long = format!("GET /{} HTTP/1.1\r\n", "a".repeat(100_000));
    assert!(node.raw(long.as_bytes()).await.starts_with("HTTP/1.1 414 "));
    let wide = format!("GET / HTTP/1.1\r\nx: {}\r\n", "a".repeat(100_000));
    assert!(node.raw(wide.as_bytes()).await.starts_with("HTTP/1.1 431 "));
}

#[tokio::test]
async fn a_badly_chunked_body_is_refused_and_nothing_after_it_is_heard() {
    let node = Running::start(Limits::default()).await;
    let sent = b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\nx: y\r\n\r\n\
                 GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n";
    let answer = node.raw(sent).await;
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.ends_with("bad_body"), "{answer}");
    assert_eq!(node.echo.seen.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_connection_that_cannot_be_answered_is_reset() {
    let node = Running::start(Limits::default()).await;
    let mut stream = node.connect(b"http/1.1").await.unwrap();
    stream.write_all(b"GET /reset HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    assert_eq!(answer, b"");
}

#[tokio::test]
async fn a_worn_out_connection_is_closed_after_its_last_request() {
    let node = Running::start(Limits { requests_per_connection: 2, ..Limits::default() }).await;
    let request = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
    let answers = node.raw(request.repeat(3).as_bytes()).await;
    assert_eq!(answers.matches("HTTP/1.1 200 ").count(), 2, "{answers}");
}

#[tokio::test]
async fn too_many_connections_of_one_source_are_closed_at_accept() {
    let node = Running::start(Limits { connections_per_source: 1, ..Limits::default() }).await;
    let first = node.connect(b"http/1.1").await.unwrap();
    assert!(node.connect(b"http/1.1").await.is_err());
    drop(first);
    // The slot comes back once the server has noticed; until then connections are refused as before.
    while node.connect(b"http/1.1").await.is_err() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_silent_in_its_handshake_is_cut_at_the_deadline() {
    let node = Running::start(Limits::default()).await;
    let start = tokio::time::Instant::now();
    let mut silent = TcpStream::connect(node.address).await.unwrap();
    assert_eq!(silent.read(&mut [0; 16]).await.unwrap_or(0), 0);
    assert!(start.elapsed() >= Duration::from_secs(10), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_connection_without_a_request_under_way_is_closed() {
    let node = Running::start(Limits::default()).await;
    let mut stream = node.connect(b"http/1.1").await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    let start = tokio::time::Instant::now();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!((75..=113).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_stream_whose_window_stays_shut_is_cut() {
    let node = Running::start(Limits::default()).await;
    let stream = node.connect(b"h2").await.unwrap();
    let mut builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    let (mut sender, connection) = builder.initial_stream_window_size(0).handshake(TokioIo::new(stream)).await.unwrap();
    let driving = tokio::spawn(connection);
    let start = tokio::time::Instant::now();
    let request = Request::get("https://localhost/").body(Empty::<Bytes>::new()).unwrap();
    let answer = sender.send_request(request).await.unwrap();
    assert!(answer.into_body().collect().await.is_err());
    assert!((75..=113).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
    driving.abort();
}

#[tokio::test]
async fn our_client_reads_no_more_than_it_was_told_to() {
    let node = Running::start(Limits::default()).await;
    let trust = Trust::File(node.dir.path().join("cert.pem"));
    let url = format!("https://127.0.0.1:{}/keys", node.address.port());
    let client = Client::new(&trust, Caps { answer_bytes: 4, ..Caps::default() }).unwrap();
    let answer = client.request(Method::GET, &url, HeaderMap::new(), Bytes::new()).await;
    assert!(matches!(answer, Err(GatewayError::AnswerTooLarge { most: 4, .. })), "{answer:?}");
    let keys = HttpsJwks::new(&trust).unwrap();
    assert_eq!(keys.fetch(&url).await.unwrap(), b"GET 127.0.0.1 /keys 0");
    let ambiguous = format!("https://127.0.0.1:{}/..", node.address.port());
    assert!(keys.fetch(&ambiguous).await.is_err(), "anything but 200 is no key set");
    let stranger = HttpsJwks::new(&Trust::Native);
    assert!(stranger.is_err() || stranger.unwrap().fetch(&url).await.is_err(), "the certificate is not trusted");
}

#[tokio::test(start_paused = true)]
async fn our_client_gives_up_at_its_deadline() {
    let node = Running::start(Limits::default()).await;
    let url = format!("https://localhost:{}/wait", node.address.port());
    let answer = node.client().request(Method::GET, &url, HeaderMap::new(), Bytes::new()).await;
    assert!(matches!(answer, Err(GatewayError::Timeout { .. })), "{answer:?}");
}

#[tokio::test]
async fn a_protocol_we_do_not_speak_is_refused_in_the_handshake() {
    let node = Running::start(Limits::default()).await;
    assert!(node.connect(b"spdy/3").await.is_err());
}

#[tokio::test]
async fn a_drain_finishes_the_call_under_way_and_takes_no_other() {
    let node = Running::start(Limits::default()).await;
    let mut stream = node.connect(b"http/1.1").await.unwrap();
    stream.write_all(b"GET /wait HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    while node.echo.seen.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    let idle = node.connect(b"http/1.1").await.unwrap();
    let draining = tokio::spawn({
        let drain = node.drain.clone();
        async move { drain.drain(Duration::from_secs(20)).await }
    });
    node.drain.reached(Phase::Draining).await;
    node.serving.await.unwrap();
    assert!(TcpStream::connect(node.address).await.is_err(), "the socket is closed");
    node.echo.gate.add_permits(1);
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    drop(idle);
    assert_eq!(draining.await.unwrap(), 0, "nothing had to be cut");
}

#[tokio::test]
async fn a_replaced_certificate_is_shown_from_the_next_handshake_on() {
    let dir = tempfile::tempdir().unwrap();
    let make = |name: &str| {
        let (cert, key) = (dir.path().join(format!("{name}.pem")), dir.path().join(format!("{name}.key")));
        certificate::create(&cert, &key, &[], &SystemClock::default()).unwrap();
        certificate::load(&cert, &key).unwrap()
    };
    let limits = Arc::new(Limits::default());
    let tls = Tls::new(make("old"), &limits).unwrap();
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let listener = Listener::bind(&[any], tls.clone(), limits.clone()).await.unwrap();
    let url = format!("https://localhost:{}/", listener.addresses()[0].port());
    let echo = Arc::new(Echo { limits, seen: AtomicUsize::new(0), gate: Semaphore::new(0) });
    let serving = tokio::spawn(listener.serve(echo, Drain::new()));
    tls.replace(make("new"));
    let ask = async |name: &str| {
        let client = Client::new(&Trust::File(dir.path().join(name)), Caps::default()).unwrap();
        client.request(Method::GET, &url, HeaderMap::new(), Bytes::new()).await
    };
    assert!(ask("old.pem").await.is_err());
    assert_eq!(ask("new.pem").await.unwrap().status, StatusCode::OK);
    serving.abort();
}

const GOOD: &str = "POST /a?b HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello\
                    POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n\
                    GET https://a/ HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\nupgrade: x\r\n\r\n";

/// Runs bytes through the guarded stream and hyper as they are set up for serving; gives what came back.
async fn through_hyper(input: Vec<u8>) -> (hyper::Result<()>, Vec<u8>) {
    let (mut client, stream) = tokio::io::duplex(1 << 16);
    let limits = Limits::default();
    let caps = HeadCaps { target_bytes: 8192, header_bytes: 32 * 1024, header_count: 100 };
    let patience = Patience { head: Duration::from_secs(10), write: Duration::from_secs(15) };
    let pulse = Pulse::new(100);
    let io = TokioIo::new(Guarded::http1(stream, caps, patience, pulse.clone()));
    let service = service_fn(move |request: Request<Incoming>| {
        let (refused, open) = pulse.begin();
        async move {
            let text = if refused.is_some() { "refused" } else { "taken" };
            let status = match request.into_body().collect().await {
                Ok(_) => StatusCode::OK,
                Err(_) => StatusCode::BAD_REQUEST,
            };
            Ok::<_, Reset>(plain(status, text.to_owned()).map(|body| Tracked::new(body, open)))
        }
    });
    client.write_all(&input).await.unwrap();
    client.shutdown().await.unwrap();
    let (ended, answer) = tokio::join!(http1_builder(&limits).serve_connection(io, service), async {
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.unwrap();
        answer
    });
    (ended, answer)
}

proptest::proptest! {
    /// Whatever a client sends, hyper never finds a head it would have to answer by itself, unrecorded.
    #[test]
    fn every_answer_is_the_services(
        edits in proptest::collection::vec((0usize..300, 0u8..=255, 0u8..3), 0..6),
    ) {
        let mut input = GOOD.as_bytes().to_vec();
        for (at, byte, kind) in edits {
            let at = at % input.len();
            match kind {
                0 => input[at] = byte,
                1 => input.insert(at, byte),
                _ => drop(input.remove(at)),
            }
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let (ended, answer) = runtime.block_on(through_hyper(input));
        if let Err(error) = &ended {
            proptest::prop_assert!(!error.is_parse(), "{error:?}");
        }
        let heads = answer.windows(9).filter(|piece| piece == b"HTTP/1.1 ").count();
        let interim = answer.windows(12).filter(|piece| piece == b"HTTP/1.1 100").count();
        let ours = answer.windows(5).filter(|piece| piece == b"taken").count()
            + answer.windows(7).filter(|piece| piece == b"refused").count();
        proptest::prop_assert_eq!(heads - interim, ours);
    }
}
