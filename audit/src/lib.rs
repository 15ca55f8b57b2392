//! The log: what happened, durably and provably.
//!
//! Owns records, the one thread that commits them, segments, the Merkle tree over them, signed checkpoints, and
//! everything that reads them back. Must never answer a request, never know what a function is, and never let a
//! `Recorded` exist for something that is not in the log.

mod call;
mod checkpoint;
mod commit;
mod decision;
pub mod disclose;
mod effects;
mod entry;
mod error;
mod export;
mod follow;
mod json;
mod log;
pub mod payload;
pub mod privacy;
pub mod proof;
pub mod query;
mod queue;
mod record;
mod recover;
pub mod retain;
mod rollup;
mod scan;
mod segment;
pub mod select;
mod shares;
pub mod shred;
mod signer;
mod storage;
pub mod tree;
pub mod verify;
mod way;
pub mod withhold;

#[cfg(test)]
mod tests;

pub use effects::{Effect, Effects};
pub use entry::{Closing, Entry, Recorded};
pub use error::{AuditError, VerifyError};
pub use follow::{Followed, Follower};
pub use log::{Log, LogConfig, Note, Opened};
pub use signer::Signer;
