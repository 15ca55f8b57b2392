//! Long runs of the target `artifact`. Owns nothing but the entry.
#![no_main]

#[path = "../../targets.rs"]
#[expect(dead_code, reason = "each entry uses one target of them")]
mod targets;

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::artifact(data));
