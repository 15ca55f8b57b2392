//! The connections of one cell.
//!
//! Owns those that wait for the next request, and how long they may. Must never lend one to another cell, to another
//! host, or under other authorities than it was made for.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use cofferdam_model::{Clock, TlsVersion};
use hyper::client::conn::http1::SendRequest;
use tokio::task::AbortHandle;

use super::quota::{Place, Tenant};
use super::trust::TrustId;
use super::upload::Upload;

/// What a connection is good for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) trust: TrustId,
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) address: IpAddr,
}

/// A connection. Dropping it ends it.
pub(super) struct Connection {
    pub(super) key: Key,
    pub(super) tls: Option<TlsVersion>,
    pub(super) sender: SendRequest<Upload>,
    /// Whether it has carried a request before.
    pub(super) reused: bool,
    pub(super) _driver: Driver,
}

/// What moves a connection's bytes, and its place among the tenant's.
pub(super) struct Driver {
    pub(super) task: AbortHandle,
    pub(super) place: Option<Place>,
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.task.abort();
        self.place.take();
    }
}

struct Idle {
    since: Duration,
    connection: Connection,
}

#[derive(Default)]
struct State {
    /// The longest idle first.
    idle: Vec<Idle>,
    sweeping: bool,
}

/// The idle connections of one cell.
pub(super) struct Pool {
    state: Mutex<State>,
    tenant: Arc<Tenant>,
    clock: Arc<dyn Clock>,
    keep: Duration,
    most: usize,
}

impl Pool {
    pub(super) fn new(tenant: Arc<Tenant>, clock: Arc<dyn Clock>, keep: Duration, most: usize) -> Arc<Self> {
        let pool = Arc::new(Self { state: Mutex::default(), tenant, clock, keep, most });
        pool.tenant.adopt(&pool);
        pool
    }

    /// The tenant whose connections these are.
    pub(super) fn tenant(&self) -> &Arc<Tenant> {
        &self.tenant
    }

    /// Takes the connection used last of those that fit: to one of these addresses.
    pub(super) fn take(&self, trust: TrustId, host: &str, port: u16, addresses: &[IpAddr]) -> Option<Connection> {
        self.expire();
        let mut state = self.lock();
        let fits = |idle: &Idle| {
            let key = &idle.connection.key;
            key.trust == trust && key.host == host && key.port == port && addresses.contains(&key.address)
        };
        let at = state.idle.iter().rposition(fits)?;
        Some(state.idle.remove(at).connection)
    }

    /// Keeps a connection whose last answer has been read to its end.
    pub(super) fn give_back(self: &Arc<Self>, mut connection: Connection) {
        if connection.sender.is_closed() || self.most == 0 {
            return;
        }
        connection.reused = true;
        let mut state = self.lock();
        let surplus = (state.idle.len() >= self.most).then(|| state.idle.remove(0));
        state.idle.push(Idle { since: self.clock.monotonic(), connection });
        let sweep = !std::mem::replace(&mut state.sweeping, true);
        drop(state);
        drop(surplus);
        if sweep {
            tokio::spawn(sweep_up(Arc::downgrade(self), self.keep));
        }
        // Looked at after it was put in: whoever began to wait before sees it, and whoever waits is seen.
        if self.tenant.is_wanted() {
            self.close_oldest();
        }
    }

    /// Since when the longest idle one has been.
    pub(super) fn idle_since(&self) -> Option<Duration> {
        self.lock().idle.first().map(|idle| idle.since)
    }

    /// Closes the longest idle one; tells whether there was one.
    pub(super) fn close_oldest(&self) -> bool {
        let mut state = self.lock();
        let oldest = (!state.idle.is_empty()).then(|| state.idle.remove(0));
        drop(state);
        oldest.is_some()
    }

    /// Closes those that have been idle for too long, or that the other side has closed.
    fn expire(&self) {
        let now = self.clock.monotonic();
        let mut state = self.lock();
        let over = |idle: &mut Idle| idle.connection.sender.is_closed() || now.saturating_sub(idle.since) >= self.keep;
        let gone: Vec<Idle> = state.idle.extract_if(.., over).collect();
        drop(state);
        drop(gone);
    }

    /// Time until the next one will have been idle for too long; none when there is none, and sweeping ends.
    fn next_sweep(&self) -> Option<Duration> {
        self.expire();
        let mut state = self.lock();
        let Some(oldest) = state.idle.first() else {
            state.sweeping = false;
            return None;
        };
        let idle_for = self.clock.monotonic().saturating_sub(oldest.since);
        Some(self.keep.saturating_sub(idle_for).max(Duration::from_millis(1)))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn sweep_up(pool: Weak<Pool>, mut wait: Duration) {
    loop {
        tokio::time::sleep(wait).await;
        let Some(next) = pool.upgrade().and_then(|pool| pool.next_sweep()) else { return };
        wait = next;
    }
}
