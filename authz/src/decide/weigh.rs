//! A judgement laid open: what each set of policies said, and the question they were asked.
//!
//! Owns the one way from `explain` to the decision. It is the decision's own judgement, so the two cannot differ. Must
//! never mint a permit.

use std::sync::Arc;

use cedar_policy::{Decision, Policy, PolicySet, Schema, Validator};
use cofferdam_model::{Circumstances, DecisionFacts, Operation};

use super::{Authorizer, Outcome, Tier, failures, ids};
use crate::entities::Question;
use crate::identity::Principal;
use crate::policy::{Set, TenantPolicies};

/// What one set of policies says by itself.
pub(crate) struct Rated<'a> {
    pub(crate) tier: Tier,
    pub(crate) outcome: Outcome,
    /// Those that settled it, or failed.
    pub(crate) policies: Vec<String>,
    pub(crate) set: &'a PolicySet,
}

/// A judgement with all it came from.
pub(crate) struct Weighed<'a> {
    pub(crate) outcome: Outcome,
    pub(crate) tier: Tier,
    pub(crate) facts: DecisionFacts,
    pub(crate) tiers: Vec<Rated<'a>>,
    question: Option<Question>,
    cedar: &'a cedar_policy::Authorizer,
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
        let verdict = self.judge(policies, principal, operation, circumstances);
        let question = self.question(policies, principal, operation, circumstances).ok();
        let sets = [
            (Tier::Platform, &self.guard_rails),
            (Tier::Tenant, self.set_for(policies, principal, &operation.tenant())),
        ];
        let rate = |question: &Question| sets.map(|(tier, set)| self.rate(question, tier, set)).into();
        let tiers = question.as_ref().map(rate).unwrap_or_default();
        let (outcome, tier, facts) = (verdict.outcome, verdict.tier, verdict.facts);
        Weighed { outcome, tier, facts, tiers, question, cedar: &self.cedar }
    }

    fn rate<'a>(&self, question: &Question, tier: Tier, set: &'a Set) -> Rated<'a> {
        let answer = self.cedar.is_authorized(&question.request, &set.policies, &question.entities);
        let rated = |outcome, policies| Rated { tier, outcome, policies, set: &set.policies };
        if let Some(failed) = failures(&answer, tier) {
            return rated(Outcome::PolicyError, failed);
        }
        let reasons = ids(answer.diagnostics().reason());
        match (answer.decision(), tier) {
            // Guard-rails only forbid: that none does is all they can say for it.
            (_, Tier::Platform) if reasons.is_empty() => rated(Outcome::Allow, reasons),
            (Decision::Allow, _) => rated(Outcome::Allow, reasons),
            (Decision::Deny, _) if reasons.is_empty() => rated(Outcome::ImplicitDeny, reasons),
            (Decision::Deny, _) => rated(Outcome::ExplicitDeny, reasons),
        }
    }

    pub(crate) fn schema(&self) -> &Schema {
        self.validator.schema()
    }

    pub(crate) fn operators(&self) -> &Arc<Set> {
        &self.operators
    }

    pub(crate) fn validator(&self) -> &Validator {
        &self.validator
    }

    /// Every policy that came with the software.
    pub(crate) fn built_in_policies(&self) -> impl Iterator<Item = &Policy> {
        [&self.guard_rails, &self.defaults, &*self.operators].into_iter().flat_map(|set| set.policies.policies())
    }
}

impl Weighed<'_> {
    /// Whether a single policy holds of what was asked; none where it failed to evaluate.
    pub(crate) fn holds(&self, policy: Policy) -> Option<bool> {
        let question = self.question.as_ref()?;
        let mut set = PolicySet::new();
        set.add(policy).ok()?;
        let answer = self.cedar.is_authorized(&question.request, &set, &question.entities);
        let failed = answer.diagnostics().errors().next().is_some();
        (!failed).then(|| answer.diagnostics().reason().next().is_some())
    }
}
