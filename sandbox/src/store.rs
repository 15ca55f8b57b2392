//! Files that are written once and never changed.
//!
//! Owns how that is done: a private directory, a name that appears only with the whole content, mode 0400. Must never
//! leave half a file under a name that means something.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::SandboxError;

const UNFINISHED: &str = ".unfinished";

/// Makes a directory for the service user alone, or checks that others cannot write to the one there is.
pub(crate) fn private_dir(dir: &Path) -> Result<(), SandboxError> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(SandboxError::file("make", dir))?;
    let mode = dir.metadata().map_err(SandboxError::file("inspect", dir))?.mode();
    if mode & 0o022 != 0 {
        let error = io::Error::new(io::ErrorKind::PermissionDenied, "others may write to it; `chmod go-w` it");
        return Err(SandboxError::file("trust the directory", dir)(error));
    }
    Ok(())
}

/// Removes what a crash left behind.
pub(crate) fn sweep(dir: &Path) -> Result<(), SandboxError> {
    for entry in dir.read_dir().map_err(SandboxError::file("list", dir))? {
        let entry = entry.map_err(SandboxError::file("list", dir))?;
        if entry.file_name().to_string_lossy().ends_with(UNFINISHED) {
            std::fs::remove_file(entry.path()).map_err(SandboxError::file("remove", entry.path()))?;
        }
    }
    Ok(())
}

/// Bytes of everything in a directory.
pub(crate) fn used(dir: &Path) -> Result<u64, SandboxError> {
    let mut bytes = 0u64;
    for entry in dir.read_dir().map_err(SandboxError::file("list", dir))? {
        let entry = entry.map_err(SandboxError::file("list", dir))?;
        // What is gone by now takes no room.
        bytes = bytes.saturating_add(entry.metadata().map_or(0, |file| file.len()));
    }
    Ok(bytes)
}

/// Writes a file under its name, whole and durable, replacing what was there.
pub(crate) fn write_once(dir: &Path, name: &str, parts: &[&[u8]]) -> Result<(), SandboxError> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let unfinished = dir.join(format!("{name}.{}.{number}{UNFINISHED}", std::process::id()));
    let written = write(&unfinished, parts)
        .and_then(|()| std::fs::rename(&unfinished, dir.join(name)))
        .and_then(|()| File::open(dir)?.sync_all());
    written.map_err(|error| {
        // The error that matters is the first one.
        let _ = std::fs::remove_file(&unfinished);
        SandboxError::file("write", dir.join(name))(error)
    })
}

fn write(path: &Path, parts: &[&[u8]]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o400).open(path)?;
    parts.iter().try_for_each(|part| file.write_all(part))?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn files_appear_whole_and_readable_by_their_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        write_once(dir.path(), "a", &[b"one ", b"two"]).unwrap();
        write_once(dir.path(), "a", &[b"three"]).unwrap();
        let path = dir.path().join("a");
        assert_eq!(std::fs::read(&path).unwrap(), b"three");
        assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o400);
        assert_eq!(dir.path().read_dir().unwrap().count(), 1);
    }

    #[test]
    fn leftovers_of_a_crash_are_swept() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(format!("a.1.0{UNFINISHED}")), b"half").unwrap();
        std::fs::write(dir.path().join("b"), b"whole").unwrap();
        sweep(dir.path()).unwrap();
        let names: Vec<_> = dir.path().read_dir().unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names, ["b"]);
    }

    #[test]
    fn a_directory_others_can_write_to_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("a/b");
        private_dir(&inner).unwrap();
        assert_eq!(inner.metadata().unwrap().mode() & 0o777, 0o700);
        std::fs::set_permissions(&inner, std::fs::Permissions::from_mode(0o777)).unwrap();
        assert!(private_dir(&inner).is_err());
    }
}
