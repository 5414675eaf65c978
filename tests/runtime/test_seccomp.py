"""The default filter does what Docker's does, in few instructions; users' profiles mean what they say."""

from __future__ import annotations

import itertools
import json
import os
import random
import struct
from typing import Any

import pytest
from bpfmachine import AARCH64, ALLOW, ARM, ERRNO, I386, KILL_PROCESS, X86_64, Naive, run

from sampan.errors import InvalidArgument, NotSupported
from sampan.runtime import bpf, seccomp, seccomp_json, seccomp_profile, syscalls

EPERM, ENOSYS = ERRNO | 1, ERRNO | 38
CHROOT = frozenset({"CAP_SYS_CHROOT"})
NEWEST = 466  # removexattrat: the newest call that the profile knows
ABIS = {
    "amd64": [("x86_64", X86_64), ("x32", X86_64), ("i386", I386)],
    "arm64": [("aarch64", AARCH64), ("arm", ARM)],
}

ALLOWED = """read write open openat close stat mmap execve fork vfork exit_group kill wait4 socketpair bind connect
ptrace process_vm_readv mknod chroot setuid setgroups capset prctl seccomp landlock_create_ruleset epoll_create1
memfd_create statx rseq close_range faccessat2 futex_waitv cachestat fchmodat2 mseal statmount setxattrat
clock_adjtime adjtimex"""
DENIED = """mount umount2 unshare setns pivot_root bpf keyctl add_key request_key userfaultfd io_uring_setup
io_uring_enter io_uring_register perf_event_open open_by_handle_at init_module finit_module delete_module kexec_load
kexec_file_load reboot swapon swapoff acct quotactl syslog sethostname setdomainname settimeofday clock_settime iopl
ioperm fsopen fsconfig fsmount fspick open_tree move_mount mount_setattr move_pages mbind set_mempolicy get_mempolicy
migrate_pages kcmp pidfd_getfd process_madvise vhangup lookup_dcookie nfsservctl uselib ustat sysfs _sysctl
fanotify_init create_module get_kernel_syms query_module"""


def answer(name: str, *args: int, capabilities: frozenset[str] = CHROOT, arch: str = "x86_64", abi: str = "") -> int:
    audit = {"x86_64": X86_64, "x32": X86_64, "i386": I386, "aarch64": AARCH64, "arm": ARM}[abi or arch]
    return run(seccomp.compile_default(capabilities, arch), syscalls.numbers(abi or arch)[name], audit, args)[0]


@pytest.mark.parametrize("name", ALLOWED.split())
def test_default_allows_ordinary_calls(name: str) -> None:
    assert answer(name) == ALLOW


@pytest.mark.parametrize("name", DENIED.split())
def test_default_refuses_dangerous_calls(name: str) -> None:
    assert answer(name) == EPERM


def test_clone3_is_missing_and_clone_makes_no_namespaces() -> None:
    assert answer("clone3") == ENOSYS
    assert answer("clone", 0x00010F00 | 17) == ALLOW
    for flag in (0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000):
        assert answer("clone", flag | 17) == EPERM
    assert answer("clone", 0x10000000, capabilities=frozenset({"CAP_SYS_ADMIN"})) == ALLOW


@pytest.mark.parametrize("abi", ["x86_64", "x32", "i386"])
def test_sockets_of_af_alg_and_af_vsock_are_refused(abi: str) -> None:
    assert answer("socket", 38, abi=abi) == answer("socket", 40, abi=abi) == EPERM
    assert answer("socket", (1 << 32) | 38, abi=abi) == EPERM  # the kernel reads an int
    assert answer("socket", 2, abi=abi) == answer("socket", 39, abi=abi) == answer("socket", 41, abi=abi) == ALLOW


def test_socketcall_makes_sockets_for_32_bit_images_only() -> None:
    assert answer("socketcall", 1, abi="i386") == ENOSYS
    assert answer("socketcall", 3, abi="i386") == ALLOW
    assert run(seccomp.compile_default(CHROOT, "386"), 102, I386, (1,))[0] == ALLOW


def test_personality_takes_harmless_values_only() -> None:
    assert [answer("personality", value) for value in (0, 8, 0x20000, 0x20008, 0xFFFFFFFF)] == [ALLOW] * 5
    assert answer("personality", 0x0040000) == EPERM  # ADDR_NO_RANDOMIZE


def test_capabilities_open_their_calls() -> None:
    assert answer("chroot") == ALLOW
    assert answer("chroot", capabilities=frozenset()) == EPERM
    assert answer("mount", capabilities=frozenset({"CAP_SYS_ADMIN"})) == ALLOW
    assert answer("syslog", capabilities=frozenset({"CAP_SYSLOG"})) == ALLOW
    assert answer("syslog", capabilities=frozenset({"CAP_NET_ADMIN"})) == EPERM


def test_unknown_numbers_are_missing_and_foreign_architectures_killed() -> None:
    for arch, pairs in ABIS.items():
        program = seccomp.compile_default(CHROOT, arch)
        for abi, audit in pairs:
            base = syscalls.X32_BIT if abi == "x32" else 0
            for number in (700, 5000, 0x0EFFFF, 0x1F0000):
                assert run(program, base + number, audit)[0] == ENOSYS
            assert run(program, 0xFFFFFFFF, audit)[0] == ENOSYS
        assert run(program, 0, 0xC0000016)[0] == KILL_PROCESS
    assert run(seccomp.compile_default(CHROOT, "amd64"), NEWEST + 1, X86_64)[0] == ENOSYS


def test_every_call_is_decided_in_few_instructions() -> None:
    program = seccomp.compile_default(CHROOT, "x86_64")
    steps = [run(program, number, X86_64)[1] for number in range(600)]
    assert max(steps) <= 18 and sum(steps[:335]) / 335 <= 12
    assert len(program) // 8 < 330


def test_ready_programs_are_those_that_the_profile_makes() -> None:
    for arch, capabilities in itertools.product(("x86_64", "aarch64"), (CHROOT, frozenset[str]())):
        assert seccomp.compile_default(capabilities, arch) == seccomp_profile.compile_default(capabilities, arch)
    assert seccomp.compile_default(CHROOT | {"CAP_CHOWN"}, "amd64") == seccomp.compile_default(CHROOT, "x86_64")


def test_unknown_architecture_is_refused() -> None:
    with pytest.raises(NotSupported, match="riscv64"):
        seccomp.compile_default(CHROOT, "riscv64")


def plain_default(name: str, args: tuple[int, ...], capabilities: frozenset[str]) -> int:
    """The default profile read without any tree: the control for the compiler."""
    granted = {call for cap in capabilities for call in seccomp_profile.WITH_CAPABILITY.get(cap, "").split()}
    if name in granted:
        return ALLOW
    if name == "clone3":
        return ENOSYS
    if name == "clone":
        return EPERM if args[0] & 0x7E020000 else ALLOW
    if name == "personality":
        return ALLOW if args[0] & 0xFFFFFFFF in (0, 8, 0x20000, 0x20008, 0xFFFFFFFF) else EPERM
    if name == "socket":
        return EPERM if args[0] & 0xFFFFFFFF in (38, 40) else ALLOW
    if name == "socketcall":
        return ENOSYS if args[0] == 1 else ALLOW
    return ALLOW if name in seccomp_profile._ALWAYS.split() else EPERM


SETS = [frozenset[str](), *[frozenset({cap}) for cap in seccomp_profile.WITH_CAPABILITY]]
SETS += [CHROOT | {"CAP_SYS_ADMIN", "CAP_SYS_PTRACE"}, frozenset(seccomp_profile.WITH_CAPABILITY)]
VALUES = [
    0,
    1,
    8,
    17,
    38,
    39,
    40,
    41,
    0x20000,
    0x20008,
    0x20011,
    0x10000011,
    0x7E020000,
    0xFFFFFFFF,
    1 << 32,
    (1 << 32) + 38,
]


@pytest.mark.parametrize("arch", ABIS)
@pytest.mark.parametrize("capabilities", SETS, ids=lambda caps: "+".join(sorted(caps))[:40] or "none")
def test_tree_agrees_with_the_plain_reading(arch: str, capabilities: frozenset[str]) -> None:
    program = seccomp.compile_default(capabilities, arch)
    for abi, audit in ABIS[arch]:
        for name, number in syscalls.numbers(abi).items():
            looks = name in ("clone", "clone3", "personality", "socket", "socketcall")
            for value in VALUES if looks else VALUES[:1]:
                want = plain_default(name, (value,), capabilities)
                if want == EPERM and NEWEST < number & ~syscalls.X32_BIT < 512:
                    want = ENOSYS if abi != "x32" else want
                assert run(program, number, audit, (value,))[0] == want, (abi, name, value)


def default_has_the_effect_of_dockers_profile(arch: str) -> None:
    with open(os.environ["SAMPAN_DOCKER_SECCOMP"], encoding="utf-8") as file:
        profile = json.load(file)
    for capabilities in SETS:
        naive = Naive(profile, capabilities, arch)
        ours = seccomp.compile_default(capabilities, "386" if arch == "amd64" else "arm")
        theirs = seccomp.compile_profile(profile, capabilities, arch)
        for abi, audit in ABIS[arch]:
            table = syscalls.numbers(abi)
            base = syscalls.X32_BIT if abi == "x32" else 0
            names = {number: name for name, number in table.items()}
            newest = max(table[name] for name in naive.rules if name in table and table[name] & 0xFFFFF < 0xF0000)
            for number in [*range(base, base + 700), *range(0xF0000, 0xF0006)]:
                looks = names.get(number, "") in ("clone", "clone3", "personality", "socket", "socketcall")
                for value in VALUES if looks else VALUES[:1]:
                    if value >> 32 and names.get(number) in ("socket", "personality"):
                        continue  # Docker's compares 64 bits of what the kernel reads as an int
                    want = naive.decide(names.get(number, ""), (value,) * 6)
                    if number > newest and (abi != "arm" or number < 0xF0000):
                        want = ENOSYS
                    if abi != "arm" and number & 0xFFFFF >= 0xF0000:
                        want = ENOSYS
                    assert run(ours, number, audit, (value,) * 6)[0] == want, (abi, number, names.get(number), value)
                    assert run(theirs, number, audit, (value,) * 6)[0] == want, (abi, number, names.get(number))


# Docker's profile is not part of this project: who has it names it in SAMPAN_DOCKER_SECCOMP, and adds these tests.
if "SAMPAN_DOCKER_SECCOMP" in os.environ:
    test_default_has_the_effect_of_dockers_profile = pytest.mark.parametrize("arch", ABIS)(
        default_has_the_effect_of_dockers_profile
    )


def profile(*rules: dict[str, Any], **more: Any) -> dict[str, Any]:
    base = {"defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86_64"], "syscalls": list(rules)}
    return base | more


@pytest.mark.parametrize("op", ["EQ", "NE", "LT", "LE", "GT", "GE", "MASKED_EQ"])
def test_profile_operators_compare_all_64_bits(op: str) -> None:
    choice = random.Random(op)
    edges = [0, 1, 5, 0xFFFFFFFF, 1 << 32, (1 << 32) + 5, (5 << 32) + 1, (1 << 64) - 1]
    for value in edges:
        for other in (0, value, choice.choice(edges)):
            test = {"index": 2, "op": f"SCMP_CMP_{op}", "value": value, "valueTwo": other}
            wanted = profile({"names": ["write"], "action": "SCMP_ACT_ALLOW", "args": [test]})
            program = seccomp.compile_profile(wanted, CHROOT, "x86_64")
            naive = Naive(wanted, CHROOT, "amd64")
            for have in edges:
                args = (9, 9, have, 9, 9, 9)
                assert run(program, 1, X86_64, args)[0] == naive.decide("write", args), (value, other, have)


def test_profile_tests_on_several_arguments_must_all_hold() -> None:
    tests = [{"index": n, "op": "SCMP_CMP_EQ", "value": n} for n in (1, 4)]
    program = seccomp.compile_profile(
        profile({"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": tests}), CHROOT, "amd64"
    )
    assert run(program, 0, X86_64, (0, 1, 0, 0, 4))[0] == ALLOW
    assert run(program, 0, X86_64, (0, 1, 0, 0, 5))[0] == EPERM


def test_profile_tests_of_one_argument_are_alternatives() -> None:
    tests = [{"index": 0, "op": "SCMP_CMP_EQ", "value": value} for value in (3, 7)]
    program = seccomp.compile_profile(
        profile({"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": tests}), CHROOT, "amd64"
    )
    assert [run(program, 0, X86_64, (value,))[0] for value in (3, 7, 5)] == [ALLOW, ALLOW, EPERM]


def test_profile_actions_and_errnos() -> None:
    rules: list[dict[str, Any]] = [
        {"names": ["read"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13},
        {"name": "write", "action": "SCMP_ACT_KILL_PROCESS"},
        {"names": ["open", "no_such_call"], "action": "SCMP_ACT_LOG"},
        {"names": ["close"], "action": "SCMP_ACT_TRACE", "errnoRet": 7},
        {"names": ["stat"], "action": "SCMP_ACT_TRAP"},
        {"names": ["fstat"], "action": "SCMP_ACT_KILL"},
    ]
    program = seccomp.compile_profile(profile(*rules, defaultAction="SCMP_ACT_ALLOW"), CHROOT, "amd64")
    answers = [run(program, number, X86_64)[0] for number in range(7)]
    assert answers == [ERRNO | 13, KILL_PROCESS, 0x7FFC0000, 0x7FF00007, 0x00030000, 0, ALLOW]
    assert run(program, 5000, X86_64)[0] == ALLOW


def test_profile_closes_abis_that_it_does_not_list() -> None:
    program = seccomp.compile_profile(profile({"names": ["read"], "action": "SCMP_ACT_ALLOW"}), CHROOT, "amd64")
    assert run(program, 0, X86_64)[0] == ALLOW
    assert run(program, 3, I386)[0] == KILL_PROCESS
    assert run(program, syscalls.X32_BIT, X86_64)[0] == KILL_PROCESS


def test_profile_rules_in_force_depend_on_capabilities_architectures_and_kernel() -> None:
    rules: list[dict[str, Any]] = [
        {"names": ["read"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
        {"names": ["write"], "action": "SCMP_ACT_ALLOW", "excludes": {"arches": ["amd64"]}},
        {"names": ["open"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "6.1"}},
        {"names": ["close"], "action": "SCMP_ACT_ALLOW"},
    ]
    old = seccomp.compile_profile(profile(*rules), CHROOT, "amd64", (6, 0))
    new = seccomp.compile_profile(profile(*rules), frozenset({"CAP_SYS_ADMIN"}), "amd64", (6, 1))
    assert [run(old, number, X86_64)[0] for number in (0, 1, 2)] == [EPERM, EPERM, EPERM]
    assert [run(new, number, X86_64)[0] for number in (0, 1, 2)] == [ALLOW, EPERM, ALLOW]


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        profile({"names": ["read"], "action": "SCMP_ACT_NOPE"}),
        profile({"names": ["read"], "action": "SCMP_ACT_ERRNO", "errnoRet": 70000}),
        profile(
            {"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 6, "op": "SCMP_CMP_EQ", "value": 1}]}
        ),
        profile(
            {"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "op": "SCMP_CMP_XX", "value": 1}]}
        ),
        profile(
            {"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "op": "SCMP_CMP_EQ", "value": -1}]}
        ),
        profile({"names": ["read"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "new"}}),
        profile(syscalls="read"),
    ],
)
def test_wrong_profile_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument, match="seccomp profile"):
        seccomp.compile_profile(wrong, CHROOT, "x86_64")


def test_profile_that_needs_a_listener_is_refused() -> None:
    with pytest.raises(NotSupported, match="NOTIFY"):
        seccomp.compile_profile(profile({"names": ["read"], "action": "SCMP_ACT_NOTIFY"}), CHROOT, "x86_64")


def test_profile_too_long_for_the_kernel_is_refused() -> None:
    tests = [{"index": 0, "op": "SCMP_CMP_EQ", "value": value << 33} for value in range(1500)]
    with pytest.raises(InvalidArgument, match="4096"):
        seccomp.compile_profile(
            profile({"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": tests}), CHROOT, "amd64"
        )


def test_far_jumps_reach_their_targets() -> None:
    rules: list[dict[str, Any]] = []
    for name, number in itertools.islice(syscalls.numbers("x86_64").items(), 0, 300):
        test = {"index": number % 6, "op": "SCMP_CMP_EQ", "value": number + 1}
        rules.append({"names": [name], "action": "SCMP_ACT_ALLOW", "args": [test]})
    program = seccomp.compile_profile(profile(*rules), CHROOT, "amd64")
    assert len(program) // 8 > 900
    for rule in rules:
        number, (test,) = syscalls.numbers("x86_64")[rule["names"][0]], rule["args"]
        args = tuple(test["value"] if n == test["index"] else 0 for n in range(6))
        assert run(program, number, X86_64, args)[0] == ALLOW
        assert run(program, number, X86_64)[0] == EPERM


def test_flags_of_a_profile() -> None:
    assert seccomp.profile_flags({"flags": ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"]}) == 6
    assert seccomp.profile_flags({"flags": ["SECCOMP_FILTER_FLAG_TSYNC"]}) == 0  # of one thread
    assert seccomp.profile_flags({"flags": []}) == 0
    assert seccomp.profile_flags({}) == seccomp.profile_flags({"flags": None}) == 4
    assert seccomp.DEFAULT_FLAGS == seccomp_json.DEFAULT_FLAGS


@pytest.mark.parametrize(
    "flag", ["FLAG_X", "SECCOMP_FILTER_FLAG_NEW_LISTENER", "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]
)
def test_a_flag_that_is_not_known_is_named(flag: str) -> None:
    with pytest.raises(InvalidArgument, match=f"unknown flag {flag}; known are SECCOMP_FILTER_FLAG_TSYNC, "):
        seccomp.profile_flags({"flags": ["SECCOMP_FILTER_FLAG_LOG", flag]})
    with pytest.raises(InvalidArgument, match="unknown flag"):
        seccomp.profile_flags({"flags": [[flag]]})
    with pytest.raises(InvalidArgument, match="flags is not a list"):
        seccomp.profile_flags({"flags": flag})


def test_every_name_of_the_profile_is_a_system_call() -> None:
    known = {name for abi in syscalls.TABLES for name in syscalls.numbers(abi)}
    listed = seccomp_profile._ALWAYS.split() + " ".join(seccomp_profile.WITH_CAPABILITY.values()).split()
    assert [name for name in listed if name not in known] == []
    assert len(seccomp_profile._ALWAYS.split()) == len(set(seccomp_profile._ALWAYS.split()))


def test_tables_hold_well_known_numbers() -> None:
    known = {
        "x86_64": {"read": 0, "execve": 59, "openat": 257, "uretprobe": 335, "clone3": 435, "listns": 470},
        "x32": {"read": 0x40000000, "rt_sigaction": 0x40000200, "pwritev2": 0x40000223},
        "i386": {"exit": 1, "socketcall": 102, "socket": 359, "clock_gettime64": 403, "mseal": 462},
        "aarch64": {"io_setup": 0, "openat": 56, "newfstatat": 79, "execve": 221, "clone3": 435},
        "arm": {"exit": 1, "mmap2": 192, "sync_file_range2": 341, "set_tls": 0xF0005, "cachestat": 451},
    }
    for abi, some in known.items():
        assert some.items() <= syscalls.numbers(abi).items()


def test_program_is_an_array_of_sock_filter() -> None:
    program = seccomp.compile_default(CHROOT, "x86_64")
    assert len(program) % 8 == 0
    assert struct.unpack_from("<HBBI", program) == (0x20, 0, 0, 4)
    assert bpf.MOST_INSTRUCTIONS == 4096
