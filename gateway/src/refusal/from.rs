//! What the errors of other crates mean to a caller.
//!
//! Owns the exhaustive tables from `control` and `sandbox` to a refusal. Must never match by wildcard, and never pass
//! on words that were not written for callers: what is the operator's to know is logged here, once.

use std::error::Error;
use std::time::Duration;

use cofferdam_control::vault::RootError;
use cofferdam_control::{ControlError, VaultError};
use cofferdam_sandbox::SandboxError;

use super::Refusal;
use crate::sinks::SinkError;

/// When it may be worth asking again, where something is only busy.
const SOON: Duration = Duration::from_secs(2);

impl From<ControlError> for Refusal {
    fn from(error: ControlError) -> Self {
        let message = error.to_string();
        match error {
            ControlError::NotFound { .. } => Self::Missing { message },
            ControlError::Exists { .. }
            | ControlError::RouteConflict { .. }
            | ControlError::HostTaken { .. }
            | ControlError::StorageFull { .. }
            | ControlError::BelowEpoch { .. }
            | ControlError::Shredded { .. }
            | ControlError::KeysChanged { .. }
            | ControlError::Held { .. }
            | ControlError::Unfinished { .. } => Self::Conflict { message },
            ControlError::Vault(VaultError::Root(RootError::Unsupported(what))) => Self::Invalid { message: what },
            ControlError::Vault(cause) if cause.is_root_unavailable() => {
                tracing::error!(error = %cause, ?cause, "the root key cannot be had");
                Self::SecretsUnavailable { retry_after: SOON }
            }
            ControlError::Policy(cause) => Self::Invalid { message: cause.to_string() },
            ControlError::Invalid { .. }
            | ControlError::Authority(_)
            | ControlError::AboveCeiling { .. }
            | ControlError::TooMany { .. }
            | ControlError::TooLarge { .. } => Self::Invalid { message },
            ControlError::OperatorsOnly { .. } => Self::Forbidden,
            ControlError::Vault(_)
            | ControlError::AlreadyInitialised { .. }
            | ControlError::KeyFile { .. }
            | ControlError::Io { .. }
            | ControlError::StoreTooNew { .. }
            | ControlError::StoreTooOld { .. }
            | ControlError::Damaged { .. }
            | ControlError::Store(_)
            | ControlError::Log(_)
            | ControlError::NotAChange { .. } => ours(&error),
        }
    }
}

impl From<SandboxError> for Refusal {
    fn from(error: SandboxError) -> Self {
        let message = error.to_string();
        match error {
            SandboxError::Refused { .. } | SandboxError::Load { .. } => Self::Invalid { message },
            SandboxError::TooLarge { .. } => Self::BodyTooLarge,
            SandboxError::Missing { .. } => Self::Missing { message },
            SandboxError::StoreFull { .. } => Self::Conflict { message },
            SandboxError::Busy { .. } => Self::Overloaded { retry_after: SOON },
            SandboxError::Closing => Self::NotReady,
            SandboxError::Secrets(_) => Self::SecretsUnavailable { retry_after: SOON },
            SandboxError::Program { .. }
            | SandboxError::Version { .. }
            | SandboxError::Isolation { .. }
            | SandboxError::CellStart { .. }
            | SandboxError::Compiler { .. }
            | SandboxError::Tampered { .. }
            | SandboxError::Unseal(_)
            | SandboxError::Outlet(_)
            | SandboxError::File { .. } => ours(&error),
        }
    }
}

impl From<SinkError> for Refusal {
    fn from(error: SinkError) -> Self {
        let message = error.to_string();
        match error {
            SinkError::Unknown { .. } => Self::Missing { message },
            SinkError::Beyond { .. } => Self::Invalid { message },
            SinkError::Stopping => Self::NotReady,
            SinkError::Timeout { .. } => Self::Overloaded { retry_after: SOON },
            SinkError::Setup { .. }
            | SinkError::File { .. }
            | SinkError::Cursor { .. }
            | SinkError::Credential(_)
            | SinkError::Gateway(_)
            | SinkError::Log(_)
            | SinkError::Broken { .. }
            | SinkError::Unconfirmed { .. }
            | SinkError::Status { .. }
            | SinkError::Rejected { .. }
            | SinkError::Occupied { .. } => ours(&error),
        }
    }
}

/// A failure that is ours or the operator's to repair.
fn ours(error: &(dyn Error + 'static)) -> Refusal {
    tracing::error!(error, "a change failed");
    Refusal::Internal
}
