//! Why a decision comes out as it does, tier by tier, for who really asks or for somebody supposed.
//!
//! Owns the explanation. Must never mint a permit: what is explained here is not allowed by that.

use cofferdam_model::{Circumstances, DecisionFacts, Operation, PolicyTier, SetFacts};

use super::session::Session;
use super::tiers::{self, Ruling, Verdict};
use super::{Authorizer, Outcome, given, over_tenants};
use crate::identity::{Principal, Supposed};
use crate::policy::TenantPolicies;

/// Why a decision comes out as it does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// How it comes out.
    pub outcome: Outcome,
    /// Which tier settles it.
    pub tier: PolicyTier,
    /// As the log would have it.
    pub facts: DecisionFacts,
    /// What each tier says, from the widest; also of those that come after the one that settles it.
    pub tiers: Vec<TierExplanation>,
    /// Whether the credential is good for it, where that is limited.
    pub session: Option<bool>,
}

/// What one tier says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TierExplanation {
    /// Which state of which set.
    pub set: SetFacts,
    /// Policies that permit, if none forbids.
    pub permits: Vec<String>,
    /// Policies that forbid.
    pub forbids: Vec<String>,
    /// Policies that failed, and how.
    pub failures: Vec<(String, String)>,
}

impl Authorizer {
    /// How a decision would come out for this principal, and why.
    pub fn explain<A: Operation>(
        &self,
        policies: &TenantPolicies,
        principal: &Principal,
        operation: &A,
        circumstances: &Circumstances,
    ) -> Explanation {
        let question = match self.question(policies, principal, operation, circumstances) {
            Ok(question) => question,
            Err(why) => {
                let Verdict { outcome, tier, mut facts } = self.unaskable(why);
                facts.given = Some(Box::new(given(principal, operation, policies.is_suspended())));
                return Explanation { outcome, tier, facts, tiers: Vec::new(), session: None };
            }
        };
        let session = Session::of(principal, &self.compiler.bits);
        let session = session.map(|session| (session.allows(operation), session.facts(principal)));
        let rulings = self.rulings(policies, &question, over_tenants(principal, operation), true);
        let mut explained = explanation(rulings, session);
        explained.facts.given = Some(Box::new(given(principal, operation, policies.is_suspended())));
        explained
    }

    /// The same for somebody who is only supposed.
    pub fn explain_supposed<A: Operation>(
        &self,
        policies: &TenantPolicies,
        supposed: Supposed,
        operation: &A,
        circumstances: &Circumstances,
    ) -> Explanation {
        self.explain(policies, &Principal::supposed(supposed), operation, circumstances)
    }
}

/// What comes of what all tiers say, with what each says.
pub(super) fn explanation(rulings: Vec<Ruling>, session: Option<(bool, SetFacts)>) -> Explanation {
    let allowed = session.as_ref().map(|(allows, _)| *allows);
    let told = rulings.iter().map(|ruling| TierExplanation {
        set: ruling.set.clone(),
        permits: ruling.answer.permits.clone(),
        forbids: ruling.answer.forbids.clone(),
        failures: ruling.answer.failures.clone(),
    });
    let told = told.collect();
    // What decides is decided the way it always is: the guard-rails by themselves, if they deny.
    let decisive = match rulings.first() {
        Some(rails) if !rails.answer.failures.is_empty() || !rails.answer.forbids.is_empty() => {
            rulings.into_iter().take(1).collect()
        }
        _ => rulings,
    };
    let Verdict { outcome, tier, facts } = tiers::settle(decisive, session);
    Explanation { outcome, tier, facts, tiers: told, session: allowed }
}
