"""sampan search: look for images in a registry that offers it."""

from __future__ import annotations

from sampan.cli import output
from sampan.cli.options import FILTER, FLAG, INT, Command, Option
from sampan.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.cli.options import Values

NEEDS_ENGINE = False
OPTIONS = Command(
    "search",
    "Look for images: in Docker's index, or with a registry before the term (registry.example/term) in its catalog.",
    "TERM",
    (
        Option("filter", "f", FILTER, "Show those only that match: is-official=true, stars=N"),
        Option("format", help="Print each with a Go template, `table TEMPLATE` or `json`"),
        Option("limit", "", INT, "Most results", default=25),
        Option("no-trunc", "", FLAG, "Do not shorten descriptions"),
    ),
)
HEADERS = {"Name": "NAME", "Description": "DESCRIPTION", "StarCount": "STARS", "IsOfficial": "OFFICIAL"}


def run(engine: object, values: Values) -> int:
    """Print what was found."""
    from sampan.engine import registries

    if not 1 <= values.limit <= 100:
        raise InvalidArgument(f"limit {values.limit} is outside the range of 1 to 100")
    stars, official = _filters(values.filter)
    found = registries.search(values.args[0], values.limit)
    rows = [_row(one, values.no_trunc) for one in found if _stars(one) >= stars and official in (None, _official(one))]
    output.write(output.rows(rows, [(text, name) for name, text in HEADERS.items()], HEADERS, values.format))
    return 0


def _filters(words: list[str]) -> tuple[int, bool | None]:
    stars, official = 0, None
    for word in words:
        name, _, value = word.partition("=")
        if name == "stars" and value.isdecimal():
            stars = int(value)
        elif name == "is-official" and value in ("true", "false", "1", "0"):
            official = value in ("true", "1")
        else:
            raise InvalidArgument(
                f"cannot filter by {word!r}", "one of: stars=NUMBER, is-official=true, is-official=false"
            )
    return stars, official


def _stars(found: dict[str, Any]) -> int:
    value = found.get("star_count")
    return value if isinstance(value, int) else 0


def _official(found: dict[str, Any]) -> bool:
    return found.get("is_official") is True


def _row(found: dict[str, Any], whole: bool) -> dict[str, Any]:
    description = " ".join(str(found.get("description") or "").split())
    return {
        "Name": output.printable(found["name"]),
        "Description": output.printable(description if whole else output.ellipsis(description, 45)),
        "StarCount": _stars(found),
        "IsOfficial": "[OK]" if _official(found) else "",
    }
