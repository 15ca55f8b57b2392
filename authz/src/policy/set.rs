//! The sets of policies that are asked, one for each tier and owner.
//!
//! Owns when a set is compiled: at once for what is new, when it is first asked for what was found good before. Must
//! never let a set that cannot be compiled be taken for an empty one.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use cedar_policy::Policy;
use cofferdam_model::{Digest, OrganisationId, PolicyTier, SetFacts, TenantId};

use super::Compiler;
use super::index::{Answer, Asked, Index};
use crate::error::PolicyError;

/// Bytes of texts that take longer to compile than the first call that needs them should wait: some milliseconds.
const WARM_BYTES: usize = 16 * 1024;

/// The texts of one set: whose they are, how often they were changed, and name and text of each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Texts {
    /// Counts the set's changes.
    pub version: u64,
    /// Names and texts.
    pub sources: Vec<(String, String)>,
}

/// Whose set it is, and in which tier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owner {
    /// An organisation's ceiling.
    Organisation(OrganisationId),
    /// The boundary of a tenant.
    Boundary(TenantId),
    /// What a tenant grants.
    Tenant(TenantId),
}

impl Owner {
    pub(crate) fn tier(&self) -> PolicyTier {
        match self {
            Self::Organisation(_) => PolicyTier::Organisation,
            Self::Boundary(_) => PolicyTier::Boundary,
            Self::Tenant(_) => PolicyTier::Tenant,
        }
    }

    fn name(&self) -> Arc<str> {
        match self {
            Self::Organisation(id) => id.as_str().into(),
            Self::Boundary(id) | Self::Tenant(id) => id.as_str().into(),
        }
    }

    /// What ids of its policies begin with, so that no two tiers can have one id.
    pub(crate) fn prefix(&self) -> &'static str {
        match self {
            Self::Organisation(_) => "organisation:",
            Self::Boundary(_) => "boundary:",
            Self::Tenant(_) => "",
        }
    }
}

/// The statements of one text.
pub(crate) struct Statements {
    pub(crate) text: Digest,
    pub(crate) policies: Vec<Policy>,
}

/// A validated set of policies, ready to be asked.
#[derive(Default)]
pub(crate) struct Set {
    /// By name of the text they are from.
    pub(crate) texts: BTreeMap<String, Arc<Statements>>,
    pub(crate) index: Index,
}

impl Set {
    pub(crate) fn policies(&self) -> impl Iterator<Item = &Policy> {
        self.texts.values().flat_map(|statements| &statements.policies)
    }
}

/// One tier's policies of one owner. Cheap to clone.
#[derive(Clone)]
pub struct TierPolicies(Arc<Tier>);

struct Tier {
    facts: SetFacts,
    owner: Option<Owner>,
    sources: Vec<(String, String)>,
    compiler: Arc<Compiler>,
    set: OnceLock<Result<Set, PolicyError>>,
}

impl TierPolicies {
    /// Texts that were found good before: compiled when they are first asked.
    pub(crate) fn unread(compiler: &Arc<Compiler>, owner: Owner, texts: Texts) -> Self {
        let Texts { version, sources } = texts;
        let digest = compiler.digest(&owner, &sources);
        let facts = SetFacts { tier: owner.tier(), owner: owner.name(), version, digest };
        Self(Arc::new(Tier { facts, owner: Some(owner), sources, compiler: compiler.clone(), set: OnceLock::new() }))
    }

    /// A set that is compiled already.
    pub(crate) fn read(compiler: &Arc<Compiler>, facts: SetFacts, set: Set) -> Self {
        let set = OnceLock::from(Ok(set));
        Self(Arc::new(Tier { facts, owner: None, sources: Vec::new(), compiler: compiler.clone(), set }))
    }

    /// Compiles it now, if that was not done yet; statements of texts that `before` has too are taken from there.
    pub(crate) fn compiled(self, before: Option<&Self>) -> Result<Self, PolicyError> {
        // What was not compiled itself by now is no help.
        let before = before.and_then(|before| before.0.set.get()).and_then(|set| set.as_ref().ok());
        match self.0.set.get_or_init(|| self.0.compile(before)) {
            Ok(_) => Ok(self),
            Err(error) => Err(error.clone()),
        }
    }

    /// The compiled set, or why there is none.
    pub(crate) fn set(&self) -> Result<&Set, &PolicyError> {
        let compile = || {
            let set = self.0.compile(None);
            if let Err(error) = &set {
                tracing::error!(owner = &*self.0.facts.owner, tier = self.tier().as_str(), %error, "shut");
            }
            set
        };
        self.0.set.get_or_init(compile).as_ref()
    }

    /// The same set without some of its statements, to be asked what it would say then.
    fn without(&self, drop: impl Fn(&Policy) -> bool) -> Self {
        let Ok(set) = self.set() else { return self.clone() };
        if !set.policies().any(&drop) {
            return self.clone();
        }
        let kept = |(name, text): (&String, &Arc<Statements>)| {
            let policies = text.policies.iter().filter(|policy| !drop(policy)).cloned().collect();
            (name.clone(), Arc::new(Statements { text: text.text, policies }))
        };
        match self.0.compiler.set(set.texts.iter().map(kept).collect()) {
            Ok(set) => Self::read(&self.0.compiler, self.0.facts.clone(), set),
            Err(_) => self.clone(),
        }
    }

    /// Which state of which set it is.
    pub fn facts(&self) -> &SetFacts {
        &self.0.facts
    }

    /// In which tier.
    pub fn tier(&self) -> PolicyTier {
        self.0.facts.tier
    }

    /// Compiles it now, if that was not done yet and takes so long that a call should not have to wait for it.
    fn warm(&self) {
        let bytes = self.0.sources.iter().map(|(_, text)| text.len()).sum::<usize>();
        if bytes > WARM_BYTES {
            // Whether it is good is for the decisions it is asked in.
            let _ = self.set();
        }
    }

    /// Adds what these policies say to what others said. One that cannot be compiled fails.
    pub(crate) fn ask(&self, cedar: &cedar_policy::Authorizer, asked: &Asked<'_>, answer: &mut Answer) {
        match self.set() {
            Ok(set) => set.index.ask(cedar, asked, answer),
            Err(error) => answer.failures.push(("unreadable".to_owned(), error.to_string())),
        }
    }
}

impl Tier {
    fn compile(&self, before: Option<&Set>) -> Result<Set, PolicyError> {
        match &self.owner {
            Some(owner) => self.compiler.compile(owner, &self.sources, before),
            None => Ok(Set::default()),
        }
    }
}

/// All policies that are asked for what happens in one tenant. Cheap to clone.
#[derive(Clone)]
pub struct TenantPolicies {
    tenant: TenantId,
    suspended: bool,
    organisation: Option<OrganisationId>,
    ceiling: Option<TierPolicies>,
    boundary: Option<TierPolicies>,
    grants: TierPolicies,
}

impl TenantPolicies {
    pub(crate) fn new(tenant: TenantId, grants: TierPolicies) -> Self {
        Self { tenant, suspended: false, organisation: None, ceiling: None, boundary: None, grants }
    }

    /// The same policies, for a tenant that is suspended or not.
    #[must_use]
    pub fn suspended(self, suspended: bool) -> Self {
        Self { suspended, ..self }
    }

    /// The same policies within a boundary, or none.
    #[must_use]
    pub fn within(self, boundary: Option<TierPolicies>) -> Self {
        Self { boundary, ..self }
    }

    /// The same policies, for a tenant of an organisation, under its ceiling if it has one.
    #[must_use]
    pub fn under(self, organisation: OrganisationId, ceiling: Option<TierPolicies>) -> Self {
        Self { organisation: Some(organisation), ceiling, ..self }
    }

    /// The same, with this granted instead.
    #[must_use]
    pub fn granting(self, grants: TierPolicies) -> Self {
        Self { grants, ..self }
    }

    /// Whose they are.
    pub fn tenant(&self) -> &TenantId {
        &self.tenant
    }

    /// SHA-256 of the texts, the defaults included.
    pub fn digest(&self) -> Digest {
        self.grants.facts().digest
    }

    /// What the tenant grants.
    pub fn grants(&self) -> &TierPolicies {
        &self.grants
    }

    /// What operators bound it by.
    pub fn boundary(&self) -> Option<&TierPolicies> {
        self.boundary.as_ref()
    }

    /// The state of each tier that is the tenant's or above it, from the widest.
    pub fn sets(&self) -> Vec<(PolicyTier, Digest)> {
        self.ceilings().chain([&self.grants]).map(|tier| (tier.tier(), tier.facts().digest)).collect()
    }

    /// Compiles what is large and not compiled yet, so that no call has to wait for it.
    pub fn warm(&self) {
        self.ceilings().chain([&self.grants]).for_each(TierPolicies::warm);
    }

    /// The same without some statements, in every tier.
    pub(crate) fn without(self, drop: impl Fn(&Policy) -> bool + Copy) -> Self {
        let ceiling = self.ceiling.map(|tier| tier.without(drop));
        let boundary = self.boundary.map(|tier| tier.without(drop));
        Self { ceiling, boundary, grants: self.grants.without(drop), ..self }
    }

    pub(crate) fn is_suspended(&self) -> bool {
        self.suspended
    }

    pub(crate) fn organisation(&self) -> Option<&OrganisationId> {
        self.organisation.as_ref()
    }

    /// What must allow besides: the organisation's ceiling, then the tenant's boundary, those that there are.
    pub(crate) fn ceilings(&self) -> impl Iterator<Item = &TierPolicies> {
        self.ceiling.iter().chain(&self.boundary)
    }
}
