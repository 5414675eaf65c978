"""Local archives that ADD unpacks: tar, plain or compressed with gzip, bzip2, xz or zstd, told by content and never by
name.

The entries go to the helper as they are, which performs them inside the step's root: the archive is hostile, the
helper is what keeps it there.
"""

from __future__ import annotations

from sampan.errors import SampanError
from sampan.oci.tarreader import TarReader
from sampan.transfer import codec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sampan.build.context import Context, File
    from sampan.oci.entry import Content, Entry

    Read = Callable[[int], bytes]

_BLOCK = 512


def is_archive(context: Context, file: File) -> bool:
    """Say whether a file is a tar archive with at least one member, compressed or not."""
    if file.stat.st_size < 20:
        return False
    with context.opened(file) as reader:
        try:
            return any(True for _ in _open(reader.read, file.path))
        except SampanError:
            return False  # a damaged or foreign file is copied as it is


def entries(read: Read, name: str, owner: tuple[int, int] | None) -> Iterator[tuple[Entry, Content]]:
    """Give the members of an archive, with another owner if one is given."""
    for entry, content in _open(read, name):
        if owner is not None:
            entry.uid, entry.gid = owner
        yield entry, content


def _open(read: Read, name: str) -> TarReader:
    source = codec.Peek(read)
    return TarReader(codec.decoder(codec.detect(source.peek(_BLOCK)), source.read, name))
