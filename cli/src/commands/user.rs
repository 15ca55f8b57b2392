//! `user`, `issuer` and `login`: people with passphrases, known by the node's own issuer.
//!
//! Owns their arguments and where a token goes. Must never take a passphrase as an argument, and never print one.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use clap::{Args, Subcommand};
use http::{HeaderMap, HeaderValue, Method, header};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::access::rows;
use super::{Context, duration, input, tenant_path};
use crate::failure::{Failure, Kind};
use crate::output::{items, text};
use crate::passphrase;
use crate::remote::{Remote, RemoteArgs, problem, segment};

const TOKEN_PATH: &str = "/-/issuer/token";
const TOKEN_BYTES: usize = 8 * 1024;

/// Arguments of `cofferdam user`.
#[derive(Debug, Args)]
pub(crate) struct UserArgs {
    #[command(flatten)]
    remote: RemoteArgs,
    #[command(subcommand)]
    what: User,
}

#[derive(Debug, Subcommand)]
enum User {
    /// Add a user; the passphrase is asked for, or read as one line of standard input
    Add {
        /// Name of the tenant
        tenant: String,
        /// Its name
        name: String,
        /// A role; may be repeated
        #[arg(long = "role", required = true, value_name = "ROLE")]
        roles: Vec<String>,
    },
    /// Give a user exactly these roles
    Roles {
        /// Name of the tenant
        tenant: String,
        /// Its name
        name: String,
        /// A role; may be repeated
        #[arg(long = "role", required = true, value_name = "ROLE")]
        roles: Vec<String>,
    },
    /// Set a user's passphrase; ends its sessions
    Passwd {
        /// Name of the tenant
        tenant: String,
        /// Its name
        name: String,
    },
    /// Remove a user; ends its sessions
    Remove {
        /// Name of the tenant
        tenant: String,
        /// Its name
        name: String,
    },
    /// List a tenant's users
    List {
        /// Name of the tenant
        tenant: String,
    },
}

/// Arguments of `cofferdam issuer`.
#[derive(Debug, Args)]
pub(crate) struct IssuerArgs {
    #[command(flatten)]
    remote: RemoteArgs,
    #[command(subcommand)]
    what: Issuer,
}

#[derive(Debug, Subcommand)]
enum Issuer {
    /// Sign with a new key from now on; the old one is published until its tokens have ended
    Rotate {
        /// Tokens signed until now are worth nothing at once
        #[arg(long)]
        forget: bool,
    },
}

/// Arguments of `cofferdam login`.
#[derive(Debug, Args)]
pub(crate) struct LoginArgs {
    #[command(flatten)]
    remote: RemoteArgs,
    /// Who, as tenant/user; asks for the passphrase, or reads it as one line of standard input
    #[arg(required_unless_present = "exchange", conflicts_with = "exchange")]
    who: Option<String>,
    /// Exchange the token in this file for one that says less, instead of showing a passphrase
    #[arg(long, value_name = "FILE")]
    exchange: Option<PathBuf>,
    /// A role it is to be good for; may be repeated; all there are unless told
    #[arg(long = "role", value_name = "ROLE")]
    roles: Vec<String>,
    /// A scope it is limited to; may be repeated
    #[arg(long = "scope", value_name = "SCOPE")]
    scopes: Vec<String>,
    /// For whom it is meant; may be repeated
    #[arg(long = "audience", value_name = "AUDIENCE")]
    audiences: Vec<String>,
    /// How long it is to be good for, at most as long as the node allows
    #[arg(long, value_parser = duration, value_name = "TIME")]
    ttl: Option<u64>,
    /// Write the token to this file, for its owner alone, instead of standard output
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Runs `cofferdam user`.
pub(crate) fn user(args: &UserArgs, context: &Context) -> Result<(), Failure> {
    let path = |tenant: &str, name: &str| format!("{}/users/{}", tenant_path(tenant), segment(name));
    let remote = args.remote.open(&context.layout)?;
    match &args.what {
        User::Add { tenant, name, roles } => {
            let passphrase = passphrase::ask(&format!("Passphrase of {tenant}/{name}"), true)?;
            let put = put(&remote, &path(tenant, name), roles, Some(&passphrase))?;
            context.output.result(&put, || vec![format!("{tenant}/{name} has {}", roles.join(", "))])
        }
        User::Roles { tenant, name, roles } => {
            let put = put(&remote, &path(tenant, name), roles, None)?;
            context.output.result(&put, || vec![format!("{tenant}/{name} has {}", roles.join(", "))])
        }
        User::Passwd { tenant, name } => {
            let listed = remote.call(Method::GET, &format!("{}/users", tenant_path(tenant)), None)?;
            let known = items(&listed, "users").iter().find(|user| text(user, "name") == *name);
            let known = known.ok_or_else(|| Failure::new(Kind::NotFound, format!("there is no user `{name}`")))?;
            let roles = items(known, "roles").iter().filter_map(Value::as_str).map(str::to_owned).collect::<Vec<_>>();
            let passphrase = passphrase::ask(&format!("New passphrase of {tenant}/{name}"), true)?;
            let put = put(&remote, &path(tenant, name), &roles, Some(&passphrase))?;
            context.output.result(&put, || vec![format!("{tenant}/{name} has a new passphrase, and is logged out")])
        }
        User::Remove { tenant, name } => {
            let removed = remote.call(Method::DELETE, &path(tenant, name), None)?;
            context.output.result(&removed, || vec![format!("{tenant}/{name} is gone")])
        }
        User::List { tenant } => {
            let listed = remote.call(Method::GET, &format!("{}/users", tenant_path(tenant)), None)?;
            let columns = ["name", "roles", "created", "passphrase_set"];
            context.output.result(&listed, || rows(&columns, items(&listed, "users")))
        }
    }
}

fn put(remote: &Remote, path: &str, roles: &[String], passphrase: Option<&str>) -> Result<Value, Failure> {
    // Written by hand into one buffer that is wiped: a JSON value would leave copies behind.
    let quoted = passphrase.map(|text| serde_json::to_string(text).map(Zeroizing::new)).transpose();
    let quoted = quoted.map_err(|error| Failure::internal(error.to_string()))?;
    let part = quoted.as_ref().map(|text| Zeroizing::new(format!(",\"passphrase\":{}", text.as_str())));
    let body =
        Zeroizing::new(format!("{{\"roles\":{}{}}}", json!(roles), part.as_ref().map_or("", |part| part.as_str())));
    remote.upload(Method::PUT, path, "application/json", Bytes::copy_from_slice(body.as_bytes()))
}

/// Runs `cofferdam issuer`.
pub(crate) fn issuer(args: &IssuerArgs, context: &Context) -> Result<(), Failure> {
    let remote = args.remote.open(&context.layout)?;
    match &args.what {
        Issuer::Rotate { forget } => {
            let done = remote.call(Method::POST, "/-/v1/issuer/rotate", Some(&json!({ "forget": forget })))?;
            context.output.result(&done, || vec![format!("tokens are signed with {} from now on", text(&done, "kid"))])
        }
    }
}

/// Runs `cofferdam login`.
pub(crate) fn login(args: &LoginArgs, context: &Context) -> Result<(), Failure> {
    let mut form = Form::default();
    match (&args.who, &args.exchange) {
        (_, Some(file)) => {
            let from = (file.as_path() != Path::new("-")).then_some(file.as_path());
            let token = input(from, TOKEN_BYTES)?;
            form.add("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange");
            form.add("subject_token", std::str::from_utf8(&token).unwrap_or_default().trim());
            form.add("subject_token_type", "urn:ietf:params:oauth:token-type:access_token");
        }
        (Some(who), None) => {
            if !who.contains('/') {
                return Err(Failure::usage(format!("`{who}` names nobody: write it as `tenant/user`")));
            }
            let passphrase = passphrase::ask(&format!("Passphrase of {who}"), false)?;
            form.add("grant_type", "password");
            form.add("username", who);
            form.add("password", &passphrase);
        }
        (None, None) => return Err(Failure::usage("name who logs in, as `tenant/user`")),
    }
    if !args.roles.is_empty() {
        form.add("roles", &args.roles.join(" "));
    }
    if !args.scopes.is_empty() {
        form.add("scope", &args.scopes.join(" "));
    }
    args.audiences.iter().for_each(|audience| form.add("audience", audience));
    if let Some(seconds) = args.ttl {
        form.add("expires_in", &seconds.to_string());
    }
    let remote = args.remote.anonymous(&context.layout)?;
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
    let body = Bytes::copy_from_slice(form.0.as_bytes());
    let answer = remote.request(Method::POST, TOKEN_PATH, headers, body)?;
    if !answer.status.is_success() {
        return Err(problem(&answer));
    }
    let given: Value = serde_json::from_slice(&answer.body)
        .map_err(|error| Failure::new(Kind::Remote, format!("the node's answer is not JSON: {error}")))?;
    context.output.note(&format!("a token for {} seconds", text(&given, "expires_in")));
    keep(given, args.out.as_deref(), context)
}

/// Writes the token where it was asked to go.
fn keep(mut given: Value, out: Option<&Path>, context: &Context) -> Result<(), Failure> {
    let token = Zeroizing::new(text(&given, "access_token"));
    let Some(path) = out else {
        return context.output.result(&given, || vec![token.to_string()]);
    };
    let failed = |error: std::io::Error| Failure::file("write the token to", path, &error);
    // Beside it first, so that the file is never half a token, and never readable by others for a moment.
    let new = path.with_extension("new");
    let _ = std::fs::remove_file(&new);
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new).map_err(failed)?;
    file.write_all(token.as_bytes()).and_then(|()| file.write_all(b"\n")).map_err(failed)?;
    std::fs::rename(&new, path).map_err(failed)?;
    if let Value::Object(members) = &mut given {
        members.remove("access_token");
        members.insert("file".to_owned(), path.display().to_string().into());
    }
    context.output.result(&given, || vec![path.display().to_string()])
}

/// A form, in one buffer that is wiped.
struct Form(Zeroizing<String>);

impl Default for Form {
    fn default() -> Self {
        // Room for all there can be: growing would leave copies behind.
        Self(Zeroizing::new(String::with_capacity(3 * TOKEN_BYTES + 8 * 1024)))
    }
}

impl Form {
    fn add(&mut self, name: &str, value: &str) {
        let text = &mut *self.0;
        if !text.is_empty() {
            text.push('&');
        }
        text.push_str(name);
        text.push('=');
        for byte in value.bytes() {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                text.push(char::from(byte));
            } else {
                text.push('%');
                for digit in [byte >> 4, byte & 15] {
                    text.push(char::from_digit(u32::from(digit), 16).unwrap_or('0'));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_keeps_every_byte_of_a_passphrase() {
        let mut form = Form::default();
        form.add("a", "x y&z=%+é");
        form.add("b", "");
        assert_eq!(form.0.as_str(), "a=x%20y%26z%3d%25%2b%c3%a9&b=");
    }
}
