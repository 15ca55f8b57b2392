//! Every call to the disk fails once, in every way; nothing acknowledged is ever lost.

use std::collections::HashSet;
use std::sync::Arc;

use cofferdam_model::Level;

use super::disk::{Fault, Left, TestDisk};
use super::*;

const FAULTS: [Fault; 3] = [Fault::Lost, Fault::Persisted, Fault::Half];
const LEFT: [Left; 3] = [Left::Nothing, Left::Everything, Left::Half];
/// More calls than any of these lives makes: a test that gets here never ran to its end.
const MOST_CALLS: usize = 900;

/// A small life on `disk`: the requests acknowledged, and whether all of it went well.
fn live(place: &Place, disk: &TestDisk) -> (HashSet<String>, bool) {
    let mut acknowledged = HashSet::new();
    let config = LogConfig { segment_bytes: 1_024, ..place.config() };
    let Ok((log, _)) = place.open_with(config, Arc::new(disk.clone())) else { return (acknowledged, false) };
    let mut well = true;
    for n in 100..103 {
        let recorded = log.enter(Call::new(n, Level::Strict)).and_then(|mut entry| {
            run(async {
                entry.intent().await?.into_value();
                entry.close(Answer).await
            })
        });
        match recorded {
            Ok(_) => {
                assert!(well, "a log that has failed acknowledged something");
                acknowledged.insert(facts_of(n).request.to_string());
            }
            Err(error) => {
                assert!(matches!(error, AuditError::Failed { .. }), "{error}");
                well = false;
                assert!(matches!(log.health(), Err(AuditError::Failed { .. })));
            }
        }
    }
    let closed = run(log.shutdown());
    assert!(well || closed.is_err());
    (acknowledged, well && closed.is_ok())
}

fn assert_kept(place: &Place, disk: &TestDisk, acknowledged: &HashSet<String>, context: &str) {
    for left in LEFT {
        let after = Place::new();
        disk.power_cut(&place.dir(), &after.dir(), left);
        let (log, _) = after.open().unwrap_or_else(|error| panic!("{context} {left:?}: {error:?}"));
        drop(log);
        let verified = after.verify().unwrap();
        assert_eq!(verified.size, verified.checkpoint_size);
        let records = exported(&after.dir());
        let outcomes: Vec<_> = records.iter().filter(|record| record["kind"] == "outcome").collect();
        let ended: HashSet<_> = outcomes.iter().map(|record| record["request"].as_str().unwrap().to_owned()).collect();
        assert!(ended.is_superset(acknowledged), "{context} {left:?}");
        assert_eq!(ended.len(), outcomes.len(), "{context} {left:?}: one outcome each");
        let answered = outcomes.iter().filter(|record| record["ending"] == "answered").count();
        assert!(answered >= acknowledged.len(), "{context} {left:?}");
    }
}

#[test]
fn nothing_acknowledged_is_lost_whichever_call_of_the_disk_fails() {
    for fault in FAULTS {
        for call in 0..MOST_CALLS {
            let place = Place::new();
            let disk = TestDisk::failing(call, fault);
            let (acknowledged, well) = live(&place, &disk);
            assert_eq!(well, !disk.has_failed(), "a fault never passes unnoticed: {fault:?} {call}");
            assert_kept(&place, &disk, &acknowledged, &format!("{fault:?} at call {call}"));
            if well {
                assert_eq!(acknowledged.len(), 3);
                assert!(call > 40);
                break;
            }
            assert!(call + 1 < MOST_CALLS);
        }
    }
}

#[test]
fn recovery_itself_may_fail_at_any_call_and_lose_nothing() {
    // A log with calls cut off, a torn end and a torn history.
    let crashed = Place::new();
    let (log, _) = crashed.open().unwrap();
    let mut open = log.enter(Call::new(1, Level::Strict)).unwrap();
    run(open.intent()).unwrap().into_value();
    call(&log, 2).unwrap();
    let base = crashed.copy();
    drop((open, log));
    let segment = base.dir().join("segments/0000000000.log");
    let mut bytes = fs::read(&segment).unwrap();
    let used = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    bytes[used..used + 30].copy_from_slice(&[0xa5; 30]);
    fs::write(&segment, bytes).unwrap();
    let history = base.dir().join("checkpoints");
    let torn = [fs::read(&history).unwrap(), b"cofferdam.test/no".to_vec()].concat();
    fs::write(&history, torn).unwrap();

    for fault in FAULTS {
        for call in 0..MOST_CALLS {
            let place = base.copy();
            let disk = TestDisk::failing(call, fault);
            disk.adopt(&place.dir());
            let (acknowledged, well) = live(&place, &disk);
            assert_kept(&place, &disk, &acknowledged, &format!("{fault:?} at call {call}"));
            if well {
                assert_eq!(acknowledged.len(), 3);
                assert!(call > 40);
                break;
            }
            assert!(call + 1 < MOST_CALLS);
        }
    }
}
