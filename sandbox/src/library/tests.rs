//! The store with a scripted compiler: what is made once, what is made anew, what is refused.

use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::testing;
use cofferdam_model::Limits;

struct Rig {
    dir: tempfile::TempDir,
    compiler: PathBuf,
}

/// A compiler that notes each run and gives the reply prepared for it.
fn rig(status: u8, json: &str, code: &[u8]) -> Rig {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().display();
    let text = format!("#!/bin/sh\ncat > {at}/component\necho run >> {at}/runs\nexec cat {at}/reply\n");
    let compiler = testing::script(dir.path(), "compiler", &text);
    let length = u32::try_from(json.len()).unwrap().to_be_bytes();
    let reply = [&[status], length.as_slice(), json.as_bytes(), code].concat();
    std::fs::write(dir.path().join("reply"), reply).unwrap();
    Rig { dir, compiler }
}

fn good() -> Rig {
    let engine = "cd".repeat(32);
    let rest = r#""compiler":"c 1","imports":["wasi:io/poll@0.2.0"]"#;
    let json = format!(r#"{{"isolation":"full","artifact_bytes":4,"engine":"{engine}",{rest}}}"#);
    rig(0, &json, b"code")
}

impl Rig {
    fn open(&self) -> Arc<Library> {
        let config = testing::config(self.dir.path(), self.compiler.clone(), Limits::default());
        Arc::new(Library::open(&config).unwrap())
    }

    fn runs(&self) -> usize {
        std::fs::read_to_string(self.dir.path().join("runs")).map_or(0, |text| text.lines().count())
    }

    fn artifact(&self, library: &Library, component: Digest) -> PathBuf {
        library.dir.join(library.artifact_name(component))
    }
}

fn tenant() -> TenantId {
    TenantId::mint(&cofferdam_model::random::SeededRandom::new(1))
}

fn overwrite(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = std::fs::read(path).unwrap();
    change(&mut bytes);
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::write(path, bytes).unwrap();
}

#[tokio::test]
async fn a_component_is_compiled_once_also_across_restarts() {
    let rig = good();
    let library = rig.open();
    let prepared = library.prepare(&tenant(), "component".into()).await.unwrap();
    assert_eq!(prepared, Prepared { component: sha256(b"component"), imports: vec!["wasi:io/poll@0.2.0".into()] });
    assert_eq!(std::fs::read(rig.dir.path().join("component")).unwrap(), b"\0\0\0\0\0\0\0\x09component");
    assert_eq!(library.prepare(&tenant(), "component".into()).await.unwrap(), prepared);
    assert_eq!(rig.open().prepare(&tenant(), "component".into()).await.unwrap(), prepared);
    assert_eq!(rig.runs(), 1);
}

#[tokio::test]
async fn uploads_of_the_same_component_at_once_are_compiled_once() {
    let rig = good();
    let library = rig.open();
    let uploads: Vec<_> = (0..4)
        .map(|_| {
            let library = library.clone();
            tokio::spawn(async move { library.prepare(&tenant(), "component".into()).await })
        })
        .collect();
    for upload in uploads {
        upload.await.unwrap().unwrap();
    }
    assert_eq!(rig.runs(), 1);
}

#[tokio::test]
async fn refusals_are_remembered_failures_are_not() {
    let rig = rig(1, r#"{"code":"component_no_handler","message":"exports nothing"}"#, b"");
    let library = rig.open();
    for _ in 0..3 {
        let refused = library.prepare(&tenant(), "component".into()).await.unwrap_err();
        assert!(matches!(refused, SandboxError::Refused { code, .. } if code == "component_no_handler"));
    }
    assert_eq!(rig.runs(), 1);

    let rig = self::rig(2, r#"{"code":"compiler_failed","message":"no memory"}"#, b"");
    let library = rig.open();
    for _ in 0..2 {
        let failed = library.prepare(&tenant(), "component".into()).await.unwrap_err();
        assert!(matches!(failed, SandboxError::Compiler { reason, .. } if reason == "no memory"));
    }
    assert_eq!(rig.runs(), 2);
}

#[tokio::test]
async fn remembered_refusals_are_bounded() {
    let library = good().open();
    for number in 0..REFUSALS + 10 {
        let error = SandboxError::Refused { code: "c".into(), reason: "r".into() };
        library.remember(sha256(&number.to_be_bytes()), &error);
    }
    assert_eq!(library.kept().refusals.len(), REFUSALS);
}

#[tokio::test]
async fn a_tampered_artifact_is_never_used_but_made_anew() {
    let rig = good();
    let library = rig.open();
    let component = library.prepare(&tenant(), "component".into()).await.unwrap().component;
    overwrite(&rig.artifact(&library, component), |bytes| *bytes.last_mut().unwrap() ^= 1);
    let sealed = rig.open().artifact(&tenant(), component).await.unwrap();
    assert_eq!(sealed.header.component, component);
    assert_eq!(rig.runs(), 2);
}

#[tokio::test]
async fn an_artifact_under_another_components_name_is_not_used() {
    let rig = good();
    let library = rig.open();
    let one = library.prepare(&tenant(), "one".into()).await.unwrap().component;
    let two = library.prepare(&tenant(), "two".into()).await.unwrap().component;
    std::fs::rename(rig.artifact(&library, one), rig.artifact(&library, two)).unwrap();
    assert_eq!(rig.open().artifact(&tenant(), two).await.unwrap().header.component, two);
    assert_eq!(rig.runs(), 3);
}

#[tokio::test]
async fn a_tampered_component_is_refused() {
    let rig = good();
    let library = rig.open();
    let component = library.prepare(&tenant(), "component".into()).await.unwrap().component;
    overwrite(&library.dir.join(component_name(component)), |bytes| bytes[0] ^= 1);
    std::fs::remove_file(rig.artifact(&library, component)).unwrap();
    let error = rig.open().artifact(&tenant(), component).await.unwrap_err();
    assert!(matches!(error, SandboxError::Tampered { .. }), "{error}");
}

#[tokio::test]
async fn another_compiler_makes_every_artifact_anew() {
    let rig = good();
    let component = rig.open().prepare(&tenant(), "component".into()).await.unwrap().component;
    let text = std::fs::read_to_string(&rig.compiler).unwrap() + "# newer\n";
    testing::script(rig.dir.path(), "compiler", &text);
    rig.open().artifact(&tenant(), component).await.unwrap();
    assert_eq!(rig.runs(), 2);
}

#[test]
fn another_compiler_or_processor_is_another_build() {
    let of = |compiler: &str, arch: &str, cpu: &str| {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(compiler.as_bytes());
        with_processor(context, arch, cpu)
    };
    let ours = of("compiler", "x86_64", "model : A\nflags : sse avx\nflags : other core\n");
    assert_eq!(ours, of("compiler", "x86_64", "model : B\nflags : sse avx\n"), "a name is no feature");
    for other in [
        of("compiler", "x86_64", "flags : sse avx avx2\n"),
        of("compiler", "x86_64", "flags : sse\n"),
        of("compiler", "aarch64", "flags : sse avx\n"),
        of("compiler2", "x86_64", "flags : sse avx\n"),
    ] {
        assert_ne!(ours, other);
    }
}

#[tokio::test]
async fn an_artifact_of_another_machine_is_made_anew_though_its_key_is_ours() {
    let rig = good();
    let library = rig.open();
    let component = library.prepare(&tenant(), "component".into()).await.unwrap().component;
    let header = Header {
        component,
        build: Digest([8; 32]),
        engine: Digest([0; 32]),
        compiler: "none".into(),
        imports: Vec::new(),
    };
    let framed = Framed::new(&library.key, &header, b"foreign").unwrap();
    let foreign = framed.parts(b"foreign").concat();
    overwrite(&rig.artifact(&library, component), |bytes| *bytes = foreign);
    let sealed = rig.open().artifact(&tenant(), component).await.unwrap();
    assert_eq!(sealed.header.build, library.build);
    assert_eq!(rig.runs(), 2);
}

#[tokio::test]
async fn what_was_never_taken_in_is_missing() {
    let error = good().open().artifact(&tenant(), Digest([9; 32])).await.unwrap_err();
    assert!(matches!(error, SandboxError::Missing { .. }));
}

#[tokio::test]
async fn a_component_over_the_limit_is_not_even_hashed() {
    let rig = good();
    let limits = Limits { component_bytes: 3, ..Limits::default() };
    let library = Library::open(&testing::config(rig.dir.path(), rig.compiler.clone(), limits)).unwrap();
    let error = Arc::new(library).prepare(&tenant(), "four".into()).await.unwrap_err();
    assert!(matches!(error, SandboxError::TooLarge { bytes: 4, limit: 3 }));
    assert_eq!(rig.runs(), 0);
}

#[tokio::test]
async fn a_compile_that_takes_too_long_is_killed_and_refused() {
    let dir = tempfile::tempdir().unwrap();
    let compiler = testing::script(dir.path(), "compiler", "#!/bin/sh\nexec sleep 600\n");
    let limits = Limits { compile_ms: 50, ..Limits::default() };
    let library = Arc::new(Library::open(&testing::config(dir.path(), compiler, limits)).unwrap());
    let error = library.prepare(&tenant(), "component".into()).await.unwrap_err();
    assert!(matches!(error, SandboxError::Refused { code, .. } if code == "component_too_costly"));
}

#[tokio::test]
async fn a_compile_ended_by_time_or_a_signal_is_refused_and_tried_again() {
    for (name, ends) in [("slow", "exec sleep 600"), ("killed", "kill -KILL $$")] {
        let dir = tempfile::tempdir().unwrap();
        let runs = dir.path().join("runs");
        let text = format!("#!/bin/sh\necho run >> {}\n{ends}\n", runs.display());
        let compiler = testing::script(dir.path(), "compiler", &text);
        let limits = Limits { compile_ms: 2_000, ..Limits::default() };
        let library = Arc::new(Library::open(&testing::config(dir.path(), compiler, limits)).unwrap());
        for _ in 0..2 {
            let error = library.prepare(&tenant(), "component".into()).await.unwrap_err();
            assert!(matches!(error, SandboxError::Refused { code, .. } if code == "component_too_costly"), "{name}");
        }
        assert_eq!(std::fs::read_to_string(runs).unwrap().lines().count(), 2, "{name}: not held against it");
    }
}

#[tokio::test]
async fn a_compiler_that_writes_without_end_is_killed_and_refused() {
    let dir = tempfile::tempdir().unwrap();
    let compiler = testing::script(dir.path(), "compiler", "#!/bin/sh\nexec cat /dev/zero\n");
    let limits = Limits { artifact_bytes: 1000, ..Limits::default() };
    let library = Arc::new(Library::open(&testing::config(dir.path(), compiler, limits)).unwrap());
    assert!(library.prepare(&tenant(), "component".into()).await.is_err());
}

#[tokio::test]
async fn a_full_store_takes_no_further_component_and_keeps_those_it_has() {
    let rig = good();
    rig.open().prepare(&tenant(), "component".into()).await.unwrap();
    let limits = Limits { artifact_store_bytes: 1, ..Limits::default() };
    let library = Arc::new(Library::open(&testing::config(rig.dir.path(), rig.compiler.clone(), limits)).unwrap());
    let refused = library.prepare(&tenant(), "another".into()).await.unwrap_err();
    assert!(matches!(refused, SandboxError::StoreFull { limit: 1 }), "{refused}");
    assert!(!library.dir.join(component_name(sha256(b"another"))).exists());
    std::fs::remove_file(rig.artifact(&library, sha256(b"component"))).unwrap();
    library.artifact(&tenant(), sha256(b"component")).await.unwrap();
}

#[tokio::test]
async fn what_nobody_refers_to_is_deleted_and_what_is_held_is_not() {
    let rig = good();
    let library = rig.open();
    let (kept, _) = library.take_in(&tenant(), "kept".into()).await.unwrap();
    let (dropped, _) = library.take_in(&tenant(), "dropped".into()).await.unwrap();
    let (uploading, hold) = library.take_in(&tenant(), "uploading".into()).await.unwrap();
    let files = |of: &Prepared| {
        let [component, artifact] = [component_name(of.component), library.artifact_name(of.component)];
        [library.dir.join(component).exists(), library.dir.join(artifact).exists()]
    };
    let referenced = || Some(HashSet::from([kept.component]));
    assert_eq!(library.collect(|| None).unwrap(), 0);
    assert_eq!([files(&kept), files(&dropped), files(&uploading)], [[true; 2]; 3], "not knowing deletes nothing");
    assert!(library.collect(referenced).unwrap() > 0);
    assert_eq!([files(&kept), files(&dropped), files(&uploading)], [[true; 2], [false; 2], [true; 2]]);
    drop(hold);
    assert!(library.collect(referenced).unwrap() > 0);
    assert_eq!(files(&uploading), [false; 2]);
    assert_eq!(library.collect(referenced).unwrap(), 0);

    // Taken in once more, it is there again, not only in memory.
    let (again, _) = library.take_in(&tenant(), "dropped".into()).await.unwrap();
    assert_eq!(again, dropped);
    assert_eq!(files(&dropped), [true; 2]);
    assert_eq!(rig.open().artifact(&tenant(), dropped.component).await.unwrap().header.component, dropped.component);
}

#[tokio::test]
async fn what_came_to_be_referred_to_while_it_was_asked_is_not_deleted() {
    let rig = good();
    let library = rig.open();
    let (before, hold) = library.take_in(&tenant(), "before".into()).await.unwrap();
    let (gone, _) = library.take_in(&tenant(), "gone".into()).await.unwrap();
    let (during, _) = library.take_in(&tenant(), "during".into()).await.unwrap();
    let exists = |of: &Prepared| library.dir.join(component_name(of.component)).exists();
    // While the store answers with what it knew, one is let go of that was held, and another taken in once more; both
    // are referred to from then on. Neither had to wait for the answer.
    let collected = library.collect(|| {
        drop(hold);
        drop(library.hold(during.component));
        assert!(library.held.try_lock().is_ok(), "calls would wait for the store");
        Some(HashSet::new())
    });
    assert!(collected.unwrap() > 0);
    assert_eq!([exists(&before), exists(&gone), exists(&during)], [true, false, true]);
    assert!(library.held().since.is_none(), "what is in use is noted only while there is a collection");
    assert!(library.collect(|| Some(HashSet::new())).unwrap() > 0, "the next one finds what stayed unwanted");
    assert_eq!([exists(&before), exists(&during)], [false; 2]);
}

#[tokio::test]
async fn files_that_are_no_components_are_left_alone() {
    let rig = good();
    let library = rig.open();
    let strange = ["notes.txt", "abc.wasm", "x.artifact"].map(|name| library.dir.join(name));
    strange.iter().for_each(|path| std::fs::write(path, "x").unwrap());
    assert_eq!(library.collect(|| Some(HashSet::new())).unwrap(), 0);
    assert!(strange.iter().all(|path| path.exists()));
}
