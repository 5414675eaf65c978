"""What callers of the library may give where an archive is written or read: a path, a descriptor, a file object."""

from __future__ import annotations

import os

from sampan.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from typing import Any, BinaryIO

    Place = str | os.PathLike[str] | int | BinaryIO

_STEP = 1 << 18


def _descriptor(place: object) -> int:
    """Give the descriptor of a file object, -1 when it has none (io.BytesIO)."""
    try:
        return int(place.fileno())  # type: ignore[attr-defined]
    except (AttributeError, OSError):  # io.UnsupportedOperation is an OSError
        return -1


def writable(place: Place, what: str) -> AbstractContextManager[int]:
    """Give a descriptor to write to; a file at a path appears when it is whole and on the disk."""
    from contextlib import nullcontext

    from sampan.store.wholefile import WholeFile

    if isinstance(place, int):
        return nullcontext(place)
    if isinstance(place, (str, os.PathLike)):
        return WholeFile(os.fspath(place), what)
    if not hasattr(place, "write"):
        raise InvalidArgument(
            f"cannot write {what} to a {type(place).__name__}",
            "give a path, a file object opened in binary, or a descriptor",
        )
    fd = _descriptor(place)
    if fd < 0:
        return _piped(place.write)
    place.flush()
    return nullcontext(fd)


def readable(place: Place, what: str) -> AbstractContextManager[int | str]:
    """Give a path, or a descriptor to read from."""
    from contextlib import nullcontext

    if isinstance(place, int):
        return nullcontext(place)
    if isinstance(place, (str, os.PathLike)):
        return nullcontext(os.fspath(place))
    if not hasattr(place, "read"):
        raise InvalidArgument(
            f"cannot read {what} from a {type(place).__name__}",
            "give a path, a file object opened in binary, or a descriptor",
        )
    fd = _descriptor(place)
    if fd < 0:
        return _fed(place.read)
    if place.seekable():
        os.lseek(fd, place.tell(), os.SEEK_SET)  # what it has read ahead is read again
    return nullcontext(fd)


def _piped(write: Callable[[bytes], Any]) -> AbstractContextManager[int]:
    """Give the end of a pipe whose other end a thread hands on to `write`."""

    def move(read_end: int, _: int) -> None:
        while data := os.read(read_end, _STEP):
            write(data)

    return _pump(move, ours=1)


def _fed(read: Callable[[int], bytes]) -> AbstractContextManager[int]:
    """Give the end of a pipe that a thread fills from `read`."""

    def move(_: int, write_end: int) -> None:
        while data := read(_STEP):
            view = memoryview(data)
            while view:
                view = view[os.write(write_end, view) :]

    return _pump(move, ours=0)


def _pump(move: Callable[[int, int], None], ours: int) -> AbstractContextManager[int]:
    from contextlib import contextmanager

    @contextmanager
    def pump() -> Iterator[int]:
        import threading

        ends = os.pipe()
        failures: list[BaseException] = []

        def work() -> None:
            try:
                move(*ends)
            except BaseException as exc:  # noqa: B036  (raised again in the caller's thread)
                if not isinstance(exc, BrokenPipeError):  # a reader that has enough, or has failed, says so itself
                    failures.append(exc)
            finally:
                os.close(ends[1 - ours])

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        try:
            yield ends[ours]
        except BaseException:
            if failures:
                raise failures[0] from None  # why the pipe broke
            raise
        finally:
            os.close(ends[ours])
            thread.join()
        if failures:
            raise failures[0]

    return pump()
