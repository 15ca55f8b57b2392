//! What every operation says of itself: action, tenant, and the one resource it touches.
//!
//! Owns these words. Must never let an operation be decided on as anything but what it is.

use std::sync::Arc;

use super::Action;
use crate::digest::Digest;
use crate::facts::Level;
use crate::id::{FunctionId, RouteId, TenantId, VersionId};

/// What an operation touches. Becomes the resource of the policy decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resource {
    /// The installation itself.
    Platform,
    /// A tenant as a whole.
    Tenant(TenantId),
    /// A function of a tenant, with the name policies know it by.
    Function {
        /// Which.
        id: FunctionId,
        /// Its name.
        name: Arc<str>,
    },
}

impl Resource {
    /// The id as text; `platform` for the platform.
    pub fn id(&self) -> &str {
        match self {
            Self::Platform => "platform",
            Self::Tenant(id) => id.as_str(),
            Self::Function { id, .. } => id.as_str(),
        }
    }
}

/// Something that can be asked for, decided on and recorded.
pub trait Operation {
    /// The action.
    fn action(&self) -> Action;
    /// The tenant it happens in; the platform's own for what belongs to none.
    fn tenant(&self) -> TenantId;
    /// What it touches.
    fn resource(&self) -> Resource;
    /// How durably it must be recorded before it takes effect.
    fn level(&self) -> Level {
        Level::Strict
    }
    /// The route that led to it, where one did.
    fn route(&self) -> Option<&RouteId> {
        None
    }
    /// Whether callers without a credential may be considered at all.
    fn public(&self) -> bool {
        false
    }
    /// The version and component digest it would run.
    fn version(&self) -> Option<(&VersionId, Digest)> {
        None
    }
    /// What a reader of the log should know of a change beyond action and resource. Never a secret.
    fn detail(&self) -> Option<String> {
        None
    }
}
