//! Proofs and roots out of a tree's perfect subtrees, wherever those are kept: a handful of hashes for each.
//!
//! Owns which subtrees a proof takes. Must never look at more than twice as many as the tree has levels.

use std::collections::HashMap;

use crate::error::AuditError;
use crate::proof;
use crate::tile::{FULL, HEIGHT, TileDir, TileName, hashes};
use crate::tree::{Hash, empty_root, node_hash};

/// Where hashes of perfect subtrees come from.
pub(crate) trait Nodes {
    /// Root of the 2^`height` leaves from `index` times as many on.
    fn node(&mut self, height: u32, index: u64) -> Result<Hash, AuditError>;
}

/// Root of a tree of `size` leaves.
pub(crate) fn root(nodes: &mut impl Nodes, size: u64) -> Result<Hash, AuditError> {
    if size == 0 { Ok(empty_root()) } else { range(nodes, 0, size) }
}

/// Proof that leaf `index`, which is below `size`, is in the tree of that size.
pub(crate) fn inclusion(nodes: &mut impl Nodes, index: u64, size: u64) -> Result<Vec<Hash>, AuditError> {
    let (mut begin, mut end, mut proof) = (0, size, Vec::new());
    while end - begin > 1 {
        let middle = begin + half(end - begin);
        if index < middle {
            proof.push(range(nodes, middle, end)?);
            end = middle;
        } else {
            proof.push(range(nodes, begin, middle)?);
            begin = middle;
        }
    }
    proof.reverse();
    Ok(proof)
}

/// Proof that the tree of `old` leaves is a prefix of that of `size`, which are no fewer.
pub(crate) fn consistency(nodes: &mut impl Nodes, old: u64, size: u64) -> Result<Vec<Hash>, AuditError> {
    let (mut begin, mut end, mut proof) = (0, size, Vec::new());
    if old == 0 {
        return Ok(proof);
    }
    while old != end {
        let middle = begin + half(end - begin);
        if old <= middle {
            proof.push(range(nodes, middle, end)?);
            end = middle;
        } else {
            proof.push(range(nodes, begin, middle)?);
            begin = middle;
        }
    }
    // The old tree itself is known to whoever asks.
    if begin > 0 {
        proof.push(range(nodes, begin, end)?);
    }
    proof.reverse();
    Ok(proof)
}

/// Root of the leaves from `begin` to `end`, which are a subtree on the way of some proof.
fn range(nodes: &mut impl Nodes, begin: u64, end: u64) -> Result<Hash, AuditError> {
    let leaves = end - begin;
    if leaves.is_power_of_two() {
        let height = leaves.trailing_zeros();
        return nodes.node(height, begin >> height);
    }
    let middle = begin + half(leaves);
    let left = range(nodes, begin, middle)?;
    Ok(node_hash(&left, &range(nodes, middle, end)?))
}

/// The largest power of two below a number of two or more.
fn half(leaves: u64) -> u64 {
    1 << (u64::BITS - 1 - (leaves - 1).leading_zeros())
}

/// Those of a tree of `size` leaves in tiles, each tile read once.
pub(crate) struct TileNodes<'a> {
    tiles: &'a TileDir,
    size: u64,
    read: HashMap<(u8, u64), Vec<Hash>>,
}

impl<'a> TileNodes<'a> {
    pub(crate) fn new(tiles: &'a TileDir, size: u64) -> Self {
        Self { tiles, size, read: HashMap::new() }
    }

    /// Tiles read so far.
    #[cfg(test)]
    pub(crate) fn reads(&self) -> usize {
        self.read.len()
    }

    fn tile(&mut self, level: u8, n: u64) -> Result<&[Hash], AuditError> {
        if !self.read.contains_key(&(level, n)) {
            let missing = || AuditError::Derived { path: self.tiles.path().to_owned() };
            let name = TileName::of(self.size, level, n).ok_or_else(missing)?;
            let tile = hashes(&self.tiles.read(name)?.ok_or_else(missing)?);
            self.read.insert((level, n), tile);
        }
        Ok(self.read.get(&(level, n)).map_or(&[], Vec::as_slice))
    }
}

impl Nodes for TileNodes<'_> {
    fn node(&mut self, height: u32, index: u64) -> Result<Hash, AuditError> {
        let within = height % HEIGHT;
        let first = index << within;
        let (n, place) = (first / u64::from(FULL), first % u64::from(FULL));
        let tile = self.tile(u8::try_from(height / HEIGHT).unwrap_or(u8::MAX), n)?;
        let begin = usize::try_from(place).unwrap_or(usize::MAX);
        match tile.get(begin..begin.saturating_add(1 << within)) {
            Some(below) => Ok(proof::root(below)),
            None => Err(AuditError::Derived { path: self.tiles.path().to_owned() }),
        }
    }
}

/// Those of a small tree, in memory.
pub(crate) struct Held(Vec<Vec<Hash>>);

impl Held {
    pub(crate) fn of(leaves: Vec<Hash>) -> Self {
        let mut levels = vec![leaves];
        while let Some(below) = levels.last().filter(|below| below.len() > 1) {
            let above = below.as_chunks::<2>().0.iter().map(|[left, right]| node_hash(left, right)).collect();
            levels.push(above);
        }
        Self(levels)
    }
}

impl Nodes for Held {
    fn node(&mut self, height: u32, index: u64) -> Result<Hash, AuditError> {
        let at = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        let found = self.0.get(at(height.into())).and_then(|level| level.get(at(index)));
        found.copied().ok_or_else(|| AuditError::Derived { path: "roots of tenants".into() })
    }
}
