//! Streaming the log elsewhere: to files, webhooks, syslog, OTLP and buckets, at least once and in order.
//!
//! Owns the sinks of a node, each with a task and a durable cursor of its own, and what happens when one is too far
//! behind. Must never hold up a record, a call or another sink, and never follow a redirect.

mod batch;
mod config;
mod cursor;
mod error;
mod file;
mod http;
mod otlp;
mod s3;
mod state;
mod syslog;
mod webhook;
mod worker;

#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cofferdam_audit::Log;
use cofferdam_model::{Clock, Level, Random};
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

pub use config::{
    Begin, Destination, Envelope, FileConfig, Format, OnLag, OtlpConfig, S3Config, SinkConfig, SinkTls, SyslogConfig,
    WebhookConfig,
};
pub use cursor::Cursor;
pub use error::SinkError;
pub use state::Standing;

pub(crate) use config::{Wrong, check, paths_mut};

use batch::Batch;
use state::{Reset, State};
use worker::Worker;

/// Time between two looks at how far sinks are.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// The longest that whoever resets a cursor waits for it.
const RESET_WAIT: Duration = Duration::from_secs(30);

/// What a sink tells others of us.
#[derive(Debug, Clone)]
struct About {
    name: String,
    origin: String,
    version: &'static str,
}

impl About {
    fn agent(&self) -> String {
        format!("cofferdam/{}", self.version)
    }
}

/// What carries records there.
enum Carrier {
    File(file::FileSink),
    Webhook(webhook::Webhook),
    Syslog(syslog::Syslog),
    Otlp(otlp::Otlp),
    S3(s3::S3),
}

impl Carrier {
    fn open(to: &Destination, about: About, clock: &Arc<dyn Clock>) -> Result<Self, SinkError> {
        Ok(match to.clone() {
            Destination::File(config) => Self::File(file::FileSink::new(config)),
            Destination::Webhook(config) => Self::Webhook(webhook::Webhook::new(config, about, clock.clone())?),
            Destination::Syslog(config) => Self::Syslog(syslog::Syslog::new(config, about)?),
            Destination::Otlp(config) => Self::Otlp(otlp::Otlp::new(config, about)?),
            Destination::S3(config) => Self::S3(s3::S3::new(config, clock.clone())?),
        })
    }

    /// Sends a batch, and waits until it has arrived. Dropped, it may have arrived in part.
    async fn deliver(&mut self, batch: &Batch) -> Result<(), SinkError> {
        match self {
            Self::File(sink) => sink.deliver(batch).await,
            Self::Webhook(sink) => sink.deliver(batch).await,
            Self::Syslog(sink) => sink.deliver(batch).await,
            Self::Otlp(sink) => sink.deliver(batch).await,
            Self::S3(sink) => sink.deliver(batch).await,
        }
    }

    /// Gives up what is kept from one batch to the next.
    fn forget(&mut self) {
        match self {
            Self::File(_) => {}
            Self::Webhook(sink) => sink.forget(),
            Self::Syslog(sink) => sink.forget(),
            Self::Otlp(sink) => sink.forget(),
            Self::S3(sink) => sink.forget(),
        }
    }
}

/// The sinks of a node.
pub struct Sinks {
    shared: Arc<Shared>,
    workers: Mutex<Vec<JoinHandle<()>>>,
    watching: JoinHandle<()>,
}

struct Shared {
    states: Vec<Arc<State>>,
    log: Log,
    clock: Arc<dyn Clock>,
    /// The highest step that any sink asks for; 0 for none.
    step: AtomicU8,
}

impl Sinks {
    /// Starts all of them, each where its cursor is. In a runtime; blocks on small files.
    pub fn start(
        configs: &[SinkConfig],
        log: &Log,
        clock: &Arc<dyn Clock>,
        random: &Arc<dyn Random>,
    ) -> Result<Self, SinkError> {
        // All of them first: where one cannot be, none is.
        let mut opened = Vec::new();
        for config in configs {
            let wrong = |source: SinkError| SinkError::Setup { name: config.name.clone(), source: Box::new(source) };
            let about = About {
                name: config.name.clone(),
                origin: log.origin().to_owned(),
                version: env!("CARGO_PKG_VERSION"),
            };
            let carrier = Carrier::open(&config.to, about, clock).map_err(wrong)?;
            let cursor = begin(config, log).map_err(wrong)?;
            let state = Arc::new(State::new(config, cursor.next, cursor.needs()));
            opened.push((config, (state, carrier, cursor)));
        }
        let states = opened.iter().map(|(_, (state, ..))| state.clone()).collect();
        let workers = opened.into_iter().map(|(config, parts)| {
            tokio::spawn(Worker::new(config, parts, log.clone(), clock.clone(), random.clone()).run())
        });
        let workers = Mutex::new(workers.collect());
        let shared = Arc::new(Shared { states, log: log.clone(), clock: clock.clone(), step: AtomicU8::new(0) });
        let watching = tokio::spawn(watch(shared.clone()));
        Ok(Self { shared, workers, watching })
    }

    /// How it stands with each.
    pub fn standing(&self) -> Vec<Standing> {
        let Shared { states, log, clock, .. } = &*self.shared;
        let (records, now) = (log.records(), clock.now());
        states.iter().map(|state| state.standing(records, now)).collect()
    }

    /// The same as the management API tells it.
    pub(crate) fn told(&self) -> Value {
        let records = self.shared.log.records();
        let each = self.standing().into_iter().map(|sink| {
            json!({
                "name": sink.name, "kind": sink.kind, "state": sink.state, "next": sink.next,
                "lag_records": sink.lag_records, "lag_seconds": sink.lag_seconds, "behind": sink.behind,
                "since": sink.since.map(|since| since.to_string()), "error": sink.error,
                "delivered": sink.delivered, "failures": sink.failures,
            })
        });
        json!({ "sinks": each.collect::<Vec<Value>>(), "records": records })
    }

    /// What the sinks that are further behind than they may be ask for: the hook of what a node does about its log.
    pub fn step(&self) -> Option<OnLag> {
        match self.shared.step.load(Ordering::Relaxed) {
            0 => None,
            1 => Some(OnLag::Warn),
            2 => Some(OnLag::Shed),
            _ => Some(OnLag::Stop),
        }
    }

    /// Whether calls whose records are of this level are taken.
    pub fn admits(&self, level: Level) -> bool {
        match self.step() {
            None | Some(OnLag::Warn) => true,
            Some(OnLag::Shed) => level != Level::Relaxed,
            Some(OnLag::Stop) => false,
        }
    }

    /// Index of the first record that a sink still needs: the hook of whoever prunes. None where there is no sink.
    pub fn lowest_needed(&self) -> Option<u64> {
        self.shared.states.iter().map(|state| state.needs()).min()
    }

    /// Has a sink go on from another record, also from one that it had before. Waits until its cursor says so.
    pub async fn reset(&self, name: &str, to: u64) -> Result<(), SinkError> {
        let unknown = || SinkError::Unknown { name: name.to_owned() };
        let state = self.shared.states.iter().find(|state| state.name == name).ok_or_else(unknown)?;
        let records = self.shared.log.records();
        if to > records {
            return Err(SinkError::Beyond { to, records });
        }
        let (done, put) = oneshot::channel();
        state.ask_reset(Reset { to, done });
        match tokio::time::timeout(RESET_WAIT, put).await {
            Ok(Ok(put)) => put,
            Ok(Err(_)) => Err(SinkError::Stopping),
            Err(_) => Err(SinkError::Timeout { after: RESET_WAIT }),
        }
    }

    /// Sends what is there, for so long at most, and ends. What is left is sent after the next start.
    pub async fn finish(&self, patience: Duration) {
        self.watching.abort();
        self.shared.states.iter().for_each(|state| state.close());
        let workers = std::mem::take(&mut *self.workers.lock().unwrap_or_else(PoisonError::into_inner));
        let deadline = tokio::time::Instant::now() + patience;
        for mut worker in workers {
            if tokio::time::timeout_at(deadline, &mut worker).await.is_err() {
                worker.abort();
            }
        }
    }
}

impl Drop for Sinks {
    fn drop(&mut self) {
        self.watching.abort();
        let workers = self.workers.get_mut().unwrap_or_else(PoisonError::into_inner);
        workers.iter().for_each(JoinHandle::abort);
    }
}

/// Where a sink begins: at its cursor, or where the configuration says, which becomes its cursor at once.
fn begin(config: &SinkConfig, log: &Log) -> Result<Cursor, SinkError> {
    if let Some(cursor) = Cursor::load(log.dir(), &config.name)? {
        return Ok(cursor);
    }
    let next = match config.from {
        Begin::Start => 0,
        Begin::Now => log.records(),
    };
    let cursor = Cursor::at(log.origin(), next, None);
    cursor.store(log.dir(), &config.name)?;
    Ok(cursor)
}

/// Tells the log what changes, and keeps the step.
async fn watch(shared: Arc<Shared>) {
    loop {
        let records = shared.log.records();
        let (mut step, mut notes) = (None, Vec::new());
        for state in &shared.states {
            let (news, asks) = state.news(records, &*shared.clock);
            step = step.max(asks);
            notes.extend(news);
        }
        let number = match step {
            None => 0,
            Some(OnLag::Warn) => 1,
            Some(OnLag::Shed) => 2,
            Some(OnLag::Stop) => 3,
        };
        shared.step.store(number, Ordering::Relaxed);
        for note in notes {
            tracing::warn!(?note, "it stands otherwise with a sink");
            if let Err(error) = shared.log.note(note).await {
                tracing::error!(%error, "what became of a sink could not be recorded");
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
