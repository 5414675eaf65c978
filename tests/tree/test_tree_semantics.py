"""What applying means: whiteouts, links inside of the root, directories that are kept, what best effort leaves out."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import tarfile
from io import BytesIO
from pathlib import Path

import pytest
from treesupport import OPAQUE, Harness, archive, describe, member, needs_root

from sampan.errors import Conflict, IntegrityError, NotSupported, SampanError
from sampan.oci import entry as kinds
from sampan.oci.entry import Entry
from sampan.oci.layer import TarReader, to_removals
from sampan.runtime import tree

pytestmark = needs_root

LINK, HARD, DIR = tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE


def kind(path: Path) -> str:
    """Tell what a layer directory has there: "whiteout", "opaque", or the file's type letter."""
    if not os.path.lexists(path):
        return "nothing"
    st = path.lstat()
    if stat.S_ISCHR(st.st_mode) and st.st_rdev == 0:
        return "whiteout"
    if stat.S_ISDIR(st.st_mode):
        return "opaque" if OPAQUE in os.listxattr(path) and os.getxattr(path, OPAQUE) == b"y" else "d"
    return stat.filemode(st.st_mode)[0]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ([".wh.x"], {"x": "whiteout"}),
        (["d/.wh.x"], {"d": "d", "d/x": "whiteout"}),
        (["d/", "d/.wh..wh..opq", "d/new"], {"d": "opaque", "d/new": "-"}),
        (["d/new", "d/.wh..wh..opq"], {"d": "opaque", "d/new": "-"}),
        (["d/.wh..wh..opq"], {"d": "opaque"}),
        ([".wh.x", "x"], {"x": "-"}),
        (["x", ".wh.x"], {"x": "-"}),
        ([".wh.x", "x/", "x/new"], {"x": "opaque", "x/new": "-"}),
        (["x/", "x/new", ".wh.x"], {"x": "opaque", "x/new": "-"}),
        ([".wh.x", "x/y/new"], {"x": "opaque", "x/y": "d", "x/y/new": "-"}),
        ([".wh.x", ".wh.x"], {"x": "whiteout"}),
        ([".wh..wh..opq"], {"": "opaque"}),
        ([".wh..wh.plnk/1", ".wh..wh.aufs", ".wh..wh..opq/x"], {"": "d", ".wh..wh.plnk": "nothing"}),
        ([".wh.." + "x"], {".x": "whiteout"}),
        ([".wh.-"], {"-": "whiteout"}),
    ],
    ids=str,
)
def test_whiteouts_of_a_layer_become_overlay_marks(
    root: Path, checked: Harness, names: list[str], expected: dict[str, str]
) -> None:
    members = [member(name.rstrip("/"), DIR if name.endswith("/") else tarfile.REGTYPE) for name in names]
    checked.apply_tar(root, archive(*members), opaque=OPAQUE)
    assert {name: kind(root / name) for name in expected} == expected
    assert not [name for _, _, files in os.walk(root) for name in files if name.startswith(".wh.")]


def test_overlay_marks_become_whiteouts_and_come_back(root: Path, tmp_path: Path, checked: Harness) -> None:
    members = [
        member("d", DIR),
        member("d/.wh..wh..opq"),
        member("d/f", data=b"x"),
        member("e/.wh.gone"),
        member(".wh.top"),
    ]
    checked.apply_tar(root, archive(*members), opaque=OPAQUE)
    data = checked.pack_tar(root, opaque=OPAQUE)
    names = subprocess.run(["tar", "-t"], input=data, capture_output=True, check=True).stdout.split()
    assert names == [b"d/", b"d/.wh..wh..opq", b"d/f", b"e/", b"e/.wh.gone", b".wh.top"]
    again = tmp_path / "again"
    again.mkdir()
    checked.apply_tar(again, data, opaque=OPAQUE)
    assert checked.pack_tar(again, opaque=OPAQUE) == data


def test_a_real_overlay_sees_what_the_marks_say(root: Path, tmp_path: Path, checked: Harness) -> None:
    lower, work, merged = (tmp_path / name for name in ("lower", "work", "merged"))
    for name in ("gone", "opaque/old", "replaced/old", "kept/old"):
        (lower / name).parent.mkdir(parents=True, exist_ok=True)
        (lower / name).write_bytes(b"old")
    work.mkdir()
    merged.mkdir()
    members = [member(name) for name in (".wh.gone", "opaque/new", "opaque/.wh..wh..opq", ".wh.replaced", "kept/new")]
    checked.apply_tar(root, archive(*members, member("replaced/new")), opaque=OPAQUE)
    options = f"lowerdir={root}:{lower},upperdir={tmp_path / 'upper'},workdir={work}"
    (tmp_path / "upper").mkdir()
    if subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, merged], check=False).returncode:
        pytest.skip("no overlay file system here")
    try:
        seen = {name: sorted(os.listdir(merged / name)) for name in sorted(os.listdir(merged))}
        for name in os.listdir(merged):  # whiteouts that overlay itself makes; one shared inode
            shutil.rmtree(merged / name)
    finally:
        subprocess.run(["umount", merged], check=True)
    assert seen == {"kept": ["new", "old"], "opaque": ["new"], "replaced": ["new"]}
    entries = [entry for entry, _ in checked.pack(tmp_path / "upper", opaque=OPAQUE)]
    assert [(e.type, e.path) for e in entries] == [("D", b""), ("C", b"kept"), ("C", b"opaque"), ("C", b"replaced")]


def test_removals_on_a_merged_tree(root: Path, checked: Harness) -> None:
    for path in ("file", "tree/a/b/c", "emptied/a", "emptied/sub/b", "kept/x"):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"old")
    os.symlink("kept", root / "link")
    members = [
        member(n) for n in (".wh.file", ".wh.tree", "emptied/.wh..wh..opq", "emptied/new", ".wh.none", "no/.wh.x")
    ]

    def feed(applier: tree.Applier) -> None:
        applier.feed(to_removals(TarReader(BytesIO(archive(*members, member("link/.wh.x"))).read)))

    checked.apply(root, feed, tree.MERGE)
    assert sorted(os.listdir(root)) == ["emptied", "kept", "link"]
    assert os.listdir(root / "emptied") == ["new"] and os.listdir(root / "kept") == []


def test_a_file_with_a_whiteout_name_cannot_become_a_layer(root: Path, plain: Harness) -> None:
    (root / ".wh.trick").write_bytes(b"")
    with pytest.raises(NotSupported, match=r"\.wh\.trick"):
        plain.pack_tar(root, opaque=OPAQUE)


def test_layers_that_refer_to_lower_ones_are_not_packed(root: Path, plain: Harness) -> None:
    (root / "moved").mkdir()
    os.setxattr(root / "moved", "trusted.overlay.redirect", b"/old")
    with pytest.raises(NotSupported, match="set the attributes of moved"):
        plain.pack(root, opaque=OPAQUE)
    assert [entry.xattrs for entry, _ in plain.pack(root)] == [None, None]


MERGED_USR = [member("usr/bin", DIR), member("bin", LINK, linkname="usr/bin")]


@pytest.mark.parametrize(
    ("members", "path", "reached"),
    [
        ([*MERGED_USR, member("bin/sh", data=b"x")], "usr/bin/sh", True),
        (
            [member("usr/bin", DIR), member("bin", LINK, linkname="/usr/bin"), member("bin/sh", data=b"x")],
            "usr/bin/sh",
            True,
        ),
        ([member("lib", LINK, linkname="usr/lib"), member("lib/x", data=b"x")], "usr/lib/x", True),
        (
            [
                member("a", LINK, linkname="/b"),
                member("b", LINK, linkname="c/../c"),
                member("c/d", DIR),
                member("a/d/x"),
            ],
            "c/d/x",
            True,
        ),
        ([member("up", LINK, linkname="../../.."), member("up/x")], "x", True),
        ([*MERGED_USR, member("bin/a", data=b"x"), member("b", HARD, linkname="/bin/a")], "b", True),
        ([*MERGED_USR, member("usr/bin/a", data=b"x"), member("bin/b", HARD, linkname="bin/a")], "usr/bin/b", True),
        ([member("s", LINK, linkname="target"), member("t", HARD, linkname="s")], "t", True),
        ([member("/etc/x", data=b"x")], "etc/x", True),
        ([member("./a/./b//c", data=b"x")], "a/b/c", True),
        ([member("a/../b", data=b"x")], "b", True),
        ([member("/../x", data=b"x")], "x", True),
        ([member("old-style/", data=b"")], "old-style", True),
        ([member("loop", LINK, linkname="loop"), member("loop/x")], "loop/x", False),
        ([member("f"), member("f/x")], "f/x", False),
        ([member("h", HARD, linkname="missing")], "h", False),
        ([member("d", DIR), member("h", HARD, linkname="d")], "h", False),
    ],
    ids=str,
)
def test_links_inside_of_the_root_work_as_in_a_chroot(
    root: Path, checked: Harness, members: list[tuple[tarfile.TarInfo, bytes]], path: str, reached: bool
) -> None:
    if reached:
        checked.apply_tar(root, archive(*members), opaque=OPAQUE)
    else:
        with pytest.raises(SampanError):
            checked.apply_tar(root, archive(*members), opaque=OPAQUE)
    assert os.path.lexists(root / path) == reached


def test_a_hard_link_to_itself_loses_nothing(root: Path, checked: Harness) -> None:
    checked.apply_tar(
        root, archive(member("a", data=b"x"), member("a", HARD, linkname="a"), member("b", HARD, linkname="a"))
    )
    assert (root / "a").read_bytes() == b"x" and (root / "a").stat().st_nlink == 2


def test_kept_directories_keep_their_metadata_and_symlinks(root: Path, checked: Harness) -> None:
    (root / "real").mkdir(mode=0o700)
    os.utime(root / "real", (5, 5))
    os.symlink("real", root / "link")
    kept = Entry("D", b"link", 0o755, 1, 1, flags=kinds.KEEP)
    checked.apply(root, [(kept, ()), (Entry("D", b"made", 0o751, 3, 4, 9, flags=kinds.KEEP), ())], tree.MERGE)
    st, made = (root / "real").stat(), (root / "made").stat()
    assert (stat.S_IMODE(st.st_mode), st.st_uid, st.st_mtime) == (0o700, 0, 5)
    assert (stat.S_IMODE(made.st_mode), made.st_uid, made.st_gid, made.st_mtime) == (0o751, 3, 4, 9)
    assert (root / "link").is_symlink()


def test_types_are_kept_when_asked(root: Path, checked: Harness) -> None:
    (root / "dir").mkdir()
    (root / "file").write_bytes(b"old")
    for entry in (Entry("F", b"dir", 0o644), Entry("D", b"file", 0o755), Entry("L", b"dir", link=b"x")):
        with pytest.raises(Conflict):
            checked.apply(root, [(entry, ())], tree.MERGE | tree.KEEP_TYPE)
    assert (root / "dir").is_dir() and (root / "file").read_bytes() == b"old"
    checked.apply(root, [(Entry("F", b"file", 0o644), ())], tree.MERGE | tree.KEEP_TYPE)
    assert (root / "file").read_bytes() == b""


def test_the_base_is_found_in_the_root_and_made_when_asked(root: Path, checked: Harness) -> None:
    os.symlink("/srv/app", root / "app")
    with pytest.raises(SampanError, match="cannot open the destination"):
        checked.apply(root, [(Entry("F", b"f", 0o644), ())], tree.MERGE, "app/sub")
    checked.apply(root, [(Entry("F", b"f", 0o644), ())], tree.MERGE | tree.CREATE_BASE, "app/sub")
    assert stat.S_IMODE((root / "srv/app/sub").stat().st_mode) == 0o755
    assert (root / "srv/app/sub/f").exists()
    assert [entry.path for entry, _ in checked.pack(root, base="/app")] == [b"", b"sub", b"sub/f"]
    os.symlink("/srv", root / "srv/app/sub/back")
    checked.apply(root, [(Entry("F", b"back/g", 0o644), ())], tree.MERGE, "app/sub")
    assert (root / "srv/g").exists()


def test_new_files_do_not_inherit_default_acls(root: Path, plain: Harness) -> None:
    acl = bytes.fromhex("02000000 0100070 0ffffffff 04000700 ffffffff 20000000 ffffffff".replace(" ", ""))
    try:
        os.setxattr(root, "system.posix_acl_default", acl)
    except OSError:
        pytest.skip("no ACLs on this file system")
    plain.apply_tar(root, archive(member("f", mode=0o664), member("d", DIR, mode=0o775), member("d/g", mode=0o666)))
    modes = {name: stat.S_IMODE((root / name).stat().st_mode) for name in ("f", "d", "d/g")}
    assert modes == {"f": 0o664, "d": 0o775, "d/g": 0o666}
    assert os.listxattr(root / "d") == []


def test_other_mounts_are_left_out_when_asked(root: Path, plain: Harness) -> None:
    (root / "mnt").mkdir()
    (root / "file").write_bytes(b"")
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", root / "mnt"], check=True)
    try:
        (root / "mnt/inside").write_bytes(b"x")
        subprocess.run(["mount", "--bind", "/etc/hostname", root / "file"], check=True)
        try:
            everything = [entry.path for entry, _ in plain.pack(root)]
            own = [entry.path for entry, _ in plain.pack(root, tree.ONE_FILE_SYSTEM)]
        finally:
            subprocess.run(["umount", root / "file"], check=True)
    finally:
        subprocess.run(["umount", root / "mnt"], check=True)
    assert everything == [b"", b"file", b"mnt", b"mnt/inside"]
    assert own == [b"", b"mnt"]


SOMEBODY = 54321  # whom no user database needs to know


@pytest.fixture
def single_id(plain: Harness, tmp_path: Path) -> Harness:
    """The harness as an ordinary user who is root of a namespace with one id."""
    if os.geteuid() or not shutil.which("setpriv") or not shutil.which("unshare"):
        pytest.skip("needs root, to become an ordinary user with setpriv and unshare")
    for path in (tmp_path, *tmp_path.parents):
        if path != Path("/tmp") and path.is_relative_to("/tmp"):
            path.chmod(0o755)
    for path in (plain.program.parent, *plain.program.parent.parents):
        if path != Path("/tmp") and path.is_relative_to("/tmp"):
            path.chmod(0o755)
    prefix = ["setpriv", "--reuid", str(SOMEBODY), "--regid", str(SOMEBODY), "--clear-groups", "unshare", "-r"]
    if subprocess.run([*prefix, "true"], check=False, capture_output=True).returncode:
        pytest.skip("no user namespaces for ordinary users here")
    harness = Harness(plain.program, prefix)
    harness.owner = (SOMEBODY, SOMEBODY)  # type: ignore[attr-defined]
    return harness


def test_with_one_id_owners_and_devices_are_recorded(root: Path, single_id: Harness) -> None:
    os.chown(root, *single_id.owner)  # type: ignore[attr-defined]
    data = archive(
        member("d", DIR, uid=5, gid=6),
        member("d/f", data=b"x", uid=1000, gid=50, mode=0o4755),
        member("d/g", data=b"x", mode=0o444, uid=7),
        member("l", LINK, linkname="x", uid=9),
        member("null", tarfile.CHRTYPE, devmajor=1, devminor=3, mode=0o666, gid=5),
        member("same", tarfile.LNKTYPE, linkname="null", mode=0o666, gid=5),
        member("suid", data=b"x", uid=1000, gid=50, mode=0o4755),
        member("suid2", tarfile.LNKTYPE, linkname="suid", uid=1000, gid=50, mode=0o4755),
        member(".wh.gone"),
        member("d/.wh..wh..opq"),
    )
    with pytest.raises(SampanError, match="cannot set the owner of d: Invalid argument"):
        single_id.apply_tar(root, data, opaque="user.overlay.opaque")
    flags = tree.BEST_EFFORT_IDS | tree.BEST_EFFORT_NODES
    with pytest.raises(SampanError, match="cannot set the owner of d/f: Invalid argument"):  # a set-ID program
        single_id.apply_tar(root, data, flags | tree.STRICT_SETID, opaque="user.overlay.opaque")
    single_id.apply_tar(root, data, flags, opaque="user.overlay.opaque")
    assert {(path.lstat().st_uid, path.lstat().st_gid) for path in root.rglob("*")} == {single_id.owner}  # type: ignore[attr-defined]
    assert kind(root / "gone") == "whiteout" and (root / "null").read_bytes() == b""
    assert os.getxattr(root / "d", "user.overlay.opaque") == b"y"
    assert stat.S_IMODE((root / "d/f").stat().st_mode) == 0o4755
    plain = [(e.type, e.path, e.uid, e.xattrs) for e, _ in single_id.pack(root)]
    assert plain[1:] == [
        *(("D", b"d", 0, None), ("F", b"d/f", 0, None), ("F", b"d/g", 0, None), ("C", b"gone", 0, None)),
        *(("L", b"l", 0, None), ("F", b"null", 0, None), ("H", b"same", 0, None)),
        *(("F", b"suid", 0, None), ("H", b"suid2", 0, None)),
    ]
    packed = single_id.pack(root, tree.RECORDED, opaque="user.overlay.opaque")
    found = [(e.type, e.path, e.uid, e.gid, e.mode, e.major, e.minor) for e, _ in packed]
    assert found[1:] == [
        ("D", b"d", 5, 6, 0o755, 0, 0),
        ("F", b"d/f", 1000, 50, 0o4755, 0, 0),
        ("F", b"d/g", 7, 0, 0o444, 0, 0),
        ("C", b"gone", 0, 0, 0o0, 0, 0),
        ("L", b"l", 0, 0, 0o777, 0, 0),  # a symbolic link has no room for a record
        ("C", b"null", 0, 5, 0o666, 1, 3),
        ("H", b"same", 0, 5, 0o666, 0, 0),
        ("F", b"suid", 1000, 50, 0o4755, 0, 0),
        ("H", b"suid2", 1000, 50, 0o4755, 0, 0),  # whoever believes the last entry must not make it root's
    ]
    assert all(not (e.xattrs or {}).keys() - {b"user.overlay.opaque"} for e, _ in packed)


@pytest.mark.parametrize(
    "device, owner",
    [
        *((b"c:1:3", b"5"), (b"c:0:0:666", b"5:6:7"), (b"x:1:3:666", b"4294967295:0"), (b"c:4096:1:666", b"-1:0x")),
        *((b"c:1:3:666 ", b""), (b"c:1:3:9", b""), (b"c:1:3:77777", b"")),
    ],
)
def test_records_that_are_none_are_ignored(root: Path, plain: Harness, device: bytes, owner: bytes) -> None:
    (root / "f").touch(0)
    os.setxattr(root / "f", "user.sampan.device", device)
    os.setxattr(root / "f", "user.sampan.owner", owner)
    ((entry, _),) = plain.pack(root, tree.RECORDED)[1:]
    assert (entry.type, entry.uid, entry.gid, entry.xattrs) == ("F", os.getuid(), os.getgid(), None)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: files of several owners")
def test_a_record_counts_only_where_apply_leaves_it(root: Path, plain: Harness) -> None:
    """A user of a container writes attributes too: with them he makes neither root's programs nor devices."""
    for name, uid, mode in (("control", 0, 0), ("mine", 1000, 0), ("suid", 1000, 0o4755), ("shared", 0, 0o666)):
        path = root / name
        path.touch()
        os.chown(path, uid, uid)
        path.chmod(mode)
        os.setxattr(path, "user.sampan.device", b"b:8:0:666")
        os.setxattr(path, "user.sampan.owner", b"0:0" if uid else b"7:7")
    found = {e.path: (e.type, e.uid, e.mode) for e, _ in plain.pack(root, tree.RECORDED)}
    assert found[b"control"] == ("B", 7, 0o666)
    assert found[b"mine"] == ("F", 1000, 0) and found[b"suid"] == ("F", 1000, 0o4755)
    assert found[b"shared"][0] == "F"


def test_a_record_in_an_archive_is_not_taken_over(root: Path, plain: Harness) -> None:
    data = archive(member("f", pax_headers={"SCHILY.xattr.user.sampan.device": "b:8:0", "SCHILY.xattr.user.x": "1"}))
    plain.apply_tar(root, data)
    assert os.listxattr(root / "f") == ["user.x"]


def test_what_the_host_may_not_take_over_is_dropped(root: Path, plain: Harness) -> None:
    names = [
        "trusted.overlay.opaque",
        "trusted.overlay.redirect",
        "user.overlay.opaque",
        "security.selinux",
        "user.fine",
    ]
    data = archive(member("d", DIR, pax_headers={f"SCHILY.xattr.{name}": "y" for name in names}))
    plain.apply(root, TarReader(BytesIO(data).read), opaque=OPAQUE)
    assert os.listxattr(root / "d") == ["user.fine"]


def test_capabilities_without_a_value_do_not_stop_a_pack(root: Path, plain: Harness) -> None:
    (root / "f").write_bytes(b"x")
    os.setxattr(root / "f", "security.capability", b"")
    with pytest.raises(OSError, match="Invalid argument"):
        os.getxattr(root / "f", "security.capability")
    assert [entry.xattrs for entry, _ in plain.pack(root)] == [None, None]


def test_a_failed_apply_says_which_path(root: Path, plain: Harness) -> None:
    entries = [(Entry("F", b"dir/file", 0o644), ()), (Entry("H", b"dir/link", link=b"dir/none"), ())]
    with pytest.raises(Conflict, match="cannot link dir/link: No such file or directory"):
        plain.apply(root, entries)


def test_a_failure_is_also_seen_when_much_is_still_to_be_sent(root: Path, plain: Harness) -> None:
    entries: list[tuple[Entry, tuple[tuple[int, bytes], ...]]] = [(Entry("H", b"link", link=b"none"), ())]
    entries += [(Entry("F", b"f%d" % n, 0o644, size=1 << 20), ((0, b"x" * (1 << 20)),)) for n in range(8)]
    with pytest.raises(Conflict, match="cannot link link"):
        plain.apply(root, entries)


def test_a_stream_without_its_end_is_an_error(root: Path, plain: Harness) -> None:
    data = tree.encode_entry(Entry("D", b"d", 0o755))
    failed = plain.raw(root, data)
    assert failed and "cannot read the entries of" in str(failed)
    assert describe(root).keys() == {".", "d"}


def test_overlong_symlink_targets_are_refused(root: Path, plain: Harness) -> None:
    with pytest.raises(IntegrityError):
        plain.apply_tar(root, archive(member("l", LINK, linkname="x" * 4096)))
