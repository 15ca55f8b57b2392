//! The tour: shell lines a newcomer can copy, what to expect of each, and what must be true of what they print.
//!
//! Owns the list alone; the same lines are printed and checked, so the tour cannot drift from what works.

use std::path::Path;

/// One stop of the tour.
pub(crate) struct Step {
    /// What it shows.
    pub(crate) title: &'static str,
    /// The line to copy.
    pub(crate) shell: String,
    /// What to expect, for people.
    pub(crate) expect: &'static str,
    /// What its output must contain.
    pub(crate) must: Vec<&'static str>,
    /// What its output must not contain.
    pub(crate) must_not: Vec<&'static str>,
}

fn step(title: &'static str, shell: String, expect: &'static str, must: &[&'static str]) -> Step {
    Step { title, shell, expect, must: must.to_vec(), must_not: Vec::new() }
}

/// The value the demo sets as `API_SECRET`; no step may print it.
pub(crate) const SECRET: &str = "correct-horse-battery-staple";

/// All the stops, in order. `program`, `data` are as the shell should spell them.
pub(crate) fn steps(program: &str, data: &Path, url: &str) -> Vec<Step> {
    let data = data.display();
    let curl = |who: &str, path: &str| {
        let header = if who.is_empty() { String::new() } else { format!("-H @{data}/demo/{who} ") };
        format!("curl -sS --cacert {data}/tls/cert.pem {header}-w '\\n%{{http_code}}\\n' {url}{path}")
    };
    let mut steps = vec![
        step(
            "alice of acme, who may invoke, calls a function",
            curl("alice", "/acme/whoami"),
            "200; the function was told who called, and could read its secret, of which it shows a digest",
            &["\n200", "alice", "secret_sha256", "hello from a sandbox"],
        ),
        step("nobody in particular calls it", curl("", "/acme/whoami"), "401", &["unauthenticated", "\n401"]),
        step(
            "bob belongs to another tenant",
            curl("bob", "/acme/whoami"),
            "404: what belongs to others is not even admitted to exist",
            &["not_found", "\n404"],
        ),
        step(
            "carol belongs to acme, but has no role that may invoke",
            curl("carol", "/acme/whoami"),
            "403, with a request id to ask the operator about",
            &["forbidden", "request_id", "\n403"],
        ),
        step("a route declared public", curl("", "/acme/public"), "200", &["hello, world", "\n200"]),
        step(
            "the same call in a loop, on a route with a limit of 1 a second and 5 at once",
            format!(
                "for i in 1 2 3 4 5 6 7 8; do curl -sS -o {data}/demo/last -D {data}/demo/head \
                 --cacert {data}/tls/cert.pem -H @{data}/demo/alice -w '%{{http_code}} ' {url}/acme/limited; done; \
                 grep -iE '^(ratelimit|retry-after)' {data}/demo/head"
            ),
            "200 five times, then 429 with RateLimit, RateLimit-Policy and Retry-After",
            &["200 200 200", "429", "ratelimit:", "ratelimit-policy:", "retry-after:"],
        ),
        step(
            "a function that spins",
            curl("alice", "/acme/faults/spin"),
            "504: stopped at its CPU limit; the problem says the function is to blame",
            &["function_cpu_exhausted", "\"function\"", "\n504"],
        ),
        step(
            "a function that eats memory",
            curl("alice", "/acme/faults/eat"),
            "502: stopped at its memory limit",
            &["function_memory_exhausted", "\"function\"", "\n502"],
        ),
        step(
            "a function that traps",
            curl("alice", "/acme/faults/trap"),
            "502",
            &["function_trapped", "\"function\"", "\n502"],
        ),
    ];
    steps.extend(audit_steps(program, &data.to_string()));
    for step in &mut steps {
        step.must_not.push(SECRET);
    }
    steps
}

fn audit_steps(program: &str, data: &str) -> [Step; 5] {
    let copy = format!("{data}/demo/copy");
    [
        step(
            "the last records of the log",
            format!("{program} audit tail --lines 3 --data {data}"),
            "three records, the newest last",
            &["function_trapped"],
        ),
        step(
            "the log verifies, with nothing but its files and the public key",
            format!("{program} audit verify --data {data}"),
            "OK, with tree size and root",
            &["OK", "size", "root"],
        ),
        step(
            "one byte of a copy is changed",
            format!(
                "rm -rf {copy} && cp -r {data}/audit {copy} && chmod -R u+w {copy} && printf X | \
                 dd of=$(ls {copy}/segments/*.log | head -n 1) bs=1 seek=700 conv=notrunc status=none; \
                 {program} audit verify --log {copy} --key \"$({program} audit key --data {data})\" 2>&1; echo exit $?"
            ),
            "refused, naming the record, with exit code 8",
            &["record", "exit 8"],
        ),
        step(
            "the function's own log, for its tenant",
            format!(
                "{program} logs acme/whoami --token-file {data}/demo/dave.token --data {data} --url $COFFERDAM_URL"
            ),
            "the line the function wrote, with its request id",
            &["req_"],
        ),
        step(
            "what this host can enforce",
            format!("{program} doctor --data {data}"),
            "each layer of the jail, and how to get what is missing",
            &["seccomp"],
        ),
    ]
}
