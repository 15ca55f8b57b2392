//! Two sets of policies, side by side.
//!
//! Owns which statements differ, and of which supposed calls the outcome does. Must never call two sets equal for calls
//! it did not ask about.

use std::collections::BTreeMap;

use cofferdam_model::{Supposition, UnixNanos};
use serde::Serialize;

use super::{Answer, PolicyText};
use crate::decide::Authorizer;
use crate::error::SuppositionError;
use crate::policy::TenantPolicies;

/// Statements that differ, by id.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Changes {
    /// Those only the second set has.
    pub added: Vec<PolicyText>,
    /// Those only the first set has.
    pub removed: Vec<PolicyText>,
    /// Those of another text or effect, as each set has them.
    pub changed: Vec<(PolicyText, PolicyText)>,
}

/// A supposed call of which the outcome differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Flip {
    /// The call.
    pub request: Supposition,
    /// What comes of it by the first set.
    pub before: Answer,
    /// And by the second.
    pub after: Answer,
}

/// How two lists of statements differ.
pub fn changes(before: &[PolicyText], after: &[PolicyText]) -> Changes {
    let by_id = |texts: &[PolicyText]| -> BTreeMap<String, PolicyText> {
        texts.iter().map(|text| (text.id.clone(), text.clone())).collect()
    };
    let (mut old, mut found) = (by_id(before), Changes::default());
    for (id, new) in by_id(after) {
        match old.remove(&id) {
            None => found.added.push(new),
            Some(old) if old != new => found.changed.push((old, new)),
            Some(_) => {}
        }
    }
    found.removed = old.into_values().collect();
    found
}

impl Authorizer {
    /// The supposed call, where the two sets would answer it with another outcome; policies that merely give way to
    /// others of the same outcome are no flip.
    pub fn flip(
        &self,
        (before, after): (&TenantPolicies, &TenantPolicies),
        supposition: &Supposition,
        now: UnixNanos,
    ) -> Result<Option<Flip>, SuppositionError> {
        let before = self.simulate(before, supposition, now)?;
        let after = self.simulate(after, supposition, now)?;
        let differs = before.outcome != after.outcome;
        Ok(differs.then(|| Flip { request: supposition.clone(), before, after }))
    }
}
