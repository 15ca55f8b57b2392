//! The rules of canonical requests, by AWS's own vectors.

use serde::Deserialize;

use super::*;

#[derive(Deserialize)]
struct Vectors {
    secret: String,
    vectors: Vec<Vector>,
}

#[derive(Deserialize)]
struct Vector {
    name: String,
    method: String,
    target: String,
    fields: Vec<(String, String)>,
    canonical: String,
    to_sign: String,
    signature: String,
}

fn split(target: &str) -> (&str, Option<&str>) {
    target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)))
}

#[test]
fn awss_own_vectors_come_out_as_published() {
    let Vectors { secret, vectors } = serde_json::from_str(include_str!("vectors.json")).unwrap();
    assert!(vectors.len() >= 36, "{}", vectors.len());
    for vector in vectors {
        let name = &vector.name;
        let fields: Vec<_> = vector.fields.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
        let (path, query) = split(&vector.target);
        let request = SignedRequest { method: &vector.method, path, query, fields: &fields };
        let parameters = canonical::parameters(query).unwrap();
        let parts = match request.only("authorization").unwrap() {
            Some(field) => from_field(&request, &parameters, field),
            None => from_query(&request, &parameters),
        }
        .unwrap_or_else(|refusal| panic!("{name}: {refusal:?}"));
        assert_eq!(parts.signature, vector.signature, "{name}");
        let scope: Vec<_> = parts.credential.split('/').map(str::to_owned).collect();
        let [_, day, region, service, _] = scope.try_into().unwrap();
        let scope = Scope { day, region, service };
        let signed = signed_fields(&request, parts.signed).unwrap_or_else(|refusal| panic!("{name}: {refusal:?}"));
        let kept: Vec<_> = parameters.iter().filter(|one| one.name != b"X-Amz-Signature").cloned().collect();
        let head = canonical::head(&request, &kept, &signed, true).unwrap();
        let (expected, digest) = vector.canonical.rsplit_once('\n').unwrap();
        assert_eq!(String::from_utf8(head.clone()).unwrap(), format!("{expected}\n"), "{name}");
        let digest = sha256(&[&head, digest.as_bytes()]);
        assert!(vector.to_sign.ends_with(&lower_hex(&digest)), "{name}");
        let key = signing_key(secret.as_bytes(), &scope);
        let signature = hex(vector.signature.as_bytes()).unwrap();
        assert!(hmac::verify(&key, vector.to_sign.as_bytes(), &signature).is_ok(), "{name}");
    }
}

fn path(path: &str, twice_encoded: bool) -> String {
    let fields = [("host", b"h".as_slice())];
    let request = SignedRequest { method: "GET", path, query: None, fields: &fields };
    let head = String::from_utf8(canonical::head(&request, &[], &["host"], twice_encoded).unwrap()).unwrap();
    head.lines().nth(1).unwrap().to_owned()
}

#[test]
fn a_path_is_encoded_once_more_than_it_was_sent_but_for_s3() {
    let sent = "/test/@connections/JBDvjfGEIAMCERw%3D";
    assert_eq!(path(sent, true), "/test/%40connections/JBDvjfGEIAMCERw%253D");
    assert_eq!(path(sent, false), "/test/%40connections/JBDvjfGEIAMCERw%3D");
}

#[test]
fn a_moment_is_read_strictly() {
    assert_eq!(instant("19700101T000001Z"), Some(1));
    assert_eq!(instant("20261120T103800Z"), Some(1_795_171_080));
    for text in ["", "20261120T103800", "20261120 103800Z", "20261320T103800Z", "2026+120T103800Z", "20261120T103860Z"]
    {
        assert_eq!(instant(text), None, "{text}");
    }
}

#[test]
fn ids_of_access_keys_are_read_in_one_spelling() {
    let (id, text, secret) = create(&TenantId::mint(&cofferdam_model::random::SeededRandom::new(3)), &Twos);
    assert_eq!((text.len(), secret.expose().len()), (36, 43));
    assert_eq!(key_id(&text), Some(id));
    for other in [text.to_lowercase(), text.replace("COFK", "COFJ"), format!("{text}0"), "COFK".into(), String::new()] {
        assert_eq!(key_id(&other), None, "{other}");
    }
}

struct Twos;

impl Random for Twos {
    fn fill(&self, bytes: &mut [u8]) {
        bytes.fill(2);
    }
}

#[test]
fn queries_lose_what_of_them_is_a_credential_and_nothing_else() {
    let query = "b=2&X-Amz-Signature=a&x-amz-date=b&%58-Amz-Expires=1&a=X-Amz-Signature&c";
    assert_eq!(without_credential(query).as_deref(), Some("b=2&a=X-Amz-Signature&c"));
    assert_eq!(without_credential("X-Amz-Signature=a"), None);
    assert!(in_query(Some(query)) && in_query(Some("%58-AMZ-credential")) && !in_query(Some("a=X-Amz-Signature")));
}
