//! `cofferdam-worker`: one cell. A jailed process that serves one version of one function of one tenant.
//!
//! Owns the order of a cell's first moments: confine, and only then take a tenant's byte. Must never take arguments,
//! read its environment or open anything.

mod answer;
mod call;
mod capability;
mod cell;
mod channel;
mod engine;
mod error;
mod fetch;
mod limiter;
mod meter;
#[path = "../../profile.rs"]
mod profile;
mod state;
mod sys;
mod ticker;
mod turns;

#[cfg(test)]
mod tests;

use std::error::Error;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::sync::Arc;

use cofferdam_jail::Role;
use cofferdam_model::clock::SystemClock;
use cofferdam_model::random::OsRandom;

use crate::error::WorkerError;

/// What one call was given is wiped when it is freed, before the next call can be given the same memory.
#[global_allocator]
static ALLOCATOR: cofferdam_jail::WipingAllocator = cofferdam_jail::WipingAllocator;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    match arguments.as_slice() {
        [] => {}
        [only] if only == "--version" => {
            println!("cofferdam-worker {}", env!("CARGO_PKG_VERSION"));
            return ExitCode::SUCCESS;
        }
        _ => {
            eprintln!("cofferdam-worker takes no arguments; it is started by `cofferdam serve`");
            return ExitCode::from(2);
        }
    }
    // A panic in one call leaves the others in an unknown state: the cell ends, the gateway starts another.
    std::panic::set_hook(Box::new(|panic| {
        eprintln!("cofferdam-worker: {panic}");
        std::process::abort();
    }));
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let mut text = error.to_string();
            let mut source = error.source();
            while let Some(cause) = source {
                text = format!("{text}: {cause}");
                source = cause.source();
            }
            eprintln!("cofferdam-worker: {text}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), WorkerError> {
    // Asked once and remembered by the library; inside, the question itself would be fatal.
    let _ = rustix::param::page_size();
    let report = cofferdam_jail::confine(Role::Worker, &[]).map_err(WorkerError::Confine)?;
    let socket = channel().map_err(WorkerError::Channel)?;
    let seal = || cofferdam_jail::seal().map_err(WorkerError::Confine);
    cell::live(socket, report.isolation(), seal, Arc::new(SystemClock::default()), Arc::new(OsRandom))
}

/// The socket to the gateway, which is inherited as the standard input.
fn channel() -> io::Result<UnixStream> {
    let stdin = io::stdin().as_fd().try_clone_to_owned()?;
    rustix::net::sockopt::socket_type(&stdin)?;
    Ok(UnixStream::from(stdin))
}
