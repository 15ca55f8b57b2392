//! `audit sinks`: where the log is streamed to, how far that is behind, and starting over from another record.
//!
//! Owns how it is shown, and the same look at cursors without a node (`doctor`). Must never move a cursor itself: that
//! is the node's to do, and to record.

use clap::{Args, Subcommand};
use cofferdam_audit::query;
use cofferdam_audit::select::{Wanted, select_in};
use cofferdam_gateway::sinks::{Cursor, SinkConfig};
use cofferdam_model::{Clock, UnixNanos};
use http::Method;
use serde_json::{Value, json};

use super::Context;
use super::access::rows;
use crate::failure::Failure;
use crate::layout::Layout;
use crate::output::items;
use crate::remote::{RemoteArgs, segment};

/// Arguments of `cofferdam audit sinks`.
#[derive(Debug, Args)]
pub(crate) struct SinksArgs {
    #[command(flatten)]
    remote: RemoteArgs,
    #[command(subcommand)]
    what: Option<Sinks>,
}

#[derive(Debug, Subcommand)]
enum Sinks {
    /// List them with what they are behind (the same as no subcommand)
    List,
    /// Stream to one from another record on: from an earlier one again, or past some that it shall not get
    Reset {
        /// Name of the sink
        name: String,
        /// Index of the record to go on from
        #[arg(long, value_name = "INDEX")]
        to: u64,
    },
}

/// Runs `cofferdam audit sinks`.
pub(crate) fn run(args: &SinksArgs, context: &Context) -> Result<(), Failure> {
    let remote = args.remote.open(&context.layout)?;
    match &args.what {
        None | Some(Sinks::List) => {
            let listed = remote.call(Method::GET, "/-/v1/sinks", None)?;
            context.output.result(&listed, || {
                let columns =
                    ["name", "kind", "state", "next", "lag_records", "lag_seconds", "delivered", "since", "error"];
                rows(&columns, items(&listed, "sinks"))
            })
        }
        Some(Sinks::Reset { name, to }) => {
            let path = format!("/-/v1/sinks/{}/reset", segment(name));
            let told = remote.call(Method::POST, &path, Some(&json!({ "to": to })))?;
            context.output.result(&told, || vec![format!("`{name}` goes on from record {to}")])
        }
    }
}

/// What a sink is behind, from the log's files alone: whether that is within what it may be, and how it is told.
pub(crate) fn look(layout: &Layout, sink: &SinkConfig, clock: &dyn Clock) -> Result<(bool, String), Failure> {
    let dir = layout.audit();
    let Some(cursor) = Cursor::load(&dir, &sink.name).map_err(|error| Failure::config(error.to_string()))? else {
        return Ok((true, "not begun".to_owned()));
    };
    let field = |line: Option<&String>, name: &str| {
        let record: Option<Value> = line.and_then(|line| serde_json::from_str(line).ok());
        record.and_then(|record| record.get(name)?.as_u64())
    };
    let records = field(query::tail(&dir, 1)?.first(), "index").map_or(0, |last| last.saturating_add(1));
    let (since, until) = (UnixNanos(0), UnixNanos(u64::MAX));
    let wanted = Wanted { tenant: None, request: None, since, until, from: Some(cursor.next), records: 1 };
    let oldest = field(select_in(&dir, &wanted)?.lines.first(), "at").map(UnixNanos);
    let seconds = oldest.map_or(0, |at| clock.now().seconds().saturating_sub(at.seconds()));
    let behind = records.saturating_sub(cursor.next);
    let good = behind <= sink.max_lag_records && seconds <= sink.max_lag_seconds;
    Ok((good, format!("{}: {behind} records behind, the oldest {seconds} s old", sink.to.kind())))
}
