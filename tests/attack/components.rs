//! Hostile components: refused when they are deployed, or failing alone when they are called.

use cofferdam_tests::{Scene, guests};
use http::StatusCode;

/// Deploys one component as `/guest`; gives what `apply` said.
fn deploy(scene: &Scene, component: &str) -> Result<(), String> {
    let path = guests::hostile(component).display().to_string();
    let manifest = format!(
        "manifest = 1\n[app]\nname = \"one\"\ntenant = \"acme\"\n[functions.guest]\nsource = {{ path = {path:?} }}\n\
         limits = {{ memory = \"64MiB\", cpu = \"300ms\", wall = \"3s\" }}\n\
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
