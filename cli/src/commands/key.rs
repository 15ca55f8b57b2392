//! `key`: API keys of a tenant's service accounts.
//!
//! Owns where a new key's text goes: to standard output or a file of its owner's, once. Must never show it again.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use http::Method;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::access::rows;
use super::{Context, duration, tenant_path};
use crate::failure::Failure;
use crate::output::{items, text};
use crate::remote::{RemoteArgs, segment};

/// Arguments of `cofferdam key`.
#[derive(Debug, Args)]
pub(crate) struct KeyArgs {
    #[command(flatten)]
    remote: RemoteArgs,
    #[command(subcommand)]
    what: Key,
}

#[derive(Debug, Subcommand)]
enum Key {
    /// Make a key; its text is shown once
    Create {
        /// Name of the tenant
        tenant: String,
        /// Name of the service account it stands for
        account: String,
        /// A role of that account; may be repeated
        #[arg(long = "role", required = true, value_name = "ROLE")]
        roles: Vec<String>,
        /// What it is good for of what these roles may: an action, a group of them, or `fn:NAME`; may be repeated
        /// [default: all of it]
        #[arg(long = "scope", value_name = "SCOPE")]
        scopes: Vec<String>,
        /// How long it is good for, at most 365d
        #[arg(long, default_value = "90d", value_parser = duration, value_name = "TIME")]
        ttl: u64,
        /// Write the text to a new file only its owner can read, instead of standard output
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// List a tenant's keys
    List {
        /// Name of the tenant
        tenant: String,
    },
    /// Revoke a key, at once and for good
    Revoke {
        /// Its id
        id: String,
    },
}

/// Runs `cofferdam key`.
pub(crate) fn run(args: &KeyArgs, context: &Context) -> Result<(), Failure> {
    let remote = args.remote.open(&context.layout)?;
    match &args.what {
        Key::Create { tenant, account, roles, scopes, ttl, out } => {
            let body = json!({ "account": account, "roles": roles, "scopes": scopes, "ttl_seconds": ttl });
            let made = remote.call(Method::POST, &format!("{}/keys", tenant_path(tenant)), Some(&body))?;
            created(made, out.as_ref(), context)
        }
        Key::List { tenant } => {
            let listed = remote.call(Method::GET, &format!("{}/keys", tenant_path(tenant)), None)?;
            context.output.result(&listed, || {
                rows(&["id", "account", "roles", "scopes", "created", "expires", "revoked"], items(&listed, "keys"))
            })
        }
        Key::Revoke { id } => {
            let revoked = remote.call(Method::DELETE, &format!("/-/v1/keys/{}", segment(id)), None)?;
            context.output.result(&revoked, || vec![format!("{id} is revoked")])
        }
    }
}

fn created(mut made: Value, out: Option<&PathBuf>, context: &Context) -> Result<(), Failure> {
    let key = Zeroizing::new(text(&made, "key"));
    let about =
        format!("key {} of {}, good until {}", text(&made, "id"), text(&made, "account"), text(&made, "expires"));
    context.output.note(&about);
    let Some(path) = out else {
        return context.output.result(&made, || vec![key.to_string()]);
    };
    cofferdam_control::create_private(path, format!("{}\n", key.as_str()).as_bytes()).map_err(|error| {
        let lost = format!("the key was made but could not be kept: revoke {} and try again", text(&made, "id"));
        Failure::internal(crate::failure::chain(&error)).hint(lost)
    })?;
    if let Value::Object(members) = &mut made {
        members.remove("key");
        members.insert("file".to_owned(), path.display().to_string().into());
    }
    context.output.result(&made, || vec![path.display().to_string()])
}
