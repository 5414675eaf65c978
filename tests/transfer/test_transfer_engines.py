"""The promise about other engines, kept with one: what sampan builds runs in podman, and comes back."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import sampan

NEEDS = "needs root and podman: its own store is set up below a temporary directory"
needs_podman = pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("podman"), reason=NEEDS)
# podman 4 does not know a hybrid hierarchy: the cgroup2 mount is taken away in a mount namespace of the test's own.
PRIVATE = 'umount /sys/fs/cgroup/unified 2>/dev/null; exec podman "$@"'
DOCKERFILE = """FROM base
COPY --chown=7:8 --chmod=640 data /srv/data
RUN mkdir /made && echo made > /made/file && rm /etc/os-release && ln -s file /made/link
ENV GREETING=hello
WORKDIR /made
CMD ["sh", "-c", "echo $GREETING; cat file; stat -c %u:%g:%a /srv/data; ls /etc/os-release || echo gone"]
"""
EXPECTED = "hello\nmade\n7:8:640\ngone\n"


class Podman:
    """podman with a store, a runtime directory and a configuration of its own."""

    def __init__(self, top: Path, run: str) -> None:
        self.top, self.run = top, run
        self.configuration = top / "containers.conf"
        self.configuration.write_text(
            '[engine]\ncgroup_manager="cgroupfs"\nevents_logger="file"\n'
            '[containers]\ndefault_ulimits=["nofile=4096:4096","nproc=4096:4096"]\n'
        )

    def __call__(self, *words: str) -> str:
        # podman refuses a run root of more than 50 characters.
        store = ["--root", f"{self.top}/root", "--runroot", self.run, "--storage-driver", "overlay"]
        command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", PRIVATE, "podman", *store, *words]
        env = {**os.environ, "CONTAINERS_CONF": str(self.configuration)}
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture
def podman(tmp_path: Path) -> Iterator[Podman]:
    with tempfile.TemporaryDirectory(prefix="sampan-podman-") as runs:
        yield Podman(tmp_path, runs)


def run(engine: sampan.Engine, image: str) -> str:
    result = engine.run(image)
    assert result.exit_code == 0, result
    return result.stdout.decode()


@needs_podman
def test_an_image_built_here_runs_the_same_under_podman_and_comes_back(tmp_path: Path, podman: Podman) -> None:
    context = tmp_path / "context"
    context.mkdir()
    (context / "Dockerfile").write_text(DOCKERFILE)
    (context / "data").write_text("x")
    engine = sampan.Engine(str(tmp_path / "store"))
    engine.bootstrap("host", "base", ["sh", "cat", "mkdir", "rm", "ln", "ls", "stat"])
    image_id = engine.build(str(context), tags=["exchange:1"])
    assert run(engine, "exchange:1") == EXPECTED
    archive = tmp_path / "image.tar"
    with archive.open("wb") as file:
        engine.images.save(["exchange:1"], file.fileno())
    podman("load", "--input", str(archive))
    assert podman("image", "inspect", "--format", "{{.Id}}", "exchange:1").strip() == image_id.removeprefix("sha256:")
    assert podman("run", "--rm", "--network", "none", "exchange:1") == EXPECTED
    for form in ("docker-archive", "oci-archive"):
        back = tmp_path / f"{form}.tar"
        podman("save", "--format", form, "--output", str(back), "exchange:1")
        other = sampan.Engine(str(tmp_path / f"store-{form}"))
        other.images.load(str(back))
        assert run(other, "exchange:1") == EXPECTED
        other.close()
    engine.close()
