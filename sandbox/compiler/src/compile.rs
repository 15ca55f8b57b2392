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

    /// The smallest thing that uses each proposal which is switched off.
    const SWITCHED_OFF: &[(&str, &str)] = &[
        ("64-bit memory", "(core module (memory i64 1))"),
        ("64-bit table", "(core module (table i64 1 funcref))"),
        ("shared memory", "(core module (memory 1 1 shared))"),
        ("atomics", "(core module (memory 1) (func (drop (i32.atomic.load (i32.const 0)))))"),
        ("exceptions", "(core module (tag))"),
        ("throwing", "(core module (tag $t) (func (throw $t)))"),
        ("references to things of the host", "(core module (table 1 externref))"),
        ("structures", "(core module (type (struct)))"),
        ("arrays", "(core module (type (array i8)))"),
        ("small integers by reference", "(core module (func (drop (ref.i31 (i32.const 0)))))"),
        ("recursive types", "(core module (rec (type (func)) (type (func))))"),
        ("typed references to functions", "(core module (type $t (func)) (func (param (ref $t))))"),
        (
            "calls through typed references",
            "(core module (type $t (func)) (func (param (ref null $t)) (call_ref $t (local.get 0))))",
        ),
        ("several memories", "(core module (memory 1) (memory 1))"),
        (
            "relaxed SIMD",
            "(core module (func (param v128) (drop (i8x16.relaxed_swizzle (local.get 0) (local.get 0)))))",
        ),
        ("page sizes", "(core module (memory 1 (pagesize 1)))"),
        (
            "wide arithmetic",
            "(core module (func (i64.add128 (i64.const 0) (i64.const 0) (i64.const 0) (i64.const 0)) drop drop))",
        ),
        ("stack switching", "(core module (type $f (func)) (type (cont $f)))"),
        ("shared globals", "(core module (global (shared i32) (i32.const 0)))"),
        ("asynchronous functions", "(type (func async))"),
        ("streams", "(type (stream u8))"),
        ("futures", "(type (future u8))"),
        ("tasks of a component", "(core func (canon backpressure.inc))"),
        ("threads of a component", "(core func (canon thread.index))"),
        ("errors with a context", "(core func (canon error-context.drop))"),
    ];

    #[test]
    fn proposals_outside_the_profile_are_refused() {
        let mut taken = Vec::new();
        for (name, more) in SWITCHED_OFF {
            match compile(&handler(more)) {
                Err(Refusal::Compile(_) | Refusal::Invalid(_)) => {}
                Ok(_) => taken.push(format!("{name}: compiled")),
                Err(other) => taken.push(format!("{name}: {other:?}")),
            }
        }
        assert!(taken.is_empty(), "{taken:#?}");
    }

    #[test]
    fn proposals_the_languages_served_need_are_taken() {
        for (name, more) in [
            ("SIMD", "(core module (func (drop (i32x4.splat (i32.const 0)))))"),
            ("bulk memory", "(core module (memory 1) (func (memory.fill (i32.const 0) (i32.const 0) (i32.const 0))))"),
            ("references to functions", "(core module (table 1 funcref) (func (drop (table.get 0 (i32.const 0)))))"),
            ("several results", "(core module (func (result i32 i32) (i32.const 0) (i32.const 0)))"),
            ("tail calls", "(core module (func $f (return_call $f)))"),
            ("extended constants", "(core module (global i32 (i32.add (i32.const 1) (i32.const 2))))"),
            ("saturating conversions", "(core module (func (drop (i32.trunc_sat_f32_s (f32.const 0)))))"),
            ("mutable globals", "(core module (global (export \"g\") (mut i32) (i32.const 0)))"),
        ] {
            assert!(compile(&handler(more)).is_ok(), "{name}");
        }
    }

    /// The settings the machine code was made with are in it, as name and value.
    #[test]
    fn machine_code_is_made_with_its_guards_on() {
        let artifact = compile(&handler("")).ok().unwrap().artifact;
        let value = |name: &str| {
            let at = artifact
                .windows(name.len())
                .position(|piece| piece == name.as_bytes())
                .unwrap_or_else(|| panic!("{name}"));
            artifact[at + name.len()..][..2].to_vec()
        };
        // A truth value is its kind and itself.
        let (on, off) = ([2, 1], [2, 0]);
        for guard in ["enable_heap_access_spectre_mitigation", "enable_table_access_spectre_mitigation"] {
            assert_eq!(value(guard), on, "{guard}");
        }
        assert_eq!(value("enable_pinned_reg"), off, "what is off looks otherwise");
    }

    #[test]
    fn the_engine_hash_depends_on_the_profile() {
        let hash = |epoch| engine_hash(&Engine::new(profile::config().epoch_interruption(epoch)).unwrap());
        assert_eq!(hash(true), hash(true));
        assert_ne!(hash(true), hash(false));
    }
}
