//! `authz unused` and `authz least-privilege`: what the log says of grants.
//!
//! Owns which records count as use. Must never count a call that was not allowed.

use std::collections::HashMap;

use clap::Args;
use cofferdam_authz::explain::{Holder, Used};
use cofferdam_model::{Action, Asker, Clock, Supposition};
use serde_json::{Value, json};

use super::{RecordArgs, Seen, Skipped, Tenant, authorizer, facts, told, with};
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

/// What was used, and what was looked at to know it.
struct Report {
    remote: Remote,
    tenant: Tenant,
    used: Vec<Used>,
    seen: Seen,
    skipped: Skipped,
    /// Calls that were not allowed, which use nothing.
    refused: u64,
    /// Calls of operators, who act by policies of the platform, which are not the tenant's to trim.
    operators: u64,
}

/// What makes two calls one use.
type Use = (Asker, Action, Option<String>, Vec<String>);

/// The uses of many calls, as many as there are different ones.
#[derive(Default)]
struct Uses {
    calls: HashMap<Use, u64>,
    skipped: Skipped,
    refused: u64,
    operators: u64,
}

impl Uses {
    fn one(&mut self, tenant: &Tenant, record: &Value) {
        let Some(call) = facts(record) else { return self.skipped.unread(record) };
        let here = call.tenant.as_deref() == Some(tenant.id.as_str());
        let allowed = call.decision.as_ref().filter(|decision| decision.outcome == "allow");
        let Some(decision) = allowed.filter(|_| here) else {
            self.refused += 1;
            return;
        };
        let asked = match Supposition::of(&call) {
            Ok(asked) => asked,
            Err(why) => return self.skipped.one(why.to_string(), call.request.as_str()),
        };
        if asked.principal.tenant.as_deref().is_some_and(|home| home != tenant.id.as_str()) {
            self.operators += 1;
            return;
        }
        // Which session it was, and what it was good for, is nothing grants are made of.
        let who = Asker { session: None, scopes: None, certificate: None, ..asked.principal };
        let one = (who, asked.action, asked.function, decision.policies.clone());
        *self.calls.entry(one).or_default() += 1;
    }
}

fn report(args: &ReportArgs, remote: &RemoteArgs, context: &Context, clock: &dyn Clock) -> Result<Report, Failure> {
    let remote = remote.open(&context.layout)?;
    let tenant = Tenant::ask(&remote, &args.tenant)?;
    let mut uses = Uses::default();
    let seen = args.records.each(&remote, &tenant, clock, &mut |record| {
        uses.one(&tenant, &record);
        Ok(())
    })?;
    let Uses { calls, skipped, refused, operators } = uses;
    let one = |((who, action, function, policies), calls)| Used { who, action, function, policies, calls };
    let used = calls.into_iter().map(one).collect();
    Ok(Report { remote, tenant, used, seen, skipped, refused, operators })
}

impl Report {
    fn calls(&self) -> u64 {
        self.used.iter().map(|used| used.calls).sum()
    }

    /// What both reports tell besides what they found.
    fn told(&self, mut found: Value) -> Value {
        for (name, value) in [
            ("calls", json!(self.calls())),
            ("calls_refused", json!(self.refused)),
            ("calls_of_operators", json!(self.operators)),
            ("not_judged", json!(self.skipped.told())),
            ("looked_at", self.seen.told()),
            ("more_records", json!(self.seen.more)),
        ] {
            found = with(found, name, value);
        }
        found
    }

    fn lines(&self) -> Vec<String> {
        let mut lines = vec![format!(
            "{} allowed calls looked at; {} that were refused and {} of operators are none",
            self.calls(),
            self.refused,
            self.operators
        )];
        lines.extend(self.skipped.lines("could not be judged"));
        lines.push(self.seen.line());
        lines
    }
}

pub(super) fn unused(
    args: &ReportArgs,
    remote: &RemoteArgs,
    context: &Context,
    clock: &dyn Clock,
) -> Result<(), Failure> {
    let report = report(args, remote, context, clock)?;
    let Report { remote, tenant, used, .. } = &report;
    let (authorizer, callers) = (authorizer()?, tenant.callers(remote)?);
    let policies = tenant.policies(&authorizer)?;
    let found = authorizer
        .unused(&policies, (&callers, &tenant.functions), used, clock.now())
        .map_err(|error| Failure::new(Kind::Invalid, error.to_string()))?;
    let value = json!({ "policies": found.policies, "callers": found.callers, "unseen": tenant.unseen() });
    let value = report.told(value);
    context.output.result(&value, || {
        let mut lines = report.lines();
        lines.extend(tenant.unseen().map(str::to_owned));
        lines.push(String::new());
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
    let report = report(args, remote, context, clock)?;
    let Report { tenant, used, .. } = &report;
    let proposed = authorizer()?
        .least_privilege(&tenant.id, used, by_role)
        .map_err(|error| Failure::new(Kind::Invalid, error.to_string()))?;
    context.output.result(&report.told(json!({ "proposals": proposed })), || {
        // As comments, so that the whole is a policy.
        let mut lines: Vec<_> = report.lines().iter().map(|line| format!("// {}", one_line(line))).collect();
        lines.push(String::new());
        for proposal in &proposed {
            let whom = match &proposal.holder {
                Holder::Role(role) => format!("role {role}"),
                Holder::User { id, .. } => format!("user {id}"),
                Holder::Account(name) => format!("account {name}"),
                Holder::Anonymous => "callers without a credential".to_owned(),
            };
            lines.push(format!("// {}: what {} calls used", one_line(&whom), proposal.calls));
            lines.extend(proposal.text.lines().map(str::to_owned));
            lines.push(String::new());
        }
        lines
    })
}

/// A name of a caller could hold a line's end; as a comment it must stay one.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
