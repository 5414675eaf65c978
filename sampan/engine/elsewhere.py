"""Says to type checkers what `Containers.__getattr__` finds (containers.py); nothing loads it."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Concatenate, Generic, ParamSpec, TypeVar

    from sampan.engine import (
        attach,
        committing,
        copying,
        differences,
        ending,
        execute,
        explain,
        exporting,
        inspect,
        launching,
        listing,
        logs,
        pausing,
        ports,
        removal,
        restarting,
        top,
        updating,
        usage,
    )
    from sampan.engine.engine import Engine

    Parameters = ParamSpec("Parameters")
    Given = TypeVar("Given")

    class _Of(Generic[Parameters, Given]):
        """A function of an engine, seen as a method of what has the engine."""

        def __init__(self, operation: Callable[Concatenate[Engine, Parameters], Given]) -> None: ...
        def __get__(self, instance: object, owner: object) -> Callable[Parameters, Given]: ...

    class Elsewhere:
        """What `Containers.__getattr__` finds."""

        attach = _Of(attach.attach)
        commit = _Of(committing.commit)
        copy_in = _Of(copying.copy_in)
        copy_out = _Of(copying.copy_out)
        read_archive = _Of(copying.read_archive)
        write_archive = _Of(copying.write_archive)
        diff = _Of(differences.diff)
        check_startable = _Of(ending.check_startable)
        kill = _Of(ending.kill)
        restart = _Of(ending.restart)
        stop = _Of(ending.stop)
        wait = _Of(ending.wait)
        exec = _Of(execute.exec)
        explain = _Of(explain.explain)
        export = _Of(exporting.export)
        inspect = _Of(inspect.inspect)
        create = _Of(launching.create)
        run = _Of(launching.run)
        start = _Of(launching.start)
        ls = _Of(listing.ls)
        logs = _Of(logs.logs)
        pause = _Of(pausing.pause)
        unpause = _Of(pausing.unpause)
        port = _Of(ports.port)
        remove = _Of(removal.remove)
        again = _Of(restarting.again)
        top = _Of(top.top)
        rename = _Of(updating.rename)
        update = _Of(updating.update)
        stats = _Of(usage.stats)
