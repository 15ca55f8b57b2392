//! `usage`: what a tenant's functions used, hour by hour.
//!
//! Owns the three forms it is told in. Must never round what programs read, and never let a cell of a spreadsheet be
//! taken for a formula.

use clap::{Args, ValueEnum};
use cofferdam_model::{Clock, UnixNanos};
use http::Method;
use serde_json::{Value, json};

use super::{Context, tenant_path};
use crate::failure::Failure;
use crate::manifest::units;
use crate::output::{Output, items, table, text};
use crate::remote::{Remote, RemoteArgs, segment};

/// Numbers of calls, as the API names them.
const CALLS: [&str; 4] = ["calls", "answered", "failed", "refused"];
/// What calls used, as records name it.
const USED: [&str; 10] = [
    "cpu_us",
    "wall_us",
    "memory_bytes",
    "memory_kib_ms",
    "bytes_in",
    "bytes_out",
    "log_bytes",
    "egress_calls",
    "egress_bytes_out",
    "egress_bytes_in",
];
/// Where nothing else is said, what is shown is from so many milliseconds ago on.
const USUAL_MS: u64 = 24 * 3_600_000;

/// Arguments of `cofferdam usage`.
#[derive(Debug, Args)]
pub(crate) struct UsageArgs {
    #[command(flatten)]
    remote: RemoteArgs,
    /// Name of the tenant
    tenant: String,
    /// Only functions of this name, removed ones included
    #[arg(long, value_name = "NAME")]
    function: Option<String>,
    /// From when on: 2026-11-20T10:00:00Z, 2026-11-20, or how long ago, as in 30d [default: 24h]
    #[arg(long, value_name = "TIME", value_parser = when)]
    since: Option<When>,
    /// Until when, said like --since [default: now]
    #[arg(long, value_name = "TIME", value_parser = when)]
    until: Option<When>,
    /// How it is told [default: table, or json with --json]
    #[arg(long)]
    format: Option<Format>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people: rounded, with units and a sum
    Table,
    /// For programs: exact numbers
    Json,
    /// For spreadsheets: exact numbers under the names records have
    Csv,
}

/// A moment, or how many milliseconds ago.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    At(UnixNanos),
    Ago(u64),
}

pub(crate) fn when(text: &str) -> Result<When, String> {
    let moment = UnixNanos::parse(text).or_else(|| UnixNanos::parse(&format!("{text}T00:00:00Z")));
    let ago = || units::milliseconds(text).map(When::Ago);
    moment.map(When::At).map_or_else(ago, Ok).map_err(|_| "write it as 2026-11-20T10:00:00Z, 2026-11-20 or 30d".into())
}

impl When {
    pub(crate) fn before(self, now: UnixNanos) -> UnixNanos {
        match self {
            Self::At(at) => at,
            Self::Ago(milliseconds) => UnixNanos(now.0.saturating_sub(milliseconds.saturating_mul(1_000_000))),
        }
    }
}

/// Runs `cofferdam usage`.
pub(crate) fn run(args: &UsageArgs, context: &Context, clock: &dyn Clock) -> Result<(), Failure> {
    let now = clock.now();
    let mut asked = format!("since={}", args.since.unwrap_or(When::Ago(USUAL_MS)).before(now));
    if let Some(until) = args.until {
        asked = format!("{asked}&until={}", until.before(now));
    }
    if let Some(function) = &args.function {
        asked = format!("{asked}&function={}", segment(function).replace('&', "%26"));
    }
    let path = format!("{}/usage?{asked}", tenant_path(&args.tenant));
    let (rows, behind) = all(&args.remote.open(&context.layout)?, &path)?;
    if behind > 0 {
        context.output.note(&format!("{behind} records of the log are not counted yet; ask again in a moment"));
    }
    match (args.format, context.output.json) {
        (Some(Format::Csv), _) => context.output.bytes(csv(&rows).as_bytes()),
        (Some(Format::Json), _) | (None, true) => {
            let told = json!({ "tenant": args.tenant, "rows": rows, "records_behind": behind });
            Output { json: true }.result(&told, Vec::new)
        }
        (Some(Format::Table), _) | (None, false) => {
            Output { json: false }.result(&Value::Null, || table(&lines(&rows)))
        }
    }
}

/// Every page of it.
fn all(remote: &Remote, path: &str) -> Result<(Vec<Value>, u64), Failure> {
    let (mut rows, mut after) = (Vec::new(), String::new());
    loop {
        let page = remote.call(Method::GET, &format!("{path}{after}"), None)?;
        rows.extend_from_slice(items(&page, "rows"));
        match page.get("next").and_then(Value::as_str) {
            Some(next) => after = format!("&after={}", segment(next)),
            None => return Ok((rows, page.get("records_behind").and_then(Value::as_u64).unwrap_or(0))),
        }
    }
}

fn number(row: &Value, name: &str) -> u64 {
    row.get(name).or_else(|| row.get("usage")?.get(name)).and_then(Value::as_u64).unwrap_or(0)
}

// === for spreadsheets ===

fn csv(rows: &[Value]) -> String {
    let names = ["hour", "function", "function_id"].into_iter().chain(CALLS).chain(USED);
    let mut out = names.collect::<Vec<_>>().join(",");
    out.push('\n');
    for row in rows {
        let texts = ["hour", "function", "function_id"].map(|name| cell(&text(row, name)));
        let numbers = CALLS.into_iter().chain(USED).map(|name| number(row, name).to_string());
        out.push_str(&texts.into_iter().chain(numbers).collect::<Vec<_>>().join(","));
        out.push('\n');
    }
    out
}

/// A text as a cell that no spreadsheet takes for anything else.
fn cell(text: &str) -> String {
    let formula = text.starts_with(['=', '+', '-', '@', '\t', '\r']);
    let text = if formula { format!("'{text}") } else { text.to_owned() };
    if text.contains([',', '"', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text }
}

// === for people ===

fn lines(rows: &[Value]) -> Vec<Vec<String>> {
    let head = [
        "HOUR",
        "FUNCTION",
        "CALLS",
        "ANSWERED",
        "FAILED",
        "REFUSED",
        "CPU",
        "WALL",
        "PEAK (MEAN)",
        "MEMORY x TIME",
        "IN",
        "OUT",
        "LOG",
        "EGRESS",
        "EGRESS OUT",
        "EGRESS IN",
    ];
    let mut lines = vec![head.map(str::to_owned).to_vec()];
    let mut sum = json!({});
    for row in rows {
        for name in CALLS.into_iter().chain(USED) {
            let total = number(&sum, name).saturating_add(number(row, name));
            if let Value::Object(fields) = &mut sum {
                fields.insert(name.to_owned(), total.into());
            }
        }
        let hour = text(row, "hour");
        let hour = hour.split_once(".000000").map_or_else(|| hour.clone(), |(hour, _)| format!("{hour}Z"));
        let function = Some(text(row, "function")).filter(|name| !name.is_empty());
        lines.push(line(hour, function.unwrap_or_else(|| text(row, "function_id")), row));
    }
    lines.push(line("sum".into(), String::new(), &sum));
    lines
}

fn line(hour: String, function: String, row: &Value) -> Vec<String> {
    let n = |name: &str| number(row, name);
    let mean = n("memory_bytes").checked_div(n("calls")).unwrap_or(0);
    let mut cells = vec![hour, function];
    cells.extend(CALLS.map(|name| n(name).to_string()));
    cells.extend([time(n("cpu_us")), time(n("wall_us")), size(mean), memory_time(n("memory_kib_ms"))]);
    cells.extend(["bytes_in", "bytes_out", "log_bytes"].map(|name| size(n(name))));
    cells.push(n("egress_calls").to_string());
    cells.extend(["egress_bytes_out", "egress_bytes_in"].map(|name| size(n(name))));
    cells
}

/// One decimal of the largest unit there is one of.
fn scaled(number: u64, units: &[(u64, &str)]) -> String {
    for (unit, name) in units.iter().rev() {
        if number >= *unit && *unit > 1 {
            let tenths = u128::from(number) * 10 / u128::from(*unit);
            return format!("{}.{} {name}", tenths / 10, tenths % 10);
        }
    }
    format!("{number} {}", units.first().map_or("", |(_, name)| name))
}

fn time(microseconds: u64) -> String {
    scaled(microseconds, &[(1, "us"), (1_000, "ms"), (1_000_000, "s"), (3_600_000_000, "h")])
}

fn size(bytes: u64) -> String {
    scaled(bytes, &[(1, "B"), (1 << 10, "KiB"), (1 << 20, "MiB"), (1 << 30, "GiB"), (1 << 40, "TiB")])
}

fn memory_time(kib_ms: u64) -> String {
    scaled(kib_ms, &[(1, "KiB ms"), (1_024_000, "MiB s"), (1_048_576_000, "GiB s"), (3_774_873_600_000, "GiB h")])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> Vec<Value> {
        let usage: serde_json::Map<_, _> = (1u64..).zip(USED).map(|(n, name)| (name.to_owned(), n.into())).collect();
        let (hour, id) = ("2026-11-20T10:00:00.000000Z", "t_0.f_0");
        let row = json!({ "hour": hour, "function": "hello", "function_id": id, "calls": 3, "answered": 2, "failed": 1,
            "refused": 0, "usage": usage });
        vec![row.clone(), row]
    }

    #[test]
    fn csv_has_every_number_under_its_own_name() {
        let expected = "hour,function,function_id,calls,answered,failed,refused,cpu_us,wall_us,memory_bytes,\
            memory_kib_ms,bytes_in,bytes_out,log_bytes,egress_calls,egress_bytes_out,egress_bytes_in\n\
            2026-11-20T10:00:00.000000Z,hello,t_0.f_0,3,2,1,0,1,2,3,4,5,6,7,8,9,10\n";
        assert_eq!(csv(&rows()[..1]), expected);
        let model = serde_json::to_value(cofferdam_model::Usage::default()).unwrap();
        let mut names: Vec<_> = model.as_object().unwrap().keys().map(String::as_str).collect();
        let mut ours = USED.to_vec();
        names.sort_unstable();
        ours.sort_unstable();
        assert_eq!(ours, names, "every field of `Usage` has a column");
    }

    #[test]
    fn no_cell_is_a_formula() {
        for start in ["=", "+", "-", "@", "\t", "\r"] {
            assert!(cell(&format!("{start}cmd")).trim_start_matches('"').starts_with('\''), "{start:?}");
        }
        assert_eq!(cell("a,\"b\""), "\"a,\"\"b\"\"\"");
        assert_eq!(cell("hello"), "hello");
    }

    #[test]
    fn table_is_rounded_and_summed() {
        let lines = lines(&rows());
        assert_eq!(lines.len(), 4);
        assert!(lines.iter().all(|line| line.len() == lines[0].len()));
        assert_eq!(lines[1][..5], ["2026-11-20T10:00:00Z", "hello", "3", "2", "1"]);
        assert_eq!((lines[3][0].as_str(), lines[3][2].as_str()), ("sum", "6"));
        assert_eq!([time(0), time(999), time(1_500), time(7_200_000_000)], ["0 us", "999 us", "1.5 ms", "2.0 h"]);
        assert_eq!([size(1023), size(1536), size(u64::MAX)], ["1023 B", "1.5 KiB", "16777215.9 TiB"]);
        assert_eq!(memory_time(2_048_000), "2.0 MiB s");
    }

    #[test]
    fn times_are_moments_days_or_ago() {
        let now = UnixNanos::from_seconds(1_795_171_080);
        let at = |text: &str| when(text).unwrap().before(now).to_string();
        assert_eq!(at("2026-11-20T12:00:00+02:00"), "2026-11-20T10:00:00.000000Z");
        assert_eq!(at("2026-11-20"), "2026-11-20T00:00:00.000000Z");
        assert_eq!(at("1h"), "2026-11-20T09:38:00.000000Z");
        for text in ["", "now", "2026-13-01", "-1h", "5"] {
            assert!(when(text).is_err(), "{text}");
        }
    }
}
