//! What sealing promises, one claim a test. The vectors are those published in `docs/formats/sealed-value.md`.

use std::sync::Mutex;

use cofferdam_model::random::SeededRandom;

use super::*;

const DOCUMENT: &str = include_str!("../../../docs/formats/sealed-value.md");

/// Gives the bytes from `at` upwards, one after the other.
struct Counting(Mutex<u8>);

impl Random for Counting {
    fn fill(&self, bytes: &mut [u8]) {
        let mut at = self.0.lock().unwrap();
        for byte in bytes {
            *byte = *at;
            *at += 1;
        }
    }
}

fn counting(from: u8) -> Counting {
    Counting(Mutex::new(from))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn key(first: u8) -> KeyBytes {
    keyfile::fresh(&counting(first))
}

struct World {
    vault: Vault,
    keys: Vec<WrappedKey>,
    tenant: TenantId,
    function: FunctionId,
    random: SeededRandom,
}

impl World {
    fn new() -> Self {
        let random = SeededRandom::new(5);
        let vault = Vault::new(key(0));
        let tenant = TenantId::mint(&random);
        let function = FunctionId::mint(&tenant, &random);
        let keys = vec![vault.tenant_key(&tenant, 1, &random).unwrap()];
        Self { vault, keys, tenant, function, random }
    }

    fn place(&self) -> Place<'_> {
        Place::secret(&self.tenant, &self.function, "TOKEN", 3)
    }

    fn sealed(&self) -> SealedValue {
        let value = SecretValue::new(b"s3cret".to_vec());
        self.vault.seal(&self.keys, self.place(), &value, &self.random).unwrap()
    }
}

#[test]
fn published_vectors_hold() {
    let tenant = TenantId::parse("t_acme000000000000").unwrap();
    let function = FunctionId::parse("t_acme000000000000.f_cart000000000000").unwrap();
    let vault = Vault::new(key(0));
    // Bytes 20..3f become the tenant key, 40..5f the salt under which it is wrapped.
    let wrapped = vault.tenant_key(&tenant, 1, &counting(0x20)).unwrap();
    let place = Place::secret(&tenant, &function, "API_TOKEN", 7);
    let value = SecretValue::new(b"correct horse battery staple".to_vec());
    let sealed = vault.seal(std::slice::from_ref(&wrapped), place, &value, &counting(0x60)).unwrap();
    let (wrap_key, _) = derive(&key(0), &wrapped.sealed.salt).unwrap();
    let (value_key, _) = derive(&key(0x20), &sealed.salt).unwrap();
    for ours in [
        hex(&wrap_context(&tenant, 1)),
        hex(wrap_key.as_slice()),
        hex(&encode(&wrapped.sealed)),
        hex(&place.context(1)),
        hex(value_key.as_slice()),
        hex(&encode(&sealed)),
    ] {
        assert!(DOCUMENT.lines().any(|line| line.ends_with(&format!(" {ours}"))), "not published: {ours}");
    }
}

#[test]
fn sealed_value_opens_in_its_place() {
    let world = World::new();
    let opened = world.vault.open(&world.keys, world.place(), &world.sealed()).unwrap();
    assert_eq!(opened.as_slice(), b"s3cret");
}

#[test]
fn sealed_value_moved_anywhere_else_is_refused() {
    let world = World::new();
    let sealed = world.sealed();
    let other = FunctionId::mint(&world.tenant, &world.random);
    let here = world.place();
    for place in [
        Place { owner: other.as_str(), ..here },
        Place { name: "TOKEN2", ..here },
        Place { version: 2, ..here },
        Place { kind: "cofferdam/another", ..here },
    ] {
        assert_eq!(world.vault.open(&world.keys, place, &sealed).unwrap_err(), VaultError::Altered, "{place:?}");
    }
}

#[test]
fn sealed_value_of_one_tenant_is_refused_for_another() {
    let world = World::new();
    let sealed = world.sealed();
    let other = TenantId::mint(&world.random);
    let place = Place { tenant: &other, ..world.place() };
    // With the first tenant's keys: they are not wrapped for the other.
    assert_eq!(world.vault.open(&world.keys, place, &sealed).unwrap_err(), VaultError::Altered);
    // With its own: not the key it was sealed with.
    let own = [world.vault.tenant_key(&other, 1, &world.random).unwrap()];
    assert_eq!(world.vault.open(&own, place, &sealed).unwrap_err(), VaultError::WrongKey);
}

#[test]
fn every_flipped_bit_is_refused() {
    let world = World::new();
    let good = encode(&world.sealed());
    for at in 0..good.len() * 8 {
        let mut bytes = good.clone();
        bytes[at / 8] ^= 1 << (at % 8);
        let opened = decode(&bytes).and_then(|sealed| world.vault.open(&world.keys, world.place(), &sealed));
        assert!(opened.is_err(), "bit {at}");
    }
}

#[test]
fn wrong_root_key_is_refused() {
    let world = World::new();
    let sealed = world.sealed();
    let other = Vault::new(key(1));
    assert_eq!(other.open(&world.keys, world.place(), &sealed).unwrap_err(), VaultError::WrongKey);
}

#[test]
fn commitment_is_checked_before_the_ciphertext() {
    let world = World::new();
    let mut sealed = world.sealed();
    sealed.commitment[0] ^= 1;
    // Both are wrong now; which is reported shows which was looked at first.
    sealed.ciphertext[0] ^= 1;
    assert_eq!(world.vault.open(&world.keys, world.place(), &sealed).unwrap_err(), VaultError::WrongKey);
}

#[test]
fn newest_key_seals_and_older_ones_still_open() {
    let mut world = World::new();
    let old = world.sealed();
    world.keys.push(world.vault.tenant_key(&world.tenant, 2, &world.random).unwrap());
    let new = world.sealed();
    assert_eq!((old.key_version, new.key_version), (1, 2));
    for sealed in [&old, &new] {
        assert!(world.vault.open(&world.keys, world.place(), sealed).is_ok());
    }
    let unknown = world.vault.open(&world.keys[..1], world.place(), &new).unwrap_err();
    assert_eq!(unknown, VaultError::UnknownKey(2));
}

#[test]
fn same_value_sealed_twice_looks_different() {
    let world = World::new();
    let (one, two) = (world.sealed(), world.sealed());
    assert_ne!(one.salt, two.salt);
    assert_ne!(one.ciphertext, two.ciphertext);
}

#[test]
fn every_truncation_of_an_envelope_is_refused() {
    let world = World::new();
    let good = encode(&world.sealed());
    assert_eq!(encode(&decode(&good).unwrap()), good);
    for cut in 0..HEAD_BYTES + TAG_BYTES {
        assert!(decode(&good[..cut]).is_err(), "cut at {cut}");
    }
    assert_eq!(decode(&[2; 200]).unwrap_err(), VaultError::UnknownFormat(2));
}
