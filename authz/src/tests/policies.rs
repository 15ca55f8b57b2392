//! What is accepted as policy, and what is said about what is not.

use std::collections::BTreeSet;
use std::path::Path;

use cedar_policy::{PolicySet, Schema};
use cofferdam_model::id::platform_tenant;
use cofferdam_model::random::SeededRandom;
use cofferdam_model::{Action, Invoke, OrganisationId, RouteId};

use super::{World, circumstances};
use crate::entities::{Home, Vocabulary, Way};
use crate::policy::Compiler;
use crate::policy::index::Bits;
use crate::schema::{DEFAULTS, GUARD_RAILS, OPERATORS, SCHEMA};
use crate::{Authorizer, PolicyError, TenantPolicies};

fn compile(world: &World, texts: &[&str]) -> Result<TenantPolicies, PolicyError> {
    let sources: Vec<_> = texts.iter().enumerate().map(|(at, text)| (format!("p{at}"), (*text).to_owned())).collect();
    Authorizer::new().unwrap().compile(&world.acme, &sources)
}

fn refused(text: &str) -> (usize, usize, String) {
    match compile(&World::new(), &[text]).map(|_| ()) {
        Err(PolicyError::Refused { name, line, column, problem, remedy }) => {
            assert_eq!(name, "p0");
            assert!(!remedy.is_empty());
            (line, column, problem)
        }
        other => panic!("{other:?}: {text:.200}"),
    }
}

fn schema() -> Schema {
    Schema::from_cedarschema_str(SCHEMA).unwrap().0
}

#[test]
fn the_schema_has_exactly_the_actions_there_are() {
    let schema = schema();
    let groups: BTreeSet<_> = schema.action_groups().map(|uid| uid.id().unescaped().to_owned()).collect();
    let actions: BTreeSet<_> =
        schema.actions().map(|uid| uid.id().unescaped().to_owned()).filter(|name| !groups.contains(name)).collect();
    let catalogue: BTreeSet<_> = Action::ALL.iter().map(|action| action.as_str().to_owned()).collect();
    assert_eq!(actions, catalogue);
}

#[tokio::test]
async fn every_call_fits_the_schema() {
    let world = World::new();
    let schema = schema();
    let vocabulary = Vocabulary::of(&schema).unwrap();
    let bits = Bits::of(&schema).unwrap();
    let organisation = OrganisationId::mint(&world.random);
    let home = Home { suspended: false, organisation: Some(&organisation) };
    let somebody = world.account(&world.acme, &["admin"]).await;
    let nobody = world.nobody().await;
    let at = circumstances();
    let invoke = Invoke {
        route: Some(RouteId::mint(&world.acme, &world.random)),
        secrets: ["KEY".into()].into(),
        egress: true,
        ..world.invoke(&world.acme, true)
    };
    let work = vocabulary.work(&somebody, &invoke, &at).unwrap();
    let way = Way { host: "a.example", port: 443, tls: true, method: "GET", rule: "https://a.example" };
    for action in Action::ALL {
        let asked = match action {
            Action::Invoke => {
                vocabulary.question(&bits, &nobody, &invoke, &at, home, Some(&schema)).unwrap();
                vocabulary.question(&bits, &somebody, &invoke, &at, home, Some(&schema)).map(|_| ())
            }
            Action::UseSecret => {
                vocabulary.uses(&bits, (&work, home), &invoke.secrets, &invoke, Some(&schema)).map(drop)
            }
            Action::Connect => vocabulary.connection(&bits, (&work, home), &invoke, way, Some(&schema)).map(|_| ()),
            action => {
                let operation = world.manage(action.as_str(), &world.acme);
                let nobodys = vocabulary.question(&bits, &nobody, &operation, &at, home, Some(&schema));
                assert!(nobodys.is_err(), "{action:?}");
                vocabulary.question(&bits, &somebody, &operation, &at, home, Some(&schema)).map(|_| ())
            }
        };
        assert_eq!(asked, Ok(()), "{action:?}");
    }
}

#[test]
fn every_built_in_policy_is_compiled_in_named_and_free_of_warnings() {
    let compiler = Compiler::new(schema()).unwrap();
    let folders = Path::new(env!("CARGO_MANIFEST_DIR")).join("../policies");
    for texts in [GUARD_RAILS, DEFAULTS, OPERATORS] {
        let folder = folders.join(texts[0].0);
        let on_disk: BTreeSet<_> = std::fs::read_dir(folder)
            .unwrap()
            .map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap())
            .collect();
        assert_eq!(on_disk, texts.iter().map(|(_, text)| (*text).to_owned()).collect());
        let set = compiler.built_in(texts, None).unwrap();
        assert!(set.policies().all(|policy| policy.annotation("id").is_some()));
        let all = PolicySet::from_policies(set.policies().cloned()).unwrap();
        let outcome = compiler.validator.validate(&all, cedar_policy::ValidationMode::Strict);
        assert!(outcome.validation_passed_without_warnings(), "{outcome}");
    }
}

#[test]
fn a_refusal_says_where_and_what_to_do() {
    let (line, column, problem) = refused("permit (principal, action, resource)\nwhen { principal.nmae == \"x\" };");
    assert_eq!((line, column), (2, 8), "{problem}");
    assert!(problem.contains("nmae"), "{problem}");
    let (line, ..) = refused("permit (principal, action, resource);\n\npermit (principal action, resource);");
    assert_eq!(line, 3);
    for (text, hint) in [
        ("permit (principal, action == Action::\"Fly\", resource);", "Fly"),
        ("permit (principal is Robot, action, resource);", "Robot"),
        ("permit (principal, action, resource) when { principal.id };", "type"),
        ("permit (principal, action, resource) when { resource.name == \"x\" };", "name"),
        ("permit (principal == ?principal, action, resource);", "templates"),
        ("@id(\"a b\") permit (principal, action, resource);", "@id"),
        ("@id(\"a\") permit (principal, action, resource); @id(\"a\") forbid (principal, action, resource);", "twice"),
        ("permit (principal, action, resource) when { principal.tenant.suspended };", "tenant"),
        ("{}", "token"),
    ] {
        let (_, _, problem) = refused(text);
        assert!(problem.contains(hint), "{text}: {problem}");
    }
}

#[test]
fn good_policies_of_every_kind_are_taken() {
    let world = World::new();
    let function = world.function(&world.acme);
    let texts = [
        "permit (principal is User, action, resource) when { principal.id like \"*@acme.test\" };",
        "permit (principal in Role::\"ops\", action in [Action::\"Deploy\", Action::\"Observe\"], resource);",
        "forbid (principal, action, resource) unless { context.source.isInRange(ip(\"192.0.2.0/24\")) };",
        "forbid (principal, action, resource) when { context.now > datetime(\"2030-01-01\") };",
        "permit (principal, action, resource is Function) when { resource.name == \"a\" && context.tls == \"1.3\" };",
        "permit (principal, action, resource) when { principal has issuer && principal.issuer == \"https://i\" };",
        "",
    ];
    assert!(compile(&world, &texts).is_ok());
    let own = format!("permit (principal, action, resource == Function::\"{function}\");");
    let tenant = format!("permit (principal in Tenant::\"{}\", action in Action::\"Data\", resource);", world.acme);
    let account = format!("permit (principal == ServiceAccount::\"{}|robot\", action, resource);", world.acme);
    for text in [own, tenant, account] {
        assert!(compile(&world, &[&text]).is_ok(), "{text}");
    }
}

#[test]
fn a_policy_may_not_name_what_is_not_its_tenants() {
    let world = World::new();
    let theirs = world.function(&world.other);
    for literal in [
        format!("Tenant::\"{}\"", world.other),
        format!("Tenant::\"{}\"", platform_tenant()),
        format!("Tenant::\"{}x\"", world.acme),
        format!("Function::\"{theirs}\""),
        format!("Function::\"{}\"", world.acme),
        format!("User::\"{}|https://i|alice\"", world.other),
        format!("User::\"{}x|https://i|alice\"", world.acme),
        "User::\"alice\"".to_owned(),
        format!("ServiceAccount::\"{}|robot\"", world.other),
        "Platform::\"platform\"".to_owned(),
    ] {
        let texts = [
            format!("permit (principal, action, resource)\nwhen {{ resource == {literal} }};"),
            format!("permit (principal, action, resource)\nwhen {{ [principal].contains({literal}) }};"),
        ];
        let outcomes = texts.map(|text| compile(&world, &[&text]));
        assert!(outcomes.iter().all(Result::is_err), "{literal}");
        let told = outcomes.into_iter().filter_map(Result::err).any(|error| {
            matches!(error, PolicyError::Refused { line: 2, problem, .. } if problem.contains("not of this tenant"))
        });
        assert!(told, "{literal}");
    }
}

#[test]
fn text_is_bounded_before_it_is_parsed() {
    let world = World::new();
    let statement = "permit (principal, action, resource);";
    let many = vec![statement; crate::POLICIES_MAX + 1];
    assert!(matches!(compile(&world, &many), Err(PolicyError::TooMany { count: 12_001, max: 12_000 })));
    let long = format!("{statement}//{}", "x".repeat(crate::POLICY_BYTES_MAX));
    assert!(matches!(compile(&world, &[&long]), Err(PolicyError::TooLarge { .. })));
    let fitting = format!("{statement}//{}", "x".repeat(crate::POLICY_BYTES_MAX - 100));
    let most = crate::POLICIES_BYTES_MAX / crate::POLICY_BYTES_MAX;
    assert!(compile(&world, &vec![fitting.as_str(); most]).is_ok());
    assert!(matches!(compile(&world, &vec![fitting.as_str(); most + 1]), Err(PolicyError::TooLarge { .. })));
}

/// Conditions as deep as the given number allows, that only a validator which went all the way can refuse.
fn deep(n: usize, nesting: usize, ifs: usize) -> Vec<String> {
    vec![
        format!("{}context.wrong{}", "(".repeat(nesting), ")".repeat(nesting)),
        format!("{}context.wrong{}", "[".repeat(nesting), "].contains(true)".repeat(nesting)),
        format!("{}context.wrong{}", "{\"a\":".repeat(nesting), "}.a".repeat(nesting)),
        format!("{}context.wrong{}", "context.public && (".repeat(nesting), ")".repeat(nesting)),
        format!("context.wrong{}", " && true".repeat(n)),
        format!("context.wrong{}", " || false".repeat(n)),
        format!("context.wrong{} == 1", " + 1".repeat(n)),
        format!("context.wrong{} == 1", " * 1".repeat(n)),
        format!("context.wrong{}", ".a".repeat(n)),
        format!("{}context.wrong{}", "if true then ".repeat(ifs), " else false".repeat(ifs)),
        format!("{}context.wrong{}", "if ".repeat(ifs), " then true else false".repeat(ifs)),
    ]
}

#[test]
fn the_deepest_text_looked_at_is_validated_to_its_bottom_on_a_small_stack() {
    use crate::policy::bounds::{IFS_MAX, NESTING_MAX, OPERATORS_MAX};
    let on_small_stack = std::thread::Builder::new().stack_size(1 << 20).spawn(|| {
        for condition in deep(OPERATORS_MAX - 2, NESTING_MAX - 3, IFS_MAX) {
            let (.., problem) = refused(&format!("permit (principal, action, resource) when {{ {condition} }};"));
            assert!(problem.contains("wrong"), "{condition:.80}: {problem}");
        }
    });
    on_small_stack.unwrap().join().unwrap();
}

#[test]
fn deeper_text_is_refused_unparsed() {
    for n in [300, 5_000] {
        for condition in deep(n, n, n) {
            let text = format!("permit (principal, action, resource) when {{ {condition} }};");
            let outcome = compile(&World::new(), &[&text]);
            assert!(matches!(outcome, Err(PolicyError::TooLarge { .. })), "{condition:.80}");
        }
    }
}

#[test]
fn names_are_checked_and_the_platforms_tenant_takes_none() {
    let world = World::new();
    let authorizer = Authorizer::new().unwrap();
    let text = || "permit (principal, action, resource);".to_owned();
    for names in [&["10-defaults"][..], &["A"], &["a/b"], &["a", "a"]] {
        let sources: Vec<_> = names.iter().map(|name| ((*name).to_owned(), text())).collect();
        assert!(authorizer.compile(&world.acme, &sources).is_err(), "{names:?}");
    }
    assert!(authorizer.compile(&platform_tenant(), &[("a".to_owned(), text())]).is_err());
    assert!(authorizer.compile(&platform_tenant(), &[]).is_ok());
}

#[test]
fn a_digest_names_the_texts_and_not_their_order() {
    let world = World::new();
    let authorizer = Authorizer::new().unwrap();
    let source = |name: &str, text: &str| (name.to_owned(), text.to_owned());
    let digest = |sources: &[(String, String)]| authorizer.compile(&world.acme, sources).unwrap().digest();
    let (a, b) = (source("a", "permit (principal, action, resource);"), source("b", ""));
    assert_eq!(digest(&[a.clone(), b.clone()]), digest(&[b.clone(), a.clone()]));
    assert_ne!(digest(std::slice::from_ref(&a)), digest(&[a, b]));
}

#[test]
fn arbitrary_bytes_never_break_the_compiler() {
    use cofferdam_model::Random;
    let random = SeededRandom::new(11);
    let pieces = [
        "permit",
        "(",
        ")",
        "principal",
        ",",
        "action",
        "resource",
        ";",
        "when",
        "{",
        "}",
        "\"",
        "\\",
        "[",
        "]",
        "::",
        "@id",
        "if",
        "then",
        "é",
        "//",
        "\n",
        ".",
        "!",
        "-",
        "==",
        "in",
        "Role",
        "?principal",
        "\0",
    ];
    let world = World::new();
    for _ in 0..300 {
        let mut bytes = [0u8; 40];
        random.fill(&mut bytes);
        let text: String = bytes.iter().map(|byte| pieces[usize::from(*byte) % pieces.len()]).collect();
        drop(compile(&world, &[&text]));
    }
}

#[test]
fn statements_that_cover_less_than_they_name_are_told_and_others_are_not() {
    let authorizer = crate::Authorizer::new().unwrap();
    let world = World::new();
    let (function, tenant) = (world.function(&world.acme), &world.acme);
    for (text, left_out) in [
        (format!("forbid (principal, action, resource == Function::\"{function}\");"), Some("PutSecret")),
        ("forbid (principal, action in Action::\"Secrets\", resource is Function);".to_owned(), Some("RollbackSecret")),
        (
            format!("permit (principal, action in Action::\"Audit\", resource == Tenant::\"{tenant}\");"),
            Some("QueryAudit"),
        ),
        ("permit (principal, action in Action::\"Deploy\", resource is Tenant);".to_owned(), Some("PutRoutes")),
        ("forbid (principal, action in Action::\"Data\", resource is Function);".to_owned(), None),
        (format!("forbid (principal, action, resource in Function::\"{function}\");"), None),
        ("forbid (principal, action in Action::\"Secrets\", resource);".to_owned(), None),
        ("forbid (principal, action in Action::\"Secrets\", resource is Secret);".to_owned(), None),
        ("forbid (principal is User, action, resource) when { resource is Function };".to_owned(), None),
    ] {
        let told = authorizer.narrower("p", &text);
        assert!(told.iter().all(|finding| finding.warning && !finding.remedy.is_empty()), "{told:?}");
        match left_out {
            Some(action) => assert!(told.len() == 1 && told[0].problem.contains(action), "{text}: {told:?}"),
            None => assert!(told.is_empty(), "{text}: {told:?}"),
        }
    }
}
