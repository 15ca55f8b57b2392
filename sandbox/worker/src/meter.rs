//! CPU time of one call, exactly: the thread's CPU clock around every poll of the guest, summed.
//!
//! Owns the budget's arithmetic and the decision a running guest meets at each tick. Must never measure by wall time:
//! a call waiting for its turn uses none of its budget.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use wasmtime::UpdateDeadline;

/// Ticks a guest runs before it must let others run.
const SLICE_TICKS: u64 = 1;

/// What one call has used of its CPU budget.
#[derive(Default)]
pub(crate) struct Meter {
    budget_ns: u64,
    used_ns: AtomicU64,
    /// The thread's clock when the poll under way began.
    since_ns: AtomicU64,
    exhausted: AtomicBool,
}

impl Meter {
    /// A meter that allows `cpu_ms`.
    pub(crate) fn new(cpu_ms: u64) -> Self {
        Self { budget_ns: cpu_ms.saturating_mul(1_000_000), ..Self::default() }
    }

    /// Runs one poll of the guest and adds what it took.
    pub(crate) fn measure<T>(&self, poll: impl FnOnce() -> T) -> T {
        self.since_ns.store(thread_cpu_ns(), Relaxed);
        let polled = poll();
        let used = self.running_ns();
        self.used_ns.store(used, Relaxed);
        if used >= self.budget_ns {
            self.exhausted.store(true, Relaxed);
        }
        polled
    }

    /// What a guest that is running when the ticker ticks has to do.
    pub(crate) fn tick(&self) -> UpdateDeadline {
        if self.running_ns() >= self.budget_ns {
            self.exhausted.store(true, Relaxed);
            return UpdateDeadline::Interrupt;
        }
        UpdateDeadline::Yield(SLICE_TICKS)
    }

    /// Whether the budget is spent.
    pub(crate) fn exhausted(&self) -> bool {
        self.exhausted.load(Relaxed)
    }

    /// CPU time of all polls so far, microseconds, rounded up.
    pub(crate) fn used_us(&self) -> u64 {
        self.used_ns.load(Relaxed).div_ceil(1000)
    }

    fn running_ns(&self) -> u64 {
        let poll = thread_cpu_ns().saturating_sub(self.since_ns.load(Relaxed));
        self.used_ns.load(Relaxed).saturating_add(poll)
    }
}

fn thread_cpu_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
    seconds.saturating_mul(1_000_000_000).saturating_add(u64::try_from(now.tv_nsec).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn burn() {
        std::hint::black_box((0..2_000_000u64).fold(0, |sum, n| std::hint::black_box(sum ^ n)));
    }

    #[test]
    fn cpu_time_counts_only_while_polled() {
        let meter = Meter::new(u64::MAX);
        meter.measure(|| {});
        let idle = meter.used_us();
        burn();
        meter.measure(|| {});
        let between = meter.used_us() - idle;
        meter.measure(burn);
        assert!(meter.used_us() - between - idle > 10 * between.max(1), "work outside a poll was charged");
    }

    #[test]
    fn spent_budget_interrupts_at_the_next_tick() {
        let meter = Meter::new(0);
        assert!(matches!(meter.tick(), UpdateDeadline::Interrupt));
        assert!(meter.exhausted());
        assert!(matches!(Meter::new(1_000_000).tick(), UpdateDeadline::Interrupt | UpdateDeadline::Yield(1)));
    }
}
