//! The thread's side of the log files: rate, rotation, descriptors.
//!
//! Owns what is open. Must never hold more descriptors or memory than its bounds, however many functions write.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cofferdam_model::{Clock, FunctionId};

use super::assemble::Line;
use super::text::escape_into;
use super::{older, path};

/// Files held open at once.
const OPEN: usize = 64;
/// Functions whose rate is remembered.
const REMEMBERED: usize = 4096;
/// Seconds of the rate that may be used at once.
const BURST_SECONDS: u64 = 4;

struct Account {
    file: Option<(File, u64)>,
    tokens: u64,
    at: Duration,
    dropped: u64,
}

/// The files of all functions.
pub(super) struct Files {
    dir: PathBuf,
    file_bytes: u64,
    per_second: u64,
    clock: Arc<dyn Clock>,
    accounts: HashMap<FunctionId, Account>,
}

impl Files {
    pub(super) fn new(dir: &Path, file_bytes: u64, per_second: u64, clock: Arc<dyn Clock>) -> Self {
        Self { dir: dir.to_owned(), file_bytes, per_second, clock, accounts: HashMap::new() }
    }

    /// Appends lines, and a note of those that were lost before.
    pub(super) fn append(&mut self, function: &FunctionId, lines: &[Line], lost: u64) {
        self.tidy();
        let (now, burst) = (self.clock.monotonic(), self.per_second.saturating_mul(BURST_SECONDS));
        let account =
            self.accounts.entry(function.clone()).or_insert(Account { file: None, tokens: burst, at: now, dropped: 0 });
        account.refill(now, self.per_second, burst);
        account.dropped = account.dropped.saturating_add(lost);
        let text = account.format(lines, &self.clock.now().to_string());
        if let Err(error) = account.write(&self.dir, function, self.file_bytes, text.as_bytes()) {
            account.file = None;
            account.dropped = account.dropped.saturating_add(lines.iter().map(Line::count).sum());
            tracing::warn!(%function, %error, "a function's log could not be written");
        }
    }

    /// Keeps within the bounds, at the cost of those who wrote longest ago.
    fn tidy(&mut self) {
        if self.accounts.values().filter(|account| account.file.is_some()).count() >= OPEN {
            let oldest = self.accounts.values_mut().filter(|account| account.file.is_some()).min_by_key(|a| a.at);
            if let Some(account) = oldest {
                account.file = None;
            }
        }
        if self.accounts.len() >= REMEMBERED {
            let oldest = self.accounts.iter().min_by_key(|(_, account)| account.at).map(|(id, _)| id.clone());
            oldest.and_then(|id| self.accounts.remove(&id));
        }
    }
}

impl Account {
    fn refill(&mut self, now: Duration, per_second: u64, burst: u64) {
        let passed = now.saturating_sub(self.at);
        let earned = u128::from(per_second).saturating_mul(passed.as_micros()) / 1_000_000;
        // Otherwise steps too short to earn anything would add up to nothing.
        if earned > 0 {
            self.tokens = self.tokens.saturating_add(u64::try_from(earned).unwrap_or(u64::MAX)).min(burst);
            self.at = now;
        }
    }

    /// The lines there are tokens for; the rest is counted, and the count comes before the next line written.
    fn format(&mut self, lines: &[Line], at: &str) -> String {
        let (mut out, mut one) = (String::new(), String::new());
        for line in lines {
            for text in line.lines() {
                one.clear();
                if self.dropped > 0 {
                    let _ = writeln!(one, "{at} - platform {} lines were dropped here", self.dropped);
                }
                let _ = write!(one, "{at} {} {} ", line.request, line.stream.as_str());
                escape_into(text, &mut one);
                one.push('\n');
                match self.tokens.checked_sub(u64::try_from(one.len()).unwrap_or(u64::MAX)) {
                    Some(left) => {
                        self.tokens = left;
                        self.dropped = 0;
                        out.push_str(&one);
                    }
                    None => self.dropped = self.dropped.saturating_add(1),
                }
            }
        }
        out
    }

    fn write(&mut self, dir: &Path, function: &FunctionId, file_bytes: u64, bytes: &[u8]) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        if self.file.as_ref().is_some_and(|(_, written)| *written >= file_bytes) {
            self.file = None;
            std::fs::rename(path(dir, function), older(dir, function))?;
        }
        if self.file.is_none() {
            let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path(dir, function))?;
            let written = file.metadata()?.len();
            self.file = Some((file, written));
        }
        if let Some((file, written)) = &mut self.file {
            file.write_all(bytes)?;
            *written = written.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        }
        Ok(())
    }
}
