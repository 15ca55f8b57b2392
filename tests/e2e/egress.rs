//! Functions that ask the outside, the whole way: guest, cell, channel, gateway, TLS to a server of somebody else's,
//! and what of it is in the log.

use cofferdam_tests::guests::committed;
use cofferdam_tests::outside::{NAME, Outside};
use cofferdam_tests::{Client, Scene};
use http::Method;
use serde_json::Value;

const KEY: &str = "outside-key-7f21c9aa04";

struct World {
    scene: Scene,
    outside: Outside,
}

impl World {
    /// A function that may ask the server, in a tenant whose ceiling allows it, on a node that finds it by its name.
    async fn new() -> Self {
        let outside = Outside::start().await.unwrap();
        let hosts =
            format!("[egress.hosts]\n\"{NAME}\" = [\"127.0.0.1\"]\n\"inside.example\" = [\"169.254.169.254\"]\n");
        let scene = Scene::with_config(&hosts).unwrap();
        let world = Self { scene, outside };
        world.ceiling(&format!(
            "[egress]\nnetworks = [\"127.0.0.0/8\"]\nrules = [{{ host = \"*\", ports = [443, {}], plain = true }}]\n",
            world.outside.port
        ));
        world.deploy();
        world
    }

    fn ceiling(&self, text: &str) {
        let file = self.scene.site.file("ceiling.toml", text).unwrap();
        let file = file.display().to_string();
        self.scene.node.run(&self.scene.site, &["tenant", "set", "acme", "--file", &file]).unwrap();
    }

    fn deploy(&self) {
        let (port, ca) = (self.outside.port, self.outside.certificate().display().to_string());
        let text = format!(
            r#"
manifest = 1
[app]
name = "egress"
tenant = "acme"
[functions.fetch]
source = {{ path = {component:?} }}
limits = {{ egress_calls = 6, egress = "1MiB", wall = "5s" }}
[[functions.fetch.egress]]
host = "{NAME}"
port = {port}
methods = ["GET", "POST"]
ca = {ca:?}
[[functions.fetch.egress]]
host = "inside.example"
tls = false
port = 443
[functions.keyed]
source = {{ path = {component:?} }}
[[functions.keyed.egress]]
host = "{NAME}"
port = {port}
ca = {ca:?}
credential = {{ header = "authorization", prefix = "Bearer ", secret = "OUTSIDE_KEY" }}
[functions.closed]
source = {{ path = {component:?} }}
"#,
            component = committed("fetch/fetch.wasm").display().to_string(),
        );
        let file = self.scene.site.file("egress.toml", &text).unwrap();
        self.scene.node.run(&self.scene.site, &["apply", &file.display().to_string()]).unwrap();
    }

    async fn alice(&self) -> Client {
        self.scene.alice().await.unwrap()
    }

    /// What the function says came of asking for `path`, and the records of that call.
    async fn asks(&self, function: &str, how: &str, path: &str) -> (String, Vec<Value>) {
        let target = format!("/-/invoke/acme/{function}/{how}?{}", self.outside.url(path));
        self.gets(&target).await
    }

    async fn gets(&self, target: &str) -> (String, Vec<Value>) {
        let answer = self.alice().await.get(target).await.unwrap();
        let request = answer.header("x-request-id").to_owned();
        let mut records = self.scene.site.records().unwrap();
        records.retain(|record| record["request"] == request.as_str());
        (answer.text(), records)
    }
}

fn egress(records: &[Value]) -> Vec<&Value> {
    records.iter().filter(|record| record["kind"] == "egress").collect()
}

fn kinds(records: &[Value]) -> Vec<&str> {
    records.iter().filter_map(|record| record["kind"].as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_reaches_what_its_rules_allow_and_the_log_tells_of_it() {
    let world = World::new().await;
    let (text, records) = world.asks("fetch", "get", "/hello").await;
    assert_eq!(text, "status: 200\n\ngreetings from outside\n\n");
    assert_eq!(kinds(&records), ["intent", "egress", "outcome"], "the intent is there before the effect");
    let record = egress(&records)[0];
    assert_eq!(record["ending"], "answered");
    assert_eq!((&record["host"], &record["port"]), (&NAME.into(), &world.outside.port.into()));
    assert_eq!((&record["address"], &record["tls"]), (&"127.0.0.1".into(), &"1.3".into()));
    assert_eq!((&record["status"], &record["bytes_in"]), (&200.into(), &23.into()));
    assert_eq!(record["rule"], format!("https://{NAME}:{}", world.outside.port));
    let usage = &records[2]["usage"];
    assert_eq!((&usage["egress_calls"], &usage["egress_bytes_in"]), (&1.into(), &23.into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_policies_keep_a_function_from_is_refused_and_its_record_names_them() {
    let world = World::new().await;
    world.scene.set_secret("acme/keyed", "OUTSIDE_KEY", KEY).unwrap();
    let (_, records) = world.asks("keyed", "get", "/hello").await;
    let decision = &egress(&records)[0]["decision"];
    assert_eq!((&decision["outcome"], &decision["policies"][0]), (&"allow".into(), &"10-defaults/workload".into()));
    let forbid = |action: &str, when: &str| {
        format!("forbid (principal, action == Action::\"{action}\", resource) when {{ {when} }};")
    };
    for (name, text, function) in [
        ("host", forbid("Connect", &format!("resource.host == \"{NAME}\"")), "fetch"),
        ("key", forbid("UseSecret", "resource.secret == \"OUTSIDE_KEY\""), "keyed"),
    ] {
        let file = world.scene.site.file("narrow.cedar", &text).unwrap().display().to_string();
        world.scene.node.run(&world.scene.site, &["policy", "put", "acme", name, &file]).unwrap();
        let (told, records) = world.asks(function, "get", "/hello").await;
        assert!(told.starts_with("error: "), "{told}");
        let record = egress(&records)[0];
        assert_eq!(record["ending"], "denied_by_policy");
        assert_eq!(record["decision"]["policies"][0], format!("{name}/1"));
        world.scene.node.run(&world.scene.site, &["policy", "rm", "acme", name]).unwrap();
    }
    let (told, _) = world.asks("fetch", "get", "/hello").await;
    assert!(told.starts_with("status: 200"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_functions_body_goes_out_and_the_callers_identity_does_not() {
    let world = World::new().await;
    let target = format!("/-/invoke/acme/fetch/get?{}", world.outside.url("/echo"));
    let answer = world.alice().await.call(Method::POST, &target, "the body").await.unwrap();
    let text = answer.text();
    assert!(text.contains(&format!("POST /echo host={NAME}:{}", world.outside.port)), "{text}");
    assert!(text.contains("the body"), "{text}");
    assert!(text.contains("authorization=- principal=-"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_rule_allows_is_refused_and_recorded_and_never_sent() {
    let world = World::new().await;
    for (function, url, ending) in [
        ("closed", world.outside.url("/"), "denied_by_rule"),
        ("fetch", "url=https://other.example/".to_owned(), "denied_by_rule"),
        ("fetch", format!("url=http://{NAME}:{}/", world.outside.port), "denied_by_rule"),
        ("fetch", "url=http://inside.example:443/latest/meta-data/".to_owned(), "denied_address"),
        ("fetch", "url=https://127.0.0.1:22/".to_owned(), "denied_by_rule"),
    ] {
        let (text, records) = world.gets(&format!("/-/invoke/acme/{function}/get?{url}")).await;
        assert!(text.starts_with("error: "), "{url}: {text}");
        let endings: Vec<_> = egress(&records).into_iter().map(|record| record["ending"].clone()).collect();
        assert_eq!(endings, [ending], "{url}: {records:?}");
    }
    assert_eq!(world.outside.asked(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ceiling_lowered_by_the_operator_holds_for_the_next_call() {
    let world = World::new().await;
    assert!(world.asks("fetch", "get", "/hello").await.0.starts_with("status: 200"));
    world.ceiling("[egress]\nnetworks = [\"127.0.0.0/8\"]\n");
    let (text, records) = world.asks("fetch", "get", "/hello").await;
    assert!(text.contains("HttpRequestDenied"), "{text}");
    assert_eq!(egress(&records)[0]["ending"], "denied_by_rule");
    assert_eq!(world.outside.asked(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_is_the_functions_to_follow_and_checked_again() {
    let world = World::new().await;
    let (text, _) = world.asks("fetch", "get", "/away").await;
    assert_eq!(text, "status: 302\nlocation: http://169.254.169.254/\n\n\n");
    let (text, _) = world.gets("/-/invoke/acme/fetch/get?url=http://169.254.169.254/").await;
    assert!(text.starts_with("error: "), "{text}");
    assert_eq!(world.outside.asked(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_credential_is_put_in_by_the_gateway_and_its_echo_blotted_out() {
    let world = World::new().await;
    // Until somebody has set it, the rule that needs it allows nothing.
    assert!(world.asks("keyed", "get", "/echo").await.0.contains("HttpRequestDenied"));
    world.scene.set_secret("acme/keyed", "OUTSIDE_KEY", KEY).unwrap();
    let (text, records) = world.asks("keyed", "log", "/echo").await;
    assert!(text.contains(&format!("authorization=Bearer {KEY}")), "the other side got it: {text}");
    assert!(text.contains("x-seen: Bearer [redacted]"), "no header brings it back: {text}");
    assert_eq!(egress(&records)[0]["credential"], "OUTSIDE_KEY");
    let mut viewer = world.scene.caller("acme", "vera", "viewer").await.unwrap();
    let logs = viewer.get("/-/v1/tenants/acme/functions/keyed/logs").await.unwrap().text();
    assert!(logs.contains("[redacted]") && !logs.contains(KEY), "{logs}");
    let records = world.scene.site.run(&["audit", "export"]).unwrap();
    assert!(!records.contains(KEY));
    // What a function sends under that name itself is replaced.
    let target = format!("/-/invoke/acme/keyed/get?{}", world.outside.url("/echo"));
    let token = world.scene.site.token("acme", "alice", "invoker").unwrap();
    let client = world.scene.node.client().await.unwrap().with(&token);
    let mut client = client.with_header("x-pass-authorization", "forged");
    let answer = client.get(&target).await.unwrap();
    assert!(answer.text().contains(&format!("authorization=Bearer {KEY}")), "{}", answer.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_every_call_would_fail_with_is_refused_when_it_is_set() {
    let world = World::new().await;
    let mut admin = world.scene.caller("acme", "ada", "admin").await.unwrap();
    let secret = "/-/v1/tenants/acme/functions/keyed/secrets/OUTSIDE_KEY";
    let answer = admin.call(Method::PUT, secret, "short").await.unwrap();
    assert_eq!(answer.status, 400, "{}", answer.text());
    assert!(answer.text().contains("`OUTSIDE_KEY`: its value has fewer than 6 bytes"), "{}", answer.text());
    // Who may not set it is not told what the function's rules name.
    let mut vera = world.scene.caller("acme", "vera", "viewer").await.unwrap();
    let answer = vera.call(Method::PUT, secret, "short").await.unwrap();
    assert_eq!(answer.status, 403, "{}", answer.text());
    // A value that was set while no rule named it.
    let other = "/-/v1/tenants/acme/functions/keyed/secrets/OTHER_KEY";
    assert_eq!(admin.call(Method::PUT, other, "short").await.unwrap().status, 200);
    let port = world.outside.port;
    let put = |rule: &str| format!(r#"{{"egress": [{{"host": "{NAME}", "port": {port}, {rule}}}]}}"#);
    let path = "/-/v1/tenants/acme/functions/keyed";
    for (rule, told) in [
        (
            r#""credential": {"header": "x-key", "secret": "OTHER_KEY"}"#,
            "`OTHER_KEY`: its value has fewer than 6 bytes",
        ),
        (r#""credential": {"header": "proxy-key", "secret": "OUTSIDE_KEY"}"#, "`proxy-key` is no header"),
        (r#""ca": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n""#, "its `ca` cannot be read"),
    ] {
        // A refusal may end its connection.
        let mut admin = world.scene.caller("acme", "ada", "admin").await.unwrap();
        let answer = admin.call(Method::PUT, path, put(rule)).await.unwrap();
        assert_eq!(answer.status, 400, "{rule}: {}", answer.text());
        assert!(answer.text().contains(told), "{}", answer.text());
    }
    // None of it was taken: with a proper value the function works as it was deployed.
    world.scene.set_secret("acme/keyed", "OUTSIDE_KEY", KEY).unwrap();
    assert!(world.asks("keyed", "get", "/echo").await.0.starts_with("status: 200"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_does_not_reach_the_node_it_runs_on_by_whichever_address() {
    let world = World::new().await;
    let url = world.scene.node.url();
    let port: u16 = url.rsplit(':').next().and_then(|port| port.parse().ok()).unwrap();
    world.ceiling(&format!(
        "[egress]\nnetworks = [\"127.0.0.0/8\"]\nrules = [{{ host = \"*\", ports = [{port}], plain = true }}]\n"
    ));
    let component = committed("fetch/fetch.wasm").display().to_string();
    let text = format!(
        "manifest = 1\n[app]\nname = \"inward\"\ntenant = \"acme\"\n[functions.inward]\n\
         source = {{ path = {component:?} }}\n[[functions.inward.egress]]\nhost = \"*\"\nport = {port}\ntls = false\n"
    );
    let file = world.scene.site.file("inward.toml", &text).unwrap();
    world.scene.node.run(&world.scene.site, &["apply", &file.display().to_string()]).unwrap();
    let target = format!("/-/invoke/acme/inward/get?url=http://127.0.0.1:{port}/-/health");
    let (text, records) = world.gets(&target).await;
    assert!(text.starts_with("error: "), "{text}");
    assert_eq!(egress(&records)[0]["ending"], "denied_address", "{records:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_and_bytes_beyond_a_functions_limits_are_refused() {
    let world = World::new().await;
    let (text, records) = world.asks("fetch", "8", "/hello").await;
    assert_eq!(text.matches("status: 200").count(), 6, "{text}");
    assert_eq!(text.matches("ConnectionLimitReached").count(), 2, "{text}");
    assert_eq!(egress(&records).len(), 6);
    let outcome = records.iter().find(|record| record["kind"] == "outcome").unwrap();
    assert_eq!(outcome["usage"]["egress_calls"], 6, "those that were made");
    let (text, records) = world.asks("fetch", "get", "/big").await;
    assert!(text.starts_with("error: "), "{text}");
    assert_eq!(egress(&records)[0]["ending"], "over_quota");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_may_ask_while_its_answer_is_under_way() {
    let world = World::new().await;
    let target = format!("/-/invoke/acme/fetch/late?{}", world.outside.url("/hello"));
    let answer = world.alice().await.get(&target).await.unwrap();
    assert_eq!(answer.text(), "begun\nstatus: 200\n\ngreetings from outside\n\n");
    // The end of a stream is recorded after its last byte, which nobody waits for: stopping the node does.
    let request = answer.header("x-request-id").to_owned();
    assert!(world.scene.node.stop().unwrap());
    let mut records = world.scene.site.records().unwrap();
    records.retain(|record| record["request"] == request.as_str());
    assert_eq!(kinds(&records), ["intent", "outcome", "egress", "end"]);
    assert_eq!(records[3]["usage"]["egress_calls"], 1);
}

const USED: [&str; 3] = ["egress_calls", "egress_bytes_out", "egress_bytes_in"];

/// Requests, and bytes sent and received, as the records of the requests themselves have them.
fn asked(records: &[Value]) -> [u64; 3] {
    let sum = |name: &str| egress(records).iter().map(|record| record[name].as_u64().unwrap()).sum::<u64>();
    [egress(records).len().try_into().unwrap(), sum("bytes_out"), sum("bytes_in")]
}

#[tokio::test(flavor = "multi_thread")]
async fn usage_says_of_egress_what_the_records_of_the_requests_say_in_sum() {
    let world = World::new().await;
    let mut alice = world.alice().await;
    for (how, path) in [("get", "/hello"), ("8", "/hello"), ("get", "/big"), ("get", "/away"), ("deaf", "/hello")] {
        alice.get(&format!("/-/invoke/acme/fetch/{how}?{}", world.outside.url(path))).await.unwrap();
    }
    let echo = format!("/-/invoke/acme/fetch/get?{}", world.outside.url("/echo"));
    alice.call(Method::POST, &echo, vec![b'x'; 100_000]).await.unwrap();
    alice.get(&format!("/-/invoke/acme/closed/get?{}", world.outside.url("/hello"))).await.unwrap();

    let records = world.scene.site.records().unwrap();
    let mut total = [0; 3];
    // A streamed answer's outcome has only what was known by then; its end has all.
    let last = |record: &&Value| match record["kind"].as_str() {
        Some("call" | "end") => true,
        Some("outcome") => record["streamed"] != true,
        _ => false,
    };
    for outcome in records.iter().filter(last) {
        let mut of_call = records.clone();
        of_call.retain(|record| record["request"] == outcome["request"]);
        let used = USED.map(|name| outcome["usage"][name].as_u64().unwrap());
        assert_eq!(used, asked(&of_call), "{of_call:?}");
        total.iter_mut().zip(used).for_each(|(total, used)| *total += used);
    }
    assert_eq!(total, asked(&records));
    assert!(total[0] >= 10 && total[1] >= 100_000 && total[2] >= 100_000, "{total:?}");
    let told = world.scene.node.run(&world.scene.site, &["usage", "acme", "--json"]).unwrap();
    let told: Value = serde_json::from_str(&told).unwrap();
    let rows = told["rows"].as_array().unwrap();
    let sums = USED.map(|name| rows.iter().map(|row| row["usage"][name].as_u64().unwrap()).sum::<u64>());
    assert_eq!(sums, total);
}
