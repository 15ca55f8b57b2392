//! What a decision promises, whatever a tenant writes and whatever fails.

mod giving;
mod lifting;

use cofferdam_model::id::platform_tenant;
use cofferdam_model::{Action, Invoke, Level, Operation, Resource, Subject, TenantId};

use super::*;
use crate::Tier;
use crate::schema::BuiltIn;
use crate::tests::{World, circumstances};

const EVERYTHING: &str = "permit (principal, action, resource);";
/// Passes strict validation, and fails whenever it is evaluated: the one thing types cannot rule out.
const OVERFLOW: &str = "when { 9223372036854775807 + 1 == 0 };";

fn policies(authorizer: &Authorizer, tenant: &TenantId, texts: &[&str]) -> TenantPolicies {
    let sources: Vec<_> = texts.iter().enumerate().map(|(at, text)| (format!("p{at}"), (*text).to_owned())).collect();
    authorizer.compile(tenant, &sources).unwrap()
}

fn with_guard_rails(texts: &[BuiltIn]) -> Authorizer {
    let mut authorizer = Authorizer::new().unwrap();
    let only = Some(Effect::Forbid);
    authorizer.guard_rails = built_in(&authorizer.compiler, PolicyTier::Platform, texts, only).unwrap();
    authorizer
}

fn denied<A: Operation>(decision: Result<Permit<A>, Denied>) -> (Outcome, Tier, Vec<String>) {
    match decision {
        Ok(_) => panic!("allowed"),
        Err(denied) => (denied.outcome(), denied.tier(), denied.facts().decision.unwrap().policies),
    }
}

#[tokio::test]
async fn a_permit_carries_what_was_allowed_and_its_facts() {
    let world = World::new();
    let authorizer = Authorizer::new().unwrap();
    let set = policies(&authorizer, &world.acme, &[]);
    let operation = world.invoke(&world.acme, false);
    let admin = world.account(&world.acme, &["admin"]).await;
    let permit = authorizer.decide(&set, admin, operation.clone(), circumstances()).unwrap();
    assert_eq!(permit.operation(), &operation);
    assert_eq!(permit.principal().id(), "robot");
    assert_eq!(permit.level(), Level::Standard);
    let facts = permit.facts();
    assert_eq!(facts.request, permit.circumstances().request);
    assert_eq!(facts.action.as_deref(), Some("Invoke"));
    assert_eq!(facts.tenant.as_deref(), Some(world.acme.as_str()));
    assert_eq!(facts.resource.as_deref(), Some(operation.function.as_str()));
    assert_eq!(facts.version.as_deref(), Some(operation.version.as_str()));
    assert_eq!(facts.component, Some(operation.component));
    assert_eq!(facts.principal.unwrap().id, "robot");
    let decision = facts.decision.unwrap();
    assert_eq!((decision.outcome.as_str(), decision.tier.as_str()), ("allow", "tenant"));
    assert_eq!(decision.policies, ["10-defaults/admin"]);
    assert_eq!(decision.policy_set, set.digest());
    let tiers: Vec<_> = decision.sets.iter().map(|set| (set.tier, &*set.owner)).collect();
    assert_eq!(tiers, [(Tier::Platform, "platform"), (Tier::Tenant, world.acme.as_str())]);
}

#[tokio::test]
async fn no_tenant_policy_permits_across_tenants() {
    let world = World::new();
    let authorizer = Authorizer::new().unwrap();
    // The target's own policies are as open as can be written.
    let set = policies(&authorizer, &world.acme, &[EVERYTHING]);
    let of_workloads = [Action::UseSecret, Action::Connect];
    for action in Action::ALL.iter().filter(|action| !of_workloads.contains(action)) {
        let stranger = world.account(&world.other, &["admin", "operator"]).await;
        let (outcome, tier, by) = if *action == Action::Invoke {
            denied(authorizer.decide(&set, stranger, world.invoke(&world.acme, true), circumstances()))
        } else {
            let operation = world.manage(action.as_str(), &world.acme);
            let own = policies(&authorizer, &operation.tenant(), &[]);
            let set = if operation.tenant() == world.acme { &set } else { &own };
            denied(authorizer.decide(set, stranger, operation, circumstances()))
        };
        assert_eq!((outcome, tier), (Outcome::ExplicitDeny, Tier::Platform), "{action:?}");
        assert!(by.contains(&"00-platform/cross-tenant".to_owned()), "{action:?}: {by:?}");
    }
}

#[tokio::test]
async fn policies_of_one_tenant_are_never_asked_about_anothers() {
    let world = World::new();
    let authorizer = Authorizer::new().unwrap();
    let set = policies(&authorizer, &world.other, &[EVERYTHING]);
    let member = world.account(&world.acme, &["admin"]).await;
    let decision = authorizer.decide(&set, member, world.invoke(&world.acme, false), circumstances());
    assert_eq!(denied(decision).0, Outcome::PolicyError);
}

#[tokio::test]
async fn an_operation_put_together_from_two_tenants_is_denied() {
    let world = World::new();
    let authorizer = Authorizer::new().unwrap();
    let set = policies(&authorizer, &world.acme, &[EVERYTHING]);
    let crossed = Invoke { function: world.function(&world.other), ..world.invoke(&world.acme, false) };
    let admin = world.account(&world.acme, &["admin"]).await;
    let (outcome, _, by) = denied(authorizer.decide(&set, admin, crossed, circumstances()));
    assert_eq!((outcome, by), (Outcome::PolicyError, vec!["unaskable/resource".to_owned()]));

    struct Crossed(TenantId, Resource);
    impl Operation for Crossed {
        fn action(&self) -> Action {
            Action::ReadTenant
        }
        fn tenant(&self) -> TenantId {
            self.0.clone()
        }
        fn resource(&self) -> Resource {
            self.1.clone()
        }
    }
    for resource in [Resource::Tenant(world.other.clone()), Resource::Platform] {
        let admin = world.account(&world.acme, &["admin"]).await;
        let decision = authorizer.decide(&set, admin, Crossed(world.acme.clone(), resource), circumstances());
        assert_eq!(denied(decision).0, Outcome::PolicyError);
    }
}

#[tokio::test]
async fn a_tenant_policy_that_fails_denies_what_others_permit() {
    let world = World::new();
    let authorizer = Authorizer::new().unwrap();
    for effect in ["forbid", "permit"] {
        let failing = format!("{effect} (principal, action, resource) {OVERFLOW}");
        let set = policies(&authorizer, &world.acme, &[EVERYTHING, &failing]);
        let admin = world.account(&world.acme, &["admin"]).await;
        let decision = authorizer.decide(&set, admin, world.invoke(&world.acme, false), circumstances());
        assert_eq!(denied(decision), (Outcome::PolicyError, Tier::Tenant, vec!["p1/1".to_owned()]), "{effect}");
    }
}

#[tokio::test]
async fn a_guard_rail_that_fails_denies() {
    let world = World::new();
    let failing = format!("@id(\"fails\") forbid (principal, action, resource) {OVERFLOW}");
    let failing: &'static str = Box::leak(failing.into_boxed_str());
    let authorizer = with_guard_rails(&[("00-platform", failing)]);
    let set = policies(&authorizer, &world.acme, &[EVERYTHING]);
    let admin = world.account(&world.acme, &["admin"]).await;
    let decision = authorizer.decide(&set, admin, world.invoke(&world.acme, false), circumstances());
    let expected = (Outcome::PolicyError, Tier::Platform, vec!["00-platform/fails".to_owned()]);
    assert_eq!(denied(decision), expected);
}

#[test]
fn a_guard_rail_that_permits_is_not_taken() {
    let authorizer = Authorizer::new().unwrap();
    let refused = authorizer.compiler.built_in(&[("00-platform", EVERYTHING)], Some(Effect::Forbid));
    assert!(matches!(refused.err(), Some(PolicyError::BuiltIn(_))));
}

#[tokio::test]
async fn no_tenant_decides_over_operators() {
    let world = World::new();
    let authorizer = Authorizer::new().unwrap();
    let closed = policies(&authorizer, &world.acme, &["forbid (principal, action, resource);"]);
    let open = policies(&authorizer, &world.acme, &[EVERYTHING]);
    let read = || world.manage("ReadTenant", &world.acme);
    let operator = world.account(&platform_tenant(), &["operator"]).await;
    assert!(authorizer.decide(&closed, operator, read(), circumstances()).is_ok());
    // Of the platform's tenant, but no operator: a tenant's openness is not for him.
    let clerk = world.account(&platform_tenant(), &["admin"]).await;
    assert_eq!(denied(authorizer.decide(&open, clerk, read(), circumstances())).0, Outcome::ImplicitDeny);
    // The role by itself, in another tenant, is only a word.
    let impostor = world.account(&world.other, &["operator"]).await;
    assert_eq!(denied(authorizer.decide(&open, impostor, read(), circumstances())).0, Outcome::ExplicitDeny);
}

#[tokio::test]
async fn what_another_tenant_has_is_hidden_and_what_ones_own_has_is_not() {
    let world = World::new();
    let authorizer = Authorizer::new().unwrap();
    let set = policies(&authorizer, &world.acme, &[]);
    let callers = [
        (world.account(&world.acme, &[]).await, false, false),
        (world.account(&world.other, &["admin"]).await, true, false),
        (world.account(&platform_tenant(), &["operator"]).await, false, false),
        (world.nobody().await, true, true),
    ];
    for (caller, hidden, unidentified) in callers {
        let named = caller.facts();
        let denied = authorizer.decide(&set, caller, world.invoke(&world.acme, false), circumstances()).err().unwrap();
        assert_eq!((denied.hidden(), denied.unidentified()), (hidden, unidentified), "{named:?}");
        assert_eq!(denied.level(), Level::Standard);
        assert_eq!(denied.facts().principal, Some(named));
    }
}

#[tokio::test]
async fn a_suspended_tenant_stands_still_until_it_is_not() {
    let world = World::new();
    let authorizer = Authorizer::new().unwrap();
    let set = policies(&authorizer, &world.acme, &[EVERYTHING]);
    let call = async |set: &TenantPolicies| {
        let admin = world.account(&world.acme, &["admin"]).await;
        authorizer.decide(set, admin, world.invoke(&world.acme, false), circumstances())
    };
    let suspended = set.clone().suspended(true);
    let expected = (Outcome::ExplicitDeny, Tier::Platform, vec!["00-platform/suspended-function".to_owned()]);
    assert_eq!(denied(call(&suspended).await), expected);
    assert!(call(&suspended.suspended(false)).await.is_ok());
}
