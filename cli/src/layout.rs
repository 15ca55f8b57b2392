//! Where everything is below a node's data directory.
//!
//! Owns the names of files, in one place, so that `init` makes what `serve` looks for. Must never open one.

use std::path::{Path, PathBuf};

/// A data directory.
#[derive(Debug, Clone)]
pub(crate) struct Layout(PathBuf);

impl Layout {
    /// The layout below `data`.
    pub(crate) fn at(data: &Path) -> Self {
        Self(data.to_owned())
    }

    /// The directory itself: also of the store, the root key and the pepper.
    pub(crate) fn data(&self) -> &Path {
        &self.0
    }

    /// The configuration `init` writes.
    pub(crate) fn config(&self) -> PathBuf {
        self.0.join("cofferdam.toml")
    }

    /// The operator's first API key.
    pub(crate) fn operator_key(&self) -> PathBuf {
        self.0.join("operator.key")
    }

    /// The certificate `init` makes.
    pub(crate) fn certificate(&self) -> PathBuf {
        self.0.join("tls/cert.pem")
    }

    /// Its private key.
    pub(crate) fn certificate_key(&self) -> PathBuf {
        self.0.join("tls/key.pem")
    }

    /// The log.
    pub(crate) fn audit(&self) -> PathBuf {
        self.0.join("audit")
    }

    /// The key that signs the log's checkpoints. Outside the log, whose files may be copied to anyone.
    pub(crate) fn audit_key(&self) -> PathBuf {
        self.0.join("audit.key")
    }

    /// The key by which artifacts are recognised as our own.
    pub(crate) fn artifact_key(&self) -> PathBuf {
        self.0.join("artifact.key")
    }

    /// Components and what the compiler made of them.
    pub(crate) fn artifacts(&self) -> PathBuf {
        self.0.join("artifacts")
    }

    /// Last good keys of issuers, for a start while one is out of reach.
    pub(crate) fn issuer_keys(&self) -> PathBuf {
        self.0.join("issuer-keys")
    }

    /// Logs of functions.
    pub(crate) fn logs(&self) -> PathBuf {
        self.0.join("logs")
    }
}
