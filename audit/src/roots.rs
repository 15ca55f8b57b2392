//! Roots of tenants' trees as the log records them: one root over all that have grown, so that a tenant can be shown
//! its own among them, and learns nothing of the others.
//!
//! Owns the form of that, and of what shows it. Must never show a tenant another one's root.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::error::AuditError;
use crate::nodes::{self, Held};
use crate::proof;
use crate::tile::{read_bounded, write_whole};
use crate::tree::{Hash, leaf_hash};

/// File of what shows that a tenant's root is recorded.
const COMMITTED: &str = "committed";
const COMMITTED_BYTES: u64 = 16 * 1024;

/// The root of one tenant's tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Root {
    pub(crate) tenant: String,
    pub(crate) size: u64,
    pub(crate) root: Hash,
}

impl Root {
    /// Its leaf in the tree over all of a record: nobody can guess it who does not know the root.
    pub(crate) fn leaf(&self) -> Hash {
        let Self { tenant, size, root } = self;
        leaf_hash(format!(r#"{{"root":"{}","size":{size},"tenant":"{tenant}"}}"#, STANDARD.encode(root)).as_bytes())
    }
}

/// What one record says of all of them, by tenant in ascending order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Batch {
    /// All records of the log below this are in the trees.
    pub(crate) until: u64,
    pub(crate) count: u64,
    /// Root of the tree over them.
    pub(crate) root: Hash,
}

impl Batch {
    /// The kind of record it makes.
    pub(crate) const KIND: &'static str = "tenant_roots";

    pub(crate) fn of(until: u64, roots: &[Root]) -> Result<Self, AuditError> {
        let count = roots.len() as u64;
        let root = nodes::root(&mut Held::of(roots.iter().map(Root::leaf).collect()), count)?;
        Ok(Self { until, count, root })
    }
}

/// What shows that a tenant's root is among those of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Committed {
    /// Index of the record.
    pub(crate) record: u64,
    pub(crate) size: u64,
    pub(crate) root: Hash,
    pub(crate) place: u64,
    pub(crate) count: u64,
    pub(crate) path: Vec<Hash>,
}

#[derive(Serialize, Deserialize)]
struct Text {
    record: u64,
    size: u64,
    root: String,
    place: u64,
    count: u64,
    path: Vec<String>,
}

impl Committed {
    pub(crate) fn read(dir: &Path) -> Result<Option<Self>, AuditError> {
        let Some(bytes) = read_bounded(&dir.join(COMMITTED), COMMITTED_BYTES)? else { return Ok(None) };
        let text: Option<Text> = serde_json::from_slice(&bytes).ok();
        let hash = |text: &String| -> Option<Hash> { STANDARD.decode(text).ok()?.try_into().ok() };
        let read = text.and_then(|text| {
            let path = text.path.iter().map(hash).collect::<Option<_>>()?;
            let Text { record, size, place, count, .. } = text;
            Some(Self { record, size, root: hash(&text.root)?, place, count, path })
        });
        read.map(Some).ok_or_else(|| AuditError::Derived { path: dir.to_owned() })
    }

    pub(crate) fn write(&self, dir: &Path) -> Result<(), AuditError> {
        let Self { record, size, place, count, .. } = *self;
        let (root, path) = (STANDARD.encode(self.root), self.path.iter().map(|hash| STANDARD.encode(hash)).collect());
        let text = serde_json::to_vec(&Text { record, size, root, place, count, path }).unwrap_or_default();
        write_whole(&dir.join(COMMITTED), &text)
    }

    /// Whether it shows the tenant's root to be among those of a record with this root.
    pub(crate) fn shows(&self, tenant: &str, root: &Hash) -> bool {
        let own = Root { tenant: tenant.to_owned(), size: self.size, root: self.root };
        proof::includes(&own.leaf(), self.place, self.count, &self.path, root)
    }
}
