//! What is known of a call's way through the node: how long each step took, which limits it was charged to, and which
//! check of a credential failed.
//!
//! Owns these values, each bounded by its type. Must never cost an allocation where nothing went wrong, and never hold
//! what another tenant does: what sources have left is shared by all.

use std::collections::HashMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::names;

names! {
    /// A step of a call's way, in order.
    Step {
        /// The rates of source, caller, tenant and route, and a place among the calls under way.
        Limits = "limits",
        /// Finding what is asked for.
        Route = "route",
        /// Finding out who asks.
        Authenticate = "authenticate",
        /// Waiting for the body of a change, which is decided on whole.
        Body = "body",
        /// Deciding.
        Authorize = "authorize",
        /// Opening the entry of the log.
        Open = "open",
        /// Waiting until something recorded before the answer was durable.
        Record = "record",
        /// Waiting for a cell, its start included.
        Cell = "cell",
        /// Waiting for the function.
        Guest = "guest",
        /// Making a change, or reading what is asked for.
        Change = "change",
    }
}

/// How many steps there are.
const STEPS: usize = Step::ALL.len();

/// How long each step took, as far as it was reached.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "HashMap<Step, u64>", from = "HashMap<Step, u64>")]
pub struct Steps([Option<Duration>; STEPS]);

impl Steps {
    /// Adds to the time of a step, which is reached with that.
    pub fn add(&mut self, step: Step, took: Duration) {
        if let Some(time) = self.0.get_mut(step as usize) {
            *time = Some(time.unwrap_or_default().saturating_add(took));
        }
    }

    /// Microseconds a step took; none where it was not reached.
    pub fn micros(&self, step: Step) -> Option<u64> {
        let took = self.0.get(step as usize).copied().flatten()?;
        Some(u64::try_from(took.as_micros()).unwrap_or(u64::MAX))
    }

    /// Each step that was reached with its microseconds, in order of the way.
    pub fn iter(&self) -> impl Iterator<Item = (Step, u64)> {
        Step::ALL.iter().filter_map(|step| Some((*step, self.micros(*step)?)))
    }

    /// Whether none is known.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(Option::is_none)
    }
}

impl From<Steps> for HashMap<Step, u64> {
    fn from(steps: Steps) -> Self {
        steps.iter().collect()
    }
}

impl From<HashMap<Step, u64>> for Steps {
    fn from(known: HashMap<Step, u64>) -> Self {
        let mut steps = Self::default();
        known.into_iter().for_each(|(step, micros)| steps.add(step, Duration::from_micros(micros)));
        steps
    }
}

names! {
    /// Whose rate a call is charged to.
    LimitScope {
        /// Its source address or network.
        Source = "source",
        /// Its caller.
        Principal = "principal",
        /// The tenant, all callers together.
        Tenant = "tenant",
        /// The route, all callers together.
        Route = "route",
    }
}

/// What a rate said of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitFacts {
    /// Whose rate.
    pub scope: LimitScope,
    /// Calls at once, at most.
    pub burst: u32,
    /// Calls a second.
    pub per_second: u32,
    /// Calls left after this one. Not told of a source, which may call other tenants too.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub left: Option<u32>,
    /// After how many milliseconds this call would have passed; none where it did.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub retry_ms: Option<u64>,
}

/// All that is known of a call's way.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Way {
    /// How long each step took.
    pub steps: Steps,
    /// What each rate said, in the order of [`LimitScope`].
    pub limits: [Option<LimitFacts>; LimitScope::ALL.len()],
    /// The check that its credential failed.
    pub check: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_that_was_not_reached_is_unknown_and_one_without_time_is_not() {
        let mut steps = Steps::default();
        assert!(steps.is_empty());
        steps.add(Step::Cell, Duration::ZERO);
        steps.add(Step::Limits, Duration::from_nanos(700));
        steps.add(Step::Limits, Duration::from_nanos(700));
        assert_eq!(steps.iter().collect::<Vec<_>>(), [(Step::Limits, 1), (Step::Cell, 0)]);
        assert_eq!(steps.micros(Step::Guest), None);
        steps.add(Step::Guest, Duration::MAX);
        steps.add(Step::Guest, Duration::MAX);
        assert_eq!(steps.micros(Step::Guest), Some(u64::MAX));
    }

    #[test]
    fn steps_are_told_by_name_and_read_back() {
        let mut steps = Steps::default();
        for (place, step) in Step::ALL.iter().enumerate() {
            assert_eq!(*step as usize, place, "the list is in the order of the enum");
            steps.add(*step, Duration::from_micros(place as u64));
        }
        let text = serde_json::to_string(&steps).unwrap();
        assert!(text.contains("\"guest\":8"), "{text}");
        assert_eq!(serde_json::from_str::<Steps>(&text).unwrap(), steps);
        assert_eq!(serde_json::from_str::<Steps>("{}").unwrap(), Steps::default());
    }
}
