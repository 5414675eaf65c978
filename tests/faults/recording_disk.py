"""A disk that remembers: a file system of one file, `disk`, for a loop device, whose every write and flush is logged.

    recording_disk.py IMAGE MOUNT_POINT LOG      serves until its input ends; a line of it marks the log and is echoed

What a disk may lose in a power cut is what came after the last flush, in any order. The page cache above the loop
device is the file system's own, so dirty pages never reach this log before they are written back: just as on a disk.
Protocol: linux/fuse.h, version 7.31; requests are answered in order, by one thread.
"""

from __future__ import annotations

import ctypes
import errno
import os
import select
import stat
import sys
from struct import Struct

RECORD = Struct("<cQI")  # kind, offset, length; then the bytes
WRITE, FLUSH, MARK = b"W", b"F", b"M"
MAX_WRITE = 1 << 20
_IN = Struct("<IIQQIIIHH")
_OUT = Struct("<IiQ")
_ATTR = Struct("<QQQQQQIIIIIIIIII")
_INIT = Struct("<IIIIHHIIHHII6I")
_READ = Struct("<QQI")
(LOOKUP, FORGET, GETATTR, SETATTR, OPEN, READ, PUT, STATFS, RELEASE) = (1, 2, 3, 4, 14, 15, 16, 17, 18)
(FSYNC, OP_FLUSH, INIT, OPENDIR, RELEASEDIR, ACCESS, DESTROY, BATCH_FORGET) = (20, 25, 26, 27, 29, 34, 38, 42)
ROOT, DISK = 1, 2
FOREVER = 1 << 30


class Server:
    """Answer the kernel's requests for one file."""

    def __init__(self, fuse: int, disk: bytearray, log: int) -> None:
        self.fuse = fuse
        self.disk = disk
        self.log = log

    def record(self, kind: bytes, offset: int = 0, data: bytes | memoryview = b"") -> None:
        os.writev(self.log, [RECORD.pack(kind, offset, len(data)), data])

    def serve(self) -> None:
        words = b""
        while True:
            ready, _, _ = select.select([self.fuse, 0], [], [])
            if self.fuse in ready and not self.answer():
                return
            if 0 in ready:
                part = os.read(0, 4096)
                if not part:
                    return
                *lines, words = (words + part).split(b"\n")
                for line in lines:
                    self.record(MARK, 0, line)
                    os.write(1, line + b"\n")

    def answer(self) -> bool:
        try:
            data = os.read(self.fuse, MAX_WRITE + 4096)
        except OSError as exc:
            return exc.errno != errno.ENODEV  # unmounted
        _, op, unique, node, *_ = _IN.unpack_from(data)
        if op in (FORGET, BATCH_FORGET):
            return True
        code, out = 0, b""
        try:
            out = self.perform(op, node, memoryview(data)[_IN.size :])
        except OSError as exc:
            code = exc.errno or errno.EIO
        os.write(self.fuse, _OUT.pack(_OUT.size + len(out), -code, unique) + out)
        return op != DESTROY

    def attributes(self, node: int) -> bytes:
        directory = node == ROOT
        size = 0 if directory else len(self.disk)
        mode = stat.S_IFDIR | 0o755 if directory else stat.S_IFREG | 0o600
        return _ATTR.pack(node, size, size // 512, 0, 0, 0, 0, 0, 0, mode, 1 + directory, 0, 0, 0, 4096, 0)

    def perform(self, op: int, node: int, body: memoryview) -> bytes:
        if op == INIT:
            _, _, readahead, _ = Struct("<IIII").unpack_from(body)
            flags = 1 << 5 | 1 << 22  # FUSE_BIG_WRITES, FUSE_MAX_PAGES
            return _INIT.pack(7, 31, readahead, flags, 16, 12, MAX_WRITE, 1, 256, 0, 0, 0, *[0] * 6)
        if op == LOOKUP:
            if bytes(body).rstrip(b"\0") != b"disk":
                raise OSError(errno.ENOENT, "")
            return Struct("<QQQQII").pack(DISK, 0, FOREVER, FOREVER, 0, 0) + self.attributes(DISK)
        if op in (GETATTR, SETATTR):
            return Struct("<QII").pack(FOREVER, 0, 0) + self.attributes(node)
        if op in (OPEN, OPENDIR):
            return Struct("<QIi").pack(0, 0, 0)
        if op == READ:
            _, offset, size = _READ.unpack_from(body)
            return bytes(self.disk[offset : offset + size])
        if op == PUT:
            _, offset, size = _READ.unpack_from(body)
            data = body[40 : 40 + size]
            self.disk[offset : offset + size] = data
            self.record(WRITE, offset, data)
            return Struct("<II").pack(size, 0)
        if op == FSYNC:
            self.record(FLUSH)
            return b""
        if op == STATFS:
            return Struct("<QQQQQIIII6I").pack(1, 0, 0, 2, 0, 4096, 255, 4096, 0, *[0] * 6)
        if op in (OP_FLUSH, RELEASE, RELEASEDIR, ACCESS, DESTROY):
            return b""
        raise OSError(errno.ENOSYS, "")


def mount(point: str) -> int:
    """Mount the file system and return the descriptor of its requests (Documentation/filesystems/fuse.rst)."""
    fuse = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    libc = ctypes.CDLL(None, use_errno=True)
    options = f"fd={fuse},rootmode=40000,user_id=0,group_id=0".encode()
    if libc.mount(b"recording", point.encode(), b"fuse", 0, options) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), point)
    return fuse


def main(image: str, point: str, log: str) -> None:
    with open(image, "rb") as file:
        disk = bytearray(file.read())
    server = Server(mount(point), disk, os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600))
    os.write(1, b"ready\n")
    server.serve()


if __name__ == "__main__":
    main(*sys.argv[1:])
