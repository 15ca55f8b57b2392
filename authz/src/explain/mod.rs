//! What policies would say, and why, without anybody asking.
//!
//! Owns answers about supposed calls: the outcome of each set of policies, the texts that decided, and what was nearest
//! to a yes. The judgement is the decision's own. Must never mint a permit, nor touch what decides real calls.

mod compare;
mod grants;
mod miss;
mod supposed;
mod witness;

use cedar_policy::{Effect, Policy, PolicyId};
use cofferdam_model::id::platform_tenant;
use cofferdam_model::{
    Action, Digest, FunctionLimits, Invoke, Level, Operation, PolicyTier, Resource, Supposition, TenantId, UnixNanos,
    VersionId,
};
use serde::Serialize;
use tracing::{Dispatch, dispatcher};

pub use self::compare::{Changes, Flip, changes};
pub(crate) use self::grants::quoted;
pub use self::grants::{Holder, Idle, Proposal, Unused, Used};
pub(crate) use self::miss::conjuncts;
pub use self::miss::{Miss, Part};
pub use self::supposed::foreign_tenant;
pub use self::witness::Witnesses;

use crate::decide::{Authorizer, Outcome, Weighed, Work};
use crate::error::SuppositionError;
use crate::policy::TenantPolicies;

/// What would come of a supposed call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Answer {
    /// `allow`, `explicit_deny`, `ceiling_deny`, `implicit_deny`, `policy_error`.
    pub outcome: &'static str,
    /// Tier that settles it.
    pub tier: &'static str,
    /// Policies that do.
    pub policies: Vec<String>,
    /// SHA-256 of that tier's policy set.
    pub policy_set: Digest,
}

impl Answer {
    /// Whether it would be allowed.
    pub fn allowed(&self) -> bool {
        self.outcome == Outcome::Allow.as_str()
    }
}

/// An answer with its reasons.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// The answer.
    #[serde(flatten)]
    pub answer: Answer,
    /// What each tier says by itself.
    pub tiers: Vec<TierSays>,
    /// The texts of the policies that settle it.
    pub deciding: Vec<PolicyText>,
    /// The permit that lacks least, where none permits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nearest: Option<Miss>,
}

impl Explanation {
    /// The same for those whom the texts of ceilings and boundaries are not for: they learn which policies decide, and
    /// nothing of what those say.
    #[must_use]
    pub fn for_tenants(mut self) -> Self {
        let above = [PolicyTier::Organisation, PolicyTier::Boundary].map(PolicyTier::as_str);
        if above.contains(&self.answer.tier) {
            self.deciding.iter_mut().for_each(|policy| policy.text.clear());
        }
        if let Some(miss) = self.nearest.as_mut().filter(|miss| above.contains(&miss.tier)) {
            miss.policy.text.clear();
            (miss.lacks, miss.holds) = (Vec::new(), 0);
        }
        self
    }
}

/// What one tier says by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TierSays {
    /// Which.
    pub tier: &'static str,
    /// How it comes out. The guard-rails say `allow` where none of them forbids.
    pub outcome: &'static str,
    /// Policies that settle it there.
    pub policies: Vec<String>,
}

/// A policy as it was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PolicyText {
    /// Its id.
    pub id: String,
    /// `permit` or `forbid`.
    pub effect: &'static str,
    /// Its text; none where that is not for whoever asks.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub text: String,
}

impl PolicyText {
    fn of(policy: &Policy) -> Self {
        let effect = match policy.effect() {
            Effect::Permit => "permit",
            Effect::Forbid => "forbid",
        };
        Self { id: policy.id().to_string(), effect, text: policy.to_cedar().unwrap_or_default() }
    }
}

impl Authorizer {
    /// What would come of it. `policies` are those of the tenant it is supposed to happen in.
    pub fn simulate(
        &self,
        policies: &TenantPolicies,
        supposition: &Supposition,
        now: UnixNanos,
    ) -> Result<Answer, SuppositionError> {
        self.weighed(policies, supposition, now, |weighed| answer(&weighed))
    }

    /// What would come of it, and why.
    pub fn simulate_in_full(
        &self,
        policies: &TenantPolicies,
        supposition: &Supposition,
        now: UnixNanos,
    ) -> Result<Explanation, SuppositionError> {
        self.weighed(policies, supposition, now, |weighed| {
            let tiers = weighed.tiers.iter().map(|rated| TierSays {
                tier: rated.tier.as_str(),
                outcome: rated.outcome.as_str(),
                policies: rated.policies.clone(),
            });
            let named = |id: &String| self.policy_text(policies, weighed.tier, id);
            let deciding = weighed.facts.policies.iter().filter_map(named).collect();
            let nearest = (weighed.outcome != Outcome::Allow).then(|| miss::nearest(&weighed)).flatten();
            Explanation { answer: answer(&weighed), tiers: tiers.collect(), deciding, nearest }
        })
    }

    /// What would come of what a function does while it works for a supposed call.
    pub(crate) fn simulate_work(
        &self,
        policies: &TenantPolicies,
        call: &Supposition,
        (work, component): (Work<'_>, Digest),
    ) -> Result<Answer, SuppositionError> {
        let operation = supposed::operation(self, policies.tenant(), call)?;
        let caller = supposed::supposed(&call.principal, policies.tenant())?;
        let at = supposed::circumstances(call, UnixNanos(0))?;
        let wrong = || SuppositionError::Resource { action: call.action.as_str(), problem: "no function works for it" };
        let Resource::Function { id, name } = operation.resource() else { return Err(wrong()) };
        let invoke = Invoke {
            tenant: operation.tenant,
            version: VersionId::parse(&format!("{id}.v_0000000000000000")).map_err(|_| wrong())?,
            function: id,
            function_name: name,
            component,
            route: None,
            public: call.context.public,
            audit: Level::Standard,
            limits: FunctionLimits::default().into(),
            secrets: [].into(),
            egress: true,
        };
        dispatcher::with_default(&Dispatch::none(), || {
            Ok(answer(&self.weigh_work(policies, caller, (&invoke, work), &at)))
        })
    }

    /// Weighs a supposed call. What is about the installation is asked of the operators' policies, as a call is.
    fn weighed<T>(
        &self,
        policies: &TenantPolicies,
        supposition: &Supposition,
        now: UnixNanos,
        tell: impl FnOnce(Weighed<'_>) -> T,
    ) -> Result<T, SuppositionError> {
        let operation = supposed::operation(self, policies.tenant(), supposition)?;
        let who = supposed::principal(&supposition.principal, policies.tenant())?;
        let at = supposed::circumstances(supposition, now)?;
        // That a policy fails is told to whoever asks. A node's own log is for calls: nobody shall fill it by asking.
        dispatcher::with_default(&Dispatch::none(), || {
            if operation.tenant != platform_tenant() {
                return Ok(tell(self.weigh(policies, &who, &operation, &at)));
            }
            let own = self.of_platform();
            Ok(tell(self.weigh(&own, &who, &operation, &at)))
        })
    }

    /// A policy of a tier of this set, or one that came with the software, by its id. Tiers may use the same id twice.
    pub fn policy_text(&self, policies: &TenantPolicies, tier: PolicyTier, id: &str) -> Option<PolicyText> {
        let wanted = PolicyId::new(id);
        let mut all = self.in_tier(policies, tier).chain(self.built_in_policies());
        all.find(|policy| *policy.id() == wanted).map(PolicyText::of)
    }

    /// What a tenant grants, the defaults among them, in order of id.
    pub fn policy_texts(&self, policies: &TenantPolicies) -> Vec<PolicyText> {
        let mut all: Vec<_> = self.granted(policies).map(PolicyText::of).collect();
        all.sort_by(|a, b| a.id.cmp(&b.id));
        all
    }

    /// Whether an action is about one function, or something of it. Others are about a tenant, or the installation.
    pub fn about_functions(&self, action: Action) -> bool {
        matches!(self.done_to(action), Some("Function" | "Secret"))
    }

    /// Whether an action is about the installation.
    pub fn about_the_platform(&self, action: Action) -> bool {
        self.done_to(action) == Some("Platform")
    }

    /// The roles policies speak of, in order.
    pub fn roles_of(&self, policies: &TenantPolicies) -> Vec<String> {
        let all = self.in_force(policies).flat_map(Policy::entity_literals);
        let roles = all.filter(|uid| uid.type_name().basename() == "Role").map(|uid| uid.id().unescaped().to_owned());
        let sorted: std::collections::BTreeSet<_> = roles.collect();
        sorted.into_iter().collect()
    }
}

/// As a decision is told.
fn answer(weighed: &Weighed<'_>) -> Answer {
    Answer {
        outcome: weighed.outcome.as_str(),
        tier: weighed.tier.as_str(),
        policies: weighed.facts.policies.clone(),
        policy_set: weighed.facts.policy_set,
    }
}

/// A name for policies of a text that has none of its own, made of a file's name.
pub fn policy_name(file: &str) -> String {
    let stem = file.rsplit('/').next().unwrap_or(file);
    let stem = stem.strip_suffix(".cedar").unwrap_or(stem).to_ascii_lowercase();
    let plain: String = stem.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(60).collect();
    let plain = plain.trim_matches('-');
    let letter = plain.starts_with(|c: char| c.is_ascii_alphabetic());
    if letter { plain.to_owned() } else { format!("p{}{plain}", if plain.is_empty() { "" } else { "-" }) }
}

/// A tenant of that name for texts that are looked at without a node. An id stands for itself.
pub fn tenant_named(name: &str) -> TenantId {
    match name {
        "platform" => platform_tenant(),
        name => TenantId::parse(name).unwrap_or_else(|_| supposed::named_tenant(name)),
    }
}
