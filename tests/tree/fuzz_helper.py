"""Fuzzes the helper's tree functions under sanitizers: random entry streams, some of them broken, then random requests.

    PYTHONPATH=. python tests/tree/fuzz_helper.py SECONDS [SEED]

Needs root and cc.  Prints how the runs ended; a sanitizer's finding stops it, with the stream kept in a file.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from treesupport import OPAQUE, compile_harness

from sampan.oci.entry import Entry
from sampan.runtime import tree

NAMES = (b"a", b"b", b"c", b"l", b"dd")
TARGETS = (b"a", b"..", b"/", b"../..", b"/a/b", b"l", b"./c/../b", b"dd/", b"b/l")


def path(chance: random.Random, least: int = 1) -> bytes:
    return b"/".join(chance.choice(NAMES) for _ in range(chance.randrange(least, 5)))


def entry(chance: random.Random, merged: bool) -> bytes:
    """Make one record that is valid by itself."""
    type = chance.choice("DDDFFFLLHCBPW" if merged else "DDDFFFLLHCBP")
    made = Entry(type, path(chance), chance.choice((0, 0o755, 0o4755, 0o2777)), chance.choice((0, 5)), 0)
    made.mtime_sec, made.mtime_nsec = chance.randrange(-(2**33), 2**33), chance.randrange(10**9)
    if type in "LH":
        made.link = chance.choice(TARGETS) if type == "L" else path(chance)
    if type in "DW":
        made.flags = chance.choice((0, 1 if type == "D" else 2))
    if type in "BC":
        made.major, made.minor = chance.choice(((0, 0), (1, 3)))
    if type in "DF" and chance.random() < 0.3:
        made.xattrs = {b"user.x%d" % n: chance.randbytes(chance.randrange(200)) for n in range(chance.randrange(4))}
    if type != "F":
        return tree.encode_entry(made)
    made.size = chance.choice((0, 10, 5000, 9000, 300_000))
    chunk = b""
    if made.size:
        offset = chance.choice((0, chance.randrange(made.size)))
        length = chance.randrange(1, made.size - offset + 1)
        chunk = tree._CHUNK.pack(offset, length) + chance.choice((bytes(length), chance.randbytes(length)))
    return tree.encode_entry(made) + chunk + tree._LAST


def stream(chance: random.Random, merged: bool) -> bytes:
    data = b"".join(entry(chance, merged) for _ in range(chance.randrange(1, 12))) + tree.encode_entry(Entry("E", b""))
    if chance.random() < 0.2:
        broken = bytearray(data)
        for _ in range(chance.randrange(1, 4)):
            broken[chance.randrange(len(broken))] = chance.randrange(256)
        data = bytes(broken[: chance.randrange(len(broken) + 1)])
    return data


def requests(chance: random.Random) -> bytes:
    records = [
        Entry("R", path(chance, 0), size=chance.choice((0, 1, 2**62)), flags=chance.choice((0, 8, 16, 24)))
        for _ in range(3)
    ]
    return b"".join(map(tree.encode_entry, records))


def run(command: list[str], data: bytes, counts: dict[str, int]) -> None:
    done = subprocess.run(command, input=data, capture_output=True, check=False)
    key = (
        f"{command[1]} {done.returncode} {b' '.join(done.stderr.split()[:2]).decode() if done.returncode == 1 else ''}"
    )
    counts[key] = counts.get(key, 0) + 1
    if done.returncode not in (0, 1):
        kept = tempfile.mkstemp(prefix="tree-stream-")
        os.write(kept[0], data)
        sys.exit(f"{command}\n{done.stderr.decode()}\nstream kept in {kept[1]}")


def main(seconds: float, seed: int) -> None:
    place = Path(tempfile.mkdtemp(prefix="tree-fuzz-"))
    program = compile_harness(place / "harness", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
    chance, counts, root = random.Random(seed), dict[str, int](), place / "root"
    end, n = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        if n % 20 == 0:
            shutil.rmtree(root, ignore_errors=True)
            root.mkdir()
        n += 1
        flags = chance.choice((0, 1, 3, 256, 257, 128, 1024, 16))
        base = chance.choice(("", "", "a", "l/b")) if flags == 128 else ""
        apply = [str(program), "apply", str(root), str(flags), base, chance.choice(("", OPAQUE))]
        run(apply, stream(chance, bool(flags & 1)), counts)
        pack = [
            str(program),
            "pack",
            str(root),
            str(chance.choice((0, 64, 512, 512, 32)) | chance.choice((0, tree.RECORDED))),
            "",
            chance.choice(("", OPAQUE)),
        ]
        run(pack, requests(chance), counts)
    shutil.rmtree(place)
    for key in sorted(counts):
        print(counts[key], key)


if __name__ == "__main__":
    main(float(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else int(time.time()))
