//! Calls of which the log has the beginning and not the end.
//!
//! Owns which they are, while the log is written and while it is read back, and what is recorded of those nobody will
//! close any more. Must never hold more of a call than it takes to close it.

use std::borrow::Cow;
use std::collections::HashMap;

use cofferdam_model::Ending;
use serde::{Deserialize, Serialize};

use crate::record::{self, Encoded, Peek, Stamp};

/// What a record does to its call, beside telling of it. A call told in one record does nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Mark {
    /// Another record of it will follow: `outcome` or `end`.
    Opens { request: String, tenant: Option<String>, missing: Missing },
    /// None will.
    Closes { request: String },
}

/// The record that a call misses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Missing {
    Outcome,
    End,
}

impl Missing {
    fn kind(self) -> &'static str {
        match self {
            Self::Outcome => "outcome",
            Self::End => "end",
        }
    }
}

/// One such call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OpenCall {
    /// Index of the last record of it.
    pub(crate) index: u64,
    pub(crate) request: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) tenant: Option<String>,
    pub(crate) missing: Missing,
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct OpenCalls {
    calls: HashMap<String, OpenCall>,
    /// The last epoch that began, of which the log also has no end yet.
    pub(crate) epoch: u64,
}

impl OpenCalls {
    /// Those that were open at a place in the log.
    pub(crate) fn of(calls: Vec<OpenCall>, epoch: u64) -> Self {
        Self { calls: calls.into_iter().map(|call| (call.request.clone(), call)).collect(), epoch }
    }

    /// In the order in which they were last heard of.
    pub(crate) fn sorted(&self) -> Vec<OpenCall> {
        let mut calls: Vec<_> = self.calls.values().cloned().collect();
        calls.sort_by_key(|call| call.index);
        calls
    }

    /// What the record of this index does.
    pub(crate) fn apply(&mut self, index: u64, mark: Mark) {
        match mark {
            Mark::Opens { request, tenant, missing } => {
                self.calls.insert(request.clone(), OpenCall { index, request, tenant, missing });
            }
            Mark::Closes { request } => {
                self.calls.remove(&request);
            }
        }
    }

    /// The same of a record that is read back.
    pub(crate) fn see(&mut self, index: u64, record: &[u8]) -> Result<(), &'static str> {
        let peek: Peek<'_> = serde_json::from_slice(record).map_err(|_| "it is not a record")?;
        let missing = match &*peek.kind {
            "intent" => Some(Missing::Outcome),
            "outcome" if peek.streamed => Some(Missing::End),
            "outcome" | "end" => None,
            "start" => {
                self.epoch = self.epoch.max(peek.epoch);
                return Ok(());
            }
            _ => return Ok(()),
        };
        let request = peek.request.ok_or("it names no request")?.into_owned();
        let tenant = peek.tenant.map(Cow::into_owned);
        self.apply(
            index,
            match missing {
                // An outcome names its tenant where its intent did; what is known of the call stays known.
                Some(missing) => Mark::Opens { request, tenant, missing },
                None => Mark::Closes { request },
            },
        );
        Ok(())
    }

    /// Writes the record each call misses, in the order the calls were last heard of.
    pub(crate) fn close(&self, into: &mut Vec<Encoded>, stamp: impl Fn() -> Stamp) -> u64 {
        let (calls, unknown) = (self.sorted(), record::unclosed(Ending::Unknown));
        into.extend(calls.iter().map(|call| {
            record::outcome(&stamp(), call.missing.kind(), &call.request, call.tenant.as_deref(), &unknown)
        }));
        calls.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_open_from_its_first_record_to_its_last() {
        let mut calls = OpenCalls::default();
        let opens = |request: &str, missing| Mark::Opens { request: request.into(), tenant: None, missing };
        calls.apply(3, opens("b", Missing::Outcome));
        calls.apply(1, opens("a", Missing::Outcome));
        calls.apply(5, opens("a", Missing::End));
        let sorted = calls.sorted();
        assert_eq!(sorted.iter().map(|call| (call.index, &*call.request)).collect::<Vec<_>>(), [(3, "b"), (5, "a")]);
        assert_eq!(OpenCalls::of(sorted.clone(), 7).sorted(), sorted);
        for request in ["a", "b", "a"] {
            calls.apply(9, Mark::Closes { request: request.into() });
        }
        assert!(calls.sorted().is_empty());
    }
}
