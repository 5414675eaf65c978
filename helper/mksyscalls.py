"""Write sampan/runtime/syscalls.py from the kernel's own headers.

    python3 helper/mksyscalls.py --x86 /usr/include/x86_64-linux-gnu --arm /usr/arm-linux-gnueabihf/include \
        > sampan/runtime/syscalls.py

The headers are read by the C preprocessor, because asm-generic/unistd.h chooses names by conditionals. System calls
newer than the installed headers are listed in NEWER: since Linux 5.0 a number is the same on every architecture
(scripts/syscall.tbl).
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import textwrap

X32_BIT = 0x40000000
ARM_PRIVATE = 0x0F0000  # arch/arm/include/uapi/asm/unistd.h, __ARM_NR_BASE

# Linux 6.5 to 6.19, in the order in which they were numbered.
NEWER = [
    *(
        "cachestat",
        "fchmodat2",
        "map_shadow_stack",
        "futex_wake",
        "futex_wait",
        "futex_requeue",
        "statmount",
        "listmount",
    ),
    *("lsm_get_self_attr", "lsm_set_self_attr", "lsm_list_modules", "mseal", "setxattrat", "getxattrat", "listxattrat"),
    *("removexattrat", "open_tree_attr", "file_getattr", "file_setattr", "listns"),
]
FIRST_NEWER = 451
X86_64_ONLY = {"uretprobe": 335, "uprobe": 336}  # Linux 6.11 and 6.18
ARM_ONLY = {
    name: ARM_PRIVATE + n
    for n, name in enumerate(["breakpoint", "cacheflush", "usr26", "usr32", "set_tls", "get_tls"], 1)
}
NOT_CALLS = re.compile(r"3264_|SYSCALL_|OABI_|syscalls$|arch_specific|sync_file_range2$")
# arch/arm64/include/uapi/asm/unistd.h before 6.11
ARM64_WANTS = ["RENAMEAT", "NEW_STAT", "SET_GET_RLIMIT", "TIME32_SYSCALLS", "SYS_CLONE3", "MEMFD_SECRET"]

HEAD = '''"""The system calls of every ABI that a filter meets: x86_64, x32, i386, aarch64 and arm. Pure, and generated.

Written by helper/mksyscalls.py from the kernel's headers: do not edit. A table is a text of names in the order of their
numbers; a number in it says what the next name's number is.
"""

from __future__ import annotations

X32_BIT = 0x40000000


def numbers(abi: str) -> dict[str, int]:
    """Return the system calls of an ABI by name; on x32 the numbers carry its bit."""
    found: dict[str, int] = {}
    following = X32_BIT if abi == "x32" else 0
    base = following
    for word in TABLES[abi].split():
        if word.isdigit():
            following = base + int(word)
            continue
        found[word] = following
        following += 1
    if abi == "arm":
        found["sync_file_range2"] = found["arm_sync_file_range"]  # one number, two names (asm/unistd.h)
    return found


TABLES = {'''


def defines(source: str, *flags: str) -> dict[str, int]:
    """Return every __NR_ macro that a C fragment defines, with its value."""
    command = ["cc", "-E", "-dM", "-nostdinc", *flags, "-x", "c", "-"]
    text = subprocess.run(command, input=source, capture_output=True, text=True, check=True).stdout
    macros = dict(re.findall(r"#define (__\w+) (.+)", text))
    return {
        name[5:]: value for name in macros if name.startswith("__NR_") and (value := resolve(name, macros)) is not None
    }


def resolve(name: str, macros: dict[str, str]) -> int | None:
    """Follow a macro to a number: another macro, `(BASE + 5)` or `5`."""
    total = 0
    for word in re.findall(r"\w+", macros[name]):
        if word in macros:
            inner = resolve(word, macros)
        elif re.fullmatch(r"0x[0-9a-fA-F]+|\d+", word):
            inner = int(word, 0)
        else:
            return None
        if inner is None:
            return None
        total += inner
    return total


def tables(x86: str, arm: str) -> dict[str, dict[str, int]]:
    """Return name to number for each ABI, the x32 bit taken off."""
    wants = [f"-D__ARCH_WANT_{want}" for want in ARM64_WANTS]
    found = {
        "x86_64": defines("#include <asm/unistd_64.h>", "-I", x86),
        "x32": defines("#include <asm/unistd_x32.h>", "-I", x86, f"-D__X32_SYSCALL_BIT={X32_BIT}"),
        "i386": defines("#include <asm/unistd_32.h>", "-I", x86),
        "aarch64": defines("#include <asm-generic/unistd.h>", "-I", arm, "-I", arm, *wants, "-D__BITS_PER_LONG=64"),
        "arm": defines("#include <asm/unistd.h>", "-I", arm, "-D__ARM_EABI__"),
    }
    for abi, table in found.items():
        bit = X32_BIT if abi == "x32" else 0
        found[abi] = {name: number & ~bit for name, number in table.items() if not NOT_CALLS.match(name)}
        found[abi].update((name, FIRST_NEWER + n) for n, name in enumerate(NEWER))
    found["x86_64"].update(X86_64_ONLY)
    found["arm"].update(ARM_ONLY)
    return found


def packed(table: dict[str, int]) -> str:
    """Write names in the order of their numbers, with a number wherever one is skipped."""
    words: list[str] = []
    following = 0
    for name, number in sorted(table.items(), key=lambda item: item[1]):
        if number != following:
            words.append(str(number))
        words.append(name)
        following = number + 1
    return "\n".join(textwrap.wrap(" ".join(words), 118, break_on_hyphens=False))


def main() -> int:
    """Print the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--x86", required=True, help="directory that holds asm/unistd_64.h")
    parser.add_argument("--arm", required=True, help="directory that holds arm's asm/unistd.h and asm-generic/unistd.h")
    arguments = parser.parse_args()
    print(HEAD)
    for abi, table in tables(arguments.x86, arguments.arm).items():
        print(f'    "{abi}": """\n{packed(table)}\n""",')
    print("}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
