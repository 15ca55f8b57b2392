//! Tiles are those of C2SP, proofs out of them those of another implementation, and losing them loses nothing.

use std::collections::BTreeMap;

use ct_merkle::mem_backed_tree::MemoryBackedTree;

use super::*;
use crate::derive::DeriveConfig;
use crate::nodes::{self, TileNodes};
use crate::tile::{Edge, TileDir, TileName};
use crate::tree::{Hash, leaf_hash};
use crate::{Bundle, TileTree, proof, rebuild};

/// A log with everything derived that can be.
pub(super) fn deriving(place: &Place) -> Log {
    let config = LogConfig { derive: Some(DeriveConfig::default()), ..place.config() };
    let log = place.open_with(config, Arc::new(disk::QuickDisk)).unwrap().0;
    while log.published().is_none() {
        std::thread::yield_now();
    }
    log
}

/// Everything below a directory, by path.
fn contents(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(contents(&path));
        } else {
            found.insert(path.clone(), fs::read(&path).unwrap());
        }
    }
    found
}

#[test]
fn tiles_have_the_names_of_c2sp() {
    let name = TileName { level: 0, n: 1_234_067, width: 256 };
    assert_eq!(name.path(), "0/x001/x234/067");
    for path in ["0/x001/x234/067", "7/000", "1/999.p/255", "0/x001/000.p/1"] {
        assert_eq!(TileName::parse(path).map(|name| name.path()).as_deref(), Some(path));
    }
    let bad = ["", "0", "0/", "8/000", "0/67", "0/0067", "0/x067", "0/000.p/0", "0/000.p/256", "0/000.p/01", "00/000"];
    let more = ["0/x000/067", "0/x001/67", "0/-01", "0/+01", "0/000/", "0/../000", "0/000.p/", "a/000", "0/x001/x234"];
    for path in bad.iter().chain(&more) {
        assert_eq!(TileName::parse(path), None, "{path}");
    }
    let long = format!("0/{}000", "x999/".repeat(9));
    assert_eq!(TileName::parse(&long), None);
    assert_eq!(Bundle::parse("x001/067.p/9").map(|bundle| bundle.path()).as_deref(), Some("x001/067.p/9"));
    // The vector of the specification.
    let of = |level, n| TileName::of(70_000, level, n).map(|name| name.width);
    assert_eq!((of(0, 272), of(0, 273), of(0, 274)), (Some(256), Some(112), None));
    assert_eq!((of(1, 0), of(1, 1), of(2, 0), of(3, 0)), (Some(256), Some(17), Some(1), None));
}

#[test]
fn proofs_out_of_tiles_are_those_of_another_implementation() {
    let dir = tempfile::tempdir().unwrap();
    let mut ours = TileTree::below(dir.path());
    let mut theirs = MemoryBackedTree::<sha2::Sha256, Vec<u8>>::new();
    let mut all: Vec<Hash> = Vec::new();
    for size in 1..=70_000u64 {
        let entry = size.to_be_bytes().to_vec();
        all.push(leaf_hash(&entry));
        ours.append(leaf_hash(&entry)).unwrap();
        theirs.push(entry);
        if ![1, 2, 3, 255, 256, 257, 511, 700, 65_535, 65_536, 65_537, 70_000].contains(&size) {
            continue;
        }
        ours.write().unwrap();
        assert_eq!(ours.root().as_slice(), theirs.root().as_bytes().as_slice(), "{size}");
        for index in
            [0, 1, size / 3, size / 2, size.saturating_sub(2), size - 1].into_iter().filter(|index| *index < size)
        {
            let made = ours.inclusion(index).unwrap().unwrap();
            let at = usize::try_from(index).unwrap();
            assert_eq!(made.concat(), theirs.prove_inclusion(at).as_bytes(), "{index} of {size}");
            assert!(proof::includes(&all[at], index, size, &made, &ours.root()));
            let old = index + 1;
            let made = ours.consistency(old).unwrap().unwrap();
            let added = usize::try_from(size - old).unwrap();
            assert_eq!(made.concat(), theirs.prove_consistency(added).as_bytes(), "{old} of {size}");
        }
    }
    assert_eq!(ours.inclusion(70_000).unwrap(), None);
    assert_eq!(ours.consistency(70_001).unwrap(), None);
    assert_eq!(ours.consistency(0).unwrap(), Some(Vec::new()));
}

#[test]
fn a_proof_reads_no_more_tiles_than_the_tree_has_levels_twice() {
    let dir = tempfile::tempdir().unwrap();
    let (tiles, size) = (TileDir::at(dir.path()), 200_001u64);
    let mut edge = Edge::default();
    (0..size).for_each(|n| edge.append(leaf_hash(&n.to_be_bytes()), &tiles).unwrap());
    edge.write(0, &tiles).unwrap();
    for index in (0..size).step_by(9_973) {
        let mut nodes = TileNodes::new(&tiles, size);
        nodes::inclusion(&mut nodes, index, size).unwrap();
        assert!(nodes.reads() <= 6, "{} for {index}", nodes.reads());
        let mut nodes = TileNodes::new(&tiles, size);
        nodes::consistency(&mut nodes, index + 1, size).unwrap();
        assert!(nodes.reads() <= 6, "{} for {index}", nodes.reads());
    }
    assert_eq!(Edge::read(size, &tiles).unwrap().as_ref(), Some(&edge), "the edge reads back");
    assert!(tiles.is_sound(size, size).unwrap());
    let damaged = tiles.path().join("0/x000/700");
    assert!(!damaged.exists());
    let damaged = tiles.path().join("0/700");
    let mut bytes = fs::read(&damaged).unwrap();
    bytes[77] ^= 1;
    fs::write(&damaged, bytes).unwrap();
    assert!(!tiles.is_sound(size, size).unwrap());
}

#[test]
fn a_checkpoint_is_published_with_all_its_tiles_and_proves_every_record() {
    let place = Place::new();
    let log = deriving(&place);
    calls(&log, 300);
    run(log.shutdown()).unwrap();
    let published = log.published().expect("a checkpoint with tiles");
    assert_eq!(published.size, 300);
    for index in 0..300 {
        let leaf = leaf_of(&log, index);
        let proof = log.prove(index, &leaf).unwrap().expect("a proof");
        let read = crate::receipt::TlogProof::parse(&proof.to_string()).unwrap();
        assert_eq!(read, proof);
        assert_eq!(read.check(&place.vkey(), Some(leaf)).unwrap().index, index);
        assert_eq!(log.prove(index, &[0; 32]).unwrap(), None, "whoever does not know the leaf is given nothing");
        assert_eq!(log.prove((index + 1) % 300, &leaf).unwrap(), None);
    }
    let (_, proof) = log.consistency(77).unwrap().unwrap();
    let first: Vec<Hash> = (0..77).map(|index| leaf_of(&log, index)).collect();
    assert!(proof::extends(77, &proof::root(&first), 300, &published.root, &proof));
    assert_eq!(log.prove(300, &[0; 32]).unwrap(), None);
    assert_eq!(log.tile(TileName::parse("0/001.p/45").unwrap()).unwrap(), None);
    assert_eq!(log.tile(TileName::parse("0/001.p/44").unwrap()).unwrap().unwrap().len(), 44 * 32);
    assert_eq!(log.tile(TileName::parse("0/001.p/3").unwrap()).unwrap().unwrap().len(), 3 * 32, "an earlier one's");
}

/// The leaf of a record, by the entry bundle it is in.
pub(super) fn leaf_of(log: &Log, index: u64) -> Hash {
    let size = log.published().unwrap().size;
    let width = (size - index / 256 * 256).min(256);
    let bytes = log.bundle(Bundle { n: index / 256, width: u16::try_from(width).unwrap() }).unwrap().unwrap();
    let mut rest = bytes.as_slice();
    for _ in 0..index % 256 {
        let length = usize::from(u16::from_be_bytes([rest[0], rest[1]]));
        rest = &rest[2 + length..];
    }
    let length = usize::from(u16::from_be_bytes([rest[0], rest[1]]));
    leaf_hash(&rest[2..2 + length])
}

#[test]
fn tiles_that_are_lost_or_damaged_are_made_anew_at_the_next_start() {
    let place = Place::new();
    let log = deriving(&place);
    calls(&log, 600);
    drop(log);
    let tiles = place.dir().join("tile");
    let before = contents(&tiles);
    assert!(before.len() >= 5, "{:?}", before.keys());
    let restart = || {
        drop(deriving(&place));
        assert_eq!(contents(&tiles), before);
    };
    restart();
    fs::remove_dir_all(&tiles).unwrap();
    restart();
    for path in before.keys() {
        let whole = fs::read(path).unwrap();
        for damage in [&whole[..whole.len() / 2], &[7; 9_000], &vec![7; whole.len()]] {
            fs::write(path, damage).unwrap();
            restart();
        }
        fs::remove_file(path).unwrap();
        restart();
    }
}

#[test]
fn rebuilding_makes_the_same_bytes_and_needs_a_log_that_verifies() {
    let place = Place::new();
    let log = deriving(&place);
    calls(&log, 600);
    assert!(matches!(rebuild(&place.dir(), &place.vkey(), None), Err(AuditError::Locked { .. })));
    drop(log);
    let before = contents(&place.dir());
    fs::remove_dir_all(place.dir().join("tile")).unwrap();
    let made = rebuild(&place.dir(), &place.vkey(), Some(place.signer())).unwrap();
    assert_eq!((made.size, made.tenants, made.wrong.len()), (600, 1, 0));
    assert_eq!(contents(&place.dir()), before);

    let segment = place.dir().join("segments/0000000003.log");
    let mut bytes = fs::read(&segment).unwrap();
    bytes[300] ^= 1;
    fs::set_permissions(&segment, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&segment, bytes).unwrap();
    assert!(matches!(rebuild(&place.dir(), &place.vkey(), None), Err(AuditError::Damaged { .. })));
}
