//! Management calls for evidence of the log.
//!
//! Owns the form of their paths. Must never decide who may.

use cofferdam_audit::{Bundle, TileName};
use cofferdam_model::{Action, Prove};

use super::{Names, asked};
use crate::refusal::Refusal;

/// The operation, by an action that is one of these.
pub(super) fn operation(action: Action, names: &Names<'_>, query: Option<&str>) -> Result<Prove, Refusal> {
    match action {
        Action::ReadTiles => match names.names.first() {
            None => Ok(Prove::Checkpoint),
            Some(path) => Ok(Prove::Tile { path: tile(path)? }),
        },
        Action::ReadEntries => {
            let bundle = Bundle::parse(names.text(0)?).ok_or(Refusal::NotFound)?;
            Ok(Prove::Entries { path: bundle.path() })
        }
        _ => {
            let what = names.text(1)?;
            let path = what.strip_prefix("tile/").map(tile).transpose()?;
            let from = asked::from(query)?;
            let tenant = names.tenant()?;
            match (what, path) {
                (_, Some(path)) => Ok(Prove::TenantTile { tenant, path }),
                ("checkpoint", _) => Ok(Prove::TenantCheckpoint { tenant }),
                ("records", _) => Ok(Prove::TenantRecords { tenant, from }),
                _ => Err(Refusal::NotFound),
            }
        }
    }
}

fn tile(path: &str) -> Result<String, Refusal> {
    TileName::parse(path).map(|name| name.path()).ok_or(Refusal::NotFound)
}
