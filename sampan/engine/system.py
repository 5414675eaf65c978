"""What `info` and `version` show."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.engine.engine import Engine


def version() -> dict[str, Any]:
    """Give the versions of sampan, Python and the kernel."""
    from sampan import __version__

    host = os.uname()
    return {
        "Version": __version__,
        "Python": ".".join(str(part) for part in sys.version_info[:3]),
        "KernelVersion": host.release,
        "Os": "linux",
        "Arch": {"x86_64": "amd64", "aarch64": "arm64"}.get(host.machine, host.machine),
    }


def info(engine: Engine) -> dict[str, Any]:
    """Describe the host and the store, with Docker's keys where they exist."""
    from sampan.runtime import cgroup

    rows = engine.containers.ls(all=True)
    states = [row["State"] for row in rows]
    host = os.uname()
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "ServerVersion": version()["Version"],
        "Containers": len(rows),
        "ContainersRunning": states.count("running"),
        "ContainersPaused": states.count("paused"),
        "ContainersStopped": len(rows) - states.count("running") - states.count("paused"),
        "Images": len(engine.images.ls()),
        "Driver": "overlay",
        "CgroupVersion": cgroup.detect().version,
        "KernelVersion": host.release,
        "OperatingSystem": _pretty_name(),
        "Architecture": host.machine,
        "NCPU": os.cpu_count(),
        "MemTotal": memory,
        "Name": host.nodename,
        "DockerRootDir": engine.store.paths.root,
        "RunDir": engine.store.paths.run,
        "SecurityOptions": ["name=seccomp,profile=default"] + (["name=rootless"] if engine.host.rootless else []),
        "Rootless": engine.host.rootless,
        "DefaultNetwork": "none",
    }


def _pretty_name() -> str:
    try:
        with open("/etc/os-release", encoding="utf-8") as file:
            for line in file:
                if line.startswith("PRETTY_NAME="):
                    return line.split("=", 1)[1].strip().strip('"')
    except OSError:
        return "Linux"
    return "Linux"
