//! The second decision of a call: what the function's own workload may.
//!
//! Owns the decisions on each secret a function is given and each request it sends. They are the workload's, whoever
//! called: a caller who may do more does not lend it that. Must never be asked but for a call that was allowed.

use std::fmt;
use std::sync::Arc;

use cofferdam_model::{Circumstances, DecisionFacts, Invoke, Operation, TenantId, UseFacts};

use super::tiers::{self, Verdict};
use super::{Authorizer, Outcome, home};
use crate::entities::{Unaskable, Way, Work};
use crate::identity::Principal;
use crate::policy::TenantPolicies;

/// An allowed call's function at work: on whose behalf requests to the outside are made. Made with the permit alone.
pub struct Errand {
    invoke: Invoke,
    work: Work,
}

impl fmt::Debug for Errand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Errand").field("function", &self.invoke.function).finish_non_exhaustive()
    }
}

impl Errand {
    /// The tenant it is of.
    pub fn tenant(&self) -> &TenantId {
        &self.invoke.tenant
    }
}

/// A secret that the workload may not be given.
pub(super) struct Refused {
    pub(super) secret: Arc<str>,
    pub(super) outcome: Outcome,
    pub(super) tier: cofferdam_model::PolicyTier,
    pub(super) uses: Vec<UseFacts>,
}

/// What an allowed call may go on with.
type Sent = (Option<Arc<Errand>>, Vec<UseFacts>);

impl Authorizer {
    /// Decides on each secret of the function that an allowed call runs.
    pub(super) fn send<A: Operation>(
        &self,
        policies: &TenantPolicies,
        principal: &Principal,
        operation: &A,
        circumstances: &Circumstances,
    ) -> Result<Sent, Refused> {
        let Some(invoke) = operation.invoke().filter(|invoke| invoke.egress || !invoke.secrets.is_empty()) else {
            return Ok((None, Vec::new()));
        };
        let unaskable = |why: Unaskable| {
            let Verdict { outcome, tier, facts } = self.unaskable(why);
            let secret: Arc<str> = invoke.secrets.first().cloned().unwrap_or_else(|| "-".into());
            Refused { uses: vec![told(&secret, facts)], secret, outcome, tier }
        };
        let home = home(policies);
        let work = self.vocabulary.work(principal, invoke, circumstances).map_err(unaskable)?;
        let mut uses = Vec::with_capacity(invoke.secrets.len());
        if !invoke.secrets.is_empty() {
            let questions = self.vocabulary.uses(&self.compiler.bits, (&work, home), &invoke.secrets, invoke, None);
            for (secret, question) in invoke.secrets.iter().zip(questions.map_err(unaskable)?) {
                let verdict = tiers::settle(self.rulings(policies, &question, false, false), None);
                let Verdict { outcome, tier, facts } = verdict;
                uses.push(told(secret, facts));
                if outcome != Outcome::Allow {
                    return Err(Refused { secret: secret.clone(), outcome, tier, uses });
                }
            }
        }
        Ok((Some(Arc::new(Errand { invoke: invoke.clone(), work })), uses))
    }

    /// Whether a function at work may send this request to the outside, with this secret added to it. Either way the
    /// facts say why.
    pub fn connect(
        &self,
        policies: Option<&TenantPolicies>,
        errand: Option<&Errand>,
        way: Way<'_>,
        secret: Option<&str>,
    ) -> Result<DecisionFacts, Box<DecisionFacts>> {
        let Some((policies, Errand { invoke, work })) = policies.zip(errand) else {
            return Err(Box::new(self.unaskable(Unaskable("errand")).facts));
        };
        if *policies.tenant() != invoke.tenant {
            return Err(Box::new(self.unaskable(Unaskable("policies")).facts));
        }
        let (bits, work) = (&self.compiler.bits, (work, home(policies)));
        let judge = |question| match question {
            Ok(question) => tiers::settle(self.rulings(policies, &question, false, false), None),
            Err(why) => self.unaskable(why),
        };
        let mut verdict = judge(self.vocabulary.connection(bits, work, invoke, way, None));
        if let (Outcome::Allow, Some(secret)) = (verdict.outcome, secret) {
            let question = self.vocabulary.uses(bits, work, &[secret.into()], invoke, None);
            let question = question.and_then(|questions| questions.into_iter().next().ok_or(Unaskable("secret")));
            let used = judge(question);
            let permitting = std::mem::take(&mut verdict.facts.policies);
            verdict = used;
            if verdict.outcome == Outcome::Allow {
                verdict.facts.policies.extend(permitting);
                verdict.facts.policies.sort_unstable();
                verdict.facts.policies.dedup();
            }
        }
        if verdict.outcome == Outcome::Allow { Ok(verdict.facts) } else { Err(Box::new(verdict.facts)) }
    }
}

fn told(secret: &Arc<str>, facts: DecisionFacts) -> UseFacts {
    let DecisionFacts { outcome, tier, policies, .. } = facts;
    UseFacts { secret: secret.clone(), outcome, tier, policies }
}
