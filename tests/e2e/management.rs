//! Deploying: what is accepted, what is refused, and how clearly.

use cofferdam_tests::Scene;

#[tokio::test(flavor = "multi_thread")]
async fn applying_twice_changes_nothing() {
    let scene = Scene::new().unwrap();
    let manifest = cofferdam_tests::guests::root().join("tests/scene/acme.toml").display().to_string();
    let show = || scene.node.run(&scene.site, &["tenant", "show", "acme", "--json"]).unwrap();
    let before = show();
    scene.node.run(&scene.site, &["apply", &manifest]).unwrap();
    assert_eq!(show(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_manifest_names_file_line_column_and_remedy() {
    let scene = Scene::bare().unwrap();
    let text = "manifest = 1\n[app]\nname = \"x\"\ntenant = \"acme\"\n[functions.api]\nsorce = { path = \"a.wasm\" }\n";
    let file = scene.site.file("bad.toml", text).unwrap();
    let output = scene.site.try_run(&["apply", &file.display().to_string(), "--url", &scene.node.url()]).unwrap();
    assert_eq!(output.status.code(), Some(3));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("bad.toml:6:1") && said.contains("source"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_component_is_refused_with_a_reason() {
    let scene = Scene::bare().unwrap();
    scene.node.run(&scene.site, &["tenant", "create", "acme"]).unwrap();
    for (bytes, about) in [(&b"not wasm"[..], "component"), (&b"\0asm\x01\0\0\0"[..], "component")] {
        let file = scene.site.data().join("x.wasm");
        std::fs::write(&file, bytes).unwrap();
        let manifest = format!(
            "manifest = 1\n[app]\nname = \"x\"\ntenant = \"acme\"\n[functions.x]\nsource = {{ path = {:?} }}\n",
            file.display().to_string()
        );
        let manifest = scene.site.file("app.toml", &manifest).unwrap().display().to_string();
        let output = scene.site.try_run(&["apply", &manifest, "--url", &scene.node.url()]).unwrap();
        assert!(!output.status.success());
        let said = String::from_utf8_lossy(&output.stderr).to_lowercase();
        assert!(said.contains(about), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn precompiled_code_is_refused_even_where_it_is_the_nodes_own() {
    let scene = Scene::new().unwrap();
    let files = std::fs::read_dir(scene.site.data().join("artifacts")).unwrap().flatten();
    let artifact = files.map(|file| std::fs::read(file.path()).unwrap()).find(|bytes| bytes.starts_with(b"COFART1\0"));
    let artifact = artifact.expect("an artifact of the scene's functions");
    let code = artifact.windows(4).position(|piece| piece == b"\x7fELF").expect("machine code");
    for bytes in [&artifact[code..], &artifact[..], &b"\x7fELF"[..]] {
        let file = scene.site.file("x.wasm", "").unwrap();
        std::fs::write(&file, bytes).unwrap();
        let manifest = format!(
            "manifest = 1\n[app]\nname = \"x\"\ntenant = \"acme\"\n[functions.x]\nsource = {{ path = {:?} }}\n",
            file.display().to_string()
        );
        let manifest = scene.site.file("x.toml", &manifest).unwrap().display().to_string();
        let output = scene.site.try_run(&["apply", &manifest, "--url", &scene.node.url()]).unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains("is not a WebAssembly component"), "{said}");
        // Nor past the command line, which looks only to spare the way.
        let mut dora = scene.caller("acme", "dora", "deployer").await.unwrap();
        let path = "/-/v1/tenants/acme/functions/hello/versions";
        let answer = dora.call(http::Method::POST, path, bytes.to_vec()).await.unwrap();
        assert!(answer.status.is_client_error(), "{}", answer.text());
        let precompiled = answer.text().contains("precompiled");
        assert_eq!(precompiled, bytes.len() != 4 && bytes.starts_with(b"\x7fELF"), "{}", answer.text());
    }
    let mut alice = scene.alice().await.unwrap();
    assert_eq!(alice.get("/-/invoke/acme/x/").await.unwrap().status, http::StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_of_a_function_are_tied_to_requests() {
    let scene = Scene::new().unwrap();
    let mut alice = scene.alice().await.unwrap();
    let id = alice.get("/acme/whoami").await.unwrap().header("x-request-id").to_owned();
    let token = scene.site.token("acme", "dave", "viewer").unwrap();
    let file = scene.site.file("dave.token", token.trim_start_matches("Bearer ")).unwrap().display().to_string();
    let mut said = String::new();
    // The line is written beside the call, not before its answer.
    for _ in 0..50 {
        said = scene.node.run(&scene.site, &["logs", "acme/whoami", "--token-file", &file]).unwrap();
        if said.contains(&id) {
            break;
        }
    }
    assert!(said.contains(&id), "{said}");
}
