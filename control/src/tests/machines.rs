//! Keys that sign, and authorities of machines.

use super::*;
use cofferdam_authz::{AccessSecrets as _, Directory as _, sigv4};
use cofferdam_model::{ClientAccount, ClientCa, KeyId, KeyKind, KeySettings};
use serde_json::json;

fn signing(tenant: &TenantId, settings: KeySettings) -> Manage {
    let roles = vec!["invoker".to_owned()];
    Manage::CreateKey {
        tenant: tenant.clone(),
        account: "signer".into(),
        roles,
        scopes: vec![],
        ttl_seconds: 3600,
        settings,
    }
}

fn sigv4() -> KeySettings {
    KeySettings { kind: KeyKind::Sigv4, ..KeySettings::default() }
}

/// The secret of a key: the root key is of this host, so nothing has to be waited for.
fn secret_of(control: &Control, key: &KeyId) -> Option<zeroize::Zeroizing<Vec<u8>>> {
    let mut opened = control.access_secret(key);
    match opened.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop())) {
        std::task::Poll::Ready(opened) => opened.unwrap(),
        std::task::Poll::Pending => panic!("a key of this host was waited for"),
    }
}

#[test]
fn access_keys_are_stored_sealed_and_open_for_their_check_alone() {
    let world = World::new();
    let (tenant, admin) = world.tenant("acme");
    let made = world.ask(&admin, signing(&tenant, sigv4())).unwrap();
    let key = KeyId::parse(made["id"].as_str().unwrap()).unwrap();
    let secret = made["secret_access_key"].as_str().unwrap();
    assert_eq!((made["access_key_id"].as_str().unwrap(), secret.len()), (sigv4::access_key_id(&key).as_str(), 43));
    assert!(made.get("key").is_none());
    let listed = world.ask(&admin, Manage::ListKeys { tenant: tenant.clone() }).unwrap();
    assert!(!listed.to_string().contains(secret), "it is shown once");
    // Opened where it was sealed, also after a restart, and not from the bytes on the disk.
    for control in [&world.control, &world.reopen()] {
        assert_eq!(secret_of(control, &key).unwrap().as_slice(), secret.as_bytes());
    }
    for file in std::fs::read_dir(world.data()).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap_or_default();
        assert!(!bytes.windows(secret.len()).any(|window| window == secret.as_bytes()));
    }
    // Each secret is bound to its own key: none opens in another's place, and an API key has none.
    let other = world.ask(&admin, signing(&tenant, sigv4())).unwrap();
    let other = KeyId::parse(other["id"].as_str().unwrap()).unwrap();
    assert_ne!(secret_of(&world.control, &other).unwrap().as_slice(), secret.as_bytes());
    let snapshot = world.control.snapshot();
    let api_key = snapshot.tenant(&tenant).unwrap().api_keys().find(|row| row.sealed.is_none()).unwrap().id.clone();
    assert!(secret_of(&world.control, &api_key).is_none());
    assert_eq!(snapshot.api_key(&key).unwrap().settings.kind, KeyKind::Sigv4);
}

#[test]
fn access_keys_go_on_signing_when_their_tenants_key_is_replaced_and_end_when_it_is_destroyed() {
    let world = World::new();
    let (tenant, admin) = world.tenant("acme");
    let made = world.ask(&admin, signing(&tenant, sigv4())).unwrap();
    let key = KeyId::parse(made["id"].as_str().unwrap()).unwrap();
    let secret = made["secret_access_key"].as_str().unwrap().as_bytes().to_vec();
    let told = world.ask(&admin, Manage::RotateTenantKey { tenant: tenant.clone() }).unwrap();
    assert_eq!(told["rewrapped"], 1);
    for control in [&world.control, &world.reopen()] {
        assert_eq!(secret_of(control, &key).unwrap().as_slice(), secret);
    }
    let keys = world.control.snapshot().tenant(&tenant).unwrap().key_names();
    world.operate(Manage::ShredTenant { tenant, keys }).unwrap();
    for control in [&world.control, &world.reopen()] {
        assert!(secret_of(control, &key).is_none());
    }
}

#[test]
fn terms_of_keys_that_mean_nothing_are_refused() {
    let world = World::new();
    let (tenant, admin) = world.tenant("acme");
    let unsigned = KeySettings { unsigned_payload: true, ..KeySettings::default() };
    let refused = world.ask(&admin, signing(&tenant, unsigned)).unwrap_err().to_string();
    assert!(refused.contains("kind `sigv4`"), "{refused}");
    let network = "192.0.2.0/24".to_owned().try_into().unwrap();
    let many = KeySettings { networks: vec![network; 17], ..sigv4() };
    assert!(matches!(world.ask(&admin, signing(&tenant, many)), Err(ControlError::TooMany { limit: 16, .. })));
}

#[test]
fn an_authority_that_cannot_be_read_changes_nothing() {
    let world = World::new();
    let (tenant, admin) = world.tenant("acme");
    let put = |name: &str, ca: ClientCa| Manage::PutClientCa { tenant: tenant.clone(), name: name.into(), ca };
    let bad = ClientCa { certificates: "nonsense".into(), ..ClientCa::default() };
    let refused = chain(&world.ask(&admin, put("corp", bad)).unwrap_err());
    assert!(refused.starts_with("authority `corp`: "), "{refused}");
    let account = |account: &str, role: &str| ClientCa {
        accounts: vec![ClientAccount {
            machine: "spiffe://a/b".into(),
            account: account.into(),
            roles: vec![role.into()],
        }],
        ..ClientCa::default()
    };
    for (ca, about) in [(account("Pay", "viewer"), "Pay"), (account("pay", "operator"), "platform's own tenant")] {
        let refused = world.ask(&admin, put("corp", ca)).unwrap_err().to_string();
        assert!(refused.contains(about), "{refused}");
    }
    assert!(world.ask(&admin, put("Not A Name", ClientCa::default())).is_err());
    let remove = Manage::RemoveClientCa { tenant: tenant.clone(), name: "corp".into() };
    assert!(matches!(world.ask(&admin, remove), Err(ControlError::NotFound { what: "authority", .. })));
    let listed = world.ask(&admin, Manage::ListClientCas { tenant: tenant.clone() }).unwrap();
    assert_eq!(listed["authorities"], json!([]));
    assert!(world.control.snapshot().client_authorities(&tenant).is_none());
}
