//! A bucket as the documentation of S3 has it: Signature Version 4 checked for real, conditional writes, checksums.

use std::collections::BTreeMap;

use aws_lc_rs::{digest, hmac};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::*;

const ACCESS: &str = "AKIAEXAMPLE";
const SECRET: &str = "an/aws+secret";

/// Objects by path: content, and the digest kept beside it.
type Objects = Arc<Mutex<BTreeMap<String, (Vec<u8>, String)>>>;

fn sha256(bytes: &[u8]) -> Vec<u8> {
    digest::digest(&digest::SHA256, bytes).as_ref().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Works the signature out from what came over the wire.
fn check(seen: &Seen) -> Result<(), &'static str> {
    let field = |name: &str| seen.headers.get(name).map(String::as_str).ok_or("AccessDenied");
    let rest = field("authorization")?.strip_prefix("AWS4-HMAC-SHA256 ").ok_or("AuthorizationHeaderMalformed")?;
    let parts: BTreeMap<&str, &str> = rest.split(", ").filter_map(|part| part.split_once('=')).collect();
    let [access, day, region, service, end] = parts["Credential"].split('/').collect::<Vec<_>>()[..] else {
        return Err("AuthorizationHeaderMalformed");
    };
    let at = field("x-amz-date")?;
    if access != ACCESS {
        return Err("InvalidAccessKeyId");
    }
    if (region, service, end) != ("eu-central-1", "s3", "aws4_request") || !at.starts_with(day) {
        return Err("AuthorizationHeaderMalformed");
    }
    let signed: Vec<&str> = parts["SignedHeaders"].split(';').collect();
    let amazons = seen.headers.keys().filter(|name| name.starts_with("x-amz-"));
    if !signed.contains(&"host") || !signed.is_sorted() || !amazons.clone().all(|name| signed.contains(&name.as_str()))
    {
        return Err("AccessDenied");
    }
    if field("x-amz-content-sha256")? != hex(&sha256(&seen.body)) {
        return Err("XAmzContentSHA256Mismatch");
    }
    let mut canonical = format!("{}\n{}\n\n", seen.method, seen.path);
    for name in &signed {
        canonical.push_str(&format!("{name}:{}\n", field(name)?.trim()));
    }
    canonical.push_str(&format!("\n{}\n{}", signed.join(";"), field("x-amz-content-sha256")?));
    let scope = format!("{day}/{region}/{service}/aws4_request");
    let text = format!("AWS4-HMAC-SHA256\n{at}\n{scope}\n{}", hex(&sha256(canonical.as_bytes())));
    let mut key = format!("AWS4{SECRET}").into_bytes();
    for part in [day, region, service, "aws4_request"] {
        key = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), part.as_bytes()).as_ref().to_vec();
    }
    let expected = hex(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), text.as_bytes()).as_ref());
    if expected == parts["Signature"] { Ok(()) } else { Err("SignatureDoesNotMatch") }
}

fn refuse(status: u16, code: &str) -> Does {
    Does::Answers(status, vec![], format!("<Error><Code>{code}</Code><Message>words</Message></Error>"))
}

/// The store; `lost` of its acknowledgements do not get back.
fn store(objects: &Objects, lost: usize) -> Script {
    let (objects, lost) = (objects.clone(), Mutex::new(lost));
    Arc::new(move |seen: &Seen| {
        if let Err(code) = check(seen) {
            return refuse(403, code);
        }
        let mut objects = objects.lock().unwrap();
        match (seen.method.as_str(), objects.get(&seen.path)) {
            ("PUT", Some(_)) if seen.headers.get("if-none-match").is_some_and(|tag| tag == "*") => {
                refuse(412, "PreconditionFailed")
            }
            ("PUT", _) => {
                if seen.headers.get("x-amz-checksum-sha256") != Some(&STANDARD.encode(sha256(&seen.body))) {
                    return refuse(400, "BadDigest");
                }
                let kept = seen.headers.get("x-amz-meta-sha256").cloned().unwrap_or_default();
                objects.insert(seen.path.clone(), (seen.body.clone(), kept));
                let mut lost = lost.lock().unwrap();
                if *lost > 0 {
                    *lost -= 1;
                    return Does::Breaks;
                }
                Does::status(200)
            }
            ("HEAD", Some((_, kept))) => Does::Answers(200, vec![("x-amz-meta-sha256", kept.clone())], String::new()),
            _ => refuse(404, "NoSuchKey"),
        }
    })
}

fn bucket(pki: &Pki, port: u16, more: &str) -> String {
    let text = format!("[default]\naws_access_key_id = {ACCESS}\naws_secret_access_key = {SECRET}\n");
    let credentials = pki.private("credentials", &format!("{text}aws_session_token = a-session\n"));
    format!(
        "s3]\nbucket = \"logs\"\nregion = \"eu-central-1\"\nendpoint = \"https://localhost:{port}\"\n\
         credentials_file = {credentials:?}\ntls = {{ ca = {:?} }}\n{more}",
        pki.path("ca.pem")
    )
}

fn name(first: usize, last: usize) -> String {
    format!("/logs/audit/{first:020}-{last:020}.jsonl")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_gets_each_range_of_records_as_one_object_also_when_an_answer_is_lost() {
    let (place, pki) = (Place::new(), Pki::new());
    let objects = Objects::default();
    let server = https(&pki, 0, store(&objects, 1)).await;
    let log = place.open();
    notes(&log, 0..10).await;
    let sinks = place.start(&log, &sink("s3", "batch_records = 4", &bucket(&pki, server.port, "")));
    until("all arrived", || sinks.standing()[0].next >= 10).await;
    assert!(sinks.standing()[0].failures <= 1, "{:?}", sinks.standing());
    let objects = objects.lock().unwrap();
    assert_eq!(objects.keys().collect::<Vec<_>>(), [&name(0, 3), &name(4, 7), &name(8, 9)]);
    let content: Vec<u8> = objects.values().flat_map(|(content, _)| content.clone()).collect();
    assert!(String::from_utf8(content).unwrap().lines().eq(&place.lines()[..10]));
    assert!(objects.values().all(|(content, kept)| *kept == hex(&sha256(content))));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_is_there_with_other_content_is_not_replaced() {
    let (place, pki) = (Place::new(), Pki::new());
    let objects = Objects::default();
    objects.lock().unwrap().insert(name(0, 1), (b"evidence".to_vec(), "of something else".into()));
    let server = https(&pki, 0, store(&objects, 0)).await;
    let log = place.open();
    notes(&log, 0..2).await;
    let only = "kinds = [\"event\"]\nbatch_records = 2";
    let sinks = place.start(&log, &sink("s3", only, &bucket(&pki, server.port, "")));
    until("it failed", || sinks.standing()[0].failures > 0).await;
    let error = sinks.standing()[0].error.clone().unwrap();
    assert!(error.contains("is there already, with other content"), "{error}");
    assert_eq!(objects.lock().unwrap()[&name(0, 1)].0, b"evidence");
    drop(sinks);
    // Where the store knows no conditions, the operator says so.
    let sinks = place.start(&log, &sink("s3", only, &bucket(&pki, server.port, "conditional = false")));
    until("it arrived", || sinks.standing()[0].next >= 2).await;
    assert_ne!(objects.lock().unwrap()[&name(0, 1)].0, b"evidence");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_refuses_is_told_of_by_the_name_of_its_error() {
    let (place, pki) = (Place::new(), Pki::new());
    let objects = Objects::default();
    let server = https(&pki, 0, store(&objects, 0)).await;
    let log = place.open();
    notes(&log, 0..2).await;
    let settings = sink("s3", "", &bucket(&pki, server.port, ""));
    let wrong = "[default]\naws_access_key_id = AKIAEXAMPLE\naws_secret_access_key = another\n";
    pki.private("credentials", wrong);
    let sinks = place.start(&log, &settings);
    until("it failed", || sinks.standing()[0].failures > 0).await;
    let error = sinks.standing()[0].error.clone().unwrap();
    assert!(error.ends_with("answered 403 (SignatureDoesNotMatch)"), "{error}");
    // The file is read anew: whoever keeps it up to date replaces it.
    pki.private("credentials", &wrong.replace("another", SECRET));
    until("it arrived", || sinks.standing()[0].next >= 2).await;
}
