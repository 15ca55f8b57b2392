//! Metadata services as their documentation has them: an instance's, in its second version alone, and a container's.

use std::sync::Mutex;
use std::time::Duration;

use cofferdam_model::Clock as _;
use serde_json::{Value, json};

use super::super::config::AwsKms;
use super::super::metadata::Metadata;
use super::*;

const ROLES: &str = "/latest/meta-data/iam/security-credentials/";

#[derive(Default)]
struct Service {
    /// Tokens of the instance's service that are good.
    tokens: Vec<String>,
    /// What a container has to show.
    authorization: Option<String>,
    down: bool,
    /// When the next credentials end.
    until: String,
    /// Credentials lent so far.
    lent: usize,
    /// Requests for tokens so far.
    asked_tokens: usize,
}

type Shared = Arc<Mutex<Service>>;

impl Service {
    fn credentials(&mut self) -> (u16, String) {
        self.lent += 1;
        let body = json!({
            "Code": "Success", "Type": "AWS-HMAC", "LastUpdated": "2026-11-20T10:00:00Z", "AccessKeyId": kms::ACCESS,
            "SecretAccessKey": kms::SECRET, "Token": kms::SESSION, "Expiration": self.until, "Number": self.lent,
        });
        (200, body.to_string())
    }

    fn instance(&mut self, seen: &Seen) -> (u16, String) {
        let field = |name: &str| seen.headers.get(name).map(String::as_str);
        if self.down {
            return (500, "down".into());
        }
        if field("x-forwarded-for").is_some() || field("host").is_none_or(|host| !host.starts_with("127.0.0.1:")) {
            return (403, String::new());
        }
        if (seen.method.as_str(), seen.path.as_str()) == ("PUT", "/latest/api/token") {
            self.asked_tokens += 1;
            let seconds = field("x-aws-ec2-metadata-token-ttl-seconds").and_then(|text| text.parse::<u32>().ok());
            if !seconds.is_some_and(|seconds| (1..=21_600).contains(&seconds)) {
                return (400, String::new());
            }
            self.tokens.push(format!("token-{}==", self.asked_tokens));
            return (200, self.tokens.last().unwrap().clone());
        }
        // No token, no answer: that is what tells the second version from the first.
        if !field("x-aws-ec2-metadata-token").is_some_and(|token| self.tokens.iter().any(|known| known == token)) {
            return (401, String::new());
        }
        match seen.path.strip_prefix(ROLES) {
            Some("") if seen.method == "GET" => (200, "node-role\n".into()),
            Some("node-role") if seen.method == "GET" => self.credentials(),
            _ => (404, String::new()),
        }
    }

    fn container(&mut self, seen: &Seen) -> (u16, String) {
        match (seen.method.as_str(), seen.path.as_str()) {
            _ if seen.headers.get("authorization") != self.authorization.as_ref() => (403, String::new()),
            ("GET", "/v1/credentials") => self.credentials(),
            _ => (404, String::new()),
        }
    }
}

struct World {
    service: Shared,
    server: Server,
    clock: Arc<ManualClock>,
}

impl World {
    fn new(answer: fn(&mut Service, &Seen) -> (u16, String)) -> Self {
        let service: Shared = Arc::default();
        let inside = service.clone();
        let server = Server::plain(Arc::new(move |seen| answer(&mut inside.lock().unwrap(), &seen)));
        let world = Self { service, server, clock: Arc::new(ManualClock::at(UnixNanos::from_seconds(NOW))) };
        world.lends_for(3600);
        world
    }

    fn lends_for(&self, seconds: u64) {
        let until = self.clock.now().plus(Duration::from_secs(seconds));
        self.service(|service| service.until = until.to_string());
    }

    fn service<T>(&self, look: impl FnOnce(&mut Service) -> T) -> T {
        look(&mut self.service.lock().unwrap())
    }

    fn metadata(&self, from: &str, more: &Value) -> Metadata {
        let mut config = json!({ "key_id": "k", "region": "eu-central-1", "credentials_from": from });
        config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let config: AwsKms = serde_json::from_value(config).unwrap();
        Metadata::new(config.credentials_from.unwrap(), &config, self.clock.clone()).unwrap()
    }

    fn instance(&self) -> Metadata {
        self.metadata("instance", &json!({ "metadata": self.server.url }))
    }
}

#[test]
fn kms_is_asked_with_credentials_that_the_instance_lends() {
    let (world, kms, wrapping) = (World::new(Service::instance), kms::World::new(), Wrapping::new());
    let root = kms.root_with("one", &json!({ "credentials_from": "instance", "metadata": world.server.url }));
    root.check().unwrap();
    let wrapped = root.wrap(&wrapping.context(), &wrapping.key).unwrap();
    assert_eq!(root.unwrap(&wrapping.context(), &wrapped).unwrap(), wrapping.key);
    assert_eq!(world.service(|service| (service.lent, service.asked_tokens)), (1, 1));
}

#[test]
fn lent_credentials_are_renewed_early_and_asked_for_once_by_all() {
    let world = World::new(Service::instance);
    let metadata = world.instance();
    let all = |most: usize| {
        std::thread::scope(|scope| {
            let each: Vec<_> = (0..most).map(|_| scope.spawn(|| metadata.keys().map(|keys| keys.access))).collect();
            each.into_iter().for_each(|one| assert_eq!(one.join().unwrap().unwrap(), kms::ACCESS));
        });
        world.service(|service| service.lent)
    };
    assert_eq!(all(32), 1);
    world.clock.advance(Duration::from_secs(3299));
    assert_eq!(all(1), 1);
    world.clock.advance(Duration::from_secs(1));
    world.lends_for(3600);
    assert_eq!(all(8), 2, "five minutes before they end");
    assert_eq!(world.service(|service| service.asked_tokens), 1, "the service's token is good for longer");
}

#[test]
fn lent_credentials_are_used_to_their_end_while_the_service_is_down_and_no_longer() {
    let world = World::new(Service::instance);
    let metadata = world.instance();
    metadata.keys().unwrap();
    world.service(|service| service.down = true);
    world.clock.advance(Duration::from_secs(3599));
    assert!(metadata.keys().is_ok());
    world.clock.advance(Duration::from_secs(1));
    assert!(is_unavailable(&metadata.keys().err().unwrap()));
    world.service(|service| service.down = false);
    world.lends_for(3600);
    world.clock.advance(Duration::from_secs(1));
    metadata.keys().unwrap();
}

#[test]
fn token_that_the_instance_forgot_is_asked_for_again_and_refused_credentials_too() {
    let world = World::new(Service::instance);
    let metadata = world.instance();
    metadata.keys().unwrap();
    world.service(|service| service.tokens.clear());
    metadata.doubt();
    metadata.keys().unwrap();
    assert_eq!(world.service(|service| (service.lent, service.asked_tokens)), (2, 2));
    // Credentials that have ended are none.
    world.lends_for(0);
    metadata.doubt();
    assert!(is_unavailable(&metadata.keys().err().unwrap()));
}

#[test]
fn container_shows_the_token_of_its_file_as_it_is_now() {
    let world = World::new(Service::container);
    let token_file = world.server.private("token", "first\n");
    world.service(|service| service.authorization = Some("first".into()));
    let at = format!("{}/v1/credentials", world.server.url);
    let metadata = world.metadata("container", &json!({ "metadata": at, "metadata_token_file": token_file }));
    assert_eq!(metadata.keys().unwrap().session.unwrap().as_str(), kms::SESSION);
    world.service(|service| service.authorization = Some("second".into()));
    metadata.doubt();
    let error = metadata.keys().err().unwrap();
    assert!(is_refused(&error) && !error.to_string().contains("first"), "{error}");
    world.server.private("token", "second\n");
    world.clock.advance(Duration::from_secs(1));
    metadata.keys().unwrap();
}
