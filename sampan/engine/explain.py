"""`run --explain`: what a run would do, in words and in order."""

from __future__ import annotations

import os

from sampan.engine import starter
from sampan.oci import spec as specs
from sampan.runtime import compile
from sampan.runtime import plan as p

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.engine.engine import Engine
    from sampan.oci.spec import RunOptions


def explain(engine: Engine, image: str, options: RunOptions) -> list[str]:
    """List the operations of a first start, after notes and limits; nothing is created."""
    found = engine.images.runnable(image)
    spec = specs.config_for(found.config, options, container_id="0" * 64)
    facts = compile.Facts()
    facts.snapshots = engine.store.paths.snapshots
    facts.lowers = engine.store.snapshots.lowers(found.diff_ids)
    facts.upper, facts.work = "UPPER", "WORK"
    facts.transient = True
    facts.target = os.path.join(engine.store.paths.run, "rootfs")
    facts.stdio = p.FOREGROUND
    notes = starter.fill(facts, spec, engine.host) + engine.host.notes
    limits = (spec["linux"].get("resources") or {}).items()
    words = [f"note: {note}" for note in notes]
    words += [f"limit {key}: {value}" for key, value in limits if key != "devices" and value]
    return words + compile.compile_run(spec, facts).explain()
