//! `cells` and `metrics`: what runs, and what has happened so far.
//!
//! Owns how both are shown. Must never show more than the node told.

use clap::{Args, Subcommand};
use http::Method;

use super::access::rows;
use super::{Context, tenant_path};
use crate::failure::Failure;
use crate::output::{items, text};
use crate::remote::{RemoteArgs, segment};

/// Arguments of `cofferdam cells`.
#[derive(Debug, Args)]
pub(crate) struct CellsArgs {
    #[command(flatten)]
    remote: RemoteArgs,
    #[command(subcommand)]
    what: Cells,
}

#[derive(Debug, Subcommand)]
enum Cells {
    /// List the cells of a tenant
    List(Which),
    /// Have a tenant's cells finish the calls they have and be replaced
    Recycle(Which),
}

#[derive(Debug, Args)]
struct Which {
    /// Name of the tenant
    tenant: String,
    /// Those of this function alone
    #[arg(long, value_name = "NAME")]
    function: Option<String>,
}

impl Which {
    fn path(&self) -> String {
        let tenant = tenant_path(&self.tenant);
        match &self.function {
            Some(function) => format!("{tenant}/functions/{}/cells", segment(function)),
            None => format!("{tenant}/cells"),
        }
    }
}

/// Arguments of `cofferdam metrics`.
#[derive(Debug, Args)]
pub(crate) struct MetricsArgs {
    #[command(flatten)]
    remote: RemoteArgs,
}

/// Runs `cofferdam cells`.
pub(crate) fn cells(args: &CellsArgs, context: &Context) -> Result<(), Failure> {
    let remote = args.remote.open(&context.layout)?;
    match &args.what {
        Cells::List(which) => {
            let listed = remote.call(Method::GET, &which.path(), None)?;
            context.output.result(&listed, || {
                let columns =
                    ["id", "function", "calls", "served", "age_seconds", "memory_bytes", "isolation", "draining"];
                rows(&columns, items(&listed, "cells"))
            })
        }
        Cells::Recycle(which) => {
            let told = remote.call(Method::DELETE, &which.path(), None)?;
            context
                .output
                .result(&told, || vec![format!("{} cells go when their calls are over", text(&told, "cells"))])
        }
    }
}

/// Runs `cofferdam metrics`.
pub(crate) fn metrics(args: &MetricsArgs, context: &Context) -> Result<(), Failure> {
    let read = args.remote.open(&context.layout)?.text(Method::GET, "/-/v1/metrics")?;
    if context.output.json {
        return context.output.result(&serde_json::json!({ "text": String::from_utf8_lossy(&read) }), Vec::new);
    }
    context.output.bytes(&read)
}
