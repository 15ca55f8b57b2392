//! What a record says.
//!
//! Owns the kinds of record and the fields of each, in canonical JSON with a salt, ready to be framed. Must never
//! fail or grow past what a frame can hold, whatever a client sent, and never write a body, credential or secret.

use cofferdam_model::{
    CallFacts, EgressFacts, Ending, Level, Origin, OutcomeFacts, Random, TlsVersion, UnixNanos, Usage, Way,
};
use serde::Deserialize;
use std::borrow::Cow;

use crate::call::CallRecord;
use crate::decision;
use crate::disclose::{Field, SECRET_BYTES, Veil};
use crate::json::Object;
use crate::log::Note;
use crate::privacy::Privacy;
use crate::roots::Batch;
use crate::segment::FRAME_HEADER_BYTES;
use crate::shred::Seal;
use crate::tree::{Hash, leaf_hash_of_prefixed};

/// Version of the fields.
pub(crate) const VERSION: u64 = 2;

pub(crate) const NAME_BYTES: usize = 256;
pub(crate) const SUBJECT_BYTES: usize = 1_024;
pub(crate) const PATH_BYTES: usize = 4_096;
pub(crate) const DETAIL_BYTES: usize = 8_192;
/// What most records take, so that a buffer need not grow.
const USUAL_BYTES: usize = 1_536;

/// A record ready to be committed: room for the frame's header, then the payload; and the leaf hash of its entry.
pub(crate) struct Encoded {
    pub(crate) frame: Vec<u8>,
    pub(crate) leaf: Hash,
}

/// What makes two records differ even when all they say is equal: when, a salt that keeps leaf hashes from being
/// guessed, and a secret that does the same for what the entry commits to. And which of that is not to be kept.
#[derive(Clone)]
pub(crate) struct Stamp {
    pub(crate) at: UnixNanos,
    pub(crate) salt: [u8; 16],
    pub(crate) secret: [u8; SECRET_BYTES],
    pub(crate) privacy: Privacy,
    pub(crate) seal: Seal,
}

impl Stamp {
    pub(crate) fn new(at: UnixNanos, random: &dyn Random) -> Self {
        // One question to the kernel rather than two.
        let mut bytes = [0u8; 16 + SECRET_BYTES];
        random.fill(&mut bytes);
        let (mut salt, mut secret) = ([0u8; 16], [0u8; SECRET_BYTES]);
        salt.iter_mut().chain(&mut secret).zip(bytes).for_each(|(to, from)| *to = from);
        Self { at, salt, secret, privacy: Privacy::default(), seal: Seal::Clear }
    }
}

/// How a call began that was let in.
#[derive(Clone, Copy)]
pub(crate) struct Begun {
    /// How durably it is recorded.
    pub(crate) level: Level,
    /// When it was decided on, and its entry opened.
    pub(crate) decided: UnixNanos,
}

/// Refusals of strangers counted over a window.
pub(crate) struct Tally<'a> {
    pub(crate) check: Option<&'a str>,
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
    #[serde(default)]
    pub(crate) epoch: u64,
}

/// A call told in one record.
pub(crate) fn call(stamp: &Stamp, facts: &CallFacts, begun: Begun, outcome: &OutcomeFacts) -> Encoded {
    CallRecord { kind: "call", begun: Some(begun), ..CallRecord::of(facts, outcome) }.encode(stamp)
}

/// What is about to be done.
pub(crate) fn intent(stamp: &Stamp, facts: &CallFacts, begun: Begun) -> Encoded {
    let request = facts.request.as_str();
    CallRecord { kind: "intent", facts: Some(facts), begun: Some(begun), ..CallRecord::bare(request) }.encode(stamp)
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
    let behind = |veil: &mut Veil| {
        if let Some(address) = facts.address {
            veil.address(Field::Address, address);
        }
        decision::given(veil, facts.decision.as_deref());
        veil.text(Field::Host, &facts.host, SUBJECT_BYTES);
    };
    committed(stamp, behind, |o, veil| {
        o.number("at", stamp.at.0);
        o.number("bytes_in", facts.bytes_in);
        o.number("bytes_out", facts.bytes_out);
        veil.commits(o);
        o.maybe_text("credential", facts.credential.as_deref(), NAME_BYTES);
        if let Some(decided) = &facts.decision {
            o.object("decision", |o| decision::decided(o, decided));
        }
        o.text("ending", facts.ending.as_str(), NAME_BYTES);
        o.text("kind", "egress", NAME_BYTES);
        o.text("method", &facts.method, NAME_BYTES);
        o.number("number", facts.number.into());
        o.number("port", facts.port.into());
        o.text("request", request, NAME_BYTES);
        o.maybe_text("rule", facts.rule.as_deref(), SUBJECT_BYTES);
        o.hex("salt", &stamp.salt);
        veil.sealed(o);
        if let Some(status) = facts.status {
            o.number("status", status.into());
        }
        o.maybe_text("tenant", tenant, NAME_BYTES);
        o.maybe_text("tls", facts.tls.map(TlsVersion::as_str), NAME_BYTES);
        o.number("v", VERSION);
        o.number("wall_us", facts.wall_us);
        veil.withheld(o);
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
        way: Way::default(),
    }
}

/// Refusals of strangers.
pub(crate) fn refusals(stamp: &Stamp, tally: &Tally<'_>) -> Encoded {
    encode(|o| {
        o.number("at", stamp.at.0);
        o.maybe_text("check", tally.check, NAME_BYTES);
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

/// Roots of tenants' trees that have grown.
pub(crate) fn tenant_roots(stamp: &Stamp, batch: &Batch) -> Encoded {
    encode(|o| {
        o.number("at", stamp.at.0);
        o.number("count", batch.count);
        o.text("kind", Batch::KIND, NAME_BYTES);
        o.base64("root", &batch.root);
        o.hex("salt", &stamp.salt);
        o.number("until", batch.until);
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

/// What is about to be pruned.
pub(crate) struct Pruned {
    /// Index of the first record that will be left.
    pub(crate) first: u64,
    /// Index of the first that there is now.
    pub(crate) from: u64,
    pub(crate) segments: u64,
    pub(crate) bytes: u64,
    /// Root of the tree over all before the first that will be left.
    pub(crate) root: Hash,
}

/// The oldest segments are about to go.
pub(crate) fn pruned(stamp: &Stamp, facts: &Pruned) -> Encoded {
    encode(|o| {
        o.number("at", stamp.at.0);
        o.number("bytes", facts.bytes);
        o.number("first", facts.first);
        o.number("from", facts.from);
        o.text("kind", "pruned", NAME_BYTES);
        o.base64("root", &facts.root);
        o.hex("salt", &stamp.salt);
        o.number("segments", facts.segments);
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

/// Writes a record that commits to nothing beside it.
pub(crate) fn encode(fill: impl FnOnce(&mut Object<'_>)) -> Encoded {
    finish(fill, |_| ())
}

/// Writes a record: first what its entry only commits to, for the entry has the hashes; then the entry.
pub(crate) fn committed(
    stamp: &Stamp,
    behind: impl FnOnce(&mut Veil),
    fill: impl FnOnce(&mut Object<'_>, &Veil),
) -> Encoded {
    let mut veil = Veil::take();
    behind(&mut veil);
    veil.close(stamp);
    let encoded = finish(|o| fill(o, &veil), |frame| veil.disclose(frame));
    veil.give_back();
    encoded
}

fn finish(fill: impl FnOnce(&mut Object<'_>), disclose: impl FnOnce(&mut Vec<u8>)) -> Encoded {
    let mut frame = Vec::with_capacity(FRAME_HEADER_BYTES + USUAL_BYTES);
    frame.resize(FRAME_HEADER_BYTES, 0);
    let mut object = Object::begin(&mut frame);
    fill(&mut object);
    object.end();
    // The header is still zeros, so its last byte is the zero that RFC 6962 puts before a leaf.
    let leaf = leaf_hash_of_prefixed(frame.get(FRAME_HEADER_BYTES - 1..).unwrap_or_default());
    disclose(&mut frame);
    Encoded { frame, leaf }
}

#[cfg(test)]
mod tests;
