"""What is packed and applied again is the same tree; GNU tar reads what is written, and what it writes is read."""

from __future__ import annotations

import io
import os
import random
import stat
import subprocess
from pathlib import Path

import pytest
from treesupport import Harness, archive, describe, gather, gnu_tar, member, needs_root

from sampan.errors import InvalidArgument
from sampan.oci.entry import Entry
from sampan.oci.layer import TarReader, TarWriter
from sampan.runtime import tree

pytestmark = needs_root

CAPABILITY = bytes.fromhex("0100000200040000000000000000000000000000")  # cap_net_bind_service=ep, version 2


def build(root: Path) -> None:
    """Make one of everything."""
    put(root / "plain", b"hello")
    put(root / "empty", b"")
    put(root / "large", random.Random(1).randbytes(700_001))
    put(root / "dir/inner/deep", b"x" * 4096)
    put(root / "dir/setuid", b"s", mode=0o4755, uid=7, gid=9)
    put(root / "dir/no-access", b"s", mode=0)
    put(root / "high-ids", b"s", uid=(1 << 32) - 2, gid=3_000_000)
    put(root / ("long/" + "/".join(["component" + "x" * 33] * 6) + "/file"), b"long")
    os.makedirs(os.path.join(os.fsencode(root), b"odd"))
    Path(os.fsdecode(os.path.join(os.fsencode(root), b"odd/\xff\xfe\nnew \\line"))).write_bytes(b"bytes")
    put(root / "odd/-leading", b"dash")
    put(root / "odd" / ("n" * 255), b"longest name")
    os.link(root / "plain", root / "dir/linked")
    os.symlink("plain", root / "symlink")
    os.symlink("/absolute/" + "t" * 200, root / "long-symlink")
    os.link(root / "symlink", root / "symlink-linked", follow_symlinks=False)
    os.lchown(root / "symlink", 5, 6)
    os.mkfifo(root / "fifo")
    os.mknod(root / "null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    os.mknod(root / "disk", 0o660 | stat.S_IFBLK, os.makedev(259, 70000))
    with open(root / "sparse", "wb") as file:
        file.write(b"begin")
        file.seek(1 << 20)
        file.write(b"middle")
        file.truncate(3 << 20)
    put(root / "capable", b"#!", mode=0o755)
    os.setxattr(root / "capable", "security.capability", CAPABILITY)
    os.setxattr(root / "plain", "user.comment", b"a=b\n\0c")
    os.setxattr(root / "plain", "user.another", b"")
    os.setxattr(root / "dir", "user.on-directory", b"1")
    os.chmod(root / "dir", 0o2775)
    os.makedirs(root / "sticky", exist_ok=True)
    os.chmod(root / "sticky", 0o1777)
    times(root)


def put(path: Path, data: bytes, mode: int = 0o644, uid: int = 0, gid: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    os.chown(path, uid, gid)
    os.chmod(path, mode)


def times(root: Path) -> None:
    clock = random.Random(2)
    for directory, below, files in os.walk(root, topdown=False):
        for name in files + below:
            moment = clock.choice([clock.randrange(10**18, 17 * 10**17), -clock.randrange(10**9, 10**17), 10**18])
            os.utime(os.path.join(directory, name), ns=(moment, moment), follow_symlinks=False)
    os.utime(root, ns=(10**18, 1_234_567_890_123_456_789))


def without_root(tree_of: dict[str, tuple[object, ...]]) -> dict[str, tuple[object, ...]]:
    return {path: what for path, what in tree_of.items() if path != "."}


def test_pack_then_apply_gives_the_same_tree(checked: Harness, root: Path, tmp_path: Path) -> None:
    build(root)
    copy = tmp_path / "copy"
    copy.mkdir()
    with subprocess.Popen(
        [checked.program, "pack", root, "0", "", ""], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL
    ) as packing:
        subprocess.run([checked.program, "apply", copy, "0", "", ""], stdin=packing.stdout, check=True)
    assert describe(copy) == describe(root)
    assert (copy / "sparse").stat().st_blocks < 100


def test_pack_is_deterministic_and_sorted(plain: Harness, root: Path) -> None:
    build(root)
    first, second = plain.pack_tar(root), plain.pack_tar(root)
    assert first == second
    paths = [entry.path for entry, _ in plain.pack(root)]
    tops = [path for path in paths if path and b"/" not in path]
    assert tops == sorted(tops)
    assert paths[0] == b""


def test_gnu_tar_extracts_what_we_write(plain: Harness, root: Path, tmp_path: Path) -> None:
    build(root)
    data = plain.pack_tar(root)
    copy = tmp_path / "copy"
    copy.mkdir()
    command = [gnu_tar(), "-x", "--xattrs", "--xattrs-include=*", "-p", "--numeric-owner", "-C", str(copy)]
    subprocess.run(command, input=data, check=True)
    assert without_root(describe(copy)) == without_root(describe(root))


@pytest.mark.parametrize(
    "options",
    [
        ["--format=pax", "--xattrs", "--xattrs-include=*"],
        ["--format=pax", "--xattrs", "--xattrs-include=*", "--sparse"],
        ["--format=pax", "--sparse", "--sparse-version=0.1", "--xattrs", "--xattrs-include=*"],
        ["--format=pax", "--sparse", "--sparse-version=0.0", "--xattrs", "--xattrs-include=*"],
    ],
    ids=" ".join,
)
def test_what_gnu_tar_writes_is_applied_as_gnu_tar_would(
    checked: Harness, root: Path, tmp_path: Path, options: list[str]
) -> None:
    build(root)
    data = subprocess.run([gnu_tar(), "-c", *options, "-C", str(root), "."], stdout=subprocess.PIPE, check=True).stdout
    copy = tmp_path / "copy"
    copy.mkdir()
    checked.apply_tar(copy, data)
    assert describe(copy) == describe(root)


@pytest.mark.parametrize(
    "options", [["--format=gnu"], ["--format=gnu", "--sparse"], ["--format=v7"], ["--format=ustar"]]
)
def test_older_formats_are_applied_as_gnu_tar_would(
    checked: Harness, root: Path, tmp_path: Path, options: list[str]
) -> None:
    build(root)
    if options[0] != "--format=gnu":  # what those formats cannot say
        for name in ("high-ids", "disk", "null", "fifo", "long-symlink"):
            os.unlink(root / name)
        subprocess.run(["rm", "-r", root / "long", root / "odd"], check=True)
        for directory, below, files in os.walk(root):
            for name in (*below, *files, "."):
                os.utime(os.path.join(directory, name), ns=(10**18, 10**18), follow_symlinks=False)
    data = subprocess.run([gnu_tar(), "-c", *options, "-C", str(root), "."], stdout=subprocess.PIPE, check=True).stdout
    ours, control = tmp_path / "ours", tmp_path / "control"
    ours.mkdir()
    control.mkdir()
    checked.apply_tar(ours, data)
    subprocess.run([gnu_tar(), "-x", "-p", "--numeric-owner", "-C", str(control)], input=data, check=True)
    assert describe(ours) == describe(control)


def test_a_set_user_id_file_keeps_its_bit_and_capabilities_survive_the_owner(plain: Harness, root: Path) -> None:
    entry = Entry("F", b"f", 0o6755, 1000, 1000, size=1, xattrs={b"security.capability": CAPABILITY})
    plain.apply(root, [(entry, [(0, b"x")])])
    st = (root / "f").stat()
    assert (stat.S_IMODE(st.st_mode), st.st_uid) == (0o6755, 1000)
    assert os.getxattr(root / "f", "security.capability") == CAPABILITY


def test_directory_times_are_kept_whatever_the_order(checked: Harness, root: Path) -> None:
    entries = [Entry("D", path, 0o755, mtime_sec=1000 + n) for n, path in enumerate((b"", b"a", b"a/b", b"c"))]
    entries += [
        Entry("F", path, 0o644, mtime_sec=5) for path in (b"a/b/1", b"c/2", b"a/3", b"a/b/4", b"c/5", b"6", b"a/b/7")
    ]
    checked.apply(root, [(entry, ()) for entry in entries])
    seconds = {path: int((root / path).stat().st_mtime) for path in ("", "a", "a/b", "c")}
    assert seconds == {"": 1000, "a": 1001, "a/b": 1002, "c": 1003}


def test_unmentioned_parents_are_plain_and_existing_directories_keep_their_times(plain: Harness, root: Path) -> None:
    (root / "old").mkdir()
    os.utime(root / "old", (10, 10))
    plain.apply_tar(root, archive(member("old/new/file", data=b"x")))
    assert stat.S_IMODE((root / "old/new").stat().st_mode) == 0o755
    assert (root / "old").stat().st_mtime == 10


def test_large_files_go_past_python_and_arrive_whole(plain: Harness, root: Path, tmp_path: Path) -> None:
    data = random.Random(3).randbytes(9_000_001)
    path = tmp_path / "a.tar"
    path.write_bytes(archive(member("big", data=data), member("small", data=b"s"), member("big2", data=data)))
    fd = os.open(path, os.O_RDONLY)
    reads: list[int] = []

    def read(count: int) -> bytes:
        reads.append(len(part := os.read(fd, count)))
        return part

    def feed(applier: tree.Applier) -> None:
        reader = TarReader(read)
        applier.feed(reader, reader, fd)

    plain.apply(root, feed)
    os.close(fd)
    assert [(root / name).read_bytes() for name in ("big", "small", "big2")] == [data, b"s", data]
    assert sum(reads) < 4_000_000  # most of it was never in Python


def test_files_of_the_host_are_sent_with_their_holes(plain: Harness, root: Path, tmp_path: Path) -> None:
    with open(tmp_path / "f", "wb") as file:
        file.seek(64 << 20)
        file.write(b"end")
    fd = os.open(tmp_path / "f", os.O_RDONLY)
    plain.apply(root, lambda applier: applier.file(Entry("F", b"f", 0o600), fd))
    os.close(fd)
    st = (root / "f").stat()
    assert (st.st_size, st.st_blocks < 100) == ((64 << 20) + 3, True)
    assert (root / "f").read_bytes()[-3:] == b"end"


def test_blocks_of_zeros_become_holes_and_others_do_not(plain: Harness, root: Path) -> None:
    data = b"a" * 5000 + bytes(1 << 20) + b"z" + bytes(100)
    plain.apply_tar(root, archive(member("f", data=data)))
    assert (root / "f").read_bytes() == data
    assert (root / "f").stat().st_blocks * 512 < 40_000


def test_an_entry_replaces_what_is_there_but_directories_merge(checked: Harness, root: Path) -> None:
    for path in ("dir/kept", "to-file/deep/er/x", "file"):
        put(root / path, b"old")
    os.symlink("dir", root / "link")
    checked.apply_tar(
        root,
        archive(
            member("dir", b"5", mode=0o700),
            member("to-file", data=b"now a file"),
            member("file", b"5"),
            member("link", b"5"),
            member("link/inside"),
        ),
    )
    assert (root / "dir/kept").read_bytes() == b"old"
    assert stat.S_IMODE((root / "dir").stat().st_mode) == 0o700
    assert (root / "to-file").read_bytes() == b"now a file"
    assert (root / "file").is_dir() and not (root / "link").is_symlink()
    assert not (root / "dir/inside").exists()


def test_requests_are_answered_one_by_one(plain: Harness, root: Path) -> None:
    from treesupport import Packing

    put(root / "a/b/c", b"content")
    os.symlink("/a/b", root / "link")
    os.symlink("link/c", root / "file-link")
    with Packing(plain, root, tree.REQUESTS) as packer:
        packer.request(b"a", contents=False, depth=1)
        assert [(e.type, e.path) for e, _ in packer] == [("D", b"a"), ("D", b"a/b")]
        packer.request(b"link")
        assert [(e.type, e.path, e.link) for e, _ in packer] == [("L", b"link", b"/a/b")]
        packer.request(b"link", follow=True)
        assert [(e.path, data) for e, data in gather(packer)] == [(b"link", b""), (b"link/c", b"content")]
        packer.request(b"file-link", follow=True)
        assert [(e.type, e.path, data) for e, data in gather(packer)] == [("F", b"file-link", b"content")]
        packer.request(b"missing")
        with pytest.raises(Exception, match="cannot find missing: No such file") as caught:
            gather(packer)
        assert type(caught.value).__name__ == "NotFound"
        packer.request(b"a/b/c", contents=False)
        assert [(e.size, data) for e, data in gather(packer)] == [(7, b"")]


def test_a_path_that_no_program_could_open_is_not_archived() -> None:
    with pytest.raises(InvalidArgument, match="longer than 4096"):
        TarWriter(io.BytesIO().write).add(Entry("F", b"a/" * 2050 + b"f"))


def test_written_archives_read_back_as_the_same_entries() -> None:
    entries = [
        Entry("F", b"p" * 99 + b"/" + b"q" * 99, 0o7777, 1 << 31, 0, -5, 123_456_789, 3, xattrs={b"user.x": b"\n"}),
        Entry("D", b"d" * 100, 0o755, mtime_sec=1 << 40),
        Entry("H", b"h" * 250, link=b"d" * 200),
        Entry("L", b"l", link=b"../" * 60),
        Entry("B", b"b", 0o600, major=4095, minor=(1 << 20) - 1),
    ]
    out = io.BytesIO()
    writer = TarWriter(out.write)
    for entry in entries:
        writer.add(entry, [(0, b"abc")] if entry.type == "F" else ())
    assert writer.close() == len(out.getvalue())
    out.seek(0)
    read = [entry for entry, _ in TarReader(out.read)]
    slots = Entry.__slots__
    assert [[getattr(e, s) for s in slots] for e in read] == [[getattr(e, s) for s in slots] for e in entries]
