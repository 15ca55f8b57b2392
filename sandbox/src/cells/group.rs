//! The cells of one function, and the calls that wait for one.
//!
//! Owns which cell a call gets, when another one is needed and when one has to go. Everything is decided under one
//! lock held for moments; what follows from a decision (starting, closing) is done by the caller after it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use cofferdam_model::{Digest, FunctionId, FunctionLimits, Recycle, VersionId};
use tokio::sync::oneshot;

use super::lease::Seat;
use super::tenant::Tenant;
use super::{Cause, Cell, Pool, Refusal};
use crate::config::Deployment;
use crate::error::SandboxError;

/// Calls under way in every cell of a version above which another cell is started, while the limit allows.
const SPREAD_AT: u32 = 4;
/// After a guest was stopped by force its cell goes at once, but not more often than this.
const SOILED_EVERY: Duration = Duration::from_secs(1);
/// Wait after a first failed start; doubles up to the second value.
const TROUBLE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// What a cell must be for a call: version and generation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) version: VersionId,
    pub(super) generation: u64,
}

/// Everything needed to make such a cell.
pub(super) struct Spec {
    pub(super) key: Key,
    pub(super) component: Digest,
    pub(super) limits: Arc<FunctionLimits>,
    pub(super) deployment: Deployment,
}

impl Spec {
    /// Calls one cell takes at once.
    pub(super) fn share(&self) -> u32 {
        self.limits.concurrency.div_ceil(self.limits.cells.max(1)).max(1)
    }
}

/// A cell of the function.
pub(super) struct Member {
    pub(super) cell: Arc<Cell>,
    pub(super) spec: Arc<Spec>,
    pub(super) load: u32,
    pub(super) served: u64,
    pub(super) born: Duration,
    pub(super) lifetime: Duration,
    pub(super) quiet_since: Duration,
    pub(super) soiled: bool,
    /// Memory it held when last looked at, in bytes.
    pub(super) resident: u64,
    /// Calls it had taken by then.
    pub(super) weighed: u64,
    /// Goes as soon as another one is there in its place.
    pub(super) leaving: bool,
    /// Takes no more calls, and goes with the last it has.
    pub(super) draining: bool,
}

/// What age and use ask of a cell.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Stay,
    Replace(Cause),
    Drain(Cause),
}

/// Memory of a cell beside what its guests may hold: its own code, stacks and buffers.
const OVERHEAD: u64 = 64 * 1024 * 1024;

impl Member {
    pub(super) fn verdict(&self, now: Duration, newest: u64) -> Verdict {
        let recycle: &Recycle = &self.spec.deployment.recycle;
        let quiet = now.saturating_sub(self.quiet_since);
        if self.spec.key.generation < newest {
            return Verdict::Drain(Cause::Changed);
        }
        if self.soiled {
            return Verdict::Drain(Cause::Trap);
        }
        if self.load == 0 && quiet >= Duration::from_secs(recycle.idle_seconds) {
            return Verdict::Drain(Cause::Idle);
        }
        let cause = if self.served >= recycle.after_calls.max(1) {
            Cause::Count
        } else if now.saturating_sub(self.born) >= self.lifetime {
            Cause::Age
        } else if self.resident > self.heaviest() {
            Cause::Memory
        } else {
            return Verdict::Stay;
        };
        // A busy function should not have to wait for its next cell; a quiet one does not need it.
        if self.load == 0 && quiet >= Duration::from_secs(1) { Verdict::Drain(cause) } else { Verdict::Replace(cause) }
    }

    /// Bytes a cell may hold between calls. Where nobody said: twice what a call may use, and what it is made of.
    fn heaviest(&self) -> u64 {
        match self.spec.deployment.recycle.memory_bytes {
            0 => self.spec.limits.memory_bytes.saturating_mul(2).saturating_add(OVERHEAD),
            bytes => bytes,
        }
    }

    /// Takes no more calls.
    fn drain(&mut self, cause: Cause) {
        self.cell.mark(cause);
        self.draining = true;
    }

    /// Whether another cell is to be ordered in its place.
    fn carry_out(&mut self, verdict: &Verdict) -> bool {
        match verdict {
            Verdict::Stay => false,
            Verdict::Drain(cause) => {
                self.drain(*cause);
                false
            }
            Verdict::Replace(cause) => {
                self.cell.mark(*cause);
                !self.draining && !std::mem::replace(&mut self.leaving, true)
            }
        }
    }
}

pub(super) type Granted = Result<Seat, Refusal>;

pub(super) struct Waiter {
    pub(super) spec: Arc<Spec>,
    pub(super) granted: oneshot::Sender<Granted>,
}

struct Trouble {
    key: Key,
    times: u32,
    until: Duration,
    error: Arc<SandboxError>,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) members: Vec<Member>,
    /// Keys of the cells on their way.
    pub(super) starting: Vec<Key>,
    pub(super) waiting: VecDeque<Waiter>,
    pub(super) active: u32,
    pub(super) newest: u64,
    /// There was no room for a cell that would only have been good to have; for a moment none is ordered.
    crowded: bool,
    soiled_at: Option<Duration>,
    trouble: Option<Trouble>,
}

/// What has to be done once the lock is released.
#[derive(Default)]
pub(super) struct Todo {
    /// Cells to end.
    pub(super) close: Vec<Arc<Cell>>,
    /// Cells to start.
    pub(super) start: Vec<Arc<Spec>>,
}

/// The cells of one function.
pub(crate) struct Group {
    pub(super) function: FunctionId,
    pub(super) tenant: Arc<Tenant>,
    pub(super) pool: Weak<Pool>,
    state: Mutex<State>,
}

impl Group {
    pub(super) fn new(function: FunctionId, tenant: Arc<Tenant>, pool: Weak<Pool>) -> Arc<Self> {
        Arc::new(Self { function, tenant, pool, state: Mutex::default() })
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Decides under the lock, acts after it.
    pub(super) fn change(self: &Arc<Self>, decide: impl FnOnce(&mut State, &mut Todo)) {
        let mut todo = Todo::default();
        decide(&mut self.lock(), &mut todo);
        self.act(todo);
    }

    pub(super) fn act(self: &Arc<Self>, todo: Todo) {
        for cell in todo.close {
            cell.channel.close(crate::channel::Closed::Retired);
        }
        if let Some(pool) = self.pool.upgrade() {
            todo.start.into_iter().for_each(|spec| pool.start(self, spec));
        }
    }

    /// A call gives its seat back.
    pub(super) fn leave(self: &Arc<Self>, cell: &Arc<Cell>, soiled: bool) {
        let now = cell.clock.monotonic();
        let mut idle = false;
        self.change(|state, todo| {
            if let Some(member) = state.member(cell) {
                member.load = member.load.saturating_sub(1);
                member.quiet_since = now;
                member.soiled |= soiled;
            }
            if soiled && state.soiled_at.is_none_or(|at| now.saturating_sub(at) >= SOILED_EVERY) {
                state.soiled_at = Some(now);
                state.drain(Cause::Trap, |member| member.soiled);
            }
            state.review(cell, now, todo);
            state.serve(self, todo);
            idle = state.member(cell).is_some_and(|member| member.load == 0);
        });
        if idle && let Some(pool) = self.pool.upgrade() {
            pool.make_room();
        }
    }

    /// Has every cell finish what it has and go; gives how many were told.
    pub(super) fn retire(self: &Arc<Self>, cause: Cause) -> usize {
        let mut told = 0;
        self.change(|state, todo| {
            told = state.drain(cause, |_| true);
            state.collect(todo);
        });
        told
    }

    /// A call is over, or gave up waiting.
    pub(super) fn uncount(&self) {
        let mut state = self.lock();
        state.active = state.active.saturating_sub(1);
        drop(state);
        if let Some(pool) = self.pool.upgrade() {
            pool.calmer();
        }
    }
}

impl State {
    fn member(&mut self, cell: &Arc<Cell>) -> Option<&mut Member> {
        self.members.iter_mut().find(|member| Arc::ptr_eq(&member.cell, cell))
    }

    /// The least busy cell for a call, with a seat in it.
    pub(super) fn seat(&mut self, group: &Arc<Group>, version: &VersionId, generation: u64) -> Option<Seat> {
        let member = self
            .members
            .iter_mut()
            .filter(|member| {
                let key = &member.spec.key;
                key.generation == generation
                    && !member.draining
                    && member.load < member.spec.share()
                    && key.version == *version
            })
            .min_by_key(|member| member.load)?;
        member.load = member.load.saturating_add(1);
        member.served = member.served.saturating_add(1);
        Some(Seat::new(group.clone(), member.cell.clone(), member.served))
    }

    /// Whether it is worth asking whether one more cell would be good to have.
    pub(super) fn is_busy(&self, limits: &FunctionLimits) -> bool {
        self.starting.is_empty()
            && self.members.len() < usize::try_from(limits.cells).unwrap_or(usize::MAX)
            && self.members.iter().all(|member| member.load >= SPREAD_AT || member.draining)
    }

    /// Whether one more cell is needed, or would be good to have.
    pub(super) fn needs_more(&self, key: &Key, share: u32, limits: &FunctionLimits) -> bool {
        let live = self.members.iter().filter(|member| member.spec.key == *key && !member.draining);
        let (count, quiet) = live.fold((0usize, false), |(count, quiet), member| {
            (count.saturating_add(1), quiet || member.load < SPREAD_AT)
        });
        let coming = self.starting.iter().filter(|starting| *starting == key).count();
        let most = usize::try_from(limits.cells.max(1)).unwrap_or(usize::MAX);
        if count.saturating_add(coming) >= most || (count > 0 && self.crowded) {
            return false;
        }
        let waiting = self.waiting.iter().filter(|waiter| waiter.spec.key == *key).count();
        let seats = coming.saturating_mul(usize::try_from(share).unwrap_or(usize::MAX));
        waiting > seats || (count > 0 && !quiet && coming == 0)
    }

    /// Orders a cell.
    pub(super) fn order(&mut self, spec: &Arc<Spec>, todo: &mut Todo) {
        self.starting.push(spec.key.clone());
        todo.start.push(spec.clone());
    }

    /// Gives seats to those who wait, first come first served, and orders cells for those who cannot have one.
    pub(super) fn serve(&mut self, group: &Arc<Group>, todo: &mut Todo) {
        let mut left = VecDeque::new();
        for waiter in std::mem::take(&mut self.waiting) {
            if waiter.granted.is_closed() {
                continue;
            }
            let key = &waiter.spec.key;
            match self.seat(group, &key.version, key.generation) {
                None => left.push_back(waiter),
                Some(seat) => {
                    if let Err(Ok(seat)) = waiter.granted.send(Ok(seat)) {
                        let cell = seat.forget();
                        if let Some(member) = self.member(&cell) {
                            member.load = member.load.saturating_sub(1);
                        }
                    }
                }
            }
        }
        self.waiting = left;
        let wanted: Vec<Arc<Spec>> = self.waiting.iter().map(|waiter| waiter.spec.clone()).collect();
        for spec in wanted {
            if self.needs_more(&spec.key, spec.share(), &spec.limits) {
                self.order(&spec, todo);
            }
        }
    }

    /// Has the cells that match take no more calls; gives how many of them still did.
    pub(super) fn drain(&mut self, cause: Cause, which: impl Fn(&Member) -> bool) -> usize {
        let mut told = 0usize;
        for member in self.members.iter_mut().filter(|member| which(member) && !member.draining) {
            member.drain(cause);
            told = told.saturating_add(1);
        }
        told
    }

    /// Has one cell go, if it has no call; whether it goes for this cause alone.
    pub(super) fn dismiss(&mut self, cell: &Arc<Cell>, cause: Cause) -> bool {
        match self.member(cell) {
            Some(member) if member.load == 0 && !member.draining => {
                member.draining = true;
                cell.mark(cause)
            }
            _ => false,
        }
    }

    /// Whether a cell of this kind takes calls.
    pub(super) fn has(&self, key: &Key) -> bool {
        self.members.iter().any(|member| member.spec.key == *key && !member.draining)
    }

    /// Notes what a cell holds.
    pub(super) fn weigh(&mut self, cell: &Arc<Cell>, served: u64, resident: u64) {
        if let Some(member) = self.member(cell) {
            (member.weighed, member.resident) = (served, resident);
        }
    }

    /// Judges one cell, right after a call of it.
    pub(super) fn review(&mut self, cell: &Arc<Cell>, now: Duration, todo: &mut Todo) {
        let newest = self.newest;
        let Some(member) = self.member(cell) else { return };
        // A soiled cell that is not draining yet waits for the next round: traps must not be a way to keep the node
        // busy starting processes.
        if !member.soiled {
            let verdict = member.verdict(now, newest);
            if member.carry_out(&verdict) {
                let spec = member.spec.clone();
                self.order(&spec, todo);
            }
        }
        self.collect(todo);
    }

    /// Judges every cell.
    pub(super) fn review_all(&mut self, now: Duration, todo: &mut Todo) {
        let newest = self.newest;
        self.crowded = false;
        let mut replace = Vec::new();
        for member in &mut self.members {
            let verdict = member.verdict(now, newest);
            if member.carry_out(&verdict) {
                replace.push(member.spec.clone());
            }
        }
        for spec in replace {
            self.order(&spec, todo);
        }
        self.collect(todo);
    }

    /// Takes out the cells that have nothing left to do.
    pub(super) fn collect(&mut self, todo: &mut Todo) {
        self.members.retain(|member| {
            let done = member.draining && member.load == 0;
            if done {
                todo.close.push(member.cell.clone());
            }
            !done
        });
    }

    /// A cell started. Those it was to replace go.
    pub(super) fn admit(&mut self, member: Member) {
        self.started(&member.spec.key);
        if self.trouble.as_ref().is_some_and(|trouble| trouble.key == member.spec.key) {
            self.trouble = None;
        }
        let key = member.spec.key.clone();
        // Why each of them leaves was marked when it began to.
        self.drain(Cause::Changed, |member| member.leaving && member.spec.key == key);
        self.members.push(member);
    }

    fn started(&mut self, key: &Key) {
        if let Some(at) = self.starting.iter().position(|starting| starting == key) {
            self.starting.swap_remove(at);
        }
    }

    /// A cell did not start. Unless another serves or is on its way, those who wait for it are told.
    /// Gives whether those who still wait are worth another look at once.
    pub(super) fn give_up(&mut self, key: &Key, error: SandboxError, now: Duration) -> bool {
        self.started(key);
        let refuse: &dyn Fn() -> Refusal = if matches!(error, SandboxError::Busy { .. }) {
            self.crowded = true;
            // Where there is no room for two, the cell to be replaced goes first; who waits gets the one after it.
            if self.drain(Cause::Changed, |member| member.leaving && member.spec.key == *key) > 0 {
                return true;
            }
            &|| Refusal::Overloaded
        } else {
            for member in self.members.iter_mut().filter(|member| member.spec.key == *key) {
                member.leaving = false;
            }
            let times = match &self.trouble {
                Some(trouble) if trouble.key == *key => trouble.times.saturating_add(1),
                _ => 0,
            };
            let pause = TROUBLE.0.saturating_mul(2u32.saturating_pow(times)).min(TROUBLE.1);
            let error = Arc::new(error);
            let until = now.saturating_add(pause);
            self.trouble = Some(Trouble { key: key.clone(), times, until, error: error.clone() });
            &move || Refusal::Unavailable { error: error.clone(), retry_after: pause }
        };
        if self.has(key) || self.starting.contains(key) {
            return false;
        }
        for waiter in std::mem::take(&mut self.waiting) {
            if waiter.spec.key == *key {
                // One who left does not need to know.
                let _ = waiter.granted.send(Err(refuse()));
            } else {
                self.waiting.push_back(waiter);
            }
        }
        false
    }

    /// Why no cell should be started for this key right now.
    pub(super) fn troubled(&self, version: &VersionId, generation: u64, now: Duration) -> Option<Refusal> {
        let trouble = self.trouble.as_ref()?;
        let same = trouble.key.version == *version && trouble.key.generation == generation;
        (same && now < trouble.until).then(|| Refusal::Unavailable {
            error: trouble.error.clone(),
            retry_after: trouble.until.saturating_sub(now),
        })
    }

    /// Whether there is nothing left to remember.
    pub(super) fn is_empty(&self, now: Duration) -> bool {
        self.members.is_empty()
            && self.starting.is_empty()
            && self.waiting.is_empty()
            && self.active == 0
            && self.trouble.as_ref().is_none_or(|trouble| now >= trouble.until.saturating_add(TROUBLE.1))
    }
}
