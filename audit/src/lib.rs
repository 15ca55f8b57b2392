//! The log: what happened, durably and provably.
//!
//! Owns records, the one thread that commits them, segments, the Merkle tree over them, signed checkpoints, and
//! everything that reads them back. Must never answer a request, never know what a function is, and never let a
//! `Recorded` exist for something that is not in the log.

mod checkpoint;
mod commit;
mod decision;
mod effects;
mod entry;
mod error;
mod export;
mod follow;
mod json;
mod log;
pub mod proof;
pub mod query;
mod queue;
mod record;
mod recover;
mod rollup;
mod scan;
mod segment;
pub mod select;
mod shares;
mod signer;
mod storage;
pub mod tree;
pub mod verify;

#[cfg(test)]
mod tests;

pub use effects::{Effect, Effects};
pub use entry::{Closing, Entry, Recorded};
pub use error::{AuditError, VerifyError};
pub use follow::{Followed, Follower, KINDS};
pub use log::{Log, LogConfig, Note, Opened};
pub use signer::Signer;
