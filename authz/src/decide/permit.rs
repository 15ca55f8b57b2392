//! What a decision yields: a permit that carries the operation, or a denial that carries the reason.
//!
//! Owns both proofs. Must never offer a way to a permit but a decision, nor a way to change what is in one.

use std::sync::Arc;

use cofferdam_model::{
    Action, CallFacts, Circumstances, DecisionFacts, Level, Operation, PolicyTier, Subject, UseFacts,
};

use super::tiers::Verdict;
use super::work::{Errand, Refused};
use crate::identity::Principal;

/// Proof that this principal may do exactly this, under these circumstances, now.
///
/// It cannot be made:
/// ```compile_fail
/// fn forge(operation: cofferdam_model::Manage) -> cofferdam_authz::Permit<cofferdam_model::Manage> {
///     cofferdam_authz::Permit { operation }
/// }
/// ```
/// nor doubled:
/// ```compile_fail
/// use cofferdam_authz::Permit;
/// fn double(permit: &Permit<cofferdam_model::Invoke>) -> Permit<cofferdam_model::Invoke> {
///     permit.clone()
/// }
/// ```
/// nor changed:
/// ```compile_fail
/// fn change(permit: &mut cofferdam_authz::Permit<cofferdam_model::Invoke>, other: cofferdam_model::Invoke) {
///     *permit.operation() = other;
/// }
/// ```
#[must_use = "a permit that nobody acts on was asked for in vain"]
pub struct Permit<A> {
    principal: Principal,
    operation: A,
    circumstances: Circumstances,
    decision: DecisionFacts,
    errand: Option<Arc<Errand>>,
    uses: Vec<UseFacts>,
}

impl<A: Operation> Permit<A> {
    /// Only for `decide`, and only once all tiers agreed.
    pub(super) fn mint(
        principal: Principal,
        operation: A,
        circumstances: Circumstances,
        decision: DecisionFacts,
        errand: Option<Arc<Errand>>,
        uses: Vec<UseFacts>,
    ) -> Self {
        Self { principal, operation, circumstances, decision, errand, uses }
    }

    /// The function at work, where it is given secrets or may ask something of the outside.
    pub fn errand(&self) -> Option<&Arc<Errand>> {
        self.errand.as_ref()
    }

    /// What was allowed. Whoever acts reads it from here.
    pub fn operation(&self) -> &A {
        &self.operation
    }

    /// Who it was allowed to.
    pub fn principal(&self) -> &Principal {
        &self.principal
    }

    /// Under which circumstances.
    pub fn circumstances(&self) -> &Circumstances {
        &self.circumstances
    }
}

impl<A: Operation> Subject for Permit<A> {
    fn facts(&self) -> CallFacts {
        let facts = facts(&self.principal, &self.operation, &self.circumstances, self.decision.clone());
        CallFacts { uses: self.uses.clone(), ..facts }
    }

    fn level(&self) -> Level {
        self.operation.level()
    }
}

/// How a decision came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing forbids, something permits, nothing failed.
    Allow,
    /// A policy forbids.
    ExplicitDeny,
    /// A ceiling does not permit: the organisation's, the tenant's boundary, or what the credential is good for.
    CeilingDeny,
    /// No policy permits.
    ImplicitDeny,
    /// A policy failed to evaluate, or the decision could not be asked. Cedar passes over a policy that fails, so a
    /// failing `forbid` would allow: here it denies.
    PolicyError,
}

impl Outcome {
    /// The name in records.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::ExplicitDeny => "explicit_deny",
            Self::CeilingDeny => "ceiling_deny",
            Self::ImplicitDeny => "implicit_deny",
            Self::PolicyError => "policy_error",
        }
    }
}

/// A decision against. Everything about it is known, so that it can be recorded in full.
#[derive(Debug)]
#[must_use = "a denial is answered and recorded"]
pub struct Denied {
    // On the heap: a refusal is the rarer way out and should not make the common one larger.
    facts: Box<CallFacts>,
    outcome: Outcome,
    tier: PolicyTier,
    hidden: bool,
    unidentified: bool,
    because: Option<Because>,
}

/// What a caller who may otherwise is told of a denial.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Because {
    /// What he would give allows an action that he may not do himself.
    Escalates(Action),
    /// The function may not be given this secret.
    Secret(Arc<str>),
}

impl Denied {
    pub(super) fn new<A: Operation>(
        principal: &Principal,
        operation: &A,
        circumstances: &Circumstances,
        Verdict { outcome, tier, facts: decision }: Verdict,
    ) -> Self {
        let own = principal.tenant() == Some(&operation.tenant());
        let operator = principal.tenant() == Some(&cofferdam_model::id::platform_tenant());
        Self {
            facts: Box::new(facts(principal, operation, circumstances, decision)),
            outcome,
            tier,
            hidden: !own && !operator,
            unidentified: principal.tenant().is_none(),
            because: None,
        }
    }

    pub(super) fn escalating(self, action: Action) -> Self {
        Self { because: Some(Because::Escalates(action)), ..self }
    }

    /// The call itself was allowed; what its function would be given was not.
    pub(super) fn of_secret<A: Operation>(
        principal: &Principal,
        operation: &A,
        circumstances: &Circumstances,
        allowed: Verdict,
        refused: Refused,
    ) -> Self {
        let Refused { secret, outcome, tier, uses } = refused;
        let facts = facts(principal, operation, circumstances, allowed.facts);
        Self {
            facts: Box::new(CallFacts { uses, ..facts }),
            outcome,
            tier,
            hidden: false,
            unidentified: false,
            because: Some(Because::Secret(secret)),
        }
    }

    /// What a caller who may otherwise is told.
    pub fn because(&self) -> Option<&Because> {
        self.because.as_ref()
    }

    /// How it came out; never `Allow`.
    pub fn outcome(&self) -> Outcome {
        self.outcome
    }

    /// Which tier settled it.
    pub fn tier(&self) -> PolicyTier {
        self.tier
    }

    /// Whether the caller may not even know that the resource exists: it is another tenant's.
    pub fn hidden(&self) -> bool {
        self.hidden
    }

    /// Whether nobody was identified, so that showing a credential could change the answer.
    pub fn unidentified(&self) -> bool {
        self.unidentified
    }
}

impl Subject for Denied {
    fn facts(&self) -> CallFacts {
        (*self.facts).clone()
    }

    /// Nothing will take effect, but that it was asked for must not be lost.
    fn level(&self) -> Level {
        Level::Standard
    }
}

fn facts<A: Operation>(
    principal: &Principal,
    operation: &A,
    circumstances: &Circumstances,
    decision: DecisionFacts,
) -> CallFacts {
    let version = operation.version();
    CallFacts {
        tenant: Some(operation.tenant().to_string()),
        action: Some(operation.action().as_str().to_owned()),
        resource: Some(operation.resource().id()),
        route: operation.route().map(ToString::to_string),
        version: version.map(|(id, _)| id.to_string()),
        component: version.map(|(_, component)| component),
        detail: operation.detail(),
        principal: Some(principal.facts()),
        decision: Some(decision),
        limits: operation.invoke().map(|invoke| invoke.limits.clone()),
        ..CallFacts::of(circumstances)
    }
}
