//! Calls as fast as they are answered: per second, percentiles, and per second of the server's own CPU (its whole
//! process tree), and memory.

use std::time::Duration;

use cofferdam_tests::{Scene, processes};

use crate::times::{Times, now, timed};

const WARM_UP: Duration = Duration::from_secs(1);
const LENGTH: Duration = Duration::from_secs(5);

struct Figures {
    times: Times,
    seconds: f64,
    cpu_seconds: f64,
}

async fn load(scene: &Scene, path: &'static str, connections: usize) -> Figures {
    let token = scene.site.token("acme", "alice", "invoker").expect("a token");
    let mut callers = Vec::new();
    for _ in 0..connections {
        let mut client = scene.node.client().await.expect("a connection").with(&token);
        callers.push(tokio::spawn(async move {
            let (begun, mut times) = (now(), Times::default());
            while begun.elapsed() < WARM_UP + LENGTH {
                let time = timed(&mut client, path).await.expect("an answer");
                if begun.elapsed() > WARM_UP {
                    times.push(time);
                }
            }
            times
        }));
    }
    tokio::time::sleep(WARM_UP).await;
    let (before, at) = (processes::tree_ticks(scene.node.pid()), now());
    tokio::time::sleep(LENGTH).await;
    let (ticks, seconds) = (processes::tree_ticks(scene.node.pid()) - before, at.elapsed().as_secs_f64());
    let mut times = Times::default();
    for caller in callers {
        times.extend(caller.await.expect("a caller"));
    }
    Figures { times, seconds, cpu_seconds: ticks as f64 / 100.0 }
}

pub(crate) async fn run() {
    let scene = Scene::new().expect("a node");
    println!("| call | connections | calls/s | p50 us | p99 us | calls per server CPU second |");
    println!("|---|---|---|---|---|---|");
    for (name, path) in
        [("hello (C)", "/acme/hello"), ("hello (C), strict", "/acme/strict"), ("whoami (Rust)", "/acme/whoami")]
    {
        for connections in [1, 32, 64] {
            let mut f = load(&scene, path, connections).await;
            let calls = f.times.len() as f64;
            let (rate, per_cpu) = (calls / f.seconds, calls / f.cpu_seconds.max(0.01));
            let (p50, p99) = (f.times.percentile(50).as_micros(), f.times.percentile(99).as_micros());
            println!("| {name} | {connections} | {rate:.0} | {p50} | {p99} | {per_cpu:.0} |");
        }
    }
    println!("\n| process | resident KiB |\n|---|---|");
    println!("| gateway | {} |", processes::resident_kib(scene.node.pid()));
    for pid in processes::below(scene.node.pid()) {
        println!("| cell or its guardian {pid} | {} |", processes::resident_kib(pid));
    }
    println!();
}
