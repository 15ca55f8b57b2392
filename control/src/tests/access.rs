//! Members, policies and API keys.

use super::*;
use serde_json::json;

#[test]
fn key_is_good_until_revoked_and_its_text_is_shown_once() {
    let world = World::new();
    let (tenant, admin) = world.tenant("acme");
    let made = world.ask(&admin, create_key(&tenant, "ci", &["deployer"])).unwrap();
    let text = made["key"].as_str().unwrap();
    assert!(world.knows(text));
    let listed = world.ask(&admin, Manage::ListKeys { tenant }).unwrap();
    assert!(!listed.to_string().contains(text));
    let key = cofferdam_model::KeyId::parse(made["id"].as_str().unwrap()).unwrap();
    let revoked = world.ask(&admin, Manage::RevokeKey { key: key.clone() }).unwrap();
    assert_eq!(revoked["revoked"], json!(NOW.to_string()));
    assert!(!world.knows(text));
    world.clock.advance(Duration::from_secs(60));
    let again = world.ask(&admin, Manage::RevokeKey { key }).unwrap();
    assert_eq!(again["revoked"], revoked["revoked"], "the first time counts");
}

#[test]
fn expired_key_is_nobody() {
    let world = World::new();
    let (_, key) = world.tenant("acme");
    assert!(world.knows(&key));
    world.clock.advance(Duration::from_secs(3601));
    assert!(!world.knows(&key));
}

#[test]
fn key_with_impossible_terms_is_refused() {
    let world = World::new();
    let (tenant, admin) = world.tenant("acme");
    let key = |account: &str, roles: &[&str], ttl_seconds| {
        let roles = roles.iter().map(|role| (*role).to_owned()).collect();
        Manage::CreateKey {
            tenant: tenant.clone(),
            account: account.into(),
            roles,
            scopes: vec![],
            ttl_seconds,
            settings: Default::default(),
        }
    };
    for (operation, about) in [
        (key("CI", &["viewer"], 60), "CI"),
        (key("ci", &[], 60), "1 to 16"),
        (key("ci", &["viewer", "viewer"], 60), "twice"),
        (key("ci", &["operator"], 60), "platform's own tenant"),
        (key("ci", &["viewer"], 59), "60 seconds"),
        (key("ci", &["viewer"], 365 * 86400 + 1), "365 days"),
    ] {
        let refused = world.ask(&admin, operation).unwrap_err().to_string();
        assert!(refused.contains(about), "{refused}");
    }
}

#[test]
fn member_has_exactly_the_roles_given_last() {
    use cofferdam_authz::Directory;
    let world = World::new();
    let (tenant, admin) = world.tenant("acme");
    let put = |roles: &[&str]| Manage::PutMember {
        tenant: tenant.clone(),
        issuer: None,
        subject: "alice@example".into(),
        roles: roles.iter().map(|role| (*role).to_owned()).collect(),
    };
    let roles = || world.control.snapshot().member_roles(&tenant, "https://issuer", "alice@example");
    assert_eq!(world.ask(&admin, put(&["viewer", "invoker"])).unwrap()["created"], json!(true));
    assert_eq!(world.ask(&admin, put(&["deployer"])).unwrap()["created"], json!(false));
    assert_eq!(roles(), ["deployer"]);
    let remove = || Manage::RemoveMember { tenant: tenant.clone(), issuer: None, subject: "alice@example".into() };
    world.ask(&admin, remove()).unwrap();
    assert_eq!(roles(), Vec::<String>::new());
    assert!(matches!(world.ask(&admin, remove()), Err(ControlError::NotFound { what: "member", .. })));
    let refused = world.ask(&admin, put(&["operator"])).unwrap_err().to_string();
    assert!(refused.contains("platform's own tenant"), "{refused}");
}

#[test]
fn subject_that_cannot_be_written_in_a_line_is_refused() {
    let world = World::new();
    let (tenant, admin) = world.tenant("acme");
    for subject in ["", "a\nb", "a\u{7f}", &"x".repeat(256)] {
        let roles = vec!["viewer".into()];
        let put = Manage::PutMember { tenant: tenant.clone(), issuer: None, subject: subject.into(), roles };
        assert!(world.ask(&admin, put).is_err(), "{subject:?}");
    }
}

#[test]
fn policy_that_does_not_compile_is_refused_with_its_place() {
    let world = World::new();
    let (tenant, admin) = world.tenant("acme");
    let put = |text: &str| Manage::PutPolicy { tenant: tenant.clone(), name: "mine".into(), text: text.into() };
    let refused = world.ask(&admin, put("permit (principal,\n  action, resourse);")).unwrap_err();
    let told = chain(&refused);
    assert!(told.contains("`mine`") && told.contains("line 2") && told.contains("column"), "{told}");
    world.ask(&admin, put("forbid (principal, action, resource);")).unwrap();
    let read = world.operate(Manage::ReadTenant { tenant: tenant.clone() }).unwrap();
    assert_eq!(read["policies"][0]["name"], "mine");
}

#[test]
fn policies_are_bounded_in_size_and_number() {
    let world = World::new();
    let (tenant, admin) = world.tenant("acme");
    let put = |name: &str, text: String| Manage::PutPolicy { tenant: tenant.clone(), name: name.into(), text };
    let large = world.ask(&admin, put("large", " ".repeat(64 * 1024 + 1))).unwrap_err();
    assert!(matches!(large, ControlError::TooLarge { limit: 65_536, .. }));
    assert!(world.ask(&admin, put("Not-A-Name", String::new())).is_err());
}

#[test]
fn tenant_names_are_narrow_and_taken_once() {
    let world = World::new();
    world.tenant("acme");
    let create = |name: &str| world.operate(Manage::CreateTenant { name: name.into() });
    assert!(matches!(create("acme"), Err(ControlError::Exists { what: "tenant", .. })));
    for name in ["platform", "", "Acme", "a/b", "../x"] {
        assert!(matches!(create(name), Err(ControlError::Invalid { .. })), "{name}");
    }
}

#[test]
fn development_token_names_its_tenant_and_ends() {
    let world = World::new();
    world.tenant("acme");
    let issuer = crate::issuer::DevelopmentIssuer::create(&world.data(), &*world.random).unwrap();
    let claims = crate::issuer::Claims {
        tenant: "acme",
        subject: "alice",
        roles: &["invoker".to_owned()],
        groups: &[],
        ttl: Duration::from_secs(3600),
    };
    let token = issuer.token(claims, &*world.clock, &*world.random).unwrap();
    let config = crate::issuer::config(&world.data());
    let pepper = world.control.pepper().unwrap();
    let identities = Identities::new(vec![config], pepper, Arc::new(NoNetwork), world.clock.clone()).unwrap();
    let snapshot = world.control.snapshot();
    let who = || world.runtime.block_on(identities.identify(Credential::Bearer(&token), &*snapshot));
    let alice = who().unwrap();
    assert_eq!((alice.id(), alice.roles()), ("alice", &["invoker".to_owned()][..]));
    assert_eq!(alice.tenant(), Some(&snapshot.tenant_by_name("acme").unwrap().id));
    world.clock.advance(Duration::from_secs(3600 + 60));
    assert!(who().is_err());
    let too_long = crate::issuer::Claims { ttl: crate::issuer::MAX_TTL + Duration::from_secs(1), ..claims };
    assert!(issuer.token(too_long, &*world.clock, &*world.random).is_err());
}
