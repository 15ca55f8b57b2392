//! Attacks with nothing but computing: endless work in instructions that cannot be interrupted, and every way to trap.
//! Must never end in peace.
use std::hint::black_box;

use wasip2::clocks::monotonic_clock;
use wasip2::http::types::Fields;
use wasip2::random::random::get_random_bytes;

const MEBIBYTE: usize = 1024 * 1024;

/// Never computes for longer than it takes to ask the host for something.
pub fn hostcalls() {
    loop {
        black_box(monotonic_clock::now());
    }
}

/// One instruction that writes 24 MiB, again and again.
pub fn fill() {
    let mut block = vec![0_u8; 24 * MEBIBYTE];
    let mut value = 0_u8;
    loop {
        value = value.wrapping_add(1);
        black_box(&mut block).fill(black_box(value));
    }
}

/// One instruction that copies 12 MiB onto themselves, shifted, again and again.
pub fn copy() {
    let mut block = vec![7_u8; 24 * MEBIBYTE];
    loop {
        black_box(&mut block).copy_within(0..12 * MEBIBYTE, black_box(1));
    }
}

pub fn out_of_bounds() {
    let last = black_box(0xffff_fff0_usize) as *const u64;
    // SAFETY: there is none; the address is the attack.
    black_box(unsafe { last.read_volatile() });
}

extern "C" fn taking_nothing() -> u32 {
    7
}

/// Calls a function through a pointer of another type.
pub fn wrong_signature() {
    let pointer = black_box(taking_nothing as extern "C" fn() -> u32);
    // SAFETY: there is none; the type is the attack.
    let bent: extern "C" fn(f64, u64, u64) -> f64 = unsafe { std::mem::transmute(pointer) };
    black_box(black_box(bent)(1.0, 2, 3));
}

pub fn panic() {
    panic!("\u{1b}[2J a message for whoever reads the log\r\nforged: line");
}

pub fn abort() {
    std::process::abort()
}

/// As many random bytes as may be had at a time, for ever.
pub fn burn_random() {
    loop {
        black_box(get_random_bytes(1024 * 1024));
    }
}

/// Makes and drops handles for ever.
pub fn churn() {
    loop {
        let fields = Fields::new();
        let _ = black_box(fields.append("x", b"y"));
    }
}
