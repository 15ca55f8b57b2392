//! A function that attacks whatever runs it: the last segment of the path names the attack, `?n=` its size.
//! Must never be deployed for anything but tests. What a misbehaving but honest program does is in `examples/faults`;
//! here is what only malice writes.
mod body;
mod fields;
mod handles;
mod host;
mod machine;
#[path = "../../../../examples/faults/src/reply.rs"]
mod reply;

use reply::Reply;
use wasip2::exports::http::incoming_handler::Guest;
use wasip2::http::types::{IncomingRequest, ResponseOutparam};

struct Hostile;
wasip2::http::proxy::export!(Hostile);

/// One call: what was asked and the one chance to answer it.
struct Call {
    request: IncomingRequest,
    out: ResponseOutparam,
    n: Option<u64>,
}

impl Call {
    fn size(&self, default: u64) -> u64 {
        self.n.unwrap_or(default)
    }
}

/// Attacks that need no answer of their own.
const BLUNT: &[(&str, fn())] = &[
    ("hostcalls", machine::hostcalls),
    ("fill", machine::fill),
    ("copy", machine::copy),
    ("out-of-bounds", machine::out_of_bounds),
    ("wrong-signature", machine::wrong_signature),
    ("panic", machine::panic),
    ("abort", machine::abort),
    ("burn-random", machine::burn_random),
    ("churn", machine::churn),
    ("wait-forever", host::wait_forever),
    ("wait-until-the-end", host::wait_until_the_end),
    ("wait-for-many", host::wait_for_many),
    ("wait-for-nothing", host::wait_for_nothing),
    ("poll-in-a-loop", host::poll_in_a_loop),
    ("hoard-timers", host::hoard_timers),
    ("random-4-gib", host::random_4_gib),
    ("insecure-random-4-gib", host::insecure_random_4_gib),
    ("log-forever", host::log_forever),
    ("log-nothing", host::log_nothing),
    ("forge-a-handle", handles::forge),
    ("drop-twice", handles::drop_twice),
    ("take-any-handle", handles::take_any),
    ("hoard-requests", handles::hoard_requests),
    ("hoard-streams", handles::hoard_streams),
];

type Attack = fn(Call);

/// Attacks that answer, or that are about answering.
const ANSWERING: &[(&str, Attack)] = &[
    ("exit-well", host::exit_well),
    ("exit-badly", host::exit_badly),
    ("exit-after-answering", host::exit_after_answering),
    ("fail-after-answering", host::fail_after_answering),
    ("clocks", host::clocks),
    ("stdin", host::stdin),
    ("denied", host::denied),
    ("log-line", host::log_line),
    ("log-escapes", host::log_escapes),
    ("environment", host::environment),
    ("split", fields::split),
    ("inbound", fields::inbound),
    ("append-forever", fields::append_forever),
    ("trailers", fields::trailers),
    ("trailer-bomb", fields::trailer_bomb),
    ("length", fields::length),
    ("lengths", fields::lengths),
    ("promise", fields::promise),
    ("statuses", fields::statuses),
    ("answer-twice", handles::answer_twice),
    ("answer-with-an-error", handles::answer_with_an_error),
    ("take-the-body-twice", body::take_twice),
    ("drop-the-body", body::dropped),
    ("forget-the-body", body::forgotten),
    ("never-write", body::never_write),
    ("trickle", body::trickle),
    ("endless", body::endless),
    ("write-nothing", body::write_nothing),
    ("write-more-than-allowed", body::over_write),
    ("read-and-write-forever", body::ping_pong),
];

impl Guest for Hostile {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let target = request.path_with_query().unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let n = query.split('&').find_map(|pair| pair.strip_prefix("n=")?.parse().ok());
        let name = path.rsplit('/').next().unwrap_or_default();
        if let Some((_, attack)) = BLUNT.iter().find(|(of, _)| *of == name) {
            // The right to answer is kept, so that it is the attack that ends the call.
            let kept = (request, out);
            attack();
            return drop(kept);
        }
        let call = Call { request, out, n };
        match ANSWERING.iter().find(|(of, _)| *of == name) {
            Some((_, attack)) => attack(call),
            None => Reply::new(call.out).text(404, "no such attack\n"),
        }
    }
}
