//! Files that hold 32 bytes of key: made once, readable by their owner alone.
//!
//! Owns their creation and the check of their permissions. Must never overwrite one, and never read one that others
//! can read as well.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use cofferdam_model::Random;
use zeroize::Zeroizing;

use crate::error::ControlError;

/// Length of every key.
pub(crate) const KEY_BYTES: usize = 32;

/// 32 bytes of key, wiped on drop.
pub(crate) type KeyBytes = Zeroizing<[u8; KEY_BYTES]>;

/// Fresh random bytes.
pub fn fresh(random: &dyn Random) -> KeyBytes {
    let mut key = Zeroizing::new([0u8; KEY_BYTES]);
    random.fill(key.as_mut_slice());
    key
}

/// Makes a directory (and what leads to it) that its owner alone may enter; one that is there must be so already.
pub fn private_dir(path: &Path) -> Result<(), ControlError> {
    let failed = |source| ControlError::Io { path: path.into(), source };
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)?;
    if fs::metadata(path).map_err(failed)?.mode() & 0o077 != 0 {
        let reason = "its directory must be open to its owner alone (chmod 700)";
        return Err(ControlError::KeyFile { path: path.into(), reason });
    }
    Ok(())
}

/// Makes a file of mode 0600 that was not there before, durably.
pub fn create(path: &Path, bytes: &[u8]) -> Result<(), ControlError> {
    let failed = |source: std::io::Error| match source.kind() {
        std::io::ErrorKind::AlreadyExists => ControlError::AlreadyInitialised { path: path.into() },
        _ => ControlError::Io { path: path.into(), source },
    };
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(failed)?;
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed),
        _ => Ok(()),
    }
}

/// Reads a key, refusing a file that is not a key's length or that anyone but its owner may read.
pub fn load(path: &Path) -> Result<KeyBytes, ControlError> {
    read(path, 0o077)
}

/// Reads a key that systemd handed over. It is let in by an access list there, which shows as a group's right to read.
pub(crate) fn load_credential(path: &Path) -> Result<KeyBytes, ControlError> {
    read(path, 0o037)
}

fn read(path: &Path, others: u32) -> Result<KeyBytes, ControlError> {
    let failed = |source| ControlError::Io { path: path.into(), source };
    let refuse = |reason| ControlError::KeyFile { path: path.into(), reason };
    let mut file = File::open(path).map_err(failed)?;
    let about = file.metadata().map_err(failed)?;
    if !about.is_file() {
        return Err(refuse("not a regular file"));
    }
    if about.mode() & others != 0 {
        return Err(refuse("readable by others than its owner"));
    }
    if about.len() != KEY_BYTES as u64 {
        return Err(refuse("not 32 bytes long"));
    }
    let mut key = Zeroizing::new([0u8; KEY_BYTES]);
    file.read_exact(key.as_mut_slice()).map_err(failed)?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use cofferdam_model::random::SeededRandom;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn key_file_readable_by_others_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        create(&path, fresh(&SeededRandom::new(1)).as_slice()).unwrap();
        assert!(load(&path).is_ok());
        for mode in [0o640, 0o604, 0o620, 0o666] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let refused = load(&path).unwrap_err().to_string();
            assert!(refused.contains("readable by others"), "{mode:o}: {refused}");
        }
    }

    #[test]
    fn key_file_is_never_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        create(&path, b"first").unwrap();
        assert!(matches!(create(&path, b"second"), Err(ControlError::AlreadyInitialised { .. })));
        assert_eq!(fs::read(&path).unwrap(), b"first");
    }

    #[test]
    fn key_file_of_another_length_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        create(&path, &[7; 31]).unwrap();
        assert!(load(&path).unwrap_err().to_string().contains("32 bytes"));
    }
}
