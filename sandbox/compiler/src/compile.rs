//! From a component's bytes to machine code, and what is to be known about it.
//!
//! Owns the engine used for compiling and the hash that tells which engines may load its output. Must never load
//! that output itself: the process has no executable memory to load it into.

use std::hash::{Hash, Hasher};

use cofferdam_model::Digest as Sha256Digest;
use serde::Serialize;
use sha2::{Digest, Sha256};
use wasmtime::{Engine, OptLevel};

use crate::inspect::{self, Needs};
use crate::profile;
use crate::refusal::Refusal;

/// What the header says about a compiled component.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Facts {
    /// Which engines may load it.
    pub(crate) engine: Sha256Digest,
    /// What made it: versions of this program and of the engine, which together with the engine's hash settle it.
    pub(crate) compiler: String,
    /// What the component asks for and consists of.
    #[serde(flatten)]
    pub(crate) needs: Needs,
}

/// A compiled component.
pub(crate) struct Compiled {
    /// About it.
    pub(crate) facts: Facts,
    /// Itself.
    pub(crate) artifact: Vec<u8>,
}

/// Our own version, which goes into every header beside the engine's.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Checks and compiles.
pub(crate) fn compile(component: &[u8]) -> Result<Compiled, Refusal> {
    let needs = inspect::inspect(component)?;
    let failed = |error: wasmtime::Error| Refusal::Compile(format!("{error:#}"));
    let mut config = profile::config();
    config.cranelift_opt_level(OptLevel::Speed);
    let engine = Engine::new(&config).map_err(failed)?;
    let artifact = engine.precompile_component(component).map_err(failed)?;
    let compiler = format!("cofferdam-compiler {VERSION}, wasmtime {}", wasmtime_environ::VERSION);
    Ok(Compiled { facts: Facts { engine: engine_hash(&engine), compiler, needs }, artifact })
}

/// A stable digest of everything that decides whether an artifact can be loaded.
fn engine_hash(engine: &Engine) -> Sha256Digest {
    let mut hasher = Stable(Sha256::new());
    engine.precompile_compatibility_hash().hash(&mut hasher);
    Sha256Digest(hasher.0.finalize().into())
}

/// SHA-256 behind the standard library's interface, whose own hasher may change between releases.
struct Stable(Sha256);

impl Hasher for Stable {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        let whole: [u8; 32] = self.0.clone().finalize().into();
        whole.first_chunk().map_or(0, |first| u64::from_be_bytes(*first))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inspect::tests::handler;

    #[test]
    fn equal_components_give_equal_machine_code() {
        let component = handler("");
        let (once, twice) = (compile(&component).ok().unwrap(), compile(&component).ok().unwrap());
        assert!(once.artifact == twice.artifact);
        assert_eq!(once.facts, twice.facts);
    }

    #[test]
    fn what_the_compiler_made_is_refused_as_input() {
        let compiled = compile(&handler("")).ok().unwrap();
        assert_eq!(compile(&compiled.artifact).err(), Some(Refusal::Precompiled));
    }

    #[test]
    fn proposals_outside_the_profile_are_refused() {
        for module in [
            "(core module (memory i64 1))",
            "(core module (memory 1 1 shared))",
            "(core module (tag))",
            "(core module (type (struct)))",
            "(core module (memory 1) (memory 1))",
        ] {
            let refused = compile(&handler(module)).err();
            assert!(matches!(refused, Some(Refusal::Compile(_) | Refusal::Invalid(_))), "{module}: {refused:?}");
        }
    }

    #[test]
    fn the_engine_hash_depends_on_the_profile() {
        let hash = |epoch| engine_hash(&Engine::new(profile::config().epoch_interruption(epoch)).unwrap());
        assert_eq!(hash(true), hash(true));
        assert_ne!(hash(true), hash(false));
    }
}
