//! `policy diff`: what another set of policies would change.
//!
//! Owns which calls both sets are asked about. Must never say that nothing changes without saying of how many calls.

use cofferdam_authz::explain::{Changes, Flip, PolicyText, Witnesses, changes, tenant_named};
use cofferdam_authz::{Authorizer, TenantPolicies};
use cofferdam_model::{Clock, Supposition};
use serde_json::json;

use super::policy::DiffArgs;
use super::{Tenant, authorizer, compiled, facts, sources, told};
use crate::commands::Context;
use crate::failure::{Failure, Kind};
use crate::remote::RemoteArgs;

/// Flips that are told one by one to people.
const SHOWN: usize = 50;

pub(super) fn run(args: &DiffArgs, remote: &RemoteArgs, context: &Context, clock: &dyn Clock) -> Result<(), Failure> {
    let authorizer = authorizer()?;
    let (before, after, recorded, known) = match &args.tenant {
        None => {
            let id = tenant_named("files");
            let before = compiled(&authorizer, &id, &sources(&args.before)?)?;
            (before, compiled(&authorizer, &id, &sources(&args.after)?)?, Vec::new(), Vec::new())
        }
        Some(name) => {
            let remote = remote.open(&context.layout)?;
            let tenant = Tenant::ask(&remote, name)?;
            let records = if args.recorded { args.records.read(&remote, &tenant, clock)?.all } else { Vec::new() };
            let recorded = records.iter().filter_map(|record| Supposition::of(&facts(record)?).ok());
            let candidate = tenant.with(&sources(&args.after)?, args.whole);
            let after = tenant.granting(&authorizer, &candidate)?;
            let recorded: Vec<_> = recorded.collect();
            (tenant.policies(&authorizer)?, after, recorded, tenant.callers(&remote)?)
        }
    };
    let generated = Witnesses::of(&authorizer, &[&before, &after], &known, args.generated);
    let asked = generated.requests.len() + recorded.len();
    let requests = recorded.iter().chain(&generated.requests);
    let flips = flips(&authorizer, (&before, &after), requests, clock)?;
    let texts = changes(&authorizer.policy_texts(&before), &authorizer.policy_texts(&after));
    let value = json!({
        "changes": texts, "flips": flips, "requests": asked, "requests_left_out": generated.left_out,
    });
    context.output.result(&value, || lines(&texts, &flips, asked, generated.left_out))?;
    new_access(&flips, args.deny_new_access)
}

fn flips<'a>(
    authorizer: &Authorizer,
    sets: (&TenantPolicies, &TenantPolicies),
    requests: impl Iterator<Item = &'a Supposition>,
    clock: &dyn Clock,
) -> Result<Vec<Flip>, Failure> {
    let now = clock.now();
    let all = requests.map(|request| authorizer.flip(sets, request, now));
    let flips: Result<Vec<_>, _> = all.filter_map(Result::transpose).collect();
    flips.map_err(|error| Failure::new(Kind::Invalid, error.to_string()))
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
