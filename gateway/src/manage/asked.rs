//! What the query of a reading call asks for.
//!
//! Owns the names of its parameters, their bounds and their defaults. Must never pass over a value it cannot use.

use std::str::FromStr;
use std::time::Duration;

use cofferdam_model::reading::hour_of;
use cofferdam_model::{AuditRange, LogRange, RequestId, UnixNanos, UsageRange};

use super::{decoded, invalid};
use crate::refusal::Refusal;

/// Lines of log given where the caller does not say.
const DEFAULT_LINES: usize = 100;
/// Most lines of log given.
const MAX_LINES: usize = 5_000;
/// Most records of the log given.
const MAX_RECORDS: usize = 1_000;
/// The longest a call waits for a line of log.
const MAX_WAIT_MS: u64 = 20_000;

/// The lines of log asked for: `lines`, `after`, `wait_ms`.
pub(super) fn log_range(query: Option<&str>) -> Result<LogRange, Refusal> {
    let lines = bounded(query, "lines", 1..=MAX_LINES)?.unwrap_or(DEFAULT_LINES);
    let wait = bounded(query, "wait_ms", 0..=MAX_WAIT_MS)?.unwrap_or(0);
    Ok(LogRange { lines, after: cursor(query)?, wait: Duration::from_millis(wait) })
}

/// The rows of usage asked for: `function`, `since`, `until`, `after`. An hour is given whole or not at all, and those
/// that are only in part between the two moments are.
pub(super) fn usage_range(query: Option<&str>) -> Result<UsageRange, Refusal> {
    let since = moment(query, "since")?.map_or(0, hour_of);
    let until =
        moment(query, "until")?.map_or(u64::MAX, |at| hour_of(UnixNanos(at.0.saturating_sub(1))).saturating_add(1));
    Ok(UsageRange { function: parameter(query, "function")?, hours: since..until, after: cursor(query)? })
}

/// The issuer of a member: `issuer`.
pub(super) fn issuer(query: Option<&str>) -> Result<Option<String>, Refusal> {
    parameter(query, "issuer")
}

/// The records asked for: `request`, `since`, `until`, `from`, `records`.
pub(super) fn audit_range(query: Option<&str>) -> Result<AuditRange, Refusal> {
    let request = parameter(query, "request")?;
    if request.as_ref().is_some_and(|id| RequestId::parse(id).is_err()) {
        return Err(invalid("`request` must be the id of a request, as in req_0123456789abcdef".to_owned()));
    }
    Ok(AuditRange {
        request,
        since: moment(query, "since")?.unwrap_or(UnixNanos(0)),
        until: moment(query, "until")?.unwrap_or(UnixNanos(u64::MAX)),
        from: bounded(query, "from", 0..=u64::MAX)?,
        records: bounded(query, "records", 1..=MAX_RECORDS)?.unwrap_or(MAX_RECORDS),
    })
}

/// Number of the record to begin with: `from`.
pub(super) fn from(query: Option<&str>) -> Result<u64, Refusal> {
    Ok(bounded(query, "from", 0..=u64::MAX)?.unwrap_or(0))
}

/// A parameter of a query, decoded.
pub(crate) fn parameter(query: Option<&str>, name: &str) -> Result<Option<String>, Refusal> {
    let pairs = query.unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='));
    let Some((_, given)) = pairs.into_iter().find(|(key, _)| *key == name) else { return Ok(None) };
    decoded(given).map(Some).ok_or_else(|| invalid(format!("`{name}` is not text")))
}

fn bounded<N: FromStr + PartialOrd + std::fmt::Display>(
    query: Option<&str>,
    name: &str,
    bounds: std::ops::RangeInclusive<N>,
) -> Result<Option<N>, Refusal> {
    let Some(given) = parameter(query, name)? else { return Ok(None) };
    match given.parse::<N>() {
        Ok(number) if bounds.contains(&number) => Ok(Some(number)),
        _ => Err(invalid(format!("`{name}` must be a number from {} to {}", bounds.start(), bounds.end()))),
    }
}

/// Whether a parameter is `true`; `false` where it is not there.
pub(super) fn flag(query: Option<&str>, name: &str) -> Result<bool, Refusal> {
    match parameter(query, name)?.as_deref() {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(_) => Err(invalid(format!("`{name}` must be `true` or `false`"))),
    }
}

fn cursor<C: FromStr<Err: std::fmt::Display>>(query: Option<&str>) -> Result<Option<C>, Refusal> {
    let given = parameter(query, "after")?;
    given.map(|text| text.parse::<C>().map_err(|error| invalid(format!("`after`: {error}")))).transpose()
}

fn moment(query: Option<&str>, name: &str) -> Result<Option<UnixNanos>, Refusal> {
    let Some(given) = parameter(query, name)? else { return Ok(None) };
    let at = UnixNanos::parse(&given);
    at.map(Some).ok_or_else(|| invalid(format!("`{name}` must be a moment, as in 2026-11-20T10:38:00Z")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use cofferdam_model::LogCursor;

    #[test]
    fn log_ranges_are_bounded() {
        let usual = LogRange { lines: DEFAULT_LINES, after: None, wait: Duration::ZERO };
        assert_eq!(log_range(None).unwrap(), usual);
        let place = LogCursor { file: 0xab, offset: 7 };
        let asked = LogRange { lines: 7, after: Some(place), wait: Duration::from_secs(20) };
        assert_eq!(log_range(Some(&format!("x=1&lines=7&after={place}&wait_ms=20000"))).unwrap(), asked);
        let bad = ["lines=0", "lines=999999", "lines=x", "lines=-1", "lines=", "after=", "after=x", "wait_ms=20001"];
        for bad in bad.into_iter().chain(["wait_ms=-1", "lines=%ff"]) {
            assert!(log_range(Some(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn usage_is_asked_for_in_whole_hours() {
        assert_eq!(usage_range(None).unwrap(), UsageRange { function: None, hours: 0..u64::MAX, after: None });
        let range = |query: &str| usage_range(Some(query)).map(|range| range.hours);
        assert_eq!(range("since=1970-01-01T01:59:59Z&until=1970-01-01T03:00:00Z").unwrap(), 1..3);
        assert_eq!(range("until=1970-01-01T03%3A00%3A00.000001Z").unwrap(), 0..4);
        for bad in ["since=yesterday", "until=", "after=1-2", "since=1969-01-01T00:00:00Z", "function=%80"] {
            assert!(range(bad).is_err(), "{bad}");
        }
        for bad in ["request=x", "records=0", "records=1001", "from=-1", "since=now"] {
            assert!(audit_range(Some(bad)).is_err(), "{bad}");
        }
        assert_eq!(audit_range(None).unwrap().records, MAX_RECORDS);
        assert_eq!(usage_range(Some("function=hello")).unwrap().function.as_deref(), Some("hello"));
    }
}
