//! What can go wrong with the log, named for what the caller decides on it.
//!
//! Owns `AuditError` (writing, opening) and `VerifyError` (reading what may have been tampered with). Must never
//! carry a record's content: an error may end up in places the log's readers do not control.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// Why the log could not be opened, written to or read.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// A write or sync failed, so nothing may take effect any more. Final: never retried.
    #[error("the audit log has failed while it tried to {action}; nothing is recorded until the node is restarted")]
    Failed {
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        #[source]
        source: Arc<io::Error>,
    },
    /// The log was shut down.
    #[error("the audit log is closed")]
    Closed,
    /// The log's disk has no more room, or is too slow, for what was asked.
    #[error("the audit log takes no more of this while it is at step `{step}`")]
    Withheld {
        /// Step of the ladder.
        step: &'static str,
    },
    /// More records wait than the log is configured to hold.
    #[error("the audit log has more records waiting than it may hold")]
    Full,
    /// Another process has the log open.
    #[error("the audit log at `{dir}` is open in another process")]
    Locked {
        /// The log's directory.
        dir: PathBuf,
    },
    /// The log on disk is not what it once was: it must not be appended to.
    #[error(
        "the audit log at `{dir}` is damaged and was not opened; \
         run `cofferdam audit verify` and restore the last good copy"
    )]
    Damaged {
        /// The log's directory.
        dir: PathBuf,
        /// Where and how.
        #[source]
        source: Box<VerifyError>,
    },
    /// The configuration cannot work.
    #[error("the audit log cannot be opened with {what} `{value}`")]
    Config {
        /// Which setting.
        what: &'static str,
        /// Its value.
        value: String,
    },
    /// The signing key cannot be used.
    #[error("the signing key `{path}` cannot be used: {reason}")]
    Key {
        /// The key's file.
        path: PathBuf,
        /// Why not.
        reason: &'static str,
    },
    /// Something that is derived from the log is missing, or does not fit it.
    #[error(
        "what is derived from the audit log at `{path}` is missing or does not fit it; \
         it is made anew when the node starts, or by `cofferdam audit rebuild`"
    )]
    Derived {
        /// Where it is.
        path: PathBuf,
    },
    /// What follows from records that were pruned cannot be made anew.
    #[error(
        "records before {first} were pruned, so what is derived from them cannot be made anew; \
         restore `tile` and `tenant` of `{dir}` from a copy"
    )]
    Gone {
        /// The log's directory.
        dir: PathBuf,
        /// Index of the first record there is.
        first: u64,
    },
    /// A file could not be read or written outside the path of recording.
    #[error("could not {action} `{path}`")]
    File {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

impl AuditError {
    pub(crate) fn file(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { action, path, source }
    }
}

/// Why a log on disk is not believed.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// A segment's bytes are not what was written.
    #[error("record {record} in `{file}` at byte {offset}: {reason}")]
    Segment {
        /// Index of the record that should have been found there.
        record: u64,
        /// Segment file, relative to the log's directory.
        file: String,
        /// Byte offset in it.
        offset: u64,
        /// What is wrong.
        reason: &'static str,
    },
    /// A segment file is missing: the numbers have a gap.
    #[error("record {record} should begin `{file}`, which is missing")]
    Missing {
        /// Index of the first record that is gone.
        record: u64,
        /// Segment file that should be there.
        file: String,
    },
    /// The records end before a signed checkpoint does.
    #[error("the log ends with {size} records in `{file}` at byte {offset}, but a signed checkpoint says {checkpoint}")]
    Short {
        /// Records there are.
        size: u64,
        /// Records a checkpoint signed for.
        checkpoint: u64,
        /// Last segment file.
        file: String,
        /// Where its records end.
        offset: u64,
    },
    /// The records up to a signed checkpoint are not those it was signed for.
    #[error("the first {checkpoint} records (the last in `{file}` before byte {offset}) do not have the signed root")]
    Root {
        /// Size of the checkpoint.
        checkpoint: u64,
        /// Segment file of the last record it covers.
        file: String,
        /// Where that record ends.
        offset: u64,
    },
    /// A checkpoint is missing, malformed, contradicted or not signed by the key.
    #[error("checkpoint at byte {offset} of `{file}`: {reason}")]
    Checkpoint {
        /// Its file, relative to the log's directory.
        file: String,
        /// Byte offset in it.
        offset: u64,
        /// What is wrong.
        reason: &'static str,
    },
    /// What has to stay of records that were pruned is not there, or is not what a record in the log says.
    #[error("`{file}`, which stands for the records that were pruned: {reason}")]
    Pruned {
        /// Its file, relative to the log's directory.
        file: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// A proof does not prove what it should.
    #[error("the proof is not good: {reason}")]
    Proof {
        /// What is wrong.
        reason: &'static str,
    },
    /// The verifier key is not one.
    #[error("`{key}` is not a verifier key: {reason}")]
    Key {
        /// The text given.
        key: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// A file could not be read.
    #[error("could not read `{path}`")]
    File {
        /// Which file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

impl VerifyError {
    pub(crate) fn file(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { path, source }
    }
}
