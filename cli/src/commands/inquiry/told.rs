//! Answers as people read them.
//!
//! Owns how a caller, an answer and a miss look in lines. Must never leave out that something was cut.

use cofferdam_authz::explain::{Answer, Flip};
use cofferdam_model::{Asker, PrincipalKind, Supposition};
use serde_json::Value;

use crate::output::{items, text};

/// A caller in one word or two.
pub(crate) fn who(asker: &Asker) -> String {
    let kind = match asker.kind {
        PrincipalKind::Anonymous => return "anonymous".to_owned(),
        PrincipalKind::User => "user",
        PrincipalKind::ServiceAccount => "account",
    };
    let roles = if asker.roles.is_empty() { String::new() } else { format!(" ({})", asker.roles.join(", ")) };
    let groups = if asker.groups.is_empty() { String::new() } else { format!(" in {}", asker.groups.join(", ")) };
    let home = asker.tenant.as_ref().map(|tenant| format!(" of {tenant}")).unwrap_or_default();
    format!("{kind} {}{home}{roles}{groups}", asker.id)
}

/// A supposed call in one line.
pub(crate) fn call(request: &Supposition) -> String {
    let context = &request.context;
    let what = request.function.as_ref().map(|name| format!(" {name}")).unwrap_or_default();
    let public = if context.public { " public" } else { "" };
    let (method, path, source) = (&context.method, &context.path, context.source);
    format!("{}: {}{what} ({method} {path} from {source}{public})", who(&request.principal), request.action.as_str())
}

fn by(answer: &Answer) -> String {
    let policies =
        if answer.policies.is_empty() { String::new() } else { format!(" by {}", answer.policies.join(", ")) };
    format!("{} in tier {}{policies}", answer.outcome, answer.tier)
}

/// A flip in three lines.
pub(crate) fn flip(flip: &Flip) -> Vec<String> {
    let id = flip.request.context.request.as_ref().map(|id| format!("{id}  ")).unwrap_or_default();
    let lines = [
        format!("{id}{}", call(&flip.request)),
        format!("  - {}", by(&flip.before)),
        format!("  + {}", by(&flip.after)),
    ];
    lines.to_vec()
}

/// An explanation, as JSON has it, in lines.
pub(crate) fn explanation(told: &Value) -> Vec<String> {
    let mut lines =
        vec![format!("{}  in tier {}  by {}", text(told, "outcome"), text(told, "tier"), list(told, "policies"))];
    for tier in items(told, "tiers") {
        lines.push(format!("  {:<9} {:<14} {}", text(tier, "tier"), text(tier, "outcome"), list(tier, "policies")));
    }
    for policy in items(told, "deciding") {
        lines.push(String::new());
        lines.extend(says(policy));
    }
    if let Some(miss) = told.get("nearest") {
        lines.push(String::new());
        lines.extend(nearest(miss));
    }
    lines
}

/// A policy with its text, where that is told to whoever asks.
pub(crate) fn says(policy: &Value) -> Vec<String> {
    let (id, said) = (text(policy, "id"), policy.get("text").and_then(Value::as_str));
    let Some(said) = said else { return vec![format!("{id} is the operators': its text is not told")] };
    let lines = said.lines().map(|line| format!("  {line}"));
    std::iter::once(format!("{id} says:")).chain(lines).collect()
}

/// What the nearest permit lacks.
pub(crate) fn nearest(miss: &Value) -> Vec<String> {
    let policy = miss.get("policy").cloned().unwrap_or_default();
    let id = text(&policy, "id");
    if policy.get("text").is_none() {
        return vec![format!("nearest permit: {id}, which is the operators': its text is not told")];
    }
    let mut lines = vec![format!("nearest permit: {id} ({} of its parts hold), which lacks:", text(miss, "holds"))];
    lines.extend(items(miss, "lacks").iter().map(|part| format!("  {}  [{}]", text(part, "text"), text(part, "is"))));
    lines
}

fn list(value: &Value, name: &str) -> String {
    Some(text(value, name)).filter(|text| !text.is_empty()).unwrap_or_else(|| "none".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_explanation_tells_tiers_texts_and_what_is_lacking() {
        let told = explanation(&json!({
            "outcome": "implicit_deny", "tier": "tenant", "policies": [],
            "tiers": [{ "tier": "platform", "outcome": "allow", "policies": [] }],
            "deciding": [{ "id": "mine/1", "effect": "forbid", "text": "forbid (\n);" }],
            "nearest": {
                "policy": { "id": "mine/2", "text": "permit" }, "holds": 3,
                "lacks": [{ "text": "a == b", "is": "false" }],
            },
        }));
        let all = told.join("\n");
        for wanted in
            ["implicit_deny  in tier tenant  by none", "mine/1 says:\n  forbid (", "mine/2 (3 of", "a == b  [false]"]
        {
            assert!(all.contains(wanted), "{wanted} in\n{all}");
        }
    }

    #[test]
    fn a_text_that_is_not_told_is_said_so() {
        let told = explanation(&json!({
            "outcome": "ceiling_deny", "tier": "organisation", "policies": ["ceiling:o_1/edge/1"],
            "deciding": [{ "id": "ceiling:o_1/edge/1", "effect": "forbid" }],
            "nearest": { "policy": { "id": "ceiling:o_1/edge/2" }, "holds": 0, "lacks": [] },
        }));
        assert_eq!(told.iter().filter(|line| line.ends_with("its text is not told")).count(), 2, "{told:#?}");
    }
}
