//! What a tenant declares about a function, apart from its code.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::egress::EgressRule;
use crate::id::FunctionId;
use crate::limits::FunctionLimits;

/// A function as a management operation names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FunctionRef {
    /// Which.
    pub id: FunctionId,
    /// Its name.
    pub name: Arc<str>,
}

/// When a cell is replaced by a fresh one. Whichever comes first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Recycle {
    /// After this many calls.
    pub after_calls: u64,
    /// After this long, whatever it did.
    pub after_seconds: u64,
    /// After this long without a call.
    pub idle_seconds: u64,
    /// When it still holds more bytes than this after a call; 0 is twice what a call may use, and 64 MiB.
    pub memory_bytes: u64,
}

impl Default for Recycle {
    fn default() -> Self {
        Self { after_calls: 10_000, after_seconds: 600, idle_seconds: 60, memory_bytes: 0 }
    }
}

/// A function's settings. A published version carries the settings of its moment; changing them makes the next
/// cell differ, never a running one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FunctionSettings {
    /// What one call may use.
    pub limits: FunctionLimits,
    /// When cells are replaced.
    pub recycle: Recycle,
    /// Plain environment entries.
    pub env: std::collections::BTreeMap<String, String>,
    /// Names of the secrets that become environment entries. Values live in the vault.
    pub secrets: Vec<String>,
    /// What the function may ask of the outside. Empty: nothing.
    pub egress: Vec<EgressRule>,
}
