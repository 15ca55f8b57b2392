//! What this host can enforce, found out by doing it to a process made for the purpose.
//!
//! Owns the trial and the way its report comes back. Must never confine the process that asks.

use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::pipe::PipeFlags;
use rustix::process::{Pid, WaitOptions};

use crate::confine::{Plan, Role, confine_by};
use crate::report::{LayerName, Report, State};
use crate::{host, sys};

/// Most bytes of a report.
const REPORT_BYTES: u64 = 64 * 1024;

/// Tries everything a worker would do to itself, in a copy of this process that then exits, and looks at the host
/// around it. Best called before other threads are started: the copy has only the calling one, and uses nothing of
/// the process but its allocator.
pub fn probe() -> Report {
    let mut report = trial().unwrap_or_else(|error| {
        let mut report = Report::default();
        report.off(LayerName::Descriptors, format_args!("no process to try it on: {error}"));
        report
    });
    for name in LayerName::ALL {
        if !report.layers.iter().any(|layer| layer.name == *name) {
            report.off(*name, "the trial ended before it came to this");
        }
    }
    report.host = host::checks();
    report
}

fn trial() -> std::io::Result<Report> {
    let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    match sys::fork()? {
        sys::Side::Child => tried(&write),
        sys::Side::Parent(child) => {
            drop(write);
            let mut text = String::new();
            let got = std::fs::File::from(read).take(REPORT_BYTES).read_to_string(&mut text);
            if let Some(pid) = Pid::from_raw(child) {
                while matches!(rustix::process::waitpid(Some(pid), WaitOptions::empty()), Err(rustix::io::Errno::INTR))
                {
                }
            }
            got.map(|_| decode(&text))
        }
    }
}

/// The copy: confines itself, says how that went, and is gone.
fn tried(write: &OwnedFd) -> ! {
    let plan = Plan { role: Role::Worker, keep: &[write.as_raw_fd()], lifeline: None, without: &[] };
    let text = match confine_by(&plan) {
        Ok(report) => encode(&report),
        Err(error) => format!("{}\toff\t{error}\n", LayerName::Descriptors.as_str()),
    };
    let mut rest = text.as_bytes();
    while let Ok(written @ 1..) = rustix::io::write(write, rest) {
        rest = rest.get(written..).unwrap_or_default();
    }
    sys::exit_now(0)
}

fn encode(report: &Report) -> String {
    let line = |layer: &crate::Layer| {
        let why = layer.why.replace(['\t', '\n'], " ");
        format!("{}\t{}\t{why}\n", layer.name.as_str(), layer.state.as_str())
    };
    report.layers.iter().map(line).collect()
}

fn decode(text: &str) -> Report {
    let mut report = Report::default();
    for line in text.lines() {
        let mut parts = line.splitn(3, '\t');
        let name = parts.next().and_then(|text| LayerName::ALL.iter().find(|name| name.as_str() == text));
        let state = parts.next().and_then(State::parse);
        if let (Some(name), Some(state), Some(why)) = (name, state, parts.next()) {
            report.add(*name, state, why);
        }
    }
    report
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_survives_the_pipe() {
        let mut report = Report::default();
        report.on(LayerName::Seccomp, "all\tof it\n");
        report.add(LayerName::Landlock, State::Reduced, "V2");
        let back = decode(&encode(&report));
        assert_eq!(back.state(LayerName::Seccomp), State::On);
        assert_eq!(back.layers.last(), report.layers.last());
        assert!(decode("nonsense\nseccomp\tmaybe\twhy\n").layers.is_empty());
    }

    #[test]
    fn probing_leaves_the_caller_unconfined_and_names_every_layer() {
        let report = probe();
        assert_eq!(report.layers.len(), LayerName::ALL.len());
        assert_eq!(report.state(LayerName::NoNewPrivileges), State::On);
        assert!(!rustix::thread::no_new_privs().unwrap());
        assert!(std::fs::read_dir("/").unwrap().next().is_some());
        assert!(!report.host.is_empty());
    }
}
