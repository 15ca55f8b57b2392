//! What has happened to identities so far, in numbers.
//!
//! Owns the counters and how they are read. Must never count by anything a caller or an issuer chose.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{IdentityError, Refusal};

/// What became of a token whose key its issuer was not known to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Missing {
    /// The issuer was asked, and has none such.
    Asked,
    /// It was asked a moment ago.
    Remembered,
    /// It was not asked: strangers had used up what may be.
    OverBudget,
}

/// The counters.
#[derive(Debug, Default)]
pub(super) struct Counts {
    fetched: AtomicU64,
    failed: AtomicU64,
    missing: [AtomicU64; 3],
    refused: [AtomicU64; Refusal::ALL.len()],
    revoked: AtomicU64,
    unavailable: AtomicU64,
    throttled: AtomicU64,
    overloaded: AtomicU64,
}

impl Counts {
    pub(super) fn fetched(&self, well: bool) {
        let counter = if well { &self.fetched } else { &self.failed };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn missing(&self, what: Missing) {
        let [asked, remembered, over_budget] = &self.missing;
        let counter = match what {
            Missing::Asked => asked,
            Missing::Remembered => remembered,
            Missing::OverBudget => over_budget,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn refused(&self, why: &IdentityError) {
        let counter = match why {
            IdentityError::Refused(refusal) => {
                let at = Refusal::ALL.iter().position(|each| each == refusal);
                at.and_then(|at| self.refused.get(at))
            }
            IdentityError::Revoked { .. } => Some(&self.revoked),
            IdentityError::Unavailable { .. } | IdentityError::Sealed { .. } => Some(&self.unavailable),
            IdentityError::Throttled { .. } => Some(&self.throttled),
            IdentityError::Overloaded => Some(&self.overloaded),
        };
        if let Some(counter) = counter {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Everything but how it stands with keys and the cache, which are not counted here.
    pub(super) fn read(&self) -> Gauges {
        let now = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let [asked, remembered, over_budget] = &self.missing;
        let refused = Refusal::ALL.iter().zip(&self.refused).map(|(why, count)| (why.as_str(), now(count)));
        let more = [
            ("revoked", now(&self.revoked)),
            ("keys_unavailable", now(&self.unavailable)),
            ("throttled", now(&self.throttled)),
            ("overloaded", now(&self.overloaded)),
        ];
        Gauges {
            fetches: [("had", now(&self.fetched)), ("failed", now(&self.failed))],
            unknown_keys: [("asked", now(asked)), ("remembered", now(remembered)), ("over_budget", now(over_budget))],
            refused: refused.chain(more).collect(),
            ..Gauges::default()
        }
    }
}

/// Counters and gauges of identities, each with its label, which is one of a closed list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Gauges {
    /// Requests for key sets by how they ended.
    pub fetches: [(&'static str, u64); 2],
    /// Key sets of issuers that have to be asked for them, by how it stands with them.
    pub key_sets: [(&'static str, u64); 3],
    /// Tokens of keys their issuer was not known to have, by what was done about it.
    pub unknown_keys: [(&'static str, u64); 3],
    /// Tokens by whether their signature had to be verified.
    pub tokens: [(&'static str, u64); 2],
    /// Credentials that were refused, by why.
    pub refused: Vec<(&'static str, u64)>,
}
