//! How a fresh process of ours shuts itself in, and what this host lets it shut.
//!
//! Owns every layer between a hostile guest that broke out of Wasm and the host: identity, namespaces, empty root,
//! capabilities, limits, Landlock and syscall filters. Must never run tenant code, never decide whether a missing
//! layer is acceptable (the caller reads the [`Report`] and does), and never hide that a layer is missing.
//!
//! Beside that: memory for keys and an allocator that wipes, for every process of ours that holds a secret.
//!
//! Life of a jailed process: its parent starts it with an empty environment and three descriptors; its first act is
//! [`confine`], which forks. The process the parent knows stays behind as the guardian: it holds nothing, passes on
//! how the jailed one ended, and kills it when the parent's end of its channel goes away. The jailed one returns
//! from [`confine`] and may then read its first untrusted byte. A worker calls [`seal`] once its code is mapped.

mod capabilities;
mod confine;
mod error;
mod filter;
mod guardian;
mod host;
mod identity;
mod landlock;
mod limits;
mod memory;
mod namespaces;
mod priority;
mod probe;
mod report;
mod root;
mod seccomp;
mod sys;
mod syscalls;

pub use confine::{Role, confine};
pub use error::JailError;
pub use memory::{KeyPages, KeySlot};
pub use priority::answer_promptly;
pub use probe::probe;
pub use report::{HostCheck, Layer, LayerName, Report, State};
pub use seccomp::seal;
pub use sys::WipingAllocator;

#[cfg(test)]
mod tests;
