//! What any store must do about who is known: users, members of issuers, revocations, keys of the issuer.

use super::*;

pub(super) fn user(name: &str) -> UserRow {
    let (created, changed) = (UnixNanos(1), UnixNanos(2));
    UserRow { name: name.into(), roles: vec!["viewer".into()], passphrase: "$argon2id$x".into(), created, changed }
}

pub(super) fn revocations_are_forgotten_at_their_time_and_taken_back_once(fixture: &impl Fixture) {
    let mut world = World::new(1);
    let mut store = fixture.open();
    let first = world.fill(&mut store).revocations[0].clone();
    let forever = world.revocation("mallory", 11, None);
    run(&mut store, |tx| tx.insert_revocation(&forever)).unwrap();
    let left = |store: &mut dyn Store| world.state(store).unwrap().revocations;
    run(&mut store, |tx| tx.forget_revocations(UnixNanos(19))).unwrap();
    assert_eq!(left(&mut store), [first, forever.clone()]);
    run(&mut store, |tx| tx.forget_revocations(UnixNanos(20))).unwrap();
    assert_eq!(left(&mut store), std::slice::from_ref(&forever));
    assert!(run(&mut store, |tx| tx.remove_revocation(&forever.id)).unwrap());
    assert!(!run(&mut store, |tx| tx.remove_revocation(&forever.id)).unwrap());
}

pub(super) fn members_are_kept_apart_by_issuer(fixture: &impl Fixture) {
    let mut world = World::new(1);
    let mut store = fixture.open();
    world.fill(&mut store);
    let tenant = world.tenant.id.clone();
    let of =
        |issuer: &str| MemberRow { issuer: Some(issuer.into()), subject: "alice".into(), roles: vec!["viewer".into()] };
    run(&mut store, |tx| tx.put_member(&tenant, &of("https://a.test"))).unwrap();
    let issuers = |store: &mut dyn Store| -> Vec<_> {
        world.state(store).unwrap().members.into_iter().map(|member| member.issuer).collect()
    };
    assert_eq!(issuers(&mut store), [None, Some("https://a.test".to_owned())]);
    assert!(!run(&mut store, |tx| tx.remove_member(&tenant, Some("https://b.test"), "alice")).unwrap());
    assert!(run(&mut store, |tx| tx.remove_member(&tenant, None, "alice")).unwrap());
    assert_eq!(issuers(&mut store), [Some("https://a.test".to_owned())]);
}

pub(super) fn users_and_keys_of_the_issuer_are_replaced_and_forgotten(fixture: &impl Fixture) {
    let mut world = World::new(1);
    let mut store = fixture.open();
    world.fill(&mut store);
    let tenant = world.tenant.id.clone();
    let changed = UserRow { roles: vec![], changed: UnixNanos(9), ..user("alice") };
    run(&mut store, |tx| tx.put_user(&tenant, &changed)).unwrap();
    assert_eq!(world.state(&mut store).unwrap().users, [changed]);
    assert!(run(&mut store, |tx| tx.remove_user(&tenant, "alice")).unwrap());
    assert!(!run(&mut store, |tx| tx.remove_user(&tenant, "alice")).unwrap());

    let key = |kid: &str, at| IssuerKeyRow {
        kid: kid.into(),
        public: [at; 32],
        created: UnixNanos(at.into()),
        retired: None,
    };
    run(&mut store, |tx| tx.insert_issuer_key(&key("old", 1))).unwrap();
    run(&mut store, |tx| tx.retire_issuer_keys(UnixNanos(5))).unwrap();
    run(&mut store, |tx| tx.insert_issuer_key(&key("new", 5))).unwrap();
    run(&mut store, |tx| tx.retire_issuer_keys(UnixNanos(7))).unwrap();
    let keys = |store: &mut dyn Store| run(store, |tx| tx.issuer_keys()).unwrap();
    let retired: Vec<_> = keys(&mut store).into_iter().map(|key| (key.kid, key.retired)).collect();
    assert_eq!(retired, [("new".to_owned(), Some(UnixNanos(7))), ("old".to_owned(), Some(UnixNanos(5)))]);
    run(&mut store, |tx| tx.forget_issuer_keys(UnixNanos(5))).unwrap();
    assert_eq!(keys(&mut store).len(), 1);
}

pub(super) fn keys_keep_when_they_were_last_used(fixture: &impl Fixture) {
    let mut world = World::new(1);
    let mut store = fixture.open();
    let id = world.fill(&mut store).api_keys[0].id.clone();
    let tenant = world.tenant.id.clone();
    let uses = |store: &mut dyn Store| run(store, |tx| tx.key_uses(&tenant)).unwrap();
    assert_eq!(uses(&mut store), []);
    for (next, at) in [(1, 120), (2, 60)] {
        let used = vec![(id.clone(), at), (KeyId::mint(&tenant, &world.random), 9)];
        run(&mut store, |tx| tx.add_usage(&UsageStep { used: used.clone(), ..step(next, vec![]) })).unwrap();
    }
    assert_eq!(uses(&mut store), [(id, 120)], "the last time, of keys that exist");
}
