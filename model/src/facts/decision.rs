//! What is known of a decision.
//!
//! Owns what a decision was, and what it was made on besides the facts of its call. Must never hold a credential or a
//! value of a secret.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::PolicyTier;
use crate::digest::Digest;

/// A decision as the log names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DecisionFacts {
    /// `allow`, `explicit_deny`, `ceiling_deny`, `implicit_deny`, `policy_error`.
    pub outcome: String,
    /// Tier that settled it, as [`PolicyTier`] names it.
    pub tier: String,
    /// Policies that determined it.
    pub policies: Vec<String>,
    /// SHA-256 of the tier's policy set.
    pub policy_set: Digest,
    /// The set of every tier that was asked; none in records of releases that had two tiers.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub sets: Vec<SetFacts>,
    /// What it was made on besides what the call's facts tell. Absent in records of earlier releases.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub given: Option<Box<GivenFacts>>,
}

/// Which state of a tier's policies was asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetFacts {
    /// Which tier.
    pub tier: PolicyTier,
    /// Whose set: `platform`, an organisation, a tenant, or a credential.
    pub owner: Arc<str>,
    /// Counts the set's changes; 0 for what came with the software.
    pub version: u64,
    /// SHA-256 of its texts.
    pub digest: Digest,
}

/// Whether a function's workload might be given a secret, as the log names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UseFacts {
    /// Name of the secret.
    pub secret: Arc<str>,
    /// As in a decision.
    pub outcome: String,
    /// As in a decision.
    pub tier: String,
    /// Policies that determined it.
    pub policies: Vec<String>,
}

/// What a decision was made on besides the facts of the call: with both, the same question can be put to other
/// policies later.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GivenFacts {
    /// Name of the function that the resource is, or belongs to; none for what belongs to none.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub name: Option<String>,
    /// Name of the secret, app, account or policy that the resource is.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub item: Option<String>,
    /// Roles the resource has, where it is an account.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub item_roles: Vec<String>,
    /// Whether the route was declared public.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub public: bool,
    /// Roles the principal had.
    pub roles: Vec<String>,
    /// Groups it was in.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub groups: Vec<String>,
    /// What its credential was good for at most, where that was limited.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub scopes: Option<Vec<String>>,
    /// Whether the tenant was suspended.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub suspended: bool,
}
