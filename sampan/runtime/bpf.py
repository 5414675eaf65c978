"""Classic BPF for seccomp: decisions per system call to a program. Pure.

A decision is a number (what the filter returns), or `Rules`: alternatives that look at arguments. Numbers with the same
decision make ranges, and the program is a binary search tree over the ranges: a dozen instructions per system call, and
few enough in all that the kernel, which runs every number through a new filter (Linux 5.11, seccomp_cache_prepare), is
quick to load it.

Code is emitted from its end, so that every jump goes to a place that is already known; it is turned round at last.
Jumps of a condition reach 255 instructions (linux/filter.h: u8 jt, jf): a farther target gets a stepping stone.
"""

from __future__ import annotations

import _struct

from sampan.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    Decision = tuple[int, "int | Rules", bool]  # number, decision, whether arguments have 64 bits

# linux/bpf_common.h
_LOAD = 0x20  # BPF_LD | BPF_W | BPF_ABS
_AND = 0x54  # BPF_ALU | BPF_AND | BPF_K
_ALWAYS = 0x05  # BPF_JMP | BPF_JA
_EQUAL = 0x15
_ABOVE = 0x25
_AT_LEAST = 0x35
_RETURN = 0x06
MOST_INSTRUCTIONS = 4096  # BPF_MAXINSNS

# struct seccomp_data: nr, arch, instruction_pointer, args[6]
_NR = 0
_ARCH = 4
_ARGS = 16

# linux/seccomp.h
KILL_PROCESS = 0x80000000
KILL_THREAD = 0
TRAP = 0x00030000
ERRNO = 0x00050000
TRACE = 0x7FF00000
LOG = 0x7FFC0000
ALLOW = 0x7FFF0000


class Condition:
    """A test of one argument: `op` is eq, ne, lt, le, gt, ge, or masked: what `value` leaves of it is `other`."""

    __slots__ = ("index", "op", "other", "value")

    def __init__(self, index: int, op: str, value: int, other: int = 0) -> None:
        self.index = index
        self.op = op
        self.value = value
        self.other = other


class Rules:
    """Alternatives, tried in order: all conditions of one must hold; `narrow` compares the low 32 bits only."""

    __slots__ = ("alternatives", "narrow", "otherwise")

    def __init__(self, alternatives: list[tuple[list[Condition], int]], otherwise: int, narrow: bool = False) -> None:
        self.alternatives = alternatives
        self.otherwise = otherwise
        self.narrow = narrow


class Program:
    """Instructions from the last to the first; a label is an instruction's place in that order."""

    __slots__ = ("_code", "_known")

    def __init__(self) -> None:
        self._code: list[tuple[int, int, int, int]] = []
        self._known: dict[tuple[int, int, int, int], int] = {}

    def encode(self) -> bytes:
        """Return the array of struct sock_filter."""
        if len(self._code) > MOST_INSTRUCTIONS:
            count = len(self._code)
            raise InvalidArgument(f"seccomp profile needs {count} instructions; the kernel takes {MOST_INSTRUCTIONS}")
        return b"".join([_struct.pack("<HBBI", *instruction) for instruction in reversed(self._code)])

    def _emit(self, code: int, k: int, yes: int = 0, no: int = 0) -> int:
        self._code.append((code, yes, no, k))
        return len(self._code) - 1

    def ret(self, value: int) -> int:
        """Return this value; one instruction serves all who are near enough."""
        key = (_RETURN, value, 0, 0)
        label = self._known.get(key)
        if label is None or len(self._code) - label > 250:
            label = self._known[key] = self._emit(_RETURN, value)
        return label

    def _near(self, label: int) -> int:
        """Return a label within reach of the next two instructions that leads to this one."""
        distance = len(self._code) - label - 1
        if distance < 254:
            return label
        code, _, _, k = self._code[label]
        return self.ret(k) if code == _RETURN else self._emit(_ALWAYS, distance)

    def branch(self, code: int, k: int, yes: int, no: int) -> int:
        """Compare the accumulator with k."""
        if yes == no:
            return yes
        key = (code, k, yes, no)
        label = self._known.get(key)
        if label is None:
            yes, no = self._near(yes), self._near(no)
            here = len(self._code)
            label = self._known[key] = self._emit(code, k, here - yes - 1, here - no - 1)
        return label

    def then(self, code: int, k: int, following: int) -> int:
        """Load or mask, and go on at a label."""
        key = (code, k, following, 0)
        label = self._known.get(key)
        if label is None:
            if following != len(self._code) - 1:
                self._emit(_ALWAYS, len(self._code) - following - 1)
            label = self._known[key] = self._emit(code, k)
        return label

    def decide(self, decision: int | Rules, wide: bool) -> int:
        """Emit what one decision needs and return its label."""
        if isinstance(decision, int):
            return self.ret(decision)
        label = self.ret(decision.otherwise)
        for conditions, action in reversed(decision.alternatives):
            success = self.ret(action)
            for condition in reversed(conditions):
                success = self._test(condition, wide and not decision.narrow, success, label)
            label = success
        return label

    def _test(self, condition: Condition, wide: bool, yes: int, no: int) -> int:
        op = condition.op
        if op in ("ne", "lt", "le"):
            op, yes, no = {"ne": "eq", "lt": "ge", "le": "gt"}[op], no, yes
        low = _ARGS + 8 * condition.index
        if op == "masked":
            return self._test_masked(condition, low, wide, yes, no)
        high_value, low_value = condition.value >> 32, condition.value & 0xFFFFFFFF
        code = {"eq": _EQUAL, "gt": _ABOVE, "ge": _AT_LEAST}[op]
        if not wide and high_value:  # the upper half of the argument counts as 0: equal to, or above, nothing
            return no
        inner = self.then(_LOAD, low, self.branch(code, low_value, yes, no))
        if not wide:
            return inner
        same = self.branch(_EQUAL, high_value, inner, no)
        return self.then(_LOAD, low + 4, same if op == "eq" else self.branch(_ABOVE, high_value, yes, same))

    def _test_masked(self, condition: Condition, low: int, wide: bool, yes: int, no: int) -> int:
        mask, value = condition.value, condition.other
        if value & ~mask or (not wide and value >> 32):
            return no
        inner = self.branch(_EQUAL, value & 0xFFFFFFFF, yes, no)
        inner = self.then(_LOAD, low, self.then(_AND, mask & 0xFFFFFFFF, inner))
        if not wide or not mask >> 32:
            return inner
        outer = self.branch(_EQUAL, value >> 32, inner, no)
        return self.then(_LOAD, low + 4, self.then(_AND, mask >> 32, outer))

    def search(self, starts: list[int], labels: list[int]) -> int:
        """Emit a tree that finds the range of the system call number and goes to its label."""

        def node(first: int, end: int) -> int:
            if end - first == 1:
                return labels[first]
            lonely = end - first == 3 and labels[first] == labels[first + 2]
            if lonely and starts[first + 2] - starts[first + 1] == 1:
                return self.branch(_EQUAL, starts[first + 1], labels[first + 1], labels[first])
            middle = (first + end) // 2
            right = node(middle, end)
            return self.branch(_AT_LEAST, starts[middle], right, node(first, middle))

        return node(0, len(starts))

    def calls(self, decisions: list[Decision], defaults: list[tuple[int, int]]) -> int:
        """Emit the tree of one audit architecture.

        `decisions` ascend by number; a number that is not among them gets the value of the last of `defaults`, each a
        (first number, value), that begins at or below it.
        """
        ranges: list[Decision] = []

        def begin(number: int, decision: int | Rules, wide: bool) -> None:
            wide = wide and not isinstance(decision, int)
            if not ranges or ranges[-1][1:] != (decision, wide):
                ranges.append((number, decision, wide))

        def fill(first: int, end: int) -> None:
            for place, (start, value) in enumerate(defaults):
                limit = defaults[place + 1][0] if place + 1 < len(defaults) else end
                if max(first, start) < min(end, limit):
                    begin(max(first, start), value, False)

        following = 0
        for number, decision, wide in decisions:
            if following < number:
                fill(following, number)
            begin(number, decision, wide)
            following = number + 1
        fill(following, 1 << 32)
        labels = {what: self.decide(*what) for what in dict.fromkeys([found[1:] for found in ranges])}
        tree = self.search([found[0] for found in ranges], [labels[found[1:]] for found in ranges])
        return self.then(_LOAD, _NR, tree)

    def architectures(self, trees: list[tuple[int, int]]) -> None:
        """Finish the program: choose a tree by audit architecture; any other architecture is killed."""
        label = self.ret(KILL_PROCESS)
        for audit, tree in reversed(trees):
            label = self.branch(_EQUAL, audit, tree, label)
        self.then(_LOAD, _ARCH, label)
