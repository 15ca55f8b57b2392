//! Exports that can be proved from, with some fields left out of them.
//!
//! Owns the form of such a line: the entry as it was hashed, and each disclosed field with the salt it was committed to
//! with. Must never give a record's secret away, from which the salts of what is withheld would follow.

use std::io::Write;
use std::path::Path;

use cofferdam_model::UnixNanos;

use crate::disclose::{Field, Fields};
use crate::error::AuditError;
use crate::export::{Filter, export_as};
use crate::json;
use crate::payload::{Disclosed, Payload};

/// Writes every record the filter takes as one line of JSON from which its leaf can be computed, without the fields
/// named; gives their number.
pub fn export(dir: &Path, filter: &Filter, withhold: Fields, out: impl Write) -> Result<u64, AuditError> {
    export_as(dir, filter, out, |buffer, index, at, record| line(buffer, index, at, record, withhold))
}

/// `{"index":..,"time":..,"disclosed":{"<field>":{"json":"<its JSON>","salt":".."}},"entry":"<the entry>"}`: both as
/// texts, so that any reader of JSON gets the very bytes that were hashed.
fn line(out: &mut Vec<u8>, index: u64, at: UnixNanos, record: Payload<'_>, withhold: Fields) {
    out.extend_from_slice(format!("{{\"index\":{index},\"time\":\"{at}\",\"disclosed\":{{").as_bytes());
    let disclosed = Disclosed::read(record.disclosures());
    let kept = |name: &str| Field::parse(name).is_none_or(|field| !withhold.has(field));
    let mut any = false;
    for (name, value) in disclosed.fields.iter().filter(|(name, _)| kept(name)) {
        let Some(salt) = disclosed.salts.of(name) else { continue };
        if any {
            out.push(b',');
        }
        any = true;
        json::text(out, name, usize::MAX);
        out.push(b':');
        json::object(out, |o| {
            o.text("json", &String::from_utf8_lossy(value), usize::MAX);
            o.base64("salt", &salt);
        });
    }
    out.extend_from_slice(b"},\"entry\":");
    json::text(out, &String::from_utf8_lossy(record.entry()), usize::MAX);
    out.extend_from_slice(b"}\n");
}
