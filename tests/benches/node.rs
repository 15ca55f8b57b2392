//! `make bench`: what a call costs with everything on, measured on a real node over real TLS.
//!
//! Owns the figures of the README and of closing notes: calls per second, percentiles, calls per second of the
//! server's own CPU (its whole process tree), and memory. Ratios of one run on one machine are what counts.

use std::time::{Duration, Instant};

use cofferdam_tests::{Client, Scene, processes};

const WARM_UP: Duration = Duration::from_secs(1);
const LENGTH: Duration = Duration::from_secs(5);

struct Figures {
    calls: usize,
    seconds: f64,
    cpu_seconds: f64,
    p50_us: u128,
    p99_us: u128,
}

#[expect(clippy::disallowed_methods, reason = "a bench measures real time")]
async fn load(scene: &Scene, path: &'static str, connections: usize) -> Figures {
    let token = scene.site.token("acme", "alice", "invoker").expect("a token");
    let mut callers = Vec::new();
    for _ in 0..connections {
        let mut client: Client = scene.node.client().await.expect("a connection").with(&token);
        callers.push(tokio::spawn(async move {
            let begun = Instant::now();
            let mut times = Vec::new();
            while begun.elapsed() < WARM_UP + LENGTH {
                let at = Instant::now();
                let answer = client.get(path).await.expect("an answer");
                assert!(answer.status.is_success(), "{}", answer.text());
                if begun.elapsed() > WARM_UP {
                    times.push(at.elapsed().as_micros());
                }
            }
            times
        }));
    }
    tokio::time::sleep(WARM_UP).await;
    let (before, at) = (tree_ticks(scene), Instant::now());
    tokio::time::sleep(LENGTH).await;
    let (ticks, seconds) = (tree_ticks(scene) - before, at.elapsed().as_secs_f64());
    let mut times = Vec::new();
    for caller in callers {
        times.extend(caller.await.expect("a caller"));
    }
    times.sort_unstable();
    let at = |part: usize| times.get(times.len() * part / 100).copied().unwrap_or_default();
    Figures { calls: times.len(), seconds, cpu_seconds: ticks as f64 / 100.0, p50_us: at(50), p99_us: at(99) }
}

/// CPU of the node and everything below it. The kernel counts in hundredths of a second on every Linux we support.
fn tree_ticks(scene: &Scene) -> u64 {
    let below: u64 = processes::below(scene.node.pid()).into_iter().map(processes::cpu_ticks).sum();
    below + processes::cpu_ticks(scene.node.pid())
}

#[tokio::main]
async fn main() {
    let scene = Scene::new().expect("a node");
    println!("| call | connections | calls/s | p50 us | p99 us | calls per server CPU second |");
    println!("|---|---|---|---|---|---|");
    for (name, path) in
        [("hello (C)", "/acme/hello"), ("hello (C), strict", "/acme/strict"), ("whoami (Rust)", "/acme/whoami")]
    {
        for connections in [1, 32, 64] {
            let f = load(&scene, path, connections).await;
            let (rate, per_cpu) = (f.calls as f64 / f.seconds, f.calls as f64 / f.cpu_seconds.max(0.01));
            println!("| {name} | {connections} | {rate:.0} | {} | {} | {per_cpu:.0} |", f.p50_us, f.p99_us);
        }
    }
    println!("\n| process | resident KiB |\n|---|---|");
    println!("| gateway | {} |", processes::resident_kib(scene.node.pid()));
    for pid in processes::below(scene.node.pid()) {
        println!("| cell or its shim {pid} | {} |", processes::resident_kib(pid));
    }
}
