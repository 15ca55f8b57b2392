//! The Merkle tree of RFC 6962 over the records, kept as a compact range.
//!
//! Owns hashing and the handful of hashes from which the next root follows. Must never keep the leaves: the log on
//! disk does.

use aws_lc_rs::digest;

/// A SHA-256 hash of a leaf, a node or a tree.
pub type Hash = [u8; 32];

/// The compact range `[0, size)`: the roots of its perfect subtrees, largest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Tree {
    size: u64,
    peaks: Vec<Hash>,
}

impl Tree {
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// The tree with these roots of perfect subtrees, largest first; none where a tree of that size has others.
    pub(crate) fn of(size: u64, peaks: Vec<Hash>) -> Option<Self> {
        (size.count_ones() as usize == peaks.len()).then_some(Self { size, peaks })
    }

    /// The roots of its perfect subtrees, largest first.
    pub(crate) fn peaks(&self) -> &[Hash] {
        &self.peaks
    }

    pub(crate) fn append(&mut self, leaf: Hash) {
        let mut hash = leaf;
        let mut size = self.size;
        while size & 1 == 1
            && let Some(left) = self.peaks.pop()
        {
            hash = node_hash(&left, &hash);
            size >>= 1;
        }
        self.peaks.push(hash);
        self.size += 1;
    }

    pub(crate) fn root(&self) -> Hash {
        let mut peaks = self.peaks.iter().rev();
        let Some(last) = peaks.next() else { return empty_root() };
        peaks.fold(*last, |right, left| node_hash(left, &right))
    }
}

/// SHA-256 of anything that is neither leaf nor node.
pub(crate) fn sha256(bytes: &[u8]) -> Hash {
    let mut out = [0u8; 32];
    out.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    out
}

/// Root of the empty tree.
pub fn empty_root() -> Hash {
    sha256(b"")
}

/// Hash of a leaf, given its bytes after a zero byte, which spares copying them.
pub(crate) fn leaf_hash_of_prefixed(zero_then_entry: &[u8]) -> Hash {
    debug_assert_eq!(zero_then_entry.first(), Some(&0));
    sha256(zero_then_entry)
}

/// Hash of a leaf.
pub fn leaf_hash(entry: &[u8]) -> Hash {
    let mut prefixed = Vec::with_capacity(entry.len() + 1);
    prefixed.push(0);
    prefixed.extend_from_slice(entry);
    sha256(&prefixed)
}

/// Hash of the node over two others.
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    let mut bytes = [1u8; 65];
    let (_, children) = bytes.split_at_mut(1);
    let (to_left, to_right) = children.split_at_mut(32);
    to_left.copy_from_slice(left);
    to_right.copy_from_slice(right);
    sha256(&bytes)
}

#[cfg(test)]
mod tests {
    use ct_merkle::mem_backed_tree::MemoryBackedTree;

    use super::*;

    #[test]
    fn every_root_is_that_of_another_implementation() {
        let mut ours = Tree::default();
        let mut theirs = MemoryBackedTree::<sha2::Sha256, Vec<u8>>::new();
        for n in 0..300u32 {
            assert_eq!(ours.root().as_slice(), theirs.root().as_bytes().as_slice(), "size {n}");
            let entry = n.to_be_bytes().repeat(n as usize % 5);
            ours.append(leaf_hash(&entry));
            theirs.push(entry);
        }
        assert_eq!(ours.size(), 300);
    }
}
