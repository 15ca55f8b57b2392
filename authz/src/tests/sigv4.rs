//! Signed requests: the genuine one, and every way to bend it.

use std::net::IpAddr;

use cofferdam_model::{Bound, CredentialKind, KeyKind, UnixNanos};

use super::signer::{Draft, SOURCE, STAMP, Scene, Shown, Signer};
use super::{NOW, Scripted, clock, pepper};
use crate::identity::Identities;
use crate::{ApiKeyRecord, Credential, Refusal};

#[test]
fn a_signed_request_is_its_service_account_and_bound_to_its_key() {
    let scene = Scene::new();
    let signer = scene.signer(|_| {});
    for shown in [
        signer.header(&Draft::get(), None),
        signer.header(&Draft::get(), Some("a=1&a=2&b=")),
        signer.header(&Draft::of("POST", b"hello").declared().with("content-type", "text/plain"), None),
        signer.presigned(&Draft::get(), 60),
    ] {
        let who = scene.shows(&shown).unwrap();
        assert_eq!((who.id(), who.bound(), who.credential()), ("signer", Bound::Sigv4, CredentialKind::Sigv4));
        assert_eq!((who.tenant(), who.roles()), (Some(&scene.world.acme), &["invoker".to_owned()][..]));
        assert_eq!(who.facts().bound, Bound::Sigv4);
    }
}

#[test]
fn whatever_is_bent_in_a_signed_request_is_refused() {
    let scene = Scene::new();
    let signer = scene.signer(|_| {});
    let draft = || Draft::of("PUT", b"hello").with("content-type", "text/plain");
    let bent = |change: &dyn Fn(&mut Shown)| {
        let mut shown = signer.header(&draft(), Some("a=1&b=2"));
        change(&mut shown);
        scene.shows(&shown).unwrap_err()
    };
    assert_eq!(bent(&|it| it.method = "POST"), Refusal::Signature);
    assert_eq!(bent(&|it| it.path = "/orders/2".into()), Refusal::Signature);
    assert_eq!(bent(&|it| it.query = Some("a=1&b=3".into())), Refusal::Signature);
    assert_eq!(bent(&|it| it.query = Some("a=1&a=1&b=2".into())), Refusal::Signature);
    assert_eq!(bent(&|it| it.query = None), Refusal::Signature);
    assert_eq!(bent(&|it| it.body = b"hellp".to_vec()), Refusal::Signature);
    assert_eq!(bent(&|it| it.fields[0].1 = b"text/html".to_vec()), Refusal::Signature);
    assert_eq!(bent(&|it| it.fields[1].1 = b"other.example".to_vec()), Refusal::Signature);
    assert_eq!(
        bent(&|it| {
            it.field("content-type", "text/html");
        }),
        Refusal::Signature
    );
    assert_eq!(bent(&|it| drop(it.fields.remove(0))), Refusal::Signature);
    // Unbent, it is taken.
    assert!(scene.shows(&signer.header(&draft(), Some("a=1&b=2"))).is_ok());
}

#[test]
fn whatever_is_bent_in_a_signature_itself_is_refused() {
    let scene = Scene::new();
    let signer = scene.signer(|_| {});
    for (from, to, refusal) in [
        ("Signature=", "Signature=0", Refusal::Malformed),
        ("us-east-1", "us-east-2", Refusal::Scope),
        ("execute-api", "s3", Refusal::Scope),
        ("execute-api", "lambda", Refusal::Signature),
        ("20261120/", "20261119/", Refusal::Scope),
        ("aws4_request", "aws4_requests", Refusal::Malformed),
        ("/aws4_request", "", Refusal::Malformed),
        ("host;", "", Refusal::Unsigned),
        ("content-type;", "", Refusal::Unsigned),
        ("content-type;host", "host;content-type", Refusal::Malformed),
        ("host;", "host;host;", Refusal::Malformed),
        ("host;", "host;missing;", Refusal::Signature),
        ("host;", "Host;", Refusal::Malformed),
        (", Signed", ", Credential=x, Signed", Refusal::Malformed),
        ("AWS4-HMAC-SHA256", "AWS4-HMAC-SHA512", Refusal::Malformed),
    ] {
        let mut shown = signer.header(&Draft::of("PUT", b"hello").with("content-type", "text/plain"), None);
        assert_eq!(scene.shows(shown.bend(from, to)).unwrap_err(), refusal, "{from} to {to}");
    }
}

#[test]
fn a_signature_is_compared_whole() {
    let scene = Scene::new();
    let shown = scene.signer(|_| {}).header(&Draft::get(), None);
    let text = String::from_utf8(shown.fields.last().unwrap().1.clone()).unwrap();
    let (before, signature) = text.split_once("Signature=").unwrap();
    for length in 0..64 {
        let cut: String = signature.chars().take(length).collect();
        for other in [cut.clone(), format!("{cut:0<64}"), format!("{signature}{cut}0")] {
            let mut bent = shown.clone();
            bent.fields.last_mut().unwrap().1 = format!("{before}Signature={other}").into_bytes();
            assert!(other == signature || scene.shows(&bent).is_err(), "{other}");
        }
    }
    let mut capitals = shown.clone();
    capitals.fields.last_mut().unwrap().1 = format!("{before}Signature={}", signature.to_uppercase()).into_bytes();
    assert_eq!(scene.shows(&capitals).unwrap_err(), Refusal::Malformed);
}

#[test]
fn fields_of_amazons_that_are_not_signed_are_refused() {
    let scene = Scene::new();
    let signer = scene.signer(|_| {});
    for (name, value) in [("x-amz-meta", "1"), ("x-amz-content-sha256", "UNSIGNED-PAYLOAD"), ("content-type", "a/b")] {
        let mut shown = signer.header(&Draft::get(), None);
        assert_eq!(scene.shows(shown.field(name, value)).unwrap_err(), Refusal::Unsigned, "{name}");
    }
    let mut twice = signer.header(&Draft::get(), None);
    assert_eq!(scene.shows(twice.field("x-amz-date", STAMP)).unwrap_err(), Refusal::Malformed);
    let token = signer.header(&Draft::get().with("x-amz-security-token", "t"), None);
    assert_eq!(scene.shows(&token).unwrap_err(), Refusal::TwoCredentials);
    let folded = signer.header(&Draft::get().with("x-amz-meta", "a b,c"), None);
    let mut sent = folded.clone();
    let at = sent.fields.iter().position(|(name, _)| name == "x-amz-meta").unwrap();
    sent.fields[at].1 = b"  a   b ".to_vec();
    assert!(scene.shows(sent.field("x-amz-meta", "c")).is_ok(), "values are folded as the signer does");
}

#[test]
fn two_credentials_at_once_are_refused() {
    let scene = Scene::new();
    let signer = scene.signer(|_| {});
    let mut both = signer.presigned(&Draft::get(), 60);
    let field = signer.header(&Draft::get(), None).fields.pop().unwrap().1;
    both.fields.push(("authorization".into(), field.clone()));
    assert_eq!(scene.shows(&both).unwrap_err(), Refusal::TwoCredentials);
    for part in ["X-Amz-Expires=60", "x-amz-date=1", "X-Amz-Security-Token=t", "X-Amz-SignedHeaders=host"] {
        let mixed = signer.header(&Draft::get(), Some(part));
        assert_eq!(scene.shows(&mixed).unwrap_err(), Refusal::TwoCredentials, "{part}");
    }
    let mut twice = signer.header(&Draft::get(), None);
    twice.fields.push(("authorization".into(), field));
    assert_eq!(scene.shows(&twice).unwrap_err(), Refusal::Malformed);
    let mut dated = signer.presigned(&Draft::get().with("x-amz-date", STAMP), 60);
    dated.query = dated.query.map(|query| query.replace("SignedHeaders=host", "SignedHeaders=host%3Bx-amz-date"));
    assert_eq!(scene.shows(&dated).unwrap_err(), Refusal::TwoCredentials);
}

#[test]
fn clocks_may_differ_by_a_quarter_of_an_hour_and_no_more() {
    let scene = Scene::new();
    let signer = scene.signer(|_| {});
    let at = |stamp: &str| scene.shows(&signer.header(&Draft::get().at(stamp), None)).map(drop);
    assert_eq!(at("20261120T102301Z"), Ok(()));
    assert_eq!(at("20261120T102300Z"), Err(Refusal::Expired));
    assert_eq!(at("20261120T105300Z"), Ok(()));
    assert_eq!(at("20261120T105301Z"), Err(Refusal::NotYetValid));
    assert_eq!(at("20261121T103800Z"), Err(Refusal::Scope));
}

#[test]
fn presigned_urls_are_good_for_as_long_as_they_say_and_no_longer_than_allowed() {
    let scene = Scene::new();
    let signer = scene.signer(|_| {});
    let shows = |seconds, stamp: &str| scene.shows(&signer.presigned(&Draft::get().at(stamp), seconds)).map(drop);
    assert_eq!(shows(3600, STAMP), Ok(()));
    assert_eq!(shows(3601, STAMP), Err(Refusal::Lifetime));
    assert_eq!(shows(0, STAMP), Err(Refusal::Malformed));
    assert_eq!(shows(60, "20261120T103701Z"), Ok(()));
    assert_eq!(shows(60, "20261120T103700Z"), Err(Refusal::Expired));
    assert_eq!(shows(60, "20261120T105301Z"), Err(Refusal::NotYetValid));
    let bend = |from: &str, to: &str| {
        let mut shown = signer.presigned(&Draft::get(), 60);
        shown.query = shown.query.map(|query| query.replace(from, to));
        scene.shows(&shown).unwrap_err()
    };
    assert_eq!(bend("Expires=60", "Expires=600"), Refusal::Signature);
    assert_eq!(bend("Expires=60", "Expires=+60"), Refusal::Malformed);
    assert_eq!(bend("a=1", "a=1&X-Amz-Expires=60"), Refusal::Malformed);
    assert_eq!(bend("a=1", "a=1&x-amz-expires=60"), Refusal::Malformed);
    assert_eq!(bend("a=1", "a=1&%58-Amz-Signature=0"), Refusal::Malformed);
    assert_eq!(bend("a=1", "a=1&a=1"), Refusal::Signature);
    assert_eq!(bend("a=1", "a=1&&"), Refusal::Malformed);
    assert_eq!(bend("a=1", "a=%zz"), Refusal::Malformed);
    assert_eq!(bend("a=1", "a=1&X-Amz-Security-Token=t"), Refusal::TwoCredentials);
    assert_eq!(bend("SignedHeaders=host", "SignedHeaders=a"), Refusal::Unsigned);
    assert_eq!(bend("&X-Amz-Expires=60", ""), Refusal::Malformed);
}

#[test]
fn what_changes_something_is_done_once() {
    let scene = Scene::new();
    let signer = scene.signer(|_| {});
    let put = signer.header(&Draft::of("PUT", b"x"), None);
    assert!(scene.shows(&put).is_ok());
    assert_eq!(scene.shows(&put).unwrap_err(), Refusal::Replay);
    scene.clock.advance(std::time::Duration::from_secs(899));
    assert_eq!(scene.shows(&put).unwrap_err(), Refusal::Replay);
    scene.clock.advance(std::time::Duration::from_secs(1));
    assert_eq!(scene.shows(&put).unwrap_err(), Refusal::Expired);
    // What was signed before the node started may have been shown to it then.
    let before = Scene::new();
    let earlier = before.signer(|_| {}).header(&Draft::of("PUT", b"x").at("20261120T103759Z"), None);
    assert_eq!(before.shows(&earlier).unwrap_err(), Refusal::Replay);
    // Reading again changes nothing.
    let get = signer.header(&Draft::get().at("20261120T105200Z"), None);
    assert!(scene.shows(&get).is_ok() && scene.shows(&get).is_ok());
    // A refused signature takes no room.
    let posted = signer.presigned(&Draft::of("POST", b"x").at("20261120T105200Z"), 600);
    let mut bent = posted.clone();
    bent.body = b"y".to_vec();
    assert_eq!(scene.shows(&bent).unwrap_err(), Refusal::Signature);
    assert!(scene.shows(&posted).is_ok());
    assert_eq!(scene.shows(&posted).unwrap_err(), Refusal::Replay);
}

#[test]
fn a_body_is_left_unsigned_only_by_keys_that_may() {
    let scene = Scene::new();
    let mut draft = Draft::of("PUT", b"anything");
    draft.payload.0 = "UNSIGNED-PAYLOAD".into();
    let draft = draft.declared();
    assert_eq!(scene.shows(&scene.signer(|_| {}).header(&draft, None)).unwrap_err(), Refusal::Claims);
    let may = scene.signer(|record| record.settings.unsigned_payload = true);
    assert!(scene.shows(&may.header(&draft, None)).is_ok());
    for digest in
        ["STREAMING-AWS4-HMAC-SHA256-PAYLOAD", "", "E3B0C44298FC1C149AFBF4C8996FB92427AE41E4649B934CA495991B7852B855"]
    {
        let mut draft = Draft::of("PUT", b"");
        draft.payload.0 = digest.into();
        assert_eq!(scene.shows(&may.header(&draft.declared(), None)).unwrap_err(), Refusal::Malformed, "{digest}");
    }
}

#[tokio::test]
async fn access_keys_end_are_revoked_and_are_bound_to_networks() {
    let scene = Scene::new();
    let get = Draft::get();
    let refused = |change: fn(&mut ApiKeyRecord)| scene.shows(&scene.signer(change).header(&get, None)).unwrap_err();
    assert_eq!(refused(|record| record.revoked = true), Refusal::Revoked);
    assert_eq!(refused(|record| record.expires = UnixNanos::from_seconds(NOW)), Refusal::Expired);
    assert_eq!(refused(|record| record.settings.kind = KeyKind::ApiKey), Refusal::ApiKey);
    let bound = |record: &mut ApiKeyRecord| {
        record.settings.networks = vec!["192.0.2.0/24".to_owned().try_into().unwrap()];
    };
    let shown = scene.signer(bound).header(&get, None);
    assert!(scene.shows(&shown).is_ok());
    assert_eq!(scene.shows_from([198, 51, 100, 1].into(), &shown).unwrap_err(), Refusal::Network);
    let (id, secret) = scene.world.access_key(&scene.world.suspended, &["admin"], |_| {});
    assert_eq!(scene.shows(&Signer { id, secret }.header(&get, None)).unwrap_err(), Refusal::Tenant);
    let unknown = Signer { id: format!("COFK{}", "0".repeat(32)), secret: "x".into() };
    assert_eq!(scene.shows(&unknown.header(&get, None)).unwrap_err(), Refusal::ApiKey);
    let other = Signer { secret: "not it".into(), ..scene.signer(|_| {}) };
    assert_eq!(scene.shows(&other.header(&get, None)).unwrap_err(), Refusal::Signature);
    // The same of keys that are shown; where their source is not told, they are good from nowhere.
    let key = scene.world.key(&scene.world.acme, &["invoker"], bound);
    let shows = async |source: Option<[u8; 4]>| {
        let source = source.map(IpAddr::from);
        scene.identities.identify_from(source, Credential::ApiKey(&key), &scene.world).await.is_ok()
    };
    assert!(shows(Some(SOURCE)).await);
    assert!(!shows(Some([198, 51, 100, 1])).await && !shows(None).await);
}

#[test]
fn without_access_keys_no_signature_is_taken() {
    let scene = Scene::new();
    let shown = scene.signer(|_| {}).header(&Draft::get(), None);
    let identities = Identities::new(vec![], pepper(), Scripted::down(), clock()).unwrap();
    let bare = Scene { identities, ..scene };
    assert_eq!(bare.shows(&shown).unwrap_err(), Refusal::Malformed);
}
