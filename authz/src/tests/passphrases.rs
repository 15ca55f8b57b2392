//! People known by passphrase: the right one, the wrong one, nobody, and too many tries.

use std::sync::Arc;
use std::time::Duration;

use cofferdam_model::random::SeededRandom;
use cofferdam_model::{CredentialKind, PrincipalKind};
use serde_json::json;

use super::{Scripted, World, clock, pepper};
use crate::identity::Identities;
use crate::passphrase::{Cost, hash};
use crate::{Credential, IdentityError, IssuerConfig, Login, Refusal, RevokedBy, UserRecord};

const OWN: &str = "https://node.test/-/issuer";
const RIGHT: &[u8] = b"correct horse battery staple";
const CHEAP: Cost = Cost { memory_kib: 64, passes: 1 };

fn own() -> IssuerConfig {
    let mut config: IssuerConfig = serde_json::from_value(json!({
        "issuer": OWN, "audience": "cofferdam", "algorithms": ["EdDSA"],
        "tenant_claim": "tenant", "roles_claim": "roles",
    }))
    .unwrap();
    config.held = true;
    config
}

fn world() -> World {
    let mut world = World::new();
    let passphrase = hash(RIGHT, CHEAP, &SeededRandom::new(3)).unwrap();
    let record = Arc::new(UserRecord { passphrase, roles: vec!["invoker".into()] });
    world.users.insert((world.acme.clone(), "alice".into()), record.clone());
    world.users.insert((world.suspended.clone(), "alice".into()), record);
    world
}

fn login<'a>(tenant: &'a str, user: &'a str, passphrase: &'a [u8], last: u8) -> Credential<'a> {
    Credential::Passphrase(Login { tenant, user, passphrase, source: [192, 0, 2, last].into() })
}

#[tokio::test]
async fn a_right_passphrase_is_its_user_and_nothing_else_tells_users_from_nobody() {
    let world = world();
    let identities = Identities::new(vec![own()], pepper(), Scripted::down(), clock()).unwrap();
    let alice = identities.identify(login("acme", "alice", RIGHT, 1), &world).await.unwrap();
    assert_eq!((alice.kind(), alice.id(), alice.issuer()), (PrincipalKind::User, "alice", Some(OWN)));
    assert_eq!((alice.roles(), alice.credential()), (&["invoker".to_owned()][..], CredentialKind::Passphrase));
    for (tenant, user, passphrase) in [
        ("acme", "alice", &b"correct horse battery stapl"[..]),
        ("acme", "nobody", RIGHT),
        ("other", "alice", RIGHT),
        ("nowhere", "alice", RIGHT),
        ("acme", "", b""),
    ] {
        let refused = identities.identify(login(tenant, user, passphrase, 2), &world).await;
        assert!(matches!(refused, Err(IdentityError::Refused(Refusal::Passphrase))), "{tenant}/{user}: {refused:?}");
    }
    let long = vec![b'x'; 1025];
    let refused = identities.identify(login("acme", "alice", &long, 3), &world).await;
    assert!(matches!(refused, Err(IdentityError::Refused(Refusal::TooLong))));
    let suspended = identities.identify(login("suspended", "alice", RIGHT, 4), &world).await;
    assert!(matches!(suspended, Err(IdentityError::Revoked { by: RevokedBy::Tenant, .. })));
    let elsewhere = Identities::new(vec![], pepper(), Scripted::down(), clock()).unwrap();
    let refused = elsewhere.identify(login("acme", "alice", RIGHT, 1), &world).await;
    assert!(matches!(refused, Err(IdentityError::Refused(Refusal::Passphrase))), "a node without an issuer of its own");
}

#[tokio::test]
async fn tries_are_limited_by_user_and_address_alike_for_users_and_nobody() {
    let world = world();
    for user in ["alice", "nobody"] {
        let clock = clock();
        let identities = Identities::new(vec![own()], pepper(), Scripted::down(), clock.clone()).unwrap();
        let throttled = async |passphrase: &[u8], last: u8| {
            let outcome = identities.identify(login("acme", user, passphrase, last), &world).await;
            matches!(outcome, Err(IdentityError::Throttled { .. }))
        };
        // Nobody's are of the usual cost, so few of them are tried here.
        for _ in 0..5 {
            assert!(!throttled(b"wrong passphrase", 1).await, "{user}");
        }
        assert!(throttled(RIGHT, 1).await, "{user}: also the right one");
        assert!(!throttled(b"wrong passphrase", 2).await, "{user}: another address has tries of its own");
        clock.advance(Duration::from_secs(10));
        assert!(!throttled(b"wrong passphrase", 1).await, "{user}: one more after ten seconds");
        assert!(throttled(b"wrong passphrase", 1).await, "{user}");
    }
}
