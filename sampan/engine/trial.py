"""A container that is really started, for `doctor`: the plan of an ordinary `run`, in a directory of its own.

Its one program is the helper itself, which is static and ends with 125 when it is given no plan.
"""

from __future__ import annotations

import os
import time

from sampan.engine import starter
from sampan.engine.host import Host
from sampan.errors import SampanError, Unavailable
from sampan.oci import spec as specs
from sampan.oci.options import RunOptions
from sampan.runtime import launch
from sampan.runtime.compile import Facts
from sampan.store.paths import Paths

_PROGRAM = "trial"
_NO_PLAN = 125  # helper/main.c


def start(directory: str) -> int:
    """Start a container with Docker's defaults below an empty directory; give the microseconds that it took.

    The error that a `run` would give is raised; the caller removes the directory.
    """
    paths = Paths(directory)
    layer = f"{directory}/layer"
    for name in (layer, f"{directory}/upper", f"{directory}/work"):
        os.mkdir(name)
    with open(launch.helper_path(), "rb") as source, open(f"{layer}/{_PROGRAM}", "wb") as copy:
        copy.write(source.read())
        os.fchmod(copy.fileno(), 0o755)
    host = Host(paths)
    options = RunOptions()
    options.command = [f"/{_PROGRAM}"]
    container_id = os.urandom(32).hex()
    spec = specs.config_for({}, options, container_id=container_id, rootless=host.rootless)
    facts = Facts()
    facts.snapshots, facts.lowers, facts.upper, facts.work = directory, ["layer"], "upper", "work"
    facts.transient = True
    began = time.perf_counter_ns()
    prepared = starter.prepare(spec, facts, host, container_id)
    code = _run(prepared)
    if code != _NO_PLAN:
        raise Unavailable(f"the program of a trial container ended with {code}")
    return (time.perf_counter_ns() - began) // 1000


def _run(prepared: starter.Prepared) -> int:
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    try:
        return starter.start(prepared, null, null, null).wait().code
    finally:
        os.close(null)


def attempt(directory: str) -> tuple[int, SampanError | None]:
    """Start a trial container; give how long it took, or why it did not start."""
    try:
        return start(directory), None
    except SampanError as error:
        return 0, error
