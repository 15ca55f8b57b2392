//! Who the process is: an ordinary user without groups, that can neither be raised, dumped nor traced.
//!
//! Owns ids (one of its own for each process that root starts), umask, session, no_new_privs and the dumpable flag.
//! Must never give an id up before what needs it is done (see the order in `confine`).

use rustix::process::{DumpableBehavior, Gid, Uid};

use crate::confine::note;
use crate::report::{LayerName, Report, State};

/// The overflow id: owns nothing on any distribution.
const NOBODY: u32 = 65_534;
/// Ids from here on, up to the largest process number there can be (2^22), are nobody's but ours. Above what
/// distributions give to users, services, containers and subordinate ids.
const FIRST: u32 = 2_000_000_000;

pub(crate) fn clear_umask() {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
}

/// Away from the terminal's signals and from the terminal: whoever drains the node decides when cells end. Says whether
/// it has a session of its own now: it is refused to the leader of a process group, which the terminal cannot reach
/// either.
pub(crate) fn leave_session() -> bool {
    rustix::process::setsid().is_ok()
}

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// From root to an id that no other process has; an ordinary user stays who it is.
pub(crate) fn drop_root(report: &mut Report) {
    if !is_root() {
        let id = rustix::process::geteuid().as_raw();
        return report.on(LayerName::Identity, format_args!("ordinary user {id}"));
    }
    let own = own_id();
    let refused = match become_user(own) {
        Ok(()) => {
            return report.on(LayerName::Identity, format_args!("root became {own}, who is nobody else; no groups"));
        }
        Err(error) => error,
    };
    match become_user(NOBODY) {
        Ok(()) => {
            let why = format_args!("root became {NOBODY} like other cells, not {own}: {refused}");
            report.add(LayerName::Identity, State::Reduced, why);
        }
        Err(error) => report.off(LayerName::Identity, format_args!("root stays root: {error}")),
    }
}

/// Of this process's own number, which it has until it is gone: as guardian it outlives the jailed process, so no two
/// at a time have the same.
fn own_id() -> u32 {
    FIRST.saturating_add_signed(rustix::process::getpid().as_raw_nonzero().get())
}

fn become_user(id: u32) -> rustix::io::Result<()> {
    let (uid, gid) = (Uid::from_raw(id), Gid::from_raw(id));
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
