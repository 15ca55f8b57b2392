//! The attack list: tokens as they are forged, bent and mistaken in the wild, each with the name of its refusal.
//!
//! Owns the table. Every token but those that say otherwise is signed by the issuer's own key, so that nothing but the
//! one thing wrong with it can be the reason. Must never hold a row without a name.

use std::collections::HashSet;

use serde_json::{Value, json};

use super::tokens::{Signer, b64, claims, set};
use super::{NOW, Scripted, World, clock, issuer, pepper};
use crate::identity::Identities;
use crate::{Credential, IdentityError, Refusal};

const ISS: &str = "https://issuer.test";

/// Keys of the issuer, one of each kind, and one that is a stranger's.
struct Forge {
    ed: Signer,
    ec: Signer,
    p384: Signer,
    rsa: Signer,
    stranger: Signer,
}

type Attack = (&'static str, String, Refusal);

impl Forge {
    fn new() -> Self {
        Self { ed: Signer::ed(), ec: Signer::ec(), p384: Signer::p384(), rsa: Signer::rsa(), stranger: Signer::ed() }
    }

    fn identities(&self) -> Identities {
        let keys = [
            self.ed.jwk("ed"),
            self.ec.jwk("ec"),
            self.p384.jwk("p384"),
            self.rsa.jwk("rsa"),
            // Real sets hold keys that are not for this; none of them may ever be taken.
            json!({"kty": "oct", "kid": "oct", "k": b64([1; 32])}),
            json!({"kty": "RSA", "kid": "enc", "use": "enc", "n": self.rsa.jwk("x")["n"], "e": "AQAB"}),
        ];
        let config = issuer(ISS, "EdDSA ES256 ES384 RS256 PS256");
        Identities::new(vec![config], pepper(), Scripted::with(set(&keys)), clock()).unwrap()
    }

    /// Signed with the Ed25519 key: a header and claims as given.
    fn signed(&self, header: Value, claims: &Value) -> String {
        self.ed.token_of(&header.to_string(), &claims.to_string(), "EdDSA")
    }

    /// Signed with the Ed25519 key, good but for one member of the header.
    fn header(&self, name: &str, value: Value) -> String {
        let mut header = json!({"alg": "EdDSA", "typ": "at+jwt", "kid": "ed"});
        match value {
            Value::Null => drop(header.as_object_mut().unwrap().remove(name)),
            value => header[name] = value,
        }
        self.signed(header, &claims(ISS))
    }

    /// Signed with the Ed25519 key, good but for one claim.
    fn claim(&self, name: &str, value: Value) -> String {
        let claims = super::tokens::claims_but(ISS, name, value);
        self.signed(json!({"alg": "EdDSA", "typ": "at+jwt", "kid": "ed"}), &claims)
    }

    fn good(&self) -> String {
        self.ed.token("EdDSA", "ed", &claims(ISS))
    }

    fn of_algorithms(&self) -> Vec<Attack> {
        let secret = |material: Vec<u8>, kid: &str| Signer::Shared(material).token("HS256", kid, &claims(ISS));
        let pem = |jwk: &Value| jwk["n"].as_str().or_else(|| jwk["x"].as_str()).unwrap_or_default().as_bytes().to_vec();
        let none = |alg: &str| {
            let header = json!({"alg": alg, "typ": "at+jwt", "kid": "ed"}).to_string();
            format!("{}.{}.", b64(header), b64(claims(ISS).to_string()))
        };
        vec![
            ("alg none without a signature", none("none"), Refusal::Malformed),
            ("alg none with one", self.header("alg", json!("none")), Refusal::Algorithm),
            ("alg nOnE", self.header("alg", json!("nOnE")), Refusal::Algorithm),
            ("alg NONE", self.header("alg", json!("NONE")), Refusal::Algorithm),
            ("alg empty", self.header("alg", json!("")), Refusal::Algorithm),
            ("alg missing", self.header("alg", Value::Null), Refusal::Algorithm),
            ("alg a number", self.header("alg", json!(0)), Refusal::Algorithm),
            ("alg a list", self.header("alg", json!(["EdDSA"])), Refusal::Algorithm),
            ("alg with a space", self.header("alg", json!("EdDSA ")), Refusal::Algorithm),
            ("alg in small letters", self.header("alg", json!("eddsa")), Refusal::Algorithm),
            ("alg Ed448", self.header("alg", json!("Ed448")), Refusal::Algorithm),
            ("alg ES512", self.header("alg", json!("ES512")), Refusal::Algorithm),
            ("alg of encryption", self.header("alg", json!("RSA-OAEP")), Refusal::Algorithm),
            ("alg dir", self.header("alg", json!("dir")), Refusal::Algorithm),
            ("alg not declared", self.header("alg", json!("RS512")), Refusal::Algorithm),
            ("alg of another key's kind", self.header("alg", json!("ES256")), Refusal::Algorithm),
            ("RSA modulus as a shared secret", secret(pem(&self.rsa.jwk("rsa")), "rsa"), Refusal::Algorithm),
            ("Ed25519 point as a shared secret", secret(pem(&self.ed.jwk("ed")), "ed"), Refusal::Algorithm),
            ("empty shared secret", secret(Vec::new(), "ed"), Refusal::Algorithm),
            ("published shared secret", secret(vec![1; 32], "oct"), Refusal::Algorithm),
            ("RS256 with the key's PS256", self.relabelled("RS256", "PS256"), Refusal::Signature),
            ("PS256 with the key's RS256", self.relabelled("PS256", "RS256"), Refusal::Signature),
            ("ES384 with the P-256 key", self.ec.token("ES384", "ec", &claims(ISS)), Refusal::Algorithm),
            ("ES256 with the P-384 key", self.p384.token("ES256", "p384", &claims(ISS)), Refusal::Algorithm),
            ("EdDSA naming the RSA key", self.ed.token("EdDSA", "rsa", &claims(ISS)), Refusal::Algorithm),
        ]
    }

    /// RSA: signed one way, labelled another.
    fn relabelled(&self, label: &str, signed: &str) -> String {
        let header = json!({"alg": label, "typ": "at+jwt", "kid": "rsa"}).to_string();
        self.rsa.token_of(&header, &claims(ISS).to_string(), signed)
    }

    fn of_headers(&self) -> Vec<Attack> {
        let own = self.stranger.jwk("ed");
        vec![
            ("own key in jwk", self.header("jwk", own.clone()), Refusal::Header),
            ("jku", self.header("jku", json!("https://evil.test/jwks")), Refusal::Header),
            ("jku of the issuer's own host", self.header("jku", json!("https://issuer.test/x")), Refusal::Header),
            ("x5u", self.header("x5u", json!("https://evil.test/c")), Refusal::Header),
            ("x5c", self.header("x5c", json!(["MII"])), Refusal::Header),
            ("x5t", self.header("x5t", json!("AAAA")), Refusal::Header),
            ("x5t#S256", self.header("x5t#S256", json!("AAAA")), Refusal::Header),
            ("crit of something unknown", self.header("crit", json!(["x"])), Refusal::Header),
            ("crit empty", self.header("crit", json!([])), Refusal::Header),
            ("crit of b64", self.header("crit", json!(["b64"])), Refusal::Header),
            ("b64 false", self.header("b64", json!(false)), Refusal::Header),
            ("zip", self.header("zip", json!("DEF")), Refusal::Header),
            ("enc", self.header("enc", json!("A256GCM")), Refusal::Header),
            ("epk", self.header("epk", json!({"kty": "OKP"})), Refusal::Header),
            ("typ missing", self.header("typ", Value::Null), Refusal::Type),
            ("typ of a logout token", self.header("typ", json!("logout+jwt")), Refusal::Type),
            ("typ of a DPoP proof", self.header("typ", json!("dpop+jwt")), Refusal::Type),
            ("typ of a security event", self.header("typ", json!("secevent+jwt")), Refusal::Type),
            ("typ with a parameter", self.header("typ", json!("at+jwt;v=1")), Refusal::Type),
            ("typ a list", self.header("typ", json!(["at+jwt"])), Refusal::Type),
            ("cty of a nested token", self.header("cty", json!("JWT")), Refusal::Header),
            ("kid missing", self.header("kid", Value::Null), Refusal::UnknownKey),
            ("kid of nobody", self.header("kid", json!("nobody")), Refusal::UnknownKey),
            ("kid of the encryption key", self.header("kid", json!("enc")), Refusal::UnknownKey),
            ("kid of a path", self.header("kid", json!("../../dev/null")), Refusal::UnknownKey),
            ("kid of a query", self.header("kid", json!("x' UNION SELECT 'k")), Refusal::UnknownKey),
            ("kid empty", self.header("kid", json!("")), Refusal::Malformed),
            ("kid a number", self.header("kid", json!(1)), Refusal::Malformed),
            ("kid an object", self.header("kid", json!({"ed": 1})), Refusal::Malformed),
            ("kid very long", self.header("kid", json!("k".repeat(256))), Refusal::Malformed),
            ("stranger's signature", self.stranger.token("EdDSA", "ed", &claims(ISS)), Refusal::Signature),
        ]
    }

    fn of_claims(&self) -> Vec<Attack> {
        vec![
            ("iss an object", self.claim("iss", json!({"x": ISS})), Refusal::Claims),
            ("iss a list of it", self.claim("iss", json!([ISS])), Refusal::Claims),
            ("iss a number", self.claim("iss", json!(1)), Refusal::Claims),
            ("iss with a slash", self.claim("iss", json!("https://issuer.test/")), Refusal::UnknownIssuer),
            ("iss in capitals", self.claim("iss", json!("https://ISSUER.test")), Refusal::UnknownIssuer),
            ("aud missing", self.claim("aud", Value::Null), Refusal::Claims),
            ("aud a number", self.claim("aud", json!(1)), Refusal::Claims),
            ("aud a prefix", self.claim("aud", json!("coffer")), Refusal::Audience),
            ("aud several in one text", self.claim("aud", json!("x cofferdam")), Refusal::Audience),
            ("aud with a number among", self.claim("aud", json!(["cofferdam", 1])), Refusal::Claims),
            ("aud very many", self.claim("aud", json!(vec!["cofferdam"; 33])), Refusal::Claims),
            ("sub missing", self.claim("sub", Value::Null), Refusal::Claims),
            ("sub a number", self.claim("sub", json!(1)), Refusal::Claims),
            ("sub with a line break", self.claim("sub", json!("alice\r\nx: y")), Refusal::Claims),
            ("exp missing", self.claim("exp", Value::Null), Refusal::Claims),
            ("exp a text", self.claim("exp", json!("9999999999")), Refusal::Claims),
            ("exp a fraction", self.claim("exp", json!(1_795_171_380.5)), Refusal::Claims),
            ("exp below zero", self.claim("exp", json!(-1)), Refusal::Claims),
            ("exp before iat", self.claim("exp", json!(NOW - 20)), Refusal::Claims),
            ("exp in a century", self.claim("exp", json!(NOW + 3_153_600_000_u64)), Refusal::Lifetime),
            ("nbf later", self.claim("nbf", json!(NOW + 60)), Refusal::NotYetValid),
            ("nbf a text", self.claim("nbf", json!("0")), Refusal::Claims),
            ("iat missing", self.claim("iat", Value::Null), Refusal::Claims),
            ("iat later", self.claim("iat", json!(NOW + 60)), Refusal::NotYetValid),
            ("jti missing in at+jwt", self.claim("jti", Value::Null), Refusal::Claims),
            ("client_id missing in at+jwt", self.claim("client_id", Value::Null), Refusal::Claims),
            ("client_id a list", self.claim("client_id", json!(["app"])), Refusal::Claims),
            ("bound by cnf jkt", self.claim("cnf", json!({"jkt": "x"})), Refusal::ProofMissing),
            ("bound by cnf certificate", self.claim("cnf", json!({"x5t#S256": "x"})), Refusal::ProofMissing),
            ("scope a list", self.claim("scope", json!(["a"])), Refusal::Claims),
            ("scp a number", self.claim("scp", json!(1)), Refusal::Claims),
            ("amr a text", self.claim("amr", json!("mfa")), Refusal::Claims),
            ("acr a list", self.claim("acr", json!(["mfa"])), Refusal::Claims),
            ("auth_time a text", self.claim("auth_time", json!("0")), Refusal::Claims),
            ("auth_time later", self.claim("auth_time", json!(NOW + 60)), Refusal::NotYetValid),
            ("act a text", self.claim("act", json!("eve")), Refusal::Claims),
            ("act without a subject", self.claim("act", json!({})), Refusal::Claims),
        ]
    }

    fn of_shapes(&self) -> Vec<Attack> {
        let good = self.good();
        let (message, signature) = good.rsplit_once('.').unwrap();
        let (header, payload) = message.split_once('.').unwrap();
        let standard = |text: &str| text.replace('-', "+").replace('_', "/");
        let twice = |member: &str| {
            let claims = claims(ISS).to_string().replacen('{', member, 1);
            self.ed.token_of(r#"{"alg":"EdDSA","typ":"at+jwt","kid":"ed"}"#, &claims, "EdDSA")
        };
        let header_twice = r#"{"alg":"none","alg":"EdDSA","typ":"at+jwt","kid":"ed"}"#;
        let der = |at: usize| {
            format!("{message}.{}", b64([&[0x30, 0x44, 0x02, 0x20][..], &[7; 66]].concat().get(at..).unwrap()))
        };
        vec![
            ("empty", String::new(), Refusal::Malformed),
            ("no signature", format!("{message}."), Refusal::Malformed),
            ("no segments", "aaaa".into(), Refusal::Malformed),
            ("four segments", format!("{good}.AA"), Refusal::Malformed),
            ("five segments, as JWE has", format!("{header}.AA.AA.AA.AA"), Refusal::Malformed),
            ("padded header", format!("{header}=.{payload}.{signature}"), Refusal::Malformed),
            ("line break inside", format!("{header}.\n{payload}.{signature}"), Refusal::Malformed),
            ("JSON serialization", json!({"payload": payload, "signatures": []}).to_string(), Refusal::Malformed),
            (
                "another's payload",
                format!("{header}.{}.{signature}", b64(claims("x").to_string())),
                Refusal::UnknownIssuer,
            ),
            ("signature in DER", der(0), Refusal::Signature),
            ("signature cut", format!("{message}.{}", signature.split_at(signature.len() - 2).0), Refusal::Signature),
            ("signature doubled", format!("{message}.{signature}{signature}"), Refusal::Signature),
            ("signature of zeros", format!("{message}.{}", b64([0; 64])), Refusal::Signature),
            ("signature in the other alphabet", format!("{message}.{}=", standard(signature)), Refusal::Signature),
            ("zeros as both numbers of ES256", self.psychic(), Refusal::Signature),
            ("claim twice: sub", twice(r#"{"sub":"root","#), Refusal::DuplicateName),
            ("claim twice: exp", twice(r#"{"exp":99999999999,"#), Refusal::DuplicateName),
            ("claim twice: iss", twice(r#"{"iss":"https://evil.test","#), Refusal::DuplicateName),
            ("claim twice, escaped", twice(r#"{"\u0073ub":"root","#), Refusal::DuplicateName),
            (
                "header twice: alg",
                self.ed.token_of(header_twice, &claims(ISS).to_string(), "EdDSA"),
                Refusal::DuplicateName,
            ),
            (
                "claims that are a list",
                self.ed.token_of(r#"{"alg":"EdDSA","typ":"at+jwt","kid":"ed"}"#, "[]", "EdDSA"),
                Refusal::Malformed,
            ),
            ("claims with something behind", twice("{}{"), Refusal::Malformed),
            ("deep claims", twice(&format!("{{\"x\":{}{},", "[".repeat(200), "]".repeat(200))), Refusal::Malformed),
            ("too long", self.claim("x", json!("x".repeat(8 * 1024))), Refusal::TooLong),
        ]
    }

    /// CVE-2022-21449: r and s are zero.
    fn psychic(&self) -> String {
        let header = json!({"alg": "ES256", "typ": "at+jwt", "kid": "ec"}).to_string();
        format!("{}.{}.{}", b64(header), b64(claims(ISS).to_string()), b64([0; 64]))
    }
}

#[tokio::test]
async fn every_attack_on_the_list_is_refused_by_its_name() {
    let forge = Forge::new();
    let identities = forge.identities();
    let world = World::new();
    let mut attacks = forge.of_algorithms();
    attacks.extend(forge.of_headers());
    attacks.extend(forge.of_claims());
    attacks.extend(forge.of_shapes());
    assert!(attacks.len() >= 110, "{}", attacks.len());
    let names: HashSet<_> = attacks.iter().map(|(name, ..)| name).collect();
    assert_eq!(names.len(), attacks.len(), "each has a name of its own");
    for (name, token, why) in &attacks {
        // Also the second time, when something of it might be remembered.
        for _ in 0..2 {
            match identities.identify(Credential::Bearer(token), &world).await {
                Err(IdentityError::Refused(refusal)) => assert_eq!(refusal, *why, "{name}"),
                other => panic!("{name}: {other:?}"),
            }
        }
    }
    for (algorithm, kid, signer) in [
        ("EdDSA", "ed", &forge.ed),
        ("ES256", "ec", &forge.ec),
        ("ES384", "p384", &forge.p384),
        ("RS256", "rsa", &forge.rsa),
        ("PS256", "rsa", &forge.rsa),
    ] {
        let token = signer.token(algorithm, kid, &claims(ISS));
        assert!(identities.identify(Credential::Bearer(&token), &world).await.is_ok(), "{algorithm}");
    }
}
