//! The decision tables in `policies/cases`, row by row.
//!
//! Owns the reading of a row. A row names callers, actions and what must come of each, with the policies that settle
//! it; see `policies/README.md`.

use std::collections::BTreeSet;
use std::path::Path;

use cofferdam_model::id::platform_tenant;
use cofferdam_model::{Action, Operation, Subject, TenantId};
use serde::Deserialize;

use super::{World, circumstances};
use crate::{Authorizer, Principal};

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
    /// Each `tenant:role,role`, or `nobody`.
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

async fn caller(world: &World, who: &str) -> Principal {
    let Some((home, roles)) = who.split_once(':') else {
        assert_eq!(who, "nobody");
        return world.nobody().await;
    };
    let roles: Vec<_> = roles.split(',').filter(|role| !role.is_empty()).collect();
    world.account(&tenant(world, home), &roles).await
}

/// Outcome, tier and policies.
type Settled = (String, String, Vec<String>);

fn settle<A: Operation>(
    case: &Case,
    (authorizer, world): (&Authorizer, &World),
    principal: Principal,
    operation: A,
) -> Settled {
    let texts = case.policies.iter().enumerate().map(|(at, text)| (format!("p{at}"), text.clone()));
    let sources: Vec<_> = texts.collect();
    let set = authorizer.compile(&tenant(world, &case.on), &sources).unwrap().suspended(case.suspended);
    let facts = match authorizer.decide(&set, principal, operation, circumstances()) {
        Ok(permit) => permit.facts(),
        Err(denied) => denied.facts(),
    };
    let decision = facts.decision.unwrap();
    (decision.outcome, decision.tier, decision.policies)
}

async fn check(case: &Case, authorizer: &Authorizer, seen: &mut BTreeSet<(String, String, String)>) {
    let world = World::new();
    let on = tenant(&world, &case.on);
    for who in &case.who {
        for action in &case.may {
            let principal = caller(&world, who).await;
            let settled = if action == Action::Invoke.as_str() {
                settle(case, (authorizer, &world), principal, world.invoke(&on, case.public))
            } else {
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
    for file in std::fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let table: Table = toml_edit::de::from_str(&text).unwrap_or_else(|error| panic!("{path:?}: {error}"));
        for case in &table.case {
            check(case, &authorizer, &mut seen).await;
        }
        rows += table.case.len();
    }
    assert!(rows >= 30, "{rows}");
    // Whatever is added to the catalogue or the roles must be decided on here too.
    for action in Action::ALL.iter().map(|action| action.as_str()) {
        let on_platform = [
            "CreateTenant",
            "PutTenantSettings",
            "SuspendTenant",
            "ResumeTenant",
            "ListTenants",
            "RotateIssuerKey",
            "ReadMetrics",
        ]
        .contains(&action);
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
