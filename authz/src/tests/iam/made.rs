//! Documents and calls that only depend on a number.
//!
//! Owns what they are made of: for each part of IAM's language something that has a counterpart here and something
//! that has none. Must never leave out what is hard.

use std::collections::BTreeMap;

use cofferdam_model::{
    Action, Bound, Circumstances, CredentialKind, FunctionId, KeyId, Operation, PrincipalKind, Resource, TenantId,
    TlsVersion, UnixNanos,
};
use serde_json::{Value, json};

use super::reference::Call;
use crate::iam::action::of_callers;
use crate::tests::circumstances;
use crate::{Authorizer, Principal, Supposed};

/// Numbers that only depend on where they began.
pub(super) struct Dice {
    pub(super) state: u64,
    /// Whether only what has a counterpart is rolled: the beginning of each list.
    pub(super) plain: bool,
}

impl Dice {
    pub(super) fn roll(&mut self, sides: usize) -> usize {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % sides as u64).unwrap()
    }

    fn one<'a, T: ?Sized>(&mut self, all: &[&'a T]) -> &'a T {
        all[self.roll(all.len())]
    }

    /// A value, or a list of a few; of the first so many where all shall be plain.
    fn some(&mut self, all: &[&str], plain: usize) -> Value {
        let all = if self.plain { &all[..plain] } else { all };
        match self.roll(3) {
            0 => json!([self.one(all), self.one(all)]),
            1 => json!([self.one(all), self.one(all), self.one(all)]),
            _ => json!(self.one(all)),
        }
    }
}

const ACTIONS: (&[&str], usize) = (
    &[
        "*",
        "cofferdam:*",
        "cofferdam:Invoke",
        "cofferdam:invoke",
        "cofferdam:Put*",
        "cofferdam:Re?d*",
        "lambda:InvokeFunction",
        "execute-api:Invoke",
        "lambda:DeleteFunction",
        "cofferdam:ReadTenant",
        "lambda:*",
        "lambda:CreateFunction",
        "s3:*",
        "LAMBDA:invoke??nction",
        "cofferdam:${aws:username}",
        "*:*",
    ],
    10,
);
const RESOURCES: (&[&str], usize) = (
    &[
        "*",
        "arn:aws:lambda:*:*:function:*",
        "arn:aws:lambda:eu-central-1:123456789012:function:orders",
        "arn:aws:lambda:*:*:function:or*",
        "arn:aws:lambda:*:*:f*s",
        "arn:cofferdam:node:::function/pay",
        "arn:cofferdam:node:::tenant",
        "arn:*:*:*:*:*",
        "arn:cofferdam:*:::*",
        "arn:aws:lambda:*:*:func*orders*",
        "arn:aws:lambda:us-east-1:*:function:orders",
        "arn:aws:lambda:eu-*-?:*6789*:function:*de*",
        "arn:aws:lambda:*:*:function:Orders",
        "ARN:aws:lambda:*:*:function:orders",
        "**",
        "arn:aws:lambda:*",
        "arn:aws:lambda:*:*:function:${*}",
        "arn:aws:lambda:*:*:function:orders:*",
        "arn:aws:s3:::x",
        "orders",
        "arn:aws:lambda:*:*:function:pa?",
        "arn:aws:lambda:*:*:function:${aws:username}",
    ],
    10,
);
const PRINCIPALS: (&[&str], usize) = (
    &[
        "arn:aws:iam::123456789012:user/alice",
        "arn:aws:iam::123456789012:role/ops",
        "arn:aws:iam::123456789012:role/dev",
        "*",
        "arn:aws:iam::123456789012:root",
        "123456789012",
        "arn:aws:iam::999999999999:user/alice",
        "arn:aws:iam::123456789012:user/*",
    ],
    4,
);
/// Those whose values all have a counterpart come first.
const TEXTS: [(&str, &[&str]); 8] = [
    ("cofferdam:Issuer", &["https://a", "https://b", "https://*"]),
    ("cofferdam:FunctionName", &["orders", "pay", "*a*", "Orders"]),
    ("cofferdam:Method", &["GET", "POST", "P*", "get"]),
    ("Cofferdam:PATH", &["/orders/1", "/orders/*", "/", "/a\"b\\c", "/a\"b\\*", "*'\u{e9}*", "/Orders/1"]),
    ("cofferdam:TLS", &["1.2", "1.3", "1.*"]),
    ("aws:username", &["alice", "bob", "al*", "Alice", "?lice"]),
    ("aws:PrincipalTag/team", &["x", "*"]),
    ("cofferdam:PrincipalId", &["alice", "robot", "${aws:username}", "${aws:username, 'bob'}", "${*}", "*${$}*"]),
];

/// Networks; those that have a counterpart come first.
const NETWORKS: &[&str] = &[
    "192.0.2.0/24",
    "192.0.2.7",
    "2001:db8::/32",
    "0.0.0.0/0",
    "10.0.0.0/8",
    "192.0.2.9/24",
    "::/0",
    "192.0.2.0/024",
    "x",
    "192.0.2.0/33",
    "::ffff:192.0.2.7",
];
/// How moments are compared.
const DATES: &[&str] =
    &["DateLessThan", "DateGreaterThanEquals", "DateEquals", "DateNotEquals", "DateLessThanEquals", "DateGreaterThan"];
/// Moments likewise.
const MOMENTS: &[&str] =
    &["2026-11-20T10:38:00Z", "2026-11-20", "2026-11-20T10:38:00.500Z", "2027-01-01T00:00:00Z", "1795171080", "noon"];
/// How numbers are compared.
const NUMBERS: &[&str] = &[
    "NumericLessThan",
    "NumericGreaterThan",
    "NumericEquals",
    "NumericNotEquals",
    "NumericGreaterThanEquals",
    "NumericLessThanEquals",
];
/// How texts are compared; those that have a counterpart come first.
const BASES: &[&str] = &[
    "StringEquals",
    "StringNotEquals",
    "StringLike",
    "StringNotLike",
    "StringEqualsIgnoreCase",
    "StringNotEqualsIgnoreCase",
    // What nothing here is compared by, and what is no operator at all.
    "ArnLike",
    "BinaryEquals",
    "stringequals",
];

fn condition(dice: &mut Dice) -> (String, String, Value) {
    let over = dice.one(&["", "", "", "ForAnyValue:", "ForAllValues:"]);
    let exists = dice.one(&["", "", "IfExists"]);
    let named = |base: &str| format!("{over}{base}{exists}");
    match dice.roll(9) {
        0 => {
            let base = dice.one(&["IpAddress", "NotIpAddress"]);
            (named(base), "aws:SourceIp".into(), dice.some(NETWORKS, 7))
        }
        1 => {
            let base = dice.one(DATES);
            (named(base), "aws:CurrentTime".into(), dice.some(MOMENTS, 5))
        }
        2 => {
            let base = dice.one(NUMBERS);
            let numbers = &["1795171080", "1795171079", "1795171081", "01795171080", "1.5", "-1", "1e9"];
            let values = dice.some(numbers, 4);
            // A number may be written as one.
            let values = if values == "1795171080" { json!(1_795_171_080) } else { values };
            (named(base), "aws:EpochTime".into(), values)
        }
        3 => (
            named("Bool"),
            dice.one(&["aws:SecureTransport", "cofferdam:Public"]).to_owned(),
            match dice.roll(4) {
                0 => json!(true),
                1 => json!([false]),
                _ => dice.some(&["true", "false", "True"], 3),
            },
        ),
        4 => {
            let keys =
                ["aws:username", "cofferdam:Issuer", "cofferdam:Roles", "cofferdam:FunctionName", "aws:SourceIp"];
            let name =
                if dice.plain { "Null" } else { dice.one(&["Null", "Null", "NullIfExists", "ForAnyValue:Null"]) };
            (name.to_owned(), dice.one(&keys).to_owned(), dice.some(&["true", "false"], 2))
        }
        5 | 6 => {
            let base = dice.one(&["StringEquals", "StringNotEquals", "StringLike"]);
            // Without a word on which of the values, it has no counterpart.
            let over = if dice.plain { dice.one(&["ForAnyValue:", "ForAllValues:"]) } else { over };
            (
                format!("{over}{base}{exists}"),
                "cofferdam:Roles".to_owned(),
                dice.some(&["ops", "dev", "admin", "o*"], 3),
            )
        }
        _ => {
            let (key, values) = TEXTS[dice.roll(if dice.plain { 5 } else { TEXTS.len() })];
            let base = dice.one(if dice.plain { &BASES[..4] } else { BASES });
            (named(base), key.to_owned(), dice.some(values, values.len()))
        }
    }
}

pub(super) fn statement(dice: &mut Dice, resource_policy: bool) -> Value {
    let mut made = json!({ "Effect": dice.one(&["Allow", "Allow", "Deny"]) });
    match dice.roll(4) {
        0 => made["Sid"] = json!(dice.one(&["Same", "same!", ""])),
        1 => made["Sid"] = json!(format!("Own{}", dice.roll(1000))),
        _ => {}
    }
    let not = |dice: &mut Dice, name: &str| if dice.roll(4) == 0 { format!("Not{name}") } else { name.to_owned() };
    let name = not(dice, "Action");
    made[name] = dice.some(ACTIONS.0, ACTIONS.1);
    let name = not(dice, "Resource");
    made[name] = dice.some(RESOURCES.0, RESOURCES.1);
    if resource_policy {
        let name = if dice.plain { "Principal".to_owned() } else { not(dice, "Principal") };
        made[name] = match dice.roll(6) {
            0 => json!("*"),
            1 if !dice.plain => {
                json!({ "Service": "events.amazonaws.com", "AWS": dice.some(PRINCIPALS.0, PRINCIPALS.1) })
            }
            _ => json!({ "AWS": dice.some(PRINCIPALS.0, PRINCIPALS.1) }),
        };
    }
    for _ in 0..dice.roll(if dice.plain { 3 } else { 4 }) {
        let (operator, key, values) = condition(dice);
        made["Condition"][operator][key] = values;
    }
    made
}

pub(super) struct Asked {
    action: Action,
    tenant: TenantId,
    kind: &'static str,
    function: Option<String>,
    public: bool,
}

impl Asked {
    fn of_tenant(&self) -> Resource {
        let (tenant, name) = (self.tenant.clone(), "x".to_owned());
        match self.kind {
            "Api" => Resource::Api { tenant, name },
            "Account" => Resource::Account { tenant, name, roles: vec!["ops".into()] },
            "ApiKey" => Resource::ApiKey(KeyId::parse(&format!("{tenant}.k_0000000000000000")).unwrap()),
            "PolicySet" => Resource::PolicySet { tenant, policy: name },
            "AuditLog" => Resource::AuditLog(tenant),
            _ => Resource::Tenant(tenant),
        }
    }
}

impl Operation for Asked {
    fn action(&self) -> Action {
        self.action
    }
    fn tenant(&self) -> TenantId {
        self.tenant.clone()
    }
    fn resource(&self) -> Resource {
        match &self.function {
            Some(name) => {
                let id = FunctionId::parse(&format!("{}.f_0000000000000000", self.tenant)).unwrap();
                match self.kind {
                    "Secret" => {
                        Resource::Secret { function: id, function_name: name.as_str().into(), name: "KEY".into() }
                    }
                    _ => Resource::Function { id, name: name.as_str().into() },
                }
            }
            None => self.of_tenant(),
        }
    }
    fn public(&self) -> bool {
        self.public
    }
}

/// What both sides are told.
type Told = (Call, Principal, Asked, Circumstances);

/// One call, as both sides are told of it.
pub(super) fn call(dice: &mut Dice, authorizer: &Authorizer, tenant: &TenantId) -> Told {
    let ours: Vec<_> = Action::ALL.iter().copied().filter(|action| of_callers(authorizer, *action)).collect();
    let action = if dice.roll(2) == 0 { Action::Invoke } else { ours[dice.roll(ours.len())] };
    let function = authorizer.about_functions(action).then(|| dice.one(&["orders", "pay", "a"]).to_owned());
    let anonymous = action == Action::Invoke && dice.roll(5) == 0;
    let (kind, named) = match (anonymous, dice.roll(2)) {
        (true, _) => (PrincipalKind::Anonymous, "anonymous"),
        (false, 0) => (PrincipalKind::User, "user"),
        (false, _) => (PrincipalKind::ServiceAccount, "account"),
    };
    let id = if anonymous { "anonymous" } else { dice.one(&["alice", "bob", "robot"]) };
    let issuer = (kind == PrincipalKind::User && dice.roll(3) > 0).then(|| dice.one(&["https://a", "https://b"]));
    let mut roles: Vec<String> = Vec::new();
    if !anonymous {
        roles.extend(["ops", "dev"].iter().filter(|_| dice.roll(2) == 0).map(ToString::to_string));
    }
    let milliseconds = 1_795_171_080_000 + [0, 500, 1000, 86_400_000][dice.roll(4)] - [0, 1, 1000][dice.roll(3)];
    let at = UnixNanos(milliseconds * 1_000_000);
    let around = Circumstances {
        source: dice.one(&["192.0.2.7", "192.0.2.8", "2001:db8::1", "10.1.2.3"]).parse().unwrap(),
        tls: if dice.roll(3) == 0 { TlsVersion::Tls12 } else { TlsVersion::Tls13 },
        method: dice.one(&["GET", "POST", "PUT"]).into(),
        path: dice.one(&["/orders/1", "/", "/pay", "/a\"b\\c", "/o'\u{e9}"]).into(),
        at,
        ..circumstances()
    };
    let kinds = ["Function", "Secret", "Tenant", "Api", "Account", "ApiKey", "PolicySet", "AuditLog"];
    let kind_of = *kinds.iter().find(|kind| authorizer.done_to(action) == Some(**kind)).unwrap();
    let public = dice.roll(2) == 0;
    let asked = Asked { action, tenant: tenant.clone(), kind: kind_of, function: function.clone(), public };
    let mut keys = BTreeMap::new();
    let mut tell = |key: &str, value: Option<&str>| {
        if let Some(value) = value {
            keys.insert(key.to_owned(), vec![value.to_owned()]);
        }
    };
    tell("aws:sourceip", Some(&around.source.to_string()));
    tell("aws:currenttime", Some(&format!("{}Z", at.to_string().get(..23).unwrap())));
    tell("aws:epochtime", Some(&(milliseconds / 1000).to_string()));
    tell("aws:securetransport", Some("true"));
    tell("aws:username", (kind == PrincipalKind::User).then_some(id));
    tell("cofferdam:principalid", Some(id));
    tell("cofferdam:issuer", issuer);
    tell("cofferdam:functionname", function.as_deref());
    tell("cofferdam:method", Some(&around.method));
    tell("cofferdam:path", Some(&around.path));
    tell("cofferdam:tls", Some(around.tls.as_str()));
    tell("cofferdam:public", Some(if asked.public { "true" } else { "false" }));
    // Nothing here knows of it: whatever it is there, nothing may be allowed for it here.
    tell("aws:principaltag/team", [None, Some("x"), Some("y")][dice.roll(3)]);
    keys.insert("cofferdam:roles".to_owned(), roles.clone());
    let credential = if anonymous { CredentialKind::None } else { CredentialKind::Jwt };
    let home = (!anonymous).then(|| tenant.clone());
    let principal = Principal::supposed(Supposed {
        kind,
        id: id.to_owned(),
        issuer: issuer.map(str::to_owned),
        tenant: home,
        roles: roles.clone(),
        groups: vec![],
        credential,
        bound: Bound::None,
        scopes: None,
        certificate: None,
        session: None,
    });
    let (id, action) = (id.to_owned(), action.as_str());
    (Call { action, function, kind: named, id, roles, variables: false, keys }, principal, asked, around)
}
