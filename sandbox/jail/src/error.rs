//! Why a process may not go on at all. A layer the host merely lacks is no error but a line in the report.
//!
//! Owns the crate's one error type. Must never grow a variant for something the caller could live with.

use std::io;

/// What went so wrong that the process must exit.
#[derive(Debug, thiserror::Error)]
pub enum JailError {
    /// Other threads exist; they would keep everything this one gives up.
    #[error("confining needs a process of one thread, this one has `{0}`")]
    Threads(usize),
    /// The parent passed an environment, which may hold anything.
    #[error("the environment is not empty")]
    Environment,
    /// Inherited descriptors could not be closed.
    #[error("cannot close inherited descriptors")]
    Descriptors(#[source] io::Error),
    /// The jailed process could not be made.
    #[error("cannot fork the jailed process")]
    Fork(#[source] io::Error),
    /// The guardian was gone before the jailed process could tie its life to it.
    #[error("the guardian is gone")]
    Orphaned,
    /// The filter data of this build does not parse.
    #[error("syscall filter `{file}` line {line}: {problem}")]
    FilterData {
        /// Which file.
        file: &'static str,
        /// Which line, from 1.
        line: usize,
        /// What is wrong with it.
        problem: String,
    },
    /// The filter could not be turned into a program for this machine.
    #[error("cannot compile a syscall filter")]
    FilterProgram(#[source] seccompiler::BackendError),
    /// The closing filter was refused, so code could still be added.
    #[error("cannot seal the process")]
    Seal(#[source] io::Error),
}
