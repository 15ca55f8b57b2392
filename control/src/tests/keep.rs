//! What is held stays, and a subject whose key is destroyed is not known any more.

use cofferdam_audit::shred::Opener;
use cofferdam_model::{Keep, UnixNanos};
use serde_json::json;

use super::*;

fn hold(name: &str, tenant: Option<&TenantId>) -> Manage {
    let (name, reason) = (name.to_owned(), "a court wants it".to_owned());
    let (from, until) = (Some(UnixNanos(1)), Some(UnixNanos(2)));
    Manage::Keep(Keep::PutHold { name, tenant: tenant.cloned(), from, until, reason })
}

fn shred(tenant: &TenantId, subject: Option<&str>) -> Manage {
    let (tenant, subject) = (tenant.clone(), subject.map(str::to_owned));
    Manage::Keep(Keep::ShredSubject { tenant, subject, reason: "asked for".into() })
}

fn opens(world: &World, id: &str) -> bool {
    matches!(world.control.subject_key_named(id), Opener::Key(_))
}

#[test]
fn a_subject_keeps_its_key_through_rotation_and_restart_until_it_is_destroyed() {
    let world = World::new();
    let (acme, _) = world.tenant("acme");
    let (globex, _) = world.tenant("globex");
    assert!(world.control.subject_key_at_hand(acme.as_str(), "alice").is_none());
    let alice = world.control.subject_key(&acme, "alice").unwrap().id().to_owned();
    assert_eq!(world.control.subject_key(&acme, "alice").unwrap().id(), alice);
    assert_eq!(world.control.subject_key_at_hand(acme.as_str(), "alice").unwrap().id(), alice);
    let others = [(&acme, "bob"), (&globex, "alice")]
        .map(|(tenant, subject)| world.control.subject_key(tenant, subject).unwrap().id().to_owned());
    assert!(others.iter().all(|other| *other != alice));

    world.operate(Manage::RotateTenantKey { tenant: acme.clone() }).unwrap();
    world.operate(Manage::RotateRootKey { destroy_old: true }).unwrap();
    assert!(opens(&world, &alice));
    let again = world.reopen();
    assert_eq!(again.subject_key(&acme, "alice").unwrap().id(), alice);
    drop(again);

    let done = world.operate(shred(&acme, Some("alice"))).unwrap();
    assert_eq!(done["destroyed"], json!([alice]));
    assert!(world.control.subject_key_at_hand(acme.as_str(), "alice").is_none());
    assert!(matches!(world.control.subject_key_named(&alice), Opener::Destroyed));
    assert!(others.iter().all(|other| opens(&world, other)));
    // Neither the store nor anything beside it has it any more, nor whose it was.
    let done = world.operate(shred(&acme, None)).unwrap();
    assert_eq!(done["destroyed"], json!([others[0]]));
    assert_ne!(world.control.subject_key(&acme, "alice").unwrap().id(), alice);
    assert!(opens(&world, &others[1]), "another tenant's");
    assert!(matches!(world.control.subject_key_named("sk_unknown"), Opener::Unknown));
}

#[test]
fn nothing_that_is_held_is_destroyed() {
    let world = World::new();
    let (acme, _) = world.tenant("acme");
    let (globex, _) = world.tenant("globex");
    let key = world.control.subject_key(&acme, "alice").unwrap().id().to_owned();
    world.control.subject_key(&globex, "alice").unwrap();
    world.operate(hold("case-7", Some(&acme))).unwrap();
    let keys = world.control.snapshot().tenant(&acme).unwrap().key_names();
    for operation in [
        shred(&acme, Some("alice")),
        shred(&acme, None),
        Manage::ShredTenant { tenant: acme.clone(), keys: keys.clone() },
    ] {
        let refused = world.operate(operation).unwrap_err();
        assert!(matches!(&refused, ControlError::Held { hold } if hold == "case-7"), "{refused}");
    }
    assert!(opens(&world, &key));
    world.operate(shred(&globex, None)).unwrap();
    world.operate(hold("all", None)).unwrap();
    assert!(matches!(world.operate(shred(&globex, None)), Err(ControlError::Held { .. })));
    assert_eq!(world.operate(Manage::Keep(Keep::ListHolds)).unwrap()["holds"].as_array().unwrap().len(), 2);
    assert_eq!(world.control.holds().unwrap().len(), 2);

    for name in ["all", "case-7"] {
        world.operate(Manage::Keep(Keep::RemoveHold { name: name.into() })).unwrap();
    }
    let gone = world.operate(Manage::Keep(Keep::RemoveHold { name: "all".into() }));
    assert!(matches!(gone, Err(ControlError::NotFound { .. })));
    // With the keys of the tenant those of its subjects go too.
    world.operate(Manage::ShredTenant { tenant: acme.clone(), keys }).unwrap();
    assert!(matches!(world.control.subject_key_named(&key), Opener::Destroyed));
    assert!(world.control.subject_key(&acme, "alice").is_err());
}

#[test]
fn a_hold_without_name_reason_or_time_is_refused() {
    let world = World::new();
    let put = |name: &str, reason: &str, until: u64| {
        let (name, reason) = (name.to_owned(), reason.to_owned());
        let (from, until) = (Some(UnixNanos(5)), Some(UnixNanos(until)));
        world.operate(Manage::Keep(Keep::PutHold { name, tenant: None, from, until, reason }))
    };
    for (name, reason, until) in [("A b", "why", 6), ("a", " ", 6), ("a", "why", 5)] {
        assert!(matches!(put(name, reason, until), Err(ControlError::Invalid { .. })), "{name} {reason} {until}");
    }
    put("a", "why", 6).unwrap();
}
