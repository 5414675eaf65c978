"""Real registries on loopback (Debian's docker-registry), and small images to move."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

needs_registry = pytest.mark.skipif(not shutil.which("docker-registry"), reason="needs docker-registry")
needs_skopeo = pytest.mark.skipif(not shutil.which("skopeo"), reason="needs skopeo")


def held_port() -> socket.socket:
    """A free port of loopback that the kernel gives to nobody else while this is open.

    A server that sets SO_REUSEADDR, as all do, may bind and listen beside a socket that has it too and does not listen.
    """
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind(("127.0.0.1", 0))
    return held


class Registry:
    """One running registry: `host` (with its port), `data` (its files) and `log`."""

    def __init__(self, directory: Path, port: int) -> None:
        self.directory = directory
        self.port = port
        self.host = f"127.0.0.1:{port}"
        self.data = directory / "data"
        self.log = directory / "log"

    def blobs(self) -> set[str]:
        """Digests of all blobs that it has."""
        top = self.data / "docker/registry/v2/blobs/sha256"
        return {"sha256:" + path.parent.name for path in top.glob("*/*/data")}

    def tags(self, repository: str) -> set[str]:
        top = self.data / "docker/registry/v2/repositories" / repository / "_manifests/tags"
        return {path.name for path in top.iterdir()} if top.exists() else set()


@contextmanager
def running(
    directory: Path,
    *,
    auth: str = "",
    tls: tuple[Path, Path] | None = None,
    client_ca: Path | None = None,
    extra: str = "",
) -> Iterator[Registry]:
    """Start docker-registry with an `auth` section (YAML, in one line) and perhaps TLS (certificate, key)."""
    directory.mkdir(parents=True, exist_ok=True)
    port = held_port()
    registry = Registry(directory, port.getsockname()[1])
    registry.data.mkdir()
    clients = f", clientcas: ['{client_ca}']" if client_ca else ""
    secure = f", tls: {{certificate: '{tls[0]}', key: '{tls[1]}'{clients}}}" if tls else ""
    lines = [
        "version: 0.1",
        "log: {level: info, accesslog: {disabled: false}}",
        f"storage: {{filesystem: {{rootdirectory: {registry.data}}}, delete: {{enabled: true}}}}",
        f"http: {{addr: '{registry.host}'{secure}}}",
        f"auth: {auth}" if auth else "",
        extra,
    ]
    (directory / "config.yml").write_text("\n".join(lines) + "\n")
    with open(registry.log, "wb") as log:
        env = {"PATH": os.environ.get("PATH", ""), "OTEL_TRACES_EXPORTER": "none"}
        process = subprocess.Popen(
            ["docker-registry", "serve", str(directory / "config.yml")], stdout=log, stderr=subprocess.STDOUT, env=env
        )
    try:
        _await(registry, process)
        yield registry
    finally:
        process.terminate()
        process.wait(60)
        port.close()


def _await(registry: Registry, process: subprocess.Popen[bytes]) -> None:
    for _ in range(3000):
        assert process.poll() is None, registry.log.read_text()
        try:
            socket.create_connection(("127.0.0.1", registry.port), 1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise AssertionError(registry.log.read_text())


def skopeo(*words: str) -> str:
    done = subprocess.run(["skopeo", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
