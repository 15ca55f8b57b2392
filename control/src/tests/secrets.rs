//! A secret's values one after the other, and that none ever comes back.

use super::*;
use serde_json::json;

pub(super) fn rotate(function: &FunctionRef, name: &str, value: &str, revoke_older: bool) -> Manage {
    let value = SecretValue::new(value.into());
    Manage::RotateSecret { function: function.clone(), name: name.into(), value, revoke_older }
}

fn rollback(function: &FunctionRef, version: u64) -> Manage {
    Manage::RollbackSecret { function: function.clone(), name: "TOKEN".into(), version }
}

fn versions(world: &World, key: &str, function: &FunctionRef) -> (u64, Vec<(u64, bool)>) {
    let told = world.ask(key, Manage::ListSecretVersions { function: function.clone(), name: "TOKEN".into() }).unwrap();
    let each = told["versions"].as_array().unwrap().iter();
    let each = each.map(|row| (row["version"].as_u64().unwrap(), row["current"].as_bool().unwrap()));
    (told["epoch"].as_u64().unwrap(), each.collect())
}

pub(super) fn value(control: &Control, function: &FunctionRef) -> Option<String> {
    let env = control.unseal(&function.id).unwrap();
    env.expose().find(|(name, _)| *name == "TOKEN").map(|(_, value)| value.to_owned())
}

fn with_token(world: &World) -> (String, FunctionRef) {
    let (tenant, key) = world.tenant("acme");
    let function = world.function(&tenant, &key, "pay", settings(json!({ "secrets": ["TOKEN"] })));
    (key, function)
}

#[test]
fn earlier_values_are_listed_and_gone_back_to() {
    let world = World::new();
    let (key, function) = with_token(&world);
    world.ask(&key, put_secret(&function, "TOKEN", "one")).unwrap();
    world.ask(&key, rotate(&function, "TOKEN", "two", false)).unwrap();
    world.ask(&key, put_secret(&function, "TOKEN", "three")).unwrap();
    let (epoch, all) = versions(&world, &key, &function);
    let [(third, true), (second, false), (first, false)] = all[..] else { panic!("{all:?}") };
    assert!(epoch == 0 && third > second && second > first);
    let before = world.control.snapshot().function_by_id(&function.id).unwrap().generation;
    world.ask(&key, rollback(&function, first)).unwrap();
    assert_eq!(value(&world.control, &function).unwrap(), "one");
    let after = world.control.snapshot().function_by_id(&function.id).unwrap().generation;
    assert!(after > before, "cells with the other value go");
    assert_eq!(versions(&world, &key, &function).1, [(first, true), (third, false), (second, false)]);
    world.ask(&key, rollback(&function, third)).unwrap();
    assert_eq!(value(&world.reopen(), &function).unwrap(), "three");
    assert!(matches!(world.ask(&key, rollback(&function, third)), Err(ControlError::Invalid { .. })));
    assert!(matches!(world.ask(&key, rollback(&function, third + 9)), Err(ControlError::NotFound { .. })));
}

#[test]
fn rollback_below_the_epoch_is_refused_and_what_was_revoked_is_gone() {
    let world = World::new();
    let (key, function) = with_token(&world);
    for value in ["leaked", "leaked-too"] {
        world.ask(&key, put_secret(&function, "TOKEN", value)).unwrap();
    }
    let leaked = versions(&world, &key, &function).1;
    let told = world.ask(&key, rotate(&function, "TOKEN", "fresh", true)).unwrap();
    assert_eq!(told["revoked"], 2);
    let (epoch, all) = versions(&world, &key, &function);
    assert_eq!(all, [(epoch, true)]);
    for (version, _) in leaked {
        let refused = world.ask(&key, rollback(&function, version)).unwrap_err();
        assert!(matches!(refused, ControlError::BelowEpoch { .. }), "{refused}");
    }
    // The epoch stays with what comes after.
    world.ask(&key, put_secret(&function, "TOKEN", "later")).unwrap();
    assert_eq!(versions(&world, &key, &function).0, epoch);
    world.ask(&key, rollback(&function, epoch)).unwrap();
    assert_eq!(value(&world.control, &function).unwrap(), "fresh");
}

#[test]
fn only_so_many_earlier_values_are_kept_and_only_of_what_is_there() {
    let world = World::new();
    let (key, function) = with_token(&world);
    assert!(matches!(world.ask(&key, rotate(&function, "TOKEN", "x", false)), Err(ControlError::NotFound { .. })));
    for at in 0..15 {
        world.ask(&key, put_secret(&function, "TOKEN", &format!("value-{at}"))).unwrap();
    }
    assert_eq!(versions(&world, &key, &function).1.len(), 11);
    world.ask(&key, Manage::RemoveSecret { function: function.clone(), name: "TOKEN".into() }).unwrap();
    world.ask(&key, put_secret(&function, "TOKEN", "anew")).unwrap();
    assert_eq!(versions(&world, &key, &function).1.len(), 1);
}

#[test]
fn no_operation_answers_with_a_secrets_value() {
    let world = World::new();
    let (key, function) = with_token(&world);
    let tenant = function.id.tenant();
    const VALUE: &str = "the-value-that-never-comes-back";
    let named = |function: &FunctionRef| (function.clone(), "TOKEN".to_owned());
    let mut answers = vec![
        world.ask(&key, put_secret(&function, "TOKEN", VALUE)),
        world.ask(&key, rotate(&function, "TOKEN", VALUE, false)),
        world.ask(&key, put_secret(&function, "NOT_DECLARED", VALUE)),
        world.ask(&key, publish(&function, 1)),
    ];
    let version = versions(&world, &key, &function).1[1].0;
    let (ours, name) = named(&function);
    answers.extend([
        world.ask(&key, rollback(&function, version)),
        world.ask(&key, Manage::ListSecretVersions { function: ours, name }),
        world.ask(&key, Manage::ListSecrets { function: function.clone() }),
        world.ask(&key, Manage::ReadTenant { tenant: tenant.clone() }),
        world.ask(&key, Manage::ListKeys { tenant: tenant.clone() }),
        world.ask(&key, Manage::RotateTenantKey { tenant: tenant.clone() }),
        world.ask(&key, put_secret(&function, "BAD NAME", VALUE)),
        world.ask(&key, put_secret(&function, "TOO_LONG", &VALUE.repeat(2000))),
        world.ask(&key, rotate(&function, "NOT_THERE", VALUE, true)),
        world.ask(&key, world_settings(&function)),
        world.operate(Manage::ListTenants),
        world.operate(Manage::ReadRootKey),
        world.operate(Manage::RotateRootKey { destroy_old: true }),
    ]);
    answers.push(world.ask(&key, Manage::RemoveSecret { function, name: "TOKEN".into() }));
    let keys = world.control.snapshot().tenant(&tenant).unwrap().key_names();
    answers.push(world.operate(Manage::ShredTenant { tenant, keys }));
    assert!(answers.iter().filter(|answer| answer.is_ok()).count() >= 14);
    for answer in answers {
        let text = match &answer {
            Ok(answer) => answer.to_string(),
            Err(error) => chain(error),
        };
        assert!(!text.contains("never-comes-back"), "{text}");
    }
}

fn world_settings(function: &FunctionRef) -> Manage {
    let settings = settings(json!({ "secrets": ["TOKEN", "NOT_DECLARED"] }));
    Manage::PutFunction { function: function.clone(), settings }
}
