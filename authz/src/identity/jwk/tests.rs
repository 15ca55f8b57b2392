//! Signatures of the Wycheproof vectors, judged by keys as they come out of a published set.
//!
//! Owns the way from a vector's key to a JWK. Its signatures are put to the very function tokens are verified with.

use serde_json::json;
use wycheproof::{TestResult, ecdsa, eddsa, mac, rsa_pkcs1_verify, rsa_pss_verify};

use super::*;

fn key(jwk: Value, algorithm: Algorithm) -> Arc<Key> {
    // Only the first call in a process counts, and all name the same.
    let _ = jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER.install_default();
    let mut jwk = jwk;
    jwk["kid"] = json!("k");
    let set = json!({ "keys": [jwk] }).to_string();
    import(set.as_bytes(), &[algorithm]).unwrap().remove("k").unwrap()
}

/// How many vectors were judged, and those judged wrongly.
#[derive(Default)]
struct Score {
    judged: usize,
    wrong: Vec<String>,
}

impl Score {
    fn judge(&mut self, key: &Key, algorithm: Algorithm, vector: (usize, &[u8], &[u8], TestResult)) {
        let (id, message, signature, result) = vector;
        let taken = key.verifies(message, &URL_SAFE_NO_PAD.encode(signature), algorithm);
        let right = match result {
            TestResult::Valid => taken,
            TestResult::Acceptable => true,
            TestResult::Invalid => !taken,
        };
        self.judged += 1;
        if !right {
            self.wrong.push(format!("{algorithm:?} {id}: {result:?}, taken: {taken}"));
        }
    }
}

fn curve(score: &mut Score, name: ecdsa::TestName, algorithm: Algorithm, crv: &str, bytes: usize) {
    for group in ecdsa::TestSet::load(name).unwrap().test_groups {
        let point = &group.der[group.der.len() - 2 * bytes..];
        let (x, y) = point.split_at(bytes);
        let (x, y) = (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y));
        let key = key(json!({ "kty": "EC", "crv": crv, "x": x, "y": y }), algorithm);
        for test in group.tests {
            score.judge(&key, algorithm, (test.tc_id, &test.msg, &test.sig, test.result));
        }
    }
}

/// A JWK of the numbers, which vectors give with a zero in front.
fn rsa_jwk(n: &[u8], e: &[u8]) -> Value {
    let plain = |number: &[u8]| {
        let start = number.iter().position(|byte| *byte != 0).unwrap_or(0);
        URL_SAFE_NO_PAD.encode(&number[start..])
    };
    json!({ "kty": "RSA", "n": plain(n), "e": plain(e) })
}

#[test]
fn wycheproof_signatures_on_curves_are_judged_right() {
    let mut score = Score::default();
    curve(&mut score, ecdsa::TestName::EcdsaSecp256r1Sha256P1363, Algorithm::ES256, "P-256", 32);
    curve(&mut score, ecdsa::TestName::EcdsaSecp384r1Sha384P1363, Algorithm::ES384, "P-384", 48);
    for group in eddsa::TestSet::load(eddsa::TestName::Ed25519).unwrap().test_groups {
        let x = URL_SAFE_NO_PAD.encode(&group.der[group.der.len() - 32..]);
        let key = key(json!({ "kty": "OKP", "crv": "Ed25519", "x": x }), Algorithm::EdDSA);
        for test in group.tests {
            score.judge(&key, Algorithm::EdDSA, (test.tc_id, &test.msg, &test.sig, test.result));
        }
    }
    assert!(score.judged > 500, "{}", score.judged);
    assert!(score.wrong.is_empty(), "{:#?}", score.wrong);
}

#[test]
fn wycheproof_signatures_of_rsa_are_judged_right() {
    let mut score = Score::default();
    for (name, algorithm) in [
        (rsa_pkcs1_verify::TestName::Rsa2048Sha256, Algorithm::RS256),
        (rsa_pkcs1_verify::TestName::Rsa2048Sha384, Algorithm::RS384),
        (rsa_pkcs1_verify::TestName::Rsa2048Sha512, Algorithm::RS512),
    ] {
        for group in rsa_pkcs1_verify::TestSet::load(name).unwrap().test_groups {
            let key = key(rsa_jwk(&group.key.n, &group.key.e), algorithm);
            for test in group.tests {
                score.judge(&key, algorithm, (test.tc_id, &test.msg, &test.sig, test.result));
            }
        }
    }
    for (name, algorithm) in [
        (rsa_pss_verify::TestName::RsaPss2048Sha256Mgf1SaltLen32, Algorithm::PS256),
        (rsa_pss_verify::TestName::RsaPss2048Sha384Mgf1SaltLen48, Algorithm::PS384),
    ] {
        for group in rsa_pss_verify::TestSet::load(name).unwrap().test_groups {
            let key = key(rsa_jwk(&group.key.n, &group.key.e), algorithm);
            for test in group.tests {
                score.judge(&key, algorithm, (test.tc_id, &test.msg, &test.sig, test.result));
            }
        }
    }
    assert!(score.judged > 500, "{}", score.judged);
    assert!(score.wrong.is_empty(), "{:#?}", score.wrong);
}

#[test]
fn wycheproof_macs_are_judged_right() {
    let mut score = Score::default();
    let _ = jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER.install_default();
    for group in mac::TestSet::load(mac::TestName::HmacSha256).unwrap().test_groups {
        // A token's MAC is never cut short, and a shared secret is never shorter than the hash.
        for test in group.tests.iter().filter(|test| group.tag_size == 256 && test.key.len() >= 32) {
            let key = Key::shared(&Zeroizing::new(test.key.to_vec()));
            score.judge(&key, Algorithm::HS256, (test.tc_id, &test.msg, &test.tag, test.result));
        }
    }
    assert!(score.judged > 20, "{}", score.judged);
    assert!(score.wrong.is_empty(), "{:#?}", score.wrong);
}
