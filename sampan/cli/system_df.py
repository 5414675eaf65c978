"""sampan system df: how much disk the store takes, and whom each byte belongs to."""

from __future__ import annotations

import time

from sampan.cli import output
from sampan.cli.options import FLAG, Command, Option

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.cli.options import Values
    from sampan.engine.engine import Engine
    from sampan.engine.listing import Row
    from sampan.store.ledger import Line

OPTIONS = Command(
    "system df",
    "Show how much disk the store takes; with --verbose, whom every file of it belongs to.",
    "",
    (
        Option("format", help="Print each row with a Go template, `table TEMPLATE`, `json` or `raw`"),
        Option("verbose", "v", FLAG, "Show each image, container, volume and build cache entry, then every file"),
    ),
)

HEADERS = {
    "Type": "TYPE",
    "TotalCount": "TOTAL",
    "Active": "ACTIVE",
    "Size": "SIZE",
    "Reclaimable": "RECLAIMABLE",
}
RAW = ("type", "total", "active", "size", "reclaimable")


def run(engine: Engine, values: Values) -> int:
    """Print the summary, or all of it."""
    from sampan.engine import disk

    found = disk.lines(engine)
    if not values.verbose:
        rows = [_shown(row) for row in disk.summary(engine, found)]
        if values.format == "raw":
            output.write(output.raw(rows, RAW, {"total": "TotalCount"}))
            return 0
        output.write(output.rows(rows, [(title, key) for key, title in HEADERS.items()], HEADERS, values.format))
        return 0
    _images(disk.images(engine, found))
    _containers(engine.containers.ls(all=True), found)
    _volumes(found)
    _cache(disk.cache(engine, found))
    _files(found)
    return 0


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    size, free = row["Size"], row["Reclaimable"]
    text = output.human_size(free) + (f" ({free * 100 // size}%)" if size else "")
    return {**row, "Size": output.human_size(size), "Reclaimable": text}


def _section(title: str, headers: list[str], rows: list[list[str]]) -> None:
    output.write(f"{title}:\n\n{output.table(headers, rows)}\n")


def _images(rows: list[dict[str, Any]]) -> None:
    shown = [
        [row["Repository"], row["Tag"], output.short_id(row["ID"]), row["CreatedSince"]]
        + [output.human_size(row[key]) for key in ("Size", "SharedSize", "UniqueSize")]
        + [str(row["Containers"])]
        for row in rows
    ]
    headers = ["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE", "SHARED SIZE", "UNIQUE SIZE", "CONTAINERS"]
    _section("Images space usage", headers, shown)


def _containers(rows: list[Row], found: list[Line]) -> None:
    sizes = {line.key: line.size for line in found if line.kind == "container"}
    shown = [
        [output.short_id(row["ID"]), row["Image"], output.ellipsis(row["Command"], 20), row["LocalVolumes"]]
        + [output.human_size(sizes.get(row["ID"], 0)), row["RunningFor"], row["Status"], row["Names"]]
        for row in rows
    ]
    headers = ["CONTAINER ID", "IMAGE", "COMMAND", "LOCAL VOLUMES", "SIZE", "CREATED", "STATUS", "NAMES"]
    _section("Containers space usage", headers, shown)


def _volumes(found: list[Line]) -> None:
    shown = [
        [line.key, "0" if line.reclaimable else "1", output.human_size(line.size)]
        for line in found
        if line.kind == "volume"
    ]
    _section("Local Volumes space usage", ["VOLUME NAME", "LINKS", "SIZE"], shown)


def _cache(rows: list[dict[str, Any]]) -> None:
    from sampan.engine.inspect import age

    now = time.time_ns()
    shown = [
        [row["ID"], output.human_size(row["Size"])]
        + [age((now - row[key]) / 1e9) + " ago" for key in ("Created", "LastUsed")]
        + ["true" if row["Shared"] else "false"]
        for row in rows
    ]
    _section("Build cache usage", ["CACHE ID", "SIZE", "CREATED", "LAST USED", "SHARED"], shown)


def _files(found: list[Line]) -> None:
    shown = [
        [output.human_size(line.size), line.kind, line.path or ".", ", ".join(line.owners), _free(line)]
        for line in sorted(found, key=lambda line: -line.size)
    ]
    _section("Files of the store", ["SIZE", "KIND", "PATH", "OWNER", "RECLAIMABLE"], shown)


def _free(line: Line) -> str:
    return "yes" if line.reclaimable else ""
