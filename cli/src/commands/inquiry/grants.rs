//! `authz unused` and `authz least-privilege`: what the log says of grants.
//!
//! Owns which records count as use. Must never count a call that was not allowed.

use clap::Args;
use cofferdam_authz::explain::{Holder, Used};
use cofferdam_model::{CallFacts, Clock, Supposition};
use serde_json::json;

use super::{RecordArgs, Records, Tenant, authorizer, facts, told};
use crate::commands::Context;
use crate::failure::{Failure, Kind};
use crate::remote::{Remote, RemoteArgs};

/// Whose use, and when.
#[derive(Debug, Args)]
pub(super) struct ReportArgs {
    /// Name of the tenant
    tenant: String,
    #[command(flatten)]
    records: RecordArgs,
}

fn used(tenant: &Tenant, records: &Records) -> Vec<Used> {
    let one = |call: CallFacts| {
        let decision = call.decision.as_ref().filter(|decision| decision.outcome == "allow")?;
        let asked = Supposition::of(&call).ok()?;
        // Operators act by policies of the platform, which are not the tenant's to trim.
        let own = asked.principal.tenant.as_deref().is_none_or(|home| home == tenant.id.as_str());
        let (action, function, policies) = (asked.action, asked.function.clone(), decision.policies.clone());
        own.then_some(Used { who: asked.principal, action, function, policies })
    };
    let here = |call: &CallFacts| call.tenant.as_deref() == Some(tenant.id.as_str());
    records.all.iter().filter_map(facts).filter(here).filter_map(one).collect()
}

fn asked(
    args: &ReportArgs,
    remote: &RemoteArgs,
    context: &Context,
    clock: &dyn Clock,
) -> Result<(Remote, Tenant, Vec<Used>, bool), Failure> {
    let remote = remote.open(&context.layout)?;
    let tenant = Tenant::ask(&remote, &args.tenant)?;
    let records = args.records.read(&remote, &tenant, clock)?;
    let used = used(&tenant, &records);
    if records.more {
        context.output.note("there are more records: raise --most, or ask for less time");
    }
    Ok((remote, tenant, used, records.more))
}

pub(super) fn unused(
    args: &ReportArgs,
    remote: &RemoteArgs,
    context: &Context,
    clock: &dyn Clock,
) -> Result<(), Failure> {
    let (remote, tenant, used, more) = asked(args, remote, context, clock)?;
    let (authorizer, callers) = (authorizer()?, tenant.callers(&remote)?);
    let policies = tenant.policies(&authorizer)?;
    let found = authorizer
        .unused(&policies, (&callers, &tenant.functions), &used, clock.now())
        .map_err(|error| Failure::new(Kind::Invalid, error.to_string()))?;
    let value =
        json!({ "calls": used.len(), "more_records": more, "policies": found.policies, "callers": found.callers });
    context.output.result(&value, || {
        let mut lines = vec![format!("{} allowed calls looked at", used.len()), String::new()];
        lines.push(format!("permits that allowed nothing ({})", found.policies.len()));
        lines.extend(found.policies.iter().map(|id| format!("  {id}")));
        for idle in found.callers.iter().filter(|idle| !idle.unused.is_empty()) {
            lines.push(String::new());
            lines.push(format!("{}: {} calls; may, but did not", told::who(&idle.who), idle.calls));
            lines.push(format!("  {}", idle.unused.join(", ")));
        }
        lines
    })
}

pub(super) fn least_privilege(
    (args, by_role): (&ReportArgs, bool),
    remote: &RemoteArgs,
    context: &Context,
    clock: &dyn Clock,
) -> Result<(), Failure> {
    let (_, tenant, used, more) = asked(args, remote, context, clock)?;
    let proposed = authorizer()?
        .least_privilege(&tenant.id, &used, by_role)
        .map_err(|error| Failure::new(Kind::Invalid, error.to_string()))?;
    context.output.result(&json!({ "calls": used.len(), "more_records": more, "proposals": proposed }), || {
        let mut lines = Vec::new();
        for proposal in &proposed {
            let whom = match &proposal.holder {
                Holder::Role(role) => format!("role {role}"),
                Holder::User { id, .. } => format!("user {id}"),
                Holder::Account(name) => format!("account {name}"),
                Holder::Anonymous => "callers without a credential".to_owned(),
            };
            // A name of a caller could hold a line's end; as a comment it must stay one.
            let whom: String = whom.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
            lines.push(format!("// {whom}: what {} calls used", proposal.calls));
            lines.extend(proposal.text.lines().map(str::to_owned));
            lines.push(String::new());
        }
        lines
    })
}
