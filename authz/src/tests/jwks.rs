//! Key sets: which keys are taken, and how they are kept over rotation, outage and attack.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cofferdam_model::clock::ManualClock;
use serde_json::{Value, json};

use super::tokens::{Signer, b64, claims, set};
use super::{Scripted, World, clock, issuer, pepper};
use crate::identity::Identities;
use crate::{Credential, FetchError, IdentityError, IssuerError, JwksSource, Refusal};

const ISS: &str = "https://issuer.test";

/// How asking for a principal ended.
#[derive(Debug, PartialEq)]
enum Answer {
    Known,
    Refused(Refusal),
    Unavailable,
}

struct Setting {
    source: Arc<Scripted>,
    clock: Arc<ManualClock>,
    identities: Identities,
    world: World,
}

impl Setting {
    fn new(source: Arc<Scripted>) -> Self {
        let clock = clock();
        let mut config = issuer(ISS, "EdDSA RS256 ES256");
        config.max_age_seconds = 60;
        config.max_stale_seconds = 200;
        let identities = Identities::new(vec![config], pepper(), source.clone(), clock.clone()).unwrap();
        Self { source, clock, identities, world: World::new() }
    }

    async fn ask(&self, token: &str) -> Answer {
        match self.identities.identify(Credential::Bearer(token), &self.world).await {
            Ok(_) => Answer::Known,
            Err(IdentityError::Refused(refusal)) => Answer::Refused(refusal),
            Err(IdentityError::Unavailable { .. } | IdentityError::Overloaded) => Answer::Unavailable,
            Err(other) => panic!("nothing is revoked: {other}"),
        }
    }

    fn pass(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }
}

/// Lets every task that can run do so.
async fn settle() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

/// Whether a token signed with `signer`, whose key is published as `jwk`, is believed.
async fn taken(signer: &Signer, algorithm: &str, keys: &[Value]) -> Answer {
    let setting = Setting::new(Scripted::with(set(keys)));
    setting.ask(&signer.token(algorithm, "k1", &claims(ISS))).await
}

#[tokio::test]
async fn keys_not_meant_for_signatures_are_passed_over() {
    let signer = Signer::ed();
    let beside = Signer::ed().jwk("k2");
    let with = |name: &str, value: Value| {
        let mut jwk = signer.jwk("k1");
        jwk[name] = value;
        jwk
    };
    for jwk in [
        with("use", json!("enc")),
        with("use", json!(7)),
        with("key_ops", json!(["sign"])),
        with("key_ops", json!("verify")),
        with("alg", json!("ES256")),
        with("alg", json!("RS512")),
        with("alg", json!(7)),
        with("kty", json!("oct")),
        with("kty", json!("EC")),
        with("crv", json!("X25519")),
        with("crv", json!("Ed448")),
        with("d", json!(b64([1; 32]))),
        with("x", json!(b64([1; 31]))),
        with("kid", json!(7)),
        with("kid", json!("")),
    ] {
        let answer = taken(&signer, "EdDSA", &[jwk.clone(), beside.clone()]).await;
        assert_eq!(answer, Answer::Refused(Refusal::UnknownKey), "{jwk}");
    }
    for jwk in [with("use", json!("sig")), with("key_ops", json!(["verify"])), with("alg", json!("EdDSA"))] {
        assert_eq!(taken(&signer, "EdDSA", &[jwk.clone(), beside.clone()]).await, Answer::Known, "{jwk}");
    }
}

#[tokio::test]
async fn secret_weak_and_misshapen_keys_are_passed_over() {
    let beside = Signer::ed().jwk("k2");
    let shared = Signer::Shared(vec![7; 32]);
    let p384 = Signer::p384();
    let rsa = Signer::rsa();
    let rsa_with = |name: &str, value: String| {
        let mut jwk = rsa.jwk("k1");
        jwk[name] = json!(value);
        jwk
    };
    let mut mislabelled = p384.jwk("k1");
    mislabelled["crv"] = json!("P-256");
    for (signer, algorithm, jwk) in [
        (&shared, "HS256", shared.jwk("k1")),
        (&p384, "ES256", p384.jwk("k1")),
        (&p384, "ES256", mislabelled),
        (&rsa, "RS256", rsa_with("n", b64([0xff; 128]))),
        (&rsa, "RS256", rsa_with("n", b64([&[0u8; 128][..], &[0xff; 128]].concat()))),
        (&rsa, "RS256", rsa_with("n", b64([0xfe; 256]))),
        (&rsa, "RS256", rsa_with("n", b64([0xff; 2000]))),
        (&rsa, "RS256", rsa_with("n", String::new())),
        (&rsa, "RS256", rsa_with("e", b64([1]))),
        (&rsa, "RS256", rsa_with("e", b64([2]))),
        (&rsa, "RS256", rsa_with("e", b64([1; 9]))),
    ] {
        let answer = taken(signer, algorithm, &[jwk.clone(), beside.clone()]).await;
        let expected = if algorithm == "HS256" { Refusal::Algorithm } else { Refusal::UnknownKey };
        assert_eq!(answer, Answer::Refused(expected), "{jwk}");
    }
}

#[tokio::test]
async fn a_set_that_leaves_doubt_is_refused_whole() {
    let signer = Signer::ed();
    let jwk = signer.jwk("k1");
    let token = signer.token("EdDSA", "k1", &claims(ISS));
    let doubled = set(std::slice::from_ref(&jwk)).replacen('{', "{\"keys\":[],", 1);
    let member = format!("{{\"keys\":[{}]}}", jwk.to_string().replacen('{', "{\"kid\":\"k0\",", 1));
    for bad in [
        set(&[jwk.clone(), Signer::ed().jwk("k1")]),
        set(&[jwk.clone(), jwk.clone()]),
        set(&[]),
        set(&vec![jwk.clone(); 129]),
        doubled,
        member,
        "[]".into(),
        "{}".into(),
        "{\"keys\":{}}".into(),
        String::new(),
        format!("{}{}", set(std::slice::from_ref(&jwk)), " ".repeat(crate::JWKS_BYTES)),
    ] {
        let setting = Setting::new(Scripted::with(bad.clone()));
        assert_eq!(setting.ask(&token).await, Answer::Unavailable, "{bad:.200}");
    }
}

#[tokio::test]
async fn a_new_key_is_found_when_first_used_and_a_removed_one_stops_at_the_next_look() {
    let (old, new) = (Signer::ed(), Signer::ed());
    let setting = Setting::new(Scripted::with(set(&[old.jwk("old")])));
    let by_old = old.token("EdDSA", "old", &claims(ISS));
    assert_eq!(setting.ask(&by_old).await, Answer::Known);
    setting.source.now(Some(set(&[new.jwk("new")])));
    assert_eq!(setting.ask(&by_old).await, Answer::Known);
    assert_eq!(setting.source.count(), 1);

    assert_eq!(setting.ask(&new.token("EdDSA", "new", &claims(ISS))).await, Answer::Known);
    assert_eq!(setting.source.count(), 2);
    // Also the token that was verified and remembered: its key is gone.
    assert_eq!(setting.ask(&by_old).await, Answer::Refused(Refusal::UnknownKey));
}

#[tokio::test]
async fn a_key_replaced_under_the_same_name_does_not_keep_its_tokens() {
    let (first, second) = (Signer::ed(), Signer::ed());
    let setting = Setting::new(Scripted::with(set(&[first.jwk("k1")])));
    let token = first.token("EdDSA", "k1", &claims(ISS));
    assert_eq!(setting.ask(&token).await, Answer::Known);
    setting.source.now(Some(set(&[second.jwk("k1")])));
    setting.pass(61);
    assert_eq!(setting.ask(&token).await, Answer::Known, "aged, but had: nobody waits for the new set");
    settle().await;
    assert_eq!(setting.ask(&token).await, Answer::Refused(Refusal::Signature));
}

#[tokio::test]
async fn an_outage_is_bridged_with_the_keys_had_and_then_told_as_such() {
    let signer = Signer::ed();
    let setting = Setting::new(Scripted::down());
    let token = signer.token("EdDSA", "k1", &claims(ISS));
    assert_eq!(setting.ask(&token).await, Answer::Unavailable, "never had: nobody can say it is bad");
    assert_eq!(setting.ask(&token).await, Answer::Unavailable);
    assert_eq!(setting.source.count(), 1, "a source that failed is left alone for a moment");

    setting.source.now(Some(set(&[signer.jwk("k1")])));
    setting.pass(5);
    assert_eq!(setting.ask(&token).await, Answer::Known);
    setting.source.now(None);
    for _ in 0..3 {
        setting.pass(61);
        assert_eq!(setting.ask(&token).await, Answer::Known, "stale, but had");
        settle().await;
    }
    let unknown = Signer::ed().token("EdDSA", "k2", &claims(ISS));
    assert_eq!(setting.ask(&unknown).await, Answer::Unavailable, "it might be the new key");
    setting.pass(61);
    assert_eq!(setting.ask(&token).await, Answer::Unavailable, "too stale to be believed");
}

#[tokio::test]
async fn many_callers_cause_one_request() {
    let signer = Signer::ed();
    let source = Arc::new(Scripted {
        answer: Some(set(&[signer.jwk("k1")]).into_bytes()).into(),
        fetches: 0.into(),
        gate: Some(tokio::sync::Semaphore::new(0)),
    });
    let setting = Arc::new(Setting::new(source));
    let token: Arc<str> = signer.token("EdDSA", "k1", &claims(ISS)).into();
    let callers: Vec<_> = (0..20)
        .map(|_| {
            let (setting, token) = (setting.clone(), token.clone());
            tokio::spawn(async move { setting.ask(&token).await })
        })
        .collect();
    settle().await;
    assert_eq!(setting.source.count(), 1);
    setting.source.gate.as_ref().unwrap().add_permits(1);
    for caller in callers {
        assert_eq!(caller.await.unwrap(), Answer::Known);
    }
    assert_eq!(setting.source.count(), 1);
}

#[tokio::test]
async fn many_callers_share_one_failure() {
    let source =
        Arc::new(Scripted { answer: None.into(), fetches: 0.into(), gate: Some(tokio::sync::Semaphore::new(0)) });
    let setting = Arc::new(Setting::new(source));
    let token: Arc<str> = Signer::ed().token("EdDSA", "k1", &claims(ISS)).into();
    let callers: Vec<_> = (0..20)
        .map(|_| {
            let (setting, token) = (setting.clone(), token.clone());
            tokio::spawn(async move { setting.ask(&token).await })
        })
        .collect();
    settle().await;
    setting.source.gate.as_ref().unwrap().add_permits(1);
    for caller in callers {
        assert_eq!(caller.await.unwrap(), Answer::Unavailable);
    }
    assert_eq!(setting.source.count(), 1);
}

#[tokio::test]
async fn a_caller_who_goes_away_does_not_stop_the_request_the_others_wait_for() {
    let signer = Signer::ed();
    let source = Arc::new(Scripted {
        answer: Some(set(&[signer.jwk("k1")]).into_bytes()).into(),
        fetches: 0.into(),
        gate: Some(tokio::sync::Semaphore::new(0)),
    });
    let setting = Arc::new(Setting::new(source));
    let token: Arc<str> = signer.token("EdDSA", "k1", &claims(ISS)).into();
    let ask = || {
        let (setting, token) = (setting.clone(), token.clone());
        tokio::spawn(async move { setting.ask(&token).await })
    };
    let first = ask();
    settle().await;
    let second = ask();
    settle().await;
    first.abort();
    settle().await;
    setting.source.gate.as_ref().unwrap().add_permits(1);
    assert_eq!(second.await.unwrap(), Answer::Known);
    assert_eq!(setting.source.count(), 1);
}

#[tokio::test]
async fn unknown_keys_are_asked_for_on_a_budget() {
    let signer = Signer::ed();
    let setting = Setting::new(Scripted::with(set(&[signer.jwk("k1")])));
    assert_eq!(setting.ask(&signer.token("EdDSA", "k1", &claims(ISS))).await, Answer::Known);
    let stranger = Signer::ed();
    for attempt in 0..50 {
        let token = stranger.token("EdDSA", &format!("x{attempt}"), &claims(ISS));
        assert_eq!(setting.ask(&token).await, Answer::Refused(Refusal::UnknownKey));
    }
    assert_eq!(setting.source.count(), 1 + 5, "the first set, and the budget");
    setting.pass(10);
    for name in ["y", "y", "z"] {
        let token = stranger.token("EdDSA", name, &claims(ISS));
        assert_eq!(setting.ask(&token).await, Answer::Refused(Refusal::UnknownKey));
    }
    assert_eq!(setting.source.count(), 1 + 5 + 1, "one more after ten seconds");
}

#[tokio::test]
async fn a_key_just_found_missing_is_not_asked_for_again() {
    let signer = Signer::ed();
    let setting = Setting::new(Scripted::with(set(&[signer.jwk("k1")])));
    let token = Signer::ed().token("EdDSA", "x", &claims(ISS));
    for _ in 0..10 {
        assert_eq!(setting.ask(&token).await, Answer::Refused(Refusal::UnknownKey));
    }
    assert_eq!(setting.source.count(), 1);
    setting.pass(30);
    assert_eq!(setting.ask(&token).await, Answer::Refused(Refusal::UnknownKey));
    assert_eq!(setting.source.count(), 2);
}

#[tokio::test]
async fn a_key_file_is_read_again_for_an_unknown_key() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("jwks.json");
    let (old, new) = (Signer::ed(), Signer::ed());
    let mut config = issuer(ISS, "EdDSA");
    (config.jwks_url, config.jwks_file) = (None, Some(path.clone()));
    let declare = || Identities::new(vec![config.clone()], pepper(), Scripted::down(), clock());
    assert!(matches!(declare(), Err(IssuerError::KeyFile { .. })), "no such file");
    std::fs::write(&path, "{}").unwrap();
    assert!(matches!(declare(), Err(IssuerError::KeyFile { .. })), "no key in it");
    std::fs::write(&path, set(&[old.jwk("old")])).unwrap();
    let identities = declare().unwrap();
    std::fs::write(&path, set(&[new.jwk("new")])).unwrap();
    let world = World::new();
    let by_new = new.token("EdDSA", "new", &claims(ISS));
    assert!(identities.identify(Credential::Bearer(&by_new), &world).await.is_ok());
}

/// A source that answers by address.
struct Addresses(Mutex<HashMap<String, String>>);

impl JwksSource for Addresses {
    fn fetch<'a>(
        &'a self,
        url: &'a str,
    ) -> std::pin::Pin<Box<dyn Future<Output = Result<Vec<u8>, FetchError>> + Send + 'a>> {
        let found = self.0.lock().unwrap().get(url).cloned();
        Box::pin(async move { found.map(String::into_bytes).ok_or_else(|| FetchError::new(url, "nothing there")) })
    }
}

#[tokio::test]
async fn keys_are_found_by_discovery_and_follow_where_it_leads() {
    let (old, new) = (Signer::ed(), Signer::ed());
    let document = "https://issuer.test/.well-known/openid-configuration".to_owned();
    let leading_to = |url: &str| json!({"issuer": ISS, "jwks_uri": url}).to_string();
    let source = Arc::new(Addresses(Mutex::new(HashMap::from([
        (document.clone(), leading_to("https://keys.test/1")),
        ("https://keys.test/1".to_owned(), set(&[old.jwk("old")])),
        ("https://keys.test/2".to_owned(), set(&[new.jwk("new")])),
    ]))));
    let mut config = issuer(ISS, "EdDSA");
    config.jwks_url = None;
    let identities = Identities::new(vec![config], pepper(), source.clone(), clock()).unwrap();
    let world = World::new();
    let by_old = old.token("EdDSA", "old", &claims(ISS));
    assert!(identities.identify(Credential::Bearer(&by_old), &world).await.is_ok());
    source.0.lock().unwrap().insert(document.clone(), leading_to("https://keys.test/2"));
    let by_new = new.token("EdDSA", "new", &claims(ISS));
    assert!(identities.identify(Credential::Bearer(&by_new), &world).await.is_ok());
    assert!(identities.identify(Credential::Bearer(&by_old), &world).await.is_err(), "its key is listed no more");

    let lies = json!({"issuer": "https://issuer.test/", "jwks_uri": "https://keys.test/1"}).to_string();
    source.0.lock().unwrap().insert(document, lies);
    let refused = identities.identify(Credential::Bearer(&by_old), &world).await;
    assert!(matches!(refused, Err(IdentityError::Unavailable { .. } | IdentityError::Refused(_))));
    let next = Signer::ed().token("EdDSA", "next", &claims(ISS));
    let refused = identities.identify(Credential::Bearer(&next), &world).await;
    assert!(matches!(refused, Err(IdentityError::Unavailable { .. })), "{refused:?}");
}

#[tokio::test]
async fn keys_are_renewed_in_the_background_before_a_call_would_have_to() {
    let signer = Signer::ed();
    let setting = Setting::new(Scripted::with(set(&[signer.jwk("k1")])));
    setting.identities.renew_keys();
    settle().await;
    assert_eq!(setting.source.count(), 1, "also before anybody asked");
    for (seconds, fetches) in [(10, 1), (30, 1), (5, 2), (44, 2), (1, 3)] {
        setting.pass(seconds);
        setting.identities.renew_keys();
        settle().await;
        assert_eq!(setting.source.count(), fetches, "three quarters of 60 seconds");
    }
    assert_eq!(setting.ask(&signer.token("EdDSA", "k1", &claims(ISS))).await, Answer::Known);
    assert_eq!(setting.source.count(), 3, "no call had to ask");
    let gauges = setting.identities.gauges();
    assert_eq!(gauges.key_sets, [("fresh", 1), ("stale", 0), ("absent", 0)]);
    assert_eq!(gauges.fetches, [("had", 3), ("failed", 0)]);
}

#[tokio::test]
async fn a_node_that_starts_while_its_issuer_is_away_uses_the_keys_it_kept_but_not_for_longer() {
    let dir = tempfile::tempdir().unwrap();
    let (signer, time) = (Signer::ed(), clock());
    let source = Scripted::with(set(&[signer.jwk("k1")]));
    let start = || {
        let mut config = issuer(ISS, "EdDSA");
        (config.max_age_seconds, config.max_stale_seconds) = (60, 200);
        config.lifetime_seconds = 3600;
        Identities::keeping(vec![config], pepper(), source.clone(), time.clone(), Some(dir.path())).unwrap()
    };
    let world = World::new();
    let mut long = claims(ISS);
    long["exp"] = json!(super::NOW + 3000);
    let token = signer.token("EdDSA", "k1", &long);
    let ask = async |identities: &Identities| identities.identify(Credential::Bearer(&token), &world).await;
    assert!(ask(&start()).await.is_ok());
    // The set is put away by a task nobody waits for.
    let kept = || {
        std::fs::read_dir(dir.path())
            .unwrap()
            .filter(|e| e.as_ref().unwrap().path().extension().is_some_and(|x| x == "json"))
            .count()
    };
    while kept() == 0 {
        tokio::task::yield_now().await;
    }
    source.now(None);
    time.advance(Duration::from_secs(199));
    let restarted = start();
    assert!(ask(&restarted).await.is_ok(), "stale, and of before the start");
    assert_eq!(restarted.gauges().key_sets, [("fresh", 0), ("stale", 1), ("absent", 0)]);
    time.advance(Duration::from_secs(2));
    assert!(
        matches!(ask(&restarted).await, Err(IdentityError::Unavailable { .. })),
        "a start does not make it younger"
    );
    assert!(matches!(ask(&start()).await, Err(IdentityError::Unavailable { .. })));
    assert_eq!(start().gauges().key_sets, [("fresh", 0), ("stale", 0), ("absent", 1)]);
}
