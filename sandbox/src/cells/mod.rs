//! The cells of the node: a few blank ones waiting, and those that became some function's.
//!
//! Owns how many processes there are, which call gets which, and when each ends. Must never give a cell that served
//! one function version to another, nor a call to a cell below the isolation required.

mod group;
mod lease;
mod place;
mod start;
mod tend;

#[cfg(test)]
pub(crate) mod tests;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cofferdam_model::{
    CellId, Clock, Digest, FunctionId, FunctionLimits, Invoke, Isolation, Limits, Random, VersionId,
};
use tokio::runtime::Handle;
use tokio::sync::{Notify, oneshot};

use crate::cell::{Blank, Spawn};
use crate::channel::{Channel, Closed};
use crate::config::Deployment;
use crate::error::SandboxError;
use crate::library::Library;
use crate::logs::Logs;
use group::{Group, Spec, Waiter};
pub(crate) use lease::Lease;
use lease::Ticket;
pub(crate) use place::{Place, Places};

/// When a call refused for want of room may be worth another try.
const SOON: Duration = Duration::from_secs(1);

/// A cell that serves.
pub(crate) struct Cell {
    pub(crate) id: CellId,
    pub(crate) isolation: Isolation,
    pub(crate) channel: Arc<Channel>,
    clock: Arc<dyn Clock>,
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

/// What is known of one cell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CellInfo {
    /// Which.
    pub id: CellId,
    /// Function version it serves; none while it is blank.
    pub version: Option<VersionId>,
    /// Generation of the deployment it serves; 0 while it is blank.
    pub generation: u64,
    /// Calls under way.
    pub calls: u32,
    /// Calls taken in all.
    pub served: u64,
    /// Time since it was given its version.
    pub age: Duration,
    /// How well it is jailed.
    pub isolation: Isolation,
    /// Whether it only finishes what it has.
    pub draining: bool,
}

/// What the pool is made of.
pub(crate) struct Parts {
    pub(crate) spawn: Box<dyn Spawn>,
    pub(crate) library: Arc<Library>,
    pub(crate) logs: Logs,
    pub(crate) limits: Limits,
    pub(crate) required: Isolation,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) random: Arc<dyn Random>,
}

/// All cells.
pub(crate) struct Pool {
    parts: Parts,
    runtime: Handle,
    places: Arc<Places>,
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

    fn spec(&self) -> Arc<Spec> {
        Arc::new(Spec {
            key: group::Key { version: self.version.clone(), generation: self.deployment.generation },
            component: self.component,
            limits: self.limits.clone(),
            deployment: self.deployment.clone(),
        })
    }
}

enum Next {
    Seated(lease::Seat),
    Wait(oneshot::Receiver<group::Granted>),
}

impl Pool {
    /// A pool without cells. To be called within the runtime that is to run them.
    pub(crate) fn new(parts: Parts) -> Arc<Self> {
        let places = Places::new(parts.limits.cells.max(1));
        let pool = Arc::new(Self {
            parts,
            runtime: Handle::current(),
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
                let group = Group::new(function.clone(), Arc::downgrade(self));
                groups.insert(function.clone(), group.clone());
                group
            }
        }
    }

    /// A place for one call in a cell that fits, waiting for one within bounds.
    pub(crate) async fn acquire(self: &Arc<Self>, want: &Want<'_>) -> Result<Lease, Refusal> {
        if self.closing.load(Ordering::Acquire) {
            return Err(Refusal::Closing);
        }
        let group = self.group(want.function);
        let mut next = Err(Refusal::Overloaded);
        group.change(|state, todo| next = self.decide(&group, state, todo, want));
        let next = next?;
        let ticket = Ticket::new(group);
        match next {
            Next::Seated(seat) => Ok(Lease::new(seat, ticket)),
            Next::Wait(granted) => {
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
            state.drain(|member| member.spec.key.generation < generation);
            state.collect(todo);
        }
        let seat = state.seat(group, want.version, generation);
        let troubled = state.troubled(want.version, generation, self.parts.clock.monotonic());
        if let Some(seat) = seat {
            // One look at the least busy cell tells whether the others are worth one.
            if troubled.is_none() && state.is_busy(want.limits) {
                let spec = want.spec();
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
        let (granted, wait) = oneshot::channel();
        let spec = want.spec();
        state.waiting.push_back(Waiter { spec: spec.clone(), granted });
        if state.needs_more(&spec.key, spec.share(), &spec.limits) {
            state.order(&spec, todo);
        }
        state.active = state.active.saturating_add(1);
        Ok(Next::Wait(wait))
    }

    /// Has a function's cells finish what they have and go.
    pub(crate) fn retire(&self, function: &FunctionId) {
        let group = self.groups().get(function).cloned();
        if let Some(group) = group {
            group.change(|state, todo| {
                state.drain(|_| true);
                state.collect(todo);
            });
        }
    }

    /// Every cell there is.
    pub(crate) fn cells(&self) -> Vec<CellInfo> {
        let now = self.parts.clock.monotonic();
        let groups: Vec<Arc<Group>> = self.groups().values().cloned().collect();
        let blank = |blank: &Blank| CellInfo {
            id: blank.id.clone(),
            version: None,
            generation: 0,
            calls: 0,
            served: 0,
            age: Duration::ZERO,
            isolation: blank.isolation,
            draining: false,
        };
        let mut cells: Vec<CellInfo> = self.blanks().iter().map(blank).collect();
        for group in groups {
            cells.extend(group.lock().members.iter().map(|member| CellInfo {
                id: member.cell.id.clone(),
                version: Some(member.spec.key.version.clone()),
                generation: member.spec.key.generation,
                calls: member.load,
                served: member.served,
                age: now.saturating_sub(member.born),
                isolation: member.cell.isolation,
                draining: member.draining,
            }));
        }
        cells
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

/// Whether a cell is jailed as well as it must be.
pub(crate) fn reaches(reached: Isolation, required: Isolation) -> bool {
    let rank = |isolation| Isolation::ALL.iter().position(|each| *each == isolation);
    rank(reached) <= rank(required)
}

/// Says why a cell ended, where somebody should know.
fn report(cell: &Cell, function: &FunctionId, why: Closed, words: &str) {
    let id = &cell.id;
    match why {
        Closed::Violated(call, violation) => {
            tracing::error!(cell = %id, %function, call, %violation, words, "cell broke the protocol and was killed");
        }
        Closed::Expired(call) => {
            tracing::warn!(cell = %id, %function, call, words, "cell did not end a call in time and was killed");
        }
        Closed::Gone => tracing::warn!(cell = %id, %function, words, "cell died"),
        Closed::Retired => tracing::debug!(cell = %id, %function, words, "cell retired"),
    }
}
