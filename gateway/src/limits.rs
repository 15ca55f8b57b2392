//! How much anyone may ask: token buckets by source, principal, tenant and route, and the count of calls under way.
//!
//! Owns the keys, the verdicts and the `RateLimit` fields made of them. Must never charge a request it denies, never
//! hold more memory than it was given, and never take an address from a header.

mod table;

use std::cell::Cell;
use std::fmt::Write as _;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use cofferdam_model::{Clock, LimitFacts, LimitScope, Limits, Rate, RouteId, TenantId};
use governor::clock::Reference;
use governor::middleware::StateInformationMiddleware;
use governor::nanos::Nanos;
use governor::{Quota, RateLimiter};
use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::refusal::Refusal;
use table::{Quotaed, Table};

const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// What a bucket is kept for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scope {
    /// An address (/32) or network (/64).
    Source,
    /// An identified caller.
    Principal,
    /// A tenant, all callers together.
    Tenant,
    /// A route, all callers together.
    Route,
}

impl Scope {
    /// Name of the policy in `RateLimit` fields.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Principal => "principal",
            Self::Tenant => "tenant",
            Self::Route => "route",
        }
    }

    fn told(self) -> LimitScope {
        match self {
            Self::Source => LimitScope::Source,
            Self::Principal => LimitScope::Principal,
            Self::Tenant => LimitScope::Tenant,
            Self::Route => LimitScope::Route,
        }
    }
}

/// What a bucket says of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// Whose bucket.
    pub scope: Scope,
    /// Its size and speed.
    pub rate: Rate,
    /// Requests left after this one.
    pub remaining: u32,
    /// Until the bucket is full again.
    pub reset: Duration,
    /// Until the next request would pass; present when this one did not.
    pub retry_after: Option<Duration>,
}

/// The verdicts on one call so far, for its answer's `RateLimit` fields.
#[derive(Debug, Clone, Default)]
pub struct Standing(Vec<Verdict>);

impl Standing {
    /// Adds a verdict; refuses the call if it is a denial.
    pub fn take(&mut self, verdict: Verdict) -> Result<(), Refusal> {
        self.0.push(verdict);
        match verdict.retry_after {
            None => Ok(()),
            Some(retry_after) => Err(Refusal::RateLimited { retry_after }),
        }
    }

    /// As the log tells them. What a source has left is told to that source alone: a tenant reads its log, and others
    /// may have been called from there.
    pub(crate) fn facts(&self) -> [Option<LimitFacts>; LimitScope::ALL.len()] {
        let mut told = [None; LimitScope::ALL.len()];
        for (place, verdict) in told.iter_mut().zip(&self.0) {
            let Verdict { scope, rate, remaining, retry_after, .. } = *verdict;
            let retry_ms = retry_after.map(|after| u64::try_from(after.as_millis()).unwrap_or(u64::MAX));
            let left = Some(remaining).filter(|_| scope != Scope::Source);
            *place = Some(LimitFacts {
                scope: scope.told(),
                burst: rate.burst,
                per_second: rate.per_second,
                left,
                retry_ms,
            });
        }
        told
    }

    /// Writes `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers-11).
    pub fn write(&self, headers: &mut HeaderMap) {
        let (mut policy, mut state) = (String::new(), String::new());
        for verdict in &self.0 {
            let comma = if policy.is_empty() { "" } else { ", " };
            let (name, burst) = (verdict.scope.as_str(), verdict.rate.burst.max(1));
            let window = burst.div_ceil(verdict.rate.per_second.max(1));
            let reset = verdict.reset.as_secs() + u64::from(verdict.reset.subsec_nanos() > 0);
            // Writing to a string cannot fail.
            let _ = write!(policy, "{comma}\"{name}\";q={burst};w={window}");
            let _ = write!(state, "{comma}\"{name}\";r={};t={reset}", verdict.remaining);
        }
        for (name, text) in [(RATE_LIMIT_POLICY, policy), (RATE_LIMIT, state)] {
            if let (false, Ok(value)) = (text.is_empty(), HeaderValue::from_str(&text)) {
                headers.insert(name, value);
            }
        }
    }
}

/// A call's place among those under way. Dropping it gives the place back.
#[derive(Debug)]
#[must_use]
pub struct Admission(#[expect(dead_code, reason = "held for its drop")] OwnedSemaphorePermit);

/// The buckets and the count.
pub struct Limiter {
    clock: Arc<dyn Clock>,
    hashes: RandomState,
    /// Apart from the others, so that strangers cannot push out what is remembered of known callers.
    strangers: Table,
    known: Table,
    per_source: Rate,
    per_principal: Rate,
    per_tenant: Rate,
    calls: Arc<Semaphore>,
}

impl std::fmt::Debug for Limiter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Limiter").field("calls_left", &self.calls.available_permits()).finish_non_exhaustive()
    }
}

impl Limiter {
    /// Empty buckets by the node's limits. Half of the keys are kept for sources, half for everyone known.
    pub fn new(limits: &Limits, clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            hashes: RandomState::new(),
            strangers: Table::with_room_for(limits.limiter_keys / 2),
            known: Table::with_room_for(limits.limiter_keys / 2),
            per_source: limits.per_source,
            per_principal: limits.per_principal,
            per_tenant: limits.per_tenant,
            calls: Arc::new(Semaphore::new(limits.calls.min(Semaphore::MAX_PERMITS))),
        }
    }

    /// Charges the peer's address or network.
    pub fn source(&self, address: IpAddr) -> Verdict {
        let key = self.hashes.hash_one((Scope::Source, source_key(address)));
        self.charge(&self.strangers, Scope::Source, key, self.per_source)
    }

    /// Charges an identified caller, by its `Principal::key`.
    pub fn principal(&self, key: &str) -> Verdict {
        let key = self.hashes.hash_one((Scope::Principal, key));
        self.charge(&self.known, Scope::Principal, key, self.per_principal)
    }

    /// Charges a tenant.
    pub fn tenant(&self, tenant: &TenantId) -> Verdict {
        let key = self.hashes.hash_one((Scope::Tenant, tenant.as_str()));
        self.charge(&self.known, Scope::Tenant, key, self.per_tenant)
    }

    /// Charges a route that has a limit of its own.
    pub fn route(&self, route: &RouteId, rate: Rate) -> Verdict {
        let key = self.hashes.hash_one((Scope::Route, route.as_str()));
        self.charge(&self.known, Scope::Route, key, rate)
    }

    /// Takes a place among the calls under way, or refuses at once: waiting would only move the queue inside.
    pub fn admit(&self) -> Result<Admission, Refusal> {
        self.calls
            .clone()
            .try_acquire_owned()
            .map(Admission)
            .map_err(|_| Refusal::Overloaded { retry_after: Duration::from_secs(1) })
    }

    fn charge(&self, table: &Table, scope: Scope, key: u64, rate: Rate) -> Verdict {
        charge(table, scope, key, rate, self.clock.monotonic())
    }
}

/// What counts as one source: an IPv4 address, or the /64 of an IPv6 one, which is what a single host is given.
pub(crate) fn source_key(address: IpAddr) -> u128 {
    match address.to_canonical() {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        // The lowest bit is free and tells a network from an IPv4 address.
        IpAddr::V6(v6) => (v6.to_bits() & !u128::from(u64::MAX)) | 1 << 63,
    }
}

fn charge(table: &Table, scope: Scope, key: u64, rate: Rate, now: Duration) -> Verdict {
    let burst = NonZeroU32::new(rate.burst).unwrap_or(NonZeroU32::MIN);
    let per_second = NonZeroU32::new(rate.per_second).unwrap_or(NonZeroU32::MIN);
    let quota = Quota::per_second(per_second).allow_burst(burst);
    let period = quota.replenish_interval().max(Duration::from_nanos(1));
    let period_nanos = u64::try_from(period.as_nanos()).unwrap_or(u64::MAX);
    let store = Quotaed {
        table,
        period: period_nanos,
        tolerance: period_nanos.saturating_mul(u64::from(burst.get()).saturating_sub(1)),
    };
    let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
    let reading = Reading { begun: Cell::new(false), now };
    let limiter: RateLimiter<u64, _, _, StateInformationMiddleware> = RateLimiter::new(quota, store, reading);
    let (remaining, retry_after) = match limiter.check_key(&key) {
        Ok(state) => (state.remaining_burst_capacity(), None),
        Err(until) => (0, Some(until.earliest_possible().duration_since(Nanos::new(now)).into())),
    };
    let reset = period.saturating_mul(burst.get().saturating_sub(remaining));
    Verdict { scope, rate, remaining, reset, retry_after }
}

/// One reading of our clock as governor wants it. The limiter is made for one question (the state lives in the
/// table), and takes its zero from its first look at the clock: that has to be the table's zero, not this moment.
#[derive(Debug)]
struct Reading {
    begun: Cell<bool>,
    now: u64,
}

impl governor::clock::Clock for Reading {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        Nanos::new(if self.begun.replace(true) { self.now } else { 0 })
    }
}

#[cfg(test)]
mod tests;
