"""Cache keys: what a step's result depends on, as one digest.

Pure. A key names the parent by its content (the diff_ids below), never by how it came to be or where it lies, so the
same key means the same result on every machine: no absolute host path, time, owner on the host or random number goes
in. Every field is written with its length, so that no two different lists of fields give the same bytes.
"""

from __future__ import annotations

import _struct

from sampan.oci import digest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    Field = str | bytes | int | None | Sequence["Field"] | dict[str, str]

VERSION = "sampan.step.1"
"""Part of every key: raise it when the meaning of a step changes, and older results are never found again."""


def encode(field: Field) -> bytes:
    """Write one field with its type and length; dictionaries in the order of their names."""
    if isinstance(field, str):
        return _framed(b"s", field.encode("utf-8", "surrogateescape"))
    if isinstance(field, bytes):
        return _framed(b"b", field)
    if isinstance(field, int):
        return _framed(b"i", b"%d" % field)
    if field is None:
        return b"n"
    if isinstance(field, dict):
        return _framed(b"d", b"".join(encode([name, field[name]]) for name in sorted(field)))
    return _framed(b"l", b"".join(encode(item) for item in field))


def _framed(kind: bytes, data: bytes) -> bytes:
    return kind + _struct.pack("<Q", len(data)) + data


def key(kind: str, *fields: Field) -> str:
    """Give the key of a step of this kind with these inputs."""
    return digest.sha256_hex(encode([VERSION, kind, *fields]))


def content(entries: Iterable[tuple[str, str, int, str]]) -> str:
    """Give the digest of copied entries: name, type letter, permission bits, and link text or file digest."""
    # One text for all: a call per entry would cost more than the stat that it stands for.
    rows = [
        f"{kind}{0 if kind == 'L' else mode:o} {len(name)} {len(text)} {name}{text}"
        for name, kind, mode, text in entries
    ]
    return digest.sha256_hex("\n".join(rows).encode("utf-8", "surrogateescape"))
