//! Opening a log: whatever state the last process left it in, or none at all.
//!
//! Owns the lock against a second opener, the decision to go on or to refuse, and the records that tell what was
//! lost. Reads only what the newest checkpoint does not vouch for, however long the log is. Must never cut off anything
//! that could have been acknowledged.

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cofferdam_model::{Clock, Random};

use crate::calls::OpenCalls;
use crate::checkpoint::{Checkpoints, NEWEST, Notary};
use crate::commit::Appender;
use crate::error::{AuditError, VerifyError};
use crate::log::{LogConfig, Opened};
use crate::queue::Pending;
use crate::record::{self, Stamp};
use crate::resume::{self, Resume};
use crate::retain::Base;
use crate::scan::{Scan, Start, scan_from};
use crate::segment::{self, SegmentWriter, shown_name};
use crate::signer::{Signer, is_key_name};
use crate::storage::Storage;
use crate::tree::empty_root;

const LOCK: &str = "lock";
const LEAST_SEGMENT_BYTES: u64 = 1_024;
const MOST_QUEUED: usize = 1_000_000;
const MOST_SYNCS: usize = 2;

/// Opens the log for appending: reads its end, cuts a torn end off and closes what was left open.
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

    let signer = Arc::new(signer);
    let damaged = |source: VerifyError| AuditError::Damaged { dir: dir.to_owned(), source: Box::new(source) };
    let Found { checkpoints, scan: found, open } = read(dir, &config.origin, &signer).map_err(damaged)?;
    // The first checkpoint, of no records, is there before the first segment is.
    if checkpoints.newest.is_none() && found.last.is_some() {
        let (file, reason) = (NEWEST.to_owned(), "it is missing");
        return Err(damaged(VerifyError::Checkpoint { file, offset: 0, reason }));
    }

    let mut notary = Notary::open(storage.clone(), dir, signer.clone(), &checkpoints)
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
    let (segment, next_segment) = resume(&storage, config, &found)?;
    let epoch = Arc::new(AtomicU64::new(open.epoch));
    let mut appender = Appender {
        storage,
        dir: config.dir.clone(),
        signer,
        segment_bytes: config.segment_bytes,
        lanes: config.syncs,
        tree: found.tree,
        open: OpenCalls::default(),
        history_bytes: notary.kept(),
        segment,
        next_segment,
        epoch,
        buffer: Vec::new(),
        gave_up_reserve: false,
        lock: Some(lock),
    };
    let mut records: Vec<_> = records.into_iter().map(Pending::own).collect();
    appender.append_all(&mut records)?;

    let (size, root) = (appender.tree.size(), appender.tree.root());
    if checkpoints.newest.unwrap_or(0) != size {
        notary.publish(size, &root, true).map_err(AuditError::file("write a checkpoint of", dir))?;
    }
    let opened = Opened { records: size, root: STANDARD.encode(root), torn_bytes, unknown_outcomes };
    Ok((appender, notary, opened))
}

/// What the files say.
struct Found {
    checkpoints: Checkpoints,
    scan: Scan,
    open: OpenCalls,
}

/// Reads the log from the last place on whose past is signed for.
fn read(dir: &Path, origin: &str, signer: &Signer) -> Result<Found, VerifyError> {
    let verifier = signer.verifier();
    let numbers = segment::numbers(dir).map_err(VerifyError::file(dir.join(segment::DIRECTORY)))?;
    let signed = Checkpoints::newest(dir, &verifier)?.unwrap_or(0);
    let from = Resume::latest(dir, &numbers, signed, &verifier);
    let from = match from.map_err(VerifyError::file(dir.join(resume::DIRECTORY)))? {
        Some(from) => from,
        // The start of what there is.
        None => Base::read(dir)?.map_or_else(Resume::default, |(base, tree)| Resume::at(base.segment, tree)),
    };
    let checkpoints = Checkpoints::read_since(dir, &verifier, from.history_bytes)?;
    let (mut open, start) = (from.open, Start { segment: from.segment, tree: from.tree });
    let scan = scan_from(dir, origin, &checkpoints, start, |frame| open.see(frame.index, frame.payload.entry()))?;
    Ok(Found { checkpoints, scan, open })
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
    if !(1..=MOST_SYNCS).contains(&config.syncs) {
        return refuse("syncs", config.syncs.to_string());
    }
    if !config.thresholds.are_ordered() {
        return refuse("thresholds", format!("{:?}", config.thresholds));
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
    let resume = dir.join(resume::DIRECTORY);
    storage.create_dir(&segments).map_err(AuditError::file("create", &segments))?;
    storage.create_dir(&resume).map_err(AuditError::file("create", &resume))?;
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

/// The segment to go on with, and the number of the one after it. One of an older form is ended, and so is left as it
/// was.
fn resume(
    storage: &Arc<dyn Storage>,
    config: &LogConfig,
    found: &Scan,
) -> Result<(Option<SegmentWriter>, u64), AuditError> {
    let Some((number, used)) = found.last else { return Ok((None, 0)) };
    let bytes = if found.current { config.segment_bytes } else { used };
    let resumed = SegmentWriter::resume(storage, &config.dir, number, used, bytes, config.syncs)
        .map_err(AuditError::file("resume", &config.dir))?;
    if found.current {
        return Ok((Some(resumed), number + 1));
    }
    resumed.seal(storage).map_err(AuditError::file("seal a segment of", &config.dir))?;
    Ok((None, number + 1))
}
