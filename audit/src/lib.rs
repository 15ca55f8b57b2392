//! The log: what happened, durably and provably.
//!
//! Owns records, the threads that commit them, segments, the Merkle tree over them, signed checkpoints, and
//! everything that reads them back. Must never answer a request, never know what a function is, and never let a
//! `Recorded` exist for something that is not in the log.

mod acks;
mod boot;
mod call;
mod calls;
mod checkpoint;
mod commit;
mod decision;
pub mod disclose;
mod effects;
mod entry;
mod epochs;
mod error;
mod export;
mod follow;
mod json;
mod ladder;
mod log;
mod notary;
pub mod payload;
pub mod privacy;
pub mod proof;
pub mod query;
mod queue;
mod record;
mod recover;
mod resume;
pub mod retain;
mod rollup;
mod scan;
mod scrub;
mod segment;
pub mod select;
mod shares;
pub mod shred;
mod signer;
mod storage;
pub mod tree;
pub mod verify;
mod watch;
mod way;
pub mod withhold;

#[cfg(test)]
mod tests;

pub use boot::Counts;
pub use effects::{Effect, Effects};
pub use entry::{Closing, Entry, Recorded};
pub use error::{AuditError, VerifyError};
pub use follow::{Followed, Follower};
pub use ladder::{Step, Thresholds};
pub use log::{Log, LogConfig, Note, Opened};
pub use signer::Signer;
pub use watch::Standing;
