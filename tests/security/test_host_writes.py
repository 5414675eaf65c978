"""What is written on the host in a container's words: copies out of it, and the unit that starts containers at boot."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from attackkit import command

import sampan
from sampan.cli import runflags
from sampan.engine import booting, completing, hosttree
from sampan.errors import InvalidArgument
from sampan.oci.entry import Entry
from sampan.store import files


def test_a_second_name_of_a_device_is_no_name_of_a_file_of_the_host(tmp_path: Path) -> None:
    """A device is left out of a copy; its hard link must not become one of the host's own file of that name."""
    (tmp_path / "shadow").write_text("secret")
    first, second = Entry("B", b"shadow", 0o666), Entry("H", b"public", 0o666)
    second.link = b"shadow"
    with hosttree.Writer(str(tmp_path)) as writer:
        writer.add(first, ())
        writer.add(second, ())
    assert writer.devices == 2
    assert [path.name for path in tmp_path.iterdir()] == ["shadow"]


def test_a_path_of_the_store_adds_no_line_to_the_unit() -> None:
    quoted = booting._quoted('/x\nExecStartPre=/bin/sh -c "id" %h $A')
    assert quoted == '"/x\\nExecStartPre=/bin/sh -c \\"id\\" %%h $$A"'
    assert "\n" not in quoted


def test_a_link_in_place_of_a_cidfile_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "other").write_text("kept")
    write = runflags.cidfile(str(tmp_path / "id"))
    (tmp_path / "id").unlink()
    (tmp_path / "id").symlink_to("other")
    assert write is not None
    with pytest.raises(InvalidArgument, match="symbolic links"):
        write("0123")
    assert (tmp_path / "other").read_text() == "kept"


@pytest.mark.parametrize("name", ["a\n* * * * * id", "a\rUser=root", "a\x1b]0;x\x07", "a\udcff"])
def test_a_path_that_would_be_a_line_of_its_own_is_refused_at_boot(tmp_path: Path, name: str) -> None:
    engine = sampan.Engine(str(tmp_path / name))
    for text in (booting.unit, booting.cron_line):
        with pytest.raises(InvalidArgument, match="run at each boot"):
            text(engine)
    engine.close()


def test_a_shell_is_given_no_name_that_it_would_expand(engine: sampan.Engine) -> None:
    """bash expands the words of `compgen -W`, and the store may be of somebody who wrote into its database."""
    engine.volumes.create("plain")
    with engine.store.db.transaction() as connection:
        connection.execute("UPDATE volumes SET name = '$(touch /pwned)' WHERE name = 'plain'")
    try:
        assert completing.names(engine, "volumes") == []
    finally:
        with engine.store.db.transaction() as connection:
            connection.execute("DELETE FROM volumes WHERE name = '$(touch /pwned)'")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: files of several owners")
def test_a_program_that_others_may_change_is_seen_before_root_runs_it_at_boot() -> None:
    assert booting.changeable_part("/bin/sh") == "" and booting.changeable_part("/") == ""
    with tempfile.TemporaryDirectory(prefix="sampan-boot-") as name:
        place = Path(name) / "lib" / "program"
        place.parent.mkdir()
        place.touch(0o755)
        assert booting.changeable_part(str(place)) == ""  # below /tmp, which is sticky
        os.chown(place.parent, 1000, 0)
        assert booting.changeable_part(str(place)) == str(place.parent)
        os.chown(place.parent, 0, 0)
        place.chmod(0o775)
        assert booting.changeable_part(str(place)) == str(place)


def test_a_warning_does_not_steer_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    engine = sampan.Engine(str(tmp_path / "store"))
    engine.warn(["caf\u00e9 \x1b]0;x\x07\u202e\n."])
    engine.close()
    assert capsys.readouterr().err == "sampan: warning: caf\u00e9 \\x1b]0;x\\x07\\x202e\\x0a.\n"


@pytest.mark.parametrize("name", [b"..", b"a/../b", b"/etc/x", b"a//b", b"", b"a/."])
def test_no_name_leads_out_of_a_copy(tmp_path: Path, name: bytes) -> None:
    from sampan.errors import IntegrityError

    with pytest.raises(IntegrityError), hosttree.Writer(str(tmp_path)) as writer:
        writer.add(Entry("D", name, 0o755), ())


def test_a_link_in_the_place_of_a_directory_that_is_removed_is_not_opened_up(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir(mode=0o500)
    (tmp_path / "link").symlink_to("outside")
    (tmp_path / "own").mkdir(mode=0)
    parent = os.open(tmp_path, os.O_RDONLY)
    try:
        files.open_up("own", parent)
        with pytest.raises(NotADirectoryError):
            files.open_up("link", parent)
    finally:
        os.close(parent)
    assert [(tmp_path / name).stat().st_mode & 0o777 for name in ("own", "outside")] == [0o700, 0o500]


# ---- the host's null device: a container has it as its streams, and over what is masked ----


@pytest.fixture
def null() -> Iterator[tuple[int, int, int]]:
    """Give mode, owner and time of the host's null device, which are put back should an attack succeed."""
    before = os.stat("/dev/null")
    yield before.st_mode, before.st_uid, before.st_mtime_ns
    if os.stat("/dev/null").st_mtime_ns != before.st_mtime_ns:
        os.utime("/dev/null", ns=(before.st_atime_ns, before.st_mtime_ns))


STREAMS = "for s in 0 1 2; do touch -c -d @1 /proc/self/fd/$s; done; "
MASKED = "for f in keys interrupts timer_list sched_debug; do [ ! -e /proc/$f ] || touch -c -d @1 /proc/$f; done; "
WAYS = {
    "run": ["run", "--rm", "base"],
    "detached": ["run", "--name", "away", "-d", "base"],
    "unmasked": ["run", "--rm", "--security-opt", "systempaths=unconfined", "base"],
    "volume": ["run", "--rm", "-v", "/dev", "base"],
    "exec": ["exec", "held"],
    "exec, detached": ["exec", "-d", "held"],
    "exec without a null device": ["exec", "bare"],
}


def eventually(engine: sampan.Engine, *words: str) -> bool:
    deadline = time.monotonic() + 60
    while command(engine, "exec", *words).returncode != 0:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


@pytest.fixture(scope="module")
def held(engine: sampan.Engine) -> Iterator[None]:
    for name, script in (("held", ""), ("bare", "rm /dev/null; mkdir /removed; ")):  # a user's is mounted, and stays
        result = command(engine, "run", "-d", "--name", name, "base", "sh", "-c", script + "sleep 900")
        assert result.returncode == 0, result
    assert eventually(engine, "bare", "ls", "/removed")
    yield
    command(engine, "rm", "-f", "held", "bare")


@pytest.mark.parametrize("way", WAYS)
def test_no_container_changes_the_hosts_null_device(
    engine: sampan.Engine, held: None, null: tuple[int, int, int], way: str
) -> None:
    result = command(engine, *WAYS[way], "sh", "-c", f"{STREAMS}{MASKED}echo done > /dev/shm/done")
    if way == "exec, detached":
        assert eventually(engine, "held", "cat", "/dev/shm/done")
        command(engine, "exec", "held", "rm", "/dev/shm/done")
    elif way == "detached":
        command(engine, "wait", "away")
        command(engine, "rm", "away")
    found = os.stat("/dev/null")
    assert (found.st_mode, found.st_uid, found.st_mtime_ns) == null, result


def test_no_step_of_a_build_changes_the_hosts_null_device(
    engine: sampan.Engine, null: tuple[int, int, int], tmp_path: Path
) -> None:
    (tmp_path / "Dockerfile").write_text(f"FROM base\nRUN {STREAMS}{MASKED}true\n")
    engine.build(str(tmp_path), tags=["null"], no_cache=True)
    assert os.stat("/dev/null").st_mtime_ns == null[2]


@pytest.mark.usefixtures("held")
@pytest.mark.parametrize("way", [["run", "--rm", "-i", "base"], ["exec", "-i", "held"]], ids=["run", "exec"])
def test_a_named_pipe_of_the_host_stays_as_it_is(engine: sampan.Engine, tmp_path: Path, way: list[str]) -> None:
    """Whoever is root inside could change its mode and owner if it were given as a stream: it is a file of the host."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe, 0o600)
    end = os.open(pipe, os.O_RDWR)
    try:
        os.write(end, b"read\n")
        script = "touch -c -d @1 /proc/self/fd/0; head -n1; touch -c -d @1 /proc/self/fd/0"
        done = command(engine, *way, "sh", "-c", script, stdin=end)
        assert done.returncode == 0 and done.stdout == b"read\n", done
        assert os.stat(pipe).st_mtime > 1
    finally:
        os.close(end)
