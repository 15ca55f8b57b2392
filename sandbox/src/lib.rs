//! The host side of an invocation: cells, the channel to them, artifacts, function logs.
//!
//! Owns every process that runs tenant code, from its start to its last breath. Must never run a guest, compile one
//! or link an engine itself, never believe a cell, and never hand a call over without the open audit entry of it.

mod artifact;
mod cell;
mod cells;
mod cgroup;
mod channel;
mod client;
mod compile;
mod config;
mod egress;
mod error;
mod invoke;
mod library;
mod logs;
mod node;
mod outcome;
mod pump;
mod store;
#[cfg(test)]
mod testing;
mod turns;

pub use artifact::artifact_flaw;
pub use cells::{Cause, CellInfo, Gauges};
pub use cgroup::cgroups;
pub use client::{Attended, Client, attended};
pub use config::{Deployment, InboundBody, Ready, SandboxConfig, Unseal};
pub use egress::{Attempt, EgressError, IncomingBody, OpenOutlet, Outgoing, OutgoingBody, Outlet, Patience, Sent};
pub use error::{BoxError, InboundError, SandboxError, SecretsUnavailable};
pub use library::{Hold, Prepared};
pub use logs::LogPage;
pub use node::Sandbox;
pub use outcome::{Answer, AnswerBody, Cut, Failure, Waited};
