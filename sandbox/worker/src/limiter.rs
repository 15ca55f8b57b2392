//! Memory of one call: all linear memories and tables of its instance, summed.
//!
//! Owns the sum, its peak and the memory of having refused. Must never count one memory at a time: a guest with ten of
//! them would get ten times its limit.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use cofferdam_model::limits::component::{CORE_INSTANCES, MEMORIES, TABLES};
use wasmtime::ResourceLimiter;

/// Bytes of a table element.
const ELEMENT_BYTES: usize = size_of::<usize>();

/// What became of a call's memory, for the report at its end.
#[derive(Default)]
pub(crate) struct MemoryUse {
    peak: AtomicUsize,
    refused: AtomicBool,
}

impl MemoryUse {
    /// The largest sum, bytes.
    pub(crate) fn peak(&self) -> u64 {
        u64::try_from(self.peak.load(Relaxed)).unwrap_or(u64::MAX)
    }

    /// Whether a growth was refused.
    pub(crate) fn refused(&self) -> bool {
        self.refused.load(Relaxed)
    }
}

/// Says yes or no to growth, for one store.
pub(crate) struct Limiter {
    limit: usize,
    used: usize,
    /// Bytes of the growth allowed last, to be taken back if it fails all the same.
    last: usize,
    seen: Arc<MemoryUse>,
}

impl Limiter {
    /// A limiter that allows `bytes`, reporting to `seen`.
    pub(crate) fn new(bytes: u64, seen: Arc<MemoryUse>) -> Self {
        Self { limit: usize::try_from(bytes).unwrap_or(usize::MAX), used: 0, last: 0, seen }
    }

    fn grow(&mut self, by: usize) -> bool {
        let wanted = self.used.saturating_add(by);
        if wanted > self.limit {
            self.seen.refused.store(true, Relaxed);
            self.last = 0;
            return false;
        }
        (self.used, self.last) = (wanted, by);
        self.seen.peak.fetch_max(wanted, Relaxed);
        true
    }

    fn take_back(&mut self) {
        self.used = self.used.saturating_sub(self.last);
        self.last = 0;
    }
}

impl ResourceLimiter for Limiter {
    fn memory_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        Ok(self.grow(desired.saturating_sub(current)))
    }

    fn memory_grow_failed(&mut self, _: wasmtime::Error) -> wasmtime::Result<()> {
        self.take_back();
        Ok(())
    }

    fn table_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        Ok(self.grow(desired.saturating_sub(current).saturating_mul(ELEMENT_BYTES)))
    }

    fn table_grow_failed(&mut self, _: wasmtime::Error) -> wasmtime::Result<()> {
        self.take_back();
        Ok(())
    }

    fn instances(&self) -> usize {
        usize::try_from(CORE_INSTANCES).unwrap_or(usize::MAX)
    }

    fn tables(&self) -> usize {
        usize::try_from(TABLES).unwrap_or(usize::MAX)
    }

    fn memories(&self) -> usize {
        usize::try_from(MEMORIES).unwrap_or(usize::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memories_and_tables_share_one_limit() {
        let seen = Arc::new(MemoryUse::default());
        let mut limiter = Limiter::new(200_000, seen.clone());
        assert!(limiter.memory_growing(0, 65_536, None).unwrap());
        assert!(limiter.memory_growing(0, 65_536, None).unwrap(), "a second memory");
        assert!(limiter.table_growing(0, 1000, None).unwrap());
        assert!(!seen.refused());
        assert!(!limiter.memory_growing(65_536, 131_072, None).unwrap());
        assert!(seen.refused());
        assert_eq!(seen.peak(), 2 * 65_536 + 8 * 1000);
    }

    #[test]
    fn growth_that_fails_after_all_is_not_charged() {
        let mut limiter = Limiter::new(65_536, Arc::default());
        assert!(limiter.memory_growing(0, 65_536, None).unwrap());
        limiter.memory_grow_failed(wasmtime::format_err!("no memory")).unwrap();
        assert!(limiter.memory_growing(0, 65_536, None).unwrap());
    }
}
