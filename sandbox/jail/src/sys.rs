//! The system calls that need `unsafe`, each wrapped so that its callers do not.
//!
//! Owns fork, exit, closing of descriptors, unshare, signal dispositions, memory that is locked, and the allocator that
//! wipes what it takes back. Must never contain a decision.
#![expect(unsafe_code, reason = "the one place of this crate where the kernel is spoken to without a safe wrapper")]

use std::alloc::{GlobalAlloc, Layout, System};
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

/// Memory of its own pages, wiped before it goes.
pub(crate) struct Pages {
    start: *mut u8,
    length: usize,
}

// SAFETY: the pages belong to this value alone, wherever it is moved to.
unsafe impl Send for Pages {}
// SAFETY: what is shared is read only; who writes promises to be alone with those bytes.
unsafe impl Sync for Pages {}

impl Pages {
    /// Fresh pages of at least this length, full of zeros.
    pub(crate) fn map(length: usize) -> io::Result<Self> {
        let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: asks for a new mapping wherever there is room; touches no memory there is.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), length, access, kind, -1, 0) };
        if start == libc::MAP_FAILED {
            Err(io::Error::last_os_error())
        } else {
            Ok(Self { start: start.cast(), length })
        }
    }

    /// Keeps them out of swap.
    pub(crate) fn lock(&self) -> io::Result<()> {
        // SAFETY: the range is this value's own mapping.
        done(unsafe { libc::mlock(self.start.cast(), self.length) })
    }

    /// Keeps them out of core dumps, and out of children.
    pub(crate) fn hide(&self) -> io::Result<()> {
        for advice in [libc::MADV_DONTDUMP, libc::MADV_WIPEONFORK] {
            // SAFETY: the range is this value's own mapping, and neither advice changes what it holds here.
            done(unsafe { libc::madvise(self.start.cast(), self.length, advice) })?;
        }
        Ok(())
    }

    /// The 32 bytes at a place, which nobody writes while they are looked at.
    pub(crate) fn slot(&self, at: usize) -> Option<&[u8; 32]> {
        let place = self.place(at)?;
        // SAFETY: the place lies inside the mapping, which lives as long as this borrow; bytes need no alignment.
        Some(unsafe { &*place })
    }

    /// Puts 32 bytes at a place that nobody looks at.
    pub(crate) fn set(&self, at: usize, bytes: &[u8; 32]) {
        if let Some(place) = self.place(at) {
            // SAFETY: the place lies inside the mapping, and the caller promises that nobody has borrowed it.
            unsafe { place.copy_from_nonoverlapping(bytes, 1) };
        }
    }

    fn place(&self, at: usize) -> Option<*mut [u8; 32]> {
        let end = at.checked_add(32)?;
        // SAFETY: the offset lies inside the mapping.
        (end <= self.length).then(|| unsafe { self.start.add(at) }.cast())
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: the range is this value's own mapping.
        unsafe { libc::explicit_bzero(self.start.cast(), self.length) };
        // SAFETY: nothing borrows from it any more, for this value is being dropped.
        unsafe { libc::munmap(self.start.cast(), self.length) };
    }
}

fn done(result: i32) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The system's allocator, with memory wiped before it is given back: nothing stays behind in what was freed, whoever
/// freed it.
pub struct WipingAllocator;

/// From this length on, whole pages are given back to the kernel instead of being written over.
const LARGE: usize = 1024 * 1024;
const PAGE: usize = 4096;

// SAFETY: every block comes from the system's allocator and goes back to it with the layout it came with.
unsafe impl GlobalAlloc for WipingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise is the one asked for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise is the one asked for.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        wipe(block, layout.size());
        // SAFETY: the caller's promise is the one asked for.
        unsafe { System.dealloc(block, layout) };
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the alignment is that of a layout there is, and the caller promises that the size fits it.
        let fresh = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        // SAFETY: the caller promises that the size is not zero.
        let moved = unsafe { System.alloc(fresh) };
        if !moved.is_null() {
            // SAFETY: both blocks are at least this long, and the new one is nobody else's.
            unsafe { moved.copy_from_nonoverlapping(block, size.min(layout.size())) };
            // SAFETY: the caller promises that the block is of this layout, and it is not used again.
            unsafe { self.dealloc(block, layout) };
        }
        moved
    }
}

/// Wipes a block that is about to be given back.
fn wipe(block: *mut u8, length: usize) {
    if length < LARGE {
        // SAFETY: the block is this long, and nobody uses it any more.
        return unsafe { libc::explicit_bzero(block.cast(), length) };
    }
    // Writing over pages that were never touched would make them: those that lie wholly inside are dropped instead.
    let before = block.align_offset(PAGE).min(length);
    let whole = (length - before) / PAGE * PAGE;
    // SAFETY: the offset lies inside the block.
    let middle = unsafe { block.add(before) };
    // SAFETY: the pages lie inside the block, whose content nobody needs any more; they read as zeros from now on.
    let dropped = unsafe { libc::madvise(middle.cast(), whole, libc::MADV_DONTNEED) } == 0;
    let from = if dropped { whole } else { 0 };
    // SAFETY: the block is at least this long, and nobody uses it any more.
    unsafe { libc::explicit_bzero(block.cast(), before) };
    // SAFETY: the offset lies inside the block.
    let rest = unsafe { middle.add(from) };
    // SAFETY: this is what is left of the block, and nobody uses it any more.
    unsafe { libc::explicit_bzero(rest.cast(), length - before - from) };
}

/// A raw system call, for tests that try what the jail forbids.
#[cfg(test)]
pub(crate) fn raw(number: libc::c_long, args: [usize; 6]) -> io::Result<libc::c_long> {
    let [a, b, c, d, e, f] = args;
    // SAFETY: the tests pass numbers, null, or pointers to buffers that outlive the call.
    let result = unsafe { libc::syscall(number, a, b, c, d, e, f) };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
