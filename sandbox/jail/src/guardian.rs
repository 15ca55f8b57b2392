//! The two sides of the fork: the jailed process, and the guardian its parent knows.
//!
//! Owns the tie between their lives, in both directions. The guardian must never read a byte of the channel.

use std::os::fd::{OwnedFd, RawFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions};

use crate::error::JailError;
use crate::report::{LayerName, Report};
use crate::{seccomp, sys};

/// Exit status of a guardian that could not do its work.
const GUARDIAN_FAILED: i32 = 125;

/// Forks. Returns only in the child; the caller's own process becomes the guardian.
pub(crate) fn fork(lifeline: Option<RawFd>, report: &mut Report) -> Result<(), JailError> {
    let guardian = rustix::process::pidfd_open(rustix::process::getpid(), PidfdFlags::empty());
    match sys::fork().map_err(JailError::Fork)? {
        sys::Side::Parent(child) => guard(child, lifeline),
        sys::Side::Child => tie(guardian, report),
    }
}

/// The child's side: die when the guardian dies, also when it already has.
fn tie(guardian: rustix::io::Result<OwnedFd>, report: &mut Report) -> Result<(), JailError> {
    if let Err(error) = rustix::process::set_parent_process_death_signal(Some(Signal::KILL)) {
        report.off(LayerName::DeathSignal, error);
        return Ok(());
    }
    match guardian {
        Err(error) => report.off(LayerName::DeathSignal, format_args!("pidfd_open: {error}")),
        // The parent's number cannot tell: seen from inside a pid namespace it is always 0.
        Ok(guardian) => match poll(&mut [PollFd::new(&guardian, PollFlags::IN)], Some(&Timespec::default())) {
            Ok(0) => report.on(LayerName::DeathSignal, "dies with its guardian"),
            Ok(_) => return Err(JailError::Orphaned),
            Err(error) => report.off(LayerName::DeathSignal, format_args!("poll: {error}")),
        },
    }
    Ok(())
}

/// The guardian's side: wait for the child to end or the parent to lose interest, then end likewise.
fn guard(child: i32, lifeline: Option<RawFd>) -> ! {
    let Some(pid) = Pid::from_raw(child) else { sys::exit_now(GUARDIAN_FAILED) };
    let line = sys::keep_only(lifeline);
    let ended = rustix::process::pidfd_open(pid, PidfdFlags::empty());
    seccomp::install_guardian();
    if let (Ok(ended), Some(line)) = (&ended, &line) {
        watch(pid, ended, line);
    }
    loop {
        match rustix::process::waitpid(Some(pid), WaitOptions::empty()) {
            Err(rustix::io::Errno::INTR) => {}
            Ok(Some((_, status))) => match (status.exit_status(), status.terminating_signal()) {
                (Some(code), _) => sys::exit_now(code),
                (None, Some(signal)) => sys::die_by(signal),
                (None, None) => {}
            },
            Ok(None) | Err(_) => sys::exit_now(GUARDIAN_FAILED),
        }
    }
}

/// Returns when the child has ended, having killed it if the lifeline was cut first.
fn watch(pid: Pid, ended: &OwnedFd, line: &OwnedFd) {
    loop {
        let mut fds = [PollFd::new(ended, PollFlags::IN), PollFd::new(line, PollFlags::empty())];
        match poll(&mut fds, None) {
            Err(rustix::io::Errno::INTR) => {}
            // Hang-ups and errors are reported without being asked for; nothing else was.
            Ok(_) if fds.iter().skip(1).any(|fd| !fd.revents().is_empty()) => {
                // It cannot fail for a child not yet waited for.
                let _ = rustix::process::kill_process(pid, Signal::KILL);
                return;
            }
            Ok(_) | Err(_) => return,
        }
    }
}
