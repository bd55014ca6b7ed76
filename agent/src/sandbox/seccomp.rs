//! System calls: an allow-list. A call outside it fails with EPERM (seccomp(2)).
//!
//! `clone3` fails with ENOSYS instead: its flags are in memory, where a filter cannot look, and the C
//! library then falls back to `clone`, whose flags the filter does check.

use std::collections::BTreeMap;

use kiln_model::function::SeccompProfile;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    apply_filter,
};

use super::{SandboxError, failed};

/// No new namespace may be made with clone(2).
const NAMESPACE_FLAGS: u64 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET) as u64;
/// Puts a byte into a terminal's input (ioctl_tty(2)).
const TIOCSTI: u64 = 0x5412;
/// Copies and pastes on a virtual console (ioctl_console(2)).
const TIOCLINUX: u64 = 0x541c;
/// The personality of an ordinary Linux program, and the question for it.
const PERSONALITIES: [u64; 2] = [0, 0xffff_ffff];

/// Files, memory, sockets, timers, threads, child processes, changing to a lesser user.
const SERVICE: &[libc::c_long] = &[
    // files
    libc::SYS_chdir,
    libc::SYS_close,
    libc::SYS_close_range,
    libc::SYS_copy_file_range,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_fadvise64,
    libc::SYS_fallocate,
    libc::SYS_fchdir,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_fchown,
    libc::SYS_fchownat,
    libc::SYS_fcntl,
    libc::SYS_fdatasync,
    libc::SYS_flock,
    libc::SYS_fstat,
    libc::SYS_fstatfs,
    libc::SYS_fsync,
    libc::SYS_ftruncate,
    libc::SYS_getcwd,
    libc::SYS_getdents64,
    libc::SYS_getxattr,
    libc::SYS_inotify_add_watch,
    libc::SYS_inotify_init1,
    libc::SYS_inotify_rm_watch,
    libc::SYS_linkat,
    libc::SYS_lseek,
    libc::SYS_mkdirat,
    libc::SYS_newfstatat,
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_pipe2,
    libc::SYS_pread64,
    libc::SYS_preadv,
    libc::SYS_preadv2,
    libc::SYS_pwrite64,
    libc::SYS_pwritev,
    libc::SYS_pwritev2,
    libc::SYS_read,
    libc::SYS_readlinkat,
    libc::SYS_readv,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_sendfile,
    libc::SYS_splice,
    libc::SYS_statfs,
    libc::SYS_statx,
    libc::SYS_symlinkat,
    libc::SYS_sync_file_range,
    libc::SYS_tee,
    libc::SYS_truncate,
    libc::SYS_umask,
    libc::SYS_unlinkat,
    libc::SYS_utimensat,
    libc::SYS_write,
    libc::SYS_writev,
    // memory
    libc::SYS_brk,
    libc::SYS_madvise,
    libc::SYS_membarrier,
    libc::SYS_mincore,
    libc::SYS_mlock,
    libc::SYS_mlock2,
    libc::SYS_mlockall,
    libc::SYS_mmap,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_msync,
    libc::SYS_munlock,
    libc::SYS_munlockall,
    libc::SYS_munmap,
    libc::SYS_shmat,
    libc::SYS_shmctl,
    libc::SYS_shmdt,
    libc::SYS_shmget,
    // sockets
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_bind,
    libc::SYS_connect,
    libc::SYS_getpeername,
    libc::SYS_getsockname,
    libc::SYS_getsockopt,
    libc::SYS_listen,
    libc::SYS_recvfrom,
    libc::SYS_recvmmsg,
    libc::SYS_recvmsg,
    libc::SYS_sendmmsg,
    libc::SYS_sendmsg,
    libc::SYS_sendto,
    libc::SYS_setsockopt,
    libc::SYS_shutdown,
    libc::SYS_socket,
    libc::SYS_socketpair,
    // waiting and time
    libc::SYS_clock_getres,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_eventfd2,
    libc::SYS_getitimer,
    libc::SYS_gettimeofday,
    libc::SYS_nanosleep,
    libc::SYS_ppoll,
    libc::SYS_pselect6,
    libc::SYS_setitimer,
    libc::SYS_timer_create,
    libc::SYS_timer_delete,
    libc::SYS_timer_getoverrun,
    libc::SYS_timer_gettime,
    libc::SYS_timer_settime,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_gettime,
    libc::SYS_timerfd_settime,
    // threads, children, signals
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_futex,
    libc::SYS_get_robust_list,
    libc::SYS_getcpu,
    libc::SYS_getpgid,
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_getpriority,
    libc::SYS_getrandom,
    libc::SYS_getrlimit,
    libc::SYS_getrusage,
    libc::SYS_getsid,
    libc::SYS_gettid,
    libc::SYS_kill,
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_send_signal,
    libc::SYS_prctl,
    libc::SYS_prlimit64,
    libc::SYS_restart_syscall,
    libc::SYS_rseq,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigpending,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigsuspend,
    libc::SYS_rt_sigtimedwait,
    libc::SYS_rt_tgsigqueueinfo,
    libc::SYS_sched_get_priority_max,
    libc::SYS_sched_get_priority_min,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_getattr,
    libc::SYS_sched_getparam,
    libc::SYS_sched_getscheduler,
    libc::SYS_sched_setaffinity,
    libc::SYS_sched_setattr,
    libc::SYS_sched_setparam,
    libc::SYS_sched_setscheduler,
    libc::SYS_sched_yield,
    libc::SYS_set_robust_list,
    libc::SYS_set_tid_address,
    libc::SYS_setpgid,
    libc::SYS_setpriority,
    libc::SYS_setrlimit,
    libc::SYS_setsid,
    libc::SYS_sigaltstack,
    libc::SYS_signalfd4,
    libc::SYS_sysinfo,
    libc::SYS_tgkill,
    libc::SYS_times,
    libc::SYS_tkill,
    libc::SYS_uname,
    libc::SYS_wait4,
    libc::SYS_waitid,
    // who one is; the kernel still asks for the capability
    libc::SYS_capget,
    libc::SYS_capset,
    libc::SYS_chroot,
    libc::SYS_getegid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getgroups,
    libc::SYS_getresgid,
    libc::SYS_getresuid,
    libc::SYS_getuid,
    libc::SYS_setfsgid,
    libc::SYS_setfsuid,
    libc::SYS_setgid,
    libc::SYS_setgroups,
    libc::SYS_setregid,
    libc::SYS_setresgid,
    libc::SYS_setresuid,
    libc::SYS_setreuid,
    libc::SYS_setuid,
    // the network of the machine (routing daemons look into namespaces); needs CAP_SYS_ADMIN
    libc::SYS_setns,
];

/// Calls that only x86-64 has: newer architectures got none for which there was a better one already.
#[cfg(target_arch = "x86_64")]
const OLDER: &[libc::c_long] = &[
    libc::SYS_access,
    libc::SYS_alarm,
    libc::SYS_arch_prctl,
    libc::SYS_chmod,
    libc::SYS_chown,
    libc::SYS_creat,
    libc::SYS_dup2,
    libc::SYS_epoll_create,
    libc::SYS_epoll_wait,
    libc::SYS_eventfd,
    libc::SYS_fork,
    libc::SYS_getdents,
    libc::SYS_getpgrp,
    libc::SYS_lchown,
    libc::SYS_link,
    libc::SYS_lstat,
    libc::SYS_mkdir,
    libc::SYS_open,
    libc::SYS_pause,
    libc::SYS_pipe,
    libc::SYS_poll,
    libc::SYS_readlink,
    libc::SYS_rename,
    libc::SYS_rmdir,
    libc::SYS_select,
    libc::SYS_signalfd,
    libc::SYS_stat,
    libc::SYS_symlink,
    libc::SYS_time,
    libc::SYS_unlink,
    libc::SYS_utime,
    libc::SYS_utimes,
    libc::SYS_vfork,
];
#[cfg(not(target_arch = "x86_64"))]
const OLDER: &[libc::c_long] = &[];

/// Setting the clock.
const CLOCK: &[libc::c_long] =
    &[libc::SYS_adjtimex, libc::SYS_clock_adjtime, libc::SYS_clock_settime, libc::SYS_settimeofday];

/// Applies a profile to ourselves and to everything that we start.
pub fn apply(profile: SeccompProfile) -> Result<(), SandboxError> {
    let other = |error: seccompiler::Error| std::io::Error::other(error.to_string());
    for program in programs(profile).map_err(other).map_err(failed("building its system call filter"))? {
        apply_filter(&program).map_err(other).map_err(failed("applying its system call filter"))?;
    }
    Ok(())
}

/// The filters of a profile; the kernel obeys the strictest.
fn programs(profile: SeccompProfile) -> Result<[BpfProgram; 2], seccompiler::Error> {
    let arch = std::env::consts::ARCH.try_into()?;
    let mut allowed: BTreeMap<i64, Vec<SeccompRule>> =
        SERVICE.iter().chain(OLDER).map(|number| (*number, Vec::new())).collect();
    if profile == SeccompProfile::Clock {
        allowed.extend(CLOCK.iter().map(|number| (*number, Vec::new())));
    }
    allowed.insert(libc::SYS_ioctl, vec![no_typing()?]);
    allowed.insert(libc::SYS_clone3, Vec::new());
    allowed.insert(libc::SYS_clone, vec![no_namespaces()?]);
    let personalities = PERSONALITIES.into_iter().map(|value| argument(0, SeccompCmpOp::Eq, value));
    allowed.insert(libc::SYS_personality, personalities.collect::<Result<_, _>>()?);

    let errno = |number: i32| SeccompAction::Errno(number.unsigned_abs());
    let list = SeccompFilter::new(allowed, errno(libc::EPERM), SeccompAction::Allow, arch)?;
    let clone3 = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    let clone3 = SeccompFilter::new(clone3, SeccompAction::Allow, errno(libc::ENOSYS), arch)?;
    Ok([clone3.try_into()?, list.try_into()?])
}

/// Any request to a device but those that type into a terminal as if its user had. The kernel looks at 32 bits
/// of the number, and so does this.
fn no_typing() -> Result<SeccompRule, seccompiler::Error> {
    let not = |request: u64| SeccompCondition::new(1, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, request);
    Ok(SeccompRule::new(vec![not(TIOCSTI)?, not(TIOCLINUX)?])?)
}

fn no_namespaces() -> Result<SeccompRule, seccompiler::Error> {
    argument(0, SeccompCmpOp::MaskedEq(NAMESPACE_FLAGS), 0)
}

fn argument(index: u8, operator: SeccompCmpOp, value: u64) -> Result<SeccompRule, seccompiler::Error> {
    let condition = SeccompCondition::new(index, SeccompCmpArgLen::Qword, operator, value)?;
    Ok(SeccompRule::new(vec![condition])?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_profiles_are_valid_programs() {
        for profile in [SeccompProfile::Service, SeccompProfile::Clock] {
            let programs = programs(profile).expect("valid");
            assert!(programs.iter().all(|program| !program.is_empty() && program.len() < 4096));
        }
    }

    #[test]
    fn what_could_change_the_machine_is_on_no_list() {
        for number in [
            libc::SYS_bpf,
            libc::SYS_finit_module,
            libc::SYS_init_module,
            libc::SYS_kexec_load,
            libc::SYS_mount,
            libc::SYS_perf_event_open,
            libc::SYS_pivot_root,
            libc::SYS_process_vm_writev,
            libc::SYS_ptrace,
            libc::SYS_reboot,
            libc::SYS_unshare,
            libc::SYS_userfaultfd,
        ] {
            assert!(![SERVICE, OLDER, CLOCK].concat().contains(&number), "{number}");
        }
    }
}
