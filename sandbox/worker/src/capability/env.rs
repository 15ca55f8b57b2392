//! The function's environment, no arguments, and the end of the call.
//!
//! Must never show anything of this process's own environment, which is empty anyway.

use std::sync::Arc;

use cofferdam_model::secret::Env;
use wasmtime::component::{HasData, Linker};
use wasmtime_wasi::p2::bindings::cli::{environment, exit};

use super::Host;

/// The environment of the one function this cell serves.
pub(super) struct Environment(pub(super) Arc<Env>);

/// A guest that ended itself. `true`: it said it went well.
#[derive(Debug, thiserror::Error)]
#[error("the guest exited with {}", if *.0 { "success" } else { "failure" })]
pub(crate) struct Exited(pub(crate) bool);

impl HasData for Environment {
    type Data<'a> = &'a mut Environment;
}

/// Links environment and exit.
pub(super) fn link(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    environment::add_to_linker::<Host, Environment>(linker, |host| &mut host.env)?;
    exit::add_to_linker::<Host, Environment>(linker, |host| &mut host.env)
}

impl environment::Host for Environment {
    fn get_environment(&mut self) -> wasmtime::Result<Vec<(String, String)>> {
        Ok(self.0.expose().map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }

    fn get_arguments(&mut self) -> wasmtime::Result<Vec<String>> {
        Ok(Vec::new())
    }

    fn initial_cwd(&mut self) -> wasmtime::Result<Option<String>> {
        Ok(None)
    }
}

impl exit::Host for Environment {
    fn exit(&mut self, status: Result<(), ()>) -> wasmtime::Result<()> {
        Err(wasmtime::Error::new(Exited(status.is_ok())))
    }

    fn exit_with_code(&mut self, status: u8) -> wasmtime::Result<()> {
        Err(wasmtime::Error::new(Exited(status == 0)))
    }
}
