//! Replacing and destroying keys, also where it is cut off in the middle.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::secrets::{rotate, value};
use super::*;
use crate::store::{Store, Transaction, Work};
use crate::vault::{LocalRoot, OrdinaryMemory, Vault, WrappedKey};
use serde_json::json;

/// A store whose power goes after so many commits.
struct Cut {
    inner: Box<dyn Store>,
    left: Arc<Mutex<usize>>,
}

impl Store for Cut {
    fn transact(&mut self, work: &mut Work<'_>) -> Result<(), ControlError> {
        let mut left = self.left.lock().unwrap();
        *left = left.checked_sub(1).ok_or_else(|| ControlError::Damaged { what: "the power went".into() })?;
        self.inner.transact(work)
    }

    fn scrub(&mut self) -> Result<(), ControlError> {
        self.inner.scrub()
    }
}

impl World {
    /// The same installation, opened by a process whose power goes after so many commits.
    fn with_power_for(&self, commits: usize) -> Control {
        let control = self.reopen();
        let mut store: MutexGuard<'_, Box<dyn Store>> = control.store.lock().unwrap_or_else(PoisonError::into_inner);
        let inner = std::mem::replace(&mut *store, Box::new(Dead));
        *store = Box::new(Cut { inner, left: Arc::new(Mutex::new(commits)) });
        drop(store);
        control
    }

    fn keys(&self, tenant: &TenantId) -> Vec<WrappedKey> {
        self.reopen().transact(|tx: &mut dyn Transaction| tx.tenant_keys(tenant)).unwrap()
    }
}

struct Dead;

impl Store for Dead {
    fn transact(&mut self, _: &mut Work<'_>) -> Result<(), ControlError> {
        Err(ControlError::Damaged { what: "nobody is here".into() })
    }

    fn scrub(&mut self) -> Result<(), ControlError> {
        Ok(())
    }
}

/// A tenant with more sealed values than one transaction takes, current and earlier ones.
fn filled(world: &World) -> (TenantId, String, Vec<FunctionRef>) {
    let (tenant, key) = world.tenant("acme");
    let mut functions = vec![];
    for at in 0..8 {
        let declared = settings(json!({ "secrets": ["TOKEN"] }));
        let function = world.function(&tenant, &key, &format!("f{at}"), declared);
        world.ask(&key, put_secret(&function, "TOKEN", "old")).unwrap();
        for _ in 0..9 {
            world.ask(&key, rotate(&function, "TOKEN", &format!("value-{at}"), false)).unwrap();
        }
        functions.push(function);
    }
    (tenant, key, functions)
}

fn all_open(control: &Control, functions: &[FunctionRef]) {
    for (at, function) in functions.iter().enumerate() {
        assert_eq!(value(control, function), Some(format!("value-{at}")));
    }
}

#[test]
fn tenant_key_is_replaced_while_everything_opens() {
    let world = World::new();
    let (tenant, key, functions) = filled(&world);
    let before = world.keys(&tenant);
    let told = world.ask(&key, Manage::RotateTenantKey { tenant: tenant.clone() }).unwrap();
    assert_eq!((told["rewrapped"].as_u64(), told["resumed"].as_bool()), (Some(80), Some(false)));
    assert_eq!(told["destroyed"], json!([before[0].name()]));
    let after = world.keys(&tenant);
    assert_eq!(after.iter().map(|key| key.version).collect::<Vec<_>>(), [2]);
    all_open(&world.control, &functions);
    all_open(&world.reopen(), &functions);
    let left = world.reopen().transact(|tx| tx.sealed_otherwise(&tenant, 2, 10)).unwrap();
    assert_eq!(left, []);
}

#[test]
fn rotation_of_a_tenant_key_cut_off_anywhere_loses_nothing_and_is_gone_on_with() {
    let mut cuts = 0;
    for commits in 0.. {
        let world = World::new();
        let (tenant, _, functions) = filled(&world);
        let done = world.with_power_for(commits).rotate_tenant_key(&tenant).is_ok();
        let after = world.reopen();
        all_open(&after, &functions);
        let was_cut = after.has_unfinished_rotation().unwrap();
        assert_eq!(after.resume_rotations().unwrap(), usize::from(was_cut));
        assert!(!after.has_unfinished_rotation().unwrap());
        all_open(&after, &functions);
        all_open(&world.reopen(), &functions);
        assert_eq!(world.keys(&tenant).len(), 1, "after {commits} commits");
        cuts += usize::from(was_cut);
        if done {
            break;
        }
    }
    assert!(cuts >= 4, "only {cuts} places to cut at were found");
}

#[test]
fn rotation_of_the_root_key_cut_off_anywhere_loses_nothing_and_is_gone_on_with() {
    let mut cuts = 0;
    for commits in 0.. {
        let world = World::new();
        let (tenant, key) = world.tenant("acme");
        let function = world.function(&tenant, &key, "pay", settings(json!({ "secrets": ["TOKEN"] })));
        world.ask(&key, put_secret(&function, "TOKEN", "kept")).unwrap();
        let first = world.keys(&tenant)[0].clone();
        let done = world.with_power_for(commits).rotate_root_key(true).is_ok();
        let after = world.reopen();
        assert_eq!(value(&after, &function).unwrap(), "kept");
        let was_cut = after.has_unfinished_rotation().unwrap();
        after.resume_rotations().unwrap();
        assert!(!after.has_unfinished_rotation().unwrap());
        assert_eq!(value(&world.reopen(), &function).unwrap(), "kept");
        let last = world.keys(&tenant)[0].clone();
        assert_eq!((last.id, last.version), (first.id, first.version), "the tenant's key itself is the same");
        assert_ne!(last.wrapped.root, first.wrapped.root);
        cuts += usize::from(was_cut);
        if done {
            break;
        }
    }
    assert!(cuts >= 3, "only {cuts} places to cut at were found");
}

#[test]
fn root_key_that_was_replaced_is_kept_beside_unless_it_is_to_be_destroyed() {
    let world = World::new();
    let files = || {
        let entries = std::fs::read_dir(world.data()).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.starts_with("root.key")).collect::<std::collections::BTreeSet<_>>()
    };
    let first = std::fs::read(world.data().join("root.key")).unwrap();
    world.operate(Manage::RotateRootKey { destroy_old: false }).unwrap();
    let kept = files().into_iter().find(|name| name.starts_with("root.key.retired-")).unwrap();
    assert_eq!(std::fs::read(world.data().join(kept)).unwrap(), first);
    assert_ne!(std::fs::read(world.data().join("root.key")).unwrap(), first);
    world.operate(Manage::RotateRootKey { destroy_old: true }).unwrap();
    assert_eq!(files().len(), 1, "{:?}", files());
    let told = world.operate(Manage::ReadRootKey).unwrap();
    assert_eq!((told["available"].as_bool(), told["rotating"].as_bool()), (Some(true), Some(false)));
    assert_eq!(told["wraps"].as_array().unwrap().len(), 1, "{told}");
}

#[test]
fn keys_move_from_one_provider_to_another() {
    let world = World::new();
    let (_, _, functions) = filled(&world);
    let memory = Arc::new(OrdinaryMemory);
    let fresh = crate::fresh_key(&*world.random);
    let elsewhere = Arc::new(LocalRoot::of(&fresh, memory.clone(), world.random.clone()).unwrap());
    let before = LocalRoot::file(&world.data().join("root.key"), memory.clone(), world.random.clone()).unwrap();
    // Both are of this host, so the one of before is told apart by its place in the list alone.
    let config = ControlConfig::in_dir(&world.data());
    let vault = Vault::new(Arc::new(Renamed(elsewhere)), memory, world.clock.clone(), crate::vault::KEEP);
    let vault = vault.with_before(vec![Arc::new(before)]);
    let (clock, random) = (world.clock.clone(), world.random.clone());
    let control = Control::open_with(config, vault, world.authorizer.clone(), clock, random).unwrap();
    all_open(&control, &functions);
    let told = control.rotate_root_key(false).unwrap();
    assert_eq!(told["rewrapped"], 2, "the platform's key and the tenant's");
    all_open(&control, &functions);
    let roots = control.read_root_key().unwrap()["wraps"].as_array().unwrap().clone();
    assert!(roots.iter().all(|root| root["root_key"].as_str().unwrap().starts_with("moved-local:")), "{roots:?}");
}

/// A provider whose names are not those of this host's keys.
struct Renamed(Arc<LocalRoot>);

impl crate::vault::RootKey for Renamed {
    fn describe(&self) -> String {
        self.0.describe()
    }
    fn knows(&self, root: &str) -> bool {
        root.starts_with("moved-")
    }
    fn check(&self) -> Result<(), crate::vault::RootError> {
        self.0.check()
    }
    fn wrap(
        &self,
        context: &crate::vault::WrapContext<'_>,
        key: &crate::keyfile::KeyBytes,
    ) -> Result<crate::vault::Wrapped, crate::vault::RootError> {
        let wrapped = self.0.wrap(context, key)?;
        Ok(crate::vault::Wrapped { root: format!("moved-{}", wrapped.root), ..wrapped })
    }
    fn unwrap(
        &self,
        context: &crate::vault::WrapContext<'_>,
        wrapped: &crate::vault::Wrapped,
    ) -> Result<crate::keyfile::KeyBytes, crate::vault::RootError> {
        let root = wrapped.root.trim_start_matches("moved-").to_owned();
        self.0.unwrap(context, &crate::vault::Wrapped { root, ..wrapped.clone() })
    }
    fn rewrap(
        &self,
        _: &crate::vault::WrapContext<'_>,
        _: &crate::vault::Wrapped,
    ) -> Result<Option<crate::vault::Wrapped>, crate::vault::RootError> {
        Ok(None)
    }
    fn begin_rotation(&self) -> Result<(), crate::vault::RootError> {
        Ok(())
    }
    fn is_current(&self, root: &str) -> bool {
        self.knows(root)
    }
    fn rotating(&self) -> bool {
        false
    }
    fn end_rotation(&self, _: bool) -> Result<(), crate::vault::RootError> {
        Ok(())
    }
}

fn shred(world: &World, tenant: &TenantId) -> Result<Value, ControlError> {
    let keys = world.control.snapshot().tenant(tenant).unwrap().key_names();
    world.operate(Manage::ShredTenant { tenant: tenant.clone(), keys })
}

#[test]
fn shredded_tenant_opens_nowhere_and_the_record_names_what_was_destroyed() {
    let world = World::new();
    let (tenant, key, functions) = filled(&world);
    let secrets = world.control.transact(|tx| tx.tenant(&tenant)).unwrap().unwrap().secrets;
    let wrapped = world.keys(&tenant);
    let bytes = crate::vault::encode_key(&wrapped[0]);
    let told = shred(&world, &tenant).unwrap();
    assert_eq!(told["destroyed"], json!([wrapped[0].name()]));
    // Nothing is left of the key, in no file of the store.
    for entry in std::fs::read_dir(world.data()).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            continue;
        }
        let found = std::fs::read(&path).unwrap().windows(32).any(|part| part == &bytes[bytes.len() - 32..]);
        assert!(!found, "{} still has the wrapped key", path.display());
    }
    assert!(!world.knows(&key), "nobody of it is let in");
    // What was sealed opens with nothing that is left, held keys among it.
    let vault = world.control.vault();
    for secret in &secrets {
        let place = crate::vault::Place::secret(&tenant, &secret.function, &secret.name, secret.version);
        assert!(vault.open(&world.keys(&tenant), place, &secret.sealed).is_err());
    }
    assert!(world.operate(put_secret(&functions[0], "TOKEN", "again")).is_err());
    let again = world.operate(Manage::RotateTenantKey { tenant: tenant.clone() }).unwrap_err();
    assert!(matches!(again, ControlError::Shredded { .. }), "{again}");
    assert!(matches!(shred(&world, &tenant), Err(ControlError::Shredded { .. })));
    let (mut text, mut folders) = (Vec::new(), vec![world.data().parent().unwrap().join("audit")]);
    while let Some(folder) = folders.pop() {
        for path in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() { folders.push(path) } else { text.extend(std::fs::read(path).unwrap()) }
        }
    }
    let proof = format!("tenant={tenant} destroys={}", wrapped[0].name());
    assert!(text.windows(proof.len()).any(|part| part == proof.as_bytes()), "no record of it");
}

#[test]
fn keys_that_are_not_those_of_the_record_are_not_destroyed() {
    let world = World::new();
    let (tenant, key, functions) = filled(&world);
    let keys = world.control.snapshot().tenant(&tenant).unwrap().key_names();
    world.ask(&key, Manage::RotateTenantKey { tenant: tenant.clone() }).unwrap();
    let refused = world.operate(Manage::ShredTenant { tenant, keys }).unwrap_err();
    assert!(matches!(refused, ControlError::KeysChanged { .. }), "{refused}");
    all_open(&world.control, &functions);
    let platform = world.control.snapshot().tenant(&platform_tenant()).unwrap().key_names();
    let refused = world.operate(Manage::ShredTenant { tenant: platform_tenant(), keys: platform }).unwrap_err();
    assert!(matches!(refused, ControlError::Invalid { .. }), "{refused}");
}

/// What can be proved of an old copy of the store, and what cannot: it opens for as long as the root key of its time is
/// there, and not any more once that was replaced and destroyed.
#[test]
fn restored_copy_of_a_shredded_tenant_opens_only_as_long_as_its_root_key_is_there() {
    let world = World::new();
    let (tenant, _, functions) = filled(&world);
    world.control.store.lock().unwrap().scrub().unwrap();
    let copy = std::fs::read(world.data().join("state.sqlite")).unwrap();
    shred(&world, &tenant).unwrap();
    let restored = || {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        crate::private_dir(&data).unwrap();
        for file in std::fs::read_dir(world.data()).unwrap().map(|entry| entry.unwrap().path()) {
            if file.extension().is_some_and(|end| end == "key") {
                crate::create_private(&data.join(file.file_name().unwrap()), &std::fs::read(&file).unwrap()).unwrap();
            }
        }
        crate::create_private(&data.join("state.sqlite"), &copy).unwrap();
        let (clock, random) = (world.clock.clone(), world.random.clone());
        let config = ControlConfig::in_dir(&data);
        (Control::open(config, world.authorizer.clone(), clock, random).unwrap(), dir)
    };
    all_open(&restored().0, &functions);
    world.operate(Manage::RotateRootKey { destroy_old: true }).unwrap();
    let (control, _dir) = restored();
    for function in &functions {
        assert!(control.unseal(&function.id).is_err());
    }
}
