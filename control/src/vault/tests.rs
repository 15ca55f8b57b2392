//! What sealing promises, one claim a test. The vectors are those published in `docs/formats`.

use std::sync::atomic::{AtomicU8, Ordering};

use aws_lc_rs::{aead, hkdf};
use cofferdam_model::UnixNanos;
use cofferdam_model::clock::ManualClock;
use cofferdam_model::random::SeededRandom;
use serde_json::Value;

use super::crypto::TAG_BYTES;
use super::*;

mod hold;

const VECTORS: &str = include_str!("../../../docs/formats/sealed-value-vectors.json");

/// Gives the bytes from one upwards, one after the other.
struct Counting(AtomicU8);

impl Random for Counting {
    fn fill(&self, bytes: &mut [u8]) {
        bytes.iter_mut().for_each(|byte| *byte = self.0.fetch_add(1, Ordering::Relaxed));
    }
}

fn counting(from: u8) -> Arc<Counting> {
    Arc::new(Counting(AtomicU8::new(from)))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &Value) -> Vec<u8> {
    let digits: Vec<_> = text.as_str().unwrap().chars().map(|digit| digit.to_digit(16).unwrap()).collect();
    digits.chunks(2).map(|pair| u8::try_from(pair[0] << 4 | pair[1]).unwrap()).collect()
}

fn key(first: u8) -> KeyBytes {
    keyfile::fresh(&*counting(first))
}

fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::at(UnixNanos::from_seconds(1_795_171_080)))
}

fn vault_with(root: &KeyBytes, random: Arc<dyn Random>, clock: Arc<ManualClock>) -> Vault {
    let memory = Arc::new(OrdinaryMemory);
    Vault::new(Arc::new(LocalRoot::of(root, memory.clone(), random).unwrap()), memory, clock, KEEP)
}

fn vault(root: u8) -> Vault {
    vault_with(&key(root), Arc::new(SeededRandom::new(99)), clock())
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
        Self::on(vault(0))
    }

    fn on(vault: Vault) -> Self {
        let random = SeededRandom::new(5);
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

    fn opened(&self, sealed: &SealedValue) -> Result<Zeroizing<Vec<u8>>, VaultError> {
        self.vault.open(&self.keys, self.place(), sealed)
    }
}

struct Published {
    vectors: Value,
    tenant: TenantId,
    function: FunctionId,
}

impl Published {
    fn read() -> Self {
        let vectors: Value = serde_json::from_str(VECTORS).unwrap();
        let tenant = TenantId::parse(vectors["tenant"].as_str().unwrap()).unwrap();
        let function = FunctionId::parse(vectors["function"].as_str().unwrap()).unwrap();
        Self { vectors, tenant, function }
    }

    fn place(&self) -> Place<'_> {
        Place::secret(&self.tenant, &self.function, "API_TOKEN", 7)
    }
}

#[test]
fn published_vectors_hold() {
    let published = Published::read();
    let expected = &published.vectors["format_2"];
    let (tenant, place) = (&published.tenant, published.place());
    // Of each vault the root key's salts, of each call the keys and salts of that call.
    let mut keys = vec![];
    for (at, number, key_from, salt_from) in [(0, 1, 0x20, 0x40), (1, 2, 0xc0, 0xe0)] {
        let wrapping = vault_with(&key(0), counting(salt_from), clock());
        let made = wrapping.tenant_key(tenant, number, &*counting(key_from)).unwrap();
        assert_eq!(encode_key(&made), unhex(&expected["tenant_keys"][at]["wrapped"]));
        assert_eq!(decode_key(number, &encode_key(&made)).unwrap(), made);
        keys.push(made);
    }
    let vault = vault(0);
    let value = SecretValue::new(b"correct horse battery staple".to_vec());
    let sealed = vault.seal(&keys[..1], place, &value, &*counting(0x60)).unwrap();
    assert_eq!(hex(&encode(&sealed)), expected["under_first"]["sealed_value"].as_str().unwrap());
    let rewrapped = vault.rewrap(&keys, place, &sealed, &*counting(0x10)).unwrap().unwrap();
    assert_eq!(hex(&encode(&rewrapped)), expected["rewrapped_under_second"]["sealed_value"].as_str().unwrap());
    assert_eq!(vault.open(&keys[1..], place, &rewrapped).unwrap().as_slice(), value.expose());
}

#[test]
fn values_and_keys_of_the_first_format_still_open() {
    let published = Published::read();
    let expected = &published.vectors["format_1"];
    let keys = [decode_key(1, &unhex(&expected["wrapped_tenant_key"])).unwrap()];
    assert_eq!(encode_key(&keys[0]), unhex(&expected["wrapped_tenant_key"]), "kept as it was");
    let sealed = decode(&unhex(&expected["sealed_value"])).unwrap();
    assert_eq!(encode(&sealed), unhex(&expected["sealed_value"]));
    let vault = vault(0);
    assert_eq!(vault.open(&keys, published.place(), &sealed).unwrap().as_slice(), b"correct horse battery staple");
    // Rotating brings both to the second format.
    let random = SeededRandom::new(3);
    let again = vault.rewrap_key(&published.tenant, &keys[0]).unwrap().unwrap();
    assert!(again.id.is_some() && again.wrapped.root.starts_with("local:") && again.wrapped.root != "local:v1");
    let value = vault.rewrap(std::slice::from_ref(&again), published.place(), &sealed, &random).unwrap().unwrap();
    assert_eq!((value.format, value.key_version), (2, 1));
    assert!(vault.open(&[again], published.place(), &value).is_ok());
}

/// Opens by the description alone, with AWS-LC in the place of the cipher we use.
fn opened_by_another(key: &[u8], message: &[u8], context: &[u8]) -> Vec<u8> {
    struct Length(usize);
    impl hkdf::KeyType for Length {
        fn len(&self) -> usize {
            self.0
        }
    }
    let (salt, rest) = message.split_at(32);
    let (commitment, ciphertext) = rest.split_at(32);
    let prk = hkdf::Salt::new(hkdf::HKDF_SHA256, salt).extract(key);
    let derived = |what: &str, length: usize| {
        let (label, mut out) = (format!("cofferdam/sealed-value/v2/{what}"), vec![0; length]);
        prk.expand(&[label.as_bytes()], Length(length)).unwrap().fill(&mut out).unwrap();
        out
    };
    assert_eq!(derived("commit", 32), commitment);
    let cipher = aead::LessSafeKey::new(aead::UnboundKey::new(&aead::AES_256_GCM, &derived("key", 32)).unwrap());
    let nonce = aead::Nonce::try_assume_unique_for_key(&derived("nonce", 12)).unwrap();
    let mut buffer = ciphertext.to_vec();
    cipher.open_in_place(nonce, aead::Aad::from(context), &mut buffer).unwrap().to_vec()
}

#[test]
fn published_vectors_open_with_another_library() {
    let published = Published::read();
    let (expected, value) = (&published.vectors["format_2"], published.vectors["value"].as_str().unwrap());
    for (sealed, tenant_key) in [("under_first", 0), ("rewrapped_under_second", 1)] {
        let (sealed, tenant_key) = (&expected[sealed], &expected["tenant_keys"][tenant_key]);
        let (bytes, wrapped) = (unhex(&sealed["sealed_value"]), unhex(&tenant_key["wrapped"]));
        let root_name = usize::from(u16::from_be_bytes([wrapped[1], wrapped[2]]));
        let body = &wrapped[3 + root_name + 32..];
        let opened = opened_by_another(&unhex(&published.vectors["root_key"]), body, &unhex(&tenant_key["context"]));
        assert_eq!(opened, unhex(&tenant_key["key"]));
        let data_key = opened_by_another(&opened, &bytes[5..117], &unhex(&sealed["data_key_context"]));
        assert_eq!(data_key, unhex(&sealed["data_key"]));
        assert_eq!(opened_by_another(&data_key, &bytes[117..], &unhex(&sealed["value_context"])), value.as_bytes());
    }
}

#[test]
fn sealed_value_opens_in_its_place() {
    let world = World::new();
    assert_eq!(world.opened(&world.sealed()).unwrap().as_slice(), b"s3cret");
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
fn data_key_of_one_value_does_not_open_another() {
    let world = World::new();
    let (mut one, other) = (world.sealed(), world.sealed());
    one.data_key = other.data_key;
    assert_eq!(world.opened(&one).unwrap_err(), VaultError::WrongKey);
}

#[test]
fn sealed_value_of_one_tenant_is_refused_for_another() {
    let world = World::new();
    let sealed = world.sealed();
    let other = TenantId::mint(&world.random);
    let place = Place { tenant: &other, ..world.place() };
    // With the first tenant's keys: they are not wrapped for the other.
    let refused = world.vault.open(&world.keys, place, &sealed).unwrap_err();
    assert!(matches!(refused, VaultError::Root(RootError::WrongKey(_))), "{refused:?}");
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
        assert!(decode(&bytes).and_then(|sealed| world.opened(&sealed)).is_err(), "bit {at}");
    }
    let good = encode_key(&world.keys[0]);
    for at in 0..good.len() * 8 {
        let mut bytes = good.clone();
        bytes[at / 8] ^= 1 << (at % 8);
        let fresh = vault(0);
        let opened = decode_key(1, &bytes).and_then(|key| fresh.prepare(&world.tenant, &[key]));
        assert!(opened.is_err(), "bit {at} of a key");
    }
}

#[test]
fn wrong_root_key_is_refused() {
    let world = World::new();
    let refused = vault(1).open(&world.keys, world.place(), &world.sealed()).unwrap_err();
    assert!(matches!(refused, VaultError::Root(RootError::WrongKey(_))), "{refused:?}");
}

#[test]
fn commitment_is_checked_before_the_ciphertext() {
    let world = World::new();
    let mut sealed = world.sealed();
    sealed.commitment[0] ^= 1;
    // Both are wrong now; which is reported shows which was looked at first.
    sealed.ciphertext[0] ^= 1;
    assert_eq!(world.opened(&sealed).unwrap_err(), VaultError::WrongKey);
}

#[test]
fn newest_key_seals_and_older_ones_still_open() {
    let mut world = World::new();
    let old = world.sealed();
    world.keys.push(world.vault.tenant_key(&world.tenant, 2, &world.random).unwrap());
    let new = world.sealed();
    assert_eq!((old.key_version, new.key_version), (1, 2));
    for sealed in [&old, &new] {
        assert!(world.opened(sealed).is_ok());
    }
    let unknown = world.vault.open(&world.keys[..1], world.place(), &new).unwrap_err();
    assert_eq!(unknown, VaultError::UnknownKey(2));
}

#[test]
fn rewrapping_leaves_the_sealed_value_as_it_is() {
    let mut world = World::new();
    let mut old = world.sealed();
    // Not even a value that cannot be opened any more stops it, for nothing is opened.
    old.ciphertext[0] ^= 1;
    world.keys.push(world.vault.tenant_key(&world.tenant, 2, &world.random).unwrap());
    let new = world.vault.rewrap(&world.keys, world.place(), &old, &world.random).unwrap().unwrap();
    assert_eq!((new.key_version, &new.ciphertext, new.salt), (2, &old.ciphertext, old.salt));
    assert_ne!(new.data_key, old.data_key);
    assert_eq!(world.vault.rewrap(&world.keys, world.place(), &new, &world.random).unwrap(), None);
}

#[test]
fn same_value_sealed_twice_shares_no_key_nonce_or_salt() {
    let world = World::new();
    let (one, two) = (world.sealed(), world.sealed());
    assert_ne!(one.salt, two.salt);
    assert_ne!(one.ciphertext, two.ciphertext);
    let (one, two) = (one.data_key.unwrap(), two.data_key.unwrap());
    assert_ne!(one.salt, two.salt);
    let derived = |salt| crypto::derive(&crypto::V2, &key(0), salt).unwrap();
    assert_ne!(derived(&one.salt).nonce, derived(&two.salt).nonce);
    assert_ne!(derived(&one.salt).key, derived(&two.salt).key);
}

#[test]
fn every_truncation_of_an_envelope_is_refused() {
    let world = World::new();
    let good = encode(&world.sealed());
    assert_eq!(encode(&decode(&good).unwrap()), good);
    for cut in 0..1 + 4 + 112 + 64 + TAG_BYTES {
        assert!(decode(&good[..cut]).is_err(), "cut at {cut}");
    }
    assert_eq!(decode(&[3; 400]).unwrap_err(), VaultError::UnknownFormat(3));
    let good = encode_key(&world.keys[0]);
    for cut in 0..good.len() {
        let fresh = vault(0);
        let opened = decode_key(1, &good[..cut]).and_then(|key| fresh.prepare(&world.tenant, &[key]));
        assert!(opened.is_err(), "key cut at {cut}");
    }
}
