//! Who lets a call wait until something else has happened: what he was allowed when it began counts for nothing then.

use cofferdam_tests::{Scene, client};
use rustls::pki_types::ServerName;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const BODY: &str = r#"{"account":"evil","roles":["admin"],"ttl_seconds":3600}"#;

#[tokio::test(flavor = "multi_thread")]
async fn who_is_revoked_while_his_call_comes_changes_nothing() {
    let scene = Scene::new().unwrap();
    let made = scene.node.run(&scene.site, &["key", "create", "acme", "mallory", "--role", "admin", "--json"]).unwrap();
    let made: Value = serde_json::from_str(&made).unwrap();
    let (id, key) = (made["id"].as_str().unwrap(), made["key"].as_str().unwrap());
    let tcp = TcpStream::connect(("127.0.0.1", scene.node.port)).await.unwrap();
    let connector = client::connector(scene.node.certificate(), &[b"http/1.1"]).unwrap();
    let mut tls = connector.connect(ServerName::try_from("localhost").unwrap(), tcp).await.unwrap();
    let head = format!(
        "POST /-/v1/tenants/acme/keys HTTP/1.1\r\nhost: localhost\r\nauthorization: ApiKey {key}\r\n\
         content-type: application/json\r\nexpect: 100-continue\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        BODY.len()
    );
    tls.write_all(head.as_bytes()).await.unwrap();
    // The node asks for the body once it knows who calls.
    let mut said = [0; 25];
    tls.read_exact(&mut said).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&said), "HTTP/1.1 100 Continue\r\n\r\n");
    scene.node.run(&scene.site, &["key", "revoke", id]).unwrap();
    tls.write_all(BODY.as_bytes()).await.unwrap();
    let mut said = Vec::new();
    let _ = tls.read_to_end(&mut said).await;
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(said.starts_with("HTTP/1.1 409 "), "{said}");
    let keys = scene.node.run(&scene.site, &["key", "list", "acme", "--json"]).unwrap();
    assert!(keys.contains("mallory") && !keys.contains("evil"), "{keys}");
}
