"""Make small ELF files for tests: a dynamic section with names, 64 or 32 bits, little-endian."""

from __future__ import annotations

import struct

MACHINES = {64: 62, 32: 3}
TAGS = {"needed": 1, "rpath": 15, "runpath": 29}


def make_elf(
    needed: list[str] | None = None, *, rpath: str = "", runpath: str = "", interpreter: str = "", bits: int = 64
) -> bytes:
    """Return the bytes of an ELF file with program headers LOAD, DYNAMIC and, where wanted, INTERP."""
    strings = b"\0"
    dynamic: list[tuple[int, int]] = []
    names = [("needed", name) for name in needed or []]
    names += [(tag, value) for tag, value in (("rpath", rpath), ("runpath", runpath)) if value]
    for tag, value in names:
        dynamic.append((TAGS[tag], len(strings)))
        strings += value.encode() + b"\0"
    header_size, segment_size, pair = (64, 56, "<qQ") if bits == 64 else (52, 32, "<iI")
    count = 3 if interpreter else 2
    start = header_size + segment_size * count
    base = 0x1000
    interp = interpreter.encode() + b"\0" if interpreter else b""
    dynamic += [(5, base + start + len(interp)), (10, len(strings)), (0, 0)]
    table = b"".join(struct.pack(pair, *entry) for entry in dynamic)
    total = start + len(interp) + len(strings) + len(table)
    segments = [(1, 0, base, total), (2, total - len(table), base + total - len(table), len(table))]
    if interpreter:
        segments.append((3, start, base + start, len(interp)))
    ident = b"\x7fELF" + bytes([2 if bits == 64 else 1, 1, 1]) + bytes(9)
    words = "QQQ" if bits == 64 else "III"
    fields = (3, MACHINES[bits], 1, 0, header_size, 0, 0, header_size, segment_size, count, 0, 0, 0)
    head = ident + struct.pack(f"<HHI{words}IHHHHHH", *fields)
    body = b"".join(_segment(bits, *segment) for segment in segments)
    return head + body + interp + strings + table


def _segment(bits: int, kind: int, offset: int, address: int, size: int) -> bytes:
    if bits == 64:
        return struct.pack("<IIQQQQQQ", kind, 4, offset, address, address, size, size, 8)
    return struct.pack("<IIIIIIII", kind, offset, address, address, size, size, 4, 4)
