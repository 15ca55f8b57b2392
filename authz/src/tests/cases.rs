//! The decision tables in `policies/cases`, row by row, and that what runs them asks what `decide` asks.
//!
//! A row names callers, actions and what must come of each, with the policies that settle it; see
//! `policies/README.md`.

use std::collections::BTreeSet;
use std::path::Path;

use cofferdam_model::id::platform_tenant;
use cofferdam_model::{Action, Invoke, Operation, OrganisationId, Subject, TenantId};

use super::{World, circumstances};
use crate::table::{Case, Table};
use crate::{Authorizer, Owner, Principal, TenantPolicies, Texts, Tier, Way};

fn tables() -> Vec<Case> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../policies/cases");
    let mut rows = Vec::new();
    for file in std::fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let table: Table = toml_edit::de::from_str(&text).unwrap_or_else(|error| panic!("{path:?}: {error}"));
        rows.extend(table.case);
    }
    rows
}

fn tenant(world: &World, name: &str) -> TenantId {
    match name {
        "acme" => world.acme.clone(),
        "other" => world.other.clone(),
        "platform" => platform_tenant(),
        other => panic!("no tenant `{other}`"),
    }
}

async fn caller(world: &World, who: &str, case: &Case) -> Principal {
    let Some((home, roles)) = who.split_once(':') else {
        assert_eq!(who, "nobody");
        return world.nobody().await;
    };
    if let Some((id, roles)) = roles.strip_prefix("user/").and_then(|user| user.split_once(':')) {
        let roles: Vec<_> = roles.split(',').filter(|role| !role.is_empty()).collect();
        return world.person(&tenant(world, home), id, &roles, &case.groups).await;
    }
    if let Some(roles) = roles.strip_suffix("@sigv4") {
        return world.signing_account(&tenant(world, home), &roles.split(',').collect::<Vec<_>>());
    }
    let roles: Vec<_> = roles.split(',').filter(|role| !role.is_empty()).collect();
    world.narrowed(&tenant(world, home), &roles, &case.scopes).await
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

#[tokio::test]
async fn a_supposed_call_comes_out_as_the_real_one_does() {
    let authorizer = Authorizer::new().unwrap();
    let world = World::new();
    for case in &tables() {
        let on = tenant(&world, &case.on);
        for ran in case.run(&authorizer, &[]).unwrap() {
            let settled = if ran.who == "workload" {
                settle_work(case, &authorizer, &world, &ran.action).await
            } else {
                let principal = caller(&world, &ran.who, case).await;
                if ran.action == Action::Invoke.as_str() {
                    settle(case, (&authorizer, &world), principal, world.invoke(&on, case.public))
                } else {
                    settle(case, (&authorizer, &world), principal, world.manage(&ran.action, &on))
                }
            };
            let supposed = (ran.answer.outcome.to_owned(), ran.answer.tier.to_owned(), ran.answer.policies);
            assert_eq!(supposed, settled, "{}: {} {}", case.claim, ran.who, ran.action);
        }
    }
}

#[test]
fn every_row_of_the_decision_tables_comes_out_as_written() {
    let authorizer = Authorizer::new().unwrap();
    let mut seen = BTreeSet::new();
    let (mut outcomes, mut tiers) = (BTreeSet::new(), BTreeSet::new());
    let tables = tables();
    let rows = tables.len();
    for case in &tables {
        for ran in case.run(&authorizer, &[]).unwrap_or_else(|error| panic!("{}: {error}", case.claim)) {
            assert!(ran.good, "{}: {} {} on {}: {:?}", case.claim, ran.who, ran.action, case.on, ran.answer);
            seen.insert((ran.who, ran.action, case.on.clone()));
        }
        outcomes.insert(case.outcome.clone());
        tiers.extend(case.tier.clone());
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
        let known = Action::ALL.iter().find(|known| known.as_str() == action).unwrap();
        let on_platform = authorizer.about_the_platform(*known);
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
