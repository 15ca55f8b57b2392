//! `wasmtime serve` beside us: the same component, one run, one machine. It does without TLS, identity, policies,
//! limits, jail and log, so what is compared is the CPU of a call with all of that to one without any.
//!
//! Set COFFERDAM_BENCH_WASMTIME to the binary (`cargo install wasmtime-cli --version 48.0.8 --locked`).

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use cofferdam_tests::{Broken, Scene, guests, processes};
use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::times::{Times, ms, now, timed};

const LENGTH: Duration = Duration::from_secs(5);
const CONNECTIONS: usize = 32;

/// A running peer.
struct Peer {
    child: Child,
    port: u16,
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn start(binary: &std::ffi::OsStr) -> Result<Peer, Broken> {
    let mut child = Command::new(binary)
        .args(["serve", "--addr", "127.0.0.1:0", "-S", "cli", "-O", "pooling-memory-keep-resident=2097152"])
        .arg(guests::committed("hello-c/hello-c.wasm"))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut lines = BufReader::new(child.stderr.take().ok_or("no stderr")?).lines();
    let port = lines.find_map(|line| {
        let line = line.ok()?;
        line.contains("http://").then(|| line.trim_end_matches('/').rsplit(':').next()?.parse().ok())?
    });
    std::thread::spawn(move || lines.for_each(drop));
    Ok(Peer { child, port: port.ok_or("`wasmtime serve` did not say where it listens")? })
}

async fn plain(port: u16) -> Result<Times, Broken> {
    let tcp = TcpStream::connect(("127.0.0.1", port)).await?;
    tcp.set_nodelay(true)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(tcp)).await?;
    tokio::spawn(connection);
    let (begun, mut times) = (now(), Times::default());
    while begun.elapsed() < LENGTH {
        let at = now();
        sender.ready().await?;
        let request = Request::get("/").header("host", "localhost").body(Empty::<Bytes>::new())?;
        let answer = sender.send_request(request).await?;
        if !answer.status().is_success() {
            return Err(format!("the peer answered {}", answer.status()).into());
        }
        answer.into_body().collect().await?;
        times.push(at.elapsed());
    }
    Ok(times)
}

async fn ours(mut client: cofferdam_tests::Client) -> Result<Times, Broken> {
    let (begun, mut times) = (now(), Times::default());
    while begun.elapsed() < LENGTH {
        times.push(timed(&mut client, "/acme/hello").await?);
    }
    Ok(times)
}

async fn measure(
    name: &str,
    pid: u32,
    callers: Vec<tokio::task::JoinHandle<Result<Times, Broken>>>,
) -> Result<f64, Broken> {
    let before = processes::tree_ticks(pid);
    let mut times = Times::default();
    for caller in callers {
        times.extend(caller.await??);
    }
    let cpu = (processes::tree_ticks(pid) - before) as f64 / 100.0;
    let per_cpu = times.len() as f64 / cpu.max(0.01);
    let rate = times.len() as f64 / LENGTH.as_secs_f64();
    println!("| {name} | {rate:.0} | {} | {} | {per_cpu:.0} |", ms(times.percentile(50)), ms(times.percentile(99)));
    Ok(per_cpu)
}

async fn compare(binary: &std::ffi::OsStr) -> Result<(), Broken> {
    println!("| hello (C), {CONNECTIONS} connections | calls/s | p50 ms | p99 ms | calls per server CPU second |");
    println!("|---|---|---|---|---|");
    let peer = start(binary)?;
    let callers = (0..CONNECTIONS).map(|_| tokio::spawn(plain(peer.port))).collect();
    let theirs = measure("wasmtime serve, plain HTTP, nothing else", peer.child.id(), callers).await?;
    drop(peer);
    let scene = Scene::new()?;
    let token = scene.site.token("acme", "alice", "invoker")?;
    let mut callers = Vec::new();
    for _ in 0..CONNECTIONS {
        callers.push(tokio::spawn(ours(scene.node.client().await?.with(&token))));
    }
    let own = measure("cofferdam, everything on", scene.node.pid(), callers).await?;
    println!("\nOurs against theirs, calls per server CPU second: {:.2}\n", own / theirs);
    Ok(())
}

pub(crate) async fn run() {
    let Some(binary) = std::env::var_os("COFFERDAM_BENCH_WASMTIME") else {
        println!("COFFERDAM_BENCH_WASMTIME is not set: no comparison with `wasmtime serve`");
        return;
    };
    if let Err(error) = compare(&binary).await {
        println!("no comparison with `wasmtime serve`: {error}");
    }
}
