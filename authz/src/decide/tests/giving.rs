//! Nobody gives what he does not hold, and every decision can be explained.

use cofferdam_model::{ClientAccount, ClientCa, Manage, PrincipalKind, Subject};

use super::*;
use crate::{Because, Supposed};

pub(super) fn put_member(tenant: &TenantId, roles: &[&str]) -> Manage {
    let roles = roles.iter().map(ToString::to_string).collect();
    Manage::PutMember { tenant: tenant.clone(), issuer: None, subject: "eve".into(), roles }
}

pub(super) fn create_key(tenant: &TenantId, account: &str, roles: &[&str], scopes: &[&str]) -> Manage {
    let owned = |texts: &[&str]| texts.iter().map(ToString::to_string).collect();
    let (roles, scopes) = (owned(roles), owned(scopes));
    Manage::CreateKey {
        tenant: tenant.clone(),
        account: account.into(),
        roles,
        scopes,
        ttl_seconds: 60,
        settings: Default::default(),
    }
}

pub(super) fn put_policy(tenant: &TenantId, text: &str) -> Manage {
    Manage::PutPolicy { tenant: tenant.clone(), name: "new".into(), text: text.into() }
}

/// What keeps whoever has these roles and scopes from giving this: an action he does not hold, or nothing.
pub(super) async fn kept_from(
    world: &World,
    set: &TenantPolicies,
    who: (&[&str], &[String]),
    gift: Manage,
) -> Option<Action> {
    let authorizer = Authorizer::new().unwrap();
    let giver = world.narrowed(&world.acme, who.0, who.1).await;
    match authorizer.decide(set, giver, gift, circumstances()) {
        Ok(_) => None,
        Err(denied) => {
            let facts = denied.facts().decision.unwrap();
            assert_eq!(facts.policies, ["00-platform/no-escalation"], "{:?}", denied.outcome());
            match denied.because() {
                Some(Because::Escalates(action)) => Some(*action),
                other => panic!("{other:?}"),
            }
        }
    }
}

const IDENTITY: &str =
    r#"permit (principal in Role::"hr", action in [Action::"Identity", Action::"Policy"], resource);"#;

fn put_client_ca(tenant: &TenantId, roles: &[&str]) -> Manage {
    let roles = roles.iter().map(ToString::to_string).collect();
    let account = ClientAccount { machine: "spiffe://acme.example/m".into(), account: "m".into(), roles };
    let ca = ClientCa { accounts: vec![account], ..ClientCa::default() };
    Manage::PutClientCa { tenant: tenant.clone(), name: "machines".into(), ca }
}

#[tokio::test]
async fn nobody_gives_a_machine_more_than_he_may_himself() {
    let world = World::new();
    let set = policies(&Authorizer::new().unwrap(), &world.acme, &[IDENTITY]);
    let hr = (&["hr"][..], &[][..]);
    assert_eq!(kept_from(&world, &set, hr, put_client_ca(&world.acme, &["hr"])).await, None);
    assert_eq!(kept_from(&world, &set, hr, put_client_ca(&world.acme, &["admin"])).await, Some(Action::Invoke));
}

#[tokio::test]
async fn a_narrowed_operator_gives_no_more_than_its_credential_is_good_for() {
    let (world, authorizer) = (World::new(), Authorizer::new().unwrap());
    let platform = cofferdam_model::id::platform_tenant();
    let set = authorizer.compile(&platform, &[]).unwrap();
    let gift = || create_key(&platform, "spare", &["operator"], &[]);
    for (scopes, given) in [(&[][..], true), (&["CreateKey".to_owned()][..], false)] {
        let operator = world.narrowed(&platform, &["operator"], scopes).await;
        assert_eq!(authorizer.decide(&set, operator, gift(), circumstances()).is_ok(), given, "{scopes:?}");
    }
}

#[tokio::test]
async fn nobody_gives_a_role_that_may_more_than_he() {
    let world = World::new();
    let set = policies(&Authorizer::new().unwrap(), &world.acme, &[IDENTITY]);
    let hr = (&["hr"][..], &[][..]);
    assert_eq!(kept_from(&world, &set, hr, put_member(&world.acme, &["hr"])).await, None);
    assert_eq!(kept_from(&world, &set, hr, put_member(&world.acme, &["unknown"])).await, None);
    assert_eq!(kept_from(&world, &set, hr, put_member(&world.acme, &["invoker"])).await, Some(Action::Invoke));
    assert_eq!(kept_from(&world, &set, hr, put_member(&world.acme, &["admin"])).await, Some(Action::Invoke));
    assert_eq!(kept_from(&world, &set, hr, put_member(&world.acme, &["hr", "viewer"])).await, Some(Action::ReadTenant));
    let both = (&["hr", "invoker"][..], &[][..]);
    assert_eq!(kept_from(&world, &set, both, put_member(&world.acme, &["invoker"])).await, None);
    let admin = (&["admin"][..], &[][..]);
    for role in ["admin", "deployer", "invoker", "viewer", "hr"] {
        assert_eq!(kept_from(&world, &set, admin, put_member(&world.acme, &[role])).await, None, "{role}");
    }
}

#[tokio::test]
async fn nobody_makes_a_key_that_may_more_than_he() {
    let world = World::new();
    let billing = format!(
        "permit (principal == ServiceAccount::\"{}|billing\", action in Action::\"Data\", resource);",
        world.acme
    );
    let set = policies(&Authorizer::new().unwrap(), &world.acme, &[IDENTITY, &billing]);
    let hr = (&["hr"][..], &[][..]);
    let key = |account: &str, roles: &[&str], scopes: &[&str]| create_key(&world.acme, account, roles, scopes);
    assert_eq!(kept_from(&world, &set, hr, key("ci", &["deployer"], &[])).await, Some(Action::ReadTenant));
    // Scopes narrow what a key may, so they narrow what has to be held.
    assert_eq!(kept_from(&world, &set, hr, key("ci", &["admin"], &["Identity"])).await, None);
    // A key for an account is all that policies give the account.
    assert_eq!(kept_from(&world, &set, hr, key("billing", &["hr"], &[])).await, Some(Action::Invoke));
    assert_eq!(kept_from(&world, &set, hr, key("other", &["hr"], &[])).await, None);
    // A key that is good for little makes none that is good for more.
    let narrow = ["Identity".to_owned()];
    let admin = (&["admin"][..], &narrow[..]);
    assert_eq!(kept_from(&world, &set, admin, key("ci", &["admin"], &[])).await, Some(Action::Invoke));
    assert_eq!(kept_from(&world, &set, admin, key("ci", &["admin"], &["CreateKey"])).await, None);
}

#[tokio::test]
async fn nobody_writes_a_permit_for_what_he_may_not() {
    let world = World::new();
    let set = policies(&Authorizer::new().unwrap(), &world.acme, &[IDENTITY]);
    let hr = (&["hr"][..], &[][..]);
    for (text, missing) in [
        ("permit (principal, action, resource);", Some(Action::Invoke)),
        ("permit (principal in Role::\"hr\", action == Action::\"PutSecret\", resource);", Some(Action::PutSecret)),
        ("permit (principal is User, action in Action::\"Deploy\", resource);", Some(Action::PutFunction)),
        ("permit (principal, action == Action::\"Invoke\", resource) when { false };", Some(Action::Invoke)),
        ("permit (principal, action in Action::\"Identity\", resource);", None),
        ("permit (principal is Workload, action == Action::\"UseSecret\", resource);", None),
        ("forbid (principal, action, resource);", None),
        ("not a policy at all", None),
    ] {
        assert_eq!(kept_from(&world, &set, hr, put_policy(&world.acme, text)).await, missing, "{text}");
    }
    let admin = (&["admin"][..], &[][..]);
    assert_eq!(kept_from(&world, &set, admin, put_policy(&world.acme, EVERYTHING)).await, None);
}

#[tokio::test]
async fn a_boundary_narrows_what_can_be_given() {
    let world = World::new();
    let authorizer = Authorizer::new().unwrap();
    let text = "permit (principal, action in Action::\"Identity\", resource);".to_owned();
    let texts = Texts { version: 1, sources: vec![("edge".into(), text)] };
    let boundary = authorizer.tier(Owner::Boundary(world.acme.clone()), texts, None).unwrap();
    let set = policies(&authorizer, &world.acme, &[]).within(Some(boundary));
    let admin = (&["admin"][..], &[][..]);
    let missing = kept_from(&world, &set, admin, put_member(&world.acme, &["invoker"])).await;
    assert_eq!(missing, Some(Action::Invoke));
}

#[tokio::test]
async fn operators_give_within_the_guard_rails() {
    let world = World::new();
    let authorizer = Authorizer::new().unwrap();
    let set = policies(&authorizer, &world.acme, &[]);
    let operator = world.account(&platform_tenant(), &["operator"]).await;
    assert!(authorizer.decide(&set, operator, put_member(&world.acme, &["admin"]), circumstances()).is_ok());
}

#[tokio::test]
async fn an_explanation_says_what_a_decision_says_and_what_every_tier_does() {
    let world = World::new();
    let authorizer = Authorizer::new().unwrap();
    let set = policies(&authorizer, &world.acme, &["@id(\"freeze\") forbid (principal, action, resource);"]);
    let supposed = |tenant: &TenantId| Supposed {
        bound: cofferdam_model::Bound::None,
        kind: PrincipalKind::ServiceAccount,
        id: "robot".into(),
        issuer: None,
        tenant: Some(tenant.clone()),
        roles: vec!["admin".into()],
        groups: vec![],
        credential: cofferdam_model::CredentialKind::ApiKey,
        scopes: None,
        certificate: None,
        session: None,
    };
    for tenant in [&world.acme, &world.other] {
        let operation = world.invoke(&world.acme, false);
        let explained = authorizer.explain_supposed(&set, supposed(tenant), &operation, &circumstances());
        let who = world.account(tenant, &["admin"]).await;
        let denied = authorizer.decide(&set, who, operation, circumstances()).err().unwrap();
        assert_eq!((explained.outcome, explained.tier), (denied.outcome(), denied.tier()));
        assert_eq!(Some(explained.facts), denied.facts().decision);
        assert_eq!(explained.tiers.len(), 2, "also what comes after the tier that settles it");
        assert_eq!(explained.tiers[1].forbids, ["p0/freeze"]);
    }
}

#[tokio::test]
async fn policies_that_cannot_be_compiled_let_nothing_through() {
    let world = World::new();
    let authorizer = Authorizer::new().unwrap();
    let texts = || Texts { version: 1, sources: vec![("old".into(), "permit (principal, action, nonsense);".into())] };
    let sound = policies(&authorizer, &world.acme, &[]);
    let grants = authorizer.of_tenant(&world.acme, authorizer.tier_unread(Owner::Tenant(world.acme.clone()), texts()));
    let boundary = authorizer.tier_unread(Owner::Boundary(world.acme.clone()), texts());
    for (set, tier) in [(grants, Tier::Tenant), (sound.within(Some(boundary)), Tier::Boundary)] {
        let admin = world.account(&world.acme, &["admin"]).await;
        let decision = authorizer.decide(&set, admin, world.invoke(&world.acme, false), circumstances());
        assert_eq!(denied(decision), (Outcome::PolicyError, tier, vec!["unreadable".to_owned()]));
    }
}
