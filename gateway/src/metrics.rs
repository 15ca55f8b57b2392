//! What has happened so far, in numbers.
//!
//! Owns the counters of this crate and the text all counters are told in. Its labels are words of ours from closed
//! lists. Must never name a tenant, a function or a caller, and never take a lock on a call's way.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cofferdam_control::vault::KeyGauges;
use cofferdam_model::Ending;
use cofferdam_sandbox::Gauges;

/// Media type of the text.
pub(crate) const MEDIA_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// How many calls ended how.
#[derive(Debug, Default)]
pub struct Metrics {
    endings: [AtomicU64; Ending::ALL.len()],
}

/// A call that will be counted, whatever becomes of it.
pub(crate) struct Counting {
    metrics: Arc<Metrics>,
    /// What is counted when it is dropped.
    ending: Option<Ending>,
}

impl Counting {
    /// What it will be counted as; nothing where somebody else counts it.
    pub(crate) fn will_be(&mut self, ending: Option<Ending>) {
        self.ending = ending;
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        if let Some(ending) = self.ending {
            self.metrics.ended(ending);
        }
    }
}

impl Metrics {
    /// Begins to count a call. One whose answer is not waited for to its end was left by its client.
    pub(crate) fn count(self: &Arc<Self>) -> Counting {
        Counting { metrics: self.clone(), ending: Some(Ending::ClientGone) }
    }

    /// One more call ended.
    pub(crate) fn ended(&self, ending: Ending) {
        let at = Ending::ALL.iter().position(|each| *each == ending);
        if let Some(count) = at.and_then(|at| self.endings.get(at)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Everything, as Prometheus reads it.
    pub(crate) fn exposition(
        &self,
        gauges: &Gauges,
        identities: &cofferdam_authz::Gauges,
        keys: &KeyGauges,
        log: &cofferdam_audit::Standing,
    ) -> String {
        let mut text = Text(String::with_capacity(4096));
        let endings = Ending::ALL.iter().map(|ending| ending.as_str());
        let counts = self.endings.iter().map(|count| count.load(Ordering::Relaxed));
        text.family("cofferdam_calls_total", "counter", "Calls by how they ended.");
        endings.zip(counts).for_each(|(ending, count)| text.labelled("cofferdam_calls_total", "ending", ending, count));
        text.family("cofferdam_calls_under_way", "gauge", "Calls of functions under way, waiting ones included.");
        text.plain("cofferdam_calls_under_way", gauges.calls);
        text.family("cofferdam_calls_queued", "gauge", "Calls of functions that wait for a cell.");
        text.plain("cofferdam_calls_queued", gauges.queued);
        text.family("cofferdam_cells", "gauge", "Cells by what they do.");
        for (state, count) in [("blank", gauges.blank), ("serving", gauges.serving), ("draining", gauges.draining)] {
            text.labelled("cofferdam_cells", "state", state, count);
        }
        text.family("cofferdam_cells_started_total", "counter", "Cells that were given a function version.");
        text.plain("cofferdam_cells_started_total", gauges.started);
        text.family("cofferdam_cells_ended_total", "counter", "Cells by why they ended.");
        for (cause, count) in &gauges.ended {
            text.labelled("cofferdam_cells_ended_total", "cause", cause.as_str(), *count);
        }
        text.identities(identities);
        text.keys(keys);
        text.log(log);
        text.0
    }
}

/// A family of counters: name, kind, label, help, and each word of the label with its count.
type Family<'a> = (&'a str, &'a str, &'a str, &'a str, &'a [(&'a str, u64)]);

/// The text as it grows. Writing to a string cannot fail.
struct Text(String);

impl Text {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn log(&mut self, log: &cofferdam_audit::Standing) {
        self.family("cofferdam_log_step", "gauge", "1 for what the node still does, by the room its log has.");
        for step in cofferdam_audit::Step::ALL {
            self.labelled("cofferdam_log_step", "step", step.as_str(), u64::from(*step == log.step));
        }
        for (name, kind, help, value) in [
            ("cofferdam_log_free_bytes", "gauge", "Free bytes of the log's file system.", log.free_bytes),
            (
                "cofferdam_log_sync_microseconds",
                "gauge",
                "Time of the slowest sync of the log in the last second.",
                u64::try_from(log.sync.as_micros()).unwrap_or(u64::MAX),
            ),
            ("cofferdam_log_records_total", "counter", "Records of the log that are durable.", log.records),
            (
                "cofferdam_log_segments_damaged_total",
                "counter",
                "Sealed segments found damaged since the start.",
                log.damaged,
            ),
        ] {
            self.family(name, kind, help);
            self.plain(name, value);
        }
    }

    fn identities(&mut self, gauges: &cofferdam_authz::Gauges) {
        let families: [Family<'_>; 5] = [
            (
                "cofferdam_key_sets",
                "gauge",
                "state",
                "Issuers whose keys are asked for, by how it stands with them.",
                &gauges.key_sets,
            ),
            (
                "cofferdam_key_fetches_total",
                "counter",
                "outcome",
                "Requests for keys of issuers by how they ended.",
                &gauges.fetches,
            ),
            (
                "cofferdam_unknown_keys_total",
                "counter",
                "answer",
                "Tokens of keys their issuer was not known to have, by what was done about it.",
                &gauges.unknown_keys,
            ),
            (
                "cofferdam_tokens_total",
                "counter",
                "how",
                "Tokens believed by how: their signature verified, or known to be good from before.",
                &gauges.tokens,
            ),
            (
                "cofferdam_credentials_refused_total",
                "counter",
                "reason",
                "Credentials refused by why.",
                &gauges.refused,
            ),
        ];
        for (name, kind, label, help, counts) in families {
            self.family(name, kind, help);
            counts.iter().for_each(|(word, count)| self.labelled(name, label, word, *count));
        }
    }

    fn keys(&mut self, keys: &KeyGauges) {
        let name = "cofferdam_secrets_available";
        self.family(name, "gauge", "Whether the root key is in reach, so that secrets can be opened: 1 or 0.");
        self.plain(name, keys.reachable.into());
        let name = "cofferdam_tenant_keys";
        self.family(name, "gauge", "Keys of tenants by whether they are unwrapped or waited for.");
        self.labelled(name, "state", "held", keys.held);
        self.labelled(name, "state", "awaited", keys.awaited);
        let name = "cofferdam_tenant_keys_asked_total";
        self.family(name, "counter", "Keys of tenants that were asked for elsewhere, by how that ended.");
        keys.asked.iter().for_each(|(word, count)| self.labelled(name, "outcome", word, *count));
        let name = "cofferdam_tenant_keys_spared_total";
        self.family(name, "counter", "Times that a key was known not to be had, so that nobody was asked.");
        self.plain(name, keys.spared);
    }

    fn plain(&mut self, name: &str, value: u64) {
        let _ = writeln!(self.0, "{name} {value}");
    }

    fn labelled(&mut self, name: &str, label: &str, word: &str, value: u64) {
        let _ = writeln!(self.0, "{name}{{{label}=\"{word}\"}} {value}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cofferdam_sandbox::Cause;

    fn gauges() -> Gauges {
        let ended = Cause::ALL.iter().map(|cause| (*cause, 7)).collect();
        Gauges { blank: 2, serving: 3, draining: 1, calls: 5, queued: 4, started: 9, ended }
    }

    fn keys() -> KeyGauges {
        let asked = [("given", 4), ("unavailable", 5), ("failed", 6)];
        KeyGauges { reachable: false, held: 2, awaited: 3, asked, spared: 7 }
    }

    #[test]
    fn a_root_key_out_of_reach_is_in_the_numbers() {
        let text = Metrics::default().exposition(&gauges(), &Default::default(), &keys(), &Default::default());
        for line in [
            "cofferdam_secrets_available 0\n",
            "cofferdam_tenant_keys{state=\"awaited\"} 3\n",
            "cofferdam_tenant_keys_asked_total{outcome=\"unavailable\"} 5\n",
            "cofferdam_tenant_keys_spared_total 7\n",
        ] {
            assert!(text.contains(line), "{line}{text}");
        }
    }

    #[test]
    fn each_ending_increments_its_own_counter() {
        for ending in Ending::ALL {
            let metrics = Metrics::default();
            metrics.ended(*ending);
            let text = metrics.exposition(&gauges(), &Default::default(), &keys(), &Default::default());
            for each in Ending::ALL {
                let count = u8::from(each == ending);
                let line = format!("cofferdam_calls_total{{ending=\"{}\"}} {count}\n", each.as_str());
                assert_eq!(text.matches(&line).count(), 1, "{line}{text}");
            }
        }
    }

    #[test]
    fn a_call_nobody_waits_for_is_counted_as_left() {
        let metrics = Arc::new(Metrics::default());
        drop(metrics.count());
        let mut streams = metrics.count();
        streams.will_be(None);
        drop(streams);
        let mut failed = metrics.count();
        failed.will_be(Some(Ending::PlatformFailed));
        drop(failed);
        let text = metrics.exposition(&gauges(), &Default::default(), &keys(), &Default::default());
        assert!(text.contains("ending=\"client_gone\"} 1\n") && text.contains("ending=\"platform_failed\"} 1\n"));
    }

    #[test]
    fn every_line_is_a_comment_or_a_name_with_a_number() {
        let text = Metrics::default().exposition(&gauges(), &Default::default(), &keys(), &Default::default());
        assert!(text.ends_with('\n') && text.contains("cofferdam_cells{state=\"blank\"} 2\n"));
        assert!(text.contains("cofferdam_cells_ended_total{cause=\"evicted\"} 7\n"));
        let mut described = std::collections::HashSet::new();
        for line in text.lines() {
            if let Some(about) = line.strip_prefix("# TYPE ") {
                assert!(described.insert(about.split(' ').next().unwrap().to_owned()), "{line}");
            } else if !line.starts_with("# HELP ") {
                let (name, value) = line.rsplit_once(' ').unwrap();
                assert!(described.contains(name.split('{').next().unwrap()) && value.parse::<u64>().is_ok(), "{line}");
            }
        }
    }
}
