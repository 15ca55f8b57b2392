//! What somebody holds: may do to everything of a kind in a tenant, not to some of it.
//!
//! Owns that reading. It asks about a thing that has no name, and takes no permit and passes over no forbid that could
//! come out otherwise for one that has: so it may deny what somebody holds, never the other way round. What is
//! forbidden to everybody alike takes nothing from one that another would keep, and is left out.

use cedar_policy::{Effect, Policy};
use cofferdam_model::{Action, Circumstances, FunctionId, KeyId, Operation, PolicyTier, Resource, TenantId};

use super::session::Session;
use super::weigh::holds;
use super::{Authorizer, Outcome, over_tenants, tiers};
use crate::entities::Question;
use crate::explain::conjuncts;
use crate::identity::Principal;
use crate::policy::index::bit;
use crate::policy::look::{can_be_about, is_even, mentions, tells_things_apart};
use crate::policy::{TenantPolicies, TierPolicies};

/// Kinds of which a tenant has one.
const SINGLE: &[&str] = &["Tenant", "AuditLog"];

/// Somebody who gives, with the policies that tell what he holds.
pub(super) struct Giver<'a> {
    authorizer: &'a Authorizer,
    policies: TenantPolicies,
    principal: &'a Principal,
    circumstances: &'a Circumstances,
}

/// An action on something of a tenant that nobody has a policy about by name.
struct Probe {
    action: Action,
    resource: Resource,
    tenant: TenantId,
}

impl Operation for Probe {
    fn action(&self) -> Action {
        self.action
    }

    fn tenant(&self) -> TenantId {
        self.tenant.clone()
    }

    fn resource(&self) -> Resource {
        self.resource.clone()
    }
}

impl<'a> Giver<'a> {
    pub(super) fn new(
        authorizer: &'a Authorizer,
        policies: &TenantPolicies,
        principal: &'a Principal,
        circumstances: &'a Circumstances,
    ) -> Self {
        Self { authorizer, policies: policies.clone().without(is_even), principal, circumstances }
    }

    /// The first of these actions that he does not hold.
    pub(super) fn lacks(&self, mut actions: impl Iterator<Item = Action>) -> Option<Action> {
        let over = self.principal.tenant() == Some(&cofferdam_model::id::platform_tenant());
        let apart: Vec<_> = self.tiers(over).into_iter().map(|(tier, sets)| (tier, telling_apart(&sets))).collect();
        actions.find(|action| !self.holds(*action, &apart))
    }

    /// Whether he may do this in the tenant, whatever it is done to. Actions that nobody of a tenant can do there are
    /// nobody's to hold, and none to give.
    fn holds(&self, action: Action, apart: &[(PolicyTier, Vec<&Policy>)]) -> bool {
        let (kind, tenant) = match self.authorizer.vocabulary.done_to(action) {
            None | Some("Platform") => return true,
            Some(kind) => (kind, self.policies.tenant()),
        };
        let Some(resource) = something(kind, tenant) else { return false };
        let probe = Probe { action, resource, tenant: tenant.clone() };
        let asked = self.authorizer.question(&self.policies, self.principal, &probe, self.circumstances);
        let Ok(question) = asked else { return false };
        let over = over_tenants(self.principal, &probe);
        let rulings = self.authorizer.rulings(&self.policies, &question, over, false);
        let everywhere = SINGLE.contains(&kind)
            || self.tiers(over).iter().all(|(tier, sets)| {
                let ruling = rulings.iter().find(|ruling| ruling.set.tier == *tier);
                ruling.is_some_and(|ruling| permitted_everywhere(sets, &ruling.answer.permits))
            }) && !apart.iter().flat_map(|(_, forbids)| forbids).any(|forbid| {
                let actions = self.authorizer.compiler.bits.actions(forbid);
                actions & bit(action).unwrap_or_default() != 0
                    && can_be_about(forbid, kind)
                    && self.may_bind(forbid, &question)
            });
        let session = Session::of(self.principal, &self.authorizer.compiler.bits);
        let session = session.map(|session| (session.allows(&probe), session.facts(self.principal)));
        everywhere && tiers::settle(rulings, session).outcome == Outcome::Allow
    }

    /// The tiers that must permit, with the sets of each.
    fn tiers(&self, over: bool) -> Vec<(PolicyTier, Vec<&TierPolicies>)> {
        if over {
            return vec![(PolicyTier::Tenant, vec![&self.authorizer.operators])];
        }
        let ceilings = self.policies.ceilings().map(|ceiling| (ceiling.tier(), vec![ceiling]));
        let grants = vec![&self.authorizer.defaults, self.policies.grants()];
        ceilings.chain([(PolicyTier::Tenant, grants)]).collect()
    }

    /// Whether there may be a thing of which this forbid holds for him: not, if it is about others, or if a part of it
    /// that looks at nothing of the thing does not hold.
    fn may_bind(&self, forbid: &Policy, question: &Question) -> bool {
        let fails = |part: &Policy| {
            !mentions(part, "resource") && holds(&self.authorizer.cedar, question, part.clone()) == Some(false)
        };
        question.asked().principal.fits(&forbid.principal_constraint()) && !conjuncts(forbid).iter().any(fails)
    }
}

/// Forbids that may hold of one thing and not of another.
fn telling_apart<'p>(sets: &[&'p TierPolicies]) -> Vec<&'p Policy> {
    let all = sets.iter().filter_map(|tier| tier.set().ok()).flat_map(|set| set.policies());
    all.filter(|policy| policy.effect() == Effect::Forbid && tells_things_apart(policy)).collect()
}

/// Whether one of the permits that hold, in order, does so of everything of the kind.
fn permitted_everywhere(sets: &[&TierPolicies], permits: &[String]) -> bool {
    let all = sets.iter().filter_map(|tier| tier.set().ok()).flat_map(|set| set.policies());
    let holds = |policy: &&Policy| {
        let id: &str = policy.id().as_ref();
        permits.binary_search_by(|permit| permit.as_str().cmp(id)).is_ok()
    };
    all.filter(holds).any(|policy| !tells_things_apart(policy))
}

/// A resource of a kind with a name and an id that nothing real has.
fn something(kind: &str, tenant: &TenantId) -> Option<Resource> {
    let function = || FunctionId::parse(&format!("{tenant}.f_0000000000000000")).ok();
    Some(match kind {
        "Tenant" => Resource::Tenant(tenant.clone()),
        "AuditLog" => Resource::AuditLog(tenant.clone()),
        "Function" => Resource::Function { id: function()?, name: "".into() },
        "Secret" => Resource::Secret { function: function()?, function_name: "".into(), name: "".into() },
        "Api" => Resource::Api { tenant: tenant.clone(), name: String::new() },
        "Account" => Resource::Account { tenant: tenant.clone(), name: String::new(), roles: Vec::new() },
        "ApiKey" => Resource::ApiKey(KeyId::parse(&format!("{tenant}.k_0000000000000000")).ok()?),
        "PolicySet" => Resource::PolicySet { tenant: tenant.clone(), policy: String::new() },
        _ => return None,
    })
}
