//! What the tools of policies tell, option by option; what a call's way was; and how much they take at once.

use std::process::Command;
use std::sync::Arc;

use cofferdam_audit::{Log, LogConfig, Signer};
use cofferdam_model::{
    CallFacts, Circumstances, Clock, CredentialKind, DecisionFacts, Digest, Ending, GivenFacts, Level, Origin,
    OsRandom, OutcomeFacts, PrincipalFacts, PrincipalKind, Reply, RequestId, Subject, SystemClock, TlsVersion, Usage,
    Way,
};
use cofferdam_tests::guests::binary;
use cofferdam_tests::{Answer, Scene, Site};
use http::StatusCode;
use serde_json::{Value, json};

fn token(scene: &Scene) -> String {
    let token = scene.site.token("acme", "ada", "admin").unwrap();
    scene.site.file("ada.token", token.trim_start_matches("Bearer ")).unwrap().display().to_string()
}

/// Runs a command as an admin of acme, and gives its JSON.
fn told(scene: &Scene, arguments: &[&str]) -> Value {
    let said = scene.node.run(&scene.site, &[arguments, &["--json", "--token-file", &token(scene)]].concat()).unwrap();
    serde_json::from_str(&said).unwrap()
}

fn id(answer: &Answer) -> String {
    answer.header("x-request-id").to_owned()
}

fn put(scene: &Scene, owner: &str, name: &str, tier: &str, text: &str) {
    let file = scene.site.file(&format!("{name}.cedar"), text).unwrap().display().to_string();
    scene.node.run(&scene.site, &["policy", "put", owner, name, &file, "--tier", tier]).unwrap();
}

/// Outcome of a simulation by files alone.
fn simulated(site: &Site, policy: &str, arguments: &[&str]) -> Value {
    let file = site.file("asked.cedar", policy).unwrap().display().to_string();
    let said = site.run(&[&["authz", "simulate", "--json", "--policy", &file], arguments].concat()).unwrap();
    serde_json::from_str::<Value>(&said).unwrap()["outcome"].clone()
}

#[test]
fn every_option_of_a_simulation_changes_an_answer() {
    let site = Site::init().unwrap();
    let invoke = "--principal user:alice --action Invoke --function orders";
    let secret = "--principal user:alice --action PutSecret --function orders";
    let when = |condition: &str| format!("permit (principal, action, resource) when {{ {condition} }};");
    let of = |action: &str, condition: &str| {
        format!("permit (principal, action == Action::\"{action}\", resource) when {{ {condition} }};")
    };
    for (policy, without, with) in [
        (when("principal in Role::\"ops\""), invoke, "--role ops"),
        (when("principal has issuer && principal.issuer == \"https://a\""), invoke, "--issuer https://a"),
        (when("context.mfa"), invoke, "--mfa"),
        (when("context.bound == \"sigv4\""), invoke, "--bound sigv4"),
        (when("context.bound == \"mtls\" && context.credential == \"certificate\""), invoke, "--bound mtls"),
        (when("context.source.isInRange(ip(\"198.51.100.0/24\"))"), invoke, "--source 198.51.100.7"),
        (when("context.tls == \"1.2\""), invoke, "--tls 1.2"),
        (when("context.method == \"PUT\""), invoke, "--method PUT"),
        (when("context.host == \"api.example\""), invoke, "--host api.example"),
        (when("context.path like \"/v1/*\""), invoke, "--path /v1/x"),
        (when("context.public"), invoke, "--public"),
        (when("context.now < datetime(\"2026-01-01T00:00:00Z\")"), invoke, "--now 2025-06-01T00:00:00Z"),
        (of("PutSecret", "resource.secret == \"KEY\""), secret, "--named KEY"),
        (of("PutRoutes", "resource.app == \"shop\""), "--principal user:alice --action PutRoutes", "--named shop"),
        (of("CreateKey", "resource.id == \"ci\""), "--principal user:alice --action CreateKey", "--named ci"),
        (of("PutPolicy", "resource.policy == \"p\""), "--principal user:alice --action PutPolicy", "--named p"),
        (of("Invoke", "resource.name == \"orders\""), "--principal user:alice --action Invoke --function pay", invoke),
        (of("ReadLogs", "true"), invoke, "--principal user:alice --action ReadLogs --function orders"),
        (when("principal.id == \"bob\""), invoke, "--principal user:bob --action Invoke --function orders"),
        (when("principal is ServiceAccount"), invoke, "--principal account:bob --action Invoke --function orders"),
    ] {
        let words = |text: &'static str| text.split(' ').collect::<Vec<_>>();
        assert_eq!(simulated(&site, &policy, &words(without)), "implicit_deny", "{policy} without {with}");
        // An option that is there already is said anew.
        let whole = if with.starts_with("--principal") { words(with) } else { [words(without), words(with)].concat() };
        assert_eq!(simulated(&site, &policy, &whole), "allow", "{policy} with {with}");
    }
    let words: Vec<_> = invoke.split(' ').collect();
    let open = "permit (principal, action, resource);";
    assert_eq!(simulated(&site, open, &words), "allow");
    for (option, value, outcome) in [
        ("--scope", "ReadLogs", "ceiling_deny"),
        ("--scope", "fn:pay", "ceiling_deny"),
        ("--scope", "Invoke", "allow"),
        ("--of", "another", "explicit_deny"),
    ] {
        assert_eq!(simulated(&site, open, &[&words[..], &[option, value]].concat()), outcome, "{option} {value}");
    }
    let anonymous = ["--principal", "anonymous", "--action", "Invoke", "--function", "orders"];
    assert_eq!(simulated(&site, open, &anonymous), "explicit_deny");
    assert_eq!(simulated(&site, open, &[&anonymous[..], &["--public"]].concat()), "allow");
    for wrong in [["--tls", "1.1"], ["--bound", "hand"], ["--now", "noon"], ["--source", "here"]] {
        let refused = site.try_run(&[&["authz", "simulate"], &words[..], &wrong].concat()).unwrap();
        assert!(!refused.status.success(), "{wrong:?}");
    }
}

fn steps(why: &Value) -> Vec<String> {
    why["steps"].as_array().unwrap().iter().map(|step| step["step"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn why_tells_how_long_each_step_took_what_each_rate_said_and_which_checks_were_made() {
    let scene = Scene::new().unwrap();
    let mut alice = scene.alice().await.unwrap();
    let call = id(&alice.get("/acme/limited").await.unwrap());
    let why = told(&scene, &["why", &call, "--tenant", "acme"]);
    let all = ["limits", "route", "authenticate", "authorize", "open", "cell", "guest"];
    assert_eq!(steps(&why), all, "{why:#}");
    let record = &why["records"][0];
    let sum: u64 = record["steps"].as_object().unwrap().values().map(|step| step.as_u64().unwrap()).sum();
    let whole = (record["at"].as_u64().unwrap() - record["received"].as_u64().unwrap()) / 1000;
    let guest = record["usage"]["wall_us"].as_u64().unwrap();
    assert!(sum >= guest.saturating_sub(1_000) && sum <= whole + 10_000, "{sum} of {whole}, {guest} in the cell");
    assert!(record["steps"]["cell"].as_u64().unwrap() > 0, "a cell was started for it");
    let rates = &why["rates"];
    assert_eq!(rates["route"], json!({ "burst": 3, "left": 2, "per_second": 1 }));
    assert!(rates["principal"]["left"].is_u64() && rates["tenant"]["left"].is_u64());
    assert!(rates["source"]["left"].is_null(), "what a source has left is also others' doing: {rates}");
    let checks = why["checks"]["made"].as_array().unwrap();
    assert!(checks.contains(&json!("signature")) && checks.contains(&json!("audience")));
    assert_eq!(why["checks"]["failed"], Value::Null);
    let said = scene.site.run(&["why", &call]).unwrap();
    for wanted in ["STEP", "authenticate", "route 2 left of 3 at 1/s", "revoked: all passed", "cannot be in it"] {
        assert!(said.contains(wanted), "{wanted} in\n{said}");
    }

    // A rate that is used up, and who used it.
    let mut refused = None;
    for _ in 0..5 {
        let answer = alice.get("/acme/limited").await.unwrap();
        refused = refused.or_else(|| (answer.status == StatusCode::TOO_MANY_REQUESTS).then(|| id(&answer)));
    }
    let why = told(&scene, &["why", &refused.unwrap(), "--tenant", "acme"]);
    assert!(why["rates"]["route"]["retry_ms"].as_u64().unwrap() > 0, "{}", why["rates"]);
    assert_eq!(steps(&why).last().map(String::as_str), Some("authorize"), "{why:#}");

    // A change waits for its intent, and for its body; a strict route for its intent.
    let strict = told(&scene, &["why", &id(&alice.get("/acme/strict").await.unwrap()), "--tenant", "acme"]);
    assert!(steps(&strict).contains(&"record".to_owned()), "{strict:#}");
    let records = scene.site.records().unwrap();
    let change = records.iter().find(|record| record["action"] == "PutRoutes").unwrap()["request"].clone();
    let ended = records.iter().find(|record| record["kind"] == "outcome" && record["request"] == change).unwrap();
    let names: Vec<_> = ended["steps"].as_object().unwrap().keys().collect();
    assert_eq!(names, ["authenticate", "authorize", "body", "change", "limits", "open", "record", "route"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_check_a_credential_failed_is_told_and_strangers_are_counted_by_it() {
    let scene = Scene::new().unwrap();
    let key = scene.node.run(&scene.site, &["key", "create", "acme", "robot", "--role", "invoker", "--json"]).unwrap();
    let key: Value = serde_json::from_str(&key).unwrap();
    let shown = format!("ApiKey {}", key["key"].as_str().unwrap());
    scene.node.run(&scene.site, &["key", "revoke", key["id"].as_str().unwrap()]).unwrap();
    let refused = scene.node.client().await.unwrap().with(&shown).get("/acme/hello").await.unwrap();
    assert_eq!(refused.status, StatusCode::UNAUTHORIZED);
    let why = told(&scene, &["why", &id(&refused), "--tenant", "acme"]);
    assert_eq!(why["checks"]["failed"], "revoked", "{why:#}");
    assert_eq!(why["checks"]["made"].as_array().unwrap().last(), Some(&json!("revoked")));

    let good = scene.site.token("acme", "alice", "invoker").unwrap();
    let mut forged = good.clone();
    forged.truncate(good.len() - 8);
    for wrong in [forged.as_str(), "Bearer x", "Bearer y"] {
        let mut stranger = scene.node.client().await.unwrap().with(wrong);
        assert_eq!(stranger.get("/acme/hello").await.unwrap().status, StatusCode::UNAUTHORIZED);
    }
    let streamed = id(&scene.alice().await.unwrap().get("/acme/faults/slow").await.unwrap());
    let Scene { site, node } = scene;
    assert!(node.stop().unwrap());
    let records = site.records().unwrap();
    let counted = |check: &str| -> u64 {
        let of = |record: &&Value| record["kind"] == "refusals" && record["check"] == check;
        records.iter().filter(of).map(|record| record["count"].as_u64().unwrap()).sum()
    };
    assert_eq!((counted("signature"), counted("malformed")), (1, 2), "{records:#?}");
    // What was waited for until a streamed answer's head was durable is in the record of its end.
    let of =
        |kind: &str| records.iter().find(|one| one["request"] == streamed.as_str() && one["kind"] == kind).unwrap();
    assert!(of("outcome")["steps"]["record"].is_null() && of("end")["steps"]["record"].is_u64());
    assert!(of("end")["steps"]["guest"].as_u64() > of("outcome")["steps"]["guest"].as_u64());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_binds_a_tenant_is_told_to_it_without_its_text_and_the_tools_still_know_what_it_does() {
    let scene = Scene::new().unwrap();
    scene.node.run(&scene.site, &["org", "create", "group"]).unwrap();
    put(
        &scene,
        "group",
        "cap",
        "ceiling",
        r#"permit (principal, action, resource) unless { context.path like "/very-secret-reason/*" };
           forbid (principal, action == Action::"Invoke", resource) when { resource.name == "whoami" };"#,
    );
    put(&scene, "acme", "edge", "boundary", r#"permit (principal, action, resource) when { context.tls == "1.3" };"#);
    scene.node.run(&scene.site, &["org", "assign", "group", "acme"]).unwrap();
    let shown = told(&scene, &["tenant", "show", "acme"]);
    assert_eq!((&shown["ceiling"], &shown["boundary"]), (&json!([{ "name": "cap" }]), &json!([{ "name": "edge" }])));
    assert_eq!(shown["ceiling_set"]["sha256"].as_str().map(str::len), Some(64), "{shown:#}");
    assert!(shown["boundary_set"]["version"].is_u64());
    let operators: Value =
        serde_json::from_str(&scene.node.run(&scene.site, &["tenant", "show", "acme", "--json"]).unwrap()).unwrap();
    assert!(operators["ceiling"][0]["text"].as_str().unwrap().contains("very-secret-reason"));
    assert_eq!(operators["ceiling_set"], shown["ceiling_set"]);

    let mut alice = scene.alice().await.unwrap();
    let allowed = id(&alice.get("/acme/hello").await.unwrap());
    let refused = alice.get("/acme/whoami").await.unwrap();
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    let why = told(&scene, &["why", &id(&refused), "--tenant", "acme"]);
    let decided = &why["records"][0]["decision"];
    assert_eq!((&decided["outcome"], &decided["tier"]), (&json!("explicit_deny"), &json!("organisation")));
    assert_eq!(why["deciding"], json!([{ "id": decided["policies"][0] }]), "{why:#}");
    assert_eq!((&why["same_policies"], &why["by_policies_now"]["outcome"]), (&json!(true), &json!("explicit_deny")));
    assert!(why["by_policies_now"]["deciding"][0]["text"].is_null(), "{why:#}");
    let hidden = ["authz", "simulate", "--tenant", "acme", "--principal", "user:alice", "--role", "invoker"];
    let hidden =
        [&hidden[..], &["--action", "Invoke", "--function", "hello", "--path", "/very-secret-reason/x"]].concat();
    let answer = told(&scene, &hidden);
    assert_eq!(answer["outcome"], "ceiling_deny");
    assert!(!answer.to_string().contains("unless") && !answer["nearest"].is_null(), "{answer:#}");
    assert!(answer["nearest"]["policy"]["text"].is_null() && answer["nearest"]["lacks"] == json!([]), "{answer:#}");

    let candidate = r#"forbid (principal, action == Action::"Invoke", resource);"#;
    let file = scene.site.file("candidate.cedar", candidate).unwrap().display().to_string();
    let replayed = told(&scene, &["policy", "replay", "acme", &file]);
    assert_eq!((&replayed["decided_by"], &replayed["differ_from_record"]), (&json!("node"), &json!([])));
    let flips = replayed["flips"].as_array().unwrap();
    let flipped: Vec<_> = flips.iter().map(|flip| flip["request"]["context"]["request"].clone()).collect();
    assert_eq!(flipped, [json!(allowed)], "{replayed:#}");
    assert!(replayed["compared_with_current"].as_u64().unwrap() >= 2, "{replayed:#}");
    for report in [&["authz", "unused", "acme"][..], &["policy", "diff", "--tenant", "acme", "--after", &file]] {
        assert!(told(&scene, report)["unseen"].as_str().unwrap().contains("operators alone"));
    }
}

struct Call(CallFacts);

impl Subject for Call {
    fn facts(&self) -> CallFacts {
        self.0.clone()
    }

    fn level(&self) -> Level {
        Level::Standard
    }
}

struct Done;

impl Reply for Done {
    fn outcome(&self) -> OutcomeFacts {
        OutcomeFacts {
            status: 200,
            origin: Origin::Function,
            ending: Ending::Answered,
            code: None,
            usage: Usage::default(),
            body: None,
            streamed: false,
            cell: None,
            isolation: None,
            way: Way::default(),
        }
    }
}

/// A recorded call of one of many callers; every tenth is of a release that did not write roles down.
fn recorded(tenant: &str, number: usize, clock: &SystemClock) -> CallFacts {
    let at = Circumstances {
        request: RequestId::mint(&OsRandom),
        at: clock.now(),
        source: "192.0.2.7".parse().unwrap(),
        tls: TlsVersion::Tls13,
        method: "GET".into(),
        host: "localhost".into(),
        path: if number.is_multiple_of(1_000) { "/rare".into() } else { "/acme/hello".into() },
        connection: None,
        headers: None,
    };
    let roles = vec!["invoker".to_owned()];
    let given = GivenFacts { name: Some("hello".into()), roles, ..GivenFacts::default() };
    let decision = DecisionFacts {
        outcome: "allow".into(),
        tier: "tenant".into(),
        policies: vec!["10-defaults/invoker".into()],
        policy_set: Digest([7; 32]),
        sets: Vec::new(),
        given: (number % 10 != 9).then(|| Box::new(given)),
    };
    let principal = PrincipalFacts {
        kind: PrincipalKind::User,
        id: format!("caller-{}", number % 50),
        issuer: None,
        tenant: Some(tenant.to_owned()),
        credential: CredentialKind::Jwt,
        credential_id: None,
        bound: cofferdam_model::Bound::None,
        session: None,
    };
    CallFacts {
        tenant: Some(tenant.to_owned()),
        action: Some("Invoke".into()),
        resource: Some(format!("{tenant}.f_0000000000000000")),
        principal: Some(principal),
        decision: Some(decision),
        ..CallFacts::of(&at)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_thousand_recorded_calls_are_decided_again_in_little_memory_and_none_is_left_out_silently() {
    const CALLS: usize = 100_000;
    let scene = Scene::bare().unwrap();
    let made = scene.node.run(&scene.site, &["tenant", "create", "acme", "--json"]).unwrap();
    let tenant = serde_json::from_str::<Value>(&made).unwrap()["id"].as_str().unwrap().to_owned();
    let (dir, clock) = (scene.site.data().with_file_name("many"), Arc::new(SystemClock::default()));
    let origin = "cofferdam.test/many";
    let signer = Signer::create(&scene.site.data().with_file_name("many.key"), origin, &OsRandom).unwrap();
    let (log, _) = Log::open(LogConfig::new(&dir, origin), signer, clock.clone(), Arc::new(OsRandom)).unwrap();
    let tasks: Vec<_> = (0..500)
        .map(|task| {
            let (log, clock, tenant) = (log.clone(), clock.clone(), tenant.clone());
            tokio::spawn(async move {
                for number in 0..CALLS / 500 {
                    let facts = recorded(&tenant, task * (CALLS / 500) + number, &clock);
                    drop(log.enter(Call(facts)).unwrap().close(Done).await.unwrap());
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    log.shutdown().await.unwrap();
    drop(log);
    let candidate = r#"forbid (principal, action, resource) when { context.path == "/rare" };"#;
    let file = scene.site.file("candidate.cedar", candidate).unwrap().display().to_string();
    let (dir, url, data) = (dir.display().to_string(), scene.node.url(), scene.site.data().display().to_string());
    let limited = |arguments: &[&str]| -> Value {
        // All of the records as values would take several times of this.
        let mut command = Command::new("sh");
        command.args(["-c", "ulimit -d 262144; exec \"$@\"", "sh", &binary("cofferdam").display().to_string()]);
        command.args(arguments).args(["--json", "--log", &dir, "--most", "1000000", "--url", &url, "--data", &data]);
        let output = command.env_remove("COFFERDAM_URL").output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let begun = clock.monotonic();
    let replayed = limited(&["policy", "replay", "acme", &file]);
    let took = clock.monotonic().saturating_sub(begun);
    assert_eq!(replayed["looked_at"]["records"], CALLS as u64);
    assert_eq!((&replayed["calls"], &replayed["looked_at"]["more"]), (&json!(CALLS * 9 / 10), &json!(false)));
    assert_eq!(replayed["flips"].as_array().map(Vec::len), Some(CALLS / 1_000));
    assert_eq!(replayed["not_replayed"][0]["calls"], json!(CALLS / 10), "{}", replayed["not_replayed"]);
    assert!(took.as_secs() < 120, "{took:?}");
    println!("{CALLS} calls were decided again in {took:?}");
    for report in ["unused", "least-privilege"] {
        let found = limited(&["authz", report, "acme"]);
        assert_eq!((&found["calls"], &found["looked_at"]["records"]), (&json!(CALLS * 9 / 10), &json!(CALLS)));
        assert_eq!(found["not_judged"][0]["calls"], json!(CALLS / 10), "{report}");
    }
    let some = limited(&["policy", "replay", "acme", &file, "--until", "2020-01-01"]);
    assert_eq!((&some["calls"], &some["looked_at"]["first"]), (&json!(0), &Value::Null));
}
