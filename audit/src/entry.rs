//! Entries: the record of a call from before it runs until after it ended.
//!
//! Owns `Entry`, `Closing` and `Recorded`, which exists nowhere else. Must never let an entry end without exactly
//! one outcome, nor mint a `Recorded` for less than its level asks for.

use std::fmt;

use cofferdam_model::{CallFacts, Ending, Level, OutcomeFacts, Reply, RequestId, Subject, UnixNanos};

use crate::calls::{Mark, Missing};
use crate::effects::Effects;
use crate::error::AuditError;
use crate::log::Awaited;
use crate::log::Log;
use crate::receipt::Receipt;
use crate::record::{self, Begun};
use crate::tree::Hash;

/// Proof that the facts of this `T` are in the log, as durably as its level asks for.
#[must_use]
#[derive(Debug)]
pub struct Recorded<T> {
    value: T,
    place: Option<Place>,
}

/// Where a record is in the log, and what it is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) index: u64,
    pub(crate) leaf: Hash,
}

impl<T> Recorded<T> {
    pub(crate) fn new(value: T, place: Option<Place>) -> Self {
        Self { value, place }
    }

    /// What was recorded.
    pub fn value(&self) -> &T {
        &self.value
    }

    /// What was recorded, giving up the proof.
    pub fn into_value(self) -> T {
        self.value
    }

    /// Index of its record; none when that was only queued, or counted with others.
    pub fn index(&self) -> Option<u64> {
        self.place.map(|place| place.index)
    }

    /// What its caller may keep, and ask a proof for later; none where there is no index.
    pub fn receipt(&self, log: &Log) -> Option<Receipt> {
        self.place.map(|Place { index, leaf }| Receipt { origin: log.origin().to_owned(), index, leaf })
    }
}

/// The open entry of a call. Dropping it open records the call as `abandoned`.
#[must_use = "dropping an open entry records the call as abandoned"]
pub struct Entry<S: Subject> {
    log: Log,
    subject: S,
    /// When it was opened, which is when what it is for had been decided.
    decided: UnixNanos,
    intent: Intent,
    open: bool,
    /// What dropping it open means.
    dropped: Ending,
}

/// How far the record of the intent has got.
enum Intent {
    None,
    Queued(Awaited),
    Durable(Place),
    /// Queued without being waited for, and perhaps dropped for want of room.
    Relaxed,
}

impl<S: Subject> Entry<S> {
    pub(crate) fn new(log: Log, subject: S) -> Self {
        let decided = log.shared().clock.now();
        Self { log, subject, decided, intent: Intent::None, open: true, dropped: Ending::Abandoned }
    }

    /// What it was opened for.
    pub fn subject(&self) -> &S {
        &self.subject
    }

    /// How durably it is recorded.
    pub fn level(&self) -> Level {
        self.subject.level()
    }

    /// What dropping the entry open shall mean from now on, instead of `abandoned`: where the owner can only be
    /// dropped for one known reason. A panic is never that reason.
    pub fn if_dropped(&mut self, ending: Ending) {
        self.dropped = ending;
    }

    /// Records the intent, unless that was done, and waits until it is durable (`relaxed`: queues it). Every effect
    /// asks for what this gives.
    pub async fn intent(&mut self) -> Result<Recorded<&S>, AuditError> {
        if matches!(self.intent, Intent::None) {
            self.have_key().await;
            if self.level() != Level::Relaxed {
                self.log.shared().queue.place().await?;
            }
            self.push_intent(true)?;
        }
        if let Intent::Queued(durable) = &mut self.intent {
            self.intent = Intent::Durable(self.log.shared().wait_on(durable).await?);
        }
        let place = if let Intent::Durable(place) = self.intent { Some(place) } else { None };
        Ok(Recorded::new(&self.subject, place))
    }

    /// Leave to have effects, once the intent is recorded as [`Self::intent`] does it.
    pub async fn effects(&mut self) -> Result<Effects, AuditError> {
        // The proof is about the subject, which stays here; what is handed out is about the call.
        let facts = self.intent().await?.value().facts();
        Ok(Effects::new(self.log.clone(), facts, self.level()))
    }

    /// Queues the intent, unless that was done, without waiting: the call has been running for long.
    pub fn queue_intent(&mut self) -> Result<(), AuditError> {
        if matches!(self.intent, Intent::None) { self.push_intent(false) } else { Ok(()) }
    }

    /// Records how the call ended and waits until that is durable (`relaxed`: queues it).
    pub async fn close<R: Reply>(mut self, reply: R) -> Result<Recorded<R>, AuditError> {
        let outcome = OutcomeFacts { streamed: false, ..reply.outcome() };
        let durable = self.push_outcome(&outcome).await?;
        let place = match durable {
            Some(durable) => Some(self.log.shared().wait(durable).await?),
            None => None,
        };
        Ok(Recorded::new(reply, place))
    }

    /// Records the head of an answer whose body follows, and waits until that is durable (`relaxed`: queues it).
    pub async fn begin<R: Reply>(mut self, reply: R) -> Result<(Recorded<R>, Closing), AuditError> {
        if matches!(self.intent, Intent::None) {
            self.have_key().await;
            if self.level() != Level::Relaxed {
                self.log.shared().queue.place().await?;
            }
            self.push_intent(true)?;
        }
        let outcome = OutcomeFacts { streamed: true, ..reply.outcome() };
        let durable = self.push_outcome(&outcome).await?;
        // Made before the wait, so that a caller who does not wait to the end leaves an end all the same.
        let facts = self.subject.facts();
        let closing = Closing { log: self.log.clone(), facts, level: self.level(), open: true, dropped: self.dropped };
        let place = match durable {
            Some(durable) => Some(self.log.shared().wait(durable).await?),
            None => None,
        };
        Ok((Recorded::new(reply, place), closing))
    }

    fn push_intent(&mut self, counted: bool) -> Result<(), AuditError> {
        let (facts, begun, shared) = (self.subject.facts(), self.begun(), self.log.shared());
        let mark = opens(&facts.request, facts.tenant.as_deref(), Missing::Outcome);
        self.intent = if begun.level == Level::Relaxed {
            shared.queue_relaxed(|stamp| record::intent(&shared.sealing(stamp, &facts), &facts, begun), mark)?;
            Intent::Relaxed
        } else {
            let stamp = shared.sealing(&shared.stamp(), &facts);
            Intent::Queued(shared.queue_awaited(record::intent(&stamp, &facts, begun), counted, mark)?)
        };
        Ok(())
    }

    /// Has the key at hand that its records are sealed under, if they are.
    async fn have_key(&self) {
        if self.log.seals() {
            self.log.have_key(&self.subject.facts()).await;
        }
    }

    /// Queues the one outcome this entry has. What is given is still to be waited for.
    async fn push_outcome(&mut self, outcome: &OutcomeFacts) -> Result<Option<Awaited>, AuditError> {
        if matches!(self.intent, Intent::None) {
            self.have_key().await;
        }
        let shared = self.log.shared();
        if self.level() == Level::Relaxed {
            self.open = false;
            return self.push_unawaited(outcome).map(|()| None);
        }
        shared.queue.place().await?;
        // From here on nothing waits, so the entry cannot be left both closed and without an outcome.
        self.open = false;
        let (record, mark) = (self.encode(&shared.stamp(), outcome), self.mark(outcome));
        shared.queue_awaited(record, true, mark).map(Some)
    }

    fn push_unawaited(&self, outcome: &OutcomeFacts) -> Result<(), AuditError> {
        let shared = self.log.shared();
        if self.level() == Level::Relaxed {
            shared.queue_relaxed(|stamp| self.encode(stamp, outcome), self.mark(outcome))
        } else {
            shared.queue_unawaited(|stamp| self.encode(stamp, outcome), self.mark(outcome))
        }
    }

    fn begun(&self) -> Begun {
        Begun { level: self.level(), decided: self.decided }
    }

    /// What the record of the outcome does to the call.
    fn mark(&self, outcome: &OutcomeFacts) -> Option<Mark> {
        let known = !matches!(self.intent, Intent::None) || outcome.streamed;
        known.then(|| self.subject.facts()).and_then(|CallFacts { request, tenant, .. }| {
            if outcome.streamed { opens(&request, tenant.as_deref(), Missing::End) } else { closes(&request) }
        })
    }

    /// A `call` where nothing has been said yet, else the `outcome` of what has.
    fn encode(&self, stamp: &record::Stamp, outcome: &OutcomeFacts) -> record::Encoded {
        let facts = self.subject.facts();
        if matches!(self.intent, Intent::None) && !outcome.streamed {
            record::call(&self.log.shared().sealing(stamp, &facts), &facts, self.begun(), outcome)
        } else {
            record::outcome(stamp, "outcome", facts.request.as_str(), facts.tenant.as_deref(), outcome)
        }
    }
}

impl<S: Subject> Drop for Entry<S> {
    fn drop(&mut self) {
        if self.open {
            let ending = if std::thread::panicking() { Ending::Abandoned } else { self.dropped };
            let lost = self.push_unawaited(&record::unclosed(ending));
            report(&self.subject.facts().request, lost);
        }
    }
}

impl<S: Subject + fmt::Debug> fmt::Debug for Entry<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry").field("subject", &self.subject).field("open", &self.open).finish_non_exhaustive()
    }
}

/// The end of a streamed answer, still to be recorded. Dropping it records what dropping its entry would have.
#[must_use = "dropping it records the stream as abandoned"]
pub struct Closing {
    log: Log,
    facts: CallFacts,
    level: Level,
    open: bool,
    dropped: Ending,
}

impl Closing {
    /// Leave to have effects: the intent was recorded before the answer began.
    pub fn effects(&self) -> Effects {
        Effects::new(self.log.clone(), self.facts.clone(), self.level)
    }

    /// Queues the record of how the stream ended.
    pub fn finish(mut self, end: OutcomeFacts) {
        self.push(&OutcomeFacts { streamed: false, ..end });
    }

    fn push(&mut self, end: &OutcomeFacts) {
        self.open = false;
        let shared = self.log.shared();
        let encode = |stamp: &record::Stamp| {
            record::outcome(stamp, "end", self.facts.request.as_str(), self.facts.tenant.as_deref(), end)
        };
        let queued = match self.level {
            Level::Relaxed => shared.queue_relaxed(encode, closes(&self.facts.request)),
            Level::Strict | Level::Standard => shared.queue_unawaited(encode, closes(&self.facts.request)),
        };
        report(&self.facts.request, queued);
    }
}

impl Drop for Closing {
    fn drop(&mut self) {
        if self.open {
            let ending = if std::thread::panicking() { Ending::Abandoned } else { self.dropped };
            self.push(&record::unclosed(ending));
        }
    }
}

impl fmt::Debug for Closing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Closing")
            .field("request", &self.facts.request)
            .field("open", &self.open)
            .finish_non_exhaustive()
    }
}

fn opens(request: &RequestId, tenant: Option<&str>, missing: Missing) -> Option<Mark> {
    Some(Mark::Opens { request: request.to_string(), tenant: tenant.map(str::to_owned), missing })
}

fn closes(request: &RequestId) -> Option<Mark> {
    Some(Mark::Closes { request: request.to_string() })
}

/// Where nobody can be given an error, the next opening of the log closes the call as `unknown`; say so.
fn report(request: &RequestId, queued: Result<(), AuditError>) {
    if let Err(error) = queued {
        tracing::error!(%request, %error, "the end of a call could not be recorded");
    }
}
