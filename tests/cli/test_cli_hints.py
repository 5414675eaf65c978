"""What a user mistypes or lacks is told in one line, with a hint that leads on."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator

import pytest
import zstandard

import sampan

LAUNCHER = pathlib.Path(__file__).parent.parent.parent / "bin" / "sampan"
BLOCK = bytes(512)


class Shell:
    """Run commands on one store."""

    def __init__(self, root: str) -> None:
        self.root = root

    def words(self, *words: str) -> list[str]:
        return [str(LAUNCHER), "--root", self.root, *words]

    def failing(self, *words: str, given: bytes | None = None) -> tuple[str, str]:
        """Give the error and the hint of a command that fails; both are one line, and there is nothing else."""
        env = {**os.environ, "PATH": os.path.dirname(sys.executable) + ":" + os.environ["PATH"]}
        stdin = {"input": given} if given is not None else {"stdin": subprocess.DEVNULL}
        done = subprocess.run(self.words(*words), capture_output=True, timeout=60, check=False, env=env, **stdin)  # type: ignore[call-overload]
        assert done.returncode
        error, *rest = done.stderr.decode().splitlines()
        assert error.startswith("sampan: ") and len(rest) <= 1
        return error.removeprefix("sampan: "), rest[0].removeprefix("hint: ") if rest else ""


@pytest.fixture(scope="module")
def shell() -> Iterator[Shell]:
    with tempfile.TemporaryDirectory(prefix="sampan-test-") as root:
        os.chmod(root, 0o711)
        engine = sampan.Engine(root)
        engine.bootstrap("host", "base", ["sh", "true"])
        engine.volumes.create("data")
        engine.close()
        made = Shell(root)
        subprocess.run(
            made.words("create", "--name", "web", "base", "true"), check=True, capture_output=True, timeout=60
        )
        yield made


@pytest.mark.parametrize(
    ("words", "error", "hint"),
    [
        ("rm wbe", "no such container: wbe", "did you mean web?"),
        ("logs database", "no such container: database", "`sampan ps -a` lists what there is"),
        (f"start {'a' * 64}", f"no such container: {'a' * 64}", "`sampan ps -a` lists what there is"),
        ("volume rm dta", "no such volume: dta", "did you mean data?"),
        ("volume inspect other", "no such volume: other", "`sampan volume ls` lists what there is"),
        ("inspect nosuch", "cannot inspect nosuch: there is no such", "`sampan ps -a`, `sampan images` and"),
        ("inspect wbe", "cannot inspect wbe: there is no such", "did you mean web?"),
        ("run --network container:wbe base", "no such container: wbe", "did you mean web?"),
        ("run --env-file /nosuch base", "cannot read /nosuch: No such file", "NAME=VALUE"),
        ("run --env-file /etc base", "cannot read /etc: Is a directory", "NAME=VALUE"),
        ("run --cap-add net_admn base", "invalid --cap-add 'net_admn'", "did you mean NET_ADMIN?"),
        ("run --nosuch base", "unknown option --nosuch of run", "sampan run --help"),
        ("kill -s TREM web", "unknown signal 'TREM'", "did you mean TERM?"),
        ("kill -s nosuch web", "unknown signal 'nosuch'", "a number from 1 to 64"),
        ("run --network nosuch base", "network 'nosuch' is not supported", "none, host or container:NAME"),
        ("import /etc", "cannot import /etc: it is a directory", "tar -C /etc -c . | sampan import -"),
    ],
)
def test_a_hint_leads_on(shell: Shell, words: str, error: str, hint: str) -> None:
    found = shell.failing(*words.split())
    assert found[0].startswith(error) and hint in found[1], found


def test_a_line_that_is_no_variable(shell: Shell, tmp_path: pathlib.Path) -> None:
    (tmp_path / "env").write_text("# comment\nA=1\nB C=2\n")
    error, hint = shell.failing("run", "--env-file", str(tmp_path / "env"), "base", "true")
    assert error.endswith("env line 3: 'B C' is not a variable's name") and "NAME=VALUE" in hint


def archives() -> dict[str, tuple[Callable[[bytes], bytes], str]]:
    again = "copy or download it again"
    return {
        "truncated": (lambda whole: whole[: len(whole) // 2], again),
        "half a gzip": (lambda whole: gzip.compress(whole, 1)[:3000], again),
        "text": (lambda whole: b"hello " * 1000, again),
        "a few bytes": (lambda whole: b"hello", again),
    }


@pytest.mark.parametrize("kind", archives())
def test_a_damaged_archive_is_named(shell: Shell, tmp_path: pathlib.Path, kind: str) -> None:
    saved = tmp_path / "saved.tar"
    subprocess.run(shell.words("save", "-o", str(saved), "base"), check=True, timeout=60)
    spoil, wanted = archives()[kind]
    broken = tmp_path / "broken"
    broken.write_bytes(spoil(saved.read_bytes()))
    for verb, words in (("load", ["load", "-i"]), ("import", ["import"])):
        error, hint = shell.failing(*words, str(broken))
        assert error.startswith(f"cannot {verb} {broken}: ") and wanted in hint, (error, hint)
    for verb, words in (("load", ["load"]), ("import", ["import", "-"])):
        error, hint = shell.failing(*words, given=broken.read_bytes())
        assert error.startswith(f"cannot {verb} the archive: ") and wanted in hint, (error, hint)


# ---- archives without an end ----


@pytest.mark.parametrize("source", ["/dev/zero", "pipe"])
@pytest.mark.parametrize("verb", ["import", "load"])
def test_zeros_without_end_are_no_archive(shell: Shell, source: str, verb: str) -> None:
    """tar: two blocks of zeros are the end; little is read beyond them."""
    with subprocess.Popen(["cat", "/dev/zero"], stdout=subprocess.PIPE) as endless:
        stdin = endless.stdout if source == "pipe" else None
        place = "-" if source == "pipe" else source
        words = ["import", place, "empty"] if verb == "import" else ["load", "-i", place]
        done = subprocess.run(shell.words(*words), stdin=stdin, timeout=60, capture_output=True, text=True, check=False)
        assert endless.stdout is not None
        endless.stdout.close()
    what, why = "the archive" if source == "pipe" else source, "no tar" if verb == "import" else "an empty"
    error, hint = done.stderr.splitlines()
    assert done.returncode == 1 and error.startswith(f"sampan: cannot {verb} {what}: it is {why} archive"), done
    assert hint.startswith("hint: ")


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress, zstandard.compress])
def test_many_packed_zeros_are_no_archive(shell: Shell, pack: Callable[[bytes], bytes]) -> None:
    error, hint = shell.failing("import", "-", "empty", given=pack(bytes(3 << 20)))
    assert error.startswith("cannot import the archive: it is no tar archive") and hint.startswith("an archive of no")


def test_packed_zeros_without_end_are_not_read_on(shell: Shell) -> None:
    member = gzip.compress(bytes(1 << 16)) * 10
    words = shell.words("import", "-")
    with subprocess.Popen(words, bufsize=0, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as done:
        assert done.stdin is not None and done.stderr is not None
        with pytest.raises(BrokenPipeError):
            for _ in range(100_000):
                done.stdin.write(member)
        assert b"cannot import the archive: it is no tar archive" in done.stderr.read()


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress])
@pytest.mark.parametrize("size", [1024, 10240, 1 << 20])
def test_an_archive_of_no_files_is_an_image(shell: Shell, size: int, pack: Callable[[bytes], bytes]) -> None:
    """Two blocks, a record of tar's, the largest record."""
    words = shell.words("import", "-")
    done = subprocess.run(words, input=pack(bytes(size)), timeout=60, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def test_what_follows_an_archive_without_end_is_let_be(shell: Shell, tmp_path: pathlib.Path) -> None:
    (tmp_path / "f").write_text("x")
    line = '{ tar -C "$1" -c f; cat /dev/zero; } | "$2" --root "$3" import - tailed && '
    line += '"$2" --root "$3" image inspect -f {{.Size}} tailed'
    words = ["bash", "-c", line, "bash", str(tmp_path), str(LAUNCHER), shell.root]
    done = subprocess.run(words, timeout=60, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and int(done.stdout.split()[-1]) < 16 << 20, done


def test_padding_after_the_end_is_read_from_a_pipe(shell: Shell, tmp_path: pathlib.Path) -> None:
    """Whoever writes a tar with padding of a whole record (tar -b) is not ended by SIGPIPE."""
    (tmp_path / "f").write_text("x")
    line = 'set -o pipefail; tar -b 1024 -C "$1" -c f | "$2" --root "$3" import - padded'
    done = subprocess.run(
        ["bash", "-c", line, "bash", str(tmp_path), str(LAUNCHER), shell.root], timeout=60, capture_output=True
    )
    assert done.returncode == 0, done.stderr


# ---- full disks ----

FULL = """
mount -t tmpfs -o size=1m none "$1" || exit 1
sampan() { "$LAUNCHER" --root "$ROOT" "$@"; }
echo old > "$1/there"
for words in "save -o $1/new base" "save -o $1/there base" "export -o $1/new web" "cp -L web:/usr/bin/big $1/new" \\
    "cp -L web:/usr/bin/big $1/there"; do
    sampan $words; echo "$?"
done
sampan save base > /dev/full; echo "$?"
sampan export web > /dev/full; echo "$?"
sampan cp web:/usr - > /dev/full; echo "$?"
echo "$(ls -A "$1"), $(cat "$1/there")"
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small tmpfs")
def test_a_full_disk_names_the_file_and_gets_no_half_one(shell: Shell, tmp_path: pathlib.Path) -> None:
    big = tmp_path / "big"
    big.write_bytes(os.urandom(3 << 20))
    subprocess.run(shell.words("cp", str(big), "web:/usr/bin/big"), check=True, timeout=60)
    disk = tmp_path / "disk"
    disk.mkdir()
    env = {**os.environ, "LAUNCHER": str(LAUNCHER), "ROOT": shell.root}
    words = ["unshare", "--mount", "sh", "-c", FULL, "sh", str(disk)]
    done = subprocess.run(words, env=env, capture_output=True, text=True, timeout=120, check=False)
    places = ("new", "there", "new", "new", "there")
    whats = ("write images to ", "write images to ", "write a file system to ", "write ", "write ")
    lines = [f"{what}{disk}/{place}" for what, place in zip(whats, places, strict=True)]
    lines += [f"write {what} to standard output" for what in ("images", "a file system", "an archive")]
    said = done.stderr.splitlines()
    assert said[::2] == [f"sampan: cannot {line}: No space left on device" for line in lines]
    assert all(line.startswith("hint: free some space there") for line in said[1::2])
    assert done.stdout == "1\n" * 8 + "there, old\n"


def test_the_errors_of_an_import_are_prefixed_on_a_full_disk(tmp_path: pathlib.Path) -> None:
    if os.geteuid():
        pytest.skip("mounts a small tmpfs")
    (tmp_path / "big").write_bytes(os.urandom(9 << 20))
    subprocess.run(["tar", "-C", str(tmp_path), "-cf", str(tmp_path / "big.tar"), "big"], check=True, timeout=60)
    disk = tmp_path / "disk"
    disk.mkdir()
    line = (
        'mount -t tmpfs -o size=6m none "$1" && for way in "import" "load -i"; do "$2" --root "$1/s" $way "$3"; done; '
    )
    line += '"$2" --root "$1/s" load < "$3"; cat "$3" | "$2" --root "$1/s" load'
    words = ["unshare", "--mount", "sh", "-c", line, "sh", str(disk), str(LAUNCHER), str(tmp_path / "big.tar")]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    said = done.stderr.splitlines()
    assert said[0].startswith(f"sampan: cannot import {tmp_path}/big.tar: ") and said[0].endswith(
        "No space left on device"
    )
    assert said[1].startswith("hint: free some space")
    assert said[-2].startswith("sampan: cannot load the archive: ") and said[-2].endswith("No space left on device")
    assert said[-1].startswith("hint: free some space")


# ---- a store that cannot be written ----

READ_ONLY = """
mount --bind "$ROOT" "$ROOT" && mount -o remount,bind,ro "$ROOT" || exit 1
sampan() { "$LAUNCHER" --root "$ROOT" "$@"; }
for words in "ps -a" images "inspect web" "logs web" "history base" "volume ls" "system df" info "diff web" \\
    "save -o $1/saved base" "cp web:/usr $1/copied" "events --since 1h --until 0s"; do
    sampan $words > /dev/null 2> "$1/err" || { echo "$words: $?"; cat "$1/err"; }
done
for words in "run --rm base true" "run -d base true" "create base" "start web" "rm web" "tag base other" \\
    "volume create other" "import $1/tree.tar" "load -i $1/saved" "build -q $1/context" "pull $2/app:1" \\
    "bootstrap host -t other sh" "system prune -f" "commit web other" "cp $1/tree.tar web:/"; do
    sampan $words > /dev/null 2> "$1/err"; code=$?
    echo "${words%% *} $([ "$code" != 0 ] && echo refused) $(grep -c '^sampan: .*[Rr]ead-only' "$1/err")" \\
        "$(grep -c '^hint: mount its file system read-write' "$1/err") $(grep -c Traceback "$1/err")"
    [ "$(grep -c ^sampan: "$1/err")" = 1 ] || cat "$1/err"
done
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts the store read-only")
def test_a_store_that_is_read_only_is_read_and_says_so(shell: Shell, tmp_path: pathlib.Path) -> None:
    sys.path[:0] = [str(pathlib.Path(__file__).parent.parent / name) for name in ("transfer", "registry")]
    import lyingregistry
    import transfersupport as ts

    (tmp_path / "context").mkdir()
    (tmp_path / "context/Dockerfile").write_text("FROM base\nRUN true\n")
    (tmp_path / "tree.tar").write_bytes(ts.BASE)
    with lyingregistry.lying() as registry:
        registry.manifest("app", "1", registry.image([ts.BASE]))
        env = {**os.environ, "LAUNCHER": str(LAUNCHER), "ROOT": shell.root, "SAMPAN_REGISTRIES_CONF": "/dev/null"}
        words = ["unshare", "--mount", "sh", "-c", READ_ONLY, "sh", str(tmp_path), registry.host]
        done = subprocess.run(words, env=env, capture_output=True, text=True, timeout=120, check=False)
    tried = [
        "run",
        "run",
        "create",
        "start",
        "rm",
        "tag",
        "volume",
        "import",
        "load",
        "build",
        "pull",
        "bootstrap",
        "system",
        "commit",
        "cp",
    ]
    assert done.stdout.splitlines() == [f"{word} refused 1 1 0" for word in tried], done.stderr
