//! A call's place in a cell.
//!
//! Owns giving it back, however the call ends. Must never be dropped while a lock of the channel or of the group is
//! held: giving back takes the group's.

use std::sync::Arc;

use cofferdam_model::Ending;

use super::Cell;
use super::group::Group;
use super::tenant::Pass;

/// One of the calls a function, and its tenant, may have under way at once.
pub(super) struct Ticket {
    group: Arc<Group>,
    _pass: Pass,
}

impl Ticket {
    /// For a call already counted.
    pub(super) fn new(group: Arc<Group>, pass: Pass) -> Self {
        Self { group, _pass: pass }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.group.uncount();
    }
}

/// One of the calls a cell takes at once.
pub(super) struct Seat {
    group: Arc<Group>,
    cell: Arc<Cell>,
    ordinal: u64,
    soiled: bool,
    held: bool,
}

impl Seat {
    /// For a call already counted.
    pub(super) fn new(group: Arc<Group>, cell: Arc<Cell>, ordinal: u64) -> Self {
        Self { group, cell, ordinal, soiled: false, held: true }
    }

    /// Gives the seat up without giving it back: the caller, who has the group locked, does that.
    pub(super) fn forget(mut self) -> Arc<Cell> {
        self.held = false;
        self.cell.clone()
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if self.held {
            Group::leave(&self.group, &self.cell, self.soiled);
        }
    }
}

/// A call's place in a cell, and in the function's bound on calls.
pub(crate) struct Lease {
    seat: Seat,
    _ticket: Ticket,
}

impl Lease {
    pub(super) fn new(seat: Seat, ticket: Ticket) -> Self {
        Self { seat, _ticket: ticket }
    }

    /// The cell.
    pub(crate) fn cell(&self) -> &Arc<Cell> {
        &self.seat.cell
    }

    /// The how-manieth call of the cell this is.
    pub(crate) fn ordinal(&self) -> u64 {
        self.seat.ordinal
    }

    /// Notes how the call ended. A guest that was stopped by force may have left its cell in a state nobody foresaw.
    pub(crate) fn ended(&mut self, ending: Ending) {
        self.seat.soiled = matches!(
            ending,
            Ending::Trapped
                | Ending::MemoryExhausted
                | Ending::CpuExhausted
                | Ending::StackExhausted
                | Ending::HandlesExhausted
                | Ending::HostcallExhausted
        );
    }
}
