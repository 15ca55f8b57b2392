//! Under which conditions a statement counts.
//!
//! Owns the operators and what each makes of a key that is not there: one that wants a match fails, one that wants none
//! holds. Must never compare what it cannot read.

use std::net::IpAddr;

use cofferdam_model::UnixNanos;

use super::Scope;
use super::document::{Condition, Statement};
use super::glob::is_plain;
use super::key::{Key, Kind, key};
use super::test::{Side, Test, set};
use crate::explain::quoted;

/// How an operator takes the values of a request.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Over {
    One,
    Any,
    All,
}

/// What an operator compares, whether it wants no match, and whether a key that is not there is well.
struct Operator<'a> {
    base: &'a str,
    negated: bool,
    over: Over,
    if_exists: bool,
}

impl<'a> Operator<'a> {
    fn read(name: &'a str) -> Option<Self> {
        let (over, name) = match name.split_once(':') {
            None => (Over::One, name),
            Some(("ForAnyValue", name)) => (Over::Any, name),
            Some(("ForAllValues", name)) => (Over::All, name),
            Some(_) => return None,
        };
        let (name, if_exists) = name.strip_suffix("IfExists").map_or((name, false), |name| (name, true));
        let (base, negated) = match name {
            "StringNotEquals" => ("StringEquals", true),
            "StringNotEqualsIgnoreCase" => ("StringEqualsIgnoreCase", true),
            "StringNotLike" => ("StringLike", true),
            "NumericNotEquals" => ("NumericEquals", true),
            "DateNotEquals" => ("DateEquals", true),
            "NotIpAddress" => ("IpAddress", true),
            other => (other, false),
        };
        Some(Self { base, negated, over, if_exists })
    }
}

pub(super) fn test(statement: &Statement, side: Side, scope: &mut Scope<'_>) -> Test {
    Test::all(statement.conditions.iter().map(|condition| one(condition, side, scope)).collect())
}

fn one(condition: &Condition, side: Side, scope: &mut Scope<'_>) -> Test {
    let Condition { operator: name, key: asked, values } = condition;
    let gap = |scope: &mut Scope<'_>, why: &str| scope.gap(side, format!("condition `{name}` on `{asked}`: {why}"));
    let Some(operator) = Operator::read(name) else { return gap(scope, "no such operator") };
    let Some(key) = key(asked) else { return gap(scope, "nothing here is known by that key") };
    if let Some(value) = values.iter().find(|value| scope.variables && value.contains("${")) {
        return gap(scope, &format!("the variable in `{value}`"));
    }
    if operator.base == "Null" {
        return null(&operator, key, values).unwrap_or_else(|| gap(scope, "it takes `true` or `false`"));
    }
    if let Kind::Texts(what) = key.is {
        let several = several(&operator, what, values);
        let Some(test) = several else { return gap(scope, "on a key of several values, that cannot be said here") };
        return if operator.if_exists { Test::any(vec![key.present.not(), test]) } else { test };
    }
    let inner = if operator.negated { side.flipped() } else { side };
    let Some(matched) = matched(operator.base, &key.is, (values, inner, &|why| (name, asked, why)), scope) else {
        return gap(scope, "the operator does not go with the key, or not with the value");
    };
    let well = if operator.negated { matched.not() } else { matched };
    // A negated operator holds of a key that is not there, but not where some value has to be found.
    let absent = operator.if_exists || operator.over == Over::All || (operator.negated && operator.over == Over::One);
    if absent { Test::all(vec![key.present, well.not()]).not() } else { Test::all(vec![key.present, well]) }
}

/// Whether a key is there at all.
fn null(operator: &Operator<'_>, key: Key, values: &[String]) -> Option<Test> {
    if operator.over != Over::One || operator.if_exists {
        return None;
    }
    let tests = values.iter().map(|value| match value.as_str() {
        "true" => Some(key.present.clone().not()),
        "false" => Some(key.present.clone()),
        _ => None,
    });
    tests.collect::<Option<_>>().map(Test::any)
}

/// Of a key that has several values, as far as sets can say it.
fn several(operator: &Operator<'_>, what: &str, values: &[String]) -> Option<Test> {
    let plain = operator.base == "StringEquals"
        || (operator.base == "StringLike" && values.iter().all(|value| is_plain(value)));
    let set = set(values);
    let text = match (operator.over, operator.negated) {
        _ if !plain => return None,
        (Over::Any, false) => format!("{what}.containsAny({set})"),
        (Over::Any, true) => format!("!({set}.containsAll({what}))"),
        (Over::All, false) => format!("{set}.containsAll({what})"),
        (Over::All, true) => format!("!({what}.containsAny({set}))"),
        (Over::One, _) => return None,
    };
    Some(Test::Is(text))
}

/// Names an operator, a key, and why one value of it cannot be compared.
type Named<'a> = &'a dyn Fn(&'a str) -> (&'a String, &'a String, &'a str);

/// Whether the value matches any of those listed, taking for granted that it is there; none where the two cannot be
/// compared.
fn matched(
    base: &str,
    kind: &Kind,
    (values, side, named): (&[String], Side, Named<'_>),
    scope: &mut Scope<'_>,
) -> Option<Test> {
    let mut lost = |why: &'static str, value: &String| {
        let (name, asked, why) = named(why);
        scope.gap(side, format!("condition `{name}` on `{asked}`: {why} in `{value}`"))
    };
    let each = |one: &dyn Fn(&String) -> Option<Test>| values.iter().map(one).collect::<Option<_>>().map(Test::any);
    match (base, kind) {
        ("StringEquals", Kind::Text(what)) => Some(Test::one_of(what, values)),
        ("StringEqualsIgnoreCase", Kind::Text(what)) => {
            Some(Test::any(values.iter().map(|value| ignoring_case(what, value, side, &mut lost)).collect()))
        }
        ("StringLike", Kind::Text(what)) => {
            let (plain, patterns): (Vec<_>, Vec<_>) = values.iter().cloned().partition(|value| is_plain(value));
            let mut tests = vec![Test::one_of(what, &plain)];
            tests.extend(patterns.iter().map(|pattern| match (pattern.contains('?'), side) {
                (false, _) => Test::Is(format!("{what} like {}", quoted(pattern))),
                (true, Side::Under) => lost("`?`", pattern),
                (true, Side::Over) => {
                    let _ = lost("`?`", pattern);
                    Test::Is(format!("{what} like {}", quoted(&pattern.replace('?', "*"))))
                }
            }));
            Some(Test::any(tests))
        }
        ("Bool", Kind::Flag(flag)) => each(&|value| match value.to_ascii_lowercase().as_str() {
            "true" => Some(flag.clone()),
            "false" => Some(flag.clone().not()),
            _ => None,
        }),
        ("IpAddress", Kind::Address) => {
            each(&|value| network(value).then(|| Test::Is(format!("context.source.isInRange(ip({}))", quoted(value)))))
        }
        (base, Kind::Moment) => each(&|value| moment(base.strip_prefix("Date")?, value)),
        (base, Kind::Seconds) => each(&|value| seconds(base.strip_prefix("Numeric")?, value)),
        _ => None,
    }
}

/// Equality where case does not count: exact where the value has none, else approached.
fn ignoring_case(what: &str, value: &String, side: Side, lost: &mut dyn FnMut(&'static str, &String) -> Test) -> Test {
    if value.chars().all(|c| c.is_ascii() && !c.is_ascii_alphabetic()) {
        return Test::one_of(what, std::slice::from_ref(value));
    }
    let constant = lost("letters of either case", value);
    // As it is written is one of the cases it may have.
    if side == Side::Under { Test::one_of(what, std::slice::from_ref(value)) } else { constant }
}

/// Whether a text is an address or a network, as both IAM and Cedar write it.
fn network(text: &str) -> bool {
    let (address, prefix) = text.split_once('/').map_or((text, None), |(address, prefix)| (address, Some(prefix)));
    let Ok(parsed) = address.parse::<IpAddr>() else { return false };
    let most = if parsed.is_ipv4() { 32 } else { 128 };
    let plain = |prefix: &str| prefix == "0" || !prefix.starts_with('0');
    // An IPv4 address in IPv6's clothes is an IPv6 address here, and was something else there.
    let mapped = matches!(parsed, IpAddr::V6(address) if address.to_ipv4_mapped().is_some());
    !mapped && prefix.is_none_or(|prefix| plain(prefix) && prefix.parse::<u8>().is_ok_and(|bits| bits <= most))
}

/// A moment as Cedar writes it.
fn datetime(milliseconds: u64) -> Option<String> {
    let shown = UnixNanos(milliseconds.checked_mul(1_000_000)?).to_string();
    Some(format!("datetime(\"{}Z\")", shown.get(..23)?))
}

fn moment(how: &str, value: &str) -> Option<Test> {
    // A date, a date with a time, or seconds since 1970.
    let digits = !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit());
    let at = match digits {
        true => UnixNanos(value.parse::<u64>().ok()?.checked_mul(1_000_000_000)?),
        false => UnixNanos::parse(value).or_else(|| UnixNanos::parse(&format!("{value}T00:00:00Z")))?,
    };
    let exact = at.0 % 1_000_000 == 0;
    let at = datetime(at.0 / 1_000_000).filter(|_| exact)?;
    let how = match how {
        "Equals" => "==",
        "LessThan" => "<",
        "LessThanEquals" => "<=",
        "GreaterThan" => ">",
        "GreaterThanEquals" => ">=",
        _ => return None,
    };
    Some(Test::Is(format!("context.now {how} {at}")))
}

/// Whole seconds: a moment is in the second that has begun.
fn seconds(how: &str, value: &str) -> Option<Test> {
    let begins: u64 = value.parse().ok().filter(|_| value.bytes().all(|b| b.is_ascii_digit()))?;
    let (this, next) = (datetime(begins.checked_mul(1000)?)?, datetime(begins.checked_add(1)?.checked_mul(1000)?)?);
    Some(Test::Is(match how {
        "Equals" => format!("(context.now >= {this} && context.now < {next})"),
        "LessThan" => format!("context.now < {this}"),
        "LessThanEquals" => format!("context.now < {next}"),
        "GreaterThan" => format!("context.now >= {next}"),
        "GreaterThanEquals" => format!("context.now >= {this}"),
        _ => return None,
    }))
}
