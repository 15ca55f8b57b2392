//! Where the components under test are.
//!
//! Owns finding them. Must never build one: `make fixtures` does, and a missing one fails loudly with that remedy.

use std::path::{Path, PathBuf};

/// The root of the repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_path_buf).unwrap_or_default()
}

/// A component that is committed: `whoami/whoami.wasm`, `hello-c/hello-c.wasm`, `faults/faults.wasm`.
pub fn committed(path: &str) -> PathBuf {
    root().join("examples").join(path)
}

/// A hostile component that is committed beside its source.
pub fn hostile(name: &str) -> PathBuf {
    root().join("tests/guests").join(name)
}

/// A component that `make fixtures` builds from npm or PyPI: `hello-js.wasm`, `hello-py.wasm`.
///
/// # Panics
/// Where it was not built.
pub fn built(name: &str) -> PathBuf {
    let folder = std::env::var_os("COFFERDAM_FIXTURES").map_or_else(|| root().join(".fixtures"), PathBuf::from);
    let mut found: Vec<_> = std::fs::read_dir(&folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path().join(name))
        .filter(|path| path.is_file())
        .collect();
    found.sort_by_key(|path| path.metadata().and_then(|m| m.modified()).ok());
    found.pop().unwrap_or_else(|| panic!("{name} is not below {}: run `make fixtures`", folder.display()))
}

/// A binary of ours, built in release by `make build`.
///
/// # Panics
/// Where it was not built.
pub fn binary(name: &str) -> PathBuf {
    let folder = std::env::var_os("COFFERDAM_BIN_DIR").map_or_else(
        || {
            let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
            target.join("release")
        },
        PathBuf::from,
    );
    let path = folder.join(name);
    if !path.is_file() {
        panic!("{} is not there: run `make build`, or set COFFERDAM_BIN_DIR", path.display());
    }
    path
}
