//! `audit hold` and `audit shred`: what must stay of the log, and what must not.
//!
//! Owns how these are asked for. Must never decide whether they may be: the node does, and records it.

use clap::{Args, Subcommand};
use cofferdam_model::UnixNanos;
use http::Method;
use serde_json::{Value, json};

use super::access::rows;
use super::audit::moment;
use super::{Context, tenant_path};
use crate::failure::{Failure, Kind};
use crate::output::{items, text};
use crate::remote::{RemoteArgs, segment};

/// Arguments of `cofferdam audit hold`.
#[derive(Debug, Args)]
pub(crate) struct HoldArgs {
    #[command(flatten)]
    remote: RemoteArgs,
    #[command(subcommand)]
    what: Hold,
}

#[derive(Debug, Subcommand)]
enum Hold {
    /// Hold records, or replace a hold: they are not pruned, and no key is destroyed that reads them
    Add {
        /// Name of the hold
        name: String,
        /// Why, for the log
        #[arg(long)]
        reason: String,
        /// Name of the tenant whose records they are [default: everybody's]
        #[arg(long)]
        tenant: Option<String>,
        /// Only those from this moment on, as in 2026-11-20T10:38:00Z
        #[arg(long, value_name = "TIME", value_parser = moment)]
        from: Option<UnixNanos>,
        /// Only those before this moment
        #[arg(long, value_name = "TIME", value_parser = moment)]
        until: Option<UnixNanos>,
    },
    /// Hold them no more
    Remove {
        /// Name of the hold
        name: String,
    },
    /// List what is held
    List,
}

/// Arguments of `cofferdam audit shred`.
#[derive(Debug, Args)]
pub(crate) struct ShredArgs {
    #[command(flatten)]
    remote: RemoteArgs,
    /// Name of the tenant
    #[arg(long)]
    tenant: String,
    /// Id of the subject, as records name it [default: all subjects of the tenant]
    #[arg(long)]
    subject: Option<String>,
    /// Why, for the log
    #[arg(long)]
    reason: String,
    /// Yes, for good
    #[arg(long)]
    yes: bool,
}

/// Runs `cofferdam audit hold`.
pub(crate) fn hold(args: &HoldArgs, context: &Context) -> Result<(), Failure> {
    let remote = args.remote.open(&context.layout)?;
    let path = |name: &str| format!("/-/v1/holds/{}", segment(name));
    match &args.what {
        Hold::Add { name, reason, tenant, from, until } => {
            let body = json!({ "reason": reason, "tenant": tenant, "from": from, "until": until });
            let put = remote.call(Method::PUT, &path(name), Some(&body))?;
            context.output.result(&put, || vec![format!("{name} holds from now on")])
        }
        Hold::Remove { name } => {
            let removed = remote.call(Method::DELETE, &path(name), None)?;
            context.output.result(&removed, || vec![format!("{name} holds no more")])
        }
        Hold::List => {
            let listed = remote.call(Method::GET, "/-/v1/holds", None)?;
            context.output.result(&listed, || {
                rows(&["name", "tenant", "from", "until", "created", "reason"], items(&listed, "holds"))
            })
        }
    }
}

/// Runs `cofferdam audit shred`.
pub(crate) fn shred(args: &ShredArgs, context: &Context) -> Result<(), Failure> {
    let ShredArgs { remote, tenant, subject, reason, yes } = args;
    if !yes {
        let what = subject.as_ref().map_or("all subjects", |_| "this subject");
        let message = format!("this destroys the keys of {what} of tenant `{tenant}`, and nobody can bring them back");
        return Err(Failure::new(Kind::Usage, message).hint("say `--yes` if that is meant"));
    }
    let remote = remote.open(&context.layout)?;
    let body = json!({ "confirm": tenant, "subject": subject, "reason": reason });
    let done = remote.call(Method::POST, &format!("{}/audit/shred", tenant_path(tenant)), Some(&body))?;
    context.output.result(&done, || told(&done))
}

fn told(done: &Value) -> Vec<String> {
    let keys = items(done, "destroyed");
    let names = keys.iter().filter_map(Value::as_str).map(str::to_owned);
    std::iter::once(format!("{} keys of {} destroyed", keys.len(), text(done, "tenant"))).chain(names).collect()
}
