//! Memory of one call: all linear memories and tables of its instance, summed.
//!
//! Owns the sum, its peak, what it comes to over time, and the memory of having refused. Must never count one memory at
//! a time: a guest with ten of them would get ten times its limit.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use cofferdam_model::clock::Clock;
use cofferdam_model::limits::component::{CORE_INSTANCES, MEMORIES, TABLES};
use wasmtime::ResourceLimiter;

/// Bytes of a table element.
const ELEMENT_BYTES: usize = size_of::<usize>();
/// Byte-nanoseconds of one KiB held for one millisecond.
const KIB_MS: u128 = 1024 * 1_000_000;

/// What became of a call's memory, for the report at its end.
#[derive(Default)]
pub(crate) struct MemoryUse {
    peak: AtomicUsize,
    held_kib_ms: AtomicU64,
    refused: AtomicBool,
}

impl MemoryUse {
    /// What was held over time, KiB x milliseconds, rounded up. Known once the store is gone.
    pub(crate) fn held_kib_ms(&self) -> u64 {
        self.held_kib_ms.load(Relaxed)
    }

    /// The largest sum, bytes.
    pub(crate) fn peak(&self) -> u64 {
        u64::try_from(self.peak.load(Relaxed)).unwrap_or(u64::MAX)
    }

    /// Whether a growth was refused.
    pub(crate) fn refused(&self) -> bool {
        self.refused.load(Relaxed)
    }
}

/// Says yes or no to growth, for one store. Memories and tables never shrink, so what is used is used until the store
/// is dropped, and this with it.
pub(crate) struct Limiter {
    limit: usize,
    used: usize,
    /// Bytes of the growth allowed last, to be taken back if it fails all the same.
    last: usize,
    /// Bytes x nanoseconds held until `since`.
    held: u128,
    since: Duration,
    clock: Arc<dyn Clock>,
    seen: Arc<MemoryUse>,
}

impl Limiter {
    /// A limiter that allows `bytes`, reporting to `seen`.
    pub(crate) fn new(bytes: u64, clock: Arc<dyn Clock>, seen: Arc<MemoryUse>) -> Self {
        let limit = usize::try_from(bytes).unwrap_or(usize::MAX);
        Self { limit, used: 0, last: 0, held: 0, since: clock.monotonic(), clock, seen }
    }

    /// Charges what has been used for the time since it last changed.
    fn settle(&mut self) {
        let now = self.clock.monotonic();
        let passed = now.saturating_sub(self.since).as_nanos();
        self.held = self.held.saturating_add(passed.saturating_mul(u128::try_from(self.used).unwrap_or(u128::MAX)));
        self.since = now;
    }

    fn grow(&mut self, by: usize) -> bool {
        let wanted = self.used.saturating_add(by);
        if wanted > self.limit {
            self.seen.refused.store(true, Relaxed);
            self.last = 0;
            return false;
        }
        self.settle();
        (self.used, self.last) = (wanted, by);
        self.seen.peak.fetch_max(wanted, Relaxed);
        true
    }

    fn take_back(&mut self) {
        self.settle();
        self.used = self.used.saturating_sub(self.last);
        self.last = 0;
    }
}

impl Drop for Limiter {
    fn drop(&mut self) {
        self.settle();
        self.seen.held_kib_ms.store(u64::try_from(self.held.div_ceil(KIB_MS)).unwrap_or(u64::MAX), Relaxed);
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
    use cofferdam_model::clock::{ManualClock, UnixNanos};

    use super::*;

    fn clock() -> Arc<ManualClock> {
        Arc::new(ManualClock::at(UnixNanos(1)))
    }

    #[test]
    fn memories_and_tables_share_one_limit() {
        let seen = Arc::new(MemoryUse::default());
        let mut limiter = Limiter::new(200_000, clock(), seen.clone());
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
        let mut limiter = Limiter::new(65_536, clock(), Arc::default());
        assert!(limiter.memory_growing(0, 65_536, None).unwrap());
        limiter.memory_grow_failed(wasmtime::format_err!("no memory")).unwrap();
        assert!(limiter.memory_growing(0, 65_536, None).unwrap());
    }

    #[test]
    fn memory_is_charged_for_the_time_it_is_held_until_the_store_is_gone() {
        let (clock, seen) = (clock(), Arc::new(MemoryUse::default()));
        let mut limiter = Limiter::new(1 << 20, clock.clone(), seen.clone());
        clock.advance(Duration::from_millis(500));
        assert!(limiter.memory_growing(0, 65_536, None).unwrap());
        clock.advance(Duration::from_millis(10));
        assert!(limiter.memory_growing(65_536, 131_072, None).unwrap());
        clock.advance(Duration::from_millis(3));
        assert!(!limiter.memory_growing(131_072, 2 << 20, None).unwrap(), "refused, so it costs nothing");
        assert!(limiter.table_growing(0, 128, None).unwrap());
        clock.advance(Duration::from_millis(1));
        limiter.table_grow_failed(wasmtime::format_err!("no memory")).unwrap();
        clock.advance(Duration::from_millis(2));
        assert_eq!(seen.held_kib_ms(), 0, "not known before the store is gone");
        drop(limiter);
        assert_eq!(seen.held_kib_ms(), 64 * 10 + 128 * (3 + 1 + 2) + 1);
    }

    #[test]
    fn a_part_of_a_kib_millisecond_counts_whole() {
        let (clock, seen) = (clock(), Arc::new(MemoryUse::default()));
        let mut limiter = Limiter::new(1 << 20, clock.clone(), seen.clone());
        assert!(limiter.table_growing(0, 1, None).unwrap());
        clock.advance(Duration::from_nanos(1));
        drop(limiter);
        assert_eq!(seen.held_kib_ms(), 1);
    }
}
