"""The commands that a power cut interrupts (power_cut.py), what they read, and what each acknowledges."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "transfer"), str(HERE.parent / "registry"), str(HERE.parent.parent), str(HERE)]

from transfersupport import config, docker_files, member, simple_layout, tar, tar_of  # noqa: E402


def big_layer(seed: int, files: int) -> bytes:
    """Give a layer of many small files, a larger one, a hard link and a sparse one."""
    chance = random.Random(seed)
    members = [member(f"data/{seed}", type=b"5", mode=0o755)]
    members += [member(f"data/{seed}/{n}", chance.randbytes(chance.randint(1, 6000))) for n in range(files)]
    members += [member(f"data/{seed}/large", chance.randbytes(600_000)), member(f"data/{seed}/holes", bytes(200_000))]
    members.append(member(f"data/{seed}/link", type=b"1", link=f"data/{seed}/large"))
    return tar(members)


COPIED = random.Random(4).randbytes(300_000)
PROGRAM = "#include <unistd.h>\nint main(void) { for (;;) pause(); }\n"


def runnable(directory: Path) -> bytes:
    """Give a layer of a program that waits, and of a directory for a volume to be filled with."""
    (directory / "wait.c").write_text(PROGRAM)
    subprocess.run(["cc", "-static", "-Os", "-s", "-o", f"{directory}/wait", f"{directory}/wait.c"], check=True)
    chance = random.Random(9)
    members = [member("wait", (directory / "wait").read_bytes(), mode=0o755), member("v", type=b"5", mode=0o755)]
    return tar(members + [member(f"v/{n}", chance.randbytes(chance.randint(1, 9000))) for n in range(40)])


class Work:
    """What the commands read: archives, a build context, and perhaps `pulled`, an image in a registry (`host`).

    With `new` the store is not there before the first of them.
    """

    def __init__(self, directory: Path, new: bool) -> None:
        self.directory = directory
        self.new = new
        self.pulled = self.host = ""
        layers = [big_layer(1, 200), big_layer(2, 60), big_layer(3, 20)]
        (directory / "app.tar").write_bytes(tar_of(docker_files(layers, ["app:1"], config(layers))))
        program = [runnable(directory)]
        started = config(program, config={"Cmd": ["/wait"]})
        (directory / "run.tar").write_bytes(tar_of(docker_files(program, ["run:1"], started)))
        base = simple_layout("docker.io/library/base:1", suffix="+gzip")
        (directory / "base.tar").write_bytes(tar_of(base.build()))
        (directory / "plain.tar").write_bytes(big_layer(7, 30))
        context = directory / "context"
        context.mkdir()
        (context / "Dockerfile").write_text("FROM app:1\nCOPY one /one\nCOPY two /two\n")
        (context / "one").write_bytes(COPIED)
        (context / "two").write_bytes(random.Random(5).randbytes(50_000))

    def push(self, host: str) -> None:
        """Give the registry an image of three compressed layers."""
        layers = [big_layer(11, 150), big_layer(12, 50), big_layer(13, 10)]
        self.host, self.pulled = host, f"{host}/team/pulled:1"
        path, store = self.directory / "pulled.tar", f"{self.directory}/pushing"
        path.write_bytes(tar_of(docker_files(layers, [self.pulled], config(layers))))
        sampan(["load", "-q", "-i", str(path)], store)
        sampan(["push", "-q", self.pulled], store)

    def before(self) -> list[tuple[list[str], dict[str, bool]]]:
        """Give what loads the images that the commands begin with."""
        return [(["load", "-q", "-i", f"{self.directory}/{name}.tar"], {f"{name}:1": True}) for name in ("base", "run")]

    def steps(self) -> list[tuple[list[str], dict[str, bool]]]:
        """Give the commands, each with what `present` says, or says no more, once it has exited with 0."""
        top = self.directory
        pull = [(["pull", "-q", self.pulled], {self.pulled: True})] if self.pulled else []
        login = [(["login", "-u", "someone", "-p", "word", self.host], {"login": True})] if self.host else []
        images = ("base:1", "run:1", "app:1", "built:1", "committed:1", *([self.pulled] if self.pulled else []))
        pruned = dict.fromkeys((*images, "container renamed", "renamed restarts always", "copied into renamed"), False)
        return [
            *(self.before() if self.new else []),
            (["load", "-q", "-i", f"{top}/app.tar"], {"app:1": True}),
            (["tag", "app:1", "other:1"], {"other:1": True}),
            (["build", "-q", "-t", "built:1", f"{top}/context"], {"built:1": True}),
            (["rmi", "other:1"], {"other:1": False}),
            (["import", f"{top}/plain.tar", "plain:1"], {"plain:1": True}),
            (["rmi", "plain:1"], {"plain:1": False}),
            *pull,
            (["create", "--name", "made", "-v", "named:/v", "run:1"], {"container made": True, "volume named": True}),
            (["run", "-d", "--name", "running", "run:1"], {"container running": True}),
            (["rename", "made", "renamed"], {"container made": False, "container renamed": True}),
            (["update", "--restart", "always", "renamed"], {"renamed restarts always": True}),
            (["cp", f"{top}/context/one", "renamed:/copied"], {"copied into renamed": True}),
            (["volume", "create", "empty"], {"volume empty": True}),
            *login,
            (["commit", "renamed", "committed:1"], {"committed:1": True}),
            (["rm", "-f", "running"], {"container running": False}),
            (["volume", "rm", "empty"], {"volume empty": False}),
            (["rmi", "built:1"], {"built:1": False}),
            (["builder", "prune", "-a", "-f"], {}),
            (["system", "prune", "-a", "-f"], pruned),
            (["volume", "rm", "named"], {"volume named": False}),
            (["system", "prune", "-a", "-f"], {}),  # the store is empty, and goes
            (["load", "-q", "-i", f"{top}/run.tar"], {"run:1": True}),
        ]


def sampan(arguments: list[str], root: str, preload: str = "") -> None:
    """Run one command to its end; raise with its words if it fails."""
    env = {
        **os.environ,
        "SAMPAN_ROOT": root,
        "SAMPAN_RUN": root.rstrip("/") + ".run",
        "HOME": f"{root}.home",
        "PYTHONPATH": str(HERE.parents[1]),
    }
    if preload:
        env["LD_PRELOAD"] = preload
    done = subprocess.run(
        [sys.executable, "-m", "sampan", *arguments], env=env, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{arguments}: exit {done.returncode}: {done.stderr[-400:]}")
