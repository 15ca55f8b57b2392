//! The cells of the node: a few blank ones waiting, and those that became some function's.
//!
//! Owns how many processes there are, which call gets which, and when each ends. Must never give a cell that served
//! one function version to another, nor a call to a cell below the isolation required.

mod cause;
mod census;
mod group;
mod lease;
mod member;
mod place;
mod room;
mod share;
mod start;
mod tenant;
mod tend;

#[cfg(test)]
pub(crate) mod tests;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use cofferdam_model::{
    CellId, Clock, Digest, FunctionId, FunctionLimits, Invoke, Isolation, Limits, Random, TenantId, VersionId,
};
use tokio::runtime::Handle;
use tokio::sync::{Notify, oneshot};

use crate::cell::{Blank, Spawn, Weigh};
use crate::cgroup::Cgroups;
use crate::channel::{Channel, Closed};
use crate::config::Deployment;
use crate::error::SandboxError;
use crate::library::Library;
use crate::logs::Logs;
pub use cause::Cause;
use cause::Tally;
pub use census::{CellInfo, Gauges};
use group::{Group, Waiter};
pub(crate) use lease::Lease;
use lease::Ticket;
use member::{Key, Spec};
pub(crate) use place::{Place, Places};
pub(crate) use share::{Share, Shares};
use tenant::{Queued, Tenant};

/// When a call refused for want of room may be worth another try.
const SOON: Duration = Duration::from_secs(1);

/// A cell that serves.
pub(crate) struct Cell {
    pub(crate) id: CellId,
    pub(crate) isolation: Isolation,
    pub(crate) channel: Arc<Channel>,
    clock: Arc<dyn Clock>,
    /// Reads how much memory it holds.
    weigh: Option<Weigh>,
    /// Why it ends, once that is decided.
    cause: OnceLock<Cause>,
}

impl Cell {
    /// Notes why it ends; the first reason is the one. Whether this was it.
    fn mark(&self, cause: Cause) -> bool {
        self.cause.set(cause).is_ok()
    }

    /// Why it ended, where its channel closed like this.
    fn ended(&self, why: Closed) -> Cause {
        match why {
            Closed::Violated(..) | Closed::Expired(_) => Cause::Killed,
            Closed::Gone => Cause::Died,
            Closed::Retired => self.cause.get().copied().unwrap_or(Cause::Stopped),
        }
    }
}

/// Why a call got no cell.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// As many calls as there may be are under way or waiting.
    Overloaded,
    /// No cell can be had for this version.
    Unavailable {
        /// Why.
        error: Arc<SandboxError>,
        /// How long starting another is put off.
        retry_after: Duration,
    },
    /// The sandbox is shutting down.
    Closing,
}

impl Refusal {
    /// When it may be worth trying again.
    pub(crate) fn retry_after(&self) -> Duration {
        match self {
            Self::Unavailable { retry_after, .. } => (*retry_after).max(SOON),
            Self::Overloaded | Self::Closing => SOON,
        }
    }
}

/// What the pool is made of.
pub(crate) struct Parts {
    pub(crate) spawn: Box<dyn Spawn>,
    pub(crate) library: Arc<Library>,
    pub(crate) logs: Logs,
    pub(crate) limits: Limits,
    pub(crate) required: Isolation,
    pub(crate) cgroups: Arc<Cgroups>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) random: Arc<dyn Random>,
}

/// All cells.
pub(crate) struct Pool {
    parts: Parts,
    runtime: Handle,
    places: Arc<Places>,
    shares: Arc<Shares>,
    tally: Tally,
    tenants: Mutex<HashMap<TenantId, Weak<Tenant>>>,
    blanks: Mutex<Vec<Blank>>,
    fewer_blanks: Arc<Notify>,
    groups: Mutex<HashMap<FunctionId, Arc<Group>>>,
    closing: AtomicBool,
    calm: Notify,
}

/// What a call must be served by.
pub(crate) struct Want<'a> {
    pub(crate) function: &'a FunctionId,
    pub(crate) version: &'a VersionId,
    pub(crate) component: Digest,
    pub(crate) limits: &'a Arc<FunctionLimits>,
    pub(crate) deployment: &'a Deployment,
}

impl<'a> Want<'a> {
    /// What the operation that was permitted asks for.
    pub(crate) fn of(operation: &'a Invoke, deployment: &'a Deployment) -> Self {
        Self {
            function: &operation.function,
            version: &operation.version,
            component: operation.component,
            limits: &operation.limits,
            deployment,
        }
    }

    fn spec(&self, era: u64) -> Arc<Spec> {
        Arc::new(Spec {
            key: Key { version: self.version.clone(), generation: self.deployment.generation, era },
            component: self.component,
            limits: self.limits.clone(),
            deployment: self.deployment.clone(),
        })
    }
}

enum Next {
    Seated(lease::Seat),
    Wait(oneshot::Receiver<group::Granted>, Queued),
}

impl Pool {
    /// The clock calls are timed by.
    pub(crate) fn clock(&self) -> &dyn Clock {
        &*self.parts.clock
    }

    /// A pool without cells. To be called within the runtime that is to run them.
    pub(crate) fn new(parts: Parts) -> Arc<Self> {
        let cells = parts.limits.cells.max(1);
        let places = Places::new(cells);
        let pool = Arc::new(Self {
            parts,
            runtime: Handle::current(),
            shares: Shares::new(cells),
            tally: Tally::default(),
            tenants: Mutex::default(),
            places,
            blanks: Mutex::default(),
            fewer_blanks: Arc::default(),
            groups: Mutex::default(),
            closing: AtomicBool::new(false),
            calm: Notify::new(),
        });
        pool.runtime.spawn(tend::keep_blanks(Arc::downgrade(&pool)));
        pool.runtime.spawn(tend::tend(Arc::downgrade(&pool)));
        pool
    }

    /// Starts a first blank cell and says how well it is jailed.
    pub(crate) async fn prove(&self) -> Result<Isolation, SandboxError> {
        let blank = self.take_blank().await?;
        let isolation = blank.isolation;
        self.blanks().push(blank);
        Ok(isolation)
    }

    fn groups(&self) -> MutexGuard<'_, HashMap<FunctionId, Arc<Group>>> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn blanks(&self) -> MutexGuard<'_, Vec<Blank>> {
        self.blanks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn group(self: &Arc<Self>, function: &FunctionId) -> Arc<Group> {
        let mut groups = self.groups();
        match groups.get(function) {
            Some(group) => group.clone(),
            None => {
                let group = Group::new(function.clone(), self.tenant(&function.tenant()), Arc::downgrade(self));
                groups.insert(function.clone(), group.clone());
                group
            }
        }
    }

    fn tenant(&self, id: &TenantId) -> Arc<Tenant> {
        let mut tenants = self.tenants.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tenant) = tenants.get(id).and_then(Weak::upgrade) {
            return tenant;
        }
        tenants.retain(|_, tenant| tenant.strong_count() > 0);
        let tenant = Tenant::new(id.clone());
        tenants.insert(id.clone(), Arc::downgrade(&tenant));
        tenant
    }

    /// A place for one call in a cell that fits, waiting for one within bounds.
    pub(crate) async fn acquire(self: &Arc<Self>, want: &Want<'_>) -> Result<Lease, Refusal> {
        if self.closing.load(Ordering::Acquire) {
            return Err(Refusal::Closing);
        }
        let group = self.group(want.function);
        let pass = group.tenant.enter(want.deployment.tenant.concurrency).ok_or(Refusal::Overloaded)?;
        let mut next = Err(Refusal::Overloaded);
        group.change(|state, todo| next = self.decide(&group, state, todo, want));
        let next = next?;
        let ticket = Ticket::new(group, pass);
        match next {
            Next::Seated(seat) => Ok(Lease::new(seat, ticket)),
            Next::Wait(granted, _queued) => {
                let limit = Duration::from_millis(self.parts.limits.queue_ms);
                match tokio::time::timeout(limit, granted).await {
                    Ok(Ok(Ok(seat))) => Ok(Lease::new(seat, ticket)),
                    Ok(Ok(Err(refusal))) => Err(refusal),
                    Ok(Err(_)) => Err(Refusal::Closing),
                    Err(_) => Err(Refusal::Overloaded),
                }
            }
        }
    }

    fn decide(
        &self,
        group: &Arc<Group>,
        state: &mut group::State,
        todo: &mut group::Todo,
        want: &Want<'_>,
    ) -> Result<Next, Refusal> {
        let generation = want.deployment.generation;
        if state.active >= want.limits.concurrency.max(1) {
            return Err(Refusal::Overloaded);
        }
        if generation > state.newest {
            state.newest = generation;
            state.drain(Cause::Changed, |member| member.spec.key.generation < generation);
            state.collect(todo);
        }
        let era = state.era();
        let seat = state.seat(group, want.version, generation, era);
        let troubled = state.troubled(want.version, generation, self.parts.clock.monotonic());
        if let Some(seat) = seat {
            // One look at the least busy cell tells whether the others are worth one.
            if troubled.is_none() && state.is_busy(want.limits) {
                let spec = want.spec(era);
                if state.needs_more(&spec.key, spec.share(), &spec.limits) {
                    state.order(&spec, todo);
                }
            }
            state.active = state.active.saturating_add(1);
            return Ok(Next::Seated(seat));
        }
        if let Some(refusal) = troubled {
            return Err(refusal);
        }
        if state.waiting.len() >= self.parts.limits.queued_calls {
            return Err(Refusal::Overloaded);
        }
        let queued = group.tenant.queue(want.deployment.tenant.queued_calls).ok_or(Refusal::Overloaded)?;
        let (granted, wait) = oneshot::channel();
        let spec = want.spec(era);
        state.waiting.push_back(Waiter { spec: spec.clone(), granted });
        if state.needs_more(&spec.key, spec.share(), &spec.limits) {
            state.order(&spec, todo);
        }
        state.active = state.active.saturating_add(1);
        Ok(Next::Wait(wait, queued))
    }

    /// Has a function's cells finish what they have and go; gives how many were told.
    pub(crate) fn retire(&self, function: &FunctionId, cause: Cause) -> usize {
        let group = self.groups().get(function).cloned();
        group.map_or(0, |group| group.retire(cause))
    }

    /// The same for all functions of a tenant.
    pub(crate) fn retire_tenant(&self, tenant: &TenantId, cause: Cause) -> usize {
        let groups: Vec<Arc<Group>> =
            self.groups().values().filter(|group| group.tenant.id == *tenant).cloned().collect();
        groups.iter().fold(0, |told, group| told.saturating_add(group.retire(cause)))
    }

    /// Wakes whoever waits for the last call.
    fn calmer(&self) {
        if self.closing.load(Ordering::Acquire) {
            self.calm.notify_waiters();
        }
    }

    /// Takes no more calls, lets those under way finish within the drain's limit, then ends every cell.
    pub(crate) async fn shutdown(&self) {
        self.closing.store(true, Ordering::Release);
        let calm = async {
            loop {
                let calmer = self.calm.notified();
                if self.groups().values().all(|group| group.lock().active == 0) {
                    return;
                }
                calmer.await;
            }
        };
        if tokio::time::timeout(Duration::from_millis(self.parts.limits.drain_ms), calm).await.is_err() {
            tracing::warn!("calls were still under way when the cells had to end");
        }
        self.fewer_blanks.notify_one();
        let groups: Vec<Arc<Group>> = self.groups().drain().map(|(_, group)| group).collect();
        for group in groups {
            group.change(|state, todo| {
                state.waiting.clear();
                todo.close.extend(state.members.drain(..).map(|member| member.cell));
                for cell in &todo.close {
                    cell.mark(Cause::Stopped);
                }
            });
        }
        let blanks = std::mem::take(&mut *self.blanks());
        for blank in blanks {
            blank.end().await;
        }
        let start = Duration::from_millis(self.parts.limits.cell_start_ms);
        if tokio::time::timeout(start, self.places.empty()).await.is_err() {
            tracing::error!("some cells have not ended; they are killed with this process");
        }
    }
}

/// Says why a cell ended.
fn report(cell: &Cell, function: &FunctionId, why: Closed, words: &str) {
    let (id, cause) = (&cell.id, cell.ended(why).as_str());
    match why {
        Closed::Violated(call, violation) => {
            tracing::error!(cell = %id, %function, cause, call, %violation, words, "cell broke the protocol, killed");
        }
        Closed::Expired(call) => {
            tracing::warn!(cell = %id, %function, cause, call, words, "cell did not end a call in time and was killed");
        }
        Closed::Gone => tracing::warn!(cell = %id, %function, cause, words, "cell died"),
        Closed::Retired => tracing::info!(cell = %id, %function, cause, words, "cell recycled"),
    }
}
