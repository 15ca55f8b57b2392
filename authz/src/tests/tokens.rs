//! Keys of issuers, honest and not, and tokens signed with them.
//!
//! Owns the making of key sets and tokens from raw text, so that a test can say exactly what is wrong with one. Must
//! never go through a library that would refuse to make a bad token.

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair,
    RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_SHA256, RSA_PSS_SHA384, RSA_PSS_SHA512, RsaKeyPair,
    RsaPublicKeyComponents,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use cofferdam_model::TenantId;

use super::{NOW, Scripted, World, clock, issuer, pepper};
use crate::{Credential, Identities, Principal};

const PEOPLE: &str = "https://people.test";

pub(crate) enum Signer {
    Ec(EcdsaKeyPair),
    Ed(Ed25519KeyPair),
    Rsa(RsaKeyPair),
    Shared(Vec<u8>),
}

pub(crate) fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

impl Signer {
    pub(crate) fn ec() -> Self {
        Self::Ec(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap())
    }

    pub(crate) fn p384() -> Self {
        Self::Ec(EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap())
    }

    pub(crate) fn ed() -> Self {
        Self::Ed(Ed25519KeyPair::generate().unwrap())
    }

    pub(crate) fn rsa() -> Self {
        Self::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).unwrap())
    }

    /// Its public half as a JWK.
    pub(crate) fn jwk(&self, kid: &str) -> Value {
        match self {
            Self::Ec(pair) => {
                let point = &pair.public_key().as_ref()[1..];
                let (x, y) = point.split_at(point.len() / 2);
                let crv = if x.len() == 32 { "P-256" } else { "P-384" };
                json!({"kty": "EC", "crv": crv, "kid": kid, "x": b64(x), "y": b64(y)})
            }
            Self::Ed(pair) => json!({"kty": "OKP", "crv": "Ed25519", "kid": kid, "x": b64(pair.public_key())}),
            Self::Rsa(pair) => {
                let parts = RsaPublicKeyComponents::<Vec<u8>>::from(pair.public_key());
                json!({"kty": "RSA", "kid": kid, "use": "sig", "n": b64(parts.n), "e": b64(parts.e)})
            }
            Self::Shared(secret) => json!({"kty": "oct", "kid": kid, "k": b64(secret)}),
        }
    }

    pub(crate) fn sign(&self, message: &[u8], algorithm: &str) -> Vec<u8> {
        let random = SystemRandom::new();
        match self {
            Self::Ec(pair) => pair.sign(&random, message).unwrap().as_ref().to_vec(),
            Self::Ed(pair) => pair.sign(message).as_ref().to_vec(),
            Self::Rsa(pair) => {
                let mut out = vec![0; pair.public_modulus_len()];
                let padding: &dyn aws_lc_rs::signature::RsaEncoding = match algorithm {
                    "PS256" => &RSA_PSS_SHA256,
                    "PS384" => &RSA_PSS_SHA384,
                    "PS512" => &RSA_PSS_SHA512,
                    "RS384" => &RSA_PKCS1_SHA384,
                    "RS512" => &RSA_PKCS1_SHA512,
                    _ => &RSA_PKCS1_SHA256,
                };
                pair.sign(padding, &random, message, &mut out).unwrap();
                out
            }
            Self::Shared(secret) => hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), message).as_ref().to_vec(),
        }
    }

    /// A token of exactly this header and these claims, as text.
    pub(crate) fn token_of(&self, header: &str, claims: &str, algorithm: &str) -> String {
        let message = format!("{}.{}", b64(header), b64(claims));
        let signature = self.sign(message.as_bytes(), algorithm);
        format!("{message}.{}", b64(signature))
    }

    /// A token of a good header and these claims.
    pub(crate) fn token(&self, algorithm: &str, kid: &str, claims: &Value) -> String {
        let header = json!({"alg": algorithm, "typ": "at+jwt", "kid": kid});
        self.token_of(&header.to_string(), &claims.to_string(), algorithm)
    }
}

pub(crate) fn set(keys: &[Value]) -> String {
    json!({"keys": keys}).to_string()
}

/// Claims nothing is wrong with.
pub(crate) fn claims(issuer: &str) -> Value {
    json!({
        "iss": issuer, "aud": "cofferdam", "sub": "alice", "jti": "token-1", "client_id": "app",
        "iat": NOW - 10, "nbf": NOW - 10, "exp": NOW + 300,
    })
}

/// Good claims with one changed; `null` takes it out.
pub(crate) fn claims_but(issuer: &str, name: &str, value: Value) -> Value {
    let mut claims = claims(issuer);
    match value {
        Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
        value => claims[name] = value,
    }
    claims
}

impl World {
    /// Somebody of a tenant, by a token that says in which groups.
    pub(crate) async fn person(&self, tenant: &TenantId, id: &str, roles: &[&str], groups: &[String]) -> Principal {
        let signer = Signer::ed();
        let mut config = issuer(PEOPLE, "EdDSA");
        config.tenant = Some(if *tenant == self.acme { "acme" } else { "other" }.to_owned());
        (config.roles_claim, config.groups_claim) = (Some("roles".into()), Some("/org/groups".into()));
        let source = Scripted::with(set(&[signer.jwk("k1")]));
        let identities = Identities::new(vec![config], pepper(), source, clock()).unwrap();
        let mut claims = claims_but(PEOPLE, "sub", json!(id));
        (claims["roles"], claims["org"]) = (json!(roles), json!({ "groups": groups }));
        let token = signer.token("EdDSA", "k1", &claims);
        identities.identify(Credential::Bearer(&token), self).await.unwrap()
    }
}
