//! Settings of the log that are an operator's to choose.
//!
//! Owns when the node does less for its log's sake, and the counts that a heartbeat tells. Must never hold a setting
//! that would let something happen unrecorded.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cofferdam_audit::{Counts, LogConfig, Thresholds};
use serde::Deserialize;

use crate::config::AuditConfig;
use crate::node::Node;

const MIB: u64 = 1024 * 1024;

/// What one step is taken for: less room than this, or a sync that takes longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rung {
    /// Free space of the log's file system.
    pub free_mib: u64,
    /// Time of one sync.
    pub sync_ms: u64,
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
    pub(crate) fn rung_out_of_order(&self) -> Option<(&'static str, &'static str, &'static str)> {
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
        assert_eq!(usual.rung_out_of_order(), None);
        let shed = Rung { free_mib: 2_048, ..usual.shed };
        assert!(AuditConfig { shed, ..usual.clone() }.rung_out_of_order().is_some());
        let deny = Rung { sync_ms: 1, ..usual.deny };
        assert!(AuditConfig { deny, ..usual.clone() }.rung_out_of_order().is_some());
        assert!(AuditConfig { heartbeat_ms: 0, ..usual.clone() }.rung_out_of_order().is_some());
        let settings = usual.settings(LogConfig::new("log", "a/b"));
        assert_eq!((settings.reserve_bytes, settings.thresholds.free_bytes[3]), (16 * MIB, 64 * MIB));
    }
}
