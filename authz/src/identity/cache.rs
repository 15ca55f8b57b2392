//! Tokens whose signature was verified, so that it need not be again.
//!
//! Owns a bounded map from a token's digest to what was read from it. Must never hold a decision, a token, or anything
//! that a change of tenants, roles or keys would make wrong: those are looked up anew for every call.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::claims::Verified;

/// Several short locks, so that no two cores wait for one.
const SHARDS: usize = 16;
/// Tokens per shard; 4096 in all. Past it expired ones go, then any one.
const PER_SHARD: usize = 256;

pub(super) type TokenDigest = [u8; 32];

#[derive(Default)]
pub(super) struct Cache {
    shards: [Mutex<HashMap<TokenDigest, Arc<Verified>>>; SHARDS],
    hits: AtomicU64,
    verified: AtomicU64,
}

impl Cache {
    pub(super) fn get(&self, digest: &TokenDigest) -> Option<Arc<Verified>> {
        self.shard(digest)?.lock().unwrap_or_else(PoisonError::into_inner).get(digest).cloned()
    }

    pub(super) fn insert(&self, digest: TokenDigest, verified: Arc<Verified>, now_seconds: u64) {
        let Some(shard) = self.shard(&digest) else { return };
        let mut tokens = shard.lock().unwrap_or_else(PoisonError::into_inner);
        if tokens.len() >= PER_SHARD {
            tokens.retain(|_, kept| kept.expires_seconds() > now_seconds);
        }
        if tokens.len() >= PER_SHARD
            && let Some(any) = tokens.keys().next().copied()
        {
            tokens.remove(&any);
        }
        tokens.insert(digest, verified);
    }

    /// One more token was believed for having been verified before, or was verified.
    pub(super) fn count(&self, hit: bool) {
        let counter = if hit { &self.hits } else { &self.verified };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// How many were, of either kind: remembered ones first.
    pub(super) fn counts(&self) -> (u64, u64) {
        (self.hits.load(Ordering::Relaxed), self.verified.load(Ordering::Relaxed))
    }

    pub(super) fn remove(&self, digest: &TokenDigest) {
        if let Some(shard) = self.shard(digest) {
            shard.lock().unwrap_or_else(PoisonError::into_inner).remove(digest);
        }
    }

    fn shard(&self, digest: &TokenDigest) -> Option<&Mutex<HashMap<TokenDigest, Arc<Verified>>>> {
        let [first, ..] = digest;
        self.shards.get(usize::from(*first) % SHARDS)
    }
}
