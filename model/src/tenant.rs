//! What an operator sets about one tenant.
//!
//! Owns the shape of it. Must never say what it is when it is not set: that is in the node's configuration.

use serde::{Deserialize, Serialize};

use crate::egress::EgressCeiling;
use crate::limits::TenantLimits;

/// What an operator has set about a tenant. For what is not set, the node's configuration holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TenantSettings {
    /// What its functions may use together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limits: Option<TenantLimits>,
    /// What its functions may ask of the outside at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub egress: Option<EgressCeiling>,
}
