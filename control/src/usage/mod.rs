//! What functions used, summed by tenant, function and hour, out of the log.
//!
//! Owns the way from records to sums. The sums are derived from the log alone and stored together with the place they
//! reach, so they equal it whatever happens in between, and can be made anew from it. Must never count a record twice
//! or one that is not durable, and never be asked on the way of a call.

mod count;

use std::sync::{Arc, Mutex, PoisonError};

use cofferdam_audit::{AuditError, Follower, Log};
use cofferdam_model::reading::{hour_begins, hour_of};
use cofferdam_model::{TenantId, UsageCursor, UsageRange};
use serde_json::{Value, json};

use self::count::Count;
use crate::Control;
use crate::error::ControlError;
use crate::store::{UsageMark, UsageRow};

/// Records counted in one transaction.
const STEP: u64 = 16_384;
/// Hours kept: 400 days.
const KEPT_HOURS: u64 = 400 * 24;
/// Rows of one answer.
const ROWS: usize = 5_000;

/// Counts the records of a log into the store, as they become durable.
pub struct Meter {
    control: Arc<Control>,
    log: Log,
    /// None until the first step, and after one that failed: what is stored is then read again.
    reading: Mutex<Option<Reading>>,
}

struct Reading {
    follower: Follower,
    count: Count,
    /// The log is not the one counted before: what was open there will never end here, and where it is another state of
    /// the same log, its sums are not this one's.
    anew: Option<Anew>,
    /// Hour up to which rows were looked through for old ones.
    tidied: u64,
}

struct Anew {
    sums: bool,
}

impl Meter {
    /// A meter of what is in `log`. Reads nothing yet.
    pub fn new(control: Arc<Control>, log: Log) -> Self {
        Self { control, log, reading: Mutex::default() }
    }

    /// Counts what is durable by now, in at most `steps` transactions, and gives how many records are left. A step that
    /// fails leaves the store as it was, and is done again by the next call. Blocks on files and the store.
    pub fn catch_up(&self, steps: usize) -> Result<u64, ControlError> {
        for _ in 0..steps {
            // Taken for each step, so that nobody waits for more than one.
            let mut place = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
            let mut reading = match place.take() {
                Some(reading) => reading,
                None => self.resume()?,
            };
            let left = self.step(&mut reading)?;
            *place = Some(reading);
            if left == 0 {
                return Ok(0);
            }
        }
        let place = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        let next = place.as_ref().map_or(0, |reading| reading.follower.next());
        Ok(self.log.records().saturating_sub(next))
    }

    /// Goes on where the store says, if that is a place in this very log.
    fn resume(&self) -> Result<Reading, ControlError> {
        let stored = self.control.transact(|tx| tx.usage_mark())?;
        let Some((mark, open)) = stored else {
            let follower = Follower::new(&self.log, 0);
            return Ok(Reading { follower, count: Count::default(), anew: None, tidied: 0 });
        };
        if let Some(last) = mark.next.checked_sub(1).filter(|last| *last < self.log.records()) {
            let mut follower = Follower::new(&self.log, last);
            follower.read(1, |_| {}).map_err(unreadable)?;
            if follower.leaf() == Some(mark.leaf) {
                return Ok(Reading { follower, count: Count::with(open), anew: None, tidied: 0 });
            }
        }
        let sums = mark.origin == self.log.origin();
        let said = "the log is not the one that usage was counted from; it is counted from its start";
        tracing::error!(counted = mark.next, of = %mark.origin, sums_forgotten = sums, "{said}");
        let (follower, anew) = (Follower::new(&self.log, 0), Some(Anew { sums }));
        Ok(Reading { follower, count: Count::default(), anew, tidied: 0 })
    }

    fn step(&self, reading: &mut Reading) -> Result<u64, ControlError> {
        let Reading { follower, count, anew, tidied } = reading;
        follower.read(STEP, |record| count.see(&record)).map_err(unreadable)?;
        if let (Some(leaf), true) = (follower.leaf(), count.is_stepped()) {
            let origin = self.log.origin().to_owned();
            let step = count.step(UsageMark { origin, next: follower.next(), leaf });
            // A record stamped by a clock that was ahead must not make everything else look old.
            let newest = step.rows.iter().map(|row| row.hour).max().unwrap_or(0);
            let newest = newest.min(hour_of(self.control.clock.now()));
            self.control.transact(|tx| {
                if let Some(Anew { sums }) = anew {
                    tx.count_anew(*sums)?;
                }
                tx.add_usage(&step)?;
                if newest > *tidied { tx.forget_usage(newest.saturating_sub(KEPT_HOURS)) } else { Ok(()) }
            })?;
            (*anew, *tidied) = (None, newest.max(*tidied));
            count.stored(&step);
        }
        Ok(self.log.records().saturating_sub(follower.next()))
    }
}

/// The rows a tenant asked for.
pub(crate) fn read(control: &Control, tenant: &TenantId, range: &UsageRange) -> Result<Value, ControlError> {
    let rows = control.transact(|tx| tx.usage(tenant, range, ROWS + 1))?;
    // One more than is given tells that there are more.
    let last = rows.get(ROWS - 1).filter(|_| rows.len() > ROWS).map(|(row, _)| row);
    let next = last.map(|row| UsageCursor { hour: row.hour, function: row.function.clone() }.to_string());
    let rows: Vec<_> = rows.iter().take(ROWS).map(|(row, name)| describe(row, name)).collect();
    Ok(json!({ "tenant": tenant, "rows": rows, "next": next }))
}

fn describe(row: &UsageRow, name: &str) -> Value {
    let UsageRow { hour, function, tally } = row;
    json!({
        "hour": hour_begins(*hour).to_string(),
        "function": name,
        "function_id": function,
        "calls": tally.calls,
        "answered": tally.answered,
        "failed": tally.failed,
        "refused": tally.refused,
        "usage": tally.usage,
    })
}

fn unreadable(error: AuditError) -> ControlError {
    ControlError::Log(Box::new(error))
}
