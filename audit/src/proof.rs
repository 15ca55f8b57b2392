//! Inclusion and consistency proofs of RFC 9162, made from leaf hashes and checked without them.
//!
//! Owns the two algorithms each way. Must never trust a proof's length: a checker consumes exactly what the sizes
//! ask for and refuses anything else.

use crate::tree::{Hash, empty_root, node_hash};

/// Root of the tree over `leaves`.
pub fn root(leaves: &[Hash]) -> Hash {
    match leaves {
        [] => empty_root(),
        [leaf] => *leaf,
        _ => {
            let (left, right) = halves(leaves);
            node_hash(&root(left), &root(right))
        }
    }
}

/// Proof that leaf `index` is in the tree over `leaves`; none when there is no such leaf.
pub fn inclusion(leaves: &[Hash], index: usize) -> Option<Vec<Hash>> {
    if index >= leaves.len() {
        return None;
    }
    if leaves.len() == 1 {
        return Some(Vec::new());
    }
    let (left, right) = halves(leaves);
    let (mut proof, sibling) = match index.checked_sub(left.len()) {
        None => (inclusion(left, index)?, root(right)),
        Some(index) => (inclusion(right, index)?, root(left)),
    };
    proof.push(sibling);
    Some(proof)
}

/// Proof that the tree over the first `old` of `leaves` is a prefix of the tree over all; none when there are fewer.
pub fn consistency(leaves: &[Hash], old: usize) -> Option<Vec<Hash>> {
    match old {
        _ if old > leaves.len() => None,
        0 => Some(Vec::new()),
        _ => Some(subproof(leaves, old, true)),
    }
}

/// Whether `proof` shows that `leaf` is the one at `index` of the tree of `size` leaves and this `root`.
pub fn includes(leaf: &Hash, index: u64, size: u64, proof: &[Hash], root: &Hash) -> bool {
    if index >= size {
        return false;
    }
    let (mut at, mut last, mut hash) = (index, size - 1, *leaf);
    for sibling in proof {
        if last == 0 {
            return false;
        }
        if at & 1 == 1 || at == last {
            hash = node_hash(sibling, &hash);
            while at & 1 == 0 && at != 0 {
                at >>= 1;
                last >>= 1;
            }
        } else {
            hash = node_hash(&hash, sibling);
        }
        at >>= 1;
        last >>= 1;
    }
    last == 0 && hash == *root
}

/// Whether `proof` shows that the tree (`old`, `old_root`) is a prefix of the tree (`new`, `new_root`).
pub fn extends(old: u64, old_root: &Hash, new: u64, new_root: &Hash, proof: &[Hash]) -> bool {
    if old > new {
        return false;
    }
    if old == new {
        return proof.is_empty() && old_root == new_root;
    }
    if old == 0 {
        return proof.is_empty() && *old_root == empty_root();
    }
    let mut rest = proof.iter();
    let (mut at, mut last) = (old - 1, new - 1);
    while at & 1 == 1 {
        at >>= 1;
        last >>= 1;
    }
    // A perfect old tree is its own starting point, and therefore left out of the proof.
    let start = if old.is_power_of_two() { old_root } else { rest.next().unwrap_or(old_root) };
    let (mut as_old, mut as_new) = (*start, *start);
    for hash in rest {
        if last == 0 {
            return false;
        }
        if at & 1 == 1 || at == last {
            as_old = node_hash(hash, &as_old);
            as_new = node_hash(hash, &as_new);
            while at & 1 == 0 && at != 0 {
                at >>= 1;
                last >>= 1;
            }
        } else {
            as_new = node_hash(&as_new, hash);
        }
        at >>= 1;
        last >>= 1;
    }
    last == 0 && as_old == *old_root && as_new == *new_root
}

/// Splits two or more leaves at the largest power of two below their number.
fn halves(leaves: &[Hash]) -> (&[Hash], &[Hash]) {
    let middle = leaves.len().div_ceil(2).next_power_of_two();
    leaves.split_at_checked(middle).unwrap_or((leaves, &[]))
}

fn subproof(leaves: &[Hash], old: usize, whole: bool) -> Vec<Hash> {
    if old == leaves.len() {
        return if whole { Vec::new() } else { vec![root(leaves)] };
    }
    let (left, right) = halves(leaves);
    let (mut proof, sibling) = match old.checked_sub(left.len()) {
        None | Some(0) => (subproof(left, old, whole), root(right)),
        Some(old) => (subproof(right, old, false), root(left)),
    };
    proof.push(sibling);
    proof
}

#[cfg(test)]
mod tests {
    use ct_merkle::mem_backed_tree::MemoryBackedTree;

    use super::*;
    use crate::tree::{Tree, leaf_hash};

    type Theirs = MemoryBackedTree<sha2::Sha256, Vec<u8>>;

    fn leaves(n: usize) -> Vec<Hash> {
        (0..n).map(|i| leaf_hash(&i.to_be_bytes())).collect()
    }

    fn theirs(n: usize) -> Theirs {
        let mut tree = Theirs::new();
        (0..n).for_each(|i| tree.push(i.to_be_bytes().to_vec()));
        tree
    }

    #[test]
    fn proofs_are_those_of_another_implementation() {
        for size in 1..70 {
            let (ours, other) = (leaves(size), theirs(size));
            assert_eq!(root(&ours).as_slice(), other.root().as_bytes().as_slice());
            for index in 0..size {
                let theirs = other.prove_inclusion(index);
                assert_eq!(inclusion(&ours, index).unwrap().concat(), theirs.as_bytes());
            }
            for added in 0..size {
                let theirs = other.prove_consistency(added);
                assert_eq!(consistency(&ours, size - added).unwrap().concat(), theirs.as_bytes(), "{size} {added}");
            }
        }
    }

    #[test]
    fn every_proof_is_accepted_and_every_changed_one_refused() {
        for size in 1..40usize {
            let all = leaves(size);
            let whole = root(&all);
            for index in 0..size {
                let proof = inclusion(&all, index).unwrap();
                assert!(includes(&all[index], index as u64, size as u64, &proof, &whole));
                for other in (0..size + 2).filter(|other| *other != index) {
                    assert!(!includes(&all[index], other as u64, size as u64, &proof, &whole));
                }
                changes(&proof, |proof| assert!(!includes(&all[index], index as u64, size as u64, proof, &whole)));
            }
            for old in 0..=size {
                let proof = consistency(&all, old).unwrap();
                let before = root(&all[..old]);
                let sizes = (old as u64, size as u64);
                assert!(extends(sizes.0, &before, sizes.1, &whole, &proof), "{old} {size}");
                changes(&proof, |proof| assert!(!extends(sizes.0, &before, sizes.1, &whole, proof)));
                assert!(!extends(sizes.0, &leaf_hash(b"x"), sizes.1, &whole, &proof));
                assert!(!extends(sizes.0, &before, sizes.1, &leaf_hash(b"x"), &proof) || old == 0);
            }
        }
        assert_eq!(inclusion(&leaves(3), 3), None);
        assert_eq!(consistency(&leaves(3), 4), None);
    }

    fn changes(proof: &[Hash], refused: impl Fn(&[Hash])) {
        for at in 0..proof.len() {
            let mut changed = proof.to_vec();
            changed[at][7] ^= 1;
            refused(&changed);
        }
        refused(&[proof, &[[0u8; 32]]].concat());
        if let Some((_, shorter)) = proof.split_last() {
            refused(shorter);
        }
    }

    #[test]
    fn recursion_and_compact_range_agree() {
        let all = leaves(100);
        let mut tree = Tree::default();
        all.iter().for_each(|leaf| tree.append(*leaf));
        assert_eq!(tree.root(), root(&all));
    }
}
