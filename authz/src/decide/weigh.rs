//! A judgement laid open: what each tier said, and the question they were asked.
//!
//! Owns the one way from `explain` to the decision. It is the decision's own judgement, so the two cannot differ. Must
//! never mint a permit.

use cedar_policy::{Policy, PolicySet, Validator};
use cofferdam_model::id::platform_tenant;
use cofferdam_model::{Action, Circumstances, DecisionFacts, Invoke, Operation, PolicyTier};

use super::explain::explanation;
use super::{Authorizer, Explanation, Outcome, TierExplanation, home};
use crate::entities::{Question, Way};
use crate::identity::{Principal, Supposed};
use crate::policy::index::Actions;
use crate::policy::set::Set;
use crate::policy::{TenantPolicies, TierPolicies};

/// What one tier says by itself.
pub(crate) struct Rated {
    pub(crate) tier: PolicyTier,
    pub(crate) outcome: Outcome,
    /// Those that settled it, or failed.
    pub(crate) policies: Vec<String>,
}

/// A judgement with all it came from.
pub(crate) struct Weighed<'a> {
    pub(crate) outcome: Outcome,
    pub(crate) tier: PolicyTier,
    pub(crate) facts: DecisionFacts,
    pub(crate) tiers: Vec<Rated>,
    /// The policies of the tiers that must permit.
    permitting: Vec<(PolicyTier, &'a TierPolicies)>,
    question: Option<Question>,
    cedar: &'a cedar_policy::Authorizer,
}

/// What a function at work is supposed to do.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Work<'a> {
    /// Be given a secret.
    Secret(&'a str),
    /// Send a request.
    Request(Way<'a>),
}

impl Authorizer {
    /// Judges, and says what every tier said, also those that were not asked because an earlier one had settled it.
    pub(crate) fn weigh<'a, A: Operation>(
        &'a self,
        policies: &'a TenantPolicies,
        principal: &Principal,
        operation: &A,
        circumstances: &Circumstances,
    ) -> Weighed<'a> {
        let explained = self.explain(policies, principal, operation, circumstances);
        let question = self.question(policies, principal, operation, circumstances).ok();
        let over = super::over_tenants(principal, operation);
        self.laid_open(policies, explained, question, over)
    }

    /// The same of a function at work for somebody's call.
    pub(crate) fn weigh_work<'a>(
        &'a self,
        policies: &'a TenantPolicies,
        caller: Supposed,
        (invoke, work): (&Invoke, Work<'_>),
        circumstances: &Circumstances,
    ) -> Weighed<'a> {
        let (bits, home) = (&self.compiler.bits, home(policies));
        let question = self.vocabulary.work(&Principal::supposed(caller), invoke, circumstances).and_then(|at| {
            let unaskable = || crate::entities::Unaskable("secret");
            match work {
                Work::Secret(name) => {
                    let questions = self.vocabulary.uses(bits, (&at, home), &[name.into()], invoke, None)?;
                    questions.into_iter().next().ok_or_else(unaskable)
                }
                Work::Request(way) => self.vocabulary.connection(bits, (&at, home), invoke, way, None),
            }
        });
        match question {
            Ok(question) => {
                let explained = explanation(self.rulings(policies, &question, false, true), None);
                self.laid_open(policies, explained, Some(question), false)
            }
            Err(why) => {
                let verdict = self.unaskable(why);
                let (outcome, tier, facts) = (verdict.outcome, verdict.tier, verdict.facts);
                let explained = Explanation { outcome, tier, facts, tiers: Vec::new(), session: None };
                self.laid_open(policies, explained, None, false)
            }
        }
    }

    fn laid_open<'a>(
        &'a self,
        policies: &'a TenantPolicies,
        explained: Explanation,
        question: Option<Question>,
        over: bool,
    ) -> Weighed<'a> {
        let mut tiers: Vec<Rated> = explained.tiers.into_iter().map(rated).collect();
        tiers.extend(explained.session.map(|allows| {
            let outcome = if allows { Outcome::Allow } else { Outcome::CeilingDeny };
            Rated { tier: PolicyTier::Session, outcome, policies: Vec::new() }
        }));
        let permitting: Vec<_> = if over {
            vec![(PolicyTier::Tenant, &self.operators)]
        } else {
            let ceilings = policies.ceilings().map(|ceiling| (ceiling.tier(), ceiling));
            let granting = [&self.defaults, policies.grants()].map(|granting| (PolicyTier::Tenant, granting));
            ceilings.chain(granting).collect()
        };
        let (outcome, tier, facts) = (explained.outcome, explained.tier, explained.facts);
        Weighed { outcome, tier, facts, tiers, permitting, question, cedar: &self.cedar }
    }

    pub(crate) fn validator(&self) -> &Validator {
        &self.compiler.validator
    }

    /// The operators' policies, as those of the platform's own tenant.
    pub(crate) fn of_platform(&self) -> TenantPolicies {
        self.of_tenant(&platform_tenant(), self.operators.clone())
    }

    /// The actions that a policy's scope names.
    pub(crate) fn actions_of(&self, policy: &Policy) -> Actions {
        self.compiler.bits.actions(policy)
    }

    /// Kind of what somebody does an action to; none for what only functions at work do.
    pub(crate) fn done_to(&self, action: Action) -> Option<&str> {
        self.vocabulary.done_to(action)
    }

    /// What a tenant grants, with the defaults it stands on.
    pub(crate) fn granted<'a>(&'a self, policies: &'a TenantPolicies) -> impl Iterator<Item = &'a Policy> {
        let defaults = (*policies.tenant() != platform_tenant()).then_some(&self.defaults);
        of_sets(defaults.into_iter().chain([policies.grants()]))
    }

    /// All that is asked of what happens in a tenant, but for what came with the software and rules over it.
    pub(crate) fn in_force<'a>(&'a self, policies: &'a TenantPolicies) -> impl Iterator<Item = &'a Policy> {
        of_sets(policies.ceilings()).chain(self.granted(policies))
    }

    /// Those of them that are of one tier.
    pub(crate) fn in_tier<'a>(
        &'a self,
        policies: &'a TenantPolicies,
        tier: PolicyTier,
    ) -> impl Iterator<Item = &'a Policy> {
        let ceilings = policies.ceilings().filter(move |ceiling| ceiling.tier() == tier);
        let granted = (tier == PolicyTier::Tenant).then(|| self.granted(policies));
        of_sets(ceilings).chain(granted.into_iter().flatten())
    }

    /// Every policy that came with the software.
    pub(crate) fn built_in_policies(&self) -> impl Iterator<Item = &Policy> {
        of_sets([&self.guard_rails, &self.defaults, &self.operators].into_iter())
    }
}

/// One that cannot be compiled has none.
fn of_sets<'a>(tiers: impl Iterator<Item = &'a TierPolicies>) -> impl Iterator<Item = &'a Policy> {
    tiers.filter_map(|tier| tier.set().ok()).flat_map(Set::policies)
}

fn rated(says: TierExplanation) -> Rated {
    let tier = says.set.tier;
    let outcome = match tier {
        _ if !says.failures.is_empty() => Outcome::PolicyError,
        _ if !says.forbids.is_empty() => Outcome::ExplicitDeny,
        // Guard-rails only forbid: that none does is all they can say for it.
        PolicyTier::Platform => Outcome::Allow,
        _ if !says.permits.is_empty() => Outcome::Allow,
        PolicyTier::Organisation | PolicyTier::Boundary | PolicyTier::Session => Outcome::CeilingDeny,
        PolicyTier::Tenant => Outcome::ImplicitDeny,
    };
    let policies = match outcome {
        Outcome::PolicyError => says.failures.into_iter().map(|(policy, _)| policy).collect(),
        Outcome::ExplicitDeny => says.forbids,
        Outcome::Allow => says.permits,
        Outcome::CeilingDeny | Outcome::ImplicitDeny => Vec::new(),
    };
    Rated { tier, outcome, policies }
}

impl<'a> Weighed<'a> {
    /// The policies of the tiers that must permit and do not; of all of them, where each does.
    pub(crate) fn lacking(&self) -> impl Iterator<Item = (PolicyTier, &'a Policy)> {
        let silent = |tier: PolicyTier| {
            let lacks = |rated: &Rated| matches!(rated.outcome, Outcome::CeilingDeny | Outcome::ImplicitDeny);
            self.tiers.iter().any(|rated| rated.tier == tier && lacks(rated))
        };
        let some: Vec<_> = self.permitting.iter().filter(|(tier, _)| silent(*tier)).copied().collect();
        let of = if some.is_empty() { self.permitting.clone() } else { some };
        of.into_iter().flat_map(|(tier, set)| of_sets(std::iter::once(set)).map(move |policy| (tier, policy)))
    }

    /// Whether a single policy holds of what was asked; none where it failed to evaluate.
    pub(crate) fn holds(&self, policy: Policy) -> Option<bool> {
        holds(self.cedar, self.question.as_ref()?, policy)
    }
}

/// Whether a single policy holds of a question; none where it failed to evaluate.
pub(super) fn holds(cedar: &cedar_policy::Authorizer, question: &Question, policy: Policy) -> Option<bool> {
    let mut set = PolicySet::new();
    set.add(policy).ok()?;
    let answer = cedar.is_authorized(&question.request, &set, &question.entities);
    let failed = answer.diagnostics().errors().next().is_some();
    (!failed).then(|| answer.diagnostics().reason().next().is_some())
}
