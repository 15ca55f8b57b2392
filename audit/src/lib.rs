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
mod derive;
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
mod nodes;
mod notary;
pub mod payload;
pub mod privacy;
pub mod proof;
mod prove;
pub mod query;
mod queue;
mod rebuild;
pub mod receipt;
mod record;
mod recover;
mod resume;
pub mod retain;
mod rollup;
mod roots;
mod scan;
mod scrub;
mod segment;
pub mod select;
mod shares;
pub mod shred;
mod signer;
mod storage;
mod tenant_export;
mod tenants;
mod tile;
mod tile_tree;
pub mod tree;
pub mod verify;
mod walk;
mod watch;
mod way;
pub mod withhold;

#[cfg(test)]
mod tests;

pub use boot::Counts;
pub use derive::{DeriveConfig, Published};
pub use effects::{Effect, Effects};
pub use entry::{Closing, Entry, Recorded};
pub use error::{AuditError, VerifyError};
pub use follow::{Followed, Follower, KINDS};
pub use ladder::{Step, Thresholds};
pub use log::{Log, LogConfig, Note, Opened};
pub use prove::{Bundle, Extends, TenantPage, TenantRoot, prove_in, tenant_page_in};
pub use rebuild::{Rebuilt, rebuild};
pub use signer::{Signer, tenant_key};
pub use tenant_export::{RootText, TenantChecked, TenantHead, check_tenant, record_line};
pub use tile::TileName;
pub use tile_tree::TileTree;
pub use watch::Standing;
