//! `cofferdam`: the one program of operators, deployers and developers.
//!
//! Owns nothing but the process: arguments in, exit code out. Must never hold logic; the only crate that knows every
//! other is put together from here.

mod cli;
mod commands;
mod demo;
mod failure;
mod layout;
mod manifest;
mod output;
mod passphrase;
mod remote;
mod serve;

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(cli::run(std::env::args_os().collect()))
}
