//! Reads the end of a function's log.
//!
//! Must never read more than a bounded piece of it, however many lines are asked for.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use cofferdam_model::FunctionId;

use super::{older, path};
use crate::error::SandboxError;

/// Most lines given at once.
const LINES: usize = 10_000;
/// Most bytes read of one file.
const BYTES: u64 = 1024 * 1024;

/// The newest lines, oldest first; none where nothing was ever written.
pub(super) fn newest(dir: &Path, function: &FunctionId, lines: usize) -> Result<Vec<String>, SandboxError> {
    let wanted = lines.min(LINES);
    let mut out: Vec<String> = Vec::new();
    for file in [path(dir, function), older(dir, function)] {
        let missing = wanted.saturating_sub(out.len());
        if missing == 0 {
            break;
        }
        let end = match end_of(&file) {
            Ok(end) => end,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(SandboxError::file("read", file)(error)),
        };
        let mut these: Vec<String> = end.lines().rev().take(missing).map(str::to_owned).collect();
        these.reverse();
        these.append(&mut out);
        out = these;
    }
    Ok(out)
}

fn end_of(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    let skipped = length.saturating_sub(BYTES);
    file.seek(SeekFrom::Start(skipped))?;
    let mut bytes = Vec::new();
    file.take(BYTES).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    // The first line of a piece from the middle is not whole.
    Ok(match text.split_once('\n') {
        Some((_, whole)) if skipped > 0 => whole.to_owned(),
        _ => text.into_owned(),
    })
}
