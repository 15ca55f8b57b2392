//! Who the process is: an ordinary user without groups, that can neither be raised, dumped nor traced.
//!
//! Owns ids, umask, session, no_new_privs and the dumpable flag. Must never give an id up before what needs it is
//! done (see the order in `confine`).

use rustix::process::{DumpableBehavior, Gid, Uid};

use crate::confine::note;
use crate::report::{LayerName, Report};

/// The overflow id: owns nothing on any distribution.
const NOBODY: u32 = 65_534;

pub(crate) fn clear_umask() {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
}

/// Away from the terminal's signals and from the terminal: whoever drains the node decides when cells end.
pub(crate) fn leave_session() {
    // Refused to the leader of a process group, which the terminal cannot reach either.
    let _ = rustix::process::setsid();
}

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// From root to nobody; an ordinary user stays who it is.
pub(crate) fn drop_root(report: &mut Report) {
    if !is_root() {
        let id = rustix::process::geteuid().as_raw();
        return report.on(LayerName::Identity, format_args!("ordinary user {id}"));
    }
    match become_nobody() {
        Ok(()) => report.on(LayerName::Identity, format_args!("root became {NOBODY}, no groups")),
        Err(error) => report.off(LayerName::Identity, format_args!("root stays root: {error}")),
    }
}

fn become_nobody() -> rustix::io::Result<()> {
    let (uid, gid) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
    rustix::thread::set_thread_groups(&[])?;
    rustix::thread::set_thread_res_gid(gid, gid, gid)?;
    rustix::thread::set_thread_res_uid(uid, uid, uid)?;
    // Changing ids made /proc/self belong to root; the id maps of the user namespace are written through it.
    rustix::process::set_dumpable_behavior(DumpableBehavior::Dumpable)
}

pub(crate) fn no_new_privileges(report: &mut Report) {
    let done = rustix::thread::set_no_new_privs(true);
    note(report, LayerName::NoNewPrivileges, "no_new_privs", done);
}

pub(crate) fn not_dumpable(report: &mut Report) {
    let done = rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable);
    note(report, LayerName::NotDumpable, "no core file, no tracing", done);
}
