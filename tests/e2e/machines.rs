//! Machines, over the wire: those that sign their requests, with the tools they have, and those that show certificates.

use std::process::{Command, Output};

use cofferdam_tests::pki::{Authority, Machine, settings};
use cofferdam_tests::{Answer, Broken, Client, Scene, guests};
use http::StatusCode;
use rustls::client::Resumption;
use tokio_rustls::TlsConnector;

const PAY: &str = "spiffe://acme.example/pay";

/// A new access key of acme: its id as clients write it, its secret, and the key's id here.
fn access_key(scene: &Scene, more: &[&str]) -> (String, String, String) {
    let create = ["key", "create", "acme", "signer", "--role", "invoker", "--kind", "sigv4", "--json"];
    let made = scene.node.run(&scene.site, &[&create, more].concat()).unwrap();
    let made: serde_json::Value = serde_json::from_str(&made).unwrap();
    let text = |name: &str| made[name].as_str().unwrap().to_owned();
    (text("access_key_id"), text("secret_access_key"), text("id"))
}

fn said(output: Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Calls with curl's own signer; gives body and status, a line between.
fn curl(scene: &Scene, (id, secret): (&str, &str), arguments: &[&str], path: &str) -> String {
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--write-out", "\n%{http_code}", "--cacert"]);
    command.arg(scene.node.certificate()).args(["--aws-sigv4", "aws:amz:us-east-1:execute-api"]);
    let output = command.args(["--user", &format!("{id}:{secret}")]).args(arguments);
    said(output.arg(format!("{}{path}", scene.node.url())).output().expect("curl is needed: apt-get install curl"))
}

#[test]
fn curl_signs_calls_that_are_answered() {
    let scene = Scene::new().unwrap();
    let (id, secret, key) = access_key(&scene, &[]);
    let keys = (id.as_str(), secret.as_str());
    assert_eq!(curl(&scene, keys, &[], "/acme/hello"), "hello, world\n\n200");
    assert_eq!(curl(&scene, keys, &["--http1.1"], "/acme/hello?a=1&b=2"), "hello, world\n\n200");
    let posted = ["--header", "content-type: text/plain", "--data", "signed"];
    assert_eq!(curl(&scene, keys, &posted, "/acme/faults/echo"), "signed\n200");
    // Curl does not sign the content type it makes up itself, and what is not signed is not taken.
    // (Over HTTP/2 curl 7.88 takes a refusal that comes before its body was read for an error of the stream.)
    let unsigned = ["--http1.1", "--data", "signed"];
    assert!(curl(&scene, keys, &unsigned, "/acme/faults/echo").ends_with("\n401"));
    assert!(curl(&scene, (&id, "wrong"), &[], "/acme/hello").ends_with("\n401"));
    let lambda = curl(&scene, keys, &["--aws-sigv4", "aws:amz:us-east-1:lambda"], "/acme/hello");
    assert!(lambda.ends_with("\n200"), "{lambda}");
    assert!(curl(&scene, keys, &["--aws-sigv4", "aws:amz:us-east-1:s3"], "/acme/hello").ends_with("\n401"));
    scene.node.run(&scene.site, &["key", "revoke", &key]).unwrap();
    assert!(curl(&scene, keys, &[], "/acme/hello").ends_with("\n401"));
    let recorded = scene.site.records().unwrap().into_iter().any(|record| {
        let principal = record.to_string();
        principal.contains("\"bound\":\"sigv4\"") && principal.contains(&key)
    });
    assert!(recorded, "the log says how the caller was bound, and by which key");
}

#[tokio::test(flavor = "multi_thread")]
async fn botocore_signs_calls_and_urls_that_are_answered() {
    let scene = Scene::new().unwrap();
    let (id, secret, _) = access_key(&scene, &[]);
    let sign = |arguments: &[&str]| {
        let sign = Command::new(guests::built("sign")).args([&id, &secret]).args(arguments).output();
        said(sign.unwrap())
    };
    let url = |path: &str| format!("{}{path}", scene.node.url());
    let certificate = scene.node.certificate().display().to_string();
    let got = sign(&["send", "GET", &url("/acme/hello?b=2&a=1%20x&a=%2Fy"), "", &certificate]);
    assert_eq!(got, "200\nhello, world\n");
    let posted = sign(&["send", "POST", &url("/acme/faults/echo"), "from botocore", &certificate]);
    assert_eq!(posted, "200\nfrom botocore");
    // A presigned URL needs nothing else, and reads as often as one likes until it ends.
    let presigned = sign(&["presign", "GET", &url("/acme/whoami?x=1"), "60"]);
    let path = presigned.trim().strip_prefix(&scene.node.url()).unwrap().to_owned();
    let host = format!("localhost:{}", scene.node.port);
    let mut client = scene.node.client().await.unwrap().at_host(&host);
    for _ in 0..2 {
        let answer = client.get(&path).await.unwrap();
        assert_eq!((answer.status, &answer.json()["principal"]), (StatusCode::OK, &"signer".into()));
        assert!(!answer.text().contains("Amz"), "functions never see a credential: {}", answer.text());
    }
    assert_eq!(client.get(&path.replace("x=1", "x=2")).await.unwrap().status, StatusCode::UNAUTHORIZED);
    let long = sign(&["presign", "GET", &url("/acme/hello"), "3601"]);
    let path = long.trim().strip_prefix(&scene.node.url()).unwrap().to_owned();
    assert_eq!(client.get(&path).await.unwrap().status, StatusCode::UNAUTHORIZED);
}

/// A connection to acme's host, with a certificate or without.
async fn connect(scene: &Scene, machine: Option<&Machine>) -> Result<Client, Broken> {
    let settings = settings(scene.node.certificate(), machine, Resumption::disabled())?;
    Client::connect_to("acme.test", scene.node.port, TlsConnector::from(settings)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn machines_are_known_by_certificates_of_their_tenants_authorities() {
    let scene = Scene::with_doors().unwrap();
    let (ca, other) = (Authority::new("Acme").unwrap(), Authority::new("Other").unwrap());
    trust(&scene, "acme", &ca, &["--account", &format!("{PAY}=>pay:invoker")]);
    let (pay, stranger) = (ca.names(PAY, 7, 3000).unwrap(), ca.names("spiffe://acme.example/x", 8, 3000).unwrap());
    let mut client = connect(&scene, Some(&pay)).await.unwrap();
    assert_eq!(client.get("/hello").await.unwrap().text(), "hello, world\n");
    // One of the authority's that is nobody here; then nobody at all, who is asked and need not answer.
    assert_eq!(
        connect(&scene, Some(&stranger)).await.unwrap().get("/hello").await.unwrap().status,
        StatusCode::UNAUTHORIZED
    );
    assert_eq!(connect(&scene, None).await.unwrap().get("/hello").await.unwrap().status, StatusCode::UNAUTHORIZED);
    let token = scene.site.token("acme", "alice", "invoker").unwrap();
    assert_eq!(connect(&scene, None).await.unwrap().with(&token).get("/hello").await.unwrap().status, StatusCode::OK);
    // Neither one of another authority, nor one that has ended, gets through the handshake.
    for bad in [other.names(PAY, 7, 3000).unwrap(), ca.names(PAY, 9, 2025).unwrap()] {
        assert!(answered(connect(&scene, Some(&bad)).await, "/hello").await.is_none());
    }
    let listed = scene.node.run(&scene.site, &["tenant", "ca", "list", "acme"]).unwrap();
    assert!(listed.contains("corp") && listed.contains(&format!("{PAY} is pay (invoker)")), "{listed}");
    let records = scene.site.records().unwrap();
    let call = records.iter().map(ToString::to_string).find(|record| record.contains("\"bound\":\"mtls\"")).unwrap();
    assert!(call.contains("\"credential\":\"certificate\"") && call.contains(PAY), "{call}");
    // A policy can ask for the certificate.
    let policy = "forbid (principal, action == Action::\"Invoke\", resource) when { context.bound != \"mtls\" };";
    let file = scene.site.file("bound.cedar", policy).unwrap();
    scene.node.run(&scene.site, &["policy", "put", "acme", "bound", &file.display().to_string()]).unwrap();
    assert_eq!(
        connect(&scene, None).await.unwrap().with(&token).get("/hello").await.unwrap().status,
        StatusCode::FORBIDDEN
    );
    assert_eq!(client.get("/hello").await.unwrap().status, StatusCode::OK);
    // Trusted no more, at once and on connections there are.
    scene.node.run(&scene.site, &["tenant", "ca", "rm", "acme", "corp"]).unwrap();
    assert_eq!(client.get("/hello").await.unwrap().status, StatusCode::MISDIRECTED_REQUEST);
}

/// Has a tenant trust an authority.
fn trust(scene: &Scene, tenant: &str, ca: &Authority, more: &[&str]) {
    let file = scene.site.file(&format!("{tenant}-ca.pem"), &ca.pem).unwrap().display().to_string();
    let set = ["tenant", "ca", "set", tenant, "corp", "--certificates", &file];
    scene.node.run(&scene.site, &[&set, more].concat()).unwrap();
}

/// What was answered, unless the connection broke off before.
async fn answered(client: Result<Client, Broken>, path: &str) -> Option<Answer> {
    client.ok()?.get(path).await.ok()
}
