//! A transit engine, as HashiCorp Vault has one: versions of a key, tokens, namespaces, and its ways to say no.

use std::sync::Mutex;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::*;

const TOKEN: &str = "hvs.a-token-that-may";

/// What is in the engine.
struct Engine {
    versions: Vec<[u8; 32]>,
    min_decryption: usize,
    sealed: bool,
    throttled: bool,
    log: Vec<String>,
}

type Shared = Arc<Mutex<Engine>>;

fn no(status: u16, words: &str) -> (u16, String) {
    (status, json!({ "errors": [words] }).to_string())
}

fn data(data: Value) -> (u16, String) {
    (200, json!({ "request_id": "7c1f", "lease_id": "", "renewable": false, "data": data }).to_string())
}

fn handle(engine: &Shared, seen: Seen) -> (u16, String) {
    let mut engine = engine.lock().unwrap();
    engine.log.push(format!("{} {}", seen.method, seen.path));
    if engine.sealed {
        return no(503, "Vault is sealed");
    }
    if engine.throttled {
        return no(429, "request path \"transit\": rate limit quota exceeded");
    }
    let field = |name: &str| seen.headers.get(name).map(String::as_str).unwrap_or_default();
    if field("x-vault-token") != TOKEN || field("x-vault-namespace") != "team/security" {
        return no(403, "permission denied");
    }
    if seen.method != "POST" || field("x-vault-request") != "true" {
        return no(405, "unsupported operation");
    }
    let body: Value = serde_json::from_slice(&seen.body).unwrap_or_default();
    let sealed_with = |engine: &Engine, version: usize, plaintext: &[u8]| {
        let key = engine.versions[version - 1];
        let ciphertext = format!("vault:v{version}:{}", STANDARD.encode(crypt::seal(&key, b"", plaintext)));
        data(json!({ "ciphertext": ciphertext, "key_version": version }))
    };
    let opened = |engine: &Engine| -> Result<Vec<u8>, (u16, String)> {
        let text = body["ciphertext"].as_str().ok_or_else(|| no(400, "missing ciphertext to decrypt"))?;
        let rest = text.strip_prefix("vault:v").ok_or_else(|| no(400, "invalid ciphertext: no prefix"))?;
        let (version, bytes) =
            rest.split_once(':').ok_or_else(|| no(400, "invalid ciphertext: wrong number of fields"))?;
        let version: usize =
            version.parse().map_err(|_| no(400, "invalid ciphertext: version number could not be decoded"))?;
        if version < engine.min_decryption {
            return Err(no(400, "ciphertext or signature version is disallowed by policy (too old)"));
        }
        let key = engine.versions.get(version - 1).ok_or_else(|| no(400, "invalid ciphertext: version is too new"))?;
        let bytes = STANDARD.decode(bytes).map_err(|_| no(400, "invalid ciphertext: could not decode base64"))?;
        crypt::open(key, b"", &bytes).ok_or_else(|| no(400, "cipher: message authentication failed"))
    };
    let newest = engine.versions.len();
    match seen.path.as_str() {
        "/v1/transit/encrypt/cofferdam" => match STANDARD.decode(body["plaintext"].as_str().unwrap_or("!")) {
            Ok(plaintext) => sealed_with(&engine, newest, &plaintext),
            Err(_) => no(400, "failed to base64-decode plaintext"),
        },
        "/v1/transit/decrypt/cofferdam" => {
            opened(&engine).map_or_else(|no| no, |plain| data(json!({ "plaintext": STANDARD.encode(plain) })))
        }
        "/v1/transit/rewrap/cofferdam" => {
            opened(&engine).map_or_else(|no| no, |plain| sealed_with(&engine, newest, &plain))
        }
        "/v1/transit/keys/cofferdam/rotate" => {
            engine.versions.push([newest as u8 + 1; 32]);
            (204, String::new())
        }
        _ => no(404, "no handler for route"),
    }
}

struct World {
    engine: Shared,
    server: Server,
    root: Arc<dyn RootKey>,
}

impl World {
    fn new() -> Self {
        let engine =
            Engine { versions: vec![[1; 32]], min_decryption: 0, sealed: false, throttled: false, log: vec![] };
        let engine: Shared = Arc::new(Mutex::new(engine));
        let inside = engine.clone();
        let server = Server::start(Arc::new(move |seen| handle(&inside, seen)));
        server.private("token", &format!("{TOKEN}\n"));
        let root = opened(&Self::config(&server));
        Self { engine, server, root }
    }

    fn config(server: &Server) -> Provider {
        let config = json!({ "vault": {
            "address": server.url, "namespace": "team/security", "token_file": server.dir.path().join("token"),
            "ca": server.ca(),
        } });
        serde_json::from_value(config).unwrap()
    }

    fn engine<T>(&self, look: impl FnOnce(&mut Engine) -> T) -> T {
        look(&mut self.engine.lock().unwrap())
    }
}

#[test]
fn transit_wraps_and_unwraps_and_binds_a_key_to_its_tenant() {
    let (world, wrapping) = (World::new(), Wrapping::new());
    world.root.check().unwrap();
    let wrapped = world.root.wrap(&wrapping.context(), &wrapping.key).unwrap();
    assert_eq!(wrapped.root, "vault:transit/cofferdam:v1");
    assert!(world.root.knows(&wrapped.root) && !world.root.knows("vault:transit/other:v1"));
    assert_eq!(world.root.unwrap(&wrapping.context(), &wrapped).unwrap(), wrapping.key);
    let other = Wrapping { tenant: TenantId::mint(&SeededRandom::new(77)), ..Wrapping::new() };
    assert!(is_wrong(&world.root.unwrap(&other.context(), &wrapped).unwrap_err()));
    let later = WrapContext { version: 4, ..wrapping.context() };
    assert!(is_wrong(&world.root.unwrap(&later, &wrapped).unwrap_err()));
    let mut bent = wrapped.clone();
    *bent.bytes.last_mut().unwrap() = b'!';
    assert!(is_wrong(&world.root.unwrap(&wrapping.context(), &bent).unwrap_err()));
}

#[test]
fn transit_rotates_and_rewraps_without_showing_the_key() {
    let (world, wrapping) = (World::new(), Wrapping::new());
    let old = world.root.wrap(&wrapping.context(), &wrapping.key).unwrap();
    assert_eq!(world.root.rewrap(&wrapping.context(), &old).unwrap(), None, "it is by the newest already");
    world.engine(|engine| engine.log.clear());
    world.root.begin_rotation().unwrap();
    let new = world.root.rewrap(&wrapping.context(), &old).unwrap().unwrap();
    let asked = world.engine(|engine| engine.log.clone());
    assert_eq!(asked, ["POST /v1/transit/keys/cofferdam/rotate", "POST /v1/transit/rewrap/cofferdam"]);
    assert_eq!(new.root, "vault:transit/cofferdam:v2");
    assert!(world.root.is_current(&new.root) && !world.root.is_current(&old.root));
    world.engine(|engine| engine.min_decryption = 2);
    assert_eq!(world.root.unwrap(&wrapping.context(), &new).unwrap(), wrapping.key);
    assert!(is_wrong(&world.root.unwrap(&wrapping.context(), &old).unwrap_err()));
    assert!(matches!(world.root.end_rotation(true), Err(RootError::Unsupported(_))));
}

#[test]
fn transit_that_is_sealed_busy_or_forbids_is_told_apart() {
    let (world, wrapping) = (World::new(), Wrapping::new());
    let wrapped = world.root.wrap(&wrapping.context(), &wrapping.key).unwrap();
    world.engine(|engine| engine.sealed = true);
    let sealed = world.root.unwrap(&wrapping.context(), &wrapped).unwrap_err();
    assert!(is_unavailable(&sealed) && sealed.to_string().contains("Vault is sealed"), "{sealed}");
    world.engine(|engine| (engine.sealed, engine.throttled) = (false, true));
    assert!(is_unavailable(&world.root.check().unwrap_err()));
    world.engine(|engine| engine.throttled = false);
    world.server.private("token", "hvs.another");
    let forbidden = world.root.unwrap(&wrapping.context(), &wrapped).unwrap_err();
    assert!(is_refused(&forbidden) && forbidden.to_string().contains("permission denied"), "{forbidden}");
    assert!(!forbidden.to_string().contains("hvs."), "no token in an error");
    // A token that was put in its place is taken up with the next request.
    world.server.private("token", TOKEN);
    assert_eq!(world.root.unwrap(&wrapping.context(), &wrapped).unwrap(), wrapping.key);
}
