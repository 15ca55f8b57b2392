//! What can be asked of things that grow: from where on, and how much of it.
//!
//! Owns the cursors of logs and of usage, and their text form, which callers only hand back. Must never be trusted: a
//! cursor says where somebody claims to have been.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;
use std::time::Duration;

use crate::clock::UnixNanos;
use crate::id::FunctionId;

/// Seconds of an hour.
const HOUR: u64 = 3600;

/// Why a text is no cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is not a cursor: hand back what an earlier answer gave, or leave it out")]
pub struct CursorError;

/// A place in a function's log: after `offset` bytes of the file that begins with the line of this mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LogCursor {
    /// Tells the file from those before and after it; 0 where there was none yet.
    pub file: u64,
    /// Bytes of it that were read.
    pub offset: u64,
}

impl fmt::Display for LogCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{:x}", self.file, self.offset)
    }
}

impl FromStr for LogCursor {
    type Err = CursorError;

    fn from_str(text: &str) -> Result<Self, CursorError> {
        let (file, offset) = text.split_once('-').ok_or(CursorError)?;
        let number = |digits: &str, most: usize| {
            let plain = (1..=most).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_hexdigit());
            u64::from_str_radix(digits, 16).ok().filter(|_| plain).ok_or(CursorError)
        };
        Ok(Self { file: number(file, 16)?, offset: number(offset, 16)? })
    }
}

/// Which lines of a function's log are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogRange {
    /// At most this many.
    pub lines: usize,
    /// Only those after this place; the newest where there is none.
    pub after: Option<LogCursor>,
    /// How long to wait for the first where there is none yet.
    pub wait: Duration,
}

/// A place among the rows of a tenant's usage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageCursor {
    /// Hours since 1970.
    pub hour: u64,
    /// The function.
    pub function: FunctionId,
}

impl fmt::Display for UsageCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.hour, self.function)
    }
}

impl FromStr for UsageCursor {
    type Err = CursorError;

    fn from_str(text: &str) -> Result<Self, CursorError> {
        let (hour, function) = text.split_once('-').ok_or(CursorError)?;
        let hour = hour.parse().ok().filter(|_| hour.len() <= 10).ok_or(CursorError)?;
        Ok(Self { hour, function: FunctionId::parse(function).map_err(|_| CursorError)? })
    }
}

/// Which rows of a tenant's usage are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageRange {
    /// Only functions of this name, removed ones included.
    pub function: Option<String>,
    /// Hours since 1970.
    pub hours: Range<u64>,
    /// Only rows after this one.
    pub after: Option<UsageCursor>,
}

/// Which records of a tenant's are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditRange {
    /// Only those of this request.
    pub request: Option<String>,
    /// Only those made at this moment or later.
    pub since: UnixNanos,
    /// Only those made before this moment.
    pub until: UnixNanos,
    /// Only those of this index or a higher one.
    pub from: Option<u64>,
    /// At most this many.
    pub records: usize,
}

impl AuditRange {
    /// As the log tells what was looked for.
    pub fn detail(&self) -> String {
        match &self.request {
            Some(request) => format!("request={request}"),
            None => format!("since={} until={}", self.since, self.until),
        }
    }
}

/// The hour a moment is in, counted since 1970.
pub fn hour_of(at: UnixNanos) -> u64 {
    at.seconds() / HOUR
}

/// When an hour begins.
pub fn hour_begins(hour: u64) -> UnixNanos {
    UnixNanos::from_seconds(hour.saturating_mul(HOUR))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::TenantId;
    use crate::random::SeededRandom;

    #[test]
    fn cursors_read_back_and_nothing_else_is_one() {
        let cursor = LogCursor { file: 0xfeed, offset: u64::MAX };
        assert_eq!(cursor.to_string().parse(), Ok(cursor));
        for text in ["", "-", "1", "1-", "-1", "x-1", "1-x", "+1-1", "1-+1", "11111111111111111-1", "1-2-3", "1-é"] {
            assert_eq!(text.parse::<LogCursor>(), Err(CursorError), "{text}");
        }
        let random = SeededRandom::new(1);
        let function = FunctionId::mint(&TenantId::mint(&random), &random);
        let cursor = UsageCursor { hour: 498_658, function };
        assert_eq!(cursor.to_string().parse(), Ok(cursor.clone()));
        for text in ["", "1", "x-1", "1-f_1", "99999999999-t_0", &format!("-1-{}", cursor.function)] {
            assert_eq!(text.parse::<UsageCursor>(), Err(CursorError), "{text}");
        }
    }

    #[test]
    fn hours_are_whole() {
        let at = UnixNanos(1_795_171_080_000_000_000);
        assert_eq!(hour_begins(hour_of(at)).to_string(), "2026-11-20T10:00:00.000000Z");
    }
}
