//! Hash tiles of C2SP `tlog-tiles` in a directory: names, the right edge of a tree that grows, and reading them back.
//!
//! Owns their form and that a tile is there whole or not at all. Must never be believed further than a proof made of
//! them checks: they are derived from the log, and losing them loses nothing.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::error::AuditError;
use crate::proof;
use crate::tree::{Hash, empty_root, node_hash};

/// Hashes of a full tile.
pub(crate) const FULL: u16 = 256;
/// Levels of subtrees in one tile.
pub(crate) const HEIGHT: u32 = 8;
/// Levels of tiles that a tree of 2^64 leaves can have.
const LEVELS: u8 = 8;
const HASH_BYTES: usize = 32;
/// How often a partial tile is looked for that is being replaced.
const LOOKS: usize = 4;

/// Which hash tile, and how much of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TileName {
    /// Its level: hashes of leaves are at 0, and each hash above is the root of one full tile below.
    pub level: u8,
    /// Its number within the level.
    pub n: u64,
    /// Hashes of it, 1 to 256.
    pub width: u16,
}

impl TileName {
    /// Its path below `tile/`, as in `0/x001/x234/067.p/5`.
    pub fn path(&self) -> String {
        format!("{}/{}", self.level, numbered(self.n, self.width))
    }

    /// Reads a path. Only the one form of it is taken.
    pub fn parse(path: &str) -> Option<Self> {
        let (level, rest) = path.split_once('/')?;
        let (n, width) = parse_numbered(rest)?;
        let name = Self { level: level.parse().ok().filter(|level| *level < LEVELS)?, n, width };
        (name.path() == path).then_some(name)
    }

    /// The tile of a tree of `size` leaves; none where that has no such tile.
    pub(crate) fn of(size: u64, level: u8, n: u64) -> Option<Self> {
        let before = n.checked_mul(FULL.into())?;
        let width = at_level(size, level).saturating_sub(before).min(FULL.into());
        u16::try_from(width).ok().filter(|width| *width > 0).map(|width| Self { level, n, width })
    }

    /// Whether a tree of `size` leaves has this much of it.
    pub(crate) fn is_in(&self, size: u64) -> bool {
        Self::of(size, self.level, self.n).is_some_and(|whole| whole.width >= self.width)
    }
}

/// Number and width of a tile or an entry bundle as they stand in paths: `x001/x234/067.p/5`.
pub(crate) fn numbered(n: u64, width: u16) -> String {
    let mut groups = vec![format!("{:03}", n % 1000)];
    let mut rest = n / 1000;
    while rest > 0 {
        groups.push(format!("x{:03}", rest % 1000));
        rest /= 1000;
    }
    groups.reverse();
    let path = groups.join("/");
    if width == FULL { path } else { format!("{path}.p/{width}") }
}

/// Reads what [`numbered`] wrote, and nothing else.
pub(crate) fn parse_numbered(path: &str) -> Option<(u64, u16)> {
    let (groups, width) = match path.split_once(".p/") {
        Some((groups, width)) => (groups, width.parse().ok().filter(|width| (1..FULL).contains(width))?),
        None => (path, FULL),
    };
    if groups.len() > 40 {
        return None;
    }
    let mut n = 0u64;
    for group in groups.split('/') {
        let digits = group.strip_prefix('x').unwrap_or(group);
        n = n.checked_mul(1000)?.checked_add(digits.parse::<u16>().ok()?.into())?;
    }
    (numbered(n, width) == path).then_some((n, width))
}

/// Hashes that a tree of `size` leaves has at a level of tiles.
fn at_level(size: u64, level: u8) -> u64 {
    size.checked_shr(HEIGHT * u32::from(level)).unwrap_or(0)
}

/// The last tile of each level of a growing tree, which is all that the next ones follow from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Edge {
    size: u64,
    /// Hashes of the last tile of each level, fewer than 256.
    levels: Vec<Vec<Hash>>,
}

impl Edge {
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Appends a leaf; each tile that becomes full is written. After an error it must be read anew.
    pub(crate) fn append(&mut self, leaf: Hash, tiles: &TileDir) -> Result<(), AuditError> {
        self.size += 1;
        let mut hash = leaf;
        for level in 0..LEVELS {
            if self.levels.len() <= usize::from(level) {
                self.levels.push(Vec::new());
            }
            let Some(tile) = self.levels.get_mut(usize::from(level)) else { break };
            tile.push(hash);
            if tile.len() < FULL.into() {
                break;
            }
            let n = at_level(self.size, level + 1) - 1;
            tiles.write(TileName { level, n, width: FULL }, tile)?;
            hash = proof::root(tile);
            tile.clear();
        }
        Ok(())
    }

    /// Writes the last tile of each level, as far as it is there. `before` is the size at which that was done last.
    pub(crate) fn write(&self, before: u64, tiles: &TileDir) -> Result<(), AuditError> {
        for (level, tile) in (0..LEVELS).zip(&self.levels) {
            let n = at_level(self.size, level) / u64::from(FULL);
            let Some(name) = TileName::of(self.size, level, n) else { continue };
            let old = TileName::of(before, level, n);
            if old != Some(name) {
                tiles.write(name, tile)?;
                old.filter(|old| old.width < name.width).iter().for_each(|old| tiles.forget(old));
            }
        }
        Ok(())
    }

    /// Reads the edge of a tree of `size` leaves; none where a tile of it is not there.
    pub(crate) fn read(size: u64, tiles: &TileDir) -> Result<Option<Self>, AuditError> {
        let mut edge = Self { size, levels: Vec::new() };
        for level in (0..LEVELS).take_while(|level| at_level(size, *level) > 0) {
            let n = at_level(size, level) / u64::from(FULL);
            let tile = match TileName::of(size, level, n) {
                None => Vec::new(),
                Some(name) => match tiles.read(name)? {
                    Some(bytes) => hashes(&bytes),
                    None => return Ok(None),
                },
            };
            edge.levels.push(tile);
        }
        Ok(Some(edge))
    }

    /// Root of the tree.
    pub(crate) fn root(&self) -> Hash {
        let mut root: Option<Hash> = None;
        // From the right: the perfect subtrees of the lowest level are the last of the tree.
        for tile in &self.levels {
            let mut rest = tile.as_slice();
            while !rest.is_empty() {
                let (others, last) = rest.split_at(rest.len() - (1 << rest.len().trailing_zeros()));
                let left = proof::root(last);
                root = Some(root.map_or(left, |right| node_hash(&left, &right)));
                rest = others;
            }
        }
        root.unwrap_or_else(empty_root)
    }
}

/// Hashes out of a tile's bytes.
pub(crate) fn hashes(bytes: &[u8]) -> Vec<Hash> {
    bytes.as_chunks::<HASH_BYTES>().0.to_vec()
}

/// A directory of tiles.
#[derive(Debug, Clone)]
pub(crate) struct TileDir(PathBuf);

impl TileDir {
    pub(crate) fn at(dir: impl Into<PathBuf>) -> Self {
        Self(dir.into())
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Writes a tile. One that is full takes the place of what there was of it.
    pub(crate) fn write(&self, name: TileName, hashes: &[Hash]) -> Result<(), AuditError> {
        let bytes = hashes.get(..name.width.into()).unwrap_or(hashes).as_flattened();
        let path = self.0.join(name.path());
        write_whole(&path, bytes)?;
        if name.width == FULL {
            // Whatever is left of it does no harm.
            let _ = fs::remove_dir_all(partials(&path));
        }
        Ok(())
    }

    /// Deletes a partial tile that a wider one has taken the place of.
    fn forget(&self, name: &TileName) {
        // Whatever is left of it does no harm.
        let _ = fs::remove_file(self.0.join(name.path()));
    }

    /// The bytes of a tile, out of itself or of more of it; none where that is not there, or not whole.
    pub(crate) fn read(&self, name: TileName) -> Result<Option<Vec<u8>>, AuditError> {
        let full = self.0.join(TileName { width: FULL, ..name }.path());
        let wanted = usize::from(name.width) * HASH_BYTES;
        for _ in 0..LOOKS {
            if let Some(mut bytes) = read_of(&full, FULL)? {
                bytes.truncate(wanted);
                return Ok(Some(bytes));
            }
            let Some(width) = wider(&partials(&full), name.width)? else { continue };
            if let Some(mut bytes) = read_of(&self.0.join(TileName { width, ..name }.path()), width)? {
                bytes.truncate(wanted);
                return Ok(Some(bytes));
            }
        }
        Ok(None)
    }

    /// Whether the last `leaves` of a tree of `size` are in tiles that fit those above them.
    pub(crate) fn is_sound(&self, size: u64, leaves: u64) -> Result<bool, AuditError> {
        for level in 0..LEVELS - 1 {
            let end = at_level(size, level + 1);
            let begin = at_level(size.saturating_sub(leaves), level + 1);
            let mut above: (u64, Vec<Hash>) = (u64::MAX, Vec::new());
            for n in begin..end {
                let over = n / u64::from(FULL);
                if above.0 != over {
                    let name = TileName::of(size, level + 1, over);
                    let Some(bytes) = name.map(|name| self.read(name)).transpose()?.flatten() else { return Ok(false) };
                    above = (over, hashes(&bytes));
                }
                let Some(tile) = self.read(TileName { level, n, width: FULL })? else { return Ok(false) };
                let place = usize::try_from(n % u64::from(FULL)).unwrap_or(0);
                if above.1.get(place) != Some(&proof::root(&hashes(&tile))) {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }
}

/// Directory of what there is of a tile that is not full.
fn partials(full: &Path) -> PathBuf {
    full.with_extension("p")
}

/// A tile's bytes, if the file is there and has as many as it should.
fn read_of(path: &Path, width: u16) -> Result<Option<Vec<u8>>, AuditError> {
    let most = usize::from(width) * HASH_BYTES;
    Ok(read_bounded(path, most as u64)?.filter(|bytes| bytes.len() == most))
}

/// The width of the narrowest partial tile that is at least as wide as asked.
fn wider(dir: &Path, least: u16) -> Result<Option<u16>, AuditError> {
    if dir.join(least.to_string()).is_file() {
        return Ok(Some(least));
    }
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(AuditError::file("read", dir)(error)),
    };
    let widths = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u16>().ok());
    Ok(widths.filter(|width| (least..FULL).contains(width)).min())
}

/// The bytes of a file of at most as many; none where there is no file, or a longer one.
pub(crate) fn read_bounded(path: &Path, most: u64) -> Result<Option<Vec<u8>>, AuditError> {
    let file = match fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(AuditError::file("read", path)(error)),
    };
    let mut bytes = Vec::with_capacity(usize::try_from(most).unwrap_or(0).min(64 * 1024));
    file.take(most + 1).read_to_end(&mut bytes).map_err(AuditError::file("read", path))?;
    Ok((bytes.len() as u64 <= most).then_some(bytes))
}

/// Writes a file that is there whole or not at all, as far as this process goes. Not synced: it can be made anew.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), AuditError> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".tmp");
    let temporary = PathBuf::from(temporary);
    let open = || OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary);
    let opened = match open() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let parent = path.parent().unwrap_or(path);
            let made = DirBuilder::new().recursive(true).mode(0o700).create(parent);
            made.and_then(|()| open())
        }
        opened => opened,
    };
    let written = opened.and_then(|mut file| file.write_all(bytes)).and_then(|()| fs::rename(&temporary, path));
    written.map_err(AuditError::file("write", path))
}
