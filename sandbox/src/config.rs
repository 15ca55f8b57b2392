//! What the sandbox is told at start, and what it is told of each deployment.
//!
//! Owns these two shapes. Must never read a file or the environment: the composition root does that.

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use cofferdam_model::{Env, Isolation, Limits, Recycle, TenantLimits};
use zeroize::Zeroizing;

use crate::egress::OpenOutlet;
use crate::error::{BoxError, InboundError};

/// A request body, as the gateway hands it in.
pub type InboundBody = Pin<Box<dyn http_body::Body<Data = Bytes, Error = InboundError> + Send>>;

/// Settings of a sandbox.
pub struct SandboxConfig {
    /// Absolute path of `cofferdam-worker`.
    pub worker: PathBuf,
    /// Absolute path of `cofferdam-compiler`.
    pub compiler: PathBuf,
    /// Directory of components and artifacts. Made when missing, for the service user alone.
    pub artifacts: PathBuf,
    /// Directory of function logs. Made when missing, for the service user alone.
    pub logs: PathBuf,
    /// Key that binds artifacts to what they were made of.
    pub mac_key: Zeroizing<[u8; 32]>,
    /// The least isolation cells must reach; below it the sandbox does not start.
    pub required: Isolation,
    /// Directory of the control groups below which each cell gets its own; this process's own when absent.
    pub cgroup: Option<PathBuf>,
    /// The node's limits.
    pub limits: Limits,
}

/// Opens the environment of a function version. Called off the hot path, once per cell; may block.
pub type Unseal = Arc<dyn Fn() -> Result<Env, BoxError> + Send + Sync>;

/// Has at hand what an environment is opened with, where that is elsewhere. Called once per cell, before there is one;
/// must not block.
pub type Ready = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = Result<(), BoxError>> + Send>> + Send + Sync>;

/// What a function's cells are started with, beyond what the permit says.
#[derive(Clone)]
pub struct Deployment {
    /// Rises whenever version, settings or secrets change; cells of an older one are replaced.
    pub generation: u64,
    /// When cells are replaced.
    pub recycle: Recycle,
    /// What the functions of its tenant may use together.
    pub tenant: Arc<TenantLimits>,
    /// Waits for what that takes; none where it takes nothing.
    pub ready: Option<Ready>,
    /// Opens the environment.
    pub unseal: Unseal,
    /// Opens the way out; none where the function may not ask anything of the outside.
    pub outlet: Option<OpenOutlet>,
}
