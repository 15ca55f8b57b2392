//! What is sent at once: some records in order, within bounds.
//!
//! Owns what a sink's filter takes. Must never hold more than was allowed and one record, and never leave out a record
//! between two others that the filter takes.

use cofferdam_audit::{Followed, Follower};
use cofferdam_model::UnixNanos;

use super::config::{Format, SinkConfig};
use super::error::SinkError;

/// Records looked at for one batch.
const LOOKED_AT: u64 = 20_000;

/// A record to be sent.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) index: u64,
    pub(super) at: UnixNanos,
    pub(super) kind: String,
    pub(super) tenant: Option<String>,
    pub(super) request: Option<String>,
    /// As the sink's format has it.
    pub(super) text: Vec<u8>,
}

/// Some of them.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) items: Vec<Item>,
    /// Index after the last record looked at: where the cursor is once they have arrived.
    pub(super) until: u64,
    /// Leaf hash of the record before that.
    pub(super) leaf: Option<[u8; 32]>,
    /// Whether a bound ended it, and there may be more at once.
    pub(super) full: bool,
}

/// Which records, and how many at once.
#[derive(Debug, Clone)]
pub(super) struct Taking {
    tenants: Vec<String>,
    kinds: Vec<String>,
    format: Format,
    pub(super) records: usize,
    bytes: usize,
}

impl Taking {
    pub(super) fn of(config: &SinkConfig) -> Self {
        Self {
            tenants: config.tenants.clone(),
            kinds: config.kinds.clone(),
            format: config.format,
            records: config.records(),
            bytes: config.bytes(),
        }
    }

    /// The same, with fewer records at once.
    pub(super) fn at_most(&self, records: usize) -> Self {
        Self { records: records.min(self.records), ..self.clone() }
    }

    fn takes(&self, record: &Followed<'_>) -> bool {
        let whose = || record.tenant.as_deref().unwrap_or_default();
        (self.kinds.is_empty() || self.kinds.iter().any(|kind| *kind == record.kind))
            && (self.tenants.is_empty() || self.tenants.iter().any(|tenant| tenant == whose()))
    }

    fn item(&self, record: &Followed<'_>) -> Item {
        let text = match self.format {
            Format::Jsonl => record.line(),
        };
        let owned = |text: &Option<std::borrow::Cow<'_, str>>| text.as_deref().map(str::to_owned);
        Item {
            index: record.index,
            at: record.at,
            kind: record.kind.to_string(),
            tenant: owned(&record.tenant),
            request: owned(&record.request),
            text,
        }
    }
}

impl Batch {
    /// Reads the next. Blocks on files.
    pub(super) fn read(follower: &mut Follower, taking: &Taking) -> Result<Self, SinkError> {
        let (mut items, mut bytes) = (Vec::new(), 0usize);
        let read = follower.read_while(LOOKED_AT, |record| {
            if taking.takes(&record) {
                let item = taking.item(&record);
                bytes = bytes.saturating_add(item.text.len());
                items.push(item);
            }
            items.len() < taking.records && bytes < taking.bytes
        })?;
        let full = read == LOOKED_AT || items.len() >= taking.records || bytes >= taking.bytes;
        Ok(Self { items, until: follower.next(), leaf: follower.leaf(), full })
    }

    /// Index of the first record, and of the last.
    pub(super) fn ends(&self) -> (u64, u64) {
        let index = |item: Option<&Item>| item.map_or(0, |item| item.index);
        (index(self.items.first()), index(self.items.last()))
    }

    /// All of them as lines.
    pub(super) fn lines(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.items.iter().map(|item| item.text.len() + 1).sum());
        for item in &self.items {
            out.extend_from_slice(&item.text);
            out.push(b'\n');
        }
        out
    }
}
