//! Namespaces: views of the machine with nothing in them.
//!
//! Owns making them and mapping the one id of the user namespace. Must never join a namespace of somebody else.

use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::thread::UnshareFlags;

use crate::report::{LayerName, Report, State};
use crate::sys;

/// This process in the process file system, opened while there still is one to see.
pub(crate) struct Own(Result<OwnedFd, Errno>);

impl Own {
    pub(crate) fn open() -> Self {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Self(rustix::fs::open("/proc/self", flags, Mode::empty()))
    }

    fn write(&self, file: &str, text: &str) -> rustix::io::Result<()> {
        let dir = self.0.as_ref().map_err(|error| *error)?;
        let fd = rustix::fs::openat(dir, file, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
        rustix::io::write(&fd, text.as_bytes()).map(drop)
    }
}

/// A user namespace in which only the process's own id exists, and stands for nobody in particular.
pub(crate) fn user(own: &Own, report: &mut Report) {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    if let Err(error) = sys::unshare(UnshareFlags::NEWUSER) {
        return report.off(LayerName::UserNamespace, format_args!("unshare: {error}"));
    }
    let mapped = own
        .write("setgroups", "deny")
        .and_then(|()| own.write("uid_map", &format!("{uid} {uid} 1")))
        .and_then(|()| own.write("gid_map", &format!("{gid} {gid} 1")));
    match mapped {
        Ok(()) => report.on(LayerName::UserNamespace, format_args!("only user {uid}, group {gid}")),
        Err(error) => report.add(LayerName::UserNamespace, State::Reduced, format_args!("ids not mapped: {error}")),
    }
}

/// All the other namespaces, each for itself, so that one that is refused costs only itself.
pub(crate) fn others(report: &mut Report, without: &[LayerName]) {
    let all = [
        (LayerName::MountNamespace, UnshareFlags::NEWNS, "own mounts"),
        (LayerName::NetworkNamespace, UnshareFlags::NEWNET, "no interface but a loopback that is down"),
        (LayerName::IpcNamespace, UnshareFlags::NEWIPC, "own queues, semaphores and shared memory"),
        (LayerName::UtsNamespace, UnshareFlags::NEWUTS, "own host name"),
        (LayerName::CgroupNamespace, UnshareFlags::NEWCGROUP, "own view of cgroups"),
        (LayerName::PidNamespace, UnshareFlags::NEWPID, "sees only itself"),
    ];
    for (name, flag, what) in all {
        if !without.contains(&name) {
            match sys::unshare(flag) {
                Ok(()) => report.on(name, what),
                Err(error) => report.off(name, format_args!("unshare: {error}")),
            }
        }
    }
}
