//! Has tenant keys at hand: unwrapped once for all who want one, by threads of its own where a network is between.
//!
//! Owns how a root key is asked: one asking per tenant key at a time, a few at once, no more than a bounded number in
//! line, and not again right after it failed. Must never have a call's thread wait for a network.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use cofferdam_model::{Clock, TenantId};

use super::crypto;
use super::envelope::WrappedKey;
use super::memory::{KeyMemory, Keys, Unwrapped};
use super::root::{RootError, RootKey, WrapContext};
use crate::error::VaultError;
use crate::keyfile::KeyBytes;

/// How long a root key that could not be reached, or a key that could not be opened, is not asked for again by calls.
const PAUSE: Duration = Duration::from_secs(2);
/// Tenant keys that are asked for at once: so many threads there are at most, and none while nothing is asked.
const AT_ONCE: usize = 8;
/// Tenant keys that wait to be asked for. Who wants one more is told at once that it cannot be had.
const IN_LINE: usize = 256;
/// Keys remembered as not to be opened.
const FAILED: usize = 1024;

/// Which key of whom.
type Name = (TenantId, u32);

/// How it stands with the keys, in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyGauges {
    /// Whether secrets can be opened, as far as is known.
    pub reachable: bool,
    /// Tenant keys that are unwrapped.
    pub held: u64,
    /// Tenant keys that are being asked for or wait for that.
    pub awaited: u64,
    /// Askings for tenant keys by how they ended.
    pub asked: [(&'static str, u64); 3],
    /// Who wanted a key that could not be had and was told so without asking.
    pub spared: u64,
}

#[derive(Default)]
struct Counts {
    given: AtomicU64,
    unavailable: AtomicU64,
    failed: AtomicU64,
    spared: AtomicU64,
}

/// One asking for one key, whoever waits for it.
pub(super) struct Flight {
    name: Name,
    key: WrappedKey,
    state: Mutex<State>,
    landed: Condvar,
}

enum State {
    Under(Vec<Waker>),
    Over(Result<Arc<Unwrapped>, VaultError>),
}

/// What is under way, what waits, and what failed a moment ago.
#[derive(Default)]
struct Desk {
    flights: HashMap<Name, Arc<Flight>>,
    line: VecDeque<Arc<Flight>>,
    threads: usize,
    failed: HashMap<Name, (WrappedKey, VaultError, Duration)>,
}

/// Why the root key could not be reached, and when it was last asked by a call.
struct Trouble {
    error: RootError,
    asked: Duration,
}

/// A key, or the flight that brings it.
enum Taken {
    Held(Arc<Unwrapped>),
    Awaited(Arc<Flight>),
}

/// The keys, and who asks for them.
pub(super) struct Hold {
    pub(super) root: Arc<dyn RootKey>,
    /// Root keys of other providers that were in use before.
    before: Vec<Arc<dyn RootKey>>,
    pub(super) memory: Arc<dyn KeyMemory>,
    pub(super) keys: Keys,
    clock: Arc<dyn Clock>,
    trouble: Mutex<Option<Trouble>>,
    desk: Mutex<Desk>,
    counts: Counts,
}

impl Hold {
    pub(super) fn new(
        root: Arc<dyn RootKey>,
        before: Vec<Arc<dyn RootKey>>,
        memory: Arc<dyn KeyMemory>,
        clock: Arc<dyn Clock>,
        keep: Duration,
    ) -> Self {
        let keys = Keys::new(clock.clone(), keep);
        let (trouble, desk, counts) = (Mutex::default(), Mutex::default(), Counts::default());
        Self { root, before, memory, keys, clock, trouble, desk, counts }
    }

    /// The same with root keys of before, and nothing at hand yet.
    pub(super) fn with_before(&self, before: Vec<Arc<dyn RootKey>>) -> Self {
        let (root, memory, clock) = (self.root.clone(), self.memory.clone(), self.clock.clone());
        Self::new(root, before, memory, clock, self.keys.keep())
    }

    /// A key, for who may wait for it on a thread: management, and the start of a cell where its key was let go of
    /// between two looks. It waits as long as its provider may take.
    pub(super) fn wait(self: &Arc<Self>, tenant: &TenantId, key: &WrappedKey) -> Result<Arc<Unwrapped>, VaultError> {
        match self.take(tenant, key)? {
            Taken::Held(held) => Ok(held),
            Taken::Awaited(flight) => flight.wait(),
        }
    }

    /// A key, without a thread while it is waited for.
    pub(super) async fn had(
        self: &Arc<Self>,
        tenant: &TenantId,
        key: &WrappedKey,
    ) -> Result<Arc<Unwrapped>, VaultError> {
        match self.take(tenant, key)? {
            Taken::Held(held) => Ok(held),
            Taken::Awaited(flight) => Landing(flight).await,
        }
    }

    fn take(self: &Arc<Self>, tenant: &TenantId, key: &WrappedKey) -> Result<Taken, VaultError> {
        if let Some(held) = self.keys.get(tenant, key) {
            return Ok(Taken::Held(held));
        }
        let (root, is_current) = self.root_of(key)?;
        if !root.is_elsewhere() {
            return self.unwrap(tenant, key).map(Taken::Held);
        }
        let name = (tenant.clone(), key.version);
        let mut desk = self.desk();
        if let Some(flight) = desk.flights.get(&name).filter(|flight| flight.key == *key) {
            return Ok(Taken::Awaited(flight.clone()));
        }
        // Whoever brought it since the look above has put it there before he left the desk.
        if let Some(held) = self.keys.get(tenant, key) {
            return Ok(Taken::Held(held));
        }
        if let Err(error) = self.may_ask(&mut desk, &name, key, is_current) {
            self.counts.spared.fetch_add(1, Ordering::Relaxed);
            return Err(error);
        }
        let begins = desk.threads < AT_ONCE;
        if !begins && desk.line.len() >= IN_LINE {
            self.counts.spared.fetch_add(1, Ordering::Relaxed);
            return Err(RootError::Unavailable("too many tenants' keys are asked for at once".into()).into());
        }
        let flight = Flight::new(&name, key);
        desk.flights.insert(name, flight.clone());
        if begins {
            desk.threads += 1;
            drop(desk);
            let turn = Turn { hold: self.clone(), flight: Some(flight.clone()) };
            // Where there is no thread to be had, the turn ends here, and with it the flight.
            let spawned = std::thread::Builder::new().name("tenant-key".into()).spawn(move || turn.work());
            drop(spawned);
        } else {
            desk.line.push_back(flight.clone());
        }
        Ok(Taken::Awaited(flight))
    }

    /// Not right after it failed: who wants the key then is told at once. When the pause is over, one asks for all.
    fn may_ask(&self, desk: &mut Desk, name: &Name, key: &WrappedKey, is_current: bool) -> Result<(), VaultError> {
        let now = self.clock.monotonic();
        if let Some((of, error, until)) = desk.failed.get(name)
            && of == key
            && now < *until
        {
            return Err(error.clone());
        }
        let mut trouble = lock(&self.trouble);
        match trouble.as_mut().filter(|_| is_current) {
            Some(trouble) if now.saturating_sub(trouble.asked) < PAUSE => Err(trouble.error.clone().into()),
            Some(trouble) => {
                trouble.asked = now;
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Whether it went out of reach while somebody stood in line.
    fn still_in_trouble(&self, flight: &Flight) -> Option<VaultError> {
        let (_, is_current) = self.root_of(&flight.key).ok()?;
        let now = self.clock.monotonic();
        let trouble = lock(&self.trouble);
        let recent = trouble.as_ref().filter(|trouble| is_current && now.saturating_sub(trouble.asked) < PAUSE)?;
        Some(recent.error.clone().into())
    }

    fn root_of(&self, key: &WrappedKey) -> Result<(&Arc<dyn RootKey>, bool), VaultError> {
        let known = |root: &&Arc<dyn RootKey>| root.knows(&key.wrapped.root);
        if let Some(root) = Some(&self.root).filter(known) {
            return Ok((root, true));
        }
        let before = self.before.iter().find(known);
        Ok((before.ok_or_else(|| VaultError::UnknownRoot(key.wrapped.root.clone()))?, false))
    }

    /// Asks for a key and keeps it.
    fn unwrap(&self, tenant: &TenantId, key: &WrappedKey) -> Result<Arc<Unwrapped>, VaultError> {
        let open = self.unwrap_key(tenant, key)?;
        let held = Arc::new(Unwrapped::new(&*self.memory, crypto::key_id(&open)?, &open));
        self.keys.put(tenant, key, held.clone());
        Ok(held)
    }

    /// Asks for a key itself. May wait for a network.
    pub(super) fn unwrap_key(&self, tenant: &TenantId, key: &WrappedKey) -> Result<KeyBytes, VaultError> {
        let context = WrapContext { tenant, version: key.version, id: key.id.as_ref().unwrap_or(&[0; 32]) };
        let (root, is_current) = self.root_of(key)?;
        let answer = root.unwrap(&context, &key.wrapped);
        let open = if is_current { self.note(answer)? } else { answer? };
        // A provider that gives another key, or one that was put in the place of this, is found out here.
        if key.id.is_some_and(|id| !crypto::key_id(&open).is_ok_and(|found| crypto::same(&id, &found))) {
            return Err(VaultError::WrongKey);
        }
        Ok(open)
    }

    /// Remembers whether the root key could be reached.
    pub(super) fn note<T>(&self, answer: Result<T, RootError>) -> Result<T, RootError> {
        let trouble = match &answer {
            Err(error @ (RootError::Unavailable(_) | RootError::Refused(_))) => {
                Some(Trouble { error: error.clone(), asked: self.clock.monotonic() })
            }
            _ => None,
        };
        *lock(&self.trouble) = trouble;
        answer
    }

    /// Why secrets cannot be opened at the moment, where that is known to be so.
    pub(super) fn trouble(&self) -> Option<RootError> {
        lock(&self.trouble).as_ref().map(|trouble| trouble.error.clone())
    }

    pub(super) fn gauges(&self) -> KeyGauges {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let Counts { given, unavailable, failed, spared } = &self.counts;
        KeyGauges {
            reachable: lock(&self.trouble).is_none(),
            held: self.keys.len() as u64,
            awaited: self.desk().flights.len() as u64,
            asked: [("given", count(given)), ("unavailable", count(unavailable)), ("failed", count(failed))],
            spared: count(spared),
        }
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        lock(&self.desk)
    }

    /// Ends a flight, whatever came of it, and lets those who waited go on.
    fn land(&self, flight: &Flight, came: Result<Arc<Unwrapped>, VaultError>) {
        let counter = match &came {
            Ok(_) => &self.counts.given,
            Err(error) if error.is_root_unavailable() => &self.counts.unavailable,
            Err(_) => &self.counts.failed,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        let is_current = self.root_of(&flight.key).is_ok_and(|(_, is_current)| is_current);
        let now = self.clock.monotonic();
        let mut desk = self.desk();
        // Its place may have been taken by a flight for the same key as it is wrapped by now.
        if desk.flights.get(&flight.name).is_some_and(|under| std::ptr::eq(&**under, flight)) {
            desk.flights.remove(&flight.name);
        }
        match &came {
            Ok(_) => drop(desk.failed.remove(&flight.name)),
            // That the root key cannot be reached is known of it, not of each key.
            Err(error) if !(is_current && error.is_root_unavailable()) => {
                desk.failed.retain(|_, (_, _, until)| now < *until);
                if desk.failed.len() < FAILED {
                    let until = now.saturating_add(PAUSE);
                    desk.failed.insert(flight.name.clone(), (flight.key.clone(), error.clone(), until));
                }
            }
            Err(_) => {}
        }
        drop(desk);
        let before = std::mem::replace(&mut *lock(&flight.state), State::Over(came));
        flight.landed.notify_all();
        if let State::Under(wakers) = before {
            wakers.into_iter().for_each(Waker::wake);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Flight {
    fn new(name: &Name, key: &WrappedKey) -> Arc<Self> {
        let (name, key, state) = (name.clone(), key.clone(), Mutex::new(State::Under(Vec::new())));
        Arc::new(Self { name, key, state, landed: Condvar::new() })
    }

    fn wait(&self) -> Result<Arc<Unwrapped>, VaultError> {
        let mut state = lock(&self.state);
        loop {
            match &*state {
                State::Over(came) => return came.clone(),
                State::Under(_) => state = self.landed.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }
}

/// Waits for a flight to land.
struct Landing(Arc<Flight>);

impl Future for Landing {
    type Output = Result<Arc<Unwrapped>, VaultError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut *lock(&self.0.state) {
            State::Over(came) => Poll::Ready(came.clone()),
            State::Under(wakers) => {
                if !wakers.iter().any(|waker| waker.will_wake(context.waker())) {
                    wakers.push(context.waker().clone());
                }
                Poll::Pending
            }
        }
    }
}

/// A thread's turn at asking: as long as there is somebody in line. However it ends, nobody is left waiting.
struct Turn {
    hold: Arc<Hold>,
    flight: Option<Arc<Flight>>,
}

impl Turn {
    fn work(mut self) {
        let mut first = true;
        while let Some(flight) = self.flight.clone() {
            let known = if first { None } else { self.hold.still_in_trouble(&flight) };
            let came = match known {
                Some(error) => Err(error),
                None => self.hold.unwrap(&flight.name.0, &flight.key),
            };
            first = false;
            self.hold.land(&flight, came);
            let mut desk = self.hold.desk();
            self.flight = desk.line.pop_front();
            if self.flight.is_none() {
                // Seen together with the empty line: who comes now begins a thread of his own.
                desk.threads = desk.threads.saturating_sub(1);
            }
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let Some(broken) = self.flight.take() else { return };
        let mut desk = self.hold.desk();
        desk.threads = desk.threads.saturating_sub(1);
        // Those in line may have nobody else to ask for them.
        let left: Vec<_> = std::iter::once(broken).chain(desk.line.drain(..)).collect();
        drop(desk);
        for flight in left {
            self.hold.land(&flight, Err(RootError::Unavailable("the asking broke off".into()).into()));
        }
    }
}
