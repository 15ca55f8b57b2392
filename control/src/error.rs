//! Why a change was refused or failed.
//!
//! Owns the crate's one error type; a variant is a decision its caller can take. Must never hold a secret, and never
//! speak of HTTP: status codes are the gateway's.

use std::path::PathBuf;

use cofferdam_authz::{AuthorityError, PolicyError};

use crate::vault::RootError;

/// Why `control` said no.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// What was named is not there.
    #[error("{what} `{name}` does not exist")]
    NotFound {
        /// Kind of thing.
        what: &'static str,
        /// As it was named.
        name: String,
    },
    /// The name is taken.
    #[error("{what} `{name}` already exists")]
    Exists {
        /// Kind of thing.
        what: &'static str,
        /// As it was named.
        name: String,
    },
    /// A text or number is not what it has to be.
    #[error("{field} `{value}` is not valid: {reason}")]
    Invalid {
        /// What was given.
        field: String,
        /// As it was given, shortened.
        value: String,
        /// What is expected instead.
        reason: String,
    },
    /// A function asks for more than the operator lets anyone have.
    #[error("limit `{limit}` is {asked}, above this installation's ceiling of {ceiling}")]
    AboveCeiling {
        /// Which limit.
        limit: &'static str,
        /// What was asked for.
        asked: u64,
        /// The most there is.
        ceiling: u64,
    },
    /// There are as many as there may be.
    #[error("too many {what}: at most {limit} are allowed")]
    TooMany {
        /// Kind of thing.
        what: &'static str,
        /// The most there may be.
        limit: usize,
    },
    /// Larger than it may be.
    #[error("{what} takes {bytes} bytes, more than the {limit} allowed")]
    TooLarge {
        /// What is too large.
        what: String,
        /// Its size.
        bytes: usize,
        /// The most it may be.
        limit: usize,
    },
    /// The tenant's components would take more room than it has.
    #[error(
        "the component of {bytes} bytes does not fit: the tenant's components take {stored} of the {limit} bytes that \
         its limit `stored_bytes` allows; forget old versions (`cofferdam function prune`), remove functions, or have \
         the operator raise the limit"
    )]
    StorageFull {
        /// Length of the component refused.
        bytes: u64,
        /// Length of those that are stored.
        stored: u64,
        /// The most they may take.
        limit: u64,
    },
    /// Two routes would take the same request.
    #[error("route `{route}` conflicts with `{other}`")]
    RouteConflict {
        /// The one refused.
        route: String,
        /// The one in its way, with the app that owns it.
        other: String,
    },
    /// Another tenant's routes are on this host, and this route was not given a place beside them.
    #[error("route `{route}` is on a host that another tenant uses")]
    HostTaken {
        /// The one refused.
        route: String,
    },
    /// Only operators of the platform may do this.
    #[error("{what} is for operators of the platform only")]
    OperatorsOnly {
        /// What was asked.
        what: &'static str,
    },
    /// The policy text does not compile; the cause names line and column.
    #[error("policy refused")]
    Policy(#[source] PolicyError),
    /// An earlier value that was taken out of use.
    #[error("version {version} of secret `{name}` was taken out of use: only version {epoch} and later are good")]
    BelowEpoch {
        /// Which secret.
        name: String,
        /// The version that was asked for.
        version: u64,
        /// The first that may be gone back to.
        epoch: u64,
    },
    /// The tenant's keys are gone, and everything sealed with them.
    #[error("the keys of tenant `{tenant}` were destroyed: nothing of it can be sealed or opened any more")]
    Shredded {
        /// Which.
        tenant: String,
    },
    /// The keys are others than those that were to be destroyed.
    #[error("the keys of tenant `{tenant}` changed in between, none was destroyed; ask again")]
    KeysChanged {
        /// Whose.
        tenant: String,
    },
    /// What would be destroyed is held.
    #[error("hold `{hold}` keeps that; nothing was destroyed")]
    Held {
        /// The hold's name.
        hold: String,
    },
    /// A rotation could not be brought to its end. What it did stays, and asking again goes on with it.
    #[error("the rotation is not over: {what}; ask again to go on with it")]
    Unfinished {
        /// What is left.
        what: String,
    },
    /// An authority of machines is not one; the message says what to give.
    #[error(transparent)]
    Authority(AuthorityError),
    /// Something sealed cannot be opened.
    #[error("a sealed value cannot be opened")]
    Vault(#[from] VaultError),
    /// A file that is about to be made is already there.
    #[error("`{}` is already there, this directory has been initialised before", path.display())]
    AlreadyInitialised {
        /// The file.
        path: PathBuf,
    },
    /// A key file is not as it must be.
    #[error("key file `{}` is not usable: {reason}", path.display())]
    KeyFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A file or directory cannot be used.
    #[error("cannot use `{}`", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The store was written by a newer release.
    #[error("the store has version {found}, this release knows up to {known}")]
    StoreTooNew {
        /// Version found.
        found: i64,
        /// Newest version known.
        known: i64,
    },
    /// The store was written by an older release, and a look does not bring it up to date.
    #[error("the store has version {found}, this release has {known}: starting the node brings it up to date")]
    StoreTooOld {
        /// Version found.
        found: i64,
        /// Version of this release.
        known: i64,
    },
    /// The store holds something this release cannot read.
    #[error("the store is damaged: {what}")]
    Damaged {
        /// What cannot be read.
        what: String,
    },
    /// The store failed.
    #[error("the store failed")]
    Store(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The log cannot be read, of which sums are made.
    #[error("the log cannot be counted")]
    Log(#[source] Box<cofferdam_audit::AuditError>),
    /// The operation is not a change of what exists; the sandbox answers it.
    #[error("action `{action}` is not answered here")]
    NotAChange {
        /// The action.
        action: &'static str,
    },
}

/// Why a sealed value cannot be opened. Says no more than which check failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VaultError {
    /// Sealed by a format this release does not know.
    #[error("envelope format {0} is not known")]
    UnknownFormat(u8),
    /// Sealed by a key version that is not there.
    #[error("key version {0} is not known")]
    UnknownKey(u32),
    /// The key is not the one it was sealed with.
    #[error("sealed with another key")]
    WrongKey,
    /// The ciphertext or what it is bound to has been altered.
    #[error("altered, or bound to another place")]
    Altered,
    /// The bytes are not an envelope.
    #[error("not an envelope")]
    Malformed,
    /// The tenant's key was wrapped by a root key of which nothing is known here.
    #[error("root key `{0}` is not known")]
    UnknownRoot(String),
    /// The root key did not do its part.
    #[error("the tenant's key cannot be had")]
    Root(#[from] RootError),
    /// The crypto library failed.
    #[error("the crypto library failed")]
    Crypto,
}

impl VaultError {
    /// Whether it may pass: the root key is out of reach, or does not let us at the moment.
    pub fn is_root_unavailable(&self) -> bool {
        matches!(self, Self::Root(RootError::Unavailable(_) | RootError::Refused(_)))
    }
}

impl ControlError {
    /// A refusal of `value` as `field`.
    pub(crate) fn invalid(field: impl Into<String>, value: &str, reason: impl Into<String>) -> Self {
        let value =
            if value.chars().count() > 80 { value.chars().take(80).chain(['…']).collect() } else { value.to_owned() };
        Self::Invalid { field: field.into(), value, reason: reason.into() }
    }

    /// A refusal because `name` is not there.
    pub(crate) fn not_found(what: &'static str, name: impl Into<String>) -> Self {
        Self::NotFound { what, name: name.into() }
    }

    /// What can be done about it, where more can be said than the message does.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::AlreadyInitialised { .. } => Some("choose another directory, or remove this one if it may be lost"),
            Self::KeyFile { .. } => Some("a key file is 32 bytes and readable by its owner alone (mode 0600)"),
            Self::HostTaken { .. } => {
                Some("use a host of your own, or have an operator give you a path of your own on it")
            }
            Self::BelowEpoch { .. } => Some("set the value anew if it is to be used all the same"),
            Self::Vault(error) if error.is_root_unavailable() => {
                Some("see `cofferdam vault status`; what needs no secret goes on meanwhile")
            }
            Self::AboveCeiling { .. } => Some("ask for less, or have the operator raise the ceiling"),
            _ => None,
        }
    }
}
