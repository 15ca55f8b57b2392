//! Checking a log with nothing but its files and the public key.
//!
//! Owns the verdict. Must never write, take a lock or need the node: an auditor runs it on a copy.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::checkpoint::{Checkpoints, NEWEST};
use crate::epochs::Epochs;
use crate::error::VerifyError;
use crate::resume::{self, Resume};
use crate::retain;
use crate::scan::scan;
use crate::signer::Verifier;

pub use crate::epochs::Gap;

/// What a log was found to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// The log's name.
    pub origin: String,
    /// Records found, all checked.
    pub size: u64,
    /// Root of the tree over them, base64.
    pub root: String,
    /// Records the newest checkpoint covers; those above are not signed for yet.
    pub checkpoint_size: u64,
    /// Signed checkpoints checked.
    pub checkpoints: u64,
    /// Segment files read.
    pub segments: u64,
    /// Bytes after the last record that are none: a write cut short by a crash, or one going on right now.
    pub torn_bytes: u64,
    /// The same, after the last whole note of the checkpoints kept for good.
    pub torn_checkpoint_bytes: u64,
    /// What is not there any more, if anything was pruned.
    pub pruned: Option<Pruned>,
    /// What the log should have and does not, the first thousand: boots without a start or a stop, heartbeats, counts
    /// that do not fit.
    pub gaps: Vec<Gap>,
}

/// What was pruned of a log, and what says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pruned {
    /// Index of the first record that is left: all before it are gone.
    pub first: u64,
    /// Index of the record that tells of it.
    pub record: u64,
    /// Checkpoints of which only the signature could be checked, for they are of what is gone.
    pub checkpoints: u64,
}

/// Checks every byte of every record against checksums, order, tree and all signed checkpoints, and what stands beside
/// an entry against what the entry commits to. Safe while the node runs.
pub fn verify(dir: &Path, vkey: &str) -> Result<Verified, VerifyError> {
    let verifier = Verifier::parse(vkey)?;
    // Checkpoints first: they only ever speak of records that are there already.
    let mut checkpoints = Checkpoints::read(dir, &verifier)?;
    let signed = checkpoints.all.len() as u64;
    let Some(checkpoint_size) = checkpoints.newest else {
        return Err(VerifyError::Checkpoint { file: NEWEST.to_owned(), offset: 0, reason: "it is missing" });
    };
    // What opening takes for granted must follow from the records, too.
    let failed = || VerifyError::file(dir.join(resume::DIRECTORY));
    let first = retain::minimum(dir)?;
    for number in resume::numbers(dir).map_err(failed())? {
        let resume = Resume::read(dir, number, &verifier).map_err(failed())?;
        if let Some(resume) = resume.filter(|resume| resume.tree.size() >= first) {
            checkpoints.expect(resume.tree.size(), resume.tree.root(), resume::DIRECTORY);
        }
    }
    let mut epochs = Epochs::begun(first > 0);
    let found = scan(dir, verifier.name(), &checkpoints, |frame| {
        frame.payload.check()?;
        epochs.see(frame.index, frame.payload.entry())
    })?;
    Ok(Verified {
        origin: verifier.name().to_owned(),
        size: found.tree.size(),
        root: STANDARD.encode(found.tree.root()),
        checkpoint_size,
        checkpoints: signed,
        segments: found.segments,
        torn_bytes: found.torn_bytes,
        torn_checkpoint_bytes: checkpoints.torn_bytes,
        pruned: found.base.map(|base| Pruned {
            first: base.size,
            record: base.record,
            checkpoints: checkpoints.all.iter().filter(|checkpoint| checkpoint.size < base.size).count() as u64,
        }),
        gaps: epochs.gaps,
    })
}
