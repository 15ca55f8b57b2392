//! Attacks on what the host does for a guest: waiting, clocks, chance, logs, the environment, the end.
//! Must never hold what it read longer than it takes to answer it.
use std::fmt::Write as _;
use std::io::{Read as _, Write as _};

use wasip2::clocks::{monotonic_clock, wall_clock};
use wasip2::io::poll::{Pollable, poll};
use wasip2::random::{insecure, random};

use crate::Call;
use crate::reply::Reply;

const FOUR_GIB: u64 = 4 * 1024 * 1024 * 1024;

pub fn wait_forever() {
    monotonic_clock::subscribe_duration(u64::MAX).block();
}

pub fn wait_until_the_end() {
    monotonic_clock::subscribe_instant(u64::MAX).block();
}

/// Waits for nearly as many things at once as it may hold.
pub fn wait_for_many() {
    let timers: Vec<Pollable> = (0..2000).map(|n| monotonic_clock::subscribe_duration(u64::MAX - n)).collect();
    let all: Vec<&Pollable> = timers.iter().collect();
    poll(&all);
}

/// Waits for one of none, which is against the rules.
pub fn wait_for_nothing() {
    poll(&[]);
}

/// Asks a thousand timers whether they are over, for ever.
pub fn poll_in_a_loop() {
    let mut timers: Vec<Pollable> = (0..1000).map(|_| monotonic_clock::subscribe_duration(u64::MAX)).collect();
    timers.push(monotonic_clock::subscribe_duration(0));
    let all: Vec<&Pollable> = timers.iter().collect();
    loop {
        poll(&all);
    }
}

pub fn hoard_timers() {
    loop {
        std::mem::forget(monotonic_clock::subscribe_duration(1));
    }
}

pub fn random_4_gib() {
    std::hint::black_box(random::get_random_bytes(FOUR_GIB));
}

pub fn insecure_random_4_gib() {
    std::hint::black_box(insecure::get_insecure_random_bytes(FOUR_GIB));
}

pub fn log_forever() {
    let line = [b'x'; 64 * 1024];
    let mut stderr = std::io::stderr();
    while stderr.write_all(&line).is_ok() {}
    std::process::abort()
}

/// Writes nothing to its log, for ever.
pub fn log_nothing() {
    let stdout = wasip2::cli::stdout::get_stdout();
    while stdout.check_write().is_ok() && stdout.write(&[]).is_ok() {}
}

pub fn exit_well(_: Call) {
    std::process::exit(0)
}

pub fn exit_badly(_: Call) {
    std::process::exit(1)
}

pub fn exit_after_answering(call: Call) {
    Reply::new(call.out).text(200, "that was all\n");
    std::process::exit(0)
}

pub fn fail_after_answering(call: Call) {
    Reply::new(call.out).text(200, "that was all\n");
    std::process::exit(1)
}

/// The smallest steps it saw of both clocks and what they say of themselves, in ns: `monotonic wall resolution wall`.
pub fn clocks(call: Call) {
    let wall = || {
        let now = wall_clock::now();
        now.seconds.wrapping_mul(1_000_000_000).wrapping_add(now.nanoseconds.into())
    };
    let steps = [smallest_step(monotonic_clock::now), smallest_step(wall)];
    let told = [monotonic_clock::resolution(), wall_clock::resolution().nanoseconds.into()];
    Reply::new(call.out).text(200, &format!("{} {} {} {}\n", steps[0], steps[1], told[0], told[1]));
}

fn smallest_step(clock: impl Fn() -> u64) -> u64 {
    let (mut last, mut smallest) = (clock(), u64::MAX);
    for _ in 0..8 {
        let mut now = clock();
        while now == last {
            now = clock();
        }
        smallest = smallest.min(now.wrapping_sub(last));
        last = now;
    }
    smallest
}

/// What can be read of standard input.
pub fn stdin(call: Call) {
    let mut read = Vec::new();
    let outcome = std::io::stdin().take(1024 * 1024).read_to_end(&mut read).map_err(|it| it.kind());
    Reply::new(call.out).text(200, &format!("{} {outcome:?}\n", read.len()));
}

/// Every way out of the sandbox that a program would try; `allowed` where one is open.
pub fn denied(call: Call) {
    use wasip2::sockets::network::IpAddressFamily::{Ipv4, Ipv6};
    use wasip2::sockets::{instance_network, ip_name_lookup, tcp_create_socket, udp_create_socket};
    let network = instance_network::instance_network();
    let mut report = String::new();
    let mut tell = |what: &str, open: bool| {
        let _ = writeln!(report, "{what}: {}", if open { "allowed" } else { "denied" });
    };
    tell("tcp", tcp_create_socket::create_tcp_socket(Ipv4).is_ok());
    tell("tcp6", tcp_create_socket::create_tcp_socket(Ipv6).is_ok());
    tell("udp", udp_create_socket::create_udp_socket(Ipv4).is_ok());
    tell("udp6", udp_create_socket::create_udp_socket(Ipv6).is_ok());
    for name in ["localhost", "metadata.google.internal", "169.254.169.254", "::1"] {
        tell(name, ip_name_lookup::resolve_addresses(&network, name).is_ok());
    }
    tell("preopens", !wasip2::filesystem::preopens::get_directories().is_empty());
    for path in ["/", "/proc/self/mem", "/proc/self/environ", "/dev/mem", "../../../etc/shadow"] {
        tell(path, std::fs::File::open(path).is_ok());
    }
    tell("write", std::fs::write("/tmp/x", "x").is_ok());
    tell("terminal", wasip2::cli::terminal_stdout::get_terminal_stdout().is_some());
    Reply::new(call.out).text(200, &report);
}

/// One line of `n` bytes without an end, 8 MiB unless told.
pub fn log_line(call: Call) {
    let piece = [b'z'; 4096];
    let mut stdout = std::io::stdout();
    for _ in 0..call.size(8 * 1024 * 1024) / 4096 {
        let _ = stdout.write_all(&piece);
    }
    Reply::new(call.out).text(200, "written\n");
}

/// Lines meant for the terminal or the log reader of whoever looks at them.
pub fn log_escapes(call: Call) {
    let mut stdout = std::io::stdout();
    let _ =
        stdout.write_all(b"\x1b[2J\x1b]0;owned\x07 \x08\x08\x08 forged\r\x00 \xff\xfe \xc2\x9b31m end-of-escapes\n");
    let _ = stdout.write_all("2026-01-01T00:00:00Z req_00000000000000000000000000 stdout | forged\n".as_bytes());
    let _ = stdout.write_all("\u{2028}\u{202e}end-of-tricks\n".as_bytes());
    Reply::new(call.out).text(200, "written\n");
}

/// Names and values of its variables, and its arguments.
pub fn environment(call: Call) {
    let mut report = String::new();
    for (name, value) in std::env::vars_os() {
        let _ = writeln!(report, "{}={}", name.to_string_lossy(), value.to_string_lossy());
    }
    for argument in std::env::args_os() {
        let _ = writeln!(report, "argument {}", argument.to_string_lossy());
    }
    Reply::new(call.out).text(200, &report);
}
