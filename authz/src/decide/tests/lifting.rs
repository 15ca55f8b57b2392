//! Nobody lifts what binds him, comes back as more than he may be, or holds a thing that he may only do to others.

use cofferdam_model::{Manage, Revived, RevocationId, SecretValue};

use super::giving::{create_key, kept_from, put_member, put_policy};
use super::*;

/// Somebody who may write policies and manage people, and nothing else.
const IDENTITY: &str =
    r#"permit (principal in Role::"hr", action in [Action::"Identity", Action::"Policy"], resource);"#;
/// Somebody who may everything.
const CHIEF: &str = r#"permit (principal in Role::"chief", action, resource);"#;

fn remove(tenant: &TenantId, name: &str) -> Manage {
    Manage::RemovePolicy { tenant: tenant.clone(), name: name.into() }
}

fn replace(tenant: &TenantId, name: &str, text: &str) -> Manage {
    Manage::PutPolicy { tenant: tenant.clone(), name: name.into(), text: text.into() }
}

const NONE: &[String] = &[];

#[tokio::test]
async fn who_does_not_hold_what_a_forbid_takes_does_not_lift_it() {
    let world = World::new();
    let freeze = r#"@id("freeze") forbid (principal, action == Action::"Invoke", resource);"#;
    let set = policies(&Authorizer::new().unwrap(), &world.acme, &[IDENTITY, CHIEF, freeze]);
    let hr = (&["hr"][..], NONE);
    for lifts in [
        remove(&world.acme, "p2"),
        replace(&world.acme, "p2", ""),
        replace(&world.acme, "p2", r#"forbid (principal is User, action == Action::"Invoke", resource);"#),
        replace(&world.acme, "p2", r#"permit (principal in Role::"hr", action in Action::"Identity", resource);"#),
    ] {
        assert_eq!(kept_from(&world, &set, hr, lifts).await, Some(Action::Invoke));
    }
    // What stays to the letter is not lifted, whatever it is called, and what only adds takes nothing away.
    let renamed = freeze.replace("freeze", "stop");
    assert_eq!(kept_from(&world, &set, hr, replace(&world.acme, "p2", &renamed)).await, None);
    let more = format!("{freeze} forbid (principal, action, resource) when {{ context.public }};");
    assert_eq!(kept_from(&world, &set, hr, replace(&world.acme, "p2", &more)).await, None);
    assert_eq!(kept_from(&world, &set, hr, remove(&world.acme, "p0")).await, None, "it only permits");
    assert_eq!(kept_from(&world, &set, hr, remove(&world.acme, "unknown")).await, None);
    // It stands in another text too.
    let twice = policies(&Authorizer::new().unwrap(), &world.acme, &[IDENTITY, freeze, freeze]);
    assert_eq!(kept_from(&world, &twice, hr, remove(&world.acme, "p1")).await, None);
    // What is taken from everybody alike goes back to whoever would hold it.
    for chief in ["admin", "chief"] {
        assert_eq!(kept_from(&world, &set, (&[chief], NONE), remove(&world.acme, "p2")).await, None, "{chief}");
    }
}

#[tokio::test]
async fn who_is_bound_by_a_forbid_that_singles_out_does_not_lift_it() {
    let world = World::new();
    let authorizer = Authorizer::new().unwrap();
    for (text, bound, free) in [
        (r#"forbid (principal in Role::"junior", action == Action::"PutSecret", resource);"#, "junior", "clerk"),
        (
            r#"forbid (principal, action == Action::"PutSecret", resource) unless { principal in Role::"senior" };"#,
            "junior",
            "senior",
        ),
        (
            r#"forbid (principal, action == Action::"PutSecret", resource)
               when { resource.secret == "ROOT" && principal in Role::"junior" };"#,
            "junior",
            "clerk",
        ),
    ] {
        let set = policies(&authorizer, &world.acme, &[text]);
        let lift = || remove(&world.acme, "p0");
        let missing = kept_from(&world, &set, (&["admin", bound], NONE), lift()).await;
        assert_eq!(missing, Some(Action::PutSecret), "{text}");
        assert_eq!(kept_from(&world, &set, (&["admin", free], NONE), lift()).await, None, "{text}");
        // Nor does he do it by making himself another that is not bound.
        let other = create_key(&world.acme, "other", &["admin"], &[]);
        let missing = kept_from(&world, &set, (&["admin", bound], NONE), other).await;
        assert_eq!(missing, Some(Action::PutSecret), "{text}");
    }
    // What is forbidden under other circumstances than these binds nobody now.
    let unbound = r#"forbid (principal, action, resource) when { context.bound == "none" && !context.public };"#;
    let elsewhere = r#"forbid (principal, action, resource) unless { context.source.isInRange(ip("192.0.2.0/24")) };"#;
    let set = policies(&authorizer, &world.acme, &[elsewhere]);
    assert_eq!(kept_from(&world, &set, (&["admin"], NONE), remove(&world.acme, "p0")).await, None);
    let set = policies(&authorizer, &world.acme, &[unbound]);
    let admin = world.account(&world.acme, &["admin"]).await;
    let refused = authorizer.decide(&set, admin, remove(&world.acme, "p0"), circumstances());
    assert_eq!(denied(refused).0, Outcome::ExplicitDeny);
}

#[tokio::test]
async fn what_functions_and_logins_are_kept_from_is_lifted_by_who_answers_for_them() {
    let world = World::new();
    let authorizer = Authorizer::new().unwrap();
    let writer = r#"permit (principal in Role::"writer", action in Action::"Policy", resource);"#;
    for (text, needed) in [
        (r#"forbid (principal is Workload, action == Action::"Connect", resource);"#, Action::PutFunction),
        (r#"forbid (principal is Workload, action == Action::"UseSecret", resource);"#, Action::PutFunction),
        (r#"forbid (principal, action == Action::"IssueToken", resource);"#, Action::PutUser),
    ] {
        let set = policies(&authorizer, &world.acme, &[writer, text]);
        let lift = || remove(&world.acme, "p1");
        assert_eq!(kept_from(&world, &set, (&["writer"], NONE), lift()).await, Some(needed), "{text}");
        assert_eq!(kept_from(&world, &set, (&["admin"], NONE), lift()).await, None, "{text}");
    }
}

#[tokio::test]
async fn what_somebody_may_do_to_some_things_he_does_not_hold() {
    let world = World::new();
    let authorizer = Authorizer::new().unwrap();
    let editor =
        |rest: &str| format!(r#"permit (principal in Role::"editor", action in Action::"Policy", resource); {rest}"#);
    let named = r#"permit (principal, action == Action::"Invoke", resource) when { resource.name == "secret" };"#;
    let id = world.function(&world.acme);
    for rest in [
        r#"permit (principal in Role::"editor", action in Action::"Data", resource)
           unless { resource.name == "secret" };"#
            .to_owned(),
        r#"permit (principal in Role::"editor", action in Action::"Data", resource);
           forbid (principal in Role::"editor", action, resource is Function) when { resource.name like "s*t" };"#
            .to_owned(),
        format!(
            r#"permit (principal in Role::"editor", action in Action::"Data", resource);
               forbid (principal in Role::"editor", action in Action::"Data", resource == Function::"{id}");"#
        ),
        format!(
            r#"permit (principal in Role::"editor", action in Action::"Data", resource);
               forbid (principal is ServiceAccount, action in Action::"Data", resource in Function::"{id}");"#
        ),
        r#"permit (principal in Role::"editor", action in Action::"Data", resource) when { resource has name };"#
            .to_owned(),
    ] {
        let set = policies(&authorizer, &world.acme, &[&editor(&rest)]);
        let missing = kept_from(&world, &set, (&["editor"], NONE), put_policy(&world.acme, named)).await;
        assert_eq!(missing, Some(Action::Invoke), "{rest}");
    }
    // What keeps others from some things, or everybody from some, or is about things of another kind, is no matter.
    for rest in [
        r#"forbid (principal in Role::"guest", action in Action::"Data", resource)
           when { resource.name == "secret" };"#,
        r#"forbid (principal, action in Action::"Data", resource) when { resource.name == "secret" };"#,
        r#"forbid (principal in Role::"editor", action, resource is Secret) when { resource.secret == "x" };"#,
        r#"forbid (principal, action, resource) when { resource has name && principal.id == "someone else" };"#,
    ] {
        let open = r#"permit (principal in Role::"editor", action in Action::"Data", resource);"#;
        let set = policies(&authorizer, &world.acme, &[&editor(open), rest]);
        let missing = kept_from(&world, &set, (&["editor"], NONE), put_policy(&world.acme, named)).await;
        assert_eq!(missing, None, "{rest}");
    }
}

#[tokio::test]
async fn whoever_sets_a_passphrase_holds_what_its_user_may() {
    let world = World::new();
    let authorizer = Authorizer::new().unwrap();
    let boss = format!(
        r#"permit (principal == User::"{}|https://node.test|boss", action == Action::"PutSecret", resource);"#,
        world.acme
    );
    let set = policies(&authorizer, &world.acme, &[IDENTITY, &boss]);
    let put = |name: &str, roles: &[&str]| Manage::PutUser {
        tenant: world.acme.clone(),
        name: name.into(),
        roles: roles.iter().map(ToString::to_string).collect(),
        passphrase: Some(SecretValue::new(b"correct horse".to_vec())),
    };
    let hr = (&["hr"][..], NONE);
    assert_eq!(kept_from(&world, &set, hr, put("alice", &["hr"])).await, None);
    assert_eq!(kept_from(&world, &set, hr, put("alice", &["invoker"])).await, Some(Action::Invoke));
    assert_eq!(kept_from(&world, &set, hr, put("boss", &[])).await, Some(Action::PutSecret), "a policy names him");
    assert_eq!(kept_from(&world, &set, hr, put("ross", &[])).await, None);
    assert_eq!(kept_from(&world, &set, (&["admin"], NONE), put("boss", &["admin"])).await, None);
    assert_eq!(
        kept_from(&world, &set, hr, put_member(&world.acme, &["hr"])).await,
        None,
        "its issuer knows who that is"
    );
}

#[tokio::test]
async fn nobody_brings_back_who_may_more_than_he() {
    let world = World::new();
    let authorizer = Authorizer::new().unwrap();
    let oncall = r#"permit (principal in Group::"oncall", action == Action::"RecycleCells", resource);"#;
    let set = policies(&authorizer, &world.acme, &[IDENTITY, oncall]);
    let back = |gives: Revived| Manage::Reinstate { revocation: RevocationId::mint(&world.acme, &world.random), gives };
    let list = |roles: &[&str]| roles.iter().map(ToString::to_string).collect::<Vec<_>>();
    let account = |roles: &[&str]| back(Revived::Account { name: "ci".into(), roles: list(roles) });
    let user = |roles: &[&str]| back(Revived::User { name: "alice".into(), roles: list(roles) });
    let hr = (&["hr"][..], NONE);
    assert_eq!(kept_from(&world, &set, hr, account(&["hr"])).await, None);
    assert_eq!(kept_from(&world, &set, hr, account(&["hr", "invoker"])).await, Some(Action::Invoke));
    assert_eq!(kept_from(&world, &set, hr, user(&[])).await, None);
    assert_eq!(kept_from(&world, &set, hr, user(&["viewer"])).await, Some(Action::ReadTenant));
    // Whom it brings back, a token alone knows: it could be an admin, or of a group.
    assert_eq!(kept_from(&world, &set, hr, back(Revived::Anybody)).await, Some(Action::Invoke));
    assert_eq!(kept_from(&world, &set, (&["admin"], NONE), back(Revived::Anybody)).await, None);
}

#[tokio::test]
async fn what_cannot_be_read_may_have_forbidden_anything() {
    let world = World::new();
    let authorizer = Authorizer::new().unwrap();
    let texts = Texts { version: 1, sources: vec![("old".into(), "forbid (principal, action, nonsense);".into())] };
    let set = authorizer.of_tenant(&world.acme, authorizer.tier_unread(Owner::Tenant(world.acme.clone()), texts));
    let lift = || remove(&world.acme, "old");
    let narrow = ["Policy".to_owned()];
    let operator = world.narrowed(&platform_tenant(), &["operator"], &narrow).await;
    let refused = authorizer.decide(&set, operator, lift(), circumstances()).err().unwrap();
    assert!(matches!(refused.because(), Some(crate::Because::Escalates(_))), "{:?}", refused.because());
    let operator = world.account(&platform_tenant(), &["operator"]).await;
    assert!(authorizer.decide(&set, operator, lift(), circumstances()).is_ok());
}
