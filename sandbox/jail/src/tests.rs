//! What a jailed process cannot do, tried in one. Each test forks a victim off itself.
//!
//! Owns the victims' acts and the claims about them. The acts must be tried with raw system calls, as code that
//! broke out of Wasm would.

mod forbidden;
mod siblings;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};

use rustix::process::{Pid, Signal, WaitOptions, WaitStatus};

use crate::confine::{Plan, Role, confine_by};
use crate::report::LayerName;
use crate::{sys, syscalls};

const NULL: usize = 0;
/// Exit status of a victim that failed before its act.
const FAILED: i32 = 99;

/// What became of an act.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Did,
    Refused(i32),
    Killed(i32),
    Exited(i32),
}

/// A jailed copy of this process: `pid` is its guardian, `out` what it says.
struct Victim {
    pid: Pid,
    out: File,
    parent_end: OwnedFd,
}

struct Seen {
    end: End,
    layers: BTreeMap<String, String>,
}

impl Seen {
    fn on(&self, name: LayerName) -> bool {
        self.layers.get(name.as_str()).is_some_and(|state| state == "on")
    }
}

impl Victim {
    fn start(role: Role, without: &[LayerName], act: &str) -> Self {
        let (parent_end, lifeline) = std::os::unix::net::UnixStream::pair().unwrap();
        let (out, say) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        match sys::fork().unwrap() {
            sys::Side::Parent(child) => {
                Self { pid: Pid::from_raw(child).unwrap(), out: out.into(), parent_end: parent_end.into() }
            }
            sys::Side::Child => {
                let keep = [say.as_raw_fd(), lifeline.as_raw_fd()];
                let plan = Plan { role, keep: &keep, lifeline: Some(lifeline.as_raw_fd()), without };
                // A panic must not reach the copy of the test harness this process also is.
                let _ = catch_unwind(AssertUnwindSafe(|| live(&plan, act, out.as_raw_fd(), &say)));
                sys::exit_now(FAILED)
            }
        }
    }

    fn wait(&self) -> WaitStatus {
        rustix::process::waitpid(Some(self.pid), WaitOptions::empty()).unwrap().unwrap().1
    }

    /// Reads until the last layer was named, so that the act has begun.
    fn await_act(&mut self) {
        let mut text = Vec::new();
        let mut byte = [0];
        while !text.ends_with(b"ready\n") {
            self.out.read_exact(&mut byte).unwrap();
            text.push(byte[0]);
        }
    }

    fn end(mut self) -> Seen {
        let mut text = String::new();
        self.out.read_to_string(&mut text).unwrap();
        let status = self.wait();
        let mut layers = BTreeMap::new();
        let mut said = None;
        for line in text.lines() {
            if let Some((name, state)) = line.strip_prefix("layer ").and_then(|rest| rest.split_once(' ')) {
                layers.insert(name.to_owned(), state.to_owned());
            } else if let Some(errno) = line.strip_prefix("act ") {
                said = errno.parse().ok();
            }
        }
        assert!(text.contains("ready\n"), "the victim did not confine itself: {status:?} {text}");
        let end = match (status.terminating_signal(), status.exit_status(), said) {
            (Some(signal), _, _) => End::Killed(signal),
            (None, _, Some(0)) => End::Did,
            (None, _, Some(errno)) => End::Refused(errno),
            (None, code, None) => End::Exited(code.unwrap()),
        };
        drop(self.parent_end);
        Seen { end, layers }
    }
}

/// The victim's life, in the copy.
fn live(plan: &Plan<'_>, act: &str, unkept: i32, out: &OwnedFd) {
    let say = |text: &str| rustix::io::write(out, text.as_bytes()).map(drop).unwrap();
    let before = Before::gather(act, unkept);
    let report = match confine_by(plan) {
        Ok(report) => report,
        Err(error) => return say(&format!("error {error}\n")),
    };
    for layer in &report.layers {
        say(&format!("layer {} {}\n", layer.name.as_str(), layer.state.as_str()));
    }
    say("ready\n");
    let errno = match perform(act, &before) {
        Ok(()) => 0,
        Err(error) => error.raw_os_error().unwrap_or(-1),
    };
    say(&format!("act {errno}\n"));
    sys::exit_now(0);
}

fn worker(act: &str) -> Seen {
    Victim::start(Role::Worker, &[], act).end()
}

fn compiler(act: &str) -> Seen {
    Victim::start(Role::Compiler, &[], act).end()
}

fn worker_without(without: &[LayerName], act: &str) -> Seen {
    Victim::start(Role::Worker, without, act).end()
}

/// What a victim knows of the world from before it was jailed.
struct Before {
    parent: usize,
    port: u16,
    /// The number an act names.
    number: usize,
    /// A descriptor that was open and that nobody asked to keep.
    unkept: i32,
}

impl Before {
    fn gather(act: &str, unkept: i32) -> Self {
        let parent = std::os::unix::process::parent_id() as usize;
        let port = act.rsplit_once('=').and_then(|(_, port)| port.parse().ok()).unwrap_or(9);
        let number = act.rsplit_once('=').and_then(|(_, number)| number.parse().ok()).unwrap_or(0);
        Self { parent, port, number, unkept }
    }
}

fn call(name: &str, args: [usize; 6]) -> std::io::Result<()> {
    sys::raw(number(name), args).map(drop)
}

fn number(name: &str) -> libc::c_long {
    forbidden::number(name).unwrap_or_else(|| syscalls::number(name).unwrap().unwrap())
}

fn perform(act: &str, before: &Before) -> std::io::Result<()> {
    let path = |text: &'static std::ffi::CStr| text.as_ptr().addr();
    match act.split('=').next().unwrap_or_default() {
        "nothing" => Ok(()),
        "spin" => loop {
            std::hint::spin_loop();
        },
        "exit" => sys::exit_now(7),
        "abort" => std::process::abort(),
        "read leaked" => call("fstat", [before.unkept as usize, [0_u8; 512].as_mut_ptr().addr(), 0, 0, 0, 0]),
        "open" => call("openat", [-100_isize as usize, path(c"/etc/passwd"), 0, 0, 0, 0]),
        "create" => call("openat", [-100_isize as usize, path(c"/x"), 0o101, 0o600, 0, 0]),
        "tcp" => tcp(before.port),
        "fork" => call("clone", [17, NULL, NULL, NULL, NULL, 0]),
        "kill parent" => call("kill", [before.parent, 0, 0, 0, 0, 0]),
        "tgkill parent" => call("tgkill", [before.parent, before.parent, 0, 0, 0, 0]),
        "read parent" => call("process_vm_readv", [before.parent, NULL, 0, NULL, 0, 0]),
        "execve" => call("execve", [path(c"/bin/true"), NULL, NULL, 0, 0, 0]),
        "write and execute" => call("mmap", [NULL, 4096, 7, 0x22, usize::MAX, 0]),
        "execute" => call("mmap", [NULL, 4096, 5, 0x22, usize::MAX, 0]),
        "mergeable" => call("madvise", [NULL, 0, 12, 0, 0, 0]),
        "mergeable in disguise" => call("madvise", [NULL, 0, (1 << 32) + 12, 0, 0, 0]),
        "sealed execute" => crate::seal()
            .map_err(std::io::Error::other)
            .and_then(|()| call("mmap", [NULL, 4096, 5, 0x22, usize::MAX, 0])),
        "sealed thread" => {
            crate::seal().map_err(std::io::Error::other)?;
            std::thread::spawn(|| ()).join().map_err(|_| std::io::Error::other("thread"))
        }
        "thread" => std::thread::spawn(|| ()).join().map_err(|_| std::io::Error::other("thread")),
        "thread in a new namespace" => call("clone", [0x0001_0000 | 0x4000_0000 | 0x900, NULL, NULL, NULL, NULL, 0]),
        "terminal injection" => call("ioctl", [0, 0x5412, path(c"x"), 0, 0, 0]),
        "list root" => std::fs::read_dir("/").map(Iterator::count).and_then(|count| match count {
            0 => Ok(()),
            _ => Err(std::io::Error::from_raw_os_error(libc::ENOTEMPTY)),
        }),
        "be somebody" => match rustix::process::geteuid().is_root() {
            false => Ok(()),
            true => Err(std::io::Error::from_raw_os_error(libc::EPERM)),
        },
        "other table" => forbidden::by_the_other_table(libc::c_long::try_from(before.number).unwrap()),
        spying if spying.contains("the sibling") => siblings::perform(spying, before.number),
        name => call(name, [NULL; 6]),
    }
}

fn tcp(port: u16) -> std::io::Result<()> {
    std::net::TcpStream::connect(("127.0.0.1", port)).map(drop)
}

/// Killed for asking, or refused.
fn denied(seen: &Seen) -> bool {
    matches!(seen.end, End::Refused(_) | End::Killed(libc::SIGSYS))
}

#[test]
fn a_jailed_process_works_and_its_end_is_passed_on() {
    assert_eq!(worker("nothing").end, End::Did);
    // The first process of a pid namespace cannot be hit by its own SIGABRT; abort() then executes an illegal access.
    assert!(matches!(worker("abort").end, End::Killed(libc::SIGABRT | libc::SIGSEGV)));
    assert_eq!(worker("exit").end, End::Exited(7));
}

#[test]
fn every_layer_but_those_of_the_host_is_on() {
    let seen = worker("nothing");
    for name in [
        LayerName::Descriptors,
        LayerName::NoNewPrivileges,
        LayerName::NotDumpable,
        LayerName::DeathSignal,
        LayerName::Seccomp,
    ] {
        assert!(seen.on(name), "{name:?}");
    }
}

#[test]
fn jailed_code_cannot_make_a_forbidden_call() {
    for name in [
        "fork",
        "kill parent",
        "tgkill parent",
        "read parent",
        "create",
        "thread in a new namespace",
        "terminal injection",
        "write and execute",
        "mergeable",
        "mergeable in disguise",
    ] {
        let seen = worker(name);
        assert_eq!(seen.end, End::Killed(libc::SIGSYS), "{name}");
    }
}

#[test]
fn jailed_code_cannot_open_a_file() {
    assert!(denied(&worker("open")));
    assert!(denied(&worker("create")));
}

#[test]
fn jailed_code_cannot_use_a_descriptor_its_parent_leaked() {
    assert_eq!(worker("read leaked").end, End::Refused(libc::EBADF));
}

#[test]
fn jailed_code_is_never_root() {
    let seen = worker_without(&[LayerName::Seccomp], "be somebody");
    assert_eq!(seen.end == End::Did, seen.on(LayerName::Identity));
}

#[test]
fn a_worker_can_start_threads_and_map_code() {
    assert_eq!(worker("thread").end, End::Did);
    assert_eq!(worker("execute").end, End::Did);
}

#[test]
fn a_sealed_worker_cannot_gain_code_but_lives_on() {
    assert_eq!(worker("sealed execute").end, End::Killed(libc::SIGSYS));
    assert_eq!(worker("sealed thread").end, End::Did);
}

#[test]
fn a_compiler_can_neither_run_what_it_made_nor_start_threads() {
    assert_eq!(compiler("nothing").end, End::Did);
    for act in ["execute", "sealed execute", "socket", "memfd_create", "recvmsg", "create"] {
        let seen = compiler(act);
        assert!(matches!(seen.end, End::Killed(libc::SIGSYS)), "{act}: {:?}", seen.end);
    }
    assert!(denied(&compiler("fork")));
}

#[test]
fn without_the_filter_the_other_layers_still_hold() {
    let without = [LayerName::Seccomp];
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let tcp = format!("tcp={}", listener.local_addr().unwrap().port());
    for act in ["open", "create", "execve", "mount", "chroot", "setresuid", &tcp, "kill parent", "init_module"] {
        let seen = worker_without(&without, act);
        let held = matches!(seen.end, End::Refused(_)) || (act == "setresuid" && !seen.on(LayerName::Identity));
        assert!(held || !(seen.on(LayerName::PidNamespace) && seen.on(LayerName::EmptyRoot)), "{act}: {:?}", seen.end);
    }
}

#[test]
fn without_filter_and_landlock_the_namespaces_still_hold() {
    let without = [LayerName::Seccomp, LayerName::Landlock];
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let tcp = format!("tcp={}", listener.local_addr().unwrap().port());
    for (act, layer) in [
        ("open", LayerName::EmptyRoot),
        ("create", LayerName::EmptyRoot),
        (tcp.as_str(), LayerName::NetworkNamespace),
        ("kill parent", LayerName::PidNamespace),
    ] {
        let seen = worker_without(&without, act);
        assert!(matches!(seen.end, End::Refused(_)) || !seen.on(layer), "{act}: {:?}", seen.end);
    }
    let seen = worker_without(&without, "list root");
    assert_eq!(seen.end == End::Did, seen.on(LayerName::EmptyRoot));
}

#[test]
fn without_namespaces_and_filter_landlock_still_holds() {
    let without = [LayerName::Seccomp, LayerName::EmptyRoot, LayerName::NetworkNamespace, LayerName::PidNamespace];
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let tcp = format!("tcp={}", listener.local_addr().unwrap().port());
    for act in ["open", "create", "kill parent", tcp.as_str()] {
        let seen = worker_without(&without, act);
        assert!(matches!(seen.end, End::Refused(_)) || !seen.on(LayerName::Landlock), "{act}: {:?}", seen.end);
    }
}

#[test]
fn a_jailed_process_dies_when_its_parent_lets_go_of_the_channel() {
    let mut victim = Victim::start(Role::Worker, &[], "spin");
    victim.await_act();
    rustix::net::shutdown(&victim.parent_end, rustix::net::Shutdown::Both).unwrap();
    assert_eq!(victim.wait().terminating_signal(), Some(libc::SIGKILL));
}

#[test]
fn a_jailed_process_and_its_guardian_are_out_of_the_terminals_reach() {
    let mut victim = Victim::start(Role::Worker, &[], "spin");
    victim.await_act();
    // It leads a session of its own. The tests' session may be outside of their pid namespace, and has no number then.
    assert_eq!(rustix::process::getsid(Some(victim.pid)).unwrap(), victim.pid);
    rustix::process::kill_process(victim.pid, Signal::KILL).unwrap();
    victim.wait();
}

#[test]
fn a_jailed_process_waits_for_the_rest_of_the_host_and_takes_short_turns() {
    let mut victim = Victim::start(Role::Worker, &[], "spin");
    victim.await_act();
    let shown = |file: &str| std::fs::read_to_string(format!("/proc/{}/{file}", victim.pid.as_raw_nonzero()));
    // Where sessions are not scheduled as groups there is nothing to see, nor anything to yield.
    if let Ok(group) = shown("autogroup") {
        assert!(group.trim_end().ends_with("nice 19"), "{group}");
    }
    if let Some(slice) =
        shown("sched").ok().and_then(|all| all.lines().find(|line| line.contains("slice")).map(str::to_owned))
    {
        assert!(slice.trim_end().ends_with(" 150000"), "{slice}");
    }
    rustix::process::kill_process(victim.pid, Signal::KILL).unwrap();
    victim.wait();
}

#[test]
fn a_jailed_process_dies_with_its_guardian() {
    let mut victim = Victim::start(Role::Worker, &[], "spin");
    victim.await_act();
    rustix::process::kill_process(victim.pid, Signal::KILL).unwrap();
    assert_eq!(victim.wait().terminating_signal(), Some(libc::SIGKILL));
    // The jailed process holds the only other end of this pipe: it ends when the process does.
    assert_eq!(victim.out.read_to_end(&mut Vec::new()).unwrap(), 0);
}

#[test]
fn confining_is_refused_beside_other_threads() {
    let plan = Plan { role: Role::Worker, keep: &[], lifeline: None, without: &[] };
    let refused = std::thread::scope(|scope| scope.spawn(|| confine_by(&plan)).join().unwrap());
    assert!(matches!(refused, Err(crate::JailError::Threads(_))));
}
