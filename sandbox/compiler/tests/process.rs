//! The compiler as a process: what comes out for what goes in. Owns no knowledge of how it does it.

#[cfg(test)]
mod process {
    use std::io::Write;
    use std::process::{Command, Output, Stdio};

    fn command() -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cofferdam-compiler"));
        command.env_clear().stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn run(mut command: Command, input: &[u8]) -> Output {
        let mut child = command.spawn().unwrap();
        // A compiler that refuses early need not read everything.
        let _ = child.stdin.take().unwrap().write_all(input);
        child.wait_with_output().unwrap()
    }

    /// Status, header and machine code.
    fn compile(component: &[u8]) -> (u8, serde_json::Value, Vec<u8>) {
        let length = u64::try_from(component.len()).unwrap();
        parse(&run(command(), &[length.to_be_bytes().as_slice(), component].concat()))
    }

    fn parse(output: &Output) -> (u8, serde_json::Value, Vec<u8>) {
        assert!(output.status.success(), "{:?}", output.status);
        assert!(output.stderr.is_empty(), "the compiler has nothing to say beside its reply");
        let (status, rest) = output.stdout.split_first().unwrap();
        let (length, rest) = rest.split_first_chunk().unwrap();
        let (header, artifact) = rest.split_at(usize::try_from(u32::from_be_bytes(*length)).unwrap());
        (*status, serde_json::from_slice(header).unwrap(), artifact.to_vec())
    }

    fn handler() -> Vec<u8> {
        let text = r#"(component
            (import "wasi:io/poll@0.2.0" (instance))
            (core module $guest (memory 1) (func (export "run")))
            (core instance $guest (instantiate $guest))
            (func $run (canon lift (core func $guest "run")))
            (instance (export "wasi:http/incoming-handler@0.2.0") (export "handle" (func $run))))"#;
        wat::parse_str(text).unwrap()
    }

    #[test]
    fn a_component_is_compiled_and_described() {
        let (status, header, artifact) = compile(&handler());
        assert_eq!(status, 0, "{header}");
        assert_eq!(header["artifact_bytes"], artifact.len());
        assert_eq!(header["engine"].as_str().unwrap().len(), 64);
        assert_eq!(header["imports"], serde_json::json!(["wasi:io/poll@0.2.0"]));
        assert_eq!(header["exports"], serde_json::json!(["wasi:http/incoming-handler@0.2.0"]));
        assert_eq!(header["memories"], 1);
        assert_eq!(header["memory_bytes"], 65_536);
        assert!(artifact.starts_with(b"\x7fELF"));
    }

    #[test]
    fn two_processes_make_the_same_machine_code() {
        assert!(compile(&handler()) == compile(&handler()));
    }

    #[test]
    fn what_is_no_component_is_refused_with_a_code() {
        let precompiled = compile(&handler()).2;
        for (input, code) in [
            (b"garbage".to_vec(), "component_not_wasm"),
            (Vec::new(), "component_not_wasm"),
            (wat::parse_str("(module)").unwrap(), "component_core_module"),
            (wat::parse_str("(component)").unwrap(), "component_no_handler"),
            (precompiled, "component_precompiled"),
        ] {
            let (status, header, artifact) = compile(&input);
            assert_eq!((status, header["code"].as_str()), (1, Some(code)));
            assert!(artifact.is_empty());
        }
    }

    #[test]
    fn a_huge_component_is_refused_by_its_announced_length() {
        let (status, header, _) = parse(&run(command(), &(64 * 1024 * 1024 + 1_u64).to_be_bytes()));
        assert_eq!((status, header["code"].as_str()), (1, Some("component_too_large")));
    }

    #[test]
    fn a_compiler_with_an_environment_reads_nothing() {
        let mut command = command();
        command.env("ANY", "thing");
        let (status, header, _) = parse(&run(command, &[]));
        assert_eq!((status, header["code"].as_str()), (2, Some("compiler_failed")));
    }

    #[test]
    fn a_compiler_takes_no_options_but_tells_its_version() {
        let mut version = command();
        version.arg("--version");
        let expected = concat!("cofferdam-compiler ", env!("CARGO_PKG_VERSION"), "\n");
        assert_eq!(run(version, &[]).stdout, expected.as_bytes());
        let mut option = command();
        option.arg("--opt-level=3");
        assert_eq!(run(option, &[]).status.code(), Some(2));
    }
}
