//! A tenant's records as one file that the tenant, or anybody it shows it to, checks without the node.
//!
//! Owns the form of the file and the verdict. Must never call complete what is not: the records must be those whose
//! root is signed, and that root one the log has a record of.

use std::io::BufRead;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cofferdam_model::TenantId;
use serde::{Deserialize, Serialize};

use crate::checkpoint;
use crate::error::VerifyError;
use crate::prove::{TenantPage, TenantRoot};
use crate::receipt::{TlogProof, hash};
use crate::roots::{Batch, Committed};
use crate::signer::Verifier;
use crate::tenants::whose;
use crate::tree::{Hash, Tree, leaf_hash};

/// Bytes of a line: an entry of which each byte is escaped, and a little more.
const LINE_BYTES: u64 = 512 * 1024;

/// The first line: what shows that the others are all there are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TenantHead {
    /// What this is.
    pub format: String,
    /// The tenant's id.
    pub tenant: String,
    /// The signed checkpoint of its tree.
    pub checkpoint: String,
    /// What the log records of the root of its tree.
    #[serde(default)]
    pub roots: Option<RootText>,
}

/// What shows that the root of a tenant's tree is in a record of the log. Hashes are in base64.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RootText {
    /// Records the tree had then.
    pub size: u64,
    /// Its root then.
    pub root: String,
    /// Its place among the roots of the record.
    pub place: u64,
    /// How many those are.
    pub count: u64,
    /// From it up to the root that the record has.
    pub path: Vec<String>,
    /// The record, as it was hashed.
    pub entry: String,
    /// Proof that the record is in the log, as C2SP `tlog-proof`.
    pub proof: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    n: u64,
    entry: String,
}

#[derive(Deserialize)]
struct RootsRecord {
    kind: String,
    root: String,
    count: u64,
}

/// What an export was found to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantChecked {
    /// Name of the tenant's tree.
    pub origin: String,
    /// Records in it, all checked.
    pub size: u64,
    /// How many of them the root is for that the log has a record of.
    pub recorded: u64,
    /// Records of the log that the checkpoint is for by which that is proved.
    pub log_size: u64,
}

impl TenantHead {
    /// What the first line says it is.
    pub const FORMAT: &str = "cofferdam-tenant-export-1";

    /// That of an export that begins with this page; none where the tenant has no signed tree yet.
    pub fn of(tenant: &TenantId, page: &TenantPage) -> Option<Self> {
        let roots = page.committed.as_ref().and_then(RootText::of);
        Some(Self {
            format: Self::FORMAT.into(),
            tenant: tenant.to_string(),
            checkpoint: page.checkpoint.clone()?,
            roots,
        })
    }

    /// Its line.
    pub fn line(&self) -> String {
        serde_json::to_string(self).unwrap_or_default() + "\n"
    }
}

impl RootText {
    /// That of a page; none while no checkpoint covers the record.
    pub fn of(root: &TenantRoot) -> Option<Self> {
        Some(Self {
            size: root.size,
            root: STANDARD.encode(root.root),
            place: root.place,
            count: root.count,
            path: root.path.iter().map(|hash| STANDARD.encode(hash)).collect(),
            entry: root.entry.clone(),
            proof: root.proof.as_ref()?.to_string(),
        })
    }
}

/// The line of a record.
pub fn record_line(n: u64, entry: &str) -> String {
    serde_json::to_string(&Line { n, entry: entry.to_owned() }).unwrap_or_default() + "\n"
}

/// Checks an export with nothing but the log's public key.
pub fn check_tenant(mut input: impl BufRead, vkey: &str) -> Result<TenantChecked, VerifyError> {
    let refuse = |reason| VerifyError::Proof { reason };
    let log = Verifier::parse(vkey)?;
    let mut text = String::new();
    let not_head = "its first line is not that of a tenant's export";
    if !next_line(&mut input, &mut text)? {
        return Err(refuse(not_head));
    }
    let head: TenantHead = serde_json::from_str(&text).map_err(|_| refuse(not_head))?;
    if head.format != TenantHead::FORMAT || TenantId::parse(&head.tenant).is_err() {
        return Err(refuse(not_head));
    }
    let own = log.of_tenant(&head.tenant);
    let (size, root) = checkpoint::signed(&head.checkpoint, &own).map_err(|reason| VerifyError::Checkpoint {
        file: "the export".into(),
        offset: 0,
        reason,
    })?;
    let roots =
        head.roots.as_ref().ok_or_else(|| refuse("the log has no record of its root: export it again in a moment"))?;
    let (recorded, recorded_root, log_size) = check_root(roots, &head.tenant, &log)?;

    let mut tree = Tree::default();
    while next_line(&mut input, &mut text)? {
        let line: Line = serde_json::from_str(&text).map_err(|_| refuse("a line of it is not a record"))?;
        if line.n != tree.size() {
            return Err(refuse("a record is missing, or out of order"));
        }
        if whose(line.entry.as_bytes()).as_deref() != Some(head.tenant.as_str()) {
            return Err(refuse("a record of it is not the tenant's"));
        }
        tree.append(leaf_hash(line.entry.as_bytes()));
        if tree.size() == recorded && tree.root() != recorded_root {
            return Err(refuse("its records are not those whose root is recorded in the log"));
        }
    }
    if tree.size() != size || tree.root() != root {
        return Err(refuse("its records are not those whose root is signed"));
    }
    if recorded > size {
        return Err(refuse("it has fewer records than the log says there are"));
    }
    Ok(TenantChecked { origin: own.name().to_owned(), size, recorded, log_size })
}

/// Checks that a root is among those of a record of the log. Gives its size and itself, and the size of the log.
fn check_root(roots: &RootText, tenant: &str, log: &Verifier) -> Result<(u64, Hash, u64), VerifyError> {
    let refuse = |reason| VerifyError::Proof { reason };
    let malformed = || refuse("what shows its recorded root is malformed");
    let path = roots.path.iter().map(|text| hash(text)).collect::<Option<Vec<Hash>>>().ok_or_else(malformed)?;
    let root = hash(&roots.root).ok_or_else(malformed)?;
    let record: RootsRecord = serde_json::from_str(&roots.entry).map_err(|_| malformed())?;
    let all = hash(&record.root).filter(|_| record.kind == Batch::KIND && record.count == roots.count);
    let all = all.ok_or_else(malformed)?;
    let shown = Committed { record: 0, size: roots.size, root, place: roots.place, count: roots.count, path };
    if !shown.shows(tenant, &all) {
        return Err(refuse("its root is not among those of the record that should have it"));
    }
    let proof = TlogProof::parse(&roots.proof)?;
    let proved = proof.check_by(log, Some(leaf_hash(roots.entry.as_bytes())))?;
    Ok((roots.size, root, proved.size))
}

fn next_line(input: &mut impl BufRead, into: &mut String) -> Result<bool, VerifyError> {
    into.clear();
    let read = std::io::Read::take(input, LINE_BYTES).read_line(into).map_err(VerifyError::file("the export"))?;
    if read as u64 == LINE_BYTES && !into.ends_with('\n') {
        return Err(VerifyError::Proof { reason: "a line of it is longer than a record can be" });
    }
    Ok(read > 0)
}
