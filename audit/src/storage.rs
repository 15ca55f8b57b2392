//! The few things the log asks of a file system.
//!
//! Owns the trait, so that a test can fail any one call, and the real disk behind it. Must never retry and never
//! report done what the disk has not confirmed.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

const PRIVATE_DIR: u32 = 0o700;
const PRIVATE_FILE: u32 = 0o600;
const SEALED_FILE: u32 = 0o400;

/// Where the log's files are changed. Reading needs no trait: what cannot be read is not believed.
pub(crate) trait Storage: Send + Sync {
    /// Makes a directory and those above it, unless they exist.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;
    /// Makes an empty file, replacing whatever had its name.
    fn create(&self, path: &Path) -> io::Result<Box<dyn StoredFile>>;
    /// Opens an existing file for writing, sealed or not.
    fn open(&self, path: &Path) -> io::Result<Box<dyn StoredFile>>;
    /// Gives a file another name, replacing what had it.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Makes a file read-only.
    fn seal(&self, path: &Path) -> io::Result<()>;
    /// Deletes a file, unless it is not there.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Bytes that could still be written to the file system of a directory.
    fn free_bytes(&self, dir: &Path) -> io::Result<u64>;
    /// Waits until the names in a directory are durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
}

/// A file being written.
pub(crate) trait StoredFile: Send {
    /// Writes all bytes at an offset.
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Cuts or extends with zeros.
    fn set_len(&mut self, len: u64) -> io::Result<()>;
    /// Waits until content and length are durable.
    fn sync(&mut self) -> io::Result<()>;
}

/// The real file system.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Disk;

impl Storage for Disk {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(PRIVATE_DIR).create(dir)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn StoredFile>> {
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(PRIVATE_FILE).open(path)?;
        Ok(Box::new(file))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn StoredFile>> {
        fs::set_permissions(path, Permissions::from_mode(PRIVATE_FILE))?;
        Ok(Box::new(OpenOptions::new().write(true).open(path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn seal(&self, path: &Path) -> io::Result<()> {
        fs::set_permissions(path, Permissions::from_mode(SEALED_FILE))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        match fs::remove_file(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        let found = rustix::fs::statvfs(dir)?;
        Ok(found.f_bavail.saturating_mul(found.f_frsize))
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }
}

impl StoredFile for File {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn set_len(&mut self, len: u64) -> io::Result<()> {
        File::set_len(self, len)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }
}
