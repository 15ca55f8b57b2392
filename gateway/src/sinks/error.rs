//! Why records did not arrive, or a sink could not be set up.
//!
//! Must never carry what a server answered, nor a credential: an error ends up in the log itself.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use cofferdam_audit::AuditError;

use crate::error::GatewayError;

/// Why not.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// It cannot be set up.
    #[error("sink `{name}` cannot be set up")]
    Setup {
        /// Which.
        name: String,
        /// Why.
        #[source]
        source: Box<SinkError>,
    },
    /// There is none of that name.
    #[error("there is no sink `{name}`")]
    Unknown {
        /// The name.
        name: String,
    },
    /// There are not that many records.
    #[error("the log ends before record {to}: it has {records}")]
    Beyond {
        /// Where the cursor was to be put.
        to: u64,
        /// Records there are.
        records: u64,
    },
    /// The sinks have stopped.
    #[error("the node is stopping")]
    Stopping,
    /// A file of ours could not be read or written.
    #[error("cannot {action} `{}`", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// A cursor is not one.
    #[error("the cursor `{}` is damaged; remove it to begin anew", path.display())]
    Cursor {
        /// Its file.
        path: PathBuf,
    },
    /// A credential or a secret cannot be used.
    #[error("{0}")]
    Credential(String),
    /// TLS or an address cannot be set up, or nobody is there.
    #[error(transparent)]
    Gateway(#[from] GatewayError),
    /// The log could not be read.
    #[error("the log cannot be read")]
    Log(#[from] AuditError),
    /// The other side broke off.
    #[error("`{authority}` broke off")]
    Broken {
        /// Who.
        authority: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The other side did not say that it had everything.
    #[error("`{authority}` ended the connection without saying that it had everything")]
    Unconfirmed {
        /// Who.
        authority: String,
    },
    /// It took too long.
    #[error("no acknowledgement within {} ms", after.as_millis())]
    Timeout {
        /// How long was waited.
        after: Duration,
    },
    /// The answer is no acknowledgement.
    #[error("`{authority}` answered {status}{}", shown(code))]
    Status {
        /// Who.
        authority: String,
        /// The answer's status.
        status: u16,
        /// The name the error has there; empty where it has none.
        code: String,
        /// When to come back.
        retry_after: Option<Duration>,
    },
    /// Some records were not taken.
    #[error("`{authority}` took the batch but rejected {count} of its records")]
    Rejected {
        /// Who.
        authority: String,
        /// How many.
        count: u64,
    },
    /// Another object has the name.
    #[error("the object `{key}` is there already, with other content")]
    Occupied {
        /// Its name.
        key: String,
    },
}

fn shown(code: &str) -> String {
    if code.is_empty() { String::new() } else { format!(" ({code})") }
}

impl SinkError {
    pub(super) fn file(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { action, path, source }
    }

    /// Whether a smaller batch may be taken.
    pub(super) fn is_too_large(&self) -> bool {
        matches!(self, Self::Status { status: 413, .. })
    }

    /// When to come back, where that was said.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        if let Self::Status { retry_after, .. } = self { *retry_after } else { None }
    }

    /// With its causes, once each.
    pub(super) fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            let said = error.to_string();
            if !text.ends_with(&said) {
                text = format!("{text}: {said}");
            }
            cause = error.source();
        }
        text.chars().filter(|c| !c.is_control()).take(500).collect()
    }
}
