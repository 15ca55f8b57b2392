//! `cofferdam-compiler`: one compile in a process of its own, then gone.
//!
//! Owns the order of its short life: confine, and only then read the first byte of the component. Must never run
//! what it compiles, hold a key, or take a path or an option: bytes come in on stdin and go out on stdout.

mod compile;
mod inspect;
#[path = "../../interfaces.rs"]
mod interfaces;
#[path = "../../profile.rs"]
mod profile;
mod refusal;
mod survey;
mod wire;

use std::io::{Read, Write};
use std::process::ExitCode;

use cofferdam_jail::Role;

use crate::refusal::Refusal;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    match arguments.as_slice() {
        [] => {}
        [only] if only == "--version" => {
            println!("cofferdam-compiler {}", env!("CARGO_PKG_VERSION"));
            return ExitCode::SUCCESS;
        }
        _ => {
            eprintln!("cofferdam-compiler takes no arguments; it is started by `cofferdam serve`");
            return ExitCode::from(2);
        }
    }
    // What a component makes the compiler say is the tenant's to choose, so it says nothing but the reply.
    std::panic::set_hook(Box::new(|_| {}));
    let reply = match cofferdam_jail::confine(Role::Compiler, &[]) {
        Ok(report) => wire::reply(answer(&mut std::io::stdin().lock()), report.isolation()),
        Err(error) => wire::broken(&error.to_string()),
    };
    match std::io::stdout().lock().write_all(&reply).and_then(|()| std::io::stdout().flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn answer(input: &mut impl Read) -> Result<compile::Compiled, Refusal> {
    let component = wire::component(input)?;
    // A compiler that panics on a component has been fed one it cannot take; nothing is kept that could be half done.
    std::panic::catch_unwind(|| compile::compile(&component))
        .unwrap_or_else(|_| Err(Refusal::Compile("it makes the compiler fail".into())))
}
