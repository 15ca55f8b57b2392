//! The cells and calls there are, for those who ask.
//!
//! Owns the look: everything is counted when asked, nothing on a call's way. Must never say what a cell was given.

use std::sync::Arc;
use std::time::Duration;

use cofferdam_model::{CellId, FunctionId, Isolation, VersionId};

use super::group::Group;
use super::{Cause, Pool};
use crate::cell::Blank;

/// What is known of one cell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CellInfo {
    /// Which.
    pub id: CellId,
    /// Function it serves; none while it is blank.
    pub function: Option<FunctionId>,
    /// Function version it serves; none while it is blank.
    pub version: Option<VersionId>,
    /// Generation of the deployment it serves; 0 while it is blank.
    pub generation: u64,
    /// Calls under way.
    pub calls: u32,
    /// Calls taken in all.
    pub served: u64,
    /// Time since it was given its version.
    pub age: Duration,
    /// Memory it held when last looked at, in bytes; 0 before its first call ended.
    pub memory_bytes: u64,
    /// How well it is jailed.
    pub isolation: Isolation,
    /// Whether it only finishes what it has.
    pub draining: bool,
}

/// The sandbox in numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gauges {
    /// Cells that wait for a function version.
    pub blank: u64,
    /// Cells that take calls.
    pub serving: u64,
    /// Cells that only finish what they have.
    pub draining: u64,
    /// Calls under way, waiting ones included.
    pub calls: u64,
    /// Calls that wait for a cell.
    pub queued: u64,
    /// Cells that were started to serve.
    pub started: u64,
    /// How many ended of what.
    pub ended: Vec<(Cause, u64)>,
}

impl Pool {
    /// Every cell there is.
    pub(crate) fn cells(&self) -> Vec<CellInfo> {
        let now = self.parts.clock.monotonic();
        let groups: Vec<Arc<Group>> = self.groups().values().cloned().collect();
        let blank = |blank: &Blank| CellInfo {
            id: blank.id.clone(),
            function: None,
            version: None,
            generation: 0,
            calls: 0,
            served: 0,
            age: Duration::ZERO,
            memory_bytes: 0,
            isolation: blank.isolation,
            draining: false,
        };
        let mut cells: Vec<CellInfo> = self.blanks().iter().map(blank).collect();
        for group in groups {
            cells.extend(group.lock().members.iter().map(|member| CellInfo {
                id: member.cell.id.clone(),
                function: Some(group.function.clone()),
                version: Some(member.spec.key.version.clone()),
                generation: member.spec.key.generation,
                calls: member.load,
                served: member.served,
                age: now.saturating_sub(member.born),
                memory_bytes: member.resident,
                isolation: member.cell.isolation,
                draining: member.draining,
            }));
        }
        cells
    }

    /// Everything in numbers.
    pub(crate) fn gauges(&self) -> Gauges {
        let wide = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        let groups: Vec<Arc<Group>> = self.groups().values().cloned().collect();
        let mut gauges = Gauges {
            blank: wide(self.blanks().len()),
            serving: 0,
            draining: 0,
            calls: 0,
            queued: 0,
            started: self.tally.started(),
            ended: self.tally.ended(),
        };
        for group in groups {
            let state = group.lock();
            let draining = wide(state.members.iter().filter(|member| member.draining).count());
            gauges.draining = gauges.draining.saturating_add(draining);
            gauges.serving = gauges.serving.saturating_add(wide(state.members.len()).saturating_sub(draining));
            gauges.calls = gauges.calls.saturating_add(u64::from(state.active));
            gauges.queued = gauges.queued.saturating_add(wide(state.waiting.len()));
        }
        gauges
    }
}
