//! What goes on around the cells while calls come and go.
//!
//! Owns three loops: keep blank cells waiting, judge the others once a second, and watch over each process until it
//! is reaped. None of them may keep a pool alive that nobody uses any more.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::MissedTickBehavior;

use super::group::Group;
use super::{Cause, Cell, Pool, report};
use crate::cell::{Blank, Process};
use crate::channel::Closed;

/// How often cells are judged.
const EVERY: Duration = Duration::from_secs(1);
/// How long over its wall time a call may stay that nobody waits for any more.
const GRACE: Duration = Duration::from_secs(1);
/// First and longest pause after a blank cell could not be started.
const PAUSE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// Keeps as many blank cells waiting as the limits say.
pub(super) async fn keep_blanks(pool: Weak<Pool>) {
    let mut pause = PAUSE.0;
    loop {
        let Some(strong) = pool.upgrade() else { return };
        let fewer = strong.fewer_blanks.clone();
        if strong.closing.load(Ordering::Acquire) {
            return;
        }
        let place = if strong.blanks().len() < strong.parts.limits.blank_cells { strong.places.take() } else { None };
        let Some(place) = place else {
            drop(strong);
            fewer.notified().await;
            continue;
        };
        match strong.make_blank(place).await {
            Ok(blank) if strong.closing.load(Ordering::Acquire) => blank.end().await,
            Ok(blank) => {
                strong.blanks().push(blank);
                strong.places.nudge();
                pause = PAUSE.0;
            }
            Err(error) => {
                tracing::error!(%error, "no blank cell could be started");
                drop(strong);
                tokio::time::sleep(pause).await;
                pause = pause.saturating_mul(2).min(PAUSE.1);
            }
        }
    }
}

/// Judges every cell once a second.
pub(super) async fn tend(pool: Weak<Pool>) {
    let mut tick = tokio::time::interval(EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let Some(pool) = pool.upgrade() else { return };
        judge(&pool);
    }
}

/// Judges every cell once.
pub(super) fn judge(pool: &Pool) {
    let now = pool.parts.clock.monotonic();
    let groups: Vec<Arc<Group>> = pool.groups().values().cloned().collect();
    for group in groups {
        expire(&group);
        weigh(&group);
        group.change(|state, todo| {
            state.review_all(now, todo);
            state.serve(&group, todo);
        });
    }
    pool.groups().retain(|_, group| Arc::strong_count(group) > 1 || !group.lock().is_empty(now));
    pool.blanks().retain_mut(Blank::is_alive);
    // A cell that went may have been what a blank one waited for.
    pool.fewer_blanks.notify_one();
    pool.make_room();
}

/// Looks at what those cells hold that had a call end since they were last looked at. Between calls of theirs, and away
/// from every call's way.
fn weigh(group: &Arc<Group>) {
    let used = |state: &super::group::State| -> Vec<(Arc<Cell>, u64)> {
        let used = state.members.iter().filter(|member| member.served != member.weighed);
        used.map(|member| (member.cell.clone(), member.served.saturating_sub(u64::from(member.load)))).collect()
    };
    let cells = used(&group.lock());
    for (cell, served) in cells {
        if let Some(bytes) = cell.weigh.as_ref().and_then(|weigh| weigh()) {
            group.lock().weigh(&cell, served, bytes);
        }
    }
}

/// Ends cells with a call they should long have ended. Calls somebody waits for are timed there, more exactly.
fn expire(group: &Arc<Group>) {
    let cells: Vec<Arc<Cell>> = group.lock().members.iter().map(|member| member.cell.clone()).collect();
    for cell in cells {
        if let Some(call) = cell.channel.overdue(GRACE) {
            cell.channel.close(Closed::Expired(call));
        }
    }
}

/// Waits for the end of a cell, sees to it that the process is gone, and takes it out of its group.
pub(super) async fn watch(group: Arc<Group>, cell: Arc<Cell>, mut process: Process) {
    tokio::select! {
        _ = cell.channel.closed() => {}
        () = process.ended() => cell.channel.close(Closed::Gone),
    }
    let why = cell.channel.why_closed().unwrap_or(Closed::Gone);
    // First no call may choose it any more; only then is there time to wait.
    group.change(|state, todo| {
        state.members.retain(|member| !Arc::ptr_eq(&member.cell, &cell));
        state.serve(&group, todo);
    });
    let words = process.end().await;
    report(&cell, &group.function, why, &words);
    if let Some(pool) = group.pool.upgrade() {
        let cause = cell.ended(why);
        pool.tally.end(cause);
        // Whoever was chosen to make room was counted as coming, however it went in the end.
        if cell.cause.get() == Some(&Cause::Evicted) {
            pool.shares.evicted();
        }
        pool.make_room();
    }
}
