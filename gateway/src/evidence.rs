//! Evidence of the log as it goes out: bytes, media type, and how long they may be kept.
//!
//! Owns these, and which of them are for whoever asks. Must never give entries or a tenant's tree to strangers, and
//! never tell one who does not know a record's leaf hash whether there is such a record.

use std::time::Duration;

use bytes::Bytes;
use cofferdam_audit::receipt::{self, TlogProof};
use cofferdam_audit::{AuditError, Bundle, RootText, TenantPage, TileName};
use cofferdam_model::{Prove, TenantId};
use serde_json::json;

use crate::manage::parameter;
use crate::node::Node;
use crate::refusal::Refusal;

/// Bytes of a path or query that can be of any of these.
const QUERY_BYTES: usize = 512;
/// How often, and after which time, a proof is looked for again whose record no checkpoint covers yet.
const LOOKS: u32 = 40;
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Media types.
const TEXT: &str = "text/plain; charset=utf-8";
const BYTES: &str = "application/octet-stream";
/// A tile of some name never changes; only the tree's edge and its checkpoint do.
const FOREVER: &str = "private, max-age=31536000, immutable";
const FOREVER_FOR_ALL: &str = "public, max-age=31536000, immutable";
const NEVER: &str = "no-store";
const BRIEFLY: &str = "public, max-age=1";

/// What goes out.
pub(crate) struct Evidence {
    pub(crate) kind: &'static str,
    pub(crate) cache: &'static str,
    pub(crate) bytes: Bytes,
}

/// What is given to whoever asks, without a look at who that is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Open {
    /// The newest checkpoint. Where tiles are public.
    Checkpoint,
    /// A hash tile. Where tiles are public.
    Tile(TileName),
    /// The proof that a receipt is redeemed for: who shows the receipt's hash was given it.
    Proof,
}

impl Open {
    /// What a path below the log's prefix is of these.
    pub(crate) fn at(path: &str, public_tiles: bool) -> Option<Self> {
        match path {
            "proof" => Some(Self::Proof),
            "checkpoint" if public_tiles => Some(Self::Checkpoint),
            _ => path.strip_prefix("tile/").filter(|_| public_tiles).and_then(TileName::parse).map(Self::Tile),
        }
    }
}

/// Gives what is open to all.
pub(crate) async fn open(node: &Node, open: Open, query: Option<&str>) -> Result<Evidence, Refusal> {
    match open {
        Open::Checkpoint => checkpoint(node, BRIEFLY),
        Open::Tile(name) => tile(node, name, FOREVER_FOR_ALL),
        Open::Proof => {
            let text = proof(node, query).await?.to_string();
            Ok(Evidence { kind: TEXT, cache: NEVER, bytes: text.into() })
        }
    }
}

/// Gives what is permitted.
pub(crate) fn permitted(node: &Node, prove: &Prove) -> Result<Evidence, Refusal> {
    let name = |path: &str| TileName::parse(path).ok_or(Refusal::NotFound);
    match prove {
        Prove::Checkpoint => checkpoint(node, NEVER),
        Prove::Tile { path } => tile(node, name(path)?, FOREVER),
        Prove::Entries { path } => {
            let bundle = Bundle::parse(path).ok_or(Refusal::NotFound)?;
            found(node.log.bundle(bundle), BYTES, FOREVER)
        }
        Prove::TenantCheckpoint { tenant } => {
            let note = node.log.tenant_checkpoint(tenant).map(|note| note.map(String::into_bytes));
            found(note, TEXT, NEVER)
        }
        Prove::TenantTile { tenant, path } => found(node.log.tenant_tile(tenant, name(path)?), BYTES, FOREVER),
        Prove::TenantRecords { tenant, from } => {
            let page = node.log.tenant_page(tenant, *from).map_err(failed)?;
            let bytes = told(tenant, &page).to_string().into();
            Ok(Evidence { kind: "application/json", cache: NEVER, bytes })
        }
    }
}

fn checkpoint(node: &Node, cache: &'static str) -> Result<Evidence, Refusal> {
    let published = node.log.published().ok_or(Refusal::NotReady)?;
    Ok(Evidence { kind: TEXT, cache, bytes: published.note.clone().into() })
}

fn tile(node: &Node, name: TileName, cache: &'static str) -> Result<Evidence, Refusal> {
    found(node.log.tile(name), BYTES, cache)
}

fn found(
    read: Result<Option<Vec<u8>>, AuditError>,
    kind: &'static str,
    cache: &'static str,
) -> Result<Evidence, Refusal> {
    let bytes = read.map_err(failed)?.ok_or(Refusal::NotFound)?;
    Ok(Evidence { kind, cache, bytes: bytes.into() })
}

fn failed(error: AuditError) -> Refusal {
    tracing::error!(%error, "evidence of the log could not be read");
    match error {
        AuditError::Derived { .. } => Refusal::NotReady,
        _ => Refusal::Internal,
    }
}

/// The proof asked for by `index` and `leaf`. One whose record was answered a moment ago is waited for.
async fn proof(node: &Node, query: Option<&str>) -> Result<TlogProof, Refusal> {
    let wrong = || Refusal::Invalid { message: "name `index` and `leaf` of the receipt".to_owned() };
    let query = query.filter(|query| query.len() <= QUERY_BYTES);
    let index = parameter(query, "index")?.and_then(|text| text.parse::<u64>().ok()).ok_or_else(wrong)?;
    // Base64 as it stands in a receipt, or in the form that is plain in a query.
    let leaf = parameter(query, "leaf")?.map(|text| text.replace('-', "+").replace('_', "/")).ok_or_else(wrong)?;
    let leaf = receipt::hash(&leaf).ok_or_else(wrong)?;
    for _ in 0..LOOKS {
        let covered = node.log.published().is_some_and(|published| published.size > index);
        if covered || index >= node.log.records() {
            break;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    let proof = tokio::task::block_in_place(|| node.log.prove(index, &leaf)).map_err(failed)?;
    proof.ok_or(Refusal::NotFound)
}

fn told(tenant: &TenantId, page: &TenantPage) -> serde_json::Value {
    json!({
        "tenant": tenant,
        "size": page.size,
        "checkpoint": page.checkpoint,
        "roots": page.committed.as_ref().and_then(RootText::of),
        "from": page.from,
        "entries": page.entries,
        "next": page.next,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_are_given_proofs_and_where_it_is_said_so_tiles_and_never_entries() {
        assert_eq!(Open::at("proof", false), Some(Open::Proof));
        for path in ["checkpoint", "tile/0/000", "tile/1/x001/067.p/5"] {
            assert_eq!(Open::at(path, false), None, "{path}");
            assert!(Open::at(path, true).is_some(), "{path}");
        }
        for path in ["tile/entries/000", "tile/entries/000.p/5", "tile/0/0", "tile/", "tile", "", "checkpoint/", "x"] {
            assert_eq!(Open::at(path, true), None, "{path}");
        }
    }
}
