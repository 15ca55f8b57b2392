//! Whether boots, heartbeats and counts in a log fit together.
//!
//! Owns what counts as a gap. Must never take one for damage: the tree says what was changed, this what was not said.

use serde::Deserialize;
use std::borrow::Cow;

/// Gaps that are told; beyond that they are only counted.
const MOST: usize = 1_000;
/// What is counted of connections that never became a call.
pub(crate) const NO_CALLS: &[&str] = &["tls_failed", "connection_refused"];

/// Something that the log should have and does not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    /// Index of the record at which it shows.
    pub record: u64,
    /// What it is.
    pub what: String,
}

#[derive(Deserialize)]
struct Fields<'a> {
    #[serde(borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    boot: Option<Cow<'a, str>>,
    #[serde(default)]
    epoch: u64,
    #[serde(default)]
    number: u64,
    #[serde(default)]
    count: u64,
    #[serde(borrow, default)]
    code: Option<Cow<'a, str>>,
    #[serde(default)]
    counts: Told,
    #[serde(default)]
    dropped: u64,
}

#[derive(Deserialize, Default, Clone, Copy)]
struct Told {
    #[serde(default)]
    requests: u64,
    #[serde(default)]
    answered: u64,
}

/// What has been seen so far.
#[derive(Debug, Default)]
pub(crate) struct Epochs {
    pub(crate) gaps: Vec<Gap>,
    /// Gaps in all.
    pub(crate) total: u64,
    /// The last epoch that began.
    epoch: u64,
    now: Option<Now>,
    /// The start of the epoch that goes on was pruned: nothing can be said of it.
    headless: bool,
}

/// The epoch that goes on.
#[derive(Debug, Default)]
struct Now {
    boot: String,
    beats: u64,
    /// Ends of calls recorded since its start, and relaxed records that were dropped.
    ended: u64,
    dropped: u64,
    /// Calls the last heartbeat tells of.
    requests: Option<u64>,
}

impl Epochs {
    /// For a log of which the beginning is there, or was pruned.
    pub(crate) fn begun(pruned: bool) -> Self {
        Self { headless: pruned, ..Self::default() }
    }

    /// Takes a record into account.
    pub(crate) fn see(&mut self, index: u64, record: &[u8]) -> Result<(), &'static str> {
        let fields: Fields<'_> = serde_json::from_slice(record).map_err(|_| "it is not a record")?;
        match &*fields.kind {
            "start" => self.start(index, &fields),
            "stop" => self.stop(index, &fields),
            "heartbeat" => self.beat(index, &fields),
            "call" | "outcome" | "refusal" => self.ended(1),
            "refusals" if !fields.code.as_deref().is_some_and(|code| NO_CALLS.contains(&code)) => {
                self.ended(fields.count);
            }
            "gap" => {
                if let Some(now) = &mut self.now {
                    now.dropped = now.dropped.saturating_add(fields.dropped);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn ended(&mut self, calls: u64) {
        if let Some(now) = &mut self.now {
            now.ended = now.ended.saturating_add(calls);
        }
    }

    fn start(&mut self, index: u64, fields: &Fields<'_>) {
        // Records of releases before there were epochs say nothing of them.
        let Some(boot) = fields.boot.as_deref() else { return };
        if self.now.is_some() {
            let epoch = self.epoch;
            self.gap(index, format!("epoch {epoch} ended without a stop: the node was killed, or lost its power"));
        }
        if fields.epoch != self.epoch + 1 && self.epoch > 0 {
            let epoch = self.epoch;
            self.gap(index, format!("epoch {} follows epoch {epoch}: boots in between are missing", fields.epoch));
        }
        (self.epoch, self.headless) = (fields.epoch, false);
        self.now = Some(Now { boot: boot.to_owned(), ..Now::default() });
    }

    fn beat(&mut self, index: u64, fields: &Fields<'_>) {
        if self.headless {
            return;
        }
        if !self.goes_on(fields) {
            return self.gap(index, format!("a heartbeat of epoch {}, whose start is missing", fields.epoch));
        }
        let Some(now) = &mut self.now else { return };
        let (expected, ended, exact) = (now.beats + 1, now.ended, now.dropped == 0);
        (now.beats, now.requests) = (fields.number, Some(fields.counts.requests));
        if fields.number != expected {
            self.gap(index, format!("heartbeat {} follows {}", fields.number, expected - 1));
        }
        if exact && ended < fields.counts.answered {
            let answered = fields.counts.answered;
            self.gap(index, format!("{answered} calls were answered by now, and the end of {ended} is recorded"));
        }
    }

    fn stop(&mut self, index: u64, fields: &Fields<'_>) {
        if fields.boot.is_none() || self.headless {
            return;
        }
        if !self.goes_on(fields) {
            return self.gap(index, format!("the stop of epoch {}, whose start is missing", fields.epoch));
        }
        let Some(now) = self.now.take() else { return };
        match now.requests {
            Some(requests) if now.dropped == 0 && requests != now.ended => {
                let ended = now.ended;
                self.gap(index, format!("{requests} calls came in epoch {}, and {ended} ended", fields.epoch));
            }
            _ => {}
        }
    }

    fn goes_on(&self, fields: &Fields<'_>) -> bool {
        self.epoch == fields.epoch && self.now.as_ref().is_some_and(|now| fields.boot.as_deref() == Some(&now.boot))
    }

    fn gap(&mut self, record: u64, what: String) {
        self.total += 1;
        if self.gaps.len() < MOST {
            self.gaps.push(Gap { record, what });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gaps(records: &[&str]) -> Vec<String> {
        let mut epochs = Epochs::default();
        for (index, record) in (0..).zip(records) {
            epochs.see(index, record.as_bytes()).unwrap();
        }
        epochs.gaps.into_iter().map(|gap| format!("{}: {}", gap.record, gap.what)).collect()
    }

    const START: &str = r#"{"boot":"aa","epoch":4,"kind":"start"}"#;
    const STOP: &str = r#"{"boot":"aa","epoch":4,"kind":"stop"}"#;
    const CALL: &str = r#"{"kind":"call"}"#;

    #[test]
    fn a_whole_epoch_whose_counts_fit_has_no_gap() {
        let counted = r#"{"code":"x","count":2,"kind":"refusals"}"#;
        let none = r#"{"code":"tls_failed","count":9,"kind":"refusals"}"#;
        let beat = r#"{"boot":"aa","counts":{"answered":1,"requests":2},"epoch":4,"kind":"heartbeat","number":1}"#;
        let last = r#"{"boot":"aa","counts":{"answered":3,"requests":3},"epoch":4,"kind":"heartbeat","number":2}"#;
        assert_eq!(gaps(&[START, CALL, beat, counted, none, last, STOP]), [""; 0]);
        assert_eq!(gaps(&[r#"{"kind":"start"}"#, CALL, r#"{"kind":"stop"}"#, START]), [""; 0]);
    }

    #[test]
    fn what_is_missing_is_told() {
        let beat = |number: u64, answered: u64, requests: u64| {
            let counts = format!(r#"{{"answered":{answered},"requests":{requests}}}"#);
            format!(r#"{{"boot":"aa","counts":{counts},"epoch":4,"kind":"heartbeat","number":{number}}}"#)
        };
        let next = r#"{"boot":"bb","epoch":5,"kind":"start"}"#;
        let far = r#"{"boot":"bb","epoch":7,"kind":"start"}"#;
        for (records, gap) in [
            (vec![START, next], "1: epoch 4 ended without a stop"),
            (vec![START, STOP, far], "2: epoch 7 follows epoch 4"),
            (vec![START, &beat(2, 0, 0), STOP], "1: heartbeat 2 follows 0"),
            (vec![START, CALL, &beat(1, 2, 2)], "2: 2 calls were answered by now, and the end of 1 is recorded"),
            (vec![START, CALL, &beat(1, 1, 2), STOP], "3: 2 calls came in epoch 4, and 1 ended"),
            (vec![&beat(1, 0, 0)], "0: a heartbeat of epoch 4, whose start is missing"),
            (vec![STOP], "0: the stop of epoch 4, whose start is missing"),
        ] {
            let found = gaps(&records);
            assert!(found.len() == 1 && found[0].starts_with(gap), "{found:?}");
        }
        let dropped = r#"{"dropped":3,"kind":"gap"}"#;
        assert_eq!(
            gaps(&[START, dropped, &beat(1, 2, 2), STOP]),
            [""; 0],
            "relaxed records that were dropped are told"
        );
    }
}
