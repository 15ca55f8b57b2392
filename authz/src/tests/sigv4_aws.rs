//! Our check of signatures against AWS's own signer: what it signs is taken, and nothing that differs from it anywhere.
//!
//! Where the two read a request differently on purpose, nothing is generated: a `+` in a query (a space to the signer,
//! a plus here: `%20` and `%2B` mean one thing to both), a tab in a field, and paths it would rewrite, which the
//! gateway refuses before.

use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_lc_rs::digest;
use aws_sigv4::http_request::{
    PayloadChecksumKind, SignableBody, SignableRequest, SignatureLocation, SigningSettings, UriPathNormalizationMode,
    sign,
};
use aws_sigv4::sign::v4;
use cofferdam_model::Random as _;
use cofferdam_model::random::SeededRandom;

use super::NOW;
use super::signer::{SOURCE, Scene, Signer, now};
use crate::{IdentityError, Payload, Refusal, SignedRequest};

const REQUESTS: usize = 2_500;
/// Text that is awkward in a target: reserved, escaped, not ASCII, escaped twice.
const PIECES: [&str; 22] = [
    "a",
    "Z",
    "0",
    "-",
    ".",
    "_",
    "~",
    "!",
    "*",
    "'",
    "(",
    ")",
    ":",
    "@",
    "$",
    "%20",
    "%2F",
    "%C3%A9",
    "%E2%98%83",
    "%2B",
    "%25",
    "%7E",
];
const VALUES: [&str; 9] =
    ["a", "b  c", " led and trailed ", "x,y", "\"quoted   text\"", "", "0", "a=b; c=d", "caf\u{e9} \u{2603}"];
const METHODS: [&str; 6] = ["GET", "POST", "PUT", "DELETE", "HEAD", "PATCH"];

/// Choices that come out the same each time.
struct Dice(SeededRandom);

impl Dice {
    fn below(&self, most: usize) -> usize {
        let mut bytes = [0; 4];
        self.0.fill(&mut bytes);
        u32::from_le_bytes(bytes) as usize % most
    }

    fn of<'a>(&self, these: &[&'a str]) -> &'a str {
        these[self.below(these.len())]
    }

    fn text(&self, most: usize) -> String {
        (0..self.below(most + 1)).map(|_| self.of(&PIECES)).collect()
    }
}

#[derive(Clone, PartialEq)]
struct Request {
    method: String,
    path: String,
    query: Vec<String>,
    fields: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
}

impl Request {
    fn drawn(dice: &Dice) -> Self {
        // A segment never is `.` or `..`, nor empty.
        let segments = (0..dice.below(4)).map(|_| format!("/s{}", dice.text(6)));
        let path = segments.collect::<String>();
        let query = (0..dice.below(5)).map(|at| {
            let name = ["q", "Q", "a", "a%C3%A9", "b"][(at + dice.below(2)) % 5];
            match dice.below(6) {
                0 => name.to_owned(),
                1 => format!("{name}="),
                _ => format!("{name}={}", dice.text(4)),
            }
        });
        let query = query.collect();
        let mut fields = vec![("host".to_owned(), ["api.example", "api.example:8443"][dice.below(2)].into())];
        for name in ["content-type", "x-amz-meta-a", "x-custom", "x-amz-meta-b", "accept"] {
            for _ in 0..[0, 0, 1, 1, 2][dice.below(5)].min(if name == "content-type" { 1 } else { 2 }) {
                fields.push((name.to_owned(), dice.of(&VALUES).as_bytes().to_vec()));
            }
        }
        let body = dice.text(9).into_bytes();
        Self {
            method: dice.of(&METHODS).into(),
            path: if path.is_empty() { "/".into() } else { path },
            query,
            fields,
            body,
        }
    }

    fn target(&self) -> String {
        let query = if self.query.is_empty() { String::new() } else { format!("?{}", self.query.join("&")) };
        format!("https://{}{}{query}", String::from_utf8_lossy(&self.fields[0].1), self.path)
    }

    /// As AWS's signer leaves it: with a field more, or with parameters more where the URL is the credential.
    fn signed(mut self, signer: &Signer, dice: &Dice) -> Self {
        let identity = Credentials::new(&signer.id, &signer.secret, None, None, "test").into();
        let mut settings = SigningSettings::default();
        settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
        let presigned = dice.below(3) == 0;
        if presigned {
            settings.signature_location = SignatureLocation::QueryParams;
            settings.expires_in = Some(Duration::from_secs(60 + dice.below(600) as u64));
        } else if dice.below(2) == 0 {
            settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
        }
        let params = v4::SigningParams::builder()
            .identity(&identity)
            .region("us-east-1")
            .name(dice.of(&["execute-api", "lambda"]))
            .time(SystemTime::UNIX_EPOCH + Duration::from_secs(NOW))
            .settings(settings)
            .build()
            .unwrap()
            .into();
        let target = self.target();
        let fields = self.fields.iter().map(|(name, value)| (name.as_str(), std::str::from_utf8(value).unwrap()));
        let signable = SignableRequest::new(&self.method, target, fields, SignableBody::Bytes(&self.body)).unwrap();
        let (instructions, _) = sign(signable, &params).unwrap().into_parts();
        let (headers, parameters) = instructions.into_parts();
        let headers = headers.iter().map(|one| (one.name().to_owned(), one.value().as_bytes().to_vec()));
        self.fields.extend(headers);
        let escaped = |text: &str| -> String {
            text.bytes()
                .map(|byte| match byte {
                    b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
                    byte if byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
                    byte => format!("%{byte:02X}"),
                })
                .collect()
        };
        self.query.extend(parameters.iter().map(|(name, value)| format!("{name}={}", escaped(value))));
        self
    }

    /// Every request that differs from this one in one thing that was signed, with what that is.
    fn bent(&self, dice: &Dice) -> Vec<(String, Self)> {
        let mut bent = Vec::new();
        let mut with = |what: &str, change: &dyn Fn(&mut Self)| {
            let mut other = self.clone();
            change(&mut other);
            bent.push((what.to_owned(), other));
        };
        with("method", &|it| it.method = if it.method == "GET" { "POST".into() } else { "GET".into() });
        with("path longer", &|it| it.path.push('x'));
        with("path escaped", &|it| it.path.push_str("%61"));
        with("body", &|it| it.body.push(b'!'));
        with("parameter more", &|it| it.query.push("zz=1".into()));
        let at = |byte: u8| if byte == b'0' { b'1' } else { b'0' };
        for which in 0..self.query.len() {
            with("parameter less", &|it| drop(it.query.remove(which)));
            with("parameter twice", &|it| it.query.push(it.query[which].clone()));
            with("parameter longer", &|it| {
                let more = if it.query[which].contains('=') { "0" } else { "=0" };
                it.query[which].push_str(more);
            });
        }
        for which in 0..self.fields.len() {
            let (name, value) = &self.fields[which];
            let signed = name != "authorization";
            if signed {
                with(&format!("{name} longer"), &|it| it.fields[which].1.push(b'0'));
                with(&format!("{name} less"), &|it| drop(it.fields.remove(which)));
                with(&format!("{name} twice"), &|it| it.fields.push(it.fields[which].clone()));
            } else {
                // Each time another character of it: of the key, the scope, the names, the signature.
                let place = b"AWS4-HMAC-SHA256 Credential=".len() + dice.below(value.len() - 28);
                with(&format!("authorization at {place}"), &|it| {
                    let byte = &mut it.fields[which].1[place];
                    *byte = at(*byte);
                });
            }
        }
        with("an unsigned field of Amazon's", &|it| it.fields.push(("x-amz-other".into(), b"1".to_vec())));
        bent
    }
}

fn shows(scene: &Scene, it: &Request) -> Result<(), Refusal> {
    let fields: Vec<_> = it.fields.iter().map(|(name, value)| (name.as_str(), value.as_slice())).collect();
    let query = (!it.query.is_empty()).then(|| it.query.join("&"));
    let request = SignedRequest { method: &it.method, path: &it.path, query: query.as_deref(), fields: &fields };
    let found: [u8; 32] = digest::digest(&digest::SHA256, &it.body).as_ref().try_into().unwrap();
    let claim = scene.identities.examine(&request, SOURCE.into(), &scene.world);
    let proved = claim.and_then(|claim| match claim.payload() {
        // The gateway cuts a body that is not the one named before its last piece.
        Payload::Digest(named) if named != found => Err(Refusal::Signature.into()),
        _ => now(scene.identities.prove(claim, Some(found), &scene.world)).map(drop),
    });
    proved.map_err(|error| match error {
        IdentityError::Refused(refusal) => refusal,
        other => panic!("{other}"),
    })
}

#[test]
fn what_amazons_signer_signs_is_taken_and_nothing_that_differs_from_it() {
    let dice = Dice(SeededRandom::new(150));
    let scene = Scene::new();
    let signer = scene.signer(|_| {});
    let (mut bent, mut presigned) = (0, 0);
    for number in 0..REQUESTS {
        let drawn = Request::drawn(&dice);
        let request = drawn.clone().signed(&signer, &dice);
        presigned += usize::from(request.query.len() > drawn.query.len());
        for (what, other) in request.bent(&dice) {
            if other == request {
                continue;
            }
            let shown = shows(&scene, &other);
            assert!(shown.is_err(), "request {number}: {what}: {} is taken for {}", other.target(), request.target());
            bent += 1;
        }
        // Last, since what changes something is taken once.
        let shown = shows(&scene, &request);
        let fields: Vec<_> =
            request.fields.iter().map(|(name, value)| format!("{name}: {}", String::from_utf8_lossy(value))).collect();
        assert_eq!(shown, Ok(()), "request {number}: {} {}: {fields:#?}", request.method, request.target());
    }
    assert!(bent > 10 * REQUESTS && presigned > REQUESTS / 4, "{bent} bent, {presigned} presigned");
}
