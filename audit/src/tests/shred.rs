//! What is sealed under a subject's key is read with it, and by nobody once it is destroyed; the proofs stay.

use std::collections::HashMap;
use std::sync::Mutex;

use cofferdam_model::{Level, UnixNanos};
use serde_json::Value;
use zeroize::Zeroizing;

use super::*;
use crate::query::Filter;
use crate::select::Wanted;
use crate::shred::{Fetching, Opener, SubjectKey, SubjectKeys};

const TENANT: &str = "t_0000000000000001";

/// Keys in memory: those that are at hand, and whether more can be had.
#[derive(Default)]
struct Keeper {
    keys: Mutex<HashMap<(String, String), Arc<SubjectKey>>>,
    destroyed: Mutex<Vec<String>>,
    closed: bool,
}

impl SubjectKeys for Keeper {
    fn ready(&self, tenant: &str, subject: &str) -> Option<Arc<SubjectKey>> {
        self.keys.lock().unwrap().get(&(tenant.to_owned(), subject.to_owned())).cloned()
    }

    fn fetch<'a>(&'a self, tenant: &'a str, subject: &'a str) -> Fetching<'a> {
        Box::pin(async move {
            if self.closed {
                // Whoever must be asked does not answer.
                return std::future::pending().await;
            }
            let mut keys = self.keys.lock().unwrap();
            let number = keys.len() as u8 + 1;
            let made = SubjectKey::new(format!("k{number}"), Zeroizing::new([number; 32]));
            Some(keys.entry((tenant.to_owned(), subject.to_owned())).or_insert_with(|| Arc::new(made)).clone())
        })
    }

    fn named(&self, id: &str) -> Opener {
        if self.destroyed.lock().unwrap().iter().any(|gone| gone == id) {
            return Opener::Destroyed;
        }
        let keys = self.keys.lock().unwrap();
        keys.values().find(|key| key.id() == id).map_or(Opener::Unknown, |key| Opener::Key(key.clone()))
    }
}

impl Keeper {
    fn destroy(&self, subject: &str) {
        let gone = self.keys.lock().unwrap().remove(&(TENANT.to_owned(), subject.to_owned())).unwrap();
        self.destroyed.lock().unwrap().push(gone.id().to_owned());
    }
}

fn by(log: &Log, number: u64, subject: &str) {
    let mut call = Call::new(number, Level::Standard);
    call.facts.principal.as_mut().unwrap().id = subject.to_owned();
    timed(log.enter(call).unwrap().close(Answer)).unwrap().into_value();
}

/// Runs with a clock that stands still until everybody waits.
fn timed<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
}

fn seen(log: &Log) -> Vec<Value> {
    let all = Wanted {
        tenant: None,
        request: None,
        since: UnixNanos(0),
        until: UnixNanos(u64::MAX),
        from: None,
        records: 100,
    };
    log.select(&all).unwrap().lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_subject_whose_key_is_destroyed_is_gone_from_every_record_and_every_proof_stays() {
    let place = Place::new();
    let (log, _) = place.open().unwrap();
    let keeper = Arc::new(Keeper::default());
    log.seal_under(keeper.clone());
    by(&log, 1, "alice");
    by(&log, 2, "bob");
    let read = seen(&log);
    assert_eq!((&read[0]["principal"]["id"], &read[0]["path"]), (&"alice".into(), &"/orders".into()));
    assert_eq!(read[1]["principal"]["id"], "bob");
    assert_eq!(read[0].get("withheld"), None);

    // Files alone tell nothing of either.
    let whole = fs::read(place.dir().join("segments/0000000000.log")).unwrap();
    for personal in ["alice", "bob", "192.0.2.7", "/orders"] {
        assert!(!whole.windows(personal.len()).any(|window| window == personal.as_bytes()), "{personal}");
    }
    assert_eq!(exported(&place.dir())[0]["withheld"]["principal"], "sealed");

    let leaves: Vec<_> = payload_leaves(&place.dir());
    keeper.destroy("alice");
    let read = seen(&log);
    let gone = &read[0]["withheld"];
    for field in ["decision", "headers", "host", "path", "principal", "source"] {
        assert_eq!(gone[field], "shredded", "{field}");
    }
    assert_eq!((&read[0]["principal"]["kind"], &read[0]["status"]), (&"user".into(), &200.into()));
    assert_eq!(read[1]["principal"]["id"], "bob");
    assert_eq!(payload_leaves(&place.dir()), leaves);
    run(log.shutdown()).unwrap();
    assert_eq!(place.verify().unwrap().size, 2);
}

fn payload_leaves(dir: &Path) -> Vec<[u8; 32]> {
    let mut leaves = Vec::new();
    query::read(dir, 0, None, |_, payload| {
        leaves.push(payload.leaf());
        Ok(())
    })
    .unwrap();
    leaves
}

#[test]
fn a_record_whose_key_cannot_be_had_is_kept_with_commitments_alone_and_counted() {
    let place = Place::new();
    let (log, _) = place.open().unwrap();
    log.seal_under(Arc::new(Keeper { closed: true, ..Keeper::default() }));
    by(&log, 1, "alice");
    // Nor is one lost that nobody waits for.
    drop(log.enter(Call::new(2, Level::Standard)).unwrap());
    assert_eq!(log.unkept(), 2);
    run(log.shutdown()).unwrap();
    assert_eq!(place.verify().unwrap().size, 2);
    let record = &exported(&place.dir())[0];
    assert_eq!((&record["withheld"]["principal"], &record["withheld"]["path"]), (&"no_key".into(), &"no_key".into()));
    let mut out = Vec::new();
    crate::withhold::export(&place.dir(), &Filter::default(), Default::default(), &mut out).unwrap();
    assert!(!String::from_utf8(out).unwrap().contains("alice"));
}

#[test]
fn a_refusal_is_recorded_though_its_caller_leaves_while_a_key_is_waited_for() {
    let place = Place::new();
    let (log, _) = place.open().unwrap();
    log.seal_under(Arc::new(Keeper { closed: true, ..Keeper::default() }));
    timed(async {
        let mut refusing = Box::pin(log.refuse(facts_of(1), Answer));
        let once = std::future::poll_fn(|context| std::task::Poll::Ready(refusing.as_mut().poll(context)));
        assert!(once.await.is_pending());
    });
    run(log.shutdown()).unwrap();
    assert_eq!(exported(&place.dir())[0]["kind"], "refusal");
}

#[test]
fn what_is_sealed_cannot_be_changed_or_taken_away_unseen() {
    let place = Place::new();
    let (log, _) = place.open().unwrap();
    log.seal_under(Arc::new(Keeper::default()));
    by(&log, 1, "alice");
    run(log.shutdown()).unwrap();
    let path = place.dir().join("segments/0000000000.log");
    let bytes = fs::read(&path).unwrap();
    let at = bytes.windows(11).position(|window| window == b"{\"sealed\":\"").unwrap();
    let rewrite = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut changed = bytes.clone();
        change(&mut changed);
        crate::segment::complete_frame(&mut changed[crate::segment::HEADER_BYTES..], 0, 0);
        fs::remove_file(&path).unwrap();
        fs::write(&path, changed).unwrap();
        place.verify().unwrap_err().to_string()
    };
    let found = rewrite(&|bytes| bytes[at + 20] ^= 1);
    assert!(found.contains("what it sealed is not what stands beside it"), "{found}");
    let found = rewrite(&|bytes| bytes.truncate(at - 1));
    assert!(found.contains("what it sealed is missing"), "{found}");
}
