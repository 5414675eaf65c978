"""elf: what is read from sound files, and that hostile ones are refused within bounds."""

from __future__ import annotations

import random
import struct

import pytest
from elfmaker import make_elf

from sampan.bootstrap import elf
from sampan.errors import InvalidArgument


def parse(data: bytes) -> elf.Elf:
    return elf.parse(lambda offset, size: data[offset : offset + size])


@pytest.mark.parametrize("bits", [32, 64])
def test_reads_all_that_the_linker_needs(bits: int) -> None:
    data = make_elf(["libc.so.6", "libm.so"], runpath="$ORIGIN/../lib:/opt/lib", interpreter="/lib/ld.so", bits=bits)
    found = parse(data)
    assert found.needed == ["libc.so.6", "libm.so"]
    assert found.runpath == ["$ORIGIN/../lib", "/opt/lib"]
    assert found.rpath == []
    assert found.interpreter == "/lib/ld.so"
    assert found.kind == ({64: 62, 32: 3}[bits], bits)


def test_a_static_program_needs_nothing() -> None:
    found = parse(make_elf())
    assert (found.needed, found.interpreter) == ([], "")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x7fELF",
        b"#!/bin/sh\n" + bytes(100),
        b"\x7fELF\x07\x01\x01" + bytes(100),
        b"\x7fELF\x02\x09\x01" + bytes(100),
        make_elf(["a"])[:-40],
    ],
    ids=["empty", "magic only", "script", "class", "byte order", "cut off"],
)
def test_unsound_files_are_refused(data: bytes) -> None:
    with pytest.raises(InvalidArgument, match="cannot read file as ELF"):
        parse(data)


def test_huge_counts_and_offsets_are_refused_unread() -> None:
    asked: list[int] = []
    data = bytearray(make_elf(["liba.so"]))
    struct.pack_into("<H", data, 56, 0xFFFF)  # e_phnum

    def read(offset: int, size: int) -> bytes:
        asked.append(size)
        return bytes(data[offset : offset + size])

    with pytest.raises(InvalidArgument, match="program headers"):
        elf.parse(read)
    assert max(asked) < 100


def test_a_string_table_outside_of_the_file_is_refused() -> None:
    data = make_elf(["liba.so"])
    start = data.rindex(struct.pack("<q", elf.DT_STRTAB))
    broken = data[: start + 8] + struct.pack("<Q", 1 << 60) + data[start + 16 :]
    with pytest.raises(InvalidArgument, match="outside of every segment"):
        parse(broken)


def test_a_name_offset_outside_of_the_string_table_is_refused() -> None:
    data = make_elf(["liba.so"])
    start = data.rindex(struct.pack("<qQ", elf.DT_NEEDED, 1))
    broken = data[: start + 8] + struct.pack("<Q", 1 << 40) + data[start + 16 :]
    with pytest.raises(InvalidArgument, match="name without an end"):
        parse(broken)


def test_damaged_files_never_raise_anything_else() -> None:
    whole = make_elf(["liba.so", "libb.so"], rpath="/x", interpreter="/lib/ld.so")
    chance = random.Random(7)
    refused = 0
    for _ in range(3000):
        data = bytearray(whole)
        for _ in range(chance.randint(1, 6)):
            data[chance.randrange(len(data))] = chance.choice((0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)))
        try:
            parse(bytes(data[: chance.randint(0, len(data))] if chance.random() < 0.3 else data))
        except InvalidArgument:
            refused += 1
    assert 0 < refused < 3000
