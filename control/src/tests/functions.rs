//! Functions, versions, limits and secrets.

use cofferdam_model::LogRange;

use super::*;
use serde_json::json;

#[test]
fn settings_above_the_ceiling_are_refused_naming_limit_and_ceiling() {
    let world = World::new();
    let (tenant, key) = world.tenant("acme");
    for (limit, asked, ceiling) in [
        ("memory_bytes", 1u64 << 40, 536_870_912u64),
        ("cpu_ms", 30_001, 30_000),
        ("wall_ms", 60_001, 60_000),
        ("concurrency", 513, 512),
        ("cells", 9, 8),
        ("log_bytes", 1_048_577, 1_048_576),
        ("request_bytes", 67_108_865, 67_108_864),
        ("response_bytes", 268_435_457, 268_435_456),
        ("response_header_bytes", 65_537, 65_536),
    ] {
        let function = world.reference(&tenant, "big");
        let settings = settings(json!({ "limits": { limit: asked } }));
        let refused = world.ask(&key, Manage::PutFunction { function, settings }).unwrap_err().to_string();
        assert!(refused.contains(&format!("`{limit}`")), "{refused}");
        assert!(refused.contains(&format!("ceiling of {ceiling}")), "{refused}");
    }
}

#[test]
fn nonsensical_settings_are_refused() {
    let world = World::new();
    let (tenant, key) = world.tenant("acme");
    let long = "x".repeat(32 * 1024 + 1);
    let half = "x".repeat(25 * 1024);
    for (settings, about) in [
        (json!({ "limits": { "cpu_ms": 0 } }), "cpu_ms"),
        (json!({ "limits": { "cells": 0 } }), "cells"),
        (json!({ "limits": { "memory_bytes": 1 } }), "memory_bytes"),
        (json!({ "recycle": { "after_calls": 0 } }), "after_calls"),
        (json!({ "recycle": { "idle_seconds": 100_000 } }), "idle_seconds"),
        (json!({ "recycle": { "memory_bytes": 1 } }), "memory_bytes"),
        (json!({ "env": { "1X": "v" } }), "1X"),
        (json!({ "env": { "A-B": "v" } }), "A-B"),
        (json!({ "env": { "A": "a\u{0}b" } }), "NUL"),
        (json!({ "env": { "A": long } }), "32769"),
        (json!({ "env": { "A": half, "B": half } }), "49152"),
        (json!({ "secrets": ["S", "S"] }), "twice"),
        (json!({ "secrets": ["A"], "env": { "A": "v" } }), "plain `env` entry"),
        (json!({ "secrets": (0..65).map(|n| format!("S{n}")).collect::<Vec<_>>() }), "64"),
    ] {
        let function = world.reference(&tenant, "odd");
        let parsed = super::settings(settings.clone());
        let refused = world.ask(&key, Manage::PutFunction { function, settings: parsed }).unwrap_err().to_string();
        assert!(refused.contains(about), "{settings}: {refused}");
    }
    assert!(world.control.snapshot().function(&tenant, "odd").is_none());
}

#[test]
fn function_name_is_taken_once_and_never_changes() {
    let world = World::new();
    let (tenant, key) = world.tenant("acme");
    let function = world.function(&tenant, &key, "pay", FunctionSettings::default());
    let put = |function| Manage::PutFunction { function, settings: FunctionSettings::default() };
    let taken = world.ask(&key, put(world.reference(&tenant, "pay"))).unwrap_err();
    assert!(matches!(taken, ControlError::Exists { what: "function", .. }));
    let renamed = FunctionRef { name: "pay2".into(), ..function };
    assert!(world.ask(&key, put(renamed)).unwrap_err().to_string().contains("cannot be renamed"));
    assert!(world.ask(&key, put(world.reference(&tenant, "Pay"))).is_err());
    assert!(world.operate(put(world.reference(&platform_tenant(), "pay"))).is_err());
}

#[test]
fn same_settings_again_change_nothing_and_others_raise_the_generation() {
    let world = World::new();
    let (tenant, key) = world.tenant("acme");
    let function = world.function(&tenant, &key, "pay", FunctionSettings::default());
    let put = |settings| Manage::PutFunction { function: function.clone(), settings };
    let same = world.ask(&key, put(FunctionSettings::default())).unwrap();
    assert_eq!((&same["changed"], &same["generation"]), (&json!(false), &json!(1)));
    let other = world.ask(&key, put(settings(json!({ "env": { "A": "1" } })))).unwrap();
    assert_eq!((&other["changed"], &other["generation"]), (&json!(true), &json!(2)));
}

#[test]
fn settings_of_a_tenant_raise_the_generation_of_its_functions_and_of_nobody_elses() {
    let world = World::new();
    let (tenant, key) = world.tenant("acme");
    let (other, other_key) = world.tenant("globex");
    for name in ["one", "two"] {
        world.function(&tenant, &key, name, FunctionSettings::default());
    }
    world.function(&other, &other_key, "one", FunctionSettings::default());
    let put = Manage::PutTenantSettings { tenant: tenant.clone(), settings: Default::default() };
    world.operate(put).unwrap();
    for control in [&world.control, &world.reopen()] {
        let snapshot = control.snapshot();
        let of = |tenant, name| snapshot.function(tenant, name).unwrap().generation;
        assert_eq!((of(&tenant, "one"), of(&tenant, "two"), of(&other, "one")), (2, 2, 1));
    }
}

#[test]
fn same_component_and_settings_are_the_same_version() {
    let world = World::new();
    let (tenant, key) = world.tenant("acme");
    let function = world.function(&tenant, &key, "pay", FunctionSettings::default());
    let first = world.ask(&key, publish(&function, 1)).unwrap();
    let again = world.ask(&key, publish(&function, 1)).unwrap();
    assert_eq!(first["id"], again["id"]);
    assert_eq!((&again["created"], &again["changed"]), (&json!(false), &json!(false)));
    let second = world.ask(&key, publish(&function, 2)).unwrap();
    assert_ne!(first["id"], second["id"]);
    let back = world.ask(&key, publish(&function, 1)).unwrap();
    assert_eq!(back["id"], first["id"]);
    assert_eq!((&back["created"], &back["changed"]), (&json!(false), &json!(true)));
    let changed =
        Manage::PutFunction { function: function.clone(), settings: settings(json!({ "env": { "A": "1" } })) };
    world.ask(&key, changed).unwrap();
    let third = world.ask(&key, publish(&function, 1)).unwrap();
    assert_ne!(third["id"], first["id"], "other settings make another version");
}

#[test]
fn only_the_newest_versions_are_kept() {
    let world = World::new();
    let (tenant, key) = world.tenant("acme");
    let function = world.function(&tenant, &key, "pay", FunctionSettings::default());
    let first = world.ask(&key, publish(&function, 0)).unwrap();
    for component in 1..=100 {
        world.clock.advance(Duration::from_secs(1));
        world.ask(&key, publish(&function, component)).unwrap();
    }
    world.clock.advance(Duration::from_secs(1));
    let again = world.ask(&key, publish(&function, 0)).unwrap();
    assert_ne!(again["id"], first["id"], "the oldest was forgotten, so this is a new one");
}

#[test]
fn secret_reaches_the_environment_and_nothing_else() {
    let world = World::new();
    let (tenant, key) = world.tenant("acme");
    let declared = settings(json!({ "env": { "MODE": "test" }, "secrets": ["TOKEN"] }));
    let function = world.function(&tenant, &key, "pay", declared);
    let names = || {
        let env = world.control.unseal(&function.id).unwrap();
        env.expose().map(|(name, _)| name.to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names(), ["MODE"], "declared and not set");
    let put = world.ask(&key, put_secret(&function, "TOKEN", "s3cret-value")).unwrap();
    world.ask(&key, put_secret(&function, "SPARE", "not-declared")).unwrap();
    let env = world.control.unseal(&function.id).unwrap();
    assert_eq!(env.expose().collect::<Vec<_>>(), [("MODE", "test"), ("TOKEN", "s3cret-value")]);
    let listed = world.ask(&key, Manage::ListSecrets { function: function.clone() }).unwrap();
    let read = world.ask(&key, Manage::ReadTenant { tenant }).unwrap();
    for answer in [&put, &listed, &read] {
        assert!(!answer.to_string().contains("s3cret-value"), "{answer}");
    }
    assert_eq!(put["version"], json!(2));
    assert_eq!(listed["secrets"].as_array().unwrap().len(), 2);
    world.ask(&key, Manage::RemoveSecret { function: function.clone(), name: "TOKEN".into() }).unwrap();
    assert_eq!(names(), ["MODE"], "removed");
}

#[test]
fn secret_set_anew_never_has_an_old_version() {
    let world = World::new();
    let (tenant, key) = world.tenant("acme");
    let function = world.function(&tenant, &key, "pay", settings(json!({ "secrets": ["TOKEN"] })));
    let first = world.ask(&key, put_secret(&function, "TOKEN", "one")).unwrap();
    world.ask(&key, Manage::RemoveSecret { function: function.clone(), name: "TOKEN".into() }).unwrap();
    let second = world.ask(&key, put_secret(&function, "TOKEN", "two")).unwrap();
    assert!(second["version"].as_u64() > first["version"].as_u64());
    let generation = world.control.snapshot().function(&tenant, "pay").unwrap().generation;
    assert_eq!(second["version"].as_u64(), Some(generation), "cells with the old value are recycled");
}

#[test]
fn secret_that_cannot_be_an_environment_entry_is_refused() {
    let world = World::new();
    let (tenant, key) = world.tenant("acme");
    let function = world.function(&tenant, &key, "pay", settings(json!({ "env": { "MODE": "x" } })));
    for (name, value, about) in [
        ("1A", b"v".to_vec(), "1A"),
        ("MODE", b"v".to_vec(), "plain `env`"),
        ("A", vec![0xff], "UTF-8"),
        ("A", b"a\0b".to_vec(), "NUL"),
        ("A", vec![b'x'; 32 * 1024 + 1], "32769"),
    ] {
        let value = SecretValue::new(value);
        let put = Manage::PutSecret { function: function.clone(), name: name.into(), value };
        let refused = world.ask(&key, put).unwrap_err().to_string();
        assert!(refused.contains(about), "{refused}");
    }
    world.ask(&key, put_secret(&function, "A", &"x".repeat(30 * 1024))).unwrap();
    let sum = world.ask(&key, put_secret(&function, "B", &"x".repeat(20 * 1024))).unwrap_err();
    assert!(matches!(sum, ControlError::TooLarge { limit: 49_152, .. }), "{sum}");
    let clash = settings(json!({ "env": { "A": "plain" } }));
    let clash = world.ask(&key, Manage::PutFunction { function, settings: clash }).unwrap_err().to_string();
    assert!(clash.contains("has a secret of that name"), "{clash}");
}

#[test]
fn removed_function_is_gone_with_its_routes() {
    let world = World::new();
    let (tenant, key) = world.tenant("acme");
    let function = world.function(&tenant, &key, "pay", FunctionSettings::default());
    let routes = vec![route(json!({ "host": "a.example", "path": "/", "function": "pay" }))];
    world.ask(&key, Manage::PutRoutes { tenant: tenant.clone(), app: "shop".into(), routes }).unwrap();
    let removed = world.ask(&key, Manage::RemoveFunction { function: function.clone() }).unwrap();
    assert_eq!(removed["routes_removed"], json!(1));
    let snapshot = world.control.snapshot();
    assert!(snapshot.function_by_id(&function.id).is_none());
    assert_eq!(snapshot.routes().count(), 0);
    assert!(world.control.unseal(&function.id).is_err());
    let again = world.ask(&key, Manage::RemoveFunction { function }).unwrap_err();
    assert!(matches!(again, ControlError::NotFound { what: "function", .. }));
}

#[test]
fn logs_are_not_read_here() {
    let world = World::new();
    let (tenant, key) = world.tenant("acme");
    let function = world.function(&tenant, &key, "pay", FunctionSettings::default());
    let range = LogRange { lines: 1, after: None, wait: Duration::ZERO };
    let refused = world.ask(&key, Manage::ReadLogs { function, range }).unwrap_err();
    assert!(matches!(refused, ControlError::NotAChange { action: "ReadLogs" }));
}
