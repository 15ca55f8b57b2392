//! What makes a gap in a log visible: boots with their numbers, and counts told again and again while one lasts.
//!
//! Owns the records of start, stop and heartbeat. Must never be needed to answer a call.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cofferdam_model::Random;

use crate::log::Note;
use crate::record::{Encoded, NAME_BYTES, Stamp, VERSION, encode};

const DETAIL_BYTES: usize = 8_192;
/// Listeners told of in one record, and bytes of each.
const LISTENERS: usize = 64;

/// What a node has counted since its start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// By name, in ascending order.
    pub totals: Vec<(&'static str, u64)>,
    /// A line for each address listened on.
    pub listeners: Vec<String>,
}

/// The boot of the process that has the log open.
pub(crate) struct Boot {
    /// Number of the last boot that was recorded.
    pub(crate) epoch: Arc<AtomicU64>,
    id: [u8; 16],
    beats: AtomicU64,
}

impl Boot {
    pub(crate) fn new(epoch: Arc<AtomicU64>, random: &dyn Random) -> Self {
        let mut id = [0u8; 16];
        random.fill(&mut id);
        Self { epoch, id, beats: AtomicU64::new(0) }
    }

    /// The record of the start, which begins an epoch.
    pub(crate) fn start(&self, stamp: &Stamp, version: &str, detail: &str) -> Encoded {
        let epoch = self.epoch.fetch_add(1, Ordering::AcqRel) + 1;
        encode(|o| {
            o.number("at", stamp.at.0);
            o.hex("boot", &self.id);
            o.text("detail", detail, DETAIL_BYTES);
            o.number("epoch", epoch);
            o.text("kind", "start", NAME_BYTES);
            o.hex("salt", &stamp.salt);
            o.number("v", VERSION);
            o.text("version", version, NAME_BYTES);
        })
    }

    /// The record of the stop, which ends it.
    pub(crate) fn stop(&self, stamp: &Stamp, reason: &str) -> Encoded {
        encode(|o| {
            o.number("at", stamp.at.0);
            o.hex("boot", &self.id);
            o.text("detail", reason, DETAIL_BYTES);
            o.number("epoch", self.epoch.load(Ordering::Acquire));
            o.text("kind", "stop", NAME_BYTES);
            o.hex("salt", &stamp.salt);
            o.number("v", VERSION);
        })
    }

    /// The record of a heartbeat.
    pub(crate) fn beat(&self, stamp: &Stamp, counts: &Counts) -> Encoded {
        let number = self.beats.fetch_add(1, Ordering::AcqRel) + 1;
        encode(|o| {
            o.number("at", stamp.at.0);
            o.hex("boot", &self.id);
            o.object("counts", |o| counts.totals.iter().for_each(|(name, count)| o.number(name, *count)));
            o.number("epoch", self.epoch.load(Ordering::Acquire));
            o.text("kind", "heartbeat", NAME_BYTES);
            o.texts("listeners", &counts.listeners, LISTENERS, NAME_BYTES);
            o.number("number", number);
            o.hex("salt", &stamp.salt);
            o.number("v", VERSION);
        })
    }

    /// The record of a note, where it is about the boot.
    pub(crate) fn note(&self, stamp: &Stamp, note: &Note) -> Option<Encoded> {
        match note {
            Note::Start { version, detail } => Some(self.start(stamp, version, detail)),
            Note::Stop { reason } => Some(self.stop(stamp, reason)),
            Note::Event { .. } => None,
        }
    }
}
