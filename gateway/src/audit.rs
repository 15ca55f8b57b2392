//! Settings of the log that are an operator's to choose.
//!
//! Owns `[audit]` of the configuration file and the counts that a heartbeat tells. Must never hold a setting that would
//! let something happen unrecorded.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cofferdam_audit::{Counts, LogConfig, Thresholds};
use serde::Deserialize;

use crate::node::Node;

const MIB: u64 = 1024 * 1024;

/// `[audit]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AuditConfig {
    /// What the node does less of as its log's disk runs out of room or takes too long, and when.
    pub warn: Rung,
    /// Calls of `relaxed` routes are refused.
    pub shed: Rung,
    /// Only calls with safe methods are taken.
    pub read_only: Rung,
    /// Nothing is taken.
    pub deny: Rung,
    /// Room kept by a file, which is given up so that a full disk can be recorded. None when 0.
    pub reserve_mib: u64,
    /// Time between two heartbeats in the log.
    pub heartbeat_ms: u64,
    /// Old records that are read again each second, to find a disk that forgets. None when 0.
    pub scrub_mib_per_second: u64,
}

/// What one step is taken for: less room than this, or a sync that takes longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rung {
    /// Free space of the log's file system.
    pub free_mib: u64,
    /// Time of one sync.
    pub sync_ms: u64,
}

impl Default for AuditConfig {
    fn default() -> Self {
        Self {
            warn: Rung { free_mib: 1_024, sync_ms: 2_000 },
            shed: Rung { free_mib: 512, sync_ms: 10_000 },
            read_only: Rung { free_mib: 256, sync_ms: 20_000 },
            deny: Rung { free_mib: 64, sync_ms: 30_000 },
            reserve_mib: 16,
            heartbeat_ms: 60_000,
            scrub_mib_per_second: 0,
        }
    }
}

impl AuditConfig {
    /// When each step is taken.
    pub fn thresholds(&self) -> Thresholds {
        let rungs = [self.warn, self.shed, self.read_only, self.deny];
        Thresholds {
            free_bytes: rungs.map(|rung| rung.free_mib.saturating_mul(MIB)),
            sync: rungs.map(|rung| Duration::from_millis(rung.sync_ms)),
        }
    }

    /// The log's own settings with these.
    pub fn settings(&self, log: LogConfig) -> LogConfig {
        LogConfig {
            thresholds: self.thresholds(),
            reserve_bytes: self.reserve_mib.saturating_mul(MIB),
            scrub_bytes_per_second: self.scrub_mib_per_second.saturating_mul(MIB),
            ..log
        }
    }

    /// The setting that cannot work, and why.
    pub(crate) fn flaw(&self) -> Option<(&'static str, &'static str, &'static str)> {
        if !self.thresholds().are_ordered() {
            let message = "each step of `[audit]` must be taken for less room and slower syncs than the one before it";
            return Some(("deny", message, "order `warn`, `shed`, `read_only` and `deny`"));
        }
        if !(1_000..=3_600_000).contains(&self.heartbeat_ms) {
            let message = "`audit.heartbeat_ms` must be from 1,000 to 3,600,000";
            return Some(("heartbeat_ms", message, "leave it out for a minute"));
        }
        (self.reserve_mib > 64 * 1024).then_some((
            "reserve_mib",
            "`audit.reserve_mib` must be at most 65,536",
            "leave it out for 16",
        ))
    }
}

/// What is counted of the calls and connections of a node, for the log to be held against.
#[derive(Debug, Default)]
pub struct Tallies {
    requests: AtomicU64,
    answered: AtomicU64,
    unanswered: AtomicU64,
}

impl Tallies {
    pub(crate) fn came(&self) {
        self.requests.fetch_add(1, Ordering::AcqRel);
    }

    pub(crate) fn ended(&self, answered: bool) {
        if answered { &self.answered } else { &self.unanswered }.fetch_add(1, Ordering::AcqRel);
    }
}

impl Node {
    /// What has been counted by now, as a heartbeat tells it.
    pub fn counts(&self, listeners: Vec<String>) -> Counts {
        // Answers first: one that comes in between has been recorded, and is asked for less.
        let answered = self.tallies.answered.load(Ordering::Acquire);
        let unanswered = self.tallies.unanswered.load(Ordering::Acquire);
        let requests = self.tallies.requests.load(Ordering::Acquire);
        let gauges = self.sandbox.gauges();
        let ended = gauges.ended.iter().map(|(_, count)| *count).sum();
        let mut totals = vec![
            ("answered", answered),
            ("cells_ended", ended),
            ("cells_started", gauges.started),
            ("requests", requests),
            ("unanswered", unanswered),
        ];
        totals.extend(gauges.ended.iter().map(|(cause, count)| (cause.as_str(), *count)));
        totals.sort_unstable();
        Counts { totals, listeners }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_in_order_and_what_is_not_is_refused() {
        let usual = AuditConfig::default();
        assert_eq!(usual.flaw(), None);
        let shed = Rung { free_mib: 2_048, ..usual.shed };
        assert!(AuditConfig { shed, ..usual.clone() }.flaw().is_some());
        let deny = Rung { sync_ms: 1, ..usual.deny };
        assert!(AuditConfig { deny, ..usual.clone() }.flaw().is_some());
        assert!(AuditConfig { heartbeat_ms: 0, ..usual.clone() }.flaw().is_some());
        let settings = usual.settings(LogConfig::new("log", "a/b"));
        assert_eq!((settings.reserve_bytes, settings.thresholds.free_bytes[3]), (16 * MIB, 64 * MIB));
    }
}
