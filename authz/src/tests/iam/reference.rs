//! What IAM's documentation says a document means, written a second time.
//!
//! Owns an evaluator that works on the JSON and on plain texts, and shares no line with the importer. Must never be
//! made to agree with it: where the two differ, the documentation decides.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde_json::Value;

pub(super) const ACCOUNT: &str = "123456789012";
pub(super) const REGION: &str = "eu-central-1";

/// A call as IAM would be told of it.
#[derive(Debug, Clone)]
pub(super) struct Call {
    pub(super) action: &'static str,
    /// Name of the function; none for the tenant.
    pub(super) function: Option<String>,
    /// `user`, `account` or `anonymous`.
    pub(super) kind: &'static str,
    pub(super) id: String,
    pub(super) roles: Vec<String>,
    /// Whether `${...}` stands for something, which is for the document to say.
    pub(super) variables: bool,
    /// Keys in lower case. One that is not there is not there.
    pub(super) keys: BTreeMap<String, Vec<String>>,
}

/// To whom a document without principals is attached.
#[derive(Debug, Clone)]
pub(super) enum Holder {
    Resource,
    Role(String),
    User(String),
    Account(String),
}

/// Whether the documents of one holder allow a call.
pub(super) fn allows(document: &Value, holder: &Holder, call: &Call) -> bool {
    // Without a version it is the old one, in which variables are texts like others.
    let call = &Call { variables: document["Version"] == "2012-10-17", ..call.clone() };
    let attached = match holder {
        Holder::Resource => true,
        Holder::Role(role) => call.roles.contains(role),
        Holder::User(id) => call.kind == "user" && call.id == *id,
        Holder::Account(id) => call.kind == "account" && call.id == *id,
    };
    let statements = match &document["Statement"] {
        Value::Array(all) => all.clone(),
        one => vec![one.clone()],
    };
    let of =
        |effect: &str| statements.iter().any(|one| one["Effect"] == effect && matches(one, effect == "Allow", call));
    attached && of("Allow") && !of("Deny")
}

fn matches(statement: &Value, allow: bool, call: &Call) -> bool {
    principal(statement, allow, call) && action(statement, allow, call) && resource(statement, call) && {
        let none = serde_json::Map::new();
        let blocks = statement["Condition"].as_object().unwrap_or(&none);
        blocks.iter().all(|(operator, keys)| {
            keys.as_object().unwrap().iter().all(|(key, values)| condition(operator, key, &list(values), call))
        })
    }
}

fn list(value: &Value) -> Vec<String> {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    value.as_array().map_or_else(|| vec![text(value)], |all| all.iter().map(text).collect())
}

/// What a star and a question mark are where a variable says that they are themselves.
const STAR: char = '\u{1}';
const MARK: char = '\u{2}';

fn plain(text: &str) -> String {
    text.replace(STAR, "*").replace(MARK, "?")
}

/// `*` any characters, `?` one.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern.split_first(), text.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), _) if glob(rest, text) => true,
        (Some((b'*', _)), Some((_, tail))) => glob(pattern, tail),
        (Some((b'?', rest)), Some((_, tail))) => glob(rest, tail),
        (Some((1, rest)), Some((b'*', tail))) | (Some((2, rest)), Some((b'?', tail))) => glob(rest, tail),
        (Some((a, rest)), Some((b, tail))) => a == b && glob(rest, tail),
        _ => false,
    }
}

/// The names an action goes by, and those of which it does a part.
fn names(action: &str) -> (Vec<String>, &'static [&'static str]) {
    let (same, part): (&[&str], &[&str]) = match action {
        "Invoke" => {
            (&["lambda:InvokeFunction", "execute-api:Invoke"], &["lambda:InvokeAsync", "lambda:InvokeFunctionUrl"])
        }
        "PublishVersion" => (&["lambda:UpdateFunctionCode"], &["lambda:PublishVersion"]),
        "RemoveFunction" => (&["lambda:DeleteFunction"], &[]),
        "PutFunction" => {
            (&[], &["lambda:CreateFunction", "lambda:UpdateFunctionConfiguration", "lambda:PutFunctionConcurrency"])
        }
        "ReadTenant" => (&[], &["lambda:GetFunction", "lambda:ListFunctions"]),
        "ReadLogs" => (&[], &["logs:GetLogEvents", "logs:FilterLogEvents"]),
        _ => (&[], &[]),
    };
    let mut all = vec![format!("cofferdam:{action}")];
    all.extend(same.iter().map(ToString::to_string));
    (all, part)
}

fn action(statement: &Value, allow: bool, call: &Call) -> bool {
    let (same, part) = names(call.action);
    let hit = |name: &str, patterns: &[String]| {
        patterns.iter().any(|p| glob(p.to_lowercase().as_bytes(), name.to_lowercase().as_bytes()))
    };
    let surely = |patterns: &[String]| same.iter().any(|name| hit(name, patterns));
    let maybe = |patterns: &[String]| surely(patterns) || part.iter().any(|name| hit(name, patterns));
    match (statement.get("Action"), statement.get("NotAction"), allow) {
        (Some(listed), _, true) => surely(&list(listed)),
        (Some(listed), _, false) => maybe(&list(listed)),
        (None, Some(listed), true) => !maybe(&list(listed)),
        (None, Some(listed), false) => !surely(&list(listed)),
        (None, None, _) => unreachable!("a statement without an action is not made"),
    }
}

/// Puts in what variables stand for; none where that is not there.
fn filled(text: &str, call: &Call) -> Option<String> {
    if !call.variables {
        return Some(text.to_owned());
    }
    let (mut out, mut rest) = (String::new(), text);
    while let Some((before, more)) = rest.split_once("${") {
        let (name, after) = more.split_once('}')?;
        let (name, default) = name.split_once(',').map_or((name, None), |(name, rest)| (name, Some(rest.trim())));
        out += before;
        match name.trim() {
            "*" => out.push(STAR),
            "?" => out.push(MARK),
            "$" => out.push('$'),
            name => match call.keys.get(&name.to_lowercase()).map(Vec::as_slice) {
                // What came with the call is no pattern.
                Some([one]) => out += &one.replace('*', &STAR.to_string()).replace('?', &MARK.to_string()),
                Some(_) => return None,
                None => out += default?.trim_matches('\''),
            },
        }
        rest = after;
    }
    Some(out + rest)
}

fn resource(statement: &Value, call: &Call) -> bool {
    let arns = match &call.function {
        Some(name) => vec![
            format!("arn:aws:lambda:{REGION}:{ACCOUNT}:function:{name}"),
            format!("arn:cofferdam:node:::function/{name}"),
        ],
        None => vec!["arn:cofferdam:node:::tenant".to_owned()],
    };
    let hit = |listed: &Value| {
        list(listed).iter().filter_map(|text| filled(text, call)).any(|pattern| {
            pattern == "*"
                || arns.iter().any(|arn| {
                    let (pattern, arn): (Vec<_>, Vec<_>) =
                        (pattern.splitn(6, ':').collect(), arn.splitn(6, ':').collect());
                    pattern.len() == 6 && pattern.iter().zip(arn).all(|(p, a)| glob(p.as_bytes(), a.as_bytes()))
                })
        })
    };
    statement.get("Resource").map_or_else(|| !hit(&statement["NotResource"]), hit)
}

fn principal(statement: &Value, allow: bool, call: &Call) -> bool {
    let root = [ACCOUNT.to_owned(), format!("arn:aws:iam::{ACCOUNT}:root")];
    let pairs = |listed: &Value| -> Vec<(String, String)> {
        match listed {
            Value::Object(kinds) => {
                kinds.iter().flat_map(|(kind, names)| list(names).into_iter().map(move |n| (kind.clone(), n))).collect()
            }
            star => list(star).into_iter().map(|name| ("AWS".to_owned(), name)).collect(),
        }
    };
    let is = |(kind, name): &(String, String)| {
        let mut own: Vec<_> = call.roles.iter().map(|role| format!("arn:aws:iam::{ACCOUNT}:role/{role}")).collect();
        if call.kind == "user" {
            own.push(format!("arn:aws:iam::{ACCOUNT}:user/{}", call.id));
        }
        kind == "AWS" && (name == "*" || own.contains(name))
    };
    match (statement.get("Principal"), statement.get("NotPrincipal")) {
        (None, None) => true,
        // An account that is allowed decides for its own by its own policies; one that is denied is denied whole.
        (Some(listed), _) => {
            let pairs = pairs(listed);
            let whole = !allow && call.kind != "anonymous" && pairs.iter().any(|(_, name)| root.contains(name));
            whole || pairs.iter().any(is)
        }
        (None, Some(listed)) => {
            let pairs = pairs(listed);
            let spared = pairs.iter().any(is);
            !(spared && (allow || pairs.iter().any(|(_, name)| root.contains(name))))
        }
    }
}

fn condition(name: &str, key: &str, values: &[String], call: &Call) -> bool {
    let (over, operator) = name.split_once(':').map_or((None, name), |(over, rest)| (Some(over), rest));
    let (operator, if_exists) = operator.strip_suffix("IfExists").map_or((operator, false), |o| (o, true));
    let there = call.keys.get(&key.to_lowercase()).filter(|values| !values.is_empty());
    if operator == "Null" {
        return values.iter().any(|value| (value == "true") == there.is_none());
    }
    let negated = operator.contains("Not");
    let positive = operator.replacen("Not", "", 1);
    let filled: Vec<_> = values.iter().filter_map(|value| filled(value, call)).collect();
    let well = |given: &String| filled.iter().any(|value| compare(&positive, given, value)) != negated;
    match (there, over) {
        (None, Some("ForAllValues")) => true,
        (None, Some(_)) => if_exists,
        (None, None) => negated || if_exists,
        (Some(given), Some("ForAllValues")) => given.iter().all(well),
        (Some(given), _) => given.iter().any(well),
    }
}

fn compare(operator: &str, given: &str, value: &str) -> bool {
    let ordered = |how: &str, order: std::cmp::Ordering| match how {
        "Equals" => order.is_eq(),
        "LessThan" => order.is_lt(),
        "LessThanEquals" => order.is_le(),
        "GreaterThan" => order.is_gt(),
        "GreaterThanEquals" => order.is_ge(),
        other => unreachable!("{other}"),
    };
    match operator {
        "StringEquals" => given == plain(value),
        "StringEqualsIgnoreCase" => given.to_lowercase() == plain(value).to_lowercase(),
        "StringLike" => glob(value.as_bytes(), given.as_bytes()),
        "Bool" => given == value.to_lowercase(),
        "IpAddress" => inside(given, value),
        _ => match (operator.strip_prefix("Numeric"), operator.strip_prefix("Date")) {
            (Some(how), _) => {
                let number = |text: &str| text.parse::<f64>();
                number(given).is_ok_and(|a| number(value).is_ok_and(|b| ordered(how, a.partial_cmp(&b).unwrap())))
            }
            (_, Some(how)) => milliseconds(value).is_some_and(|b| ordered(how, milliseconds(given).unwrap().cmp(&b))),
            _ => false,
        },
    }
}

fn inside(given: &str, network: &str) -> bool {
    let (base, bits) = network.split_once('/').unwrap_or((network, ""));
    let number = |text: &str| match text.parse::<IpAddr>() {
        Ok(IpAddr::V4(a)) => Some((32, u128::from(a.to_bits()))),
        Ok(IpAddr::V6(a)) => Some((128, a.to_bits())),
        Err(_) => None,
    };
    let (Some((width, a)), Some((other, b))) = (number(given), number(base)) else { return false };
    let bits: u32 = if bits.is_empty() { width } else { bits.parse().unwrap_or(999) };
    width == other && bits <= width && (width - bits >= 128 || a >> (width - bits) == b >> (width - bits))
}

/// Of `2026-11-20`, `2026-11-20T10:00:00Z`, the same with milliseconds, and seconds since 1970.
fn milliseconds(text: &str) -> Option<i64> {
    if text.bytes().all(|b| b.is_ascii_digit()) {
        return text.parse::<i64>().ok()?.checked_mul(1000);
    }
    let (date, time) = text.trim_end_matches('Z').split_once('T').unwrap_or((text, "00:00:00"));
    let date: Vec<i64> = date.split('-').map(|part| part.parse().ok()).collect::<Option<_>>()?;
    let (clock, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let clock: Vec<i64> = clock.split(':').map(|part| part.parse().ok()).collect::<Option<_>>()?;
    let ([year, month, day], [hour, minute, second]) = (&date[..], &clock[..]) else { return None };
    // Days of the civil calendar, counted from March.
    let (y, m) = if *month > 2 { (*year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * y + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day - 1 - 719_468;
    let thousandths: i64 = format!("{fraction:0<3}").get(..3)?.parse().ok()?;
    Some(((days * 24 + hour) * 60 + minute) * 60_000 + second * 1000 + thousandths)
}
