//! Hostile components: refused when they are deployed, or failing alone when they are called.

use std::fmt::Write as _;

use cofferdam_tests::{Node, Scene, Site, guests};
use http::StatusCode;

/// Deploys one component as `/guest`; gives what `apply` said.
fn deploy(scene: &Scene, component: &str) -> Result<(), String> {
    let path = guests::hostile(component).display().to_string();
    let manifest = format!(
        "manifest = 1\n[app]\nname = \"one\"\ntenant = \"acme\"\n[functions.guest]\nsource = {{ path = {path:?} }}\n\
         limits = {{ memory = \"64MiB\", cpu = \"100ms\", wall = \"20s\" }}\n\
         [[routes]]\nhost = \"localhost\"\npath = \"/guest\"\nfunction = \"guest\"\n"
    );
    let file = scene.site.file("app.toml", &manifest).unwrap().display().to_string();
    let output = scene.site.try_run(&["apply", &file, "--url", &scene.node.url()]).unwrap();
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

fn bare() -> Scene {
    let scene = Scene::bare().unwrap();
    scene.node.run(&scene.site, &["tenant", "create", "acme"]).unwrap();
    scene
}

#[tokio::test(flavor = "multi_thread")]
async fn components_that_want_what_nobody_gets_are_refused_at_deploy() {
    let scene = bare();
    for (component, about) in [
        ("huge-memory.wasm", "memory"),
        ("no-handler.wasm", "wasi:http/incoming-handler"),
        ("strange-import.wasm", "strange:host/shell"),
    ] {
        let said = deploy(&scene, component).unwrap_err();
        assert!(said.contains(about), "{component}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_component_that_spins_or_traps_while_it_starts_fails_its_call_alone() {
    for (component, status, code) in [
        ("start-spin.wasm", StatusCode::GATEWAY_TIMEOUT, "function_cpu_exhausted"),
        ("start-trap.wasm", StatusCode::BAD_GATEWAY, "function_trapped"),
    ] {
        let scene = bare();
        deploy(&scene, component).unwrap();
        let mut alice = scene.alice().await.unwrap();
        for _ in 0..2 {
            let answer = alice.get("/guest").await.unwrap();
            assert_eq!(answer.status, status, "{component}: {}", answer.text());
            assert_eq!(answer.json()["code"], code);
            assert_eq!(answer.json()["source"], "function");
        }
        assert_eq!(alice.get("/-/health").await.unwrap().status, StatusCode::OK);
    }
}

/// Valid, allowed, and far more work than anybody waits for: functions just under the limit, all of it live at once.
fn costly() -> Vec<u8> {
    let mut body = String::new();
    for number in 0..40_000 {
        let _ = write!(
            body,
            "(local.set {} (i64.mul (local.get {}) (local.get {})))",
            number % 97,
            number % 89,
            number % 83
        );
    }
    let function = format!("(func (export \"f{{}}\") (local {}) {body})", "i64 ".repeat(97));
    let functions: String = (0..48).map(|number| function.replace("{}", &number.to_string())).collect();
    let text = format!(
        r#"(component
            (core module {functions})
            (core module $guest (func (export "run")))
            (core instance $guest (instantiate $guest))
            (func $run (canon lift (core func $guest "run")))
            (instance (export "wasi:http/incoming-handler@0.2.12") (export "handle" (func $run))))"#
    );
    wat::parse_str(text).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_costly_compile_is_stopped_and_stalls_nobody() {
    let site = Site::init().unwrap();
    let node = Node::start(&site).unwrap();
    for tenant in ["acme", "globex"] {
        node.run(&site, &["tenant", "create", tenant]).unwrap();
    }
    let neighbour = format!(
        "manifest = 1\n[app]\nname = \"n\"\ntenant = \"globex\"\n[functions.hello]\nsource = {{ path = {:?} }}\n\
         [[routes]]\nhost = \"localhost\"\npath = \"/hello\"\nfunction = \"hello\"\n",
        guests::committed("hello-c/hello-c.wasm").display().to_string()
    );
    let neighbour = site.file("globex.toml", &neighbour).unwrap().display().to_string();
    node.run(&site, &["apply", &neighbour]).unwrap();
    // Only now is there little time: the neighbour's own compile is not what is tried here.
    node.stop().unwrap();
    let config = site.data().join("cofferdam.toml");
    let was = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, format!("{was}\n[limits]\ncompile_ms = 500\n")).unwrap();
    let node = Node::start(&site).unwrap();
    let bomb = site.file("bomb.wasm", "").unwrap();
    std::fs::write(&bomb, costly()).unwrap();
    let manifest = format!(
        "manifest = 1\n[app]\nname = \"m\"\ntenant = \"acme\"\n[functions.bomb]\nsource = {{ path = {:?} }}\n",
        bomb.display().to_string()
    );
    let manifest = site.file("acme.toml", &manifest).unwrap().display().to_string();
    let token = site.token("globex", "bob", "invoker").unwrap();
    let mut bob = node.client().await.unwrap().with(&token);
    assert_eq!(bob.get("/hello").await.unwrap().status, StatusCode::OK);
    let url = node.url();
    let deploying = tokio::task::spawn_blocking(move || (site.try_run(&["apply", &manifest, "--url", &url]), site));
    let mut answered = 0;
    while !deploying.is_finished() {
        assert_eq!(bob.get("/hello").await.unwrap().status, StatusCode::OK);
        answered += 1;
    }
    let (output, _site) = deploying.await.unwrap();
    let output = output.unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("takes longer than"), "{said}");
    assert!(answered > 10, "the neighbour was answered {answered} times while the bomb was compiled");
}
