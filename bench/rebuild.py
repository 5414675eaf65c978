"""Measure the build of a Dockerfile of seven steps in which nothing has changed: the wait of every edit-build-run
turn.
"""

from __future__ import annotations

import os
import sys

from harness import Case, measure, run_command, table
from peers import IMAGE, CommandLine
from stage import Stage, alone

NAMES = ("sampan", "podman", "docker")
FILES = 300
DOCKERFILE = f"""\
FROM {IMAGE}
ENV MODE=bench
WORKDIR /app
COPY needs.txt .
RUN cat needs.txt > /needs
COPY . .
RUN ls > /listing
CMD ["sh", "-c", "cat /listing"]
"""


def context(top: str) -> str:
    """Make a build context of a few hundred small files and return its path."""
    path = f"{top}/context"
    for number in range(FILES):
        directory = f"{path}/package{number % 10}"
        os.makedirs(directory, exist_ok=True)
        with open(f"{directory}/module{number}.py", "w", encoding="ascii") as file:
            file.write(f"VALUE = {number}\n" * 50)
    for name, text in (("needs.txt", "nothing\n"), ("Dockerfile", DOCKERFILE)):
        with open(f"{path}/{name}", "w", encoding="ascii") as file:
            file.write(text)
    return path


def report(stage: Stage) -> str:
    """Build once, then measure the same again, and return the table."""
    path = context(stage.top)
    cases = []
    missing = stage.without(NAMES)
    for peer in stage.peers.values():
        if isinstance(peer, CommandLine):
            case = Case(peer.name, peer.build(path), env=peer.env)
            try:
                run_command(case.argv, case.env)
                cases.append(case)
            except RuntimeError as exc:
                missing[peer.name] = f"first build failed: {' '.join(str(exc).split())}"
    title = f"rebuild of 7 unchanged steps, context of {FILES} files"
    return table(title, measure(cases, stage.runs), "sampan", missing)


if __name__ == "__main__":
    sys.exit(alone(report, NAMES, __doc__))
