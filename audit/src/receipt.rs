//! Receipts, which callers keep, and the proofs they are redeemed for.
//!
//! Owns both texts: a receipt is the log's name, the record's index and its leaf hash; a proof is a C2SP `tlog-proof`.
//! Must never take a proof for good that does not lead from that very leaf to a signed checkpoint.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::checkpoint;
use crate::error::VerifyError;
use crate::proof;
use crate::signer::Verifier;
use crate::tree::Hash;

/// First line of a proof.
const PROOF: &str = "c2sp.org/tlog-proof@v1";
/// Bytes of a proof with all the signatures a checkpoint may have.
const PROOF_BYTES: usize = 128 * 1024;
/// Hashes in the longest inclusion proof there can be.
const HASHES: usize = 64;

/// What somebody holds who was told that something is in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// The log's name.
    pub origin: String,
    /// The record's index.
    pub index: u64,
    /// The hash of its leaf, which nobody knows who was not told.
    pub leaf: Hash,
}

/// Why a text is no receipt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a receipt is `<log> <index> <leaf hash in base64>`, as the field `cofferdam-receipt` of an answer has it")]
pub struct NoReceipt;

impl fmt::Display for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.origin, self.index, STANDARD.encode(self.leaf))
    }
}

impl FromStr for Receipt {
    type Err = NoReceipt;

    fn from_str(text: &str) -> Result<Self, NoReceipt> {
        let mut words = text.split(' ');
        let (Some(origin), Some(index), Some(leaf), None) = (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(NoReceipt);
        };
        let receipt = Self {
            origin: origin.to_owned(),
            index: index.parse().map_err(|_| NoReceipt)?,
            leaf: hash(leaf).ok_or(NoReceipt)?,
        };
        let known = crate::signer::is_key_name(origin) && receipt.to_string() == text;
        if known { Ok(receipt) } else { Err(NoReceipt) }
    }
}

/// A hash in base64.
pub fn hash(text: &str) -> Option<Hash> {
    STANDARD.decode(text).ok()?.try_into().ok()
}

/// Proof that a record is in the log, with all it takes to check it but the record and the log's key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlogProof {
    /// The record's index.
    pub index: u64,
    /// The hash of its leaf. Said, not proved: whoever checks compares it with what he holds.
    pub leaf: Option<Hash>,
    /// From the leaf's sibling up.
    pub hashes: Vec<Hash>,
    /// The signed checkpoint.
    pub checkpoint: String,
}

/// What a proof was found to show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proved {
    /// The log's name.
    pub origin: String,
    /// The record's index.
    pub index: u64,
    /// Hash of its leaf.
    pub leaf: Hash,
    /// Records the checkpoint is for.
    pub size: u64,
}

impl fmt::Display for TlogProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{PROOF}")?;
        self.leaf.iter().try_for_each(|leaf| writeln!(f, "extra {}", STANDARD.encode(leaf)))?;
        writeln!(f, "index {}", self.index)?;
        self.hashes.iter().try_for_each(|hash| writeln!(f, "{}", STANDARD.encode(hash)))?;
        write!(f, "\n{}", self.checkpoint)
    }
}

impl TlogProof {
    /// Reads a proof, of which nothing is checked yet.
    pub fn parse(text: &str) -> Result<Self, VerifyError> {
        let refuse = |reason| VerifyError::Proof { reason };
        if text.len() > PROOF_BYTES {
            return Err(refuse("it is longer than a proof can be"));
        }
        let (head, checkpoint) =
            text.split_once("\n\n").ok_or_else(|| refuse("it has no blank line before its checkpoint"))?;
        let mut lines = head.split('\n').peekable();
        if lines.next() != Some(PROOF) {
            return Err(refuse("it does not begin with `c2sp.org/tlog-proof@v1`"));
        }
        let extra = lines.next_if(|line| line.starts_with("extra ")).and_then(|line| line.strip_prefix("extra "));
        // Other programs' extra data may be anything, but base64 it is.
        let extra = extra.map(|extra| STANDARD.decode(extra).map_err(|_| refuse("its extra data is not base64")));
        let extra = extra.transpose()?;
        let index =
            lines.next().and_then(|line| line.strip_prefix("index ")).ok_or_else(|| refuse("it has no index"))?;
        let number = index.parse::<u64>().ok().filter(|number| number.to_string() == index);
        let hashes: Option<Vec<Hash>> = lines.take(HASHES + 1).map(hash).collect();
        let hashes =
            hashes.filter(|hashes| hashes.len() <= HASHES).ok_or_else(|| refuse("its hashes are malformed"))?;
        Ok(Self {
            index: number.ok_or_else(|| refuse("its index is malformed"))?,
            leaf: extra.and_then(|extra| Hash::try_from(extra).ok()),
            hashes,
            checkpoint: checkpoint.to_owned(),
        })
    }

    /// Checks it for a leaf, that of the proof itself where none is given.
    pub fn check(&self, vkey: &str, leaf: Option<Hash>) -> Result<Proved, VerifyError> {
        let verifier = Verifier::parse(vkey)?;
        self.check_by(&verifier, leaf)
    }

    pub(crate) fn check_by(&self, verifier: &Verifier, leaf: Option<Hash>) -> Result<Proved, VerifyError> {
        let refuse = |reason| VerifyError::Proof { reason };
        let (size, root) = checkpoint::signed(&self.checkpoint, verifier)
            .map_err(|reason| VerifyError::Checkpoint { file: "the proof".into(), offset: 0, reason })?;
        if leaf.is_some() && self.leaf.is_some() && leaf != self.leaf {
            return Err(refuse("it is of another record"));
        }
        let leaf =
            leaf.or(self.leaf).ok_or_else(|| refuse("it does not say of which record it is: give the receipt"))?;
        if !proof::includes(&leaf, self.index, size, &self.hashes, &root) {
            return Err(refuse("it does not lead from the record to the checkpoint"));
        }
        Ok(Proved { origin: verifier.name().to_owned(), index: self.index, leaf, size })
    }
}
