//! A tree that lies in tiles, for whoever has leaf hashes and no log.
//!
//! Owns nothing but the directory it is given. Must never hold more of the tree than its right edge.

use std::path::Path;

use crate::error::AuditError;
use crate::nodes::{self, TileNodes};
use crate::tile::{Edge, TileDir};
use crate::tree::Hash;

/// A growing tree in tiles.
pub struct TileTree {
    tiles: TileDir,
    edge: Edge,
    written: u64,
}

impl TileTree {
    /// An empty one, whose tiles go below `dir`.
    pub fn below(dir: &Path) -> Self {
        Self { tiles: TileDir::at(dir), edge: Edge::default(), written: 0 }
    }

    /// Appends a leaf by its hash.
    pub fn append(&mut self, leaf: Hash) -> Result<(), AuditError> {
        self.edge.append(leaf, &self.tiles)
    }

    /// Writes the tiles that are not full, so that proofs can be made.
    pub fn write(&mut self) -> Result<(), AuditError> {
        self.edge.write(self.written, &self.tiles)?;
        self.written = self.edge.size();
        Ok(())
    }

    /// Its leaves.
    pub fn size(&self) -> u64 {
        self.edge.size()
    }

    /// Its root.
    pub fn root(&self) -> Hash {
        self.edge.root()
    }

    /// Proof that leaf `index` is in it, out of its tiles; none when there is no such leaf.
    pub fn inclusion(&self, index: u64) -> Result<Option<Vec<Hash>>, AuditError> {
        let size = self.edge.size();
        let mut nodes = TileNodes::new(&self.tiles, size);
        (index < size).then(|| nodes::inclusion(&mut nodes, index, size)).transpose()
    }

    /// Proof that its first `old` leaves are a prefix of it, out of its tiles; none when there are fewer.
    pub fn consistency(&self, old: u64) -> Result<Option<Vec<Hash>>, AuditError> {
        let size = self.edge.size();
        let mut nodes = TileNodes::new(&self.tiles, size);
        (old <= size).then(|| nodes::consistency(&mut nodes, old, size)).transpose()
    }
}
