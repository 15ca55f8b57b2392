//! AWS KMS as its API reference has it: JSON 1.1, `x-amz-target`, Signature Version 4 checked for real, encryption
//! context bound, errors by name.

use std::collections::BTreeMap;
use std::sync::Mutex;

use aws_lc_rs::{digest, hmac};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::*;

pub(super) const ACCESS: &str = "AKIAEXAMPLE";
pub(super) const SECRET: &str = "an/aws+secret";
pub(super) const SESSION: &str = "a-session-token";

fn arn(id: &str) -> String {
    format!("arn:aws:kms:eu-central-1:111122223333:key/{id}")
}

#[derive(Default)]
struct Service {
    /// By id: the material, and the state.
    keys: BTreeMap<String, ([u8; 32], &'static str)>,
    refuse: Option<(u16, &'static str)>,
    log: Vec<String>,
}

type Shared = Arc<Mutex<Service>>;

fn no(status: u16, kind: &str) -> (u16, String) {
    // With a namespace, as some of its front ends put one.
    (
        status,
        json!({ "__type": format!("com.amazonaws.kms#{kind}"), "message": format!("{kind}, it says") }).to_string(),
    )
}

fn sha256(bytes: &[u8]) -> String {
    digest::digest(&digest::SHA256, bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Works the signature out from what came over the wire, by the rules of AWS's documentation.
fn signature_is_good(seen: &Seen) -> Result<(), &'static str> {
    let field = |name: &str| seen.headers.get(name).map(String::as_str);
    let given = field("authorization").ok_or("MissingAuthenticationTokenException")?;
    let rest = given.strip_prefix("AWS4-HMAC-SHA256 ").ok_or("IncompleteSignatureException")?;
    let parts: BTreeMap<&str, &str> = rest.split(", ").filter_map(|part| part.split_once('=')).collect();
    let [access, day, region, service, end] = parts["Credential"].split('/').collect::<Vec<_>>()[..] else {
        return Err("IncompleteSignatureException");
    };
    let at = field("x-amz-date").ok_or("IncompleteSignatureException")?;
    if access != ACCESS || field("x-amz-security-token") != Some(SESSION) {
        return Err("UnrecognizedClientException");
    }
    // A real one allows five minutes; here the clock stands still.
    if (at, at.get(..8).unwrap_or_default(), region, service, end)
        != ("20261120T103800Z", day, "eu-central-1", "kms", "aws4_request")
    {
        return Err("InvalidSignatureException");
    }
    let signed: Vec<&str> = parts["SignedHeaders"].split(';').collect();
    let all_signed = ["host", "x-amz-date", "x-amz-target", "content-type"].iter().all(|name| signed.contains(name));
    if !all_signed || !signed.is_sorted() {
        return Err("IncompleteSignatureException");
    }
    let mut canonical = format!("{}\n{}\n\n", seen.method, seen.path);
    for name in &signed {
        let value = field(name).ok_or("IncompleteSignatureException")?;
        canonical.push_str(&format!("{name}:{}\n", value.split_whitespace().collect::<Vec<_>>().join(" ")));
    }
    canonical.push_str(&format!("\n{}\n{}", signed.join(";"), sha256(&seen.body)));
    let scope = format!("{day}/{region}/{service}/aws4_request");
    let text = format!("AWS4-HMAC-SHA256\n{at}\n{scope}\n{}", sha256(canonical.as_bytes()));
    let mut key = format!("AWS4{SECRET}").into_bytes();
    for part in [day, region, service, "aws4_request"] {
        key = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), part.as_bytes()).as_ref().to_vec();
    }
    let expected = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), text.as_bytes());
    let expected: String = expected.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    if expected == parts["Signature"] { Ok(()) } else { Err("InvalidSignatureException") }
}

/// The context in the one order that is bound.
fn bound(context: &Value) -> Vec<u8> {
    let map: BTreeMap<String, String> = serde_json::from_value(context.clone()).unwrap_or_default();
    serde_json::to_vec(&map).unwrap()
}

impl Service {
    fn key(&self, named: &Value) -> Result<(String, [u8; 32]), (u16, String)> {
        let id = named.as_str().unwrap_or_default().rsplit('/').next().unwrap_or_default().to_owned();
        match self.keys.get(&id) {
            None => Err(no(400, "NotFoundException")),
            Some((_, "Disabled")) => Err(no(400, "DisabledException")),
            Some((material, _)) => Ok((id, *material)),
        }
    }

    fn encrypt(&self, named: &Value, context: &Value, plaintext: &[u8]) -> Result<(String, String), (u16, String)> {
        let (id, key) = self.key(named)?;
        let blob = [id.as_bytes(), b":", &crypt::seal(&key, &bound(context), plaintext)].concat();
        Ok((arn(&id), STANDARD.encode(blob)))
    }

    fn decrypt(&self, named: &Value, context: &Value, blob: &Value) -> Result<(String, Vec<u8>), (u16, String)> {
        let invalid = || no(400, "InvalidCiphertextException");
        let blob = STANDARD.decode(blob.as_str().unwrap_or_default()).map_err(|_| invalid())?;
        let at = blob.iter().position(|byte| *byte == b':').ok_or_else(invalid)?;
        let (id, key) = self.key(named)?;
        if id.as_bytes() != &blob[..at] {
            return Err(no(400, "IncorrectKeyException"));
        }
        let plain = crypt::open(&key, &bound(context), &blob[at + 1..]).ok_or_else(invalid)?;
        Ok((arn(&id), plain))
    }
}

fn handle(service: &Shared, seen: &Seen) -> Result<Value, (u16, String)> {
    let mut service = service.lock().unwrap();
    let target = seen.headers.get("x-amz-target").cloned().unwrap_or_default();
    service.log.push(target.clone());
    if let Some((status, kind)) = service.refuse {
        return Err(no(status, kind));
    }
    signature_is_good(seen).map_err(|kind| no(400, kind))?;
    if seen.method != "POST" || seen.path != "/" || seen.headers["content-type"] != "application/x-amz-json-1.1" {
        return Err(no(404, "UnknownOperationException"));
    }
    let body: Value = serde_json::from_slice(&seen.body).map_err(|_| no(400, "SerializationException"))?;
    match target.as_str() {
        "TrentService.Encrypt" => {
            let plain = STANDARD.decode(body["Plaintext"].as_str().unwrap_or_default()).unwrap();
            let (arn, blob) = service.encrypt(&body["KeyId"], &body["EncryptionContext"], &plain)?;
            Ok(json!({ "KeyId": arn, "CiphertextBlob": blob, "EncryptionAlgorithm": "SYMMETRIC_DEFAULT" }))
        }
        "TrentService.Decrypt" => {
            let (arn, plain) = service.decrypt(&body["KeyId"], &body["EncryptionContext"], &body["CiphertextBlob"])?;
            Ok(json!({ "KeyId": arn, "Plaintext": STANDARD.encode(plain), "EncryptionAlgorithm": "SYMMETRIC_DEFAULT" }))
        }
        "TrentService.ReEncrypt" => {
            let source = &body["SourceEncryptionContext"];
            let (from, plain) = service.decrypt(&body["SourceKeyId"], source, &body["CiphertextBlob"])?;
            let (arn, blob) =
                service.encrypt(&body["DestinationKeyId"], &body["DestinationEncryptionContext"], &plain)?;
            Ok(json!({ "KeyId": arn, "SourceKeyId": from, "CiphertextBlob": blob }))
        }
        "TrentService.DescribeKey" => {
            let id = body["KeyId"].as_str().unwrap_or_default().rsplit('/').next().unwrap_or_default().to_owned();
            let (_, state) = service.keys.get(&id).ok_or_else(|| no(400, "NotFoundException"))?;
            let enabled = *state == "Enabled";
            Ok(json!({ "KeyMetadata": { "KeyId": id, "Arn": arn(&id), "Enabled": enabled, "KeyState": state } }))
        }
        _ => Err(no(400, "UnknownOperationException")),
    }
}

pub(super) struct World {
    service: Shared,
    server: Server,
}

impl World {
    pub(super) fn new() -> Self {
        let service: Shared = Arc::default();
        for (id, byte) in [("one", 1), ("two", 2)] {
            service.lock().unwrap().keys.insert(id.into(), ([byte; 32], "Enabled"));
        }
        let inside = service.clone();
        let server = Server::start(Arc::new(move |seen| match handle(&inside, &seen) {
            Ok(answer) => (200, answer.to_string()),
            Err(no) => no,
        }));
        let world = Self { service, server };
        world.credentials(SECRET);
        world
    }

    fn credentials(&self, secret: &str) {
        let text = format!(
            "[other]\naws_access_key_id = X\n\n[node]\naws_access_key_id = {ACCESS}\naws_secret_access_key={secret}\n\
             aws_session_token = {SESSION}\n"
        );
        self.server.private("credentials", &text);
    }

    fn root(&self, id: &str) -> Arc<dyn RootKey> {
        let file = self.server.dir.path().join("credentials");
        self.root_with(id, &json!({ "profile": "node", "credentials_file": file }))
    }

    /// A key whose credentials are somewhere else.
    pub(super) fn root_with(&self, id: &str, more: &Value) -> Arc<dyn RootKey> {
        let mut config = json!({
            "key_id": arn(id), "region": "eu-central-1", "endpoint": self.server.url, "ca": self.server.ca(),
        });
        config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        opened(&serde_json::from_value(json!({ "aws-kms": config })).unwrap())
    }

    fn service<T>(&self, look: impl FnOnce(&mut Service) -> T) -> T {
        look(&mut self.service.lock().unwrap())
    }
}

#[test]
fn kms_wraps_and_unwraps_with_the_tenant_as_encryption_context() {
    let (world, wrapping) = (World::new(), Wrapping::new());
    let root = world.root("one");
    root.check().unwrap();
    let wrapped = root.wrap(&wrapping.context(), &wrapping.key).unwrap();
    assert_eq!(wrapped.root, format!("aws-kms:{}", arn("one")));
    assert_eq!(root.unwrap(&wrapping.context(), &wrapped).unwrap(), wrapping.key);
    let other = Wrapping { tenant: TenantId::mint(&SeededRandom::new(77)), ..Wrapping::new() };
    assert!(is_wrong(&root.unwrap(&other.context(), &wrapped).unwrap_err()));
    let later = WrapContext { version: 4, ..wrapping.context() };
    assert!(is_wrong(&root.unwrap(&later, &wrapped).unwrap_err()));
    let elsewhere = cofferdam_control::vault::Wrapped { root: format!("aws-kms:{}", arn("two")), ..wrapped };
    assert!(is_wrong(&root.unwrap(&wrapping.context(), &elsewhere).unwrap_err()));
}

#[test]
fn kms_rewraps_from_key_to_key_without_showing_it() {
    let (world, wrapping) = (World::new(), Wrapping::new());
    let old = world.root("one").wrap(&wrapping.context(), &wrapping.key).unwrap();
    let root = world.root("two");
    world.service(|service| service.log.clear());
    let new = root.rewrap(&wrapping.context(), &old).unwrap().unwrap();
    assert_eq!(world.service(|service| service.log.clone()), ["TrentService.ReEncrypt"]);
    assert!(root.knows(&old.root) && !root.is_current(&old.root) && root.is_current(&new.root));
    world.service(|service| service.keys.insert("one".into(), ([1; 32], "Disabled")));
    assert_eq!(root.unwrap(&wrapping.context(), &new).unwrap(), wrapping.key);
    assert!(is_refused(&root.unwrap(&wrapping.context(), &old).unwrap_err()));
}

#[test]
fn kms_errors_are_told_apart_by_name() {
    let (world, wrapping) = (World::new(), Wrapping::new());
    let root = world.root("one");
    let wrapped = root.wrap(&wrapping.context(), &wrapping.key).unwrap();
    let refusing = |status: u16, kind: &'static str| {
        world.service(|service| service.refuse = Some((status, kind)));
        root.unwrap(&wrapping.context(), &wrapped).unwrap_err()
    };
    for (status, kind) in [(400, "ThrottlingException"), (500, "KMSInternalException"), (503, "ServiceUnavailable")] {
        let error = refusing(status, kind);
        assert!(is_unavailable(&error) && error.to_string().contains(kind), "{error}");
    }
    for kind in ["AccessDeniedException", "DisabledException", "ExpiredTokenException", "KMSInvalidStateException"] {
        assert!(is_refused(&refusing(400, kind)), "{kind}");
    }
    assert!(matches!(refusing(400, "SomethingNewException"), RootError::Nonsense(_)));
    world.service(|service| service.refuse = None);
    assert_eq!(root.unwrap(&wrapping.context(), &wrapped).unwrap(), wrapping.key);
    world.service(|service| service.keys.insert("one".into(), ([1; 32], "Disabled")));
    assert!(is_refused(&root.check().unwrap_err()));
}

#[test]
fn kms_refuses_another_signature_and_no_secret_is_in_the_error() {
    let world = World::new();
    world.credentials("another+secret");
    let root = world.root("one");
    let error = root.check().unwrap_err();
    assert!(is_refused(&error) && error.to_string().contains("InvalidSignatureException"), "{error}");
    assert!(!error.to_string().contains("another+secret"));
    world.credentials(SECRET);
    root.check().unwrap();
}
