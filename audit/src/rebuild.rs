//! Making anew what is derived from a log, from its segments alone.
//!
//! Owns that nothing is called rebuilt which does not fit the newest signed checkpoint. Must never touch a record.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::checkpoint::{Checkpoints, NEWEST};
use crate::derive::Following;
use crate::error::{AuditError, VerifyError};
use crate::recover::take_lock;
use crate::segment;
use crate::signer::{Signer, Verifier};

/// What was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rebuilt {
    /// Records there are tiles of now: those of the newest checkpoint.
    pub size: u64,
    /// Root of the tree over them, base64, which is the signed one.
    pub root: String,
    /// Tenants that have a tree of their own records.
    pub tenants: u64,
    /// Records of tenants' roots that were found to be right.
    pub roots: u64,
    /// Indexes of such records that are not: somebody's records are not those whose root was recorded. The first
    /// thousand.
    pub wrong: Vec<u64>,
}

/// Removes what is derived from the log at `dir`, which no process may have open, and makes it anew. Without the
/// signing key the trees of tenants have no checkpoints until the node starts.
pub fn rebuild(dir: &Path, vkey: &str, signer: Option<Signer>) -> Result<Rebuilt, AuditError> {
    let damaged = |source: VerifyError| AuditError::Damaged { dir: dir.to_owned(), source: Box::new(source) };
    let verifier = Verifier::parse(vkey).map_err(damaged)?;
    let _lock = take_lock(dir)?;
    let checkpoints = Checkpoints::read(dir, &verifier).map_err(damaged)?;
    let newest = checkpoints.newest.and_then(|size| checkpoints.all.iter().rfind(|one| one.size == size));
    let missing = || VerifyError::Checkpoint { file: NEWEST.to_owned(), offset: 0, reason: "it is missing" };
    let newest = newest.ok_or_else(|| damaged(missing()))?;
    let mut at = Following::anew(dir, signer)?;
    while at.next() < newest.size {
        at.step(newest.size)?;
    }
    if at.edge.root() != newest.root {
        let file = segment::DIRECTORY.to_owned();
        return Err(damaged(VerifyError::Root { checkpoint: newest.size, file, offset: 0 }));
    }
    at.write()?;
    at.tenants.flush()?;
    Ok(Rebuilt {
        size: newest.size,
        root: STANDARD.encode(newest.root),
        tenants: at.tenants.count()?,
        roots: at.tenants.right(),
        wrong: at.tenants.wrong().to_vec(),
    })
}
