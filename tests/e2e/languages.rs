//! Unmodified components of every promised language are deployed and answer.

use cofferdam_tests::Scene;
use cofferdam_tests::guests::{built, committed};
use http::StatusCode;

async fn serves(name: &str, component: &std::path::Path) {
    let scene = Scene::bare().unwrap();
    scene.node.run(&scene.site, &["tenant", "create", "acme"]).unwrap();
    let manifest = format!(
        "manifest = 1\n[app]\nname = \"one\"\ntenant = \"acme\"\n[functions.guest]\nsource = {{ path = {:?} }}\n\
         limits = {{ memory = \"256MiB\", cpu = \"10s\", wall = \"20s\" }}\nsecrets = [\"API_SECRET\"]\n\
         [[routes]]\nhost = \"localhost\"\npath = \"/guest\"\nfunction = \"guest\"\n",
        component.display().to_string()
    );
    let manifest = scene.site.file("app.toml", &manifest).unwrap();
    scene.node.run(&scene.site, &["apply", &manifest.display().to_string()]).unwrap();
    let mut alice = scene.alice().await.unwrap();
    for _ in 0..3 {
        let answer = alice.get("/guest").await.unwrap();
        assert_eq!(answer.status, StatusCode::OK, "{name}: {}", answer.text());
        assert!(!answer.body.is_empty(), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rust_component_is_served() {
    serves("Rust", &committed("whoami/whoami.wasm")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_c_component_is_served() {
    serves("C", &committed("hello-c/hello-c.wasm")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_javascript_component_is_served() {
    serves("JavaScript", &built("hello-js.wasm")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_python_component_is_served() {
    serves("Python", &built("hello-py.wasm")).await;
}
