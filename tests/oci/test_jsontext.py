"""jsontext against json: the same values, and refusal where json is too kind."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampan.errors import InvalidArgument
from sampan.oci import jsontext

ROOT = str(Path(__file__).parents[2])
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters())
)
values = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=30)


@given(values)
def test_what_is_dumped_loads_as_the_same_value_everywhere(value: Any) -> None:
    data = jsontext.dumps(value)
    assert jsontext.loads(data) == value == json.loads(data)


@given(values)
def test_dumps_is_json_compact_and_not_escaped(value: Any) -> None:
    expected = json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    try:
        encoded = expected.encode()
    except UnicodeEncodeError:
        encoded = json.dumps(value, separators=(",", ":"), sort_keys=True).encode()
    assert jsontext.dumps(value, sort_keys=True) == encoded


@given(values, st.sampled_from(["", " ", "\n\t", "\r\n"]), st.booleans())
def test_loads_reads_what_json_writes(value: Any, space: str, escape: bool) -> None:
    text = json.dumps(value, ensure_ascii=escape, indent=1)
    assert jsontext.loads(space + text + space) == value


@given(st.text(st.sampled_from('[]{}",:0123456789.eE+-tfnrualse\\ \n"x'), max_size=20) | st.text(max_size=10))
def test_loads_agrees_with_json_on_any_text(text: str) -> None:
    def refuse(name: str) -> None:
        raise ValueError(name)

    try:
        expected = json.loads(text, parse_constant=refuse)
    except ValueError:
        with pytest.raises(InvalidArgument):
            jsontext.loads(text)
        return
    if isinstance(expected, float) and math.isinf(expected):
        return
    try:
        assert jsontext.loads(text) == expected
    except InvalidArgument as exc:
        assert "out of range" in exc.message


@pytest.mark.parametrize("text", ["NaN", "[Infinity]", "-Infinity", "1e400", '{"size":-1e999}'])
def test_numbers_without_a_value_are_refused(text: str) -> None:
    json.loads(text)  # the control: json takes them
    with pytest.raises(InvalidArgument):
        jsontext.loads(text)


@pytest.mark.parametrize("text", ["[" * 200_000, '{"a":' * 200_000, "[" * 100_000 + "]" * 100_000])
def test_depth_bombs_are_the_authors_error(text: str) -> None:
    with pytest.raises(InvalidArgument):
        jsontext.loads(text)


def test_values_that_json_cannot_express_are_refused() -> None:
    loop: list[Any] = []
    loop.append(loop)
    for value in (math.nan, math.inf, object(), {(1,): 2}, b"x", loop, {1, 2}):
        with pytest.raises(InvalidArgument):
            jsontext.dumps(value)


@pytest.mark.parametrize(
    "data", [b"\xff", b"\xef\xbb\xbf1", "1".encode("utf-16"), b"", b" ", b"1 2", b'{"a":1,}', b"'a'"]
)
def test_malformed_documents_name_what_they_were(data: bytes) -> None:
    with pytest.raises(InvalidArgument, match="cannot read manifest"):
        jsontext.loads(data, "manifest")


def test_the_last_of_repeated_keys_counts() -> None:
    assert jsontext.loads(b'{"a":1,"a":2}') == {"a": 2}


def test_bytes_of_the_host_that_are_not_utf8_survive() -> None:
    name = b"\xff\xfe name".decode("utf-8", "surrogateescape")
    assert jsontext.loads(jsontext.dumps([name])) == [name]


@pytest.mark.parametrize(
    "broken", ["", "import _json; del _json.make_scanner", "import sys; sys.modules['_json'] = None"]
)
def test_errors_and_values_are_the_same_without_json_loaded_and_without_the_c_scanner(broken: str) -> None:
    code = f"""{broken}
import sys
sys.path.append({ROOT!r})
from sampan.oci import jsontext
from sampan.errors import InvalidArgument
{"" if broken else "assert 'json' not in sys.modules and 're' not in sys.modules"}
assert jsontext.loads(b' {{"a": [1, 2.5]}} ') == {{"a": [1, 2.5]}}
assert jsontext.dumps({{"b": "é", "a": 1}}, sort_keys=True) == '{{"a":1,"b":"é"}}'.encode()
for text in ('[1,', '"\\x01"', '{{"a" 1}}', 'NaN', '[' * 100000, '[1 2]', '"'):
    try:
        jsontext.loads(text)
    except InvalidArgument:
        continue
    raise AssertionError(text)
for value in (float('nan'), object()):
    try:
        jsontext.dumps(value)
    except InvalidArgument:
        continue
    raise AssertionError(value)
"""
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
