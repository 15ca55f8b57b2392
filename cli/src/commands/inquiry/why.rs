//! `why`: what became of a call, and by which policies.
//!
//! Owns the reading of one request's records. Must never tell what the records do not say.

use std::path::PathBuf;

use clap::Args;
use cofferdam_authz::{TenantPolicies, checks};
use cofferdam_model::{CallFacts, Clock, PolicyTier, RequestId, Session, Step, Supposition, UnixNanos};
use serde_json::{Value, json};

use super::records::{each_of_files, each_of_node, kept};
use super::{Tenant, authorizer, compiled, facts, sources, told};
use crate::commands::Context;
use crate::commands::usage::{When, when};
use crate::failure::{Failure, Kind};
use crate::output::{items, table, text};
use crate::remote::{Remote, RemoteArgs};

/// Records of one request: a call has few, and one for each request to the outside.
const MOST: u64 = 5_000;
const USUAL_MS: u64 = 7 * 24 * 3_600_000;

/// Arguments of `cofferdam why`.
#[derive(Debug, Args)]
pub(crate) struct WhyArgs {
    #[command(flatten)]
    remote: RemoteArgs,
    /// Id of the request, as answers have it in x-request-id
    request: String,
    /// Name of the tenant it was in; without one, the log's files are read
    #[arg(long)]
    tenant: Option<String>,
    /// Directory of a log, or of a copy of one [default: <data>/audit]
    #[arg(long, value_name = "DIR", conflicts_with = "tenant")]
    log: Option<PathBuf>,
    /// With the log's files: a file of the tenant's policies; may be repeated
    #[arg(long = "policy", value_name = "FILE", conflicts_with = "tenant")]
    policies: Vec<PathBuf>,
    /// How far back to look, said as 2026-11-20 or 30d [default: 7d]
    #[arg(long, value_name = "TIME", value_parser = when)]
    since: Option<When>,
}

/// What the records of a request, and the policies there are now, say of it.
struct Story {
    call: Option<CallFacts>,
    ended: Option<Value>,
    egress: Vec<Value>,
    deciding: Vec<Value>,
    now: Option<Value>,
    /// Whether the policies there are now are those that decided.
    same_policies: bool,
    limits: Value,
    way: Way,
}

/// What the records say of the request's way.
struct Way {
    /// Each step that was reached with its microseconds, in order; none in records of earlier releases.
    steps: Vec<(&'static str, u64)>,
    /// What each rate said that was asked.
    rates: Vec<(String, Value)>,
    /// The check that the credential failed.
    failed: Option<String>,
}

/// Runs `cofferdam why`.
pub(crate) fn run(args: &WhyArgs, context: &Context, clock: &dyn Clock) -> Result<(), Failure> {
    let request = RequestId::parse(&args.request).map_err(|error| Failure::usage(error.to_string()))?;
    let since = args.since.unwrap_or(When::Ago(USUAL_MS)).before(clock.now());
    let asked = (Some(request.as_str()), (since, UnixNanos(u64::MAX)));
    let mut records = Vec::new();
    let node = match &args.tenant {
        Some(name) => {
            let remote = args.remote.open(&context.layout)?;
            each_of_node(&remote, name, asked, MOST, &mut kept(&mut records))?;
            // Who may read records may not always read policies; then there is less to tell.
            Tenant::ask(&remote, name).ok().map(|tenant| (remote, tenant))
        }
        None => {
            let dir = args.log.clone().unwrap_or_else(|| context.layout.audit());
            each_of_files(&dir, None, asked, MOST, &mut kept(&mut records))?;
            None
        }
    };
    if records.is_empty() {
        let failure = Failure::new(Kind::NotFound, format!("there is no record of `{request}`"));
        return Err(failure.hint(
            "look further back with --since; refusals of callers without a credential have no record of their own, but \
             are counted by the check that failed",
        ));
    }
    let story = story(args, &records, node.as_ref())?;
    let value = story.json(&records);
    context.output.result(&value, || story.lines())
}

fn story(args: &WhyArgs, records: &[Value], node: Option<&(Remote, Tenant)>) -> Result<Story, Failure> {
    let call = records.iter().find_map(facts);
    let ends = |record: &&Value| record.get("ending").is_some() && record.get("kind") != Some(&json!("egress"));
    let tenant = node.map(|(_, tenant)| tenant);
    let mut story = Story {
        ended: records.iter().rfind(ends).cloned(),
        egress: records.iter().filter(|record| text(record, "kind") == "egress").cloned().collect(),
        deciding: Vec::new(),
        now: None,
        same_policies: false,
        limits: tenant.map(|tenant| limits(tenant, call.as_ref())).unwrap_or_default(),
        way: Way::of(records),
        call,
    };
    let authorizer = authorizer()?;
    let decided = story.call.as_ref().and_then(|call| Some((call, call.decision.as_ref()?)));
    let Some((call, decision)) = decided else { return Ok(story) };
    let set: Option<TenantPolicies> = match tenant {
        Some(tenant) => tenant.policies(&authorizer).ok(),
        None => {
            let id = call.tenant.as_deref().and_then(|id| cofferdam_model::TenantId::parse(id).ok());
            id.map(|id| compiled(&authorizer, &id, &sources(&args.policies)?)).transpose()?
        }
    };
    let Some(set) = set else { return Ok(story) };
    let suspended = decision.given.as_ref().is_some_and(|given| given.suspended);
    let set = set.suspended(suspended);
    let tier = PolicyTier::ALL.iter().copied().find(|tier| tier.as_str() == decision.tier);
    // What came with the software, and what a credential is good for, are not the tenant's to change.
    let fixed = tier.is_some_and(|tier| [PolicyTier::Platform, PolicyTier::Session].contains(&tier));
    let now = tenant.map_or_else(|| set.sets(), |tenant| tenant.sets(&set));
    let as_now = |(of, digest): (PolicyTier, _)| Some(of) == tier && digest == decision.policy_set;
    story.same_policies = fixed || now.into_iter().any(as_now);
    let above = tier.is_some_and(|tier| [PolicyTier::Organisation, PolicyTier::Boundary].contains(&tier));
    let untold = above && tenant.is_some_and(|tenant| tenant.bound_unseen);
    let one = |id: &String| match tier.and_then(|tier| authorizer.policy_text(&set, tier, id)) {
        Some(policy) => json!(policy),
        None if untold => json!({ "id": id }),
        None => json!({ "id": id, "text": null }),
    };
    story.deciding = decision.policies.iter().map(one).collect();
    let Ok(asked) = Supposition::of(call) else { return Ok(story) };
    story.now = match node {
        // There is more that decides than is told; the node is asked, as far as it answers whoever asks here.
        Some((remote, tenant)) if tenant.bound_unseen => {
            let answers = tenant.answers(remote, (vec![asked], true), None);
            answers.ok().and_then(|answers| answers.into_iter().next())
        }
        _ => authorizer.simulate_in_full(&set, &asked, UnixNanos(0)).ok().map(|told| json!(told)),
    };
    Ok(story)
}

/// What the function may use, as the node has it now.
fn limits(tenant: &Tenant, call: Option<&CallFacts>) -> Value {
    let id = call.and_then(|call| call.resource.as_deref());
    let function = items(&tenant.described, "functions").iter().find(|row| Some(text(row, "id").as_str()) == id);
    function.and_then(|row| row.get("settings")?.get("limits").cloned()).unwrap_or_default()
}

impl Story {
    fn json(&self, records: &[Value]) -> Value {
        json!({
            "records": records, "deciding": self.deciding, "same_policies": self.same_policies,
            "by_policies_now": self.now, "limits": self.limits, "steps": self.way.told(),
            "rates": self.way.rates.iter().cloned().collect::<serde_json::Map<_, _>>(),
            "checks": { "made": self.checks(), "failed": self.way.failed },
        })
    }

    fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if let Some(call) = &self.call {
            lines.extend(asked(call));
            lines.extend(self.credential());
            lines.extend(self.way.rated());
            lines.extend(self.decided(call));
        }
        lines.extend(self.ended.iter().flat_map(|end| self.ended(end)));
        for out in &self.egress {
            let (method, host, port) = (text(out, "method"), text(out, "host"), text(out, "port"));
            let (ending, status, wall) = (text(out, "ending"), text(out, "status"), text(out, "wall_us"));
            lines.push(format!("outside    {method} {host}:{port} {ending} {status}, {wall} us"));
        }
        lines.extend(self.way.timed());
        lines
    }

    /// The checks that were made of the credential, up to the one that failed.
    fn checks(&self) -> Vec<&'static str> {
        let who = self.call.as_ref().and_then(|call| call.principal.as_ref());
        let all = who.map_or(&[][..], |who| checks(who.credential)).iter().map(|check| check.as_str());
        let mut failed = false;
        all.take_while(|check| !std::mem::replace(&mut failed, self.way.failed.as_deref() == Some(check))).collect()
    }

    fn credential(&self) -> Option<String> {
        let made = self.checks();
        let end = match &self.way.failed {
            Some(check) => format!("failed at {check}"),
            None => "all passed".to_owned(),
        };
        (!made.is_empty()).then(|| format!("checks     {}: {end}", made.join(", ")))
    }

    fn decided(&self, call: &CallFacts) -> Vec<String> {
        let Some(decision) = &call.decision else {
            return vec!["decision   none: it was refused before anything was decided".to_owned()];
        };
        let by = if decision.policies.is_empty() { "no policy".to_owned() } else { decision.policies.join(", ") };
        let mut lines = vec![format!("decision   {} in tier {} by {by}", decision.outcome, decision.tier)];
        for policy in &self.deciding {
            lines.push(String::new());
            match policy.get("text") {
                Some(Value::Null) => lines.push(format!("{} is not there any more", text(policy, "id"))),
                _ => lines.extend(told::says(policy)),
            }
        }
        if !self.same_policies && !self.deciding.is_empty() {
            lines.push("(the policies there are now are not those that decided)".to_owned());
        }
        if let Some(miss) = self.now.as_ref().and_then(|now| now.get("nearest")) {
            lines.push(String::new());
            lines.extend(told::nearest(miss));
        }
        lines.push(String::new());
        lines
    }

    fn ended(&self, end: &Value) -> Vec<String> {
        let code = end.get("code").and_then(Value::as_str).map(|code| format!(" {code}")).unwrap_or_default();
        let mut lines = vec![format!(
            "answer     {}{code}, {} by the {}",
            text(end, "status"),
            text(end, "ending"),
            text(end, "origin")
        )];
        let usage = end.get("usage").cloned().unwrap_or_default();
        let [wall, cpu, memory] = ["wall_us", "cpu_us", "memory_bytes"].map(|name| text(&usage, name));
        let received = self.call.as_ref().map_or(0, |call| call.at.0);
        let recorded = end.get("at").and_then(Value::as_u64).unwrap_or(received);
        let whole = recorded.saturating_sub(received) / 1000;
        lines.push(format!("times      {whole} us from head to record, {wall} us in the cell, {cpu} us of CPU"));
        let limits = if self.limits.is_null() { String::new() } else { format!(", of {}", self.limits) };
        lines.push(format!("used       {memory} bytes of memory{limits}"));
        lines
    }
}

impl Way {
    /// The last record that knows of one has all of it.
    fn of(records: &[Value]) -> Self {
        let of = |name: &str| records.iter().rev().find_map(|record| record.get(name).filter(|value| !value.is_null()));
        let steps = of("steps");
        let time = |step: &Step| Some((step.as_str(), steps?.get(step.as_str())?.as_u64()?));
        let rates = of("rates").and_then(Value::as_object);
        Self {
            steps: Step::ALL.iter().filter_map(time).collect(),
            rates: rates.into_iter().flatten().map(|(scope, said)| (scope.clone(), said.clone())).collect(),
            failed: of("check").and_then(Value::as_str).map(str::to_owned),
        }
    }

    fn told(&self) -> Vec<Value> {
        self.steps.iter().map(|(step, micros)| json!({ "step": step, "micros": micros })).collect()
    }

    /// The steps as a table, the last of them being where the call ended.
    fn timed(&self) -> Vec<String> {
        let whole: u64 = self.steps.iter().map(|(_, micros)| micros).sum();
        let mut rows = vec![["STEP", "MICROSECONDS", "SHARE"].map(str::to_owned).to_vec()];
        rows.extend(self.steps.iter().map(|(step, micros)| {
            let share = micros.saturating_mul(100).checked_div(whole).unwrap_or(0);
            vec![(*step).to_owned(), format!("{micros:>12}"), format!("{share:>4}%")]
        }));
        if self.steps.is_empty() {
            return vec![String::new(), "steps      not recorded".to_owned()];
        }
        let last = "(the wait until this record was durable cannot be in it)".to_owned();
        std::iter::once(String::new()).chain(table(&rows)).chain([last]).collect()
    }

    fn rated(&self) -> Option<String> {
        let one = |(scope, said): &(String, Value)| {
            let (burst, rate) = (text(said, "burst"), text(said, "per_second"));
            let how = match (said.get("retry_ms"), said.get("left")) {
                (Some(after), _) => format!("used up for {after} ms"),
                (None, Some(left)) => format!("{left} left"),
                (None, None) => "passed".to_owned(),
            };
            format!("{scope} {how} of {burst} at {rate}/s")
        };
        let told: Vec<_> = self.rates.iter().map(one).collect();
        (!told.is_empty()).then(|| format!("limits     {}", told.join("; ")))
    }
}

/// What the caller's token said.
fn session(said: &Session) -> String {
    let factors = if said.mfa { "more than one factor" } else { "one factor, or not said" };
    let actor = said.actor.as_ref().map(|actor| format!(", {actor} acting")).unwrap_or_default();
    let client = said.client.as_ref().map(|client| format!(", by {client}")).unwrap_or_default();
    format!("session    {factors}{actor}{client}")
}

/// What was asked, by whom, and what of the credential is known.
fn asked(call: &CallFacts) -> Vec<String> {
    let or = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    let mut lines = vec![
        format!("request    {}  {}", call.request, call.at),
        format!(
            "came       {} https://{}{}  from {} by TLS {}",
            call.method,
            call.host,
            call.path,
            call.source,
            call.tls.as_str()
        ),
        format!("route      {}  version {}", or(&call.route), or(&call.version)),
        format!("action     {} on {} in {}", or(&call.action), or(&call.resource), or(&call.tenant)),
    ];
    if let Some(who) = &call.principal {
        let issuer = who.issuer.as_ref().map(|issuer| format!(" of {issuer}")).unwrap_or_default();
        let (kind, shown) = (who.kind.as_str(), who.credential.as_str());
        lines.push(format!("caller     {kind} {}{issuer}, tenant {}", who.id, or(&who.tenant)));
        let bound = if who.bound.is_none() { String::new() } else { format!(", bound by {}", who.bound.as_str()) };
        lines.push(format!("credential {shown} {}{bound}", or(&who.credential_id)));
        lines.extend(who.session.iter().map(session));
        if let Some(given) = call.decision.as_ref().and_then(|decision| decision.given.as_ref()) {
            lines.push(format!("roles      {}", given.roles.join(", ")));
            if !given.groups.is_empty() {
                lines.push(format!("groups     {}", given.groups.join(", ")));
            }
            lines.extend(given.scopes.iter().map(|scopes| format!("good for   {}", scopes.join(", "))));
        }
    }
    lines
}
