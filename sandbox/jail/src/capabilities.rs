//! Capabilities: none held, none to be had.
//!
//! Owns the bounding, ambient and process sets. Must never claim an empty set it did not read back.

use rustix::io::Errno;
use rustix::thread::{CapabilitySet, CapabilitySets};

use crate::report::{LayerName, Report, State};

pub(crate) fn drop_all(report: &mut Report) {
    let bounding = empty_bounding_set();
    match empty_own_sets() {
        Ok(true) => match bounding {
            Ok(()) => report.on(LayerName::Capabilities, "none held, none inheritable, empty bounding set"),
            Err(error) => report.add(
                LayerName::Capabilities,
                State::Reduced,
                format_args!("none held, but the bounding set stays ({error})"),
            ),
        },
        Ok(false) => report.off(LayerName::Capabilities, "still held after dropping"),
        Err(error) => report.off(LayerName::Capabilities, error),
    }
}

/// Drops one after the other until the kernel knows no further one.
fn empty_bounding_set() -> rustix::io::Result<()> {
    for bit in 0..u64::BITS {
        match rustix::thread::remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(1 << bit)) {
            Ok(()) => {}
            Err(Errno::INVAL) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn empty_own_sets() -> rustix::io::Result<bool> {
    let none = CapabilitySet::empty();
    rustix::thread::clear_ambient_capability_set()?;
    rustix::thread::set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })?;
    let held = rustix::thread::capabilities(None)?;
    Ok(held.effective.is_empty() && held.permitted.is_empty() && held.inheritable.is_empty())
}
