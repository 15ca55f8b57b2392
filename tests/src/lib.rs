//! What the evidence stands on: a real node of the real binaries, and clients that speak to it over real TLS.
//!
//! Owns starting, stopping and killing nodes, and finding what they are made of. Must never sleep to synchronise: a
//! node is awaited by the line it prints when it listens.

pub mod client;
pub mod guests;
pub mod memory;
pub mod node;
pub mod outside;
pub mod pki;
pub mod processes;
pub mod scene;

pub use client::{Answer, Broken, Client};
pub use node::{Node, Site};
pub use scene::{LIMITS, Scene};
