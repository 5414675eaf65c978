"""A step's layer is the exact difference: modes, owners, times, attributes, links, removals, devices, holes."""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
from collections.abc import Callable

import pytest
from buildsupport import Built

import sampan
from sampan.build.execute import remove_stubs

Build = Callable[..., Built]
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="needs root on the host")


def test_modes_owners_and_times(build: Build) -> None:
    built = build(
        "FROM base\nRUN mkdir /d && touch -d @1000000000.123456789 /d/f && chmod 4751 /d/f && chown 1234:50000 /d &&"
        " chmod 1777 /d && touch -d @5 /d/f2 && ln -s f /d/l && touch -h -d @-5 /d/l && touch -d @7 /d\n"
    )
    layer = built.layer()
    assert (layer["d"].mode, layer["d"].uid, layer["d"].gid, layer["d"].mtime) == (0o1777, 1234, 50000, 7)
    assert layer["d/f"].mode == 0o4751
    assert layer["d/f"].pax_headers["mtime"] == "1000000000.123456789"
    assert float(layer["d/l"].mtime) == -5


def test_chown_clears_nothing_that_was_set_after(build: Build) -> None:
    built = build("FROM base\nRUN echo x >/s && chown 5:5 /s && chmod 6755 /s\nRUN stat -c %a:%u /s\n")
    assert built.layer(1)["s"].mode == 0o6755
    assert built.output == "6755:5\n"


def test_removals(build: Build) -> None:
    built = build(
        "FROM base\nRUN mkdir -p /d/sub /e && touch /d/a /d/b /d/sub/c /e/x\n"
        "RUN rm /d/a && rm -r /d/sub && rm -r /e && mkdir /e && touch /e/new\n"
        "RUN ls -A /d /e\n"
    )
    layer = built.layer(2)
    assert set(layer) == {"d", "d/.wh.a", "d/.wh.sub", "e", "e/.wh..wh..opq", "e/new"}
    assert built.output == "/d:\nb\n\n/e:\nnew\n"


def test_file_and_directory_change_places(build: Build) -> None:
    built = build(
        "FROM base\nRUN mkdir /x && touch /x/in /y\n"
        "RUN rm -r /x /y && mkdir /y && touch /y/in && echo f >/x\nRUN cat /x; ls /y\n"
    )
    assert built.output == "f\nin\n"
    assert built.layer(2)["x"].isreg() and built.layer(2)["y"].isdir()


def test_metadata_changes_alone(build: Build) -> None:
    built = build("FROM base\nRUN mkdir /m && echo content >/m/f\nRUN chmod 600 /m/f && chmod 700 /m\nRUN cat /m/f\n")
    assert (built.layer(2)["m"].mode, built.layer(2)["m/f"].mode) == (0o700, 0o600)
    assert built.read("m/f", 2) == b"content\n"


def test_hard_links(build: Build) -> None:
    built = build("FROM base\nRUN mkdir /h && echo x >/h/b && ln /h/b /h/a && ln /h/b /h/c\nRUN stat -c %h /h/a\n")
    layer = built.layer(1)
    assert [layer[f"h/{n}"].islnk() for n in "abc"] == [False, True, True]
    assert layer["h/b"].linkname == layer["h/c"].linkname == "h/a"
    assert built.output == "3\n"


@root_only
def test_special_files(build: Build) -> None:
    built = build("FROM base\nRUN mkfifo -m 640 /fifo && mknod -m 660 /null c 1 3 && mknod /block b 7 9\n")
    layer = built.layer()
    assert layer["fifo"].isfifo() and layer["fifo"].mode == 0o640
    assert (layer["null"].ischr(), layer["null"].devmajor, layer["null"].devminor) == (True, 1, 3)
    assert (layer["block"].isblk(), layer["block"].devmajor, layer["block"].devminor) == (True, 7, 9)


@root_only
@pytest.mark.skipif(not shutil.which("setfattr"), reason="needs setfattr on the host")
def test_attributes(build: Build) -> None:
    built = build(
        "FROM base\nRUN touch /a && setfattr -n user.note -v some /a && mkdir /b && setfattr -n user.d -v 1 /b\n"
    )
    assert built.layer()["a"].pax_headers["SCHILY.xattr.user.note"] == "some"
    assert built.layer()["b"].pax_headers["SCHILY.xattr.user.d"] == "1"


@root_only
@pytest.mark.skipif(not shutil.which("setcap"), reason="needs setcap on the host")
def test_file_capabilities(build: Build) -> None:
    built = build("FROM base\nRUN cp /bin/true /t && setcap cap_net_raw+ep /t\nFROM scratch\nCOPY --from=0 /t /t\n")
    assert "SCHILY.xattr.security.capability" in built.layer()["t"].pax_headers


def test_holes_cost_no_space(build: Build, engine: sampan.Engine) -> None:
    built = build("FROM base\nRUN truncate -s 8M /sparse && echo end >>/sparse\nRUN stat -c '%s %b' /sparse\n")
    size, blocks = map(int, built.output.split())
    assert size == (8 << 20) + 4
    assert blocks * 512 < 1 << 16
    unpacked = engine.store.snapshots.path(built.image.diff_ids[1]) + "/sparse"
    assert os.stat(unpacked).st_blocks * 512 < 1 << 16
    assert built.layer(1)["sparse"].size == size


def test_odd_names(build: Build) -> None:
    built = build("FROM base\nRUN touch \"$(printf '/new\\nline')\" /-dash \"$(printf '/\\377\\376')\"\n")
    assert {"new\nline", "-dash"} <= set(built.layer())
    assert b"\xff\xfe" in {os.fsencode(name) for name in built.layer()}


def test_mount_points_are_no_change(build: Build) -> None:
    program = pathlib.Path("/tmp") / f"static{os.getpid()}"
    source = "int main(void) { return 0; }"
    done = subprocess.run(["cc", "-static", "-x", "c", "-o", str(program), "-"], input=source, text=True, check=False)
    if done.returncode:
        pytest.skip("needs a C compiler with a static library")
    data = program.read_bytes()
    program.unlink()
    built = build('FROM scratch\nCOPY prog /prog\nRUN ["/prog"]\n', {"prog": (data, 0o755)})
    assert len(built.image.diff_ids) == 1


def test_stubs_behind_links_are_left_alone(tmp_path: pathlib.Path) -> None:
    """The step put a link to a host directory where a mount point's parent was (CVE-2024-23652)."""
    upper, outside = tmp_path / "upper", tmp_path / "outside"
    (upper / "proc").mkdir(parents=True)
    (upper / "sys/own").mkdir(parents=True)
    (outside / "victim").mkdir(parents=True)
    (outside / "resolv.conf").touch()
    (upper / "etc").symlink_to(outside)
    naive = [path for path in ("etc/victim", "etc/resolv.conf") if (upper / path).exists()]
    assert len(naive) == 2, "the control: a removal by path would reach them"
    remove_stubs(str(upper), ["/proc", "/sys", "/dev", "/etc/victim", "/etc/resolv.conf"])
    assert sorted(os.listdir(upper)) == ["etc", "sys"]
    assert sorted(os.listdir(outside)) == ["resolv.conf", "victim"]


def test_the_resolver_of_the_host_is_no_change(build: Build) -> None:
    built = build("FROM base\nRUN cat /etc/resolv.conf >/seen\n", network="host")
    assert set(built.layer()) <= {"seen", "etc"}


def test_a_file_that_looks_like_a_whiteout_is_refused(build: Build) -> None:
    with pytest.raises(sampan.SampanError, match=r"\.wh\."):
        build("FROM base\nRUN touch /.wh.x\n")


def test_the_layer_is_what_the_next_step_sees(build: Build, engine: sampan.Engine) -> None:
    """The snapshot and the archive agree: applying the archive elsewhere gives the snapshot's tree."""
    built = build(
        "FROM base\nRUN mkdir -p /t/a/b && echo 1 >/t/a/f && ln /t/a/f /t/g && chmod 2755 /t/a\n", tags=["agree"]
    )
    snapshot = pathlib.Path(engine.store.snapshots.path(built.image.diff_ids[-1]))
    members = built.layer()
    found = {str(path.relative_to(snapshot)) for path in snapshot.rglob("*")}
    assert found == set(members)
    for name, member in members.items():
        assert (snapshot / name).lstat().st_mode & 0o7777 == member.mode
        assert int((snapshot / name).lstat().st_mtime) == int(member.mtime)
