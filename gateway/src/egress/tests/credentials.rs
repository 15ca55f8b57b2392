//! Evidence for injected credentials: the host gets them, the function never does.

use super::server::{Identity, Reply, Server};
use super::*;
use crate::egress::{check_credentials, check_rules};

use base64::Engine as _;

const HOST: &str = "api.example.com";
const SECRET: &str = "s3cret-of-the-api";

fn keyed(host: &str, pem: &str) -> EgressRule {
    let credential = serde_json::json!({"header": "authorization", "secret": "API_KEY", "prefix": "Bearer "});
    let rule = serde_json::json!({"host": host, "ca": pem, "credential": credential});
    serde_json::from_value(rule).unwrap()
}

#[tokio::test]
async fn a_credential_goes_to_its_host_and_its_echo_does_not_come_back() {
    let scene = Scene::new().await;
    let identity = Identity::of(&[HOST, "other.example.com"]);
    let server = Server::tls(&identity, |request| {
        let echo = request.lines().find_map(|line| line.strip_prefix("authorization: ")).unwrap_or("none");
        let coded = base64::engine::general_purpose::STANDARD.encode(echo);
        Reply::Say(format!("HTTP/1.1 200 OK\r\nx-echo: {echo}\r\nx-coded: {coded}\r\ncontent-length: 0\r\n\r\n"))
    })
    .await;
    for host in [HOST, "other.example.com"] {
        scene.script.answer(host, &["93.184.216.34"]);
    }
    scene.leads.lead("93.184.216.34:443", server.address);
    let other = EgressRule { credential: None, ..keyed("other.example.com", &identity.pem) };
    let outlet = scene.outlet(&[keyed(HOST, &identity.pem), other]);
    let forged = with(Outgoing { tls: true, ..get(HOST) }, &[("authorization", "Bearer forged")]);
    let (_, headers, _) = scene.fetch(&*outlet, forged).await.unwrap();
    assert!(server.requests()[0].contains(&format!("authorization: Bearer {SECRET}\r\n")));
    assert!(!server.requests()[0].contains("forged"));
    assert_eq!(headers["x-echo"], "Bearer [redacted]");
    assert!(headers["x-coded"].to_str().unwrap().contains("[redacted]"), "{headers:?}");
    // Another host never sees it.
    let (_, headers, _) = scene.fetch(&*outlet, Outgoing { tls: true, ..get("other.example.com") }).await.unwrap();
    assert_eq!(headers["x-echo"], "none");
    let line = format!("debug: sent {SECRET} and {}", SECRET.replace('-', "%2D"));
    let line = outlet.redact(line.as_bytes(), 0..line.len());
    assert!(line.starts_with(b"debug: sent [redacted] and "), "{line:?}");
    let records = scene.records().await;
    assert_eq!(records[0]["credential"], "API_KEY");
    assert!(records[1].get("credential").is_none());
    assert!(records.iter().all(|record| !record.to_string().contains(SECRET)));
}

#[tokio::test]
async fn an_echo_in_a_trailer_is_blotted_out_too() {
    let scene = Scene::new().await;
    let identity = Identity::of(&[HOST]);
    let text = format!(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-echo\r\n\r\n\
         2\r\nhi\r\n0\r\nx-echo: {SECRET}\r\n\r\n"
    );
    let server = Server::tls(&identity, move |_| Reply::Say(text.clone())).await;
    scene.script.answer(HOST, &["93.184.216.34"]);
    scene.leads.lead("93.184.216.34:443", server.address);
    let outlet = scene.outlet(&[keyed(HOST, &identity.pem)]);
    let answer = scene.send(&*outlet, Outgoing { tls: true, ..get(HOST) }).await.unwrap();
    let whole = answer.into_body().collect().await.unwrap();
    assert_eq!(whole.trailers().unwrap()["x-echo"], "[redacted]");
}

#[tokio::test]
async fn a_missing_secret_is_named_when_the_way_out_is_opened() {
    let scene = Scene::new().await;
    let mut keyed = keyed(HOST, &Identity::of(&[HOST]).pem);
    if let Some(credential) = &mut keyed.credential {
        credential.secret = "NOT_SET".into();
    }
    let error = scene.egress.outlet(scope(tenant(1), &[keyed])).map(|_| ()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "egress rule `https://api.example.com:443` needs the secret `NOT_SET`, which is not set; set it, or take the \
         credential out"
    );
}

#[test]
fn what_every_call_would_fail_with_is_told_beforehand_with_what_to_do() {
    let good = keyed(HOST, &Identity::of(&[HOST]).pem);
    let value = |text: &str| vec![("API_KEY".to_owned(), Zeroizing::new(text.to_owned()))];
    assert_eq!(check_rules(std::slice::from_ref(&good)), Ok(()));
    assert_eq!(check_credentials(std::slice::from_ref(&good), &value(SECRET)), Ok(()));
    let refused = |change: fn(&mut EgressRule)| {
        let mut rule = good.clone();
        change(&mut rule);
        check_rules(&[rule]).unwrap_err().to_string()
    };
    let no_certificate = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    assert!(refused(|rule| rule.ca = Some("no PEM".into())).ends_with("give PEM, or leave it out"));
    let error = check_rules(&[keyed(HOST, no_certificate)]).unwrap_err().to_string();
    assert!(error.starts_with("egress rule `https://api.example.com:443`: its `ca` cannot be read"), "{error}");
    for header in ["proxy-anything", "http2-settings", "host", "a b"] {
        let mut rule = good.clone();
        rule.credential.as_mut().unwrap().header = header.into();
        let error = check_rules(&[rule]).unwrap_err().to_string();
        assert!(error.contains(&format!("`{header}` is no header a credential can be in")), "{error}");
    }
    assert!(refused(|rule| rule.credential.as_mut().unwrap().prefix = "K\u{e4}y ".into()).contains("`prefix`"));
    for (text, remedy) in [("short", "set a longer one"), ("with a line break\n", "set it without")] {
        let error = check_credentials(std::slice::from_ref(&good), &value(text)).unwrap_err().to_string();
        assert!(error.contains("cannot use the secret `API_KEY`") && error.ends_with(remedy), "{error}");
        assert!(!error.contains(text), "{error}");
    }
}
