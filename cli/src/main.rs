//! `cofferdam`: the one program of operators, deployers and developers.
//!
//! Owns nothing but the process: arguments in, exit code out. Must never hold logic; the only crate that knows every
//! other is put together from here.

mod cli;
mod commands;
mod demo;
mod failure;
mod keys;
mod layout;
mod manifest;
mod output;
mod passphrase;
mod remote;
mod serve;
mod upkeep;

use std::process::ExitCode;

/// A secret passes through buffers that are not ours to wipe, of TLS and HTTP among others: all of them are wiped when
/// they are freed.
#[global_allocator]
static ALLOCATOR: cofferdam_jail::WipingAllocator = cofferdam_jail::WipingAllocator;

fn main() -> ExitCode {
    ExitCode::from(cli::run(std::env::args_os().collect()))
}
