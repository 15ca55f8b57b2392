//! Tokens that must be believed, and every way known to us by which one must not.

use serde_json::{Value, json};

use super::tokens::{Signer, b64, claims, claims_but, set};
use super::{NOW, Scripted, World, clock, issuer, pepper};
use crate::identity::Identities;
use crate::{Credential, IdentityError, IssuerConfig, IssuerError, Principal, Refusal, RevokedBy};

const ISS: &str = "https://issuer.test";

async fn identify(identities: &Identities, token: &str, world: &World) -> Result<Principal, Refusal> {
    identities.identify(Credential::Bearer(token), world).await.map_err(|error| match error {
        IdentityError::Refused(refusal) => refusal,
        other => panic!("the keys are there and nothing is revoked: {other}"),
    })
}

fn with_key(signer: &Signer, config: IssuerConfig) -> Identities {
    let source = Scripted::with(set(&[signer.jwk("k1")]));
    Identities::new(vec![config], pepper(), source, clock()).unwrap()
}

/// What becomes of a token of this text, honestly signed by the issuer's own key.
async fn signed(header: &str, claims: &str) -> Result<Principal, Refusal> {
    let signer = Signer::ed();
    let identities = with_key(&signer, issuer(ISS, "EdDSA ES256"));
    identify(&identities, &signer.token_of(header, claims, "EdDSA"), &World::new()).await
}

const HEADER: &str = r#"{"alg":"EdDSA","typ":"JWT","kid":"k1"}"#;

#[tokio::test]
async fn a_good_token_of_each_algorithm_is_believed() {
    let mut world = World::new();
    world.members.insert((world.acme.clone(), "alice".into()), vec!["deployer".into()]);
    for (algorithm, signer) in [
        ("RS256", Signer::rsa()),
        ("RS384", Signer::rsa()),
        ("RS512", Signer::rsa()),
        ("PS256", Signer::rsa()),
        ("PS384", Signer::rsa()),
        ("PS512", Signer::rsa()),
        ("ES256", Signer::ec()),
        ("ES384", Signer::p384()),
        ("EdDSA", Signer::ed()),
    ] {
        let identities = with_key(&signer, issuer(ISS, algorithm));
        let token = signer.token(algorithm, "k1", &claims(ISS));
        for round in ["verified", "remembered"] {
            let alice = identify(&identities, &token, &world).await.unwrap();
            assert_eq!(alice.id(), "alice", "{algorithm} {round}");
            assert_eq!(alice.issuer(), Some(ISS));
            assert_eq!(alice.tenant(), Some(&world.acme));
            assert_eq!(alice.roles(), ["deployer"]);
            assert_eq!(alice.facts().credential_id.as_deref(), Some("token-1"));
        }
    }
}

#[tokio::test]
async fn a_shared_secret_signs_only_where_it_was_declared() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("secret");
    std::fs::write(&path, [&[b's'; 32][..], b"\n"].concat()).unwrap();
    let signer = Signer::Shared(vec![b's'; 32]);
    let mut config = issuer(ISS, "HS256");
    config.jwks_url = None;
    config.hs256_secret_file = Some(path.clone());
    let identities = Identities::new(vec![config.clone()], pepper(), Scripted::down(), clock()).unwrap();
    let world = World::new();
    let token = signer.token("HS256", "any", &claims(ISS));
    assert_eq!(identify(&identities, &token, &world).await.unwrap().id(), "alice");
    let forged = Signer::Shared(vec![b't'; 32]).token("HS256", "any", &claims(ISS));
    assert_eq!(identify(&identities, &forged, &world).await.unwrap_err(), Refusal::Signature);

    std::fs::write(&path, b"short\n").unwrap();
    let refused = Identities::new(vec![config], pepper(), Scripted::down(), clock());
    assert!(matches!(refused, Err(IssuerError::KeyFile { .. })));
}

#[tokio::test]
async fn a_public_key_is_never_taken_for_a_shared_secret() {
    let signer = Signer::rsa();
    let identities = with_key(&signer, issuer(ISS, "RS256"));
    let jwk = signer.jwk("k1");
    for material in [jwk["n"].as_str().unwrap().to_owned(), jwk.to_string()] {
        let forged = Signer::Shared(material.into_bytes()).token("HS256", "k1", &claims(ISS));
        assert_eq!(identify(&identities, &forged, &World::new()).await.unwrap_err(), Refusal::Algorithm);
    }
}

#[tokio::test]
async fn a_key_verifies_only_what_its_own_words_and_the_declaration_allow() {
    let signer = Signer::rsa();
    let world = World::new();
    let token = signer.token("PS256", "k1", &claims(ISS));
    let identities = with_key(&signer, issuer(ISS, "RS256"));
    assert_eq!(identify(&identities, &token, &world).await.unwrap_err(), Refusal::Algorithm);

    let mut jwk = signer.jwk("k1");
    jwk["alg"] = json!("RS256");
    let source = Scripted::with(set(&[jwk]));
    let identities = Identities::new(vec![issuer(ISS, "RS256 PS256")], pepper(), source, clock()).unwrap();
    assert_eq!(identify(&identities, &token, &world).await.unwrap_err(), Refusal::Algorithm);
    let token = signer.token("RS256", "k1", &claims(ISS));
    assert!(identify(&identities, &token, &world).await.is_ok());
}

#[tokio::test]
async fn headers_that_say_anything_else_are_refused() {
    let good = claims(ISS).to_string();
    for (header, why) in [
        (r#"{"alg":"none","typ":"JWT","kid":"k1"}"#, Refusal::Algorithm),
        (r#"{"alg":"None","typ":"JWT","kid":"k1"}"#, Refusal::Algorithm),
        (r#"{"alg":"HS256","typ":"JWT","kid":"k1"}"#, Refusal::Algorithm),
        (r#"{"alg":"RS256","typ":"JWT","kid":"k1"}"#, Refusal::Algorithm),
        (r#"{"alg":"ES256","typ":"JWT","kid":"k1"}"#, Refusal::Algorithm),
        (r#"{"alg":["EdDSA"],"typ":"JWT","kid":"k1"}"#, Refusal::Algorithm),
        (r#"{"typ":"JWT","kid":"k1"}"#, Refusal::Algorithm),
        (r#"{"alg":"EdDSA","typ":"JWT","kid":"k1","crit":["exp"]}"#, Refusal::Header),
        (r#"{"alg":"EdDSA","typ":"JWT","kid":"k1","jku":"https://evil.test/jwks"}"#, Refusal::Header),
        (r#"{"alg":"EdDSA","typ":"JWT","kid":"k1","jwk":{"kty":"OKP"}}"#, Refusal::Header),
        (r#"{"alg":"EdDSA","typ":"JWT","kid":"k1","x5u":"https://evil.test"}"#, Refusal::Header),
        (r#"{"alg":"EdDSA","typ":"JWT","kid":"k1","x5c":["MII"]}"#, Refusal::Header),
        (r#"{"alg":"EdDSA","typ":"JWT","kid":"k1","b64":false}"#, Refusal::Header),
        (r#"{"alg":"EdDSA","kid":"k1"}"#, Refusal::Type),
        (r#"{"alg":"EdDSA","typ":"id+jwt","kid":"k1"}"#, Refusal::Type),
        (r#"{"alg":"EdDSA","typ":"dpop+jwt","kid":"k1"}"#, Refusal::Type),
        (r#"{"alg":"EdDSA","typ":7,"kid":"k1"}"#, Refusal::Type),
        (r#"{"alg":"EdDSA","typ":"JWT"}"#, Refusal::UnknownKey),
        (r#"{"alg":"EdDSA","typ":"JWT","kid":"k2"}"#, Refusal::UnknownKey),
        (r#"{"alg":"EdDSA","typ":"JWT","kid":["k1"]}"#, Refusal::Malformed),
        (r#"{"alg":"EdDSA","typ":"JWT","kid":"k1","kid":"k1"}"#, Refusal::DuplicateName),
        (r#"["EdDSA"]"#, Refusal::Malformed),
    ] {
        assert_eq!(signed(header, &good).await.unwrap_err(), why, "{header}");
    }
}

#[tokio::test]
async fn a_declared_type_is_the_only_one_taken() {
    let signer = Signer::ed();
    let mut config = issuer(ISS, "EdDSA");
    config.typ = Some("at+jwt".into());
    let identities = with_key(&signer, config);
    let of_type = |typ: &str| {
        let header = json!({"alg": "EdDSA", "kid": "k1", "typ": typ}).to_string();
        signer.token_of(&header, &claims(ISS).to_string(), "EdDSA")
    };
    let world = World::new();
    assert_eq!(identify(&identities, &of_type("JWT"), &world).await.unwrap_err(), Refusal::Type);
    for typ in ["at+jwt", "application/at+JWT"] {
        assert!(identify(&identities, &of_type(typ), &world).await.is_ok(), "{typ}");
    }
}

#[tokio::test]
async fn claims_missing_or_of_another_type_are_refused() {
    for (name, value, why) in [
        ("iss", json!(null), Refusal::Claims),
        ("iss", json!([ISS]), Refusal::Claims),
        ("iss", json!(7), Refusal::Claims),
        ("iss", json!({"a": ISS}), Refusal::Claims),
        ("iss", json!("https://issuer.test/"), Refusal::UnknownIssuer),
        ("aud", json!(null), Refusal::Claims),
        ("aud", json!(7), Refusal::Claims),
        ("aud", json!({"a": "cofferdam"}), Refusal::Claims),
        ("aud", json!(["cofferdam", 7]), Refusal::Claims),
        ("aud", json!([["cofferdam"]]), Refusal::Claims),
        ("aud", json!([]), Refusal::Audience),
        ("aud", json!("somebody else"), Refusal::Audience),
        ("aud", json!("Cofferdam"), Refusal::Audience),
        ("sub", json!(null), Refusal::Claims),
        ("sub", json!(""), Refusal::Claims),
        ("sub", json!(7), Refusal::Claims),
        ("sub", json!(["alice"]), Refusal::Claims),
        ("sub", json!("a\nb"), Refusal::Claims),
        ("sub", json!("a".repeat(256)), Refusal::Claims),
        ("jti", json!(7), Refusal::Claims),
        ("exp", json!(null), Refusal::Claims),
        ("exp", json!("1795171380"), Refusal::Claims),
        ("exp", json!(1.5), Refusal::Claims),
        ("exp", json!(-1), Refusal::Claims),
        ("exp", json!(NOW - 10), Refusal::Claims),
        ("exp", json!(u64::MAX), Refusal::Lifetime),
        ("exp", json!(NOW + 2 * 24 * 3600), Refusal::Lifetime),
        ("iat", json!(null), Refusal::Claims),
        ("iat", json!("now"), Refusal::Claims),
        ("iat", json!(NOW + 11), Refusal::NotYetValid),
        ("nbf", json!(NOW + 11), Refusal::NotYetValid),
        ("nbf", json!("later"), Refusal::Claims),
    ] {
        let text = claims_but(ISS, name, value.clone()).to_string();
        assert_eq!(signed(HEADER, &text).await.unwrap_err(), why, "{name}: {value}");
    }
    assert!(signed(HEADER, &claims_but(ISS, "aud", json!(["x", "cofferdam"])).to_string()).await.is_ok());
    assert!(signed(HEADER, &claims_but(ISS, "nbf", Value::Null).to_string()).await.is_ok());
    assert!(signed(HEADER, &claims_but(ISS, "nbf", json!(NOW + 10)).to_string()).await.is_ok());
}

#[tokio::test]
async fn an_expired_token_is_refused_also_when_it_was_believed_before() {
    let signer = Signer::ed();
    let clock = clock();
    let source = Scripted::with(set(&[signer.jwk("k1")]));
    let identities = Identities::new(vec![issuer(ISS, "EdDSA")], pepper(), source, clock.clone()).unwrap();
    let world = World::new();
    let token = signer.token("EdDSA", "k1", &claims(ISS));
    // 300 seconds of validity and 10 of leeway.
    clock.advance(std::time::Duration::from_secs(309));
    assert!(identify(&identities, &token, &world).await.is_ok());
    clock.advance(std::time::Duration::from_secs(1));
    for _ in 0..2 {
        assert_eq!(identify(&identities, &token, &world).await.unwrap_err(), Refusal::Expired);
    }
}

#[tokio::test]
async fn claims_given_twice_are_refused() {
    let good = claims(ISS).to_string();
    for twice in [r#"{"sub":"bob","#, r#"{"exp":1,"#, r#"{"aud":"x","#, r#"{"x":{"a":1,"a":2},"#] {
        let text = good.replacen('{', twice, 1);
        assert_eq!(signed(HEADER, &text).await.unwrap_err(), Refusal::DuplicateName, "{twice}");
    }
}

#[tokio::test]
async fn texts_that_are_no_token_are_refused() {
    let signer = Signer::ed();
    let identities = with_key(&signer, issuer(ISS, "EdDSA"));
    let world = World::new();
    let good = signer.token("EdDSA", "k1", &claims(ISS));
    let (message, signature) = good.rsplit_once('.').unwrap();
    let (header, payload) = message.split_once('.').unwrap();
    let cases = [
        (String::new(), Refusal::Malformed),
        ("a".into(), Refusal::Malformed),
        ("..".into(), Refusal::Malformed),
        (message.to_owned(), Refusal::Malformed),
        (format!("{message}."), Refusal::Malformed),
        (format!("{good}.x"), Refusal::Malformed),
        (format!("{header}=.{payload}.{signature}"), Refusal::Malformed),
        (format!("{header}.{payload}=.{signature}"), Refusal::Malformed),
        (format!("{good}="), Refusal::Signature),
        (format!(" {good}"), Refusal::Malformed),
        (format!("{good}\n"), Refusal::Signature),
        (format!("{header}.{payload}.{}", b64([0; 64])), Refusal::Signature),
        (format!("{header}.{payload}.{}", signature.split_at(40).0), Refusal::Signature),
        (format!("{header}.{}.{signature}", b64(claims_but(ISS, "sub", json!("bob")).to_string())), Refusal::Signature),
        (good.replace('.', ". "), Refusal::Malformed),
        ("a".repeat(8 * 1024 + 1), Refusal::TooLong),
        (format!("{good}{}", "A".repeat(8 * 1024)), Refusal::TooLong),
        (format!("{}.{}.AA", b64("{}"), b64("[".repeat(5000))), Refusal::Malformed),
    ];
    for (token, why) in cases {
        assert_eq!(identify(&identities, &token, &world).await.unwrap_err(), why, "{token:.120}");
    }
    assert!(identify(&identities, &good, &world).await.is_ok());
}

#[tokio::test]
async fn one_issuers_key_does_not_sign_for_another() {
    let (mine, theirs) = (Signer::ed(), Signer::ed());
    let dir = tempfile::tempdir().unwrap();
    let declare = |name: &str, signer: &Signer| {
        let path = dir.path().join(signer.jwk("k")["x"].as_str().unwrap());
        std::fs::write(&path, set(&[signer.jwk("k1")])).unwrap();
        let mut config = issuer(name, "EdDSA");
        (config.jwks_url, config.jwks_file) = (None, Some(path));
        config
    };
    let declared = vec![declare("https://a.test", &mine), declare("https://b.test", &theirs)];
    let identities = Identities::new(declared, pepper(), Scripted::down(), clock()).unwrap();
    let world = World::new();
    let cross = theirs.token("EdDSA", "k1", &claims("https://a.test"));
    assert_eq!(identify(&identities, &cross, &world).await.unwrap_err(), Refusal::Signature);
    for (signer, name) in [(&mine, "https://a.test"), (&theirs, "https://b.test")] {
        let token = signer.token("EdDSA", "k1", &claims(name));
        assert_eq!(identify(&identities, &token, &world).await.unwrap().issuer(), Some(name));
    }
}

#[tokio::test]
async fn tenant_and_roles_come_from_declared_claims_only() {
    let signer = Signer::ed();
    let mut config = issuer(ISS, "EdDSA");
    (config.tenant, config.tenant_claim) = (None, Some("/ext/tenant".into()));
    config.roles_claim = Some("roles".into());
    let identities = with_key(&signer, config);
    let mut world = World::new();
    world.members.insert((world.other.clone(), "alice".into()), vec!["viewer".into(), "invoker".into()]);
    let token = |tenant: Value, roles: Value| {
        let mut claims = claims_but(ISS, "ext", json!({"tenant": tenant}));
        claims["roles"] = roles;
        signer.token("EdDSA", "k1", &claims)
    };
    let alice = identify(&identities, &token(json!("other"), json!(["viewer", "ops"])), &world).await.unwrap();
    assert_eq!(alice.tenant(), Some(&world.other));
    assert_eq!(alice.roles(), ["ops", "viewer", "invoker"]);
    for (tenant, roles, why) in [
        (json!("nowhere"), json!([]), Refusal::Tenant),
        // Claimed, not declared: nobody gets into the platform's own tenant by a token's word.
        (json!("platform"), json!([]), Refusal::Tenant),
        (json!(7), json!([]), Refusal::Claims),
        (json!(["other"]), json!([]), Refusal::Claims),
        (json!("other"), json!("admin"), Refusal::Claims),
        (json!("other"), json!([7]), Refusal::Claims),
        (json!("other"), json!(vec!["r"; 65]), Refusal::Claims),
    ] {
        let refused = identify(&identities, &token(tenant.clone(), roles), &world).await.unwrap_err();
        assert_eq!(refused, why, "{tenant}");
    }
}

#[tokio::test]
async fn a_tenant_suspended_later_shuts_out_tokens_believed_before() {
    let signer = Signer::ed();
    let identities = with_key(&signer, issuer(ISS, "EdDSA"));
    let mut world = World::new();
    let token = signer.token("EdDSA", "k1", &claims(ISS));
    assert!(identify(&identities, &token, &world).await.is_ok());
    world.suspended = world.acme.clone();
    let refused = identities.identify(Credential::Bearer(&token), &world).await;
    assert!(matches!(refused, Err(IdentityError::Revoked { by: RevokedBy::Tenant, .. })), "{refused:?}");
}

#[test]
fn declarations_that_make_no_sense_are_refused() {
    type Change = fn(&mut IssuerConfig);
    let changes: [Change; 15] = [
        |c| c.issuer = String::new(),
        |c| c.issuer = "a|b".into(),
        |c| c.audience = String::new(),
        |c| c.algorithms.clear(),
        |c| c.algorithms.push(crate::identity::Algorithm::HS256),
        |c| (c.jwks_url, c.issuer) = (None, "http://issuer.test".into()),
        |c| (c.jwks_url, c.issuer) = (None, "https://issuer.test?x".into()),
        |c| c.jwks_file = Some("keys.json".into()),
        |c| c.mfa_acr = vec![String::new()],
        |c| c.jwks_url = Some("http://issuer.test/jwks".into()),
        |c| c.tenant = None,
        |c| c.tenant_claim = Some("t".into()),
        |c| c.typ = Some("id+jwt".into()),
        |c| c.leeway_seconds = 31,
        |c| c.max_stale_seconds = 1,
    ];
    for (at, change) in changes.into_iter().enumerate() {
        let mut config = issuer(ISS, "EdDSA");
        change(&mut config);
        let refused = Identities::new(vec![config], pepper(), Scripted::down(), clock());
        assert!(matches!(refused, Err(IssuerError::Invalid { .. })), "change {at}");
    }
    let twice = vec![issuer(ISS, "EdDSA"), issuer(ISS, "ES256")];
    let refused = Identities::new(twice, pepper(), Scripted::down(), clock());
    assert!(matches!(refused, Err(IssuerError::Duplicate(_))));
}

#[tokio::test]
async fn groups_come_from_the_declared_claim_and_are_no_roles() {
    let signer = Signer::ed();
    let world = World::new();
    let token = |groups: Value| signer.token("EdDSA", "k1", &claims_but(ISS, "groups", groups));
    let declared = |claim: Option<&str>| {
        let mut config = issuer(ISS, "EdDSA");
        (config.groups_claim, config.roles_claim) = (claim.map(str::to_owned), Some("roles".into()));
        with_key(&signer, config)
    };
    let staff = token(json!(["staff", "admin", "staff"]));
    let known = identify(&declared(Some("groups")), &staff, &world).await.unwrap();
    assert_eq!((known.groups(), known.roles()), (&["admin".to_owned(), "staff".to_owned()][..], &[][..]));
    assert!(identify(&declared(None), &staff, &world).await.unwrap().groups().is_empty(), "nobody declared it");
    assert!(identify(&declared(Some("/org/groups")), &staff, &world).await.unwrap().groups().is_empty());
    let many: Vec<_> = (0..129).map(|at| format!("g{at}")).collect();
    for bad in [json!("staff"), json!({"a": 1}), json!([7]), json!([""]), json!(["a\u{7}"]), json!(["x".repeat(129)])] {
        assert_eq!(identify(&declared(Some("groups")), &token(bad), &world).await.unwrap_err(), Refusal::Claims);
    }
    assert_eq!(identify(&declared(Some("groups")), &token(json!(many)), &world).await.unwrap_err(), Refusal::Claims);
}
