//! `policy replay`: recorded calls, decided again by a candidate.
//!
//! Owns which records are calls that can be decided again, and what is said of those that cannot. Must never count a
//! call as decided again that was not.

use std::collections::BTreeMap;

use cofferdam_authz::explain::{Answer, Flip};
use cofferdam_authz::{Authorizer, TenantPolicies};
use cofferdam_model::id::platform_tenant;
use cofferdam_model::{Action, CallFacts, Clock, DecisionFacts, PolicyTier, Supposition, UnixNanos};
use serde_json::{Value, json};

use super::policy::ReplayArgs;
use super::{Tenant, authorizer, diff, facts, sources};
use crate::commands::Context;
use crate::failure::{Failure, Kind};
use crate::remote::RemoteArgs;

/// Requests named for each reason.
const NAMED: usize = 20;
/// Outcomes as records have them.
const OUTCOMES: [&str; 5] = ["allow", "explicit_deny", "ceiling_deny", "implicit_deny", "policy_error"];
/// Actions that hand something on to others: whether that is more than the giver holds is decided besides.
const GIVING: [Action; 5] =
    [Action::PutMember, Action::CreateKey, Action::PutUser, Action::PutClientCa, Action::PutPolicy];

/// What came of a replay.
#[derive(Default)]
struct Replayed {
    calls: u64,
    flips: Vec<Flip>,
    /// By reason: how many, and the first of them.
    skipped: BTreeMap<String, (u64, Vec<String>)>,
    /// Calls decided by the very policies the node has now, that come out differently by them here.
    strange: Vec<String>,
    /// How many were compared in that way.
    compared: u64,
    /// Calls of functions that were given secrets, which is decided for each besides.
    working: u64,
}

pub(super) fn run(args: &ReplayArgs, remote: &RemoteArgs, context: &Context, clock: &dyn Clock) -> Result<(), Failure> {
    let authorizer = authorizer()?;
    let remote = remote.open(&context.layout)?;
    let tenant = Tenant::ask(&remote, &args.tenant)?;
    let current = tenant.policies(&authorizer)?;
    let candidate = tenant.granting(&authorizer, &tenant.with(&sources(&args.files)?, args.whole))?;
    let records = args.records.read(&remote, &tenant, clock)?;
    let mut replayed = Replayed::default();
    for record in &records.all {
        if let Some(call) = facts(record).filter(|call| call.tenant.as_deref() == Some(tenant.id.as_str())) {
            replayed.one(&authorizer, (&current, &candidate), &call)?;
            replayed.working += u64::from(record.get("uses").is_some());
        }
    }
    let Replayed { calls, flips, skipped, strange, compared, working } = replayed;
    let told: Vec<Value> =
        skipped.iter().map(|(why, (count, ids))| json!({ "why": why, "calls": count, "requests": ids })).collect();
    let value = json!({
        "calls": calls, "flips": flips, "not_replayed": told, "more_records": records.more,
        "compared_with_current": compared, "differ_from_record": strange,
        "with_secrets": working,
    });
    context.output.result(&value, || {
        let mut lines = diff::shown(&flips);
        lines.push(format!("{} of {calls} recorded calls come out differently", flips.len()));
        for (why, (count, ids)) in &skipped {
            lines.push(format!("{count} could not be decided again: {why} ({})", ids.join(", ")));
        }
        if working > 0 {
            lines.push(format!(
                "{working} ran functions with secrets: what functions may be given and ask is not decided again"
            ));
        }
        if records.more {
            lines.push("there are more records: raise --most, or ask for less time".to_owned());
        }
        if !strange.is_empty() {
            lines.push(format!(
                "{} of {compared} decided by the policies there are now differ: {}",
                strange.len(),
                strange.join(", ")
            ));
        }
        lines
    })?;
    diff::new_access(&flips, args.deny_new_access)
}

impl Replayed {
    fn one(
        &mut self,
        authorizer: &Authorizer,
        (current, candidate): (&TenantPolicies, &TenantPolicies),
        call: &CallFacts,
    ) -> Result<(), Failure> {
        let (supposed, decision) = match (Supposition::of(call), &call.decision) {
            (Ok(supposed), Some(decision)) => (supposed, decision),
            (Err(why), _) => {
                self.skip(why.to_string(), call);
                return Ok(());
            }
            (Ok(_), None) => return Ok(()),
        };
        if gives(&supposed) {
            self.skip("whether it gives more than its caller holds depends on what is not in its record".into(), call);
            return Ok(());
        }
        let suspended = decision.given.as_ref().is_some_and(|given| given.suspended);
        let ask = |set: &TenantPolicies| {
            let answer = authorizer.simulate(&set.clone().suspended(suspended), &supposed, UnixNanos(0));
            answer.map_err(|error| Failure::new(Kind::Invalid, error.to_string()))
        };
        let Some(before) = recorded(decision) else {
            self.skip("its outcome is not one this release knows".to_owned(), call);
            return Ok(());
        };
        self.calls += 1;
        let after = ask(candidate)?;
        if before.outcome != after.outcome {
            self.flips.push(Flip { request: supposed.clone(), before: before.clone(), after });
        }
        // Where the policies are those of then, the answer must be that of then: it says that records tell all.
        if as_now(decision, current) {
            self.compared += 1;
            let now = ask(current)?;
            if (now.outcome, &now.policies) != (before.outcome, &before.policies) {
                self.strange.push(call.request.to_string());
            }
        }
        Ok(())
    }

    fn skip(&mut self, why: String, call: &CallFacts) {
        let (count, ids) = self.skipped.entry(why).or_default();
        *count += 1;
        if ids.len() < NAMED {
            ids.push(call.request.to_string());
        }
    }
}

/// Whether it is decided besides what it hands on to others. Operators act for the installation.
fn gives(supposed: &Supposition) -> bool {
    GIVING.contains(&supposed.action) && supposed.principal.tenant.as_deref() != Some(platform_tenant().as_str())
}

/// Whether every tier that was asked was then as it is now.
fn as_now(decision: &DecisionFacts, current: &TenantPolicies) -> bool {
    let now = current.sets();
    let known = |tier: PolicyTier| now.iter().find(|(known, _)| *known == tier).map(|(_, digest)| *digest);
    let same = decision.sets.iter().filter(|set| set.tier != PolicyTier::Platform && set.tier != PolicyTier::Session);
    let mut same = same.peekable();
    same.peek().is_some() && same.all(|set| known(set.tier) == Some(set.digest))
}

/// A recorded decision as an answer.
fn recorded(decision: &DecisionFacts) -> Option<Answer> {
    let outcome = OUTCOMES.into_iter().find(|known| *known == decision.outcome)?;
    let tier = PolicyTier::ALL.iter().map(|tier| tier.as_str()).find(|known| *known == decision.tier)?;
    Some(Answer { outcome, tier, policies: decision.policies.clone(), policy_set: decision.policy_set })
}
