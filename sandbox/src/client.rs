//! Whether anybody still waits for a call.
//!
//! Owns the one way in which work for a client outlives it: a call whose client leaves is stopped at once, but it is
//! still to be recorded what it used, or leaving would be a way to pay for nothing. Must never cost a call whose client
//! stays a task of its own.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

/// The client of a call, as the work for it sees it.
#[derive(Debug, Clone, Default)]
pub struct Client {
    gone: Arc<AtomicBool>,
}

impl Client {
    /// Whether it has left. Work is polled once more when that becomes so, and need not be woken for it.
    pub fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }

    /// Does `work`; comes back with nothing, having dropped it, where the client leaves before it is done.
    pub async fn unless_gone<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let mut work = pin!(work);
        poll_fn(|cx| if self.is_gone() { Poll::Ready(None) } else { work.as_mut().poll(cx).map(Some) }).await
    }
}

/// Work for a client, done while somebody polls for it. Dropped early it learns that the client is gone, and comes to
/// its end in a task of its own.
pub struct Attended<F: Future + Send + 'static>
where
    F::Output: Send,
{
    work: Option<Pin<Box<F>>>,
    client: Client,
}

/// Begins work for a client.
pub fn attended<F>(work: impl FnOnce(Client) -> F) -> Attended<F>
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    let client = Client::default();
    Attended { work: Some(Box::pin(work(client.clone()))), client }
}

impl<F> Future for Attended<F>
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        // As of any future: there is no polling it after its end.
        let Some(work) = &mut self.work else { return Poll::Pending };
        let done = work.as_mut().poll(cx);
        if done.is_ready() {
            self.work = None;
        }
        done
    }
}

impl<F> Drop for Attended<F>
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn drop(&mut self) {
        // Work that panicked cannot go on.
        let Some(work) = self.work.take().filter(|_| !std::thread::panicking()) else { return };
        self.client.gone.store(true, Ordering::Release);
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(work);
        }
    }
}
