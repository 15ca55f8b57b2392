//! The syscall filters: which file belongs to whom, and putting them on.
//!
//! Owns installing. Must never hold a rule itself: those are data, with their reasons, in `sandbox/seccomp`.

use std::io;

use crate::confine::Role;
use crate::error::JailError;
use crate::filter::Filter;
use crate::limits;
use crate::report::{LayerName, Report};

const WORKER: (&str, &str) = ("worker", include_str!("../../seccomp/worker.filter"));
const SEALED: (&str, &str) = ("worker-sealed", include_str!("../../seccomp/worker-sealed.filter"));
const COMPILER: (&str, &str) = ("compiler", include_str!("../../seccomp/compiler.filter"));
const GUARDIAN: (&str, &str) = ("guardian", include_str!("../../seccomp/guardian.filter"));

fn programs(file: (&'static str, &str)) -> Result<Vec<seccompiler::BpfProgram>, JailError> {
    let own = rustix::process::getpid().as_raw_nonzero().get().unsigned_abs();
    Filter::parse(file.0, file.1, own.into())?.programs()
}

/// Puts the filter of `role` on the calling thread; threads made later inherit it.
pub(crate) fn install(role: Role, report: &mut Report) -> Result<(), JailError> {
    let file = match role {
        Role::Worker => WORKER,
        Role::Compiler => COMPILER,
    };
    for program in programs(file)? {
        if let Err(error) = seccompiler::apply_filter(&program) {
            report.off(LayerName::Seccomp, error);
            return Ok(());
        }
    }
    report.on(LayerName::Seccomp, format_args!("filter `{}`, everything else kills", file.0));
    Ok(())
}

/// The guardian's filter. A host that cannot filter says so in the jailed process's report.
pub(crate) fn install_guardian() {
    for program in programs(GUARDIAN).unwrap_or_default() {
        drop(seccompiler::apply_filter(&program));
    }
}

/// Closes a worker for good: no memory may become executable any more, none may be made out of a file, and no
/// filter may be added. To be called by a worker once its code is mapped and its memory images are made; works for
/// all its threads. Fails only where a filter could have been installed and was not.
pub fn seal() -> Result<(), JailError> {
    let limit = limits::lower(rustix::process::Resource::Fsize, 0);
    limit.map_err(|error| JailError::Seal(error.into()))?;
    for program in programs(SEALED)? {
        seccompiler::apply_filter_all_threads(&program).map_err(|error| JailError::Seal(io::Error::other(error)))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_filter_of_this_build_parses_and_compiles() {
        for file in [WORKER, SEALED, COMPILER, GUARDIAN] {
            assert!(!programs(file).unwrap().is_empty(), "{}", file.0);
        }
    }

    #[test]
    fn no_filter_allows_what_opens_the_host() {
        for (name, text) in [WORKER, COMPILER, GUARDIAN] {
            assert!(text.contains("\notherwise kill\n"), "{name}");
            for call in
                ["execve", "execveat", "socket", "connect", "ptrace", "bpf", "mount", "unshare", "io_uring_setup"]
            {
                assert!(!text.contains(&format!("allow {call} ")), "{name} allows {call}");
            }
        }
    }
}
