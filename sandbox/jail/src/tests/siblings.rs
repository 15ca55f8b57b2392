//! One cell against another: a spy and a cell that holds a secret, both jailed, side by side.
//!
//! Owns the acts of the spy. Both are copies of this process, so the secret lies at the same address in both and the
//! spy knows where to look: more than code that broke out would know.

use std::io::{Error, ErrorKind};
use std::os::unix::fs::FileExt;

use super::{End, Victim, call};
use crate::confine::Role;
use crate::report::LayerName;

/// What the other cell holds.
static SECRET: [u8; 32] = *b"the other tenants secret, 32 b.\0";

/// What a spy tries on the process with this number.
pub(super) fn perform(act: &str, pid: usize) -> std::io::Result<()> {
    match act {
        "read the sibling" => {
            let mut seen = [0_u8; 32];
            let ours = [seen.as_mut_ptr().addr(), seen.len()];
            let theirs = [SECRET.as_ptr().addr(), seen.len()];
            call("process_vm_readv", [pid, ours.as_ptr().addr(), 1, theirs.as_ptr().addr(), 1, 0])?;
            found(&seen)
        }
        "write to the sibling" => {
            let ours = [SECRET.as_ptr().addr(), SECRET.len()];
            call("process_vm_writev", [pid, ours.as_ptr().addr(), 1, ours.as_ptr().addr(), 1, 0])
        }
        "open the sibling's memory" => {
            let mut seen = [0_u8; 32];
            let memory = std::fs::File::open(format!("/proc/{pid}/mem"))?;
            memory.read_exact_at(&mut seen, u64::try_from(SECRET.as_ptr().addr()).unwrap_or(0))?;
            found(&seen)
        }
        "open the sibling's environment" => std::fs::read(format!("/proc/{pid}/environ")).map(drop),
        "open the sibling's descriptors" => std::fs::read_link(format!("/proc/{pid}/fd/0")).map(drop),
        "trace the sibling" => call("ptrace", [0x4206, pid, 0, 0, 0, 0]),
        "signal the sibling" => call("kill", [pid, 0, 0, 0, 0, 0]),
        "stop the sibling" => call("tgkill", [pid, pid, 19, 0, 0, 0]),
        "hold the sibling" => call("pidfd_open", [pid, 0, 0, 0, 0, 0]),
        "enter the sibling's namespaces" => {
            let namespace = std::fs::File::open(format!("/proc/{pid}/ns/mnt"))?;
            let descriptor = std::os::fd::AsRawFd::as_raw_fd(&namespace);
            call("setns", [usize::try_from(descriptor).unwrap_or(0), 0, 0, 0, 0, 0])
        }
        other => Err(Error::new(ErrorKind::Unsupported, other.to_owned())),
    }
}

fn found(seen: &[u8]) -> std::io::Result<()> {
    if seen == SECRET { Ok(()) } else { Err(Error::from(ErrorKind::InvalidData)) }
}

const ACTS: [&str; 10] = [
    "read the sibling",
    "write to the sibling",
    "open the sibling's memory",
    "open the sibling's environment",
    "open the sibling's descriptors",
    "trace the sibling",
    "signal the sibling",
    "stop the sibling",
    "hold the sibling",
    "enter the sibling's namespaces",
];

/// The jailed process below a guardian; the guardian itself where it has no other.
fn jailed(guardian: &Victim) -> i32 {
    let guardian = guardian.pid.as_raw_nonzero().get();
    let below = std::fs::read_to_string(format!("/proc/{guardian}/task/{guardian}/children")).unwrap();
    below.split_whitespace().next().map_or(guardian, |pid| pid.parse().unwrap())
}

/// Sets a spy without some layers on a cell that has all of them.
fn spy(without: &[LayerName], act: &str) -> End {
    let mut sibling = Victim::start(Role::Worker, &[], "spin");
    sibling.await_act();
    let seen = Victim::start(Role::Worker, without, &format!("{act}={}", jailed(&sibling))).end();
    rustix::process::kill_process(sibling.pid, rustix::process::Signal::KILL).unwrap();
    sibling.wait();
    seen.end
}

#[test]
fn jailed_code_cannot_reach_another_cell() {
    for act in ACTS {
        let end = spy(&[], act);
        assert!(matches!(end, End::Refused(_) | End::Killed(libc::SIGSYS)), "{act}: {end:?}");
    }
}

#[test]
fn without_the_filter_another_cell_is_still_out_of_reach() {
    for act in ACTS {
        let end = spy(&[LayerName::Seccomp], act);
        assert!(matches!(end, End::Refused(_)), "{act}: {end:?}");
    }
}

#[test]
fn without_filter_and_pid_namespace_another_cells_memory_is_still_closed() {
    let without = [LayerName::Seccomp, LayerName::PidNamespace, LayerName::EmptyRoot, LayerName::Landlock];
    for act in ["read the sibling", "write to the sibling", "open the sibling's memory", "trace the sibling"] {
        let end = spy(&without, act);
        assert!(matches!(end, End::Refused(_)), "{act}: {end:?}");
    }
}

/// The acts do work where nothing is in their way: on a process's own memory, which needs no right at all.
#[test]
fn the_acts_of_the_spy_are_real() {
    let own = usize::try_from(std::process::id()).unwrap();
    for act in ["read the sibling", "open the sibling's memory", "signal the sibling", "hold the sibling"] {
        perform(act, own).unwrap_or_else(|error| panic!("{act}: {error}"));
    }
}
