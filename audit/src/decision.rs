//! What a record says of decisions.
//!
//! Owns how a decision, the state of the policies it was made by, and the use of secrets are written. Must never write
//! more of them than fits a record beside everything else.

use cofferdam_model::{CallFacts, DecisionFacts, GivenFacts, UseFacts};

use crate::disclose::{Field, Veil};
use crate::json::Object;
use crate::record::NAME_BYTES;

const POLICIES: usize = 64;
const ROLES: usize = 64;
/// Groups of a caller. Who is in more, or in one with a longer name, is not decided again either.
const GROUPS: usize = 16;
const GROUP_BYTES: usize = 64;
/// Roles of an account that is touched, and scopes of a credential.
const FEW: usize = 16;
/// Roles and scopes are short; what is longer is cut, and then not decided again.
const ROLE_BYTES: usize = 128;
const SECRETS: usize = 64;

/// What a decision was made on, which the entry only commits to.
pub(crate) fn given(veil: &mut Veil, decision: Option<&DecisionFacts>) {
    if let Some(facts) = decision.and_then(|decision| decision.given.as_ref()) {
        veil.object(Field::Decision, |o| o.object("given", |o| all_given(o, facts)));
    }
}

/// What is false is left out, as what is not there is.
fn all_given(o: &mut Object<'_>, facts: &GivenFacts) {
    if !facts.groups.is_empty() {
        o.texts("groups", &facts.groups, GROUPS, GROUP_BYTES);
    }
    o.maybe_text("item", facts.item.as_deref(), NAME_BYTES);
    if !facts.item_roles.is_empty() {
        o.texts("item_roles", &facts.item_roles, FEW, ROLE_BYTES);
    }
    o.maybe_text("name", facts.name.as_deref(), NAME_BYTES);
    if facts.public {
        o.flag("public", true);
    }
    o.texts("roles", &facts.roles, ROLES, ROLE_BYTES);
    facts.scopes.iter().for_each(|scopes| o.texts("scopes", scopes, FEW, ROLE_BYTES));
    if facts.suspended {
        o.flag("suspended", true);
    }
}

/// The decision on a call.
pub(crate) fn decision(o: &mut Object<'_>, facts: &CallFacts) {
    if let Some(decision) = &facts.decision {
        o.object("decision", |o| decided(o, decision));
    }
}

/// A decision.
pub(crate) fn decided(o: &mut Object<'_>, decision: &DecisionFacts) {
    o.text("outcome", &decision.outcome, NAME_BYTES);
    o.texts("policies", &decision.policies, POLICIES, NAME_BYTES);
    o.hex("policy_set", &decision.policy_set.0);
    if !decision.sets.is_empty() {
        o.object("sets", |o| {
            // In the order of their names, as all keys are.
            let mut sets: Vec<_> = decision.sets.iter().collect();
            sets.sort_unstable_by_key(|set| set.tier.as_str());
            sets.dedup_by_key(|set| set.tier);
            for set in sets {
                o.object(set.tier.as_str(), |o| {
                    o.text("owner", &set.owner, NAME_BYTES);
                    o.hex("sha256", &set.digest.0);
                    o.number("version", set.version);
                });
            }
        });
    }
    o.text("tier", &decision.tier, NAME_BYTES);
}

/// What was decided of each secret, one text for each: its name, the outcome, and the policies that settled it.
pub(crate) fn uses(o: &mut Object<'_>, facts: &CallFacts) {
    if facts.uses.is_empty() {
        return;
    }
    let told = |used: &UseFacts| {
        let UseFacts { secret, outcome, tier, policies } = used;
        format!("{secret}: {outcome} by {tier}: {}", policies.join(" "))
    };
    let uses: Vec<String> = facts.uses.iter().map(told).collect();
    o.texts("uses", &uses, SECRETS, NAME_BYTES);
}
