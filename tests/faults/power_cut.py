"""Cut the power: record what commands write to a disk, then look at what any moment would have left of it.

    power_cut.py DIRECTORY CUTS SEED [PRELOAD]        as root; prints one JSON document

Runs in a private mount namespace that it makes itself. A store lies on an ext4 on a recording disk (recording_disk.py).
Commands run one after the other, and the log is marked when each has exited with 0. Every cut takes what the disk had
flushed, and any part, in pieces of 4 KiB, of what was written after that; the result is mounted, seen with another boot
id, and must show

    what was acknowledged before the cut; each image that is listed whole, every blob and every unpacked file of it;
    and the interrupted load must succeed now, with nothing half-made left after a collection.

PRELOAD is a library for the commands: the controls take their fsync or syncfs away, and have to be caught.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import random
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "transfer"), str(HERE.parent / "registry"), str(HERE.parent.parent), str(HERE)]

from recording_disk import FLUSH, MARK, RECORD, WRITE  # noqa: E402
from registrysupport import running  # noqa: E402
from transfersupport import config, docker_files, member, simple_layout, tar, tar_of  # noqa: E402

INSIDE = "SAMPAN_POWER_CUT_INSIDE"
SIZE = 64 << 20
PIECE = 4096
CLONE_NEWNS = 0x00020000
Log = list[tuple[bytes, int, bytes]]


# ---- the work ----


def big_layer(seed: int, files: int) -> bytes:
    """Give a layer of many small files, a larger one, a hard link and a sparse one."""
    chance = random.Random(seed)
    members = [member(f"data/{seed}", type=b"5", mode=0o755)]
    members += [member(f"data/{seed}/{n}", chance.randbytes(chance.randint(1, 6000))) for n in range(files)]
    members += [member(f"data/{seed}/large", chance.randbytes(600_000)), member(f"data/{seed}/holes", bytes(200_000))]
    members.append(member(f"data/{seed}/link", type=b"1", link=f"data/{seed}/large"))
    return tar(members)


class Work:
    """What the commands read: two archives, a build context, and perhaps `pulled`, an image in a registry."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.pulled = ""
        layers = [big_layer(1, 200), big_layer(2, 60), big_layer(3, 20)]
        (directory / "app.tar").write_bytes(tar_of(docker_files(layers, ["app:1"], config(layers))))
        base = simple_layout("docker.io/library/base:1", suffix="+gzip")
        (directory / "base.tar").write_bytes(tar_of(base.build()))
        (directory / "plain.tar").write_bytes(big_layer(7, 30))
        context = directory / "context"
        context.mkdir()
        (context / "Dockerfile").write_text("FROM app:1\nCOPY one /one\nCOPY two /two\n")
        (context / "one").write_bytes(random.Random(4).randbytes(300_000))
        (context / "two").write_bytes(random.Random(5).randbytes(50_000))

    def push(self, host: str) -> None:
        """Give the registry an image of three compressed layers."""
        layers = [big_layer(11, 150), big_layer(12, 50), big_layer(13, 10)]
        self.pulled = f"{host}/team/pulled:1"
        path, store = self.directory / "pulled.tar", f"{self.directory}/pushing"
        path.write_bytes(tar_of(docker_files(layers, [self.pulled], config(layers))))
        sampan(["load", "-q", "-i", str(path)], store)
        sampan(["push", "-q", self.pulled], store)

    def steps(self) -> list[tuple[list[str], dict[str, bool]]]:
        """Give the commands, each with the names that are there, or are gone, once it has exited with 0."""
        top = self.directory
        pull = [(["pull", "-q", self.pulled], {self.pulled: True})] if self.pulled else []
        return [
            (["load", "-q", "-i", f"{top}/app.tar"], {"app:1": True}),
            (["tag", "app:1", "other:1"], {"other:1": True}),
            (["build", "-q", "-t", "built:1", f"{top}/context"], {"built:1": True}),
            (["rmi", "other:1"], {"other:1": False}),
            (["import", f"{top}/plain.tar", "plain:1"], {"plain:1": True}),
            (["rmi", "plain:1"], {"plain:1": False}),
            *pull,
        ]


def sampan(arguments: list[str], root: str, preload: str = "") -> None:
    """Run one command to its end; raise with its words if it fails."""
    env = {
        **os.environ,
        "SAMPAN_ROOT": root,
        "SAMPAN_RUN": root.rstrip("/") + ".run",
        "PYTHONPATH": str(HERE.parents[1]),
    }
    if preload:
        env["LD_PRELOAD"] = preload
    done = subprocess.run(
        [sys.executable, "-m", "sampan", *arguments], env=env, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{arguments}: exit {done.returncode}: {done.stderr[-400:]}")


# ---- the disk ----


@contextmanager
def mounted(what: str, point: Path, options: str = "loop") -> Iterator[Path]:
    point.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "ext4", "-o", options, what, str(point)], check=True)
    try:
        yield point
    finally:
        subprocess.run(["umount", str(point)], check=True)


class Recorder:
    """The recording disk as a child process."""

    def __init__(self, directory: Path, image: Path) -> None:
        self.point = directory / "recorder"
        self.point.mkdir()
        self.log = directory / "log"
        argv = [sys.executable, "-S", str(HERE / "recording_disk.py"), str(image), str(self.point), str(self.log)]
        self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
        assert self.process.stdout and self.process.stdout.readline() == "ready\n"

    def mark(self, name: str) -> None:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(name + "\n")
        assert self.process.stdout.readline() == name + "\n"

    def close(self) -> None:
        subprocess.run(["umount", str(self.point)], check=True)
        self.process.communicate(timeout=20)


def read_log(path: Path) -> Log:
    data = path.read_bytes()
    found: Log = []
    at = 0
    while at < len(data):
        kind, offset, length = RECORD.unpack_from(data, at)
        at += RECORD.size
        found.append((kind, offset, data[at : at + length]))
        at += length
    return found


class Remains:
    """What the disk holds as the log goes on: `flushed` for sure, `pending` perhaps."""

    def __init__(self, image: Path, log: Log) -> None:
        self.flushed = bytearray(image.read_bytes())
        self.pending: list[tuple[int, bytes]] = []
        self.log = log
        self.at = 0
        self.marks: list[str] = []

    def advance(self, to: int) -> None:
        for kind, offset, data in self.log[self.at : to]:
            if kind == WRITE:
                self.pending.append((offset, data))
            elif kind == FLUSH:
                for start, piece in self.pending:
                    self.flushed[start : start + len(piece)] = piece
                self.pending.clear()
            elif kind == MARK:
                self.marks.append(data.decode())
        self.at = max(self.at, to)

    def write(self, path: Path, chance: random.Random, share: float) -> None:
        """Write the disk as a cut leaves it, with a `share` of the pieces that were not flushed."""
        with open(path, "wb") as file:
            file.write(self.flushed)
            for start, data in self.pending:
                for at in range(0, len(data), PIECE):
                    if chance.random() < share:
                        file.seek(start + at)
                        file.write(data[at : at + PIECE])


# ---- what must be true ----


def shown(path: str, name: str) -> list[Any]:
    st = os.lstat(os.path.join(path, name))
    content = ""
    if stat.S_ISREG(st.st_mode):
        content = hashlib.sha256(Path(path, name).read_bytes()).hexdigest()
    elif stat.S_ISLNK(st.st_mode):
        content = os.readlink(os.path.join(path, name))
    return [st.st_mode, st.st_uid, st.st_gid, st.st_mtime_ns if content else 0, st.st_nlink, content]


def tree(root: str) -> str:
    """Give the digest of all that can be seen of a tree."""
    found = {}
    for directory, names, files in os.walk(root):
        for name in sorted(names + files):
            found[os.path.relpath(os.path.join(directory, name), root)] = shown(directory, name)
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()


def trees(root: str) -> dict[str, str]:
    """Give the digests of all unpacked layers of a store."""
    import sampan as library

    engine = library.Engine(root)
    try:
        return {diff_id: tree(engine.store.snapshots.path(diff_id)) for diff_id, _, _ in engine.store.snapshots.ls()}
    finally:
        engine.close()


def faults(engine: Any, expected: dict[str, bool], known: dict[str, str]) -> list[str]:
    """Say what is wrong with a store that a cut has left."""
    from sampan.oci import reference

    store = engine.store
    wrong = []
    if store.db.query("PRAGMA integrity_check") != [("ok",)]:
        wrong.append("the database is damaged")
    names = {reference.parse(name).familiar() for image in store.images.ls() for name in image.references}
    for name, there in expected.items():
        if (name in names) != there:
            wrong.append(f"{name} is {'lost' if there else 'back'}")
    for image in store.images.ls():
        (blobs,) = store.db.one("SELECT blobs FROM images WHERE manifest_digest = ?", (image.manifest_digest,))
        for digest in json.loads(blobs):
            if not store.content.has(digest) or not store.content.verify(digest):
                wrong.append(f"{image.references}: blob {digest[:19]} is missing or damaged")
        for diff_id in image.diff_ids:
            found = store.snapshots.find(diff_id)
            if found is None:
                wrong.append(f"{image.references}: layer {diff_id[:19]} is not unpacked")
            elif tree(store.paths.snapshot(found)) != known.get(diff_id):
                wrong.append(f"{image.references}: the files of layer {diff_id[:19]} are not what they were")
    return wrong


def heal(engine: Any, work: Work, known: dict[str, str]) -> list[str]:
    """Do what a user would do: load and pull again; then nothing half-made may be left."""
    from sampan.store import gc

    store = engine.store
    engine.images.load(str(work.directory / "app.tar"))
    expected = {"app:1": True, "base:1": True}
    if work.pulled:
        engine.images.pull(work.pulled)
        expected[work.pulled] = True
    wrong = [f"after loading again: {text}" for text in faults(engine, expected, known)]
    gc.collect(store.db, store.content, store.paths, remove_tree=engine.remove_tree)
    left = os.listdir(store.paths.ingest) + os.listdir(store.paths.active)
    rows = {number for _, number, _ in store.snapshots.ls()}
    left += [name for name in os.listdir(store.paths.snapshots) if name.isdecimal() and name not in rows]
    return wrong + ([f"after a collection there is left: {left}"] if left else [])


def look(image: Path, work: Work, expected: dict[str, bool], known: dict[str, str]) -> tuple[list[str], list[str]]:
    """Mount what a cut has left; give what is wrong, and the names that are there."""
    import sampan as library

    with mounted(str(image), work.directory / "after") as point:
        engine = library.Engine(str(point / "store"))
        try:
            wrong = faults(engine, expected, known)
            names = [name for row in engine.store.images.ls() for name in row.references]
            if not wrong:
                wrong = heal(engine, work, known)
        except Exception as exc:
            return [f"{type(exc).__name__}: {exc}"], []
        finally:
            engine.close()
    return wrong, names


# ---- all together ----


def record(work: Work, preload: str) -> tuple[Log, dict[str, str]]:
    """Let the commands work on the recording disk; give its log, and the trees that they made."""
    directory = work.directory
    image = directory / "disk.img"
    with open(image, "wb") as file:
        file.truncate(SIZE)
    subprocess.run(["mkfs.ext4", "-q", "-F", str(image)], check=True)
    with mounted(str(image), directory / "before") as point:
        sampan(["load", "-q", "-i", f"{directory}/base.tar"], f"{point}/store")
        known = trees(f"{point}/store")
    recorder = Recorder(directory, image)
    # Without commit=1 the journal would hold most of the work back for five seconds: fewer states to be cut at.
    with mounted(f"{recorder.point}/disk", directory / "live", "loop,commit=1") as point:
        for number, (arguments, _) in enumerate(work.steps()):
            sampan(arguments, f"{point}/store", preload)
            recorder.mark(str(number))
            known |= trees(f"{point}/store")
        end = recorder.log.stat().st_size
    recorder.close()
    os.truncate(recorder.log, end)  # what unmounting wrote came after the last cut
    return read_log(recorder.log), known


def expectation(marks: list[str], work: Work) -> dict[str, bool]:
    """Give the names whose state is sure after these marks: those of the step that was under way are not."""
    expected = {"base:1": True}
    steps = work.steps()
    for number in range(len(marks)):
        expected |= steps[number][1]
    for name in steps[len(marks)][1] if len(marks) < len(steps) else ():
        expected.pop(name, None)
    return expected


def cut_all(work: Work, cuts: int, seed: int, preload: str) -> dict[str, Any]:
    """Record, then look at every cut; give what was seen."""
    log, known = record(work, preload)
    another_boot(work.directory)
    chance = random.Random(seed)
    after_marks = [index + 1 for index, (kind, _, _) in enumerate(log) if kind == MARK]
    places = sorted(after_marks + [chance.randrange(len(log)) for _ in range(max(0, cuts - len(after_marks)))])
    remains = Remains(work.directory / "disk.img", log)
    wrong: list[str] = []
    seen: dict[str, int] = {}
    for place in places:
        remains.advance(place)
        share = chance.choice((0.0, 0.5, 1.0))
        remains.write(work.directory / "cut.img", chance, share)
        found, names = look(work.directory / "cut.img", work, expectation(remains.marks, work), known)
        wrong += [f"cut at {place} of {len(log)}, {share:.0%} of what was not flushed: {text}" for text in found]
        state = f"{len(remains.marks)} done, {len(names)} names"
        seen[state] = seen.get(state, 0) + 1
    flushes = sum(kind == FLUSH for kind, _, _ in log)
    steps = len(after_marks)
    return {"cuts": len(places), "writes": len(log), "flushes": flushes, "steps": steps, "seen": seen, "wrong": wrong}


def main(directory: Path, cuts: int, seed: int, preload: str = "") -> None:
    work = Work(directory)
    with ExitStack() as stack:
        if shutil.which("docker-registry"):
            work.push(stack.enter_context(running(directory / "registry")).host)
        print(json.dumps(cut_all(work, cuts, seed, preload)))


def another_boot(directory: Path) -> None:
    """Show this process the boot id of another boot, which is what follows a power cut."""
    path = "/proc/sys/kernel/random/boot_id"
    (directory / "boot_id").write_text("00000000-0000-4000-8000-000000000001\n")
    subprocess.run(["mount", "--bind", str(directory / "boot_id"), path], check=True)
    from sampan.store import owner

    owner._boot, owner._this = "", (0, "")  # what this process has read of the boot before


def private_mounts() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNS) or libc.mount(b"none", b"/", None, (1 << 18) | (1 << 14), None):  # MS_PRIVATE | MS_REC
        raise OSError(ctypes.get_errno(), "cannot make a mount namespace")


if __name__ == "__main__":
    private_mounts()
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:])
