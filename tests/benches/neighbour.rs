//! A noisy neighbour: what one tenant's callers wait for while another tenant uses all it may.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use cofferdam_tests::outside::{NAME, Outside};
use cofferdam_tests::{Scene, guests};

use crate::times::{Times, ms, timed};

/// Each measurement, and the time before it in which the noise sets in.
const LENGTH: Duration = Duration::from_secs(6);
const SETTLE: Duration = Duration::from_secs(1);
/// The quiet tenant's calls come at this distance.
const EVERY: Duration = Duration::from_millis(4);
/// Connections of the noisy tenant, each calling as fast as it is answered: as many as its function takes at once.
const CONNECTIONS: usize = 64;

fn noise(outside: &Outside) -> [(&'static str, String); 4] {
    [
        ("CPU", "/globex/faults/spin".to_owned()),
        ("memory", "/globex/faults/eat".to_owned()),
        ("logs", "/globex/faults/log".to_owned()),
        ("egress", format!("/globex/fetch/16?{}", outside.url("/"))),
    ]
}

fn manifest(outside: &Outside) -> String {
    let (faults, fetch) = (guests::committed("faults/faults.wasm"), guests::committed("fetch/fetch.wasm"));
    let (port, ca) = (outside.port, outside.certificate());
    format!(
        "manifest = 1\n[app]\nname = \"noise\"\ntenant = \"globex\"\n\
         [functions.faults]\nsource = {{ path = {faults:?} }}\n\
         [functions.fetch]\nsource = {{ path = {fetch:?} }}\n\
         [[functions.fetch.egress]]\nhost = \"{NAME}\"\nport = {port}\nca = {ca:?}\n\
         [[routes]]\nhost = \"localhost\"\npath = \"/globex/faults/{{*fault}}\"\nfunction = \"faults\"\n\
         [[routes]]\nhost = \"localhost\"\npath = \"/globex/fetch/{{*how}}\"\nfunction = \"fetch\"\n"
    )
}

/// What the quiet tenant's callers wait for.
async fn quiet(scene: &Scene) -> Times {
    let mut client = scene.alice().await.expect("a connection");
    let (mut times, mut tick) = (Times::default(), tokio::time::interval(EVERY));
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    for _ in 0..LENGTH.as_millis() / EVERY.as_millis() {
        tick.tick().await;
        times.push(timed(&mut client, "/acme/hello").await.expect("an answer"));
    }
    times
}

pub(crate) async fn run() {
    let outside = Outside::start().await.expect("a server outside");
    let limits = "[limits]\nper_source = { per_second = 1000000, burst = 1000000 }\n";
    let config = format!("{limits}[egress.hosts]\n\"{NAME}\" = [\"127.0.0.1\"]\n");
    let scene = Scene::with_config(&config).expect("a node");
    let ceiling =
        format!("[egress]\nnetworks = [\"127.0.0.0/8\"]\nrules = [{{ host = \"*\", ports = [{}] }}]\n", outside.port);
    let ceiling = scene.site.file("ceiling.toml", &ceiling).expect("a ceiling").display().to_string();
    scene.node.run(&scene.site, &["tenant", "set", "globex", "--file", &ceiling]).expect("a ceiling");
    let file = scene.site.file("noise.toml", &manifest(&outside)).expect("a manifest");
    scene.node.run(&scene.site, &["apply", &file.display().to_string()]).expect("functions");
    quiet(&scene).await;
    let mut alone = quiet(&scene).await;
    let (p50, p99) = (alone.percentile(50), alone.percentile(99));
    println!("| the neighbour saturates | its calls | p50 ms | p99 ms | p99 against quiet |\n|---|---|---|---|---|");
    println!("| nothing | 0 | {} | {} | 1.00 |", ms(p50), ms(p99));
    for (what, path) in noise(&outside) {
        let (stop, calls) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let token = scene.site.token("globex", "mallory", "invoker").expect("a token");
        let mut noisy = Vec::new();
        for _ in 0..CONNECTIONS {
            let mut client = scene.node.client().await.expect("a connection").with(&token);
            let (stop, calls, path) = (stop.clone(), calls.clone(), path.clone());
            noisy.push(tokio::spawn(async move {
                while !stop.load(Relaxed) {
                    let answer = client.get(&path).await.expect("some answer");
                    calls.fetch_add(1, Relaxed);
                    if answer.status == http::StatusCode::TOO_MANY_REQUESTS {
                        tokio::time::sleep(Duration::from_millis(10)).await;
                    }
                }
            }));
        }
        tokio::time::sleep(SETTLE).await;
        let mut times = quiet(&scene).await;
        stop.store(true, Relaxed);
        for caller in noisy {
            caller.await.expect("a noisy caller");
        }
        let (mid, worst) = (times.percentile(50), times.percentile(99));
        let ratio = worst.as_secs_f64() / p99.as_secs_f64();
        println!("| {what} | {} | {} | {} | {ratio:.2} |", calls.load(Relaxed), ms(mid), ms(worst));
    }
    println!("\nThe server outside was asked {} times.\n", outside.asked());
}
