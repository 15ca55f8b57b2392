//! Misuse of the proof types that must not compile.
//!
//! Each file in `cases/` is one way round a permit or a record; its first line names the compiler error it must
//! die of. `control.rs` is the same set-up without misuse and must compile, or the others prove nothing.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

/// Where this very build put the libraries.
fn deps() -> PathBuf {
    std::env::current_exe().unwrap().parent().unwrap().to_path_buf()
}

fn newest(name: &str) -> PathBuf {
    let mut found: Vec<(SystemTime, PathBuf)> = std::fs::read_dir(deps())
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| {
            let file = p.file_name().unwrap().to_string_lossy().into_owned();
            file.starts_with(&format!("lib{name}-")) && file.ends_with(".rlib")
        })
        .map(|p| (p.metadata().unwrap().modified().unwrap(), p))
        .collect();
    found.sort();
    found.pop().unwrap_or_else(|| panic!("no lib{name}-*.rlib beside the test; build the whole workspace")).1
}

/// Compiles one file as a library; gives the compiler's words.
fn compile(case: &Path, out: &Path) -> Result<(), String> {
    let mut rustc = Command::new(std::env::var("RUSTC").unwrap_or_else(|_| "rustc".into()));
    rustc.args(["--edition=2024", "--crate-type=lib", "--emit=metadata", "--crate-name=case", "-Adead_code"]);
    rustc.arg("--out-dir").arg(out).arg("-L").arg(format!("dependency={}", deps().display()));
    for name in [
        "cofferdam_model",
        "cofferdam_audit",
        "cofferdam_authz",
        "cofferdam_control",
        "cofferdam_sandbox",
        "cofferdam_gateway",
        "serde_json",
        "serde",
        "http",
    ] {
        rustc.arg("--extern").arg(format!("{name}={}", newest(name).display()));
    }
    let output = rustc.arg(case).output().unwrap();
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

#[test]
fn ways_round_the_proofs_do_not_compile() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("compile_fail/cases");
    let out = tempfile::tempdir().unwrap();
    compile(&folder.join("control.rs"), out.path()).expect("the control case compiles");
    let mut cases = 0;
    for entry in std::fs::read_dir(&folder).unwrap() {
        let case = entry.unwrap().path();
        if case.ends_with("control.rs") {
            continue;
        }
        let text = std::fs::read_to_string(&case).unwrap();
        let code = text.lines().next().unwrap().strip_prefix("// dies of ").expect("first line: // dies of E....");
        let words = compile(&case, out.path()).expect_err(&format!("{} compiled", case.display()));
        assert!(words.contains(&format!("error[{code}]")), "{} died of something else:\n{words}", case.display());
        cases += 1;
    }
    assert!(cases >= 8, "only {cases} cases");
}
