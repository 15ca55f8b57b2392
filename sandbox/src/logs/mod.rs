//! What functions write, kept for those who may read it.
//!
//! Owns the log files: one per function, capped in size with one older file kept, and the thread that appends to
//! them. Must never block a task that serves calls, never write a control character, and never lose a line without
//! counting it.

mod assemble;
mod file;
mod tail;
mod text;
mod watch;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cofferdam_model::{Clock, FunctionId, Limits, LogRange};

pub(crate) use assemble::{Assembler, Line, Stream};
use file::Files;
pub use tail::LogPage;
pub(crate) use text::escape;
use watch::Watchers;

use crate::error::SandboxError;

/// Pieces of log that may wait for the disk.
const QUEUE: usize = 256;

/// How long a reader waits for what was written just before.
const FLUSH_WITHIN: Duration = Duration::from_secs(2);
/// How long a reader who waited for a line waits for more, so that a busy function does not make him ask for each.
const GATHER: Duration = Duration::from_millis(500);

enum Message {
    Lines(FunctionId, Vec<Line>),
    Flush(SyncSender<()>),
}

/// Lines that did not fit the queue, by function, until the thread notes them in the file.
type Lost = Arc<Mutex<HashMap<FunctionId, u64>>>;

/// The log files. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Logs {
    queue: SyncSender<Message>,
    lost: Lost,
    watchers: Watchers,
    dir: PathBuf,
}

impl Logs {
    /// Opens the directory and starts the thread that writes. It ends with the last clone.
    pub(crate) fn open(dir: &Path, limits: &Limits, clock: Arc<dyn Clock>) -> Result<Self, SandboxError> {
        crate::store::private_dir(dir)?;
        let (queue, messages) = sync_channel(QUEUE);
        let lost = Lost::default();
        let files = Files::new(dir, limits.log_file_bytes, limits.log_bytes_per_second, clock);
        let watchers = Watchers::default();
        let shared = (lost.clone(), watchers.clone());
        std::thread::Builder::new()
            .name("function-logs".into())
            .spawn(move || write(&messages, &shared.0, &shared.1, files))
            .map_err(SandboxError::file("start the thread that writes below", dir))?;
        Ok(Self { queue, lost, watchers, dir: dir.to_owned() })
    }

    /// Queues lines; what does not fit is counted and dropped.
    pub(crate) fn append(&self, function: &FunctionId, lines: Vec<Line>) {
        if let Err(TrySendError::Full(Message::Lines(function, lines))) =
            self.queue.try_send(Message::Lines(function.clone(), lines))
        {
            let count = lines.iter().map(Line::count).sum::<u64>();
            let mut lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
            let lost = lost.entry(function).or_default();
            *lost = lost.saturating_add(count);
        }
    }

    /// Waits, within reason, until what was queued so far is in the files.
    pub(crate) fn flush(&self) {
        let (done, wait) = sync_channel(1);
        if self.queue.send(Message::Flush(done)).is_ok() && wait.recv_timeout(FLUSH_WITHIN).is_err() {
            tracing::warn!("function logs are behind");
        }
    }

    /// Lines of a function, oldest first: the newest, or those after a place. Where there are none, waits for one as
    /// long as is asked for, and then a moment for more.
    pub(crate) async fn read(&self, function: &FunctionId, range: LogRange) -> Result<LogPage, SandboxError> {
        // Looked for before it is read, so that what is written in between is noticed.
        let waits = range.after.is_some() && !range.wait.is_zero();
        let watch = waits.then(|| self.watchers.watch(function)).flatten();
        let Some(watch) = watch else { return self.page(function, range).await };
        let mut written = pin!(watch.written.notified());
        written.as_mut().enable();
        let page = self.page(function, range).await?;
        if !page.lines.is_empty() || tokio::time::timeout(range.wait, written).await.is_err() {
            return Ok(page);
        }
        tokio::time::sleep(GATHER.min(range.wait)).await;
        self.page(function, range).await
    }

    async fn page(&self, function: &FunctionId, range: LogRange) -> Result<LogPage, SandboxError> {
        let (logs, function) = (self.clone(), function.clone());
        let reading = tokio::task::spawn_blocking(move || {
            logs.flush();
            match range.after {
                Some(place) => tail::after(&logs.dir, &function, place, range.lines),
                None => tail::newest(&logs.dir, &function, range.lines),
            }
        });
        reading.await.unwrap_or(Err(SandboxError::Closing))
    }
}

fn write(messages: &Receiver<Message>, lost: &Lost, watchers: &Watchers, mut files: Files) {
    while let Ok(message) = messages.recv() {
        match message {
            Message::Lines(function, lines) => {
                let missed = lost.lock().unwrap_or_else(PoisonError::into_inner).remove(&function);
                files.append(&function, &lines, missed.unwrap_or_default());
                watchers.wake(&function);
            }
            Message::Flush(done) => {
                // Nobody waiting any more is fine.
                let _ = done.send(());
            }
        }
    }
}

/// The file a function's newest lines are in. Ids hold no character that means anything in a path.
fn path(dir: &Path, function: &FunctionId) -> PathBuf {
    dir.join(format!("{function}.log"))
}

/// The file with the lines before those.
fn older(dir: &Path, function: &FunctionId) -> PathBuf {
    dir.join(format!("{function}.log.1"))
}
