//! The cells of one function, and the calls that wait for one.
//!
//! Owns which cell a call gets, when another one is needed and when one has to go. Everything is decided under one
//! lock held for moments; what follows from a decision (starting, closing) is done by the caller after it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use cofferdam_model::{FunctionId, FunctionLimits, VersionId};
use tokio::sync::oneshot;

use super::lease::Seat;
use super::member::{Key, Member, Spec};
use super::tenant::Tenant;
use super::{Cause, Cell, Pool, Refusal};
use crate::error::SandboxError;

/// Calls under way in every cell of a version above which another cell is started, while the limit allows.
const SPREAD_AT: u32 = 4;
/// A cell goes at once after a guest in it was stopped by force, or when it is used up, but not more often than this:
/// neither traps nor small limits may be a way to keep the node busy starting processes.
const SPENT_EVERY: Duration = Duration::from_secs(1);
/// Wait after a first failed start; doubles up to the second value.
const TROUBLE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

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
    /// When a cell last went for what calls did in it.
    spent_at: Option<Duration>,
    /// How often all cells were told to go, and why the last time.
    era: u64,
    retired: Option<Cause>,
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
            if soiled && state.may_spend(now) {
                state.spent_at = Some(now);
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

    /// Has every cell finish what it has and go; gives how many were told. One that is being started may have been
    /// filled with what was true before: it serves those who wait for it already, and goes then.
    pub(super) fn retire(self: &Arc<Self>, cause: Cause) -> usize {
        let mut told = 0;
        self.change(|state, todo| {
            told = state.drain(cause, |_| true);
            (state.era, state.retired) = (state.era.saturating_add(1), Some(cause));
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

    /// What a cell must be for a call that comes now.
    pub(super) fn era(&self) -> u64 {
        self.era
    }

    /// Whether a cell may go for what calls did in it.
    fn may_spend(&self, now: Duration) -> bool {
        self.spent_at.is_none_or(|at| now.saturating_sub(at) >= SPENT_EVERY)
    }

    /// Judges a cell. One that is used up serves on as long as the last such one went less than a moment ago.
    fn judge(&mut self, at: usize, now: Duration) -> Option<Arc<Spec>> {
        let (newest, may_spend) = (self.newest, self.may_spend(now));
        let member = self.members.get_mut(at)?;
        let verdict = member.verdict(now, newest);
        if verdict.is_of_use() && !member.leaving && !member.draining {
            if !may_spend {
                return None;
            }
            self.spent_at = Some(now);
        }
        member.carry_out(&verdict).then(|| member.spec.clone())
    }

    /// Has the cells go that were asked for before all were told to, or before the newest generation: what they were
    /// filled with may hold no more. To be called when those who waited for them have their seats.
    pub(super) fn outdate(&mut self) {
        let (era, newest) = (self.era, self.newest);
        self.drain(Cause::Changed, |member| member.spec.key.generation < newest);
        self.drain(self.retired.unwrap_or(Cause::Changed), |member| member.spec.key.era < era);
    }

    /// The least busy cell for a call, with a seat in it.
    pub(super) fn seat(&mut self, group: &Arc<Group>, version: &VersionId, generation: u64, era: u64) -> Option<Seat> {
        let member = self
            .members
            .iter_mut()
            .filter(|member| {
                let key = &member.spec.key;
                key.generation == generation
                    && key.era == era
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
            match self.seat(group, &key.version, key.generation, key.era) {
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
        let Some(at) = self.members.iter().position(|member| Arc::ptr_eq(&member.cell, cell)) else { return };
        // A soiled cell that is not draining yet waits for the next round.
        if self.members.get(at).is_some_and(|member| !member.soiled)
            && let Some(spec) = self.judge(at, now)
        {
            self.order(&spec, todo);
        }
        self.collect(todo);
    }

    /// Judges every cell.
    pub(super) fn review_all(&mut self, now: Duration, todo: &mut Todo) {
        self.crowded = false;
        for at in 0..self.members.len() {
            if let Some(spec) = self.judge(at, now) {
                self.order(&spec, todo);
            }
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
        if self.trouble.as_ref().is_some_and(|trouble| trouble.key.is_alike(&member.spec.key)) {
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
                Some(trouble) if trouble.key.is_alike(key) => trouble.times.saturating_add(1),
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
