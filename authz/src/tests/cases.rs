//! The decision tables in `policies/cases`, row by row, and that what runs them asks what `decide` asks.

use std::collections::BTreeSet;
use std::path::Path;

use cofferdam_model::id::platform_tenant;
use cofferdam_model::{Action, Operation, Subject};

use super::{World, circumstances};
use crate::table::{Case, Table};
use crate::{Authorizer, Principal};

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

#[test]
fn every_row_of_the_decision_tables_comes_out_as_written() {
    let authorizer = Authorizer::new().unwrap();
    let mut seen = BTreeSet::new();
    let rows = tables();
    for case in &rows {
        for ran in case.run(&authorizer, &[]).unwrap_or_else(|error| panic!("{}: {error}", case.claim)) {
            assert!(ran.good, "{}: {} {} on {}: {:?}", case.claim, ran.who, ran.action, case.on, ran.answer);
            seen.insert((ran.who, ran.action, case.on.clone()));
        }
    }
    assert!(rows.len() >= 30, "{}", rows.len());
    // Whatever is added to the catalogue or the roles must be decided on here too.
    for action in Action::ALL {
        let home = if authorizer.about_the_platform(*action) { "platform" } else { "acme" };
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
            let row = (who.to_owned(), action.as_str().to_owned(), home.to_owned());
            assert!(seen.contains(&row), "no row for {row:?}");
        }
    }
}

/// Outcome, tier and policies.
type Settled = (String, String, Vec<String>);

fn settle<A: Operation>(
    (case, world): (&Case, &World),
    authorizer: &Authorizer,
    principal: Principal,
    operation: A,
) -> Settled {
    let texts = case.policies.iter().enumerate().map(|(at, text)| (format!("p{at}"), text.clone()));
    let on = if case.on == "platform" { platform_tenant() } else { world.acme.clone() };
    let set = authorizer.compile(&on, &texts.collect::<Vec<_>>()).unwrap().suspended(case.suspended);
    let facts = match authorizer.decide(&set, principal, operation, circumstances()) {
        Ok(permit) => permit.facts(),
        Err(denied) => denied.facts(),
    };
    let decision = facts.decision.unwrap();
    (decision.outcome, decision.tier, decision.policies)
}

async fn caller(world: &World, who: &str) -> Principal {
    let Some((home, roles)) = who.split_once(':') else { return world.nobody().await };
    let tenant = match home {
        "acme" => world.acme.clone(),
        "other" => world.other.clone(),
        _ => platform_tenant(),
    };
    let roles: Vec<_> = roles.split(',').filter(|role| !role.is_empty()).collect();
    world.account(&tenant, &roles).await
}

#[tokio::test]
async fn a_supposed_call_comes_out_as_the_real_one_does() {
    let authorizer = Authorizer::new().unwrap();
    let world = World::new();
    for case in tables().iter().filter(|case| case.on != "other") {
        let on = if case.on == "platform" { platform_tenant() } else { world.acme.clone() };
        for ran in case.run(&authorizer, &[]).unwrap() {
            let principal = caller(&world, &ran.who).await;
            let settled = if ran.action == Action::Invoke.as_str() {
                settle((case, &world), &authorizer, principal, world.invoke(&on, case.public))
            } else {
                settle((case, &world), &authorizer, principal, world.manage(&ran.action, &on))
            };
            let supposed = (ran.answer.outcome.to_owned(), ran.answer.tier.to_owned(), ran.answer.policies);
            assert_eq!(supposed, settled, "{}: {} {}", case.claim, ran.who, ran.action);
        }
    }
}
