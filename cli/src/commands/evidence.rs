//! `audit rebuild`, `proof`, `check-proof`, `tenant-export` and `check-tenant`: what proves what is in the log.
//!
//! Owns how it is asked for, of a node or of a log's files, and how a verdict is told. Must never write to the log, and
//! never call proved what was only said.

use std::fs::File;
use std::io::{BufReader, Read, Write};
use std::path::{Path, PathBuf};

use clap::Subcommand;
use cofferdam_audit::receipt::{Receipt, TlogProof};
use cofferdam_audit::{
    AuditError, RootText, Signer, TenantHead, check_tenant, prove_in, rebuild, record_line, tenant_key, tenant_page_in,
};
use cofferdam_model::TenantId;
use http::Method;
use serde::Deserialize;
use serde_json::json;

use super::audit::{own_key, refused, tenant_id};
use super::{Context, tenant_path};
use crate::failure::{Failure, Kind};
use crate::remote::{Remote, RemoteArgs, segment};

/// Bytes of a proof at most.
const PROOF_BYTES: u64 = 128 * 1024;

#[derive(Debug, Subcommand)]
pub(crate) enum Evidence {
    /// Make anew what is derived from the log (tiles, trees of tenants), while no node runs; exit code 8 where recorded
    /// roots of tenants are wrong
    Rebuild {
        /// Public key of the log [default: that of <data>]
        #[arg(long)]
        key: Option<String>,
    },
    /// Redeem a receipt for a proof, at the node or, with --log, from a log's files
    Proof {
        /// The field `cofferdam-receipt` of an answer
        #[arg(long)]
        receipt: Receipt,
        /// Public key of the log, where it is read from files [default: that of <data>]
        #[arg(long)]
        key: Option<String>,
        /// File to write [default: standard output]
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        #[command(flatten)]
        remote: RemoteArgs,
    },
    /// Check a proof with nothing but the log's public key; exit code 8 where it is not good
    CheckProof {
        /// The proof
        file: PathBuf,
        /// Public key of the log
        #[arg(long)]
        key: String,
        /// The receipt it was made for; without one it is told of which leaf hash it is
        #[arg(long)]
        receipt: Option<Receipt>,
    },
    /// Write all records of a tenant with what proves them complete, from the node or, with --log, from a log's files
    TenantExport {
        /// Name of the tenant; with --log its id
        tenant: String,
        /// Public key of the log, where it is read from files [default: that of <data>]
        #[arg(long)]
        key: Option<String>,
        /// File to write
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        #[command(flatten)]
        remote: RemoteArgs,
    },
    /// Check a tenant's export with nothing but the log's public key; exit code 8 where anything of it is missing
    CheckTenant {
        /// The export
        file: PathBuf,
        /// Public key of the log
        #[arg(long)]
        key: String,
    },
}

/// Runs one of them.
pub(crate) fn run(what: &Evidence, log: Option<&Path>, context: &Context) -> Result<(), Failure> {
    match what {
        Evidence::Rebuild { key } => made_anew(&key_or_own(key.as_ref(), context)?, log, context),
        Evidence::Proof { receipt, key, out, remote } => {
            let proof = match log {
                Some(dir) => from_files(dir, &key_or_own(key.as_ref(), context)?, receipt)?,
                None => from_node(&remote.anonymous(&context.layout)?, receipt)?,
            };
            match out {
                Some(path) => {
                    let failed = |error: std::io::Error| Failure::file("write", path, &error);
                    File::create_new(path).and_then(|mut file| file.write_all(proof.as_bytes())).map_err(failed)
                }
                None => context.output.result(&json!({ "proof": proof }), || vec![proof.trim_end().to_owned()]),
            }
        }
        Evidence::CheckProof { file, key, receipt } => checked(file, key.trim(), receipt.as_ref(), context),
        Evidence::TenantExport { tenant, key, out, remote } => {
            let failed = |error: std::io::Error| Failure::file("write", out, &error);
            let file = std::io::BufWriter::new(File::create_new(out).map_err(failed)?);
            let written = match log {
                Some(dir) => {
                    let (id, key) = (tenant_id(tenant).map_err(Failure::usage)?, key_or_own(key.as_ref(), context)?);
                    exported(file, out, |from| page_of_files(dir, &key, &id, from))?
                }
                None => {
                    let remote = remote.open(&context.layout)?;
                    exported(file, out, |from| page_of_node(&remote, tenant, from))?
                }
            };
            context.output.note(&format!("{written} records"));
            Ok(())
        }
        Evidence::CheckTenant { file, key } => {
            let failed = |error: std::io::Error| Failure::file("read", file, &error);
            let input = BufReader::new(File::open(file).map_err(failed)?);
            let found = check_tenant(input, key.trim()).map_err(|error| refused(&error))?;
            let told = json!({
                "verified": true, "origin": found.origin, "size": found.size, "recorded": found.recorded,
                "log_size": found.log_size,
            });
            context.output.result(&told, || {
                vec![
                    format!("OK {}", found.origin),
                    format!(
                        "size {} records, all there are; the log has recorded {} of them",
                        found.size, found.recorded
                    ),
                    format!("proved by a checkpoint of the log over {} records", found.log_size),
                ]
            })
        }
    }
}

fn key_or_own(key: Option<&String>, context: &Context) -> Result<String, Failure> {
    key.map_or_else(|| own_key(context), |key| Ok(key.trim().to_owned()))
}

fn made_anew(key: &str, log: Option<&Path>, context: &Context) -> Result<(), Failure> {
    let dir = log.map_or_else(|| context.layout.audit(), Path::to_owned);
    // On a copy elsewhere there is no key to sign with, and none is needed.
    let signer = Signer::load(&context.layout.audit_key()).ok().filter(|signer| signer.verifier_key() == key);
    let made = rebuild(&dir, key, signer)?;
    if let Some(first) = made.wrong.first() {
        let told = format!("{} records of tenants' roots are wrong, the first is record {first}", made.wrong.len());
        let failure = Failure::new(Kind::Finding, told);
        return Err(failure.hint("somebody's records are not those whose root was recorded: keep the log as it is"));
    }
    let told = json!({ "size": made.size, "root": made.root, "tenants": made.tenants, "roots": made.roots });
    context.output.result(&told, || {
        vec![
            format!("tiles of {} records, which fit the signed root {}", made.size, made.root),
            format!("trees of {} tenants, which fit {} records of their roots", made.tenants, made.roots),
        ]
    })
}

fn from_files(dir: &Path, key: &str, receipt: &Receipt) -> Result<String, Failure> {
    let proof = prove_in(dir, key, receipt.index, &receipt.leaf).map_err(|error| match error {
        AuditError::Damaged { source, .. } => refused(&source),
        other => other.into(),
    })?;
    let missing = || Failure::new(Kind::Finding, "no record of the log up to its newest checkpoint is the receipt's");
    proof.map(|proof| proof.to_string()).ok_or_else(missing)
}

fn from_node(remote: &Remote, receipt: &Receipt) -> Result<String, Failure> {
    let text = receipt.to_string();
    let leaf = text.rsplit(' ').next().unwrap_or_default();
    let path = format!("/-/v1/audit/proof?index={}&leaf={}", receipt.index, segment(leaf).replace('+', "-"));
    let bytes = remote.text(Method::GET, &path)?;
    String::from_utf8(bytes.to_vec()).map_err(|_| Failure::new(Kind::Remote, "the node's answer is not a proof"))
}

fn checked(file: &Path, key: &str, receipt: Option<&Receipt>, context: &Context) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::file("read", file, &error);
    let mut text = String::new();
    File::open(file).map_err(failed)?.take(PROOF_BYTES).read_to_string(&mut text).map_err(failed)?;
    let refused = |error: cofferdam_audit::VerifyError| refused(&error);
    let proof = TlogProof::parse(&text).map_err(refused)?;
    let found = proof.check(key, receipt.map(|receipt| receipt.leaf)).map_err(refused)?;
    if receipt.is_some_and(|receipt| receipt.index != found.index || receipt.origin != found.origin) {
        return Err(Failure::new(Kind::Finding, "the proof is of another record than the receipt"));
    }
    let of = Receipt { origin: found.origin.clone(), index: found.index, leaf: found.leaf }.to_string();
    let told = json!({
        "verified": true, "origin": found.origin, "index": found.index, "size": found.size, "receipt": of,
    });
    context.output.result(&told, || {
        vec![
            format!("OK {}", found.origin),
            format!("record {} of {} is the one whose receipt is", found.index, found.size),
            of.clone(),
        ]
    })
}

/// A page of a tenant's records.
#[derive(Deserialize)]
struct Page {
    tenant: String,
    size: u64,
    checkpoint: Option<String>,
    roots: Option<RootText>,
    entries: Vec<String>,
    next: Option<u64>,
}

/// Writes a tenant's records, as many as there were when the first page was given.
fn exported(
    mut file: impl Write,
    path: &Path,
    mut page: impl FnMut(u64) -> Result<Page, Failure>,
) -> Result<u64, Failure> {
    let failed = |error: std::io::Error| Failure::file("write", path, &error);
    let mut now = page(0)?;
    let size = now.size;
    let none = || Failure::new(Kind::NotFound, "the tenant has no records in a signed tree yet");
    let checkpoint = now.checkpoint.take().ok_or_else(none)?;
    let format = TenantHead::FORMAT.to_owned();
    let head = TenantHead { format, tenant: now.tenant.clone(), checkpoint, roots: now.roots.take() };
    file.write_all(head.line().as_bytes()).map_err(failed)?;
    let mut written = 0;
    loop {
        for entry in now.entries.iter().take(usize::try_from(size - written).unwrap_or(usize::MAX)) {
            file.write_all(record_line(written, entry).as_bytes()).map_err(failed)?;
            written += 1;
        }
        match now.next.filter(|next| *next == written && written < size) {
            Some(next) => now = page(next)?,
            None => break,
        }
    }
    file.flush().map_err(failed)?;
    Ok(written)
}

fn page_of_node(remote: &Remote, tenant: &str, from: u64) -> Result<Page, Failure> {
    let page = remote.call(Method::GET, &format!("{}/tree/records?from={from}", tenant_path(tenant)), None)?;
    serde_json::from_value(page).map_err(|_| Failure::new(Kind::Remote, "the node's answer is not a page of records"))
}

fn page_of_files(dir: &Path, key: &str, tenant: &TenantId, from: u64) -> Result<Page, Failure> {
    // Asked for its own sake: a key that is none should be told of before anything is written.
    tenant_key(key, tenant.as_str()).map_err(|error| refused(&error))?;
    let page = tenant_page_in(dir, key, tenant, from)?;
    let head = TenantHead::of(tenant, &page);
    let (checkpoint, roots) = head.map(|head| (head.checkpoint, head.roots)).unzip();
    Ok(Page {
        tenant: tenant.to_string(),
        size: page.size,
        checkpoint,
        roots: roots.flatten(),
        entries: page.entries,
        next: page.next,
    })
}
