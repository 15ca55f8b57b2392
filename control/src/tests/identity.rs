//! The kill switch, members of one issuer, and the node's own issuer, from the change to the next credential shown.

use super::*;
use cofferdam_authz::{Directory, Login, RevokedBy, scopes_narrow};
use cofferdam_model::operation::Grant;
use cofferdam_model::{Digest, Revived, RevocationId, RevocationTarget};
use proptest::prelude::*;
use serde_json::json;

use crate::Narrowing;

const RIGHT: &str = "correct horse battery staple";
const YEAR: u64 = 366 * 24 * 3600;

fn passphrase<'a>(user: &'a str, text: &'a str) -> Credential<'a> {
    let source = [192, 0, 2, 1].into();
    Credential::Passphrase(Login { tenant: "acme", user, passphrase: text.as_bytes(), source })
}

fn strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

impl World {
    fn put_user(&self, admin: &str, tenant: &TenantId, user: &str, roles: &[&str], passphrase: Option<&str>) {
        let passphrase = passphrase.map(|text| SecretValue::new(text.as_bytes().to_vec()));
        let put = Manage::PutUser { tenant: tenant.clone(), name: user.into(), roles: strings(roles), passphrase };
        self.ask(admin, put).unwrap();
    }

    /// A token by way of a passphrase or of another token.
    fn token(&self, shown: Credential<'_>, asked: &Narrowing) -> Result<Value, ControlError> {
        self.ask_by(shown, |who| {
            let (tenant, grant) = self.control.grant(who, asked)?;
            Ok(Manage::IssueToken { tenant, grant })
        })
    }

    fn login(&self, user: &str, asked: &Narrowing) -> String {
        let given = self.token(passphrase(user, RIGHT), asked).unwrap();
        given["access_token"].as_str().unwrap().to_owned()
    }

    fn revoked(&self, token: &str) -> Option<RevokedBy> {
        match self.who(Credential::Bearer(token)) {
            Ok(_) => None,
            Err(IdentityError::Revoked { by, .. }) => Some(by),
            Err(other) => panic!("{other}"),
        }
    }

    fn revoke(&self, key: &str, tenant: &TenantId, target: RevocationTarget, expires: Option<u64>) -> RevocationId {
        let tenant = tenant.clone();
        let made = self.ask(key, Manage::Revoke { tenant, target, reason: "stolen".into(), expires }).unwrap();
        RevocationId::parse(made["id"].as_str().unwrap()).unwrap()
    }

    /// To undo a revocation, with what that gives back.
    fn reinstate(&self, id: &RevocationId) -> Manage {
        let gives = self.control.snapshot().revived(id).expect("a revocation that is there");
        Manage::Reinstate { revocation: id.clone(), gives }
    }
}

#[test]
fn each_kind_of_revocation_holds_from_the_next_call_on_until_it_is_undone() {
    let world = World::new();
    let (tenant, admin) = world.tenant("acme");
    world.put_user(&admin, &tenant, "alice", &["invoker"], Some(RIGHT));
    let token = world.login("alice", &Narrowing::default());
    let alice = world.who(Credential::Bearer(&token)).unwrap();
    let (issuer, jti) = (alice.issuer().unwrap().to_owned(), alice.facts().credential_id.unwrap());
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, token.as_bytes());
    let digest = Digest(digest.as_ref().try_into().unwrap());
    let keys: Value = serde_json::from_str(&world.control.issuer_keys().unwrap()).unwrap();
    let kid = keys["keys"][0]["kid"].as_str().unwrap().to_owned();
    let (now, subject) = (NOW.seconds(), || "alice".to_owned());
    let sessions = |issuer: Option<&str>, subject: Option<&str>| RevocationTarget::Sessions {
        issuer: issuer.map(str::to_owned),
        subject: subject.map(str::to_owned),
        before: now + 1,
    };
    for (target, by) in [
        (RevocationTarget::Token { issuer: issuer.clone(), id: jti }, RevokedBy::Token),
        (RevocationTarget::Digest { digest }, RevokedBy::Token),
        (RevocationTarget::SigningKey { issuer: issuer.clone(), key: kid }, RevokedBy::SigningKey),
        (RevocationTarget::Subject { issuer: None, subject: subject() }, RevokedBy::Subject),
        (RevocationTarget::Subject { issuer: Some(issuer.clone()), subject: subject() }, RevokedBy::Subject),
        (sessions(None, None), RevokedBy::Epoch),
        (sessions(Some(&issuer), None), RevokedBy::Epoch),
        (sessions(None, Some("alice")), RevokedBy::Epoch),
        (sessions(Some(&issuer), Some("alice")), RevokedBy::Epoch),
    ] {
        assert_eq!(world.revoked(&token), None, "{target:?}");
        let id = world.revoke(&admin, &tenant, target.clone(), None);
        assert_eq!(world.revoked(&token), Some(by), "{target:?}");
        assert_eq!(world.revoke(&admin, &tenant, target.clone(), None), id, "revoked twice is revoked once");
        let listed = world.ask(&admin, Manage::ListRevocations { tenant: tenant.clone() }).unwrap();
        assert_eq!((&listed["revocations"][0]["reason"], listed["active"].as_bool()), (&json!("stolen"), Some(true)));
        let reopened = world.reopen();
        assert_eq!(reopened.snapshot().tenant(&tenant).unwrap().revocations().count(), 1, "kept on disk");
        world.ask(&admin, world.reinstate(&id)).unwrap();
    }
    for other in [
        RevocationTarget::Token { issuer: issuer.clone(), id: "other".into() },
        RevocationTarget::Subject { issuer: Some("https://other.test".into()), subject: subject() },
        RevocationTarget::Subject { issuer: None, subject: "bob".into() },
        RevocationTarget::Account { account: "alice".into() },
        RevocationTarget::Sessions { issuer: None, subject: None, before: now },
    ] {
        world.revoke(&admin, &tenant, other.clone(), None);
        assert_eq!(world.revoked(&token), None, "{other:?} is about somebody else");
    }
}

#[test]
fn an_account_and_a_tenant_are_shut_out_with_all_their_keys_and_let_in_again() {
    let world = World::new();
    let (tenant, admin) = world.tenant("acme");
    let key = world.ask(&admin, create_key(&tenant, "robot", &["invoker"])).unwrap();
    let key = key["key"].as_str().unwrap().to_owned();
    let account = RevocationTarget::Account { account: "robot".into() };
    let id = world.revoke(&admin, &tenant, account, None);
    let by = |key: &str| match world.who(Credential::ApiKey(key)) {
        Err(IdentityError::Revoked { by, .. }) => Some(by),
        other => other.map(|_| None).unwrap(),
    };
    assert_eq!((by(&key), by(&admin)), (Some(RevokedBy::Subject), None));
    world.ask(&admin, world.reinstate(&id)).unwrap();
    assert_eq!(by(&key), None);
    let again = world.ask(&admin, Manage::Reinstate { revocation: id, gives: Revived::Anybody });
    assert!(matches!(again, Err(ControlError::NotFound { what: "revocation", .. })));

    let suspend = |tenant: &TenantId| Manage::SuspendTenant { tenant: tenant.clone(), reason: "unpaid".into() };
    world.operate(suspend(&tenant)).unwrap();
    assert_eq!((by(&key), by(&admin)), (Some(RevokedBy::Tenant), Some(RevokedBy::Tenant)));
    assert_eq!(world.control.snapshot().routes().count(), 0);
    assert!(!world.reopen().snapshot().tenant(&tenant).unwrap().active, "also after a restart");
    world.operate(Manage::ResumeTenant { tenant: tenant.clone() }).unwrap();
    assert_eq!((by(&key), by(&admin)), (None, None));
    let platform = world.operate(suspend(&platform_tenant())).unwrap_err().to_string();
    assert!(platform.contains("nobody would be left"), "{platform}");
}

#[test]
fn a_revocation_is_forgotten_only_when_no_token_it_is_about_can_live() {
    let world = World::new();
    let (tenant, admin) = world.tenant("acme");
    let now = NOW.seconds();
    let token = |id: &str| RevocationTarget::Token { issuer: "i".into(), id: id.into() };
    world.revoke(&admin, &tenant, token("short"), Some(now + 300));
    world.revoke(&admin, &tenant, token("unknown"), None);
    world.revoke(&admin, &tenant, RevocationTarget::Subject { issuer: None, subject: "eve".into() }, None);
    let sessions = RevocationTarget::Sessions { issuer: None, subject: None, before: now };
    world.revoke(&admin, &tenant, sessions, None);
    let left = |world: &World| world.reopen().snapshot().tenant(&tenant).unwrap().revocations().count();
    world.clock.advance(Duration::from_secs(359));
    assert_eq!(left(&world), 4);
    world.clock.advance(Duration::from_secs(2));
    assert_eq!(left(&world), 3);
    world.clock.advance(Duration::from_secs(YEAR - 361));
    assert_eq!(left(&world), 3, "a token may live for a year");
    world.clock.advance(Duration::from_secs(120));
    assert_eq!(left(&world), 1, "a subject stays out until it is let in");
}

#[test]
fn revocations_that_make_no_sense_are_refused() {
    let world = World::new();
    let (tenant, admin) = world.tenant("acme");
    let now = NOW.seconds();
    let text = |subject: &str| RevocationTarget::Subject { issuer: None, subject: subject.into() };
    for (target, reason) in [
        (text(""), "x"),
        (text("a\nb"), "x"),
        (text(&"x".repeat(513)), "x"),
        (text("a"), "a\nb"),
        (text("a"), &*"x".repeat(501)),
        (RevocationTarget::Sessions { issuer: None, subject: None, before: now + 61 }, "x"),
    ] {
        let revoke = Manage::Revoke { tenant: tenant.clone(), target, reason: reason.into(), expires: None };
        assert!(matches!(world.ask(&admin, revoke), Err(ControlError::Invalid { .. })));
    }
}

#[test]
fn a_member_of_one_issuer_has_its_roles_there_alone() {
    let world = World::new();
    let (tenant, admin) = world.tenant("acme");
    let put = |issuer: Option<&str>, role: &str| {
        let (issuer, roles) = (issuer.map(str::to_owned), vec![role.to_owned()]);
        world.ask(&admin, Manage::PutMember { tenant: tenant.clone(), issuer, subject: "alice".into(), roles }).unwrap()
    };
    put(None, "viewer");
    put(Some("https://a.test"), "deployer");
    put(Some("https://b.test"), "invoker");
    let roles = |issuer: &str| world.control.snapshot().member_roles(&tenant, issuer, "alice");
    assert_eq!(roles("https://a.test"), ["deployer", "viewer"]);
    assert_eq!(roles("https://b.test"), ["invoker", "viewer"]);
    assert_eq!(roles("https://c.test"), ["viewer"], "without an issuer: whoever vouches for it, as ever");
    let remove = |issuer: Option<&str>| {
        let issuer = issuer.map(str::to_owned);
        world.ask(&admin, Manage::RemoveMember { tenant: tenant.clone(), issuer, subject: "alice".into() })
    };
    remove(None).unwrap();
    assert_eq!(roles("https://c.test"), Vec::<String>::new());
    assert_eq!(roles("https://a.test"), ["deployer"]);
    remove(Some("https://a.test")).unwrap();
    assert!(remove(Some("https://a.test")).is_err());
    let shown = world.ask(&admin, Manage::ReadTenant { tenant: tenant.clone() }).unwrap();
    assert_eq!(shown["members"], json!([{"issuer": "https://b.test", "subject": "alice", "roles": ["invoker"]}]));
    let bad = Manage::PutMember { tenant, issuer: Some("a|b".into()), subject: "alice".into(), roles: strings(&["x"]) };
    assert!(world.ask(&admin, bad).is_err());
}

#[test]
fn a_user_logs_in_by_its_passphrase_and_has_what_it_was_given_and_no_more() {
    let world = World::new();
    let (tenant, admin) = world.tenant("acme");
    world.put_user(&admin, &tenant, "alice", &["invoker", "viewer"], Some(RIGHT));
    // A member of that name, whoever vouches for it, is somebody else than the node's own user.
    let roles = strings(&["admin"]);
    world
        .ask(&admin, Manage::PutMember { tenant: tenant.clone(), issuer: None, subject: "alice".into(), roles })
        .unwrap();
    let alice = world.who(Credential::Bearer(&world.login("alice", &Narrowing::default()))).unwrap();
    assert_eq!((alice.id(), alice.roles()), ("alice", &strings(&["invoker", "viewer"])[..]));
    let session = alice.session().unwrap();
    assert_eq!(session.authenticated, Some(NOW.seconds()));
    assert_eq!((session.expires, session.mfa), (Some(NOW.seconds() + 900), false));

    let token = world.login("alice", &Narrowing::default());
    world.put_user(&admin, &tenant, "alice", &["viewer"], None);
    assert_eq!(world.who(Credential::Bearer(&token)).unwrap().roles(), ["viewer"], "what was taken is gone at once");
    world.put_user(&admin, &tenant, "alice", &["viewer", "admin"], None);
    assert_eq!(world.who(Credential::Bearer(&token)).unwrap().roles(), ["viewer"], "what came later is not in it");

    let listed = world.ask(&admin, Manage::ListUsers { tenant: tenant.clone() }).unwrap().to_string();
    assert!(listed.contains("alice") && !listed.contains("argon2") && !listed.contains(RIGHT), "{listed}");
    world.clock.advance(Duration::from_secs(911));
    assert!(world.who(Credential::Bearer(&token)).is_err(), "tokens are short-lived");
}

#[test]
fn a_changed_passphrase_and_a_removed_user_end_every_session() {
    let world = World::new();
    let (tenant, admin) = world.tenant("acme");
    world.put_user(&admin, &tenant, "alice", &["viewer"], Some(RIGHT));
    let token = world.login("alice", &Narrowing::default());
    world.put_user(&admin, &tenant, "alice", &["viewer"], Some("another horse entirely"));
    assert_eq!(world.revoked(&token), Some(RevokedBy::Epoch));
    assert!(world.who(passphrase("alice", RIGHT)).is_err());
    world.clock.advance(Duration::from_secs(60));
    let given = world.token(passphrase("alice", "another horse entirely"), &Narrowing::default()).unwrap();
    let token = given["access_token"].as_str().unwrap();
    assert_eq!(world.revoked(token), None);
    world.ask(&admin, Manage::RemoveUser { tenant: tenant.clone(), name: "alice".into() }).unwrap();
    world.put_user(&admin, &tenant, "alice", &["admin"], Some(RIGHT));
    assert_eq!(world.revoked(token), Some(RevokedBy::Epoch), "another of the same name is somebody else");
    let gone = world.ask(&admin, Manage::RemoveUser { tenant, name: "bob".into() });
    assert!(matches!(gone, Err(ControlError::NotFound { what: "user", .. })));
}

#[test]
fn users_that_make_no_sense_are_refused() {
    let world = World::new();
    let (tenant, admin) = world.tenant("acme");
    for (name, roles, text, about) in [
        ("Alice", &["viewer"][..], Some(RIGHT), "a user's name"),
        ("", &["viewer"], Some(RIGHT), "a user's name"),
        ("a/b", &["viewer"], Some(RIGHT), "a user's name"),
        ("alice", &[], Some(RIGHT), "1 to 16"),
        ("alice", &["operator"], Some(RIGHT), "platform's own tenant"),
        ("alice", &["viewer"], Some("short"), "12 to 1024"),
        ("alice", &["viewer"], Some("twelve bytes\n"), "control characters"),
        ("alice", &["viewer"], None, "a new user needs one"),
    ] {
        let passphrase = text.map(|text| SecretValue::new(text.as_bytes().to_vec()));
        let put = Manage::PutUser { tenant: tenant.clone(), name: name.into(), roles: strings(roles), passphrase };
        let refused = world.ask(&admin, put).unwrap_err().to_string();
        assert!(refused.contains(about), "{refused}");
        assert!(text.is_none_or(|text| !refused.contains(text)), "{refused}");
    }
}

#[test]
fn a_retired_key_is_published_until_its_tokens_have_ended_and_can_sign_no_more() {
    let world = World::new();
    let (tenant, admin) = world.tenant("acme");
    world.put_user(&admin, &tenant, "alice", &["viewer"], Some(RIGHT));
    let before = world.login("alice", &Narrowing::default());
    let kids = || -> Vec<String> {
        let set: Value = serde_json::from_str(&world.control.issuer_keys().unwrap()).unwrap();
        set["keys"].as_array().unwrap().iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect()
    };
    let hold = || {
        let keys = world.control.issuer_keys().unwrap();
        world.identities.hold_keys("https://node.test/-/issuer", keys.as_bytes()).unwrap();
    };
    let first = kids();
    world.clock.advance(Duration::from_secs(1));
    world.operate(Manage::RotateIssuerKey { forget: false }).unwrap();
    hold();
    assert_eq!(kids().len(), 2);
    assert_eq!(world.revoked(&before), None, "its token has not ended");
    let files = std::fs::read_dir(world.data().join("issuer")).unwrap().count();
    assert_eq!(files, 1, "the private half is gone");
    let after = world.login("alice", &Narrowing::default());
    assert_eq!(world.revoked(&after), None);
    world.clock.advance(Duration::from_secs(3700));
    assert!(!kids().contains(&first[0]) && kids().len() == 1);

    world.operate(Manage::RotateIssuerKey { forget: false }).unwrap();
    hold();
    let token = world.login("alice", &Narrowing::default());
    world.operate(Manage::RotateIssuerKey { forget: true }).unwrap();
    hold();
    assert_eq!(kids().len(), 1);
    assert!(world.who(Credential::Bearer(&token)).is_err(), "forgotten is believed no more");
    let reopened = world.reopen();
    assert_eq!(reopened.issuer_keys().unwrap(), world.control.issuer_keys().unwrap(), "also after a restart");
}

#[test]
fn a_token_for_a_stranger_or_for_more_than_is_had_is_not_signed() {
    let world = World::new();
    let (tenant, admin) = world.tenant("acme");
    world.put_user(&admin, &tenant, "alice", &["viewer"], Some(RIGHT));
    let by_key = world.token(Credential::ApiKey(&admin), &Narrowing::default()).unwrap_err().to_string();
    assert!(by_key.contains("node's own issuer"), "{by_key}");
    let least = Narrowing { scopes: Some(strings(&["Observe"])), seconds: Some(60), ..Narrowing::default() };
    let token = world.login("alice", &least);
    // Past the check that comes first: the operation itself asks for more.
    let most = Grant {
        audiences: strings(&["cofferdam"]),
        roles: strings(&["viewer"]),
        scopes: Some(strings(&["Observe"])),
        authenticated: NOW.seconds(),
        expires: NOW.seconds() + 60,
    };
    let changes: [fn(&mut Grant); 6] = [
        |grant| grant.roles = strings(&["admin"]),
        |grant| grant.scopes = None,
        |grant| grant.scopes = Some(strings(&["Observe", "Deploy"])),
        |grant| grant.audiences = strings(&["elsewhere"]),
        |grant| grant.expires += 1,
        |grant| grant.authenticated += 1,
    ];
    let issue = |grant: Grant| {
        let tenant = tenant.clone();
        world.ask_by(Credential::Bearer(&token), |_| Ok(Manage::IssueToken { tenant, grant }))
    };
    assert!(issue(most.clone()).is_ok());
    for (at, change) in changes.into_iter().enumerate() {
        let mut wider = most.clone();
        change(&mut wider);
        let refused = issue(wider).unwrap_err().to_string();
        assert!(refused.contains("more than asked"), "{at}: {refused}");
    }
}

fn narrowing() -> impl Strategy<Value = Narrowing> {
    let some = |all: &'static [&'static str]| {
        proptest::option::of(proptest::sample::subsequence(all.to_vec(), 0..=all.len()).prop_map(|some| strings(&some)))
    };
    let audiences = some(&["cofferdam", "billing.test", "elsewhere"]);
    let roles = some(&["viewer", "invoker", "admin"]);
    let scopes = some(&["Observe", "Deploy", "fn:whoami"]);
    (audiences, roles, scopes, proptest::option::of(0u64..2000))
        .prop_map(|(audiences, roles, scopes, seconds)| Narrowing { audiences, roles, scopes, seconds })
}

#[test]
fn an_exchanged_token_is_never_good_for_more_than_the_one_shown() {
    let world = World::new();
    let (tenant, admin) = world.tenant("acme");
    world.put_user(&admin, &tenant, "alice", &["viewer", "invoker"], Some(RIGHT));
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let exchanged = std::cell::Cell::new(0);
    let first = world.login("alice", &Narrowing::default());
    runner
        .run(&(narrowing(), narrowing()), |(once, twice)| {
            let Ok(given) = world.token(Credential::Bearer(&first), &once) else { return Ok(()) };
            let shown = given["access_token"].as_str().unwrap().to_owned();
            let Ok(before) = world.who(Credential::Bearer(&shown)) else { return Ok(()) };
            let grant = world.control.grant(&before, &twice);
            let (had, now) = (before.session().unwrap(), world.control.clock.now().seconds());
            let Ok((_, grant)) = grant else { return Ok(()) };
            prop_assert!(grant.roles.iter().all(|role| before.roles().contains(role)));
            prop_assert!(grant.audiences.iter().all(|audience| had.audiences.contains(audience)));
            prop_assert!(grant.expires <= had.expires.unwrap() && grant.expires > now);
            prop_assert_eq!(Some(grant.authenticated), had.authenticated);
            if let Some(all) = &had.scopes {
                prop_assert!(grant.scopes.is_some_and(|scopes| scopes_narrow(&scopes, all)));
            }
            exchanged.set(exchanged.get() + 1);
            Ok(())
        })
        .unwrap();
    assert!(exchanged.get() > 5, "{}", exchanged.get());
}

#[test]
fn what_comes_back_with_a_revocation_is_all_that_could() {
    let world = World::new();
    let (tenant, admin) = world.tenant("acme");
    world.put_user(&admin, &tenant, "alice", &["invoker", "viewer"], Some(RIGHT));
    for roles in [&["viewer"][..], &["invoker", "viewer"]] {
        world.ask(&admin, create_key(&tenant, "ci", roles)).unwrap();
    }
    let token = world.login("alice", &Narrowing::default());
    let own = world.who(Credential::Bearer(&token)).unwrap().issuer().unwrap().to_owned();
    let (subject, before) = (|| "alice".to_owned(), NOW.seconds());
    let both = || strings(&["invoker", "viewer"]);
    let user = || Revived::User { name: subject(), roles: both() };
    for (target, gives) in [
        (RevocationTarget::Account { account: "ci".into() }, Revived::Account { name: "ci".into(), roles: both() }),
        (RevocationTarget::Subject { issuer: Some(own.clone()), subject: subject() }, user()),
        (RevocationTarget::Sessions { issuer: Some(own.clone()), subject: Some(subject()), before }, user()),
        // Another issuer's token may bring any role.
        (RevocationTarget::Subject { issuer: None, subject: subject() }, Revived::Anybody),
        (RevocationTarget::Subject { issuer: Some("https://id.test".into()), subject: subject() }, Revived::Anybody),
        (RevocationTarget::Sessions { issuer: Some(own.clone()), subject: None, before }, Revived::Anybody),
        (RevocationTarget::Token { issuer: own.clone(), id: "x".into() }, Revived::Anybody),
        (RevocationTarget::SigningKey { issuer: own, key: "k".into() }, Revived::Anybody),
        (RevocationTarget::Digest { digest: Digest([7; 32]) }, Revived::Anybody),
    ] {
        let id = world.revoke(&admin, &tenant, target.clone(), None);
        assert_eq!(world.control.snapshot().revived(&id), Some(gives), "{target:?}");
    }
    assert_eq!(world.control.snapshot().revived(&RevocationId::mint(&tenant, &*world.random)), None);
}
