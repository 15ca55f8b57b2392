//! An issuer's keys over time: had, aging, replaced, out of reach.
//!
//! Owns when a key set is asked for anew: in the background before its age, on use after it, and when a token names a
//! key it does not hold; one request at a time, on a budget. Must never let a stranger's tokens decide how often an
//! issuer is asked, and never call a token bad because the keys to judge it could not be had.

use std::collections::HashMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use cofferdam_model::Clock;
use tokio::sync::OwnedMutexGuard;
use tokio::task::JoinHandle;
use zeroize::Zeroizing;

use super::config::{Algorithm, IssuerConfig};
use super::counts::{Counts, Missing};
use super::jwk::{self, JWKS_BYTES, Key};
use super::kept::Shelf;
use super::{JwksSource, discovery};
use crate::error::{FetchError, IdentityError, IssuerError, Refusal};

/// Bytes of a shared secret: HS256 wants as many as its hash has, and nobody needs more than the upper bound.
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 32..=1024;
/// A request for a key set longer than this has failed, whatever its source thinks.
const FETCH: Duration = Duration::from_secs(10);
/// After a failure the source is left alone this long.
const BACK_OFF: Duration = Duration::from_secs(5);
/// A key the issuer was found not to have is not asked for again this long.
const MISS: Duration = Duration::from_secs(30);
/// Misses remembered; past it all are forgotten: the budget still holds.
const MISSES: usize = 256;
/// Unknown keys may cause this many requests at once, and one more every `REFILL`.
const BUDGET: u32 = 5;
const REFILL: Duration = Duration::from_secs(10);

/// What keys are had with.
pub(super) struct Means<'a> {
    pub(super) source: &'a Arc<dyn JwksSource>,
    pub(super) clock: &'a Arc<dyn Clock>,
    /// Where the last good sets are kept, if they are.
    pub(super) kept: Option<&'a Path>,
    pub(super) counts: &'a Arc<Counts>,
}

/// How it stands with the keys of an issuer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// Had, and not older than they should be.
    Fresh,
    /// Had, older than they should be, and still believed.
    Stale,
    /// Not there, or too old to be believed.
    Absent,
}

#[derive(Clone)]
pub(super) struct Keys(Arc<Inner>);

struct Inner {
    issuer: Arc<str>,
    origin: Origin,
    wanted: Vec<Algorithm>,
    max_age: Duration,
    max_stale: Duration,
    clock: Arc<dyn Clock>,
    counts: Arc<Counts>,
    shelf: Option<Shelf>,
    current: ArcSwapOption<KeySet>,
    misses: Mutex<HashMap<String, Duration>>,
    /// Requests that came to an end, well or not.
    attempts: AtomicU64,
    /// Held by who asks the issuer.
    turn: Arc<tokio::sync::Mutex<Turn>>,
}

enum Origin {
    Shared(Arc<Key>),
    /// The node's own, given by whoever makes them.
    Held,
    File(PathBuf),
    Url(String, Arc<dyn JwksSource>),
    /// Behind the discovery document at this address.
    Discovered(String, Arc<dyn JwksSource>),
}

struct KeySet {
    keys: HashMap<String, Arc<Key>>,
    taken: Duration,
    /// How old it was by then: one that was kept on disk does not begin anew.
    before: Duration,
}

impl KeySet {
    fn age(&self, now: Duration) -> Duration {
        now.saturating_sub(self.taken).saturating_add(self.before)
    }
}

/// What the next one to ask must know.
struct Turn {
    failed: Option<Duration>,
    tokens: u32,
    refilled: Duration,
}

impl Turn {
    fn backs_off(&self, now: Duration) -> bool {
        self.failed.is_some_and(|at| now.saturating_sub(at) < BACK_OFF)
    }

    fn spend(&mut self, now: Duration) -> bool {
        let due = now.saturating_sub(self.refilled).as_secs() / REFILL.as_secs();
        if due > 0 {
            self.tokens = self.tokens.saturating_add(u32::try_from(due).unwrap_or(BUDGET)).min(BUDGET);
            self.refilled = now;
        }
        let left = self.tokens.checked_sub(1);
        self.tokens = left.unwrap_or(0);
        left.is_some()
    }
}

impl Keys {
    /// The keys an issuer declared. Files are read now; what is behind a URL when it is first needed, or before that
    /// in the background. Until then what was kept on disk counts, if it is fit to.
    pub(super) fn of(config: &IssuerConfig, means: &Means<'_>) -> Result<Self, IssuerError> {
        let unusable = |path: &Path, cause: Box<dyn std::error::Error + Send + Sync>| IssuerError::KeyFile {
            issuer: config.issuer.clone(),
            path: path.to_owned(),
            cause,
        };
        let now = means.clock.monotonic();
        let shelf = |from: &str| means.kept.map(|dir| Shelf::of(dir, &config.issuer, from));
        let (origin, shelf, first) = match (&config.hs256_secret_file, &config.jwks_file, &config.jwks_url) {
            (Some(path), ..) => {
                let secret = secret(path).map_err(|cause| unusable(path, cause))?;
                (Origin::Shared(Arc::new(Key::shared(&secret))), None, None)
            }
            (None, Some(path), _) => {
                let bytes = read(path).map_err(|cause| unusable(path, cause.into()))?;
                let keys = jwk::import(&bytes, &config.algorithms).map_err(|why| unusable(path, why.into()))?;
                (Origin::File(path.clone()), None, Some(KeySet { keys, taken: now, before: Duration::ZERO }))
            }
            (None, None, Some(url)) => (Origin::Url(url.clone(), means.source.clone()), shelf(url), None),
            (None, None, None) => match config.discovery() {
                Some(url) => (Origin::Discovered(url.clone(), means.source.clone()), shelf(&url), None),
                None => (Origin::Held, None, None),
            },
        };
        let first = first.or_else(|| kept(shelf.as_ref()?, config, means));
        Ok(Self(Arc::new(Inner {
            issuer: config.issuer.as_str().into(),
            origin,
            wanted: config.algorithms.clone(),
            max_age: Duration::from_secs(config.max_age_seconds),
            max_stale: Duration::from_secs(config.max_stale_seconds),
            clock: means.clock.clone(),
            counts: means.counts.clone(),
            shelf,
            current: ArcSwapOption::new(first.map(Arc::new)),
            misses: Mutex::default(),
            attempts: AtomicU64::new(0),
            turn: Arc::new(tokio::sync::Mutex::new(Turn { failed: None, tokens: BUDGET, refilled: now })),
        })))
    }

    /// Takes the keys of the node's own issuer, in place of those it had. Nothing else has keys given to it.
    pub(super) fn hold(&self, set: &[u8]) -> Result<(), &'static str> {
        let inner = &self.0;
        if !matches!(inner.origin, Origin::Held) {
            return Err("its keys are had from elsewhere");
        }
        let keys = jwk::import(set, &inner.wanted)?;
        inner.current.store(Some(Arc::new(KeySet { keys, taken: inner.clock.monotonic(), before: Duration::ZERO })));
        Ok(())
    }

    /// How it stands with them; nothing where they are never fetched.
    pub(super) fn standing(&self) -> Option<Standing> {
        let inner = &self.0;
        if matches!(inner.origin, Origin::Shared(_) | Origin::Held) {
            return None;
        }
        let now = inner.clock.monotonic();
        Some(match inner.usable() {
            Some(set) if set.age(now) <= inner.max_age => Standing::Fresh,
            Some(_) => Standing::Stale,
            None => Standing::Absent,
        })
    }

    /// Asks for the set in the background if it is about to be older than it should be, so that no call has to wait.
    pub(super) fn renew(&self) {
        let inner = &self.0;
        if matches!(inner.origin, Origin::Shared(_) | Origin::Held) {
            return;
        }
        let now = inner.clock.monotonic();
        let soon = inner.max_age - inner.max_age / 4;
        if inner.usable().is_none_or(|set| set.age(now) >= soon) {
            self.refresh();
        }
    }

    /// The one key of that name. `Refused` only when the issuer itself, asked recently, does not list it.
    pub(super) async fn find(&self, kid: Option<&str>) -> Result<Arc<Key>, IdentityError> {
        let inner = &self.0;
        if let Origin::Shared(key) = &inner.origin {
            return Ok(key.clone());
        }
        let kid = kid.ok_or(Refusal::UnknownKey)?;
        if matches!(inner.origin, Origin::Held) {
            let set = inner.current.load();
            let key = set.as_ref().and_then(|set| set.keys.get(kid).cloned());
            return key.ok_or_else(|| Refusal::UnknownKey.into());
        }
        let seen = inner.attempts.load(Ordering::Acquire);
        if let Some(set) = inner.usable() {
            if let Some(key) = set.keys.get(kid) {
                if set.age(inner.clock.monotonic()) > inner.max_age {
                    self.refresh();
                }
                return Ok(key.clone());
            }
            if inner.missed(kid) {
                inner.counts.missing(Missing::Remembered);
                return Err(Refusal::UnknownKey.into());
            }
        }
        self.ask_again(kid, seen).await
    }

    /// Asks for the set anew without anybody waiting for it.
    fn refresh(&self) {
        let Ok(turn) = self.0.turn.clone().try_lock_owned() else { return };
        if !turn.backs_off(self.0.clock.monotonic()) {
            // Nobody waits: how it went is in the set, or in the turn.
            drop(self.attempt(turn));
        }
    }

    /// Asks for the set anew, unless somebody did since `seen`, and looks once more.
    async fn ask_again(&self, kid: &str, seen: u64) -> Result<Arc<Key>, IdentityError> {
        let inner = &self.0;
        let mut turn = inner.turn.clone().lock_owned().await;
        let mut cause = None;
        let mut failed = turn.failed.is_some();
        if inner.attempts.load(Ordering::Acquire) == seen {
            let now = inner.clock.monotonic();
            if turn.backs_off(now) {
                return Err(inner.unavailable(None));
            }
            if inner.usable().is_some() && !turn.spend(now) {
                inner.counts.missing(Missing::OverBudget);
                return Err(if failed { inner.unavailable(None) } else { Refusal::UnknownKey.into() });
            }
            cause = self.attempt(turn).await.unwrap_or_else(|gone| Some(FetchError::new("this node", gone)));
            failed = cause.is_some();
        }
        match inner.usable().and_then(|set| set.keys.get(kid).cloned()) {
            Some(key) => Ok(key),
            None if failed => Err(inner.unavailable(cause)),
            None => {
                inner.miss(kid);
                inner.counts.missing(Missing::Asked);
                Err(Refusal::UnknownKey.into())
            }
        }
    }

    /// One request for the set. A task of its own: a caller who goes away must not waste what the others wait for.
    fn attempt(&self, mut turn: OwnedMutexGuard<Turn>) -> JoinHandle<Option<FetchError>> {
        let inner = self.0.clone();
        tokio::spawn(async move {
            let outcome = inner.fetch().await;
            let now = inner.clock.monotonic();
            let failure = match outcome {
                Ok((keys, bytes)) => {
                    inner.current.store(Some(Arc::new(KeySet { keys, taken: now, before: Duration::ZERO })));
                    turn.failed = None;
                    inner.clone().keep(bytes);
                    None
                }
                Err(error) => {
                    let cause = std::error::Error::source(&error).map(ToString::to_string);
                    tracing::warn!(issuer = %inner.issuer, %error, cause, "keys not renewed");
                    turn.failed = Some(now);
                    Some(error)
                }
            };
            inner.counts.fetched(failure.is_none());
            inner.attempts.fetch_add(1, Ordering::Release);
            failure
        })
    }
}

impl Inner {
    /// The set, unless it is too old to be believed.
    fn usable(&self) -> Option<Arc<KeySet>> {
        let now = self.clock.monotonic();
        self.current.load_full().filter(|set| set.age(now) <= self.max_stale)
    }

    /// The set, and the bytes it was read from.
    async fn fetch(&self) -> Result<(HashMap<String, Arc<Key>>, Vec<u8>), FetchError> {
        let (location, bytes) = match &self.origin {
            Origin::Shared(_) | Origin::Held => {
                return Err(FetchError::new("this node", "keys of its own are never fetched"));
            }
            Origin::File(path) => {
                let location = path.display().to_string();
                let path = path.clone();
                let bytes = tokio::task::spawn_blocking(move || read(&path))
                    .await
                    .map_err(|gone| FetchError::new(&location, gone))?
                    .map_err(|error| FetchError::new(&location, error))?;
                (location, bytes)
            }
            Origin::Url(url, source) => (url.clone(), within(source, url).await?),
            Origin::Discovered(document, source) => {
                let found = within(source, document).await?;
                let url =
                    discovery::jwks_uri(&found, &self.issuer).map_err(|why| FetchError::new(document.as_str(), why))?;
                let bytes = within(source, &url).await?;
                (url, bytes)
            }
        };
        let keys = jwk::import(&bytes, &self.wanted).map_err(|why| FetchError::new(location, why))?;
        Ok((keys, bytes))
    }

    /// Keeps a set that was just had from the network, without anybody waiting for the disk.
    fn keep(self: Arc<Self>, set: Vec<u8>) {
        if self.shelf.is_some() {
            let now = self.clock.now().seconds();
            tokio::task::spawn_blocking(move || self.shelf.iter().for_each(|shelf| shelf.keep(&set, now)));
        }
    }

    fn unavailable(&self, cause: Option<FetchError>) -> IdentityError {
        IdentityError::Unavailable { issuer: self.issuer.to_string(), cause }
    }

    fn missed(&self, kid: &str) -> bool {
        let now = self.clock.monotonic();
        let misses = self.misses.lock().unwrap_or_else(PoisonError::into_inner);
        misses.get(kid).is_some_and(|at| now.saturating_sub(*at) < MISS)
    }

    fn miss(&self, kid: &str) {
        let now = self.clock.monotonic();
        let mut misses = self.misses.lock().unwrap_or_else(PoisonError::into_inner);
        if misses.len() >= MISSES {
            misses.retain(|_, at| now.saturating_sub(*at) < MISS);
        }
        if misses.len() >= MISSES {
            misses.clear();
        }
        misses.insert(kid.to_owned(), now);
    }
}

/// What is at an address, unless that takes too long.
async fn within(source: &Arc<dyn JwksSource>, url: &str) -> Result<Vec<u8>, FetchError> {
    tokio::time::timeout(FETCH, source.fetch(url)).await.map_err(|late| FetchError::new(url, late))?
}

/// The set kept on disk, by the same rules as one from the network, and as old as it is.
fn kept(shelf: &Shelf, config: &IssuerConfig, means: &Means<'_>) -> Option<KeySet> {
    let (bytes, age) = shelf.load(means.clock.now().seconds(), config.max_stale_seconds)?;
    match jwk::import(&bytes, &config.algorithms) {
        Ok(keys) => Some(KeySet { keys, taken: means.clock.monotonic(), before: Duration::from_secs(age) }),
        Err(why) => {
            tracing::warn!(issuer = config.issuer, why, "the keys kept of an issuer are not used");
            None
        }
    }
}

/// A file's bytes, one more than may be at most.
fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let limit = u64::try_from(JWKS_BYTES).unwrap_or(u64::MAX).saturating_add(1);
    std::fs::File::open(path)?.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn secret(path: &Path) -> Result<Zeroizing<Vec<u8>>, Box<dyn std::error::Error + Send + Sync>> {
    let mut secret = Zeroizing::new(read(path)?);
    if secret.last() == Some(&b'\n') {
        secret.pop();
    }
    if SECRET_BYTES.contains(&secret.len()) { Ok(secret) } else { Err("a shared secret has 32 to 1024 bytes".into()) }
}
