//! Making an installation, opening it again, and the snapshot it is read from.

use super::*;
use crate::OPERATOR;
use crate::store::{PolicyRow, SqliteStore, run};
use std::os::unix::fs::PermissionsExt;

#[test]
fn init_makes_everything_for_its_owner_alone_and_only_once() {
    let world = World::new();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&world.data()), 0o700);
    for file in std::fs::read_dir(world.data()).unwrap() {
        let path = file.unwrap().path();
        assert_eq!(mode(&path) & 0o077, 0, "{}", path.display());
    }
    let again = Control::init(&ControlConfig::in_dir(&world.data()), &*world.clock, &*world.random);
    assert!(matches!(again, Err(ControlError::AlreadyInitialised { .. })));
    assert!(world.knows(&world.operator), "the first key is still good");
}

#[test]
fn init_refuses_a_directory_others_may_enter() {
    let dir = tempfile::tempdir().unwrap();
    let open = dir.path().join("open");
    std::fs::create_dir(&open).unwrap();
    std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o755)).unwrap();
    let clock = ManualClock::at(NOW);
    let refused = Control::init(&ControlConfig::in_dir(&open), &clock, &SeededRandom::new(1));
    assert!(matches!(refused, Err(ControlError::KeyFile { .. })));
    assert_eq!(std::fs::read_dir(&open).unwrap().count(), 0);
}

#[test]
fn no_file_holds_a_key_or_a_secret_in_plaintext() {
    let world = World::new();
    let (tenant, key) = world.tenant("acme");
    let function = world.function(&tenant, &key, "pay", settings(serde_json::json!({ "secrets": ["TOKEN"] })));
    world.ask(&key, put_secret(&function, "TOKEN", "correct-horse-battery")).unwrap();
    let passphrase = Some(SecretValue::new(b"another-horse-staple".to_vec()));
    let put = Manage::PutUser { tenant, name: "alice".into(), roles: vec!["viewer".into()], passphrase };
    world.ask(&key, put).unwrap();
    let files = |dir| std::fs::read_dir(dir).unwrap().map(|file| file.unwrap().path());
    for path in files(world.data()).filter(|path| path.is_file()).chain(files(world.data().join("issuer"))) {
        let bytes = std::fs::read(&path).unwrap();
        for text in ["correct-horse-battery", "another-horse-staple", &key, &world.operator] {
            let found = bytes.windows(text.len()).any(|window| window == text.as_bytes());
            assert!(!found, "{} holds {text}", path.display());
        }
    }
}

#[test]
fn everything_is_there_after_a_restart() {
    let world = World::new();
    let (tenant, key) = world.tenant("acme");
    let function = world.function(&tenant, &key, "pay", settings(serde_json::json!({ "secrets": ["TOKEN"] })));
    world.ask(&key, put_secret(&function, "TOKEN", "s3cret")).unwrap();
    world.ask(&key, publish(&function, 1)).unwrap();
    let again = world.reopen();
    let (before, after) = (world.control.snapshot(), again.snapshot());
    assert!(after.generation() > before.generation());
    let entry = after.function(&tenant, "pay").unwrap();
    assert_eq!(entry.current, before.function(&tenant, "pay").unwrap().current);
    assert_eq!(entry.generation, before.function(&tenant, "pay").unwrap().generation);
    let env = again.unseal(&function.id).unwrap();
    assert_eq!(env.expose().collect::<Vec<_>>(), [("TOKEN", "s3cret")]);
    assert_eq!(after.tenant_by_name("acme").unwrap().id, tenant);
    assert_eq!(after.tenant_by_name("platform").unwrap().id, platform_tenant());
}

#[test]
fn snapshot_in_hand_never_changes_and_only_the_changed_tenant_is_rebuilt() {
    let world = World::new();
    let (acme, key) = world.tenant("acme");
    let (globex, _) = world.tenant("globex");
    let before = world.control.snapshot();
    world.function(&acme, &key, "pay", FunctionSettings::default());
    let after = world.control.snapshot();
    assert!(before.function(&acme, "pay").is_none());
    assert!(after.function(&acme, "pay").is_some());
    assert_eq!(after.generation(), before.generation() + 1);
    assert!(Arc::ptr_eq(before.tenant(&globex).unwrap(), after.tenant(&globex).unwrap()));
    assert!(!Arc::ptr_eq(before.tenant(&acme).unwrap(), after.tenant(&acme).unwrap()));
}

#[test]
fn refused_change_changes_nothing() {
    let world = World::new();
    let (tenant, key) = world.tenant("acme");
    let before = world.control.snapshot();
    let policy = Manage::PutPolicy { tenant, name: "broken".into(), text: "permit (".into() };
    assert!(matches!(world.ask(&key, policy), Err(ControlError::Policy(_))));
    assert!(Arc::ptr_eq(&before, &world.control.snapshot()));
    assert_eq!(world.reopen().snapshot().tenants().count(), before.tenants().count());
}

#[test]
fn tenant_whose_policies_no_longer_compile_is_shut_until_an_operator_mends_them() {
    let mut world = World::new();
    let (tenant, key) = world.tenant("acme");
    let mut store = SqliteStore::open(&world.data().join("state.sqlite")).unwrap();
    let broken =
        PolicyRow { name: "old".into(), text: "permit (principal, action == Action::\"Gone\", resource);".into() };
    run(&mut store, |tx| tx.put_policy(&tenant, &broken)).unwrap();
    world.control = world.reopen();
    assert!(!world.control.snapshot().tenant(&tenant).unwrap().active);
    assert!(!world.knows(&key));
    let member =
        Manage::PutMember { tenant: tenant.clone(), issuer: None, subject: "eve".into(), roles: vec!["admin".into()] };
    // It can be managed, and its keys replaced with everybody's; that lets nobody in.
    world.operate(member).unwrap();
    world.operate(Manage::RotateTenantKey { tenant: tenant.clone() }).unwrap();
    world.operate(Manage::RotateRootKey { destroy_old: true }).unwrap();
    let worse = Manage::PutPolicy {
        tenant: tenant.clone(),
        name: "worse".into(),
        text: "permit (principal, action == Action::\"No\", resource);".into(),
    };
    assert!(matches!(world.operate(worse), Err(ControlError::Policy(_))));
    assert!(!world.control.snapshot().tenant(&tenant).unwrap().active);
    assert!(!world.knows(&key));
    world.operate(Manage::RemovePolicy { tenant: tenant.clone(), name: "old".into() }).unwrap();
    assert!(world.control.snapshot().tenant(&tenant).unwrap().active);
    assert!(world.knows(&key));
}

#[test]
fn platform_has_an_operator_and_lists_tenants_by_name() {
    let world = World::new();
    world.tenant("globex");
    world.tenant("acme");
    let listed = world.operate(Manage::ListTenants).unwrap();
    let names: Vec<_> = listed["tenants"].as_array().unwrap().iter().map(|t| t["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["acme", "globex", "platform"]);
    let keys = world.operate(Manage::ListKeys { tenant: platform_tenant() }).unwrap();
    assert_eq!(keys["keys"][0]["account"], OPERATOR);
    assert_eq!(keys["keys"][0].get("key"), None);
}
