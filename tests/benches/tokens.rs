//! What it costs to believe a token: each algorithm, the first time and every time after.
//!
//! Owns the keys and tokens of it, and a directory in which everybody is. Measured where a call would wait for it:
//! around `Identities::identify`, with everything it checks. Must never reach a network.

use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair,
    RSA_PKCS1_SHA256, RSA_PSS_SHA256, RsaEncoding, RsaKeyPair, RsaPublicKeyComponents,
};
use cofferdam_authz::{
    ApiKeyRecord, Credential, Directory, FetchError, Identities, IssuerConfig, JwksSource, Pepper, RevokedBy, Shown,
    UserRecord,
};
use cofferdam_model::random::SeededRandom;
use cofferdam_model::{Clock, KeyId, SystemClock, TenantId};
use serde_json::{Value, json};

use crate::times::{Times, now};

const TOKENS: usize = 2_000;
const ISSUER: &str = "https://issuer.example";

struct Everybody(TenantId);

impl Directory for Everybody {
    fn tenant_named(&self, _: &str) -> Option<TenantId> {
        Some(self.0.clone())
    }

    fn tenant_active(&self, _: &TenantId) -> bool {
        true
    }

    fn member_roles(&self, _: &TenantId, _: &str, _: &str) -> Vec<String> {
        vec!["invoker".into()]
    }

    fn revoked(&self, _: &Shown<'_>) -> Option<RevokedBy> {
        None
    }

    fn user(&self, _: &TenantId, _: &str) -> Option<Arc<UserRecord>> {
        None
    }

    fn api_key(&self, _: &KeyId) -> Option<Arc<ApiKeyRecord>> {
        None
    }
}

struct NoNetwork;

impl JwksSource for NoNetwork {
    fn fetch<'a>(&'a self, url: &'a str) -> Pin<Box<dyn Future<Output = Result<Vec<u8>, FetchError>> + Send + 'a>> {
        Box::pin(async move { Err(FetchError::new(url, "no network in a bench")) })
    }
}

enum Signer {
    Ec(EcdsaKeyPair, &'static str),
    Ed(Ed25519KeyPair),
    Rsa(Box<RsaKeyPair>, &'static dyn RsaEncoding),
    Shared([u8; 32]),
}

impl Signer {
    fn jwk(&self) -> Value {
        match self {
            Self::Ec(pair, crv) => {
                let point = &pair.public_key().as_ref()[1..];
                let (x, y) = point.split_at(point.len() / 2);
                json!({ "kty": "EC", "crv": crv, "kid": "k", "x": base64url(x), "y": base64url(y) })
            }
            Self::Ed(pair) => {
                json!({ "kty": "OKP", "crv": "Ed25519", "kid": "k", "x": base64url(pair.public_key().as_ref()) })
            }
            Self::Rsa(pair, _) => {
                let parts = RsaPublicKeyComponents::<Vec<u8>>::from(pair.public_key());
                json!({ "kty": "RSA", "kid": "k", "n": base64url(&parts.n), "e": base64url(&parts.e) })
            }
            Self::Shared(_) => Value::Null,
        }
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match self {
            Self::Ec(pair, _) => pair.sign(&random, message).unwrap().as_ref().to_vec(),
            Self::Ed(pair) => pair.sign(message).as_ref().to_vec(),
            Self::Rsa(pair, padding) => {
                let mut out = vec![0; pair.public_modulus_len()];
                pair.sign(*padding, &random, message, &mut out).unwrap();
                out
            }
            Self::Shared(secret) => hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), message).as_ref().to_vec(),
        }
    }

    fn token(&self, algorithm: &str, at: u64, id: usize) -> String {
        let header = json!({ "alg": algorithm, "typ": "at+jwt", "kid": "k" }).to_string();
        let claims = json!({
            "iss": ISSUER, "aud": "cofferdam", "sub": "alice", "client_id": "bench", "jti": format!("{id}"),
            "iat": at, "exp": at + 3600, "scope": "call read",
        });
        let signed = format!("{}.{}", base64url(header.as_bytes()), base64url(claims.to_string().as_bytes()));
        let signature = base64url(&self.sign(signed.as_bytes()));
        format!("{signed}.{signature}")
    }
}

fn identities(dir: &Path, algorithm: &str, signer: &Signer) -> Identities {
    let (source, bytes) = match signer {
        Signer::Shared(secret) => ("hs256_secret_file", secret.to_vec()),
        _ => ("jwks_file", json!({ "keys": [signer.jwk()] }).to_string().into_bytes()),
    };
    let file = dir.join(algorithm);
    std::fs::write(&file, bytes).unwrap();
    let mut config = json!({
        "issuer": ISSUER, "audience": "cofferdam", "algorithms": [algorithm], "tenant": "acme",
    });
    config[source] = json!(file);
    let config: IssuerConfig = serde_json::from_value(config).unwrap();
    Identities::new(vec![config], Pepper::new([7; 32]), Arc::new(NoNetwork), Arc::new(SystemClock::default())).unwrap()
}

async fn measure(algorithm: &str, signer: &Signer, dir: &Path) {
    let identities = identities(dir, algorithm, signer);
    let everybody = Everybody(TenantId::mint(&SeededRandom::new(1)));
    let at = SystemClock::default().now().seconds();
    let tokens: Vec<_> = (0..TOKENS).map(|id| signer.token(algorithm, at, id)).collect();
    let (mut cold, mut cached) = (Times::default(), Times::default());
    for token in &tokens {
        let begun = now();
        identities.identify(Credential::Bearer(token), &everybody).await.unwrap();
        cold.push(begun.elapsed());
        let begun = now();
        identities.identify(Credential::Bearer(token), &everybody).await.unwrap();
        cached.push(begun.elapsed());
    }
    let us = |times: &mut Times, part| format!("{:.1}", times.percentile(part).as_secs_f64() * 1e6);
    println!(
        "| {algorithm} | {} | {} | {} | {} |",
        us(&mut cold, 50),
        us(&mut cold, 99),
        us(&mut cached, 50),
        us(&mut cached, 99)
    );
}

pub(crate) async fn run() {
    let dir = tempfile::tempdir().unwrap();
    println!("## Tokens\n\nBelieving a token, with every check; {TOKENS} tokens each, microseconds.\n");
    println!("| algorithm | cold p50 | cold p99 | cached p50 | cached p99 |\n|---|---|---|---|---|");
    let rsa = || Box::new(RsaKeyPair::generate(KeySize::Rsa2048).unwrap());
    for (algorithm, signer) in [
        ("RS256", Signer::Rsa(rsa(), &RSA_PKCS1_SHA256)),
        ("PS256", Signer::Rsa(rsa(), &RSA_PSS_SHA256)),
        ("ES256", Signer::Ec(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap(), "P-256")),
        ("ES384", Signer::Ec(EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap(), "P-384")),
        ("EdDSA", Signer::Ed(Ed25519KeyPair::generate().unwrap())),
        ("HS256", Signer::Shared([9; 32])),
    ] {
        measure(algorithm, &signer, dir.path()).await;
    }
    println!();
}

fn base64url(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let number = chunk.iter().fold(0u32, |n, b| n << 8 | u32::from(*b)) << (8 * (3 - chunk.len()));
        for place in 0..=chunk.len() {
            out.push(char::from(ALPHABET[(number >> (18 - 6 * place)) as usize & 63]));
        }
    }
    out
}
