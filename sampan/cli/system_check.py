"""sampan system check: whether the store is what it was."""

from __future__ import annotations

from sampan.cli import output
from sampan.cli.options import FLAG, Command, Option
from sampan.errors import counted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.options import Values
    from sampan.engine.checking import Fault
    from sampan.engine.engine import Engine

OPTIONS = Command(
    "system check",
    "Examine the store: database, blobs, every file of every unpacked layer. The exit code is 1 when a fault is left.",
    "",
    (
        Option("quick", "", FLAG, "Do not compare unpacked layers with their blobs"),
        Option("quiet", "q", FLAG, "Print faults only"),
        Option("repair", "", FLAG, "Mend what can be mended from the store itself"),
    ),
)


def run(engine: Engine, values: Values) -> int:
    """Examine, and print each fault as it is found."""
    from sampan.engine.checking import check

    checked, left = check(engine, repair=values.repair, quick=values.quick, tell=_tell)
    if not values.quiet:
        output.line(
            f"checked {counted(checked.blobs, 'blob')}, {counted(checked.layers, 'layer')}, "
            f"{counted(checked.containers, 'container')}, "
            f"{counted(checked.volumes, 'volume')}: " + (f"{counted(left, 'fault')} left" if left else "all is well")
        )
    return 1 if left else 0


def _tell(fault: Fault) -> None:
    users = f" (of {', '.join(fault.users)})" if fault.users else ""
    output.line(f"{fault.kind} {fault.what}{users}: {fault.why}")
    if fault.repaired:
        output.line(f"  repaired: {fault.repaired}")
    elif fault.hint:
        output.line(f"  hint: {fault.hint}")
