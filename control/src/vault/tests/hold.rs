//! How keys are asked for of a root key elsewhere: once by all, a few at once, and not again right after it failed.

use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::{Condvar, Mutex};

use super::*;

/// A root key that counts what it is asked, and can be out of reach or give another key.
struct Elsewhere {
    inner: LocalRoot,
    asked: AtomicUsize,
    away: AtomicBool,
    lies: AtomicBool,
    /// Whether answers have to wait.
    shut: Mutex<bool>,
    opened: Condvar,
    /// Askings for keys under way, and the most there were.
    under_way: AtomicUsize,
    most: AtomicUsize,
}

impl Elsewhere {
    fn new() -> Arc<Self> {
        let inner = LocalRoot::of(&key(0), Arc::new(OrdinaryMemory), Arc::new(SeededRandom::new(1))).unwrap();
        let (away, lies) = (AtomicBool::new(false), AtomicBool::new(false));
        let [asked, under_way, most] = std::array::from_fn(|_| AtomicUsize::new(0));
        Arc::new(Self { inner, asked, away, lies, shut: Mutex::default(), opened: Condvar::new(), under_way, most })
    }

    /// Has answers wait, or lets them go on.
    fn shut(&self, shut: bool) {
        *self.shut.lock().unwrap() = shut;
        self.opened.notify_all();
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    fn ask(&self) -> Result<(), RootError> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        if self.away.load(Ordering::Relaxed) { Err(RootError::Unavailable("gone fishing".into())) } else { Ok(()) }
    }
}

impl RootKey for Elsewhere {
    fn describe(&self) -> String {
        self.inner.describe()
    }
    fn knows(&self, root: &str) -> bool {
        self.inner.knows(root)
    }
    fn check(&self) -> Result<(), RootError> {
        self.ask()
    }
    fn wrap(&self, context: &WrapContext<'_>, key: &KeyBytes) -> Result<Wrapped, RootError> {
        self.ask()?;
        self.inner.wrap(context, key)
    }
    fn unwrap(&self, context: &WrapContext<'_>, wrapped: &Wrapped) -> Result<KeyBytes, RootError> {
        self.most.fetch_max(self.under_way.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        let asked = self.ask();
        drop(self.opened.wait_while(self.shut.lock().unwrap(), |shut| *shut).unwrap());
        self.under_way.fetch_sub(1, Ordering::SeqCst);
        asked?;
        let opened = self.inner.unwrap(context, wrapped)?;
        Ok(if self.lies.load(Ordering::Relaxed) { key(9) } else { opened })
    }
    fn rewrap(&self, context: &WrapContext<'_>, wrapped: &Wrapped) -> Result<Option<Wrapped>, RootError> {
        self.inner.rewrap(context, wrapped)
    }
    fn begin_rotation(&self) -> Result<(), RootError> {
        self.inner.begin_rotation()
    }
    fn is_current(&self, root: &str) -> bool {
        self.inner.is_current(root)
    }
    fn rotating(&self) -> bool {
        false
    }
    fn end_rotation(&self, destroy: bool) -> Result<(), RootError> {
        self.inner.end_rotation(destroy)
    }
}

#[test]
fn tenant_keys_are_held_for_a_time_and_then_asked_for_again() {
    let (root, clock) = (Elsewhere::new(), clock());
    let world = World::on(Vault::new(root.clone(), Arc::new(OrdinaryMemory), clock.clone(), KEEP));
    let sealed = world.sealed();
    for _ in 0..10 {
        world.opened(&sealed).unwrap();
    }
    assert_eq!(root.asked.load(Ordering::Relaxed), 1, "only when it was made");
    clock.advance(KEEP);
    assert_eq!(world.vault.forget(None), 0);
    world.opened(&sealed).unwrap();
    assert_eq!(root.asked.load(Ordering::Relaxed), 2);
    assert_eq!(world.vault.forget(Some(&world.tenant)), 0, "or at once");
}

#[test]
fn root_key_out_of_reach_is_said_so_and_not_asked_by_everyone() {
    let (root, clock) = (Elsewhere::new(), clock());
    let world = World::on(Vault::new(root.clone(), Arc::new(OrdinaryMemory), clock.clone(), KEEP));
    let sealed = world.sealed();
    world.vault.forget(Some(&world.tenant));
    root.away.store(true, Ordering::Relaxed);
    for _ in 0..10 {
        assert!(world.opened(&sealed).unwrap_err().is_root_unavailable());
    }
    assert_eq!(root.asked.load(Ordering::Relaxed), 2, "once by all of them");
    assert!(world.vault.trouble().is_some());
    root.away.store(false, Ordering::Relaxed);
    world.vault.check().unwrap();
    assert!(world.vault.trouble().is_none());
    world.opened(&sealed).unwrap();
}

#[test]
fn another_key_than_the_tenants_is_found_out() {
    let root = Elsewhere::new();
    let world = World::on(Vault::new(root.clone(), Arc::new(OrdinaryMemory), clock(), KEEP));
    let sealed = world.sealed();
    world.vault.forget(Some(&world.tenant));
    root.lies.store(true, Ordering::Relaxed);
    assert_eq!(world.opened(&sealed).unwrap_err(), VaultError::WrongKey);
}

/// A vault on a root key that can be held up, with one sealed value.
fn held_up() -> (Arc<Elsewhere>, Arc<ManualClock>, Arc<World>, SealedValue) {
    let (root, clock) = (Elsewhere::new(), clock());
    let world = World::on(Vault::new(root.clone(), Arc::new(OrdinaryMemory), clock.clone(), KEEP));
    let sealed = world.sealed();
    world.vault.forget(Some(&world.tenant));
    root.asked.store(0, Ordering::SeqCst);
    (root, clock, Arc::new(world), sealed)
}

/// Opens a value as a call does.
async fn opens(world: Arc<World>, sealed: SealedValue) -> Result<Zeroizing<Vec<u8>>, VaultError> {
    world.vault.open_when_had(&world.keys, world.place(), &sealed).await
}

#[tokio::test]
async fn calls_that_want_one_key_ask_once_and_hold_no_thread_meanwhile() {
    let (root, _, world, sealed) = held_up();
    root.shut(true);
    let calls: Vec<_> = (0..32).map(|_| tokio::spawn(opens(world.clone(), sealed.clone()))).collect();
    // This runtime has one thread: if a call held it, nobody would come by here.
    while world.vault.gauges().awaited == 0 || root.asked() == 0 {
        tokio::task::yield_now().await;
    }
    assert!(calls.iter().all(|call| !call.is_finished()));
    root.shut(false);
    for call in calls {
        assert_eq!(call.await.unwrap().unwrap().as_slice(), b"s3cret");
    }
    assert_eq!(root.asked(), 1);
    let gauges = world.vault.gauges();
    assert_eq!((gauges.held, gauges.awaited, gauges.asked[0]), (1, 0, ("given", 1)));
}

#[tokio::test]
async fn keys_are_asked_for_a_few_at_once_and_no_more_wait_than_may() {
    let (root, _, world, _) = held_up();
    let random = SeededRandom::new(6);
    let tenants: Vec<_> = (0..300).map(|_| TenantId::mint(&random)).collect();
    let keys: Vec<_> = tenants.iter().map(|tenant| world.vault.tenant_key(tenant, 1, &random).unwrap()).collect();
    for tenant in &tenants {
        world.vault.forget(Some(tenant));
    }
    root.shut(true);
    let each = tenants.into_iter().zip(keys).map(|(tenant, key)| {
        let world = world.clone();
        tokio::spawn(async move { world.vault.at_hand(&tenant, &[key], &[1]).await })
    });
    let calls: Vec<_> = each.collect();
    while root.under_way.load(Ordering::SeqCst) < 8 || calls.iter().filter(|call| call.is_finished()).count() < 36 {
        tokio::task::yield_now().await;
    }
    root.shut(false);
    let mut ended = [0, 0];
    for call in calls {
        match call.await.unwrap() {
            Ok(()) => ended[0] += 1,
            Err(error) => ended[usize::from(error.is_root_unavailable())] += 1,
        }
    }
    assert_eq!(ended, [264, 36], "8 at once and 256 in line");
    assert_eq!((root.most.load(Ordering::SeqCst), world.vault.gauges().spared), (8, 36));
    assert!(world.vault.trouble().is_none(), "a long line is no trouble with the root key");
}

#[tokio::test]
async fn outage_is_told_at_once_and_over_when_the_root_key_is_back() {
    let (root, clock, world, sealed) = held_up();
    root.away.store(true, Ordering::SeqCst);
    for _ in 0..32 {
        assert!(opens(world.clone(), sealed.clone()).await.unwrap_err().is_root_unavailable());
    }
    assert_eq!((root.asked(), world.vault.gauges().spared), (1, 31));
    assert!(!world.vault.gauges().reachable);
    // After a pause one call asks for all of them, and those beside it are told at once.
    clock.advance(Duration::from_secs(2));
    root.shut(true);
    let first = tokio::spawn(opens(world.clone(), sealed.clone()));
    while root.asked() < 2 {
        tokio::task::yield_now().await;
    }
    let other = TenantId::mint(&SeededRandom::new(77));
    let key = WrappedKey { version: 1, ..world.keys[0].clone() };
    assert!(world.vault.at_hand(&other, &[key], &[1]).await.unwrap_err().is_root_unavailable());
    root.shut(false);
    assert!(first.await.unwrap().is_err());
    root.away.store(false, Ordering::SeqCst);
    clock.advance(Duration::from_secs(2));
    assert_eq!(opens(world.clone(), sealed).await.unwrap().as_slice(), b"s3cret");
    assert!(world.vault.gauges().reachable);
}

#[tokio::test]
async fn key_that_does_not_open_is_not_asked_for_by_everyone() {
    let (root, clock, world, sealed) = held_up();
    root.lies.store(true, Ordering::SeqCst);
    for _ in 0..10 {
        assert_eq!(opens(world.clone(), sealed.clone()).await.unwrap_err(), VaultError::WrongKey);
    }
    assert_eq!(root.asked(), 1);
    clock.advance(Duration::from_secs(2));
    root.lies.store(false, Ordering::SeqCst);
    assert!(opens(world.clone(), sealed).await.is_ok());
}
