"""Durations, ports, signals, sizes and mounts."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

import sampan
from sampan.dockerfile import values
from sampan.dockerfile.located import Fault
from sampan.dockerfile.mounts import parse_mount


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        *(("0", 0), ("+0", 0), ("1ns", 1), ("1us", 1000), ("1µs", 1000), ("1μs", 1000), ("1ms", 10**6)),
        *(("1s", 10**9), ("1.5s", 15 * 10**8), (".5s", 5 * 10**8), ("1.s", 10**9), ("1m30s", 90 * 10**9)),
        *(("2h", 7200 * 10**9), ("-1s", -(10**9)), ("+5s", 5 * 10**9), ("1h1h", 7200 * 10**9)),
    ],
)
def test_durations(text: str, expected: int) -> None:
    assert values.duration(text) == expected


@pytest.mark.parametrize("text", ["", "1", "s", ".s", "1x", "1 s", "1s ", "--1s", "-", "1..5s", "٣s", "9999999h", "1d"])
def test_bad_durations(text: str) -> None:
    with pytest.raises(ValueError, match="invalid duration"):
        values.duration(text)


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("80", ["80/tcp"]),
        ("80/tcp", ["80/tcp"]),
        ("53/UDP", ["53/udp"]),
        ("1/sctp", ["1/sctp"]),
        ("8000-8002", ["8000/tcp", "8001/tcp", "8002/tcp"]),
        ("5-5/udp", ["5/udp"]),
        ("8080:80", ["80/tcp"]),
        ("127.0.0.1:8080:81", ["81/tcp"]),
    ],
)
def test_ports(word: str, expected: list[str]) -> None:
    assert values.ports(word) == expected


@pytest.mark.parametrize("word", ["", "x", "80/", "80/x", "-1", "65536", "2-1", "1-", "-", "80/tcp/udp", "８０", "1-x"])
def test_bad_ports(word: str) -> None:
    with pytest.raises(ValueError, match="cannot expose"):
        values.ports(word)


@pytest.mark.parametrize("text", ["9", "64", "TERM", "SIGTERM", "sigkill", "RTMIN", "RTMIN+3", "SIGRTMAX-14", "usr1"])
def test_signals(text: str) -> None:
    values.check_signal(text)


@pytest.mark.parametrize(
    "text", ["", "0", "65", "999999", "NOPE", "_IGN", "SIG", "-9", "RTMIN+", "RTMIN+99", "RTMIN-1"]
)
def test_bad_signals(text: str) -> None:
    with pytest.raises(ValueError, match="invalid signal"):
        values.check_signal(text)


def test_sizes_modes_and_booleans() -> None:
    assert values.size("64m") == values.size("64MiB") == values.size("64 MB") == 64 << 20
    assert values.size("1.5k") == 1536
    assert values.size("12") == 12
    assert values.natural("0755", 8) == 0o755
    assert values.boolean("True") and values.boolean("1") and not values.boolean("f")
    for function, text in (
        (values.size, "x"),
        (values.size, ""),
        (values.size, "1.m"),
        (values.size, "m"),
        (values.natural, "-1"),
        (values.natural, "4294967296"),
        (values.boolean, "yes"),
    ):
        with pytest.raises(ValueError, match="invalid"):
            function(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("target=/x", {"type": "bind", "target": "/x", "readonly": True}),
        ("target=/x,rw", {"type": "bind", "target": "/x", "readonly": False}),
        ("target=/x,rw=false", {"type": "bind", "target": "/x", "readonly": True}),
        ("target=/x,ro=false", {"type": "bind", "target": "/x", "readonly": False}),
        ("TYPE=Cache,dst=/x", {"type": "cache", "target": "/x", "readonly": False}),
        ("type=cache,dst=/x,ro", {"type": "cache", "target": "/x", "readonly": True}),
        ("type=cache,destination=/x,sharing=Private", {"type": "cache", "sharing": "private", "target": "/x"}),
        ("type=tmpfs,target=/x,size=1g", {"type": "tmpfs", "target": "/x", "size": 1 << 30}),
        ("type=secret,src=a", {"type": "secret", "source": "a", "readonly": True}),
        ("type=ssh,id=k,required=1,mode=600", {"type": "ssh", "id": "k", "required": True, "mode": 0o600}),
        ("source=$a,target=b${c}", {"type": "bind", "source": "$a", "target": "b${c}"}),
        ('"target=/a,b"', {"type": "bind", "target": "/a,b"}),
        ('"target=/a""b"', {"type": "bind", "target": '/a"b'}),
    ],
)
def test_mounts(text: str, expected: dict[str, object]) -> None:
    mount = parse_mount(text)
    assert {key: mount[key] for key in expected} == expected
    assert set(mount) == {*expected, "type", "readonly"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "unexpected key"),
        ("target", "must be a key=value pair"),
        ("type=volume", "unsupported mount type volume"),
        ("type=bind,size=1m", "unexpected key 'size' for mount type 'bind'"),
        ("type=bind,sharing=shared", "unexpected key 'sharing'"),
        ("type=bind,required", "unexpected key 'required'"),
        ("type=bind,mode=755", "unexpected key 'mode'"),
        ("type=cache,sharing=often,target=/x", "unsupported sharing value often"),
        ("type=cache,uid=x,target=/x", "uid of --mount"),
        ("type=cache,mode=9,target=/x", "mode of --mount"),
        ("type=tmpfs,size=x", "size of --mount"),
        ("target=/x,ro=maybe", "readonly of --mount"),
        ("type=secret", "one of id, source and target"),
        ("type=secret,id=a,source=b", "both source and id"),
        ("type=secret,id=a,from=b", "should not have a from"),
        ('"a', "not closed"),
        ('"a"b', "more than a comma"),
        ("target=/x,", "unexpected key"),
    ],
)
def test_bad_mounts(text: str, message: str) -> None:
    with pytest.raises(Fault, match=message):
        parse_mount(text)


def test_a_malformed_string_is_no_list_though_nothing_else_was_loaded() -> None:
    """In an interpreter without json.decoder the scanner of 3.11 fails in another way."""
    root = os.path.dirname(os.path.dirname(sampan.__file__))
    code = f"import sys; sys.path.insert(0, {root!r}); from sampan.dockerfile.forms import json_array\n"
    code += r"print([json_array(s) for s in ('[\"a\x1bb\"]', '[\"\\q\"]', '[\"a')], 'json.decoder' in sys.modules)"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True)
    assert done.stdout.startswith("[None, None, None] "), done.stderr
