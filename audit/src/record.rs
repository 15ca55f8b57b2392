//! What a record says.
//!
//! Owns the kinds of record and the fields of each, in canonical JSON with a salt, ready to be framed. Must never
//! fail or grow past `MAX_RECORD_BYTES`, whatever a client sent, and never write a body, credential or secret.

use cofferdam_model::{
    CallFacts, EgressFacts, Ending, Level, Origin, OutcomeFacts, PrincipalFacts, Random, Session, TlsVersion,
    UnixNanos, Usage,
};
use serde::Deserialize;
use std::borrow::Cow;

use crate::decision;
use crate::json::Object;
use crate::log::Note;
use crate::segment::FRAME_HEADER_BYTES;
use crate::tree::{Hash, leaf_hash_of_prefixed};

/// Bytes a record can have at most; entry bundles of C2SP tiles hold no longer ones.
pub(crate) const MAX_RECORD_BYTES: usize = 65_535;
/// Version of the fields.
const VERSION: u64 = 1;

pub(crate) const NAME_BYTES: usize = 256;
const SUBJECT_BYTES: usize = 1_024;
const PATH_BYTES: usize = 4_096;
const DETAIL_BYTES: usize = 8_192;
const SCOPES: usize = 64;
/// What most records take, so that a buffer need not grow.
const USUAL_BYTES: usize = 1_024;

/// A record ready to be committed: room for the frame's header, then the JSON; and the hash of the latter.
pub(crate) struct Encoded {
    pub(crate) frame: Vec<u8>,
    pub(crate) leaf: Hash,
}

/// What makes two records differ even when all they say is equal: when, and a salt that keeps leaf hashes from being
/// guessed.
pub(crate) struct Stamp {
    pub(crate) at: UnixNanos,
    pub(crate) salt: [u8; 16],
}

impl Stamp {
    pub(crate) fn new(at: UnixNanos, random: &dyn Random) -> Self {
        let mut salt = [0u8; 16];
        random.fill(&mut salt);
        Self { at, salt }
    }
}

/// Refusals of strangers counted over a window.
pub(crate) struct Tally<'a> {
    pub(crate) code: &'a str,
    pub(crate) status: u16,
    pub(crate) network: &'a str,
    pub(crate) count: u64,
    pub(crate) from: UnixNanos,
}

/// The little of a record that recovery and queries look at.
#[derive(Deserialize)]
pub(crate) struct Peek<'a> {
    pub(crate) at: u64,
    #[serde(borrow)]
    pub(crate) kind: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(crate) request: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    pub(crate) tenant: Option<Cow<'a, str>>,
    #[serde(default)]
    pub(crate) streamed: bool,
}

/// A call told in one record.
pub(crate) fn call(stamp: &Stamp, facts: &CallFacts, level: Level, outcome: &OutcomeFacts) -> Encoded {
    CallRecord { kind: "call", request: facts.request.as_str(), level: Some(level), ..CallRecord::of(facts, outcome) }
        .encode(stamp)
}

/// What is about to be done.
pub(crate) fn intent(stamp: &Stamp, facts: &CallFacts, level: Level) -> Encoded {
    CallRecord { kind: "intent", facts: Some(facts), level: Some(level), ..CallRecord::bare(facts.request.as_str()) }
        .encode(stamp)
}

/// What was refused to somebody known.
pub(crate) fn refusal(stamp: &Stamp, facts: &CallFacts, outcome: &OutcomeFacts) -> Encoded {
    CallRecord { kind: "refusal", ..CallRecord::of(facts, outcome) }.encode(stamp)
}

/// How what was intended ended (`outcome`), or how its stream did (`end`).
pub(crate) fn outcome(
    stamp: &Stamp,
    kind: &'static str,
    request: &str,
    tenant: Option<&str>,
    outcome: &OutcomeFacts,
) -> Encoded {
    CallRecord { kind, tenant, outcome: Some(outcome), ..CallRecord::bare(request) }.encode(stamp)
}

/// A request a call made to the outside.
pub(crate) fn egress(stamp: &Stamp, request: &str, tenant: Option<&str>, facts: &EgressFacts) -> Encoded {
    encode(|o| {
        if let Some(address) = facts.address {
            o.shown("address", address);
        }
        o.number("at", stamp.at.0);
        o.number("bytes_in", facts.bytes_in);
        o.number("bytes_out", facts.bytes_out);
        o.maybe_text("credential", facts.credential.as_deref(), NAME_BYTES);
        if let Some(decided) = &facts.decision {
            o.object("decision", |o| decision::decided(o, decided));
        }
        o.text("ending", facts.ending.as_str(), NAME_BYTES);
        o.text("host", &facts.host, SUBJECT_BYTES);
        o.text("kind", "egress", NAME_BYTES);
        o.text("method", &facts.method, NAME_BYTES);
        o.number("number", facts.number.into());
        o.number("port", facts.port.into());
        o.text("request", request, NAME_BYTES);
        o.maybe_text("rule", facts.rule.as_deref(), SUBJECT_BYTES);
        o.hex("salt", &stamp.salt);
        if let Some(status) = facts.status {
            o.number("status", status.into());
        }
        o.maybe_text("tenant", tenant, NAME_BYTES);
        o.maybe_text("tls", facts.tls.map(TlsVersion::as_str), NAME_BYTES);
        o.number("v", VERSION);
        o.number("wall_us", facts.wall_us);
    })
}

/// The outcome of what nobody closed.
pub(crate) fn unclosed(ending: Ending) -> OutcomeFacts {
    OutcomeFacts {
        status: 0,
        origin: Origin::Platform,
        ending,
        code: None,
        usage: Usage::default(),
        body: None,
        streamed: false,
        cell: None,
        isolation: None,
    }
}

/// Refusals of strangers.
pub(crate) fn refusals(stamp: &Stamp, tally: &Tally<'_>) -> Encoded {
    encode(|o| {
        o.number("at", stamp.at.0);
        o.text("code", tally.code, NAME_BYTES);
        o.number("count", tally.count);
        o.number("from", tally.from.0);
        o.text("kind", "refusals", NAME_BYTES);
        o.text("network", tally.network, NAME_BYTES);
        o.hex("salt", &stamp.salt);
        o.number("status", tally.status.into());
        o.number("v", VERSION);
    })
}

/// Relaxed records for which there was no room.
pub(crate) fn gap(stamp: &Stamp, dropped: u64) -> Encoded {
    encode(|o| {
        o.number("at", stamp.at.0);
        o.number("dropped", dropped);
        o.text("kind", "gap", NAME_BYTES);
        o.hex("salt", &stamp.salt);
        o.number("v", VERSION);
    })
}

/// A write cut short that was cut off.
pub(crate) fn recovered(stamp: &Stamp, file: &str, offset: u64, torn_bytes: u64) -> Encoded {
    encode(|o| {
        o.number("at", stamp.at.0);
        o.text("file", file, NAME_BYTES);
        o.text("kind", "recovered", NAME_BYTES);
        o.number("offset", offset);
        o.hex("salt", &stamp.salt);
        o.number("torn_bytes", torn_bytes);
        o.number("v", VERSION);
    })
}

/// Something that is no call.
pub(crate) fn note(stamp: &Stamp, note: &Note) -> Encoded {
    let (kind, detail, event, version) = match note {
        Note::Start { version, detail } => ("start", detail, None, Some(version)),
        Note::Stop { reason } => ("stop", reason, None, None),
        Note::Event { kind, detail } => ("event", detail, Some(kind), None),
    };
    encode(|o| {
        o.number("at", stamp.at.0);
        o.text("detail", detail, DETAIL_BYTES);
        o.maybe_text("event", event.map(String::as_str), NAME_BYTES);
        o.text("kind", kind, NAME_BYTES);
        o.hex("salt", &stamp.salt);
        o.number("v", VERSION);
        o.maybe_text("version", version.map(String::as_str), NAME_BYTES);
    })
}

/// All a record about a call may say.
struct CallRecord<'a> {
    kind: &'static str,
    request: &'a str,
    tenant: Option<&'a str>,
    facts: Option<&'a CallFacts>,
    level: Option<Level>,
    outcome: Option<&'a OutcomeFacts>,
}

impl<'a> CallRecord<'a> {
    fn bare(request: &'a str) -> Self {
        Self { kind: "", request, tenant: None, facts: None, level: None, outcome: None }
    }

    fn of(facts: &'a CallFacts, outcome: &'a OutcomeFacts) -> Self {
        Self { facts: Some(facts), outcome: Some(outcome), ..Self::bare(facts.request.as_str()) }
    }

    fn encode(&self, stamp: &Stamp) -> Encoded {
        encode(|o| self.fields(o, stamp))
    }

    /// Everything in the order of its keys, so that no sorting is needed.
    fn fields(&self, o: &mut Object<'_>, stamp: &Stamp) {
        let (facts, outcome) = (self.facts, self.outcome);
        o.maybe_text("action", facts.and_then(|f| f.action.as_deref()), NAME_BYTES);
        o.number("at", stamp.at.0);
        if let Some(outcome) = outcome {
            outcome.body.iter().for_each(|body| o.hex("body", &body.0));
            if let Some((cell, call)) = &outcome.cell {
                o.object("cell", |o| {
                    o.number("call", *call);
                    o.text("id", cell.as_str(), NAME_BYTES);
                });
            }
            o.maybe_text("code", outcome.code.as_deref(), NAME_BYTES);
        }
        if let Some(facts) = facts {
            facts.component.iter().for_each(|component| o.hex("component", &component.0));
            decision::decision(o, facts);
            o.maybe_text("detail", facts.detail.as_deref(), DETAIL_BYTES);
        }
        o.maybe_text("ending", outcome.map(|f| f.ending.as_str()), NAME_BYTES);
        o.maybe_text("host", facts.map(|f| &*f.host), SUBJECT_BYTES);
        o.maybe_text("isolation", outcome.and_then(|f| f.isolation).map(|i| i.as_str()), NAME_BYTES);
        o.text("kind", self.kind, NAME_BYTES);
        o.maybe_text("level", self.level.map(Level::as_str), NAME_BYTES);
        o.maybe_text("method", facts.map(|f| &*f.method), NAME_BYTES);
        o.maybe_text("origin", outcome.map(|f| f.origin.as_str()), NAME_BYTES);
        if let Some(facts) = facts {
            o.text("path", &facts.path, PATH_BYTES);
            facts.principal.iter().for_each(|facts| o.object("principal", |o| principal(o, facts)));
            o.number("received", facts.at.0);
        }
        o.text("request", self.request, NAME_BYTES);
        if let Some(facts) = facts {
            o.maybe_text("resource", facts.resource.as_deref(), NAME_BYTES);
            o.maybe_text("route", facts.route.as_deref(), NAME_BYTES);
        }
        o.hex("salt", &stamp.salt);
        if let Some(facts) = facts {
            o.shown("source", facts.source);
        }
        if let Some(outcome) = outcome {
            o.number("status", outcome.status.into());
            if outcome.streamed {
                o.flag("streamed", true);
            }
        }
        o.maybe_text("tenant", facts.and_then(|f| f.tenant.as_deref()).or(self.tenant), NAME_BYTES);
        o.maybe_text("tls", facts.map(|f| f.tls.as_str()), NAME_BYTES);
        if let Some(outcome) = outcome {
            o.object("usage", |o| usage(o, &outcome.usage));
        }
        if let Some(facts) = facts {
            decision::uses(o, facts);
        }
        o.number("v", VERSION);
        o.maybe_text("version", facts.and_then(|f| f.version.as_deref()), NAME_BYTES);
    }
}

fn principal(o: &mut Object<'_>, facts: &PrincipalFacts) {
    o.maybe_text("bound", Some(facts.bound.as_str()).filter(|_| !facts.bound.is_none()), NAME_BYTES);
    o.text("credential", facts.credential.as_str(), NAME_BYTES);
    o.maybe_text("credential_id", facts.credential_id.as_deref(), SUBJECT_BYTES);
    o.text("id", &facts.id, SUBJECT_BYTES);
    o.maybe_text("issuer", facts.issuer.as_deref(), SUBJECT_BYTES);
    o.text("kind", facts.kind.as_str(), NAME_BYTES);
    facts.session.iter().for_each(|facts| o.object("session", |o| session(o, facts)));
    o.maybe_text("tenant", facts.tenant.as_deref(), NAME_BYTES);
}

fn session(o: &mut Object<'_>, facts: &Session) {
    o.maybe_text("actor", facts.actor.as_deref(), SUBJECT_BYTES);
    facts.authenticated.iter().for_each(|at| o.number("authenticated", *at));
    o.maybe_text("client", facts.client.as_deref(), SUBJECT_BYTES);
    if facts.mfa {
        o.flag("mfa", true);
    }
    facts.scopes.iter().for_each(|scopes| o.texts("scopes", scopes, SCOPES, NAME_BYTES));
}

fn usage(o: &mut Object<'_>, usage: &Usage) {
    o.number("bytes_in", usage.bytes_in);
    o.number("bytes_out", usage.bytes_out);
    o.number("cpu_us", usage.cpu_us);
    o.number("egress_bytes_in", usage.egress_bytes_in);
    o.number("egress_bytes_out", usage.egress_bytes_out);
    o.number("egress_calls", usage.egress_calls);
    o.number("log_bytes", usage.log_bytes);
    o.number("memory_bytes", usage.memory_bytes);
    o.number("memory_kib_ms", usage.memory_kib_ms);
    o.number("wall_us", usage.wall_us);
}

fn encode(fill: impl FnOnce(&mut Object<'_>)) -> Encoded {
    let mut frame = Vec::with_capacity(FRAME_HEADER_BYTES + USUAL_BYTES);
    frame.resize(FRAME_HEADER_BYTES, 0);
    let mut object = Object::begin(&mut frame);
    fill(&mut object);
    object.end();
    // The header is still zeros, so its last byte is the zero that RFC 6962 puts before a leaf.
    let leaf = leaf_hash_of_prefixed(frame.get(FRAME_HEADER_BYTES - 1..).unwrap_or_default());
    Encoded { frame, leaf }
}

#[cfg(test)]
mod tests {
    use cofferdam_model::{Digest, GivenFacts, SetFacts, UseFacts};

    use super::*;
    use crate::tests::{facts, outcome_facts, stamp};
    use crate::tree::leaf_hash;

    fn json(encoded: &Encoded) -> (String, serde_json::Value) {
        let text = String::from_utf8(encoded.frame[FRAME_HEADER_BYTES..].to_vec()).unwrap();
        let value = serde_json::from_str(&text).unwrap();
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
        let stamp = stamp();
        let tally =
            Tally { code: text, status: 400, network: "10.0.0.0/24", count: u64::MAX, from: UnixNanos(u64::MAX) };
        vec![
            call(&stamp, facts, Level::Standard, how),
            intent(&stamp, facts, Level::Strict),
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
    fn the_list_of_kinds_is_that_of_all_records() {
        let records = all(&facts(), &outcome_facts(), "x");
        let kinds = records.iter().map(|encoded| json(encoded).1["kind"].to_string());
        let told: std::collections::BTreeSet<String> = kinds.collect();
        assert_eq!(told, crate::KINDS.iter().map(|kind| format!("\"{kind}\"")).collect());
    }

    #[test]
    fn every_record_is_canonical_json_with_version_time_and_salt() {
        for encoded in all(&facts(), &outcome_facts(), "x") {
            let (text, value) = json(&encoded);
            // serde_json keeps its maps sorted, so writing the value again is the canonical form.
            assert_eq!(serde_json::to_string(&value).unwrap(), text);
            assert_eq!(value["v"], 1);
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
                let bytes = encoded.frame.len() - FRAME_HEADER_BYTES;
                assert!(bytes <= MAX_RECORD_BYTES, "{bytes}");
                json(&encoded);
            }
        }
    }

    #[test]
    fn a_call_tells_everything_known_of_it() {
        let (_, value) = json(&call(&stamp(), &facts(), Level::Strict, &outcome_facts()));
        for (key, expected) in [("kind", "call"), ("level", "strict"), ("path", "/orders"), ("source", "192.0.2.7")] {
            assert_eq!(value[key], expected);
        }
        assert_eq!(value["principal"]["id"], "alice");
        assert_eq!(value["decision"]["policies"][0], "p1");
        assert_eq!(value["decision"]["sets"]["tenant"]["version"], 3);
        assert_eq!(value["uses"][0], "KEY: allow by tenant: 10-defaults/workload");
        let given = serde_json::json!({
            "item": "KEY", "item_roles": ["clerk"], "name": "orders", "public": true, "roles": ["ops"],
            "scopes": ["Data"],
        });
        assert_eq!(value["decision"]["given"], given);
        assert_eq!(value["usage"]["cpu_us"], 11);
        assert_eq!(value["cell"]["call"], 3);
    }
}
