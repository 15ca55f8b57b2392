//! Resource limits of the jailed process.
//!
//! Owns the numbers and why each is what it is. Must never set RLIMIT_AS for a worker: its pool of linear memories
//! reserves address space it will never use.

use rustix::process::{Resource, Rlimit, setrlimit};

use crate::confine::Role;
use crate::report::{LayerName, Report, State};

const MIB: u64 = 1024 * 1024;

/// What both roles get.
const BOTH: &[(Resource, u64, &str)] = &[
    (Resource::Core, 0, "core=0"),               // a core file would hold the tenant's secrets
    (Resource::Nofile, 64, "nofile=64"),         // sockets, epoll, artifact, memory images
    (Resource::Stack, 8 * MIB, "stack=8M"),      // the usual one, so that an inherited larger one does not count
    (Resource::Memlock, MIB, "memlock=1M"),      // a page or two of secrets
    (Resource::Msgqueue, 0, "msgqueue=0"),       // unused
    (Resource::Sigpending, 64, "sigpending=64"), // unused beyond the faults of the process itself
    (Resource::Rtprio, 0, "rtprio=0"),           // never ahead of the host's own work
    (Resource::Nice, 0, "nice=0"),               // likewise
];

const WORKER: &[(Resource, u64, &str)] = &[
    // The only files it can write are memory images of its own; a larger one than any function's memory is a defect.
    (Resource::Fsize, 512 * MIB, "fsize=512M"),
];

const COMPILER: &[(Resource, u64, &str)] = &[
    (Resource::Fsize, 1024 * MIB, "fsize=1G"), // counts only where the result goes to a file
    (Resource::Cpu, 60, "cpu=60s"),            // register allocation is quadratic in the worst case
    (Resource::As, 2048 * MIB, "as=2G"),       // likewise; its own address space holds no pools
];

/// Processes and threads of the user namespace: the guardian, the process, its ticker, and room for a few more.
const PROCESSES: u64 = 8;

pub(crate) fn apply(role: Role, report: &mut Report) {
    let own = match role {
        Role::Worker => WORKER,
        Role::Compiler => COMPILER,
    };
    let mut refused = Vec::new();
    let mut set = Vec::new();
    for (resource, number, text) in BOTH.iter().chain(own) {
        match lower(*resource, *number) {
            Ok(()) => set.push(*text),
            Err(error) => refused.push(format!("{text}: {error}")),
        }
    }
    // Processes are counted per user and namespace; outside a namespace of its own the count is everybody's.
    if report.state(LayerName::UserNamespace) == State::On {
        match lower(Resource::Nproc, PROCESSES) {
            Ok(()) => set.push("nproc=8"),
            Err(error) => refused.push(format!("nproc: {error}")),
        }
    } else {
        refused.push("nproc: no user namespace to count in".into());
    }
    if refused.is_empty() {
        report.on(LayerName::Limits, set.join(" "));
    } else {
        report.add(LayerName::Limits, State::Reduced, refused.join("; "));
    }
}

/// Sets both the soft and the hard limit, never above what the process was given.
pub(crate) fn lower(resource: Resource, number: u64) -> rustix::io::Result<()> {
    let given = rustix::process::getrlimit(resource).maximum.unwrap_or(u64::MAX);
    let number = Some(number.min(given));
    setrlimit(resource, Rlimit { current: number, maximum: number })
}
