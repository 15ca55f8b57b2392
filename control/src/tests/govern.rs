//! Organisations, ceilings and boundaries.

use cofferdam_authz::{Explanation, Outcome, Supposed, Tier};
use cofferdam_model::operation::OrganisationRef;
use cofferdam_model::{CredentialKind, Govern, OrganisationId, PrincipalKind};
use serde_json::json;

use super::*;

const ONLY_DATA: &str = "permit (principal, action in [Action::\"Data\", Action::\"Tenant\"], resource);";

fn organisation(world: &World, name: &str) -> OrganisationRef {
    let made = world.operate(Manage::Govern(Govern::CreateOrganisation { name: name.into() })).unwrap();
    OrganisationRef { id: OrganisationId::parse(made["id"].as_str().unwrap()).unwrap(), name: name.into() }
}

fn govern(world: &World, govern: Govern) -> Result<Value, ControlError> {
    world.operate(Manage::Govern(govern))
}

/// What would come of an admin of the tenant asking for this now.
fn asked(world: &World, control: &Control, tenant: &TenantId, operation: &Manage) -> Explanation {
    let policies = control.snapshot().policies(tenant).unwrap();
    let admin = Supposed {
        bound: cofferdam_model::Bound::None,
        kind: PrincipalKind::ServiceAccount,
        id: "boss".into(),
        issuer: None,
        tenant: Some(tenant.clone()),
        roles: vec!["admin".into()],
        groups: vec![],
        credential: CredentialKind::ApiKey,
        scopes: None,
        certificate: None,
        session: None,
    };
    let at = circumstances(&*world.clock, &*world.random);
    world.authorizer.explain_supposed(&policies, admin, operation, &at)
}

fn settled(world: &World, control: &Control, tenant: &TenantId) -> (Outcome, Tier) {
    let explained = asked(world, control, tenant, &Manage::ListKeys { tenant: tenant.clone() });
    (explained.outcome, explained.tier)
}

#[test]
fn a_ceiling_binds_the_tenants_of_its_organisation_from_the_moment_they_are_in_it() {
    let world = World::new();
    let (acme, _) = world.tenant("acme");
    let (globex, _) = world.tenant("globex");
    let group = organisation(&world, "group");
    let text = ONLY_DATA.to_owned();
    govern(&world, Govern::PutCeiling { organisation: group.clone(), name: "data".into(), text }).unwrap();
    assert_eq!(settled(&world, &world.control, &acme), (Outcome::Allow, Tier::Tenant));
    let assign =
        |to: Option<&OrganisationRef>| Govern::AssignTenant { tenant: acme.clone(), organisation: to.cloned() };
    govern(&world, assign(Some(&group))).unwrap();
    let bound = (Outcome::CeilingDeny, Tier::Organisation);
    assert_eq!(settled(&world, &world.control, &acme), bound);
    assert_eq!(settled(&world, &world.control, &globex), (Outcome::Allow, Tier::Tenant), "it is in no organisation");
    // After a restart too.
    assert_eq!(settled(&world, &world.reopen(), &acme), bound);
    let listed = govern(&world, Govern::ListOrganisations).unwrap();
    assert_eq!(listed["organisations"][0]["tenants"], json!(["acme"]));
    assert_eq!(listed["organisations"][0]["ceiling"][0]["text"], ONLY_DATA);
    govern(&world, Govern::RemoveCeiling { organisation: group.clone(), name: "data".into() }).unwrap();
    assert_eq!(settled(&world, &world.control, &acme), (Outcome::Allow, Tier::Tenant));
    govern(&world, assign(None)).unwrap();
    assert_eq!(world.control.snapshot().tenant(&acme).unwrap().organisation, None);
}

#[test]
fn a_boundary_binds_one_tenant_and_its_own_cannot_touch_it() {
    let world = World::new();
    let (acme, _) = world.tenant("acme");
    let put = |text: &str| Govern::PutBoundary { tenant: acme.clone(), name: "edge".into(), text: text.into() };
    govern(&world, put(ONLY_DATA)).unwrap();
    let bound = (Outcome::CeilingDeny, Tier::Boundary);
    assert_eq!(settled(&world, &world.control, &acme), bound);
    assert_eq!(settled(&world, &world.reopen(), &acme), bound);
    for attempt in [
        put("permit (principal, action, resource);"),
        Govern::RemoveBoundary { tenant: acme.clone(), name: "edge".into() },
        Govern::AssignTenant { tenant: acme.clone(), organisation: None },
    ] {
        let platform = platform_tenant();
        let policies = world.control.snapshot().policies(&platform).unwrap();
        let admin = Supposed {
            bound: cofferdam_model::Bound::None,
            kind: PrincipalKind::ServiceAccount,
            id: "boss".into(),
            issuer: None,
            tenant: Some(acme.clone()),
            roles: vec!["admin".into(), "operator".into()],
            groups: vec![],
            credential: CredentialKind::ApiKey,
            scopes: None,
            certificate: None,
            session: None,
        };
        let at = circumstances(&*world.clock, &*world.random);
        let explained = world.authorizer.explain_supposed(&policies, admin, &Manage::Govern(attempt), &at);
        assert_eq!((explained.outcome, explained.tier), (Outcome::ExplicitDeny, Tier::Platform));
    }
    let shown = world.operate(Manage::ReadTenant { tenant: acme.clone() }).unwrap();
    assert_eq!(shown["boundary"][0]["name"], "edge");
    govern(&world, Govern::RemoveBoundary { tenant: acme.clone(), name: "edge".into() }).unwrap();
    assert_eq!(settled(&world, &world.control, &acme), (Outcome::Allow, Tier::Tenant));
}

#[test]
fn what_binds_a_tenant_is_told_by_name_version_and_hash_and_its_text_to_operators_alone() {
    const OPEN: &str = "permit (principal, action, resource);";
    let world = World::new();
    let (acme, admin) = world.tenant("acme");
    let group = organisation(&world, "group");
    let boundary = Govern::PutBoundary { tenant: acme.clone(), name: "edge".into(), text: OPEN.into() };
    govern(&world, boundary).unwrap();
    let ceiling = Govern::PutCeiling { organisation: group.clone(), name: "cap".into(), text: OPEN.into() };
    govern(&world, ceiling).unwrap();
    govern(&world, Govern::AssignTenant { tenant: acme.clone(), organisation: Some(group) }).unwrap();
    let read = || Manage::ReadTenant { tenant: acme.clone() };
    let (own, operators) = (world.ask(&admin, read()).unwrap(), world.operate(read()).unwrap());
    for (tier, name) in [("boundary", "edge"), ("ceiling", "cap")] {
        assert_eq!(own[tier], json!([{ "name": name }]));
        assert_eq!(operators[tier], json!([{ "name": name, "text": OPEN }]));
        let set = &own[format!("{tier}_set")];
        assert_eq!((&set["version"], set["sha256"].as_str().map(str::len)), (&json!(1), Some(64)), "{set}");
        assert_eq!(*set, operators[format!("{tier}_set")]);
    }
    let decided = asked(&world, &world.control, &acme, &read());
    let hashes: Vec<_> = decided.facts.sets.iter().map(|set| set.digest.to_string()).collect();
    let told = ["ceiling_set", "boundary_set"].map(|set| own[set]["sha256"].as_str().unwrap().to_owned());
    assert!(told.iter().all(|hash| hashes.contains(hash)), "decisions name the same: {hashes:?}");
}

#[test]
fn ceilings_and_boundaries_are_compiled_before_they_hold() {
    let world = World::new();
    let (acme, _) = world.tenant("acme");
    let group = organisation(&world, "group");
    let before = world.control.snapshot();
    let text = || "permit (principal,\n  action, resourse);".to_owned();
    for wrong in [
        Govern::PutCeiling { organisation: group.clone(), name: "c".into(), text: text() },
        Govern::PutBoundary { tenant: acme.clone(), name: "b".into(), text: text() },
    ] {
        let told = chain(&govern(&world, wrong).unwrap_err());
        assert!(told.contains("line 2") && told.contains("column"), "{told}");
    }
    let platform = Govern::PutBoundary { tenant: platform_tenant(), name: "b".into(), text: ONLY_DATA.into() };
    assert!(govern(&world, platform).is_err(), "operators are bound by the guard-rails alone");
    assert!(matches!(
        govern(&world, Govern::CreateOrganisation { name: "group".into() }),
        Err(ControlError::Exists { what: "organisation", .. })
    ));
    assert!(Arc::ptr_eq(&before, &world.control.snapshot()));
}

#[test]
fn each_set_counts_its_own_changes() {
    let world = World::new();
    let (acme, admin) = world.tenant("acme");
    let versions = |control: &Control| {
        let explained = asked(&world, control, &acme, &Manage::ListKeys { tenant: acme.clone() });
        explained.facts.sets.into_iter().map(|set| (set.tier, set.version)).collect::<Vec<_>>()
    };
    assert_eq!(versions(&world.control), [(Tier::Platform, 0), (Tier::Tenant, 0)]);
    let put = |name: &str| Manage::PutPolicy {
        tenant: acme.clone(),
        name: name.into(),
        text: "permit (principal in Role::\"x\", action, resource);".into(),
    };
    world.ask(&admin, put("one")).unwrap();
    world.ask(&admin, put("two")).unwrap();
    let text = "permit (principal, action, resource);".to_owned();
    govern(&world, Govern::PutBoundary { tenant: acme.clone(), name: "edge".into(), text }).unwrap();
    let expected = [(Tier::Platform, 0), (Tier::Boundary, 1), (Tier::Tenant, 2)];
    assert_eq!(versions(&world.control), expected);
    assert_eq!(versions(&world.reopen()), expected);
}

#[test]
fn a_key_is_made_with_scopes_that_there_are() {
    let world = World::new();
    let (acme, admin) = world.tenant("acme");
    let key = |scopes: &[&str]| Manage::CreateKey {
        settings: Default::default(),
        tenant: acme.clone(),
        account: "ci".into(),
        roles: vec!["deployer".into()],
        scopes: scopes.iter().map(ToString::to_string).collect(),
        ttl_seconds: 3600,
    };
    let made = world.ask(&admin, key(&["Deploy", "PutSecret", "fn:orders"])).unwrap();
    assert_eq!(made["scopes"], json!(["Deploy", "PutSecret", "fn:orders"]));
    for wrong in ["deploy", "fn:", "fn:A", "*", ""] {
        let told = world.ask(&admin, key(&[wrong])).unwrap_err().to_string();
        assert!(told.contains("fn:"), "{told}");
    }
    use cofferdam_authz::Directory;
    let id = cofferdam_model::KeyId::parse(made["id"].as_str().unwrap()).unwrap();
    let kept = world.reopen().snapshot().api_key(&id).unwrap();
    assert_eq!(kept.scopes.as_deref().unwrap(), ["Deploy", "PutSecret", "fn:orders"]);
}
