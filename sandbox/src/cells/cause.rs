//! Why a cell ended, and how often each reason was seen.
//!
//! Owns the list of reasons and their counters. Must never be locked: calls and cells come and go beside it.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! causes {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// Why a cell ended.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Cause { $($(#[$doc])* $name,)* }

        impl Cause {
            /// The whole list.
            pub const ALL: &'static [Cause] = &[$(Cause::$name,)*];

            /// The name in logs and metrics.
            pub fn as_str(self) -> &'static str {
                match self { $(Cause::$name => $text,)* }
            }
        }
    };
}

causes! {
    /// It had taken as many calls as a cell may.
    Count = "count",
    /// It was as old as a cell may get.
    Age = "age",
    /// Nobody called for long enough.
    Idle = "idle",
    /// It held more memory than a cell may between calls.
    Memory = "memory",
    /// A guest in it was stopped by force.
    Trap = "trap",
    /// It broke the protocol, or did not end a call in time, and was killed.
    Killed = "killed",
    /// Version, settings, secrets or the tenant's policies changed.
    Changed = "changed",
    /// Somebody asked for it.
    Asked = "asked",
    /// Its place was needed for another.
    Evicted = "evicted",
    /// It went away by itself.
    Died = "died",
    /// The node stopped.
    Stopped = "stopped",
}

/// How many cells were started, and how many ended of what.
#[derive(Default)]
pub(crate) struct Tally {
    started: AtomicU64,
    ended: [AtomicU64; Cause::ALL.len()],
}

impl Tally {
    /// One more serves.
    pub(super) fn start(&self) {
        self.started.fetch_add(1, Ordering::Relaxed);
    }

    /// One more ended.
    pub(super) fn end(&self, cause: Cause) {
        let at = Cause::ALL.iter().position(|each| *each == cause);
        if let Some(count) = at.and_then(|at| self.ended.get(at)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Cells that were started to serve.
    pub(super) fn started(&self) -> u64 {
        self.started.load(Ordering::Relaxed)
    }

    /// How many ended of what.
    pub(super) fn ended(&self) -> Vec<(Cause, u64)> {
        let counts = self.ended.iter().map(|count| count.load(Ordering::Relaxed));
        Cause::ALL.iter().copied().zip(counts).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cause_has_a_name_and_a_counter_of_its_own() {
        for cause in Cause::ALL {
            let tally = Tally::default();
            tally.end(*cause);
            let counted: Vec<Cause> =
                tally.ended().into_iter().filter(|(_, count)| *count == 1).map(|(each, _)| each).collect();
            assert_eq!(counted, [*cause]);
            assert_eq!(Cause::ALL.iter().filter(|each| each.as_str() == cause.as_str()).count(), 1);
        }
    }
}
