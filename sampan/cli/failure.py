"""What goes to standard error when a command fails, and the exit code; imported only then.

One line says what failed, `hint:` what would help. Text from images and archives may be in a message:
control characters are shown, never sent to the terminal.
"""

from __future__ import annotations

import errno
import os
import sys

from sampan.cli.output import printable
from sampan.errors import BuildError, SampanError

_LACKING = (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EROFS, errno.EIO, errno.EFBIG)
EXIT_OURS = 125
EXIT_INTERRUPTED = 128 + 2  # as a shell reports SIGINT
EXIT_PIPE = 128 + 13  # as a shell reports SIGPIPE


def report(exc: BaseException, debug: bool, ours: int = EXIT_OURS) -> int:
    """Print one failure to standard error; return the exit code, `ours` when the error itself has no other."""
    if isinstance(exc, SystemExit):
        return exc.code if isinstance(exc.code, int) else 0 if exc.code is None else EXIT_OURS
    if isinstance(exc, KeyboardInterrupt):
        return EXIT_INTERRUPTED
    if isinstance(exc, BrokenPipeError) or (isinstance(exc.__cause__, BrokenPipeError) and _reader_left()):
        _drop_output()
        return EXIT_PIPE
    _flush_output()
    if debug:
        _traceback(exc)
    code, lines = describe(exc)
    if code == EXIT_OURS:
        code = ours
    _write("\n".join(lines) + "\n")
    return code


def complain(exc: SampanError) -> None:
    """Print a failure that does not end the command: it goes on with the next name."""
    _flush_output()
    _write("\n".join(describe(exc)[1]) + "\n")


def unwritten(exc: OSError) -> Exception:
    """Return the error for what cannot be printed to standard output; a reader that has left is none worth a word."""
    if isinstance(exc, BrokenPipeError):
        return exc
    from sampan.store.wholefile import full

    return full("cannot write to standard output", exc)


def _reader_left() -> bool:
    """Tell whether standard output is a pipe that nobody reads any more."""
    import select

    watch = select.poll()
    watch.register(1, 0)
    return any(found & select.POLLERR for _, found in watch.poll(0))


def describe(exc: BaseException) -> tuple[int, list[str]]:
    """Return the exit code and the lines that explain a failure."""
    if isinstance(exc, SampanError):
        return exc.exit_code, _explain(exc)
    if isinstance(exc, MemoryError):
        return EXIT_OURS, ["sampan: out of memory"]
    if isinstance(exc, RecursionError):
        return EXIT_OURS, ["sampan: the input is nested too deeply"]
    if isinstance(exc, OSError) and exc.errno in _LACKING:
        from sampan.store import files

        where = f" {printable(os.fsdecode(exc.filename))}" if isinstance(exc.filename, (str, bytes)) else ""
        lines = [f"sampan: the host refused{where}: {exc.strerror}"]
        if where and exc.errno in (errno.ENOSPC, errno.EDQUOT):
            lines.append("hint: free some space, for example with `sampan rm` and `sampan rmi`")
        if where and exc.errno == errno.EROFS:
            lines = [f"sampan: cannot change{where}: its file system is mounted read-only", f"hint: {files.READ_ONLY}"]
        return EXIT_OURS, lines
    if isinstance(exc, FileNotFoundError) and not exc.filename and _without_directory():
        return EXIT_OURS, ["sampan: the current directory is gone", "hint: go to another one first: cd"]
    if isinstance(exc, ImportError) and (exc.name or "").partition(".")[0] == "sampan":
        why = printable(exc.msg)
        return EXIT_OURS, [f"sampan: sampan was replaced or removed while this command ran: {why}", "hint: run again"]
    text = printable(f"{type(exc).__name__}: {exc}")
    return EXIT_OURS, [
        f"sampan: internal error: {text}",
        "hint: run again with --debug (before the command) for details",
    ]


def _without_directory() -> bool:
    try:
        os.getcwd()
    except FileNotFoundError:
        return True
    return False


def _explain(exc: SampanError) -> list[str]:
    lines = []
    if isinstance(exc, BuildError) and exc.file and exc.line:
        lines.append(f"{printable(exc.file)}:{exc.line}")
    if isinstance(exc, BuildError) and exc.excerpt:
        lines += [printable(line) for line in exc.excerpt.split("\n")]
    lines.append("sampan: " + printable(exc.message))
    if exc.hint:
        lines.append("hint: " + printable(exc.hint))
    return lines


def _write(text: str) -> None:
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except OSError:
        return  # standard error is gone: the exit code is all that is left to say


def _flush_output() -> None:
    """Let what was printed before the failure appear before its message."""
    try:
        sys.stdout.flush()
    except OSError:
        _drop_output()


def _drop_output() -> None:
    """Point standard output at /dev/null, so that what is buffered fails no second time."""
    null = os.open("/dev/null", os.O_WRONLY | os.O_CLOEXEC)
    os.dup2(null, 1)
    os.close(null)


def _traceback(exc: BaseException) -> None:
    import traceback

    _write(printable("".join(traceback.format_exception(exc)), keep="\n\t"))
