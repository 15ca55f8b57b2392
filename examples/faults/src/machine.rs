//! Faults of computing: time, memory, stack, and what an instance can learn of clocks and chance.
//! Must never end on its own where the name promises otherwise.
use std::arch::wasm32::unreachable;
use std::hint::black_box;
use std::sync::atomic::{AtomicU32, Ordering};

use wasip2::clocks::monotonic_clock;
use wasip2::http::types::Fields;
use wasip2::random::random::{get_random_bytes, get_random_u64};

use crate::Call;

pub fn spin() {
    let mut turns = 0_u64;
    loop {
        turns = black_box(turns.wrapping_add(1));
    }
}

/// Takes memory 1 MiB at a time and writes to all of it, so that it is really used.
pub fn eat() {
    const BLOCK: usize = 1024 * 1024;
    loop {
        let mut block: Vec<u8> = Vec::new();
        if block.try_reserve_exact(BLOCK).is_err() {
            unreachable();
        }
        block.resize(BLOCK, 1);
        std::mem::forget(black_box(block));
    }
}

pub fn trap() {
    unreachable()
}

pub fn die() {
    black_box(deeper(0));
}

#[expect(unconditional_recursion, reason = "running out of stack is the point")]
fn deeper(depth: u64) -> u64 {
    black_box(deeper(black_box(depth.wrapping_add(1)))).wrapping_add(depth)
}

/// How many calls this instance has seen: 1, if every call gets an instance of its own.
pub fn count(call: Call) {
    static CALLS: AtomicU32 = AtomicU32::new(0);
    let calls = CALLS.fetch_add(1, Ordering::Relaxed) + 1;
    call.reply.text(200, &format!("{calls}\n"));
}

/// The smallest step in ns that the clock made, of `n`, 5 unless told. A fine clock helps to spy on neighbours.
pub fn time(call: Call) {
    let wanted = call.size(5);
    let (mut steps, mut smallest) = (0, u64::MAX);
    let mut last = monotonic_clock::now();
    while steps < wanted {
        let now = monotonic_clock::now();
        if now != last {
            smallest = smallest.min(now.wrapping_sub(last));
            steps += 1;
            last = now;
        }
    }
    call.reply.text(200, &format!("{smallest}\n"));
}

pub fn random(call: Call) {
    call.reply.text(200, &format!("{:016x}\n", get_random_u64()));
}

/// Waits for no time at all, again and again: never done, and hardly ever computing.
pub fn busy() {
    loop {
        monotonic_clock::subscribe_duration(0).block();
    }
}

/// Asks the host for `n` bytes in one call, 1 GiB unless told.
pub fn glut(call: Call) {
    let bytes = get_random_bytes(call.size(1024 * 1024 * 1024)).len();
    call.reply.text(200, &format!("{bytes}\n"));
}

/// Makes `n` handles that the host must remember, ten million unless told, and lets none of them go.
pub fn hoard(call: Call) {
    let wanted = call.size(10_000_000);
    for _ in 0..wanted {
        std::mem::forget(Fields::new());
    }
    call.reply.text(200, &format!("{wanted}\n"));
}
