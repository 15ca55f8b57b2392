//! The hostile-guest suite: a node on which one tenant attacks, in every way there is a guest for, while the function
//! of another keeps answering.
//!
//! Owns the running of the table and what holds for every attack: its specific ending, told and recorded; a neighbour
//! that is answered before, while and after; a node that is healthy. Must never accept an ending because it came.

mod table;

use std::collections::HashMap;
use std::fmt::Write as _;
use std::time::Duration;

use cofferdam_tests::{Answer, Client, Scene, guests};
use http::{Method, StatusCode};
use http_body_util::BodyExt;

use self::table::{Attack, End};

/// What an attacker may use: little, so that the attacks are over soon. One that computes must not be stopped by its
/// wall time, on a machine busy with much else; nor one that waits by its CPU time.
const COMPUTING: &str = r#"{ memory = "48MiB", cpu = "80ms", wall = "20s", response = "1MiB" }"#;
const WAITING: &str = r#"{ memory = "48MiB", cpu = "5s", wall = "300ms", response = "1MiB" }"#;
/// How long the neighbour may take for one answer, on a machine that is busy with much else.
const PATIENCE: Duration = Duration::from_secs(5);

/// How an attack went.
struct Went {
    status: StatusCode,
    /// The answer, where it came whole.
    answer: Option<Answer>,
    request: String,
}

/// A node with the attacker's functions and the neighbour's.
async fn rig() -> (Scene, Client) {
    let scene = Scene::bare().unwrap();
    for tenant in ["mallory", "globex"] {
        scene.node.run(&scene.site, &["tenant", "create", tenant]).unwrap();
    }
    let raw = scene.site.file("raw.wasm", "").unwrap();
    std::fs::write(&raw, wat::parse_file(guests::hostile("raw.wat")).unwrap()).unwrap();
    let mut manifest = "manifest = 1\n[app]\nname = \"attacks\"\ntenant = \"mallory\"\n".to_owned();
    for (name, path, limits) in [
        ("faults", guests::committed("faults/faults.wasm"), COMPUTING),
        ("hostile", guests::hostile("hostile.wasm"), COMPUTING),
        ("raw", raw, COMPUTING),
        ("start-spin", guests::hostile("start-spin.wasm"), COMPUTING),
        ("start-trap", guests::hostile("start-trap.wasm"), COMPUTING),
        ("patient", guests::hostile("hostile.wasm"), WAITING),
        ("sleepy", guests::committed("faults/faults.wasm"), WAITING),
    ] {
        let route = if name.starts_with("start") { name.to_owned() } else { format!("{name}/{{*what}}") };
        let _ = write!(
            manifest,
            "[functions.{name}]\nsource = {{ path = {:?} }}\nlimits = {limits}\nenv = {{ GREETING = \"own\" }}\n\
             [[routes]]\nhost = \"localhost\"\npath = \"/mallory/{route}\"\nfunction = \"{name}\"\n",
            path.display().to_string()
        );
    }
    let manifest = scene.site.file("mallory.toml", &manifest).unwrap();
    let globex = guests::root().join("tests/scene/globex.toml");
    for file in [manifest, globex] {
        scene.node.run(&scene.site, &["apply", &file.display().to_string()]).unwrap();
    }
    scene.set_secret("globex/whoami", "API_SECRET", "only-for-the-neighbour").unwrap();
    let neighbour = scene.caller("globex", "bob", "invoker").await.unwrap();
    (scene, neighbour)
}

/// Calls the neighbour's function once; says what was wrong with its answer.
async fn ask(neighbour: &mut Client) -> Result<(), String> {
    match tokio::time::timeout(PATIENCE, neighbour.get("/globex/hello")).await {
        Err(_) => Err("the neighbour was not answered".into()),
        Ok(Err(error)) => Err(format!("the neighbour's connection broke: {error}")),
        Ok(Ok(answer)) if answer.status == StatusCode::OK && answer.text() == "hello, world\n" => Ok(()),
        Ok(Ok(answer)) => Err(format!("the neighbour got {}: {}", answer.status, answer.text())),
    }
}

/// Carries out one attack on a connection of its own.
async fn carry_out(mut mallory: Client, path: &'static str, body: usize) -> Result<Went, String> {
    let method = if body == 0 { Method::GET } else { Method::POST };
    let response = mallory.open(method, path, vec![b'a'; body]).await.map_err(|error| format!("no head: {error}"))?;
    let (head, mut body) = response.into_parts();
    let request = head.headers.get("x-request-id").and_then(|id| id.to_str().ok()).unwrap_or_default().to_owned();
    let mut whole = Some(Vec::new());
    while let Some(frame) = body.frame().await {
        match (frame, &mut whole) {
            (Ok(frame), Some(bytes)) => match frame.into_data() {
                Ok(data) => bytes.extend_from_slice(&data),
                Err(_) => return Err("trailers of a guest came out".into()),
            },
            (_, whole) => *whole = None,
        }
        if whole.is_none() {
            break;
        }
    }
    let answer = whole.map(|bytes| Answer { status: head.status, headers: head.headers, body: bytes.into() });
    Ok(Went { status: head.status, answer, request })
}

/// Whether an attack went as it must.
fn judge(end: End, went: &Went) -> Result<(), String> {
    let shown =
        || went.answer.as_ref().map_or_else(|| "cut".into(), |a| a.text().chars().take(300).collect::<String>());
    let fits = match (end, &went.answer) {
        (End::Fails(code, _), Some(answer)) => answer.json()["code"] == code && answer.json()["source"] == "function",
        (End::Cut(_), answer) => answer.is_none() && went.status == StatusCode::OK,
        (End::Answers(is), Some(answer)) => answer.status == StatusCode::OK && is(answer),
        (_, None) => false,
    };
    if fits { Ok(()) } else { Err(format!("went otherwise: {} {}", went.status, shown())) }
}

fn ending(end: End) -> &'static str {
    match end {
        End::Fails(_, ending) | End::Cut(ending) => ending,
        End::Answers(_) => "answered",
    }
}

/// Carries out every attack of a table, one after the other, and says what did not go as it must.
async fn run(table: &'static [Attack]) -> Vec<String> {
    let (scene, mut neighbour) = rig().await;
    let token = scene.site.token("mallory", "mallory", "invoker").unwrap();
    let mut findings = Vec::new();
    let mut requests = HashMap::new();
    for attack in table {
        let mut find = |what: String| findings.push(format!("{}: {what}", attack.name));
        ask(&mut neighbour).await.map_err(&mut find).unwrap_or_default();
        let mallory = scene.node.client().await.unwrap().with(&token);
        let under_way = tokio::spawn(carry_out(mallory, attack.path, attack.body));
        loop {
            ask(&mut neighbour).await.map_err(&mut find).unwrap_or_default();
            if under_way.is_finished() {
                break;
            }
        }
        match under_way.await.unwrap() {
            Err(what) => find(what),
            Ok(went) => {
                judge(attack.end, &went).map_err(&mut find).unwrap_or_default();
                requests.insert(went.request, attack);
            }
        }
    }
    if let Err(what) = ask(&mut neighbour).await {
        findings.push(format!("after them all: {what}"));
    }
    let health = scene.node.client().await.unwrap().get("/-/health").await.unwrap();
    assert_eq!(health.status, StatusCode::OK);
    findings.extend(logs_that_bite(&scene));
    findings.extend(unrecorded(scene, requests));
    findings
}

/// What the attackers' logs hold that a terminal would obey, and whether they are larger than they may be.
fn logs_that_bite(scene: &Scene) -> Vec<String> {
    let (mut bytes, mut findings, mut folders) = (0, Vec::new(), vec![scene.site.data().join("logs")]);
    while let Some(folder) = folders.pop() {
        for path in std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()) {
            let Ok(text) = std::fs::read(&path) else {
                folders.push(path);
                continue;
            };
            bytes += text.len();
            if text.iter().any(|byte| (*byte < b' ' && *byte != b'\n') || *byte == 0x7f) {
                findings.push(format!("a control character in {}", path.display()));
            }
        }
    }
    if bytes > 32 * 1024 * 1024 {
        findings.push(format!("{bytes} bytes of logs"));
    }
    findings
}

/// Which attacks are not in the log with the ending they had. An answer that streams has an outcome when its head goes
/// out and another when it is over: the last one counts.
fn unrecorded(scene: Scene, requests: HashMap<String, &'static Attack>) -> Vec<String> {
    let Scene { site, node } = scene;
    let mut findings = Vec::new();
    if !node.stop().unwrap() {
        findings.push("the node did not stop well".into());
    }
    let mut endings = HashMap::new();
    for record in site.records().unwrap() {
        if let (Some(id), Some(said), Some(_)) =
            (record["request"].as_str(), record["ending"].as_str(), record["tenant"].as_str())
        {
            endings.insert(id.to_owned(), said.to_owned());
        }
    }
    for (id, attack) in requests {
        let said = endings.get(&id).map_or("nothing", String::as_str);
        if said != ending(attack.end) {
            findings.push(format!("{}: recorded as {said}", attack.name));
        }
    }
    findings
}

fn report(findings: &[String]) {
    assert!(findings.is_empty(), "{} findings:\n  {}", findings.len(), findings.join("\n  "));
}

#[tokio::test(flavor = "multi_thread")]
async fn attacks_on_the_machine_end_as_they_must_and_neighbours_are_answered() {
    report(&run(table::MACHINE).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn attacks_on_the_boundary_end_as_they_must_and_neighbours_are_answered() {
    report(&run(table::BOUNDARY).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn attacks_through_http_end_as_they_must_and_neighbours_are_answered() {
    report(&run(table::HTTP).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_log_is_cut_at_the_calls_limit_and_says_how_much_was_dropped() {
    const WRITTEN: usize = 64 << 20;
    const LIMIT: usize = 64 << 10;
    let (scene, _neighbour) = rig().await;
    let mut mallory = scene.caller("mallory", "mallory", "invoker").await.unwrap();
    let answer = mallory.get("/mallory/faults/log").await.unwrap();
    assert_eq!(answer.text(), "65536\n", "the guest is not told");
    let request = answer.header("x-request-id").to_owned();
    let token = scene.site.token("mallory", "vera", "viewer").unwrap();
    let token = scene.site.file("vera.token", token.trim_start_matches("Bearer ")).unwrap().display().to_string();
    let asked = ["logs", "mallory/faults", "--lines", "1000", "--token-file", &token];
    let read = || scene.node.run(&scene.site, &asked).unwrap();
    let notice = format!("cofferdam: {} bytes of log over the call's limit were dropped", WRITTEN - LIMIT);
    // Lines are written beside the call, not before its answer.
    let log = (0..50).map(|_| read()).find(|log| log.contains(&notice)).unwrap_or_else(|| panic!("{}", read()));
    let kept = log.lines().filter(|line| line.contains(&request) && line.ends_with('l'));
    let bytes: usize = kept.map(|line| line.rsplit(' ').next().unwrap_or_default().len() + 1).sum();
    assert!((LIMIT - 1024..=LIMIT + 1).contains(&bytes), "{bytes} bytes of the flood were kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn attacks_on_the_surroundings_end_as_they_must_and_neighbours_are_answered() {
    report(&run(table::SURROUNDINGS).await);
}
