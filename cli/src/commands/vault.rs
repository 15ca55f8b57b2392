//! `vault`: the root key, which everything sealed hangs on.
//!
//! Owns how its state is shown. Must never see a key.

use clap::{Args, Subcommand};
use http::Method;
use serde_json::{Value, json};

use super::Context;
use super::access::rows;
use crate::failure::Failure;
use crate::output::{items, text};
use crate::remote::RemoteArgs;

/// Arguments of `cofferdam vault`.
#[derive(Debug, Args)]
pub(crate) struct VaultArgs {
    #[command(flatten)]
    remote: RemoteArgs,
    #[command(subcommand)]
    what: Vault,
}

#[derive(Debug, Subcommand)]
enum Vault {
    /// Say where the root key is, what it wraps, and whether it can be reached
    Status,
    /// Replace the root key and have every tenant's key wrapped by the new one; goes on with one that was cut off
    RotateRoot {
        /// Destroy the old key's file, and those of all before it: no older copy of the state opens any more
        #[arg(long)]
        destroy_old: bool,
    },
}

/// Runs `cofferdam vault`.
pub(crate) fn run(args: &VaultArgs, context: &Context) -> Result<(), Failure> {
    let remote = args.remote.open(&context.layout)?;
    match &args.what {
        Vault::Status => {
            let told = remote.call(Method::GET, "/-/v1/root-key", None)?;
            context.output.result(&told, || {
                let available = told.get("available").and_then(Value::as_bool) == Some(true);
                let state = if available { "can be reached".to_owned() } else { text(&told, "trouble") };
                let mut lines = vec![format!("root key  {}", text(&told, "root_key")), format!("state     {state}")];
                if told.get("rotating").and_then(Value::as_bool) == Some(true) {
                    lines.push("a rotation was cut off: run it again".to_owned());
                }
                lines.push(String::new());
                lines.extend(rows(&["root_key", "tenant_keys"], items(&told, "wraps")));
                lines
            })
        }
        Vault::RotateRoot { destroy_old } => {
            let body = json!({ "destroy_old": destroy_old });
            let turned = remote.call(Method::POST, "/-/v1/root-key/rotate", Some(&body))?;
            context.output.result(&turned, || {
                vec![format!("{} wraps {} tenants' keys anew", text(&turned, "root_key"), text(&turned, "rewrapped"))]
            })
        }
    }
}
