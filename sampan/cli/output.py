"""What commands print: tables, human sizes and times, identifiers, JSON and templates per row.

Sizes and tables look as Docker's, because scripts and eyes know them. Colour only on a terminal, and never when
NO_COLOR is set.
"""

from __future__ import annotations

import os
import sys
import time

from sampan.cli.lines import in_json
from sampan.cli.lines import line as line
from sampan.cli.lines import printable as printable
from sampan.cli.lines import write as write
from sampan.cli.main import flush as flush

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import IO, Any

_DECIMAL = ("B", "kB", "MB", "GB", "TB", "PB", "EB")
_BINARY = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")

# A column is at least this wide and this far from the next: the widths of Docker's tables.
_LEAST, _GAP = 10, 3


def table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lay out a table; the last column is not padded."""
    cells = [list(headers)] if headers else []
    cells += [[printable(cell) for cell in row] for row in rows]
    if not cells:
        return ""
    count = len(cells[0])
    widths = [max(_LEAST, max(len(row[i]) for row in cells) + _GAP) for i in range(count - 1)]
    lines = ["".join(f"{row[i]:{width}}" for i, width in enumerate(widths)) + row[count - 1] for row in cells]
    return "".join(text.rstrip() + "\n" for text in lines)


def rows(
    items: Sequence[Mapping[str, Any]],
    columns: Sequence[tuple[str, str]],
    headers: Mapping[str, Any],
    format: str = "",
) -> str:
    """Print items as `--format` asks: a table of (header, key) columns, `json`, `table TEMPLATE`, or a template."""
    if format in ("", "table"):
        return table([header for header, _ in columns], [[str(item[key]) for _, key in columns] for item in items])
    if format == "json":
        data = [{key: item[key] for key in sorted(item) if not callable(item[key])} for item in items]
        return "".join(json_text(item) + "\n" for item in data)
    from sampan.cli import template

    text = format.strip(" ").replace("\\t", "\t").replace("\\n", "\n")
    if format.startswith("table"):  # without a space too, and never after one: as Docker takes it
        parsed = template.parse(text.removeprefix("table").strip(" "))
        lines = [parsed.header(headers), *(parsed.render(item) for item in items)]
        body = [line.split("\t") for text in lines for line in text.split("\n")]
        width = max(len(row) for row in body)
        head, *body = [_fill(row, width) for row in body]
        return table(head, body)
    parsed = template.parse(text)
    ordered = ({key: item[key] for key in sorted(item)} for item in items)  # {{json .}}, as Docker's
    return "".join(printable(parsed.render(item), keep="\n\t") + "\n" for item in ordered)


def raw(items: Sequence[Mapping[str, Any]], names: Sequence[str], keys: Mapping[str, str] | None = None) -> str:
    """Print items as `--format raw` asks: a line `created_at: …` for each field, and an empty one after several.

    A name is that of a field in small letters, but for those in `keys`.
    """
    out = []
    for item in items:
        fields = ((keys or {}).get(name) or name.title().replace("_", "") for name in names)
        texts = [f"{name}: {item[field]}".rstrip(" ") for name, field in zip(names, fields, strict=True)]
        out.append("".join(printable(text) + "\n" for text in texts) + ("\n" if len(names) > 1 else ""))
    return "".join(out)


def _fill(row: list[str], width: int) -> list[str]:
    return row + [""] * (width - len(row))


def json_text(value: Any) -> str:
    """Return compact JSON."""
    from sampan.oci import jsontext

    return in_json(jsontext.dumps(value).decode("utf-8", "surrogateescape"))


def json_pretty(value: Any) -> str:
    """Return indented JSON, in the form that `docker inspect` prints."""
    return _pretty(value, "\n")


def _pretty(value: Any, newline: str) -> str:
    inner = newline + "    "
    if isinstance(value, dict) and value:
        parts = [f"{json_text(str(key))}: {_pretty(item, inner)}" for key, item in value.items()]
        return "{" + inner + ("," + inner).join(parts) + newline + "}"
    if isinstance(value, (list, tuple)) and value:
        return "[" + inner + ("," + inner).join(_pretty(item, inner) for item in value) + newline + "]"
    return json_text(list(value) if isinstance(value, tuple) else value)


def human_size(size: float) -> str:
    """Return a size in powers of 1000 with three significant digits: 1.23MB."""
    return _scaled(size, 1000.0, _DECIMAL, 3)


def human_bytes(size: float) -> str:
    """Return a size in powers of 1024 with four significant digits: 1.944GiB."""
    return _scaled(size, 1024.0, _BINARY, 4)


def _scaled(size: float, base: float, units: Sequence[str], digits: int) -> str:
    step = 0
    while step < len(units) - 1 and (size >= base or (step and float(f"{size:.{digits}g}") >= base)):
        size /= base
        step += 1
    text = f"{size:.{digits}g}"
    return (f"{size:.0f}" if "e" in text else text) + units[step]


def local_time(unix: float) -> str:
    """Return a time as Docker's CreatedAt shows it: `2026-03-01 12:00:00 +0100 CET`."""
    return time.strftime("%Y-%m-%d %H:%M:%S %z %Z", time.localtime(unix))


def short_id(identifier: str) -> str:
    """Return the twelve digits that tables show."""
    return identifier.removeprefix("sha256:")[:12]


def ellipsis(text: str, width: int) -> str:
    """Cut a text to a width, the last character then being an ellipsis."""
    return text if len(text) <= width else text[: width - 1] + "…"


def colour(stream: IO[str] | None = None) -> Callable[[str, str], str]:
    """Return paint(code, text), which colours only if the stream (standard error) is a terminal that wants it."""
    stream = stream or sys.stderr
    wanted = stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return (lambda code, text: f"\x1b[{code}m{text}\x1b[0m") if wanted else (lambda code, text: text)
