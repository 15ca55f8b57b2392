//! The thread that moves the engine's epoch, so that no guest runs on without being asked.
//!
//! Runs while guests do and sleeps otherwise: a busy cell pays a thousand short wake-ups a second, an idle one none.
//! Must never touch a call: it only increments a counter the machine code looks at.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread::{self, Thread};
use std::time::Duration;

use wasmtime::{Engine, EngineWeak};

/// Time between two ticks: how long a guest runs before others get their turn, and how late a stop may be.
const TICK: Duration = Duration::from_millis(1);
/// Ticks without any guest running before the thread goes to sleep.
const IDLE_TICKS: u32 = 20;

struct Shared {
    /// Odd while a guest is being polled; changes with every poll.
    activity: AtomicU64,
    asleep: AtomicBool,
}

/// The running ticker of one engine. The thread ends with the engine.
pub(crate) struct Ticker {
    shared: Arc<Shared>,
    thread: Thread,
}

impl Ticker {
    /// Starts the thread.
    pub(crate) fn start(engine: &Engine) -> io::Result<Self> {
        let shared = Arc::new(Shared { activity: AtomicU64::new(0), asleep: AtomicBool::new(false) });
        let (engine, theirs) = (engine.weak(), shared.clone());
        let handle = thread::Builder::new().stack_size(64 * 1024).spawn(move || tick(&engine, &theirs))?;
        Ok(Self { thread: handle.thread().clone(), shared })
    }

    /// Runs one poll of a guest with the ticker awake.
    pub(crate) fn awake<T>(&self, poll: impl FnOnce() -> T) -> T {
        self.shared.activity.fetch_add(1, SeqCst);
        if self.shared.asleep.load(SeqCst) && self.shared.asleep.swap(false, SeqCst) {
            self.thread.unpark();
        }
        let polled = poll();
        self.shared.activity.fetch_add(1, SeqCst);
        polled
    }
}

fn tick(engine: &EngineWeak, shared: &Shared) {
    let (mut seen, mut idle) = (0, 0);
    loop {
        thread::sleep(TICK);
        let Some(engine) = engine.upgrade() else { return };
        engine.increment_epoch();
        drop(engine);
        let activity = shared.activity.load(SeqCst);
        idle = if activity == seen && activity.is_multiple_of(2) { idle + 1 } else { 0 };
        seen = activity;
        if idle >= IDLE_TICKS {
            // Marked first, looked at second; `awake` does it the other way round, so one of the two sees the other.
            shared.asleep.store(true, SeqCst);
            while shared.activity.load(SeqCst) == seen && shared.asleep.load(SeqCst) {
                thread::park();
            }
            shared.asleep.store(false, SeqCst);
            idle = 0;
        }
    }
}
