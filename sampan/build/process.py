"""A step's process: its specification, its standard streams, and its end.

It gets what `run` gives a container: the same namespaces, capabilities, filter and masks. Its standard input is
empty; what it writes arrives in pieces as it comes. When its first process ends, everything that it left running ends
with its PID namespace.
"""

from __future__ import annotations

import os
import select

from sampan.build.running import SCRIPT
from sampan.oci import spec as specs
from sampan.runtime import launch
from sampan.runtime import plan as p

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from sampan.build.execute import Host, Starter
    from sampan.build.running import Process
    from sampan.runtime.compile import Facts
    from sampan.runtime.launch import Child, Exit

    Output = Callable[[int, bytes], None]

_PIECE = 1 << 16


def specification(process: Process, script: str, rootless: bool) -> dict[str, Any]:
    """Give the OCI runtime configuration of a step; `script` is where its script lies on the host."""
    options = specs.RunOptions(command=process.args, entrypoint=[""], network=process.network, hostname="build")
    for name, value in process.limits.items():
        setattr(options, name, value)
    if script:
        options.mounts.append(("bind", script, SCRIPT, ["ro"]))
    config = {"Env": process.env, "User": process.user, "WorkingDir": process.cwd}
    return specs.config_for({"config": config}, options, rootless=rootless)


def run(starter: Starter, host: Host, spec: dict[str, Any], facts: Facts, output: Output) -> tuple[Exit, list[str]]:
    """Run a process until it and everything that it started has ended; give how, and warnings about this host."""
    facts.stdio = p.PASS_IN | p.PASS_OUT | p.PASS_ERR
    prepared = starter.prepare(spec, facts, host, f"build-{os.urandom(8).hex()}")
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    out_read, out_write = os.pipe()
    err_read, err_write = os.pipe()
    try:
        try:
            child = starter.start(prepared, null, out_write, err_write)
        finally:
            for fd in (null, out_write, err_write):
                os.close(fd)
        return _follow(child, {out_read: 1, err_read: 2}, output), prepared.warnings + child.warnings
    finally:
        os.close(out_read)
        os.close(err_read)
        _remove_group(prepared.placement)


def _follow(child: Child, streams: dict[int, int], output: Output) -> Exit:
    try:
        poll = select.poll()
        for fd in streams:
            poll.register(fd, select.POLLIN)
        left = len(streams)
        while left:
            for fd, _ in poll.poll():
                data = os.read(fd, _PIECE)
                if data:
                    output(streams[fd], data)
                else:
                    poll.unregister(fd)
                    left -= 1
        return child.wait()
    except BaseException:
        end(child)
        raise


def _remove_group(placement: Any) -> None:
    from sampan.runtime import cgroup

    cgroup.remove(placement)


def end(child: Child) -> None:
    """End a helper that is not wanted any more, and wait until nothing of it is left that could still write."""
    child.close()
    launch.settle()
