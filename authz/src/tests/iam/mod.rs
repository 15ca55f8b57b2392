//! Taking over documents of IAM: what is translated, what is refused, and that nothing is ever widened.

mod made;
mod reference;

use std::str::FromStr;

use cedar_policy::{Decision, PolicySet, Schema};
use serde_json::{Value, json};

use self::made::{Dice, call, statement};
use self::reference::{ACCOUNT, Holder, REGION};
use super::World;
use crate::entities::{Home, Vocabulary};
use crate::iam::{Attached, Imported, Options, import};
use crate::policy::index::Bits;
use crate::schema::SCHEMA;
use crate::{Authorizer, IamError};

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

#[test]
fn a_variable_is_a_text_like_others_before_the_version_that_has_them() {
    let document = |version: Option<&str>, condition: Value| {
        let mut document = json!({ "Statement": {
            "Effect": "Allow", "Action": "cofferdam:Invoke", "Resource": "*", "Condition": condition,
        }});
        version.iter().for_each(|version| document["Version"] = json!(version));
        taken(&document, &Holder::Role("ops".into())).unwrap()
    };
    let literal = || json!({ "StringEquals": { "cofferdam:Path": "/${aws:username}" } });
    for version in [None, Some("2008-10-17")] {
        let imported = document(version, literal());
        assert!(imported.refused.is_empty(), "{:?}", imported.refused);
        assert!(imported.text.contains(r#"context.path == "/${aws:username}""#), "{}", imported.text);
    }
    let imported = document(Some("2012-10-17"), literal());
    assert_eq!((imported.statements, imported.refused.len()), (0, 1));
    assert!(imported.refused[0].what.contains("${aws:username}"));
}

#[test]
fn nothing_listed_is_no_document_and_one_sid_twice_is_told_apart_by_place() {
    for element in ["Action", "NotAction", "Resource", "NotResource"] {
        let mut statement = json!({ "Effect": "Allow", "Action": "*", "Resource": "*" });
        statement.as_object_mut().unwrap().remove(element.trim_start_matches("Not"));
        statement[element] = json!([]);
        let told = taken(&one(statement), &Holder::Role("ops".into())).unwrap_err().to_string();
        assert!(told.contains("must have 1 to"), "{element}: {told}");
    }
    for principal in [json!({}), json!({ "AWS": [] }), json!([]), json!(""), json!({ "aws": "*" })] {
        let statement = json!({ "Effect": "Allow", "Action": "*", "Resource": "*", "Principal": principal });
        assert!(matches!(taken(&one(statement), &Holder::Resource), Err(IamError::Document { .. })), "{principal}");
    }
    let statement = json!({ "Sid": "Same", "Effect": "Allow", "Action": "s3:*", "Resource": "*" });
    let imported = taken(&one(json!([statement, statement])), &Holder::Role("ops".into())).unwrap();
    let told: Vec<_> = imported.refused.iter().map(|refused| refused.statement.as_str()).collect();
    assert_eq!(told, ["Same (statement 1)", "Same (statement 2)"]);
    let mut statement = statement;
    statement["Action"] = json!("cofferdam:Invoke");
    let imported = taken(&one(json!([statement, statement])), &Holder::Role("ops".into())).unwrap();
    assert!(imported.text.contains("@id(\"same\")") && imported.text.contains("@id(\"same-2\")"), "{}", imported.text);
}

/// What documents are made of, each of which a part of them must have.
const MARKS: [&str; 27] = [
    "\"Deny\"",
    "NotAction",
    "NotResource",
    "NotPrincipal",
    "\"Principal\":\"*\"",
    "2008-10-17",
    "\"Sid\":\"Same\"",
    "${aws:username}",
    "${*}",
    "${$}",
    "IfExists",
    "ForAllValues:",
    "ForAnyValue:",
    "\"Null\"",
    "DateLessThan",
    "NotIpAddress",
    "NumericLessThanEquals",
    "StringNotLike",
    "IgnoreCase",
    "stringequals",
    "ArnLike",
    "Bool",
    "Re?d*",
    "or*",
    "?lice",
    "Orders",
    "1795171080",
];

const DOCUMENTS: u64 = 2_000;
const CALLS: usize = 20;

/// Each of 2,000 random documents against 20 random calls.
#[test]
fn an_imported_document_never_allows_what_iam_does_not_and_without_refusals_allows_the_same() {
    let authorizer = Authorizer::new().unwrap();
    let (schema, _) = Schema::from_cedarschema_str(SCHEMA).unwrap();
    let vocabulary = Vocabulary::of(&schema).unwrap();
    let bits = Bits::of(&schema).unwrap();
    let tenant = World::new().acme;
    let cedar = cedar_policy::Authorizer::new();
    let (mut pairs, mut exact, mut allowed, mut narrowed) = (0, 0, 0, 0);
    let mut marks = MARKS.map(|mark| (mark, 0));
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
        let mut document = match statements.as_slice() {
            [one] => json!({ "Statement": one }),
            several => json!({ "Statement": several, "Id": "made" }),
        };
        // The old one, which is also what no version stands for, has no variables.
        match dice.roll(6) {
            0 => document["Version"] = json!("2008-10-17"),
            1 => {}
            _ => document["Version"] = json!("2012-10-17"),
        }
        let text = document.to_string();
        marks.iter_mut().for_each(|(mark, number)| *number += u32::from(text.contains(*mark)));
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
    let rare: Vec<_> = marks.iter().filter(|(_, number)| *number < 10).collect();
    assert!(rare.is_empty(), "{rare:?}");
    assert!(pairs >= 20_000, "{pairs}");
    assert!(
        exact >= 3_000 && allowed >= 100 && narrowed >= 100,
        "{exact} exact, {allowed} allowed, {narrowed} narrowed"
    );
}
