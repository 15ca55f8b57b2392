//! `revoke`: the kill switch, its list and its undoing.
//!
//! Owns its arguments, and how a token is named without being sent: by its digest, computed here. Must never send or
//! print a token it was given.

use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::{Args, Subcommand};
use cofferdam_model::{Clock, UnixNanos};
use http::Method;
use serde_json::{Value, json};

use super::{Context, input, tenant_path};
use crate::failure::Failure;
use crate::output::{items, table, text};
use crate::remote::{RemoteArgs, segment};

/// Bytes of a token.
const TOKEN_BYTES: usize = 8 * 1024;

/// Arguments of `cofferdam revoke`.
#[derive(Debug, Args)]
pub(crate) struct RevokeArgs {
    #[command(flatten)]
    remote: RemoteArgs,
    /// Why, for whoever reads the list and the log
    #[arg(long, global = true, default_value = "", value_name = "TEXT")]
    reason: String,
    #[command(subcommand)]
    what: Revoke,
}

#[derive(Debug, Subcommand)]
enum Revoke {
    /// One token: by its text in a file, or by its `jti` and issuer
    Token {
        /// Name of the tenant
        tenant: String,
        /// File with the token; `-` for standard input. It is not sent: its digest is
        #[arg(long, value_name = "FILE", conflicts_with_all = ["id", "issuer"], required_unless_present = "id")]
        file: Option<PathBuf>,
        /// Its `jti`
        #[arg(long, value_name = "JTI", requires = "issuer")]
        id: Option<String>,
        /// Who issued it
        #[arg(long, value_name = "ISSUER")]
        issuer: Option<String>,
    },
    /// Every token signed with one key of an issuer
    SigningKey {
        /// Name of the tenant
        tenant: String,
        /// Whose key
        issuer: String,
        /// Its `kid`
        key: String,
    },
    /// An API key, at once and for good
    Key {
        /// Its id
        id: String,
    },
    /// A person, whatever it shows, until this is undone
    Subject {
        /// Name of the tenant
        tenant: String,
        /// Subject as its issuer names it
        subject: String,
        /// Who vouches for it; whoever does unless told
        #[arg(long, value_name = "ISSUER")]
        issuer: Option<String>,
    },
    /// A service account with all its keys, until this is undone
    Account {
        /// Name of the tenant
        tenant: String,
        /// Its name
        account: String,
    },
    /// All tokens issued before a moment: of one subject, or of the whole tenant
    Sessions {
        /// Name of the tenant
        tenant: String,
        /// Whose; everybody's unless told
        #[arg(long, value_name = "SUBJECT")]
        subject: Option<String>,
        /// Who issued them; any issuer unless told
        #[arg(long, value_name = "ISSUER")]
        issuer: Option<String>,
        /// The moment, as in 2026-11-20T10:38:00Z; now unless told
        #[arg(long, value_parser = moment, value_name = "TIME")]
        before: Option<u64>,
    },
    /// A tenant: nobody of it is let in, and nothing of it runs, until this is undone
    Tenant {
        /// Its name
        tenant: String,
    },
    /// List what is revoked in a tenant
    List {
        /// Name of the tenant
        tenant: String,
    },
    /// Undo a revocation by its id, or the suspension of a tenant by its name
    Undo {
        /// The id, or the name
        what: String,
    },
}

fn moment(text: &str) -> Result<u64, String> {
    UnixNanos::parse(text).map(UnixNanos::seconds).ok_or_else(|| "write it as in 2026-11-20T10:38:00Z".to_owned())
}

/// Runs `cofferdam revoke`.
pub(crate) fn run(args: &RevokeArgs, context: &Context, clock: &dyn Clock) -> Result<(), Failure> {
    let remote = args.remote.open(&context.layout)?;
    let (method, path, body) = match &args.what {
        Revoke::List { tenant } => {
            let listed = remote.call(Method::GET, &format!("{}/revocations", tenant_path(tenant)), None)?;
            return context.output.result(&listed, || rows(&listed));
        }
        Revoke::Undo { what } if what.starts_with("t_") => {
            (Method::DELETE, format!("/-/v1/revocations/{}", segment(what)), None)
        }
        Revoke::Undo { what } => (Method::DELETE, format!("{}/suspension", tenant_path(what)), None),
        Revoke::Key { id } => (Method::DELETE, format!("/-/v1/keys/{}", segment(id)), None),
        Revoke::Tenant { tenant } => {
            (Method::PUT, format!("{}/suspension", tenant_path(tenant)), Some(json!({ "reason": args.reason })))
        }
        what => {
            let (tenant, target, expires) = target(what, clock)?;
            let body = json!({ "target": target, "reason": args.reason, "expires": expires });
            (Method::POST, format!("{}/revocations", tenant_path(tenant)), Some(body))
        }
    };
    let done = remote.call(method, &path, body.as_ref())?;
    context.output.result(&done, || vec![told(&args.what, &done)])
}

/// What is revoked where, and when it ends by itself where that is known.
fn target<'a>(what: &'a Revoke, clock: &dyn Clock) -> Result<(&'a str, Value, Option<u64>), Failure> {
    Ok(match what {
        Revoke::Token { tenant, file: Some(file), .. } => {
            let from = (file.as_path() != Path::new("-")).then_some(file.as_path());
            let bytes = input(from, TOKEN_BYTES)?;
            let token = std::str::from_utf8(&bytes).unwrap_or_default().trim();
            if token.split('.').count() != 3 {
                return Err(Failure::usage(format!("there is no token in `{}`", file.display())));
            }
            let sum: String = digest(&SHA256, token.as_bytes()).as_ref().iter().map(|b| format!("{b:02x}")).collect();
            (tenant, json!({ "kind": "digest", "digest": sum }), expiry(token))
        }
        Revoke::Token { tenant, id, issuer, .. } => {
            (tenant, json!({ "kind": "token", "id": id, "issuer": issuer }), None)
        }
        Revoke::SigningKey { tenant, issuer, key } => {
            (tenant, json!({ "kind": "signing_key", "issuer": issuer, "key": key }), None)
        }
        Revoke::Subject { tenant, subject, issuer } => {
            (tenant, json!({ "kind": "subject", "subject": subject, "issuer": issuer }), None)
        }
        Revoke::Account { tenant, account } => (tenant, json!({ "kind": "account", "account": account }), None),
        Revoke::Sessions { tenant, subject, issuer, before } => {
            // Tokens tell when they were issued in whole seconds: what was issued in this one is meant too.
            let before = before.unwrap_or_else(|| clock.now().seconds().saturating_add(1));
            (tenant, json!({ "kind": "sessions", "subject": subject, "issuer": issuer, "before": before }), None)
        }
        Revoke::Key { .. } | Revoke::Tenant { .. } | Revoke::List { .. } | Revoke::Undo { .. } => {
            return Err(Failure::usage("this is no revocation in a tenant"));
        }
    })
}

/// `exp` of a token, unverified: it only says how long its own revocation has to be kept.
fn expiry(token: &str) -> Option<u64> {
    let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    serde_json::from_slice::<Value>(&payload).ok()?.get("exp")?.as_u64()
}

fn told(what: &Revoke, done: &Value) -> String {
    match what {
        Revoke::Undo { what } => format!("{what} is revoked no more"),
        Revoke::Tenant { tenant } => format!("{tenant} is suspended; undo with `cofferdam revoke undo {tenant}`"),
        Revoke::Key { id } => format!("{id} is revoked"),
        _ => {
            let until = text(done, "expires");
            let until =
                if until == "-" { "until it is undone".to_owned() } else { format!("remembered until {until}") };
            format!("revoked, {until}: {}", text(done, "id"))
        }
    }
}

fn rows(listed: &Value) -> Vec<String> {
    let head = ["ID", "WHAT", "SINCE", "UNTIL", "REASON"].map(str::to_owned).to_vec();
    let row = |row: &Value| {
        let target = row.get("target").and_then(Value::as_object).cloned().unwrap_or_default();
        let words = target.iter().filter(|(name, value)| *name != "kind" && !value.is_null());
        let words: Vec<_> =
            words.map(|(name, value)| format!("{name}={}", value.to_string().trim_matches('"'))).collect();
        let kind = target.get("kind").and_then(Value::as_str).unwrap_or_default();
        vec![
            text(row, "id"),
            format!("{kind} {}", words.join(" ")),
            text(row, "created"),
            text(row, "expires"),
            text(row, "reason"),
        ]
    };
    let mut lines =
        table(&std::iter::once(head).chain(items(listed, "revocations").iter().map(row)).collect::<Vec<_>>());
    if listed.get("active") == Some(&Value::Bool(false)) {
        lines.push("the tenant itself is suspended".to_owned());
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use cofferdam_model::SystemClock;

    #[test]
    fn a_token_is_named_by_its_digest_and_its_own_end() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("token");
        let token = format!("e30.{}.AAAA", URL_SAFE_NO_PAD.encode(r#"{"exp":1795171380}"#));
        std::fs::write(&file, format!("{token}\n")).unwrap();
        let what = Revoke::Token { tenant: "acme".into(), file: Some(file.clone()), id: None, issuer: None };
        let (tenant, target, expires) = target(&what, &SystemClock::default()).unwrap();
        assert_eq!((tenant, expires), ("acme", Some(1_795_171_380)));
        assert_eq!(target["digest"].as_str().map(str::len), Some(64));
        assert!(!target.to_string().contains(&token));
        std::fs::write(&file, "nothing").unwrap();
        assert!(super::target(&what, &SystemClock::default()).is_err());
    }
}
