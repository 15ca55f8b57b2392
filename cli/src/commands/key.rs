//! `key`: keys of a tenant's service accounts.
//!
//! Owns where a new key's text goes: to standard output or a file of its owner's, once. Must never show it again.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use cofferdam_model::{KeyKind, KeySettings, Network};
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
        /// What is done with it: shown, or used to sign requests (AWS Signature Version 4)
        #[arg(long, default_value = "api-key", value_parser = kind, value_name = "api-key|sigv4")]
        kind: KeyKind,
        /// A network it may be used from, as in `198.51.100.0/24`; may be repeated [default: from anywhere]
        #[arg(long = "network", value_name = "CIDR", value_parser = network)]
        networks: Vec<Network>,
        /// Let requests signed with it leave their body unsigned
        #[arg(long)]
        unsigned_payload: bool,
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
        Key::Create { tenant, account, roles, scopes, ttl, kind, networks, unsigned_payload, out } => {
            let (kind, networks, unsigned_payload) = (*kind, networks.clone(), *unsigned_payload);
            let settings = KeySettings { kind, networks, unsigned_payload };
            let body = json!({
                "account": account, "roles": roles, "scopes": scopes, "ttl_seconds": ttl, "settings": settings,
            });
            let made = remote.call(Method::POST, &format!("{}/keys", tenant_path(tenant)), Some(&body))?;
            created(made, out.as_ref(), context)
        }
        Key::List { tenant } => {
            let listed = remote.call(Method::GET, &format!("{}/keys", tenant_path(tenant)), None)?;
            context.output.result(&listed, || {
                let columns =
                    ["id", "kind", "account", "roles", "scopes", "networks", "created", "used", "expires", "revoked"];
                rows(&columns, items(&listed, "keys"))
            })
        }
        Key::Revoke { id } => {
            let revoked = remote.call(Method::DELETE, &format!("/-/v1/keys/{}", segment(id)), None)?;
            context.output.result(&revoked, || vec![format!("{id} is revoked")])
        }
    }
}

fn kind(text: &str) -> Result<KeyKind, String> {
    match text {
        "api-key" => Ok(KeyKind::ApiKey),
        "sigv4" => Ok(KeyKind::Sigv4),
        _ => Err("`api-key` or `sigv4` is expected".to_owned()),
    }
}

fn network(text: &str) -> Result<Network, String> {
    Network::try_from(text.to_owned()).map_err(|error| error.to_string())
}

/// What is shown once: a key's text, or what AWS's tools want in their environment or their file of credentials.
fn shown_once(made: &Value, to_file: bool) -> Zeroizing<String> {
    let secret = Zeroizing::new(text(made, "secret_access_key"));
    let id = text(made, "access_key_id");
    if made.get("secret_access_key").is_none() {
        return Zeroizing::new(text(made, "key"));
    }
    let secret = secret.as_str();
    Zeroizing::new(if to_file {
        format!("[default]\naws_access_key_id = {id}\naws_secret_access_key = {secret}")
    } else {
        format!("AWS_ACCESS_KEY_ID={id}\nAWS_SECRET_ACCESS_KEY={secret}")
    })
}

fn created(mut made: Value, out: Option<&PathBuf>, context: &Context) -> Result<(), Failure> {
    let key = shown_once(&made, out.is_some());
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
        members.remove("secret_access_key");
        members.insert("file".to_owned(), path.display().to_string().into());
    }
    context.output.result(&made, || vec![path.display().to_string()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_key_is_shown_as_the_tools_that_use_it_want_it() {
        let signs = json!({ "access_key_id": "COFK1", "secret_access_key": "s" });
        assert_eq!(shown_once(&signs, false).as_str(), "AWS_ACCESS_KEY_ID=COFK1\nAWS_SECRET_ACCESS_KEY=s");
        let file = shown_once(&signs, true);
        assert_eq!(file.as_str(), "[default]\naws_access_key_id = COFK1\naws_secret_access_key = s");
        assert_eq!(shown_once(&json!({ "key": "cof_x", "access_key_id": null }), true).as_str(), "cof_x");
    }
}
