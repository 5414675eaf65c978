"""The plan: a flat list of operations that the helper performs, and the same list in words.

Pure.  The codes are those of helper/plan.h, where the wire format is described.  An operation's `label` is the
sentence that `--explain` prints and that an error message names.
"""

from __future__ import annotations

import _struct

VERSION = 2

WORKDIR, CGROUP, CGROUP_V1, DEVICES, IDMAP, STDIO, SUPERVISE, CLEANUP, EVENTS, RESTART, HEALTH = range(1, 12)
JOIN, LEAVE, NETWORK, SWEEP = range(12, 16)
CLONE, ENTER = 20, 21
OVERLAY, ROOTDIR, SOURCE, PIVOT, MOUNT, ATTACH = range(30, 36)
SYMLINK, MKNOD, FILE = range(37, 40)
MASK, READONLY, DETACH, ROOT_RO, NO_DEVICES, OWN = range(40, 46)
HOSTNAME, DOMAINNAME, SYSCTL, RLIMIT, OOM, LOOPBACK, KEYRING, TTY = range(50, 58)
ACCOUNTS, USER, CAPS, NNP, SECCOMP, CWD, ENV, INIT, UMASK, SESSION, REAP, NULL = range(58, 70)
EXEC, APPLY, PACK = 70, 71, 72

NOFOLLOW = 1 << 31
"""For MOUNT: the target may not be reached through symbolic links."""
OPTIONAL = 1 << 30
"""A failure is reported as a warning and the plan goes on."""
LEAVE_V1, LEAVE_AT_DETACH = 1, 2  # of LEAVE
OOM_UNASKED = 1  # of OOM: the caller's score stays where it may not be lowered

PASS_IN, PASS_OUT, PASS_ERR, STDIN, TTY_STDIO, FOREGROUND, NULL_OUT = 1, 2, 4, 8, 16, 32, 64

CLONE_NEWTIME, CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS = 0x80, 0x20000, 0x2000000, 0x4000000
CLONE_NEWIPC, CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x8000000, 0x10000000, 0x20000000, 0x40000000

NAMESPACES = {
    "mount": CLONE_NEWNS,
    "pid": CLONE_NEWPID,
    "network": CLONE_NEWNET,
    "ipc": CLONE_NEWIPC,
    "uts": CLONE_NEWUTS,
    "cgroup": CLONE_NEWCGROUP,
    "user": CLONE_NEWUSER,
}

Field = str | bytes | int


class Operation:
    """Hold one operation: its code, flags, fields and the words for it."""

    __slots__ = ("code", "fields", "flags", "label")

    def __init__(self, code: int, flags: int, fields: tuple[Field, ...], label: str) -> None:
        self.code = code
        self.flags = flags
        self.fields = fields
        self.label = label


def _bytes(field: Field) -> bytes:
    if isinstance(field, bytes):
        return field
    return str(field).encode("utf-8", "surrogateescape")


class Plan:
    """Collect operations in the order in which they are performed."""

    __slots__ = ("namespaces", "operations")

    def __init__(self) -> None:
        self.operations: list[Operation] = []
        self.namespaces: frozenset[str] = frozenset()  # that the container has to itself

    def add(self, code: int, *fields: Field, flags: int = 0, label: str = "") -> None:
        """Append one operation; text fields are encoded as file names are."""
        self.operations.append(Operation(code, flags, fields, label))

    def encode(self, first: int = 0) -> bytes:
        """Give the bytes of the operations from `first` on, which the helper reads as one piece (helper/plan.h)."""
        parts = []
        head, length_of = _struct.Struct("<HxxII").pack, _struct.Struct("<I").pack
        operations = self.operations[first:] if first else self.operations
        for operation in operations:
            parts.append(head(operation.code, len(operation.fields), operation.flags & 0xFFFFFFFF))
            for field in operation.fields:
                data = _bytes(field)
                parts.append(length_of(len(data)))
                parts.append(data)
                parts.append(b"\0")
        body = b"".join(parts)
        return b"SMPN" + _struct.pack("<III", VERSION, len(operations), len(body)) + body

    def label(self, index: int) -> str:
        """Name the operation at `index` for a message; unknown ones are named by number."""
        if index < len(self.operations):
            return self.operations[index].label or f"operation {index}"
        return "read the plan"

    def explain(self) -> list[str]:
        """List the operations in words, in the order in which they would be performed."""
        return [operation.label for operation in self.operations if operation.label]


NETWORK_FIRST = Plan()
"""The first piece of a plan whose network namespace is made before the rest is known."""
NETWORK_FIRST.add(NETWORK, label="create namespaces: network")
