//! The operation of calling a function.
//!
//! Owns what a call was resolved to. Must never name a function without the one version that is run.

use std::sync::Arc;

use crate::digest::Digest;
use crate::facts::Level;
use crate::id::{FunctionId, RouteId, TenantId, VersionId};
use crate::limits::FunctionLimits;
use crate::operation::{Action, Operation, Resource};

/// Call a function: resolved by the router to exactly one version. Cheap to clone the ids of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invoke {
    /// Whose.
    pub tenant: TenantId,
    /// Which function.
    pub function: FunctionId,
    /// Its name, which policies may speak of.
    pub function_name: Arc<str>,
    /// Which version of it.
    pub version: VersionId,
    /// Digest of the component.
    pub component: Digest,
    /// The route that matched; none for a direct invocation by name.
    pub route: Option<RouteId>,
    /// Whether the route was declared public.
    pub public: bool,
    /// How durably the call is recorded before it takes effect.
    pub audit: Level,
    /// What the call may use, already under every ceiling.
    pub limits: Arc<FunctionLimits>,
}

impl Operation for Invoke {
    fn action(&self) -> Action {
        Action::Invoke
    }

    fn tenant(&self) -> TenantId {
        self.tenant.clone()
    }

    fn resource(&self) -> Resource {
        Resource::Function { id: self.function.clone(), name: self.function_name.clone() }
    }

    fn level(&self) -> Level {
        self.audit
    }

    fn route(&self) -> Option<&RouteId> {
        self.route.as_ref()
    }

    fn public(&self) -> bool {
        self.public
    }

    fn version(&self) -> Option<(&VersionId, Digest)> {
        Some((&self.version, self.component))
    }
}
