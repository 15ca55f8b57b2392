//! What each tier says, and what comes of it.
//!
//! Owns the order in which tiers count: failures, then forbids, then ceilings that do not permit, then silence. Must
//! never let one tier's permit stand for another's.

use cofferdam_model::{DecisionFacts, PolicyTier, SetFacts};

use super::{Authorizer, Outcome};
use crate::entities::Question;
use crate::policy::TenantPolicies;
use crate::policy::index::Answer;

/// What one tier says.
pub(super) struct Ruling {
    pub(super) set: SetFacts,
    pub(super) answer: Answer,
}

impl Ruling {
    fn denies(&self) -> bool {
        !self.answer.failures.is_empty() || !self.answer.forbids.is_empty()
    }

    /// Whether it is a list of what is allowed at most.
    fn is_ceiling(&self) -> bool {
        matches!(self.set.tier, PolicyTier::Organisation | PolicyTier::Boundary)
    }
}

/// A decision before it becomes a permit or a denial.
pub(super) struct Verdict {
    pub(super) outcome: Outcome,
    pub(super) tier: PolicyTier,
    pub(super) facts: DecisionFacts,
}

impl Verdict {
    /// The same decision, but that what would be given is more than the giver holds.
    pub(super) fn escalation(self) -> Self {
        let set = self.facts.sets.iter().find(|set| set.tier == PolicyTier::Platform).map(|set| set.digest);
        let facts = DecisionFacts {
            outcome: Outcome::ExplicitDeny.as_str().to_owned(),
            tier: PolicyTier::Platform.as_str().to_owned(),
            policies: vec!["00-platform/no-escalation".to_owned()],
            policy_set: set.unwrap_or(self.facts.policy_set),
            sets: self.facts.sets,
            given: self.facts.given,
        };
        Self { outcome: Outcome::ExplicitDeny, tier: PolicyTier::Platform, facts }
    }
}

impl Authorizer {
    /// What the tiers say to a question, from the widest. Unless `all` is asked for, a no of the guard-rails ends it.
    /// `over`: whether operators' policies count in place of the tenant's and of what bounds it.
    pub(super) fn rulings(&self, policies: &TenantPolicies, question: &Question, over: bool, all: bool) -> Vec<Ruling> {
        let asked = question.asked();
        let rule = |set: SetFacts, of: &[&crate::policy::TierPolicies]| {
            let mut answer = Answer::default();
            of.iter().for_each(|policies| policies.ask(&self.cedar, &asked, &mut answer));
            answer.sort();
            for (policy, error) in &answer.failures {
                tracing::warn!(tier = set.tier.as_str(), policy, error, "policy failed: denied");
            }
            Ruling { set, answer }
        };
        let mut rulings = Vec::with_capacity(4);
        rulings.push(rule(self.guard_rails.facts().clone(), &[&self.guard_rails]));
        if !all && rulings.iter().any(Ruling::denies) {
            return rulings;
        }
        if over {
            rulings.push(rule(self.operators.facts().clone(), &[&self.operators]));
            return rulings;
        }
        for ceiling in policies.ceilings() {
            rulings.push(rule(ceiling.facts().clone(), &[ceiling]));
        }
        let grants = policies.grants();
        rulings.push(rule(grants.facts().clone(), &[&self.defaults, grants]));
        rulings
    }
}

/// What comes of what the tiers say. `session`: whether the credential is good for it, where that is limited.
pub(super) fn settle(rulings: Vec<Ruling>, session: Option<(bool, SetFacts)>) -> Verdict {
    let (outcome, at) = outcome(&rulings, session.as_ref().map(|(allows, _)| *allows));
    let mut sets: Vec<SetFacts> = rulings.iter().map(|ruling| ruling.set.clone()).collect();
    sets.extend(session.map(|(_, facts)| facts));
    let settling = at.and_then(|at| sets.get(at)).or_else(|| sets.last()).cloned();
    let mut answer = at.and_then(|at| rulings.into_iter().nth(at)).map(|ruling| ruling.answer).unwrap_or_default();
    let policies = match outcome {
        Outcome::Allow => std::mem::take(&mut answer.permits),
        Outcome::ExplicitDeny => std::mem::take(&mut answer.forbids),
        Outcome::PolicyError => answer.failures.into_iter().map(|(policy, _)| policy).collect(),
        Outcome::CeilingDeny | Outcome::ImplicitDeny => Vec::new(),
    };
    let tier = settling.as_ref().map_or(PolicyTier::Platform, |set| set.tier);
    let facts = DecisionFacts {
        outcome: outcome.as_str().to_owned(),
        tier: tier.as_str().to_owned(),
        policies,
        policy_set: settling.map_or(cofferdam_model::Digest([0; 32]), |set| set.digest),
        sets,
        given: None,
    };
    Verdict { outcome, tier, facts }
}

/// The outcome, and which of the rulings settles it; none, if the session does.
fn outcome(rulings: &[Ruling], session: Option<bool>) -> (Outcome, Option<usize>) {
    let find = |is: &dyn Fn(&Ruling) -> bool| rulings.iter().position(is);
    if let Some(at) = find(&|ruling| !ruling.answer.failures.is_empty()) {
        return (Outcome::PolicyError, Some(at));
    }
    if let Some(at) = find(&|ruling| !ruling.answer.forbids.is_empty()) {
        return (Outcome::ExplicitDeny, Some(at));
    }
    if let Some(at) = find(&|ruling| ruling.is_ceiling() && ruling.answer.permits.is_empty()) {
        return (Outcome::CeilingDeny, Some(at));
    }
    if session == Some(false) {
        return (Outcome::CeilingDeny, None);
    }
    let last = rulings.len().checked_sub(1);
    // The guard-rails are asked by themselves only where they deny; alone they would permit nothing.
    let grants = last.and_then(|last| rulings.get(last)).filter(|ruling| ruling.set.tier == PolicyTier::Tenant);
    match grants.is_some_and(|grants| !grants.answer.permits.is_empty()) {
        true => (Outcome::Allow, last),
        false => (Outcome::ImplicitDeny, last),
    }
}

/// What could not be asked is denied.
pub(super) fn unaskable(what: &str, set: SetFacts) -> Verdict {
    let tier = PolicyTier::Platform;
    let facts = DecisionFacts {
        outcome: Outcome::PolicyError.as_str().to_owned(),
        tier: tier.as_str().to_owned(),
        policies: vec![format!("unaskable/{what}")],
        policy_set: set.digest,
        sets: vec![set],
        given: None,
    };
    Verdict { outcome: Outcome::PolicyError, tier, facts }
}
