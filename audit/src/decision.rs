//! What a record says of decisions.
//!
//! Owns how a decision, the state of the policies it was made by, and the use of secrets are written. Must never write
//! more of them than fits a record beside everything else.

use cofferdam_model::{CallFacts, DecisionFacts, UseFacts};

use crate::json::Object;
use crate::record::NAME_BYTES;

const POLICIES: usize = 64;
const SECRETS: usize = 64;

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
