"""host and tree: what is packed, under which names, for whom; and that the result really runs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from elfmaker import make_elf

from sampan.bootstrap import host
from sampan.bootstrap.tree import Node, Tree
from sampan.errors import Denied, InvalidArgument, NotFound, NotSupported, Unavailable

IMPORTS = "import json, ssl, sqlite3, threading, http.server, ctypes, hashlib\nprint('imported')\n"
SCRIPT = "ls / | sort; make --version; python3 /t.py; python -c 'print(6*7)'; mkdir /app; make /app"
IMAGE_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def put(root: Path, path: str, data: bytes, mode: int = 0o755) -> None:
    file = root / path.lstrip("/")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)
    file.chmod(mode)


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A host with merged /usr, a shell behind a link and one tool."""
    put(tmp_path, "/usr/bin/dash", make_elf(["libc.so.6"], interpreter="/lib64/ld.so"))
    put(tmp_path, "/usr/bin/tool", make_elf(["libc.so.6"], interpreter="/lib64/ld.so"))
    put(tmp_path, "/usr/lib64/ld.so", make_elf())
    put(tmp_path, "/usr/lib/libc.so.6", make_elf())
    put(tmp_path, "/etc/os-release", b'ID=debian\nPRETTY_NAME="Debian $(x) 12"\n', 0o644)
    for name in ("bin", "lib", "lib64"):
        (tmp_path / name).symlink_to(f"usr/{name}")
    (tmp_path / "usr/bin/sh").symlink_to("../../etc/alternatives/sh")
    (tmp_path / "etc/alternatives").mkdir()
    (tmp_path / "etc/alternatives/sh").symlink_to("../../usr/bin/dash")
    return tmp_path


def packed(root: Path, programs: list[str], path: str = "") -> dict[str, Node]:
    return {node.path: node for node in host.make(programs, str(root), path)}


def test_links_stay_links_and_their_targets_come_along(small: Path) -> None:
    nodes = packed(small, ["tool"])
    assert (nodes["/bin"].type, nodes["/bin"].target) == ("L", "usr/bin")
    assert nodes["/usr/bin/sh"].target == "../../etc/alternatives/sh"
    assert nodes["/etc/alternatives/sh"].target == "../../usr/bin/dash"
    assert nodes["/usr/bin/dash"].type == nodes["/usr/lib/libc.so.6"].type == nodes["/usr/lib64/ld.so"].type == "F"


def test_system_files_and_directories(small: Path) -> None:
    nodes = packed(small, ["tool"])
    assert nodes["/tmp"].mode == nodes["/var/tmp"].mode == 0o1777
    assert nodes["/root"].mode == 0o700
    assert {nodes[name].type for name in ("/proc", "/sys", "/dev", "/var")} == {"D"}
    assert b"nobody:x:65534" in nodes["/etc/passwd"].data
    assert nodes["/etc/group"].data.startswith(b"root:x:0:")
    assert nodes["/etc/hosts"].data.startswith(b"127.0.0.1\tlocalhost\n")
    release = nodes["/etc/os-release"].data.decode()
    assert "ID=sampan-host\n" in release
    assert "ID_LIKE=debian\n" in release
    assert "$" not in release


def test_parents_come_first_and_the_order_is_the_same_again(small: Path) -> None:
    order = [node.path for node in host.make(["tool"], str(small), "")]
    seen = {""}
    for path in order:
        assert os.path.dirname(path).rstrip("/") in seen
        seen.add(path)
    assert order == [node.path for node in host.make(["tool"], str(small), "")]


def test_a_missing_program_is_named(small: Path) -> None:
    with pytest.raises(NotFound, match="nonesuch"):
        host.make(["nonesuch"], str(small), "")
    with pytest.raises(InvalidArgument, match="not a name"):
        host.make([""], str(small), "")


def test_one_word_packs_the_usual_tools_that_are_there(small: Path) -> None:
    put(small, "/usr/bin/ls", make_elf(["libc.so.6"], interpreter="/lib64/ld.so"))
    nodes = packed(small, ["coreutils", "tool"])
    assert {"/usr/bin/ls", "/usr/bin/tool", "/usr/bin/sh"} <= set(nodes)


def test_a_program_elsewhere_on_path_is_linked_from_usr_local_bin(small: Path) -> None:
    put(small, "/opt/x/own", make_elf())
    nodes = packed(small, ["own"], "relative:/opt/x")
    assert nodes["/opt/x/own"].type == "F"
    assert (nodes["/usr/local/bin/own"].type, nodes["/usr/local/bin/own"].target) == ("L", "/opt/x/own")


def test_set_id_bits_go_where_the_owner_was_not_root(small: Path) -> None:
    put(small, "/usr/bin/tool", make_elf(), 0o6755)
    if os.getuid() == 0:
        os.chown(small / "usr/bin/tool", 1000, 1000)
        os.chmod(small / "usr/bin/tool", 0o6755)
    assert packed(small, ["tool"])["/usr/bin/tool"].mode == 0o755


def test_link_loops_and_devices_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(InvalidArgument, match="too many links"):
        Tree(str(tmp_path)).add("/a")
    with pytest.raises(InvalidArgument, match="not a file"):
        Tree().add("/dev/null")


def test_an_unreadable_file_is_denied_by_name(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.access
    # Root reads every file whatever its mode, so the refusal itself is injected.
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.R_OK and real(path, mode))
    with pytest.raises(Denied, match="cannot pack /usr/"):
        packed(small, ["tool"])


def test_a_file_that_changes_while_it_is_packed_is_an_error(tmp_path: Path) -> None:
    put(tmp_path, "/f", b"12345", 0o644)
    tree = Tree(str(tmp_path))
    tree.add("/f")
    (node,) = tree.nodes()
    for data in (b"1234", b"123456"):
        put(tmp_path, "/f", data, 0o644)
        with pytest.raises(Unavailable, match="changed while it was read"):
            b"".join(node.read())


def test_parents_through_links_and_dotdot_stay_below_the_root(tmp_path: Path) -> None:
    put(tmp_path, "/real/file", b"x", 0o644)
    (tmp_path / "abs").symlink_to("/real")
    (tmp_path / "up").symlink_to("../../../../real")
    tree = Tree(str(tmp_path))
    assert tree.add("/abs/file") == tree.add("/up/file") == "/real/file"


def materialise(nodes: list[Node], target: Path) -> None:
    for node in nodes:
        place = target / node.path.lstrip("/")
        if node.type == "D":
            place.mkdir(mode=0o755)
        elif node.type == "L":
            place.symlink_to(node.target)
        else:
            place.write_bytes(b"".join(node.read()))
            place.chmod(node.mode)


def enters(target: Path) -> list[str]:
    """The command that runs in a tree, or [] where this user may not enter one."""
    chroot = shutil.which("chroot", path="/usr/sbin:/usr/bin:/sbin:/bin") or "chroot"
    unshare = [] if os.getuid() == 0 else [shutil.which("unshare") or "unshare", "--map-root-user"]
    argv = [*unshare, chroot, str(target)]
    probe = subprocess.run([*argv[:-1], "/", "true"], capture_output=True, check=False)
    return argv if probe.returncode == 0 else []


def test_the_default_image_runs_shell_make_and_python(tmp_path: Path) -> None:
    nodes = list(host.make())
    argv = enters(tmp_path)
    if not argv:
        pytest.skip("chroot in a user namespace is not allowed on this host")
    materialise(nodes, tmp_path)
    (tmp_path / "t.py").write_text(IMPORTS)
    done = subprocess.run(
        [*argv, "/bin/sh", "-ec", SCRIPT], capture_output=True, text=True, env={"PATH": IMAGE_PATH}, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "imported\n42\n" in done.stdout
    assert "Nothing to be done for '/app'" in done.stdout


def test_the_python_that_runs_us_can_be_packed_too(tmp_path: Path) -> None:
    real = os.path.realpath(f"{sys.base_prefix}/bin/python3")
    nodes = {node.path: node for node in host.make([real])}
    assert real in nodes
    libraries = [path for path in nodes if path.endswith("/os.py")]
    assert len(libraries) == 1
    assert not [path for path in nodes if "/site-packages" in path or "/__pycache__" in path or "/test/" in path]


def test_an_interpreter_that_does_not_answer_is_named(tmp_path: Path) -> None:
    put(tmp_path, "/python3", b"#!/bin/sh\necho no such version >&2; exit 127\n")
    with pytest.raises(NotSupported, match=r"python3 for its standard library: no such version"):
        host.make([f"{tmp_path}/python3"])
