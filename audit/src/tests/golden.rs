//! Logs that earlier releases wrote, byte for byte: they verify for ever, and are gone on with.

use std::sync::Arc;

use cofferdam_model::{EgressEnd, EgressFacts, Ending, Level};

use super::disk::QuickDisk;
use super::*;
use crate::Note;

/// Where the logs are: one directory for each format, as `fill` left it.
const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/tests/golden");

fn egress() -> EgressFacts {
    EgressFacts {
        number: 1,
        method: "GET".into(),
        host: "api.example".into(),
        port: 443,
        rule: Some("api.example".into()),
        decision: facts().decision.map(Box::new),
        address: Some("198.51.100.7".parse().unwrap()),
        tls: Some(TlsVersion::Tls13),
        credential: Some("KEY".into()),
        status: Some(200),
        ending: EgressEnd::Answered,
        bytes_out: 1,
        bytes_in: 2,
        wall_us: 3,
    }
}

/// One record of each kind that a node writes without being damaged.
fn fill(place: &Place) {
    let config = LogConfig { segment_bytes: 4_096, ..place.config() };
    let (log, _) = place.open_with(config, Arc::new(QuickDisk)).unwrap();
    run(async {
        log.note(Note::Start { version: "0.0.0".into(), detail: "config 0000".into() }).await.unwrap();
        log.enter(Call::new(1, Level::Standard)).unwrap().close(Answer).await.unwrap().into_value();
        let mut entry = log.enter(Call::new(2, Level::Strict)).unwrap();
        entry.effects().await.unwrap().place().await.unwrap().egress(&egress()).unwrap();
        let (_, closing) = entry.begin(Answer).await.unwrap();
        closing.finish(OutcomeFacts { ending: Ending::ClientGone, ..outcome_facts() });
        log.refuse(facts_of(3), Answer).await.unwrap().into_value();
        log.tally(&facts_of(4), Answer).unwrap().into_value();
        let mut open = log.enter(Call::new(5, Level::Strict)).unwrap();
        open.intent().await.unwrap().into_value();
        open.if_dropped(Ending::ClientGone);
        drop(open);
        log.note(Note::Event { kind: "tick".into(), detail: "\u{202e}é\n".into() }).await.unwrap();
    });
    run(log.shutdown()).unwrap();
}

fn golden(format: u32) -> Place {
    let place = Place::new();
    copy_dir(&Path::new(GOLDEN).join(format!("format-{format}")), &place.dir());
    place
}

const KINDS: [&str; 11] =
    ["start", "call", "intent", "egress", "outcome", "end", "refusal", "intent", "outcome", "event", "refusals"];

#[test]
fn logs_of_every_format_verify_and_say_what_they_said() {
    for format in [1, 2] {
        let place = golden(format);
        let found = place.verify().unwrap();
        assert_eq!((found.size, found.checkpoint_size, found.torn_bytes), (11, 11, 0));
        let records = exported(&place.dir());
        assert_eq!(kinds(&place.dir()), KINDS);
        for record in &records {
            assert_eq!(record["v"], format);
        }
        let call = &records[1];
        assert_eq!((&call["path"], &call["source"]), (&"/orders".into(), &"192.0.2.7".into()));
        assert_eq!((&call["principal"]["id"], &call["principal"]["kind"]), (&"alice".into(), &"user".into()));
        assert_eq!(call["decision"]["given"]["roles"][0], "ops");
        assert_eq!((&records[3]["host"], &records[3]["address"]), (&"api.example".into(), &"198.51.100.7".into()));
    }
}

#[test]
fn a_log_of_an_earlier_format_is_gone_on_with_and_verifies_as_one() {
    let place = golden(1);
    let before = place.verify().unwrap();
    let (log, opened) = place.open().unwrap();
    assert_eq!((opened.records, opened.unknown_outcomes), (before.size, 0));
    calls(&log, 3);
    run(log.shutdown()).unwrap();
    drop(log);
    assert_eq!(place.verify().unwrap().size, before.size + 3);
    let versions: Vec<_> = exported(&place.dir()).iter().map(|record| record["v"].as_u64().unwrap()).collect();
    assert_eq!(versions, [[1; 11].as_slice(), &[2; 3]].concat());
    let (_, opened) = place.open().unwrap();
    assert_eq!(opened.records, before.size + 3);
}

/// Every record as it lies in the log. Frames also tell how records were batched, which is up to the disk.
fn payloads(dir: &Path) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
    let mut all = Vec::new();
    for number in query::segments(dir).unwrap() {
        query::read(dir, number, None, |_, payload| {
            all.push((payload.entry().to_vec(), payload.disclosures().map(<[u8]>::to_vec)));
            Ok(())
        })
        .unwrap();
    }
    all
}

#[test]
fn this_release_writes_the_bytes_of_format_2() {
    let place = Place::new();
    fill(&place);
    let kept = Path::new(GOLDEN).join("format-2");
    assert_eq!(payloads(&place.dir()), payloads(&kept));
    for name in ["checkpoint", "checkpoints"] {
        assert!(fs::read(kept.join(name)).unwrap() == fs::read(place.dir().join(name)).unwrap(), "{name} differs");
    }
}
