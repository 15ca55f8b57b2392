//! `policy diff`: what another set of policies would change.
//!
//! Owns which calls both sets are asked about. Must never say that nothing changes without saying of how many calls.

use cofferdam_authz::TenantPolicies;
use cofferdam_authz::explain::{Changes, Flip, PolicyText, Witnesses, changes, tenant_named};
use cofferdam_model::{Clock, Supposition};
use serde_json::json;

use super::policy::DiffArgs;
use super::{Seen, Skipped, Tenant, authorizer, compiled, facts, sources, told};
use crate::commands::Context;
use crate::failure::{Failure, Kind};
use crate::remote::RemoteArgs;

/// Flips that are told one by one to people.
const SHOWN: usize = 50;

pub(super) fn run(args: &DiffArgs, remote: &RemoteArgs, context: &Context, clock: &dyn Clock) -> Result<(), Failure> {
    let authorizer = authorizer()?;
    let (mut found, mut skipped, mut seen, mut unseen) = (Vec::new(), Skipped::default(), None, None);
    let now = clock.now();
    let mut ask = |sets: (&TenantPolicies, &TenantPolicies), request: &Supposition| {
        let flip = authorizer.flip(sets, request, now);
        found.extend(flip.map_err(|error| Failure::new(Kind::Invalid, error.to_string()))?);
        Ok(())
    };
    let mut recorded = 0;
    let (before, after, known) = match &args.tenant {
        None => {
            let id = tenant_named("files");
            let before = compiled(&authorizer, &id, &sources(&args.before)?)?;
            (before, compiled(&authorizer, &id, &sources(&args.after)?)?, Vec::new())
        }
        Some(name) => {
            let remote = remote.open(&context.layout)?;
            let tenant = Tenant::ask(&remote, name)?;
            let candidate = tenant.with(&sources(&args.after)?, args.whole);
            let sets = (tenant.policies(&authorizer)?, tenant.granting(&authorizer, &candidate)?);
            unseen = tenant.unseen();
            if args.recorded {
                let read = args.records.each(&remote, &tenant, clock, &mut |record| {
                    let Some(call) = facts(&record) else {
                        skipped.unread(&record);
                        return Ok(());
                    };
                    match Supposition::of(&call) {
                        Ok(asked) => {
                            recorded += 1;
                            ask((&sets.0, &sets.1), &asked)
                        }
                        Err(why) => {
                            skipped.one(why.to_string(), call.request.as_str());
                            Ok(())
                        }
                    }
                });
                seen = Some(read?);
            }
            (sets.0, sets.1, tenant.callers(&remote)?)
        }
    };
    let generated = Witnesses::of(&authorizer, &[&before, &after], &known, args.generated);
    let asked = generated.requests.len() + recorded;
    generated.requests.iter().try_for_each(|request| ask((&before, &after), request))?;
    let flips = found;
    let texts = changes(&authorizer.policy_texts(&before), &authorizer.policy_texts(&after));
    let value = json!({
        "changes": texts, "flips": flips, "requests": asked, "requests_left_out": generated.left_out,
        "recorded": recorded, "looked_at": seen.as_ref().map(Seen::told), "not_asked": skipped.told(), "unseen": unseen,
    });
    context.output.result(&value, || {
        let mut lines = lines(&texts, &flips, asked, generated.left_out);
        lines.extend(skipped.lines("could not be asked about"));
        lines.extend(seen.as_ref().map(Seen::line));
        lines.extend(unseen.map(str::to_owned));
        lines
    })?;
    new_access(&flips, args.deny_new_access)
}

/// Ends with a finding where that is asked for, and something is allowed that was not.
pub(super) fn new_access(flips: &[Flip], asked: bool) -> Result<(), Failure> {
    let new = flips.iter().filter(|flip| flip.after.allowed()).count();
    if asked && new > 0 {
        return Err(Failure::new(Kind::Finding, format!("{new} calls would be allowed that were not")));
    }
    Ok(())
}

fn lines(texts: &Changes, flips: &[Flip], asked: usize, left_out: u64) -> Vec<String> {
    let named = |sign: &str, text: &PolicyText| format!("{sign} {} ({})", text.id, text.effect);
    let mut lines: Vec<String> = texts.removed.iter().map(|text| named("-", text)).collect();
    lines.extend(texts.added.iter().map(|text| named("+", text)));
    lines.extend(texts.changed.iter().map(|(_, text)| named("~", text)));
    lines.extend(shown(flips));
    lines.push(format!("{} of {asked} calls asked about come out differently", flips.len()));
    if left_out > 0 {
        lines.push(format!("{left_out} more could have been asked about: raise --generated"));
    }
    lines
}

/// The first flips, and how many more there are.
pub(super) fn shown(flips: &[Flip]) -> Vec<String> {
    let mut lines: Vec<String> = flips.iter().take(SHOWN).flat_map(told::flip).collect();
    if let Some(more) = flips.len().checked_sub(SHOWN).filter(|more| *more > 0) {
        lines.push(format!("and {more} more: --json tells all"));
    }
    lines
}
