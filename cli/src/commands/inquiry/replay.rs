//! `policy replay`: recorded calls, decided again by a candidate.
//!
//! Owns which records are calls that can be decided again, and what is said of those that cannot. Must never count a
//! call as decided again that was not.

use cofferdam_authz::explain::{Answer, Flip};
use cofferdam_authz::{Authorizer, TenantPolicies};
use cofferdam_model::id::platform_tenant;
use cofferdam_model::{Action, CallFacts, Clock, DecisionFacts, Digest, PolicyTier, Supposition, UnixNanos};
use serde_json::{Value, json};

use super::policy::ReplayArgs;
use super::{Skipped, Tenant, authorizer, diff, facts, sources};
use crate::commands::Context;
use crate::failure::{Failure, Kind};
use crate::output::text;
use crate::remote::{Remote, RemoteArgs};

/// Calls decided again at once.
const AT_ONCE: usize = 1_000;
/// Requests named that come out as they should not.
const STRANGE: usize = 1_000;
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
    skipped: Skipped,
    /// Calls decided by the very policies the node has now, that come out differently by them here: how many, and the
    /// first of them.
    strange: (u64, Vec<String>),
    /// How many were compared in that way.
    compared: u64,
    /// Calls of functions that were given secrets, which is decided for each besides.
    working: u64,
    /// Those that wait to be decided again with others.
    waiting: Vec<Waiting>,
}

/// A recorded call, and what came of it.
struct Waiting {
    asked: Supposition,
    before: Answer,
    suspended: bool,
    /// Whether the policies of now are those of then.
    as_now: bool,
}

/// Who decides again: this program where it is told all the policies there are, else the node, which has them.
enum Judge<'a> {
    Here { authorizer: &'a Authorizer, current: TenantPolicies, candidate: TenantPolicies },
    Node { remote: &'a Remote, tenant: &'a Tenant, candidate: Vec<(String, String)> },
}

impl Judge<'_> {
    /// What comes of calls by the candidate, or by the policies there are now.
    fn answers(&self, calls: &[&Waiting], by_candidate: bool) -> Result<Vec<Answer>, Failure> {
        let requests = calls.iter().map(|call| call.asked.clone());
        match self {
            Self::Here { authorizer, current, candidate } => {
                let set = if by_candidate { candidate } else { current };
                let one = |call: &&Waiting| {
                    let set = set.clone().suspended(call.suspended);
                    authorizer.simulate(&set, &call.asked, UnixNanos(0))
                };
                let all: Result<_, _> = calls.iter().map(one).collect();
                all.map_err(|error| Failure::new(Kind::Invalid, error.to_string()))
            }
            Self::Node { .. } if calls.is_empty() => Ok(Vec::new()),
            Self::Node { remote, tenant, candidate } => {
                let policies = by_candidate.then(|| candidate.clone());
                let answers = tenant.answers(remote, (requests.collect(), false), policies)?;
                let wrong =
                    || Failure::new(Kind::Remote, "the node answers with an outcome this release does not know");
                answers.iter().map(|answer| told(answer).ok_or_else(wrong)).collect()
            }
        }
    }
}

pub(super) fn run(args: &ReplayArgs, remote: &RemoteArgs, context: &Context, clock: &dyn Clock) -> Result<(), Failure> {
    let authorizer = authorizer()?;
    let remote = remote.open(&context.layout)?;
    let tenant = Tenant::ask(&remote, &args.tenant)?;
    let (current, texts) = (tenant.policies(&authorizer)?, tenant.with(&sources(&args.files)?, args.whole));
    // Compiled here in any case: what is wrong with it has a better place here.
    let (candidate, sets) = (tenant.granting(&authorizer, &texts)?, tenant.sets(&current));
    let judge = if tenant.bound_unseen {
        Judge::Node { remote: &remote, tenant: &tenant, candidate: texts }
    } else {
        Judge::Here { authorizer: &authorizer, current, candidate }
    };
    let mut replayed = Replayed::default();
    let seen = args.records.each(&remote, &tenant, clock, &mut |record| {
        let Some(call) = facts(&record) else {
            replayed.skipped.unread(&record);
            return Ok(());
        };
        if call.tenant.as_deref() == Some(tenant.id.as_str()) {
            replayed.one(&judge, &sets, &call);
            replayed.working += u64::from(record.get("uses").is_some());
        } else {
            replayed.skipped.one("it was refused before it was known in which tenant it is", call.request.as_str());
        }
        if replayed.waiting.len() >= AT_ONCE { replayed.decide(&judge) } else { Ok(()) }
    })?;
    replayed.decide(&judge)?;
    let Replayed { calls, flips, skipped, strange: (strange, ids), compared, working, .. } = replayed;
    let value = json!({
        "calls": calls, "flips": flips, "not_replayed": skipped.told(), "looked_at": seen.told(),
        "more_records": seen.more, "compared_with_current": compared, "differ_from_record": ids,
        "with_secrets": working, "decided_by": if tenant.bound_unseen { "node" } else { "here" },
    });
    context.output.result(&value, || {
        let mut lines = diff::shown(&flips);
        lines.push(format!("{} of {calls} recorded calls come out differently", flips.len()));
        lines.extend(skipped.lines("could not be decided again"));
        if working > 0 {
            lines.push(format!(
                "{working} ran functions with secrets: what functions may be given and ask is not decided again"
            ));
        }
        if strange > 0 {
            let ids = ids.join(", ");
            lines.push(format!("{strange} of {compared} decided by the policies there are now differ: {ids}"));
        }
        lines.push(seen.line());
        lines
    })?;
    diff::new_access(&flips, args.deny_new_access)
}

impl Replayed {
    /// Takes a call that can be decided again among those that wait for it.
    fn one(&mut self, judge: &Judge<'_>, sets: &[(PolicyTier, Digest)], call: &CallFacts) {
        let (request, skipped) = (call.request.as_str(), &mut self.skipped);
        let (asked, decision) = match (Supposition::of(call), &call.decision) {
            (Ok(asked), Some(decision)) => (asked, decision),
            (Err(why), _) => return skipped.one(why.to_string(), request),
            (Ok(_), None) => return skipped.one("nothing was decided", request),
        };
        if gives(&asked) {
            let why = "whether it gives more than its caller holds depends on what is not in its record";
            return skipped.one(why, request);
        }
        let suspended = decision.given.as_ref().is_some_and(|given| given.suspended);
        if suspended && matches!(judge, Judge::Node { .. }) {
            return skipped
                .one("the tenant was suspended then, and all that binds it is told to operators alone", request);
        }
        let Some(before) = recorded(decision) else {
            return skipped.one("its outcome is not one this release knows", request);
        };
        let as_now = as_now(decision, sets);
        self.waiting.push(Waiting { asked, before, suspended, as_now });
    }

    /// Decides those that wait.
    fn decide(&mut self, judge: &Judge<'_>) -> Result<(), Failure> {
        let waiting = std::mem::take(&mut self.waiting);
        let all: Vec<_> = waiting.iter().collect();
        self.calls += all.len() as u64;
        for (call, after) in all.iter().zip(judge.answers(&all, true)?) {
            if call.before.outcome != after.outcome {
                self.flips.push(Flip { request: call.asked.clone(), before: call.before.clone(), after });
            }
        }
        // Where the policies are those of then, the answer must be that of then: it says that records tell all.
        let same: Vec<_> = all.into_iter().filter(|call| call.as_now).collect();
        self.compared += same.len() as u64;
        for (call, now) in same.iter().zip(judge.answers(&same, false)?) {
            if (now.outcome, &now.policies) != (call.before.outcome, &call.before.policies) {
                self.strange.0 += 1;
                let id = call.asked.context.request.clone().unwrap_or_default();
                self.strange.1.extend(Some(id).filter(|_| self.strange.0 <= STRANGE as u64));
            }
        }
        Ok(())
    }
}

/// Whether it is decided besides what it hands on to others. Operators act for the installation.
fn gives(supposed: &Supposition) -> bool {
    GIVING.contains(&supposed.action) && supposed.principal.tenant.as_deref() != Some(platform_tenant().as_str())
}

/// Whether every tier that was asked was then as it is now.
fn as_now(decision: &DecisionFacts, now: &[(PolicyTier, Digest)]) -> bool {
    let known = |tier: PolicyTier| now.iter().find(|(known, _)| *known == tier).map(|(_, digest)| *digest);
    let same = decision.sets.iter().filter(|set| set.tier != PolicyTier::Platform && set.tier != PolicyTier::Session);
    let mut same = same.peekable();
    same.peek().is_some() && same.all(|set| known(set.tier) == Some(set.digest))
}

/// Outcome and tier as answers have them.
fn settled(outcome: &str, tier: &str) -> Option<(&'static str, &'static str)> {
    let outcome = OUTCOMES.into_iter().find(|known| *known == outcome)?;
    let tier = PolicyTier::ALL.iter().map(|tier| tier.as_str()).find(|known| *known == tier)?;
    Some((outcome, tier))
}

/// A recorded decision as an answer.
fn recorded(decision: &DecisionFacts) -> Option<Answer> {
    let (outcome, tier) = settled(&decision.outcome, &decision.tier)?;
    Some(Answer { outcome, tier, policies: decision.policies.clone(), policy_set: decision.policy_set })
}

/// An answer as a node tells it.
fn told(answer: &Value) -> Option<Answer> {
    let (outcome, tier) = settled(&text(answer, "outcome"), &text(answer, "tier"))?;
    let policies = answer.get("policies")?.as_array()?.iter();
    let policies = policies.map(|id| id.as_str().map(str::to_owned)).collect::<Option<_>>()?;
    Some(Answer { outcome, tier, policies, policy_set: Digest::parse(&text(answer, "policy_set"))? })
}
