//! Taking over documents of IAM: what is translated, what is refused, and that nothing is ever widened.

mod reference;

use std::collections::BTreeMap;
use std::str::FromStr;

use cedar_policy::{Decision, PolicySet, Schema};
use cofferdam_model::{
    Action, Bound, Circumstances, CredentialKind, FunctionId, KeyId, Operation, PrincipalKind, Resource, TenantId,
    TlsVersion, UnixNanos,
};
use serde_json::{Value, json};

use self::reference::{ACCOUNT, Call, Holder, REGION};
use super::{World, circumstances};
use crate::entities::{Home, Vocabulary};
use crate::iam::action::of_callers;
use crate::iam::{Attached, Imported, Options, import};
use crate::policy::index::Bits;
use crate::schema::SCHEMA;
use crate::{Authorizer, IamError, Principal, Supposed};

fn options(holder: &Holder) -> Options {
    let attached = match holder {
        Holder::Resource => None,
        Holder::Role(role) => Some(Attached::Role(role.clone())),
        Holder::User(id) => Some(Attached::User(id.clone())),
        Holder::Account(id) => Some(Attached::Account(id.clone())),
    };
    Options { attached, account: ACCOUNT.to_owned(), region: REGION.to_owned() }
}

fn taken(document: &Value, holder: &Holder) -> Result<Imported, IamError> {
    let authorizer = Authorizer::new().unwrap();
    import(&authorizer, &World::new().acme, document.to_string().as_bytes(), &options(holder))
}

fn one(statement: Value) -> Value {
    json!({ "Version": "2012-10-17", "Statement": statement })
}

#[test]
fn a_document_becomes_the_policy_one_would_write() {
    let document = one(json!({
        "Sid": "CallOrders", "Effect": "Allow", "Action": "lambda:InvokeFunction",
        "Resource": "arn:aws:lambda:*:*:function:orders*",
        "Condition": { "IpAddress": { "aws:SourceIp": "198.51.100.0/24" } },
    }));
    let imported = taken(&document, &Holder::Role("ops".into())).unwrap();
    assert!(imported.refused.is_empty(), "{:?}", imported.refused);
    let expected = "@id(\"callorders\")\n@sid(\"CallOrders\")\npermit (\n    principal in Role::\"ops\",\n    \
        action in [Action::\"Invoke\"],\n    resource\n)\nwhen { ((resource is Function && resource.name like \
        \"orders*\") && context.source.isInRange(ip(\"198.51.100.0/24\"))) };\n";
    assert_eq!(imported.text, expected);
}

#[test]
fn what_has_no_counterpart_is_named_and_an_allow_of_it_is_left_out() {
    for (statement, named) in [
        (json!({ "Action": "s3:GetObject", "Resource": "*" }), "s3:GetObject"),
        (json!({ "Action": "*", "Resource": "arn:aws:s3:::bucket/*" }), "arn:aws:s3:::bucket/*"),
        (json!({ "Action": "*", "Resource": "arn:aws:lambda:*:*:function:a?" }), "`?`"),
        (
            json!({ "Action": "*", "Resource": "*", "Condition": { "StringEquals": { "aws:PrincipalTag/x": "1" } } }),
            "aws:PrincipalTag/x",
        ),
        (json!({ "Action": "*", "Resource": "*", "Condition": { "ArnLike": { "cofferdam:Path": "1" } } }), "ArnLike"),
        (
            json!({ "Action": "*", "Resource": "*", "Condition": { "StringLike": { "cofferdam:Path": "${aws:x}" } } }),
            "variable",
        ),
        (json!({ "Action": "lambda:CreateFunction", "Resource": "*" }), "lambda:CreateFunction"),
    ] {
        let mut statement = statement;
        statement["Effect"] = "Allow".into();
        let imported = taken(&one(statement.clone()), &Holder::Role("ops".into())).unwrap();
        assert_eq!((imported.statements, imported.text.as_str()), (0, ""), "{statement}");
        assert!(imported.refused.iter().any(|refused| refused.what.contains(named)), "{:?}", imported.refused);
        // A `Deny` of it is not lost with it, unless there is nothing here it could be about.
        statement["Effect"] = "Deny".into();
        let imported = taken(&one(statement.clone()), &Holder::Role("ops".into())).unwrap();
        assert_eq!(imported.statements, usize::from(!named.contains("s3:")), "{statement}: {}", imported.text);
    }
}

#[test]
fn what_is_no_document_is_refused_with_its_place() {
    let good = r#""Effect":"Allow","Action":"*","Resource":"*""#;
    for (text, said) in [
        ("{".to_owned(), "line 1"),
        (format!(r#"{{"Statement":{{{good},"Effect":"Deny"}}}}"#), "twice"),
        (format!(r#"{{"Statement":{{{good}}},"Statemant":1}}"#), "Statemant"),
        (format!(r#"{{"Version":"2020-01-01","Statement":{{{good}}}}}"#), "Version"),
        (format!(r#"{{"Statement":[{{{good}}},{{{good},"NotAction":"x"}}]}}"#), "statement 2"),
        (r#"{"Statement":{"Effect":"Allow","Action":"*"}}"#.to_owned(), "Resource"),
        (r#"{"Statement":[]}"#.to_owned(), "0 statements"),
        (format!(r#"{{"Statement":{{{good},"Condition":{{"Bool":{{"a":[]}}}}}}}}"#), "1 to"),
        (format!("{}1{}", "[".repeat(500), "]".repeat(500)), "JSON"),
        (format!(r#"{{"Id":"{}","Statement":{{{good}}}}}"#, "x".repeat(70_000)), "bytes"),
    ] {
        let refused = import(
            &Authorizer::new().unwrap(),
            &World::new().acme,
            text.as_bytes(),
            &options(&Holder::Role("x".into())),
        );
        let told = refused.unwrap_err().to_string();
        assert!(told.contains(said), "{told} for {text:.100}");
    }
    assert_eq!(
        taken(&one(serde_json::from_str(&format!("{{{good}}}")).unwrap()), &Holder::Resource),
        Err(IamError::Unattached)
    );
}

/// Numbers that only depend on where they began.
struct Dice {
    state: u64,
    /// Whether only what has a counterpart is rolled: the beginning of each list.
    plain: bool,
}

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
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
    ("Cofferdam:PATH", &["/orders/1", "/orders/*", "/", "/a\"b\\c"]),
    ("cofferdam:TLS", &["1.2", "1.3", "1.*"]),
    ("aws:username", &["alice", "bob", "al*", "Alice", "?lice"]),
    ("aws:PrincipalTag/team", &["x", "*"]),
    ("cofferdam:PrincipalId", &["alice", "robot", "${aws:username}"]),
];

fn condition(dice: &mut Dice) -> (String, String, Value) {
    let over = dice.one(&["", "", "", "ForAnyValue:", "ForAllValues:"]);
    let exists = dice.one(&["", "", "IfExists"]);
    let named = |base: &str| format!("{over}{base}{exists}");
    match dice.roll(9) {
        0 => {
            let base = dice.one(&["IpAddress", "NotIpAddress"]);
            let networks =
                &["192.0.2.0/24", "192.0.2.7", "2001:db8::/32", "0.0.0.0/0", "10.0.0.0/8", "192.0.2.0/024", "x"];
            (named(base), "aws:SourceIp".into(), dice.some(networks, 5))
        }
        1 => {
            let base = dice.one(&[
                "DateLessThan",
                "DateGreaterThanEquals",
                "DateEquals",
                "DateNotEquals",
                "DateLessThanEquals",
            ]);
            let moments =
                &["2026-11-20T10:38:00Z", "2026-11-20", "2026-11-20T10:38:00.500Z", "2027-01-01T00:00:00Z", "noon"];
            (named(base), "aws:CurrentTime".into(), dice.some(moments, 4))
        }
        2 => {
            let base = dice.one(&[
                "NumericLessThan",
                "NumericGreaterThan",
                "NumericEquals",
                "NumericNotEquals",
                "NumericGreaterThanEquals",
            ]);
            (named(base), "aws:EpochTime".into(), dice.some(&["1795171080", "1795171079", "1795171081", "1.5"], 3))
        }
        3 => (
            named("Bool"),
            dice.one(&["aws:SecureTransport", "cofferdam:Public"]).to_owned(),
            dice.some(&["true", "false", "True"], 3),
        ),
        4 => {
            let keys =
                ["aws:username", "cofferdam:Issuer", "cofferdam:Roles", "cofferdam:FunctionName", "aws:SourceIp"];
            ("Null".to_owned(), dice.one(&keys).to_owned(), dice.some(&["true", "false"], 2))
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
            let bases = [
                "StringEquals",
                "StringNotEquals",
                "StringLike",
                "StringNotLike",
                "StringEqualsIgnoreCase",
                "StringNotEqualsIgnoreCase",
            ];
            let base = dice.one(if dice.plain { &bases[..4] } else { &bases });
            (named(base), key.to_owned(), dice.some(values, values.len()))
        }
    }
}

fn statement(dice: &mut Dice, resource_policy: bool) -> Value {
    let mut made = json!({ "Effect": dice.one(&["Allow", "Allow", "Deny"]) });
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

struct Asked {
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

/// One call, as both sides are told of it.
fn call(dice: &mut Dice, authorizer: &Authorizer, tenant: &TenantId) -> (Call, Principal, Asked, Circumstances) {
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
        path: dice.one(&["/orders/1", "/", "/pay", "/a\"b\\c"]).into(),
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
    (Call { action: action.as_str(), function, kind: named, id: id.to_owned(), roles, keys }, principal, asked, around)
}

const DOCUMENTS: u64 = 1_500;
const CALLS: usize = 20;

/// Each of 1,500 random documents against 20 random calls.
#[test]
fn an_imported_document_never_allows_what_iam_does_not_and_without_refusals_allows_the_same() {
    let authorizer = Authorizer::new().unwrap();
    let (schema, _) = Schema::from_cedarschema_str(SCHEMA).unwrap();
    let vocabulary = Vocabulary::of(&schema).unwrap();
    let bits = Bits::of(&schema).unwrap();
    let tenant = World::new().acme;
    let cedar = cedar_policy::Authorizer::new();
    let (mut pairs, mut exact, mut allowed, mut narrowed) = (0, 0, 0, 0);
    for seed in 0..DOCUMENTS {
        let mut dice = Dice { state: seed << 32, plain: seed % 2 == 0 };
        let holder = match dice.roll(4) {
            0 => Holder::Role("ops".into()),
            1 => Holder::User("alice".into()),
            2 => Holder::Account("robot".into()),
            _ => Holder::Resource,
        };
        let resource_policy = matches!(holder, Holder::Resource);
        let statements: Vec<_> = (0..=dice.roll(3)).map(|_| statement(&mut dice, resource_policy)).collect();
        let document = json!({ "Version": "2012-10-17", "Statement": statements });
        let imported = import(&authorizer, &tenant, document.to_string().as_bytes(), &options(&holder)).unwrap();
        let policies = PolicySet::from_str(&imported.text).unwrap();
        for _ in 0..CALLS {
            let (call, who, asked, around) = call(&mut dice, &authorizer, &tenant);
            let question = vocabulary.question(&bits, &who, &asked, &around, Home::default(), Some(&schema)).unwrap();
            let answer = cedar.is_authorized(&question.request, &policies, &question.entities);
            assert!(answer.diagnostics().errors().next().is_none(), "{}", imported.text);
            let ours = answer.decision() == Decision::Allow;
            let theirs = reference::allows(&document, &holder, &call);
            assert!(theirs || !ours, "widened: {document:#}\n{}\n{call:?}", imported.text);
            if imported.refused.is_empty() {
                assert_eq!(ours, theirs, "not the same: {document:#}\n{}\n{call:?}", imported.text);
                exact += 1;
                allowed += usize::from(ours);
            }
            narrowed += usize::from(theirs && !ours);
            pairs += 1;
        }
    }
    // The figures say that the property was tried on what it is about.
    assert!(pairs >= 20_000, "{pairs}");
    assert!(
        exact >= 3_000 && allowed >= 100 && narrowed >= 100,
        "{exact} exact, {allowed} allowed, {narrowed} narrowed"
    );
}
