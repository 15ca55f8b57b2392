//! The engine profile: what a guest's machine code may assume and which Wasm proposals exist at all.
//!
//! Owns every setting that shapes compiled code. The compiler and the worker both include this one file, because an
//! artifact is only taken by an engine configured exactly like the one that made it. Must never set how instances
//! are allocated (the worker's business) or how hard code is optimized (the compiler's).

use wasmtime::{Config, WasmFeatures};

/// Bytes of stack Wasm code may use.
const WASM_STACK_BYTES: usize = 512 * 1024;

/// Proposals that guests of the languages served do not need. Each was behind advisories of its own, so code for it
/// is refused when it is compiled rather than trusted when it runs.
const REFUSED: &[WasmFeatures] = &[
    WasmFeatures::GC,
    WasmFeatures::GC_TYPES,
    WasmFeatures::EXCEPTIONS,
    WasmFeatures::LEGACY_EXCEPTIONS,
    WasmFeatures::FUNCTION_REFERENCES,
    WasmFeatures::STACK_SWITCHING,
    WasmFeatures::THREADS,
    WasmFeatures::SHARED_EVERYTHING_THREADS,
    WasmFeatures::MEMORY64,
    WasmFeatures::MULTI_MEMORY,
    WasmFeatures::RELAXED_SIMD,
    WasmFeatures::CUSTOM_PAGE_SIZES,
    WasmFeatures::WIDE_ARITHMETIC,
    WasmFeatures::CM_ASYNC,
    WasmFeatures::CM_ASYNC_STACKFUL,
    WasmFeatures::CM_MORE_ASYNC_BUILTINS,
    WasmFeatures::CM_THREADING,
    WasmFeatures::CM_ERROR_CONTEXT,
    WasmFeatures::CM_GC,
];

/// A configuration with nothing but the profile set.
pub(crate) fn config() -> Config {
    let mut config = Config::new();
    for feature in REFUSED {
        config.wasm_features(*feature, false);
    }
    config
        .concurrency_support(false)
        .epoch_interruption(true)
        .max_wasm_stack(WASM_STACK_BYTES)
        .memory_init_cow(true)
        .memory_may_move(false)
        .signals_based_traps(true)
        .native_unwind_info(false)
        .generate_address_map(false);
    config
}
