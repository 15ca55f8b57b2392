//! Attacks on handles: used twice, made up, hoarded, taken for something else.
//! Must never rely on the bindings to be kept from it: `from_handle` gives what any guest can write by hand.
use std::hint::black_box;

use wasip2::cli::stdout::get_stdout;
use wasip2::http::types::{ErrorCode, Fields, OutgoingRequest, OutgoingResponse, ResponseOutparam};
use wasip2::io::poll::Pollable;

use crate::Call;

/// Uses a handle nobody gave it.
pub fn forge() {
    // SAFETY: there is none; the handle is the attack.
    let forged = unsafe { Fields::from_handle(black_box(123_456)) };
    black_box(forged.entries());
}

pub fn drop_twice() {
    let fields = Fields::new();
    // SAFETY: there is none; the second owner is the attack.
    let twin = unsafe { Fields::from_handle(fields.handle()) };
    drop(fields);
    drop(twin);
}

/// Takes every handle there is for one of another type.
pub fn take_any() {
    let _fields = Fields::new();
    for number in 0..64 {
        // SAFETY: there is none; the type is the attack.
        let taken = unsafe { Pollable::from_handle(black_box(number)) };
        taken.ready();
        std::mem::forget(taken);
    }
}

/// Makes requests to send and sends none.
pub fn hoard_requests() {
    loop {
        std::mem::forget(black_box(OutgoingRequest::new(Fields::new())));
    }
}

/// Opens the one output again and again.
pub fn hoard_streams() {
    loop {
        std::mem::forget(black_box(get_stdout()));
    }
}

/// Answers, then answers again with the right it has given away.
pub fn answer_twice(call: Call) {
    let out = call.out;
    // SAFETY: there is none; the second answer is the attack.
    let twin = unsafe { ResponseOutparam::from_handle(out.handle()) };
    ResponseOutparam::set(out, Ok(OutgoingResponse::new(Fields::new())));
    let second = OutgoingResponse::new(Fields::new());
    let _ = second.set_status_code(201);
    ResponseOutparam::set(twin, Ok(second));
}

/// Answers that it has no answer, in words of its own.
pub fn answer_with_an_error(call: Call) {
    let words = "\u{1b}[31mHTTP/1.1 200 OK\r\n\r\nforged".repeat(100);
    ResponseOutparam::set(call.out, Err(ErrorCode::InternalError(Some(words))));
}
