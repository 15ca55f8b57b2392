//! The order of the jail: one function, one step per paragraph.
//!
//! Owns which layers a role gets and in which order, and the reason for the order. Must never leave a step out in
//! silence: each adds its line to the report.

use std::os::fd::RawFd;

use crate::error::JailError;
use crate::report::{LayerName, Report, State};
use crate::{capabilities, guardian, identity, landlock, limits, namespaces, priority, root, seccomp, sys};

/// What the process is going to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// A cell: runs guests, talks over descriptor 0.
    Worker,
    /// One compile: reads descriptor 0, writes descriptor 1.
    Compiler,
}

impl Role {
    /// The descriptor whose far end is the parent: when that end closes, nobody waits for this process any more.
    fn lifeline(self) -> RawFd {
        match self {
            Self::Worker => 0,
            Self::Compiler => 1,
        }
    }
}

/// Shuts the calling process in and returns in its jailed child. To be called first thing in `main`, with one
/// thread, before any untrusted byte is read. Descriptors 0, 1, 2 and `keep` stay open, all others are closed.
///
/// The calling process itself never returns: it becomes the guardian, which ends as the jailed one ends (same exit
/// status, or same signal) and kills it when the far end of the lifeline (descriptor 0 of a worker, 1 of a
/// compiler) closes. A layer this host refuses is a line in the report; the caller decides what to do about it.
pub fn confine(role: Role, keep: &[RawFd]) -> Result<Report, JailError> {
    if std::env::vars_os().next().is_some() {
        return Err(JailError::Environment);
    }
    confine_by(&Plan { role, keep, lifeline: Some(role.lifeline()), without: &[] })
}

/// What [`confine_by`] shall do.
pub(crate) struct Plan<'a> {
    pub(crate) role: Role,
    pub(crate) keep: &'a [RawFd],
    pub(crate) lifeline: Option<RawFd>,
    /// Layers left out, to show that the others hold alone. Empty outside tests.
    pub(crate) without: &'a [LayerName],
}

impl Plan<'_> {
    fn wants(&self, name: LayerName) -> bool {
        !self.without.contains(&name)
    }
}

pub(crate) fn confine_by(plan: &Plan<'_>) -> Result<Report, JailError> {
    let mut report = Report::default();

    // Credentials, namespaces and filters belong to threads: a second thread would keep what this one gives up.
    let threads = sys::threads();
    if threads != 1 {
        return Err(JailError::Threads(threads));
    }

    // First of all nothing inherited may be left to reach out with, whatever fails later.
    sys::close_all_but(plan.keep).map_err(JailError::Descriptors)?;
    report.on(LayerName::Descriptors, format_args!("0, 1, 2 and {} more", plan.keep.len()));
    identity::clear_umask();
    let own_session = identity::leave_session();
    priority::step_back(plan.role, own_session);

    // Root makes its namespaces while it still may, so that they are owned by the host and even a regained
    // capability would not reach them; an ordinary user needs a user namespace first to make any.
    let own = namespaces::Own::open();
    if identity::is_root() {
        namespaces::others(&mut report, plan.without);
        if plan.wants(LayerName::EmptyRoot) {
            root::empty(&mut report);
        }
        identity::drop_root(&mut report);
        namespaces::user(&own, &mut report);
    } else {
        identity::drop_root(&mut report);
        namespaces::user(&own, &mut report);
        namespaces::others(&mut report, plan.without);
        if plan.wants(LayerName::EmptyRoot) {
            root::empty(&mut report);
        }
    }
    drop(own);

    // Both processes to come shall be powerless and unreadable, so this precedes the fork.
    capabilities::drop_all(&mut report);
    identity::no_new_privileges(&mut report);
    identity::not_dumpable(&mut report);

    // The child is the first process of its pid namespace. From here on there are two of us.
    guardian::fork(plan.lifeline, &mut report)?;

    // Limits count against the new identity only from here: before, the guardian's fork would have been counted.
    limits::apply(plan.role, &mut report);

    // Landlock forbids mounting and needs no_new_privs; it must come after both.
    if plan.wants(LayerName::Landlock) {
        landlock::deny_all(&mut report);
    }

    // Last, since it forbids nearly everything done above.
    if plan.wants(LayerName::Seccomp) {
        seccomp::install(plan.role, &mut report)?;
    }
    Ok(report)
}

/// What a step that either worked or did not has to say.
pub(crate) fn note(report: &mut Report, name: LayerName, what: &str, done: rustix::io::Result<()>) {
    match done {
        Ok(()) => report.add(name, State::On, what),
        Err(error) => report.add(name, State::Off, format_args!("{what}: {error}")),
    }
}
