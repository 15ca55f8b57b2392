//! Forged, bent and borrowed credentials.

use cofferdam_tests::{Scene, guests};
use http::StatusCode;

/// Swaps the header of a token for another, keeping payload and signature.
fn with_header(token: &str, header: &str) -> String {
    let rest = token.split_once('.').map(|(_, rest)| rest).unwrap_or_default();
    format!("Bearer {}.{rest}", base64url(header.as_bytes()))
}

fn base64url(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let number = chunk.iter().fold(0u32, |n, b| n << 8 | u32::from(*b)) << (8 * (3 - chunk.len()));
        for place in 0..=chunk.len() {
            out.push(char::from(ALPHABET[(number >> (18 - 6 * place)) as usize & 63]));
        }
    }
    out
}

#[tokio::test(flavor = "multi_thread")]
async fn tampered_tokens_are_refused() {
    let scene = Scene::new().unwrap();
    let good = scene.site.token("acme", "alice", "invoker").unwrap();
    let bare = good.trim_start_matches("Bearer ").to_owned();
    let parts: Vec<&str> = bare.split('.').collect();
    let mut bent = vec![
        with_header(&bare, r#"{"alg":"none","typ":"JWT"}"#),
        format!("Bearer {}.{}.", base64url(br#"{"alg":"none"}"#), parts[1]),
        with_header(&bare, r#"{"alg":"HS256","typ":"JWT"}"#),
        with_header(&bare, r#"{"alg":"EdDSA","typ":"JWT","jwk":{"kty":"oct","k":"AA"}}"#),
        with_header(&bare, r#"{"alg":"EdDSA","typ":"JWT","crit":["x"]}"#),
        with_header(&bare, r#"{"alg":"EdDSA","typ":"JWT","kid":"../../etc/passwd"}"#),
        format!("Bearer {}.{}.{}", parts[0], parts[1], "A".repeat(86)),
        format!("Bearer {}.{}", parts[0], parts[1]),
        format!("Bearer {}", "a".repeat(20_000)),
    ];
    for at in [3, parts[0].len() + 5, bare.len() - 5] {
        let mut bytes = bare.clone().into_bytes();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        bent.push(format!("Bearer {}", String::from_utf8(bytes).unwrap()));
    }
    for token in bent {
        let mut client = scene.node.client().await.unwrap().with(&token);
        let answer = client.get("/acme/hello").await.unwrap();
        let refused = [StatusCode::UNAUTHORIZED, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE].contains(&answer.status);
        assert!(refused, "{} for {}", answer.status, token.chars().take(60).collect::<String>());
    }
    let mut alice = scene.node.client().await.unwrap().with(&good);
    assert_eq!(alice.get("/acme/hello").await.unwrap().status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_issuer_of_another_node_is_not_believed() {
    let (here, there) = (Scene::new().unwrap(), Scene::bare().unwrap());
    let foreign = there.site.token("acme", "alice", "admin").unwrap();
    let mut client = here.node.client().await.unwrap().with(&foreign);
    assert_eq!(client.get("/acme/hello").await.unwrap().status, StatusCode::UNAUTHORIZED);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_cannot_name_the_platform_as_its_tenant() {
    let scene = Scene::new().unwrap();
    let refused = scene.site.token("platform", "eve", "operator").unwrap_err().to_string();
    assert!(refused.contains("no tokens for the platform"), "{refused}");
    // The role alone, in a tenant of one's own, is worth nothing on the platform.
    let mut eve = scene.caller("acme", "eve", "operator").await.unwrap();
    assert!(eve.get("/-/v1/tenants").await.unwrap().status.is_client_error());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_forged_in_headers_is_dropped_and_the_function_is_told_the_real_one() {
    let scene = Scene::new().unwrap();
    let guest = guests::hostile("hostile.wasm").display().to_string();
    let manifest = format!(
        "manifest = 1\n[app]\nname = \"tells\"\ntenant = \"acme\"\n[functions.tells]\nsource = {{ path = {guest:?} }}\n\
         [[routes]]\nhost = \"localhost\"\npath = \"/acme/tells/{{*what}}\"\nfunction = \"tells\"\n"
    );
    let manifest = scene.site.file("tells.toml", &manifest).unwrap().display().to_string();
    scene.node.run(&scene.site, &["apply", &manifest]).unwrap();
    let token = scene.site.token("acme", "alice", "invoker").unwrap();
    for name in [
        "x-cofferdam-principal",
        "X-Cofferdam-Principal",
        "x-cofferdam-tenant",
        "x-cofferdam-request-id",
        "x-cofferdam-roles",
        "x-cofferdam-admin",
        "cofferdam-internal",
    ] {
        let mut alice = scene.node.client().await.unwrap().with(&token).with_header(name, "forged");
        let answer = alice.get("/acme/whoami").await.unwrap();
        let told = answer.json();
        assert_eq!((&told["principal"], &told["tenant"]), (&"alice".into(), &"acme".into()), "{name}: {told}");
        assert_eq!(told["request_id"], answer.header("x-request-id"), "{name}");
        assert!(!answer.text().contains("forged"), "{name}: {told}");
        let seen = alice.get("/acme/tells/inbound").await.unwrap().text();
        let ours: Vec<&str> = seen.lines().filter(|line| line.contains("cofferdam")).collect();
        assert_eq!(ours, ["x-cofferdam-principal", "x-cofferdam-request-id", "x-cofferdam-tenant"], "{name}");
    }
}
