//! The system calls that need `unsafe`, each wrapped so that its callers do not.
//!
//! Owns fork, exit, closing of descriptors, unshare and signal dispositions. Must never contain a decision.
#![expect(unsafe_code, reason = "the one place of this crate where the kernel is spoken to without a safe wrapper")]

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use rustix::thread::UnshareFlags;

/// Number of threads of this process. What cannot be counted is taken for many.
pub(crate) fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").map_or(usize::MAX, Iterator::count)
}

/// Closes every descriptor except 0, 1, 2 and those in `keep`.
pub(crate) fn close_all_but(keep: &[RawFd]) -> io::Result<()> {
    let mut keep: Vec<u32> = keep.iter().filter_map(|fd| u32::try_from(*fd).ok()).filter(|fd| *fd > 2).collect();
    keep.sort_unstable();
    let mut from = 3;
    for fd in keep {
        if fd > from {
            close_range(from, fd - 1)?;
        }
        from = from.max(fd.saturating_add(1));
    }
    close_range(from, u32::MAX)
}

/// Closes the descriptors `first..=last`.
pub(crate) fn close_range(first: u32, last: u32) -> io::Result<()> {
    // SAFETY: takes integers only. A descriptor owned by a live value may be closed under it; this runs before such
    // values exist, or in a process that uses none of them again.
    let done = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Closes every descriptor but `line`, 0, 1 and 2 included, and hands that one over. For a process that uses no other.
pub(crate) fn keep_only(line: Option<RawFd>) -> Option<OwnedFd> {
    let number = line.and_then(|fd| u32::try_from(fd).ok());
    match number {
        None => drop(close_range(0, u32::MAX)),
        Some(number) => {
            if number > 0 {
                drop(close_range(0, number - 1));
            }
            drop(close_range(number.saturating_add(1), u32::MAX));
        }
    }
    let line = line?;
    // SAFETY: takes integers only; tells whether the descriptor is open.
    let open = unsafe { libc::fcntl(line, libc::F_GETFD) } != -1;
    // SAFETY: the descriptor is open, and the caller promises to use it through nothing else.
    open.then(|| unsafe { OwnedFd::from_raw_fd(line) })
}

/// Which side of a fork this is.
pub(crate) enum Side {
    /// The one that called; holds the child's number.
    Parent(i32),
    /// The new one.
    Child,
}

/// Makes a second process out of this one.
pub(crate) fn fork() -> io::Result<Side> {
    // SAFETY: the callers either have one thread (confine) or do nothing in the child that depends on a lock another
    // thread could have held (probe; the allocator's locks are taken care of by the C library).
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Side::Child),
        child => Ok(Side::Parent(child)),
    }
}

/// Ends the process at once, without destructors or exit handlers, which may belong to the other side of a fork.
pub(crate) fn exit_now(status: i32) -> ! {
    // SAFETY: does not return and touches no memory.
    unsafe { libc::_exit(status) }
}

/// Leaves the namespaces in `flags` for new ones.
pub(crate) fn unshare(flags: UnshareFlags) -> rustix::io::Result<()> {
    debug_assert!(!flags.contains(UnshareFlags::FILES));
    // SAFETY: only unsafe with UnshareFlags::FILES, which no caller passes.
    unsafe { rustix::thread::unshare_unsafe(flags) }
}

/// Ends the process by `signal`, as if it had been hit by it.
pub(crate) fn die_by(signal: i32) -> ! {
    // SAFETY: the default disposition runs no code of ours.
    unsafe { libc::signal(signal, libc::SIG_DFL) };
    // SAFETY: takes an integer only.
    unsafe { libc::raise(signal) };
    exit_now(128_i32.saturating_add(signal))
}

/// The kernel's `struct sched_attr`, as of its first version.
#[repr(C)]
struct SchedAttr {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

/// Asks for a slice of the processor of this length, for this thread and those it starts; none is the kernel's own.
pub(crate) fn set_slice(slice: Duration) -> io::Result<()> {
    let nice = rustix::process::getpriority_process(None)?;
    let runtime = u64::try_from(slice.as_nanos()).unwrap_or(u64::MAX);
    let size = u32::try_from(size_of::<SchedAttr>()).unwrap_or_default();
    let attr = SchedAttr { size, policy: 0, flags: 0, nice, priority: 0, runtime, deadline: 0, period: 0 };
    // SAFETY: the structure outlives the call, says its own size, and is only read.
    let set = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attr, 0) };
    if set == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// A raw system call, for tests that try what the jail forbids.
#[cfg(test)]
pub(crate) fn raw(number: libc::c_long, args: [usize; 6]) -> io::Result<libc::c_long> {
    let [a, b, c, d, e, f] = args;
    // SAFETY: the tests pass numbers, null, or pointers to buffers that outlive the call.
    let result = unsafe { libc::syscall(number, a, b, c, d, e, f) };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
