//! What every record has in common, whatever was put into it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cofferdam_model::{Digest, GivenFacts, Session, SetFacts, UseFacts};

use std::sync::Arc;

use zeroize::Zeroizing;

use super::*;
use crate::disclose;
use crate::payload::Payload;
use crate::privacy::{Claim, Claims};
use crate::shred::SubjectKey;
use crate::tests::{facts, outcome_facts, stamp};
use crate::tree::leaf_hash;

fn begun(level: Level) -> Begun {
    Begun { level, decided: UnixNanos(stamp().at.0 - 1) }
}

fn redacting(fields: impl IntoIterator<Item = Field>) -> Stamp {
    let redact = fields.into_iter().collect();
    Stamp { privacy: Privacy { redact, ..Privacy::default() }, ..stamp() }
}

fn payload(encoded: &Encoded) -> Payload<'_> {
    Payload::split(&encoded.frame[FRAME_HEADER_BYTES..]).unwrap()
}

/// The entry as it is hashed, and the record as it is read.
fn json(encoded: &Encoded) -> (String, serde_json::Value) {
    let payload = payload(encoded);
    let text = String::from_utf8(payload.entry().to_vec()).unwrap();
    let value = serde_json::from_slice(&payload.merged()).unwrap();
    (text, value)
}

fn egress_facts(text: &str) -> EgressFacts {
    EgressFacts {
        number: 1,
        method: text.into(),
        host: text.into(),
        port: 443,
        rule: Some(text.into()),
        decision: facts().decision.map(Box::new),
        address: Some(std::net::Ipv4Addr::LOCALHOST.into()),
        tls: Some(TlsVersion::Tls13),
        credential: Some(text.into()),
        status: Some(200),
        ending: cofferdam_model::EgressEnd::Answered,
        bytes_out: 1,
        bytes_in: u64::MAX,
        wall_us: 3,
    }
}

fn all(facts: &CallFacts, how: &OutcomeFacts, text: &str) -> Vec<Encoded> {
    [Seal::Clear, Seal::Lost, Seal::Under(key())].into_iter().flat_map(|seal| sealed(seal, facts, how, text)).collect()
}

fn key() -> Arc<SubjectKey> {
    Arc::new(SubjectKey::new("k".repeat(100), Zeroizing::new([1; 32])))
}

fn sealed(seal: Seal, facts: &CallFacts, how: &OutcomeFacts, text: &str) -> Vec<Encoded> {
    let stamp = Stamp { seal, ..stamp() };
    let tally = Tally {
        check: Some(text),
        code: text,
        status: 400,
        network: "10.0.0.0/24",
        count: u64::MAX,
        from: UnixNanos(u64::MAX),
    };
    vec![
        call(&stamp, facts, begun(Level::Standard), how),
        intent(&stamp, facts, begun(Level::Strict)),
        refusal(&stamp, facts, how),
        outcome(&stamp, "outcome", text, Some(text), how),
        outcome(&stamp, "end", text, None, how),
        egress(&stamp, text, Some(text), &egress_facts(text)),
        refusals(&stamp, &tally),
        gap(&stamp, 7),
        recovered(&stamp, text, 1, 2),
        note(&stamp, &Note::Start { version: text.into(), detail: text.into() }),
        note(&stamp, &Note::Stop { reason: text.into() }),
        note(&stamp, &Note::Event { kind: text.into(), detail: text.into() }),
    ]
}

#[test]
fn every_record_is_canonical_json_with_version_time_and_salt() {
    for encoded in all(&facts(), &outcome_facts(), "x") {
        let (text, value) = json(&encoded);
        let canonical = |json: &[u8]| {
            let value: serde_json::Value = serde_json::from_slice(json).unwrap();
            // serde_json keeps its maps sorted, so writing the value again is the canonical form.
            assert_eq!(serde_json::to_string(&value).unwrap().as_bytes(), json);
        };
        let payload = payload(&encoded);
        canonical(payload.entry());
        canonical(&payload.merged());
        payload.disclosures().into_iter().for_each(canonical);
        payload.check().unwrap();
        assert_eq!(value["v"], 2);
        assert_eq!(value["at"], stamp().at.0);
        assert_eq!(value["salt"], "07".repeat(16));
        assert_eq!(encoded.leaf, leaf_hash(text.as_bytes()));
    }
}

#[test]
fn no_client_can_make_a_record_too_long_or_unreadable() {
    for unit in ["\u{0}", "\u{e0041}", "\"", "é", "a"] {
        let text = unit.repeat(50_000);
        let mut facts = facts();
        let shared: std::sync::Arc<str> = text.as_str().into();
        (facts.method, facts.host, facts.path) = (shared.clone(), shared.clone(), shared);
        for field in [
            &mut facts.tenant,
            &mut facts.action,
            &mut facts.resource,
            &mut facts.route,
            &mut facts.version,
            &mut facts.detail,
        ] {
            *field = Some(text.clone());
        }
        if let Some(principal) = &mut facts.principal {
            principal.id = text.clone();
            principal.issuer = Some(text.clone());
            principal.tenant = Some(text.clone());
            principal.credential_id = Some(text.clone());
        }
        if let Some(decision) = &mut facts.decision {
            decision.outcome = text.clone();
            decision.tier = text.clone();
            decision.policies = vec![text.clone(); 1000];
            for tier in cofferdam_model::PolicyTier::ALL {
                let owner = text.as_str().into();
                decision.sets.push(SetFacts { tier: *tier, owner, version: u64::MAX, digest: Digest([255; 32]) });
            }
            let (name, roles) = (Some(text.clone()), vec![text.clone(); 1000]);
            decision.given = Some(Box::new(GivenFacts {
                name: name.clone(),
                item: name,
                item_roles: roles.clone(),
                public: true,
                scopes: Some(roles.clone()),
                groups: roles.clone(),
                roles,
                suspended: true,
            }));
        }
        let used = UseFacts {
            secret: text.as_str().into(),
            outcome: text.clone(),
            tier: text.clone(),
            policies: vec![text.clone(); 10],
        };
        facts.uses = vec![used; 100];
        let mut how = outcome_facts();
        how.code = Some(text.clone());
        for encoded in all(&facts, &how, &text) {
            assert!(payload(&encoded).check().is_ok(), "{} bytes", encoded.frame.len());
            json(&encoded);
        }
    }
}

#[test]
fn a_call_tells_everything_known_of_it() {
    let (_, value) = json(&call(&stamp(), &facts(), begun(Level::Strict), &outcome_facts()));
    for (key, expected) in [("kind", "call"), ("level", "strict"), ("path", "/orders"), ("source", "192.0.2.7")] {
        assert_eq!(value[key], expected);
    }
    assert_eq!(value["principal"]["id"], "alice");
    assert_eq!(value["decision"]["policies"][0], "p1");
    assert_eq!(value["decision"]["sets"]["tenant"]["version"], 3);
    assert_eq!(value["uses"][0], "KEY: allow by tenant: 10-defaults/workload");
    let given = serde_json::json!({
        "groups": ["oncall"], "item": "KEY", "item_roles": ["clerk"], "name": "orders", "public": true,
        "roles": ["ops"],
        "scopes": ["Data"],
    });
    assert_eq!(value["decision"]["given"], given);
    assert_eq!(value["usage"]["cpu_us"], 11);
    assert_eq!(value["cell"]["call"], 3);
    assert_eq!(value["decided"], stamp().at.0 - 1);
    assert_eq!(value["received"], stamp().at.0);
    assert_eq!((&value["limits"]["cpu_ms"], &value["limits"]["wall_ms"]), (&1000.into(), &10_000.into()));
    let connection = &value["connection"];
    assert_eq!((&connection["number"], &connection["port"]), (&12.into(), &50_123.into()));
    assert_eq!((&connection["protocol"], &connection["group"]), (&"h2".into(), &"X25519MLKEM768".into()));
    assert_eq!(value["headers"], serde_json::json!({"user-agent": "curl/8"}));
}

#[test]
fn what_is_personal_is_not_in_what_is_hashed_but_for_a_salted_commitment() {
    let encoded = call(&stamp(), &facts(), begun(Level::Strict), &outcome_facts());
    let (entry, value) = json(&encoded);
    for personal in ["alice", "192.0.2.7", "/orders", "api.example", "issuer.example", "clerk"] {
        assert!(!entry.contains(personal), "{personal} in {entry}");
        assert!(value.to_string().contains(personal), "{personal}");
    }
    assert!(entry.contains(r#""principal":{"credential":"jwt","kind":"user"}"#), "{entry}");
    assert_eq!(value.get("commits"), None);
    assert_eq!(value.get("withheld"), None);
}

#[test]
fn a_redacted_field_leaves_neither_value_nor_salt() {
    let encoded = call(&redacting([Field::Source, Field::Principal]), &facts(), begun(Level::Strict), &outcome_facts());
    let payload = payload(&encoded);
    let whole = String::from_utf8(encoded.frame[FRAME_HEADER_BYTES..].to_vec()).unwrap();
    let salt = STANDARD.encode(disclose::salt(&stamp().secret, Field::Source));
    for gone in ["alice", "192.0.2.7", &STANDARD.encode(stamp().secret), &salt] {
        assert!(!whole.contains(gone), "{gone} in {whole}");
    }
    payload.check().unwrap();
    let (_, value) = json(&encoded);
    assert_eq!(value["withheld"], serde_json::json!({"principal": "redacted", "source": "redacted"}));
    assert_eq!((&value["path"], &value["principal"]["kind"]), (&"/orders".into(), &"user".into()));

    let all = redacting(Field::ALL.iter().copied());
    let encoded = call(&all, &facts(), begun(Level::Strict), &outcome_facts());
    assert_eq!(self::payload(&encoded).disclosures(), None);
    self::payload(&encoded).check().unwrap();
}

#[test]
fn what_is_disclosed_must_be_what_was_committed_to() {
    let encoded = call(&stamp(), &facts(), begun(Level::Strict), &outcome_facts());
    let whole = String::from_utf8(encoded.frame[FRAME_HEADER_BYTES..].to_vec()).unwrap();
    let check = |changed: &str| {
        assert_ne!(changed, whole);
        Payload::split(changed.as_bytes()).unwrap().check().unwrap_err()
    };
    assert_eq!(check(&whole.replace("alice", "mally")), "a field is not the one that it commits to");
    assert_eq!(check(whole.split('\n').next().unwrap()), "a field that it commits to is missing");
    let more = whole.replace("\"fields\":{", "\"fields\":{\"address\":1,");
    assert_eq!(check(&more), "it discloses a field that it does not commit to");
    let secret = STANDARD.encode(stamp().secret);
    assert_eq!(check(&whole.replace(&secret, secret.get(..40).unwrap())), "a field that it commits to has no salt");
    assert_eq!(check(&whole.replace("\"fields\":", "\"fields\"")), "what stands beside the record cannot be read");
}

#[test]
fn only_the_claims_that_are_asked_for_are_told() {
    let mut facts = facts();
    facts.principal.as_mut().unwrap().session = Some(Session {
        scopes: Some(vec!["read".into()]),
        mfa: true,
        authenticated: Some(1),
        actor: Some("bob".into()),
        client: Some("app".into()),
        ..Session::default()
    });
    let told = |claims| {
        let stamp = Stamp { privacy: Privacy { claims, ..Privacy::default() }, ..stamp() };
        json(&call(&stamp, &facts, begun(Level::Strict), &outcome_facts())).1["principal"]["session"].clone()
    };
    let all = serde_json::json!({"actor":"bob","authenticated":1,"client":"app","mfa":true,"scopes":["read"]});
    assert_eq!(told(Claims::default()), all);
    for claim in Claim::ALL {
        let name = claim.as_str();
        assert_eq!(told([*claim].into_iter().collect()), serde_json::json!({ name: all[name].clone() }));
    }
    assert_eq!(told([].into_iter().collect()), serde_json::json!({}));
}

#[test]
fn every_kind_is_in_the_list_of_kinds() {
    for encoded in all(&facts(), &outcome_facts(), "x") {
        let kind = json(&encoded).1["kind"].as_str().unwrap().to_owned();
        assert!(crate::KINDS.contains(&kind.as_str()), "{kind}");
    }
}
