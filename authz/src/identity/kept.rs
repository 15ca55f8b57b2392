//! The last good key set of an issuer, kept on disk for a node that starts while the issuer is out of reach.
//!
//! Owns the files and what must be true of one to be used: of this very issuer and source, taken no longer ago than
//! keys may be stale, and good by the same rules as from the network. Must never make a set younger than it is.

use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use aws_lc_rs::digest;
use serde::{Deserialize, Serialize};

use super::jwk::JWKS_BYTES;

/// Bytes of a file: the set as text within JSON, where each byte may take six.
const FILE_BYTES: u64 = 6 * JWKS_BYTES as u64 + 8 * 1024;

/// Where the set of one issuer is kept.
pub(super) struct Shelf {
    path: PathBuf,
    issuer: String,
    from: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    issuer: String,
    /// Where it was asked for.
    from: String,
    /// When it was had, seconds since 1970.
    taken: u64,
    /// The set, as it came.
    set: String,
}

impl Shelf {
    /// The place for what `issuer` has at `from`.
    pub(super) fn of(dir: &Path, issuer: &str, from: &str) -> Self {
        let name = digest::digest(&digest::SHA256, issuer.as_bytes());
        let name: String = name.as_ref().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        Self { path: dir.join(format!("{name}.json")), issuer: issuer.to_owned(), from: from.to_owned() }
    }

    /// What is kept, with its age in seconds, if it is of this issuer and source and not older than that.
    pub(super) fn load(&self, now: u64, oldest: u64) -> Option<(Vec<u8>, u64)> {
        let mut text = Vec::new();
        std::fs::File::open(&self.path).ok()?.take(FILE_BYTES).read_to_end(&mut text).ok()?;
        let kept: Kept = serde_json::from_slice(&text).ok()?;
        // One from the future has no age that could be trusted.
        let age = now.checked_sub(kept.taken)?;
        let same = kept.issuer == self.issuer && kept.from == self.from;
        (same && age <= oldest).then(|| (kept.set.into_bytes(), age))
    }

    /// Puts a set in place of what was kept. Blocks on the disk. A node that cannot keep it goes on without.
    pub(super) fn keep(&self, set: &[u8], now: u64) {
        let (issuer, from) = (self.issuer.clone(), self.from.clone());
        let Ok(set) = String::from_utf8(set.to_vec()) else { return };
        let Ok(text) = serde_json::to_vec(&Kept { issuer, from, taken: now, set }) else { return };
        if let Err(error) = self.replace(&text) {
            tracing::warn!(path = %self.path.display(), %error, "keys of an issuer could not be kept");
        }
    }

    fn replace(&self, text: &[u8]) -> std::io::Result<()> {
        let new = self.path.with_extension("new");
        if let Some(dir) = self.path.parent() {
            std::fs::create_dir_all(dir)?;
        }
        let mut options = std::fs::OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(text)?;
        file.sync_all()?;
        std::fs::rename(&new, &self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kept_set_is_used_only_for_its_issuer_its_source_and_its_time() {
        let dir = tempfile::tempdir().unwrap();
        let shelf = |issuer: &str, from: &str| Shelf::of(&dir.path().join("keys"), issuer, from);
        let own = shelf("https://a.test", "https://a.test/jwks");
        assert_eq!(own.load(100, 50), None, "nothing yet");
        own.keep(b"{\"keys\":[]}", 100);
        assert_eq!(own.load(100, 50), Some((b"{\"keys\":[]}".to_vec(), 0)));
        assert_eq!(own.load(150, 50).map(|(_, age)| age), Some(50));
        assert_eq!(own.load(151, 50), None, "too old");
        assert_eq!(own.load(99, 50), None, "from the future");
        assert_eq!(shelf("https://a.test", "https://b.test/jwks").load(100, 50), None, "had elsewhere");
        let other = shelf("https://b.test", "https://a.test/jwks");
        std::fs::copy(&own.path, &other.path).unwrap();
        assert_eq!(other.load(100, 50), None, "another's file under this name");
        std::fs::write(&own.path, "{").unwrap();
        assert_eq!(own.load(100, 50), None);
    }
}
