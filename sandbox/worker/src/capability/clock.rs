//! Time for guests, in steps of one millisecond, and waiting for it to pass.
//!
//! Must never be finer: a fine clock is what timing attacks on a neighbour are made of.

use std::sync::Arc;
use std::time::Duration;

use cofferdam_model::clock::Clock;
use tokio::time::Instant;
use wasmtime::component::{HasData, Linker, Resource};
use wasmtime_wasi::async_trait;
use wasmtime_wasi::p2::bindings::clocks::{monotonic_clock, wall_clock};
use wasmtime_wasi::p2::{DynPollable, Pollable, subscribe};

use super::{Host, With};

/// Nanoseconds of one step.
const STEP_NS: u64 = 1_000_000;

/// The cell's clock, rounded down.
pub(super) struct Coarse(pub(super) Arc<dyn Clock>);

impl Coarse {
    fn monotonic_ns(&self) -> u64 {
        round_down(u64::try_from(self.0.monotonic().as_nanos()).unwrap_or(u64::MAX))
    }
}

fn round_down(ns: u64) -> u64 {
    ns.saturating_sub(ns % STEP_NS)
}

struct Clocks;

impl HasData for Clocks {
    type Data<'a> = With<'a, Coarse>;
}

/// Links both clocks.
pub(super) fn link(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    fn get(host: &mut Host) -> With<'_, Coarse> {
        With { capability: &mut host.clock, table: &mut host.table }
    }
    wall_clock::add_to_linker::<Host, Clocks>(linker, get)?;
    monotonic_clock::add_to_linker::<Host, Clocks>(linker, get)
}

impl wall_clock::Host for With<'_, Coarse> {
    fn now(&mut self) -> wasmtime::Result<wall_clock::Datetime> {
        let now = Duration::from_nanos(round_down(self.capability.0.now().0));
        Ok(wall_clock::Datetime { seconds: now.as_secs(), nanoseconds: now.subsec_nanos() })
    }

    fn resolution(&mut self) -> wasmtime::Result<wall_clock::Datetime> {
        Ok(wall_clock::Datetime { seconds: 0, nanoseconds: Duration::from_nanos(STEP_NS).subsec_nanos() })
    }
}

impl monotonic_clock::Host for With<'_, Coarse> {
    fn now(&mut self) -> wasmtime::Result<u64> {
        Ok(self.capability.monotonic_ns())
    }

    fn resolution(&mut self) -> wasmtime::Result<u64> {
        Ok(STEP_NS)
    }

    fn subscribe_instant(&mut self, when: u64) -> wasmtime::Result<Resource<DynPollable>> {
        let wait = when.saturating_sub(self.capability.monotonic_ns());
        self.subscribe_duration(wait)
    }

    fn subscribe_duration(&mut self, wait: u64) -> wasmtime::Result<Resource<DynPollable>> {
        let due = Instant::now().checked_add(Duration::from_nanos(wait));
        let deadline = self.table.push(Deadline { due, yielded: wait > 0 })?;
        subscribe(self.table, deadline)
    }
}

/// A moment to wait for; none is one too far away to ever come.
struct Deadline {
    due: Option<Instant>,
    /// A wait of nothing still lets others run once: guests poll like that in loops.
    yielded: bool,
}

#[async_trait]
impl Pollable for Deadline {
    async fn ready(&mut self) {
        if !std::mem::replace(&mut self.yielded, true) {
            return tokio::task::yield_now().await;
        }
        match self.due {
            Some(due) => tokio::time::sleep_until(due).await,
            None => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use cofferdam_model::clock::{ManualClock, UnixNanos};
    use wasmtime::component::ResourceTable;

    use super::*;

    #[test]
    fn guests_see_whole_milliseconds_only() {
        let mut clock = Coarse(Arc::new(ManualClock::at(UnixNanos(7_000_123_456_789))));
        let mut table = ResourceTable::new();
        let mut view = With { capability: &mut clock, table: &mut table };
        assert_eq!(monotonic_clock::Host::now(&mut view).unwrap(), 7_000_123_000_000);
        let wall = wall_clock::Host::now(&mut view).unwrap();
        assert_eq!((wall.seconds, wall.nanoseconds), (7000, 123_000_000));
    }
}
