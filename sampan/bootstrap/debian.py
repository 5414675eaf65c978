"""Make a Debian root file system with mmdebstrap, from the mirror that this host's own apt uses.

mmdebstrap works as root and as an ordinary user and writes a tar, which is piped on as the layer: nothing is unpacked
here.
"""

from __future__ import annotations

import os

from sampan.bootstrap import HOSTS, aptsources
from sampan.errors import InvalidArgument, NotSupported, Unavailable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import IO

VARIANT = "apt"  # the essential packages and apt itself, as in Docker's debian image
SAFE = "abcdefghijklmnopqrstuvwxyz0123456789+-."
CHUNK = 1 << 20
LAST_WORDS = 2000


def command(suite: str, packages: Sequence[str] = (), root: str = "") -> list[str]:
    """Return the mmdebstrap command that writes the tar of `suite` with `packages` to its output."""
    for word in (suite, *packages):
        check(word)
    argv = ["mmdebstrap", f"--variant={VARIANT}", "--format=tar", "--quiet"]
    # Device nodes cannot be made by an ordinary user, and every container gets its own /dev.
    argv += ["--skip=output/dev"]
    # mmdebstrap leaves copies of this host's name and name servers behind, which are nobody else's.
    argv += ['--customize-hook=rm -f "$1/etc/hostname" "$1/etc/resolv.conf"']
    argv += [f"--customize-hook=[ -e \"$1/etc/hosts\" ] || printf '%s' '{HOSTS}' >\"$1/etc/hosts\""]
    if packages:
        argv += [f"--include={','.join(packages)}"]
    argv += [suite, "-"]
    source = aptsources.choose(aptsources.load(root), suite)
    return [*argv, source.line(suite)] if source else argv


def check(word: str) -> None:
    """Raise InvalidArgument unless the word can be the name of a suite or package (never an option)."""
    if not word or word.strip(SAFE) or not word[0].isalnum():
        raise InvalidArgument(f"cannot bootstrap Debian: {word!r} is not the name of a suite or package")


def make(suite: str, packages: Sequence[str] = ()) -> Iterator[bytes]:
    """Return the tar of a Debian root file system in chunks; NotSupported where mmdebstrap is not installed."""
    import shutil

    argv = command(suite, packages)
    if not shutil.which(argv[0]):
        raise NotSupported(
            f"cannot bootstrap debian:{suite}: mmdebstrap is not installed", hint="apt-get install mmdebstrap"
        )
    return _piped(argv, suite)


def _piped(argv: list[str], suite: str) -> Iterator[bytes]:
    """Run mmdebstrap and yield its output; raise Unavailable with its last error if it fails."""
    import subprocess
    import tempfile

    with tempfile.TemporaryFile() as words:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=words)
        try:
            if process.stdout is not None:
                yield from _chunks(process.stdout)
            if process.wait():
                said = _last_words(words)
                raise Unavailable(f"cannot bootstrap debian:{suite}: mmdebstrap: {said}", _hint(said, suite))
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()


def _chunks(file: IO[bytes]) -> Iterator[bytes]:
    while chunk := file.read(CHUNK):
        yield chunk


def _hint(said: str, suite: str) -> str:
    if "chroot mode" in said:  # without root it needs a user namespace with many ids, or a helper program
        return "as an ordinary user mmdebstrap needs a range in /etc/subuid (`sampan doctor` shows how)"
    return f"the mirror is that of this host's /etc/apt: it must be reachable and have {suite}"


def _last_words(file: IO[bytes]) -> str:
    """Return the last line of a log that tells an error, or its last line."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - LAST_WORDS))
    lines = file.read().decode("utf-8", "replace").strip().splitlines()
    errors = [line for line in lines if line.startswith("E:") and line != "E: mmdebstrap failed to run"]
    return (errors or lines or ["it failed without a word"])[-1]
