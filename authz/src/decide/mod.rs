//! The decision, asked anew for every call.
//!
//! Owns the order of the tiers and what each outcome means: no tier may forbid or fail, each ceiling there is must
//! permit, and so must what the tenant grants. Must never remember an outcome, and never take silence or an error for
//! a yes.

mod escalation;
mod explain;
mod holding;
mod permit;
mod session;
#[cfg(test)]
mod tests;
mod tiers;
mod weigh;
mod work;

use std::sync::Arc;

use cedar_policy::{Effect, Schema};
use cofferdam_model::id::platform_tenant;
use cofferdam_model::{Circumstances, GivenFacts, Operation, PolicyTier, Resource, SetFacts, TenantId};

pub use self::explain::{Explanation, TierExplanation};
pub use self::permit::{Because, Denied, Outcome, Permit};
pub use self::session::narrows as scopes_narrow;
pub(crate) use self::weigh::{Weighed, Work};
pub use self::work::Errand;

use self::session::Session;
use self::tiers::Verdict;
use crate::entities::{Home, Question, Unaskable, Vocabulary};
use crate::error::PolicyError;
use crate::identity::Principal;
use crate::policy::{self, Compiler, Owner, TenantPolicies, Texts, TierPolicies};
use crate::schema::{BuiltIn, DEFAULTS, GUARD_RAILS, OPERATORS, SCHEMA};

/// Compiles policies and decides by them.
pub struct Authorizer {
    cedar: cedar_policy::Authorizer,
    compiler: Arc<Compiler>,
    vocabulary: Vocabulary,
    guard_rails: TierPolicies,
    defaults: TierPolicies,
    operators: TierPolicies,
}

impl Authorizer {
    /// Reads what came with the software.
    pub fn new() -> Result<Self, PolicyError> {
        let (schema, _warnings) =
            Schema::from_cedarschema_str(SCHEMA).map_err(|error| PolicyError::BuiltIn(error.to_string()))?;
        let vocabulary = Vocabulary::of(&schema)?;
        let compiler = Arc::new(Compiler::new(schema)?);
        Ok(Self {
            cedar: cedar_policy::Authorizer::new(),
            guard_rails: built_in(&compiler, PolicyTier::Platform, GUARD_RAILS, Some(Effect::Forbid))?,
            defaults: built_in(&compiler, PolicyTier::Tenant, DEFAULTS, None)?,
            operators: built_in(&compiler, PolicyTier::Tenant, OPERATORS, None)?,
            compiler,
            vocabulary,
        })
    }

    /// A tenant's policies (name and text each) on top of the defaults, or what is wrong with them and where.
    pub fn compile(&self, tenant: &TenantId, sources: &[(String, String)]) -> Result<TenantPolicies, PolicyError> {
        let texts = Texts { version: 0, sources: sources.to_vec() };
        Ok(self.of_tenant(tenant, self.tier(Owner::Tenant(tenant.clone()), texts, None)?))
    }

    /// One tier's texts of one owner, or what is wrong with them and where. What `before` has too is not looked at
    /// again.
    pub fn tier(&self, owner: Owner, texts: Texts, before: Option<&TierPolicies>) -> Result<TierPolicies, PolicyError> {
        if owner == Owner::Tenant(platform_tenant()) {
            policy::none_of_its_own(&texts.sources)?;
            return Ok(self.operators.clone());
        }
        TierPolicies::unread(&self.compiler, owner, texts).compiled(before)
    }

    /// The same for texts that this release has found good before: compiled when they are first asked.
    pub fn tier_unread(&self, owner: Owner, texts: Texts) -> TierPolicies {
        if owner == Owner::Tenant(platform_tenant()) {
            return self.operators.clone();
        }
        TierPolicies::unread(&self.compiler, owner, texts)
    }

    /// A tenant's policies, made of what it grants.
    pub fn of_tenant(&self, tenant: &TenantId, grants: TierPolicies) -> TenantPolicies {
        TenantPolicies::new(tenant.clone(), grants)
    }

    /// Names what finds policies good: texts that did so under one such name need not be looked at again.
    pub fn rules(&self) -> String {
        let schema = policy::digest_of_built_in(&[("schema", SCHEMA)]);
        format!("{} {schema}", env!("CARGO_PKG_VERSION"))
    }

    /// Whether this principal may do exactly this. `policies` are those of the operation's tenant.
    pub fn decide<A: Operation>(
        &self,
        policies: &TenantPolicies,
        principal: Principal,
        operation: A,
        circumstances: Circumstances,
    ) -> Result<Permit<A>, Denied> {
        let verdict = self.judge(policies, &principal, &operation, &circumstances);
        if verdict.outcome != Outcome::Allow {
            return Err(Denied::new(&principal, &operation, &circumstances, verdict));
        }
        if let Some(action) = self.escalates(policies, &principal, &operation, &circumstances) {
            let verdict = verdict.escalation();
            return Err(Denied::new(&principal, &operation, &circumstances, verdict).escalating(action));
        }
        match self.send(policies, &principal, &operation, &circumstances) {
            Ok((errand, uses)) => Ok(Permit::mint(principal, operation, circumstances, verdict.facts, errand, uses)),
            Err(refused) => Err(Denied::of_secret(&principal, &operation, &circumstances, verdict, refused)),
        }
    }

    fn judge<A: Operation>(
        &self,
        policies: &TenantPolicies,
        principal: &Principal,
        operation: &A,
        circumstances: &Circumstances,
    ) -> Verdict {
        let mut verdict = match self.question(policies, principal, operation, circumstances) {
            Ok(question) => {
                let session = Session::of(principal, &self.compiler.bits);
                let session = session.map(|session| (session.allows(operation), session.facts(principal)));
                let rulings = self.rulings(policies, &question, over_tenants(principal, operation), false);
                tiers::settle(rulings, session)
            }
            Err(why) => self.unaskable(why),
        };
        verdict.facts.given = Some(Box::new(given(principal, operation, policies.is_suspended())));
        verdict
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
        let bits = &self.compiler.bits;
        self.vocabulary.question(bits, principal, operation, circumstances, home(policies), None)
    }

    fn unaskable(&self, Unaskable(what): Unaskable) -> Verdict {
        tracing::error!(what, "a call could not be put to the policies: denied");
        tiers::unaskable(what, self.guard_rails.facts().clone())
    }
}

/// The platform's own are judged by the platform's policies, wherever they act: no tenant decides over its operators.
/// So is everybody who asks something of the platform itself, if only to be told no.
fn over_tenants<A: Operation>(principal: &Principal, operation: &A) -> bool {
    let platform = platform_tenant();
    principal.tenant() == Some(&platform) || operation.tenant() == platform
}

/// What else a decision was made on, for whoever asks the same of other policies later.
fn given<A: Operation>(principal: &Principal, operation: &A, suspended: bool) -> GivenFacts {
    let resource = operation.resource();
    let name = resource.function_name().map(str::to_owned);
    let (item, item_roles) = match resource {
        Resource::Platform | Resource::Tenant(_) | Resource::AuditLog(_) | Resource::Function { .. } => {
            (None, Vec::new())
        }
        Resource::Secret { name, .. } => (Some(name.to_string()), Vec::new()),
        Resource::Api { name, .. } => (Some(name), Vec::new()),
        Resource::Account { name, roles, .. } => (Some(name), roles),
        Resource::ApiKey(key) => (Some(key.to_string()), Vec::new()),
        Resource::PolicySet { policy, .. } => (Some(policy), Vec::new()),
    };
    let (roles, scopes) = (principal.roles().to_vec(), principal.scopes().map(<[String]>::to_vec));
    let groups = principal.groups().to_vec();
    GivenFacts { name, item, item_roles, public: operation.public(), roles, groups, scopes, suspended }
}

fn home(policies: &TenantPolicies) -> Home<'_> {
    Home { suspended: policies.is_suspended(), organisation: policies.organisation() }
}

fn built_in(
    compiler: &Arc<Compiler>,
    tier: PolicyTier,
    texts: &[BuiltIn],
    only: Option<Effect>,
) -> Result<TierPolicies, PolicyError> {
    let digest = policy::digest_of_built_in(texts);
    let facts = SetFacts { tier, owner: "platform".into(), version: 0, digest };
    Ok(TierPolicies::read(compiler, facts, compiler.built_in(texts, only)?))
}
