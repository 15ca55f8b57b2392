//! Each kind of receiver, strict about its protocol.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::server::syslog;
use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_is_signed_with_every_secret_and_wrapped_as_cloudevents() {
    let (place, pki) = (Place::new(), Pki::new());
    let (send, mut seen) = tokio::sync::mpsc::unbounded_channel();
    let script: Script = Arc::new(move |request: &Seen| {
        let headers = request.headers.clone();
        send.send((request.path.clone(), headers, request.body.clone())).unwrap();
        Does::status(200)
    });
    let server = https(&pki, 0, script).await;
    let key = STANDARD.encode([7; 24]);
    let secrets = pki.private("secrets", &format!("whsec_{key}\nan-older-secret-in-words\n"));
    let token = pki.private("token", "Bearer not-to-be-told\n");
    let log = place.open();
    notes(&log, 0..3).await;
    let more = format!("secret_file = {secrets:?}\nauthorization_file = {token:?}\nenvelope = \"cloudevents\"");
    let sinks = place.start(&log, &sink("hook", "", &webhook(&pki, server.port, &more)));
    let (path, headers, body) = seen.recv().await.unwrap();
    assert_eq!(path, "/in?x=1");
    assert_eq!(headers["authorization"], "Bearer not-to-be-told");
    assert_eq!(headers["content-type"], "application/cloudevents-batch+json");
    assert_eq!(headers["webhook-id"], "hook-0-2");
    let content = [format!("hook-0-2.{}.", headers["webhook-timestamp"]).as_bytes(), &body].concat();
    let signed = |key: &[u8]| {
        let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, key);
        format!("v1,{}", STANDARD.encode(aws_lc_rs::hmac::sign(&key, &content)))
    };
    let both = format!("{} {}", signed(&[7; 24]), signed(b"an-older-secret-in-words"));
    assert_eq!(headers["webhook-signature"], both);
    let events: Vec<Value> = serde_json::from_slice(&body).unwrap();
    for (event, line) in events.iter().zip(place.lines()) {
        let record: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(event["data"], record);
        assert_eq!((&event["specversion"], &event["source"]), (&json!("1.0"), &json!("//cofferdam.test/node")));
        assert_eq!((&event["type"], &event["time"]), (&json!("dev.cofferdam.audit.event"), &record["time"]));
        assert_eq!(event["id"], record["index"].to_string());
        // Names of attributes are lower-case letters and digits alone.
        let names = event.as_object().unwrap().keys();
        assert!(names.into_iter().all(|name| name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())));
    }
    assert_eq!(events.len(), 3);
    let debug = format!("{:?}", sinks.standing());
    assert!(!debug.contains("not-to-be-told"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_is_too_large_is_sent_in_halves() {
    let (place, pki) = (Place::new(), Pki::new());
    let (arrived, sizes) = (Arrived::default(), Arc::new(Mutex::new(Vec::new())));
    let script: Script = Arc::new({
        let (arrived, sizes) = (arrived.clone(), sizes.clone());
        move |seen: &Seen| {
            let records = seen.body.iter().filter(|byte| **byte == b'\n').count();
            sizes.lock().unwrap().push(records);
            if records > 3 {
                return Does::status(413);
            }
            keep(&arrived, &seen.body);
            Does::status(200)
        }
    });
    let server = https(&pki, 0, script).await;
    let log = place.open();
    notes(&log, 0..12).await;
    let sinks = place.start(&log, &sink("hook", "batch_records = 12", &webhook(&pki, server.port, "")));
    until("all arrived", || sinks.standing()[0].next >= 12).await;
    let sizes = sizes.lock().unwrap();
    assert!(sizes.starts_with(&[12, 6, 3]), "{sizes:?}");
    assert_eq!(arrived.lock().unwrap()[..12], place.lines()[..12]);
}

/// The parts of a message, by the grammar of RFC 5424.
fn message(text: &str) -> Option<(u32, Vec<&str>, &str)> {
    let (priority, rest) = text.strip_prefix('<')?.split_once('>')?;
    let rest = rest.strip_prefix("1 ")?;
    let mut parts = rest.splitn(6, ' ');
    let head: Vec<&str> = parts.by_ref().take(5).collect();
    let printable = |part: &&str| !part.is_empty() && part.bytes().all(|b| (33..=126).contains(&b));
    let [at, host, app, process, id] = head[..] else { return None };
    let lengths = [(host, 255), (app, 48), (process, 128), (id, 32)];
    if !head.iter().all(printable) || lengths.iter().any(|(part, most)| part.len() > *most) {
        return None;
    }
    cofferdam_model::UnixNanos::parse(at).filter(|_| at.len() <= 27 && at.ends_with('Z'))?;
    let data = parts.next()?;
    let (mut left, mut elements) = (data, 0);
    while let Some(element) = left.strip_prefix('[') {
        let (element, rest) = element.split_once(']')?;
        let (name, parameters) = element.split_once(' ')?;
        // Names without an `@` are IANA's alone.
        if !["timeQuality", "origin", "meta"].contains(&name) {
            return None;
        }
        let quoted = |parameter: &str| {
            parameter
                .split_once("=\"")
                .is_some_and(|(_, value)| value.ends_with('"') && value.matches('"').count() == 1)
        };
        if !parameters.split(' ').all(quoted) {
            return None;
        }
        (left, elements) = (rest, elements + 1);
    }
    let text = left.strip_prefix(' ').filter(|_| elements > 0)?;
    Some((priority.parse().ok()?, head, text))
}

/// The frames of a connection, by RFC 5425.
fn frames(mut bytes: &[u8]) -> Vec<String> {
    let mut frames = Vec::new();
    while !bytes.is_empty() {
        let space = bytes.iter().position(|byte| *byte == b' ').unwrap();
        let digits = std::str::from_utf8(&bytes[..space]).unwrap();
        assert!(!digits.starts_with('0') && digits.bytes().all(|b| b.is_ascii_digit()), "{digits}");
        let length: usize = digits.parse().unwrap();
        frames.push(String::from_utf8(bytes[space + 1..space + 1 + length].to_vec()).unwrap());
        bytes = &bytes[space + 1 + length..];
    }
    frames
}

#[tokio::test(flavor = "multi_thread")]
async fn syslog_has_arrived_once_the_receiver_says_so_and_not_when_the_connection_merely_ends() {
    let (place, pki) = (Place::new(), Pki::new());
    // The first two read everything, and then break off without a word.
    let (server, mut seen) = syslog(&pki, |number| number >= 2).await;
    let log = place.open();
    notes(&log, 0..7).await;
    let to = format!(
        "syslog]\naddress = \"localhost:{}\"\ntls = {{ ca = {:?}, certificate = {:?}, key = {:?} }}",
        server.port,
        pki.path("ca.pem"),
        pki.path("client.pem"),
        pki.path("client.key"),
    );
    let sinks = place.start(&log, &sink("siem", "batch_records = 4", &to));
    let mut texts = Vec::new();
    while texts.len() < 7 {
        for frame in frames(&seen.recv().await.unwrap()) {
            let (priority, head, text) = message(&frame).unwrap_or_else(|| panic!("{frame}"));
            assert_eq!((priority, &head[1..]), (109, &["cofferdam.test", "cofferdam", "-", "event"][..]));
            texts.push(text.to_owned());
        }
    }
    until("that is known", || sinks.standing()[0].next >= 7).await;
    assert_eq!(texts[..7], place.lines()[..7]);
    assert!(sinks.standing()[0].failures >= 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_with_another_certificate_gets_nothing() {
    let (place, pki, other) = (Place::new(), Pki::new(), Pki::new());
    let arrived = Arrived::default();
    let server = https(&pki, 0, taking(&arrived)).await;
    let log = place.open();
    notes(&log, 0..1).await;
    let sinks = place.start(&log, &sink("hook", "", &webhook(&other, server.port, "")));
    until("it failed", || sinks.standing()[0].failures >= 2).await;
    let error = sinks.standing()[0].error.clone().unwrap();
    assert!(error.contains("certificate"), "{error}");
    assert!(arrived.lock().unwrap().is_empty());
    // A replaced file counts without a restart.
    std::fs::copy(pki.path("ca.pem"), other.path("ca.pem")).unwrap();
    until("it arrived", || arrived.lock().unwrap().len() == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_otlp_rejects_has_not_arrived() {
    let (place, pki) = (Place::new(), Pki::new());
    let (bodies, rejecting) = (Arc::new(Mutex::new(Vec::<Value>::new())), Arc::new(Mutex::new(2)));
    let script: Script = Arc::new({
        let bodies = bodies.clone();
        move |seen: &Seen| {
            assert_eq!((seen.path.as_str(), &*seen.headers["content-type"]), ("/v1/logs", "application/json"));
            let mut left = rejecting.lock().unwrap();
            if *left > 0 {
                *left -= 1;
                let told = "{\"partialSuccess\":{\"rejectedLogRecords\":\"1\",\"errorMessage\":\"too odd\"}}";
                return Does::Answers(200, vec![], told.into());
            }
            bodies.lock().unwrap().push(serde_json::from_slice(&seen.body).unwrap());
            Does::Answers(200, vec![], "{\"partialSuccess\":{}}".into())
        }
    });
    let server = https(&pki, 0, script).await;
    let log = place.open();
    notes(&log, 0..3).await;
    let to = format!(
        "otlp]\nurl = \"https://localhost:{}/v1/logs\"\ntls = {{ ca = {:?} }}",
        server.port,
        pki.path("ca.pem")
    );
    let sinks = place.start(&log, &sink("otel", "batch_records = 3", &to));
    until("it arrived", || sinks.standing()[0].next >= 3).await;
    assert_eq!(sinks.standing()[0].failures, 2);
    let bodies = bodies.lock().unwrap();
    let resource = &bodies[0]["resourceLogs"][0];
    let name = json!({ "key": "service.name", "value": { "stringValue": "cofferdam" } });
    assert_eq!(resource["resource"]["attributes"][0], name);
    let records = resource["scopeLogs"][0]["logRecords"].as_array().unwrap();
    for ((index, record), line) in records.iter().enumerate().zip(place.lines()) {
        let read: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(record["body"]["stringValue"], line);
        // 64-bit numbers are text in this JSON.
        assert_eq!(record["timeUnixNano"], read["at"].to_string());
        assert_eq!(record["attributes"][0]["value"]["intValue"], index.to_string());
    }
    assert_eq!(records.len(), 3);
}
