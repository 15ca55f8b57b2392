//! Evidence of the log: its checkpoint, tiles and entries, and a tenant's own records with what proves them complete.
//!
//! Owns these operations. What is everybody's is on the installation, so that no policy of a tenant can allow it.

use crate::id::{TenantId, platform_tenant};
use crate::operation::{Action, Operation, Resource};

/// Read what proves what is in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Prove {
    /// The newest checkpoint whose tiles are there.
    Checkpoint,
    /// A hash tile of the log's tree.
    Tile {
        /// Its path.
        path: String,
    },
    /// Records of everybody, as they were hashed.
    Entries {
        /// Path of the bundle.
        path: String,
    },
    /// The checkpoint of a tenant's tree.
    TenantCheckpoint {
        /// Whose.
        tenant: TenantId,
    },
    /// A hash tile of a tenant's tree.
    TenantTile {
        /// Whose.
        tenant: TenantId,
        /// Its path.
        path: String,
    },
    /// A tenant's records, with what shows that they are all there are.
    TenantRecords {
        /// Whose.
        tenant: TenantId,
        /// Number of the first.
        from: u64,
    },
}

impl Operation for Prove {
    fn action(&self) -> Action {
        match self {
            Self::Checkpoint | Self::Tile { .. } => Action::ReadTiles,
            Self::Entries { .. } => Action::ReadEntries,
            Self::TenantCheckpoint { .. } | Self::TenantTile { .. } | Self::TenantRecords { .. } => Action::ProveAudit,
        }
    }

    fn tenant(&self) -> TenantId {
        match self {
            Self::Checkpoint | Self::Tile { .. } | Self::Entries { .. } => platform_tenant(),
            Self::TenantCheckpoint { tenant }
            | Self::TenantTile { tenant, .. }
            | Self::TenantRecords { tenant, .. } => tenant.clone(),
        }
    }

    fn resource(&self) -> Resource {
        match self {
            Self::Checkpoint | Self::Tile { .. } | Self::Entries { .. } => Resource::Platform,
            _ => Resource::Tenant(self.tenant()),
        }
    }

    fn detail(&self) -> Option<String> {
        match self {
            Self::Checkpoint | Self::TenantCheckpoint { .. } => Some("checkpoint".into()),
            Self::Tile { path } | Self::TenantTile { path, .. } => Some(format!("tile={path}")),
            Self::Entries { path } => Some(format!("entries={path}")),
            Self::TenantRecords { from, .. } => Some(format!("records from={from}")),
        }
    }
}
