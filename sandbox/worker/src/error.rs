//! Why a cell stops. Owns the one error type of this crate; must never carry a byte of the guest's or a secret.

use std::io;

use cofferdam_model::frame::FrameError;

/// Why a cell stops.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WorkerError {
    /// The process could not confine itself, so it must not see a tenant's byte.
    #[error("cannot confine this process")]
    Confine(#[source] cofferdam_jail::JailError),
    /// The inherited socket is missing, broken or not a socket.
    #[error("the channel to the gateway failed")]
    Channel(#[source] io::Error),
    /// Bytes that are no frame.
    #[error("the gateway sent a malformed frame")]
    Frame(#[source] FrameError),
    /// A frame that has no place in the life of a call or cell.
    #[error("the gateway broke the protocol: {0}")]
    Protocol(&'static str),
    /// The artifact is not laid out as agreed.
    #[error("the artifact is malformed: {0}")]
    Artifact(&'static str),
    /// The artifact cannot be mapped.
    #[error("the artifact cannot be mapped")]
    Map(#[source] io::Error),
    /// The engine refuses the artifact or the component in it. The text is for the tenant.
    #[error("the component cannot be loaded: {0}")]
    Load(String),
    /// The runtime or the ticker thread cannot be had.
    #[error("the runtime cannot be started")]
    Runtime(#[source] io::Error),
}

impl From<FrameError> for WorkerError {
    fn from(error: FrameError) -> Self {
        Self::Frame(error)
    }
}
