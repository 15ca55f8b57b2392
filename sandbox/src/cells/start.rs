//! How a cell comes to serve a function version.
//!
//! Owns the way from nothing, or a blank cell, to one that is loaded. Must never unseal an environment before there is
//! a jailed cell of the required isolation to give it to.

use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use cofferdam_model::handover::Handover;
use cofferdam_model::{CellId, FunctionLimits};
use zeroize::Zeroizing;

use super::group::Group;
use super::member::{Member, Spec};
use super::share::Claim;
use super::{Cell, Place, Pool, Share, tend};
use crate::cell::Blank;
use crate::channel::Channel;
use crate::egress::{NoOutlet, Outlet};
use crate::error::SandboxError;
use crate::logs::Line;

/// Attempts with another cell where one died before it was handed anything.
const ATTEMPTS: usize = 2;

/// A cell on its way. However that ends, the group is told.
struct Order {
    group: Arc<Group>,
    spec: Arc<Spec>,
    now: Duration,
    outcome: Result<Option<Member>, SandboxError>,
}

impl Order {
    fn end(mut self, outcome: Result<Option<Member>, SandboxError>, now: Duration) {
        (self.outcome, self.now) = (outcome, now);
    }
}

impl Drop for Order {
    fn drop(&mut self) {
        let (group, key) = (self.group.clone(), &self.spec.key);
        match std::mem::replace(&mut self.outcome, Ok(None)) {
            Ok(Some(member)) => group.change(|state, todo| {
                state.admit(member);
                state.collect(todo);
                state.serve(&self.group, todo);
                state.outdate();
                state.collect(todo);
            }),
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(function = %group.function, version = %key.version, %error, "no cell could be started");
                group.change(|state, todo| {
                    let again = state.give_up(key, error, self.now);
                    state.collect(todo);
                    if again {
                        state.serve(&self.group, todo);
                    }
                });
            }
        }
    }
}

impl Pool {
    /// Starts a cell for a group, in the background.
    pub(super) fn start(self: &Arc<Self>, group: &Arc<Group>, spec: Arc<Spec>) {
        let now = self.parts.clock.monotonic();
        let order = Order { group: group.clone(), spec, now, outcome: Err(SandboxError::Closing) };
        let pool = self.clone();
        self.runtime.spawn(async move {
            let made = pool.make(&order.group, &order.spec).await;
            let outcome = made.map(|(blank, outlet)| Some(pool.employ(blank, outlet, &order.group, &order.spec)));
            order.end(outcome, pool.parts.clock.monotonic());
        });
    }

    /// A blank cell made one of this version, and its way out.
    async fn make(
        self: &Arc<Self>,
        group: &Arc<Group>,
        spec: &Arc<Spec>,
    ) -> Result<(Blank, Arc<dyn Outlet>), SandboxError> {
        let artifact = self.parts.library.artifact(&group.tenant.id, spec.component).await?;
        // A root key that does not answer must not keep cells from others: there is none yet.
        if let Some(ready) = &spec.deployment.ready {
            ready().await.map_err(|error| SandboxError::opening(error, SandboxError::Unseal))?;
        }
        let mut share = Some(self.share(group, spec).await?);
        let within = Duration::from_millis(self.parts.limits.cell_start_ms);
        let mut attempt = 1;
        loop {
            let blank = self.take_blank().await?;
            let (handover, outlet) = match unsealed(spec.clone(), artifact.bytes).await {
                Ok(opened) => opened,
                Err(error) => {
                    blank.end().await;
                    return Err(error);
                }
            };
            blank.limit(&spec.limits, spec.share());
            match blank.assign(&handover, artifact.reader()?, within).await {
                Ok(mut blank) => {
                    blank.hold(share.take());
                    return Ok((blank, outlet));
                }
                Err(not_taken) if not_taken.retry && attempt < ATTEMPTS => attempt += 1,
                Err(not_taken) => return Err(not_taken.error),
            }
        }
    }

    /// The tenant's right to one more cell. One that would only be good to have takes what is free; one without which
    /// calls cannot be served has an idle one make room, and waits for its turn.
    async fn share(&self, group: &Arc<Group>, spec: &Spec) -> Result<Share, SandboxError> {
        let (tenant, most) = (&group.tenant.id, spec.deployment.tenant.cells);
        let busy = || SandboxError::Busy { what: "cells" };
        if group.lock().has(&spec.key) {
            return self.shares.take(tenant, most).ok_or_else(busy);
        }
        match self.shares.claim(tenant, most) {
            Claim::Now(share) => Ok(share),
            Claim::Wait(granted) => {
                self.make_room();
                let within = Duration::from_millis(self.parts.limits.queue_ms);
                tokio::time::timeout(within, granted).await.ok().and_then(Result::ok).ok_or_else(busy)
            }
        }
    }

    /// Puts a loaded cell to work, with somebody to watch over it.
    fn employ(self: &Arc<Self>, blank: Blank, outlet: Arc<dyn Outlet>, group: &Arc<Group>, spec: &Arc<Spec>) -> Member {
        let (id, isolation, stream, process) = blank.into_parts();
        let weigh = process.weigh();
        let clock = self.parts.clock.clone();
        let (logs, function) = (self.parts.logs.clone(), group.function.clone());
        let redactor = outlet.clone();
        let sink = move |mut lines: Vec<Line>| {
            lines.iter_mut().for_each(|line| line.change(|text, own| redactor.redact(text, own)));
            logs.append(&function, lines);
        };
        let channel = Channel::start(stream, clock.clone(), Arc::new(sink), outlet);
        let cell = Arc::new(Cell { id, isolation, channel, clock, weigh, cause: OnceLock::new() });
        self.tally.start();
        self.runtime.spawn(tend::watch(group.clone(), cell.clone(), process));
        if self.closing.load(Ordering::Acquire) {
            cell.channel.close(crate::channel::Closed::Retired);
        }
        let now = self.parts.clock.monotonic();
        Member {
            cell,
            spec: spec.clone(),
            load: 0,
            served: 0,
            born: now,
            lifetime: self.lifetime(spec.deployment.recycle.after_seconds),
            quiet_since: now,
            soiled: false,
            resident: 0,
            weighed: 0,
            leaving: false,
            draining: false,
        }
    }

    /// Within a tenth of what was asked for, so that cells started together do not end together.
    fn lifetime(&self, seconds: u64) -> Duration {
        let mut byte = [0];
        self.parts.random.fill(&mut byte);
        let permille =
            byte.iter().fold(900u64, |sum, byte| sum.saturating_add(u64::from(*byte).saturating_mul(200) / 255));
        Duration::from_millis(seconds.saturating_mul(permille))
    }

    /// A blank cell: one that waits, or a new one.
    pub(super) async fn take_blank(&self) -> Result<Blank, SandboxError> {
        let within = Duration::from_millis(self.parts.limits.queue_ms);
        let found = async {
            loop {
                let changed = self.places.changed();
                let waiting = self.blanks().pop();
                self.fewer_blanks.notify_one();
                match waiting {
                    Some(mut blank) => {
                        if blank.is_alive() {
                            return Ok(blank);
                        }
                        blank.end().await;
                    }
                    None => match self.places.take() {
                        Some(place) => return Err(place),
                        // With a share there is a place, or a blank cell about to be ready in one.
                        None => changed.await,
                    },
                }
            }
        };
        match tokio::time::timeout(within, found).await {
            Ok(Ok(blank)) => Ok(blank),
            Ok(Err(place)) => self.make_blank(place).await,
            Err(_) => Err(SandboxError::Busy { what: "cells" }),
        }
    }

    /// Starts a process and waits until it is jailed well enough.
    pub(super) async fn make_blank(&self, place: Place) -> Result<Blank, SandboxError> {
        let within = Duration::from_millis(self.parts.limits.cell_start_ms);
        let (stream, mut process) = self.parts.spawn.spawn()?;
        process.place = Some(place);
        let id = CellId::mint(&*self.parts.random);
        process.enter(&self.parts.cgroups, &id).await;
        let blank = Blank::settle(id, stream, process, within).await?;
        let (reached, required) = (blank.isolation, self.parts.required);
        if !reached.reaches(required) {
            blank.end().await;
            return Err(SandboxError::Isolation { reached, required });
        }
        Ok(blank)
    }
}

/// What a cell is opened with: its handover, encoded, with the environment in plaintext; and its way out.
type Opened = (Zeroizing<Vec<u8>>, Arc<dyn Outlet>);

/// Opens what is sealed. That reads a store, so it may block.
async fn unsealed(spec: Arc<Spec>, artifact_bytes: u64) -> Result<Opened, SandboxError> {
    let encoded = tokio::task::spawn_blocking(move || {
        let env = (spec.deployment.unseal)().map_err(|error| SandboxError::opening(error, SandboxError::Unseal))?;
        let limits = FunctionLimits { concurrency: spec.share(), cells: 1, ..(*spec.limits).clone() };
        let handover = Handover { limits, artifact_bytes, env };
        let encoded = handover.encode();
        let handover = encoded.map_err(|error| SandboxError::Load { reason: format!("its environment: {error}") })?;
        let outlet = match &spec.deployment.outlet {
            Some(open) => open().map_err(|error| SandboxError::opening(error, SandboxError::Outlet))?,
            None => Arc::new(NoOutlet),
        };
        Ok((handover, outlet))
    });
    encoded.await.unwrap_or_else(|error| Err(SandboxError::Unseal(error.into())))
}
