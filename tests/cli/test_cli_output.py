"""What commands print: Docker's tables, sizes and times; control characters never reach a terminal."""

from __future__ import annotations

import io
import json
import time
from typing import Any

import pytest

from sampan.cli import output, template


def test_table_has_dockers_column_widths() -> None:
    text = output.table(["CONTAINER ID", "IMAGE", "NAMES"], [["0123456789ab", "a", "web"]])
    assert text == "CONTAINER ID   IMAGE     NAMES\n0123456789ab   a         web\n"


def test_table_without_rows_shows_its_heading() -> None:
    assert output.table(["A", "B"], []) == "A         B\n"
    assert output.table([], []) == ""


def test_table_never_prints_control_characters_of_an_image() -> None:
    text = output.table(["A", "B"], [["\x1b[2J", "a\nb\x9b1m\u202e"]])
    assert "\x1b" not in text and "\x9b" not in text and "\u202e" not in text
    assert text.count("\n") == 2
    assert "\\x1b[2J" in text


def test_printable_keeps_what_is_asked_and_every_language() -> None:
    assert output.printable("äöü 舢板 😀") == "äöü 舢板 😀"
    assert output.printable("a\tb") == "a\tb"
    assert output.printable("a\nb") == "a\\nb"
    assert output.printable("a\nb", keep="\n") == "a\nb"


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0B"),
        (999, "999B"),
        (1000, "1kB"),
        (1234567, "1.23MB"),
        (12345, "12.3kB"),
        (999999, "1MB"),
        (7.8e9, "7.8GB"),
    ],
)
def test_sizes_are_decimal_with_three_digits(size: float, text: str) -> None:
    assert output.human_size(size) == text


@pytest.mark.parametrize(("size", "text"), [(0, "0B"), (1023, "1023B"), (1 << 20, "1MiB"), (2087354105, "1.944GiB")])
def test_memory_is_binary_with_four_digits(size: float, text: str) -> None:
    assert output.human_bytes(size) == text


def test_times_are_local(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    assert output.local_time(100) == "1970-01-01 00:01:40 +0000 UTC"


ITEMS = [{"ID": "abc", "Names": "web", "Zero": 0}, {"ID": "d", "Names": "a-long-name-here", "Zero": 0}]
COLUMNS = (("CONTAINER ID", "ID"), ("NAMES", "Names"))
HEADERS = {"ID": "CONTAINER ID", "Names": "NAMES"}


def printed(format: str) -> str:
    return output.rows(ITEMS, COLUMNS, HEADERS, format)


def test_rows_as_table_template_and_json() -> None:
    assert printed("").startswith("CONTAINER ID   NAMES\nabc ")
    assert printed("{{.Names}}") == "web\na-long-name-here\n"
    assert (
        printed(r"table {{.Names}}\t{{.ID}}")
        == "NAMES              CONTAINER ID\nweb                abc\na-long-name-here   d\n"
    )
    assert printed("table{{.Names}}") == printed("table   {{.Names}} ") == "NAMES\nweb\na-long-name-here\n"
    assert printed(" table {{.Names}}").startswith("table web\n")
    assert printed(r"table {{.Names}}\n{{.ID}}").startswith("NAMES\nCONTAINER ID\nweb\nabc\n")
    assert [json.loads(text)["ID"] for text in printed("json").splitlines()] == ["abc", "d"]


def test_pretty_json_is_json() -> None:
    value: Any = {"a": [], "b": [1, {"c": None}], "d": {}, "e": 'q"\n'}
    text = output.json_pretty(value)
    assert json.loads(text) == value
    assert '    "b": [\n        1,' in text


def test_short_identifiers_and_cut_texts() -> None:
    assert output.short_id("sha256:" + "a" * 64) == "a" * 12
    assert output.ellipsis("abcdef", 4) == "abc…"
    assert output.ellipsis("abcd", 4) == "abcd"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_colour_only_on_a_terminal_that_wants_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert output.colour(io.StringIO())("31", "x") == "x"
    assert output.colour(Terminal())("31", "x") == "\x1b[31mx\x1b[0m"
    monkeypatch.setenv("NO_COLOR", "1")
    assert output.colour(Terminal())("31", "x") == "x"


@pytest.mark.parametrize("letter", ["\x9b", "\x7f", "\x85", "\u202e", "\u2066", "\x1b", "\n"])
def test_json_never_steers_a_terminal_and_stays_json(letter: str) -> None:
    """RFC 8259 lets C1 controls and marks of direction stand in strings: a terminal obeys them all the same."""
    value = {f"key{letter}": [f"a{letter}b", "é", "日本"]}
    for text in (
        output.json_text(value),
        output.json_pretty(value).replace("\n", ""),
        template.parse("{{json .}}").render(value),
    ):
        assert letter not in text and "é" in text
        assert output.printable(text) == text and json.loads(text) == value


def test_raw_is_a_line_for_each_field_and_one_between() -> None:
    items = [{"ID": "a", "CreatedAt": "now", "Labels": ""}, {"ID": "b", "CreatedAt": "then\n", "Labels": "x=y"}]
    text = output.raw(items, ("container_id", "created_at", "labels"), {"container_id": "ID"})
    assert text == "container_id: a\ncreated_at: now\nlabels:\n\ncontainer_id: b\ncreated_at: then\\n\nlabels: x=y\n\n"
    assert output.raw(items, ("image_id",), {"image_id": "ID"}) == "image_id: a\nimage_id: b\n"
