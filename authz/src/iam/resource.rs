//! What a statement is about, by ARN.
//!
//! Owns the ARNs that functions and tenants go by. Must never match a part of an ARN across its colons.

use super::document::Statement;
use super::glob::{is_plain, matches, rests};
use super::test::{Side, Test};
use super::{Options, Scope};
use crate::explain::quoted;

/// `arn`, partition, service, region and account of our own ARNs.
const OWN: [&str; 5] = ["arn", "cofferdam", "node", "", ""];

/// What the ARN of a tenant stands for: all there is of it but its functions, and what is of those.
const OF_TENANTS: [&str; 6] = ["Tenant", "Api", "Account", "ApiKey", "PolicySet", "AuditLog"];
/// What the ARN of a function stands for.
const OF_FUNCTIONS: [&str; 2] = ["Function", "Secret"];

pub(super) fn test(statement: &Statement, side: Side, scope: &mut Scope<'_>) -> Test {
    let element = &statement.resources;
    let inner = if element.not { side.flipped() } else { side };
    let tests = element.listed.iter().map(|pattern| one(pattern, inner, scope)).collect();
    let any = Test::any(tests);
    if element.not { any.not() } else { any }
}

/// The ARNs of functions, up to their names: `arn:aws:lambda:REGION:ACCOUNT:function:` and our own.
fn functions(options: &Options) -> [([&str; 5], &'static str); 2] {
    [(["arn", "aws", "lambda", &options.region, &options.account], "function:"), (OWN, "function/")]
}

fn one(pattern: &str, side: Side, scope: &mut Scope<'_>) -> Test {
    if pattern == "*" {
        return Test::Always;
    }
    if scope.variables && pattern.contains("${") {
        return scope.gap(side, format!("resource `{pattern}`: variables"));
    }
    let segments: Vec<&str> = pattern.splitn(6, ':').collect();
    let Some((last, first)) = segments.split_last().filter(|(_, first)| first.len() == 5) else {
        return scope.gap(side, format!("resource `{pattern}`: it is not an ARN"));
    };
    let is = |known: &[&str; 5]| first.iter().zip(known).all(|(pattern, known)| matches(pattern, known));
    let mut tests = Vec::new();
    for (known, beginning) in functions(scope.options) {
        if is(&known) {
            let rests = rests(last, beginning);
            tests.extend(rests.iter().map(|rest| named(pattern, rest, side, scope)));
        }
    }
    if is(&OWN) && matches(last, "tenant") {
        tests.extend(of(&OF_TENANTS, scope).map(|kind| Test::Is(format!("resource is {kind}"))));
    }
    if tests.is_empty() {
        scope.nothing(format!("resource `{pattern}`"));
    }
    Test::any(tests)
}

/// Those of some kinds that the statement's actions are done to.
fn of<'a>(kinds: &'a [&'a str], scope: &Scope<'_>) -> impl Iterator<Item = &'a str> {
    kinds.iter().copied().filter(|kind| scope.kinds.iter().any(|known| known == kind))
}

/// Functions whose name matches what is left of a pattern.
fn named(pattern: &str, rest: &str, side: Side, scope: &mut Scope<'_>) -> Test {
    let kinds: Vec<_> = of(&OF_FUNCTIONS, scope).collect();
    let function = |test: Test| {
        let of = |kind: &&str| Test::all(vec![Test::Is(format!("resource is {kind}")), test.clone()]);
        Test::any(kinds.iter().map(of).collect())
    };
    let mut rest = rest.to_owned();
    if let Some((name, _)) = rest.split_once(':') {
        // A version or an alias: here a function is one thing.
        if scope.gap(side, format!("resource `{pattern}`: a version or alias of a function")) == Test::Never {
            return Test::Never;
        }
        rest = name.to_owned();
    }
    if rest.contains('?') {
        if scope.gap(side, format!("resource `{pattern}`: `?`")) == Test::Never {
            return Test::Never;
        }
        rest = rest.replace('?', "*");
    }
    if rest.chars().all(|c| c == '*') && !rest.is_empty() {
        return function(Test::Always);
    }
    function(Test::Is(match is_plain(&rest) {
        true => format!("resource.name == {}", quoted(&rest)),
        false => format!("resource.name like {}", quoted(&rest)),
    }))
}
