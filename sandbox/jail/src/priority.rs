//! Who waits for a processor: first the cells, among them those that compute for long, and last of all the node.
//!
//! Owns two requests to the scheduler of Linux, both without effect where it does not know them. Short slices (since
//! 6.12, EEVDF) let whoever has little to do go ahead of whoever computes on and on: a neighbour that saturates every
//! processor costs others one short turn and not several long ones. The weight of a session (`autogroup(7)`) has cells
//! yield to everything else on the host. Must never be needed for safety: limits are enforced elsewhere.

use std::time::Duration;

use crate::confine::Role;
use crate::sys;

/// The slice of the node: the least the kernel takes.
const PROMPT: Duration = Duration::from_micros(100);
/// The slice of a cell: long enough for most calls, and longer than the node's. Whoever has the processor keeps it for
/// its slice, and only a shorter one breaks in: with equal ones, the node would wait for the kernel's next tick, up to
/// 4 ms, whenever it has to do with a cell that has just begun to compute.
const CELL: Duration = Duration::from_micros(150);
/// The least weight a session can have.
const LAST: &str = "19";

/// Gives this thread, and all it starts from now on, short turns on the processor, and thereby early ones.
pub fn answer_promptly() {
    // An older kernel has one slice for all; then that is what there is.
    let _ = sys::set_slice(PROMPT);
}

/// Has a cell or a compiler wait for the rest of the host, where the session it is in is its alone.
pub(crate) fn step_back(role: Role, own_session: bool) {
    if own_session {
        // Missing where sessions are not scheduled as groups, and refused for a moment to a user who asks often.
        let _ = std::fs::write("/proc/self/autogroup", LAST);
    }
    let slice = match role {
        Role::Worker => CELL,
        Role::Compiler => Duration::ZERO,
    };
    let _ = sys::set_slice(slice);
}
