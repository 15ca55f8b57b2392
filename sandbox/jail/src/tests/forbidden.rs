//! Every system call worth trying from inside a cell, and the claim that trying is the end of it.
//!
//! Owns the list. It is written by what a call is good for to an attacker, not by what the filter says, so that a line
//! too many in a filter shows here.

use libc::c_long;

use super::{End, worker};
use crate::sys;

macro_rules! calls {
    ($($(#[$cfg:meta])* $name:ident,)*) => {
        /// Names and numbers.
        const CALLS: &[(&str, c_long)] = &[$($(#[$cfg])* (stringify!($name), libc::$name),)*];
    };
}

calls! {
    // Files and what they are reached by.
    SYS_openat2, SYS_open_by_handle_at, SYS_name_to_handle_at, SYS_mknodat, SYS_mkdirat, SYS_unlinkat, SYS_linkat,
    SYS_symlinkat, SYS_renameat2, SYS_fchmodat, SYS_fchownat, SYS_truncate, SYS_setxattr, SYS_getxattr, SYS_utimensat,
    SYS_chdir, SYS_fchdir, SYS_chroot, SYS_inotify_init1, SYS_fanotify_init, SYS_getdents64, SYS_statfs,
    // The network.
    SYS_socket, SYS_socketpair, SYS_connect, SYS_bind, SYS_listen, SYS_accept4, SYS_sendmmsg, SYS_recvmmsg,
    SYS_getsockname, SYS_getpeername, SYS_setsockopt,
    // Other programs and processes.
    SYS_execve, SYS_execveat, SYS_kill, SYS_tkill, SYS_rt_sigqueueinfo, SYS_rt_tgsigqueueinfo, SYS_pidfd_open,
    SYS_pidfd_getfd, SYS_pidfd_send_signal, SYS_setsid, SYS_setpgid, SYS_wait4, SYS_waitid,
    // Other processes' memory and secrets.
    SYS_ptrace, SYS_process_vm_readv, SYS_process_vm_writev, SYS_process_madvise, SYS_process_mrelease, SYS_kcmp,
    SYS_userfaultfd, SYS_perf_event_open, SYS_move_pages, SYS_migrate_pages, SYS_mincore, SYS_shmget, SYS_shmat,
    SYS_msgget, SYS_semget, SYS_mq_open, SYS_add_key, SYS_request_key, SYS_keyctl,
    // Memory that is written and then executed, by another name.
    SYS_pkey_mprotect, SYS_pkey_alloc, SYS_remap_file_pages, SYS_mlockall, SYS_mbind,
    // Parts of the kernel with a history.
    SYS_bpf, SYS_io_uring_setup, SYS_io_uring_enter, SYS_io_uring_register, SYS_io_setup, SYS_io_submit, SYS_vmsplice,
    SYS_splice, SYS_tee, SYS_sendfile, SYS_copy_file_range, SYS_personality, SYS_landlock_create_ruleset,
    SYS_timer_create, SYS_timerfd_create, SYS_signalfd4, SYS_fallocate, SYS_flock,
    // Namespaces and mounts.
    SYS_unshare, SYS_setns, SYS_mount, SYS_umount2, SYS_pivot_root, SYS_fsopen, SYS_fsmount, SYS_open_tree,
    SYS_move_mount, SYS_mount_setattr, SYS_quotactl,
    // Who one is.
    SYS_setuid, SYS_setgid, SYS_setresuid, SYS_setresgid, SYS_setgroups, SYS_setfsuid, SYS_capset,
    // The machine.
    SYS_reboot, SYS_kexec_load, SYS_init_module, SYS_finit_module, SYS_delete_module, SYS_swapon, SYS_acct,
    SYS_settimeofday, SYS_clock_settime, SYS_adjtimex, SYS_sethostname, SYS_setdomainname, SYS_syslog,
    SYS_sched_setscheduler, SYS_sched_setaffinity, SYS_setpriority, SYS_ioprio_set,
    #[cfg(target_arch = "x86_64")] SYS_iopl,
    #[cfg(target_arch = "x86_64")] SYS_ioperm,
    #[cfg(target_arch = "x86_64")] SYS_modify_ldt,
    #[cfg(target_arch = "x86_64")] SYS_kexec_file_load,
    #[cfg(target_arch = "x86_64")] SYS_fork,
    #[cfg(target_arch = "x86_64")] SYS_vfork,
    #[cfg(target_arch = "x86_64")] SYS_creat,
    #[cfg(target_arch = "x86_64")] SYS_mknod,
    #[cfg(target_arch = "x86_64")] SYS_rename,
    #[cfg(target_arch = "x86_64")] SYS_unlink,
}

/// The number of one of the list, by its name without `SYS_`.
pub(super) fn number(name: &str) -> Option<c_long> {
    CALLS.iter().find(|(of, _)| of.strip_prefix("SYS_") == Some(name)).map(|(_, number)| *number)
}

/// Makes a call by the table of 32-bit pointers on 64-bit processors, which shares numbers but for one bit.
pub(super) fn by_the_other_table(number: c_long) -> std::io::Result<()> {
    sys::raw(0x4000_0000 | number, [0; 6]).map(drop)
}

#[test]
fn no_call_that_reaches_beyond_the_cell_can_be_made() {
    let mut open = Vec::new();
    for (name, _) in CALLS {
        let name = name.trim_start_matches("SYS_");
        let end = worker(name).end;
        if end != End::Killed(libc::SIGSYS) {
            open.push(format!("{name}: {end:?}"));
        }
    }
    assert!(open.is_empty(), "{open:#?}");
}

#[cfg(target_arch = "x86_64")]
#[test]
fn the_other_table_of_calls_is_no_way_round() {
    for act in ["other table=2", "other table=41", "other table=59", "other table=0"] {
        assert_eq!(worker(act).end, End::Killed(libc::SIGSYS), "{act}");
    }
}
