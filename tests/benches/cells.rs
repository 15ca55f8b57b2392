//! Cells: what the first call of a function waits for, and what many cells at once cost.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::time::Duration;

use cofferdam_tests::{Scene, guests, processes};
use serde_json::Value;

use crate::times::{Times, ms, timed};

/// Tenants, and functions of each: every function gets a cell of its own.
const TENANTS: usize = 8;
const FUNCTIONS: usize = 25;
/// Between two first calls, so that a blank cell is there for each: it is the hand-over that is measured, not the
/// start of a process.
const PAUSE: Duration = Duration::from_millis(100);
/// Calls once all cells are alive.
const CALLS: usize = 2_000;

fn manifest(tenant: &str) -> String {
    let component = guests::committed("hello-c/hello-c.wasm");
    let mut text = format!("manifest = 1\n[app]\nname = \"many\"\ntenant = \"{tenant}\"\n");
    for number in 0..FUNCTIONS {
        let _ = write!(
            text,
            "[functions.f{number}]\nsource = {{ path = {component:?} }}\nrecycle = {{ idle = \"10m\" }}\n\
             [[routes]]\nhost = \"localhost\"\npath = \"/{tenant}/f{number}\"\nfunction = \"f{number}\"\n"
        );
    }
    text
}

/// The part of a tree's memory that is its own or its share of what is shared, MiB.
fn proportional_mib(pids: &[u32]) -> u64 {
    pids.iter().map(|pid| processes::proportional_kib(*pid)).sum::<u64>() / 1024
}

/// From the moment a cell's first call had been read to its record, which is made when the answer is there: policies,
/// the hand-over and the guest, without the way to the caller and without the disk. As the node itself saw it.
fn first_calls(scene: &Scene) -> Times {
    let records = scene.site.records().expect("records");
    let at = |record: &Value, name: &str| record[name].as_u64();
    // Where the answer took its time, that it was asked for is a record of its own.
    let received: HashMap<&str, u64> =
        records.iter().filter_map(|record| Some((record["request"].as_str()?, at(record, "received")?))).collect();
    let mut times = Times::default();
    for record in records.iter().filter(|record| record["cell"]["call"] == 1) {
        let (ended, request) = (at(record, "at").expect("a time"), record["request"].as_str().expect("a request"));
        times.push(Duration::from_nanos(ended - received[request]));
    }
    assert_eq!(times.len(), TENANTS * FUNCTIONS, "a first call of each");
    times
}

pub(crate) async fn run() {
    let scene = Scene::bare().expect("a node");
    let mut first = Times::default();
    let mut calls = Vec::new();
    for tenant in (0..TENANTS).map(|number| format!("t{number}")) {
        scene.node.run(&scene.site, &["tenant", "create", &tenant]).expect("a tenant");
        let file = scene.site.file(&format!("{tenant}.toml"), &manifest(&tenant)).expect("a manifest");
        scene.node.run(&scene.site, &["apply", &file.display().to_string()]).expect("functions");
        let mut client = scene.caller(&tenant, "alice", "invoker").await.expect("a connection");
        for number in 0..FUNCTIONS {
            tokio::time::sleep(PAUSE).await;
            let path = format!("/{tenant}/f{number}");
            first.push(timed(&mut client, &path).await.expect("a first answer"));
            calls.push((tenant.clone(), path));
        }
    }
    let below = processes::below(scene.node.pid());
    // One process that runs the guest for each cell, beside its guardian, which is smaller.
    let resident = below.iter().map(|pid| processes::resident_kib(*pid)).max().unwrap_or_default();
    let mut warm = Times::default();
    let mut clients = HashMap::new();
    for (tenant, path) in calls.iter().cycle().take(CALLS) {
        if !clients.contains_key(tenant) {
            let client = scene.caller(tenant, "alice", "invoker").await.expect("a connection");
            clients.insert(tenant.clone(), client);
        }
        if let Some(client) = clients.get_mut(tenant) {
            warm.push(timed(client, path).await.expect("an answer"));
        }
    }
    let mut handed = first_calls(&scene);
    println!("| cells | figure |\n|---|---|");
    println!(
        "| a blank cell's hand-over to the first answer, within the node, p50 ms | {} |",
        ms(handed.percentile(50))
    );
    println!("| the same, p99 ms | {} |", ms(handed.percentile(99)));
    println!("| first call of a function, all the way, p50 ms | {} |", ms(first.percentile(50)));
    println!("| the same, p99 ms | {} |", ms(first.percentile(99)));
    println!("| processes alive, two for each cell | {} |", below.len());
    println!("| their memory, shared pages counted once, MiB | {} |", proportional_mib(&below));
    println!("| resident in the largest of them, idle, KiB | {resident} |");
    println!("| calls over all of them in turn, p50 ms | {} |", ms(warm.percentile(50)));
    println!("| the same, p99 ms | {} |", ms(warm.percentile(99)));
    println!("| gateway, resident MiB | {} |\n", processes::resident_kib(scene.node.pid()) / 1024);
}
