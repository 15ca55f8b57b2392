//! The decision tables in `policies/cases`, row by row.
//!
//! Owns the reading of a row. A row names callers, actions and what must come of each, with the policies that settle
//! it; see `policies/README.md`.

use std::collections::BTreeSet;
use std::path::Path;

use cofferdam_model::id::platform_tenant;
use cofferdam_model::{Action, Invoke, Operation, OrganisationId, Subject, TenantId};
use serde::Deserialize;

use super::{World, circumstances};
use crate::{Authorizer, Owner, Principal, TenantPolicies, Texts, Tier, Way};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    case: Vec<Case>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    /// What the row claims.
    claim: String,
    /// Each `tenant:role,role`, `nobody`, or `workload`: the function that an invoker of the tenant calls. `@sigv4`
    /// behind it signs, the others show a key.
    who: Vec<String>,
    /// Each an action.
    may: Vec<String>,
    /// Tenant it happens in.
    on: String,
    /// Whether the route was declared public.
    #[serde(default)]
    public: bool,
    /// Whether the tenant is suspended.
    #[serde(default)]
    suspended: bool,
    /// Policies of that tenant, named `p0`, `p1` and so on.
    #[serde(default)]
    policies: Vec<String>,
    /// Policies operators bound the tenant by, named `b0`, `b1` and so on.
    #[serde(default)]
    boundary: Vec<String>,
    /// Policies of the ceiling of the tenant's organisation, named `c0`, `c1` and so on.
    #[serde(default)]
    ceiling: Vec<String>,
    /// What the caller's credential is good for at most.
    #[serde(default)]
    scopes: Vec<String>,
    /// Outcome.
    outcome: String,
    /// Tier that settles it.
    tier: String,
    /// Policies that do.
    by: Vec<String>,
}

fn tenant(world: &World, name: &str) -> TenantId {
    match name {
        "acme" => world.acme.clone(),
        "other" => world.other.clone(),
        "platform" => platform_tenant(),
        other => panic!("no tenant `{other}`"),
    }
}

async fn caller(world: &World, who: &str, scopes: &[String]) -> Principal {
    let Some((home, roles)) = who.split_once(':') else {
        assert_eq!(who, "nobody");
        return world.nobody().await;
    };
    if let Some(roles) = roles.strip_suffix("@sigv4") {
        return world.signing_account(&tenant(world, home), &roles.split(',').collect::<Vec<_>>());
    }
    let roles: Vec<_> = roles.split(',').filter(|role| !role.is_empty()).collect();
    world.narrowed(&tenant(world, home), &roles, scopes).await
}

/// Outcome, tier and policies.
type Settled = (String, String, Vec<String>);

fn settle<A: Operation>(
    case: &Case,
    (authorizer, world): (&Authorizer, &World),
    principal: Principal,
    operation: A,
) -> Settled {
    let set = in_force(case, authorizer, world);
    let facts = match authorizer.decide(&set, principal, operation, circumstances()) {
        Ok(permit) => permit.facts(),
        Err(denied) => denied.facts(),
    };
    let decision = facts.decision.unwrap();
    (decision.outcome, decision.tier, decision.policies)
}

/// Everything that is asked in the row.
fn in_force(case: &Case, authorizer: &Authorizer, world: &World) -> TenantPolicies {
    let texts = |letter: &str, texts: &[String]| Texts {
        version: 1,
        sources: texts.iter().enumerate().map(|(at, text)| (format!("{letter}{at}"), text.clone())).collect(),
    };
    let on = tenant(world, &case.on);
    let tier = |owner, texts: Texts| (!texts.sources.is_empty()).then(|| authorizer.tier(owner, texts, None).unwrap());
    let grants = authorizer.tier(Owner::Tenant(on.clone()), texts("p", &case.policies), None).unwrap();
    let organisation = OrganisationId::mint(&world.random);
    let ceiling = tier(Owner::Organisation(organisation.clone()), texts("c", &case.ceiling));
    let boundary = tier(Owner::Boundary(on.clone()), texts("b", &case.boundary));
    let set = authorizer.of_tenant(&on, grants).within(boundary).under(organisation, ceiling);
    set.suspended(case.suspended)
}

/// What comes of the function's own decision, the call itself being allowed.
async fn settle_work(case: &Case, authorizer: &Authorizer, world: &World, action: &str) -> Settled {
    let set = in_force(case, authorizer, world);
    let on = tenant(world, &case.on);
    let invoke = Invoke { secrets: ["KEY".into()].into(), egress: true, ..world.invoke(&on, case.public) };
    let without = Invoke { secrets: [].into(), ..invoke.clone() };
    let caller = || world.account(&on, &["invoker"]);
    if action == Action::UseSecret.as_str() {
        let facts = match authorizer.decide(&set, caller().await, invoke, circumstances()) {
            Ok(permit) => permit.facts(),
            Err(denied) => denied.facts(),
        };
        assert_eq!(facts.decision.unwrap().outcome, "allow", "{}: the call itself", case.claim);
        let used = facts.uses.into_iter().next().unwrap();
        return (used.outcome, used.tier, used.policies);
    }
    let permit = authorizer.decide(&set, caller().await, without, circumstances()).unwrap();
    let way = Way { host: "api.example", port: 443, tls: true, method: "GET", rule: "https://api.example" };
    let decided = authorizer.connect(Some(&set), permit.errand().map(|errand| &**errand), way, None);
    let facts = decided.unwrap_or_else(|denied| *denied);
    (facts.outcome, facts.tier, facts.policies)
}

async fn check(case: &Case, authorizer: &Authorizer, seen: &mut BTreeSet<(String, String, String)>) {
    let world = World::new();
    let on = tenant(&world, &case.on);
    for who in &case.who {
        for action in &case.may {
            let settled = if who == "workload" {
                settle_work(case, authorizer, &world, action).await
            } else if action == Action::Invoke.as_str() {
                let principal = caller(&world, who, &case.scopes).await;
                settle(case, (authorizer, &world), principal, world.invoke(&on, case.public))
            } else {
                let principal = caller(&world, who, &case.scopes).await;
                settle(case, (authorizer, &world), principal, world.manage(action, &on))
            };
            let expected = (case.outcome.clone(), case.tier.clone(), case.by.clone());
            assert_eq!(settled, expected, "{}: {who} {action} on {}", case.claim, case.on);
            seen.insert((who.clone(), action.clone(), case.on.clone()));
        }
    }
}

#[tokio::test]
async fn every_row_of_the_decision_tables_comes_out_as_written() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../policies/cases");
    let authorizer = Authorizer::new().unwrap();
    let (mut rows, mut seen) = (0, BTreeSet::new());
    let (mut outcomes, mut tiers) = (BTreeSet::new(), BTreeSet::new());
    for file in std::fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let table: Table = toml_edit::de::from_str(&text).unwrap_or_else(|error| panic!("{path:?}: {error}"));
        for case in &table.case {
            check(case, &authorizer, &mut seen).await;
            outcomes.insert(case.outcome.clone());
            tiers.insert(case.tier.clone());
        }
        rows += table.case.len();
    }
    assert!(rows >= 30, "{rows}");
    for outcome in ["allow", "explicit_deny", "ceiling_deny", "implicit_deny", "policy_error"] {
        assert!(outcomes.contains(outcome), "no row comes out as {outcome}");
    }
    for tier in Tier::ALL {
        assert!(tiers.contains(tier.as_str()), "no row is settled by {tier:?}");
    }
    // Whatever is added to the catalogue or the roles must be decided on here too.
    for action in Action::ALL.iter().map(|action| action.as_str()) {
        if matches!(action, "UseSecret" | "Connect") {
            let row = ("workload".to_owned(), action.to_owned(), "acme".to_owned());
            assert!(seen.contains(&row), "no row for {row:?}");
            continue;
        }
        let installation = [
            "CreateTenant",
            "PutTenantSettings",
            "SuspendTenant",
            "ResumeTenant",
            "RotateIssuerKey",
            "ListTenants",
            "ShredTenant",
            "RotateRootKey",
            "ReadRootKey",
            "ReadMetrics",
        ];
        let above = [
            "CreateOrganisation",
            "ListOrganisations",
            "AssignTenant",
            "PutCeiling",
            "RemoveCeiling",
            "PutBoundary",
            "RemoveBoundary",
        ];
        let on_platform = installation.contains(&action) || above.contains(&action);
        let home = if on_platform { "platform" } else { "acme" };
        for who in [
            "acme:admin",
            "acme:deployer",
            "acme:invoker",
            "acme:viewer",
            "acme:",
            "nobody",
            "other:admin",
            "platform:operator",
        ] {
            let row = (who.to_owned(), action.to_owned(), home.to_owned());
            assert!(seen.contains(&row), "no row for {row:?}");
        }
    }
}
