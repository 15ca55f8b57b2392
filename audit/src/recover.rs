//! Opening a log: whatever state the last process left it in, or none at all.
//!
//! Owns the lock against a second opener, the decision to go on or to refuse, and the records that tell what was
//! lost. Must never cut off anything that could have been acknowledged.

use std::collections::HashMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cofferdam_model::{Clock, Ending, Random};

use crate::checkpoint::{Checkpoints, NEWEST, Notary};
use crate::commit::Appender;
use crate::error::{AuditError, VerifyError};
use crate::log::{LogConfig, Opened};
use crate::record::{self, Encoded, Peek, Stamp};
use crate::scan::{Scan, scan};
use crate::segment::{self, SegmentWriter, shown_name};
use crate::signer::{Signer, is_key_name};
use crate::storage::Storage;
use crate::tree::empty_root;

const LOCK: &str = "lock";
const LEAST_SEGMENT_BYTES: u64 = 1_024;
const MOST_QUEUED: usize = 1_000_000;

/// Opens the log for appending: reads all of it, cuts a torn end off and closes what was left open.
pub(crate) fn recover(
    storage: Arc<dyn Storage>,
    config: &LogConfig,
    signer: Signer,
    clock: &dyn Clock,
    random: &dyn Random,
) -> Result<(Appender, Notary, Opened), AuditError> {
    check(config, &signer)?;
    let dir = config.dir.as_path();
    make_directories(&storage, dir)?;
    let lock = take_lock(dir)?;

    let damaged = |source: VerifyError| AuditError::Damaged { dir: dir.to_owned(), source: Box::new(source) };
    let checkpoints = Checkpoints::read(dir, &signer.verifier()).map_err(damaged)?;
    let mut open = OpenCalls::default();
    let found =
        scan(dir, &config.origin, &checkpoints, |frame| open.see(frame.index, frame.record)).map_err(damaged)?;
    // The first checkpoint, of no records, is there before the first segment is.
    if checkpoints.newest.is_none() && found.segments > 0 {
        let (file, reason) = (NEWEST.to_owned(), "it is missing");
        return Err(damaged(VerifyError::Checkpoint { file, offset: 0, reason }));
    }

    let mut notary = Notary::open(storage.clone(), dir, signer, &checkpoints)
        .map_err(AuditError::file("open the checkpoints of", dir))?;
    if checkpoints.newest.is_none() {
        notary.publish(0, &empty_root(), true).map_err(AuditError::file("write the first checkpoint of", dir))?;
    }
    let mut records = Vec::new();
    if let Some((number, offset)) = found.last.filter(|_| found.torn_bytes > 0) {
        let stamp = Stamp::new(clock.now(), random);
        records.push(record::recovered(&stamp, &shown_name(number), offset, found.torn_bytes));
        tracing::warn!(bytes = found.torn_bytes, "cut a write off the audit log that never became durable");
    }
    let unknown_outcomes = open.close(&mut records, || Stamp::new(clock.now(), random));
    let torn_bytes = found.torn_bytes;
    let mut appender = resume(storage, config, found, lock)?;
    appender.append_all(&mut records)?;

    let (size, root) = (appender.tree.size(), appender.tree.root());
    if checkpoints.newest.unwrap_or(0) != size {
        notary.publish(size, &root, true).map_err(AuditError::file("write a checkpoint of", dir))?;
    }
    let opened = Opened { records: size, root: STANDARD.encode(root), torn_bytes, unknown_outcomes };
    Ok((appender, notary, opened))
}

fn check(config: &LogConfig, signer: &Signer) -> Result<(), AuditError> {
    let refuse = |what, value: String| Err(AuditError::Config { what, value });
    if !is_key_name(&config.origin) || config.origin != signer.origin() {
        return refuse("origin", config.origin.clone());
    }
    if config.segment_bytes < LEAST_SEGMENT_BYTES {
        return refuse("segment_bytes", config.segment_bytes.to_string());
    }
    if !(1..=MOST_QUEUED).contains(&config.queue_records) {
        return refuse("queue_records", config.queue_records.to_string());
    }
    if config.checkpoint_every.is_zero() {
        return refuse("checkpoint_every", "0".into());
    }
    if config.rollup_window.is_zero() {
        return refuse("rollup_window", "0".into());
    }
    Ok(())
}

fn make_directories(storage: &Arc<dyn Storage>, dir: &Path) -> Result<(), AuditError> {
    let segments = dir.join(segment::DIRECTORY);
    storage.create_dir(&segments).map_err(AuditError::file("create", &segments))?;
    storage.sync_dir(dir).map_err(AuditError::file("sync", dir))?;
    match dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        Some(parent) => storage.sync_dir(parent).map_err(AuditError::file("sync", parent)),
        None => Ok(()),
    }
}

pub(crate) fn take_lock(dir: &Path) -> Result<File, AuditError> {
    let path = dir.join(LOCK);
    let lock = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
    let lock = lock.map_err(AuditError::file("open", &path))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(AuditError::Locked { dir: dir.to_owned() }),
        Err(TryLockError::Error(error)) => Err(AuditError::file("lock", &path)(error)),
    }
}

fn resume(storage: Arc<dyn Storage>, config: &LogConfig, found: Scan, lock: File) -> Result<Appender, AuditError> {
    let resumed = |(number, used)| -> io::Result<SegmentWriter> {
        SegmentWriter::resume(&storage, &config.dir, number, used, config.segment_bytes)
    };
    let segment = found.last.map(resumed).transpose().map_err(AuditError::file("resume", &config.dir))?;
    Ok(Appender {
        storage,
        dir: config.dir.clone(),
        origin: config.origin.clone(),
        segment_bytes: config.segment_bytes,
        tree: found.tree,
        segment,
        buffer: Vec::new(),
        _lock: lock,
    })
}

/// Calls whose last record has not been seen.
#[derive(Default)]
struct OpenCalls(HashMap<String, OpenCall>);

struct OpenCall {
    index: u64,
    tenant: Option<String>,
    /// What is missing: `outcome` or `end`.
    missing: &'static str,
}

impl OpenCalls {
    fn see(&mut self, index: u64, record: &[u8]) -> Result<(), &'static str> {
        let peek: Peek<'_> = serde_json::from_slice(record).map_err(|_| "it is not a record")?;
        let missing = match &*peek.kind {
            "intent" => Some("outcome"),
            "outcome" if peek.streamed => Some("end"),
            "outcome" | "end" => None,
            _ => return Ok(()),
        };
        let request = peek.request.ok_or("it names no request")?.into_owned();
        match missing {
            Some(missing) => {
                let tenant = peek.tenant.map(std::borrow::Cow::into_owned);
                self.0.insert(request, OpenCall { index, tenant, missing })
            }
            None => self.0.remove(&request),
        };
        Ok(())
    }

    /// Writes the record each call misses, in the order the calls began.
    fn close(self, into: &mut Vec<Encoded>, stamp: impl Fn() -> Stamp) -> u64 {
        let mut calls: Vec<_> = self.0.into_iter().collect();
        calls.sort_by_key(|(_, call)| call.index);
        let unknown = record::unclosed(Ending::Unknown);
        into.extend(
            calls.iter().map(|(request, call)| {
                record::outcome(&stamp(), call.missing, request, call.tenant.as_deref(), &unknown)
            }),
        );
        calls.len() as u64
    }
}
