//! What can go wrong with the sandbox outside of a call, named for what the caller decides on it.
//!
//! Owns `SandboxError` (starting, preparing, reading logs) and `InboundError` (a request body that broke off). Must
//! never carry a guest's bytes unescaped.

use std::io;
use std::path::PathBuf;

use cofferdam_model::{Digest, Isolation};

/// Whatever another crate's error is, where this crate only passes it on.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why the sandbox could not start, prepare a component or read a log.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// A program of ours is missing or does not run. The operator's to repair.
    #[error("`{path}` cannot be run; build it with `make build`, or correct its path in the configuration")]
    Program {
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A program of ours is of another version than this one. The operator's to repair.
    #[error(
        "`{path}` says it is `{found}` where `{expected}` is needed; run `make build` so that all are of one version"
    )]
    Version {
        /// Which.
        path: PathBuf,
        /// What it should say.
        expected: String,
        /// What it said.
        found: String,
    },
    /// The host cannot isolate cells as the configuration demands.
    #[error(
        "cells reach isolation `{}` on this host, `{}` is required; see `cofferdam doctor`",
        reached.as_str(),
        required.as_str()
    )]
    Isolation {
        /// What cells reach.
        reached: Isolation,
        /// What is required.
        required: Isolation,
    },
    /// A cell could not be started.
    #[error("a cell did not start: {reason}")]
    CellStart {
        /// What was observed, with what the cell said of it.
        reason: String,
        /// Cause, where there is one.
        #[source]
        source: Option<io::Error>,
    },
    /// The version cannot be loaded by a cell.
    #[error("the function cannot be loaded: {reason}")]
    Load {
        /// What the cell said.
        reason: String,
    },
    /// The component is refused. Its author's to repair.
    #[error("the component is refused: {reason}")]
    Refused {
        /// Stable code of the reason.
        code: String,
        /// Why, in words meant for its author.
        reason: String,
    },
    /// The component is larger than allowed.
    #[error("the component has {bytes} bytes, at most {limit} are allowed")]
    TooLarge {
        /// Its size.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// There is no room for another component. The operator's to decide on.
    #[error("the store of components is full at {limit} bytes (`limits.artifact_store_bytes`)")]
    StoreFull {
        /// The limit.
        limit: u64,
    },
    /// Too much is under way; later it may work.
    #[error("too many {what} are under way")]
    Busy {
        /// Of what.
        what: &'static str,
    },
    /// The compiler failed in a way that is not the component's fault.
    #[error("the compiler failed: {reason}")]
    Compiler {
        /// What was observed.
        reason: String,
        /// Cause, where there is one.
        #[source]
        source: Option<io::Error>,
    },
    /// Neither artifact nor component of a version is there.
    #[error("component `{component}` is not in the store")]
    Missing {
        /// Which.
        component: Digest,
    },
    /// A stored file is not what was stored. Never used.
    #[error("`{path}` was changed since it was stored: {what}")]
    Tampered {
        /// Which file.
        path: PathBuf,
        /// What does not fit.
        what: &'static str,
    },
    /// The environment of a function could not be unsealed.
    #[error("the function's environment could not be unsealed")]
    Unseal(#[source] BoxError),
    /// What opens environments and credentials cannot be had at the moment. It may come back.
    #[error("the function's secrets cannot be opened at the moment")]
    Secrets(#[source] BoxError),
    /// The way out of a function could not be opened.
    #[error("the function's egress could not be set up")]
    Outlet(#[source] BoxError),
    /// A file could not be read or written.
    #[error("could not {action} `{path}`")]
    File {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The sandbox is shutting down.
    #[error("the sandbox is shutting down")]
    Closing,
}

/// Says of an error that what opens secrets is out of reach, which may pass. For who opens them.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct SecretsUnavailable(pub BoxError);

impl SandboxError {
    /// What could not be opened: for now, or at all.
    pub(crate) fn opening(error: BoxError, otherwise: fn(BoxError) -> Self) -> Self {
        match error.downcast::<SecretsUnavailable>() {
            Ok(unavailable) => Self::Secrets(unavailable.0),
            Err(error) => otherwise(error),
        }
    }

    pub(crate) fn file(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { action, path, source }
    }
}

/// Why a request body ended before its end.
#[derive(Debug, thiserror::Error)]
pub enum InboundError {
    /// Longer than allowed.
    #[error("the request body is longer than allowed")]
    TooLarge,
    /// No byte came for too long.
    #[error("the request body stalled")]
    Stalled,
    /// The client went away or broke the protocol.
    #[error("the request body broke off")]
    Gone(#[source] BoxError),
    /// It is not the body that the request was signed with.
    #[error("the request body is not the one that was signed")]
    Altered,
}
