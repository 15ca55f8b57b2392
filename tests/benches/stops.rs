//! Stops: how long a guest that will not stop goes on after its limit, by what the log says it used.

use std::time::Duration;

use cofferdam_tests::{Broken, Client, Scene, guests};

use crate::times::{Times, ms};

/// Stops of each kind.
const STOPS: usize = 20;
/// Guests that compute in one cell at once.
const CROWD: usize = 32;

const CPU: (&str, &str, u64) = ("cpu", "cpu_us", 200);
const WALL: (&str, &str, u64) = ("wall", "wall_us", 300);

fn manifest() -> String {
    let guest = guests::committed("faults/faults.wasm").display().to_string();
    let function = |name: &str, cpu: &str, wall: &str| {
        format!(
            "[functions.{name}]\nsource = {{ path = {guest:?} }}\n\
             limits = {{ cpu = {cpu:?}, wall = {wall:?}, concurrency = 64, cells = 1 }}\n"
        )
    };
    let app = "manifest = 1\n[app]\nname = \"stops\"\ntenant = \"acme\"\n".to_owned();
    [app, function("cpu", "200ms", "60s"), function("wall", "20s", "300ms")].concat()
}

/// Has a guest compute until it is stopped; the id of the call.
async fn stopped(client: &mut Client, function: &str) -> Result<String, Broken> {
    let answer = client.get(&format!("/-/invoke/acme/{function}/spin")).await?;
    if !answer.text().contains("_exceeded") && !answer.text().contains("_exhausted") {
        return Err(format!("{function}: {} {}", answer.status, answer.text()).into());
    }
    Ok(answer.header("x-request-id").to_owned())
}

/// Prints by how much these calls went over their limit.
fn report(scene: &Scene, what: &str, (_, used, limit_ms): (&str, &str, u64), requests: &[String]) {
    let records = scene.site.records().expect("records");
    let mut over = Times::default();
    for record in &records {
        let ours = record["request"].as_str().is_some_and(|id| requests.iter().any(|request| request == id));
        if let (true, Some(took)) = (ours, record["usage"][used].as_u64()) {
            over.push(Duration::from_micros(took.saturating_sub(limit_ms * 1000)));
        }
    }
    assert_eq!(over.len(), requests.len(), "one outcome for each");
    println!("| {what} | {limit_ms} | {} | {} |", ms(over.percentile(50)), ms(over.percentile(100)));
}

pub(crate) async fn run() {
    let scene = Scene::bare().expect("a node");
    scene.node.run(&scene.site, &["tenant", "create", "acme"]).expect("a tenant");
    let file = scene.site.file("stops.toml", &manifest()).expect("a manifest");
    scene.node.run(&scene.site, &["apply", &file.display().to_string()]).expect("functions");
    println!("| a guest that computes, stopped by | limit ms | over by, p50 ms | at most ms |\n|---|---|---|---|");
    let mut client = scene.alice().await.expect("a connection");
    for (what, kind) in [("CPU time", CPU), ("wall time", WALL)] {
        let mut requests = Vec::new();
        for _ in 0..STOPS {
            requests.push(stopped(&mut client, kind.0).await.expect("a stop"));
        }
        report(&scene, what, kind, &requests);
    }
    let mut crowd = Vec::new();
    for _ in 0..CROWD {
        let mut client = scene.alice().await.expect("a connection");
        crowd.push(tokio::spawn(async move { stopped(&mut client, WALL.0).await }));
    }
    let mut requests = Vec::new();
    for guest in crowd {
        requests.push(guest.await.expect("a caller").expect("a stop"));
    }
    report(&scene, &format!("wall time, {CROWD} at once in one cell"), WALL, &requests);
    println!();
}
