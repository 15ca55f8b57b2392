//! `tenant`, `member` and `policy`: who exists, who belongs, and what is allowed.
//!
//! Owns their arguments and how answers are shown. Must never hold a rule of its own.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use cofferdam_model::{Clock, TenantSettings};
use http::Method;
use serde_json::{Value, json};

use super::client_ca::{self, Ca};
use super::inquiry::policy::Tool;
use super::{Context, input, inquiry, tenant_path};
use crate::failure::{Failure, Kind, Place};
use crate::manifest::position;
use crate::output::{items, table, text};
use crate::remote::{RemoteArgs, segment};

/// Bytes of a policy file.
const POLICY_BYTES: usize = 64 * 1024;
/// Bytes of a file of what a tenant may use.
const SETTINGS_BYTES: usize = 256 * 1024;

/// Arguments of `cofferdam tenant`.
#[derive(Debug, Args)]
pub(crate) struct TenantArgs {
    #[command(flatten)]
    remote: RemoteArgs,
    #[command(subcommand)]
    what: Tenant,
}

#[derive(Debug, Subcommand)]
enum Tenant {
    /// Make a tenant
    Create {
        /// Its name
        name: String,
    },
    /// List the tenants
    List,
    /// Set what a tenant may use, and what its functions may ask of the outside; replaces what was set before
    Set {
        /// Its name
        name: String,
        /// TOML file with `[limits]`, `[[egress.rules]]` and `egress.networks`, all optional; `-` for standard input
        #[arg(long, value_name = "FILE")]
        file: PathBuf,
    },
    /// Show a tenant's functions, routes, members and policies
    Show {
        /// Its name
        name: String,
    },
    /// Give a tenant a new key, and seal the keys of all its values with that; goes on with one that was cut off
    RotateKey {
        /// Its name
        name: String,
    },
    /// Destroy a tenant's keys, and with them all its secrets, for good; nobody of it is let in any more
    Shred {
        /// Its name
        name: String,
        /// Its name once more
        #[arg(long, value_name = "NAME")]
        confirm: String,
    },
    /// The authorities that name a tenant's machines by certificates
    Ca {
        #[command(subcommand)]
        what: Ca,
    },
}

/// Arguments of `cofferdam member`.
#[derive(Debug, Args)]
pub(crate) struct MemberArgs {
    #[command(flatten)]
    remote: RemoteArgs,
    #[command(subcommand)]
    what: Member,
}

#[derive(Debug, Subcommand)]
enum Member {
    /// Give a subject exactly these roles
    Put {
        /// Name of the tenant
        tenant: String,
        /// Subject as its issuer names it
        subject: String,
        /// A role; may be repeated
        #[arg(long = "role", required = true, value_name = "ROLE")]
        roles: Vec<String>,
        /// Only where this issuer vouches for it; whoever does unless told
        #[arg(long, value_name = "ISSUER")]
        issuer: Option<String>,
    },
    /// Take all roles of a subject
    Rm {
        /// Name of the tenant
        tenant: String,
        /// Subject as its issuer names it
        subject: String,
        /// Those given for this issuer; those given for whoever vouches for it unless told
        #[arg(long, value_name = "ISSUER")]
        issuer: Option<String>,
    },
}

/// Arguments of `cofferdam policy`.
#[derive(Debug, Args)]
pub(crate) struct PolicyArgs {
    #[command(flatten)]
    remote: RemoteArgs,
    #[command(subcommand)]
    what: Policy,
}

#[derive(Debug, Subcommand)]
enum Policy {
    /// Write a policy
    Put {
        /// Name of the tenant; of the organisation, for a ceiling
        tenant: String,
        /// Name of the policy
        name: String,
        /// File of Cedar text [default: standard input]
        file: Option<PathBuf>,
        /// Which set it is of
        #[arg(long, value_enum, default_value_t = Tier::Tenant)]
        tier: Tier,
    },
    /// Remove a policy
    Rm {
        /// Name of the tenant; of the organisation, for a ceiling
        tenant: String,
        /// Name of the policy
        name: String,
        /// Which set it is of
        #[arg(long, value_enum, default_value_t = Tier::Tenant)]
        tier: Tier,
    },
    #[command(flatten)]
    Tool(Tool),
}

/// Which set of policies is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Tier {
    /// What the tenant grants
    Tenant,
    /// What operators bind one tenant by
    Boundary,
    /// What operators bind the tenants of an organisation by
    Ceiling,
}

impl Tier {
    fn path(self, owner: &str, name: &str) -> String {
        let name = segment(name);
        match self {
            Self::Tenant => format!("{}/policies/{name}", tenant_path(owner)),
            Self::Boundary => format!("{}/boundary/{name}", tenant_path(owner)),
            Self::Ceiling => format!("/-/v1/organisations/{}/ceiling/{name}", segment(owner)),
        }
    }
}

/// Runs `cofferdam tenant`.
pub(crate) fn tenant(args: &TenantArgs, context: &Context) -> Result<(), Failure> {
    let remote = args.remote.open(&context.layout)?;
    match &args.what {
        Tenant::Create { name } => {
            let made = remote.call(Method::POST, "/-/v1/tenants", Some(&json!({ "name": name })))?;
            context.output.result(&made, || vec![format!("tenant {name} is {}", text(&made, "id"))])
        }
        Tenant::List => {
            let listed = remote.call(Method::GET, "/-/v1/tenants", None)?;
            context.output.result(&listed, || {
                let columns = ["name", "id", "active", "functions", "created"];
                rows(&columns, items(&listed, "tenants"))
            })
        }
        Tenant::Set { name, file } => {
            let settings = settings(file)?;
            let path = format!("{}/settings", tenant_path(name));
            let set = remote.call(Method::PUT, &path, Some(&json!(settings)))?;
            context.output.result(&set, || vec![format!("set what {name} may use; its cells are replaced")])
        }
        Tenant::RotateKey { name } => {
            let turned = remote.call(Method::POST, &format!("{}/key/rotate", tenant_path(name)), None)?;
            context.output.result(&turned, || {
                let (keys, rewrapped) = (listed(&turned, "keys"), text(&turned, "rewrapped"));
                vec![format!(
                    "{name} has key {keys}; {rewrapped} values are under it, {} is gone",
                    listed(&turned, "destroyed")
                )]
            })
        }
        Tenant::Shred { name, confirm } => {
            let body = json!({ "confirm": confirm });
            let gone = remote.call(Method::POST, &format!("{}/shred", tenant_path(name)), Some(&body))?;
            context.output.result(&gone, || {
                vec![
                    format!("{name} is shut; destroyed: {}", listed(&gone, "destroyed")),
                    "old copies of the state open for as long as the root key of their time exists: see \
                     `cofferdam vault rotate-root --destroy-old`"
                        .to_owned(),
                ]
            })
        }
        Tenant::Show { name } => {
            let shown = remote.call(Method::GET, &tenant_path(name), None)?;
            context.output.result(&shown, || show(&shown))
        }
        Tenant::Ca { what } => client_ca::run(&remote, what, context),
    }
}

fn listed(answer: &Value, name: &str) -> String {
    let texts: Vec<_> = items(answer, name).iter().filter_map(Value::as_str).collect();
    if texts.is_empty() { "none".to_owned() } else { texts.join(", ") }
}

/// What an operator sets about a tenant, from a file.
fn settings(file: &Path) -> Result<TenantSettings, Failure> {
    let from = (file != Path::new("-")).then_some(file);
    let bytes = input(from, SETTINGS_BYTES)?;
    let text = std::str::from_utf8(&bytes)
        .map_err(|_| Failure::new(Kind::Invalid, format!("`{}` is not UTF-8 text", file.display())))?;
    toml_edit::de::from_str(text).map_err(|error| {
        let (line, column) = position(text, error.span().map_or(0, |span| span.start));
        let message = error.message().trim().replace('\n', ", ");
        let hint = "the keys are `[limits]`, `[[egress.rules]]` and `egress.networks`: see docs/OPERATING.md";
        Failure::new(Kind::Invalid, message).hint(hint).at(Place { file: file.into(), line, column })
    })
}

/// Runs `cofferdam member`.
pub(crate) fn member(args: &MemberArgs, context: &Context) -> Result<(), Failure> {
    let remote = args.remote.open(&context.layout)?;
    let path = |tenant: &str, subject: &str| format!("{}/members/{}", tenant_path(tenant), segment(subject));
    match &args.what {
        Member::Put { tenant, subject, roles, issuer } => {
            let body = json!({ "roles": roles, "issuer": issuer });
            let put = remote.call(Method::PUT, &path(tenant, subject), Some(&body))?;
            context.output.result(&put, || vec![format!("{subject} has {} in {tenant}", roles.join(", "))])
        }
        Member::Rm { tenant, subject, issuer } => {
            let of = issuer.as_ref().map(|issuer| format!("?issuer={}", query(issuer))).unwrap_or_default();
            let removed = remote.call(Method::DELETE, &format!("{}{of}", path(tenant, subject)), None)?;
            context.output.result(&removed, || vec![format!("{subject} has no roles in {tenant}")])
        }
    }
}

/// A text as a value of a query.
fn query(text: &str) -> String {
    segment(text).replace('&', "%26").replace('=', "%3D").replace('+', "%2B")
}

/// Runs `cofferdam policy`.
pub(crate) fn policy(args: &PolicyArgs, context: &Context, clock: &dyn Clock) -> Result<(), Failure> {
    if let Policy::Tool(tool) = &args.what {
        return inquiry::policy::run(tool, &args.remote, context, clock);
    }
    let remote = args.remote.open(&context.layout)?;
    match &args.what {
        Policy::Put { tenant, name, file, tier } => {
            let bytes = input(file.as_deref(), POLICY_BYTES)?;
            let text =
                std::str::from_utf8(&bytes).map_err(|_| Failure::new(Kind::Invalid, "the policy is not UTF-8 text"))?;
            let put = remote.call(Method::PUT, &tier.path(tenant, name), Some(&json!({ "text": text })));
            let put = put.map_err(|failure| placed(failure, file.as_ref()))?;
            context.output.result(&put, || vec![format!("policy {name} of {tenant} is in force")])
        }
        Policy::Rm { tenant, name, tier } => {
            let removed = remote.call(Method::DELETE, &tier.path(tenant, name), None)?;
            context.output.result(&removed, || vec![format!("policy {name} of {tenant} is gone")])
        }
        Policy::Tool(_) => Ok(()),
    }
}

/// A refusal of a policy, with its place in the file it came from, if it names one.
pub(crate) fn placed(failure: Failure, file: Option<&PathBuf>) -> Failure {
    let message = failure.message();
    let number = |after: &str| {
        let (_, rest) = message.split_once(after)?;
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        rest.get(..end)?.parse::<usize>().ok()
    };
    match (number(", line "), number(", column "), file) {
        (Some(line), Some(column), Some(file)) => failure.at(Place { file: file.clone(), line, column }),
        _ => failure,
    }
}

/// A head and a row for each value.
pub(crate) fn rows(columns: &[&str], values: &[Value]) -> Vec<String> {
    let head = columns.iter().map(|column| column.to_uppercase()).collect();
    let row = |value: &Value| columns.iter().map(|column| text(value, column)).collect();
    let all: Vec<Vec<String>> = std::iter::once(head).chain(values.iter().map(row)).collect();
    table(&all)
}

fn show(tenant: &Value) -> Vec<String> {
    let active = if tenant.get("active") == Some(&Value::Bool(true)) { "" } else { "  (shut)" };
    let mut lines = vec![format!("{}  {}{active}", text(tenant, "name"), text(tenant, "id"))];
    let mut section = |title: &str, rows: Vec<Vec<String>>| {
        lines.push(String::new());
        lines.push(format!("{title} ({})", rows.len()));
        lines.extend(table(&rows).into_iter().map(|line| format!("  {line}")));
    };
    let functions = items(tenant, "functions").iter().map(|function| {
        let current = function.get("current").unwrap_or(&Value::Null);
        vec![text(function, "name"), text(current, "id"), text(current, "component").chars().take(16).collect()]
    });
    section("functions", functions.collect());
    let routes = items(tenant, "routes").iter().map(|route| {
        let spec = route.get("spec").unwrap_or(&Value::Null);
        let methods = text(spec, "methods");
        let methods = if methods.is_empty() { "*".to_owned() } else { methods };
        let public = if spec.get("public") == Some(&Value::Bool(true)) { "public" } else { "" };
        let takes = format!("{}{}", text(spec, "host"), text(spec, "path"));
        vec![methods, takes, text(spec, "function"), text(route, "app"), public.to_owned()]
    });
    section("routes", routes.collect());
    let members = items(tenant, "members").iter().map(|member| {
        let issuer = text(member, "issuer");
        let issuer = if issuer == "-" { String::new() } else { issuer };
        vec![text(member, "subject"), text(member, "roles"), issuer]
    });
    section("members", members.collect());
    section("policies", items(tenant, "policies").iter().map(|policy| vec![text(policy, "name")]).collect());
    let boundary: Vec<_> = items(tenant, "boundary").iter().map(|policy| vec![text(policy, "name")]).collect();
    if !boundary.is_empty() {
        section("boundary", boundary);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refused_policy_is_placed_in_its_file() {
        let failure = Failure::new(Kind::Invalid, "policy refused: policy `mine`, line 2, column 11: no: write it so");
        let told = placed(failure, Some(&"mine.cedar".into())).json();
        assert_eq!((&told["file"], &told["line"], &told["column"]), (&json!("mine.cedar"), &json!(2), &json!(11)));
        let other = placed(Failure::new(Kind::Invalid, "too many"), Some(&"mine.cedar".into()));
        assert_eq!(other.json()["line"], Value::Null);
    }

    #[test]
    fn tenant_is_shown_with_all_it_has() {
        let shown = show(&json!({
            "id": "t_1", "name": "acme", "active": true,
            "functions": [
                { "name": "pay", "current": { "id": "v_1", "component": "ab" } },
                { "name": "new", "current": null },
            ],
            "routes": [{
                "app": "shop",
                "spec": { "host": "a", "path": "/x", "methods": [], "function": "pay", "public": true },
            }],
            "members": [{ "subject": "alice", "roles": ["admin", "viewer"] }],
            "policies": [{ "name": "mine", "text": "" }],
        }));
        let all = shown.join("\n");
        for wanted in ["acme  t_1", "pay  v_1", "new  -", "*  a/x  pay  shop  public", "alice  admin,viewer", "mine"] {
            assert!(all.contains(wanted), "{wanted} in\n{all}");
        }
    }
}
