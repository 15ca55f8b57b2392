//! The only unsafe code of the cell: the mapped artifact, and making its text executable.
//!
//! Must never decide anything: lengths and offsets are checked by the callers, who are safe code.
#![expect(unsafe_code, reason = "memory maps and trusted machine code have no safe form")]

use std::io;
use std::os::fd::AsFd;
use std::ptr::{NonNull, null_mut};
use std::sync::Arc;

use rustix::mm::{MapFlags, MprotectFlags, ProtFlags};
use wasmtime::component::Component;
use wasmtime::{CustomCodeMemory, Engine};

/// What the compiler aligns machine code to, and an artifact its parts.
pub(crate) const PAGE_BYTES: usize = 4096;

/// A private, read-only map of a whole file. Never unmapped: a cell serves one artifact for its whole life.
#[derive(Clone, Copy)]
pub(crate) struct Mapping(NonNull<[u8]>);

impl Mapping {
    /// Maps `length` bytes from the start of `file`, which must be at least that long.
    pub(crate) fn of(file: impl AsFd, length: usize) -> io::Result<Self> {
        // SAFETY: a fresh map at an address the kernel chooses touches no existing memory.
        let base = unsafe { rustix::mm::mmap(null_mut(), length, ProtFlags::READ, MapFlags::PRIVATE, file, 0) }?;
        let base = NonNull::new(base.cast::<u8>()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self(NonNull::slice_from_raw_parts(base, length)))
    }

    /// The bytes.
    pub(crate) fn bytes(&self) -> &'static [u8] {
        // SAFETY: mapped readable for the life of the process; the file is one that only the service could write,
        // and it never writes an artifact twice.
        unsafe { self.0.as_ref() }
    }
}

/// Makes a component of the machine code at `start` of the map. `start` must be a multiple of the page size.
///
/// The trust this needs was established by the gateway: it hands over only artifacts whose MAC it has verified, so
/// the bytes are what our own compiler wrote.
pub(crate) fn component(engine: &Engine, artifact: Mapping, start: usize) -> wasmtime::Result<Component> {
    let bytes =
        artifact.bytes().get(start..).ok_or_else(|| wasmtime::format_err!("artifact shorter than its header"))?;
    // SAFETY: our own compiler's output (see above), readable, page-aligned, and mapped for the life of the process.
    unsafe { Component::deserialize_raw(engine, NonNull::from(bytes)) }
}

/// Switches the text of a mapped artifact between readable and executable; it is never writable.
pub(crate) struct MappedCode;

impl MappedCode {
    /// As the engine wants it.
    pub(crate) fn shared() -> Arc<dyn CustomCodeMemory> {
        Arc::new(Self)
    }

    fn protect(start: *const u8, length: usize, flags: MprotectFlags) -> wasmtime::Result<()> {
        // SAFETY: called by the engine for the text section of a component made by `component` above, and only there;
        // taking write access away or giving execute access to that range breaks no reference to it.
        unsafe { rustix::mm::mprotect(start.cast_mut().cast(), length, flags) }?;
        Ok(())
    }
}

impl CustomCodeMemory for MappedCode {
    fn required_alignment(&self) -> usize {
        PAGE_BYTES
    }

    fn publish_executable(&self, start: *const u8, length: usize) -> wasmtime::Result<()> {
        Self::protect(start, length, MprotectFlags::READ | MprotectFlags::EXEC)
    }

    fn unpublish_executable(&self, start: *const u8, length: usize) -> wasmtime::Result<()> {
        Self::protect(start, length, MprotectFlags::READ)
    }
}
