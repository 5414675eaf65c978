"""Seccomp profiles to classic BPF programs: the default profile, and the assembly of any. Pure.

The default profile has the effect of Docker's: what is not named is refused with EPERM; what is newer than the newest
name with ENOSYS, so that a C library falls back to an older call (as runc does); some calls need a capability of the
container, some look at arguments. Two deliberate differences, both stricter: the family given to socket(2) is compared
as the kernel reads it, an int, where 64 bits would let 2^32 + AF_ALG pass; and where the image is not a 32-bit one, the
old multiplexer socketcall(2) of i386 makes no sockets, since a filter cannot see the family behind its pointer and any
64-bit program can call it with `int 0x80` (CVE-2026-31431).
"""

from __future__ import annotations

from sampan.errors import NotSupported
from sampan.runtime import bpf, seccomp_json, syscalls
from sampan.runtime.bpf import Condition, Rules

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

EPERM = bpf.ERRNO | 1
ENOSYS = bpf.ERRNO | 38
_X32 = syscalls.X32_BIT
_ARM_PRIVATE = 0x0F0000  # arm's own numbers, beside the common table

# Family -> (ABI, linux/audit.h AUDIT_ARCH_*, 64-bit arguments); x32 shares the audit value of x86_64.
_FAMILIES = {
    "x86": [("x86_64", 0xC000003E, True), ("x32", 0xC000003E, False), ("i386", 0x40000003, False)],
    "arm": [("aarch64", 0xC00000B7, True), ("arm", 0x40000028, False)],
}
_MACHINES = {
    "x86_64": ("x86", "x86_64"),
    "amd64": ("x86", "x86_64"),
    "i386": ("x86", "i386"),
    "i686": ("x86", "i386"),
    "386": ("x86", "i386"),
    "aarch64": ("arm", "aarch64"),
    "arm64": ("arm", "aarch64"),
    "arm": ("arm", "arm"),
    "armv7l": ("arm", "arm"),
}

_ALWAYS = """
read write readv writev pread64 pwrite64 preadv pwritev preadv2 pwritev2 lseek _llseek sendfile sendfile64
copy_file_range splice tee vmsplice readahead sync_file_range arm_sync_file_range sync_file_range2 fadvise64
fadvise64_64 arm_fadvise64_64 open openat openat2 creat close close_range dup dup2 dup3 fcntl fcntl64 ioctl
flock pipe pipe2 name_to_handle_at
stat stat64 lstat lstat64 fstat fstat64 fstatat64 newfstatat statx access faccessat faccessat2 readlink readlinkat
getdents getdents64 getcwd chdir fchdir statfs statfs64 fstatfs fstatfs64 statmount listmount cachestat
link linkat symlink symlinkat unlink unlinkat rename renameat renameat2 mkdir mkdirat rmdir mknod mknodat
chmod fchmod fchmodat fchmodat2 chown chown32 fchown fchown32 lchown lchown32 fchownat umask utime utimes futimesat
utimensat utimensat_time64 truncate truncate64 ftruncate ftruncate64 fallocate fsync fdatasync sync syncfs
getxattr lgetxattr fgetxattr setxattr lsetxattr fsetxattr listxattr llistxattr flistxattr removexattr lremovexattr
fremovexattr getxattrat setxattrat listxattrat removexattrat inotify_init inotify_init1 inotify_add_watch
inotify_rm_watch fanotify_mark io_setup io_submit io_getevents io_pgetevents io_pgetevents_time64 io_cancel io_destroy
poll ppoll ppoll_time64 select _newselect pselect6 pselect6_time64 epoll_create epoll_create1 epoll_ctl epoll_ctl_old
epoll_wait epoll_wait_old epoll_pwait epoll_pwait2 eventfd eventfd2 signalfd signalfd4 timerfd_create timerfd_settime
timerfd_settime64 timerfd_gettime timerfd_gettime64
mmap mmap2 munmap mremap mprotect msync madvise mincore mlock mlock2 mlockall munlock munlockall brk remap_file_pages
memfd_create memfd_secret membarrier mseal map_shadow_stack pkey_alloc pkey_free pkey_mprotect process_mrelease
fork vfork execve execveat exit exit_group wait4 waitid waitpid kill tkill tgkill pidfd_open pidfd_send_signal pause
rt_sigaction rt_sigprocmask rt_sigpending rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 rt_sigqueueinfo
rt_tgsigqueueinfo rt_sigreturn sigreturn sigprocmask sigaltstack restart_syscall prctl arch_prctl modify_ldt seccomp
rseq set_tid_address set_robust_list get_robust_list set_thread_area get_thread_area ptrace process_vm_readv
process_vm_writev uretprobe landlock_create_ruleset landlock_add_rule landlock_restrict_self capget capset
breakpoint cacheflush set_tls
getpid getppid gettid getpgid getpgrp setpgid getsid setsid getuid getuid32 geteuid geteuid32 getgid getgid32 getegid
getegid32 getresuid getresuid32 getresgid getresgid32 getgroups getgroups32 setuid setuid32 setgid setgid32 setreuid
setreuid32 setregid setregid32 setresuid setresuid32 setresgid setresgid32 setfsuid setfsuid32 setfsgid setfsgid32
setgroups setgroups32 getpriority setpriority ioprio_get ioprio_set getrlimit ugetrlimit setrlimit prlimit64 getrusage
sched_yield sched_getaffinity sched_setaffinity sched_getattr sched_setattr sched_getparam sched_setparam
sched_getscheduler sched_setscheduler sched_get_priority_max sched_get_priority_min sched_rr_get_interval
sched_rr_get_interval_time64 getcpu times sysinfo uname getrandom
futex futex_time64 futex_wait futex_wake futex_waitv futex_requeue semget semctl semop semtimedop semtimedop_time64
shmget shmctl shmat shmdt msgget msgctl msgsnd msgrcv ipc mq_open mq_unlink mq_timedsend mq_timedsend_time64
mq_timedreceive mq_timedreceive_time64 mq_notify mq_getsetattr
time gettimeofday clock_gettime clock_gettime64 clock_getres clock_getres_time64 clock_nanosleep clock_nanosleep_time64
nanosleep alarm getitimer setitimer timer_create timer_delete timer_settime timer_settime64 timer_gettime
timer_gettime64 timer_getoverrun adjtimex clock_adjtime clock_adjtime64
socketpair bind listen accept accept4 connect shutdown getsockname getpeername getsockopt setsockopt send sendto sendmsg
sendmmsg recv recvfrom recvmsg recvmmsg recvmmsg_time64
"""

WITH_CAPABILITY = {
    "CAP_SYS_ADMIN": """bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie lsm_get_self_attr
        lsm_list_modules lsm_set_self_attr mount mount_setattr move_mount open_tree perf_event_open quotactl quotactl_fd
        setdomainname sethostname setns syslog umount umount2 unshare""",
    "CAP_BPF": "bpf",
    "CAP_DAC_READ_SEARCH": "open_by_handle_at",
    "CAP_PERFMON": "perf_event_open",
    "CAP_SYSLOG": "syslog",
    "CAP_SYS_BOOT": "reboot",
    "CAP_SYS_CHROOT": "chroot",
    "CAP_SYS_MODULE": "init_module finit_module delete_module",
    "CAP_SYS_NICE": "get_mempolicy set_mempolicy set_mempolicy_home_node mbind",
    "CAP_SYS_PACCT": "acct",
    "CAP_SYS_PTRACE": "kcmp pidfd_getfd process_madvise",
    "CAP_SYS_RAWIO": "iopl ioperm",
    "CAP_SYS_TIME": "settimeofday stime clock_settime clock_settime64",
    "CAP_SYS_TTY_CONFIG": "vhangup",
}

# CLONE_NEW{NS,CGROUP,UTS,IPC,USER,PID,NET} of clone(2); CLONE_NEWTIME only exists for clone3 and unshare.
_NEW_NAMESPACES = 0x7E020000
# 0xFFFFFFFF asks; PER_LINUX, PER_LINUX32, and each with UNAME26 (sys/personality.h)
_PERSONALITIES = (0, 8, 0x20000, 0x20008, 0xFFFFFFFF)
_AF_ALG, _AF_VSOCK = 38, 40
_SYS_SOCKET = 1  # linux/net.h


def compile_default(caps: frozenset[str], arch: str) -> bytes:
    """Return the default profile's program for these capabilities and an image of this architecture."""
    family, native = _machine(arch)
    names: dict[str, int | Rules] = dict.fromkeys(_ALWAYS.split(), bpf.ALLOW)
    names.update(_argument_rules(native))
    for capability in caps:
        names.update(dict.fromkeys(WITH_CAPABILITY.get(capability, "").split(), bpf.ALLOW))
    return _assemble(family, {abi for abi, _, _ in _FAMILIES[family]}, names, EPERM)


def _argument_rules(native: str) -> dict[str, int | Rules]:
    socketcall: int | Rules = bpf.ALLOW
    if native not in ("i386", "arm"):
        socketcall = Rules([([Condition(0, "eq", _SYS_SOCKET)], ENOSYS)], bpf.ALLOW, narrow=True)
    refused = [([Condition(0, "eq", family)], EPERM) for family in (_AF_ALG, _AF_VSOCK)]
    return {
        "clone": Rules([([Condition(0, "masked", _NEW_NAMESPACES)], bpf.ALLOW)], EPERM, narrow=True),
        "clone3": ENOSYS,  # its flags lie behind a pointer; C libraries fall back to clone
        "personality": Rules(
            [([Condition(0, "eq", value)], bpf.ALLOW) for value in _PERSONALITIES], EPERM, narrow=True
        ),
        "socket": Rules(refused, bpf.ALLOW, narrow=True),
        "socketcall": socketcall,
    }


def _machine(arch: str) -> tuple[str, str]:
    found = _MACHINES.get(arch)
    if found is None:
        raise NotSupported(
            f"no seccomp filter can be made for architecture {arch}: its system calls are not known",
            "--security-opt seccomp=unconfined runs without a filter",
        )
    return found


def _assemble(family: str, abis: set[str], names: dict[str, int | Rules], default: int) -> bytes:
    """Make one tree per audit architecture; of those ABIs that are not wanted every call is refused."""
    program = bpf.Program()
    by_audit: dict[int, tuple[list[bpf.Decision], list[tuple[int, int]]]] = {}
    for abi, audit, wide in _FAMILIES[family]:
        if abi not in abis:
            if abi == "x32":  # it has no audit value of its own
                by_audit[audit][1].append((_X32, bpf.KILL_PROCESS))
            continue
        table = syscalls.numbers(abi)
        calls, defaults = by_audit.setdefault(audit, ([], []))
        known = sorted([(table[name], name) for name in names if name in table])
        defaults.extend(_defaults(abi, [number for number, _ in known], default))
        calls.extend([(number, names[name], wide) for number, name in known])
    # The native tree is emitted last, which puts it next to the first instruction.
    trees = [(audit, program.calls(*by_audit[audit])) for audit in reversed(by_audit)]
    program.architectures(trees[::-1])
    return program.encode()


def _defaults(abi: str, numbers: list[int], default: int) -> list[tuple[int, int]]:
    """Return what unlisted numbers get: `default`, but ENOSYS above the newest that the profile names.

    A profile that lets the unknown through, or to a tracer, keeps doing so.
    """
    first = _X32 if abi == "x32" else 0
    if default in (bpf.ALLOW, bpf.LOG) or default & 0x7FFF0000 == bpf.TRACE:
        return [(first, default)]
    common = [number for number in numbers if abi != "arm" or number < _ARM_PRIVATE]
    newest = common[-1] + 1 if common else first
    private = [(_ARM_PRIVATE, default), (_ARM_PRIVATE + 7, ENOSYS)] if abi == "arm" else []
    return [(first, default), (newest, ENOSYS), *private]


def compile_profile(
    profile: dict[str, Any], caps: frozenset[str], arch: str, kernel: tuple[int, int] = (5, 12)
) -> bytes:
    """Return the program of a user's profile, in Docker's format or that of the OCI runtime configuration."""
    family, _ = _machine(arch)
    wanted = seccomp_json.Wanted(caps, {"x86": "amd64", "arm": "arm64"}[family], kernel)
    abis = seccomp_json.abis(profile, _FAMILIES[family][0][0])
    names = seccomp_json.decisions(profile, wanted)
    return _assemble(family, abis, names, seccomp_json.default(profile))
