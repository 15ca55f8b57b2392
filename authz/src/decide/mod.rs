//! The decision, asked anew for every call.
//!
//! Owns the order of the tiers and what each outcome means: the guard-rails must neither forbid nor fail, then one set
//! of policies must permit, not forbid and not fail. Must never remember an outcome, and never take silence or an
//! error for a yes.

mod permit;
#[cfg(test)]
mod tests;
mod weigh;

use std::sync::Arc;

use cedar_policy::{Decision, Effect, PolicyId, Schema, Validator};
use cofferdam_model::id::platform_tenant;
use cofferdam_model::{Circumstances, DecisionFacts, GivenFacts, Operation, Resource, TenantId};

pub use self::permit::{Denied, Outcome, Permit, Tier};
pub(crate) use self::weigh::Weighed;

use crate::entities::{Question, Unaskable, Vocabulary};
use crate::error::PolicyError;
use crate::identity::Principal;
use crate::policy::{self, Set, TenantPolicies};
use crate::schema::{DEFAULTS, GUARD_RAILS, OPERATORS, SCHEMA};

/// Compiles policies and decides by them.
pub struct Authorizer {
    cedar: cedar_policy::Authorizer,
    validator: Validator,
    vocabulary: Vocabulary,
    guard_rails: Set,
    defaults: Set,
    operators: Arc<Set>,
}

/// A decision before it becomes a permit or a denial.
struct Verdict {
    outcome: Outcome,
    tier: Tier,
    facts: DecisionFacts,
}

impl Authorizer {
    /// Reads what came with the software.
    pub fn new() -> Result<Self, PolicyError> {
        let (schema, _warnings) =
            Schema::from_cedarschema_str(SCHEMA).map_err(|error| PolicyError::BuiltIn(error.to_string()))?;
        let vocabulary = Vocabulary::of(&schema)?;
        let validator = Validator::new(schema);
        Ok(Self {
            cedar: cedar_policy::Authorizer::new(),
            guard_rails: policy::built_in(&validator, GUARD_RAILS, Some(Effect::Forbid))?,
            defaults: policy::built_in(&validator, DEFAULTS, None)?,
            operators: Arc::new(policy::built_in(&validator, OPERATORS, None)?),
            validator,
            vocabulary,
        })
    }

    /// A tenant's policies (name and text each) on top of the defaults, or what is wrong with them and where.
    pub fn compile(&self, tenant: &TenantId, sources: &[(String, String)]) -> Result<TenantPolicies, PolicyError> {
        if *tenant == platform_tenant() {
            policy::none_of_its_own(sources)?;
            return Ok(TenantPolicies::new(tenant.clone(), self.operators.clone()));
        }
        let set = policy::of_tenant(&self.validator, tenant, &self.defaults, DEFAULTS, sources)?;
        Ok(TenantPolicies::new(tenant.clone(), Arc::new(set)))
    }

    /// Whether this principal may do exactly this. `policies` are those of the operation's tenant.
    pub fn decide<A: Operation>(
        &self,
        policies: &TenantPolicies,
        principal: Principal,
        operation: A,
        circumstances: Circumstances,
    ) -> Result<Permit<A>, Denied> {
        let Verdict { outcome, tier, facts } = self.judge(policies, &principal, &operation, &circumstances);
        match outcome {
            Outcome::Allow => Ok(Permit::mint(principal, operation, circumstances, facts)),
            Outcome::ExplicitDeny | Outcome::ImplicitDeny | Outcome::PolicyError => {
                Err(Denied::new(&principal, &operation, &circumstances, (outcome, tier), facts))
            }
        }
    }

    fn judge<A: Operation>(
        &self,
        policies: &TenantPolicies,
        principal: &Principal,
        operation: &A,
        circumstances: &Circumstances,
    ) -> Verdict {
        let tenant = operation.tenant();
        let set = self.set_for(policies, principal, &tenant);
        let given = Some(given(principal, operation, policies.is_suspended()));
        let verdict = match self.question(policies, principal, operation, circumstances) {
            Ok(question) => self.guard_rails_against(&question).unwrap_or_else(|| self.tenant_tier(&question, set)),
            Err(why) => unaskable(why, set),
        };
        Verdict { facts: DecisionFacts { given, ..verdict.facts }, ..verdict }
    }

    /// The platform's own are judged by the platform's policies, wherever they act: no tenant decides over its
    /// operators. So is everybody who asks something of the platform itself, if only to be told no.
    fn set_for<'a>(&'a self, policies: &'a TenantPolicies, principal: &Principal, tenant: &TenantId) -> &'a Set {
        let platform = platform_tenant();
        if principal.tenant() == Some(&platform) || *tenant == platform { &self.operators } else { policies.set() }
    }

    fn question<A: Operation>(
        &self,
        policies: &TenantPolicies,
        principal: &Principal,
        operation: &A,
        circumstances: &Circumstances,
    ) -> Result<Question, Unaskable> {
        if *policies.tenant() != operation.tenant() {
            return Err(Unaskable("policies"));
        }
        self.vocabulary.question(principal, operation, circumstances, policies.is_suspended(), None)
    }

    /// The guard-rails' no, if it is one.
    fn guard_rails_against(&self, question: &Question) -> Option<Verdict> {
        let set = &self.guard_rails;
        let answer = self.cedar.is_authorized(&question.request, &set.policies, &question.entities);
        if let Some(failed) = failures(&answer, Tier::Platform) {
            return Some(verdict(Outcome::PolicyError, Tier::Platform, failed, set));
        }
        // All of them are forbids, so whatever gave a reason forbade.
        let forbidding = ids(answer.diagnostics().reason());
        (!forbidding.is_empty()).then(|| verdict(Outcome::ExplicitDeny, Tier::Platform, forbidding, set))
    }

    fn tenant_tier(&self, question: &Question, set: &Set) -> Verdict {
        let answer = self.cedar.is_authorized(&question.request, &set.policies, &question.entities);
        if let Some(failed) = failures(&answer, Tier::Tenant) {
            return verdict(Outcome::PolicyError, Tier::Tenant, failed, set);
        }
        let reasons = ids(answer.diagnostics().reason());
        let outcome = match answer.decision() {
            Decision::Allow => Outcome::Allow,
            Decision::Deny if reasons.is_empty() => Outcome::ImplicitDeny,
            Decision::Deny => Outcome::ExplicitDeny,
        };
        verdict(outcome, Tier::Tenant, reasons, set)
    }
}

/// What else a decision was made on, for whoever asks the same of other policies later.
fn given<A: Operation>(principal: &Principal, operation: &A, suspended: bool) -> GivenFacts {
    let name = match operation.resource() {
        Resource::Function { name, .. } => Some(name.to_string()),
        Resource::Platform | Resource::Tenant(_) => None,
    };
    GivenFacts { name, public: operation.public(), roles: principal.roles().to_vec(), suspended }
}

/// The policies that failed to evaluate, if any did. Cedar leaves them out and decides by the rest.
fn failures(answer: &cedar_policy::Response, tier: Tier) -> Option<Vec<String>> {
    let mut failed = Vec::new();
    for error in answer.diagnostics().errors() {
        let cedar_policy::AuthorizationError::PolicyEvaluationError(error) = error;
        tracing::warn!(tier = tier.as_str(), policy = %error.policy_id(), %error, "policy failed: denied");
        failed.push(error.policy_id().to_string());
    }
    failed.sort_unstable();
    (!failed.is_empty()).then_some(failed)
}

fn ids<'a>(policies: impl Iterator<Item = &'a PolicyId>) -> Vec<String> {
    let mut ids: Vec<_> = policies.map(ToString::to_string).collect();
    // Cedar's order is that of a hash map; a record should not depend on it.
    ids.sort_unstable();
    ids
}

fn unaskable(Unaskable(what): Unaskable, set: &Set) -> Verdict {
    tracing::error!(what, "a call could not be put to the policies: denied");
    verdict(Outcome::PolicyError, Tier::Platform, vec![format!("unaskable/{what}")], set)
}

fn verdict(outcome: Outcome, tier: Tier, policies: Vec<String>, set: &Set) -> Verdict {
    let facts = DecisionFacts {
        outcome: outcome.as_str().to_owned(),
        tier: tier.as_str().to_owned(),
        policies,
        policy_set: set.digest,
        given: None,
    };
    Verdict { outcome, tier, facts }
}
