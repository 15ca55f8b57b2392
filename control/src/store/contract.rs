//! What every store must do, whatever is behind it. Written against the trait; each store runs all of it.

mod keep;
mod people;

use cofferdam_model::random::SeededRandom;
use cofferdam_model::{Digest, Random, RevocationTarget, RouteSpec, SealedValue, UsageCursor, WrappedDataKey};

use super::*;
use crate::vault::{Place, Wrapped};
use cofferdam_model::{ClientCa, KeyKind, KeySettings};

use keep::*;
use people::*;

/// A place where a store is kept, to be opened again and again.
trait Fixture {
    type Store: Store;
    fn open(&self) -> Self::Store;
}

struct Sqlite(tempfile::TempDir);

impl Fixture for Sqlite {
    type Store = SqliteStore;

    fn open(&self) -> SqliteStore {
        let path = self.0.path().join("state.sqlite");
        if !path.exists() {
            crate::keyfile::create(&path, &[]).unwrap();
        }
        SqliteStore::open(&path).unwrap()
    }
}

fn sqlite() -> Sqlite {
    Sqlite(tempfile::tempdir().unwrap())
}

macro_rules! contract {
    ($($claim:ident,)*) => {
        mod sqlite {
            $(#[test] fn $claim() { super::$claim(&super::sqlite()); })*
        }
    };
}

contract! {
    what_was_stored_is_there_after_reopening,
    failed_work_leaves_no_trace,
    tenant_id_and_name_are_taken_once,
    generation_never_repeats,
    removing_a_function_takes_its_versions_secrets_and_routes,
    current_version_cannot_be_removed,
    secret_and_version_need_their_function,
    routes_of_one_app_are_replaced_and_others_kept,
    key_is_revoked_once,
    earlier_values_are_kept_apart_and_go_with_their_secret,
    what_is_sealed_with_an_older_key_is_found_wherever_it_is,
    keys_of_a_tenant_are_replaced_and_forgotten,
    revocations_are_forgotten_at_their_time_and_taken_back_once,
    members_are_kept_apart_by_issuer,
    users_and_keys_of_the_issuer_are_replaced_and_forgotten,
    keys_keep_when_they_were_last_used,
    holds_stand_until_they_are_removed,
    keys_of_subjects_are_destroyed_with_whose_they_were,
    two_openings_do_not_lose_a_change,
    usage_adds_up_and_stays_with_its_mark,
    usage_that_does_not_fit_stays_at_the_most,
    usage_of_a_removed_function_keeps_its_name_until_it_is_forgotten,
    components_are_told_once_however_many_versions_have_them,
}

struct World {
    random: SeededRandom,
    tenant: TenantRow,
    function: FunctionRow,
}

fn sealed(random: &dyn Random) -> SealedValue {
    let mut salt = [0; 32];
    random.fill(&mut salt);
    SealedValue { format: 1, key_version: 1, data_key: None, salt, commitment: [3; 32], ciphertext: vec![9; 40] }
}

fn spec(host: &str) -> RouteSpec {
    serde_json::from_value(serde_json::json!({ "host": host, "path": "/a/{id}", "function": "f" })).unwrap()
}

impl World {
    fn new(seed: u64) -> Self {
        let random = SeededRandom::new(seed);
        let id = TenantId::mint(&random);
        let function = FunctionRow {
            id: FunctionId::mint(&id, &random),
            name: "f".into(),
            settings: FunctionSettings::default(),
            generation: 1,
            current: None,
        };
        let name = format!("tenant-{seed}");
        Self {
            tenant: TenantRow {
                id,
                name,
                active: true,
                settings: TenantSettings::default(),
                created: UnixNanos(seed),
                organisation: None,
            },
            function,
            random,
        }
    }

    fn key(&self) -> WrappedKey {
        self.key_numbered(1)
    }

    fn key_numbered(&self, version: u32) -> WrappedKey {
        let wrapped = Wrapped { root: "local:test".into(), bytes: sealed(&self.random).salt.to_vec() };
        WrappedKey { version, id: Some([7; 32]), wrapped }
    }

    fn version(&self, published: u64) -> VersionRow {
        VersionRow {
            id: VersionId::mint(&self.function.id, &self.random),
            function: self.function.id.clone(),
            component: Digest([u8::try_from(published).unwrap(); 32]),
            component_bytes: 77,
            settings: FunctionSettings::default(),
            published: UnixNanos(published),
        }
    }

    fn secret(&self) -> SecretRow {
        let sealed = sealed(&self.random);
        SecretRow {
            function: self.function.id.clone(),
            name: "S".into(),
            version: 4,
            sealed,
            updated: UnixNanos(8),
            epoch: 3,
        }
    }

    fn route(&self, app: &str, host: &str) -> RouteRow {
        let id = RouteId::mint(&self.tenant.id, &self.random);
        RouteRow { id, app: app.into(), spec: spec(host), function: self.function.id.clone() }
    }

    fn api_key(&self) -> ApiKeyRow {
        ApiKeyRow {
            id: KeyId::mint(&self.tenant.id, &self.random),
            account: "ci".into(),
            roles: vec!["deployer".into()],
            scopes: vec!["Deploy".into()],
            mac: [5; 32],
            created: UnixNanos(1),
            expires: UnixNanos(2),
            revoked: None,
            settings: KeySettings { kind: KeyKind::Sigv4, ..KeySettings::default() },
            sealed: Some(sealed(&self.random)),
        }
    }

    fn revocation(&self, subject: &str, created: u64, expires: Option<u64>) -> RevocationRow {
        RevocationRow {
            id: RevocationId::mint(&self.tenant.id, &self.random),
            target: RevocationTarget::Subject { issuer: None, subject: subject.into() },
            reason: "stolen".into(),
            created: UnixNanos(created),
            expires: expires.map(UnixNanos),
        }
    }

    /// A tenant with one of everything, in the order the store gives it back.
    fn fill(&mut self, store: &mut dyn Store) -> TenantState {
        let version = self.version(2);
        self.function.current = Some(version.id.clone());
        let state = TenantState {
            tenant: self.tenant.clone(),
            keys: vec![self.key()],
            members: vec![MemberRow { issuer: None, subject: "alice".into(), roles: vec!["admin".into()] }],
            functions: vec![(self.function.clone(), Some(version.clone()))],
            routes: vec![self.route("app", "a.example")],
            policies: vec![PolicyRow { name: "p".into(), text: "permit ();".into() }],
            policies_set: SetRow { version: 1, rules: None },
            boundary: Vec::new(),
            boundary_set: SetRow::default(),
            secrets: vec![self.secret()],
            api_keys: vec![self.api_key()],
            client_cas: vec![ClientCaRow { name: "corp".into(), ca: ClientCa::default(), updated: UnixNanos(9) }],
            revocations: vec![self.revocation("eve", 10, Some(20))],
            users: vec![user("alice")],
        };
        run(store, |tx| {
            tx.insert_tenant(&state.tenant, &state.keys[0])?;
            tx.put_member(&state.tenant.id, &state.members[0])?;
            tx.put_function(&state.functions[0].0)?;
            tx.insert_version(&version)?;
            tx.replace_routes(&state.tenant.id, "app", &state.routes)?;
            tx.put_policy(&state.tenant.id, &state.policies[0])?;
            tx.put_secret(&state.secrets[0])?;
            tx.put_client_ca(&state.tenant.id, &state.client_cas[0])?;
            tx.insert_api_key(&state.api_keys[0])?;
            tx.insert_revocation(&state.revocations[0])?;
            tx.put_user(&state.tenant.id, &state.users[0])
        })
        .unwrap();
        state
    }

    fn state(&self, store: &mut dyn Store) -> Option<TenantState> {
        run(store, |tx| tx.tenant(&self.tenant.id)).unwrap()
    }
}

fn what_was_stored_is_there_after_reopening(fixture: &impl Fixture) {
    let mut world = World::new(1);
    let stored = world.fill(&mut fixture.open());
    let mut store = fixture.open();
    assert_eq!(world.state(&mut store), Some(stored));
    assert_eq!(run(&mut store, |tx| tx.tenants()).unwrap(), [world.tenant.clone()]);
    let stranger = TenantId::mint(&world.random);
    assert_eq!(run(&mut store, |tx| tx.tenant(&stranger)).unwrap(), None);
}

fn failed_work_leaves_no_trace(fixture: &impl Fixture) {
    let world = World::new(1);
    let mut store = fixture.open();
    let failed: Result<(), _> = run(&mut store, |tx| {
        tx.insert_tenant(&world.tenant, &world.key())?;
        Err(ControlError::not_found("thing", "x"))
    });
    assert!(matches!(failed, Err(ControlError::NotFound { .. })));
    assert_eq!(world.state(&mut store), None);
}

fn tenant_id_and_name_are_taken_once(fixture: &impl Fixture) {
    let (mut first, mut second) = (World::new(1), World::new(2));
    let mut store = fixture.open();
    first.fill(&mut store);
    second.tenant.name = first.tenant.name.clone();
    let taken = run(&mut store, |tx| tx.insert_tenant(&second.tenant, &second.key()));
    assert!(matches!(taken, Err(ControlError::Exists { what: "tenant", .. })));
    second.tenant = TenantRow { name: "another".into(), ..first.tenant.clone() };
    let taken = run(&mut store, |tx| tx.insert_tenant(&second.tenant, &second.key()));
    assert!(matches!(taken, Err(ControlError::Exists { .. })));
}

fn generation_never_repeats(fixture: &impl Fixture) {
    let first = run(&mut fixture.open(), |tx| tx.next_generation()).unwrap();
    let mut store = fixture.open();
    let second = run(&mut store, |tx| tx.next_generation()).unwrap();
    let third = run(&mut store, |tx| tx.next_generation()).unwrap();
    assert!(first < second && second < third);
}

fn removing_a_function_takes_its_versions_secrets_and_routes(fixture: &impl Fixture) {
    let mut world = World::new(1);
    let mut store = fixture.open();
    world.fill(&mut store);
    let id = world.function.id.clone();
    assert!(run(&mut store, |tx| tx.remove_function(&id)).unwrap());
    let left = world.state(&mut store).unwrap();
    assert!(left.functions.is_empty() && left.secrets.is_empty() && left.routes.is_empty());
    assert_eq!(run(&mut store, |tx| tx.versions(&id)).unwrap(), []);
    assert!(!run(&mut store, |tx| tx.remove_function(&id)).unwrap());
    assert_eq!((left.members.len(), left.policies.len(), left.api_keys.len()), (1, 1, 1));
}

fn current_version_cannot_be_removed(fixture: &impl Fixture) {
    let mut world = World::new(1);
    let mut store = fixture.open();
    world.fill(&mut store);
    let older = world.version(1);
    run(&mut store, |tx| tx.insert_version(&older)).unwrap();
    let current = world.function.current.clone().unwrap();
    let versions = run(&mut store, |tx| tx.versions(&world.function.id)).unwrap();
    assert_eq!(versions.iter().map(|v| v.published.0).collect::<Vec<_>>(), [2, 1], "newest first");
    assert!(!run(&mut store, |tx| tx.remove_version(&current)).unwrap());
    assert!(run(&mut store, |tx| tx.remove_version(&older.id)).unwrap());
}

fn secret_and_version_need_their_function(fixture: &impl Fixture) {
    let mut world = World::new(1);
    let mut store = fixture.open();
    world.fill(&mut store);
    world.function.id = FunctionId::mint(&world.tenant.id, &world.random);
    assert!(run(&mut store, |tx| tx.put_secret(&world.secret())).is_err());
    assert!(run(&mut store, |tx| tx.insert_version(&world.version(3))).is_err());
}

fn routes_of_one_app_are_replaced_and_others_kept(fixture: &impl Fixture) {
    let mut world = World::new(1);
    let mut store = fixture.open();
    let first = world.fill(&mut store).routes;
    let other = [world.route("other", "a.example"), world.route("other", "b.example")];
    let tenant = world.tenant.id.clone();
    run(&mut store, |tx| tx.replace_routes(&tenant, "other", &other)).unwrap();
    assert_eq!(run(&mut store, |tx| tx.routes_on("a.example")).unwrap().len(), 2);
    run(&mut store, |tx| tx.replace_routes(&tenant, "other", &[])).unwrap();
    assert_eq!(world.state(&mut store).unwrap().routes, first);
}

fn key_is_revoked_once(fixture: &impl Fixture) {
    let mut world = World::new(1);
    let mut store = fixture.open();
    let id = world.fill(&mut store).api_keys[0].id.clone();
    assert!(run(&mut store, |tx| tx.revoke_api_key(&id, UnixNanos(5))).unwrap());
    assert!(!run(&mut store, |tx| tx.revoke_api_key(&id, UnixNanos(6))).unwrap());
    assert_eq!(world.state(&mut store).unwrap().api_keys[0].revoked, Some(UnixNanos(5)));
    assert!(run(&mut store, |tx| tx.remove_api_key(&id)).unwrap());
    assert!(world.state(&mut store).unwrap().api_keys.is_empty());
}

fn earlier_values_are_kept_apart_and_go_with_their_secret(fixture: &impl Fixture) {
    let mut world = World::new(1);
    let mut store = fixture.open();
    let current = world.fill(&mut store).secrets[0].clone();
    let earlier: Vec<_> = (1..4).map(|version| SecretRow { version, ..current.clone() }).collect();
    run(&mut store, |tx| earlier.iter().try_for_each(|row| tx.keep_secret(row))).unwrap();
    let (id, name) = (world.function.id.clone(), current.name.as_str());
    let versions = |store: &mut dyn Store| {
        let rows = run(store, |tx| tx.secret_history(&id, name)).unwrap();
        rows.iter().map(|row| row.version).collect::<Vec<_>>()
    };
    assert_eq!(versions(&mut store), [3, 2, 1], "newest first");
    assert_eq!(world.state(&mut store).unwrap().secrets.as_slice(), std::slice::from_ref(&current));
    assert!(run(&mut store, |tx| tx.forget_secret(&id, name, 2)).unwrap());
    assert!(!run(&mut store, |tx| tx.forget_secret(&id, name, 2)).unwrap());
    assert_eq!(run(&mut store, |tx| tx.forget_secrets(&id, name, 3)).unwrap(), 1);
    assert_eq!(versions(&mut store), [3]);
    assert!(run(&mut store, |tx| tx.remove_secret(&id, name)).unwrap());
    run(&mut store, |tx| tx.put_secret(&current)).unwrap();
    assert_eq!(versions(&mut store), [0u64; 0], "a secret set anew has no past");
}

fn what_is_sealed_with_an_older_key_is_found_wherever_it_is(fixture: &impl Fixture) {
    let (mut world, mut other) = (World::new(1), World::new(2));
    let mut store = fixture.open();
    let current = world.fill(&mut store).secrets[0].clone();
    other.fill(&mut store);
    let newer = SealedValue {
        format: 2,
        key_version: 2,
        data_key: Some(WrappedDataKey { salt: [1; 32], commitment: [2; 32], ciphertext: vec![3; 48] }),
        ..current.sealed.clone()
    };
    let earlier = SecretRow { version: 2, sealed: newer.clone(), ..current.clone() };
    run(&mut store, |tx| tx.keep_secret(&earlier)).unwrap();
    let tenant = world.tenant.id.clone();
    let found = |store: &mut dyn Store, key| {
        let rows = run(store, |tx| tx.sealed_otherwise(&tenant, key, 10)).unwrap();
        let mut found: Vec<_> = rows.iter().map(|row| row.version).collect();
        found.sort_unstable();
        found
    };
    // The first format is never as it should be. The one of version 1 is an access key's.
    assert_eq!((found(&mut store, 2), found(&mut store, 1)), (vec![1, 4], vec![1, 2, 4]));
    let rows = run(&mut store, |tx| tx.sealed_otherwise(&tenant, 2, 10)).unwrap();
    let signing = rows.into_iter().find(|row| row.kind == Place::ACCESS_KEY).unwrap();
    run(&mut store, |tx| tx.put_sealed(&SealedRow { sealed: newer.clone(), ..signing })).unwrap();
    assert_eq!(found(&mut store, 2), [4]);
    let owner = world.function.id.as_str().to_owned();
    let row = SealedRow { kind: Place::SECRET, owner, name: "S".into(), version: 4, sealed: newer.clone() };
    run(&mut store, |tx| tx.put_sealed(&row)).unwrap();
    assert_eq!(found(&mut store, 2), [0u64; 0]);
    assert_eq!(world.state(&mut store).unwrap().secrets[0].sealed, newer);
    assert_eq!(run(&mut store, |tx| tx.sealed_otherwise(&tenant, 1, 1)).unwrap().len(), 1, "no more than asked for");
}

fn keys_of_a_tenant_are_replaced_and_forgotten(fixture: &impl Fixture) {
    let mut world = World::new(1);
    let mut store = fixture.open();
    let first = world.fill(&mut store).keys[0].clone();
    let (tenant, second) = (world.tenant.id.clone(), world.key_numbered(2));
    run(&mut store, |tx| tx.put_tenant_key(&tenant, &second)).unwrap();
    assert_eq!(run(&mut store, |tx| tx.tenant_keys(&tenant)).unwrap(), [first, second]);
    let again = world.key_numbered(1);
    run(&mut store, |tx| tx.put_tenant_key(&tenant, &again)).unwrap();
    assert_eq!(world.state(&mut store).unwrap().keys[0], again);
    for there in [true, false] {
        assert_eq!(run(&mut store, |tx| tx.remove_tenant_key(&tenant, 1)).unwrap(), there);
    }
    run(&mut store, |tx| tx.set_tenant_active(&tenant, false)).unwrap();
    store.scrub().unwrap();
    assert!(!world.state(&mut fixture.open()).unwrap().tenant.active);
}

fn two_openings_do_not_lose_a_change(fixture: &impl Fixture) {
    let mut world = World::new(1);
    let (mut one, mut two) = (fixture.open(), fixture.open());
    world.fill(&mut one);
    let tenant = world.tenant.id.clone();
    let member = |subject: &str| MemberRow { issuer: None, subject: subject.into(), roles: vec!["viewer".into()] };
    run(&mut two, |tx| tx.put_member(&tenant, &member("bob"))).unwrap();
    run(&mut one, |tx| tx.put_member(&tenant, &member("carol"))).unwrap();
    let subjects: Vec<_> = world.state(&mut two).unwrap().members.into_iter().map(|m| m.subject).collect();
    assert_eq!(subjects, ["alice", "bob", "carol"]);
}

fn tally(calls: u64, cpu_us: u64) -> Tally {
    let usage = Usage { cpu_us, egress_bytes_in: calls, ..Usage::default() };
    Tally { calls, answered: calls, usage, ..Tally::default() }
}

impl World {
    fn usage(&self, store: &mut dyn Store, range: &UsageRange) -> Vec<(u64, String, Tally)> {
        let rows = run(store, |tx| tx.usage(&self.tenant.id, range, 100)).unwrap();
        rows.into_iter().map(|(row, name)| (row.hour, name, row.tally)).collect()
    }

    fn used(&self, hour: u64, tally: Tally) -> UsageRow {
        UsageRow { hour, function: self.function.id.clone(), tally }
    }
}

fn step(next: u64, rows: Vec<UsageRow>) -> UsageStep {
    let mark = UsageMark { origin: "cofferdam.test/log".into(), next, leaf: [u8::try_from(next).unwrap(); 32] };
    UsageStep { rows, closed: vec![], opened: vec![], used: vec![], mark }
}

const ALL: UsageRange = UsageRange { function: None, hours: 0..u64::MAX, after: None };

fn usage_adds_up_and_stays_with_its_mark(fixture: &impl Fixture) {
    let mut world = World::new(1);
    let mut store = fixture.open();
    world.fill(&mut store);
    assert_eq!(run(&mut store, |tx| tx.usage_mark()).unwrap(), None);
    let open = |request: &str, index| OpenCall { request: request.into(), index, function: world.function.id.clone() };
    let mut first = step(7, vec![world.used(10, tally(2, 5)), world.used(11, tally(1, 1))]);
    first.opened = vec![open("b", 5), open("a", 6)];
    run(&mut store, |tx| tx.add_usage(&first)).unwrap();
    let mut second = step(9, vec![world.used(10, tally(3, 7))]);
    (second.closed, second.opened) = (vec!["b".into()], vec![open("c", 8)]);
    run(&mut store, |tx| tx.add_usage(&second)).unwrap();
    let failed: Result<(), _> = run(&mut store, |tx| {
        tx.add_usage(&step(20, vec![world.used(10, tally(9, 9))]))?;
        Err(ControlError::not_found("thing", "x"))
    });
    assert!(failed.is_err());

    let mut store = fixture.open();
    let found = run(&mut store, |tx| tx.usage_mark()).unwrap();
    assert_eq!(found, Some((second.mark.clone(), vec![open("a", 6), open("c", 8)])));
    let name = || "f".to_owned();
    assert_eq!(world.usage(&mut store, &ALL), [(10, name(), tally(5, 12)), (11, name(), tally(1, 1))]);
    assert_eq!(world.usage(&mut store, &UsageRange { hours: 11..12, ..ALL }), [(11, name(), tally(1, 1))]);
    assert_eq!(world.usage(&mut store, &UsageRange { hours: 0..10, ..ALL }), []);
    assert_eq!(world.usage(&mut store, &UsageRange { function: Some("other".into()), ..ALL }), []);
    let after = Some(UsageCursor { hour: 10, function: world.function.id.clone() });
    assert_eq!(world.usage(&mut store, &UsageRange { after, ..ALL }), [(11, name(), tally(1, 1))]);
    let stranger = TenantId::mint(&world.random);
    assert_eq!(run(&mut store, |tx| tx.usage(&stranger, &ALL, 100)).unwrap(), []);
    run(&mut store, |tx| tx.count_anew(false)).unwrap();
    assert_eq!(run(&mut store, |tx| tx.usage_mark()).unwrap(), Some((second.mark, vec![])));
    assert_eq!(world.usage(&mut store, &ALL).len(), 2);
    run(&mut store, |tx| tx.count_anew(true)).unwrap();
    assert_eq!(world.usage(&mut store, &ALL), []);
}

fn usage_that_does_not_fit_stays_at_the_most(fixture: &impl Fixture) {
    let mut world = World::new(1);
    let mut store = fixture.open();
    world.fill(&mut store);
    let most = i64::MAX.unsigned_abs();
    for (next, cpu_us) in [(1, u64::MAX), (2, 1), (3, most)] {
        run(&mut store, |tx| tx.add_usage(&step(next, vec![world.used(1, tally(1, cpu_us))]))).unwrap();
        assert_eq!(world.usage(&mut store, &ALL)[0].2.usage.cpu_us, most);
    }
    assert_eq!(world.usage(&mut store, &ALL)[0].2.calls, 3);
}

fn usage_of_a_removed_function_keeps_its_name_until_it_is_forgotten(fixture: &impl Fixture) {
    let mut world = World::new(1);
    let mut store = fixture.open();
    world.fill(&mut store);
    run(&mut store, |tx| tx.add_usage(&step(1, vec![world.used(5, tally(1, 1)), world.used(6, tally(1, 1))]))).unwrap();
    run(&mut store, |tx| tx.remove_function(&world.function.id)).unwrap();
    run(&mut store, |tx| tx.forget_usage(6)).unwrap();
    assert_eq!(world.usage(&mut store, &ALL), [(6, "f".to_owned(), tally(1, 1))]);
    run(&mut store, |tx| tx.forget_usage(7)).unwrap();
    assert_eq!(world.usage(&mut store, &ALL), []);
    run(&mut store, |tx| tx.add_usage(&step(2, vec![world.used(8, tally(1, 1))]))).unwrap();
    assert_eq!(world.usage(&mut store, &ALL), [(8, String::new(), tally(1, 1))], "the name is forgotten too");
}
