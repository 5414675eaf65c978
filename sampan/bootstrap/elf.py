"""Read what the dynamic linker needs to know of an ELF file: for which machine, which interpreter, which libraries,
found where.

Pure and bounded: bytes come through the caller's `read(offset, size)`, every count and length in the file is checked
against a limit before it is used, and what does not add up is InvalidArgument. Names follow the System V ABI (gABI
4.1, "Object Files").
"""

from __future__ import annotations

from struct import Struct, error

from sampan.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Read = Callable[[int, int], bytes]

MAGIC = b"\x7fELF"
PT_LOAD, PT_DYNAMIC, PT_INTERP = 1, 2, 3
DT_NULL, DT_NEEDED, DT_STRTAB, DT_STRSZ, DT_RPATH, DT_RUNPATH = 0, 1, 5, 10, 15, 29

# Real files stay far below: the kernel itself refuses program headers beyond 64 KiB (fs/binfmt_elf.c).
MAX_PROGRAM_HEADERS = 1024
MAX_DYNAMIC_BYTES = 1 << 18
MAX_STRINGS_BYTES = 1 << 24
MAX_NAME = 4096
MAX_NEEDED = 4096


class Elf:
    """What one file asks of the dynamic linker; `rpath` and `runpath` still have their `$` tokens."""

    __slots__ = ("bits", "interpreter", "machine", "needed", "rpath", "runpath")

    def __init__(self, machine: int, bits: int) -> None:
        self.machine = machine
        self.bits = bits
        self.interpreter = ""
        self.needed: list[str] = []
        self.rpath: list[str] = []
        self.runpath: list[str] = []

    @property
    def kind(self) -> tuple[int, int]:
        """Return machine and word size: only files of one kind can be linked together."""
        return self.machine, self.bits


class _Layout:
    """The field positions of one class (32 or 64 bits) and byte order."""

    __slots__ = ("bits", "dynamic", "header", "order", "segment")

    def __init__(self, bits: int, order: str) -> None:
        self.bits = bits
        self.order = order
        word = "Q" if bits == 64 else "I"
        # e_type e_machine e_version e_entry e_phoff e_shoff e_flags e_ehsize e_phentsize e_phnum
        self.header = Struct(f"{order}HHI{word * 3}IHHH")
        # 64: p_type p_flags p_offset p_vaddr p_paddr p_filesz ; 32: p_type p_offset p_vaddr p_paddr p_filesz
        self.segment = Struct(f"{order}IIQQQQ" if bits == 64 else f"{order}IIIII")
        self.dynamic = Struct(f"{order}{'qQ' if bits == 64 else 'iI'}")


def is_elf(head: bytes) -> bool:
    """Tell whether a file that begins with `head` is an ELF file."""
    return head.startswith(MAGIC)


def parse(read: Read, name: str = "file") -> Elf:
    """Return what the file behind `read` asks for; raise InvalidArgument if it is not a sound ELF file."""
    try:
        return _parse(read)
    except (error, ValueError, OverflowError) as exc:
        raise InvalidArgument(f"cannot read {name} as ELF: {exc}") from exc


def _parse(read: Read) -> Elf:
    ident = _exactly(read, 0, 16)
    if not is_elf(ident):
        raise ValueError("no ELF magic")
    bits, order = {1: 32, 2: 64}.get(ident[4]), {1: "<", 2: ">"}.get(ident[5])
    if bits is None or order is None:
        raise ValueError("unknown class or byte order")
    layout = _Layout(bits, order)
    fields = layout.header.unpack(_exactly(read, 16, layout.header.size))
    elf = Elf(fields[1], bits)
    segments = _segments(read, layout, offset=fields[4], size=fields[8], count=fields[9])
    loads = [segment[1:] for segment in segments if segment[0] == PT_LOAD]
    for kind, offset, _, length in segments:
        if kind == PT_INTERP:
            elf.interpreter = _interpreter(read, offset, length)
        elif kind == PT_DYNAMIC:
            _dynamic(read, layout, elf, offset, length, loads)
    return elf


def _segments(read: Read, layout: _Layout, *, offset: int, size: int, count: int) -> list[tuple[int, int, int, int]]:
    """Return (type, file offset, address, length in the file) of each program header."""
    if count == 0:
        return []
    if count > MAX_PROGRAM_HEADERS or size < layout.segment.size or size > MAX_NAME:
        raise ValueError(f"{count} program headers of {size} bytes")
    table = _exactly(read, offset, size * count)
    result = []
    for index in range(count):
        fields = layout.segment.unpack_from(table, index * size)
        if layout.bits == 64:
            result.append((fields[0], fields[2], fields[3], fields[5]))
        else:
            result.append((fields[0], fields[1], fields[2], fields[4]))
    return result


def _interpreter(read: Read, offset: int, length: int) -> str:
    if not 2 <= length <= MAX_NAME:
        raise ValueError(f"interpreter name of {length} bytes")
    return _text(_exactly(read, offset, length), 0)


def _dynamic(
    read: Read, layout: _Layout, elf: Elf, offset: int, length: int, loads: list[tuple[int, int, int]]
) -> None:
    """Fill in the needed libraries and search paths of the dynamic section."""
    if length > MAX_DYNAMIC_BYTES:
        raise ValueError(f"dynamic section of {length} bytes")
    table = _exactly(read, offset, length - length % layout.dynamic.size)
    values: list[tuple[int, int]] = []
    address = size = 0
    for tag, value in layout.dynamic.iter_unpack(table):
        if tag == DT_NULL:
            break
        if tag == DT_STRTAB:
            address = value
        elif tag == DT_STRSZ:
            size = value
        elif tag in (DT_NEEDED, DT_RPATH, DT_RUNPATH):
            values.append((tag, value))
    if not values:
        return
    if len(values) > MAX_NEEDED or not 0 < size <= MAX_STRINGS_BYTES:
        raise ValueError(f"{len(values)} names in a string table of {size} bytes")
    strings = _exactly(read, _file_offset(address, size, loads), size)
    for tag, value in values:
        if tag == DT_NEEDED:
            elf.needed.append(_text(strings, value))
        else:
            (elf.rpath if tag == DT_RPATH else elf.runpath).extend(_text(strings, value).split(":"))


def _file_offset(address: int, size: int, loads: list[tuple[int, int, int]]) -> int:
    """Return where in the file the `size` bytes at a virtual address lie."""
    for offset, start, length in loads:
        if start <= address and address + size <= start + length:
            return address - start + offset
    raise ValueError("string table outside of every segment")


def _text(data: bytes, offset: int) -> str:
    """Return the NUL-terminated name at `offset`."""
    end = data.find(b"\0", offset, offset + MAX_NAME)
    if end < 0:
        raise ValueError("name without an end")
    return data[offset:end].decode("utf-8", "surrogateescape")


def _exactly(read: Read, offset: int, size: int) -> bytes:
    data = read(offset, size)
    if len(data) != size:
        raise ValueError(f"ends within {size} bytes at {offset}")
    return data
