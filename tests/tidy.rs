//! Style and structure as tests: what a reviewer would otherwise have to repeat.
//!
//! Owns the house rules that can be checked by reading files: lengths, labels, arrows between crates, forbidden
//! links, and that every claim of `docs/THREATS.md` has the test it names. Must never judge taste.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

const MAX_FILE_LINES: usize = 500;
const MAX_FUNCTION_LINES: usize = 70;
const MAX_COLUMNS: usize = 120;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

/// Every file git would track, relative to the root.
fn files() -> Vec<PathBuf> {
    let out = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output()
        .expect("git is needed to list the files");
    assert!(out.status.success(), "git ls-files failed: {}", String::from_utf8_lossy(&out.stderr));
    let listed: BTreeSet<_> = String::from_utf8(out.stdout).unwrap().lines().map(PathBuf::from).collect();
    let there: Vec<_> = listed.into_iter().filter(|f| root().join(f).is_file()).collect();
    assert!(there.len() > 50, "git listed only {} files", there.len());
    there
}

fn rust_files() -> Vec<(PathBuf, String)> {
    let rust = files().into_iter().filter(|f| f.extension().is_some_and(|e| e == "rs"));
    rust.map(|f| (f.clone(), std::fs::read_to_string(root().join(&f)).unwrap())).collect()
}

fn report(what: &str, findings: &[String]) {
    assert!(findings.is_empty(), "{what}:\n  {}", findings.join("\n  "));
}

#[test]
fn every_file_says_what_it_owns() {
    let silent = rust_files()
        .into_iter()
        .filter(|(f, text)| !text.starts_with("//!") && !f.starts_with("tests/compile_fail/cases"));
    report("files without a `//!` first line", &silent.map(|(f, _)| f.display().to_string()).collect::<Vec<_>>());
}

#[test]
fn files_and_lines_are_short() {
    let mut long = Vec::new();
    for (file, text) in rust_files() {
        let lines = text.lines().count();
        if lines > MAX_FILE_LINES {
            long.push(format!("{}: {lines} lines, at most {MAX_FILE_LINES}", file.display()));
        }
        for (number, line) in text.lines().enumerate().filter(|(_, l)| l.chars().count() > MAX_COLUMNS) {
            long.push(format!("{}:{}: {} columns", file.display(), number + 1, line.chars().count()));
        }
    }
    report("too long", &long);
}

/// rustfmt puts a function's closing brace at the indentation of its `fn`, which is all this needs to know.
#[test]
fn functions_are_short() {
    let mut long = Vec::new();
    for (file, text) in rust_files() {
        let lines: Vec<&str> = text.lines().collect();
        for (start, line) in lines.iter().enumerate() {
            let bare = line.trim_start();
            let starts = [
                "fn ",
                "pub fn ",
                "async fn ",
                "pub async fn ",
                "pub(crate) fn ",
                "pub(super) fn ",
                "pub(crate) async fn ",
                "unsafe fn ",
            ];
            if !starts.iter().any(|s| bare.starts_with(s)) {
                continue;
            }
            let indent = &line[..line.len() - bare.len()];
            let close = format!("{indent}}}");
            let body = lines[start..].iter().take_while(|l| **l != close).count();
            let one_liner = line.trim_end().ends_with(';') || line.trim_end().ends_with('}');
            if !one_liner && body > MAX_FUNCTION_LINES {
                long.push(format!("{}:{}: {body} lines, at most {MAX_FUNCTION_LINES}", file.display(), start + 1));
            }
        }
    }
    report("functions too long", &long);
}

#[test]
fn unsafe_lives_in_two_files() {
    let allowed = ["sandbox/jail/src/sys.rs", "sandbox/worker/src/sys.rs"];
    let mut found = Vec::new();
    for (file, text) in rust_files() {
        let path = file.display().to_string();
        let guest = path.starts_with("examples/") || path.starts_with("tests/guests/");
        if allowed.contains(&path.as_str()) || path == "tests/tidy.rs" || guest {
            continue;
        }
        for (number, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            if code.contains("unsafe {") || code.contains("unsafe fn") || code.contains("unsafe impl") {
                found.push(format!("{path}:{}", number + 1));
            }
        }
    }
    report("unsafe outside the two sys.rs files", &found);
}

#[test]
fn nothing_is_left_undone() {
    let marks = [
        concat!("to", "do!("),
        concat!("unimple", "mented!("),
        concat!("#[ig", "nore"),
        concat!("FIX", "ME"),
        concat!("XX", "X"),
    ];
    let mut found = Vec::new();
    for (file, text) in rust_files() {
        for (number, line) in text.lines().enumerate().filter(|(_, l)| marks.iter().any(|m| l.contains(m))) {
            found.push(format!("{}:{}: {}", file.display(), number + 1, line.trim()));
        }
    }
    report("stubs and ignored tests", &found);
}

#[test]
fn no_path_of_one_machine_is_tracked() {
    let marks = [concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/ho", "me/")];
    let mut found = Vec::new();
    for file in files().into_iter().filter(|f| f != Path::new("Cargo.lock")) {
        let Ok(text) = std::fs::read_to_string(root().join(&file)) else { continue };
        for (number, line) in text.lines().enumerate().filter(|(_, l)| marks.iter().any(|m| l.contains(m))) {
            found.push(format!("{}:{}: {}", file.display(), number + 1, line.trim()));
        }
    }
    report("paths of one machine", &found);
}

#[test]
fn the_root_holds_only_what_the_plan_names() {
    let allowed: BTreeSet<&str> = [
        ".ci",
        ".gitignore",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "Cargo.lock",
        "Cargo.toml",
        "LICENSE",
        "Makefile",
        "README.md",
        "SECURITY.md",
        "audit",
        "authz",
        "cli",
        "clippy.toml",
        "control",
        "deny.toml",
        "docs",
        "examples",
        "gateway",
        "model",
        "policies",
        "rust-toolchain.toml",
        "rustfmt.toml",
        "sandbox",
        "tests",
    ]
    .into();
    let tops: BTreeSet<String> = files()
        .iter()
        .filter_map(|f| f.components().next().map(|c| c.as_os_str().to_string_lossy().into_owned()))
        .collect();
    let strange: Vec<_> = tops.into_iter().filter(|t| !allowed.contains(t.as_str())).collect();
    report("names the plan does not know at the root", &strange);
}

fn cargo(args: &[&str]) -> String {
    let out = Command::new(env!("CARGO")).args(args).current_dir(root()).output().expect("cargo runs");
    assert!(out.status.success(), "cargo {args:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

/// Who may know whom. Nothing else of ours.
fn arrows() -> BTreeMap<&'static str, &'static [&'static str]> {
    BTreeMap::from([
        ("cofferdam-model", [].as_slice()),
        ("cofferdam-audit", &["cofferdam-model"]),
        ("cofferdam-authz", &["cofferdam-model"]),
        ("cofferdam-jail", &["cofferdam-model"]),
        ("cofferdam-worker", &["cofferdam-model", "cofferdam-jail"]),
        ("cofferdam-compiler", &["cofferdam-model", "cofferdam-jail"]),
        ("cofferdam-control", &["cofferdam-model", "cofferdam-audit", "cofferdam-authz"]),
        ("cofferdam-sandbox", &["cofferdam-model", "cofferdam-audit", "cofferdam-authz", "cofferdam-jail"]),
        (
            "cofferdam-gateway",
            &["cofferdam-model", "cofferdam-audit", "cofferdam-authz", "cofferdam-sandbox", "cofferdam-control"],
        ),
    ])
}

#[test]
fn arrows_point_one_way() {
    let metadata: serde_json::Value =
        serde_json::from_str(&cargo(&["metadata", "--no-deps", "--format-version=1", "--offline"])).unwrap();
    let mut wrong = Vec::new();
    for package in metadata["packages"].as_array().unwrap() {
        let name = package["name"].as_str().unwrap();
        let Some(allowed) = arrows().get(name).copied() else {
            assert!(["cofferdam", "cofferdam-tests"].contains(&name), "`{name}` has no arrows declared here");
            continue;
        };
        for dependency in package["dependencies"].as_array().unwrap().iter().filter(|d| d["kind"].is_null()) {
            let to = dependency["name"].as_str().unwrap();
            if to.starts_with("cofferdam") && !allowed.contains(&to) {
                wrong.push(format!("{name} -> {to}"));
            }
        }
    }
    report("arrows the plan does not draw", &wrong);
}

#[test]
fn what_must_not_be_linked_is_not() {
    let forbidden: [(&str, &[&str]); 5] = [
        (
            "cofferdam-worker",
            &[
                "rustls",
                "tokio-rustls",
                "cedar-policy",
                "rusqlite",
                "cranelift-codegen",
                "wasmtime-internal-cranelift",
                "jsonwebtoken",
            ],
        ),
        ("cofferdam-compiler", &["rustls", "cedar-policy", "rusqlite", "tokio", "hyper", "wasmtime-wasi"]),
        ("cofferdam", &["wasmtime", "cranelift-codegen"]),
        ("cofferdam-audit", &["cedar-policy", "hyper", "rusqlite", "http"]),
        ("cofferdam-authz", &["hyper", "rusqlite"]),
    ];
    let mut found = Vec::new();
    for (package, names) in forbidden {
        let tree = cargo(&["tree", "--offline", "--locked", "-e", "normal", "--prefix", "none", "-p", package]);
        let linked: BTreeSet<&str> = tree.lines().filter_map(|l| l.split(' ').next()).collect();
        // `http` holds types only; through model it is in every tree, which is no protocol.
        for name in names.iter().filter(|n| **n != "http" && linked.contains(**n)) {
            found.push(format!("{package} links {name}"));
        }
        for name in ["ring", "openssl-sys", "native-tls"].iter().filter(|n| linked.contains(**n)) {
            found.push(format!("{package} links {name}"));
        }
    }
    report("forbidden links", &found);
}

#[test]
fn every_claim_names_a_test_that_exists() {
    let claims = std::fs::read_to_string(root().join("docs/THREATS.md")).unwrap();
    let code: String = rust_files().into_iter().map(|(_, text)| text).collect();
    let (mut missing, mut ids) = (Vec::new(), BTreeSet::new());
    let mut named = 0;
    for row in claims.lines().filter(|l| l.starts_with("| C")) {
        let id = row.split('|').nth(1).unwrap().trim();
        assert!(ids.insert(id), "two claims are called {id}");
        let tests = row.trim_end_matches('|').rsplit('|').next().unwrap();
        let names: Vec<&str> = tests.split('`').skip(1).step_by(2).collect();
        assert!(!names.is_empty(), "a claim without a test: {row}");
        named += names.len();
        missing.extend(names.iter().filter(|n| !code.contains(&format!("fn {n}("))).map(|n| n.to_string()));
    }
    assert!(named >= 20, "only {named} tests are named in docs/THREATS.md");
    report("tests named in docs/THREATS.md that do not exist", &missing);
}

#[test]
fn the_engine_is_of_one_known_version_and_its_advisories_are_written_down() {
    const FLOOR: (u64, u64, u64) = (48, 0, 8);
    let lock = std::fs::read_to_string(root().join("Cargo.lock")).unwrap();
    let mut versions = BTreeSet::new();
    for package in lock.split("[[package]]") {
        let field = |name: &str| package.lines().find_map(|line| line.strip_prefix(name)).map(|v| v.trim_matches('"'));
        let (Some(name), Some(version)) = (field("name = "), field("version = ")) else { continue };
        if name == "wasmtime" || name.starts_with("wasmtime-") {
            versions.insert(version.to_owned());
        }
    }
    assert_eq!(versions.len(), 1, "the engine's crates are of several versions: {versions:?}");
    let version = versions.pop_first().unwrap();
    let mut numbers = version.split('.').map(|number| number.parse::<u64>().unwrap());
    let mut next = || numbers.next().unwrap();
    assert!((next(), next(), next()) >= FLOOR, "wasmtime {version} has known holes");
    let known = std::fs::read_to_string(root().join("docs/ADVISORIES.md")).unwrap();
    assert!(known.contains(&format!("**wasmtime {version}**")), "docs/ADVISORIES.md speaks of another version");
    let fixed = known.split("## Fixed").nth(1).unwrap().split("\n## ").next().unwrap();
    assert_eq!(fixed.lines().filter(|line| line.starts_with("| GHSA-")).count(), 36);
}
