//! The door: the only code that speaks TLS and HTTP to the network.
//!
//! Owns the way of every request, from the first byte of its connection to the last byte of its answer, written as one
//! straight function in [`pipeline`]. Must never run a guest, decide by itself or answer what is not recorded.

mod audit;
mod aws;
pub mod body;
pub mod call;
pub mod certificate;
mod change;
pub mod client;
pub mod config;
mod credentials;
pub mod doors;
pub mod drain;
pub mod egress;
pub mod error;
mod evidence;
mod flood;
mod identify;
mod inquire;
mod io;
pub mod limits;
pub mod listen;
pub mod live;
mod manage;
pub mod metrics;
pub mod node;
mod observe;
mod peers;
mod perform;
pub mod pipeline;
mod pulse;
pub mod receipts;
pub mod refusal;
pub mod respond;
pub mod root;
pub mod routes;
pub mod signed;
pub mod sinks;
mod sniff;
mod stream;
mod subjects;
pub mod tls;
mod token;
mod turn;
mod watch;

pub use audit::{Rung, Tallies};
pub use config::AuditConfig;
pub use error::GatewayError;
pub use live::Live;
pub use node::{Node, Uploads};
pub use subjects::Subjects;
