//! What any store must do about what is kept: components, holds, and keys of subjects.

use super::*;

pub(super) fn components_are_told_once_however_many_versions_have_them(fixture: &impl Fixture) {
    let (mut one, mut two) = (World::new(1), World::new(2));
    let mut store = fixture.open();
    one.fill(&mut store);
    two.fill(&mut store);
    let mut again = one.version(3);
    again.component = Digest([2; 32]);
    run(&mut store, |tx| tx.insert_version(&again)).unwrap();
    run(&mut store, |tx| tx.insert_version(&one.version(4))).unwrap();
    let own = run(&mut store, |tx| tx.components(Some(&one.tenant.id))).unwrap();
    assert_eq!(own, [(Digest([2; 32]), 77), (Digest([4; 32]), 77)]);
    assert_eq!(run(&mut store, |tx| tx.components(None)).unwrap(), own, "the other tenant's is the same");
    assert_eq!(run(&mut store, |tx| tx.components(Some(&two.tenant.id))).unwrap(), own[..1]);
}

pub(super) fn holds_stand_until_they_are_removed(fixture: &impl Fixture) {
    let mut store = fixture.open();
    let world = World::new(1);
    let hold = HoldRow {
        name: "case-7".into(),
        tenant: Some(world.tenant.id.clone()),
        from: Some(UnixNanos(5)),
        until: None,
        reason: "a court".into(),
        created: UnixNanos(9),
    };
    let all = HoldRow { name: "all".into(), tenant: None, from: None, until: Some(UnixNanos(7)), ..hold.clone() };
    run(&mut store, |tx| tx.put_hold(&hold)).unwrap();
    run(&mut store, |tx| tx.put_hold(&all)).unwrap();
    drop(store);
    let mut store = fixture.open();
    assert_eq!(run(&mut store, |tx| tx.holds()).unwrap(), [all.clone(), hold.clone()]);
    let shorter = HoldRow { until: Some(UnixNanos(8)), reason: "two courts".into(), ..hold };
    run(&mut store, |tx| tx.put_hold(&shorter)).unwrap();
    assert!(run(&mut store, |tx| tx.remove_hold("all")).unwrap());
    assert!(!run(&mut store, |tx| tx.remove_hold("all")).unwrap());
    assert_eq!(run(&mut store, |tx| tx.holds()).unwrap(), [shorter]);
}

pub(super) fn keys_of_subjects_are_destroyed_with_whose_they_were(fixture: &impl Fixture) {
    let mut store = fixture.open();
    let mut world = World::new(1);
    let state = world.fill(&mut store);
    let sealed = state.secrets[0].sealed.clone();
    let key = |id: &str, subject: u8| SubjectKeyRow {
        id: id.into(),
        tenant: world.tenant.id.clone(),
        subject: [subject; 32],
        sealed: Some(sealed.clone()),
        created: UnixNanos(3),
    };
    for key in [key("a", 1), key("b", 2), key("c", 3)] {
        run(&mut store, |tx| tx.insert_subject_key(&key)).unwrap();
    }
    assert!(run(&mut store, |tx| tx.insert_subject_key(&key("d", 1))).is_err(), "a subject has one key");
    let (tenant, at) = (&world.tenant.id, UnixNanos(4));
    assert_eq!(run(&mut store, |tx| tx.subject_key(tenant, &[1; 32])).unwrap(), Some(key("a", 1)));
    let older = run(&mut store, |tx| tx.sealed_otherwise(tenant, u32::MAX, 100)).unwrap();
    let kinds = older.iter().filter(|row| row.kind == Place::SUBJECT_KEY).count();
    assert_eq!(kinds, 3, "a key of a subject is lost with the tenant's if it is not told of");

    assert_eq!(run(&mut store, |tx| tx.destroy_subject_keys(tenant, Some(&[1; 32]), at)).unwrap(), ["a"]);
    assert_eq!(run(&mut store, |tx| tx.destroy_subject_keys(tenant, Some(&[1; 32]), at)).unwrap(), [""; 0]);
    assert_eq!(run(&mut store, |tx| tx.subject_key(tenant, &[1; 32])).unwrap(), None);
    let gone = run(&mut store, |tx| tx.subject_key_named("a")).unwrap().unwrap();
    assert_eq!((gone.subject, gone.sealed), ([0; 32], None));
    // Whoever comes again gets another one.
    run(&mut store, |tx| tx.insert_subject_key(&key("e", 1))).unwrap();
    assert_eq!(run(&mut store, |tx| tx.destroy_subject_keys(tenant, None, at)).unwrap(), ["b", "c", "e"]);
    assert_eq!(run(&mut store, |tx| tx.subject_key_named("z")).unwrap(), None);
}
