"""The engines that sampan is measured against: each knows its version, its set-up, and the command that runs `true`.

Every peer keeps its state below the directory that it is given (a private store, a private daemon), and `close` ends
only what this module started. A peer that is not there, or does not work on this host, says why in `missing`.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from harness import version_of

IMAGE = "sampan-bench"
CHECKOUT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
DOCKERD_FLAGS = ("--iptables=false", "--ip6tables=false", "--bridge=none")


@dataclass
class Peer:
    """One engine, ready to run `IMAGE`."""

    name: str
    version: str
    env: dict[str, str] = field(default_factory=dict)
    top: str = ""

    def run(self, argv: Sequence[str]) -> list[str]:
        """Return the command that runs `argv` in a new container without network and removes it."""
        raise NotImplementedError

    def close(self) -> None:
        """End what this peer started."""

    def command(self, *argv: str) -> subprocess.CompletedProcess[str]:
        """Run one of the peer's own commands, and raise with its words if it fails."""
        done = subprocess.run(argv, env={**os.environ, **self.env}, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{' '.join(argv)}: {(done.stderr or done.stdout).strip()[-400:]}")
        return done


class CommandLine(Peer):
    """An engine that speaks Docker's words."""

    program = ""
    run_flags: tuple[str, ...] = ()

    def run(self, argv: Sequence[str]) -> list[str]:
        """See Peer.run."""
        return [self.program, "run", "--rm", "--network", "none", *self.run_flags, IMAGE, *argv]

    def create(self, name: str, argv: Sequence[str]) -> None:
        """Create a container that `start` can start."""
        self.command(self.program, "create", "--name", name, "--network", "none", *self.run_flags, IMAGE, *argv)

    def detached(self, name: str, argv: Sequence[str]) -> list[str]:
        """Return the command that leaves a container of this name running."""
        return [self.program, "run", "-d", "--name", name, "--network", "none", *self.run_flags, IMAGE, *argv]

    def build(self, context: str) -> list[str]:
        """Return the command that builds a directory."""
        return [self.program, "build", "--network", "none", "-t", "sampan-bench-built", context]


class Sampan(CommandLine):
    """The engine itself, with a store of its own."""

    def __init__(self, top: str, rootfs_tar: str) -> None:
        self.program = os.environ.get("SAMPAN") or os.path.join(CHECKOUT, "bin", "sampan")
        self.root = f"{top}/sampan"
        super().__init__("sampan", version_of([self.program, "--version"]), {"SAMPAN_ROOT": self.root}, top)
        self.command(self.program, "import", rootfs_tar, IMAGE)


class Podman(CommandLine):
    """podman, with its store below `top` and the cgroupfs manager (there need be no systemd here)."""

    program = "podman"
    run_flags = ("--pull", "never")

    def __init__(self, top: str, rootfs_tar: str) -> None:
        super().__init__("podman", need("podman", "--version"), podman_env(top), top)
        self.command("podman", "import", "--quiet", rootfs_tar, IMAGE)

    def build(self, context: str) -> list[str]:
        """See CommandLine.build."""
        return [*super().build(context)[:2], "--layers", "--pull-never", *super().build(context)[2:]]

    def close(self) -> None:
        """Remove the containers, so that nothing of theirs stays mounted or running."""
        self.command("podman", "rm", "--all", "--force", "--time", "1")


class Docker(CommandLine):
    """docker, with a daemon of our own below `top`; builds with its classic builder, which needs no other parts."""

    program = "docker"

    def __init__(self, top: str, rootfs_tar: str) -> None:
        client, daemon = need("docker", "--version"), need("dockerd", "--version")
        if os.getuid():
            raise RuntimeError("dockerd needs root")
        env = {"DOCKER_HOST": f"unix://{top}/docker.sock", "DOCKER_CONFIG": f"{top}/docker-config"}
        env["DOCKER_BUILDKIT"] = "0"
        super().__init__("docker", f"{client}; daemon {daemon}", env, top)
        self.daemon = start_dockerd(top)
        try:
            self.wait_ready()
            self.command("docker", "import", rootfs_tar, IMAGE)
        except RuntimeError:
            self.close()
            raise

    def wait_ready(self) -> None:
        """Wait until the daemon answers, or raise with the end of its log."""
        env = {**os.environ, **self.env}
        for _ in range(120):
            answer = subprocess.run(["docker", "info"], env=env, capture_output=True, check=False)
            if answer.returncode == 0:
                return
            if self.daemon.poll() is not None:
                break
            time.sleep(0.25)
        with open(f"{self.top}/dockerd.log", encoding="utf-8", errors="replace") as log:
            raise RuntimeError(f"dockerd does not answer: {log.read()[-400:]}")

    def close(self) -> None:
        """Ask the daemon to end, and wait: it stops its containers and its own containerd, and unmounts."""
        if self.daemon.poll() is None:
            self.daemon.send_signal(signal.SIGTERM)
            self.daemon.wait(timeout=60)


class Runtime(Peer):
    """crun or runc on a bundle that it would call its default, made once: the floor that the engines above stand on."""

    def __init__(self, program: str, top: str, rootfs_tar: str) -> None:
        super().__init__(program, need(program, "--version"), {}, top)
        self.bundle = f"{top}/bundle-{program}"
        self.state = f"{top}/state-{program}"
        os.makedirs(self.state)
        unpack(rootfs_tar, f"{self.bundle}/rootfs")
        subprocess.run([program, "spec"], cwd=self.bundle, check=True)

    def run(self, argv: Sequence[str]) -> list[str]:
        """See Peer.run."""
        self.configure(argv)
        return [*self.words, "run", "--bundle", self.bundle, f"bench-{self.name}"]

    @property
    def words(self) -> list[str]:
        """The words that every command begins with."""
        return [self.name, "--root", self.state]

    def start(self, argv: Sequence[str]) -> None:
        """Leave a container running."""
        self.configure(argv)
        words = [*self.words, "run", "--detach", "--bundle", self.bundle, f"bench-{self.name}"]
        null = subprocess.DEVNULL
        subprocess.run(words, stdin=null, stdout=null, stderr=null, check=True)

    def exec(self, argv: Sequence[str]) -> list[str]:
        """Return the command that runs `argv` in what `start` left running."""
        return [*self.words, "exec", f"bench-{self.name}", *argv]

    def stop(self) -> None:
        """End what `start` left running."""
        self.command(*self.words, "delete", "--force", f"bench-{self.name}")

    def configure(self, argv: Sequence[str]) -> None:
        """Write the bundle's configuration."""
        path = f"{self.bundle}/config.json"
        with open(path, encoding="utf-8") as file:
            spec = json.load(file)
        spec["process"]["terminal"] = False
        spec["process"]["args"] = list(argv)
        with open(path, "w", encoding="utf-8") as file:
            json.dump(spec, file)


class Bwrap(Peer):
    """bubblewrap on a plain directory: namespaces only (no image, cgroup, seccomp profile or writable layer)."""

    def __init__(self, top: str, rootfs_tar: str) -> None:
        super().__init__("bwrap", need("bwrap", "--version"), {}, top)
        self.rootfs = f"{top}/bwrap-rootfs"
        unpack(rootfs_tar, self.rootfs)

    def run(self, argv: Sequence[str]) -> list[str]:
        """See Peer.run."""
        root = ["--ro-bind", self.rootfs, "/", "--proc", "/proc", "--dev", "/dev"]
        return ["bwrap", "--unshare-all", "--die-with-parent", *root, *argv]


def need(program: str, flag: str) -> str:
    """Return the version of a program, or raise that it is not installed."""
    if not shutil.which(program):
        raise RuntimeError("not installed")
    return version_of([program, flag])


def unpack(rootfs_tar: str, target: str) -> None:
    """Unpack a trusted root file system with tar(1)."""
    os.makedirs(target)
    subprocess.run(["tar", "-xf", rootfs_tar, "-C", target], check=True)


def podman_env(top: str) -> dict[str, str]:
    """Write podman's configuration below `top` and return the environment that selects it."""
    if os.getuid():
        raise RuntimeError("measured as root only")
    for name in ("podman-store", "podman-run", "podman-tmp"):
        os.makedirs(f"{top}/{name}")
    with open(f"{top}/storage.conf", "w", encoding="utf-8") as file:
        file.write(f'[storage]\ndriver = "overlay"\ngraphroot = "{top}/podman-store"\nrunroot = "{top}/podman-run"\n')
    with open(f"{top}/containers.conf", "w", encoding="utf-8") as file:
        # Its default of 1048576 open files is above the hard limit of many hosts.
        file.write('[containers]\ndefault_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]\n')
        file.write(f'[engine]\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\ntmp_dir = "{top}/podman-tmp"\n')
    return {"CONTAINERS_STORAGE_CONF": f"{top}/storage.conf", "CONTAINERS_CONF": f"{top}/containers.conf"}


def start_dockerd(top: str) -> subprocess.Popen[bytes]:
    """Start a daemon whose data, state, socket and process id file all lie below `top`."""
    argv = ["dockerd", "--host", f"unix://{top}/docker.sock", "--data-root", f"{top}/docker-data"]
    argv += ["--exec-root", f"{top}/docker-exec", "--pidfile", f"{top}/dockerd.pid", *DOCKERD_FLAGS]
    with open(f"{top}/dockerd.log", "wb") as log:
        return subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)


KINDS = {"sampan": Sampan, "podman": Podman, "docker": Docker, "bwrap": Bwrap}


def open_peers(names: Sequence[str], top: str, rootfs_tar: str) -> tuple[list[Peer], dict[str, str]]:
    """Set up the peers asked for; return those that work and, for the others, why not."""
    ready: list[Peer] = []
    missing: dict[str, str] = {}
    for name in names:
        try:
            ready.append(KINDS[name](top, rootfs_tar) if name in KINDS else Runtime(name, top, rootfs_tar))
        except (RuntimeError, OSError, subprocess.SubprocessError) as exc:
            missing[name] = " ".join(str(exc).split())
    return ready, missing


def close_peers(peers: Sequence[Peer]) -> None:
    """End all that was started."""
    for peer in peers:
        peer.close()
