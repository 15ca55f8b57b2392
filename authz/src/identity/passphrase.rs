//! Passphrases: how they are kept, and how one is checked without becoming a lever against the node.
//!
//! Owns the hash (Argon2id), the bound on how many are computed at once, and the limits on tries. Must never tell a
//! user that does not exist from a wrong passphrase, by answer, by time or by cost, and never compute one on an async
//! thread.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use argon2::{Algorithm, Argon2, Params, Version};
use aws_lc_rs::{constant_time, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use cofferdam_model::{Clock, CredentialKind, PrincipalKind, Random, TenantId};
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

use super::revoked::Shown;
use super::{Directory, Principal};
use crate::error::{IdentityError, Refusal};

/// Bytes of a passphrase that is taken.
pub const PASSPHRASE_BYTES: std::ops::RangeInclusive<usize> = 12..=1024;
const HASH_BYTES: usize = 32;
const SALT_BYTES: usize = 16;

/// What a hash costs. RFC 9106 recommends 64 MiB and three passes where memory is not plenty; one lane, because several
/// would be computed one after the other anyway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cost {
    /// KiB of memory.
    pub memory_kib: u32,
    /// Passes over it.
    pub passes: u32,
}

/// What every passphrase set from now on costs.
pub const COST: Cost = Cost { memory_kib: 64 * 1024, passes: 3 };

/// Computed at once, on threads that block: twice 64 MiB, and two processors for a tenth of a second each.
const AT_ONCE: usize = 2;
/// Waiting for that; whoever comes then is told to come again.
const WAITING: usize = 16;
/// Tries of one user from one address at once, and one more every so often.
const FROM_ONE: Pace = Pace { burst: 5, refill: Duration::from_secs(10) };
/// Tries of all users from one address, so that names made up there do not use up what can be watched.
const FROM_SOURCE: Pace = Pace { burst: 20, refill: Duration::from_secs(1) };
/// Tries of one user from all addresses together. Higher, so that a stranger does not easily shut somebody out.
const FROM_ALL: Pace = Pace { burst: 30, refill: Duration::from_secs(2) };
/// Users and addresses watched at once; past it those longest quiet are forgotten.
const WATCHED: usize = 8 * 1024;

/// What is stored of a user.
#[derive(Clone, PartialEq, Eq)]
pub struct UserRecord {
    /// Its passphrase's hash, as `hash` gave it.
    pub passphrase: String,
    /// Its roles.
    pub roles: Vec<String>,
}

/// A passphrase as it was shown, for one user.
#[derive(Clone, Copy)]
pub struct Login<'a> {
    /// Name of the tenant.
    pub tenant: &'a str,
    /// Name of the user.
    pub user: &'a str,
    /// The passphrase.
    pub passphrase: &'a [u8],
    /// Where it came from.
    pub source: IpAddr,
}

/// What is kept of a passphrase: Argon2id with a random salt, as a PHC string. Takes its time, on the caller's thread.
pub fn hash(passphrase: &[u8], cost: Cost, random: &dyn Random) -> Option<String> {
    let mut salt = [0u8; SALT_BYTES];
    random.fill(&mut salt);
    let hashed = compute(passphrase, cost, &salt)?;
    let Cost { memory_kib, passes } = cost;
    let (salt, hashed) = (STANDARD_NO_PAD.encode(salt), STANDARD_NO_PAD.encode(hashed.as_slice()));
    Some(format!("$argon2id$v=19$m={memory_kib},t={passes},p=1${salt}${hashed}"))
}

fn compute(passphrase: &[u8], cost: Cost, salt: &[u8]) -> Option<Zeroizing<[u8; HASH_BYTES]>> {
    let params = Params::new(cost.memory_kib, cost.passes, 1, Some(HASH_BYTES)).ok()?;
    let mut out = Zeroizing::new([0u8; HASH_BYTES]);
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(passphrase, salt, out.as_mut_slice())
        .ok()?;
    Some(out)
}

/// A PHC string taken apart. Nothing is read that this file would not have written.
struct Kept {
    cost: Cost,
    salt: Vec<u8>,
    hash: Vec<u8>,
}

impl Kept {
    fn read(text: &str) -> Option<Self> {
        let mut parts = text.strip_prefix("$argon2id$v=19$")?.split('$');
        let (cost, salt, hash) = (parts.next()?, parts.next()?, parts.next()?);
        let (memory, rest) = cost.strip_prefix("m=")?.split_once(",t=")?;
        let passes = rest.strip_suffix(",p=1")?;
        let cost = Cost { memory_kib: memory.parse().ok()?, passes: passes.parse().ok()? };
        // What a stored hash may cost is bounded too: the file it is from is trusted no further than that.
        if cost.memory_kib > 4 * COST.memory_kib || cost.passes > 4 * COST.passes || parts.next().is_some() {
            return None;
        }
        let decode = |text: &str| STANDARD_NO_PAD.decode(text).ok();
        Some(Self { cost, salt: decode(salt)?, hash: decode(hash)? })
    }

    /// What nobody's passphrase has, at the usual cost: a user that does not exist is checked against this.
    fn nobodys() -> Self {
        Self { cost: COST, salt: vec![0; SALT_BYTES], hash: Vec::new() }
    }

    fn matches(&self, passphrase: &[u8]) -> bool {
        let computed = compute(passphrase, self.cost, &self.salt);
        computed.is_some_and(|found| constant_time::verify_slices_are_equal(found.as_slice(), &self.hash).is_ok())
    }
}

struct Pace {
    burst: u32,
    refill: Duration,
}

/// Tries left, and since when they are counted.
#[derive(Clone, Copy)]
struct Bucket {
    left: u32,
    since: Duration,
}

type Watched = [u8; 32];

/// Where passphrases are checked.
pub(super) struct Door {
    places: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
    tries: Mutex<HashMap<Watched, Bucket>>,
    clock: Arc<dyn Clock>,
}

impl Door {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        let (places, waiting) = (Semaphore::new(AT_ONCE).into(), Semaphore::new(AT_ONCE + WAITING).into());
        Self { places, waiting, tries: Mutex::default(), clock }
    }

    /// Whose passphrase this is, in the name of the node's own issuer.
    pub(super) async fn identify(
        &self,
        login: Login<'_>,
        issuer: &Arc<str>,
        directory: &dyn Directory,
    ) -> Result<Principal, IdentityError> {
        if login.passphrase.len() > *PASSPHRASE_BYTES.end() {
            return Err(Refusal::TooLong.into());
        }
        // Asked by the names as they were given, so that those nobody has are limited alike.
        let (tenant, user) = (login.tenant.as_bytes(), login.user.as_bytes());
        self.take(&FROM_SOURCE, &[login.source.to_string().as_bytes()])?;
        self.take(&FROM_ONE, &[tenant, user, login.source.to_string().as_bytes()])?;
        self.take(&FROM_ALL, &[tenant, user])?;
        let tenant = directory.tenant_named(login.tenant);
        let record = tenant.as_ref().and_then(|tenant| directory.user(tenant, login.user));
        let kept = record.as_ref().and_then(|record| Kept::read(&record.passphrase)).unwrap_or_else(Kept::nobodys);
        let genuine = self.check(kept, Zeroizing::new(login.passphrase.to_vec())).await?;
        let known = tenant.zip(record).filter(|_| genuine);
        let (tenant, record) = known.ok_or(Refusal::Passphrase)?;
        person(login.user, tenant, &record, issuer, directory)
    }

    /// Computes a hash among few others, on a thread that may block.
    async fn check(&self, kept: Kept, passphrase: Zeroizing<Vec<u8>>) -> Result<bool, IdentityError> {
        let busy = || IdentityError::Throttled { retry_after: Duration::from_secs(2) };
        let waiting = self.waiting.clone().try_acquire_owned().map_err(|_| busy())?;
        let place = self.places.clone().acquire_owned().await.map_err(|_| busy())?;
        // Both are given back when it is computed, also where nobody waits for it any more.
        let checked = tokio::task::spawn_blocking(move || {
            let _held = (waiting, place);
            kept.matches(&passphrase)
        });
        checked.await.map_err(|_| busy())
    }

    fn take(&self, pace: &Pace, name: &[&[u8]]) -> Result<(), IdentityError> {
        let now = self.clock.monotonic();
        let mut tries = self.tries.lock().unwrap_or_else(PoisonError::into_inner);
        if tries.len() >= WATCHED {
            let quiet = FROM_ALL.refill * FROM_ALL.burst;
            tries.retain(|_, bucket| now.saturating_sub(bucket.since) < quiet);
        }
        let name = watched(name);
        if tries.len() >= WATCHED && !tries.contains_key(&name) {
            // As many names as that are made up by somebody: new ones wait, which harms nobody for long.
            return Err(IdentityError::Throttled { retry_after: pace.refill });
        }
        let bucket = tries.entry(name).or_insert(Bucket { left: pace.burst, since: now });
        let due = now.saturating_sub(bucket.since).as_millis() / pace.refill.as_millis().max(1);
        if due > 0 {
            bucket.left = bucket.left.saturating_add(u32::try_from(due).unwrap_or(u32::MAX)).min(pace.burst);
            bucket.since = now;
        }
        match bucket.left.checked_sub(1) {
            Some(left) => {
                bucket.left = left;
                Ok(())
            }
            None => Err(IdentityError::Throttled { retry_after: pace.refill }),
        }
    }
}

fn watched(name: &[&[u8]]) -> Watched {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in name {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    }
    let mut out = Watched::default();
    out.iter_mut().zip(context.finish().as_ref()).for_each(|(to, from)| *to = *from);
    out
}

/// Somebody whose passphrase was right, unless they were revoked.
fn person(
    user: &str,
    tenant: TenantId,
    record: &UserRecord,
    issuer: &Arc<str>,
    directory: &dyn Directory,
) -> Result<Principal, IdentityError> {
    let shown = Shown {
        tenant: &tenant,
        kind: PrincipalKind::User,
        issuer: Some(issuer),
        subject: user,
        token: None,
        digest: None,
        signing_key: None,
        issued: None,
    };
    let by = shown.by(directory);
    let who = Principal::user(issuer.clone(), user.into(), tenant, record.roles.clone(), None)
        .shown(CredentialKind::Passphrase);
    match by {
        Some(by) => Err(IdentityError::revoked(&who, by)),
        None => Ok(who),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cofferdam_model::random::SeededRandom;

    const CHEAP: Cost = Cost { memory_kib: 64, passes: 1 };

    #[test]
    fn a_hash_is_of_its_passphrase_and_salt_alone() {
        let random = SeededRandom::new(1);
        let one = hash(b"correct horse battery", CHEAP, &random).unwrap();
        let two = hash(b"correct horse battery", CHEAP, &random).unwrap();
        assert!(one.starts_with("$argon2id$v=19$m=64,t=1,p=1$"), "{one}");
        assert_ne!(one, two, "salted");
        for kept in [&one, &two] {
            let kept = Kept::read(kept).unwrap();
            assert!(kept.matches(b"correct horse battery"));
            for wrong in [&b"correct horse batterx"[..], b"", b"correct horse battery "] {
                assert!(!kept.matches(wrong));
            }
        }
        assert!(!Kept { cost: CHEAP, ..Kept::nobodys() }.matches(b""));
    }

    #[test]
    fn a_stored_hash_that_is_damaged_or_too_dear_is_nobodys() {
        let good = hash(b"x", CHEAP, &SeededRandom::new(1)).unwrap();
        for bad in [
            String::new(),
            good.replace("argon2id", "argon2i"),
            good.replace("v=19", "v=16"),
            good.replace("m=64", "m=4294967295"),
            good.replace("t=1", "t=1000000"),
            good.replace("p=1", "p=8"),
            format!("{good}$x"),
            good.replace('$', ""),
        ] {
            assert!(Kept::read(&bad).is_none(), "{bad}");
        }
    }
}
