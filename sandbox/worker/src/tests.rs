//! The cell seen from the gateway's end of the socket, with real guests. What a cell promises, one test each.
//!
//! Owns the other end of the protocol, written to be as pedantic as the gateway. Confinement is the jail's to test.

mod fetch;
mod gateway;
mod instances;

use cofferdam_model::facts::Ending;
use cofferdam_model::limits::FunctionLimits;
use http::Method;

use self::gateway::{FAULTS, Gateway, HELLO, HOSTILE, WHOAMI};

fn faults(limits: FunctionLimits) -> Gateway {
    Gateway::start(FAULTS, limits, &[("GREETING", "hi"), ("API_SECRET", "s3cret")])
}

fn limits() -> FunctionLimits {
    FunctionLimits { cells: 1, cpu_ms: 10_000, ..FunctionLimits::default() }
}

#[test]
fn a_call_is_answered_and_accounted_for() {
    let mut gateway = Gateway::start(HELLO, limits(), &[]);
    let end = gateway.get("/");
    assert_eq!((end.ending, end.status, end.text()), (Ending::Answered, 200, "hello, world\n"));
    assert!(end.complete);
    assert_eq!(end.usage.bytes_out, 13);
    assert!(end.usage.cpu_us > 0 && end.usage.memory_bytes >= 65_536, "{:?}", end.usage);
    let most = end.usage.memory_bytes.saturating_mul(end.usage.wall_us + 1).div_ceil(1024 * 1000);
    assert!((1..=most).contains(&end.usage.memory_kib_ms), "{:?}", end.usage);
}

#[test]
fn every_call_gets_an_instance_of_its_own() {
    let mut gateway = faults(limits());
    for _ in 0..3 {
        assert_eq!(gateway.get("/count").text(), "1\n");
    }
    assert_ne!(gateway.get("/random").text(), gateway.get("/random").text());
}

#[test]
fn guests_see_the_request_as_it_was_and_their_own_environment() {
    let mut gateway = Gateway::start(WHOAMI, limits(), &[("GREETING", "hi")]);
    let end = gateway.get("/a/b?c=d");
    for part in [r#""method":"GET""#, r#""path":"/a/b?c=d""#, r#""principal":"alice""#, r#""greeting":"hi""#] {
        assert!(end.text().contains(part), "{part} in {}", end.text());
    }
    assert_eq!(end.log, "whoami: GET /a/b?c=d\n");
}

#[test]
fn bodies_stream_both_ways_within_credit() {
    let mut gateway = faults(limits());
    let body: Vec<u8> = (0..3_000_000u32).map(|n| n.to_le_bytes()[1]).collect();
    let end = gateway.send(&Method::POST, "/echo", &body);
    assert_eq!(end.ending, Ending::Answered);
    assert!(end.body == body, "{} bytes of {}", end.body.len(), body.len());
    assert_eq!((end.usage.bytes_in, end.usage.bytes_out), (3_000_000, 3_000_000));
}

#[test]
fn a_body_over_the_limit_is_an_error_to_the_guest_and_never_held() {
    let mut gateway = faults(FunctionLimits { request_bytes: 100_000, ..limits() });
    let end = gateway.send(&Method::POST, "/sink", &vec![0; 200_000]);
    assert!(!end.text().contains("200000"), "{}", end.text());
    assert_eq!(gateway.get("/count").text(), "1\n");
}

#[test]
fn a_spinning_guest_is_stopped_at_its_cpu_budget_and_stalls_nobody() {
    let mut gateway = faults(FunctionLimits { cpu_ms: 600, ..limits() });
    for path in ["/spin", "/busy"] {
        let spinning = gateway.begin(&Method::GET, path, true);
        for _ in 0..3 {
            assert_eq!(gateway.get("/count").ending, Ending::Answered);
            assert!(!gateway.is_over(spinning), "{path} ended early");
        }
        let end = gateway.finish(spinning);
        assert_eq!(end.ending, Ending::CpuExhausted, "{path}");
        // Late by a tick where the ticker gets its turn in time, which a busy machine does not promise.
        assert!((600_000..3_000_000).contains(&end.usage.cpu_us), "{path}: {:?}", end.usage);
    }
}

#[test]
fn computing_after_the_answer_counts_too() {
    let mut gateway = faults(FunctionLimits { cpu_ms: 50, ..limits() });
    let end = gateway.get("/after");
    assert_eq!((end.status, end.complete, end.ending), (200, true, Ending::CpuExhausted));
}

#[test]
fn waiting_ends_with_the_wall_time_and_costs_no_cpu() {
    let mut gateway = faults(FunctionLimits { wall_ms: 80, ..limits() });
    let end = gateway.get("/sleep?n=60000");
    assert_eq!(end.ending, Ending::WallExceeded);
    assert!(end.usage.wall_us >= 80_000 && end.usage.cpu_us < 80_000, "{:?}", end.usage);
    assert_eq!(gateway.get("/sleep?n=1").ending, Ending::Answered);
}

#[test]
fn many_guests_that_compute_are_all_stopped_at_their_wall_time() {
    const GUESTS: u64 = 32;
    let mut gateway = faults(FunctionLimits { wall_ms: 300, concurrency: 64, ..limits() });
    // Never any need of the others to be over; they are what a stop must not wait for.
    let calls: Vec<u32> = (0..GUESTS).map(|_| gateway.begin(&Method::GET, "/spin", true)).collect();
    let mut late = Vec::new();
    for call in calls {
        let end = gateway.finish(call);
        assert_eq!(end.ending, Ending::WallExceeded);
        late.push(end.usage.wall_us.checked_sub(300_000).expect("stopped early"));
    }
    late.sort_unstable();
    println!("{GUESTS} guests, late by at most {} us, half of them {} us", late[31], late[16]);
    // Much above what it takes alone, for a machine that is busy with much else.
    assert!(late[16] < 150_000, "{late:?}");
}

#[test]
fn memory_is_refused_at_the_limit() {
    let mut gateway = faults(FunctionLimits { memory_bytes: 16 * 1024 * 1024, ..limits() });
    let end = gateway.get("/eat");
    assert_eq!(end.ending, Ending::MemoryExhausted);
    assert!((12..=16).contains(&(end.usage.memory_bytes >> 20)), "{:?}", end.usage);
    assert_eq!(gateway.get("/count").text(), "1\n");
}

#[test]
fn traps_and_silence_are_told_apart() {
    let mut gateway = faults(limits());
    for (path, ending) in
        [("/trap", Ending::Trapped), ("/die", Ending::StackExhausted), ("/noanswer", Ending::NoAnswer)]
    {
        let end = gateway.get(path);
        assert_eq!((end.ending, end.status), (ending, 0), "{path}");
    }
    assert!(gateway.get("/trap").log.contains("unreachable"));
}

#[test]
fn a_trap_within_the_answer_never_completes_it() {
    let end = faults(limits()).get("/cut");
    // Whether the head was out already depends on whether the guest's slice ended before it trapped.
    assert!([0, 200].contains(&end.status));
    assert_eq!((end.ending, end.complete), (Ending::Trapped, false));
}

#[test]
fn a_body_that_is_not_as_long_as_declared_is_never_complete() {
    let end = faults(limits()).get("/lie");
    assert!(!end.complete && end.body.len() <= 5, "{}", end.text());
    assert_ne!(end.ending, Ending::Answered);
}

#[test]
fn a_body_the_guest_never_finished_is_never_complete() {
    let mut gateway = Gateway::start(HOSTILE, limits(), &[]);
    for path in ["/forget-the-body", "/drop-the-body"] {
        let end = gateway.get(path);
        assert_eq!((end.ending, end.complete), (Ending::NoAnswer, false), "{path}: {}", end.text());
    }
}

#[test]
fn an_answer_over_its_limit_is_cut() {
    let mut gateway = faults(FunctionLimits { response_bytes: 3_000_000, ..limits() });
    let end = gateway.get("/big?n=8");
    assert_eq!((end.ending, end.complete), (Ending::ResponseTooLarge, false));
    assert!(end.body.len() <= 3_000_000);
    assert_eq!(gateway.get("/big?n=2").body.len(), 2 * 1024 * 1024);
    for (fields, why) in [(400, "more bytes than allowed"), (200, "more fields than a frame holds")] {
        let end = gateway.get(&format!("/many?n={fields}"));
        assert_eq!((end.ending, end.status), (Ending::ResponseTooLarge, 0), "{why}");
    }
    assert_eq!(gateway.get("/many?n=100000").ending, Ending::HostcallExhausted, "more than the host holds for a guest");
}

#[test]
fn headers_of_the_connection_and_of_the_platform_do_not_get_out() {
    let end = faults(limits()).get("/headers");
    assert_eq!(end.headers.get("x-fine").unwrap(), "yes");
    assert_eq!(end.headers.get_all("set-cookie").iter().count(), 2);
    for name in ["connection", "keep-alive", "transfer-encoding", "upgrade", "te", "trailer", "x-injected"] {
        assert!(!end.headers.contains_key(name), "{name}");
    }
    assert!(!end.headers.keys().any(|name| name.as_str().contains("cofferdam")));
}

#[test]
fn only_final_statuses_are_answers() {
    let mut gateway = faults(limits());
    assert_eq!(gateway.get("/status?n=503").status, 503);
    for status in [100, 101, 103, 199, 600, 999] {
        let end = gateway.get(&format!("/status?n={status}"));
        assert!(end.status == 503 || (end.ending, end.status) == (Ending::NoAnswer, 0), "{status}: {}", end.status);
    }
}

#[test]
fn head_is_answered_without_a_body() {
    let mut gateway = Gateway::start(HELLO, limits(), &[]);
    let end = gateway.send(&Method::HEAD, "/", &[]);
    assert_eq!((end.ending, end.status, end.complete, end.body.len()), (Ending::Answered, 200, true, 0));
    assert_eq!(end.headers.get("content-length").unwrap(), "13");
}

#[test]
fn the_log_is_bounded_and_counted() {
    let end = faults(FunctionLimits { log_bytes: 10_000, ..limits() }).get("/log?n=100");
    let (kept, notice) = end.log.split_at(10_000);
    assert!(kept.bytes().all(|byte| byte == b'l' || byte == b'\n'));
    assert_eq!(notice, "cofferdam: 92400 bytes of log over the call's limit were dropped\n");
    assert_eq!((end.ending, end.usage.log_bytes), (Ending::Answered, 102_400));
}

#[test]
fn guests_have_no_network_and_no_files() {
    let mut gateway = faults(limits());
    // What it asks of the outside the gateway is asked for, and nobody else.
    let asking = gateway.begin(&Method::GET, "/out", true);
    let (fetch, asked, _) = gateway.fetched();
    assert!(!asked.authority.is_empty());
    gateway.deny(fetch);
    let end = gateway.finish(asking);
    assert!(end.text().contains("HttpRequestDenied"), "{}", end.text());
    let net = gateway.get("/net");
    assert_eq!(net.text().matches("refused").count(), 4, "{}", net.text());
    assert_eq!(net.text().matches("access-denied").count(), 4, "{}", net.text());
    let fs = gateway.get("/fs");
    assert!(fs.text().contains("preopens: 0") && !fs.text().contains("allowed"), "{}", fs.text());
}

#[test]
fn what_a_guest_can_hold_on_the_host_is_bounded() {
    let mut gateway = faults(limits());
    for (path, ending) in [("/glut", Ending::HostcallExhausted), ("/hoard", Ending::HandlesExhausted)] {
        let end = gateway.get(path);
        assert_eq!(end.ending, ending, "{path}: {}", end.text());
    }
    let step: u64 = gateway.get("/time").text().split_whitespace().find_map(|word| word.parse().ok()).unwrap();
    assert!(step >= 1_000_000, "a step of {step} ns");
}

#[test]
fn a_cancelled_call_ends_and_frees_its_place() {
    let mut gateway = faults(FunctionLimits { concurrency: 1, ..limits() });
    let call = gateway.begin(&Method::GET, "/sleep?n=60000", true);
    gateway.cancel(call);
    assert_eq!(gateway.finish(call).ending, Ending::ClientGone);
    let call = gateway.begin(&Method::GET, "/spin", true);
    gateway.cancel(call);
    assert_eq!(gateway.finish(call).ending, Ending::ClientGone);
    assert_eq!(gateway.get("/count").text(), "1\n");
}

#[test]
fn late_frames_of_an_ended_call_are_ignored() {
    let mut gateway = faults(limits());
    let call = gateway.begin(&Method::POST, "/count", false);
    assert_eq!(gateway.finish(call).ending, Ending::Answered);
    gateway.data(call, b"late", true);
    gateway.cancel(call);
    assert_eq!(gateway.get("/count").text(), "1\n");
}

#[test]
fn many_calls_at_once_are_all_answered() {
    let mut gateway = faults(FunctionLimits { concurrency: 64, ..limits() });
    let calls: Vec<u32> = (0..64).map(|_| gateway.begin(&Method::GET, "/sleep?n=20", true)).collect();
    for call in calls {
        assert_eq!(gateway.finish(call).ending, Ending::Answered);
    }
}

#[test]
fn a_broken_protocol_ends_the_cell() {
    let mut gateway = faults(FunctionLimits { concurrency: 1, ..limits() });
    gateway.begin(&Method::GET, "/sleep?n=60000", true);
    gateway.begin(&Method::GET, "/count", true);
    assert!(gateway.ended().unwrap_err().contains("more calls at once"));

    let mut gateway = faults(limits());
    let call = gateway.begin(&Method::GET, "/sleep?n=60000", true);
    gateway.data(call, b"body after its end", true);
    assert!(gateway.ended().unwrap_err().contains("after its end"));

    let mut gateway = faults(limits());
    gateway.raw(&[0xff; 12]);
    assert!(gateway.ended().unwrap_err().contains("malformed"));
}

#[test]
fn the_cell_ends_with_its_socket() {
    let mut gateway = faults(limits());
    assert_eq!(gateway.get("/count").text(), "1\n");
    assert_eq!(gateway.ended(), Ok(()));
}

#[test]
fn what_cannot_be_loaded_is_refused_with_a_reason() {
    let reason = Gateway::refused(|artifact| artifact[0] ^= 1, limits());
    assert!(reason.contains("malformed"), "{reason}");
    let reason = Gateway::refused(|artifact| artifact.truncate(5000), limits());
    assert!(reason.contains("cannot be loaded"), "{reason}");
    let reason = Gateway::refused(|_| {}, FunctionLimits { memory_bytes: 65_536, ..limits() });
    assert!(reason.contains("memory"), "{reason}");
}
