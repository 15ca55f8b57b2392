//! API keys: the genuine one, and every way to tamper with it.
#![expect(clippy::string_slice, reason = "keys are ASCII, and are taken apart by position here")]

use cofferdam_model::id::platform_tenant;
use cofferdam_model::random::SeededRandom;
use cofferdam_model::{CredentialKind, PrincipalKind, Random, UnixNanos};

use super::{NOW, Scripted, World, clock, pepper};
use crate::identity::Identities;
use crate::{Credential, IdentityError, Pepper, Principal, Refusal, RevokedBy, api_key};

async fn identify(text: &str, world: &World) -> Result<Principal, Refusal> {
    let identities = Identities::new(vec![], pepper(), Scripted::down(), clock()).unwrap();
    identities.identify(Credential::ApiKey(text), world).await.map_err(|error| match error {
        IdentityError::Refused(refusal) => refusal,
        other => panic!("API keys need nothing from outside, and none is revoked: {other}"),
    })
}

#[tokio::test]
async fn a_genuine_key_is_its_service_account() {
    let world = World::new();
    let text = world.key(&world.acme, &["deployer", "viewer"], |_| {});
    let robot = identify(&text, &world).await.unwrap();
    assert_eq!(robot.kind(), PrincipalKind::ServiceAccount);
    assert_eq!(robot.id(), "robot");
    assert_eq!(robot.tenant(), Some(&world.acme));
    assert_eq!(robot.roles(), ["deployer", "viewer"]);
    let facts = robot.facts();
    assert_eq!(facts.credential, CredentialKind::ApiKey);
    let id = facts.credential_id.unwrap();
    assert!(id.starts_with(world.acme.as_str()), "{id}");
    assert!(!text.contains(&id) && !id.contains(&text[37..80]));
}

#[test]
fn a_key_has_its_documented_form_and_can_be_of_the_platform() {
    for seed in 0..50 {
        let (id, text, mac) = api_key::create(&platform_tenant(), &pepper(), &SeededRandom::new(seed));
        let text = text.expose();
        assert_eq!((text.len(), &text[..4], &text[36..37], &text[80..81]), (87, "cof_", "_", "_"), "{text}");
        assert_eq!(format!("t_{}.k_{}", &text[4..20], &text[20..36]), id.as_str());
        assert_ne!(mac, [0; 32]);
    }
}

#[tokio::test]
async fn a_key_tampered_with_anywhere_is_refused() {
    let world = World::new();
    let text = world.key(&world.acme, &["admin"], |_| {});
    for at in 0..text.len() {
        for with in ['0', 'A', '_', '.', 'z'] {
            let mut changed: Vec<char> = text.chars().collect();
            if changed[at] == with {
                continue;
            }
            changed[at] = with;
            let changed: String = changed.into_iter().collect();
            assert_eq!(identify(&changed, &world).await.unwrap_err(), Refusal::Malformed, "{at} {with}");
        }
    }
    let accented = text.replacen("cof_", "c\u{f6}f_", 1);
    for bad in
        ["", "cof_", &text[1..], &text[..86], &format!("{text}0"), &format!(" {text}"), &"cof_".repeat(22), &accented]
    {
        assert_eq!(identify(bad, &world).await.unwrap_err(), Refusal::Malformed, "{bad}");
    }
    assert_eq!(identify(&text.repeat(100), &world).await.unwrap_err(), Refusal::TooLong);
}

#[tokio::test]
async fn a_wellformed_key_nobody_was_given_is_refused() {
    let world = World::new();
    let (_, unknown, _) = api_key::create(&world.acme, &pepper(), &SeededRandom::new(99));
    assert_eq!(identify(unknown.expose(), &world).await.unwrap_err(), Refusal::ApiKey);

    let wrong_secret = world.key(&world.acme, &[], |record| record.mac[31] ^= 1);
    assert_eq!(identify(&wrong_secret, &world).await.unwrap_err(), Refusal::ApiKey);

    let zeroed = world.key(&world.acme, &[], |record| record.mac = [0; 32]);
    assert_eq!(identify(&zeroed, &world).await.unwrap_err(), Refusal::ApiKey);
}

#[tokio::test]
async fn a_stored_mac_is_good_for_its_own_key_and_pepper_only() {
    let world = World::new();
    let (_, _, stolen) = api_key::create(&world.acme, &Pepper::new([8; 32]), &SeededRandom::new(4));
    let other_pepper = world.key(&world.acme, &[], |record| record.mac = stolen);
    assert_eq!(identify(&other_pepper, &world).await.unwrap_err(), Refusal::ApiKey);

    // The same secret under another id has another MAC: one cannot be moved to the other's record.
    struct SameSecret(u8);
    impl Random for SameSecret {
        fn fill(&self, bytes: &mut [u8]) {
            let byte = if bytes.len() == 32 { 1 } else { self.0 };
            bytes.fill(byte);
        }
    }
    let [(first, _, one), (second, _, two)] =
        [2, 3].map(|seed| api_key::create(&world.acme, &pepper(), &SameSecret(seed)));
    assert_ne!(first, second);
    assert_ne!(one, two);

    // A directory that answers with another key's record is not believed either.
    let confused = world.key(&world.acme, &["admin"], |record| record.id = first);
    assert_eq!(identify(&confused, &world).await.unwrap_err(), Refusal::ApiKey);
}

#[tokio::test]
async fn revoked_expired_and_suspended_keys_are_refused() {
    let world = World::new();
    let expired = world.key(&world.acme, &[], |record| record.expires = UnixNanos::from_seconds(NOW));
    assert_eq!(identify(&expired, &world).await.unwrap_err(), Refusal::Expired);
    let good = world.key(&world.acme, &[], |_| {});
    assert!(identify(&good, &world).await.is_ok());
    world.revoked.lock().unwrap().insert("robot".into(), RevokedBy::Subject);
    for (text, why) in [
        (world.key(&world.acme, &[], |record| record.revoked = true), RevokedBy::ApiKey),
        (world.key(&world.suspended, &[], |_| {}), RevokedBy::Tenant),
        (good, RevokedBy::Subject),
    ] {
        let identities = Identities::new(vec![], pepper(), Scripted::down(), clock()).unwrap();
        match identities.identify(Credential::ApiKey(&text), &world).await {
            Err(IdentityError::Revoked { who, by, .. }) => assert_eq!((&*who.id, by), ("robot", why)),
            other => panic!("{why:?}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_credential_of_one_kind_is_never_tried_as_another() {
    let world = World::new();
    let text = world.key(&world.acme, &["admin"], |_| {});
    let identities = Identities::new(vec![], pepper(), Scripted::down(), clock()).unwrap();
    let refused = identities.identify(Credential::Bearer(&text), &world).await;
    assert!(matches!(refused, Err(IdentityError::Refused(Refusal::Malformed))));
    for empty in [Credential::Bearer(""), Credential::ApiKey("")] {
        assert!(matches!(identities.identify(empty, &world).await, Err(IdentityError::Refused(_))));
    }
}
