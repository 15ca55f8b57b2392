//! A sink that is a file of this host.
//!
//! Owns its lines and its rotation. Must never begin a line before the one before it is whole, and never call written
//! what the disk has not confirmed.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use super::batch::Batch;
use super::config::FileConfig;
use super::error::SinkError;

/// Bytes looked at at once for the end of the last whole line.
const BLOCK: u64 = 64 * 1024;

/// The file. Opened anew for each batch, so that whoever moves it away (`logrotate`) need not tell.
pub(super) struct FileSink {
    config: FileConfig,
    /// Held while it is written: a writing that was given up may still be under way.
    writing: Arc<Mutex<()>>,
}

impl FileSink {
    pub(super) fn new(config: FileConfig) -> Self {
        Self { config, writing: Arc::default() }
    }

    pub(super) async fn deliver(&mut self, batch: &Batch) -> Result<(), SinkError> {
        let (lines, last, config, writing) = (batch.lines(), batch.ends().1, self.config.clone(), self.writing.clone());
        let written = tokio::task::spawn_blocking(move || {
            let _alone = writing.lock().unwrap_or_else(PoisonError::into_inner);
            append(&config, &lines, last)
        });
        written.await.map_err(|_| SinkError::Stopping)?
    }
}

fn append(config: &FileConfig, lines: &[u8], last: u64) -> Result<(), SinkError> {
    let path = &config.path;
    let failed = || SinkError::file("write", path);
    // Opening a pipe would wait for its reader, and a device is no place for a log.
    if fs::metadata(path).is_ok_and(|about| !about.is_file()) {
        return Err(failed()(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file")));
    }
    let is_new = !path.exists();
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(failed())?;
    let end = whole_lines(&mut file).map_err(failed())?;
    file.set_len(end).and_then(|()| file.seek(SeekFrom::End(0))).map_err(failed())?;
    file.write_all(lines).and_then(|()| file.sync_all()).map_err(failed())?;
    let bytes = end.saturating_add(u64::try_from(lines.len()).unwrap_or(u64::MAX));
    if bytes >= config.rotate_bytes {
        let mut full = path.clone().into_os_string();
        full.push(format!(".{last:020}"));
        fs::rename(path, &full).map_err(failed())?;
    }
    if is_new || bytes >= config.rotate_bytes {
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
        File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed())?;
    }
    Ok(())
}

/// Where the last whole line ends: what follows is what a crash left of a batch that was never acknowledged.
fn whole_lines(file: &mut File) -> io::Result<u64> {
    let mut end = file.metadata()?.len();
    while end > 0 {
        let begin = end.saturating_sub(BLOCK);
        let mut block = Vec::new();
        file.seek(SeekFrom::Start(begin))?;
        (&mut *file).take(end - begin).read_to_end(&mut block)?;
        if let Some(at) = block.iter().rposition(|byte| *byte == b'\n') {
            return Ok(begin + u64::try_from(at).unwrap_or_default() + 1);
        }
        end = begin;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_a_crash_cut_short_is_cut_off_before_it_is_written_again() {
        let dir = tempfile::tempdir().unwrap();
        let config = FileConfig { path: dir.path().join("log.jsonl"), rotate_bytes: 1 << 20 };
        append(&config, b"{\"index\":0}\n{\"index\":1}\n", 1).unwrap();
        let mut whole = fs::read(&config.path).unwrap();
        // One longer than what is looked at at once.
        for torn in [b"{\"ind".to_vec(), vec![b'x'; 3 * BLOCK as usize], vec![]] {
            fs::write(&config.path, [whole.clone(), torn].concat()).unwrap();
            append(&config, b"{\"index\":2}\n", 2).unwrap();
            whole.extend_from_slice(b"{\"index\":2}\n");
            assert_eq!(fs::read(&config.path).unwrap(), whole);
        }
        fs::write(&config.path, "no line at all").unwrap();
        append(&config, b"{}\n", 2).unwrap();
        assert_eq!(fs::read(&config.path).unwrap(), b"{}\n");
    }

    #[test]
    fn a_full_file_is_put_aside_under_the_number_of_its_last_record() {
        let dir = tempfile::tempdir().unwrap();
        let config = FileConfig { path: dir.path().join("log.jsonl"), rotate_bytes: 10 };
        append(&config, b"{}\n", 4).unwrap();
        append(&config, b"{\"a\":1}\n", 5).unwrap();
        append(&config, b"[]\n", 6).unwrap();
        let aside = dir.path().join("log.jsonl.00000000000000000005");
        assert_eq!(fs::read(aside).unwrap(), b"{}\n{\"a\":1}\n");
        assert_eq!(fs::read(&config.path).unwrap(), b"[]\n");
        let odd = FileConfig { path: dir.path().to_owned(), rotate_bytes: 10 };
        assert!(append(&odd, b"{}\n", 7).is_err());
    }
}
