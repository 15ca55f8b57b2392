//! Organisations, and the policies that bind tenants from above.
//!
//! Owns the shape of what is stored of them, and of the state of every set of policies. Must never let a set change
//! without its version.

use cofferdam_model::{OrganisationId, PolicyTier, TenantId, UnixNanos};

use super::PolicyRow;
use crate::error::ControlError;

/// An organisation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrganisationRow {
    /// Its id.
    pub id: OrganisationId,
    /// Its name, unique.
    pub name: String,
    /// Since when it exists.
    pub created: UnixNanos,
}

/// The state of a set of policies.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SetRow {
    /// Counts its changes.
    pub version: u64,
    /// What found it good in this state, as `Authorizer::rules` names it; none, if nothing did yet.
    pub rules: Option<String>,
}

/// An organisation with its ceiling, in order of name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrganisationState {
    /// The organisation.
    pub organisation: OrganisationRow,
    /// The policies of its ceiling.
    pub ceiling: Vec<PolicyRow>,
    /// Their state.
    pub set: SetRow,
}

/// What a transaction does about tiers.
pub trait Tiers {
    /// Every organisation, in order of name.
    fn organisations(&mut self) -> Result<Vec<OrganisationState>, ControlError>;
    /// Adds an organisation. Its id and name must be new.
    fn insert_organisation(&mut self, organisation: &OrganisationRow) -> Result<(), ControlError>;
    /// Puts a tenant, which exists, into an organisation or out of one.
    fn assign_tenant(&mut self, tenant: &TenantId, to: Option<&OrganisationId>) -> Result<(), ControlError>;
    /// Policies of a ceiling or boundary, in order of name.
    fn ceiling(&mut self, tier: PolicyTier, owner: &str) -> Result<Vec<PolicyRow>, ControlError>;
    /// Adds a policy of a ceiling or boundary, or replaces its text.
    fn put_ceiling(&mut self, tier: PolicyTier, owner: &str, policy: &PolicyRow) -> Result<(), ControlError>;
    /// Removes a policy of a ceiling or boundary; says whether it was there.
    fn remove_ceiling(&mut self, tier: PolicyTier, owner: &str, name: &str) -> Result<bool, ControlError>;
    /// The state of a set.
    fn policy_set(&mut self, tier: PolicyTier, owner: &str) -> Result<SetRow, ControlError>;
    /// Remembers what found a set good, in the state it is in.
    fn found_good(&mut self, tier: PolicyTier, owner: &str, rules: &str) -> Result<(), ControlError>;
}
