//! What was decided, what would be, and why: over the wire, and from files.

use cofferdam_tests::{Answer, Scene};
use http::{Method, StatusCode};
use serde_json::{Value, json};

/// Runs a command as somebody with a role in acme, and gives its JSON.
fn told(scene: &Scene, role: &str, arguments: &[&str]) -> Value {
    let token = scene.site.token("acme", "ada", role).unwrap();
    let file = scene.site.file("ada.token", token.trim_start_matches("Bearer ")).unwrap().display().to_string();
    let said = scene.node.run(&scene.site, &[arguments, &["--json", "--token-file", &file]].concat()).unwrap();
    serde_json::from_str(&said).unwrap()
}

fn id(answer: &Answer) -> String {
    answer.header("x-request-id").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn why_names_the_policies_that_decided_and_the_nearest_miss() {
    let scene = Scene::new().unwrap();
    let mut alice = scene.alice().await.unwrap();
    let allowed = id(&alice.get("/acme/hello").await.unwrap());
    let why = told(&scene, "admin", &["why", &allowed, "--tenant", "acme"]);
    assert_eq!(why["deciding"][0]["id"], "10-defaults/invoker", "{why:#}");
    assert!(why["deciding"][0]["text"].as_str().unwrap().contains("Role::\"invoker\""));
    assert_eq!((&why["same_policies"], &why["by_policies_now"]["outcome"]), (&json!(true), &json!("allow")));

    let mut carol = scene.caller("acme", "carol", "nothing-much").await.unwrap();
    let refused = carol.get("/acme/hello").await.unwrap();
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    let why = told(&scene, "admin", &["why", &id(&refused), "--tenant", "acme"]);
    let miss = &why["by_policies_now"]["nearest"];
    assert_eq!(miss["policy"]["id"], "10-defaults/invoker", "{miss:#}");
    assert_eq!(miss["lacks"][0]["text"], "principal in Role::\"invoker\"");

    // Whoever holds the log's files needs no node, and may look at all of it.
    let said = scene.site.run(&["why", &allowed]).unwrap();
    for wanted in ["10-defaults/invoker", "user alice", "credential jwt", "/acme/hello", "200, answered"] {
        assert!(said.contains(wanted), "{wanted} in\n{said}");
    }
    let unknown = scene.site.try_run(&["why", "req_0000000000000000"]).unwrap();
    assert_eq!(unknown.status.code(), Some(4));
    // A forbid that is gone again is named all the same.
    let policy = r#"@id("shut") forbid (principal, action == Action::"Invoke", resource);"#;
    let file = scene.site.file("no.cedar", policy).unwrap().display().to_string();
    scene.node.run(&scene.site, &["policy", "put", "acme", "no", &file]).unwrap();
    let shut = id(&alice.get("/acme/hello").await.unwrap());
    scene.node.run(&scene.site, &["policy", "rm", "acme", "no"]).unwrap();
    let why = told(&scene, "admin", &["why", &shut, "--tenant", "acme"]);
    assert_eq!(why["deciding"][0], json!({ "id": "no/shut", "text": null }));
    assert_eq!(why["same_policies"], false);
}

#[tokio::test(flavor = "multi_thread")]
async fn replay_lists_every_recorded_call_that_a_candidate_would_decide_otherwise() {
    let scene = Scene::new().unwrap();
    let mut alice = scene.alice().await.unwrap();
    let mut carol = scene.caller("acme", "carol", "clerk").await.unwrap();
    let mut shut = Vec::new();
    for _ in 0..3 {
        shut.push(id(&alice.get("/acme/hello").await.unwrap()));
        alice.get("/acme/whoami").await.unwrap();
    }
    let opened = carol.get("/acme/whoami").await.unwrap();
    assert_eq!(opened.status, StatusCode::FORBIDDEN);
    let candidate = r#"
        forbid (principal, action == Action::"Invoke", resource) when { resource.name == "hello" };
        permit (principal in Role::"clerk", action == Action::"Invoke", resource) when { context.path like "*who*" };
    "#;
    let file = scene.site.file("candidate.cedar", candidate).unwrap().display().to_string();
    let replayed = told(&scene, "admin", &["policy", "replay", "acme", &file]);
    let flips = replayed["flips"].as_array().unwrap();
    let of = |outcome: &str| -> Vec<String> {
        let is = |flip: &&Value| flip["after"]["outcome"] == outcome;
        flips.iter().filter(is).map(|flip| flip["request"]["context"]["request"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!((of("explicit_deny"), of("allow")), (shut, vec![id(&opened)]), "{replayed:#}");
    assert_eq!(flips.len(), 4);
    // The records tell all that was decided on: by the policies there were, everything comes out as it did.
    assert!(replayed["compared_with_current"].as_u64().unwrap() >= 7, "{replayed:#}");
    assert_eq!(replayed["differ_from_record"], json!([]));
    let token = scene.site.token("acme", "ada", "admin").unwrap();
    let token = scene.site.file("ada.token", token.trim_start_matches("Bearer ")).unwrap().display().to_string();
    let url = scene.node.url();
    let strict = ["policy", "replay", "acme", &file, "--deny-new-access", "--url", &url, "--token-file", &token];
    let ended = scene.site.try_run(&strict).unwrap();
    assert_eq!(ended.status.code(), Some(8), "{}", String::from_utf8_lossy(&ended.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_can_says_of_everybody_what_a_call_of_theirs_shows() {
    let scene = Scene::new().unwrap();
    let policy = r#"
        permit (principal is User, action == Action::"Invoke", resource)
        when { principal.id == "erin" && resource.name == "hello" };
        forbid (principal in Role::"invoker", action == Action::"Invoke", resource) when { principal.id like "f*" };
    "#;
    let file = scene.site.file("some.cedar", policy).unwrap().display().to_string();
    scene.node.run(&scene.site, &["policy", "put", "acme", "some", &file]).unwrap();
    let members = [("dora", "invoker"), ("erin", "clerk"), ("frank", "invoker"), ("gina", "admin"), ("hugo", "viewer")];
    for (subject, role) in members {
        scene.node.run(&scene.site, &["member", "put", "acme", subject, "--role", role]).unwrap();
    }
    let answer = told(&scene, "admin", &["authz", "who-can", "acme", "Invoke", "--function", "hello"]);
    let answers = answer["answers"].as_array().unwrap();
    for (subject, _) in members {
        // The token itself brings no role that means anything.
        let mut caller = scene.caller("acme", subject, "none").await.unwrap();
        let could = caller.get("/acme/hello").await.unwrap().status == StatusCode::OK;
        let row = answers.iter().find(|row| row["principal"]["id"] == subject).unwrap();
        assert_eq!(row["outcome"] == "allow", could, "{row:#}");
    }
    let nobody = answers.iter().find(|row| row["principal"]["kind"] == "anonymous").unwrap();
    assert_eq!(nobody["policies"], json!(["00-platform/anonymous"]));
    let clerk =
        answers.iter().find(|row| row["principal"]["roles"] == json!(["clerk"]) && row["principal"]["id"] != "erin");
    assert_eq!(clerk.unwrap()["outcome"], "implicit_deny");
}

#[tokio::test(flavor = "multi_thread")]
async fn records_and_simulations_are_for_those_of_the_tenant_who_may() {
    let scene = Scene::new().unwrap();
    let mut alice = scene.alice().await.unwrap();
    let call = id(&alice.get("/acme/hello").await.unwrap());
    let simulate = r#"{"requests":[]}"#;
    let mut bob = scene.caller("globex", "bob", "admin").await.unwrap();
    for (path, method) in [("audit", Method::GET), ("simulate", Method::POST)] {
        let path = format!("/-/v1/tenants/acme/{path}");
        assert_eq!(alice.call(method.clone(), &path, simulate).await.unwrap().status, StatusCode::FORBIDDEN, "{path}");
        assert_eq!(bob.call(method, &path, simulate).await.unwrap().status, StatusCode::NOT_FOUND, "{path}");
    }
    // The operator manages tenants, but what is called in them is not his to read.
    let records = scene.site.try_run(&["why", &call, "--tenant", "acme", "--url", &scene.node.url()]).unwrap();
    assert_eq!(records.status.code(), Some(5), "{}", String::from_utf8_lossy(&records.stderr));
    let mut ada = scene.caller("acme", "ada", "admin").await.unwrap();
    let asked = ada.get(&format!("/-/v1/tenants/acme/audit?request={call}")).await.unwrap().json();
    assert_eq!(asked["records"][0]["request"], json!(call));
    let acme = asked["records"][0]["tenant"].as_str().unwrap().to_owned();
    // Another tenant's admin sees his own tenant's records: his attempts on acme are not among them, nor is acme's
    // call.
    let own = bob.get("/-/v1/tenants/globex/audit").await.unwrap().json();
    let own = own["records"].as_array().unwrap();
    assert!(!own.is_empty() && own.iter().all(|record| !record.to_string().contains(&acme)), "{own:#?}");
    let asked = bob.get(&format!("/-/v1/tenants/globex/audit?request={call}")).await.unwrap().json();
    assert_eq!(asked["records"], json!([]));
    let attempts = ada.get("/-/v1/tenants/acme/audit").await.unwrap().json().to_string();
    assert!(attempts.contains("\"bob\""), "who tried is told to the tenant it was tried on");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_simulated_yes_lets_nobody_in_and_is_recorded() {
    let scene = Scene::new().unwrap();
    let open = scene.site.file("open.cedar", "permit (principal, action, resource);").unwrap().display().to_string();
    let asked = ["authz", "simulate", "--tenant", "acme", "--principal", "user:mallory", "--action", "Invoke"];
    let told_of = |more: &[&str]| told(&scene, "admin", &[&asked[..], &["--function", "hello"], more].concat());
    let answer = told_of(&["--policy", &open]);
    assert_eq!((&answer["outcome"], &answer["policies"]), (&json!("allow"), &json!(["open/1"])));
    assert_eq!(told_of(&[])["outcome"], "implicit_deny");
    // No name of another tenant tells that there is one.
    assert_eq!(told_of(&["--of", "globex"]), told_of(&["--of", "nobodys"]));
    let mut mallory = scene.caller("acme", "mallory", "none").await.unwrap();
    assert_eq!(mallory.get("/acme/hello").await.unwrap().status, StatusCode::FORBIDDEN);
    let records = scene.site.records().unwrap();
    let simulated = records.iter().find(|record| record["action"] == "SimulatePolicy").unwrap();
    assert_eq!(
        (&simulated["detail"], &simulated["principal"]["id"]),
        (&json!("requests=1 policies=candidate"), &json!("ada"))
    );
    let mut ada = scene.caller("acme", "ada", "admin").await.unwrap();
    let many = json!({ "requests": vec![answer_request(); 2_001] }).to_string();
    let refused = ada.call(Method::POST, "/-/v1/tenants/acme/simulate", many).await.unwrap();
    assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{}", refused.text());
}

fn answer_request() -> Value {
    json!({ "principal": { "kind": "anonymous" }, "action": "Invoke", "function": "hello" })
}

#[tokio::test(flavor = "multi_thread")]
async fn reports_name_what_nobody_used_and_propose_what_was() {
    let scene = Scene::new().unwrap();
    scene.node.run(&scene.site, &["member", "put", "acme", "alice", "--role", "invoker"]).unwrap();
    scene.node.run(&scene.site, &["member", "put", "acme", "idle", "--role", "deployer"]).unwrap();
    let mut alice = scene.caller("acme", "alice", "none").await.unwrap();
    assert_eq!(alice.get("/acme/hello").await.unwrap().status, StatusCode::OK);
    let unused = told(&scene, "admin", &["authz", "unused", "acme"]);
    let policies = unused["policies"].as_array().unwrap();
    assert!(policies.contains(&json!("10-defaults/deployer")) && !policies.contains(&json!("10-defaults/invoker")));
    let idle = unused["callers"].as_array().unwrap().iter().find(|caller| caller["who"]["id"] == "idle").unwrap();
    assert_eq!(idle["calls"], 0);
    assert!(idle["unused"].as_array().unwrap().contains(&json!("PutSecret")));
    let least = told(&scene, "admin", &["authz", "least-privilege", "acme"]);
    let proposals = least["proposals"].as_array().unwrap();
    let own = proposals.iter().find(|proposal| proposal["holder"]["user"]["id"] == "alice").unwrap();
    let text = own["text"].as_str().unwrap();
    assert!(text.contains("action in [Action::\"Invoke\"]") && text.contains("resource.name == \"hello\""), "{text}");
    // What is proposed is taken by the node as it is.
    let file = scene.site.file("least.cedar", text).unwrap().display().to_string();
    scene.node.run(&scene.site, &["policy", "put", "acme", "least", &file]).unwrap();
}

#[test]
fn policies_are_checked_tested_compared_and_imported_without_a_node() {
    let site = cofferdam_tests::Site::init().unwrap();
    let good = site.file("good.cedar", "permit (principal in Role::\"ops\", action, resource);").unwrap();
    let bad = site.file("bad.cedar", "permit (principal, action, resource)\nwhen { resource.nam == \"x\" };").unwrap();
    let (good, bad) = (good.display().to_string(), bad.display().to_string());
    assert!(site.run(&["policy", "check", &good]).unwrap().contains("1 files would be taken"));
    let refused = site.try_run(&["policy", "check", &good, &bad]).unwrap();
    assert_eq!(refused.status.code(), Some(8));
    assert!(String::from_utf8_lossy(&refused.stdout).contains("bad.cedar:2:"), "{refused:?}");

    let table = "[[case]]\nclaim = \"ops deploy\"\nwho = [\"acme:user/kim:ops\"]\nmay = [\"PutFunction\"]\n\
        on = \"acme\"\noutcome = \"allow\"\n";
    let table = site.file("ops.toml", table).unwrap().display().to_string();
    assert!(site.run(&["policy", "test", &table, "--policy", &good]).unwrap().contains("1 rows, 1 decisions, 0 not"));
    let failed = site.try_run(&["policy", "test", &table]).unwrap();
    assert_eq!(failed.status.code(), Some(8));
    assert!(String::from_utf8_lossy(&failed.stdout).contains("implicit_deny"), "{failed:?}");
    let folder = cofferdam_tests::guests::root().join("policies/cases/roles.toml").display().to_string();
    assert!(site.run(&["policy", "test", &folder]).unwrap().contains(" 0 not as written"));

    let closed = site
        .file("closed.cedar", "forbid (principal in Role::\"ops\", action, resource);")
        .unwrap()
        .display()
        .to_string();
    let diff: Value =
        serde_json::from_str(&site.run(&["policy", "diff", "--before", &good, "--after", &closed, "--json"]).unwrap())
            .unwrap();
    assert!(diff["flips"].as_array().unwrap().iter().all(|flip| flip["after"]["outcome"] == "explicit_deny"));
    assert!(!diff["flips"].as_array().unwrap().is_empty());
    let opened = site.try_run(&["policy", "diff", "--before", &closed, "--after", &good, "--deny-new-access"]).unwrap();
    assert_eq!(opened.status.code(), Some(8));

    let document = r#"{"Version":"2012-10-17","Statement":[
        {"Sid":"Call","Effect":"Allow","Action":"lambda:InvokeFunction","Resource":"*"},
        {"Sid":"Bucket","Effect":"Allow","Action":"s3:GetObject","Resource":"*"}]}"#;
    let document = site.file("iam.json", document).unwrap().display().to_string();
    let import = ["policy", "import", "--from", "iam", &document, "--for", "role:ops"];
    let imported = site.try_run(&import).unwrap();
    let (text, said) = (String::from_utf8_lossy(&imported.stdout), String::from_utf8_lossy(&imported.stderr));
    assert!(text.contains("@id(\"call\")") && said.contains("Bucket: action `s3:GetObject`"), "{text}\n{said}");
    let file = site.file("imported.cedar", &text).unwrap().display().to_string();
    site.run(&["policy", "check", &file]).unwrap();
    assert_eq!(site.try_run(&[&import[..], &["--strict"]].concat()).unwrap().status.code(), Some(8));
}
