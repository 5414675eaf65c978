"""Starts the helper with a plan and reads what it reports.

The helper runs from a sealed memfd with an empty environment and only the descriptors named here (helper/plan.h): what
a container sees as the program behind a process in its namespaces can be neither the file on disk nor be written to.
"""

from __future__ import annotations

import _struct
import os

from sampan.errors import NotSupported, SampanError, Unavailable
from sampan.runtime.plan import NETWORK_FIRST, Plan

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sampan.runtime.cgrouphost import Placement

    Accounts = Callable[[bytes, bytes], tuple[int, int, list[int], list[str]]]

STARTED, FAILED, EXITED, ACCOUNTS, WARNING, DETACHED, TREE, SWEPT = range(1, 9)
SWEPT_GROUPS, SWEPT_FILES = 1, 2
CONTROL_SIGNAL, CONTROL_RESIZE, CONTROL_KEEP = 1, 2, 4
_HEAD = _struct.Struct("<IIiiQII")
_SEALS = 0xF  # F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE
_F_SEAL_EXEC = 0x20  # its mode's bits of execution stay
_F_ADD_SEALS = 1033
_READY = 0o555
# A key pressed while the helper is starting must not end it: HUP, INT, QUIT, TERM wait until it can pass them on.
_TERMINAL_SIGNALS = (1, 2, 3, 15)
# What this process ignores would be ignored in the container too: all but those that never are, and the C library's.
_RESET = (*range(1, 9), *range(10, 19), *range(20, 32), *range(34, 65))

_helper_fd = -1


def helper_path() -> str:
    """Give the compiled helper's path; NotSupported when it was not built."""
    path = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "_helper", "sampan-helper")
    if not os.path.exists(path):
        raise NotSupported(
            f"cannot start: the helper {path} is missing", "install sampan with a C compiler present: pip install ."
        )
    return path


def _helper() -> int:
    """Give the sealed copy of the helper, made once.

    A container whose first process it is (--init) reaches it as /proc/1/exe, and its root may change its mode or owner:
    what cannot be read and executed any more is replaced, under the same number.
    """
    global _helper_fd
    if _helper_fd < 0 or os.fstat(_helper_fd).st_mode & _READY != _READY:
        import fcntl

        fresh = _sealed_copy()
        if _helper_fd < 0:
            # Above the numbers that the child's descriptors are moved to before it is executed.
            _helper_fd = fcntl.fcntl(fresh, fcntl.F_DUPFD_CLOEXEC, 16)
        else:
            os.dup2(fresh, _helper_fd, inheritable=False)
        os.close(fresh)
    return _helper_fd


def _sealed_copy() -> int:
    import fcntl

    source = os.open(helper_path(), os.O_RDONLY | os.O_CLOEXEC)
    try:
        size = os.fstat(source).st_size
        target = os.memfd_create("sampan-helper", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        sent = 0
        while sent < size:
            sent += os.sendfile(target, source, sent, size - sent)
    finally:
        os.close(source)
    try:
        fcntl.fcntl(target, _F_ADD_SEALS, _SEALS | _F_SEAL_EXEC)
    except OSError:  # EINVAL before Linux 6.3
        fcntl.fcntl(target, _F_ADD_SEALS, _SEALS)
    return target


class Exit:
    """Hold how a process ended: `code` as a shell would show it, `signal` or 0, and whether memory ran out.

    `refused` is the error number for which our standard output or error took no more of its output, or 0.
    """

    __slots__ = ("code", "oom", "refused", "signal")

    def __init__(self, status: int, oom: bool, refused: int = 0) -> None:
        self.signal = status & 0x7F
        self.code = 128 + self.signal if self.signal else status >> 8 & 0xFF
        self.oom = oom
        self.refused = refused

    def told(self) -> int:
        """Give the code to whoever was to have the output; Unavailable, never with code 0, where a part is lost."""
        if self.refused:
            why = os.strerror(self.refused)
            hint = "`sampan logs` has it, where the container is kept"
            raise Unavailable(f"cannot write all of the output: {why}", hint, exit_code=self.code or 1)
        return self.code


class StartFailure(SampanError):
    """The helper could not perform an operation: its label, the error number and the file's first bytes."""

    def __init__(self, label: str, code: int, number: int, head: bytes, status: int = 0) -> None:
        super().__init__(f"cannot {label}: {os.strerror(number)}")
        self.label = label
        self.status = status  # of the process, where it ended before it could perform everything
        self.code = code
        self.errno = number
        self.head = head


class Child:
    """Watch one helper: its reports arrive on `reports`, answers and control leave on `control`."""

    def __init__(self, helper_pid: int, control: int, reports: int) -> None:
        self.plan = Plan()
        self.helper_pid = helper_pid
        self.control = control
        self.reports = reports
        self.pid = 0
        self.started_ns = 0
        self.skipped = 0
        self.warnings: list[str] = []
        self.who: tuple[int, int, list[int], list[str]] | None = None  # what `accounts` answered
        self.detached = False
        self.network_begun = False
        self.sweeps = False  # removes groups and files when it has told the end: `swept`
        self.placement: Placement | None = None  # its groups, as far as the helper has not removed them at the end
        self._exit: Exit | None = None
        self._failure: SampanError | None = None  # of a tree operation
        self._sent = 0

    def begin(self, plan: Plan) -> None:
        """Note that the helper has this piece already; what is sent next goes on from there."""
        self.plan, self._sent = plan, len(plan.operations)
        self.network_begun = True

    def send(self, plan: Plan | None = None) -> None:
        """Send what the plan, if it is new this one, has and the helper has not got yet."""
        if plan is not None:
            self.plan = plan
        view = memoryview(self.plan.encode(self._sent))
        self._sent = len(self.plan.operations)
        try:
            while view:
                view = view[os.write(self.control, view) :]
        except BrokenPipeError:
            return  # its report says why

    def _read(self, length: int) -> bytes:
        data = b""
        while len(data) < length:
            part = os.read(self.reports, length - len(data))
            if not part:
                return b""
            data += part
        return data

    def report(self) -> tuple[int, int, int, int, int, bytes]:
        """Read one report: kind, operation, error, value, extra number, bytes."""
        head = self._read(_HEAD.size)
        if not head:
            raise Unavailable("the helper ended without a word", "was it killed? run again")
        kind, operation, error, value, extra, length, _ = _HEAD.unpack(head)
        return kind, operation, error, value, extra, self._read(length) if length else b""

    def await_start(self, accounts: Accounts | None = None) -> Child:
        """Wait until the program runs; StartFailure says which operation failed."""
        files = [b"", b""]
        while True:
            kind, operation, error, value, extra, data = self.report()
            if kind == STARTED:
                self.pid, self.started_ns = value, extra
                return self
            if kind == ACCOUNTS:
                files[value & 1] = data
                if value == 1:
                    assert accounts is not None
                    self.who = accounts(files[0], files[1])
                    self._answer(*self.who)
            elif kind == TREE:  # it failed at once, and came to tell it first
                self._tree(error, value, extra, data)
            else:
                self._common(kind, operation, error, value, data)

    def _answer(self, uid: int, gid: int, groups: list[int], env: list[str]) -> None:
        words = [os.fsencode(word) for word in env]
        data = _struct.pack(f"<4I{len(groups)}I", uid, gid, len(groups), len(words), *groups)
        view = memoryview(data + b"".join(_struct.pack("<I", len(word)) + word for word in words))
        try:
            while view:
                view = view[os.write(self.control, view) :]
        except BrokenPipeError:
            return  # it ended meanwhile: why, its next report tells

    def _common(self, kind: int, operation: int, error: int, value: int, data: bytes) -> None:
        if kind == FAILED:
            code = self.plan.operations[operation].code if operation < len(self.plan.operations) else 0
            label = self.plan.label(operation)
            self.close()
            raise StartFailure(label, code, error, data, value)
        if kind == WARNING:
            self.warnings.append(f"cannot {self.plan.label(operation)}: {os.strerror(error)}")
        elif kind == DETACHED:
            self.detached = True

    def wait(self) -> Exit:
        """Wait for the end; a tree operation's failure is raised.  Also returns when the caller was detached."""
        reap()  # of earlier runs, while there is time
        while self._exit is None and not self.detached:
            kind, operation, error, value, extra, data = self.report()
            if kind == EXITED:
                self._exit = Exit(value, extra > 0, error)
                if operation & SWEPT_GROUPS and self.placement is not None:
                    self.placement.forget()
            elif kind == TREE:
                self._tree(error, value, extra, data)
            else:
                self._common(kind, operation, error, value, data)
        if not self.sweeps:
            self.close()
        if self._failure is not None:
            raise self._failure
        return self._exit or Exit(0, False)

    def _tree(self, error: int, value: int, extra: int, data: bytes) -> None:
        self.skipped = extra
        if error:
            from sampan.runtime import tree

            self._failure = tree.failure(value, error, data)

    def swept(self) -> bool:
        """Wait until a helper that `sweeps` has done so, behind its container's end; say whether the files are gone."""
        try:
            kind, what, *_ = self.report()
        except Unavailable:  # it was killed meanwhile
            kind = what = 0
        finally:
            self.close()
        if kind == SWEPT and what & SWEPT_GROUPS and self.placement is not None:
            self.placement.forget()
        return kind == SWEPT and bool(what & SWEPT_FILES)

    def signal(self, number: int) -> None:
        """Ask the helper to pass a signal to the program; nothing happens when it has ended."""
        self._control(CONTROL_SIGNAL, number)

    def resize(self, rows: int, columns: int) -> None:
        """Tell the terminal's new size."""
        self._control(CONTROL_RESIZE, rows << 16 | columns)

    def keep(self) -> None:
        """Tell a supervisor that its container was written down: until then it ends with this process."""
        self._control(CONTROL_KEEP, 0)

    def _control(self, kind: int, value: int) -> None:
        if self.control >= 0:
            try:
                os.write(self.control, _struct.pack("<II", kind, value))
            except BrokenPipeError:
                return

    def close(self) -> None:
        """Close our ends and reap the helper if it has ended; without OP_SUPERVISE this ends the program."""
        for fd in (self.control, self.reports):
            if fd >= 0:
                os.close(fd)
        self.control = self.reports = -1
        _ended.append(self.helper_pid)
        if self.detached:
            _lasting.add(self.helper_pid)
        reap()


_ended: list[int] = []
_lasting: set[int] = set()  # those that stay with their container


def reap() -> None:
    """Collect helpers that have ended; those still unmounting are left for the next call."""
    for pid in _ended[:]:
        try:
            ended = os.waitpid(pid, os.WNOHANG)[0] != 0
        except ChildProcessError:
            ended = True  # another thread, or the caller's own SIGCHLD handler, was first
        if ended and pid in _ended:
            _ended.remove(pid)
            _lasting.discard(pid)


def settle(seconds: int = 10) -> None:
    """Wait until the helpers that were closed are gone, and nothing of them is left that could still write."""
    import select

    for pid in [pid for pid in _ended if pid not in _lasting]:
        try:
            watch = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            poll = select.poll()
            poll.register(watch, select.POLLIN)
            poll.poll(seconds * 1000)
        finally:
            os.close(watch)
    reap()


def start(
    plan: Plan,
    stdin: int = 0,
    stdout: int = 1,
    stderr: int = 2,
    tree_in: int = -1,
    tree_out: int = -1,
    target: int = -1,
) -> Child:
    """Start the helper on a plan; nothing is waited for.  A plan that goes on needs `Child.send`."""
    child = spawn(stdin, stdout, stderr, tree_in, tree_out, target)
    child.send(plan)
    return child


def spawn(
    stdin: int = 0, stdout: int = 1, stderr: int = 2, tree_in: int = -1, tree_out: int = -1, target: int = -1,
    network: bool = False,
) -> Child:  # fmt: skip
    """Start the helper, which waits for a plan; the descriptors become its 0 to 2, 5, 6 and 7 (helper/plan.h).

    With `network` it makes a network namespace meanwhile: the plan then has to begin with NETWORK_FIRST.
    """
    helper = _helper()
    in_read, in_write = os.pipe()
    out_read, out_write = os.pipe()
    wanted = (
        (stdin, 0),
        (stdout, 1),
        (stderr, 2),
        (tree_in, 5),
        (tree_out, 6),
        (target, 7),
        (in_read, 3),
        (out_write, 4),
    )
    raised: list[int] = []
    try:
        if network:
            os.write(in_write, NETWORK_FIRST.encode())
        pid = os.posix_spawn(
            f"/proc/self/fd/{helper}", ["sampan-helper"], {}, file_actions=_moves(wanted, raised),
            setsigmask=_TERMINAL_SIGNALS, setsigdef=_RESET,
        )  # fmt: skip
    except OSError as error:
        os.close(in_write)
        os.close(out_read)
        raise Unavailable(f"cannot start the helper: {error.strerror}") from error
    finally:
        for fd in (in_read, out_write, *raised):
            os.close(fd)
    child = Child(pid, in_write, out_read)
    if network:
        child.begin(NETWORK_FIRST)
    return child


def _moves(wanted: tuple[tuple[int, int], ...], raised: list[int]) -> list[tuple[int, int, int]]:
    """Give what makes each descriptor its number; copies that it takes go into `raised`, for the caller to close."""
    actions: list[tuple[int, int, int]] = []
    taken: set[int] = set()
    for source, number in wanted:
        if source < 0:
            continue
        if source in taken:  # by then the number is another file's
            import fcntl

            source = fcntl.fcntl(source, fcntl.F_DUPFD_CLOEXEC, 16)
            raised.append(source)
        actions.append((os.POSIX_SPAWN_DUP2, source, number))
        taken.add(number)
    return actions


def translate(failure: StartFailure) -> SampanError:
    """Turn a failed operation into the message a user reads: program errors as 126 and 127, missing features named."""
    from sampan.runtime import diagnose

    return diagnose.explain(failure)
