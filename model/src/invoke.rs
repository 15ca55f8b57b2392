//! The call of a function.
//!
//! Owns all that is decided on and done of it. Must never hold a value of a secret: names are enough to decide.

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
    /// Names of the secrets its cell is given: those the function declares and somebody has set.
    pub secrets: Arc<[Arc<str>]>,
    /// Whether it can ask anything of the outside.
    pub egress: bool,
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

    fn invoke(&self) -> Option<&Invoke> {
        Some(self)
    }
}
