//! Whose compile is next.
//!
//! Owns the turns and the queue for them. Tenants take turns, whoever asks most; the queue is bounded, and no single
//! tenant can fill it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cofferdam_model::TenantId;
use tokio::sync::oneshot;

/// All turns.
pub(crate) struct Turns {
    most: usize,
    queued: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    taken: usize,
    queue: Vec<Waiting>,
    /// When each tenant that waits, or did since the queue was last empty, had its last turn.
    last: HashMap<TenantId, u64>,
    count: u64,
}

struct Waiting {
    tenant: TenantId,
    arrived: u64,
    granted: oneshot::Sender<Turn>,
}

impl Turns {
    /// So many at once, and so many that may wait.
    pub(crate) fn new(most: usize, queued: usize) -> Arc<Self> {
        Arc::new(Self { most, queued, state: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a turn; nothing where too many do already, or too many of the same tenant.
    pub(crate) async fn take(self: &Arc<Self>, tenant: &TenantId) -> Option<Turn> {
        let wait = {
            let mut state = self.lock();
            state.queue.retain(|waiting| !waiting.granted.is_closed());
            if state.taken < self.most {
                return Some(state.give(self, tenant.clone()));
            }
            let own = state.queue.iter().filter(|waiting| waiting.tenant == *tenant).count();
            // One place in the queue is always somebody else's, unless there is only one.
            if state.queue.len() >= self.queued || own >= self.queued.saturating_sub(1).max(1) {
                return None;
            }
            let (granted, wait) = oneshot::channel();
            state.count = state.count.wrapping_add(1);
            let arrived = state.count;
            state.queue.push(Waiting { tenant: tenant.clone(), arrived, granted });
            wait
        };
        wait.await.ok()
    }
}

impl State {
    fn give(&mut self, turns: &Arc<Turns>, tenant: TenantId) -> Turn {
        self.taken = self.taken.saturating_add(1);
        self.count = self.count.wrapping_add(1);
        self.last.insert(tenant, self.count);
        Turn { turns: Some(turns.clone()) }
    }

    /// The next one in line: of the tenant whose last turn is longest ago, who came first.
    fn serve(&mut self, turns: &Arc<Turns>) {
        self.queue.retain(|waiting| !waiting.granted.is_closed());
        while self.taken < turns.most {
            let order = |waiting: &Waiting| (self.last.get(&waiting.tenant).copied().unwrap_or(0), waiting.arrived);
            let next = self.queue.iter().enumerate().min_by_key(|(_, waiting)| order(waiting)).map(|(at, _)| at);
            let Some(at) = next else {
                if self.taken == 0 {
                    self.last.clear();
                }
                return;
            };
            let waiting = self.queue.swap_remove(at);
            let turn = self.give(turns, waiting.tenant);
            if let Err(mut unwanted) = waiting.granted.send(turn) {
                // Given back here, under the lock that its drop would ask for.
                unwanted.turns = None;
                self.taken = self.taken.saturating_sub(1);
            }
        }
    }
}

/// The right to compile, until dropped.
pub(crate) struct Turn {
    turns: Option<Arc<Turns>>,
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(turns) = self.turns.take() {
            let mut state = turns.lock();
            state.taken = state.taken.saturating_sub(1);
            state.serve(&turns);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cofferdam_model::random::SeededRandom;
    use std::pin::Pin;
    use std::time::Duration;

    type Wanted = Pin<Box<dyn Future<Output = Option<Turn>> + Send>>;

    fn tenant(seed: u64) -> TenantId {
        TenantId::mint(&SeededRandom::new(seed))
    }

    /// Asks, and stands in line where there is no turn at once.
    async fn ask(turns: &Arc<Turns>, seed: u64) -> Wanted {
        let turns = turns.clone();
        let mut wanted: Wanted = Box::pin(async move { turns.take(&tenant(seed)).await });
        assert!(std::future::poll_fn(|cx| std::task::Poll::Ready(wanted.as_mut().poll(cx).is_pending())).await);
        wanted
    }

    #[tokio::test]
    async fn tenants_take_turns_however_many_compiles_one_of_them_wants() {
        let turns = Turns::new(1, 8);
        let first = turns.take(&tenant(1)).await.unwrap();
        let (second, third) = (ask(&turns, 1).await, ask(&turns, 1).await);
        let (of_two, of_three) = (ask(&turns, 2).await, ask(&turns, 3).await);
        drop(first);
        for (who, wanted) in [("two", of_two), ("three", of_three), ("one", second), ("one again", third)] {
            let got = tokio::time::timeout(Duration::from_secs(20), wanted).await;
            assert!(got.is_ok_and(|turn| turn.is_some()), "{who}");
        }
    }

    #[tokio::test]
    async fn the_queue_is_bounded_and_no_tenant_fills_it() {
        let turns = Turns::new(1, 3);
        let held = turns.take(&tenant(1)).await;
        let waiting = [ask(&turns, 1).await, ask(&turns, 1).await];
        assert!(turns.take(&tenant(1)).await.is_none(), "one place is kept for somebody else");
        let other = ask(&turns, 2).await;
        assert!(turns.take(&tenant(3)).await.is_none(), "it is full");
        drop((waiting, other, held));
        assert!(turns.take(&tenant(3)).await.is_some(), "who left does not count");
    }
}
