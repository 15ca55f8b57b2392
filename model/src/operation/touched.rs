//! What every operation says of itself: action, tenant, and the one resource it touches.
//!
//! Owns these words. Must never let an operation be decided on as anything but what it is.

use super::{Action, Invoke, Resource};
use crate::digest::Digest;
use crate::facts::Level;
use crate::id::{RouteId, TenantId, VersionId};
use crate::machine::ClientAccount;
use crate::revocation::Revived;

/// Something that can be asked for, decided on and recorded.
pub trait Operation {
    /// The action.
    fn action(&self) -> Action;
    /// The tenant it happens in; the platform's own for what belongs to none.
    fn tenant(&self) -> TenantId;
    /// What it touches.
    fn resource(&self) -> Resource;
    /// How durably it must be recorded before it takes effect.
    fn level(&self) -> Level {
        Level::Strict
    }
    /// The route that led to it, where one did.
    fn route(&self) -> Option<&RouteId> {
        None
    }
    /// Whether callers without a credential may be considered at all.
    fn public(&self) -> bool {
        false
    }
    /// The version and component digest it would run.
    fn version(&self) -> Option<(&VersionId, Digest)> {
        None
    }
    /// What a reader of the log should know of a change beyond action and resource. Never a secret.
    fn detail(&self) -> Option<String> {
        None
    }
    /// What it would hand on to others, which nobody may who does not hold it.
    fn grants(&self) -> Option<Grants<'_>> {
        None
    }
    /// The call of a function that it is, if it is one: then it is decided too what that function is given.
    fn invoke(&self) -> Option<&Invoke> {
        None
    }
}

/// What a change hands on to others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grants<'a> {
    /// Roles of the operation's tenant, and where they are for a key, the scopes that narrow them; no scopes do not.
    Roles(&'a [String], &'a [String]),
    /// Accounts that machines stand for, each with its roles.
    Accounts(&'a [ClientAccount]),
    /// To be a user of the node's own issuer, for whoever knows its passphrase: its name, and the roles it shall have.
    User(&'a str, &'a [String]),
    /// What a text of policies permits, and what the one it takes the place of forbids: its name, and the text; no text
    /// where it goes without another in its place.
    Policy(&'a str, &'a str),
    /// What somebody had before it was revoked.
    Revived(&'a Revived),
}
