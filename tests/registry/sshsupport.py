"""A real ssh server on loopback for one test: keys of its own, and a PATH that has what the other host shall have."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from registrysupport import held_port

ROOT = Path(__file__).parents[2]
SSHD = shutil.which("sshd") or (shutil.which("sshd", path="/usr/sbin") or "")
MISSING = "" if SSHD and shutil.which("ssh") else "needs ssh and sshd (openssh-server)"


class Host:
    """The other host: `words` for SAMPAN_SSH, `address` for ssh://, `programs` to put on its PATH, its `store`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.held = held_port()
        self.port = self.held.getsockname()[1]
        self.address = f"ssh://127.0.0.1:{self.port}"
        self.programs = directory / "programs"
        self.store = directory / "store"
        self.log = directory / "log"
        key = directory / "key"
        self.words = (
            f"ssh -F /dev/null -i {key} -o IdentitiesOnly=yes -o BatchMode=yes -o LogLevel=ERROR"
            f" -o StrictHostKeyChecking=no -o UserKnownHostsFile={directory}/known"
        )

    def put(self, name: str, script: str) -> None:
        """Give the host a program."""
        path = self.programs / name
        path.write_text("#!/bin/sh\n" + script + "\n")
        path.chmod(0o755)

    def put_sampan(self) -> None:
        """Give it this sampan, with a store of its own."""
        self.put("sampan", f'PYTHONPATH={ROOT} exec {sys.executable} -m sampan --root {self.store} "$@"')


@contextmanager
def running(directory: Path) -> Iterator[Host]:
    """Start sshd, which accepts whoever runs the test."""
    directory.mkdir()
    host = Host(directory)
    host.programs.mkdir()
    for name in ("sh", "head", "sleep", "printf", "kill"):
        if found := shutil.which(name):
            (host.programs / name).symlink_to(found)
    for name in ("key", "hostkey"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(directory / name)], check=True)
    shutil.copy(directory / "key.pub", directory / "authorized")
    if os.geteuid() == 0:
        os.makedirs("/run/sshd", mode=0o755, exist_ok=True)  # the directory that Debian's sshd separates privileges in
    (directory / "config").write_text(
        f"Port {host.port}\nListenAddress 127.0.0.1\nHostKey {directory}/hostkey\nPidFile none\nUsePAM no\n"
        f"AuthorizedKeysFile {directory}/authorized\nStrictModes no\nPasswordAuthentication no\nPermitRootLogin yes\n"
        f"SetEnv PATH={host.programs}\n"
    )
    with open(host.log, "wb") as log:
        server = subprocess.Popen([SSHD, "-D", "-e", "-f", str(directory / "config")], stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 60
        while b"Server listening" not in host.log.read_bytes():
            assert server.poll() is None and time.monotonic() < deadline, host.log.read_text()
            time.sleep(0.02)
        yield host
    finally:
        server.terminate()
        server.wait(60)
        host.held.close()
