//! Files of credentials that are shown to others.
//!
//! Owns the check of who else may read one. Must never keep what was read, nor put it into an error.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use zeroize::Zeroizing;

/// Bytes of a file.
const MOST: u64 = 64 * 1024;

/// A credential's file, read anew each time: whoever keeps it up to date replaces it. The error says why not.
pub(crate) fn read(path: &Path) -> Result<Zeroizing<String>, String> {
    let shown = path.display();
    let failed = |error: io::Error| format!("cannot read the credential `{shown}`: {error}");
    let file = File::open(path).map_err(failed)?;
    let about = file.metadata().map_err(failed)?;
    if about.mode() & 0o037 != 0 {
        return Err(format!("the credential `{shown}` is readable by others; restrict it with `chmod 600`"));
    }
    // Room for all of it from the start: growing would leave copies behind.
    let room = usize::try_from(about.len().min(MOST)).unwrap_or_default();
    let mut text = Zeroizing::new(String::with_capacity(room.saturating_add(1)));
    file.take(MOST).read_to_string(&mut text).map_err(failed)?;
    Ok(text)
}
