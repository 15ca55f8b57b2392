//! What is fuzzed: one plain function for each way untrusted bytes come in. Anything but a panic is right.
//!
//! Owns the targets and the promises they hold the code to. Must never keep state between two inputs: a finding is the
//! input alone. Shared, as this one file, by the bounded run of the tests and by the long runs of `libfuzzer/`.

use std::io::Write;
use std::process::{Command, Stdio};

use arbitrary::Unstructured;
use aws_lc_rs::hmac;
use bytes::Bytes;
use cofferdam_control::{check_route, check_settings};
use cofferdam_model::frame::{self, HEADER_BYTES, Header};
use cofferdam_model::handover::Handover;
use cofferdam_model::{FunctionLimits, FunctionSettings, RouteSpec};
use cofferdam_sandbox::artifact_flaw;

/// A target and its name.
pub(crate) type Target = (&'static str, fn(&[u8]));

/// Every target.
pub(crate) const TARGETS: &[Target] = &[
    ("frames", frames),
    ("handover", handover),
    ("artifact", artifact),
    ("settings", settings),
    ("route", route),
    ("upload", upload),
];

/// What a cell, or whoever took one over, may send: a header, then a payload of any kind. What decodes encodes again
/// to something that decodes to the same.
pub(crate) fn frames(data: &[u8]) {
    if let Some(header) = data.first_chunk::<HEADER_BYTES>().and_then(|bytes| Header::decode(bytes).ok()) {
        assert!(header.length <= frame::MAX_PAYLOAD, "a length over the cap");
    }
    let payload = data.get(HEADER_BYTES..).unwrap_or_default();
    let mut out = Vec::new();
    if let Ok((ending, usage)) = frame::decode_done(payload) {
        frame::put_done(&mut out, 1, ending, &usage).unwrap();
        assert_eq!(frame::decode_done(&out[HEADER_BYTES..]), Ok((ending, usage)));
    }
    if let Ok((status, headers)) = frame::decode_response(Bytes::copy_from_slice(payload)) {
        let control =
            |value: &http::HeaderValue| value.as_bytes().iter().any(|b| *b == b'\r' || *b == b'\n' || *b == 0);
        assert!(!headers.values().any(control), "a control byte became a header");
        out.clear();
        frame::put_response(&mut out, true, 1, status, &headers).unwrap();
        let again = frame::decode_response(Bytes::copy_from_slice(&out[HEADER_BYTES..]));
        assert_eq!(again, Ok((status, headers)));
    }
    if let Ok(head) = frame::decode_request(Bytes::copy_from_slice(payload)) {
        out.clear();
        frame::put_request(&mut out, false, 1, &head).unwrap();
        assert_eq!(frame::decode_request(Bytes::copy_from_slice(&out[HEADER_BYTES..])), Ok(head));
    }
    if let Ok(head) = frame::decode_fetch(Bytes::copy_from_slice(payload)) {
        out.clear();
        frame::put_fetch(&mut out, false, 1, &head).unwrap();
        assert_eq!(frame::decode_fetch(Bytes::copy_from_slice(&out[HEADER_BYTES..])), Ok(head));
    }
    let _ = (frame::decode_credit(payload), frame::decode_ready(payload), frame::decode_fetch_failed(payload));
}

/// What a cell is told to become.
pub(crate) fn handover(data: &[u8]) {
    if let Ok(told) = Handover::decode(data) {
        let again = told.encode().unwrap();
        assert_eq!(again.as_slice(), data, "two spellings of one assignment");
    }
}

/// The key of the artifacts below.
const KEY: [u8; 32] = [7; 32];

/// Binds what comes after the MAC of an artifact to it.
pub(crate) fn bound(rest: &[u8]) -> Vec<u8> {
    let mac = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &KEY), rest);
    [b"COFART1\0".as_slice(), mac.as_ref(), rest].concat()
}

/// A file of compiled code: as it is, and as what comes after a MAC that fits. One that is taken has a header within
/// its bound, with code behind it, and is not taken any more with a bit changed, under another key or cut short.
pub(crate) fn artifact(data: &[u8]) {
    let _ = artifact_flaw(data, &KEY);
    let mut whole = bound(data);
    if artifact_flaw(&whole, &KEY).is_some() {
        return;
    }
    let length = u32::from_be_bytes(*data.first_chunk().expect("taken without a header"));
    let length = usize::try_from(length).unwrap();
    assert!(length <= 64 * 1024 && (44 + length).next_multiple_of(4096) < whole.len(), "no room for code");
    assert!(artifact_flaw(&whole, &[8; 32]).is_some(), "another key's");
    assert!(artifact_flaw(whole.split_last().unwrap().1, &KEY).is_some(), "cut short");
    let at = data.iter().fold(0, |at: usize, byte| at.wrapping_mul(31).wrapping_add((*byte).into())) % whole.len();
    whole[at] ^= 1;
    assert!(artifact_flaw(&whole, &KEY).is_some(), "bit {at} changed");
}

/// What a tenant declares of a function, limits first. What is accepted is under the ceiling once it is put there.
pub(crate) fn settings(data: &[u8]) {
    let Ok(settings) = serde_json::from_slice::<FunctionSettings>(data) else { return };
    let accepted = check_settings("fuzzed", &settings).is_ok();
    let ceiling = FunctionLimits::ceiling();
    let under = settings.limits.under(&ceiling);
    assert!(under.memory_bytes <= ceiling.memory_bytes && under.cpu_ms <= ceiling.cpu_ms);
    assert!(
        under.wall_ms <= ceiling.wall_ms && under.concurrency <= ceiling.concurrency && under.cells <= ceiling.cells
    );
    assert_eq!(under.under(&ceiling), under);
    if accepted {
        assert!(settings.limits.memory_bytes > 0 && settings.limits.cpu_ms > 0 && settings.limits.wall_ms > 0);
        let again: FunctionSettings = serde_json::from_slice(&serde_json::to_vec(&settings).unwrap()).unwrap();
        assert_eq!(again, settings);
    }
}

/// What a tenant declares of a route.
pub(crate) fn route(data: &[u8]) {
    let Ok(route) = serde_json::from_slice::<RouteSpec>(data) else { return };
    if check_route(&route).is_ok() {
        let again: RouteSpec = serde_json::from_slice(&serde_json::to_vec(&route).unwrap()).unwrap();
        assert_eq!(again, route);
    }
}

/// A component as a tenant uploads it, given to the real compiler: it is compiled or refused by a code, and the process
/// ends by itself. The first byte says how the rest becomes a component.
pub(crate) fn upload(data: &[u8]) {
    let Some((how, rest)) = data.split_first() else { return };
    let component = match how % 4 {
        0 => rest.to_vec(),
        1 => with_module(rest).unwrap_or_default(),
        2 => smith_component(rest).unwrap_or_default(),
        _ => [b"\0asm\x0d\0\x01\0", rest].concat(),
    };
    let reply = compile(&component);
    let (status, rest) = reply.split_first().expect("the compiler died");
    let (length, rest) = rest.split_first_chunk::<4>().expect("a reply without a header");
    let header = rest.get(..u32::from_be_bytes(*length).try_into().unwrap()).expect("a header cut short");
    let header: serde_json::Value = serde_json::from_slice(header).expect("a header that is no JSON");
    match status {
        0 => assert!(header["engine"].is_string()),
        1 => {
            assert!(header["code"].as_str().is_some_and(|code| code.starts_with("component_")), "{header}");
            let made_it_fail = header["message"].as_str().is_some_and(|said| said.contains("makes the compiler fail"));
            assert!(!made_it_fail, "the compiler panicked: {header}");
        }
        _ => panic!("the compiler itself failed: {header}"),
    }
}

/// A component that answers, and beside that holds a module made of the bytes: so it gets as far as machine code.
fn with_module(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut config = wasm_smith::Config {
        max_memories: 1,
        max_tables: 2,
        max_instructions: 200,
        max_funcs: 20,
        gc_enabled: false,
        exceptions_enabled: false,
        threads_enabled: false,
        relaxed_simd_enabled: false,
        memory64_enabled: false,
        wide_arithmetic_enabled: false,
        custom_page_sizes_enabled: false,
        ..wasm_smith::Config::default()
    };
    config.max_type_size = 100;
    let module = wasm_smith::Module::new(config, &mut Unstructured::new(bytes)).ok()?.to_bytes();
    let mut component = handler();
    component.push(1);
    put_leb(&mut component, module.len());
    component.extend_from_slice(&module);
    Some(component)
}

fn smith_component(bytes: &[u8]) -> Option<Vec<u8>> {
    let made = wasm_smith::Component::new(wasm_smith::Config::default(), &mut Unstructured::new(bytes)).ok()?;
    Some(made.to_bytes())
}

/// The smallest component that offers a handler.
pub(crate) fn handler() -> Vec<u8> {
    let text = r#"(component
        (core module $guest (func (export "run")))
        (core instance $guest (instantiate $guest))
        (func $run (canon lift (core func $guest "run")))
        (instance (export "wasi:http/incoming-handler@0.2.12") (export "handle" (func $run))))"#;
    wat::parse_str(text).unwrap()
}

fn put_leb(out: &mut Vec<u8>, mut number: usize) {
    while number >= 0x80 {
        out.push(u8::try_from(number & 0x7f).unwrap() | 0x80);
        number >>= 7;
    }
    out.push(u8::try_from(number).unwrap());
}

fn compile(component: &[u8]) -> Vec<u8> {
    let mut child = Command::new(cofferdam_tests::guests::binary("cofferdam-compiler"))
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // One that refuses early need not read everything.
    let _ = stdin
        .write_all(&u64::try_from(component.len()).unwrap().to_be_bytes())
        .and_then(|()| stdin.write_all(component));
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "the compiler ended with {}", output.status);
    output.stdout
}
