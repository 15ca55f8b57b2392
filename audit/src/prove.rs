//! What is given to whoever asks for evidence: tiles, entries, proofs, and a tenant's own records with theirs.
//!
//! Owns their bounds, and that no proof is given which does not check. Must never give what is kept beside an entry,
//! a leaf's proof to whoever does not know the leaf, or anything beyond what is published.

use std::path::Path;
use std::sync::PoisonError;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use cofferdam_model::TenantId;

use crate::derive::{self, Published};
use crate::error::AuditError;
use crate::log::Log;
use crate::nodes::{self, TileNodes};
use crate::proof;
use crate::receipt::TlogProof;
use crate::retain;
use crate::roots::Committed;
use crate::tenants::{self, Places, TreeState};
use crate::tile::{FULL, TileDir, TileName, hashes, numbered, parse_numbered, read_bounded};
use crate::tree::Hash;
use crate::walk::Walker;

/// Bytes of records in one page.
const PAGE_BYTES: usize = 1024 * 1024;
/// Records in one page.
const PAGE_RECORDS: usize = 1_000;
/// Records passed over between two of a tenant's before the next is looked for by itself.
const NEAR: u64 = 4_096;
/// Records looked for by themselves for one page: each may take reading a segment.
const FAR: usize = 16;
const NOTE_BYTES: u64 = 64 * 1024;

/// Which entry bundle, and how much of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bundle {
    /// Its number: of the entries 256 times as many on.
    pub n: u64,
    /// Entries of it, 1 to 256.
    pub width: u16,
}

impl Bundle {
    /// Its path below `tile/entries/`, as in `x001/067.p/5`.
    pub fn path(&self) -> String {
        numbered(self.n, self.width)
    }

    /// Reads a path. Only the one form of it is taken.
    pub fn parse(path: &str) -> Option<Self> {
        parse_numbered(path).map(|(n, width)| Self { n, width })
    }
}

/// Some of a tenant's records, with what shows that they are all there are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantPage {
    /// Records in the tenant's tree.
    pub size: u64,
    /// The tree's signed checkpoint, where there is one.
    pub checkpoint: Option<String>,
    /// What the log records of the tree's root.
    pub committed: Option<TenantRoot>,
    /// Number of the first record below.
    pub from: u64,
    /// Entries, one after the other.
    pub entries: Vec<String>,
    /// Number to go on from; none where the tree's end was reached.
    pub next: Option<u64>,
}

/// What shows that the root of a tenant's tree is in a record of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantRoot {
    /// Records the tree had then.
    pub size: u64,
    /// Its root then.
    pub root: Hash,
    /// Its place among the roots of that record.
    pub place: u64,
    /// How many those are.
    pub count: u64,
    /// From it up to the root that the record has.
    pub path: Vec<Hash>,
    /// The record, as it was hashed.
    pub entry: String,
    /// Proof that the record is in the log; none while no checkpoint covers it.
    pub proof: Option<TlogProof>,
}

/// A published checkpoint, and the proof that it extends an earlier one.
pub type Extends = (std::sync::Arc<Published>, Vec<Hash>);

impl Log {
    /// The newest checkpoint whose tiles are there; none before the first.
    pub fn published(&self) -> Option<std::sync::Arc<Published>> {
        self.shared().derived.published()
    }

    /// The bytes of a hash tile of what is published. Blocks on files.
    pub fn tile(&self, name: TileName) -> Result<Option<Vec<u8>>, AuditError> {
        let Some(published) = self.published().filter(|published| name.is_in(published.size)) else { return Ok(None) };
        part_of(&derive::tiles_of(self.dir()), name, published.size)
    }

    /// The entries of a bundle of what is published, each after its length. Blocks on files.
    pub fn bundle(&self, bundle: Bundle) -> Result<Option<Vec<u8>>, AuditError> {
        let name = TileName { level: 0, n: bundle.n, width: bundle.width };
        if self.published().is_none_or(|published| !name.is_in(published.size)) {
            return Ok(None);
        }
        let from = bundle.n * u64::from(FULL);
        let damaged = |source| AuditError::Damaged { dir: self.dir().to_owned(), source: Box::new(source) };
        if from < retain::minimum(self.dir()).map_err(damaged)? {
            return Ok(None);
        }
        let until = from + u64::from(bundle.width);
        let mut held = self.shared().derived.walker.lock().unwrap_or_else(PoisonError::into_inner).take();
        held = held.filter(|walker| (from.saturating_sub(NEAR)..=from).contains(&walker.next()));
        let mut walker = held.unwrap_or_else(|| Walker::new(self.dir(), from));
        let mut bytes = Vec::new();
        walker.read(until, u64::MAX, |record| {
            if record.index >= from {
                // No entry is longer than two bytes can say.
                let length = u16::try_from(record.entry().len()).unwrap_or(u16::MAX);
                bytes.extend_from_slice(&length.to_be_bytes());
                bytes.extend_from_slice(record.entry());
            }
            Ok(())
        })?;
        *self.shared().derived.walker.lock().unwrap_or_else(PoisonError::into_inner) = Some(walker);
        Ok(Some(bytes))
    }

    /// Proof that the record of this index and leaf is in the log, for whoever knows both. Blocks on files.
    pub fn prove(&self, index: u64, leaf: &Hash) -> Result<Option<TlogProof>, AuditError> {
        match self.published() {
            Some(published) => prove(self.dir(), &published, index, leaf),
            None => Ok(None),
        }
    }

    /// Proof that the log's first `old` records are those of an earlier checkpoint of that size. Blocks on files.
    pub fn consistency(&self, old: u64) -> Result<Option<Extends>, AuditError> {
        let Some(published) = self.published().filter(|published| old <= published.size) else { return Ok(None) };
        let tiles = derive::tiles_of(self.dir());
        let proof = nodes::consistency(&mut TileNodes::new(&tiles, published.size), old, published.size)?;
        Ok(Some((published, proof)))
    }

    /// The signed checkpoint of a tenant's tree; none where no record is in it. Blocks on files.
    pub fn tenant_checkpoint(&self, tenant: &TenantId) -> Result<Option<String>, AuditError> {
        note_of(self.dir(), tenant)
    }

    /// The bytes of a hash tile of a tenant's tree. Blocks on files.
    pub fn tenant_tile(&self, tenant: &TenantId, name: TileName) -> Result<Option<Vec<u8>>, AuditError> {
        let Some(state) = TreeState::read(&tenants::dir_of(self.dir(), tenant))? else { return Ok(None) };
        if !name.is_in(state.size) {
            return Ok(None);
        }
        part_of(&tenants::tiles_of(self.dir(), tenant), name, state.size)
    }

    /// Some of a tenant's records from number `from` of them on, with what shows their completeness. Blocks on files.
    pub fn tenant_page(&self, tenant: &TenantId, from: u64) -> Result<TenantPage, AuditError> {
        tenant_page(self.dir(), tenant, from, self.published().as_deref())
    }
}

/// Proof that a record is in a log, by the newest checkpoint there are tiles for, from the log's files alone.
pub fn prove_in(dir: &Path, vkey: &str, index: u64, leaf: &Hash) -> Result<Option<TlogProof>, AuditError> {
    prove(dir, &published_in(dir, vkey)?, index, leaf)
}

/// Some of a tenant's records from number `from` of them on, from a log's files alone.
pub fn tenant_page_in(dir: &Path, vkey: &str, tenant: &TenantId, from: u64) -> Result<TenantPage, AuditError> {
    tenant_page(dir, tenant, from, Some(&published_in(dir, vkey)?))
}

/// The newest checkpoint in a log's files, if there are tiles for it.
fn published_in(dir: &Path, vkey: &str) -> Result<Published, AuditError> {
    let damaged = |source| AuditError::Damaged { dir: dir.to_owned(), source: Box::new(source) };
    let verifier = crate::signer::Verifier::parse(vkey).map_err(damaged)?;
    let newest = dir.join(crate::checkpoint::NEWEST);
    let note = read_bounded(&newest, NOTE_BYTES)?.and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default();
    let (size, root) = crate::checkpoint::signed(&note, &verifier).map_err(|reason| {
        damaged(crate::VerifyError::Checkpoint { file: crate::checkpoint::NEWEST.into(), offset: 0, reason })
    })?;
    let tiles = derive::tiles_of(dir);
    if derive::stated(&tiles)?.is_none_or(|stated| stated < size) {
        return Err(AuditError::Derived { path: tiles.path().to_owned() });
    }
    Ok(Published { size, root, note })
}

fn prove(dir: &Path, published: &Published, index: u64, leaf: &Hash) -> Result<Option<TlogProof>, AuditError> {
    let Published { size, root, note } = published;
    let tiles = derive::tiles_of(dir);
    let derived = || AuditError::Derived { path: tiles.path().to_owned() };
    let Some(name) = TileName::of(*size, 0, index / u64::from(FULL)).filter(|_| index < *size) else {
        return Ok(None);
    };
    let place = usize::try_from(index % u64::from(FULL)).unwrap_or(usize::MAX);
    let tile = hashes(&tiles.read(name)?.ok_or_else(derived)?);
    // Nobody is to find out a leaf byte by byte.
    if verify_slices_are_equal(tile.get(place).ok_or_else(derived)?, leaf).is_err() {
        return Ok(None);
    }
    let hashes = nodes::inclusion(&mut TileNodes::new(&tiles, *size), index, *size)?;
    if !proof::includes(leaf, index, *size, &hashes, root) {
        return Err(derived());
    }
    Ok(Some(TlogProof { index, leaf: Some(*leaf), hashes, checkpoint: note.clone() }))
}

/// A tile out of what there is, which may be more of it.
fn part_of(tiles: &TileDir, name: TileName, size: u64) -> Result<Option<Vec<u8>>, AuditError> {
    debug_assert!(name.is_in(size));
    match tiles.read(name)? {
        Some(bytes) => Ok(Some(bytes)),
        None => Err(AuditError::Derived { path: tiles.path().to_owned() }),
    }
}

fn note_of(dir: &Path, tenant: &TenantId) -> Result<Option<String>, AuditError> {
    let bytes = read_bounded(&tenants::dir_of(dir, tenant).join(tenants::CHECKPOINT), NOTE_BYTES)?;
    Ok(bytes.and_then(|bytes| String::from_utf8(bytes).ok()))
}

fn tenant_page(
    dir: &Path,
    tenant: &TenantId,
    from: u64,
    published: Option<&Published>,
) -> Result<TenantPage, AuditError> {
    let own = tenants::dir_of(dir, tenant);
    // In this order: what was written before what is read first is there.
    let committed = Committed::read(&own)?.map(|kept| recorded(dir, kept, published)).transpose()?;
    let (checkpoint, state) = (note_of(dir, tenant)?, TreeState::read(&own)?);
    let said = checkpoint.as_deref().and_then(|note| note.split('\n').nth(1)?.parse().ok());
    let size = said.or_else(|| state.map(|state| state.size)).unwrap_or(0);
    let mut page = TenantPage { size, checkpoint, committed, from, entries: Vec::new(), next: None };
    if from >= size {
        return Ok(page);
    }
    let places = Places::open(&own, size)?;
    let mut walker = Walker::new(dir, places.of(from)?);
    let (mut bytes, mut far) = (0, 0);
    for n in from..size {
        let place = places.of(n)?;
        if place.saturating_sub(walker.next()) > NEAR {
            walker = Walker::new(dir, place);
            far += 1;
        }
        if bytes >= PAGE_BYTES || page.entries.len() >= PAGE_RECORDS || far > FAR {
            page.next = Some(n);
            break;
        }
        let entry = entry_at(&mut walker, place)?;
        bytes += entry.len();
        page.entries.push(entry);
    }
    Ok(page)
}

/// The entry of a record that is at the walker's place or after it.
fn entry_at(walker: &mut Walker, index: u64) -> Result<String, AuditError> {
    let mut entry = Vec::new();
    walker.read(index + 1, u64::MAX, |record| {
        if record.index == index {
            entry = record.entry().to_vec();
        }
        Ok(())
    })?;
    Ok(String::from_utf8_lossy(&entry).into_owned())
}

fn recorded(dir: &Path, kept: Committed, published: Option<&Published>) -> Result<TenantRoot, AuditError> {
    let entry = entry_at(&mut Walker::new(dir, kept.record), kept.record)?;
    let leaf = crate::tree::leaf_hash(entry.as_bytes());
    let proof = published.map(|published| prove(dir, published, kept.record, &leaf)).transpose()?.flatten();
    let Committed { size, root, place, count, path, .. } = kept;
    Ok(TenantRoot { size, root, place, count, path, entry, proof })
}
