//! What a record says of a call's way.
//!
//! Owns how steps, limits and a failed check are written. Must never write a step that was not reached: what is not
//! there is not known.

use cofferdam_model::{LimitFacts, LimitScope, Step, Way};

use crate::json::Object;

/// Steps in the order of their names, as all keys are.
const BY_NAME: [Step; Step::ALL.len()] = [
    Step::Authenticate,
    Step::Authorize,
    Step::Body,
    Step::Cell,
    Step::Change,
    Step::Guest,
    Step::Limits,
    Step::Open,
    Step::Record,
    Step::Route,
];
/// Scopes likewise.
const SCOPES: [LimitScope; LimitScope::ALL.len()] =
    [LimitScope::Principal, LimitScope::Route, LimitScope::Source, LimitScope::Tenant];

/// How long each step took, in microseconds.
pub(crate) fn steps(o: &mut Object<'_>, way: &Way) {
    if way.steps.is_empty() {
        return;
    }
    o.object("steps", |o| {
        for step in BY_NAME {
            way.steps.micros(step).iter().for_each(|micros| o.number(step.as_str(), *micros));
        }
    });
}

/// What each rate said.
pub(crate) fn rates(o: &mut Object<'_>, way: &Way) {
    if way.limits.iter().all(Option::is_none) {
        return;
    }
    o.object("rates", |o| {
        for scope in SCOPES {
            let said = way.limits.iter().flatten().find(|said| said.scope == scope);
            said.iter().for_each(|said| o.object(scope.as_str(), |o| limit(o, said)));
        }
    });
}

fn limit(o: &mut Object<'_>, said: &LimitFacts) {
    o.number("burst", said.burst.into());
    said.left.iter().for_each(|left| o.number("left", (*left).into()));
    o.number("per_second", said.per_second.into());
    said.retry_ms.iter().for_each(|after| o.number("retry_ms", *after));
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn every_step_and_scope_has_its_place_in_the_order_of_names() {
        assert!(BY_NAME.windows(2).all(|pair| pair[0].as_str() < pair[1].as_str()));
        assert!(SCOPES.windows(2).all(|pair| pair[0].as_str() < pair[1].as_str()));
        assert!(Step::ALL.iter().all(|step| BY_NAME.contains(step)));
        assert!(LimitScope::ALL.iter().all(|scope| SCOPES.contains(scope)));
    }

    #[test]
    fn a_way_is_written_in_few_bytes_however_long_it_took() {
        let mut way = Way::default();
        Step::ALL.iter().for_each(|step| way.steps.add(*step, Duration::MAX));
        for (place, scope) in LimitScope::ALL.iter().enumerate() {
            let most = u32::MAX;
            let said =
                LimitFacts { scope: *scope, burst: most, per_second: most, left: Some(most), retry_ms: Some(u64::MAX) };
            way.limits[place] = Some(said);
        }
        let mut out = Vec::new();
        let mut object = Object::begin(&mut out);
        rates(&mut object, &way);
        steps(&mut object, &way);
        object.end();
        assert!(out.len() < 1024, "{}", out.len());
        let value: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(serde_json::to_vec(&value).unwrap(), out, "canonical");
        let mut nothing = Vec::new();
        let mut object = Object::begin(&mut nothing);
        rates(&mut object, &Way::default());
        steps(&mut object, &Way::default());
        object.end();
        assert_eq!(nothing, b"{}");
    }
}
