"""Broken and oversized archives and trees end in a clean error or in success, in bounded memory and descriptors."""

from __future__ import annotations

import io
import os
import random
import resource
import subprocess
import sys
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from treesupport import Harness, Packing, archive, member, needs_root

from sampan.errors import IntegrityError, SampanError, Unavailable
from sampan.oci.entry import Entry
from sampan.oci.layer import TarReader
from sampan.oci.tarheader import BLOCK
from sampan.runtime import tree

MEMORY = 256 << 20


def read(data: bytes, **limits: int) -> list[tuple[Entry, bytes]]:
    found = []
    for entry, content in TarReader(io.BytesIO(data).read, **limits):
        found.append((entry, b"".join(bytes(piece) for _, piece in content)))
    return found


def header(**fields: object) -> bytes:
    """One header with fields replaced as raw bytes, checksum right."""
    block = bytearray(tarfile.TarInfo("name").tobuf(tarfile.USTAR_FORMAT))
    places = {
        "name": (0, 100),
        "mode": (100, 8),
        "uid": (108, 8),
        "gid": (116, 8),
        "size": (124, 12),
        "mtime": (136, 12),
    }
    places |= {
        "type": (156, 1),
        "link": (157, 100),
        "major": (329, 8),
        "minor": (337, 8),
        "map": (386, 96),
        "real": (483, 12),
    }
    for name, value in fields.items():
        at, length = places[name]
        assert isinstance(value, bytes) and len(value) <= length
        block[at : at + length] = value.ljust(length, b"\0")
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def pax(text: bytes, type: bytes = b"x") -> bytes:
    return header(type=type, size=b"%011o" % len(text)) + text + bytes(-len(text) % BLOCK)


def record(key: bytes, value: bytes) -> bytes:
    for length in range(len(key) + len(value) + 4, len(key) + len(value) + 30):
        text = b"%d %s=%s\n" % (length, key, value)
        if len(text) == length:
            return text
    raise AssertionError


BROKEN = {
    "checksum": b"x" * 512,
    "octal-eight": header(mode=b"0000888"),
    "octal-sign": header(size=b"-0000000001"),
    "octal-underscore": header(size=b"1_0"),
    "octal-prefix": header(mode=b"0o644"),
    "uid-2^32-1": header(uid=b"\x80\0\0\0" + b"\xff" * 4),
    "uid-negative": header(uid=b"\xff" * 8),
    "uid-2^63": header(uid=b"\x80" + (1 << 55).to_bytes(7, "big")),
    "size-2^63": header(size=b"\x80\0\0" + b"\0" + (1 << 63).to_bytes(8, "big")),
    "size-negative": header(size=b"\xff" * 12),
    "time-too-large": header(mtime=b"\x80\x7f" + b"\xff" * 10),
    "major-out-of-range": header(type=b"3", major=b"0010000"),
    "minor-out-of-range": header(type=b"4", minor=b"4000000"),
    "unknown-type": header(type=b"Z"),
    "file-named-as-the-root": header(name=b"./"[:1]),
    "link-without-target": header(type=b"2"),
    "hard-link-to-root": header(type=b"1", link=b"/"),
    "hard-link-outside": header(type=b"1", link=b"../x"),
    "name-outside": header(name=b"a/../../b"),
    "pax-1-GiB": header(type=b"x", size=b"%011o" % (1 << 30)) + bytes(4096),
    "long-name-1-GiB": header(type=b"L", size=b"%011o" % (1 << 30)) + bytes(4096),
    "pax-length-beyond": pax(b"999 path=x\n"),
    "pax-length-short": pax(b"3 path=x\n"),
    "pax-length-zero": pax(b"0 path=x\n"),
    "pax-length-sign": pax(b"+9 path=x\n"),
    "pax-no-equals": pax(b"7 path\n"),
    "pax-no-newline": pax(b"9 path=xy"),
    "pax-no-key": pax(b"5 =x\n"),
    "pax-no-length": pax(b"path=x\n"),
    "pax-uid": pax(record(b"uid", b"4294967295")) + header(),
    "pax-uid-text": pax(record(b"uid", b"root")) + header(),
    "pax-size": pax(record(b"size", b"9223372036854775808")) + header(),
    "pax-size-real": pax(record(b"size", b"1e3")) + header(),
    "pax-time": pax(record(b"mtime", b"1e9")) + header(),
    "pax-time-infinite": pax(record(b"mtime", b"inf")) + header(),
    "pax-time-2^64": pax(record(b"mtime", b"18446744073709551616")) + header(),
    "pax-path-outside": pax(record(b"path", b"../x")) + header(),
    "pax-path-zero-byte": pax(record(b"path", b"a\0b")) + header(),
    "pax-path-long": pax(record(b"path", b"a/" * 2049)) + header(),
    "pax-component-long": pax(record(b"path", b"a" * 256)) + header(),
    "pax-link-zero-byte": pax(record(b"linkpath", b"a\0b")) + header(type=b"2"),
    "pax-link-long": pax(record(b"linkpath", b"a" * 4096)) + header(type=b"2"),
    "pax-xattr-name-long": pax(record(b"SCHILY.xattr.user." + b"n" * 255, b"x")) + header(),
    "pax-xattr-value-long": pax(record(b"SCHILY.xattr.user.n", b"x" * 65537)) + header(),
    "sparse-order": pax(record(b"GNU.sparse.size", b"9") + record(b"GNU.sparse.map", b"5,1,0,1")) + header(size=b"2"),
    "sparse-overlap": pax(record(b"GNU.sparse.size", b"9") + record(b"GNU.sparse.map", b"0,2,1,1")) + header(size=b"3"),
    "sparse-beyond": pax(record(b"GNU.sparse.size", b"9") + record(b"GNU.sparse.map", b"8,2")) + header(size=b"2"),
    "sparse-total": pax(record(b"GNU.sparse.size", b"9") + record(b"GNU.sparse.map", b"0,2")) + header(size=b"3"),
    "sparse-odd": pax(record(b"GNU.sparse.size", b"9") + record(b"GNU.sparse.map", b"0")) + header(),
    "sparse-no-size": pax(record(b"GNU.sparse.map", b"0,0")) + header(),
    "sparse-1.0-no-map": pax(record(b"GNU.sparse.major", b"1") + record(b"GNU.sparse.minor", b"0")) + header(),
    "sparse-1.0-endless": pax(
        record(b"GNU.sparse.major", b"1") + record(b"GNU.sparse.minor", b"0") + record(b"GNU.sparse.realsize", b"9")
    )
    + header(size=b"77777777777")
    + b"9" * (2 << 20),
    "sparse-old-negative": header(type=b"S", map=b"\xff" * 24, real=b"7"),
}


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize("name", BROKEN)
def test_broken_headers_are_integrity_errors(name: str) -> None:
    with pytest.raises(IntegrityError):
        read(BROKEN[name] + bytes(1024))


def test_numbers_at_their_limits_are_read() -> None:
    blocks = [
        header(name=b"a", uid=b"\x80\0\0\0\xff\xff\xff\xfe", mtime=b"\xff" * 12),
        header(name=b"b", mode=b"   644 \0", size=b"", mtime=b"\x80\0\0\0" + ((1 << 63) - 1).to_bytes(8, "big")),
        pax(record(b"mtime", b"-1.25") + record(b"uid", b"7") + record(b"uid", b"")) + header(name=b"c"),
        pax(record(b"mtime", b"5"), b"g") + header(name=b"d"),
    ]
    a, b, c, d = (entry for entry, _ in read(b"".join(blocks) + bytes(1024)))
    assert (a.uid, a.mtime_sec) == ((1 << 32) - 2, -1)
    assert (b.mode, b.size, b.mtime_sec) == (0o644, 0, (1 << 63) - 1)
    assert (c.uid, c.mtime_sec, c.mtime_nsec) == (0, -2, 750_000_000)
    assert (d.mtime_sec, d.mode) == (5, 0o644)


SAMPLE = archive(
    member("dir", tarfile.DIRTYPE),
    member("dir/file", data=b"content" * 100),
    member("n" * 150, data=b"x", mtime=1.5),
    member("link", tarfile.SYMTYPE, linkname="dir"),
    member("attr", pax_headers={"SCHILY.xattr.user.a": "v"}),
)


def test_truncated_archives_are_errors_or_shorter_never_wrong() -> None:
    whole = [(entry.path, data) for entry, data in read(SAMPLE)]
    failed = 0
    for end in range(0, len(SAMPLE), 37):
        try:
            part = [(entry.path, data) for entry, data in read(SAMPLE[:end])]
        except IntegrityError:
            failed += 1
            continue
        assert part == whole[: len(part)] and (end % BLOCK == 0 or part == whole)
    assert failed > 50


def test_truncated_archives_leave_clean_errors_behind_the_helper_too(root: Path, checked: Harness) -> None:
    length = len(SAMPLE.rstrip(b"\0"))
    for end in range(100, length, length // 16 + 1):
        with pytest.raises(IntegrityError, match="ends in the middle"):
            checked.apply_tar(root, SAMPLE[:end])


def test_mutated_archives_only_raise_integrity_errors() -> None:
    chance = random.Random(11)
    outcomes = {"read": 0, "refused": 0}
    for _ in range(3000):
        data = bytearray(SAMPLE)
        at = chance.randrange(len(data) // BLOCK) * BLOCK
        for _ in range(chance.randrange(1, 5)):
            data[at + chance.randrange(BLOCK)] = chance.randrange(256)
        block = data[at : at + BLOCK]
        block[148:156] = b" " * 8
        data[at + 148 : at + 156] = b"%06o\0 " % sum(block)  # behind the checksum is where mistakes are
        try:
            read(bytes(data))
            outcomes["read"] += 1
        except IntegrityError:
            outcomes["refused"] += 1
    assert min(outcomes.values()) > 100


def test_an_archive_without_its_end_mark_is_read_and_known() -> None:
    data = SAMPLE[: len(SAMPLE) // BLOCK * BLOCK].rstrip(b"\0")
    data += bytes(-len(data) % BLOCK)
    reader = TarReader(io.BytesIO(data).read)
    assert len(list(reader)) == 5 and not reader.complete
    reader = TarReader(io.BytesIO(SAMPLE).read)
    assert len(list(reader)) == 5 and reader.complete


def test_what_follows_the_end_is_read_for_the_digest() -> None:
    stream = io.BytesIO(SAMPLE + b"trailing" * 100_000)
    list(TarReader(stream.read))
    assert stream.tell() == len(SAMPLE) + 800_000


def test_the_size_limit_counts_files_as_they_will_be() -> None:
    sparse = pax(record(b"GNU.sparse.size", b"%d" % (1 << 40)) + record(b"GNU.sparse.map", b"0,0")) + header(name=b"s")
    assert read(sparse + bytes(1024))[0][0].size == 1 << 40
    with pytest.raises(IntegrityError, match="limit of 1000000"):
        read(sparse + bytes(1024), max_size=1_000_000)


@needs_root
def test_a_sparse_tebibyte_needs_no_space(root: Path, plain: Harness) -> None:
    extended = record(b"GNU.sparse.size", b"%d" % (1 << 40)) + record(b"GNU.sparse.map", b"%d,1" % ((1 << 40) - 1))
    data = pax(extended) + header(name=b"s", size=b"1") + b"x".ljust(BLOCK, b"\0") + bytes(1024)
    frugal = Harness(plain.program, ["prlimit", "--cpu=20"])  # a tebibyte read or written takes longer
    try:
        frugal.apply_tar(root, data)
    except Unavailable:  # the file system has no files of this size
        return
    st = (root / "s").stat()
    assert st.st_size == 1 << 40 and st.st_blocks < 100
    with Packing(frugal, root) as packer:
        found = [list(content) for entry, content in packer if entry.path == b"s"]
    assert sum(len(piece) for _, piece in found[0]) <= 8192


MANY = """
import os, sys
sys.path.insert(0, sys.argv[1])
from sampan.oci.layer import TarReader, TarWriter
from sampan.oci.entry import Entry
from sampan.runtime.tree import Applier
count = int(sys.argv[2])
read, write = os.pipe()
if os.fork() == 0:
    os.close(read)
    w = TarWriter(lambda data: os.write(write, data))
    for n in range(count):
        w.add(Entry("F", b"d%d/e%d/f%d" % (n % 7, n // 1000, n), 0o644, mtime_sec=n))
    w.close()
    os._exit(0)
os.close(write)
a = Applier(1)
a.feed(TarReader(lambda n: os.read(read, n)))
a.end()
# Not ru_maxrss: across exec that keeps the peak of the process that started this one.
sys.stderr.write(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


@needs_root
def test_a_hundred_thousand_entries_need_little_memory(root: Path, plain: Harness) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", root], check=True)
    try:
        here = str(Path(__file__).parents[2])
        feeding = subprocess.Popen(
            [sys.executable, "-c", MANY, here, "100000"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        applying = plain.start("apply", root, 0, "", "", stdin=feeding.stdout)
        assert feeding.stdout and feeding.stderr
        feeding.stdout.close()
        resource.prlimit(applying.pid, resource.RLIMIT_AS, (MEMORY, MEMORY))
        assert applying.wait() == 0
        assert int(feeding.stderr.read()) * 1024 < MEMORY
        assert feeding.wait() == 0
        packing = plain.start("pack", root, 0, "", "", stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        resource.prlimit(packing.pid, resource.RLIMIT_AS, (MEMORY, MEMORY))
        assert packing.wait() == 0
        assert sum(len(files) for _, _, files in os.walk(root)) == 100_000
    finally:
        subprocess.run(["umount", root], check=True)


DEPTH = 5_000  # more than PATH_MAX has room for; paths in the stream make the work grow with its square


@needs_root
def test_five_thousand_levels_with_sixty_descriptors(tmp_path: Path, plain: Harness) -> None:
    few = Harness(plain.program, ["prlimit", "--nofile=64:64", "--cpu=60"])
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", tmp_path], check=True)
    try:
        root, copy = tmp_path / "root", tmp_path / "copy"
        root.mkdir()
        copy.mkdir()
        make = "import os,sys\nos.chdir(sys.argv[1])\n" + (
            f"for n in range({DEPTH}):\n os.mkdir('d')\n os.chdir('d')\n open('f','w').close() if n % 50 == 49 else 0"
        )
        subprocess.run([sys.executable, "-c", make, root], check=True)
        with few.start("pack", root, 0, "", "", stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as packing:
            applying = few.start("apply", copy, 0, "", "", stdin=packing.stdout)
            assert packing.stderr and packing.stderr.read() == b""
            _, text = applying.communicate()
        assert (applying.returncode, packing.returncode, text) == (0, 0, b"")
        sums = [hash_of(few, path) for path in (root, copy)]
        assert sums[0] == sums[1]
        few.apply(copy, [(Entry("W", b"d"), ())], tree.MERGE)
        assert os.listdir(copy) == []
        few.apply(root, [(Entry("F", b"d", 0o644), ())])
        assert (root / "d").is_file()
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def hash_of(harness: Harness, root: Path) -> str:
    import hashlib

    with harness.start("pack", root, 0, "", "", stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as packing:
        assert packing.stdout
        return hashlib.file_digest(packing.stdout, "sha256").hexdigest()  # type: ignore[arg-type]


@needs_root
def test_a_full_disk_is_said_and_the_path_named(tmp_path: Path, plain: Harness) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", tmp_path], check=True)
    try:
        with pytest.raises(Unavailable, match=r"cannot write big: No space left on device") as caught:
            plain.apply_tar(tmp_path, archive(member("big", data=random.Random(1).randbytes(2 << 20))))
        assert "free some space" in caught.value.hint
    finally:
        subprocess.run(["umount", tmp_path], check=True)


@needs_root
def test_unpacking_a_file_takes_few_system_calls(tmp_path: Path, root: Path, plain: Harness) -> None:
    """What it costs, in counts: a clock would measure what else the machine does."""
    counts = []
    for number in (100, 1100):
        trace = tmp_path / f"trace{number}"
        traced = Harness(plain.program, ["strace", "-f", "-c", "-U", "calls", "-o", str(trace)])
        files = [member(f"d{n % 50}/f{n}", data=b"x" * 1500, mtime=n) for n in range(number)]
        traced.apply_tar(root, archive(*files, format=tarfile.USTAR_FORMAT))
        counts.append(int(trace.read_text().split()[-2]))  # of the line "total"
    assert (counts[1] - counts[0]) / 1000 < 12, counts


@needs_root
def test_a_file_that_shrinks_while_it_is_sent_is_an_error(tmp_path: Path, root: Path, plain: Harness) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"x" * (1 << 20))
    fd = os.open(path, os.O_RDONLY)

    def feed(applier: tree.Applier) -> None:
        entry = Entry("F", b"f", 0o644)
        real = os.fstat

        def shrink(fd: int) -> os.stat_result:
            st = real(fd)
            os.truncate(path, 10)
            return st

        try:
            os.fstat = shrink
            applier.file(entry, fd)
        finally:
            os.fstat = real

    with pytest.raises(SampanError, match="became shorter"):
        plain.apply(root, feed)
    os.close(fd)


@needs_root
def test_two_that_remove_one_tree_do_not_mind_each_other(tmp_path: Path, plain: Harness) -> None:
    """As two prunes at once: what the other one has removed is removed, also a directory that is being looked at."""
    for _ in range(20):
        for name in range(60):
            os.makedirs(tmp_path / f"d/{name}/a/b")
            (tmp_path / f"d/{name}/a/f").touch()
        with ThreadPoolExecutor(3) as together:
            done = [together.submit(plain.apply, tmp_path, [(Entry("W", b"d"), ())], tree.MERGE) for _ in range(3)]
        for one in done:
            one.result()
        assert os.listdir(tmp_path) == []
