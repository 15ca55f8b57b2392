//! Which of our actions a statement is about.
//!
//! Owns the names our actions go by in IAM. Must never take an action of AWS for one of ours that does more: such a
//! name is one it may only be denied by.

use cofferdam_model::Action;

use super::Scope;
use super::document::Statement;
use super::glob::matches;
use crate::decide::Authorizer;

/// Names that mean just what ours does, beside `cofferdam:` and its own.
const SAME: &[(Action, &str)] = &[
    (Action::Invoke, "lambda:InvokeFunction"),
    (Action::Invoke, "execute-api:Invoke"),
    (Action::PublishVersion, "lambda:UpdateFunctionCode"),
    (Action::RemoveFunction, "lambda:DeleteFunction"),
];

/// Names that mean a part of what ours does: to allow them is not to allow ours, to deny them is to deny it.
const PART: &[(Action, &str)] = &[
    (Action::Invoke, "lambda:InvokeAsync"),
    (Action::Invoke, "lambda:InvokeFunctionUrl"),
    (Action::PutFunction, "lambda:CreateFunction"),
    (Action::PutFunction, "lambda:UpdateFunctionConfiguration"),
    (Action::PutFunction, "lambda:PutFunctionConcurrency"),
    (Action::PublishVersion, "lambda:PublishVersion"),
    (Action::ReadTenant, "lambda:GetFunction"),
    (Action::ReadTenant, "lambda:ListFunctions"),
    (Action::ReadLogs, "logs:GetLogEvents"),
    (Action::ReadLogs, "logs:FilterLogEvents"),
];

fn listed<'a>(table: &'a [(Action, &str)], action: Action) -> impl Iterator<Item = &'a str> {
    table.iter().filter(move |(ours, _)| *ours == action).map(|(_, name)| *name)
}

/// Those on the installation are no tenant's to grant, and those of functions at work are for nobody who calls.
pub(crate) fn of_callers(authorizer: &Authorizer, action: Action) -> bool {
    authorizer.done_to(action).is_some_and(|kind| kind != "Platform")
}

/// The actions a statement is about.
pub(super) fn expanded(authorizer: &Authorizer, statement: &Statement, scope: &mut Scope<'_>) -> Vec<Action> {
    let element = &statement.actions;
    let lower: Vec<_> = element.listed.iter().map(|pattern| pattern.to_ascii_lowercase()).collect();
    // IAM compares names of actions without regard to case.
    let hit = |name: &str, pattern: &String| matches(pattern, &name.to_ascii_lowercase());
    let same = |action: Action, pattern: &String| {
        hit(&format!("cofferdam:{}", action.as_str()), pattern) || listed(SAME, action).any(|name| hit(name, pattern))
    };
    let part = |action: Action, pattern: &String| listed(PART, action).any(|name| hit(name, pattern));
    let ours = || Action::ALL.iter().copied().filter(|action| of_callers(authorizer, *action));
    for (pattern, shown) in lower.iter().zip(&element.listed) {
        let (known, partly) = (ours().any(|a| same(a, pattern)), ours().any(|a| part(a, pattern) && !same(a, pattern)));
        if partly {
            let what = format!("action `{shown}` is also a part of what one action does here");
            let _ = scope.gap(scope.side(), what);
        } else if !known && !element.not {
            scope.nothing(format!("action `{shown}`"));
        }
    }
    // Allowed is what surely is meant, denied what may be.
    let generous = scope.allow == element.not;
    let meant = |action: &Action| {
        let named = |pattern: &String| same(*action, pattern) || (generous && part(*action, pattern));
        lower.iter().any(named) != element.not
    };
    ours().filter(meant).collect()
}
