//! Reading the log while it grows: from one index on, again and again, each record once and in order.
//!
//! Owns the place reached. What is derived from the log (sums, indexes) is made of what comes out here, so that it can
//! be made anew. Must never show a record that is not durable, and never write.

use std::borrow::Cow;

use cofferdam_model::{CredentialKind, Ending, UnixNanos, Usage};
use serde::Deserialize;

use crate::error::AuditError;
use crate::log::Log;
use crate::query::line;
use crate::tree::leaf_hash_of_prefixed;
use crate::walk::Walker;

/// What those who derive something from records look at. Kinds without a field have `None` there.
#[derive(Debug, Clone)]
pub struct Followed<'a> {
    /// Index of the record.
    pub index: u64,
    /// When it was made.
    pub at: UnixNanos,
    /// Its kind.
    pub kind: Cow<'a, str>,
    /// Request it is about.
    pub request: Option<Cow<'a, str>>,
    /// Tenant it happened in.
    pub tenant: Option<Cow<'a, str>>,
    /// Action.
    pub action: Option<Cow<'a, str>>,
    /// Resource.
    pub resource: Option<Cow<'a, str>>,
    /// Id of the key that its principal showed or signed with; of no other credential.
    pub key: Option<Cow<'a, str>>,
    /// How the decision came out.
    pub decision: Option<Cow<'a, str>>,
    /// Whether the answer follows in a stream, with a closing record.
    pub streamed: bool,
    /// How the call ended.
    pub ending: Option<Ending>,
    /// What it used.
    pub usage: Option<Usage>,
    /// All of it, with what stands beside its entry back in place.
    pub record: &'a [u8],
}

#[derive(Deserialize)]
struct Fields<'a> {
    at: u64,
    #[serde(borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    request: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    tenant: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    action: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    resource: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    principal: Option<Principal<'a>>,
    #[serde(borrow, default)]
    decision: Option<Decision<'a>>,
    #[serde(default)]
    streamed: bool,
    #[serde(default)]
    ending: Option<Cow<'a, str>>,
    #[serde(default)]
    usage: Option<Usage>,
}

#[derive(Deserialize)]
struct Principal<'a> {
    #[serde(borrow, default)]
    credential: Cow<'a, str>,
    #[serde(borrow, default)]
    credential_id: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct Decision<'a> {
    #[serde(borrow)]
    outcome: Cow<'a, str>,
}

impl<'a> Principal<'a> {
    /// A token's id is whatever its issuer says: only those of keys are of ours.
    fn key(self) -> Option<Cow<'a, str>> {
        let keys = [CredentialKind::ApiKey, CredentialKind::Sigv4];
        self.credential_id.filter(|_| keys.iter().any(|kind| kind.as_str() == self.credential))
    }
}

impl<'a> Followed<'a> {
    /// Reads a record. A kind of ending that this release does not know is none.
    fn read(index: u64, record: &'a [u8]) -> Option<Self> {
        let fields: Fields<'a> = serde_json::from_slice(record).ok()?;
        let ending = fields.ending.and_then(|name| Ending::ALL.iter().find(|ending| ending.as_str() == name).copied());
        Some(Self {
            index,
            at: UnixNanos(fields.at),
            kind: fields.kind,
            request: fields.request,
            tenant: fields.tenant,
            action: fields.action,
            resource: fields.resource,
            key: fields.principal.and_then(Principal::key),
            decision: fields.decision.map(|decision| decision.outcome),
            streamed: fields.streamed,
            ending,
            usage: fields.usage,
            record,
        })
    }

    /// The record as a line of JSON without its end, like those of `export`.
    pub fn line(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.record.len().saturating_add(64));
        line(&mut out, self.index, self.at, self.record);
        out.truncate(out.trim_ascii_end().len());
        out
    }
}

/// Every kind of record there is.
pub const KINDS: [&str; 15] = [
    "call",
    "intent",
    "outcome",
    "end",
    "egress",
    "refusal",
    "refusals",
    "gap",
    "start",
    "stop",
    "event",
    "recovered",
    "heartbeat",
    "pruned",
    "tenant_roots",
];

/// A reader of a log that this process has open.
pub struct Follower {
    log: Log,
    walker: Walker,
    /// Leaf hash of the record before the next, where it was read.
    leaf: Option<[u8; 32]>,
}

impl Follower {
    /// Will begin with the record of index `from`. Reads nothing yet.
    pub fn new(log: &Log, from: u64) -> Self {
        Self { log: log.clone(), walker: Walker::new(log.dir(), from), leaf: None }
    }

    /// Index of the record that comes next.
    pub fn next(&self) -> u64 {
        self.walker.next()
    }

    /// Leaf hash of the record that came last: what tells this log from another of the same length.
    pub fn leaf(&self) -> Option<[u8; 32]> {
        self.leaf
    }

    /// Shows the next `most` durable records, fewer where there are not as many, and gives how many it showed. Blocks
    /// on files.
    pub fn read(&mut self, most: u64, mut show: impl FnMut(Followed<'_>)) -> Result<u64, AuditError> {
        self.read_while(most, |record| {
            show(record);
            true
        })
    }

    /// The same, until `show` wants no more: the record it said so of is the last.
    pub fn read_while(&mut self, most: u64, mut show: impl FnMut(Followed<'_>) -> bool) -> Result<u64, AuditError> {
        let begun = self.walker.next();
        let (until, leaf) = (self.log.records().min(begun.saturating_add(most)), &mut self.leaf);
        self.walker.read_while(until, |record| {
            let merged = record.payload.merged();
            let followed = Followed::read(record.index, &merged).ok_or_else(|| record.damaged("it is not a record"))?;
            let more = show(followed);
            *leaf = Some(leaf_hash_of_prefixed(record.prefixed));
            Ok(more)
        })?;
        Ok(self.walker.next() - begun)
    }
}
