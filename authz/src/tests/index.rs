//! What the index leaves out does not count: its answers are those of Cedar's own authorizer over the whole set.
//!
//! Owns generated sets and calls. Every kind of scope and every way to succeed, fail and forbid is among them.

use cedar_policy::{Policy, PolicySet, Schema};
use cofferdam_model::{Action, FunctionId, Invoke, OrganisationId, RouteId};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::{World, circumstances};
use crate::entities::{Home, Question, Vocabulary, Way};
use crate::policy::index::{Answer, Bits, Index};
use crate::schema::SCHEMA;

/// Sets that are generated; each is asked every call.
const SETS: u32 = 380;
/// Calls each set is asked at least.
const CALLS: usize = 150;

const PRINCIPALS: &[&str] = &[
    "principal",
    "principal",
    "principal is User",
    "principal is ServiceAccount",
    "principal is Workload",
    "principal is Anonymous",
    "principal in Role::\"a\"",
    "principal in Role::\"b\"",
    "principal is ServiceAccount in Role::\"a\"",
    "principal is User in Role::\"a\"",
    "principal == ServiceAccount::\"ACME|robot\"",
    "principal == ServiceAccount::\"ACME|other\"",
    "principal in ServiceAccount::\"ACME|robot\"",
    "principal in Tenant::\"ACME\"",
    "principal in Tenant::\"OTHER\"",
    "principal in Organisation::\"ORG\"",
    "principal is Workload in Function::\"FUNCTION\"",
    "principal == Workload::\"FUNCTION\"",
];
const ACTIONS: &[&str] = &[
    "action",
    "action",
    "action == Action::\"Invoke\"",
    "action == Action::\"PutSecret\"",
    "action == Action::\"UseSecret\"",
    "action == Action::\"CreateKey\"",
    "action in Action::\"Data\"",
    "action in Action::\"Manage\"",
    "action in Action::\"Deploy\"",
    "action in Action::\"Workload\"",
    "action in [Action::\"Secrets\", Action::\"Connect\", Action::\"ReadTenant\"]",
];
const RESOURCES: &[&str] = &[
    "resource",
    "resource",
    "resource is Function",
    "resource is Secret",
    "resource is Tenant",
    "resource == Function::\"FUNCTION\"",
    "resource in Function::\"FUNCTION\"",
    "resource in Function::\"ELSEWHERE\"",
    "resource is Secret in Function::\"FUNCTION\"",
    "resource in Tenant::\"ACME\"",
    "resource in Tenant::\"OTHER\"",
    "resource == Tenant::\"ACME\"",
    "resource in Organisation::\"ORG\"",
    "resource in Role::\"a\"",
];
/// Not all of them are valid for every scope: what the index leaves out must not depend on conditions at all.
const CONDITIONS: &[&str] = &[
    "",
    "",
    "when { principal.id == \"robot\" }",
    "when { context.public }",
    "unless { context.method == \"GET\" }",
    "when { 9223372036854775807 + 1 == 0 }",
    "when { false && 9223372036854775807 + 1 == 0 }",
    "when { 9223372036854775807 + 1 == 0 && false }",
    "when { resource.nothing == 1 }",
    "when { principal.roles.contains(\"b\") }",
    "when { resource has name && resource.name == \"orders\" }",
];

/// Effect, and one of each list.
type Statement = (bool, usize, usize, usize, usize);

fn statements() -> impl Strategy<Value = Vec<Statement>> {
    let of = |list: &'static [&str]| 0..list.len();
    proptest::collection::vec((any::<bool>(), of(PRINCIPALS), of(ACTIONS), of(RESOURCES), of(CONDITIONS)), 0..40)
}

/// The ids that texts speak of.
struct Names([(&'static str, String); 5]);

impl Names {
    fn policy(&self, place: usize, (permit, principal, action, resource, condition): Statement) -> Policy {
        let effect = if permit { "permit" } else { "forbid" };
        let (principal, action) = (PRINCIPALS[principal], ACTIONS[action]);
        let (resource, condition) = (RESOURCES[resource], CONDITIONS[condition]);
        let mut text = format!("{effect} ({principal}, {action}, {resource}) {condition};");
        for (word, id) in &self.0 {
            text = text.replace(word, id);
        }
        Policy::parse(Some(cedar_policy::PolicyId::new(format!("p{place}"))), text).unwrap()
    }
}

/// Calls of every action, by callers of every kind.
async fn questions(world: &World, bits: &Bits, organisation: &OrganisationId) -> Vec<Question> {
    let schema = Schema::from_cedarschema_str(SCHEMA).unwrap().0;
    let vocabulary = Vocabulary::of(&schema).unwrap();
    let at = circumstances();
    let home = Home { suspended: false, organisation: Some(organisation) };
    let mut all = Vec::new();
    for roles in [&[][..], &["a"], &["b"], &["a", "b"]] {
        for tenant in [&world.acme, &world.other] {
            let who = world.account(tenant, roles).await;
            let invoke = Invoke {
                route: Some(RouteId::mint(&world.acme, &world.random)),
                secrets: ["KEY".into(), "OTHER".into()].into(),
                egress: true,
                ..world.invoke(&world.acme, roles.is_empty())
            };
            all.push(vocabulary.question(bits, &who, &invoke, &at, home, None).unwrap());
            let work = vocabulary.work(&who, &invoke, &at).unwrap();
            all.extend(vocabulary.uses(bits, (&work, home), &invoke.secrets, &invoke, None).unwrap());
            let way = Way { host: "a.example", port: 443, tls: true, method: "GET", rule: "r" };
            all.push(vocabulary.connection(bits, (&work, home), &invoke, way, None).unwrap());
            let of_calls = [Action::Invoke, Action::UseSecret, Action::Connect];
            for action in Action::ALL.iter().filter(|action| !of_calls.contains(action)) {
                let operation = world.manage(action.as_str(), &world.acme);
                all.push(vocabulary.question(bits, &who, &operation, &at, home, None).unwrap());
            }
        }
    }
    let nobody = world.nobody().await;
    for public in [false, true] {
        let invoke = world.invoke(&world.acme, public);
        all.push(vocabulary.question(bits, &nobody, &invoke, &at, home, None).unwrap());
    }
    all
}

#[test]
fn decisions_by_the_index_are_those_of_the_plain_authorizer() {
    let world = World::new();
    let schema = Schema::from_cedarschema_str(SCHEMA).unwrap().0;
    let bits = Bits::of(&schema).unwrap();
    let organisation = OrganisationId::mint(&world.random);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let questions = runtime.block_on(questions(&world, &bits, &organisation));
    assert!(questions.len() >= CALLS, "{}", questions.len());
    let names = Names([
        ("ACME", world.acme.to_string()),
        ("OTHER", world.other.to_string()),
        ("ORG", organisation.to_string()),
        ("FUNCTION", world.function(&world.acme).to_string()),
        ("ELSEWHERE", FunctionId::mint(&world.acme, &world.random).to_string()),
    ]);
    let cedar = cedar_policy::Authorizer::new();
    let (mut calls, mut outcomes) = (0usize, [0usize; 3]);
    let mut runner = TestRunner::new_with_rng(
        Config { cases: SETS, failure_persistence: None, ..Config::default() },
        proptest::test_runner::TestRng::deterministic_rng(proptest::test_runner::RngAlgorithm::ChaCha),
    );
    let counted = std::cell::RefCell::new((&mut calls, &mut outcomes));
    let outcome = runner.run(&statements(), |statements| {
        let policies: Vec<Policy> =
            statements.into_iter().enumerate().map(|(place, statement)| names.policy(place, statement)).collect();
        let whole = PolicySet::from_policies(policies.clone()).unwrap();
        let index = Index::of(&bits, policies.iter()).unwrap();
        let (calls, outcomes) = &mut *counted.borrow_mut();
        for question in &questions {
            let asked = question.asked();
            let (mut plain, mut indexed) = (Answer::default(), Answer::default());
            plain.take(&cedar.is_authorized(asked.request, &whole, asked.entities), &whole);
            index.ask(&cedar, &asked, &mut indexed);
            plain.sort();
            indexed.sort();
            // Cedar names no permits where anything forbids; the index has them from other places.
            if !indexed.forbids.is_empty() {
                indexed.permits.clear();
            }
            prop_assert_eq!(&indexed, &plain);
            **calls += 1;
            outcomes[0] += usize::from(!plain.forbids.is_empty());
            outcomes[1] += usize::from(!plain.permits.is_empty());
            outcomes[2] += usize::from(!plain.failures.is_empty());
        }
        Ok(())
    });
    outcome.unwrap();
    assert!(calls >= 100_000, "{calls}");
    // A property that nothing ever met would hold for nothing.
    assert!(outcomes.iter().all(|count| *count > calls / 20), "{outcomes:?} of {calls}");
}

#[test]
fn what_the_schema_says_a_policy_can_be_about_is_never_left_out() {
    let world = World::new();
    let schema = Schema::from_cedarschema_str(SCHEMA).unwrap().0;
    let bits = Bits::of(&schema).unwrap();
    let acme = world.acme.to_string();
    let names = Names([
        ("ACME", acme.clone()),
        ("OTHER", acme.clone()),
        ("ORG", "o_0000000000000000".into()),
        ("FUNCTION", world.function(&world.acme).to_string()),
        ("ELSEWHERE", acme),
    ]);
    for principal in 0..PRINCIPALS.len() {
        for action in 0..ACTIONS.len() {
            for resource in 0..RESOURCES.len() {
                let policy = names.policy(0, (true, principal, action, resource, 0));
                let actions = bits.actions(&policy);
                for environment in policy.get_valid_request_envs(&schema) {
                    let name = environment.action().id().unescaped();
                    assert_ne!(bits.named(name).unwrap() & actions, 0, "{name}: {policy}");
                }
            }
        }
    }
}
