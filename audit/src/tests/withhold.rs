//! An export with fields left out proves what the whole record would.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::*;
use crate::disclose::{Field, Fields, commitment};
use crate::payload::Payload;
use crate::tree::{Hash, leaf_hash};
use crate::{proof, withhold};

fn lines(dir: &Path, fields: Fields) -> (String, Vec<Value>) {
    let mut out = Vec::new();
    withhold::export(dir, &query::Filter::default(), fields, &mut out).unwrap();
    let text = String::from_utf8(out).unwrap();
    let values = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    (text, values)
}

/// What an auditor does who has nothing but the export and a checkpoint.
fn proved(values: &[Value], checkpoint: &str) {
    let mut parts = checkpoint.lines().skip(1);
    let size: u64 = parts.next().unwrap().parse().unwrap();
    let root: Hash = STANDARD.decode(parts.next().unwrap()).unwrap().try_into().unwrap();
    let leaves: Vec<Hash> = values.iter().map(|line| leaf_hash(line["entry"].as_str().unwrap().as_bytes())).collect();
    assert_eq!(leaves.len() as u64, size);
    for (index, leaf) in leaves.iter().enumerate() {
        let path = proof::inclusion(&leaves, index).unwrap();
        assert!(proof::includes(leaf, index as u64, size, &path, &root));
    }
    for line in values {
        let entry: Value = serde_json::from_str(line["entry"].as_str().unwrap()).unwrap();
        for (field, told) in line["disclosed"].as_object().unwrap() {
            let salt = STANDARD.decode(told["salt"].as_str().unwrap()).unwrap().try_into().unwrap();
            let hash = commitment(&salt, told["json"].as_str().unwrap().as_bytes());
            assert_eq!(entry["commits"][field], STANDARD.encode(hash));
        }
    }
}

#[test]
fn an_export_with_fields_withheld_keeps_its_proofs() {
    let place = Place::new();
    let (log, _) = place.open().unwrap();
    calls(&log, 5);
    run(log.shutdown()).unwrap();
    let checkpoint = fs::read_to_string(place.dir().join("checkpoint")).unwrap();

    let (_, whole) = lines(&place.dir(), Fields::NONE);
    proved(&whole, &checkpoint);
    assert_eq!(whole[0]["disclosed"]["source"]["json"], "\"192.0.2.7\"");

    let (text, some) = lines(&place.dir(), [Field::Source, Field::Principal].into_iter().collect());
    proved(&some, &checkpoint);
    let secrets: Vec<String> = {
        let mut secrets = Vec::new();
        query::read(&place.dir(), 0, None, |_, record: Payload<'_>| {
            let all: Value = serde_json::from_slice(record.disclosures().unwrap()).unwrap();
            secrets.push(all["secret"].as_str().unwrap().to_owned());
            Ok(())
        })
        .unwrap();
        secrets
    };
    for gone in ["192.0.2.7", "alice"].into_iter().chain(secrets.iter().map(String::as_str)) {
        assert!(!text.contains(gone), "{gone}");
    }
    assert_eq!(some[0]["disclosed"]["path"]["json"], "\"/orders\"");
}
