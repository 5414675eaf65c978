"""Measure how an image moves: load, save, push and pull (a registry on this machine), beside podman, docker, skopeo.

Also what a pull costs when all of the image, or all but one small layer, is here.

The image is Debian with gcc and Python, some 570 MB in 15,000 files, made by `sampan bootstrap debian:bookworm` (with
mmdebstrap, from the host's own archive), or SAMPAN_BENCH_IMAGE, a tar of a root file system. Every peer loads the same
archive and pulls the same compressed layer. What sampan acknowledges is on the disk by then; the peers sync nothing.
The last table gives memory and processor time: on a busy machine only the latter says much.
"""

from __future__ import annotations

import ctypes
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial

from harness import Case, measure, table
from peers import CommandLine, Docker, need
from stage import Stage, alone

NAMES = ("sampan", "podman", "docker")
PACKAGES = ("gcc", "python3", "python3-dev", "build-essential", "git", "perl")
IMAGE = "sampan-bench-moved"
MOST_RUNS = 5
CONFIG = """\
version: 0.1
log: {{level: error}}
storage: {{filesystem: {{rootdirectory: {root}}}, delete: {{enabled: true}}}}
http: {{addr: 127.0.0.1:{port}}}
"""


class Timed:
    """Run commands; keep of each case the largest peak memory in KiB and the processor seconds of every run."""

    def __init__(self) -> None:
        self.peaks: dict[str, int] = {}
        self.seconds: dict[str, list[float]] = {}
        adopt_orphans()

    def case(self, verb: str, who: str, argv: Sequence[str], peer: CommandLine, prepare: Callable[[], None]) -> Case:
        """Return a case that runs a command and notes what it took; docker's daemon counts too."""
        name, env = f"{verb} {who}", {**os.environ, **peer.env}
        daemon = peer.daemon.pid if isinstance(peer, Docker) else 0
        before = [0.0]

        def begin() -> None:
            prepare()
            before[0] = processor_seconds(daemon)

        def run() -> None:
            status, usage, said = spawned(argv, env)
            if status:
                raise RuntimeError(f"{' '.join(argv)}: exit {os.waitstatus_to_exitcode(status)}: {said}")
            self.peaks[name] = max(self.peaks.get(name, 0), usage.ru_maxrss)

        def end() -> None:
            self.seconds.setdefault(name, []).append(processor_seconds(daemon) - before[0])

        return Case(who, call=run, prepare=begin, after=end)

    def table(self) -> str:
        """Return both as text."""
        lines = [f"  {'case':<34} {'peak memory':>12} {'processor':>12}"]
        for name, peak in self.peaks.items():
            seconds = sorted(self.seconds[name])[len(self.seconds[name]) // 2]
            lines.append(f"  {name:<34} {peak / 1024:>8.0f} MiB {seconds:>10.2f} s")
        return "\n".join(lines)


def spawned(argv: Sequence[str], env: dict[str, str]) -> tuple[int, resource.struct_rusage, str]:
    """Run a command to its end; give its status, what it used, and the end of what it wrote as errors."""
    with tempfile.TemporaryFile() as words:
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        actions = [(os.POSIX_SPAWN_DUP2, fd, number) for fd, number in ((null, 0), (null, 1), (words.fileno(), 2))]
        pid = os.posix_spawnp(argv[0], list(argv), env, file_actions=actions)
        os.close(null)
        _, status, usage = os.wait4(pid, 0)
        words.seek(0)
        return status, usage, words.read().decode(errors="replace").strip()[-400:]


def adopt_orphans() -> None:
    """Become the parent of what commands leave behind, so that its processor time is counted (prctl(2))."""
    subreaper = 36  # PR_SET_CHILD_SUBREAPER
    if ctypes.CDLL(None, use_errno=True).prctl(subreaper, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "cannot adopt orphans")


def processor_seconds(daemon: int) -> float:
    """Return what all ended children have used, user and system, and what a daemon and its own children have."""
    time.sleep(0.05)  # for a helper that ends just after its command
    for entry in os.listdir("/proc"):
        if entry.isdigit() and ended_child(entry):
            with suppress(ChildProcessError):
                os.waitpid(int(entry), os.WNOHANG)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    total = used.ru_utime + used.ru_stime
    if daemon:
        with open(f"/proc/{daemon}/stat", encoding="ascii", errors="replace") as file:
            total += sum(map(int, file.read().rpartition(")")[2].split()[11:15])) / os.sysconf("SC_CLK_TCK")
    return total


def ended_child(pid: str) -> bool:
    """Tell whether a process is a child of ours that has ended."""
    with suppress(OSError), open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
        state, parent = file.read().rpartition(")")[2].split()[:2]
        return state == "Z" and int(parent) == os.getpid()
    return False


class Registry:
    """Debian's docker-registry on a free port of the loopback, its storage below `top`."""

    def __init__(self, top: str, name: str) -> None:
        need("docker-registry", "--version")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self.storage = f"{top}/{name}"
        os.makedirs(self.storage)
        path = f"{self.storage}.yml"
        with open(path, "w", encoding="ascii") as file:
            file.write(CONFIG.format(root=self.storage, port=self.port))
        with open(f"{self.storage}.log", "wb") as log:
            self.process = subprocess.Popen(["docker-registry", "serve", path], stdout=log, stderr=log)
        for _ in range(100):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.1)
        raise RuntimeError("docker-registry does not answer")

    def name(self, repository: str) -> str:
        """Return the full reference of a repository."""
        return f"127.0.0.1:{self.port}/{repository}:1"

    def forget(self) -> None:
        """Remove all that it has, so that the next push sends everything."""
        shutil.rmtree(f"{self.storage}/docker", ignore_errors=True)
        os.sync()

    def close(self) -> None:
        """End the server."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(timeout=30)


def archive(sampan: CommandLine, top: str) -> str:
    """Make the image, and return an archive of it as docker writes them: its layer uncompressed."""
    given = os.environ.get("SAMPAN_BENCH_IMAGE")
    if given:
        sampan.command(sampan.program, "import", given, IMAGE)
    else:
        sampan.command(sampan.program, "bootstrap", "debian:bookworm", *PACKAGES, "--tag", IMAGE)
    path = f"{top}/image.tar"
    sampan.command(sampan.program, "save", "-o", path, IMAGE)
    return path


def remove(peer: CommandLine, *more: str) -> Callable[[], None]:
    """Return what removes all names of the image, as far as they are there, and settles what was written before."""

    def run() -> None:
        env = {**os.environ, **peer.env}
        for name in (IMAGE, f"localhost/{IMAGE}", *more):
            subprocess.run([peer.program, "rmi", "--force", name], env=env, capture_output=True, check=False)
        os.sync()

    return run


def unlink(path: str) -> Callable[[], None]:
    """Return what removes a file, if it is there."""

    def run() -> None:
        if os.path.exists(path):
            os.unlink(path)
        os.sync()

    return run


def skopeo(peer: CommandLine, *words: str) -> tuple[list[str], dict[str, str]]:
    """Return a skopeo command on podman's store."""
    return ["skopeo", "--insecure-policy", "copy", "--quiet", *words], peer.env


class Moves:
    """The cases of each verb, for every peer."""

    def __init__(self, stage: Stage, image: str, timed: Timed) -> None:
        self.peers = [peer for peer in stage.peers.values() if isinstance(peer, CommandLine)]
        self.podman = next((peer for peer in self.peers if peer.name == "podman"), None)
        self.top = stage.top
        self.image = image
        self.timed = timed

    def _case(self, verb: str, name: str, argv: list[str], peer: CommandLine, before: Callable[[], None]) -> Case:
        return self.timed.case(verb, name, argv, peer, before)

    def _skopeo(self, verb: str, source: str, target: str, before: Callable[[], None]) -> Iterator[Case]:
        if self.podman and shutil.which("skopeo"):
            argv = ["skopeo", "--insecure-policy", "copy", "--quiet", "--dest-tls-verify=false", source, target]
            yield self._case(verb, "skopeo", argv, self.podman, before)

    def load(self) -> Iterator[Case]:
        """Load the archive into a store without it."""
        for peer in self.peers:
            argv = [peer.program, "load", "-q", "-i", self.image]
            yield self._case("load", peer.name, argv, peer, remove(peer))
        if self.podman:
            target = f"containers-storage:localhost/{IMAGE}"
            yield from self._skopeo("load", f"docker-archive:{self.image}", target, remove(self.podman))

    def save(self) -> Iterator[Case]:
        """Save the image as an archive."""
        path = f"{self.top}/saved.tar"
        for peer in self.peers:
            peer.command(peer.program, "load", "-q", "-i", self.image)
            argv = [peer.program, "save", "-o", path, IMAGE]
            yield self._case("save", peer.name, argv, peer, unlink(path))

    def push(self, registry: Registry) -> Iterator[Case]:
        """Push what was loaded just now, and never pushed, to a registry that has nothing."""
        for peer in self.peers:
            before = partial(self._load_anew, peer, registry)
            yield self._case("push", peer.name, self._push(peer, registry), peer, before)
        yield from self._push_archive("push", registry)

    def push_again(self, registry: Registry) -> Iterator[Case]:
        """Push what every engine has pushed before, to a registry that has lost it."""
        for peer in self.peers:
            self._load_anew(peer, registry)
            peer.command(*self._push(peer, registry))
            yield self._case("push again", peer.name, self._push(peer, registry), peer, registry.forget)
        yield from self._push_archive("push again", registry)

    def _push_archive(self, verb: str, registry: Registry) -> Iterator[Case]:
        """Let skopeo, which keeps nothing, push the archive itself."""
        target = f"docker://{registry.name('pushed')}"
        yield from self._skopeo(verb, f"docker-archive:{self.image}", target, registry.forget)

    def _push(self, peer: CommandLine, registry: Registry) -> list[str]:
        words = ["--tls-verify=false"] if peer.name == "podman" else []
        return [peer.program, "push", "-q", *words, registry.name("pushed")]

    def _load_anew(self, peer: CommandLine, registry: Registry) -> None:
        """Let an engine forget the image and what it knows of its layers, and load it."""
        remove(peer, registry.name("pushed"))()
        if peer.name == "sampan":
            peer.command(peer.program, "builder", "prune", "--all", "--force")
        peer.command(peer.program, "load", "-q", "-i", self.image)
        peer.command(peer.program, "tag", IMAGE, registry.name("pushed"))
        registry.forget()

    def pull(self, registry: Registry, pushed: str) -> Iterator[Case]:
        """Pull it into a store without it."""
        name = registry.name("kept")
        for peer in self.peers:
            yield self._case("pull", peer.name, self._pull(peer, name), peer, remove(peer, name, pushed))

    def pull_again(self, registry: Registry) -> Iterator[Case]:
        """Pull what is here whole."""
        name = registry.name("kept")
        for peer in self.peers:
            argv = self._pull(peer, name)
            yield self._case("pull again", peer.name, argv, peer, lambda: None)

    def pull_one_layer(self, registry: Registry) -> Iterator[Case]:
        """Pull an image of which all layers but one small one are here."""
        name = registry.name("more")
        for peer in self.peers:
            peer.command(*self._pull(peer, registry.name("kept")))
            yield self._case("pull of one layer", peer.name, self._pull(peer, name), peer, forget(peer, name))

    def _pull(self, peer: CommandLine, name: str) -> list[str]:
        words = ["--tls-verify=false"] if peer.name == "podman" else []
        return [peer.program, "pull", "-q", *words, name]

    def push_one_more(self, registry: Registry) -> None:
        """Put beside the image that the registry keeps one that stands on it, with one small layer more."""
        sampan = next(peer for peer in self.peers if peer.name == "sampan")
        directory = f"{self.top}/more"
        os.makedirs(directory, exist_ok=True)
        with open(f"{directory}/Dockerfile", "w", encoding="ascii") as file:
            file.write(f"FROM {registry.name('kept')}\nCOPY Dockerfile /more\n")
        sampan.command(sampan.program, "build", "-q", "--push", "-t", registry.name("more"), directory)
        forget(sampan, registry.name("more"))()


def forget(peer: CommandLine, name: str) -> Callable[[], None]:
    """Return what takes a name away from an image, and with its last name the image."""

    def run() -> None:
        env = {**os.environ, **peer.env}
        subprocess.run([peer.program, "rmi", name], env=env, capture_output=True, check=False)

    return run


@contextmanager
def registries(stage: Stage) -> Iterator[list[Registry]]:
    """Run two registries: one that keeps the image, one to push to; end them."""
    made: list[Registry] = []
    try:
        for name in ("kept", "pushed"):
            made.append(Registry(stage.top, name))
        yield made
    finally:
        for server in made:
            server.close()


def with_registries(stage: Stage, moves: Moves, runs: int, missing: dict[str, str]) -> list[str]:
    """Measure what needs registries; say why not where they are missing."""
    try:
        need("skopeo", "--version")
        with registries(stage) as (kept, pushed):
            target = f"docker://{kept.name('kept')}"
            words = ["--quiet", "--dest-tls-verify=false", f"docker-archive:{moves.image}", target]
            subprocess.run(["skopeo", "--insecure-policy", "copy", *words], check=True, capture_output=True)
            push = measure(list(moves.push(pushed)), runs, ("loop",), warm=1, row=1)
            repush = measure(list(moves.push_again(pushed)), runs, ("loop",), warm=1, row=1)
            pull = measure(list(moves.pull(kept, pushed.name("pushed"))), runs, ("loop",), warm=1, row=1)
            again = measure(list(moves.pull_again(kept)), runs * 4, ("loop",), warm=1, row=1)
            moves.push_one_more(kept)
            shared = measure(list(moves.pull_one_layer(kept)), runs * 4, ("loop",), warm=1, row=1)
    except RuntimeError as exc:
        return [f"push and pull are not measured: docker-registry or skopeo: {exc}"]
    titles = ("push: loaded, never pushed before", push), ("push again: the registry has lost it", repush)
    titles += ("pull", pull), ("pull again: all of it is here", again)
    titles += (("pull of one layer: all others are here", shared),)
    return [table(title, results, "sampan", missing) for title, results in titles]


def report(stage: Stage) -> str:
    """Measure and return the tables."""
    sampan = stage.peers.get("sampan")
    if not isinstance(sampan, CommandLine):
        return "moving images: sampan is not measured"
    image = archive(sampan, stage.top)
    runs = min(stage.runs, MOST_RUNS)
    timed = Timed()
    moves = Moves(stage, image, timed)
    missing = stage.without(NAMES)
    lines = [f"moving an image of {os.path.getsize(image) / 1e6:.0f} MB"]
    for verb, cases in (("load", moves.load), ("save", moves.save)):
        lines.append(table(verb, measure(list(cases()), runs, ("loop",), warm=1, row=1), "sampan", missing))
    lines += with_registries(stage, moves, runs, missing)
    lines.append("peak memory of the command's process, processor time of all of it (docker: with its daemon), median")
    lines.append(timed.table())
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(alone(report, NAMES, __doc__))
