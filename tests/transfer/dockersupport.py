"""Debian's docker with everything of its own: daemon, socket, data and state below one directory."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

# docker 20.10 does not know a hybrid hierarchy: the cgroup2 mount is taken away in a mount namespace of its own.
PRIVATE = 'umount /sys/fs/cgroup/unified 2>/dev/null; exec "$@"'
MISSING = "" if shutil.which("docker") and shutil.which("dockerd") else "docker (docker.io) is not installed"
NEEDS = MISSING or ("" if os.geteuid() == 0 else "a docker daemon needs root")


class Docker:
    """A daemon that runs within a `with` block; calling it is calling its client."""

    def __init__(self, top: Path) -> None:
        self.top = top
        # A socket's path has at most 107 bytes, a test's directory may have more.
        self.run = Path("/run", f"sampan-docker-{os.urandom(4).hex()}")
        self.run.mkdir(mode=0o700)
        self.env = {**os.environ, "DOCKER_HOST": f"unix://{self.run}/socket", "DOCKER_CONFIG": f"{top}/config"}
        self.env["DOCKER_BUILDKIT"] = "0"  # the classic builder needs no other program
        words = ["dockerd", "--host", f"unix://{self.run}/socket", "--data-root", f"{top}/data"]
        words += ["--exec-root", f"{self.run}/exec", "--pidfile", f"{self.run}/pid", "--storage-driver", "overlay2"]
        words += ["--iptables=false", "--ip6tables=false", "--bridge=none"]
        with open(f"{top}/log", "wb") as log:
            self.daemon = subprocess.Popen(
                ["unshare", "--mount", "--propagation", "private", "sh", "-c", PRIVATE, "sh", *words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def __enter__(self) -> Docker:
        try:
            self._wait_ready()
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def _wait_ready(self) -> None:
        deadline = time.monotonic() + 180
        while subprocess.run(["docker", "version"], env=self.env, capture_output=True, check=False).returncode:
            said = Path(self.top, "log").read_text(errors="replace")[-800:]
            assert self.daemon.poll() is None, said
            assert time.monotonic() < deadline, said
            time.sleep(0.1)

    def __call__(self, *words: str, input: bytes | None = None) -> str:
        done = subprocess.run(["docker", *words], env=self.env, capture_output=True, input=input, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.decode()

    def layers(self, image: str) -> list[str]:
        """The directories of an image's layers, lowest first."""
        data = json.loads(self("image", "inspect", "--format", "{{json .GraphDriver.Data}}", image))
        lower = data.get("LowerDir", "")
        return [*(lower.split(":")[::-1] if lower else []), data["UpperDir"]]

    def _close(self) -> None:
        """Ask it to end, and wait: it ends its containerd and unmounts."""
        if self.daemon.poll() is None:
            self.daemon.send_signal(signal.SIGTERM)
            self.daemon.wait(timeout=180)
        shutil.rmtree(self.run, ignore_errors=True)
