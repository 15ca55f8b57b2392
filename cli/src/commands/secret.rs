//! `secret`: values a function may read.
//!
//! Owns how a value gets in: from standard input or a file, never from an argument, which others could see. Must never
//! print one.

use std::io::IsTerminal;
use std::path::PathBuf;

use bytes::Bytes;
use clap::{Args, Subcommand};
use http::Method;
use serde_json::{Value, json};

use super::access::rows;
use super::{Context, FunctionName, input};
use crate::failure::Failure;
use crate::output::{items, text};
use crate::remote::{RemoteArgs, segment};

/// Bytes of a secret.
const SECRET_BYTES: usize = 32 * 1024;

/// Arguments of `cofferdam secret`.
#[derive(Debug, Args)]
pub(crate) struct SecretArgs {
    #[command(flatten)]
    remote: RemoteArgs,
    #[command(subcommand)]
    what: Secret,
}

#[derive(Debug, Subcommand)]
enum Secret {
    /// Set a secret; the value is read from standard input or a file, without a newline at its end
    Set {
        /// Function, as tenant/function
        function: FunctionName,
        /// Name of the secret, which is the environment entry's
        name: String,
        /// File with the value [default: standard input]
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
        /// Keep a newline at the end
        #[arg(long)]
        exact: bool,
    },
    /// Replace the value of a secret that is set; earlier values are kept to go back to, unless they are revoked
    Rotate {
        /// Function, as tenant/function
        function: FunctionName,
        /// Name of the secret
        name: String,
        /// File with the new value [default: standard input]
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
        /// Keep a newline at the end
        #[arg(long)]
        exact: bool,
        /// Destroy all earlier values, and never go back to one: for when one leaked
        #[arg(long)]
        revoke_older: bool,
    },
    /// List the values a secret has had: their numbers and ages
    Versions {
        /// Function, as tenant/function
        function: FunctionName,
        /// Name of the secret
        name: String,
    },
    /// Go back to an earlier value of a secret
    Rollback {
        /// Function, as tenant/function
        function: FunctionName,
        /// Name of the secret
        name: String,
        /// Its number, as `secret versions` shows it
        #[arg(long)]
        version: u64,
    },
    /// List names and ages of a function's secrets
    List {
        /// Function, as tenant/function
        function: FunctionName,
    },
    /// Remove a secret
    Rm {
        /// Function, as tenant/function
        function: FunctionName,
        /// Name of the secret
        name: String,
    },
}

/// Runs `cofferdam secret`.
pub(crate) fn run(args: &SecretArgs, context: &Context) -> Result<(), Failure> {
    let path = |function: &FunctionName, name: &str| format!("{}/secrets/{}", function.path(), segment(name));
    match &args.what {
        Secret::Set { function, name, file, exact } => {
            let body = value(file.as_ref(), *exact)?;
            let remote = args.remote.open(&context.layout)?;
            let set = remote.upload(Method::PUT, &path(function, name), "application/octet-stream", body)?;
            if set.get("declared") == Some(&Value::Bool(false)) {
                let told =
                    format!("note: the function does not see {name} until its manifest lists it under `secrets`");
                context.output.note(&told);
            }
            context.output.result(&set, || vec![format!("{name} is set, version {}", text(&set, "version"))])
        }
        Secret::Rotate { function, name, file, exact, revoke_older } => {
            let body = value(file.as_ref(), *exact)?;
            let remote = args.remote.open(&context.layout)?;
            let path = format!("{}/rotate?revoke_older={revoke_older}", path(function, name));
            let set = remote.upload(Method::POST, &path, "application/octet-stream", body)?;
            let revoked = if *revoke_older { ", every earlier value is gone" } else { "" };
            context.output.result(&set, || vec![format!("{name} is version {}{revoked}", text(&set, "version"))])
        }
        Secret::Versions { function, name } => {
            let remote = args.remote.open(&context.layout)?;
            let listed = remote.call(Method::GET, &format!("{}/versions", path(function, name)), None)?;
            context.output.result(&listed, || {
                rows(&["version", "updated", "current", "tenant_key", "format"], items(&listed, "versions"))
            })
        }
        Secret::Rollback { function, name, version } => {
            let remote = args.remote.open(&context.layout)?;
            let body = json!({ "version": version });
            let set = remote.call(Method::POST, &format!("{}/rollback", path(function, name)), Some(&body))?;
            context.output.result(&set, || vec![format!("{name} is version {version} again")])
        }
        Secret::List { function } => {
            let remote = args.remote.open(&context.layout)?;
            let listed = remote.call(Method::GET, &format!("{}/secrets", function.path()), None)?;
            context
                .output
                .result(&listed, || rows(&["name", "version", "updated", "declared"], items(&listed, "secrets")))
        }
        Secret::Rm { function, name } => {
            let remote = args.remote.open(&context.layout)?;
            let removed = remote.call(Method::DELETE, &path(function, name), None)?;
            context.output.result(&removed, || vec![format!("{name} is gone")])
        }
    }
}

/// A value, from a file or from standard input.
fn value(file: Option<&PathBuf>, exact: bool) -> Result<Bytes, Failure> {
    if file.is_none() && std::io::stdin().is_terminal() {
        let failure = Failure::usage("a secret is not typed where it can be seen");
        return Err(failure.hint("pipe it in, or name a file with --file"));
    }
    let bytes = input(file.map(PathBuf::as_path), SECRET_BYTES)?;
    // The client needs bytes of its own; they live until the request is sent, and are wiped when they are freed.
    Ok(Bytes::copy_from_slice(if exact { bytes.as_slice() } else { without_newline(&bytes) }))
}

/// What an editor or `echo` puts at the end of a file is seldom meant.
fn without_newline(bytes: &[u8]) -> &[u8] {
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    bytes.strip_suffix(b"\r").unwrap_or(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_newline_at_the_end_is_dropped_and_no_more() {
        for (given, kept) in [("a", "a"), ("a\n", "a"), ("a\r\n", "a"), ("a\n\n", "a\n"), ("\n", ""), (" a \n", " a ")]
        {
            assert_eq!(without_newline(given.as_bytes()), kept.as_bytes(), "{given:?}");
        }
    }
}
