//! The bounded run of the fuzz targets: a few seconds of seeded mutations over a small corpus, the same every time.
//!
//! Owns the mutations, the seeds and the report of a finding. Must never use a clock or the system's randomness: a
//! finding is found again. Long runs are made with `libfuzzer/`, see docs/OPERATING.md.

mod targets;

use std::panic::{AssertUnwindSafe, catch_unwind};

use cofferdam_model::facts::{Ending, Usage};
use cofferdam_model::frame;
use cofferdam_model::frame::RequestHead;
use cofferdam_model::handover::Handover;
use cofferdam_model::limits::FunctionLimits;
use cofferdam_model::secret::Env;
use cofferdam_sandbox::artifact_flaw;
use cofferdam_tests::guests;
use http::{HeaderMap, HeaderValue, Method, StatusCode};

/// SplitMix64: good enough to mutate by, and the same everywhere.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.roll() % u64::try_from(bound.max(1)).unwrap()).unwrap()
    }

    fn byte(&mut self) -> u8 {
        const ODD: [u8; 10] = [0, 1, 0x7f, 0x80, 0xff, b'"', b'\n', b'\\', b'{', b'9'];
        match self.below(2) {
            0 => ODD[self.below(ODD.len())],
            _ => self.roll().to_le_bytes()[0],
        }
    }

    /// Bends an input in one to eight places.
    fn bend(&mut self, input: &mut Vec<u8>) {
        for _ in 0..=self.below(8) {
            let at = self.below(input.len());
            match self.below(7) {
                0 if !input.is_empty() => input[at] = self.byte(),
                1 if !input.is_empty() => input[at] ^= 1 << self.below(8),
                2 => input.insert(at, self.byte()),
                3 if !input.is_empty() => drop(input.remove(at)),
                4 => input.truncate(at),
                5 => {
                    let piece = input[at..input.len().min(at + 1 + self.below(32))].to_vec();
                    let to = self.below(input.len());
                    input.splice(to..to, piece);
                }
                _ if input.len() >= 4 => {
                    let number = [0, 1, u32::MAX, i32::MAX as u32, 65_536, 65_537][self.below(6)];
                    let at = self.below(input.len() - 3);
                    input[at..at + 4].copy_from_slice(&number.to_be_bytes());
                }
                _ => input.push(self.byte()),
            }
        }
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.roll().to_le_bytes()[0]).collect()
    }
}

/// Runs a target over its seeds as they are, then over `rounds` bent ones.
fn run(name: &str, seeds: &[Vec<u8>], rounds: u64) {
    let (_, target) = targets::TARGETS.iter().find(|(of, _)| *of == name).unwrap();
    let attempt = |what: &str, input: &[u8]| {
        if catch_unwind(AssertUnwindSafe(|| target(input))).is_err() {
            let hex: String = input.iter().map(|byte| format!("{byte:02x}")).collect();
            panic!("target `{name}`, {what}, input {hex}");
        }
    };
    for (number, seed) in seeds.iter().enumerate() {
        attempt(&format!("seed {number}"), seed);
    }
    for round in 0..rounds {
        let mut dice = Dice(round);
        let number = dice.below(seeds.len());
        let mut input = seeds[number].clone();
        dice.bend(&mut input);
        attempt(&format!("seed {number} bent in round {round}"), &input);
    }
}

fn head() -> RequestHead {
    let mut headers = HeaderMap::new();
    headers.append("accept", HeaderValue::from_static("*/*"));
    headers.append("x-long", HeaderValue::from_bytes(&[b'v'; 300]).unwrap());
    RequestHead { method: Method::POST, authority: "a.example:8443".into(), target: "/x?y=1".into(), headers }
}

#[test]
fn frames_of_a_hostile_cell_are_decoded_or_refused() {
    let mut seeds = vec![Vec::new(), vec![0xff; 64]];
    for fill in [
        |out: &mut Vec<u8>| frame::put_request(out, true, 7, &head()),
        |out: &mut Vec<u8>| frame::put_response(out, false, 7, StatusCode::OK, &head().headers),
        |out: &mut Vec<u8>| frame::put_done(out, 7, Ending::Trapped, &Usage::default()),
        |out: &mut Vec<u8>| frame::put_credit(out, 7, 65_536),
    ] {
        let mut seed = Vec::new();
        fill(&mut seed).unwrap();
        seeds.push(seed);
    }
    run("frames", &seeds, 100_000);
}

#[test]
fn assignments_are_decoded_or_refused() {
    let mut env = Env::new();
    env.push("NAME".to_owned(), "value".to_owned());
    env.push("EMPTY".to_owned(), String::new());
    let seed = Handover { limits: FunctionLimits::default(), artifact_bytes: 4096, env }.encode().unwrap().to_vec();
    run("handover", &[seed, Vec::new()], 50_000);
}

#[test]
fn artifacts_are_taken_as_they_were_made_or_refused() {
    let digest = "07".repeat(32);
    let json = format!(
        r#"{{"component":"{digest}","build":"{digest}","engine":"{digest}","compiler":"0.1.0","imports":["a:b/c"]}}"#
    );
    let honest = |json: &str| {
        let mut rest = [u32::try_from(json.len()).unwrap().to_be_bytes().as_slice(), json.as_bytes()].concat();
        rest.resize(4096 - 40, 0);
        [rest.as_slice(), b"code"].concat()
    };
    let made = honest(&json);
    assert_eq!(artifact_flaw(&targets::bound(&made), &[7; 32]), None, "the seed is one that is taken");
    let empty = honest("{}");
    run("artifact", &[made.clone(), targets::bound(&made), empty, json.into(), Vec::new()], 30_000);
}

#[test]
fn declared_limits_are_accepted_or_refused() {
    let whole = r#"{"limits":{"memory_bytes":65536,"cpu_ms":1,"wall_ms":18446744073709551615,"concurrency":4294967295},
        "recycle":{"after_calls":0,"after_seconds":1,"idle_seconds":0},"env":{"A":"b"},"secrets":["C"],"egress":[]}"#;
    let odd = r#"{"limits":{"memory_bytes":-1}}"#;
    let deep = format!(r#"{{"env":{}1{}}}"#, r#"{"a":"#.repeat(500), "}".repeat(500));
    run("settings", &[whole.into(), odd.into(), deep.into(), b"{}".to_vec()], 50_000);
}

#[test]
fn declared_routes_are_accepted_or_refused() {
    let route = r#"{"host":"shop.example","path":"/orders/{id}/{*rest}","methods":["GET","PUT"],"function":"api",
        "public":true,"audit":"strict","limit":{"per_second":5,"burst":10},"body_bytes":1024}"#;
    run("route", &[route.into(), b"{}".to_vec()], 50_000);
}

#[test]
fn uploads_are_compiled_or_refused_and_the_compiler_never_fails() {
    let hello = std::fs::read(guests::committed("hello-c/hello-c.wasm")).unwrap();
    let mut dice = Dice(2026);
    let mut seeds = vec![vec![0], [&[0], hello.as_slice()].concat(), [&[0], targets::handler().as_slice()].concat()];
    for how in [1, 2] {
        for _ in 0..12 {
            let bytes = 64 + dice.below(4096);
            seeds.push([&[how], dice.bytes(bytes).as_slice()].concat());
        }
    }
    run("upload", &seeds, 100);
}
