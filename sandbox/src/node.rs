//! The sandbox as the rest of the node sees it.
//!
//! Owns the order of its start and its end. Must never come up with programs of another version, or on a host that
//! isolates less than was asked for.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use cofferdam_audit::Entry;
use cofferdam_authz::Permit;
use cofferdam_model::frame::RequestHead;
use cofferdam_model::{Clock, Digest, FunctionId, Invoke, Isolation, LogRange, Random, TenantId};

use crate::cell::Program;
use crate::cells::{Cause, CellInfo, Gauges, Parts, Pool};
use crate::cgroup::Cgroups;
use crate::client::Client;
use crate::compile::version;
use crate::config::{Deployment, InboundBody, SandboxConfig};
use crate::error::SandboxError;
use crate::invoke::invoke;
use crate::library::{Hold, Library, Prepared};
use crate::logs::{LogPage, Logs};
use crate::outcome::{Answer, Failure};

/// The sandbox. Cheap to clone.
#[derive(Clone)]
pub struct Sandbox(Arc<Inner>);

struct Inner {
    pool: Arc<Pool>,
    library: Arc<Library>,
    logs: Logs,
    cgroups: Arc<Cgroups>,
    isolation: Isolation,
    closing: AtomicBool,
}

impl fmt::Debug for Sandbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sandbox").field("isolation", &self.0.isolation).finish_non_exhaustive()
    }
}

impl Sandbox {
    /// Checks the programs, starts the first cells and learns how well they are isolated.
    pub async fn start(
        config: SandboxConfig,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
    ) -> Result<Self, SandboxError> {
        version(&config.worker, "cofferdam-worker").await?;
        version(&config.compiler, "cofferdam-compiler").await?;
        let opening = tokio::task::spawn_blocking(move || Library::open(&config).map(|library| (library, config)));
        let (library, config) = opening.await.unwrap_or(Err(SandboxError::Closing))?;
        let (library, logs) = (Arc::new(library), Logs::open(&config.logs, &config.limits, clock.clone())?);
        let groups = config.cgroup;
        let opened = tokio::task::spawn_blocking(move || Cgroups::open(groups.as_deref())).await;
        let cgroups = Arc::new(opened.map_err(|_| SandboxError::Closing)?);
        let pool = Pool::new(Parts {
            spawn: Box::new(Program { path: config.worker }),
            library: library.clone(),
            logs: logs.clone(),
            limits: config.limits,
            required: config.required,
            cgroups: cgroups.clone(),
            clock,
            random,
        });
        // One cell before anything is promised: whether this host can do it, and how well.
        let isolation = pool.prove().await?;
        Ok(Self(Arc::new(Inner { pool, library, logs, cgroups, isolation, closing: AtomicBool::new(false) })))
    }

    /// Takes a component in: compiles it in a jailed process and stores the result, unless that was done before. It
    /// stays there at least as long as the hold does. Tenants take turns.
    pub async fn prepare(&self, tenant: &TenantId, component: Bytes) -> Result<(Prepared, Hold), SandboxError> {
        if self.0.closing.load(Ordering::Acquire) {
            return Err(SandboxError::Closing);
        }
        self.0.library.take_in(tenant, component).await
    }

    /// Deletes every component, with what it was compiled to, that is neither referred to nor being taken in or loaded
    /// right now; gives the bytes that became free. `referenced` is asked at the moment that counts, and its `None`
    /// stands for not knowing, upon which nothing is deleted. Cells that run one keep what they have. Blocks on files.
    pub fn collect(&self, referenced: impl FnOnce() -> Option<HashSet<Digest>>) -> Result<u64, SandboxError> {
        self.0.library.collect(referenced)
    }

    /// Runs one call: the one its open audit entry was permitted for. Where its client leaves the guest is stopped at
    /// once, and this comes back when it is known what that used.
    pub async fn invoke(
        &self,
        entry: &mut Entry<Permit<Invoke>>,
        deployment: &Deployment,
        request: (RequestHead, InboundBody),
        client: &Client,
    ) -> Result<Answer, Failure> {
        invoke(&self.0.pool, entry, deployment, request, client).await
    }

    /// How well cells are isolated on this host.
    pub fn isolation(&self) -> Isolation {
        self.0.isolation
    }

    /// By which of the kernel's interfaces each cell has a control group of its own: `v1`, `v2` or `none`.
    pub fn cgroups(&self) -> &'static str {
        self.0.cgroups.kind()
    }

    /// Lines of a function's log, oldest first.
    pub async fn read_logs(&self, function: &FunctionId, range: LogRange) -> Result<LogPage, SandboxError> {
        self.0.logs.read(function, range).await
    }

    /// Every cell there is.
    pub fn cells(&self) -> Vec<CellInfo> {
        self.0.pool.cells()
    }

    /// The sandbox in numbers.
    pub fn gauges(&self) -> Gauges {
        self.0.pool.gauges()
    }

    /// Has a function's cells finish what they have and go; gives how many. The next call gets a fresh one.
    pub fn retire(&self, function: &FunctionId, cause: Cause) -> usize {
        self.0.pool.retire(function, cause)
    }

    /// The same for all functions of a tenant.
    pub fn retire_tenant(&self, tenant: &TenantId, cause: Cause) -> usize {
        self.0.pool.retire_tenant(tenant, cause)
    }

    /// Lets cells finish their calls, within the drain's limit, then ends them all.
    pub async fn shutdown(&self) {
        self.0.closing.store(true, Ordering::Release);
        self.0.pool.shutdown().await;
        self.0.cgroups.close().await;
        let logs = self.0.logs.clone();
        // Nothing is left to be done about a flush that fails.
        let _ = tokio::task::spawn_blocking(move || logs.flush()).await;
    }
}
