//! Room for components: who may store how much, and what makes room again.

use std::collections::HashSet;

use super::*;

fn version(function: &FunctionRef, component: u8, component_bytes: u64) -> Manage {
    Manage::PublishVersion { function: function.clone(), component: Digest([component; 32]), component_bytes }
}

fn prune(function: &FunctionRef, keep: u32) -> Manage {
    Manage::PruneVersions { function: function.clone(), keep }
}

#[test]
fn a_tenant_stores_no_more_than_its_limit_whatever_its_functions() {
    let world = World::new();
    let (tenant, key) = world.tenant("acme");
    let limit = world.control.snapshot().tenant(&tenant).unwrap().limits.stored_bytes;
    let one = world.function(&tenant, &key, "one", FunctionSettings::default());
    let two = world.function(&tenant, &key, "two", FunctionSettings::default());
    world.ask(&key, version(&one, 1, limit - 10)).unwrap();
    world.ask(&key, version(&two, 1, limit - 10)).unwrap();
    let refused = world.ask(&key, version(&two, 2, 11)).unwrap_err();
    let text = refused.to_string();
    assert!(matches!(refused, ControlError::StorageFull { bytes: 11, .. }), "{text}");
    assert!(text.contains("stored_bytes") && text.contains("function prune"), "{text}");
    assert!(world.control.room_for(&tenant, Digest([2; 32]), 11).is_err());
    world.ask(&key, version(&two, 2, 10)).unwrap();
    assert!(world.control.room_for(&tenant, Digest([3; 32]), 1).is_err());
    assert!(world.control.room_for(&tenant, Digest([1; 32]), limit - 10).is_ok(), "it is stored already");

    // Another tenant's room is its own.
    let (other, key) = world.tenant("globex");
    let function = world.function(&other, &key, "one", FunctionSettings::default());
    world.ask(&key, version(&function, 1, limit)).unwrap();
}

#[test]
fn pruning_keeps_the_newest_and_the_current_version_and_says_what_became_free() {
    let world = World::new();
    let (tenant, key) = world.tenant("acme");
    let function = world.function(&tenant, &key, "f", FunctionSettings::default());
    for component in 1..=5 {
        world.clock.advance(Duration::from_secs(1));
        world.ask(&key, version(&function, component, 100)).unwrap();
    }
    // The first is current again.
    world.ask(&key, version(&function, 1, 100)).unwrap();
    let pruned = world.ask(&key, prune(&function, 2)).unwrap();
    assert_eq!((pruned["removed"].as_array().unwrap().len(), &pruned["kept"]), (2, &3.into()));
    assert_eq!((&pruned["freed_bytes"], &pruned["stored_bytes"]), (&200.into(), &300.into()));
    let left: HashSet<_> = [1, 4, 5].map(|component| Digest([component; 32])).into();
    assert_eq!(world.control.components().unwrap(), left);
    let current = &world.control.snapshot().function(&tenant, "f").unwrap().current.clone().unwrap();
    assert_eq!(current.component, Digest([1; 32]));
    for keep in [0, 101] {
        assert!(matches!(world.ask(&key, prune(&function, keep)), Err(ControlError::Invalid { .. })), "{keep}");
    }
}

#[test]
fn a_tenant_has_no_more_functions_than_its_limit() {
    let world = World::new();
    let (tenant, key) = world.tenant("acme");
    let most = world.control.snapshot().tenant(&tenant).unwrap().limits.functions;
    for number in 0..most {
        world.function(&tenant, &key, &format!("f{number}"), FunctionSettings::default());
    }
    let function = world.reference(&tenant, "one-more");
    let refused = world.ask(&key, Manage::PutFunction { function, settings: FunctionSettings::default() });
    assert!(matches!(refused, Err(ControlError::TooMany { what: "functions", .. })));
}
