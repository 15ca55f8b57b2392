//! Records as the tools look at them: one at a time, from a node or from the files of a log.
//!
//! Owns how many there are, over which time, and what of them could not be judged. Must never hold more than a page of
//! them, nor leave out of its account what it passed over.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Args;
use cofferdam_audit::select::{Wanted, select_in};
use cofferdam_model::{CallFacts, Clock, UnixNanos};
use http::Method;
use serde_json::{Value, json};

use super::{Tenant, with};
use crate::commands::tenant_path;
use crate::commands::usage::{When, when};
use crate::failure::{Failure, Kind};
use crate::remote::Remote;

/// From so many milliseconds ago on records are read where nothing else is said.
const USUAL_MS: u64 = 24 * 3_600_000;
/// Requests named for each reason.
const NAMED: usize = 20;

/// Which records.
#[derive(Debug, Args)]
pub(super) struct RecordArgs {
    /// From when on: 2026-11-20T10:00:00Z, 2026-11-20, or how long ago, as in 30d [default: 24h]
    #[arg(long, value_name = "TIME", value_parser = when)]
    since: Option<When>,
    /// Until when, said like --since [default: now]
    #[arg(long, value_name = "TIME", value_parser = when)]
    until: Option<When>,
    /// Records looked at, at most
    #[arg(long, value_name = "NUMBER", default_value_t = 100_000)]
    most: u64,
    /// Directory of a log, or of a copy of one, instead of asking the node
    #[arg(long, value_name = "DIR")]
    log: Option<PathBuf>,
}

/// What is asked of records: one request's, and when.
pub(super) type Asked<'a> = (Option<&'a str>, (UnixNanos, UnixNanos));

/// What is done with each record. Whatever it gives up ends the reading.
type Take<'a> = &'a mut dyn FnMut(Value) -> Result<(), Failure>;

impl RecordArgs {
    /// Gives those of a tenant one by one, from the node or from the files of a log; says what was looked at.
    pub(super) fn each(
        &self,
        remote: &Remote,
        tenant: &Tenant,
        clock: &dyn Clock,
        take: Take<'_>,
    ) -> Result<Seen, Failure> {
        let now = clock.now();
        let since = self.since.unwrap_or(When::Ago(USUAL_MS)).before(now);
        // Asking is recorded too: without an end there would be more with every page.
        let range = (since, self.until.map_or(now, |until| until.before(now)));
        match &self.log {
            Some(dir) => each_of_files(dir, Some(tenant.id.as_str()), (None, range), self.most, take),
            None => each_of_node(remote, &tenant.name, (None, range), self.most, take),
        }
    }
}

/// What was looked at.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    range: (UnixNanos, UnixNanos),
    records: u64,
    /// When the first and the last were made.
    made: Option<(u64, u64)>,
    /// Whether there were more than may be looked at.
    pub(super) more: bool,
}

impl Seen {
    fn none(range: (UnixNanos, UnixNanos)) -> Self {
        Self { range, records: 0, made: None, more: false }
    }

    fn one(&mut self, record: &Value) {
        self.records += 1;
        if let Some(at) = record.get("at").and_then(Value::as_u64) {
            self.made = Some((self.made.map_or(at, |(first, _)| first), at));
        }
    }

    /// As programs read it.
    pub(super) fn told(&self) -> Value {
        let made = |at: u64| UnixNanos(at).to_string();
        json!({
            "records": self.records, "since": self.range.0.to_string(), "until": self.range.1.to_string(),
            "first": self.made.map(|(first, _)| made(first)), "last": self.made.map(|(_, last)| made(last)),
            "more": self.more,
        })
    }

    /// As people do.
    pub(super) fn line(&self) -> String {
        let (since, until) = self.range;
        let made = |(a, b)| format!(" (the first of {}, the last of {})", UnixNanos(a), UnixNanos(b));
        let made = self.made.map(made);
        let more = if self.more { "; there are more: raise --most, or ask for less time" } else { "" };
        format!("{} records from {since} to {until} looked at{}{more}", self.records, made.unwrap_or_default())
    }
}

/// Calls that could not be judged, by reason: how many, and the first of them.
#[derive(Debug, Default)]
pub(super) struct Skipped(BTreeMap<String, (u64, Vec<String>)>);

impl Skipped {
    pub(super) fn one(&mut self, why: impl Into<String>, request: &str) {
        let (count, ids) = self.0.entry(why.into()).or_default();
        *count += 1;
        if ids.len() < NAMED {
            ids.push(request.to_owned());
        }
    }

    /// A record of a call that tells nothing that can be read. Other kinds are no calls.
    pub(super) fn unread(&mut self, record: &Value) {
        if is_call(record) {
            let request = record.get("request").and_then(Value::as_str).unwrap_or("-");
            self.one("its record cannot be read", request);
        }
    }

    pub(super) fn told(&self) -> Vec<Value> {
        let one = |why: &String, (count, ids): &(u64, Vec<String>)| {
            let told = json!({ "why": why, "calls": count });
            with(told, "requests", json!(ids))
        };
        self.0.iter().map(|(why, calls)| one(why, calls)).collect()
    }

    pub(super) fn lines(&self, what: &str) -> Vec<String> {
        let one = |(why, (count, ids)): (&String, &(u64, Vec<String>))| {
            let more = if *count > ids.len() as u64 { ", ..." } else { "" };
            format!("{count} {what}: {why} ({}{more})", ids.join(", "))
        };
        self.0.iter().map(one).collect()
    }
}

/// Gives records out of a log's files.
pub(super) fn each_of_files(
    dir: &Path,
    tenant: Option<&str>,
    (request, (since, until)): Asked<'_>,
    most: u64,
    take: Take<'_>,
) -> Result<Seen, Failure> {
    if !dir.is_dir() {
        return Err(Failure::new(Kind::NotFound, format!("there is no log at `{}`", dir.display())));
    }
    let (mut seen, mut from) = (Seen::none((since, until)), None);
    loop {
        let records = usize::try_from(most.saturating_sub(seen.records)).unwrap_or(usize::MAX);
        let page = select_in(dir, &Wanted { tenant, request, since, until, from, records })?;
        for line in page.lines {
            let record = serde_json::from_str(&line)
                .map_err(|error| Failure::new(Kind::Invalid, format!("a record of the log is not JSON: {error}")))?;
            seen.one(&record);
            take(record)?;
        }
        match page.next {
            Some(_) if seen.records >= most => return Ok(Seen { more: true, ..seen }),
            None => return Ok(seen),
            next => from = next,
        }
    }
}

/// Gives records a node has of a tenant.
pub(super) fn each_of_node(
    remote: &Remote,
    tenant: &str,
    (request, (since, until)): Asked<'_>,
    most: u64,
    take: Take<'_>,
) -> Result<Seen, Failure> {
    let mut path = format!("{}/audit?since={since}", tenant_path(tenant));
    if until != UnixNanos(u64::MAX) {
        path = format!("{path}&until={until}");
    }
    if let Some(request) = request {
        path = format!("{path}&request={request}");
    }
    let (mut seen, mut from) = (Seen::none((since, until)), String::new());
    loop {
        let mut page = remote.call(Method::GET, &format!("{path}{from}"), None)?;
        let next = page.get("next").and_then(Value::as_u64);
        let records = page.get_mut("records").and_then(Value::as_array_mut).map(std::mem::take).unwrap_or_default();
        for record in records {
            if seen.records >= most {
                return Ok(Seen { more: true, ..seen });
            }
            seen.one(&record);
            take(record)?;
        }
        match next {
            Some(_) if seen.records >= most => return Ok(Seen { more: true, ..seen }),
            Some(next) => from = format!("&from={next}"),
            None => return Ok(seen),
        }
    }
}

fn is_call(record: &Value) -> bool {
    record.get("kind").and_then(Value::as_str).is_some_and(|kind| ["call", "intent", "refusal"].contains(&kind))
}

/// The facts a record of a call tells; none for other kinds.
pub(super) fn facts(record: &Value) -> Option<CallFacts> {
    if !is_call(record) {
        return None;
    }
    let mut record = record.clone();
    let received = record.get("received")?.clone();
    let members = record.as_object_mut()?;
    members.insert("at".to_owned(), received);
    // Written for people, one line each; `uses` tells them.
    for told in ["uses", "connection", "headers", "limits"] {
        members.remove(told);
    }
    let sets = members.get_mut("decision").and_then(|decision| decision.get_mut("sets"));
    if let Some(sets) = sets {
        let by_tier = sets.as_object().into_iter().flatten();
        *sets = by_tier.map(|(tier, set)| set_of(tier, set)).collect();
    }
    serde_json::from_value(record).ok()
}

/// The state of a tier's policies, as facts have it.
fn set_of(tier: &str, set: &Value) -> Value {
    json!({ "tier": tier, "owner": set["owner"], "version": set["version"], "digest": set["sha256"] })
}

/// Records of one request, few as they are.
pub(super) fn kept<'a>(all: &'a mut Vec<Value>) -> impl FnMut(Value) -> Result<(), Failure> + 'a {
    |record| {
        all.push(record);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_passed_over_is_counted_and_its_first_are_named() {
        let mut skipped = Skipped::default();
        for number in 0..25 {
            skipped.one("it was cut", &format!("req_{number}"));
        }
        skipped.unread(&json!({ "kind": "intent", "request": "req_x" }));
        skipped.unread(&json!({ "kind": "egress", "request": "req_y" }));
        let told = skipped.told();
        assert_eq!((told.len(), &told[0]["calls"]), (2, &json!(25)));
        assert_eq!(told[0]["requests"].as_array().map(Vec::len), Some(NAMED));
        assert_eq!(told[1]["requests"], json!(["req_x"]));
        assert!(skipped.lines("not judged")[0].ends_with("req_19, ...)"));
    }

    #[test]
    fn what_was_looked_at_is_told_with_its_range() {
        let mut seen = Seen::none((UnixNanos(0), UnixNanos::from_seconds(60)));
        assert_eq!(seen.told()["first"], Value::Null);
        for at in [5_000_000_000u64, 9_000_000_000] {
            seen.one(&json!({ "at": at }));
        }
        let told = seen.told();
        assert_eq!((&told["records"], &told["last"]), (&json!(2), &json!("1970-01-01T00:00:09.000000Z")));
        assert!(seen.line().starts_with("2 records from 1970-01-01T00:00:00.000000Z to 1970-01-01T00:01:00.000000Z"));
    }
}
