//! `authz simulate` and `authz who-can`: what would come of a call nobody made.
//!
//! Owns how a call is described by options. Must never ask about more callers than it says.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::Args;
use cofferdam_authz::explain::tenant_named;
use cofferdam_model::{
    Action, Asker, Bound, Clock, CredentialKind, PrincipalKind, Session, Simulation, Supposition, Surroundings, Thing,
    TlsVersion,
};
use http::Method;
use serde_json::{Value, json};

use super::{Tenant, authorizer, compiled, sources, told, with};
use crate::commands::{Context, tenant_path};
use crate::failure::{Failure, Kind};
use crate::output::{items, table, text};
use crate::remote::{Remote, RemoteArgs};

/// Calls a node answers at once.
const AT_ONCE: usize = 500;

/// What is done, and under which circumstances.
#[derive(Debug, Args)]
pub(super) struct CallArgs {
    /// Name of the function, for actions that are about one
    #[arg(long)]
    function: Option<String>,
    /// Name of the secret, app, account or policy, or id of the key, for actions that are about one
    #[arg(long, value_name = "NAME")]
    named: Option<String>,
    /// Address of the caller
    #[arg(long, value_name = "ADDRESS")]
    source: Option<IpAddr>,
    /// TLS version: 1.2 or 1.3
    #[arg(long, value_name = "VERSION", value_parser = tls)]
    tls: Option<TlsVersion>,
    /// Method
    #[arg(long)]
    method: Option<String>,
    /// Host
    #[arg(long)]
    host: Option<String>,
    /// Canonical path
    #[arg(long)]
    path: Option<String>,
    /// By a route that is declared public
    #[arg(long)]
    public: bool,
    /// When, as in 2026-11-20T10:38:00Z [default: now]
    #[arg(long, value_name = "TIME")]
    now: Option<String>,
}

/// Arguments of `cofferdam authz simulate`.
#[derive(Debug, Args)]
pub(super) struct SimulateArgs {
    /// Name of the tenant whose policies are asked; without one, those of --policy are, and no node
    #[arg(long)]
    tenant: Option<String>,
    /// Who: user:SUBJECT, account:NAME or anonymous
    #[arg(long, value_name = "WHO", value_parser = who)]
    principal: (PrincipalKind, String),
    /// A role of his; may be repeated
    #[arg(long = "role", value_name = "ROLE")]
    roles: Vec<String>,
    /// A group his token says he is in; may be repeated
    #[arg(long = "group", value_name = "GROUP")]
    groups: Vec<String>,
    /// The issuer that vouches for him
    #[arg(long)]
    issuer: Option<String>,
    /// What his credential is good for at most: an action, a group or fn:NAME; may be repeated
    #[arg(long = "scope", value_name = "SCOPE")]
    scopes: Vec<String>,
    /// His token says that more than one factor was shown
    #[arg(long)]
    mfa: bool,
    /// He signs the request, or shows a client certificate: sigv4 or mtls
    #[arg(long, value_name = "HOW", value_parser = bound)]
    bound: Option<Bound>,
    /// His tenant, where it is another one; `platform` for operators
    #[arg(long, value_name = "TENANT")]
    of: Option<String>,
    /// What he does
    #[arg(long, value_parser = action)]
    action: Action,
    #[command(flatten)]
    call: CallArgs,
    /// A file of policies asked instead of the tenant's; may be repeated
    #[arg(long = "policy", value_name = "FILE")]
    policies: Vec<PathBuf>,
}

/// Arguments of `cofferdam authz who-can`.
#[derive(Debug, Args)]
pub(super) struct WhoCanArgs {
    /// Name of the tenant
    tenant: String,
    /// What is done
    #[arg(value_parser = action)]
    action: Action,
    #[command(flatten)]
    call: CallArgs,
}

fn tls(text: &str) -> Result<TlsVersion, String> {
    let known = TlsVersion::ALL.iter().find(|version| version.as_str() == text);
    known.copied().ok_or_else(|| "write it as 1.2 or 1.3".to_owned())
}

fn bound(text: &str) -> Result<Bound, String> {
    let known = Bound::ALL.iter().find(|bound| bound.as_str() == text);
    known.copied().ok_or_else(|| "write it as sigv4 or mtls".to_owned())
}

fn action(text: &str) -> Result<Action, String> {
    let known = Action::ALL.iter().find(|action| action.as_str().eq_ignore_ascii_case(text));
    known.copied().ok_or_else(|| {
        let all: Vec<_> = Action::ALL.iter().map(|action| action.as_str()).collect();
        format!("it is one of {}", all.join(", "))
    })
}

fn who(text: &str) -> Result<(PrincipalKind, String), String> {
    match text.split_once(':') {
        None if text == "anonymous" => Ok((PrincipalKind::Anonymous, text.to_owned())),
        Some(("user", id)) if !id.is_empty() => Ok((PrincipalKind::User, id.to_owned())),
        Some(("account", id)) if !id.is_empty() => Ok((PrincipalKind::ServiceAccount, id.to_owned())),
        _ => Err("write it as user:SUBJECT, account:NAME or anonymous".to_owned()),
    }
}

impl CallArgs {
    fn asked(&self, principal: Asker, action: Action) -> Supposition {
        let usual = Surroundings::default();
        let context = Surroundings {
            source: self.source.unwrap_or(usual.source),
            tls: self.tls.unwrap_or(usual.tls),
            method: self.method.as_deref().map_or(usual.method, Into::into),
            host: self.host.as_deref().map_or(usual.host, Into::into),
            path: self.path.as_deref().map_or(usual.path, Into::into),
            public: self.public,
            route: None,
            now: self.now.clone(),
            request: None,
        };
        let thing = self.named.clone().map(|name| Thing { name, roles: Vec::new() });
        Supposition { principal, action, function: self.function.clone(), function_id: None, thing, context }
    }
}

/// What he shows, where that follows from how he proves to hold a key.
fn shown(bound: Bound) -> Option<CredentialKind> {
    match bound {
        Bound::None => None,
        Bound::Sigv4 => Some(CredentialKind::Sigv4),
        Bound::Mtls => Some(CredentialKind::Certificate),
    }
}

pub(super) fn simulate(
    args: &SimulateArgs,
    remote: &RemoteArgs,
    context: &Context,
    clock: &dyn Clock,
) -> Result<(), Failure> {
    let (kind, id) = &args.principal;
    let asker = Asker {
        issuer: args.issuer.clone(),
        tenant: args.of.clone(),
        groups: args.groups.clone(),
        bound: args.bound.unwrap_or_default(),
        credential: args.bound.and_then(shown),
        scopes: (!args.scopes.is_empty()).then(|| args.scopes.clone()),
        session: args.mfa.then(|| Session { mfa: true, ..Session::default() }),
        ..Asker::new(*kind, id, &args.roles)
    };
    let mut asked = args.call.asked(asker, args.action);
    let sources = sources(&args.policies)?;
    let answer = match &args.tenant {
        Some(tenant) => {
            let remote = remote.open(&context.layout)?;
            let policies = (!sources.is_empty()).then_some(sources);
            let simulation = Simulation { requests: vec![asked], policies, explain: true };
            let answer =
                remote.call(Method::POST, &format!("{}/simulate", tenant_path(tenant)), Some(&json!(simulation)))?;
            items(&answer, "answers").first().cloned().unwrap_or_default()
        }
        None => {
            let (authorizer, own) = (authorizer()?, tenant_named("files"));
            let home = args.of.as_deref().map(|name| tenant_named(name).to_string());
            asked.principal.tenant = home;
            let set = compiled(&authorizer, &own, &sources)?;
            let told = authorizer.simulate_in_full(&set, &asked, clock.now());
            json!(told.map_err(|error| Failure::new(Kind::Invalid, error.to_string()))?)
        }
    };
    context.output.result(&answer, || told::explanation(&answer))
}

/// Everybody known who may, and whoever has one of the roles that are known.
pub(super) fn who_can(args: &WhoCanArgs, remote: &RemoteArgs, context: &Context) -> Result<(), Failure> {
    let remote = remote.open(&context.layout)?;
    let tenant = Tenant::ask(&remote, &args.tenant)?;
    let callers = tenant.callers(&remote)?;
    let roles = tenant.roles(&callers)?;
    let holders = roles.iter().map(|role| {
        let mut holder = Asker::new(PrincipalKind::User, "", std::slice::from_ref(role));
        holder.id = "whoever has the role".to_owned();
        holder
    });
    let asked: Vec<_> = callers.iter().cloned().chain(holders).map(|who| args.call.asked(who, args.action)).collect();
    let answers = ask_all(&remote, &args.tenant, &asked)?;
    let told = asked.iter().zip(&answers);
    let told = told.map(|(asked, answer)| with(answer.clone(), "principal", json!(asked.principal)));
    let told: Vec<Value> = told.collect();
    context.output.result(&json!({ "answers": told }), || {
        let mut rows = vec![["WHO", "MAY", "BY"].map(str::to_owned).to_vec()];
        rows.extend(asked.iter().zip(&answers).map(|(asked, answer)| {
            let may = if text(answer, "outcome") == "allow" { "yes".to_owned() } else { text(answer, "outcome") };
            vec![told::who(&asked.principal), may, text(answer, "policies")]
        }));
        table(&rows)
    })
}

fn ask_all(remote: &Remote, tenant: &str, asked: &[Supposition]) -> Result<Vec<Value>, Failure> {
    let path = format!("{}/simulate", tenant_path(tenant));
    let mut answers = Vec::new();
    for part in asked.chunks(AT_ONCE) {
        let simulation = Simulation { requests: part.to_vec(), policies: None, explain: false };
        let answer = remote.call(Method::POST, &path, Some(&json!(simulation)))?;
        answers.extend_from_slice(items(&answer, "answers"));
    }
    Ok(answers)
}
