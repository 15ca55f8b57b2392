//! What a policy looks at, told without asking it of anything.
//!
//! Owns the reading of a policy's scope and conditions for what they speak of. Must never say that a policy does not
//! look at something where that cannot be told.

use cedar_policy::{Effect, Policy, PrincipalConstraint, ResourceConstraint};
use serde_json::Value;

/// Kinds that are in a function: it, and what is its own.
const OF_FUNCTIONS: &[&str] = &["Function", "Secret", "Version", "Workload", "Destination"];

/// Whether its conditions speak of `principal`, `action`, `resource` or `context`.
pub(crate) fn mentions(policy: &Policy, variable: &str) -> bool {
    policy.to_json().map_or(true, |json| json.get("conditions").is_some_and(|body| speaks(body, variable)))
}

fn speaks(value: &Value, variable: &str) -> bool {
    match value {
        Value::Object(fields) => fields
            .iter()
            .any(|(key, value)| (key == "Var" && value.as_str() == Some(variable)) || speaks(value, variable)),
        Value::Array(items) => items.iter().any(|item| speaks(item, variable)),
        _ => false,
    }
}

/// What it says, apart from its id and annotations: two with the same decide the same. None where that cannot be told.
pub(crate) fn essence(policy: &Policy) -> Option<String> {
    let Ok(Value::Object(mut json)) = policy.to_json() else { return None };
    json.remove("annotations");
    Some(Value::Object(json).to_string())
}

/// Whether it forbids everybody alike: neither who asks nor the circumstances make a difference to it.
pub(crate) fn is_even(policy: &Policy) -> bool {
    policy.effect() == Effect::Forbid
        && matches!(policy.principal_constraint(), PrincipalConstraint::Any)
        && !mentions(policy, "principal")
        && !mentions(policy, "context")
}

/// Whether it may hold of one thing of a kind in a tenant and not of another.
pub(crate) fn tells_things_apart(policy: &Policy) -> bool {
    let scope = match policy.resource_constraint() {
        ResourceConstraint::Any | ResourceConstraint::Is(_) => false,
        ResourceConstraint::In(uid) | ResourceConstraint::IsIn(_, uid) => {
            !matches!(uid.type_name().basename(), "Tenant" | "Organisation")
        }
        ResourceConstraint::Eq(_) => true,
    };
    scope || mentions(policy, "resource")
}

/// Whether its scope allows for a resource of this kind.
pub(crate) fn can_be_about(policy: &Policy, kind: &str) -> bool {
    let within = |above: &str| match above {
        "Function" => OF_FUNCTIONS.contains(&kind),
        "Role" => kind == "Account",
        "Tenant" | "Organisation" => kind != "Platform",
        other => other == kind,
    };
    match policy.resource_constraint() {
        ResourceConstraint::Any => true,
        ResourceConstraint::Is(of) => of.basename() == kind,
        ResourceConstraint::In(uid) => within(uid.type_name().basename()),
        ResourceConstraint::IsIn(of, uid) => of.basename() == kind && within(uid.type_name().basename()),
        ResourceConstraint::Eq(uid) => uid.type_name().basename() == kind,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(text: &str) -> Policy {
        text.parse().unwrap()
    }

    #[test]
    fn what_a_policy_looks_at_is_found_however_deep_it_stands() {
        for (condition, seen) in [
            ("when { context.mfa }", &["context"][..]),
            ("when { true } unless { [1, if resource.name == \"x\" then 2 else 3].contains(1) }", &["resource"]),
            ("when { {a: principal}.a.id == \"x\" && resource has name }", &["principal", "resource"]),
            ("when { \"resource\" == \"context\" }", &[]),
            ("", &[]),
        ] {
            let policy = policy(&format!("forbid (principal, action, resource) {condition};"));
            for variable in ["principal", "resource", "context"] {
                assert_eq!(mentions(&policy, variable), seen.contains(&variable), "{condition}: {variable}");
            }
            assert_eq!(is_even(&policy), !seen.contains(&"principal") && !seen.contains(&"context"), "{condition}");
        }
        assert!(!is_even(&policy("forbid (principal is User, action, resource);")));
        assert!(!is_even(&policy("permit (principal, action, resource);")));
    }

    #[test]
    fn statements_are_the_same_whatever_they_are_called_and_nothing_else_is() {
        let of = |text: &str| essence(&policy(text)).unwrap();
        let plain = of("forbid (principal, action, resource) when { context.mfa };");
        assert_eq!(plain, of("@id(\"x\") @note(\"y\") forbid(principal,action,resource) when {context.mfa};"));
        assert_ne!(plain, of("forbid (principal, action, resource) unless { context.mfa };"));
        assert_ne!(plain, of("forbid (principal is User, action, resource) when { context.mfa };"));
        assert_ne!(plain, of("permit (principal, action, resource) when { context.mfa };"));
    }

    #[test]
    fn scopes_tell_which_things_a_policy_can_be_about() {
        for (scope, apart, kinds) in [
            ("resource", false, &["Function", "Secret", "Tenant", "Account"][..]),
            ("resource is Secret", false, &["Secret"]),
            ("resource in Function::\"f\"", true, &["Function", "Secret"]),
            ("resource == Function::\"f\"", true, &["Function"]),
            ("resource in Tenant::\"t\"", false, &["Function", "Secret", "Tenant", "Account"]),
            ("resource is Account in Role::\"r\"", true, &["Account"]),
        ] {
            let policy = policy(&format!("forbid (principal, action, {scope});"));
            assert_eq!(tells_things_apart(&policy), apart, "{scope}");
            for kind in ["Function", "Secret", "Tenant", "Account"] {
                assert_eq!(can_be_about(&policy, kind), kinds.contains(&kind), "{scope}: {kind}");
            }
        }
    }
}
