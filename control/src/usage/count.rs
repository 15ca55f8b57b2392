//! From records to sums, in memory.
//!
//! Owns what counts as a call, of which kind, and in which hour: that of the record which ended it. Must never look at
//! anything but the records.

use std::collections::{BTreeMap, HashMap};

use cofferdam_audit::Followed;
use cofferdam_model::reading::hour_of;
use cofferdam_model::{Action, Ending, FunctionId, KeyId};

use crate::store::{OpenCall, Tally, UsageMark, UsageRow, UsageStep};

/// Calls that may be open at once. There are never as many under way; more are such whose end was dropped, which the
/// relaxed level allows. The oldest is given up.
const OPEN: usize = 65_536;

/// Seconds: when a key was last used is told no finer, so that it does not tell one call from another.
const MINUTE: u64 = 60;

/// What was counted since the last step, and the calls that are open.
#[derive(Default)]
pub(super) struct Count {
    sums: BTreeMap<(u64, FunctionId), Tally>,
    open: HashMap<String, Open>,
    by_index: BTreeMap<u64, String>,
    /// Calls the store has as open that are not any more.
    closed: Vec<String>,
    /// Second of the minute in which each key was last used.
    used: BTreeMap<KeyId, u64>,
    stepped: bool,
}

struct Open {
    index: u64,
    function: FunctionId,
    /// Whether the store has it.
    stored: bool,
}

impl Count {
    /// Goes on with calls that were open.
    pub(super) fn with(open: Vec<OpenCall>) -> Self {
        let mut count = Self::default();
        for OpenCall { request, index, function } in open {
            count.begin(request, Open { index, function, stored: true });
        }
        count
    }

    /// Counts a record.
    pub(super) fn see(&mut self, record: &Followed<'_>) {
        self.stepped = true;
        self.show(record);
        match &*record.kind {
            "call" => self.end(invoked(record), record),
            // What policies refused was no call of the function; what a limit refused was.
            "refusal" if record.decision.as_deref() == Some("allow") => self.end(invoked(record), record),
            "intent" => {
                if let (Some(function), Some(request)) = (invoked(record), &record.request) {
                    let open = Open { index: record.index, function, stored: false };
                    self.begin(request.clone().into_owned(), open);
                }
            }
            "outcome" if record.streamed => {}
            "outcome" | "end" => {
                let function = record.request.as_deref().and_then(|request| self.close(request));
                self.end(function, record);
            }
            _ => {}
        }
    }

    /// Notes that a key was shown. Only what is genuine is in a record's principal.
    fn show(&mut self, record: &Followed<'_>) {
        let Some(key) = record.key.as_deref().and_then(|id| KeyId::parse(id).ok()) else { return };
        let minute = record.at.seconds() / MINUTE * MINUTE;
        let used = self.used.entry(key).or_default();
        *used = minute.max(*used);
    }

    fn begin(&mut self, request: String, open: Open) {
        self.by_index.insert(open.index, request.clone());
        self.open.insert(request, open);
        if self.open.len() > OPEN
            && let Some((_, oldest)) = self.by_index.pop_first()
        {
            self.close(&oldest);
        }
    }

    fn close(&mut self, request: &str) -> Option<FunctionId> {
        let (request, open) = self.open.remove_entry(request)?;
        self.by_index.remove(&open.index);
        if open.stored {
            self.closed.push(request);
        }
        Some(open.function)
    }

    fn end(&mut self, function: Option<FunctionId>, record: &Followed<'_>) {
        let Some(function) = function else { return };
        let tally = self.sums.entry((hour_of(record.at), function)).or_default();
        tally.calls = tally.calls.saturating_add(1);
        let class = match record.ending {
            Some(Ending::Answered) => &mut tally.answered,
            Some(Ending::Refused | Ending::Overloaded | Ending::Unavailable | Ending::SecretsUnavailable) => {
                &mut tally.refused
            }
            _ => &mut tally.failed,
        };
        *class = class.saturating_add(1);
        tally.usage = tally.usage.plus(record.usage.unwrap_or_default());
    }

    /// Whether anything was seen since the last step.
    pub(super) fn is_stepped(&self) -> bool {
        self.stepped
    }

    /// What the store has to be told. Nothing is forgotten here before it was.
    pub(super) fn step(&self, mark: UsageMark) -> UsageStep {
        let row = |((hour, function), tally): (&(u64, FunctionId), &Tally)| UsageRow {
            hour: *hour,
            function: function.clone(),
            tally: *tally,
        };
        let unstored = self.open.iter().filter(|(_, open)| !open.stored);
        let opened = unstored.map(|(request, open)| OpenCall {
            request: request.clone(),
            index: open.index,
            function: open.function.clone(),
        });
        UsageStep {
            rows: self.sums.iter().map(row).collect(),
            closed: self.closed.clone(),
            used: self.used.iter().map(|(key, minute)| (key.clone(), *minute)).collect(),
            opened: opened.collect(),
            mark,
        }
    }

    /// The store was told.
    pub(super) fn stored(&mut self, step: &UsageStep) {
        self.sums.clear();
        self.closed.clear();
        self.used.clear();
        self.stepped = false;
        for OpenCall { request, .. } in &step.opened {
            if let Some(open) = self.open.get_mut(request) {
                open.stored = true;
            }
        }
    }
}

/// The function a record is about, where it is about calling one.
fn invoked(record: &Followed<'_>) -> Option<FunctionId> {
    let function = FunctionId::parse(record.resource.as_deref()?).ok()?;
    let own = record.tenant.as_deref() == Some(function.tenant().as_str());
    (own && record.action.as_deref() == Some(Action::Invoke.as_str())).then_some(function)
}
