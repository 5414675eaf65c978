"""Cut the power: record what commands write to a disk, then look at what any moment would have left of it.

    power_cut.py DIRECTORY STORE CUTS SEED [PRELOAD]        as root; prints one JSON document

Runs in a private mount namespace that it makes itself. A store lies on an ext4 on a recording disk (recording_disk.py).
Commands run one after the other, and the log is marked when each has exited with 0. Every cut takes what the disk had
flushed, and of what was written after that any part that a disk may have on it (recorded.WAYS); the result is mounted,
seen with another boot id, and must show

    what was acknowledged before the cut (images, containers and their settings, volumes and their files, logins); each
    image that is listed whole, every blob and every unpacked file of it; no container running, and each one able to
    start and to be removed; the interrupted load must succeed now, with nothing half-made left after a collection.

STORE is what the commands find (STORES). PRELOAD is a library for them: the controls take their fsync or syncfs away,
and have to be caught.
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
import traceback
from contextlib import ExitStack
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "transfer"), str(HERE.parent / "registry"), str(HERE.parent.parent), str(HERE)]

from cut_work import COPIED, Work, sampan  # noqa: E402
from disks import Unmountable, mounted  # noqa: E402
from recorded import WAYS, Log, Recorder, Remains, read_log  # noqa: E402
from recording_disk import FLUSH, MARK  # noqa: E402
from registrysupport import running  # noqa: E402

SIZE = 64 << 20
CLONE_NEWNS = 0x00020000
# What the commands find, with the options that its disk is mounted with, and the size of its blocks. Without commit=1
# the journal holds most of the work back until something is synced. Of a worn store the database's log was overwritten
# from its start many times: that its blocks are written for the first time is a change of the file system, and syncing
# it syncs what else changed.
STORES = {"used": ("commit=1", 1024), "worn": ("commit=300", 4096), "new": ("commit=300", 4096)}


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
    """Give the digests of all unpacked layers and volumes of a store."""
    import sampan as library

    engine = library.Engine(root)
    try:
        store = engine.store
        found = {volume.name: tree(volume.path) for volume in store.volumes.ls()}
        return found | {diff_id: tree(store.snapshots.path(diff_id)) for diff_id, _, _ in store.snapshots.ls()}
    finally:
        engine.close()


def present(engine: Any) -> set[str]:
    """Name all that a store has, and whether there is a login."""
    from sampan.oci import reference

    store = engine.store
    names = {reference.parse(name).familiar() for image in store.images.ls() for name in image.references}
    names |= {f"volume {volume.name}" for volume in store.volumes.ls()}
    for record in store.containers.ls():
        names.add(f"container {record.name}")
        policy = record.config["options"].get("restart")
        names |= {f"{record.name} restarts {policy}"} if policy else set()
        copied = Path(store.paths.container(record.id), "upper/copied")
        names |= {f"copied into {record.name}"} if copied.exists() and copied.read_bytes() == COPIED else set()
    logins = Path(f"{store.paths.root}.home/.docker/config.json")
    return names | ({"login"} if logins.exists() and json.loads(logins.read_text())["auths"] else set())


def faults(engine: Any, expected: dict[str, bool], known: dict[str, str]) -> list[str]:
    """Say what is wrong with a store that a cut has left."""
    store = engine.store
    wrong = []
    if store.db.query("PRAGMA integrity_check") != [("ok",)]:
        wrong.append("the database is damaged")
    names = present(engine)
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
    return wrong + volume_faults(engine, expected, known)


def volume_faults(engine: Any, expected: dict[str, bool], known: dict[str, str]) -> list[str]:
    """Say whether the volume that a container was created with has other files than it got; none is right before."""
    for volume in engine.store.volumes.ls():
        files = os.listdir(volume.path) if os.path.isdir(volume.path) else []
        if volume.name == "named" and (files or expected.get("volume named")) and tree(volume.path) != known["named"]:
            return [f"volume named has {len(files)} files, or others than it was filled with"]
    return []


def container_faults(engine: Any) -> list[str]:
    """Start and remove each container; say what is wrong with any."""
    from sampan.errors import Conflict

    wrong = []
    for row in engine.containers.ls(all=True):
        if row["State"] not in ("created", "exited"):
            wrong.append(f"container {row['Names']} is said to be {row['State']}")
        try:
            list(engine.containers.diff(row["ID"]))  # of what is there, and of what is made again
            engine.containers.start(row["ID"])
            if engine.store.containers.get(row["ID"]).status != "running":
                wrong.append(f"container {row['Names']} does not start")
        except Conflict as exc:
            if "its removal was interrupted" not in str(exc):
                raise
        engine.containers.remove(row["ID"], force=True)
    if engine.containers.ls(all=True):
        wrong.append("a container is not removed")
    return wrong


def heal(engine: Any, work: Work, known: dict[str, str]) -> list[str]:
    """Do what a user would do: use the containers, load and pull again; then nothing half-made may be left."""
    from sampan.engine import checking, leftovers
    from sampan.store import gc

    store = engine.store
    wrong = []
    for fault in checking.Check(engine, quick=True).run():
        wrong.append(f"system check: {fault.kind} {fault.what}: {fault.why}")
        if fault.kind == "database":
            return wrong  # the check ends there
    wrong += container_faults(engine)
    expected = {name: True for name in present(engine) if name in ("base:1", "run:1")}
    engine.images.load(str(work.directory / "app.tar"))
    engine.build(work.directory / "context", tags=["built:1"])  # of steps that it finds, or none
    expected |= {"app:1": True, "built:1": True}
    if work.pulled:
        engine.images.pull(work.pulled)
        expected[work.pulled] = True
    wrong += [f"after loading again: {text}" for text in faults(engine, expected, known)]
    leftovers.collect(engine, seconds=0)
    gc.collect(store.db, store.content, store.paths, remove_tree=engine.remove_tree)
    return wrong + [f"after a collection there is left: {left}" for left in remains(engine) if left]


def remains(engine: Any) -> list[list[str]]:
    """List what is half-made or forgotten."""
    paths = engine.store.paths
    rows = {number for _, number, _ in engine.store.snapshots.ls()}
    volumes = {volume.name for volume in engine.store.volumes.ls()}
    logins = f"{paths.root}.home/.docker"
    return [
        os.listdir(paths.ingest) + os.listdir(paths.active) + os.listdir(paths.containers),
        [name for name in os.listdir(paths.snapshots) if name.isdecimal() and name not in rows],
        [name for name in os.listdir(paths.volumes) if name not in volumes],
        [f"{volume}/{name}" for volume in volumes for name in os.listdir(paths.volume(volume)) if name != "_data"],
        [name for name in os.listdir(logins) if name != "config.json"] if os.path.isdir(logins) else [],
    ]


def look(image: Path, work: Work, expected: dict[str, bool], known: dict[str, str]) -> tuple[list[str], list[str]]:
    """Mount what a cut has left; give what is wrong, and the names that are there."""
    import sampan as library

    wrong: list[str] = []
    names: list[str] = []
    try:
        with mounted(image, work.directory / "live") as point:  # where it was: records name the store's directory
            engine = library.Engine(str(point / "store"))
            try:
                wrong += faults(engine, expected, known)
                names += sorted(present(engine))
                if not wrong:
                    wrong += heal(engine, work, known)
            except Exception as exc:
                where = traceback.extract_tb(exc.__traceback__)[-1]
                wrong.append(f"{type(exc).__name__}: {exc} ({where.filename}, {where.lineno})")
            finally:
                engine.close()
    except Unmountable as exc:
        wrong.append(f"what is left cannot be mounted: {exc}")
    return wrong, names


# ---- all together ----


def record(work: Work, store: str, preload: str) -> tuple[Log, dict[str, str]]:
    """Let the commands work on the recording disk; give its log, and the trees that they made."""
    directory = work.directory
    image = directory / "disk.img"
    with open(image, "wb") as file:
        file.truncate(SIZE)
    options, block = STORES[store]
    subprocess.run(["mkfs.ext4", "-q", "-F", "-b", str(block), str(image)], check=True)
    known: dict[str, str] = {}
    if not work.new:
        with mounted(image, directory / "before") as point:
            for arguments, _ in work.before():
                sampan(arguments, f"{point}/store")
            if store == "worn":
                wear(f"{point}/store")
            known |= trees(f"{point}/store")
    recorder = Recorder(directory, image)
    with mounted(recorder.point / "disk", directory / "live", options) as point:
        for number, (arguments, _) in enumerate(work.steps()):
            sampan(arguments, f"{point}/store", preload)
            recorder.mark(str(number))
            known |= trees(f"{point}/store")
        end = recorder.log.stat().st_size
    recorder.close()
    os.truncate(recorder.log, end)  # what unmounting wrote came after the last cut
    return read_log(recorder.log), known


def wear(root: str) -> None:
    """Write through the database's log, and begin at its start again."""
    import sampan as library

    with library.Engine(root) as engine:
        for number in range(150):
            with engine.store.db.transaction() as db:
                db.execute("INSERT OR REPLACE INTO manifest_lists VALUES ('worn', ?, ?)", (os.urandom(12_000), number))
        with engine.store.db.transaction() as db:
            db.execute("DELETE FROM manifest_lists")


def expectation(marks: list[str], work: Work) -> dict[str, bool]:
    """Give the names whose state is sure after these marks: those of the step that was under way are not."""
    steps = work.steps()
    expected: dict[str, bool] = {}
    for _, acknowledged in [*([] if work.new else work.before()), *steps[: len(marks)]]:
        expected |= acknowledged
    for name in steps[len(marks)][1] if len(marks) < len(steps) else ():
        expected.pop(name, None)
    return expected


def cut_all(work: Work, store: str, cuts: int, seed: int, preload: str) -> dict[str, Any]:
    """Record, then look at every cut; give what was seen."""
    log, known = record(work, store, preload)
    another_boot(work.directory)
    chance = random.Random(seed)
    after_marks = [index + 1 for index, (kind, _, _) in enumerate(log) if kind == MARK]
    # Each command is cut as often as any other, however little it writes.
    parts = [part for part in zip([0, *after_marks], after_marks, strict=False) if part[0] < part[1]]
    places = [chance.randrange(*parts[number % len(parts)]) for number in range(max(1, cuts - len(after_marks)))]
    places = sorted(after_marks + places)
    remains = Remains(work.directory / "disk.img", log)
    wrong: list[str] = []
    seen: dict[str, int] = {}
    for number, place in enumerate(places):
        remains.advance(place)
        way = chance.choice(list(WAYS))
        left = work.directory / f"cut-{number}.img"  # another file each time: none that a device might still have
        remains.write(left, random.Random(f"{seed} {number}"), way)
        found, names = look(left, work, expectation(remains.marks, work), known)
        wrong += [f"cut at {place} of {len(log)}, of what was not flushed {way}: {text}" for text in found]
        if found and not preload and not (kept := work.directory / "wrong.img").exists():
            remains.write(kept, random.Random(f"{seed} {number}"), way)  # for whoever looks for the reason
        left.unlink()
        state = f"{len(remains.marks)} done, {len(names)} names"
        seen[state] = seen.get(state, 0) + 1
    flushes = sum(kind == FLUSH for kind, _, _ in log)
    steps = len(after_marks)
    return {"cuts": len(places), "writes": len(log), "flushes": flushes, "steps": steps, "seen": seen, "wrong": wrong}


def main(directory: Path, store: str, cuts: int, seed: int, preload: str = "") -> None:
    work = Work(directory, store == "new")
    with ExitStack() as stack:
        if shutil.which("docker-registry"):
            work.push(stack.enter_context(running(directory / "registry")).host)
        print(json.dumps(cut_all(work, store, cuts, seed, preload)))


def another_boot(directory: Path) -> None:
    """Show this process the boot id of another boot, which is what follows a power cut."""
    path = "/proc/sys/kernel/random/boot_id"
    (directory / "boot_id").write_text("00000000-0000-4000-8000-000000000001\n")
    subprocess.run(["mount", "--bind", str(directory / "boot_id"), path], check=True)
    from sampan.runtime import process
    from sampan.store import owner

    owner._boot, owner._this, process._boot_id = "", (0, ""), ""  # what this process has read of the boot before


def private_mounts() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNS) or libc.mount(b"none", b"/", None, (1 << 18) | (1 << 14), None):  # MS_PRIVATE | MS_REC
        raise OSError(ctypes.get_errno(), "cannot make a mount namespace")


if __name__ == "__main__":
    private_mounts()
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), *sys.argv[5:])
