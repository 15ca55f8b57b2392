//! How long a proof out of tiles takes in a log of ten million records, and how long tiles take to be made.
//!
//! Owns a tree of made-up leaves on disk. Must never hold it in memory.

use cofferdam_audit::TileTree;
use cofferdam_audit::proof::{extends, includes};
use cofferdam_audit::tree::{Hash, leaf_hash};

use crate::times::{Times, now};

/// Leaves of the tree.
const LEAVES: u64 = 10_000_000;
/// Proofs of each kind.
const PROOFS: u64 = 20_000;

/// Measures, and prints a table.
pub(crate) fn run() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut tree = TileTree::below(dir.path());
    let mut earlier: Vec<(u64, Hash)> = Vec::new();
    let begun = now();
    for n in 0..LEAVES {
        tree.append(leaf(n)).expect("a tile is written");
        if n % (LEAVES / 100) == 12_345 {
            earlier.push((tree.size(), tree.root()));
        }
    }
    tree.write().expect("tiles are written");
    let built = begun.elapsed();

    let root = tree.root();
    let (mut included, mut consistent) = (Times::default(), Times::default());
    for n in 0..PROOFS {
        // Far from one another, so that no tile is the one before.
        let index = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) % LEAVES;
        let begun = now();
        let proof = tree.inclusion(index).expect("tiles are read").expect("a leaf");
        included.push(begun.elapsed());
        assert!(includes(&leaf(index), index, LEAVES, &proof, &root), "proof of {index}");
    }
    for (size, old) in earlier.iter().cycle().take(PROOFS as usize) {
        let begun = now();
        let proof = tree.consistency(*size).expect("tiles are read").expect("a size");
        consistent.push(begun.elapsed());
        assert!(extends(*size, old, LEAVES, &root, &proof), "proof of {size}");
    }
    println!("\n## proofs out of tiles, {LEAVES} records\n");
    println!("| proof | p50 | p99 |\n|---|---|---|");
    for (kind, times) in [("inclusion", &mut included), ("consistency", &mut consistent)] {
        println!("| {kind} | {:.1?} | {:.1?} |", times.percentile(50), times.percentile(99));
    }
    let rate = LEAVES as f64 / built.as_secs_f64();
    println!("\ntiles made of {rate:.0} leaf hashes a second, those hashed on the way");
}

fn leaf(n: u64) -> Hash {
    leaf_hash(&n.to_be_bytes())
}
