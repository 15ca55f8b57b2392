//! A noisy neighbour: what one tenant's callers wait for while another tenant uses all it may.

use std::time::Duration;

use cofferdam_tests::outside::NAME;
use cofferdam_tests::{Scene, guests};

use crate::noise::Noise;
use crate::times::{Times, ms, timed};

/// How often everything is measured.
const ROUNDS: usize = 3;
/// Each measurement, and the time before it in which the noise sets in.
const LENGTH: Duration = Duration::from_secs(6);
const SETTLE: Duration = Duration::from_secs(1);
/// The quiet tenant's calls come at this distance.
const EVERY: Duration = Duration::from_millis(4);

/// What was seen with one noise.
#[derive(Clone, Copy)]
struct Row {
    ratio: f64,
    p50: Duration,
    p99: Duration,
    calls: usize,
    asked: usize,
}

fn noises(port: u16) -> [(&'static str, String); 4] {
    [
        ("CPU", "/globex/faults/spin".to_owned()),
        ("memory", "/globex/faults/eat".to_owned()),
        ("logs", "/globex/faults/log".to_owned()),
        ("egress", format!("/globex/fetch/16?url=https://{NAME}:{port}/")),
    ]
}

fn manifest(noise: &Noise) -> String {
    let (faults, fetch) = (guests::committed("faults/faults.wasm"), guests::committed("fetch/fetch.wasm"));
    let (port, ca) = (noise.port, &noise.certificate);
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
    let mut noise = Noise::start().expect("a noisy neighbour");
    let limits = "[limits]\nper_source = { per_second = 1000000, burst = 1000000 }\n";
    let config = format!("{limits}[egress.hosts]\n\"{NAME}\" = [\"127.0.0.1\"]\n");
    let scene = Scene::with_config(&config).expect("a node");
    let rules = format!("rules = [{{ host = \"*\", ports = [{}] }}]\n", noise.port);
    let ceiling = format!("[egress]\nnetworks = [\"127.0.0.0/8\"]\n{rules}");
    let ceiling = scene.site.file("ceiling.toml", &ceiling).expect("a ceiling").display().to_string();
    scene.node.run(&scene.site, &["tenant", "set", "globex", "--file", &ceiling]).expect("a ceiling");
    let file = scene.site.file("noise.toml", &manifest(&noise)).expect("a manifest");
    scene.node.run(&scene.site, &["apply", &file.display().to_string()]).expect("functions");
    let token = scene.site.token("globex", "mallory", "invoker").expect("a token");
    quiet(&scene).await;
    let mut rows: Vec<Vec<Row>> = noises(noise.port).iter().map(|_| Vec::new()).collect();
    let (mut alone, mut before) = (Vec::new(), 0);
    // In rounds, each against its own quiet: what else the machine does changes within minutes.
    for _ in 0..ROUNDS {
        let mut times = quiet(&scene).await;
        let p99 = times.percentile(99);
        alone.push((times.percentile(50), p99));
        for ((_, path), rows) in noises(noise.port).iter().zip(&mut rows) {
            noise.begin(&scene.node, &token, path).expect("a noise");
            tokio::time::sleep(SETTLE).await;
            let mut times = quiet(&scene).await;
            let (calls, all) = noise.end().expect("a count");
            let (p50, worst) = (times.percentile(50), times.percentile(99));
            let ratio = worst.as_secs_f64() / p99.as_secs_f64();
            rows.push(Row { ratio, p50, p99: worst, calls, asked: all - before });
            before = all;
        }
    }
    alone.sort_unstable_by_key(|(_, p99)| *p99);
    let (p50, p99) = alone[ROUNDS / 2];
    println!("The middle one of {ROUNDS} rounds.\n");
    println!("| the neighbour saturates | its calls | asked outside | p50 ms | p99 ms | p99 against quiet |");
    println!("|---|---|---|---|---|---|\n| nothing | 0 | 0 | {} | {} | 1.00 |", ms(p50), ms(p99));
    for ((what, _), mut rows) in noises(noise.port).into_iter().zip(rows) {
        rows.sort_unstable_by(|a, b| a.ratio.total_cmp(&b.ratio));
        let Row { ratio, p50, p99, calls, asked } = rows[ROUNDS / 2];
        println!("| {what} | {calls} | {asked} | {} | {} | {ratio:.2} |", ms(p50), ms(p99));
    }
    println!();
}
