//! Who a statement of a resource policy is about.
//!
//! Owns what IAM's principals are here: users by subject, roles by name. Must never take a whole account for a grant to
//! everybody in it: there that only says that the account's own policies decide.

use super::document::{Statement, Who};
use super::test::{Side, Test};
use super::{Attached, Scope};
use crate::explain::quoted;

pub(super) fn test(statement: &Statement, side: Side, scope: &mut Scope<'_>) -> Test {
    let Some(element) = &statement.principal else {
        return match &scope.options.attached {
            Some(Attached::User(id) | Attached::Account(id)) => Test::Is(format!("principal.id == {}", quoted(id))),
            // In the scope already.
            Some(Attached::Role(_)) | None => Test::Always,
        };
    };
    if !element.not {
        let tests = element.listed.iter().map(|who| one(who, side, scope)).collect();
        return Test::any(tests);
    }
    if scope.allow {
        return scope.gap(side, "`NotPrincipal` with `Allow`".to_owned());
    }
    // There a principal is spared only where its account is listed as well.
    let account = &scope.options.account;
    let root = [account.clone(), format!("arn:aws:iam::{account}:root")];
    if !element.listed.iter().any(|who| who.kind == "AWS" && root.contains(&who.name)) {
        return scope.gap(side, "`NotPrincipal` without the account of those it spares".to_owned());
    }
    let spared = element.listed.iter().filter(|who| !root.contains(&who.name));
    let spared: Vec<_> = spared.map(|who| one(who, side.flipped(), scope)).collect();
    Test::any(spared).not()
}

fn one(who: &Who, side: Side, scope: &mut Scope<'_>) -> Test {
    let Who { kind, name } = who;
    if name == "*" && (kind == "*" || kind == "AWS") {
        return Test::Always;
    }
    let own = format!("arn:aws:iam::{}:", scope.options.account);
    let named = name.strip_prefix(&own).and_then(|rest| rest.split_once('/'));
    match named.filter(|(_, name)| kind == "AWS" && !name.contains(['*', '?', '/', '$']) && !name.is_empty()) {
        Some(("user", id)) => Test::Is(format!("(principal is User && principal.id == {})", quoted(id))),
        Some(("role", role)) => Test::Is(format!("principal in Role::{}", quoted(role))),
        _ => scope.gap(side, format!("principal `{kind}`: `{name}`")),
    }
}
