//! What each attack is, and what must become of it.
//!
//! Owns the table. An attack that ends differently is a finding, whichever way: the specific ending is the claim.

use cofferdam_tests::Answer;

/// What must become of an attack.
#[derive(Clone, Copy)]
pub(super) enum End {
    /// The caller is told by a problem with this code; the record says this ending.
    Fails(&'static str, &'static str),
    /// The answer's head went out, its body broke off; the record says this ending.
    Cut(&'static str),
    /// It answers, and what it answers shows that the attack came to nothing.
    Answers(fn(&Answer) -> bool),
}

use End::{Answers, Cut, Fails};

/// One attack.
pub(super) struct Attack {
    /// Which, as the report says it.
    pub(super) name: &'static str,
    /// The function and what is asked of it.
    pub(super) path: &'static str,
    /// Bytes of request body.
    pub(super) body: usize,
    /// What must become of it.
    pub(super) end: End,
}

const fn attack(name: &'static str, path: &'static str, end: End) -> Attack {
    Attack { name, path, body: 0, end }
}

const TRAPPED: End = Fails("function_trapped", "trapped");
const CPU: End = Fails("function_cpu_exhausted", "cpu_exhausted");
const WALL: End = Fails("function_wall_exceeded", "wall_exceeded");
const MEMORY: End = Fails("function_memory_exhausted", "memory_exhausted");
const STACK: End = Fails("function_stack_exhausted", "stack_exhausted");
const HANDLES: End = Fails("function_handles_exhausted", "handles_exhausted");
const HOSTCALL: End = Fails("function_hostcall_exhausted", "hostcall_exhausted");
const SILENT: End = Fails("function_no_answer", "no_answer");
const TOO_LARGE: End = Fails("function_response_too_large", "response_too_large");

fn says(answer: &Answer, text: &str) -> bool {
    answer.text() == text
}

/// Against the processor, the memory and the stack.
pub(super) const MACHINE: &[Attack] = &[
    attack("spins while it starts", "/mallory/start-spin", CPU),
    attack("traps while it starts", "/mallory/start-trap", TRAPPED),
    attack("spins in its handler", "/mallory/faults/spin", CPU),
    attack("spins after it answered", "/mallory/faults/after", Cut("cpu_exhausted")),
    attack("spins in its post-return", "/mallory/raw/j", CPU),
    attack("spins in a destructor", "/mallory/raw/0", CPU),
    attack("spins where the host asks it for memory", "/mallory/raw/m", CPU),
    attack("spins through a jump table", "/mallory/raw/x", CPU),
    attack("asks the host the time for ever", "/mallory/hostile/hostcalls", CPU),
    attack("waits for no time at all, for ever", "/mallory/faults/busy", CPU),
    attack("makes and drops handles for ever", "/mallory/hostile/churn", CPU),
    attack("asks for random bytes for ever", "/mallory/hostile/burn-random", CPU),
    attack("polls a thousand timers for ever", "/mallory/hostile/poll-in-a-loop", CPU),
    attack("fills its memory in one instruction, for ever", "/mallory/hostile/fill", CPU),
    attack("copies its memory in one instruction, for ever", "/mallory/hostile/copy", CPU),
    attack("fills and copies tables for ever", "/mallory/raw/y", CPU),
    attack("asks for memory nobody gets, for ever", "/mallory/raw/z", CPU),
    attack("writes to memory until there is no more", "/mallory/faults/eat", MEMORY),
    attack("grows its memory until it gets no more", "/mallory/raw/b", MEMORY),
    attack("grows a table until it gets no more", "/mallory/raw/a", TRAPPED),
    attack("recurses until the stack ends", "/mallory/faults/die", STACK),
    attack("recurses with wide frames", "/mallory/raw/i", STACK),
    attack("traps", "/mallory/faults/trap", TRAPPED),
    attack("traps in its post-return", "/mallory/raw/k", TRAPPED),
    attack("traps in a destructor", "/mallory/raw/1", TRAPPED),
    attack("traps where the host asks it for memory", "/mallory/raw/A", TRAPPED),
    attack("divides by zero", "/mallory/raw/c", TRAPPED),
    attack("makes a number of what is none", "/mallory/raw/d", TRAPPED),
    attack("divides beyond the range", "/mallory/raw/e", TRAPPED),
    attack("reads beyond its memory", "/mallory/raw/f", TRAPPED),
    attack("reads at the end of the address space", "/mallory/hostile/out-of-bounds", TRAPPED),
    attack("calls where there is no function", "/mallory/raw/g", TRAPPED),
    attack("calls beyond its table", "/mallory/raw/h", TRAPPED),
    attack("calls a function of another type", "/mallory/raw/D", TRAPPED),
    attack("calls through a bent pointer", "/mallory/hostile/wrong-signature", TRAPPED),
    attack("panics with escapes in its message", "/mallory/hostile/panic", TRAPPED),
    attack("aborts", "/mallory/hostile/abort", TRAPPED),
];

/// Against the boundary: handles, texts and lists, calls at the wrong moment.
pub(super) const BOUNDARY: &[Attack] = &[
    attack("uses a handle it was never given", "/mallory/hostile/forge-a-handle", TRAPPED),
    attack("drops a handle twice", "/mallory/hostile/drop-twice", TRAPPED),
    attack("takes every handle for another type", "/mallory/hostile/take-any-handle", TRAPPED),
    attack("drops handle 0", "/mallory/raw/t", TRAPPED),
    attack("drops the last handle there could be", "/mallory/raw/u", TRAPPED),
    attack("drops a request as if it were fields", "/mallory/raw/v", TRAPPED),
    attack("drops a resource of its own twice", "/mallory/raw/2", TRAPPED),
    attack("hoards resources of its own", "/mallory/raw/3", HANDLES),
    attack("hoards fields", "/mallory/faults/hoard", HANDLES),
    attack("hoards timers", "/mallory/hostile/hoard-timers", HANDLES),
    attack("hoards requests", "/mallory/hostile/hoard-requests", HANDLES),
    attack("hoards streams", "/mallory/hostile/hoard-streams", HANDLES),
    attack("gives the host a wild pointer to write to", "/mallory/raw/l", TRAPPED),
    attack("calls the host from where the host asks it for memory", "/mallory/raw/n", TRAPPED),
    attack("calls the host from its post-return", "/mallory/raw/C", TRAPPED),
    attack("hands over text from beyond its memory", "/mallory/raw/o", TRAPPED),
    attack("hands over 8 MiB of text", "/mallory/raw/p", HOSTCALL),
    attack("hands over 4 GiB of text it has not", "/mallory/raw/E", TRAPPED),
    attack("hands over 4 GiB of wide text it has not", "/mallory/raw/F", TRAPPED),
    attack("hands over wide text that is not aligned", "/mallory/raw/q", TRAPPED),
    attack("hands over half a character", "/mallory/raw/r", TRAPPED),
    attack("hands over text that is none", "/mallory/raw/s", TRAPPED),
    attack("asks for 1 GiB of random bytes", "/mallory/faults/glut", HOSTCALL),
    attack("asks for 4 GiB of random bytes", "/mallory/hostile/random-4-gib", HOSTCALL),
    attack("asks for 4 GiB of insecure random bytes", "/mallory/hostile/insecure-random-4-gib", HOSTCALL),
    attack("waits for one of none", "/mallory/hostile/wait-for-nothing", TRAPPED),
    attack("waits for ever", "/mallory/patient/wait-forever", WALL),
    attack("waits until the end of time", "/mallory/patient/wait-until-the-end", WALL),
    attack("waits for two thousand timers", "/mallory/patient/wait-for-many", WALL),
    attack("sleeps past its deadline", "/mallory/sleepy/sleep?n=60000", WALL),
];

/// Against HTTP: heads, bodies, and what is behind them.
pub(super) const HTTP: &[Attack] = &[
    attack("returns without an answer", "/mallory/faults/noanswer", SILENT),
    attack("drops the right to answer", "/mallory/raw/w", SILENT),
    attack("answers twice", "/mallory/hostile/answer-twice", TRAPPED),
    attack("answers with an error in words of its own", "/mallory/hostile/answer-with-an-error", SILENT),
    attack("splits its answer", "/mallory/hostile/split", Answers(|answer| says(answer, "end of report\n"))),
    attack("forges fields of the platform and of the connection", "/mallory/faults/headers", Answers(plain_fields)),
    attack("ends its answer with trailers", "/mallory/hostile/trailers", Answers(no_trailers)),
    attack("ends its answer with 10 MB of trailers", "/mallory/hostile/trailer-bomb", HOSTCALL),
    attack("appends fields until it may no more", "/mallory/hostile/append-forever", HOSTCALL),
    attack("sets more fields than fit", "/mallory/faults/many?n=400", TOO_LARGE),
    attack("sets 100,000 fields", "/mallory/faults/many?n=100000", HOSTCALL),
    attack("promises more than it sends", "/mallory/hostile/length?n=100", SILENT),
    attack("promises less than it sends", "/mallory/hostile/length?n=5", SILENT),
    attack("promises 16 EiB", "/mallory/hostile/length?n=18446744073709551615", TOO_LARGE),
    attack("sends a second answer behind the first", "/mallory/faults/lie", SILENT),
    attack("promises two lengths", "/mallory/hostile/lengths", Answers(one_length)),
    attack("promises a negative length", "/mallory/hostile/promise", Answers(one_length)),
    attack("sets statuses that are none", "/mallory/hostile/statuses", Answers(|answer| says(answer, "taken:\n"))),
    attack("answers with an interim status", "/mallory/faults/status?n=103", SILENT),
    attack("takes bodies twice", "/mallory/hostile/take-the-body-twice", Answers(nothing_twice)),
    attack("drops the body it began", "/mallory/hostile/drop-the-body", SILENT),
    attack("returns with its body open", "/mallory/hostile/forget-the-body", SILENT),
    attack("traps within its body", "/mallory/faults/cut", TRAPPED),
    attack("never writes the body it began", "/mallory/patient/never-write", Cut("wall_exceeded")),
    attack("trickles for ever", "/mallory/patient/trickle", Cut("wall_exceeded")),
    attack("writes without end", "/mallory/hostile/endless", Cut("response_too_large")),
    attack("writes nothing to its body for ever", "/mallory/hostile/write-nothing", Cut("cpu_exhausted")),
    attack("answers 64 MiB", "/mallory/faults/big", Cut("response_too_large")),
    attack("writes more than it was told it may", "/mallory/hostile/write-more-than-allowed", TRAPPED),
    Attack {
        name: "answers ten bytes for each it is sent",
        path: "/mallory/hostile/read-and-write-forever",
        body: 1024 * 1024,
        end: Cut("response_too_large"),
    },
    Attack {
        name: "leaves a body unread",
        path: "/mallory/faults/count",
        // What a client could not write for an answer that came first would be an error of its own.
        body: 32 * 1024,
        end: Answers(|answer| says(answer, "1\n")),
    },
];

/// Against what is around it: the network, files, logs, clocks, others' secrets.
pub(super) const SURROUNDINGS: &[Attack] = &[
    attack("calls a metadata service", "/mallory/faults/out", Answers(|answer| !answer.text().contains("answered"))),
    attack("opens sockets, names and files", "/mallory/hostile/denied", Answers(all_denied)),
    attack("opens, connects, listens, resolves", "/mallory/faults/net", Answers(|answer| all_refused(answer, 4))),
    attack("reads, writes and lists files", "/mallory/faults/fs", Answers(|answer| all_refused(answer, 4))),
    attack("reads its standard input", "/mallory/hostile/stdin", Answers(|answer| says(answer, "0 Ok(0)\n"))),
    attack("reads the environment", "/mallory/hostile/environment", Answers(|answer| says(answer, "GREETING=own\n"))),
    attack("times its neighbours", "/mallory/hostile/clocks", Answers(coarse)),
    attack("asks what it was called with", "/mallory/hostile/inbound", Answers(own_fields)),
    attack("looks for what a call before it left", "/mallory/faults/count", Answers(|answer| says(answer, "1\n"))),
    attack("writes 64 MiB of log", "/mallory/faults/log", Answers(|answer| says(answer, "65536\n"))),
    attack("writes one line of 8 MiB", "/mallory/hostile/log-line", Answers(|answer| says(answer, "written\n"))),
    attack("writes escapes to its log", "/mallory/hostile/log-escapes", Answers(|answer| says(answer, "written\n"))),
    attack("writes to its log for ever", "/mallory/hostile/log-forever", CPU),
    attack("writes nothing to its log for ever", "/mallory/hostile/log-nothing", CPU),
    attack("exits well without an answer", "/mallory/hostile/exit-well", SILENT),
    attack("exits badly", "/mallory/hostile/exit-badly", TRAPPED),
    attack(
        "exits well after its answer",
        "/mallory/hostile/exit-after-answering",
        Answers(|a| says(a, "that was all\n")),
    ),
    attack("exits badly after its answer", "/mallory/hostile/fail-after-answering", TRAPPED),
];

/// Nothing of the connection or of the platform that it tried to set; what it may set is there.
fn plain_fields(answer: &Answer) -> bool {
    let forged = |value: &http::HeaderValue| value.as_bytes().windows(6).any(|piece| piece == b"forged");
    let harmless = ["server", "date", "strict-transport-security", "x-fine", "set-cookie"];
    answer.headers.iter().all(|(name, value)| !forged(value) || harmless.contains(&name.as_str()))
        && !answer.headers.contains_key("x-injected")
        && !answer.headers.keys().any(|name| name.as_str().starts_with("x-cofferdam-"))
        && answer.header("x-fine") == "yes"
}

/// The first length, where there was one that is a length; the body is as long as it says.
fn one_length(answer: &Answer) -> bool {
    says(answer, "ten bytes!") && ["", "10"].contains(&answer.header("content-length"))
}

fn no_trailers(answer: &Answer) -> bool {
    says(answer, "body\n") && !answer.headers.contains_key("x-trailer") && !answer.headers.contains_key("trailer")
}

fn nothing_twice(answer: &Answer) -> bool {
    says(answer, "false false false false\n")
}

fn all_denied(answer: &Answer) -> bool {
    answer.text().lines().count() >= 14 && !answer.text().contains("allowed")
}

fn all_refused(answer: &Answer, count: usize) -> bool {
    answer.text().matches(": refused").count() == count && !answer.text().contains("allowed")
}

/// Whole milliseconds, whichever clock, and both say so.
fn coarse(answer: &Answer) -> bool {
    let numbers: Vec<u64> = answer.text().split_whitespace().filter_map(|word| word.parse().ok()).collect();
    numbers.len() == 4 && numbers.iter().all(|number| *number >= 1_000_000 && number % 1_000_000 == 0)
}

/// Who calls, as the platform says it; not the credential the caller sent, nor anything of its connection.
fn own_fields(answer: &Answer) -> bool {
    let text = answer.text();
    let forged = ["authorization", "x-cofferdam-admin", "cofferdam-internal", "connection", "te", "upgrade", "host"];
    text.contains("x-cofferdam-") && text.lines().all(|line| !forged.contains(&line))
}
