//! Components made to exhaust the compiler: each ends in a refusal that names what is too much, in bounded time.
//!
//! Owns the bombs, made here and never kept. The compiler is a real process with its real limits.

#[cfg(test)]
mod bombs {
    use std::fmt::Write as _;
    use std::io::Write;
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Command, Stdio};
    use std::time::Duration;

    use cofferdam_model::clock::{Clock, SystemClock};

    /// How a compile ended.
    #[derive(Debug, PartialEq, Eq)]
    enum End {
        Compiled(Vec<u8>),
        Refused(String, String),
        /// By one of its limits.
        Killed(i32),
    }

    fn compile(component: &[u8]) -> End {
        let mut child = Command::new(env!("CARGO_BIN_EXE_cofferdam-compiler"))
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let length = u64::try_from(component.len()).unwrap().to_be_bytes();
        // One that refuses early need not read everything.
        let _ = stdin.write_all(&length).and_then(|()| stdin.write_all(component));
        drop(stdin);
        let output = child.wait_with_output().unwrap();
        if let Some(signal) = output.status.signal() {
            return End::Killed(signal);
        }
        let (status, rest) = output.stdout.split_first().unwrap();
        let (length, rest) = rest.split_first_chunk().unwrap();
        let (header, code) = rest.split_at(usize::try_from(u32::from_be_bytes(*length)).unwrap());
        let header: serde_json::Value = serde_json::from_slice(header).unwrap();
        let text = |name: &str| header[name].as_str().unwrap_or_default().to_owned();
        match status {
            0 => End::Compiled(code.to_vec()),
            1 => End::Refused(text("code"), text("message")),
            other => panic!("the compiler itself failed: {other} {header}"),
        }
    }

    /// The smallest component that offers a handler, with `more` in it.
    fn handler(more: &str) -> Vec<u8> {
        let text = format!(
            r#"(component
                {more}
                (core module $guest (func (export "run")))
                (core instance $guest (instantiate $guest))
                (func $run (canon lift (core func $guest "run")))
                (instance (export "wasi:http/incoming-handler@0.2.12") (export "handle" (func $run))))"#
        );
        wat::parse_str(text).unwrap()
    }

    fn repeated(count: usize, what: &str) -> String {
        what.repeat(count)
    }

    /// Components within each other, the innermost holding `core`.
    fn nested(depth: usize, core: &str) -> String {
        format!("{}{core}{}", repeated(depth, "(component "), repeated(depth, ")"))
    }

    /// `depth` components, each of which is two of the one before: two to the power of it, if anybody counted them out.
    fn doubled(depth: usize) -> String {
        let mut text = "(component $c0 (core module $m) (core instance (instantiate $m)))".to_owned();
        for level in 1..=depth {
            let below = level - 1;
            let _ = write!(
                text,
                "(component $c{level} (alias outer 1 $c{below} (component $b))
                   (instance (instantiate $b)) (instance (instantiate $b)))"
            );
        }
        let _ = write!(text, "(instance (instantiate $c{depth}))");
        text
    }

    /// Types, each of which is two of the one before.
    fn doubled_types(depth: usize) -> String {
        let mut text = "(type $t0 (tuple u64 u64))".to_owned();
        for level in 1..=depth {
            let below = level - 1;
            let _ = write!(text, "(type $t{level} (tuple $t{below} $t{below}))");
        }
        text
    }

    /// Its name, the component, the code of the refusal and what that names.
    type Bomb = (&'static str, String, &'static str, &'static str);

    const COMPLEX: &str = "component_too_complex";

    fn in_one_module() -> Vec<Bomb> {
        vec![
            (
                "a huge function",
                format!("(core module (func {}))", repeated(400_000, "(drop (i32.const 1))")),
                COMPLEX,
                "bytes in one function",
            ),
            (
                "a function with too many locals",
                format!("(core module (func (local {})))", repeated(10_001, "i32 ")),
                COMPLEX,
                "locals in one function",
            ),
            ("too many functions", format!("(core module {})", repeated(100_001, "(func)")), COMPLEX, "functions"),
            (
                "too many types",
                format!(
                    "(core module {})",
                    (0..20_001)
                        .map(|n| format!("(type (func{}))", repeated(n % 50, " (param i32)")))
                        .collect::<String>()
                ),
                COMPLEX,
                "types in one module",
            ),
        ]
    }

    fn of_many_parts() -> Vec<Bomb> {
        vec![
            ("components within components", nested(17, "(core module)"), COMPLEX, "components within each other"),
            ("thousands of components", repeated(3000, "(component)"), COMPLEX, "modules and components"),
            ("thousands of modules", repeated(3000, "(core module)"), COMPLEX, "modules and components"),
            (
                "thousands of instances",
                format!("(core module $m) {}", repeated(900, "(core instance (instantiate $m))")),
                COMPLEX,
                "core instances",
            ),
            ("instances by the power of two", doubled(60), COMPLEX, "instances"),
            ("types by the power of two", doubled_types(60), "component_invalid", "type size"),
            (
                "instances of what is handed over",
                r#"(component (import "c" (component $c)) (instance (instantiate $c)) (instance (instantiate $c)))"#
                    .into(),
                "component_imports_code",
                "",
            ),
            (
                "blocks within blocks",
                format!("(core module (func {} {}))", repeated(100_000, "block "), repeated(100_000, "end ")),
                COMPLEX,
                "blocks within each other",
            ),
            (
                "loops within loops",
                format!("(core module (func {} {}))", repeated(50_000, "loop "), repeated(50_000, "end ")),
                COMPLEX,
                "blocks within each other",
            ),
            (
                "a jump table without end",
                format!("(core module (func (block (br_table {} (i32.const 0)))))", repeated(100_000, "0 ")),
                "component_not_compilable",
                "br_table",
            ),
            (
                "more pieces of data than there may be",
                format!("(core module (memory 1) {})", repeated(100_001, r#"(data "")"#)),
                "component_invalid",
                "data",
            ),
            (
                "a memory of 4 GiB",
                "(core module $m (memory 65536)) (core instance (instantiate $m))".into(),
                COMPLEX,
                "memory",
            ),
        ]
    }

    #[test]
    fn each_bomb_is_refused_by_the_name_of_what_is_too_much() {
        let mut wrong = Vec::new();
        for (name, more, code, about) in in_one_module().into_iter().chain(of_many_parts()) {
            match compile(&handler(&more)) {
                End::Refused(found, said) if found == code && said.contains(about) => {}
                End::Compiled(_) => wrong.push(format!("{name}: compiled")),
                other => wrong.push(format!("{name}: {other:?}")),
            }
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
    }

    /// Nothing is wrong with these but their size; they may be compiled, if that ends.
    #[test]
    fn what_is_only_large_ends_one_way_or_the_other() {
        let clock = SystemClock::default();
        for (name, more) in [
            (
                "giant data",
                format!(r#"(core module (memory 700) (data (i32.const 0) "{}"))"#, repeated(20_000_000, "x")),
            ),
            (
                "values carried around loops",
                format!(
                    "(core module (func (local {}) {} {}))",
                    repeated(200, "i64 "),
                    (0..200)
                        .map(|n| format!("loop local.get {n} i64.const 1 i64.add local.set {n} "))
                        .collect::<String>(),
                    repeated(200, "i32.const 0 br_if 0 end ")
                ),
            ),
        ] {
            let begun = clock.monotonic();
            let end = compile(&handler(&more));
            let known = match &end {
                End::Compiled(_) => true,
                End::Refused(code, said) => code.starts_with("component_") && !said.is_empty(),
                End::Killed(signal) => [6, 9, 24].contains(signal),
            };
            assert!(known, "{name}: {end:?}");
            let took = clock.monotonic().saturating_sub(begun);
            assert!(took < Duration::from_secs(90), "{name}: {took:?}");
        }
    }

    #[test]
    fn a_real_component_gives_the_same_machine_code_in_every_process() {
        for name in ["hello-c/hello-c.wasm", "whoami/whoami.wasm"] {
            let component = std::fs::read(format!("{}/../../examples/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap();
            let once = compile(&component);
            assert!(matches!(&once, End::Compiled(code) if code.starts_with(b"\x7fELF")), "{name}");
            assert!(once == compile(&component), "{name}");
        }
    }
}
