//! A machine that signs its requests, written without a look at what checks them.
//!
//! Owns the signing and the small scene it is shown in. Must never share code with the check.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use aws_lc_rs::{digest, hmac};
use cofferdam_model::clock::ManualClock;
use cofferdam_model::{KeyId, KeyKind, TenantId, UnixNanos};
use zeroize::Zeroizing;

use super::{NOW, Scripted, World, clock, pepper};
use crate::RevokedBy;
use crate::identity::{Identities, Secret};
use crate::{
    AccessSecrets, ApiKeyRecord, IdentityError, Payload, Principal, Refusal, SignedRequest, Sigv4Config, sigv4,
};

pub(super) const SOURCE: [u8; 4] = [192, 0, 2, 7];
pub(super) const STAMP: &str = "20261120T103800Z";

/// What a future gives that waits for nothing.
pub(super) fn now<T>(future: impl Future<Output = T>) -> T {
    match std::pin::pin!(future).poll(&mut std::task::Context::from_waker(std::task::Waker::noop())) {
        std::task::Poll::Ready(given) => given,
        std::task::Poll::Pending => panic!("nothing here has to be waited for"),
    }
}

/// The secrets of a world's access keys, as the vault would give them.
#[derive(Default)]
pub(crate) struct Secrets(Mutex<HashMap<KeyId, String>>);

impl AccessSecrets for Secrets {
    fn access_secret<'a>(&'a self, key: &'a KeyId) -> Secret<'a> {
        let found = self.0.lock().unwrap().get(key).map(|secret| Zeroizing::new(secret.clone().into_bytes()));
        Box::pin(std::future::ready(Ok(found)))
    }
}

/// A machine that signs, written without a look at what checks it.
pub(super) struct Signer {
    pub(super) id: String,
    pub(super) secret: String,
}

fn hmac(key: &[u8], text: &str) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes()).as_ref().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn sha256(text: &[u8]) -> String {
    hex(digest::digest(&digest::SHA256, text).as_ref())
}

/// A request as it is shown: what was signed, until a test changes it.
#[derive(Clone)]
pub(super) struct Shown {
    pub(super) method: &'static str,
    pub(super) path: String,
    pub(super) query: Option<String>,
    pub(super) fields: Vec<(String, Vec<u8>)>,
    pub(super) body: Vec<u8>,
}

impl Shown {
    pub(super) fn field(&mut self, name: &str, value: &str) -> &mut Self {
        self.fields.push((name.to_owned(), value.as_bytes().to_vec()));
        self
    }

    /// Puts another text in place of one in the authorization.
    pub(super) fn bend(&mut self, from: &str, to: &str) -> &mut Self {
        let (_, value) = self.fields.iter_mut().find(|(name, _)| name == "authorization").unwrap();
        let text = String::from_utf8(value.clone()).unwrap();
        assert!(text.contains(from), "{text}");
        *value = text.replace(from, to).into_bytes();
        self
    }
}

/// What is signed, before it is.
pub(super) struct Draft {
    pub(super) method: &'static str,
    pub(super) fields: Vec<(&'static str, String)>,
    /// The digest as the canonical request names it, and the body.
    pub(super) payload: (String, &'static [u8]),
    pub(super) stamp: String,
    pub(super) scope: String,
}

impl Draft {
    pub(super) fn get() -> Self {
        Self::of("GET", b"")
    }

    pub(super) fn of(method: &'static str, body: &'static [u8]) -> Self {
        Self {
            method,
            fields: vec![("host", "api.example:8443".into())],
            payload: (sha256(body), body),
            stamp: STAMP.into(),
            scope: "20261120/us-east-1/execute-api/aws4_request".into(),
        }
    }

    pub(super) fn with(mut self, name: &'static str, value: &str) -> Self {
        self.fields.push((name, value.to_owned()));
        self
    }

    pub(super) fn declared(self) -> Self {
        let digest = self.payload.0.clone();
        self.with("x-amz-content-sha256", &digest)
    }

    pub(super) fn at(mut self, stamp: &str) -> Self {
        self.stamp = stamp.to_owned();
        self
    }
}

impl Signer {
    fn signature(&self, draft: &Draft, query: &str, fields: &[(&str, String)]) -> String {
        let lines: String = fields.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
        let names = fields.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(";");
        let canonical = format!("{}\n/orders/1\n{query}\n{lines}\n{names}\n{}", draft.method, draft.payload.0);
        let text = format!("AWS4-HMAC-SHA256\n{}\n{}\n{}", draft.stamp, draft.scope, sha256(canonical.as_bytes()));
        let first = format!("AWS4{}", self.secret).into_bytes();
        let key = draft.scope.split('/').fold(first, |key, part| hmac(&key, part));
        hex(&hmac(&key, &text))
    }

    /// Signs for the header form; the query is sent as given.
    pub(super) fn header(&self, draft: &Draft, query: Option<&str>) -> Shown {
        let mut fields = draft.fields.clone();
        fields.push(("x-amz-date", draft.stamp.clone()));
        fields.sort();
        let signature = self.signature(draft, query.unwrap_or_default(), &fields);
        let names = fields.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(";");
        let mut shown = Shown {
            method: draft.method,
            path: "/orders/1".into(),
            query: query.map(str::to_owned),
            fields: fields.into_iter().map(|(name, value)| (name.to_owned(), value.into_bytes())).collect(),
            body: draft.payload.1.to_vec(),
        };
        let scope = &draft.scope;
        let value =
            format!("AWS4-HMAC-SHA256 Credential={}/{scope}, SignedHeaders={names}, Signature={signature}", self.id);
        shown.field("authorization", &value);
        shown
    }

    /// Signs a URL that is good for some seconds.
    pub(super) fn presigned(&self, draft: &Draft, seconds: u64) -> Shown {
        let credential = format!("{}/{}", self.id, draft.scope).replace('/', "%2F");
        let query = format!(
            "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential={credential}&X-Amz-Date={}&X-Amz-Expires={seconds}\
             &X-Amz-SignedHeaders=host&a=1",
            draft.stamp
        );
        let signature = self.signature(draft, &query, &draft.fields);
        Shown {
            method: draft.method,
            path: "/orders/1".into(),
            query: Some(format!("{query}&X-Amz-Signature={signature}")),
            fields: draft.fields.iter().map(|(name, value)| (name.to_string(), value.clone().into_bytes())).collect(),
            body: draft.payload.1.to_vec(),
        }
    }
}

pub(super) struct Scene {
    pub(super) world: World,
    pub(super) clock: Arc<ManualClock>,
    pub(super) identities: Identities,
}

impl Scene {
    pub(super) fn new() -> Self {
        let (world, clock) = (World::new(), clock());
        let identities = Identities::new(vec![], pepper(), Scripted::down(), clock.clone()).unwrap();
        let identities = identities.signed_by(Sigv4Config::default(), world.secrets.clone());
        Self { world, clock, identities }
    }

    pub(super) fn signer(&self, change: impl FnOnce(&mut ApiKeyRecord)) -> Signer {
        let (id, secret) = self.world.access_key(&self.world.acme, &["invoker"], change);
        Signer { id, secret }
    }

    pub(super) fn shows(&self, shown: &Shown) -> Result<Principal, Refusal> {
        self.shows_from(SOURCE.into(), shown)
    }

    pub(super) fn shows_from(&self, source: IpAddr, shown: &Shown) -> Result<Principal, Refusal> {
        let fields: Vec<_> = shown.fields.iter().map(|(name, value)| (name.as_str(), value.as_slice())).collect();
        let (path, query) = (shown.path.as_str(), shown.query.as_deref());
        let request = SignedRequest { method: shown.method, path, query, fields: &fields };
        let digest: [u8; 32] = digest::digest(&digest::SHA256, &shown.body).as_ref().try_into().unwrap();
        let proved = self.identities.examine(&request, source, &self.world).and_then(|claim| {
            // As the gateway does: what is named is checked while the body comes.
            if let Payload::Digest(named) = claim.payload() {
                assert_eq!(named, digest, "the gateway would have cut the body");
            }
            now(self.identities.prove(claim, Some(digest), &self.world))
        });
        proved.map_err(|error| match error {
            IdentityError::Refused(refusal) => refusal,
            IdentityError::Revoked { by: RevokedBy::Tenant, .. } => Refusal::Tenant,
            IdentityError::Revoked { .. } => Refusal::Revoked,
            other => panic!("{other}"),
        })
    }
}

impl World {
    /// Makes an access key: its id as clients write it, and its secret.
    pub(crate) fn access_key(
        &self,
        tenant: &TenantId,
        roles: &[&str],
        change: impl FnOnce(&mut ApiKeyRecord),
    ) -> (String, String) {
        let (id, text, secret) = sigv4::create(tenant, &self.random);
        let mut record = ApiKeyRecord {
            scopes: None,
            id: id.clone(),
            account: "signer".into(),
            roles: roles.iter().map(ToString::to_string).collect(),
            mac: [0; 32],
            expires: UnixNanos::from_seconds(NOW + 3600),
            revoked: false,
            settings: Default::default(),
        };
        record.settings.kind = KeyKind::Sigv4;
        change(&mut record);
        self.keys.lock().unwrap().insert(id.clone(), Arc::new(record));
        self.secrets.0.lock().unwrap().insert(id, secret.expose().to_owned());
        (text, secret.expose().to_owned())
    }

    /// A service account that signs its requests.
    pub(crate) fn signing_account(&self, tenant: &TenantId, roles: &[&str]) -> Principal {
        let (id, secret) = self.access_key(tenant, roles, |_| {});
        let identities = Identities::new(vec![], pepper(), Scripted::down(), clock()).unwrap();
        let identities = identities.signed_by(Sigv4Config::default(), self.secrets.clone());
        let shown = Signer { id, secret }.header(&Draft::get().declared(), None);
        let fields: Vec<_> = shown.fields.iter().map(|(name, value)| (name.as_str(), value.as_slice())).collect();
        let request = SignedRequest { method: "GET", path: "/orders/1", query: None, fields: &fields };
        let claim = identities.examine(&request, SOURCE.into(), self).unwrap();
        now(identities.prove(claim, None, self)).unwrap()
    }
}
