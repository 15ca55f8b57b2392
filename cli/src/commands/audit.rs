//! `audit`: reading and checking the log, from its files alone.
//!
//! Owns how a verdict is told. Must never need the node (but for `sinks`, which are the node's), nor write to the log.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use cofferdam_audit::disclose::Field;
use cofferdam_audit::query::{self, Filter};
use cofferdam_audit::verify::{Verified, verify};
use cofferdam_audit::{AuditError, Signer, VerifyError, withhold};
use cofferdam_model::{TenantId, UnixNanos};
use serde_json::{Value, json};

use super::Context;
use super::evidence::{self, Evidence};
use super::sinks::{self, SinksArgs};
use crate::failure::{Failure, Kind, chain};

/// Arguments of `cofferdam audit`.
#[derive(Debug, Args)]
pub(crate) struct AuditArgs {
    /// Directory of the log [default: <data>/audit]
    #[arg(long, global = true, value_name = "DIR")]
    log: Option<PathBuf>,
    #[command(subcommand)]
    what: Audit,
}

#[derive(Debug, Subcommand)]
enum Audit {
    /// Show the newest records
    Tail {
        /// How many
        #[arg(long, short = 'n', default_value_t = 20)]
        lines: usize,
    },
    /// Check every record, the tree over them and the signatures; exit code 8 when something is wrong
    Verify {
        /// Public key of the log, as `audit key` prints it [default: that of <data>]
        #[arg(long)]
        key: Option<String>,
    },
    /// Write records as lines of JSON
    Export {
        /// Only those of this tenant, by its id
        #[arg(long, value_name = "ID", value_parser = tenant_id)]
        tenant: Option<TenantId>,
        /// Only those from this moment on, as in 2026-11-20T10:38:00Z
        #[arg(long, value_name = "TIME", value_parser = moment)]
        from: Option<UnixNanos>,
        /// Only those before this moment
        #[arg(long, value_name = "TIME", value_parser = moment)]
        until: Option<UnixNanos>,
        /// Write lines that can be proved from, without these fields: `source,principal`, or `none` for all
        #[arg(long, value_name = "FIELDS", value_delimiter = ',', value_parser = field)]
        withhold: Vec<Option<Field>>,
        /// File to write [default: standard output]
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Print the public key of the log, for whoever shall check it
    Key,
    /// Keep records whatever the retention is, and the keys they are read with
    Hold(super::keep::HoldArgs),
    /// Destroy the keys that what records disclose of a subject is sealed under; what they seal is gone for good
    Shred(super::keep::ShredArgs),
    #[command(flatten)]
    Evidence(Evidence),
    /// See where the log is streamed to, or have it streamed from another record on
    Sinks(SinksArgs),
}

/// Runs `cofferdam audit`.
pub(crate) fn run(args: &AuditArgs, context: &Context) -> Result<(), Failure> {
    let dir = args.log.clone().unwrap_or_else(|| context.layout.audit());
    if let Audit::Evidence(what) = &args.what {
        return evidence::run(what, args.log.as_deref(), context);
    }
    if !dir.is_dir() && !matches!(args.what, Audit::Key | Audit::Hold(_) | Audit::Shred(_) | Audit::Sinks(_)) {
        return Err(Failure::new(Kind::NotFound, format!("there is no log at `{}`", dir.display())));
    }
    match &args.what {
        Audit::Tail { lines } => {
            let records = query::tail(&dir, *lines)?;
            let values: Vec<Value> = records.iter().filter_map(|line| serde_json::from_str(line).ok()).collect();
            context.output.result(&Value::Array(values), || records)
        }
        Audit::Verify { key } => {
            let key = key.clone().map_or_else(|| own_key(context), Ok)?;
            let found = verify(&dir, key.trim()).map_err(|error| refused(&error))?;
            context.output.result(&verdict(&found), || told(&found))
        }
        Audit::Export { tenant, from, until, withhold, out } => {
            let filter = Filter { tenant: tenant.as_ref().map(ToString::to_string), from: *from, until: *until };
            let written = match out {
                Some(path) => {
                    let failed = |error: std::io::Error| Failure::file("write", path, &error);
                    let file = std::fs::File::create_new(path).map_err(failed)?;
                    export(&dir, &filter, withhold, std::io::BufWriter::new(file))?
                }
                None => export(&dir, &filter, withhold, std::io::BufWriter::new(std::io::stdout().lock()))?,
            };
            context.output.note(&format!("{written} records"));
            Ok(())
        }
        Audit::Hold(args) => super::keep::hold(args, context),
        Audit::Shred(args) => super::keep::shred(args, context),
        Audit::Key => {
            let key = own_key(context)?;
            context.output.result(&json!({ "key": key }), || vec![key.clone()])
        }
        Audit::Evidence(_) => Ok(()),
        Audit::Sinks(args) => sinks::run(args, context),
    }
}

fn export(dir: &Path, filter: &Filter, fields: &[Option<Field>], out: impl std::io::Write) -> Result<u64, AuditError> {
    if fields.is_empty() {
        return query::export(dir, filter, out);
    }
    withhold::export(dir, filter, fields.iter().flatten().copied().collect(), out)
}

pub(super) fn own_key(context: &Context) -> Result<String, Failure> {
    Ok(Signer::load(&context.layout.audit_key())?.verifier_key())
}

pub(super) fn refused(error: &VerifyError) -> Failure {
    let message = chain(error);
    match error {
        VerifyError::Key { .. } => Failure::new(Kind::Usage, message),
        VerifyError::File { .. } => Failure::internal(message),
        VerifyError::Proof { .. } => Failure::new(Kind::Finding, message),
        VerifyError::Segment { .. }
        | VerifyError::Missing { .. }
        | VerifyError::Short { .. }
        | VerifyError::Root { .. }
        | VerifyError::Pruned { .. }
        | VerifyError::Checkpoint { .. } => Failure::new(Kind::Finding, format!("the log does not verify: {message}"))
            .hint(
                "keep this copy as it is; whatever was signed for before that place can still be proved from a backup",
            ),
    }
}

fn verdict(found: &Verified) -> Value {
    json!({
        "verified": true,
        "origin": found.origin,
        "size": found.size,
        "root": found.root,
        "checkpoint_size": found.checkpoint_size,
        "checkpoints": found.checkpoints,
        "segments": found.segments,
        "torn_bytes": found.torn_bytes,
        "gaps": found.gaps.iter().map(|gap| json!({ "record": gap.record, "what": gap.what })).collect::<Vec<_>>(),
        "pruned": found.pruned.as_ref().map(|gone| json!({ "first": gone.first, "record": gone.record })),
    })
}

fn told(found: &Verified) -> Vec<String> {
    let mut lines = vec![
        format!("OK {}", found.origin),
        format!("size {} records, {} of them signed for", found.size, found.checkpoint_size),
        format!("root {}", found.root),
        format!("checked {} signed checkpoints in {} segments", found.checkpoints, found.segments),
    ];
    if let Some(gone) = &found.pruned {
        lines.push(format!("records before {} were pruned, as record {} says", gone.first, gone.record));
        lines.push(format!("{} checkpoints are of those, and only their signatures were checked", gone.checkpoints));
    }
    lines.extend(found.gaps.iter().map(|gap| format!("gap at record {}: {}", gap.record, gap.what)));
    if found.torn_bytes > 0 {
        lines.push(format!("{} bytes at the end are a write that was cut short, or is going on", found.torn_bytes));
    }
    lines
}

fn field(text: &str) -> Result<Option<Field>, String> {
    let names = || Field::ALL.iter().map(|field| field.as_str()).collect::<Vec<_>>().join(", ");
    match (text, Field::parse(text)) {
        ("none", _) => Ok(None),
        (_, Some(field)) => Ok(Some(field)),
        (_, None) => Err(format!("the fields that can be withheld are {}", names())),
    }
}

pub(super) fn tenant_id(text: &str) -> Result<TenantId, String> {
    TenantId::parse(text).map_err(|error| format!("{error}; `cofferdam tenant list` shows ids"))
}

pub(super) fn moment(text: &str) -> Result<UnixNanos, String> {
    let at: jiff::Timestamp = text.parse().map_err(|_| "write it as in 2026-11-20T10:38:00Z".to_owned())?;
    u64::try_from(at.as_nanosecond()).map(UnixNanos).map_err(|_| "it is before 1970, or far in the future".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_read() {
        assert_eq!(moment("1970-01-01T00:00:01Z"), Ok(UnixNanos::from_seconds(1)));
        assert_eq!(moment("1970-01-01T02:00:01+02:00"), Ok(UnixNanos::from_seconds(1)));
        for text in ["", "yesterday", "2026-11-20", "1969-12-31T23:59:59Z"] {
            assert!(moment(text).is_err(), "{text}");
        }
    }

    #[test]
    fn log_that_does_not_verify_is_a_finding_and_a_bad_key_is_not() {
        let segment = VerifyError::Segment { record: 7, file: "a.log".into(), offset: 9, reason: "checksum" };
        let failure = refused(&segment);
        assert_eq!(failure.exit_code(), 8);
        assert!(failure.text().contains("record 7"));
        assert_eq!(refused(&VerifyError::Key { key: "x".into(), reason: "short" }).exit_code(), 2);
    }
}
