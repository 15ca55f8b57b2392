//! Names of system calls and their numbers on this machine.
//!
//! Owns the list of names a filter file may use. Must never guess: a name that does not exist on this architecture
//! is skipped only where the list says so.

macro_rules! numbers {
    ($($name:ident: $constant:ident,)* ; $($x86:ident: $x86_constant:ident,)*) => {
        /// The number of a system call. `Some(None)` is a name this architecture has no call for.
        pub(crate) fn number(name: &str) -> Option<Option<i64>> {
            match name {
                $(stringify!($name) => Some(Some(libc::$constant)),)*
                #[cfg(target_arch = "x86_64")]
                $(stringify!($x86) => Some(Some(libc::$x86_constant)),)*
                #[cfg(not(target_arch = "x86_64"))]
                $(stringify!($x86) => Some(None),)*
                _ => None,
            }
        }
    };
}

numbers! {
    brk: SYS_brk,
    clock_getres: SYS_clock_getres,
    clock_gettime: SYS_clock_gettime,
    clock_nanosleep: SYS_clock_nanosleep,
    clone: SYS_clone,
    clone3: SYS_clone3,
    close: SYS_close,
    epoll_create1: SYS_epoll_create1,
    epoll_ctl: SYS_epoll_ctl,
    epoll_pwait: SYS_epoll_pwait,
    eventfd2: SYS_eventfd2,
    execve: SYS_execve,
    execveat: SYS_execveat,
    exit: SYS_exit,
    exit_group: SYS_exit_group,
    faccessat: SYS_faccessat,
    faccessat2: SYS_faccessat2,
    fcntl: SYS_fcntl,
    fstat: SYS_fstat,
    ftruncate: SYS_ftruncate,
    futex: SYS_futex,
    getcwd: SYS_getcwd,
    getpid: SYS_getpid,
    getrandom: SYS_getrandom,
    getsockopt: SYS_getsockopt,
    gettid: SYS_gettid,
    ioctl: SYS_ioctl,
    kill: SYS_kill,
    lseek: SYS_lseek,
    madvise: SYS_madvise,
    membarrier: SYS_membarrier,
    memfd_create: SYS_memfd_create,
    mlock: SYS_mlock,
    mmap: SYS_mmap,
    mprotect: SYS_mprotect,
    mremap: SYS_mremap,
    munlock: SYS_munlock,
    munmap: SYS_munmap,
    nanosleep: SYS_nanosleep,
    newfstatat: SYS_newfstatat,
    openat: SYS_openat,
    pkey_mprotect: SYS_pkey_mprotect,
    ppoll: SYS_ppoll,
    prctl: SYS_prctl,
    pread64: SYS_pread64,
    prlimit64: SYS_prlimit64,
    process_madvise: SYS_process_madvise,
    read: SYS_read,
    readlinkat: SYS_readlinkat,
    readv: SYS_readv,
    recvfrom: SYS_recvfrom,
    recvmsg: SYS_recvmsg,
    restart_syscall: SYS_restart_syscall,
    rseq: SYS_rseq,
    rt_sigaction: SYS_rt_sigaction,
    rt_sigprocmask: SYS_rt_sigprocmask,
    rt_sigreturn: SYS_rt_sigreturn,
    sched_getaffinity: SYS_sched_getaffinity,
    sched_yield: SYS_sched_yield,
    seccomp: SYS_seccomp,
    sendmsg: SYS_sendmsg,
    sendto: SYS_sendto,
    set_robust_list: SYS_set_robust_list,
    shutdown: SYS_shutdown,
    sigaltstack: SYS_sigaltstack,
    statx: SYS_statx,
    tgkill: SYS_tgkill,
    wait4: SYS_wait4,
    waitid: SYS_waitid,
    write: SYS_write,
    writev: SYS_writev,
    ;
    access: SYS_access,
    epoll_wait: SYS_epoll_wait,
    open: SYS_open,
    poll: SYS_poll,
    readlink: SYS_readlink,
    stat: SYS_stat,
}
