//! Real processes: shell scripts in the place of the worker.

use super::*;
use crate::compile::version;
use crate::testing::script;

const WITHIN: Duration = Duration::from_secs(20);

fn id() -> CellId {
    CellId::mint(&cofferdam_model::random::SeededRandom::new(1))
}

async fn start(text: &str) -> Result<Blank, SandboxError> {
    let dir = tempfile::tempdir().unwrap();
    let program = Program { path: script(dir.path(), "worker", text) };
    let (stream, process) = program.spawn().unwrap();
    Blank::settle(id(), stream, process, WITHIN).await
}

/// Says `Ready` with isolation `reduced`, on the socket that is its standard input.
const READY: &str = r"printf '\000\000\000\001\020\000\000\000\000\000\000\000\001' >&0";

#[tokio::test]
async fn a_process_that_says_it_is_ready_is_a_blank_cell_until_it_is_killed() {
    let mut blank = start(&format!("#!/bin/sh\n{READY}\nexec sleep 600\n")).await.unwrap();
    assert_eq!(blank.isolation, Isolation::Reduced);
    assert!(blank.is_alive());
    // Returns only once the process is reaped.
    blank.end().await;
}

#[tokio::test]
async fn a_cell_without_a_control_group_is_not_fully_isolated_whatever_it_says() {
    let dir = tempfile::tempdir().unwrap();
    let full = READY.replace(r"\001' >", r"\000' >");
    let program = Program { path: script(dir.path(), "worker", &format!("#!/bin/sh\n{full}\nexec sleep 600\n")) };
    let (stream, process) = program.spawn().unwrap();
    let blank = Blank::settle(id(), stream, process, WITHIN).await.unwrap();
    assert_eq!(blank.isolation, Isolation::Full, "what it says");
    blank.end().await;
    let (stream, mut process) = program.spawn().unwrap();
    process.enter(&Arc::new(Cgroups::none()), &id()).await;
    let blank = Blank::settle(id(), stream, process, WITHIN).await.unwrap();
    assert_eq!(blank.isolation, Isolation::Reduced);
    blank.end().await;
}

#[tokio::test]
async fn a_cell_starts_with_no_environment_no_argument_and_no_descriptor_but_its_socket() {
    let held = std::fs::File::open("/dev/zero").unwrap();
    let text = format!(
        "#!/bin/sh\n\
         [ $# = 0 ] || echo an argument >&2\n\
         [ \"$(pwd)\" = / ] || echo a directory >&2\n\
         tr '\\0' '\\n' < /proc/$$/environ >&2\n\
         for fd in /proc/$$/fd/*; do case $(readlink $fd) in\n\
           socket:*|/dev/null|pipe:*|*/worker) ;;\n\
           *) echo $fd >&2 ;;\n\
         esac; done\n\
         {READY}\n"
    );
    let blank = start(&text).await.unwrap();
    drop(held);
    assert_eq!(blank.process.end().await, "");
}

#[tokio::test]
async fn the_last_words_of_a_cell_that_does_not_start_are_told() {
    let error = start("#!/bin/sh\nprintf 'no \\033[31mjail\\n' >&2\nexit 1\n").await.err().unwrap();
    let text = error.to_string();
    assert!(text.contains(r"it wrote `no \u{1b}[31mjail`"), "{text}");
}

#[tokio::test]
async fn a_cell_that_says_anything_else_first_is_ended() {
    for bytes in [
        r"\000\000\000\001\021\000\000\000\000\000\000\000\001",
        r"\000\000\000\002\020\000\000\000\000\000\000\000\001\001",
        r"\000\000\000\001\020\000\000\000\000\000\000\001\001",
        r"\000\000\000\001\020\000\000\000\000\000\000\000\077",
        "hello, this is no frame",
    ] {
        let text = format!("#!/bin/sh\nprintf '{bytes}' >&0\nexec sleep 600\n");
        assert!(start(&text).await.is_err(), "{bytes}");
    }
}

#[tokio::test]
async fn a_cell_that_never_gets_ready_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let program = Program { path: script(dir.path(), "worker", "#!/bin/sh\nexec sleep 600\n") };
    let (stream, process) = program.spawn().unwrap();
    let error = Blank::settle(id(), stream, process, Duration::from_millis(20)).await.err().unwrap();
    assert_eq!(error.to_string(), "a cell did not start: it was not ready within 20 ms");
}

#[tokio::test]
async fn programs_of_another_version_are_refused_with_the_remedy() {
    let dir = tempfile::tempdir().unwrap();
    let right = format!("#!/bin/sh\necho cofferdam-worker {} abc\n", env!("CARGO_PKG_VERSION"));
    let right = script(dir.path(), "right", &right);
    assert_eq!(version(&right, "cofferdam-worker").await.unwrap(), "abc");
    let error = version(&right, "cofferdam-compiler").await.unwrap_err();
    assert!(matches!(&error, SandboxError::Version { .. }) && error.to_string().contains("make build"), "{error}");
    let old = script(dir.path(), "old", "#!/bin/sh\necho cofferdam-worker 0.0.9\n");
    assert!(matches!(version(&old, "cofferdam-worker").await, Err(SandboxError::Version { .. })));
    let missing = version(&dir.path().join("missing"), "cofferdam-worker").await;
    assert!(matches!(missing, Err(SandboxError::Program { .. })));
    let relative = version(Path::new("cofferdam-worker"), "cofferdam-worker").await;
    assert!(matches!(relative, Err(SandboxError::Program { .. })), "a name is never looked up in a PATH");
}
